"""What a film is: its picture, its times and its colour, all read before its container closes."""

import mmap
import struct
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from srcli.errors import InputError, shown
from srcli.imaging.yuv import Coding
from srcli.io.films.packets import Bits
from srcli.io.films.parts import Known, Part, UnknownError, known
from srcli.io.films.planes import Layout, layout_of, planes_of
from srcli.io.films.scan import HEAD, Scan, Timing, constant_rate, last_duration, scan, timing
from srcli.io.films.signatures import gif_ends
from srcli.io.films.source import codec_name, extent_at, is_png_or_webp, main_stream, only, opened, size_of
from srcli.io.remote import Location

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

MOST_PIXELS = 1 << 27
"""Of a frame, which FFmpeg holds whole: somewhat more than 16K."""


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


def colour_of(stream: VideoStream, frame: VideoFrame, layout: Layout, where: str) -> Colour:
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


def _turned_by(frame: VideoFrame) -> SideData:
    """The display matrix of a PNG frame, from its rotation; other side data is not read.

    PyAV 18.1 frees side data with a name twice once it is asked for, as PNG's ICC profiles are, and crashes.
    """
    turn = {90: (0, -1, 1, 0), 180: (-1, 0, 0, -1), 270: (0, 1, -1, 0)}.get(frame.rotation % 360)
    matrix = None
    if turn is not None:
        a, b, c, d = (part << 16 for part in turn)
        matrix = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return SideData(matrix, None, None, [])


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


_ALWAYS_PROGRESSIVE = ("vp8", "vp9", "av1", "gif", "apng", "png")
DRAWN_OVER = ("gif", "apng")
"""Codecs whose frames may depend on any before, whatever they are marked as."""
_FLAGS_FIELDS = ("h264", "hevc", "mpeg2video")
"""Codecs whose frames say whether they are interlaced, so that it does not count what the stream says."""
_DURATIONS_STORED = ("mov", "gif", "apng")
"""Starts of the names of containers that store how long each frame is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a film is. Picklable; says all that is needed once the container is closed.

    Attributes:
        path: of the file; a URL if it is read by ranges.
        size: bytes of the file.
        container: FFmpeg's name of the demuxer, e.g. "mov,mp4,m4a,3gp,3g2,mj2" or "matroska,webm".
        index: of the main video stream in the container; not always 0.
        codec: FFmpeg's name, e.g. "h264", "av1".
        width, height: of the frames, in samples, as coded: not turned, not stretched.
        pixel_format: FFmpeg's name of what the decoder gives.
        coding: what the codes mean, as used: where the file does not say, by the usual rule (see `notes`).
        alpha: frames have an alpha plane; gray: only luma.
        primaries, transfer, matrix: as tagged, AVCOL_PRI_*, _TRC_* and _SPC_*; 2: untagged.
        time_base: seconds a tick.
        times: when each visible frame is shown, ascending, in ticks; of a film that was read in part, see
            `parts.Known`.
        last_duration: ticks for which the last frame is shown.
        rate: frames a second if it is constant: exact, also where the clock is too coarse for it; else None.
        timed: decoded frames carry their times. Otherwise the container has none, or wrong ones, and `times`
            are theirs in order.
        sample_aspect: width to height of a sample.
        display_matrix: nine int32 as FFmpeg has them; None: shown as coded.
        mastering: AVMasteringDisplayMetadata as 22 integers: ten fractions (x and y of red, green, blue and
            white, least and most luminance) and two flags: chromaticities are there, luminances are there.
        light: MaxCLL and MaxFALL in cd/m².
        interlaced: frames are two fields.
        flagged: interlaced frames say so themselves; else only the stream does, and all are.
        cut: how the file is cut off, in words; empty: it is not, as far as its container tells.
        notes: what is assumed or left out, one sentence each.
        estimate: of the number of frames, where a film was looked at in some places alone; else None.
    """

    path: Location
    size: int
    container: str
    index: int
    codec: str
    width: int
    height: int
    pixel_format: str
    coding: Coding
    alpha: bool
    gray: bool
    primaries: int
    transfer: int
    matrix: int
    time_base: Fraction
    times: tuple[int, ...]
    last_duration: int
    rate: Fraction | None
    timed: bool
    sample_aspect: Fraction
    display_matrix: tuple[int, ...] | None
    mastering: tuple[int, ...] | None
    light: tuple[int, int] | None
    interlaced: bool
    flagged: bool
    cut: str
    notes: tuple[str, ...]
    estimate: int | None = None

    @property
    def turned(self) -> bool:
        """Whether it is shown turned by a quarter."""
        return self.display_matrix is not None and self.display_matrix[0] == self.display_matrix[4] == 0

    @property
    def end(self) -> int:
        """When the last frame ends, in ticks."""
        return self.times[-1] + self.last_duration

    def duration(self, number: int) -> int:
        """Ticks for which a frame is shown."""
        return (self.times[number + 1] if number + 1 < len(self.times) else self.end) - self.times[number]

    def until(self, number: int, end: Fraction | None) -> Fraction:
        """When a frame is no longer shown, in seconds, or `end` where that is earlier."""
        natural = (self.times[number] + self.duration(number)) * self.time_base
        return natural if end is None else min(natural, end)

    def seconds(self, number: int) -> Fraction:
        """When a frame is shown, exact, also where the clock is too coarse for the rate."""
        if self.rate:
            return self.times[0] * self.time_base + number / self.rate
        return self.times[number] * self.time_base

    def number(self, time: int) -> int | None:
        """The frame that is shown from exactly this time on, in ticks."""
        at = bisect_left(self.times, time)
        return at if at < len(self.times) and self.times[at] == time else None


