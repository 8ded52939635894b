import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from srcli.errors import InputError
from srcli.imaging import pixels

U8, U16, F32, F64 = (np.dtype(name) for name in ("uint8", "uint16", "float32", "float64"))


def batch_of(values: NDArray[Any]) -> pixels.Batch:
    """One row of values in all three channels."""
    return np.ascontiguousarray(np.broadcast_to(values.astype(np.float32), (1, 3, 1, values.size)))


@pytest.mark.parametrize("dtype", [U8, U16])
@pytest.mark.parametrize("shape", [(256, 257), (256, 257, 3)])
def test_every_integer_survives_the_round_trip(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape)) % (int(pixels.white(dtype)) + 1)
    image = values.reshape(shape).astype(dtype)
    channels = 1 if image.ndim == 2 else 3
    assert np.array_equal(pixels.from_network(pixels.to_network(image), dtype, channels), image)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_floats_survive_the_round_trip(dtype: np.dtype[Any]) -> None:
    image = np.random.default_rng(0).random((9, 8, 3)).astype(np.float32).astype(dtype)
    back = pixels.from_network(pixels.to_network(image), dtype, 3)
    assert back.dtype == dtype
    assert np.array_equal(back, image)


@given(st.integers(0, 2**32 - 1), st.sampled_from([U8, U16]))
def test_rounding_is_to_the_nearest(seed: int, dtype: np.dtype[Any]) -> None:
    """Half a step, plus what float32 loses in the product (2**-24 of white, twice)."""
    values = np.random.default_rng(seed).uniform(-0.5, 1.5, 1000).astype(np.float32)
    wanted = np.clip(values.astype(np.float64), 0, 1) * pixels.white(dtype)
    got = pixels.from_network(batch_of(values), dtype, 3)[0, :, 0].astype(np.float64)
    assert np.abs(got - wanted).max() <= 0.5 + pixels.white(dtype) * 2**-23


def test_halves_go_to_the_even_neighbour() -> None:
    """Stated on values whose product with 255 is an exact half in float32: 0.5 * 255 = 127.5."""
    assert pixels.from_network(batch_of(np.array([0.5])), U8, 3)[0, 0, 0] == 128


@pytest.mark.parametrize("dtype", [U8, U16])
def test_far_outside_is_clipped_not_wrapped(dtype: np.dtype[Any]) -> None:
    far = batch_of(np.array([-1e4, -0.1, 1.1, 1e4, 1e9, 1e30]))
    white = pixels.white(dtype)
    assert pixels.from_network(far, dtype, 3)[0, :, 1].tolist() == [0, 0, white, white, white, white]


def test_a_crop_converts_like_a_copy() -> None:
    batch = np.random.default_rng(1).random((1, 3, 40, 50), np.float32)
    crop = batch[:, :, 3:29, 7:44]
    assert np.array_equal(pixels.from_network(crop, U8, 3), pixels.from_network(crop.copy(), U8, 3))
    assert np.array_equal(pixels.from_network(crop, U8, 1), pixels.from_network(crop.copy(), U8, 1))


def test_gray_is_the_mean_of_three_equal_inputs() -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    batch = pixels.to_network(gray)
    assert batch.shape == (1, 3, 3, 4)
    assert (batch[0, 0] == batch[0, 1]).all()
    mixed = np.stack([np.full((2, 2), v, np.float32) for v in (10 / 255, 20 / 255, 60 / 255)])[None]
    assert (pixels.from_network(mixed, U8, 1) == 30).all()


@pytest.mark.parametrize(
    ("shape", "color", "alpha"),
    [
        ((4, 5), (4, 5), None),
        ((4, 5, 1), (4, 5), None),
        ((4, 5, 2), (4, 5), (4, 5)),
        ((4, 5, 3), (4, 5, 3), None),
        ((4, 5, 4), (4, 5, 3), (4, 5)),
    ],
)
def test_layouts_split_into_views(
    shape: tuple[int, ...], color: tuple[int, ...], alpha: tuple[int, ...] | None
) -> None:
    image = np.zeros(shape, np.uint8)
    c, a = pixels.color_and_alpha(image)
    assert (c.shape, None if a is None else a.shape) == (color, alpha)
    assert np.shares_memory(c, image)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.int32),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.full((4, 4), np.nan, np.float32),
    ],
)
def test_what_is_no_image_is_refused(image: NDArray[Any]) -> None:
    with pytest.raises(InputError):
        pixels.check(image)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_of_another_range_are_refused_and_small_overshoots_are_not(dtype: type) -> None:
    pixels.check(np.array([[-0.1, 1.2]], dtype))
    with pytest.raises(InputError, match="reaches 255: white is 1") as caught:
        pixels.check(np.array([[0, 255]], dtype))
    assert "Divide by 255" in caught.value.hint


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(90, 90), (90, 90, 1), (90, 90, 3)])
def test_two_colours_are_two_and_both_there(dtype: type, shape: tuple[int, ...]) -> None:
    plane = np.zeros(shape, dtype)
    assert not pixels.has_two_colors(plane), "that is one"
    plane[-1, -1] = 1
    assert pixels.has_two_colors(plane), "the second one may come last"
    plane[0, 0] = 1
    assert pixels.has_two_colors(plane)
    plane[-1, 0] = 0.5 if dtype is np.float32 else 2
    assert not pixels.has_two_colors(plane)


def test_counting_colours_takes_no_memory() -> None:
    page = np.zeros((3000, 2000, 4), np.uint8)[..., :3]
    page[1, 1] = 255
    tracemalloc.start()
    assert pixels.has_two_colors(page)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2e6, "18 MB of pixels"


def test_colours_differ_in_any_channel() -> None:
    plane = np.zeros((2, 2, 3), np.uint8)
    plane[0, 1, 2] = plane[1, 1, 2] = 9
    assert pixels.has_two_colors(plane)
    plane[1, 1, 0] = 9
    assert not pixels.has_two_colors(plane)
