"""Drawings with hard or antialiased edges, made by code at any size: LR and the HR that is true to it."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Color = tuple[int, int, int]
Size = tuple[int, int]

_FINE = 16  # pixels of a fine drawing in one of LR
_FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)
_LETTERS = list("abcdefghijklmnopqrstuvwxyz ABCDEFGH 0123456789 ")
_OFF = 16  # 0-255, difference from which on a stroke is visible


def draw(kind: str, scale: int, random: np.random.Generator, size: Size = (80, 128)) -> tuple[Pixels, Pixels]:
    """LR and HR of one drawing; the same for a generator in the same state.

    Args:
        kind: one of `KINDS`.
        scale: 2, 3 or 4.
        random: decides the drawing.
        size: (height, width) of LR, 24 or more.

    Returns:
        (height, width, 3) and (height * scale, width * scale, 3) uint8 RGB.
    """
    render, fine = KINDS[kind]
    drawing = fine(random, size)
    return render(drawing, 1), render(drawing, scale)


def ghost_share(lr: Pixels, result: Pixels) -> float:
    """Share of the flat pixels of a result that differ from LR's colour there by more than 16 of 255.

    Flat are pixels whose 3×3 LR neighbourhood has one colour; NaN where there are none.

    Args:
        lr: (H, W) or (H, W, C).
        result: the same, enlarged by a whole number.
    """
    planes = lr.reshape(*lr.shape[:2], -1)
    highest, lowest = cv2.dilate(planes, np.ones((3, 3))), cv2.erode(planes, np.ones((3, 3)))
    flat = (highest == lowest).reshape(planes.shape).all(2)
    scale = result.shape[0] // lr.shape[0]
    flat, nearest = (part.repeat(scale, 0).repeat(scale, 1) for part in (flat, planes))
    off = np.abs(result.reshape(nearest.shape).astype(int) - nearest).max(2) > _OFF
    return float(off[flat].mean()) if flat.any() else float("nan")


def _antialiased(fine: Pixels, factor: int) -> Pixels:
    """Each pixel the mean of what it covers."""
    size = fine.shape[1] * factor // _FINE, fine.shape[0] * factor // _FINE
    return np.asarray(cv2.resize(fine, size, interpolation=cv2.INTER_AREA), np.uint8)


def _sampled(fine: Pixels, factor: int) -> Pixels:
    """Each pixel the colour at its centre: no more colours than the drawing has."""
    lr = fine.shape[0] // _FINE, fine.shape[1] // _FINE
    rows, columns = (((np.arange(side * factor) + 0.5) * _FINE / factor).astype(int) for side in lr)
    return np.ascontiguousarray(fine[rows][:, columns])


def _page(color: Color, size: Size) -> Pixels:
    return np.full((size[0] * _FINE, size[1] * _FINE, 3), color, np.uint8)


def _colors(draw: np.random.Generator) -> tuple[Color, Color]:
    """Paper and ink: black on white, white on black, or dark on light in colour."""
    black, white = (0, 0, 0), (255, 255, 255)
    paper, ink = (_color(draw, *range_) for range_ in ((160, 256), (0, 90)))
    pairs = ((white, black), (black, white), (paper, ink))
    return pairs[int(draw.integers(len(pairs)))]


def _color(draw: np.random.Generator, low: int = 0, high: int = 256) -> Color:
    red, green, blue = (int(value) for value in draw.integers(low, high, 3))
    return red, green, blue


def _text(draw: np.random.Generator, size: Size) -> Pixels:
    """Lines of text 8 to 24 LR pixels high."""
    paper, ink = _colors(draw)
    page = _page(paper, size)
    height = int(draw.choice([8, 10, 12, 16, 24]))
    font = _FONTS[int(draw.integers(len(_FONTS)))]
    scale = cv2.getFontScaleFromHeight(font, int(0.7 * height * _FINE), 1)
    for base in range(height, size[0], round(1.4 * height)):
        words = "".join(draw.choice(_LETTERS, 40))
        place = 3 * _FINE, base * _FINE
        cv2.putText(page, words, place, font, scale, ink, height * _FINE // 12, cv2.LINE_8)
    return page


def _lines(draw: np.random.Generator, size: Size) -> Pixels:
    """Lines and circles of one thickness, at any angle and place."""
    paper, ink = _colors(draw)
    page, width = _page(paper, size), int(draw.uniform(0.8, 2) * _FINE)
    for _ in range(10):
        start, end = ([int(draw.integers(side * _FINE)) for side in size[::-1]] for _ in range(2))
        cv2.line(page, start, end, ink, width)
        cv2.circle(page, end, int(draw.integers(4, 20)) * _FINE, ink, width)
    return page


def _interface(draw: np.random.Generator, size: Size) -> Pixels:
    """Filled and framed panels that lie on whole LR pixels, with text that does not."""
    page = _page(_color(draw, 190), size)
    for _ in range(8):
        top, left = (int(draw.integers(side - 12)) for side in size)
        bottom, right = top + int(draw.integers(8, 24)), left + int(draw.integers(12, 60))
        page[top * _FINE : bottom * _FINE, left * _FINE : right * _FINE] = _color(draw, 0, 160)
        inner = slice((top + 1) * _FINE, (bottom - 1) * _FINE), slice((left + 1) * _FINE, (right - 1) * _FINE)
        page[inner] = _color(draw, 140)
        place = (left + 3) * _FINE, (top + 8) * _FINE
        font = cv2.FONT_HERSHEY_SIMPLEX
        scale = cv2.getFontScaleFromHeight(font, 6 * _FINE, 1)
        cv2.putText(page, f"File {top}", place, font, scale, (20, 20, 20), _FINE, cv2.LINE_8)
    return page


def _sprites(draw: np.random.Generator, size: Size) -> Pixels:
    """Symmetrical figures of 8 or 16 art pixels and a few colours on one background."""
    palette = draw.integers(0, 256, (int(draw.integers(3, 8)), 3)).astype(np.uint8)
    side = int(draw.choice([8, 16]))
    zoom = int(draw.integers(1, 1 + min(3, size[0] // (side + 2))))
    art = np.zeros((size[0], size[1]), np.int64)
    for top in range(1, size[0] // zoom - side, side + 4):
        for left in range(2, size[1] // zoom - side, side + 4):
            half = cv2.medianBlur(draw.integers(0, len(palette), (side, side // 2)).astype(np.uint8), 3)
            art[top : top + side, left : left + side] = np.hstack([half, half[:, ::-1]])
    zoomed = art.repeat(zoom, 0).repeat(zoom, 1)[: size[0], : size[1]]
    return palette[zoomed].repeat(_FINE, 0).repeat(_FINE, 1)


_Render = Callable[[Pixels, int], Pixels]
_Draw = Callable[[np.random.Generator, Size], Pixels]

KINDS: Mapping[str, tuple[_Render, _Draw]] = MappingProxyType(
    {
        "pixel art": (_sampled, _sprites),
        "one-bit text": (_sampled, _text),
        "one-bit lines": (_sampled, _lines),
        "interface": (_antialiased, _interface),
        "smooth text": (_antialiased, _text),
        "smooth lines": (_antialiased, _lines),
    }
)
"""How each kind is rendered and drawn: the first four have hard edges."""