def probe(path: Location, part: Part | None = None) -> Facts:
    """Read what a film is. The whole file is read, since nothing else tells its frames; few are decoded.

    Args:
        part: what of it is wanted: no more is read, where the container has an index and times. None: all.

    Raises:
        InputError: it cannot be read, has no video, no frame that can be decoded, or is of a kind that cannot
            be upscaled; says which and what to do.
    """
    if part is not None:
        try:
            return _probe(path, part)
        except (UnknownError, av.error.FFmpegError):
            pass
    return _probe(path, None)


def _probe(path: Location, part: Part | None) -> Facts:
    with opened(path) as container:
        stream = main_stream(container, path)
        only(container, stream)
        where, base = f"{shown(path)}, stream #{stream.index}", stream.time_base
        if stream.width * stream.height > MOST_PIXELS:
            size = f"{stream.width}x{stream.height}"
            raise InputError(
                f"{where}: frames of {size} pixels are too large, 134 megapixels is the most.",
                "Make it smaller first, or take its first frame out as a picture.",
            )
        assert base is not None
        refuse_dolby(where, stream.codec_context.codec_tag)
        found = scan(container, stream, where, only_head=part is not None)
        is_png = codec_name(stream) == "png"
        if not is_png:
            refuse_dolby(where, "", found.head)
        first = found.head[0]
        layout = _layout(first, where)
        tags = colour_of(stream, first, layout, where)
        side = _turned_by(first) if is_png else side_data(found.head)
        hints = stream.average_rate, stream.guessed_rate, stream.base_rate, stream.codec_context.framerate
        when = timing(found, stream, hints, where)
        if part is None:
            frames = Known(when.times, when.durations, constant_rate(when.times, base, hints), None)
        else:
            frames = known(container, stream, found, when, part, hints)
            when = when._replace(times=frames.times)
        times, durations, rate, estimate = frames
        stored = container.format.name.startswith(_DURATIONS_STORED)
        cut, cut_notes = _cut(path, stream, found)
        flagged = _fields_flagged(container, stream, found, when, where)
        return Facts(
            path=path,
            size=size_of(path),
            container=container.format.name,
            index=stream.index,
            codec=codec_name(stream),
            width=first.width,
            height=first.height,
            pixel_format=first.format.name,
            coding=tags.coding,
            alpha=layout.alpha and not _opaque(path, stream, first),
            gray=layout.gray,
            primaries=tags.primaries,
            transfer=tags.transfer,
            matrix=tags.matrix,
            time_base=base,
            times=tuple(times),
            last_duration=last_duration(times, durations, base, rate, stored=stored),
            rate=rate,
            timed=when.timed,
            sample_aspect=stream.sample_aspect_ratio or Fraction(1),
            display_matrix=side.display_matrix,
            mastering=side.mastering,
            light=side.light,
            interlaced=flagged or _fields_declared(stream),
            flagged=flagged,
            cut=cut,
            notes=(*when.notes, *tags.notes, *cut_notes, *side.notes),
            estimate=estimate,
        )


