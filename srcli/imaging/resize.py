"""Antialiased bicubic resizing, equal to MATLAB's imresize: the degradation of the paper (section 4.1)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.errors import UsageError

_SUPPORT = 4.0  # width of the cubic kernel in source pixels
_CHUNK = 1 << 17  # output values computed at a time, so that the taps run from cache
_BAND = 1 << 22  # values of an image in work at a time, so that memory is that of the result alone
_INTEGERS = (np.uint8, np.uint16)


@dataclass(frozen=True, slots=True)
class _Taps:
    """Weighted source positions of each output position: `weights` and `indices` are (out, taps)."""

    weights: NDArray[np.float64]
    indices: NDArray[np.intp]

    def of(self, outputs: slice) -> "tuple[_Taps, slice]":
        """The taps of some output positions, counted within the source positions they need."""
        indices = self.indices[outputs]
        first = int(indices.min())
        return _Taps(self.weights[outputs], indices - first), slice(first, int(indices.max()) + 1)


def imresize(
    image: NDArray[Any],
    size: tuple[int, int],
    *,
    scale: tuple[float, float] | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Resize with MATLAB's bicubic kernel (a = -0.5), widened by the scale when shrinking.

    Integer images are rounded half up and clipped after each of the two passes, as MATLAB does;
    float images are neither rounded nor clipped.

    Args:
        image: (H, W) or (H, W, C); uint8, uint16, float32 or float64.
        size: (height, width) of the result.
        scale: (vertical, horizontal) output / input; default: from the sizes.
        out: filled and returned instead of a new array.

    Returns:
        (height, width[, C]) of the same dtype.

    Raises:
        UsageError: the dtype or a size is not supported.
    """
    if image.dtype not in (*_INTEGERS, np.float32, np.float64) or image.ndim not in (2, 3):
        raise UsageError(
            f"imresize takes (H, W[, C]) uint8, uint16 or float, not {image.shape} {image.dtype}."
        )
    if min(size) < 1 or min(image.shape[:2]) < 1:
        raise UsageError(f"imresize cannot go from {image.shape[:2]} to {size}: sizes start at 1.")
    vertical, horizontal = scale or (size[0] / image.shape[0], size[1] / image.shape[1])
    rows, columns = (
        None
        if image.shape[axis] == size[axis] and factor == 1
        else _taps(image.shape[axis], size[axis], factor)
        for axis, factor in enumerate((vertical, horizontal))
    )
    result = np.empty((*size, *image.shape[2:]), image.dtype) if out is None else out
    step = max(1, _BAND // max(image[0].size, result[0].size))
    for top in range(0, size[0], step):
        band = slice(top, min(top + step, size[0]))
        near, source = rows.of(band) if rows else (None, band)
        result[band] = _passes(image[source], [(vertical, 0, near), (horizontal, 1, columns)])
    return result


def downscale(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """The LR image of an HR image whose sides are multiples of `scale` (see `modcrop`).

    Args:
        image: (H, W) or (H, W, C); uint8, uint16 or float.
        scale: 2, 3, 4, ...

    Returns:
        (H // scale, W // scale[, C]) of the same dtype.

    Raises:
        UsageError: a side is not a multiple of `scale`.
    """
    height, width = image.shape[:2]
    if height % scale or width % scale:
        raise UsageError(f"{height}×{width} is no multiple of {scale}; crop it first.")
    return imresize(image, (height // scale, width // scale), scale=(1 / scale, 1 / scale))


def modcrop(image: NDArray[Any], scale: int) -> NDArray[Any]:
    """Crop bottom and right so that both sides are multiples of `scale`."""
    height, width = image.shape[:2]
    return image[: height - height % scale, : width - width % scale]


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5."""
    a = np.abs(x)
    near = 1.5 * a**3 - 2.5 * a**2 + 1.0
    far = -0.5 * a**3 + 2.5 * a**2 - 4.0 * a + 2.0
    return near * (a <= 1) + far * ((a > 1) & (a <= 2))


def _taps(source: int, target: int, scale: float) -> _Taps:
    """Kernel weights and mirrored source indices for one dimension."""
    stretch = min(scale, 1.0)
    support = _SUPPORT / stretch
    centre = np.arange(1, target + 1) / scale + 0.5 * (1 - 1 / scale)  # 1-based, as in MATLAB
    first = np.floor(centre - support / 2)
    indices = first[:, None] + np.arange(int(np.ceil(support)) + 2)
    weights = stretch * _cubic(stretch * (centre[:, None] - indices))
    weights /= weights.sum(axis=1, keepdims=True)
    used = np.any(weights != 0, axis=0)
    mirror = np.concatenate([np.arange(source), np.arange(source)[::-1]])
    return _Taps(weights[:, used], mirror[(indices[:, used].astype(np.intp) - 1) % len(mirror)])


def _passes(image: NDArray[Any], passes: list[tuple[float, int, _Taps | None]]) -> NDArray[Any]:
    """Resample along (scale, axis, taps); MATLAB takes the smaller scale first, rows before columns."""
    for _, axis, taps in sorted(passes, key=lambda one: one[:2]):
        image = _along(image, taps, axis) if taps else image
    return image


def _along(image: NDArray[Any], taps: _Taps, axis: int) -> NDArray[Any]:
    """Resample one axis; the other axes are flattened into columns."""
    rows = np.ascontiguousarray(image if axis == 0 else np.swapaxes(image, 0, 1))
    flat = _weighted_rows(rows.reshape(rows.shape[0], -1), taps)
    result = flat.reshape(-1, *rows.shape[1:])
    return result if axis == 0 else np.ascontiguousarray(np.swapaxes(result, 0, 1))


def _weighted_rows(rows: NDArray[Any], taps: _Taps) -> NDArray[Any]:
    """result[i] = sum over k of weights[i, k] * rows[indices[i, k]], summed in order of k."""
    work = np.float32 if rows.dtype == np.float32 else np.float64
    weights = taps.weights.astype(work)
    result = np.empty((len(weights), rows.shape[1]), rows.dtype)
    step = max(1, _CHUNK // rows.shape[1])
    for start in range(0, len(result), step):
        part = slice(start, start + step)
        total = weights[part, 0, None] * rows[taps.indices[part, 0]]
        for k in range(1, weights.shape[1]):
            total += weights[part, k, None] * rows[taps.indices[part, k]]
        result[part] = _rounded(total, rows.dtype)
    return result


def _rounded(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Half up and saturated for integer types; unchanged for floats."""
    if dtype not in _INTEGERS:
        return values
    values += 0.5
    np.floor(values, out=values)
    return np.clip(values, 0, np.iinfo(dtype).max, out=values).astype(dtype)
