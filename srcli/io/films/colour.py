"""What a film's frames say of their colour, and what is assumed where they say nothing."""

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from av import VideoFrame
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from srcli.errors import InputError
from srcli.imaging.yuv import Coding
from srcli.io.films.packets import Bits
from srcli.io.films.planes import Layout, planes_of

_UNTAGGED = (2, 3)
"""AVCOL_SPC_UNSPECIFIED and _RESERVED; the same numbers for primaries and transfer."""
_SD_LINES = 576
_REFUSED_MATRICES = {
    8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "SMPTE 2085", 12: "derived from the primaries",
    13: "derived from the primaries, with constant luminance", 14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-Re",
    17: "YCgCo-Ro",
}  # fmt: skip
_VIDEO_RANGE_GRAY = ("h264", "hevc", "vvc", "mpeg2video", "vp9", "av1")
"""Codecs whose untagged gray is limited range, as their other frames are."""
_CENTER_MEANT = ("h264", "hevc", "mjpeg", "mpeg1video")
"""Codecs whose decoders always say where chroma lies; for others the scaler makes "center" of nothing."""
_DOLBY_ONLY = ("dvh1", "dvhe", "dav1", "dva1", "dvav")
"""Codec tags of streams that are nothing without Dolby Vision."""
_LEFT_OUT = {
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata is left out.",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata is left out.",
    "DOVI_METADATA": "Dolby Vision is left out; the picture without it is kept.",
    "A53_CC": "Closed captions inside the video stream are left out.",
    "SPHERICAL": "The mark that the film is spherical (360°) is left out.",
    "STEREO3D": "The mark that the film is stereoscopic (3D) is left out.",
}


class Colour(NamedTuple):
    """Colour as tagged, AVCOL_PRI_*, _TRC_* and _SPC_*, and as used."""

    coding: Coding
    primaries: int
    transfer: int
    matrix: int
    notes: list[str]


class SideData(NamedTuple):
    """What frames have beside their samples, as of `Facts`; and what of it is not carried."""

    display_matrix: tuple[int, ...] | None
    mastering: tuple[int, ...] | None
    light: tuple[int, int] | None
    notes: list[str]


def read(stream: VideoStream, frame: VideoFrame, layout: Layout, where: str) -> Colour:
    """The colour of a stream by one of its frames.

    Args:
        where: file and stream, for errors.

    Raises:
        InputError: colours that are coded in a way that is not supported.
    """
    context = stream.codec_context
    codec = context.codec.canonical_name
    primaries = _tag(frame.color_primaries, context.color_primaries)
    transfer = _tag(frame.color_trc, context.color_trc)
    matrix = _tag(frame.colorspace, context.colorspace)
    if layout.rgb:
        return Colour(Coding(layout.bits, 0, True), primaries, transfer, 0, [])
    if matrix in _REFUSED_MATRICES:
        raise InputError(
            f"{where}: its colours are coded as {_REFUSED_MATRICES[matrix]}, which is not supported.",
            "Convert the film to BT.709 or BT.2020 (non-constant luminance) first.",
        )
    used, notes = matrix, []
    if matrix in (*_UNTAGGED, 0):  # 0 is for RGB, and wrong here
        used = 6 if frame.height <= _SD_LINES else 1
        if not layout.gray:
            name = "601" if used == 6 else "709"
            notes.append(f"The film does not say its colour matrix; BT.{name} is assumed for its size.")
    limits = frame.color_range or context.color_range
    gray_full = layout.gray and codec not in _VIDEO_RANGE_GRAY
    full = limits == 2 or frame.format.name.startswith("yuvj") or (limits == 0 and gray_full)
    siting = "left" if layout.sub_x == layout.sub_y == 1 else _siting(frame, codec)
    coding = Coding(layout.bits, used, full, layout.sub_x, layout.sub_y, siting)
    return Colour(coding, primaries, transfer, matrix, notes)


def _tag(of_frame: int, of_stream: int) -> int:
    return of_stream if of_frame in _UNTAGGED else of_frame


def _siting(frame: VideoFrame, codec: str) -> str:
    """Where chroma samples lie, as of `Coding`.

    PyAV 18.1 does not expose AVFrame.chroma_location, but its scaler obeys it and copies it: an impulse in
    the chroma of a small frame with this frame's properties comes out where the scaler thinks it lies.
    """
    small = frame.reformat(width=32, height=32, format="yuv420p")
    for index, plane in enumerate(small.planes):
        samples = bytearray(b"\x80" * plane.buffer_size)
        if index == 1:
            samples[8 * plane.line_size + 8] = 228
        plane.update(bytes(samples))
    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
    planes, _ = planes_of(small.reformat(format="yuv444p", interpolation=exact))
    impulse = planes[1].astype(float) - 128
    across, down = ((impulse.sum(axis) @ range(32)) / impulse.sum() for axis in (0, 1))
    if across > 16.25 and down > 16.25:
        return "center" if codec in _CENTER_MEANT else "left"
    return ("top" if down < 16.25 else "") + ("left" if across < 16.25 else "")


def refuse_dolby(where: str, tag: str, frames: Iterable[VideoFrame] = ()) -> None:
    """Refuse a stream that is nothing without Dolby Vision, by its codec tag or by its frames.

    Raises:
        InputError: it is one.
    """
    data = [entries["DOVI_RPU_BUFFER"] for entries in map(_entries, frames) if "DOVI_RPU_BUFFER" in entries]
    if tag in _DOLBY_ONLY or any(map(_dolby_colours, data)):
        raise InputError(
            f"{where} is Dolby Vision that no other player can show (profile 5).",
            "Take a version in HDR10, HLG or SDR.",
        )


def _dolby_colours(rpu: bytes) -> bool:
    """Whether Dolby Vision data (an RPU) are of a picture in Dolby's own colours: profile 0 in full range."""
    bits = Bits(rpu[1:64])
    try:
        bits.read(6 + 11)
        profile = bits.read(4)
        bits.read(4)
        if not bits.read(1):
            return False
        bits.read(1)
        if bits.read(2) == 0:
            bits.exp_golomb()
        bits.read(2)
        return profile == 0 and bool(bits.read(1))
    except EOFError:
        return False


def side_data(frames: Iterable[VideoFrame]) -> SideData:
    """What the first frames of a stream have beside their samples."""
    found: dict[str, bytes] = {}
    for frame in frames:
        found = _entries(frame) | found
    matrix, mastering, light = (
        struct.unpack_from(form, found[name]) if name in found else None
        for form, name in (
            ("=9i", "DISPLAYMATRIX"), ("=22i", "MASTERING_DISPLAY_METADATA"), ("=2I", "CONTENT_LIGHT_LEVEL"),
        )
    )  # fmt: skip
    upright = matrix == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    return SideData(
        None if upright else matrix,
        mastering if mastering and any(mastering[20:]) else None,
        (light[0], light[1]) if light and any(light) else None,
        [note for name, note in _LEFT_OUT.items() if name in found],
    )


def _entries(frame: VideoFrame) -> dict[str, bytes]:
    entries: Any = frame.side_data  # iterates over its values
    return {entry.type.name: bytes(entry) for entry in entries}


def _unknown(kinds: Any, value: object) -> Any:
    """A member of an enumeration for a value that it does not have."""
    member = object.__new__(kinds)
    member._name_, member._value_ = f"UNKNOWN_{value}", value
    return member


# PyAV 18.1 raises ValueError for all side data of a frame of which it does not know one kind.
Type._missing_ = classmethod(_unknown)  # type: ignore[assignment, method-assign]
