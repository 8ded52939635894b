"""Many images through one upscaler: order, lookahead, mixed models, failures and retries."""

import mmap
import threading
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks
from faulty_engines import DEADLINE, Ahead, Inject, pixels_of, right
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
from srcli.stream import WAIT, Image, Wait
from srcli.upscaler import Upscaler


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
    before = set(threading.enumerate())
    results = Upscaler("tiny", 2, tile=20).stream([to_8bit(picture(200, 200))] * 3)
    next(results)
    results.close()
    assert set(threading.enumerate()) <= before  # some of other tests may end meanwhile


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
