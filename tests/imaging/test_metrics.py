"""PSNR and SSIM against independent implementations and values that can be worked out by hand."""

import math

import numpy as np
import pytest
from skimage import data
from skimage.metrics import structural_similarity

from srcli.errors import UsageError
from srcli.imaging import metrics
from srcli.imaging.resize import downscale, imresize, modcrop


def _pair() -> tuple[np.ndarray, np.ndarray]:
    hr = np.asarray(modcrop(data.astronaut()[100:260, 150:310], 2))
    return np.asarray(imresize(downscale(hr, 2), hr.shape[:2])), hr


def test_psnr_of_a_constant_error() -> None:
    a = np.full((20, 20, 3), 100, np.uint8)
    assert metrics.psnr(a, a + 5) == pytest.approx(20 * math.log10(255 / 5), abs=1e-12)


def test_equal_images_are_infinitely_good() -> None:
    _, hr = _pair()
    assert metrics.psnr(hr, hr) == math.inf
    assert metrics.ssim(hr, hr) == pytest.approx(1.0, abs=1e-12)


def test_decibels_of_errors_that_are_none_or_no_numbers() -> None:
    assert metrics.decibels(0.01, peak=1.0) == pytest.approx(20, abs=1e-12)
    assert metrics.decibels(0.0) == math.inf
    assert metrics.decibels(math.inf) == -math.inf
    assert math.isnan(metrics.decibels(math.nan))


@pytest.mark.parametrize(
    ("rgb", "y"), [((0, 0, 0), 16.0), ((255, 255, 255), 235.0), ((255, 0, 0), 81.481), ((0, 255, 0), 144.553)]
)
def test_luma_is_matlabs(rgb: tuple[int, int, int], y: float) -> None:
    assert metrics.to_y(np.array([[rgb]], np.uint8))[0, 0] == pytest.approx(y, abs=1e-9)


def test_gray_counts_as_equal_colours() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    rgb = np.repeat(gray[..., None], 3, axis=2)
    np.testing.assert_allclose(metrics.to_y(gray), metrics.to_y(rgb), atol=1e-9)


def test_shave_leaves_the_border_out() -> None:
    a = np.zeros((20, 20), np.uint8)
    b = a.copy()
    b[:2] = 255
    assert metrics.psnr(a, b, shave=2) == math.inf
    assert metrics.psnr(a, b, shave=1) < 20


def test_ssim_agrees_with_scikit_image() -> None:
    """With their options for Wang's original: sigma 1.5, 11×11, population covariance, valid part."""
    sr, hr = (metrics.to_y(image) for image in _pair())
    _, full = structural_similarity(
        sr, hr, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    assert metrics.ssim(sr, hr) == pytest.approx(float(full[5:-5, 5:-5].mean()), abs=1e-9)


def test_protocols_shave_as_the_papers_do() -> None:
    sr, hr = _pair()
    y = metrics.psnr(metrics.to_y(sr)[2:-2, 2:-2], metrics.to_y(hr)[2:-2, 2:-2])
    assert metrics.psnr_y(sr, hr, 2) == y
    assert metrics.psnr_rgb(sr, hr, 2) == metrics.psnr(sr[8:-8, 8:-8], hr[8:-8, 8:-8])


def test_different_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match="different shapes"):
        metrics.psnr(np.zeros((4, 4)), np.zeros((4, 5)))


def test_nothing_left_is_refused() -> None:
    with pytest.raises(UsageError, match="Nothing is left"):
        metrics.psnr(np.zeros((4, 4)), np.zeros((4, 4)), shave=2)
    with pytest.raises(UsageError, match="SSIM needs 11"):
        metrics.ssim(np.zeros((10, 40)), np.zeros((10, 40)))
