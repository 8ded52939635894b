"""Pixels of any kind: their layouts, network input and output, colour under alpha, the eight symmetries.

Layouts: (H, W) or (H, W, 1) gray, (H, W, 2) gray + alpha, (H, W, 3) RGB, (H, W, 4) RGBA.
Types: uint8 (0-255), uint16 (0-65535), float32 and float64 (0-1).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError

Batch = NDArray[np.float32]
Pixels = NDArray[Any]
_Mask = NDArray[np.bool_]

_WHITE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0}
_BRIGHTEST = 2.0  # a little over white may come from a filter; twice as much is another range
_BLOCK = 65_536  # pixels looked at together
_BAND = 1 << 18  # pixels in work at a time where colour is filled, in float32
_SLIVER = 1e-3  # OpenCV leaves out smaller parts of a row
_CV_TYPE = {"uint8": cv2.CV_8U, "uint16": cv2.CV_16U}

TRANSFORMS = range(8)
"""Each number is a symmetry of the square: bit 0 flips rows, bit 1 flips columns, bit 2 transposes."""


def white(dtype: np.dtype[Any]) -> float:
    """The value of full white, and of an opaque alpha, in that type."""
    return _WHITE[dtype.name]


def check(image: Pixels) -> None:
    """Refuse arrays that are no image.

    Raises:
        InputError: layout, type or size is not one of those above, or floats are not finite or not 0-1.
    """
    if not isinstance(image, np.ndarray) or image.dtype.name not in _WHITE:
        kind = image.dtype.name if isinstance(image, np.ndarray) else type(image).__name__
        raise InputError(
            f"Pixels of type {kind} are not supported.", "Use uint8, uint16, float32 or float64."
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
        hint = "Use (H, W) or (H, W, C) with C gray 1, gray + alpha 2, RGB 3, RGBA 4."
        raise InputError(f"An array of shape {image.shape} is no image.", hint)
    if image.size == 0:
        raise InputError(f"The image is empty: its shape is {image.shape}.")
    if image.dtype.kind == "f":
        _check_floats(image)


def _check_floats(image: Pixels) -> None:
    if not np.isfinite(image).all():
        raise InputError("The image holds infinities or NaN.", "Give finite values, 0-1.")
    if image.max() > _BRIGHTEST:
        hint = "Divide by 255, or convert to uint8."
        raise InputError(f"The image is of floats and reaches {image.max():g}: white is 1.", hint)


def color_and_alpha(image: Pixels) -> tuple[Pixels, Pixels | None]:
    """Split into views: colour, (H, W) for gray or (H, W, 3), and alpha (H, W) or None."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    if image.ndim == 2:
        return image, None
    if channels <= 2:
        return image[..., 0], image[..., 1] if channels == 2 else None
    return image[..., :3], image[..., 3] if channels == 4 else None


