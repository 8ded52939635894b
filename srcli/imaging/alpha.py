"""Colour under full transparency, filled from what is visible around it, in memory a picture can spare.

Layouts and types: as srcli.imaging.pixels. Planes are resized in bands of rows, with OpenCV's weights for
whole planes. It takes means itself, across, and along where every row of the result has rows of its own; the
rest is mixed here, since the last bit of what OpenCV interpolates depends on how many rows it is given. So
no bit depends on where the bands lie.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
Batch = NDArray[np.float32]
_Mask = NDArray[np.bool_]

_BAND = 1 << 18  # pixels in work at a time, in float32
_SLIVER = 1e-3  # OpenCV leaves out smaller parts of a row


def bleed(color: Pixels, alpha: Pixels) -> Pixels:
    """Colour with fully transparent pixels filled from their surroundings; the rest is untouched.

    What lies under alpha 0 is arbitrary (often black) and would leak into visible edges as soon as pixels
    are mixed. Push-pull: means of the visible colours on ever coarser grids, then interpolated back.
    Beside the result it holds those grids, 4/3 bytes a pixel and channel and 1/3 a pixel.

    Args:
        color: (H, W) or (H, W, 3).
        alpha: (H, W), same type.
    """
    if np.count_nonzero(alpha) in (0, alpha.size):
        return color
    result = color.copy()
    _fill(result, alpha)
    return result


@dataclass(frozen=True, slots=True)
class _Mix:
    """Which rows of a plane, and how much of each, make the rows of another; or columns.

    Attributes:
        indices, weights: (rows of the result, rows mixed in each).
        apart: each row of the result has as many rows of its own, all counting the same.
    """

    indices: NDArray[np.intp]
    weights: Batch
    apart: bool = False

    def of(self, band: slice) -> "tuple[_Mix, slice]":
        """Those of a band of the result, counted within the slice of rows that they mix."""
        indices = self.indices[band]
        first = int(indices.min())
        return _Mix(indices - first, self.weights[band], self.apart), slice(first, int(indices.max()) + 1)

    def shrunk(self, rows: Batch, width: int) -> Batch:
        """The rows as means over areas, `width` pixels wide."""
        height = len(self.indices) if self.apart else len(rows)
        means = np.asarray(cv2.resize(rows, (width, height), interpolation=cv2.INTER_AREA), np.float32)
        return means if self.apart else self.along(means, 0)

    def along(self, plane: Batch, axis: int) -> Batch:
        """The plane with its rows (axis 0) or columns (axis 1) mixed."""
        shape = [1] * plane.ndim
        shape[axis] = -1
        parts = zip(self.indices.T, self.weights.T, strict=True)
        mixed = [plane.take(indices, axis) * weights.reshape(shape) for indices, weights in parts]
        return np.asarray(sum(mixed[1:], start=mixed[0]), np.float32)


def _fill(color: Pixels, visible: Pixels) -> None:
    """Fill the pixels of `color` where `visible` is zero, in place."""
    if visible.all():
        return
    means, known = _pushed(color, visible)
    _fill(means, known)
    height, width = visible.shape
    across, every = _linear(means.shape[1], width), _linear(len(means), height)
    for band in _bands(height, width):
        hidden = visible[band] == 0
        if hidden.any():
            rows, source = every.of(band)
            fine = rows.along(across.along(means[source], 1), 0)[hidden]
            color[band][hidden] = fine if color.dtype.kind == "f" else np.rint(fine)


def _pushed(color: Pixels, visible: Pixels) -> tuple[Batch, _Mask]:
    """Means of the visible colours on a grid of half the size, and where there is one."""
    height, width = (max(1, side // 2) for side in visible.shape)
    means = np.empty((height, width, *color.shape[2:]), np.float32)
    known = np.empty((height, width), np.bool_)
    every = _area(len(visible), height)
    for band in _bands(height, 4 * width):
        rows, source = every.of(band)
        weight = (visible[source] != 0).astype(np.float32)
        share = rows.shrunk(weight, width)
        total = rows.shrunk(color[source].astype(np.float32) * _spread(weight, color), width)
        means[band] = total / _spread(np.where(share > 0, share, 1), color)
        known[band] = share > 0
    return means, known


def _bands(height: int, width: int) -> Iterator[slice]:
    """All rows, as many at a time as make a band of that many pixels."""
    step = max(1, _BAND // width)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def _area(source: int, target: int) -> _Mix:
    """Rows weighted by how much of them lies in each of `target` equal parts, as in INTER_AREA.

    Where they do not divide, a part is between two and three rows: two whole ones at most, and what is left
    above and below.
    """
    if source % target == 0:
        indices = np.arange(source).reshape(target, -1)
        return _Mix(indices, np.full(indices.shape, target / source, np.float32), apart=True)
    scale = 1 / (target / source)
    begin = np.arange(target) * scale
    end, size = begin + scale, np.minimum(scale, source - begin)
    last = np.minimum(np.floor(end), source - 1)
    first = np.minimum(np.ceil(begin), last)
    above, below = first - begin, np.minimum(end - last, 1)
    parts = (above * (above > _SLIVER), first < last, first + 1 < last, below * (below > _SLIVER))
    indices = np.stack([first - 1, first, first + 1, last], axis=1).astype(np.intp)
    weights = np.stack([part / size for part in parts], axis=1).astype(np.float32)
    return _Mix(np.clip(indices, 0, source - 1), weights)


def _linear(source: int, target: int) -> _Mix:
    """The two rows around each of `target` rows, weighted by nearness, as in INTER_LINEAR."""
    place = ((np.arange(target) + 0.5) * (1 / (target / source)) - 0.5).astype(np.float32)
    low = np.floor(place)
    indices = np.stack([low, low + 1], axis=1).astype(np.intp)
    return _Mix(np.clip(indices, 0, source - 1), np.stack([1 - (place - low), place - low], axis=1))


def _spread(plane: Batch, like: Pixels) -> Batch:
    return plane if like.ndim == 2 else plane[..., None]
