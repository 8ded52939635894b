"""Many images through one upscaler: order, lookahead, mixed models, failures and retries."""

import mmap
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks
from hypothesis import given, settings
from hypothesis import strategies as st
from upscaler_pictures import picture, to_8bit

from srcli.backends import registry
from srcli.backends.base import Batch, Engine
from srcli.errors import InferenceError, InputError, UsageError
from srcli.imaging.pixels import Pixels
from srcli.models import auto
from srcli.models.spec import ModelSpec
from srcli.settings import Settings
from srcli.stream import WAIT, Image, Result, Wait
from srcli.upscaler import Upscaler

Inject = Callable[[Callable[[Batch, Engine], Batch]], None]
DEADLINE = 60.0
"""Seconds after which something that never comes has failed to come."""


class Faulty:
    """An engine whose runs go through `fault`."""

    def __init__(self, engine: Engine, fault: Callable[[Batch, Engine], Batch]) -> None:
        self._engine, self._fault = engine, fault
        self.info, self.scale = engine.info, engine.scale

    def run(self, lr: Batch) -> Batch:
        return self._fault(lr, self._engine)


class Ahead(Faulty):
    """An engine that takes three windows before it gives the first result, as GPUs do."""

    def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        waiting = list[Batch]()
        for batch in batches:
            waiting.append(batch)
            if len(waiting) == 3:
                yield self.run(waiting.pop(0))
        yield from map(self.run, waiting)


@pytest.fixture(params=[Faulty, Ahead], ids=["one window at a time", "three windows at a time"])
def inject(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Inject:
    real = registry.load

    def install(fault: Callable[[Batch, Engine], Batch]) -> None:
        def load(name: str, path: Path, spec: ModelSpec, options: Settings) -> Engine:
            engine: Engine = request.param(real(name, path, spec, options), fault)
            return engine

        monkeypatch.setattr(registry, "load", load)

    return install


def right(lr: Batch, engine: Engine) -> Batch:
    return engine.run(lr)


def pixels_of(results: Iterable[Result]) -> list[Pixels]:
    found = list(results)
    assert [result.error for result in found] == [None] * len(found)
    return [result.pixels for result in found if result.pixels is not None]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 50)), min_size=1, max_size=8),
    channels=st.integers(1, 4),
    scale=st.sampled_from([2, 2.5, 6]),
    tile=st.integers(17, 60),
)
@settings(max_examples=15)
def test_a_stream_gives_what_single_calls_give(
    tiny_catalog: Path, sizes: list[tuple[int, int]], channels: int, scale: float, tile: int
) -> None:
    dice = np.random.default_rng(0)
    images = [dice.integers(0, 256, (*size, channels), np.uint8) for size in sizes]
    upscaler = Upscaler("tiny", scale, precision="fp32", tile=tile)
    single = [upscaler(image) for image in images]
    streamed = pixels_of(upscaler.stream(images))
    assert all(np.array_equal(one, other) for one, other in zip(streamed, single, strict=True))


def test_every_image_may_have_a_size_and_an_order_of_its_own(tiny_catalog: Path) -> None:
    image = to_8bit(picture(10, 12))
    upscaler = Upscaler("tiny", 2, precision="fp32")
    plain, larger, bgr = pixels_of(
        upscaler.stream([image, Image(image, (33, 21)), Image(image, order="BGR")])
    )
    assert [one.shape for one in (plain, larger, bgr)] == [(20, 24, 3), (33, 21, 3), (20, 24, 3)]
    assert np.array_equal(bgr[..., ::-1], plain)


