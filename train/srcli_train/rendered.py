"""Pictures that photographs are thin in: straight lines, grids, facades and lettering in perspective.

Each is drawn four times as large, warped and shrunk, so that its edges are antialiased as a camera's are.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Draw = np.random.Generator

SIDE = 480
"""Of a rendered picture, in pixels, as the crops of photographs have it."""
_FINE = 4  # drawn at this multiple
_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
_LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789   .,:;-+&%()"))


def render(number: int, seed: int = 0) -> Pixels:
    """The picture of that number: (480, 480, 3) uint8 RGB; the same numbers give the same pixels."""
    draw = np.random.default_rng((seed, 7, number))
    side = SIDE * _FINE
    canvas = _background(draw, side)
    for _ in range(draw.integers(1, 4)):
        layer = _KINDS[draw.integers(len(_KINDS))](canvas.copy(), draw)
        canvas = _warped(layer, draw)
    return np.asarray(cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def _color(draw: Draw) -> tuple[int, int, int]:
    """Mostly near gray, as walls and paper are; sometimes any colour."""
    if draw.random() < 0.3:
        red, green, blue = draw.integers(0, 256, 3)
    else:
        red, green, blue = np.clip(draw.integers(0, 256) + draw.integers(-20, 21, 3), 0, 255)
    return int(red), int(green), int(blue)


def _background(draw: Draw, side: int) -> Pixels:
    """A smooth slope between four colours."""
    corners = np.array([[_color(draw), _color(draw)], [_color(draw), _color(draw)]], np.float32)
    mean = corners.mean((0, 1))
    slope = mean + (corners - mean) * draw.uniform(0, 0.5)
    return np.asarray(cv2.resize(slope, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def _lines(canvas: Pixels, draw: Draw) -> Pixels:
    """Wires and edges: single lines of any direction."""
    side = canvas.shape[0]
    for _ in range(draw.integers(5, 40)):
        start, end = draw.integers(0, side, 2).tolist(), draw.integers(0, side, 2).tolist()
        cv2.line(canvas, start, end, _color(draw), int(draw.integers(_FINE, 6 * _FINE)), cv2.LINE_AA)
    return canvas


def _grid(canvas: Pixels, draw: Draw) -> Pixels:
    """Railings and tiles: parallel lines in one or two directions."""
    side, color = canvas.shape[0], _color(draw)
    step = int(draw.integers(5 * _FINE, 40 * _FINE))
    width = int(draw.integers(_FINE, max(_FINE + 1, step // 2)))
    both = draw.random() < 0.6
    for place in range(0, side, step):
        cv2.line(canvas, (place, 0), (place, side), color, width, cv2.LINE_AA)
        if both:
            cv2.line(canvas, (0, place), (side, place), color, width, cv2.LINE_AA)
    return canvas


def _windows(canvas: Pixels, draw: Draw) -> Pixels:
    """A facade: equal frames in rows, each with a pane of its own brightness."""
    side, frame = canvas.shape[0], _color(draw)
    height, width = (int(v) for v in draw.integers(16 * _FINE, 60 * _FINE, 2))
    gap, border = int(draw.integers(4 * _FINE, 20 * _FINE)), int(draw.integers(_FINE, 4 * _FINE))
    for top in range(gap, side, height + gap):
        for left in range(gap, side, width + gap):
            corners = (left, top), (left + width, top + height)
            cv2.rectangle(canvas, *corners, _color(draw), cv2.FILLED)
            cv2.rectangle(canvas, *corners, frame, border, cv2.LINE_AA)
    return canvas


def _text(canvas: Pixels, draw: Draw) -> Pixels:
    """Lines of letters on a page or a sign."""
    side, color = canvas.shape[0], _color(draw)
    font, size = int(draw.choice(_FONTS)), float(draw.uniform(0.4, 2.0)) * _FINE
    weight = int(draw.integers(1, 4)) * max(1, round(size / 2))
    step = int(size * draw.uniform(30, 50))
    for bottom in range(step, side, step):
        words = "".join(draw.choice(_LETTERS, 80))
        cv2.putText(canvas, words, (_FINE * 4, bottom), font, size, color, weight, cv2.LINE_AA)
    return canvas


_KINDS: tuple[Callable[[Pixels, Draw], Pixels], ...] = (_lines, _grid, _windows, _text)


def _warped(layer: Pixels, draw: Draw) -> Pixels:
    """Seen from somewhere else: turned, and its corners moved by up to a fifth of the side."""
    side = layer.shape[0]
    square = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    moved = square + draw.uniform(-0.2, 0.2, (4, 2)).astype(np.float32) * side
    angle = float(draw.choice([0.0, draw.normal(0, 8), draw.uniform(0, 360)]))
    turn = np.vstack([cv2.getRotationMatrix2D((side / 2, side / 2), angle, 1.2), [0, 0, 1]])
    matrix = turn @ cv2.getPerspectiveTransform(square, moved)
    warped = cv2.warpPerspective(
        layer, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return np.asarray(warped, np.uint8)
