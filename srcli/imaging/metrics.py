"""PSNR and SSIM in the field's two protocols.

Benchmark protocol (Set5, Set14, B100, Urban100): luma of BT.601 as MATLAB's rgb2ycbcr makes it,
shave = scale. DIV2K protocol (the paper's section 4.3): RGB, shave = scale + 6.
"""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.errors import UsageError

Pixels = NDArray[Any]
_LUMA = np.array([65.481, 128.553, 24.966]) / 255.0
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_SIGMA = 1.5
WINDOW = 11
"""Side of SSIM's window in pixels; images may not be smaller."""


def to_y(image: Pixels) -> NDArray[np.float64]:
    """Luma of MATLAB's rgb2ycbcr, not rounded: (H, W, 3) or (H, W) uint8 -> (H, W) float64, 16-235.

    Papers differ in whether luma is rounded to uint8 before PSNR; not rounding is what gives their
    bicubic figures (rounding costs 0.01 to 0.03 dB). A gray image counts as R = G = B.
    """
    rgb = image.astype(np.float64)
    weighted = rgb @ _LUMA if image.ndim == 3 else rgb * _LUMA.sum()
    return np.asarray(weighted + 16.0, np.float64)


def psnr(a: Pixels, b: Pixels, *, shave: int = 0) -> float:
    """Peak signal-to-noise ratio in dB of two images on 0-255; infinite for equal images.

    Args:
        a, b: (H, W) or (H, W, 3), same shape.
        shave: border pixels left out on every side.

    Raises:
        UsageError: shapes differ, or nothing is left after shaving.
    """
    a, b = _shaved(a, b, shave)
    return decibels(float(np.mean((a - b) ** 2)))


def decibels(mse: float, peak: float = 255.0) -> float:
    """PSNR in dB of a mean squared error, of values from 0 to `peak`; infinite for 0, NaN stays NaN."""
    return math.inf if mse == 0 else float(-10 * np.log10(mse / peak**2))


def ssim(a: Pixels, b: Pixels, *, shave: int = 0) -> float:
    """Structural similarity (Wang et al. 2004, MATLAB): 11×11 Gaussian window, sigma 1.5, 0-255.

    Colour images give the mean over the channels.

    Raises:
        UsageError: shapes differ, or less than one window is left after shaving.
    """
    a, b = _shaved(a, b, shave)
    if min(a.shape[:2]) < WINDOW:
        raise UsageError(f"SSIM needs {WINDOW} pixels a side, {a.shape[1]}×{a.shape[0]} are left.")
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    score = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    score /= (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    return float(score.mean())


def psnr_y(sr: Pixels, hr: Pixels, scale: int) -> float:
    """PSNR in the benchmark protocol: luma, shave = scale. (H, W[, 3]) uint8."""
    return psnr(to_y(sr), to_y(hr), shave=scale)


def ssim_y(sr: Pixels, hr: Pixels, scale: int) -> float:
    """SSIM in the benchmark protocol: luma, shave = scale. (H, W[, 3]) uint8."""
    return ssim(to_y(sr), to_y(hr), shave=scale)


def psnr_rgb(sr: Pixels, hr: Pixels, scale: int) -> float:
    """PSNR in the DIV2K protocol: RGB, shave = scale + 6. (H, W, 3) uint8."""
    return psnr(sr, hr, shave=scale + 6)


def ssim_rgb(sr: Pixels, hr: Pixels, scale: int) -> float:
    """SSIM in the DIV2K protocol: mean over RGB, shave = scale + 6. (H, W, 3) uint8."""
    return ssim(sr, hr, shave=scale + 6)


def _shaved(a: Pixels, b: Pixels, shave: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if a.shape != b.shape:
        raise UsageError(f"Images of different shapes cannot be compared: {a.shape} and {b.shape}.")
    if min(a.shape[:2]) <= 2 * shave:
        raise UsageError(f"Nothing is left of {a.shape[1]}×{a.shape[0]} after shaving {shave} pixels a side.")
    inner = slice(shave, -shave) if shave else slice(None)
    return a[inner, inner].astype(np.float64), b[inner, inner].astype(np.float64)


def _blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian window, only where it lies wholly inside."""
    kernel = cv2.getGaussianKernel(WINDOW, _SIGMA, cv2.CV_64F)
    margin = WINDOW // 2
    full = cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel)
    return np.asarray(full[margin:-margin, margin:-margin], np.float64)