def memory_of(array: object) -> object:
    """What holds an array's data."""
    while isinstance(array, np.ndarray | memoryview):
        array = array.base if isinstance(array, np.ndarray) else array.obj
    return array


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_bgr_in_scratch_is_the_same_to_the_bit(tiny_catalog: Path, channels: int, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, channels), np.uint8)
    upscaler = Upscaler("tiny", 2.5, precision="fp32")
    (ram, scratch) = pixels_of(upscaler.stream([image, Image(image, order="BGR", limit=1, folder=tmp_path)]))
    order = {2: [0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    assert isinstance(memory_of(scratch), mmap.mmap)
    assert np.array_equal(scratch[..., order], ram)
    assert list(tmp_path.iterdir()) == [], "the scratch file has no name"


def test_images_are_taken_lazily_and_a_bounded_number_ahead(tiny_catalog: Path, inject: Inject) -> None:
    inject(right)
    taken = list[int]()

    def images() -> Iterator[Pixels]:
        for number in range(50):
            taken.append(number)
            yield to_8bit(picture(8, 8, number))

    results = Upscaler("tiny", 2, precision="fp32").stream(images())
    assert taken == []
    for number in range(10):
        next(results)
        assert len(taken) <= number + 1 + 8
    results.close()


def test_the_engine_goes_on_with_the_next_image_before_a_result_is_out(
    tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its third window is the third image's: it is not drained between images."""
    runs = list[int]()
    real = registry.load

    class Counting(Ahead):
        def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
            runs.append(1)
            return super().run_each(batches)

    monkeypatch.setattr(
        registry, "load", lambda name, path, spec, options: Counting(real(name, path, spec, options), right)
    )
    results = Upscaler("tiny", 2, precision="fp32").stream([to_8bit(picture(8, 8))] * 20)
    assert len(pixels_of(results)) == 20
    assert len(runs) == 1


def test_models_mix_in_the_order_of_the_images(tiny_catalog: Path, tmp_path: Path) -> None:
    other = tiny_networks.write(tmp_path, replace(tiny_networks.tiny_spec(2), name="other"), seed=9)
    image = to_8bit(picture(8, 8))
    models = ["tiny", other, other, "tiny", other]
    found = list(Upscaler("tiny", 2).stream(Image(image, model=model) for model in models))
    assert [one.computed.model for one in found if one.computed] == [
        "tiny",
        "other",
        "other",
        "tiny",
        "other",
    ]
    alone = {"tiny": Upscaler("tiny", 2)(image), other: Upscaler(other, 2)(image)}
    assert all(np.array_equal(one.pixels, alone[model]) for one, model in zip(found, models, strict=True))


def test_auto_is_asked_for_each_image(tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto, "CLEAN", "tiny")
    monkeypatch.setattr(auto, "PHOTO", "tiny")
    asked = list[int]()
    monkeypatch.setattr(auto, "choose", lambda model, image: asked.append(len(image)) or "tiny")
    pixels_of(Upscaler("auto", 2).stream([to_8bit(picture(side, 8)) for side in (5, 7, 6)]))
    assert asked == [5, 7, 6]


def fails() -> Pixels:
    raise InputError("It cannot be read.")


def test_an_image_that_fails_does_not_end_the_stream(tiny_catalog: Path, inject: Inject) -> None:
    inject(right)
    good = to_8bit(picture(9, 9))
    unread: Any = None  # what OpenCV gives for a file that it cannot read
    images = [good, Image(fails), unread, np.zeros((3, 3, 7), np.uint8), Image(good, (900, 900)), good]
    found = list(Upscaler("tiny", 2).stream(images))
    errors = [type(result.error) for result in found]
    assert errors == [type(None), *[InputError] * 3, UsageError, type(None)]


def test_an_engine_that_fails_on_one_image_fails_no_other(tiny_catalog: Path, inject: Inject) -> None:
    """Several are in flight when it fails: each is tried alone."""

    def picky(lr: Batch, engine: Engine) -> Batch:
        if lr.shape[2] == 13:
            raise InferenceError("The device was lost.")
        return engine.run(lr)

    inject(picky)
    images = [to_8bit(picture(side, 9)) for side in (8, 9, 13, 10, 13, 11, 12)]
    found = list(Upscaler("tiny", 2, precision="fp32").stream(images))
    failed = [result.error is not None for result in found]
    assert failed == [False, False, True, False, True, False, False]


def test_memory_that_runs_out_halves_tiles_for_all_images_in_flight(
    tiny_catalog: Path, inject: Inject
) -> None:
    images = [picture(side, 50, side) for side in (20, 90, 100, 20, 95)]
    exact = pixels_of(Upscaler("tiny", 2, precision="fp32").stream(images))

    def small_only(lr: Batch, engine: Engine) -> Batch:
        if max(lr.shape[2:]) > 60:
            raise MemoryError("injected")
        return engine.run(lr)

    inject(small_only)
    found = pixels_of(Upscaler("tiny", 2, precision="fp32").stream(images))
    assert all(np.abs(a - b).max() < 1e-4 for a, b in zip(found, exact, strict=True))


def test_an_overflow_is_computed_again_alone_in_fp32(
    tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch, inject: Inject
) -> None:
    images = [to_8bit(picture(side, 9)) for side in (8, 13, 9, 10)]
    exact = pixels_of(Upscaler("tiny", 2, precision="fp32").stream(images))
    real = registry.load

    def load(name: str, path: Path, spec: ModelSpec, options: Settings) -> Engine:
        engine = real(name, path, spec, replace(options, precision="fp32"))
        low = options.precision == "fp16"
        engine.info = replace(engine.info, precision=options.precision)  # type: ignore[misc]
        return Ahead(engine, spoiling if low else right)

    def spoiling(lr: Batch, engine: Engine) -> Batch:
        result = engine.run(lr).copy()
        result[..., 0] = np.nan if lr.shape[2] == 13 else result[..., 0]
        return result

    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(registry, "choose", lambda name, options: registry.Choice("onnxruntime", "test"))
    found = list(Upscaler("tiny", 2, precision="fp16").stream(images))
    assert [one.computed.info.precision for one in found if one.computed] == ["fp16", "fp32", "fp16", "fp16"]
    assert all(np.array_equal(one.pixels, other) for one, other in zip(found, exact, strict=True))


def test_closing_ends_the_engines_thread(tiny_catalog: Path, inject: Inject) -> None:
    inject(right)
    before = threading.active_count()
    results = Upscaler("tiny", 2, tile=20).stream([to_8bit(picture(200, 200))] * 3)
    next(results)
    results.close()
    assert threading.active_count() == before


def test_nothing_ready_drains_the_engine_before_more_is_asked_for(tiny_catalog: Path, inject: Inject) -> None:
    """The second image is there only after the first one's result is out."""
    inject(right)
    out = threading.Event()

    def images() -> Generator[Pixels | Wait]:
        yield to_8bit(picture(8, 8))
        yield WAIT
        assert out.wait(DEADLINE), "the first result never came"
        yield to_8bit(picture(9, 9))

    sizes = []
    for result in Upscaler("tiny", 2).stream(images()):
        assert result.pixels is not None
        sizes.append(result.pixels.shape[0])
        out.set()
    assert sizes == [16, 18]


def test_an_error_of_the_source_comes_after_the_results(tiny_catalog: Path) -> None:
    def images() -> Iterator[Pixels]:
        yield to_8bit(picture(8, 8))
        raise KeyError("a bug of the caller")

    results = Upscaler("tiny", 2).stream(images())
    assert next(results).error is None
    with pytest.raises(KeyError):
        next(results)


def test_tiles_are_counted_for_each_image(tiny_catalog: Path) -> None:
    calls = list[tuple[int, int, int]]()
    upscaler = Upscaler("tiny", 2, tile=32)
    list(upscaler.stream([to_8bit(picture(50, 40))] * 2, lambda *call: calls.append(call)))
    total = calls[0][2]
    assert calls == [(number, done, total) for number in (0, 1) for done in range(1, total + 1)]


def test_an_engine_that_gives_too_few_results_is_an_error(
    tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(Ahead):
        def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
            yield from list(super().run_each(batches))[:-1]

    real = registry.load
    monkeypatch.setattr(
        registry, "load", lambda name, path, spec, options: Short(real(name, path, spec, options), right)
    )
    (found,) = Upscaler("tiny", 2).stream([to_8bit(picture(8, 8))])
    assert isinstance(found.error, InferenceError)


def moving(frames: int, dtype: str = "uint16") -> list[Pixels]:
    """Noise that stands still, and a square on it that moves within one corner; two frames are equal."""
    top = 255 if dtype == "uint8" else 65535
    ground = np.random.default_rng(0).integers(0, top, (96, 160, 3)).astype(dtype)
    shown = []
    for number in range(frames):
        frame = ground.copy()
        place = 8 * min(number, frames - 2)
        frame[4:20, place : place + 12] = top
        shown.append(frame)
    return shown


@pytest.mark.parametrize("scale", [2, 2.5, 6])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_equal_windows_keep_the_result_of_the_image_before(
    tiny_catalog: Path, inject: Inject, scale: float, dtype: str
) -> None:
    """The same to the bit as single images, with less than half of the windows."""
    runs = [0]

    def count(lr: Batch, engine: Engine) -> Batch:
        runs[0] += 1
        return right(lr, engine)

    inject(count)
    frames = moving(6, dtype)
    upscaler = Upscaler("tiny", scale, tile=48)
    expected = [upscaler(frame) for frame in frames]
    alone, runs[0] = runs[0], 0
    found = pixels_of(upscaler.stream([Image(frame, still=0) for frame in frames]))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert runs[0] < alone / 2


def test_images_of_other_sizes_or_kinds_take_nothing_from_the_one_before(tiny_catalog: Path) -> None:
    color = moving(3)
    images = [color[0], color[1][:64], color[1][..., 0], color[1], color[2]]
    upscaler = Upscaler("tiny", 2, tile=48)
    found = pixels_of(upscaler.stream([Image(image, still=0) for image in images]))
    for one, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(one, upscaler(image))


def test_results_of_another_precision_are_not_taken(tiny_catalog: Path, inject: Inject) -> None:
    """The first image overflows and is computed in fp32; the next ones do not, and are not mixed."""

    def overflow(lr: Batch, engine: Engine) -> Batch:
        result = right(lr, engine)
        if lr.max() == 1 and engine.info.precision != "fp32":
            return np.full_like(result, np.nan)
        return result

    inject(overflow)
    frames = [np.minimum(frame, 60000) for frame in moving(4)]
    frames[0][90, 150] = 65535
    upscaler = Upscaler("tiny", 2, tile=48, precision="bf16")
    expected = [upscaler(frame) for frame in frames]
    found = pixels_of(upscaler.stream([Image(frame, still=0) for frame in frames]))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_small_differences_add_up_to_a_new_result(tiny_catalog: Path) -> None:
    """Each frame is one level brighter than the last: with 3 of 255, every fourth is computed."""
    frames = [np.full((96, 96, 3), 100 + number, np.uint8) for number in range(9)]
    upscaler = Upscaler("tiny", 2, tile=48)
    found = pixels_of(upscaler.stream([Image(frame, still=3) for frame in frames]))
    corner = [int(one[4, 4, 0]) for one in found]
    expected = [int(upscaler(frame)[4, 4, 0]) for frame in frames]
    assert corner == [expected[number // 4 * 4] for number in range(9)]
