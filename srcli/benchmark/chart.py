"""HR pictures to measure on: a chart rendered by code, or a folder of the user's."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError
from srcli.imaging.pixels import as_rgb8
from srcli.io import pictures as images

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float64]

SIDE = 512
"""Of the chart that quality is measured on, HR pixels."""

_TEXT = "Sphinx of black quartz, judge my vow. 0123456789"


def render(side: int) -> Pixels:
    """(side, side, 3) uint8 RGB: slopes and edges above, text and texture below; the same every time."""
    half, rest = side // 2, side - side // 2
    top = np.hstack([_slopes(half, half), _edges(half, rest)])
    bottom = np.hstack([_text(rest, half), _texture(rest, rest)])
    return np.vstack([top, bottom])


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, by name; hidden files, such as macOS's `._a.png`, are none.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    suffixes = (*images.SUFFIXES, *images.READ_ONLY_SUFFIXES)
    try:
        seen = (p for p in folder.iterdir() if not p.name.startswith("."))
        found = sorted(p for p in seen if p.suffix.lower() in suffixes and p.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}).", "Name a folder.") from error
    if not found:
        raise InputError(f"{folder}: no pictures in this folder.", f"It needs {', '.join(suffixes)}.")
    return found


def read(path: Path) -> Pixels:
    """A picture as (H, W, 3) uint8 RGB: gray in all three channels, alpha left out, 16 bits rounded to 8.

    Raises:
        InputError: it cannot be read.
    """
    return as_rgb8(images.read(path).pixels)


def _grid(height: int, width: int) -> tuple[Plane, Plane]:
    """Coordinates of the pixels, -1 to 1 down and across."""
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    return rows / height * 2 - 1, columns / width * 2 - 1


def _eight_bits(*planes: Plane) -> Pixels:
    """Planes of 0-1 as (H, W, 3) uint8."""
    return np.clip(np.rint(np.stack(planes, axis=2) * 255), 0, 255).astype(np.uint8)


def _slopes(height: int, width: int) -> Pixels:
    """A linear and a round slope and their mixture."""
    y, x = _grid(height, width)
    ball = np.clip(1 - np.hypot(x, y), 0, 1)
    return _eight_bits((x + 1) / 2, (y + 1) / 2, 0.2 + 0.7 * ball)


def _edges(height: int, width: int) -> Pixels:
    """A star of 36 spokes, edges one pixel soft, as a camera's are."""
    y, x = _grid(height, width)
    radius = np.hypot(x, y)
    away = np.sin(18 * np.arctan2(y, x)) / 18 * radius * height / 2  # pixels from the next edge
    star = np.clip(away + 0.5, 0, 1)
    inside = np.clip((0.95 - radius) * height / 2, 0, 1)
    return _eight_bits(
        star * inside + 1 - inside, star * 0.8 * inside + 1 - inside, 0.9 - 0.6 * star * inside
    )


def _text(height: int, width: int) -> Pixels:
    """Lines of growing letters, dark on paper."""
    page = np.full((height, width, 3), (244, 240, 226), np.uint8)
    bottom, size = 4.0, 0.3
    while bottom < height:
        bottom += 34 * size
        ink = (30, 24, round(120 * size) % 256)
        cv2.putText(
            page,
            _TEXT,
            (4, round(bottom)),
            cv2.FONT_HERSHEY_SIMPLEX,
            size,
            ink,
            1 + (size > 0.7),
            cv2.LINE_AA,
        )
        size *= 1.15
    return page


def _texture(height: int, width: int) -> Pixels:
    """Rings that grow finer, over grain of two sizes."""
    y, x = _grid(height, width)
    draw = np.random.default_rng(0)
    fine, coarse = (draw.standard_normal((height, width)) for _ in range(2))
    grain = 0.12 * cv2.GaussianBlur(fine, (0, 0), 0.8) + 0.5 * cv2.GaussianBlur(coarse, (0, 0), 3.0)
    rings = 0.5 + 0.3 * np.cos(np.hypot(x, y) ** 2 * height / 4)
    weave = 0.08 * np.sin(x * width / 5) * np.sin(y * height / 7)
    return _eight_bits(rings + grain, 0.9 * rings + grain + weave, 0.6 * rings + grain + 0.2)
