"""Images compared with the one before: equal parts keep its result, which is that of computing everything."""

import threading
from collections.abc import Generator, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from faulty_engines import DEADLINE, Fault, Inject, pixels_of, right
from hypothesis import given, settings
from hypothesis import strategies as st

from srcli.backends.base import Batch, Engine
from srcli.errors import InferenceError
from srcli.imaging.pixels import Pixels
from srcli.stream import WAIT, Image, Wait
from srcli.upscaler import Upscaler


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


def counted(inject: Inject, fault: Fault = right) -> list[int]:
    """The sides of the windows that engines are given from now on."""
    sides = list[int]()

    def count(lr: Batch, engine: Engine) -> Batch:
        sides.append(max(lr.shape[2:]))
        return fault(lr, engine)

    inject(count)
    return sides


def held(drawings: str, side: int = 24, channels: int = 3) -> list[Pixels]:
    """Frames of noise, equal where the letters are."""
    shape = (side, side, channels)
    return [np.random.default_rng(ord(one)).integers(0, 255, shape, np.uint8) for one in drawings]


def compared(frames: list[Pixels]) -> list[Image]:
    return [Image(frame, still=0) for frame in frames]


def shows(lr: Batch, frame: Pixels) -> bool:
    """Whether a window is the upper left of a frame."""
    return np.allclose(lr[0, :, 0, 0], frame[0, 0] / 255, atol=1e-3)


def assert_as_computed(upscaler: Upscaler, found: list[Pixels], frames: list[Pixels]) -> None:
    for one, frame in zip(found, frames, strict=True):
        np.testing.assert_array_equal(one, upscaler(frame))


@pytest.mark.parametrize("drawings", ["aab", "abb", "aaaaaaaaaaaaaaaaaaaab", "abbccdddaa", "aaa"])
def test_an_equal_image_costs_no_window(tiny_catalog: Path, inject: Inject, drawings: str) -> None:
    sides, calls = counted(inject), list[tuple[int, int, int]]()
    upscaler, frames = Upscaler("tiny", 2), held(drawings)
    found = pixels_of(upscaler.stream(compared(frames), lambda *call: calls.append(call)))
    assert len(sides) == 1 + sum(a != b for a, b in pairwise(drawings))
    assert calls == [(number, 1, 1) for number in range(len(drawings))]
    assert_as_computed(upscaler, found, frames)


@pytest.mark.parametrize(
    ("scale", "ensemble", "channels", "windows"), [(6, False, 3, 2), (2.5, True, 3, 8), (6, True, 4, 32)]
)
def test_equal_images_cost_no_window_of_any_pass(
    tiny_catalog: Path, inject: Inject, scale: float, ensemble: bool, channels: int, windows: int
) -> None:
    sides, last = counted(inject), dict[int, tuple[int, int]]()
    upscaler = Upscaler("tiny", scale, ensemble=ensemble, precision="fp32")
    frames = held("aabbba", channels=channels)
    found = pixels_of(upscaler.stream(compared(frames), lambda number, *done: last.update({number: done})))
    assert len(sides) == 3 * windows
    assert len(last) == 6
    assert all(done == total > 0 for done, total in last.values())
    assert_as_computed(upscaler, found, frames)


def test_alpha_that_alone_is_equal_is_taken(tiny_catalog: Path, inject: Inject) -> None:
    sides = counted(inject)
    upscaler, frames = Upscaler("tiny", 2, precision="fp32"), held("ab", channels=4)
    frames[1][..., 3] = frames[0][..., 3]
    found = pixels_of(upscaler.stream(compared(frames)))
    assert len(sides) == 3
    assert_as_computed(upscaler, found, frames)


@given(
    parts=st.lists(st.tuples(st.integers(0, 1), st.integers(2, 3), st.integers(0, 9)), max_size=12),
    channels=st.integers(1, 4),
    scale=st.sampled_from([2, 2.5, 6]),
    tile=st.sampled_from([24, 40, 256]),
)
@settings(max_examples=15)
def test_whatever_stands_still_results_are_as_if_computed(
    tiny_catalog: Path, parts: list[tuple[int, int, int]], channels: int, scale: float, tile: int
) -> None:
    """Each half is one of two; some frames are of another size, or not compared."""
    halves, images = held("abcd", 40, channels), list[Image]()
    for upper, lower, dice in parts:
        frame = np.concatenate([halves[upper], halves[lower]])
        images.append(Image(frame[: 60 if dice == 0 else 80], still=None if dice == 1 else 0))
    upscaler = Upscaler("tiny", scale, precision="fp32", tile=tile)
    found = pixels_of(upscaler.stream(images))
    for one, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(one, upscaler(np.asarray(image.pixels)))


def test_equal_values_of_another_type_are_not_taken(tiny_catalog: Path) -> None:
    frames = [np.zeros((24, 24, 3), dtype) for dtype in (np.uint8, np.uint16, np.float32)]
    upscaler = Upscaler("tiny", 2)
    assert_as_computed(upscaler, pixels_of(upscaler.stream(compared(frames))), frames)


