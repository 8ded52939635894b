import tracemalloc
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from srcli.imaging import pixels

U8, U16, F32 = (np.dtype(name) for name in ("uint8", "uint16", "float32"))


@pytest.mark.parametrize("dtype", [U8, U16, F32])
def test_hidden_colour_is_filled_from_the_visible(dtype: np.dtype[Any]) -> None:
    """A uniform visible colour must come out everywhere: means of equal values lose float rounding only."""
    white = pixels.white(dtype)
    color, alpha = np.zeros((37, 53, 3), dtype), np.zeros((37, 53), dtype)
    alpha[10:20, 30:34] = white
    color[10:20, 30:34] = (np.array([0.8, 0.4, 0.2]) * white).astype(dtype)
    filled = pixels.bleed(color, alpha).astype(np.float64)
    assert np.abs(filled - filled[10, 30]).max() <= white * 1e-6


def test_visible_pixels_are_left_alone() -> None:
    rng = np.random.default_rng(5)
    color, alpha = rng.integers(0, 256, (31, 30, 3), np.uint8), rng.integers(0, 3, (31, 30), np.uint8)
    before = color.copy()
    filled = pixels.bleed(color, alpha)
    assert np.array_equal(filled[alpha > 0], color[alpha > 0])
    assert not np.array_equal(filled, color)
    assert np.array_equal(color, before)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_it_stays_within_the_visible_range(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    color = rng.integers(0, 256, (height, width), np.uint8)
    alpha = rng.integers(0, 2, (height, width), np.uint8)
    filled = pixels.bleed(color, alpha)
    if alpha.any():
        assert filled.min() >= color[alpha > 0].min()
        assert filled.max() <= color[alpha > 0].max()


def sparse(height: int, width: int, channels: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any]]:
    """Noise of which little is visible, as views of one array, as pictures have them."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 65536, (height, width, channels + 1)).astype(np.uint16)
    image[..., -1] *= rng.random((height, width)) < 0.02
    color, alpha = pixels.color_and_alpha(image)
    assert alpha is not None
    return color, alpha


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(64, 48), (131, 57), (57, 130), (1, 200), (200, 1), (66, 33)])
def test_bands_change_no_bit(
    size: tuple[int, int], channels: int, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Floats show every bit of what is interpolated; integers are what pictures have."""
    color, alpha = (plane.astype(kind) for plane in sparse(*size, channels))
    whole = pixels.bleed(color, alpha)
    assert not np.array_equal(whole, color)
    for band in (1, 300, 1000):  # 2 rows at a time, some, many
        monkeypatch.setattr(pixels, "_BAND", band)
        np.testing.assert_array_equal(pixels.bleed(color, alpha), whole)


def whole_picture(color: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Push-pull by OpenCV alone, on whole planes."""
    if weight.all():
        return color
    size = max(1, weight.shape[1] // 2), max(1, weight.shape[0] // 2)
    share = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)[..., None]
    total = cv2.resize(color * weight[..., None], size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], 3)
    known = (share[..., 0] > 0).astype(np.float32)
    coarse = whole_picture(total / np.where(share > 0, share, np.float32(1)), known)
    fine = cv2.resize(coarse, weight.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return np.where(weight[..., None] > 0, color, fine)


@pytest.mark.parametrize("size", [(128, 64), (131, 57), (57, 130), (7, 5), (3, 200), (1, 33), (33, 1)])
def test_bands_come_to_what_opencv_makes_of_the_whole_picture(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On 0-1, up to float32: some roundings of 6e-8 at each of eight levels. Were a row mixed from others, or
    with other weights, noise would differ by some 0.1."""
    color, alpha = (plane.astype(np.float32) / 65535 for plane in sparse(*size, 3))
    alpha.flat[size[0] * size[1] // 2] = 1
    expected = whole_picture(color, (alpha > 0).astype(np.float32))
    monkeypatch.setattr(pixels, "_BAND", 500)
    assert np.abs(pixels.bleed(color, alpha) - expected).max() < 1e-5


def test_memory_is_that_of_the_result_and_the_grids(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result takes 3 bytes a pixel, the grids 4.33 (three float32 and a bool on a quarter, a sixteenth,
    ...); whatever the band takes, it is less than 100 bytes for each of its pixels."""
    image = np.random.default_rng(0).integers(0, 256, (1000, 900, 4), np.uint8)
    image[200:700, 100:800, 3] = 0
    color, alpha = pixels.color_and_alpha(image)
    assert alpha is not None
    monkeypatch.setattr(pixels, "_BAND", 1 << 13)
    tracemalloc.start()
    pixels.bleed(color, alpha)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 3 * alpha.size < peak < (3 + 13 / 3) * alpha.size + 100 * (1 << 13)