def has_two_colors(plane: Pixels) -> bool:
    """Whether all pixels of (H, W) or (H, W, C) have one of two colours, and both are there."""
    height, width = plane.shape[:2]
    rows, first, second = max(1, _BLOCK // width), plane[0, 0].copy(), None
    for top in range(
        0, height, rows
    ):  # a few at a time: this takes no memory, and most pictures no second block
        block = plane[top : top + rows]
        flat = block.reshape(block.shape[0] * width, -1)
        others = flat[(flat != first).any(axis=1)]
        second = others[0] if second is None and len(others) else second
        if len(others) and (others != second).any():
            return False
    return second is not None


def as_rgb8(image: Pixels) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of pixels of any kind: gray repeated, alpha left out, rounded to 8 bits and clipped."""
    color, _ = color_and_alpha(image)
    if color.dtype == np.uint16:
        color = (color.astype(np.uint32) + 128) // 257
    elif color.dtype.kind == "f":
        color = np.floor(color * 255 + 0.5).clip(0, 255)
    rgb = color if color.ndim == 3 else np.repeat(color[..., None], 3, axis=2)
    return np.ascontiguousarray(rgb, np.uint8)


def to_network(pixels: Pixels) -> Batch:
    """(H, W) gray or (H, W, 3) RGB -> (1, 3, H, W) float32 0-1, contiguous. Gray fills all three channels."""
    factor = np.float32(1 / white(pixels.dtype))
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    batch = np.empty((1, 3, *pixels.shape[:2]), np.float32)
    np.multiply(planes, factor, out=batch[0], casting="unsafe", dtype=np.float32)
    return batch


def from_network(batch: Batch, dtype: np.dtype[Any], channels: int) -> Pixels:
    """(1, 3, H, W) -> (H, W) if channels is 1, else (H, W, 3), clipped to 0 ... white.

    Integers are rounded to the nearest; exact halves go to the even neighbour. Gray is the mean of the
    three channels: the network was fed three equal ones, so any difference between them is its own error.
    Non-finite values are the caller's to detect: their pixel is unspecified.
    """
    planes = _gray(batch) if channels == 1 else list(batch[0])
    converted = [_convert(plane, dtype) for plane in planes]
    return converted[0] if channels == 1 else cv2.merge(converted)


def is_finite(batch: Batch) -> bool:
    """Whether every value is a number."""
    return bool(np.isfinite(batch).all())


def _gray(batch: Batch) -> list[Batch]:
    return [np.mean(batch[0], axis=0, dtype=np.float32)]


def _convert(plane: Batch, dtype: np.dtype[Any]) -> Pixels:
    """One plane, scaled to the type's white, rounded and clipped in one SIMD pass for integers.

    OpenCV's saturation wraps beyond 2**31, so the bright side is clipped before; the dark side cannot get
    there: it needs a network output below -32768.
    """
    if dtype.kind == "f":
        return np.clip(plane, 0, 1).astype(dtype)
    _, clipped = cv2.threshold(plane, 1.0, 0, cv2.THRESH_TRUNC)
    multiply: Any = cv2.multiply  # its stub does not know scalars
    return np.asarray(multiply(clipped, _WHITE[dtype.name], dtype=_CV_TYPE[dtype.name]))


def bleed(color: Pixels, alpha: Pixels) -> Pixels:
    """Colour with fully transparent pixels filled from their surroundings; the rest is untouched.

    What lies under alpha 0 is arbitrary (often black) and would leak into visible edges as soon as pixels
    are mixed. Push-pull: means of the visible colours on ever coarser grids, then interpolated back.
    Beside the result it holds those grids, 4/3 bytes a pixel and channel and 1/3 a pixel.

    Planes are resized in bands of rows, with OpenCV's weights for whole planes. OpenCV takes the means
    across, and along where every row of the result has rows of its own; the rest is mixed here, since the
    last bit of what OpenCV interpolates depends on how many rows it is given. So no bit depends on where the
    bands lie.

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


def transformed(batch: Batch, transform: int) -> Batch:
    """One symmetry of an (N, C, H, W) batch; a view."""
    if transform & 1:
        batch = batch[..., ::-1, :]
    if transform & 2:
        batch = batch[..., ::-1]
    return batch.swapaxes(-1, -2) if transform & 4 else batch


def restored(batch: Batch, transform: int) -> Batch:
    """Undo `transformed(..., transform)`; a view."""
    if transform & 4:
        batch = batch.swapaxes(-1, -2)
    if transform & 2:
        batch = batch[..., ::-1]
    return batch[..., ::-1, :] if transform & 1 else batch


def run_ensemble(run: Callable[[Batch], Batch], batch: Batch) -> Batch:
    """Self-ensemble (EDSR paper, section 3.4): the mean of `run` over the eight symmetries.

    They run one after the other, in no more memory than two runs.

    Args:
        run: (N, C, H, W) in, (N, C, sH, sW) out.
        batch: (N, C, H, W) float32.
    """
    return next(ensembles(partial(map, run), [batch]))


def ensembles(
    run_each: Callable[[Iterable[Batch]], Iterator[Batch]], batches: Iterable[Batch]
) -> Iterator[Batch]:
    """`run_ensemble` of each batch, in order, by something that may run several batches at once."""
    seen = (np.ascontiguousarray(transformed(batch, number)) for batch in batches for number in TRANSFORMS)
    made = run_each(seen)
    for first in made:
        total = first.astype(np.float32, copy=True)
        for transform, result in zip(TRANSFORMS[1:], made, strict=False):  # the rest is for other batches
            total += restored(result, transform)
        total *= np.float32(1 / len(TRANSFORMS))
        yield total