def test_equal_images_are_taken_a_bounded_number_ahead(tiny_catalog: Path, inject: Inject) -> None:
    inject(right)
    taken = list[int]()

    def images() -> Iterator[Image]:
        for image in compared(held("ab" + 50 * "c")):
            taken.append(1)
            yield image

    for number, _ in enumerate(Upscaler("tiny", 2).stream(images())):
        assert len(taken) <= number + 1 + 8
    assert len(taken) == 52


def test_an_equal_image_is_out_before_the_next_is_computed(tiny_catalog: Path, inject: Inject) -> None:
    frames, out = held("aabbccdd"), threading.Event()

    def waiting(lr: Batch, engine: Engine) -> Batch:
        assert not shows(lr, frames[2]) or out.wait(DEADLINE), "the second result never came"
        return right(lr, engine)

    inject(waiting)
    upscaler = Upscaler("tiny", 2, precision="fp32")
    found = list[Pixels]()
    for result in upscaler.stream(compared(frames)):
        assert result.pixels is not None
        found.append(result.pixels)
        if len(found) == 2:
            out.set()
    assert_as_computed(upscaler, found, frames)


def test_an_equal_image_is_complete_before_more_is_asked_for(tiny_catalog: Path, inject: Inject) -> None:
    inject(right)
    out = threading.Event()

    def images() -> Generator[Image | Wait]:
        first, second, third = compared(held("aab"))
        yield from (first, second, WAIT)
        assert out.wait(DEADLINE), "the second result never came"
        yield third

    for number, result in enumerate(Upscaler("tiny", 2).stream(images())):
        assert result.error is None
        if number == 1:
            out.set()


def test_an_image_equal_to_one_that_fails_fails_itself(tiny_catalog: Path, inject: Inject) -> None:
    frames = held("aabbbcc")

    def fault(lr: Batch, engine: Engine) -> Batch:
        if shows(lr, frames[2]):
            raise InferenceError("The device was lost.")
        return right(lr, engine)

    inject(fault)
    found = list(Upscaler("tiny", 2, precision="fp32").stream(compared(frames)))
    assert [result.error is not None for result in found] == [False] * 2 + [True] * 3 + [False] * 2


def test_an_image_equal_to_one_that_failed_once_is_computed(tiny_catalog: Path, inject: Inject) -> None:
    frames, left = held("aabbbcc"), [1]

    def fault(lr: Batch, engine: Engine) -> Batch:
        if shows(lr, frames[2]) and left:
            left.clear()
            raise InferenceError("The device was lost.")
        return right(lr, engine)

    inject(fault)
    upscaler = Upscaler("tiny", 2, precision="fp32")
    found = list(upscaler.stream(compared(frames)))
    assert [one.error is not None for one in found[:2] + found[3:]] == [False] * 6
    good = [number for number, one in enumerate(found) if one.error is None]
    assert_as_computed(upscaler, [found[n].pixels for n in good], [frames[n] for n in good])  # type: ignore[misc]


def test_an_equal_image_needs_the_same_precision(tiny_catalog: Path, inject: Inject) -> None:
    """The second drawing overflows: its repeats take the result in fp32, the next drawing needs none."""
    frames = held("aabbbcc")

    def overflow(lr: Batch, engine: Engine) -> Batch:
        result = right(lr, engine)
        wrong = shows(lr, frames[2]) and engine.info.precision != "fp32"
        return np.full_like(result, np.nan) if wrong else result

    sides, last = counted(inject, overflow), dict[int, tuple[int, int]]()
    upscaler = Upscaler("tiny", 2, precision="bf16")
    found = list(upscaler.stream(compared(frames), lambda number, *done: last.update({number: done})))
    precisions = [one.computed.info.precision for one in found if one.computed]
    assert precisions == ["bf16"] * 2 + ["fp32"] * 3 + ["bf16"] * 2
    assert len(sides) <= 5, "the third drawing may be at work already when the engine is drained"
    assert last == dict.fromkeys(range(7), (1, 1))
    assert_as_computed(upscaler, pixels_of(found), frames)


def test_an_image_equal_to_one_that_ran_out_of_memory_is_right(tiny_catalog: Path, inject: Inject) -> None:
    """Those in flight are computed themselves, and the next ones are taken again."""
    frames, last = held("aaabb" + 12 * "c", side=90), dict[int, tuple[int, int]]()

    def small_only(lr: Batch, engine: Engine) -> Batch:
        if max(lr.shape[2:]) > 60:
            raise MemoryError("injected")
        return engine.run(lr)

    sides = counted(inject, small_only)
    upscaler = Upscaler("tiny", 2, precision="fp32")
    stream = upscaler.stream(compared(frames), lambda number, *done: last.update({number: done}))
    found = pixels_of(stream)
    assert all(done == total > 1 for done, total in last.values())
    assert len(sides) < 12 * last[0][1]
    assert_as_computed(upscaler, found, frames)
