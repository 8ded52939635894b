"""Films to measure on, made by code so that everybody has the same ones: camera, screen, slides, drawings."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

import pictures
from srcli.imaging import yuv

Pixels = NDArray[Any]

RATE, DRAWN = 15, 24
"""Frames a second, as screens are often recorded and animation is made."""
SLIDE_SECONDS = 2
_CODING = yuv.Coding(8, 1, False, 2, 2, "left")
_BT709, _LIMITED = 1, 1
_WORDS = (
    "for",
    "frame",
    "in",
    "film:",
    "window",
    "halo",
    "core",
    "plane",
    "yield",
    "return",
    "await",
    "assert",
)
_QUIET = {"libx265": {"x265-params": "log-level=none"}}
_WHITE, _BLACK = (230, 230, 230), (15, 15, 15)


def write(
    path: Path,
    frames: Iterable[Pixels],
    *,
    crf: int,
    rate: int = RATE,
    preset: str = "",
    encoder: str = "libx264",
) -> None:
    """Encode frames, 4:2:0 in 8 bits, tagged BT.709.

    Args:
        path: replaced; its suffix names the container.
        frames: (H, W, 3) uint8 RGB of one size, even.
        crf: of the encoder, on its own scale.
        preset: of the encoder; "": its default ("medium" of x264 and x265).
        encoder: FFmpeg's name: libx264, libx265, libsvtav1.
    """
    options = {"crf": str(crf)} | ({"preset": preset} if preset else {}) | _QUIET.get(encoder, {})
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(encoder, rate=rate, options=options)
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        for number, rgb in enumerate(frames):
            height, width = rgb.shape[:2]
            if number == 0:
                stream.height, stream.width = height, width
            planes = yuv.from_rgb(rgb, _CODING)
            packed = np.concatenate([plane.reshape(-1) for plane in planes]).reshape(height * 3 // 2, width)
            frame = av.VideoFrame.from_ndarray(packed, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            frame.colorspace, frame.color_range = _BT709, _LIMITED
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def bits(path: Path) -> int:
    """Of the picture, without container and other streams."""
    with av.open(str(path)) as film:
        return 8 * sum(packet.size for packet in film.demux(video=0))


def repeat(source: Path, path: Path, times: int) -> None:
    """Write a film without B-frames so many times over, one after the other, without encoding it anew."""
    with av.open(str(source)) as read, av.open(str(path), "w") as out:
        video = read.streams.video[0]
        stream = out.add_stream_from_template(video)
        packets = [(bytes(each), each.pts, each.is_keyframe) for each in read.demux(video) if each.size]
        length = round(len(packets) / (video.average_rate * video.time_base))
        for begin in range(0, times * length, length):
            for data, time, key in packets:
                packet: Any = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, video.time_base, key
                packet.pts = packet.dts = begin + time
                out.mux(packet)


def camera(height: int, width: int, frames: int, *, grain: float = 3.0) -> Iterator[Pixels]:
    """A slow pan over a photograph, with fresh grain in every frame (standard deviation, of 255)."""
    draw = np.random.default_rng(0)
    drift = min(frames, 64)
    large = pictures.photograph(height + drift, width + 2 * drift).astype(np.float32)
    for number in range(frames):
        at = number % drift
        part = large[at : at + height, 2 * at : 2 * at + width]
        if grain:
            part = np.clip(part + draw.standard_normal((height, width, 1), np.float32) * grain, 0, 255)
        yield part.round().astype(np.uint8)


def screen(height: int, width: int, frames: int) -> Iterator[Pixels]:
    """A screen: an editor that stands still, a terminal of a tenth of it that scrolls by a line twice a
    second, and a pointer that moves half of the time."""
    desk = np.full((height, width, 3), (36, 44, 60), np.uint8)
    size = max(6, height // 45)
    _text(desk[height // 20 : height * 19 // 20, width // 20 : width * 3 // 5], size, 0)
    top, left = height * 3 // 5, width * 2 // 3
    pointer = np.array([[0, 0], [0, 1], [0.7, 0.7]]) * height / 30
    place, aim = np.array([width * 0.8, height * 0.3]), np.array([width * 0.3, height * 0.5])
    for number in range(frames):
        shown = desk.copy()
        _text(shown[top : height * 19 // 20, left : width * 19 // 20], size, number * 2 // RATE)
        if number // RATE % 2 == 0:
            place = place + (aim - place) / RATE
        cv2.fillPoly(shown, [(place + pointer).astype(np.int32)], _WHITE, cv2.LINE_AA)
        yield shown


def _text(area: Pixels, size: int, first: int) -> None:
    """Lines of text in a dark rectangle, from the line of that number on; the area is overwritten."""
    area[...] = _BLACK
    for row in range(area.shape[0] // (2 * size)):
        draw = np.random.default_rng(first + row)
        line = " ".join(draw.choice(_WORDS, 14))
        at = size, (2 * row + 1) * size + size // 2
        canvas = np.ascontiguousarray(area)
        cv2.putText(canvas, line, at, cv2.FONT_HERSHEY_SIMPLEX, size / 22, _WHITE, 1, cv2.LINE_AA)
        area[...] = canvas


def slides(height: int, width: int, frames: int) -> Iterator[Pixels]:
    """Slides with a title, lines and a photograph, each of which stands still for two seconds."""
    for number in range(frames):
        index, step = divmod(number, SLIDE_SECONDS * RATE)
        if step == 0:
            slide = np.full((height, width, 3), (244, 244, 240), np.uint8)
            photo = pictures.photograph(height // 2, width * 2 // 5, index)
            top, left = height // 3, width // 2
            slide[top : top + photo.shape[0], left : left + photo.shape[1]] = photo
            for row in range(5):
                words = " ".join(np.random.default_rng((index, row)).choice(_WORDS, 4))
                at = width // 20, height // 6 + row * height // 7
                scale = height / (360 if row == 0 else 720)
                cv2.putText(slide, words, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (40, 40, 60), 1, cv2.LINE_AA)
        yield slide


def drawings(height: int, width: int, frames: int) -> Iterator[Pixels]:
    """Held animation at 24 frames/s, again and again: before a painted background that stands still, a figure
    moves for a second on twos (a drawing is shown for two frames) and for one on threes, then stands and
    talks for two: only its mouth is drawn anew, on threes and on twos, with pauses of 9 and 14 frames.
    """
    painted = cv2.bilateralFilter(pictures.photograph(height, width, 1), 9, 60, 9)
    for number in range(frames):
        step, mouth = number % 96, 0
        if step < 24:
            turn = step // 2 / 3
        elif step < 48:
            turn = 4 + (step - 24) // 3 / 3
        else:
            turn, spoken = 6.5, step - 48
            mouth = 1 + spoken // 3 % 3 if spoken < 15 else 1 + spoken // 2 % 3 if 24 <= spoken < 34 else 0
        yield _figure(painted.copy(), turn, mouth)


def _figure(shown: Pixels, turn: float, mouth: int) -> Pixels:
    """Draw a figure at that phase of its movement, radians, its mouth open by 0 to 3."""
    height, width = shown.shape[:2]
    lean, x = 10 * np.sin(turn), int(width * (0.45 + 0.1 * np.sin(turn)))
    skin, lips = (240, 200, 170), (150, 50, 50)
    parts = (
        (0.60, 0.07, 0.22, (200, 80, 60)),
        (0.35, 0.05, 0.07, skin),
        (0.38, 0.015, 0.004 + 0.006 * mouth, lips),
    )
    for y, across, down, colour in parts:
        place, sizes = (x, int(height * y)), (int(across * width), round(down * height))
        cv2.ellipse(shown, place, sizes, lean, 0, 360, colour, -1, cv2.LINE_AA)
        if colour != lips:
            cv2.ellipse(shown, place, sizes, lean, 0, 360, _BLACK, 2, cv2.LINE_AA)
    return shown
