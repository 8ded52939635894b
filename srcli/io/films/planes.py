"""Planes of decoded frames as arrays, codes unchanged, whatever way FFmpeg's pixel format packs them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from av import VideoFormat, VideoFrame
from numpy.typing import NDArray

Plane = NDArray[Any]

_PACKED = {
    "rgb24": "rgb", "bgr24": "bgr", "rgba": "rgba", "bgra": "bgra", "argb": "argb", "abgr": "abgr",
    "rgb0": "rgb.", "bgr0": "bgr.", "0rgb": ".rgb", "0bgr": ".bgr", "rgb48": "rgb", "bgr48": "bgr",
    "rgba64": "rgba", "bgra64": "bgra", "ya8": "ya", "ya16": "ya", "ayuv": "ayuv", "ayuv64": "ayuv",
    "vuya": "vuya", "vuyx": "vuy.", "uyva": "uyva", "vyu444": "vyu", "xv36": "uyv.", "xv48": "uyv.",
    "yuyv422": "yuyv", "yvyu422": "yvyu", "uyvy422": "uyvy", "y210": "yuyv", "y212": "yuyv", "y216": "yuyv",
}  # fmt: skip
"""Formats in one plane -> what their samples are, in the order of memory."""
_HIGH_PAIRED = {f"p{chroma}{bits}": "uv" for chroma in (0, 2, 4) for bits in (10, 12, 16)}
_PAIRED = {"nv12": "uv", "nv21": "vu", "nv16": "uv", "nv20": "uv", "nv24": "uv", "nv42": "vu", **_HIGH_PAIRED}
"""Formats of a luma plane and one with both chromas, in the order of memory."""
_HIGH = {*_HIGH_PAIRED, "y210", "y212", "xv36"}
"""Formats whose codes lie in the high bits of 16."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What the planes of a pixel format are.

    Attributes:
        bits: of a code, 8 to 16.
        rgb: planes are G, B, R; else Y or Y, Cb, Cr.
        gray: only luma.
        alpha: there is an alpha plane, full range.
        sub_x, sub_y: luma samples for each chroma sample, across and down.
    """

    bits: int
    rgb: bool
    gray: bool
    alpha: bool
    sub_x: int
    sub_y: int


def layout_of(name: str) -> Layout | None:
    """What the planes of FFmpeg's pixel format `name` are.

    None: a format that is not read, for it is Bayer, floating point, in the memory of a device, or has fewer
    than 8 or more than 16 bits a sample.
    """
    form = VideoFormat(name, 64, 64)
    parts = form.components
    if form.has_palette:
        return Layout(8, rgb=True, gray=False, alpha=True, sub_x=1, sub_y=1)
    if form.is_bayer or form.is_bit_stream or not parts or len({part.bits for part in parts}) > 1:
        return None
    base, bits = _base(name), parts[0].bits
    separate = len({part.plane for part in parts}) == len(parts) and "msb" not in name
    if not 8 <= bits <= 16 or "f16" in name or not (separate or base in _PACKED or base in _PAIRED):
        return None
    gray = len(parts) < 3
    sub_x, sub_y = (1, 1) if gray else (64 // parts[1].width, 64 // parts[1].height)
    return Layout(bits, rgb=form.is_rgb, gray=gray, alpha=len(parts) in (2, 4), sub_x=sub_x, sub_y=sub_y)


def planes_of(frame: VideoFrame, *, alpha: bool = True) -> tuple[list[Plane], Plane | None]:
    """The planes of a frame, and its alpha plane.

    Returns:
        Y; Y, Cb, Cr; or G, B, R, each (H, W) of its own size; and the alpha, or None where there is none or
        it is not asked for. uint8 for 8 bits, else uint16 with the codes in the low bits. Read-only. Samples
        of a row lie together. Planar formats give views of the decoder's memory, which they keep alive.

    Raises:
        ValueError: a format that `layout_of` does not know.
    """
    layout = layout_of(frame.format.name)
    if layout is None:
        raise ValueError(frame.format.name)
    base = _base(frame.format.name)
    if frame.format.has_palette:
        parts = _coloured(frame)
    elif base in _PACKED:
        parts = _unpacked(frame, _PACKED[base], layout)
    elif base in _PAIRED:
        pairs = _rows(frame, 1, layout.bits, 2 * frame.planes[1].width)
        chroma = [pairs[:, _PAIRED[base].index(letter) :: 2] for letter in "uv"]
        parts = [_rows(frame, 0, layout.bits, frame.width), *chroma]
    else:
        parts = [_rows(frame, index, layout.bits, plane.width) for index, plane in enumerate(frame.planes)]
    if base in _HIGH and layout.bits < 16:
        parts = [part >> 16 - layout.bits for part in parts]
    if base in _PACKED or base in _PAIRED:
        parts = [np.ascontiguousarray(part) for part in parts]
    for part in parts:
        part.flags.writeable = False
    colours = 1 if layout.gray else 3
    return parts[:colours], parts[colours] if alpha and layout.alpha else None


def _base(name: str) -> str:
    return name[:-2] if name.endswith(("le", "be")) else name


def _rows(frame: VideoFrame, index: int, bits: int, count: int) -> Plane:
    """The first `count` samples of each row of a plane; the rest only pads it."""
    plane: Any = frame.planes[index]
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, abs(plane.line_size))
    if plane.line_size < 0:  # stored from the bottom to the top
        rows = rows[::-1]
    if bits == 8:
        return rows[:, :count]
    samples: Plane = rows[:, : 2 * count].view(">u2" if frame.format.is_big_endian else "<u2")
    return samples.astype(np.uint16, copy=False)


def _unpacked(frame: VideoFrame, order: str, layout: Layout) -> list[Plane]:
    """Planes of a format in one plane."""
    if layout.sub_x == 1:
        samples = _rows(frame, 0, layout.bits, len(order) * frame.width)
        letters = ("gbr" if layout.rgb else "y" if layout.gray else "yuv") + "a" * layout.alpha
        return [samples[:, order.index(letter) :: len(order)] for letter in letters]
    samples = _rows(
        frame, 0, layout.bits, 4 * -(-frame.width // 2)
    )  # pairs of pixels, the last maybe half used
    luma = samples[:, order.index("y") :: 2][:, : frame.width]
    return [luma, *(samples[:, order.index(letter) :: 4] for letter in "uv")]


def _coloured(frame: VideoFrame) -> list[Plane]:
    """G, B, R and alpha of indices into 256 colours, which are stored as BGRA."""
    palette: Any = frame.planes[1]
    colours = np.frombuffer(palette, np.uint8)[:1024].reshape(256, 4)
    indices = _rows(frame, 0, 8, frame.width)
    return [colours[:, channel][indices] for channel in (1, 0, 2, 3)]
