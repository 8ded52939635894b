"""Pixels of any kind <-> network input, one tile at a time, so that memory stays bounded by the tile.

Layouts: (H, W) or (H, W, 1) gray, (H, W, 2) gray + alpha, (H, W, 3) RGB, (H, W, 4) RGBA.
Types: uint8 (0-255), uint16 (0-65535), float32 and float64 (0-1).
"""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError

Batch = NDArray[np.float32]
Pixels = NDArray[Any]

_WHITE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0}
_BRIGHTEST = 2.0  # a little over white may come from a filter; twice as much is another range
_BLOCK = 65_536  # pixels looked at together
_CV_TYPE = {"uint8": cv2.CV_8U, "uint16": cv2.CV_16U}


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
