"""Colour under full transparency, filled from what is visible around it, in memory a picture can spare.

Layouts and types: as srcli.pixels.
"""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[Any]
Batch = NDArray[np.float32]
_Mask = NDArray[np.bool_]

_BAND = 1 << 18  # pixels in work at a time, in float32


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


def _fill(color: Pixels, visible: Pixels) -> None:
    """Fill the pixels of `color` where `visible` is zero, in place."""
    if visible.all():
        return
    means, known = _pushed(color, visible)
    _fill(means, known)
    for rows in _bands(visible):
        hidden = visible[rows] == 0
        if hidden.any():
            fine = _doubled(means, rows)[:, : visible.shape[1]][hidden]
            color[rows][hidden] = fine if color.dtype.kind == "f" else np.rint(fine)


def _pushed(color: Pixels, visible: Pixels) -> tuple[Batch, _Mask]:
    """The mean of the visible colours of each square of 2x2, and where there is one.

    At the lower and right edge of odd sides a square is cut in half.
    """
    half = (visible.shape[0] + 1) // 2, (visible.shape[1] + 1) // 2
    means, known = np.empty((*half, *color.shape[2:]), np.float32), np.empty(half, np.bool_)
    for rows in _bands(visible):
        weight = (visible[rows] != 0).astype(np.float32)
        share = _halved(weight)
        total = _halved(color[rows].astype(np.float32) * _spread(weight, color))
        there = slice(rows.start // 2, (rows.stop + 1) // 2)
        means[there] = total / _spread(np.where(share > 0, share, 1), color)
        known[there] = share > 0
    return means, known


def _bands(plane: Pixels) -> Iterator[slice]:
    """All its rows, some at a time, each band but the last with an even number of them."""
    height, width = plane.shape
    step = max(1, _BAND // (2 * width)) * 2
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))


def _halved(rows: Batch) -> Batch:
    """The mean of each square of 2x2, zeros added to an odd side."""
    height, width = rows.shape[:2]
    even = cv2.copyMakeBorder(rows, 0, height % 2, 0, width % 2, cv2.BORDER_CONSTANT, value=0)
    size = ((width + 1) // 2, (height + 1) // 2)
    return np.asarray(cv2.resize(even, size, interpolation=cv2.INTER_AREA), np.float32)


def _doubled(means: Batch, rows: slice) -> Batch:
    """Those rows of the grid interpolated to twice its size. A row of margin makes them independent of
    where the band begins and ends."""
    first, last = max(0, rows.start // 2 - 1), min(len(means), (rows.stop + 1) // 2 + 1)
    size = (2 * means.shape[1], 2 * (last - first))
    fine = cv2.resize(means[first:last], size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(fine[rows.start - 2 * first : rows.stop - 2 * first], np.float32)


def _spread(plane: Batch, like: Pixels) -> Batch:
    return plane if like.ndim == 2 else plane[..., None]
