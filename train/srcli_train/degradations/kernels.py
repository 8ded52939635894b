"""Blur kernels, and resampling between two grids that may be displaced against each other.

Positions are those of pixel centres, so nothing here moves a picture: kernels are symmetric about
their middle, and grids of different sizes cover the same area.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Shape = Callable[[Doubles, float], Doubles]
_LOBES = 3  # of Lanczos


def gaussian(sigmas: tuple[float, float], angle: float, side: int) -> Floats:
    """An anisotropic Gaussian.

    Args:
        sigmas: standard deviations in pixels along its two axes.
        angle: of the first axis against the x axis, in radians.
        side: pixels; even sides have their middle between two pixels.

    Returns:
        (side, side) float32 with the sum 1.
    """
    y, x = _positions(side)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return _normal(np.exp(-0.5 * ((along / sigmas[0]) ** 2 + (across / sigmas[1]) ** 2)))


def disc(radius: float, side: int) -> Floats:
    """Defocus: a disc of `radius` pixels with a soft rim of one pixel; (side, side), sum 1."""
    y, x = _positions(side)
    return _normal(np.clip(radius + 0.5 - np.hypot(y, x), 0, 1))


def odd_side(reach: float) -> int:
    """The side of a kernel that has a middle pixel and holds everything within `reach` pixels of it."""
    return 2 * int(np.ceil(reach)) + 1


def blur(image: Floats, kernel: Floats) -> Floats:
    """(H, W, 3) through a kernel of odd side; the picture is mirrored at its border."""
    return np.asarray(cv2.filter2D(image, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT), np.float32)


def blur_and_decimate(image: Floats, kernel: Floats, scale: int) -> Floats:
    """(H, W, 3) -> (H / scale, W / scale, 3): blur, then one value at the middle of every LR pixel.

    At an even scale that middle lies between HR pixels: the kernel's side must be even (odd for odd
    scales) and not below the scale.
    """
    assert kernel.shape[0] >= scale, "the kernel must cover an LR pixel"
    assert (kernel.shape[0] - scale) % 2 == 0, "kernel and LR pixel must share their middle"
    anchor = (kernel.shape[0] - scale) // 2  # puts LR pixel 0's middle on output 0
    full = cv2.filter2D(image, cv2.CV_32F, kernel, anchor=(anchor, anchor), borderType=cv2.BORDER_REFLECT)
    return np.ascontiguousarray(full[::scale, ::scale], np.float32)


def resample(
    image: Floats,
    size: tuple[int, int],
    name: str,
    *,
    widest: float = np.inf,
    offset: tuple[float, float] = (0.0, 0.0),
    phase: tuple[float, float] = (0.0, 0.0),
) -> Floats:
    """Resample to another grid over the same area.

    Args:
        image: (H, W, C) float32.
        size: (height, width) of the result.
        name: one of `FILTERS`.
        widest: how far the filter is widened at most when shrinking; 1: never, so that it aliases.
        offset: by how much `image`'s grid is displaced down and right, in its pixels.
        phase: by how much the result's grid is displaced down and right, in its pixels.

    Returns:
        (height, width, C) float32; the border pixel is repeated outside.
    """
    for axis in (0, 1):
        taps = _taps(image.shape[axis], size[axis], name, widest, offset[axis], phase[axis])
        image = _along(image, axis, *taps)
    return image


def _taps(
    source: int, target: int, name: str, widest: float, offset: float, phase: float
) -> tuple[Floats, NDArray[np.intp]]:
    """Weights and source positions, (target, taps) each."""
    step = source / target
    shape, reach = FILTERS[name]
    stretch = min(max(step, 1.0), widest)
    centre = (np.arange(target) + 0.5 + phase) * step - 0.5 - offset
    count = int(np.ceil(2 * reach * stretch)) + 1
    indices = np.floor(centre - reach * stretch).astype(np.intp)[:, None] + np.arange(1, count + 1)
    weights = shape((centre[:, None] - indices) / stretch, stretch)
    weights /= weights.sum(1, keepdims=True)
    return weights.astype(np.float32), np.clip(indices, 0, source - 1)


def _along(image: Floats, axis: int, weights: Floats, indices: NDArray[np.intp]) -> Floats:
    """The weighted sum of source rows (axis 0) or columns (axis 1), tap by tap: no BLAS threads."""
    rows = np.ascontiguousarray(np.swapaxes(image, 0, axis))
    flat = rows.reshape(rows.shape[0], -1)
    total = weights[:, 0, None] * flat[indices[:, 0]]
    for k in range(1, weights.shape[1]):
        total += weights[:, k, None] * flat[indices[:, k]]
    return np.swapaxes(total.reshape(-1, *rows.shape[1:]), 0, axis)


def _area(x: Doubles, stretch: float) -> Doubles:
    """How much of a source pixel, 1 / stretch wide, lies within half a pixel of the middle."""
    return np.clip(0.5 * (stretch + 1) - np.abs(x) * stretch, 0, 1)


def _triangle(x: Doubles, stretch: float) -> Doubles:
    return np.clip(1.0 - np.abs(x), 0, 1)


def _cubic(x: Doubles, stretch: float) -> Doubles:
    """Keys' kernel with a = -0.5."""
    a = np.abs(x)
    near = (1.5 * a - 2.5) * a * a + 1.0
    far = ((-0.5 * a + 2.5) * a - 4.0) * a + 2.0
    return np.where(a <= 1, near, np.where(a < 2, far, 0.0))


def _lanczos(x: Doubles, stretch: float) -> Doubles:
    return np.where(np.abs(x) < _LOBES, np.sinc(x) * np.sinc(x / _LOBES), 0.0)


FILTERS: dict[str, tuple[Shape, float]] = {
    "area": (_area, 1.0),
    "bilinear": (_triangle, 1.0),
    "bicubic": (_cubic, 2.0),
    "lanczos": (_lanczos, float(_LOBES)),
}
"""By name: the filter's weight at x pixels of the coarser grid from its middle, and where it ends."""


def _positions(side: int) -> tuple[Doubles, Doubles]:
    line = np.arange(side, dtype=np.float64) - (side - 1) / 2
    return line[:, None], line[None, :]


def _normal(kernel: Doubles) -> Floats:
    return np.asarray(kernel / kernel.sum(), np.float32)
