"""imresize against an independent, slow, exact version of MATLAB's algorithm."""

import tracemalloc
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from srcli.errors import UsageError
from srcli.imaging import resize
from srcli.imaging.resize import downscale, imresize, modcrop


def _kernel(x: Fraction) -> Fraction:
    x = abs(x)
    if x <= 1:
        return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
    return Fraction(-1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x <= 2 else Fraction(0)


def _exact_line(line: list[int], target: int, scale: Fraction) -> list[int]:
    """One pass over one row in rational arithmetic: widened kernel, mirrored border, rounded half up."""
    stretch, n, out = min(scale, Fraction(1)), len(line), []
    for i in range(target):
        centre = (i + Fraction(1, 2)) / scale - Fraction(1, 2)
        reach = int(2 / stretch) + 2
        near = range(floor(centre) - reach, floor(centre) + reach + 1)
        taps = [(j, _kernel(stretch * (centre - j))) for j in near]
        pixels = [(line[min(j % (2 * n), 2 * n - 1 - j % (2 * n))], w) for j, w in taps]
        value = sum(p * w for p, w in pixels) / sum(w for _, w in pixels)
        out.append(min(max(floor(value + Fraction(1, 2)), 0), 255))
    return out


def _exact(image: NDArray[np.uint8], height: int, width: int, scale: Fraction) -> NDArray[np.uint8]:
    columns = [_exact_line([int(v) for v in c], height, scale) for c in image.T]
    rows = [_exact_line(list(r), width, scale) for r in zip(*columns, strict=True)]
    return np.array(rows, np.uint8)


@pytest.mark.parametrize("scale", [2, 4])
def test_downscaling_is_exact_to_the_last_bit(scale: int) -> None:
    """x2 and x4 weights are dyadic, so float64 has no rounding error of its own."""
    image = np.random.default_rng(scale).integers(0, 256, (24, 32), np.uint8)
    want = _exact(image, 24 // scale, 32 // scale, Fraction(1, scale))
    np.testing.assert_array_equal(downscale(image, scale), want)


def test_downscaling_by_three_differs_from_exact_only_on_exact_halves() -> None:
    """A third is no float: where the exact value is a half, MATLAB's own float64 decides, as does ours."""
    image = np.random.default_rng(3).integers(0, 256, (48, 48), np.uint8)
    want = _exact(image, 16, 16, Fraction(1, 3)).astype(int)
    difference = np.abs(np.asarray(downscale(image, 3)).astype(int) - want)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.03


@pytest.mark.parametrize("scale", [2, 4])
def test_upscaling_is_exact_to_the_last_bit(scale: int) -> None:
    image = np.random.default_rng(9).integers(0, 256, (7, 9), np.uint8)
    want = _exact(image, 7 * scale, 9 * scale, Fraction(scale))
    np.testing.assert_array_equal(imresize(image, (7 * scale, 9 * scale)), want)


def test_matlab_rounds_after_each_pass() -> None:
    """Rounding once at the end gives other values; uint8 must go through two roundings."""
    image = np.random.default_rng(5).integers(0, 256, (40, 40), np.uint8)
    once = np.floor(np.clip(imresize(image.astype(np.float64), (20, 20)), 0, 255) + 0.5)
    assert (np.asarray(downscale(image, 2)) != once).any()


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.sampled_from([np.uint8, np.uint16, np.float32]),
    st.sampled_from([(), (3,)]),
)
def test_flat_stays_flat_at_any_size(
    source: tuple[int, int], target: tuple[int, int], dtype: type, channels: tuple[int, ...]
) -> None:
    image = np.full((*source, *channels), 37, dtype)
    result = imresize(image, target)
    assert result.dtype == dtype
    assert result.shape == (*target, *channels)
    np.testing.assert_allclose(result.astype(float), 37, atol=1e-4)  # float32: weights sum to 1 within 1e-6


def test_colour_channels_are_independent() -> None:
    image = np.random.default_rng(2).integers(0, 256, (12, 15, 3), np.uint8)
    whole = imresize(image, (17, 11))
    for c in range(3):
        np.testing.assert_array_equal(whole[..., c], imresize(image[..., c], (17, 11)))


def test_same_size_is_unchanged() -> None:
    image = np.random.default_rng(2).integers(0, 256, (12, 15, 3), np.uint8)
    np.testing.assert_array_equal(imresize(image, (12, 15)), image)


def test_modcrop_cuts_bottom_and_right() -> None:
    image = np.arange(7 * 11).reshape(7, 11)
    np.testing.assert_array_equal(modcrop(image, 4), image[:4, :8])


@pytest.mark.parametrize("size", [(0, 5), (5, -1)])
def test_empty_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="sizes start at 1"):
        imresize(np.zeros((4, 4), np.uint8), size)


def test_sides_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UsageError, match="no multiple of 3"):
        downscale(np.zeros((9, 10), np.uint8), 3)


@pytest.mark.parametrize("size", [(31, 90), (90, 31), (20, 25), (41, 53)])
def test_bands_change_no_bit(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (41, 53, 3), np.uint8)
    whole = imresize(image, size)
    monkeypatch.setattr(resize, "_BAND", 1)  # every row by itself
    out = np.zeros((*size, 4), np.uint8)
    assert imresize(image, size, out=out[..., :3]) is not None
    np.testing.assert_array_equal(out[..., :3], whole)
    assert not out[..., 3].any()


def test_enlarging_takes_little_more_memory_than_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole-image passes took 3.4 times the result; a band and its float64 sums take about 4 MB here."""
    monkeypatch.setattr(resize, "_BAND", 1 << 18)
    image = np.zeros((1000, 1000), np.uint8)
    tracemalloc.start()
    result = imresize(image, (3000, 3000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * result.nbytes