def _layout(frame: VideoFrame, where: str) -> Layout:
    layout = layout_of(frame.format.name)
    if layout is None:
        raise InputError(
            f"{where}: frames of the kind {frame.format.name} are not supported.",
            "Convert the film to 4:2:0, 4:2:2, 4:4:4, RGB or gray of 8 to 16 bits first.",
        )
    return layout


def _opaque(path: Location, stream: VideoStream, first: VideoFrame) -> bool:
    """Whether no pixel of a picture that may be transparent is: of animated ones, in any frame."""
    if codec_name(stream) not in DRAWN_OVER and not is_png_or_webp(path):
        return first.format.has_palette and _is_opaque(first)
    try:
        with opened(path) as container:
            return all(_is_opaque(frame) for frame in container.decode(video=0))
    except av.error.FFmpegError:  # the reader says what is damaged
        return False


def _is_opaque(frame: VideoFrame) -> bool:
    alpha = planes_of(frame)[1]
    return alpha is None or bool((alpha == np.iinfo(alpha.dtype).max).all())


def _fields_declared(stream: VideoStream) -> bool:
    """Whether the stream, not its frames, says that it is interlaced."""
    codec = codec_name(stream)
    return codec not in (*_FLAGS_FIELDS, *_ALWAYS_PROGRESSIVE) and stream.codec_context.field_order > 1


def _fields_flagged(
    container: InputContainer, stream: VideoStream, found: Scan, when: Timing, where: str
) -> bool:
    """If frames say that they are interlaced, of the first ones and of one at each quarter of the film."""
    codec = codec_name(stream)
    if codec in _ALWAYS_PROGRESSIVE:
        return False
    flagged = any(frame.interlaced_frame for frame in found.head)
    quarters = (1, 2, 3) if when.timed and len(when.times) > 4 * HEAD and not flagged else ()
    for quarter in quarters:
        try:
            container.seek(when.times[len(when.times) * quarter // 4], stream=stream)
            frame = next(container.decode(stream), None)
        except av.error.FFmpegError:  # damaged there
            continue
        flagged = flagged or (frame is not None and frame.interlaced_frame)
    if flagged and codec == "hevc":
        raise InputError(
            f"{where}: its frames are single fields (interlaced HEVC), which is not supported.",
            "Deinterlace the film with another tool first.",
        )
    return flagged


def _cut(path: Location, stream: VideoStream, found: Scan) -> tuple[str, list[str]]:
    """How a film is cut off, in words, and a note where its end is missing but no frame."""
    if codec_name(stream) == "gif" and isinstance(path, Path):
        return _cut_gif(path)
    reach = extent_at(path)
    if not reach.short:
        return found.failure, []
    if stream.container.format.name.startswith("mov") and not reach.fragmented:
        entries = stream.index_entries
        missing = sum(entry.pos + entry.size > reach.size for entry in entries)
        if missing:
            return f"{missing} of {len(entries)} frames are missing", []
        return found.failure, ["The file is shorter than it says, but all frames are there."]
    return f"{(reach.declared or 0) - reach.size} bytes are missing at its end", []


def _cut_gif(path: Path) -> tuple[str, list[str]]:
    """`_cut` for a GIF, whose blocks are followed to its end."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        ended = gif_ends(data)
    notes = {"trailer": ["Its end is missing, but no pixel."]}
    return ("its last frames are missing", []) if ended == "cut" else ("", notes.get(ended, []))
