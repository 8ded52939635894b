"""Images to calibrate and measure an export on: the user's photographs, or rendered charts and letters."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.errors import UsageError
from srcli.imaging.resize import downscale
from srcli_export.runtime import Pixels

_SIDE = 480
_LR_SIDE = 160
_SMALLEST = 32
_TEXT_SIDE = 96
_FINER = 4
_WORDS = "Pack my box with five dozen liquor jugs 0123456789 WAXYM"
_LINES = ((18, 0.32), (40, 0.5), (66, 0.7), (92, 0.9))
"""(baseline in LR pixels, OpenCV's font scale) of four lines of text."""


def charts(side: int = _SIDE) -> list[Pixels]:
    """Two HR images that are hard for a network: all frequencies and directions, edges, noise.

    Returns:
        (side, side, 3) uint8 RGB, always the same.
    """
    down, across = np.mgrid[0:side, 0:side] / side - 0.5
    return [_zone_plate(down, across), _edges(down, across)]


def letters() -> list[Pixels]:
    """Three LR images of text: black on white, white on black and red on white.

    Inside a network it leads to several times the largest values of photographs.

    Returns:
        (96, 96, 3) uint8 RGB, always the same.
    """
    black, white, red = (0, 0, 0), (255, 255, 255), (255, 0, 0)
    return [_text(*colors) for colors in ((black, white), (white, black), (red, white))]


def checked(images: Sequence[Pixels]) -> list[Pixels]:
    """The images as a list.

    Raises:
        UsageError: there is none, or one is not (H, W, 3) uint8 of 32 pixels a side or more.
    """
    for image in images:
        if (
            image.ndim != 3
            or image.shape[2] != 3
            or image.dtype != np.uint8
            or min(image.shape[:2]) < _SMALLEST
        ):
            raise UsageError(
                f"A calibration image must be RGB, 8 bit, {_SMALLEST} pixels a side or more;"
                f" one is {image.shape} {image.dtype}."
            )
    if not images:
        raise UsageError("There are no calibration images.", "Give photographs, or nothing for charts.")
    return list(images)


def pairs(images: Sequence[Pixels], scale: int) -> list[tuple[Pixels, Pixels]]:
    """(LR, HR) of each image: its centre, at most 160 LR pixels a side, and that reduced by bicubic."""
    crops = [_centre(image, scale) for image in images]
    return [(np.asarray(downscale(crop, scale), np.uint8), crop) for crop in crops]


def _centre(image: Pixels, scale: int) -> Pixels:
    height, width = (min(side // scale, _LR_SIDE) * scale for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def _zone_plate(down: NDArray[np.float64], across: NDArray[np.float64]) -> Pixels:
    """Rings whose frequency grows outwards, in three phases, with a little noise."""
    phase = 0.25 * np.pi * len(down) * (down**2 + across**2) * 2
    rings = np.stack([np.cos(phase + shift) for shift in (0.0, 0.7, 1.4)], axis=-1)
    noise = np.random.default_rng(0).normal(0, 6, rings.shape)
    return _pixels(127.5 + 100 * rings + noise)


def _edges(down: NDArray[np.float64], across: NDArray[np.float64]) -> Pixels:
    """A checkerboard in one quarter, hard diagonal and curved edges elsewhere, full contrast."""
    board = ((down * 60).astype(int) + (across * 60).astype(int)) % 2
    spokes = np.sin(24 * np.arctan2(across, down)) > 0
    shapes = np.where((down < 0) & (across < 0), board, spokes)
    tint = np.stack([shapes, 0.8 * shapes, 0.6 * shapes + 0.2 * (across + 0.5)], axis=-1)
    return _pixels(255 * tint)


def _text(ink: tuple[int, int, int], paper: tuple[int, int, int]) -> Pixels:
    """Four lines of text in different sizes, antialiased."""
    large = np.full((_TEXT_SIDE * _FINER, _TEXT_SIDE * _FINER, 3), paper, np.uint8)
    for number, (down, size) in enumerate(_LINES):
        text, place = _WORDS[number * 6 :], (_FINER, down * _FINER)
        width = 2 + 2 * number
        cv2.putText(large, text, place, cv2.FONT_HERSHEY_DUPLEX, size * _FINER, ink, width, cv2.LINE_AA)
    return np.asarray(cv2.resize(large, (_TEXT_SIDE, _TEXT_SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _pixels(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)
