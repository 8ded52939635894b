"""What a film is: its picture, its times and its colour, all read before its container closes."""

import struct
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
from av import VideoFrame
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from srcli.errors import InputError, shown
from srcli.imaging.yuv import Coding
from srcli.io.films import times as clock
from srcli.io.films.packets import Bits, Shown
from srcli.io.films.planes import Layout, Plane, layout_of, planes_of
from srcli.io.films.signatures import extent
from srcli.io.films.source import alpha_beside, codec_name, decoder, main_stream, only, opened, reason

_HEAD = 8
"""Frames decoded to see what they are; they tell interlaced material and wrong times too."""
_UNSPECIFIED = (2, 3)
"""AVCOL_SPC_UNSPECIFIED and _RESERVED."""
_SD_LINES = 576
_REFUSED_MATRICES = {
    8: "YCgCo", 10: "BT.2020 with constant luminance", 11: "SMPTE 2085", 12: "derived from the primaries",
    13: "derived from the primaries with constant luminance", 14: "ICtCp", 15: "IPT-C2", 16: "YCgCo-R",
    17: "YCgCo-R",
}  # fmt: skip
_DROPPED = {
    "DYNAMIC_HDR_PLUS": "HDR10+ metadata is left out.",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata is left out.",
    "DOVI_METADATA": "Dolby Vision is left out; the picture without it is kept.",
    "A53_CC": "Closed captions inside the video stream are left out.",
    "SPHERICAL": "The mark that the film is spherical (360°) is left out.",
    "STEREO3D": "The mark that the film is stereoscopic (3D) is left out.",
}
"""Side data of frames that is not carried."""
_DOLBY_ONLY = ("dvh1", "dvhe", "dav1", "dva1", "dvav")
"""Codec tags of streams that are nothing without Dolby Vision."""
_VIDEO_RANGE_GRAY = ("h264", "hevc", "vvc", "mpeg2video", "vp9", "av1")
"""Codecs whose untagged gray is limited range, as their other frames are."""
_ALWAYS_PROGRESSIVE = ("vp8", "vp9", "av1", "gif", "apng", "png")
_REORDERED_IN_AVI = ("h264", "hevc")
_DURATIONS_STORED = ("mov", "gif", "apng")
"""Starts of the names of containers that store how long each frame is shown."""
_UNKNOWN_SIDE_DATA = "_missing_"


def _accept_unknown_side_data() -> None:
    """Let PyAV list the side data of frames that have a kind it does not know; 18.1 raises ValueError."""

    def member(cls: Any, value: object) -> Any:
        unknown = object.__new__(cls)
        unknown._name_, unknown._value_ = f"UNKNOWN_{value}", value
        return unknown

    setattr(Type, _UNKNOWN_SIDE_DATA, classmethod(member))


_accept_unknown_side_data()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a film is. Picklable; says all that is needed once the container is closed.

    Attributes:
        path: of the file.
        container: FFmpeg's name of the demuxer, e.g. "mov,mp4,m4a,3gp,3g2,mj2" or "matroska,webm".
        index: of the main video stream in the container; not always 0.
        codec: FFmpeg's name, e.g. "h264", "av1".
        width, height: of the frames, in samples, as coded: not turned, not stretched.
        pixel_format: FFmpeg's name of what the decoder gives.
        coding: what the codes mean, as used: where the file does not say, by the usual rule (see `notes`).
        alpha: frames have an alpha plane; gray: only luma.
        primaries, transfer, matrix: as tagged, AVCOL_PRI_*, _TRC_* and _SPC_*; 2: untagged.
        time_base: seconds a tick.
        times: when each visible frame is shown, ascending, in ticks.
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
    """

    path: Path
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

    @property
    def end(self) -> int:
        """When the last frame ends, in ticks."""
        return self.times[-1] + self.last_duration

    def duration(self, number: int) -> int:
        """Ticks for which a frame is shown."""
        return (self.times[number + 1] if number + 1 < len(self.times) else self.end) - self.times[number]

    def seconds(self, number: int) -> Fraction:
        """When a frame is shown, exact, also where the clock is too coarse for the rate."""
        if self.rate:
            return self.times[0] * self.time_base + number / self.rate
        return self.times[number] * self.time_base

    def number(self, time: int) -> int | None:
        """The frame that is shown from exactly this time on, in ticks."""
        at = bisect_left(self.times, time)
        return at if at < len(self.times) and self.times[at] == time else None


class _Packet(NamedTuple):
    """What is kept of a packet of the stream, in ticks."""

    pts: int | None
    dts: int | None
    duration: int
    key: bool
    visible: bool


class _Scan(NamedTuple):
    """A stream read once.

    Attributes:
        packets: all, in decoding order.
        head: the first frames.
        failure: why reading ended early; empty: it did not.
    """

    packets: list[_Packet]
    head: list[VideoFrame]
    failure: str


class _Timing(NamedTuple):
    times: list[int]
    durations: list[int]
    timed: bool
    notes: list[str]


class _Colour(NamedTuple):
    coding: Coding
    primaries: int
    transfer: int
    matrix: int
    notes: list[str]


def probe(path: Path) -> Facts:
    """Read what a film is. Reads the whole file once, since nothing else tells its frames, but decodes few of them.

    Raises:
        InputError: it cannot be read, has no video, no frame that can be decoded, or is of a kind that cannot be
            upscaled; says which and what to do.
    """
    with opened(path) as container:
        stream = main_stream(container, path)
        only(container, stream)
        where = f"{shown(path)}, stream #{stream.index}"
        codec, base = codec_name(stream), stream.time_base
        _refuse_dolby_only(where, stream.codec_context.codec_tag)
        scan = _scan(container, stream, where)
        first = scan.head[0]
        layout = _layout(first, where)
        hints = stream.average_rate, stream.guessed_rate, stream.base_rate, stream.codec_context.framerate
        assert base is not None
        timing = _timing(scan, container.format.name, codec, base, hints)
        rate = clock.constant_rate(timing.times, base, hints)
        colour = _colour(stream, first, layout, codec, where)
        side = _side_data(scan.head)
        if (rpu := side.get("DOVI_RPU_BUFFER")) is not None and _dolby_colours(rpu):
            _refuse_dolby_only(where, _DOLBY_ONLY[0])
        flagged = codec not in _ALWAYS_PROGRESSIVE and _flagged(container, stream, scan.head, timing)
        if flagged and codec == "hevc":
            raise InputError(
                f"{where}: its frames are single fields (interlaced HEVC), which is not supported.",
                "Deinterlace the film with another tool first.",
            )
        declared = codec not in ("h264", "hevc", "mpeg2video") and stream.codec_context.field_order > 1
        cut, cut_notes = _cut(path, stream, scan)
        return Facts(
            path=path,
            container=container.format.name,
            index=stream.index,
            codec=codec,
            width=first.width,
            height=first.height,
            pixel_format=first.format.name,
            coding=colour.coding,
            alpha=layout.alpha and not (first.format.has_palette and _opaque(first)),
            gray=layout.gray,
            primaries=colour.primaries,
            transfer=colour.transfer,
            matrix=colour.matrix,
            time_base=base,
            times=tuple(timing.times),
            last_duration=clock.last_duration(
                timing.times,
                timing.durations,
                base,
                rate,
                stored=container.format.name.startswith(_DURATIONS_STORED),
            ),
            rate=rate,
            timed=timing.timed,
            sample_aspect=stream.sample_aspect_ratio or Fraction(1),
            display_matrix=_display_matrix(side),
            mastering=_mastering(side),
            light=_light(side),
            interlaced=flagged or declared,
            flagged=flagged,
            cut=cut,
            notes=(
                *timing.notes,
                *colour.notes,
                *cut_notes,
                *(_DROPPED[name] for name in side if name in _DROPPED),
            ),
        )


def _refuse_dolby_only(where: str, tag: str) -> None:
    if tag in _DOLBY_ONLY:
        raise InputError(
            f"{where} is Dolby Vision without a picture for other players (profile 5): its colours are unknown.",
            "Take a version in HDR10, HLG or SDR.",
        )


def _scan(container: InputContainer, stream: VideoStream, where: str) -> _Scan:
    context = decoder(stream)
    shows = Shown(codec_name(stream), stream.codec_context.extradata)
    packets: list[_Packet] = []
    head: list[VideoFrame] = []
    failure, whole = "", True
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.has_sidedata("encryption_info"):
                raise InputError(f"{where} is encrypted.", "Decrypt it first.")
            visible = shows(packet) and not packet.is_discard
            packets.append(_Packet(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, visible))
            whole = not packet.is_corrupt
            if len(head) < _HEAD:
                head += _decoded(context, packet)
    except av.error.FFmpegError as error:
        failure = reason(error)
    if not any(packet.visible for packet in packets):
        raise InputError(f"{where} has no frame{f' ({failure})' if failure else ''}.", "It may be cut off.")
    if len(head) < _HEAD:
        head += _decoded(context, None)
    if not head:
        raise InputError(
            f"{where}: none of its {len(packets)} frames can be decoded.", "It may be damaged or encrypted."
        )
    return _Scan(packets, head, failure or ("" if whole else "its last packet is not whole"))


def _decoded(context: Any, packet: Any) -> list[VideoFrame]:
    try:
        return list(context.decode(packet))
    except av.error.FFmpegError:
        return []


def _layout(frame: VideoFrame, where: str) -> Layout:
    layout = layout_of(frame.format.name)
    if layout is None:
        raise InputError(
            f"{where}: frames of the kind {frame.format.name} are not supported.",
            "Convert the film to 4:2:0, 4:2:2, 4:4:4, RGB or gray of 8 to 16 bits first.",
        )
    return layout


def _timing(
    scan: _Scan, container: str, codec: str, base: Fraction, hints: Sequence[Fraction | None]
) -> _Timing:
    visible = [packet for packet in scan.packets if packet.visible]
    stamps = {packet.pts for packet in visible}
    shown = [frame.pts for frame in scan.head]
    reliable = None not in stamps and len(stamps) == len(visible)
    reliable = reliable and not (container == "avi" and codec in _REORDERED_IN_AVI)
    if reliable and stamps.issuperset(shown) and all(a < b for a, b in zip(shown, shown[1:], strict=False)):  # type: ignore[operator]
        return _by_stamps(visible, shown[0])
    return _by_order(visible, container, base, hints)


def _by_stamps(visible: list[_Packet], first: int | None) -> _Timing:
    """Times as the packets have them, without frames that only make sense after a part that is not there."""
    ordered = sorted((packet.pts or 0, packet.duration) for packet in visible)
    key = next((packet.pts for packet in visible if packet.key), None)
    begin = ordered[0][0] if key is None or first is None else min(key, first)
    kept = [(time, duration) for time, duration in ordered if time >= begin]
    notes = []
    if left := len(ordered) - len(kept):
        notes.append(f"{left} frames before the first key frame cannot be decoded and are left out.")
    return _Timing([time for time, _ in kept], [duration for _, duration in kept], timed=True, notes=notes)


def _by_order(
    visible: list[_Packet], container: str, base: Fraction, hints: Sequence[Fraction | None]
) -> _Timing:
    """Times for frames in order: those of decoding, moved to where the first is shown."""
    rate = next((hint for hint in hints if hint), Fraction(25))
    step = max(1, round(1 / (rate * base)))
    times: list[int] = []
    for packet in visible:
        following = times[-1] + step if times else 0
        times.append(packet.dts if packet.dts is not None else following)
    shift = (visible[0].pts or times[0]) - times[0] if container != "avi" else 0
    ordered, moved = clock.ascending(time + shift for time in times)
    notes = []
    if all(packet.pts is None and packet.dts is None for packet in visible):
        notes.append(f"The film has no times; {float(rate):g} frames a second are assumed.")
    elif moved:
        notes.append(f"{moved} frames had the time of another frame; they are shown a little later.")
    return _Timing(ordered, [packet.duration for packet in visible], timed=False, notes=notes)


def _colour(stream: VideoStream, frame: VideoFrame, layout: Layout, codec: str, where: str) -> _Colour:
    context = stream.codec_context
    matrix, primaries, transfer = (
        ours if ours not in _UNSPECIFIED else theirs
        for ours, theirs in (
            (frame.colorspace, context.colorspace),
            (frame.color_primaries, context.color_primaries),
            (frame.color_trc, context.color_trc),
        )
    )
    if layout.rgb:
        return _Colour(Coding(layout.bits, 0, True), primaries, transfer, 0, [])
    if matrix in _REFUSED_MATRICES:
        raise InputError(
            f"{where}: its colours are coded as {_REFUSED_MATRICES[matrix]}, which is not supported.",
            "Convert the film to BT.709 or BT.2020 (non-constant luminance) first.",
        )
    notes = []
    used = matrix
    if matrix in (*_UNSPECIFIED, 0):
        used = 6 if frame.height <= _SD_LINES else 1
        if not layout.gray:
            name = "601" if used == 6 else "709"
            notes.append(f"The film does not say its colour matrix; BT.{name} is assumed for its size.")
    limits = frame.color_range or context.color_range
    untagged_full = layout.gray and codec not in _VIDEO_RANGE_GRAY
    full = limits == 2 or frame.format.name.startswith("yuvj") or (limits == 0 and untagged_full)
    subsampled = (layout.sub_x, layout.sub_y) != (1, 1)
    siting = _siting(frame, codec) if subsampled else "left"
    coding = Coding(layout.bits, used, full, layout.sub_x, layout.sub_y, siting)
    return _Colour(coding, primaries, transfer, matrix, notes)


_CENTER_MEANT = ("h264", "hevc", "mjpeg", "mpeg1video")
"""Codecs whose decoders always say where chroma lies; for others, "center" is what swscale makes of nothing."""


def _siting(frame: VideoFrame, codec: str) -> str:
    """Where chroma samples lie.

    PyAV 18.1 does not expose AVFrame.chroma_location, but its scaler obeys it and copies it: an impulse in the
    chroma of a small frame with this frame's properties comes out where the scaler thinks it lies.
    """
    small = frame.reformat(width=32, height=32, format="yuv420p")
    for plane, (size, value) in zip(small.planes, ((32, 128), (16, 128), (16, 128)), strict=True):
        samples = bytearray(bytes([value]) * plane.buffer_size)
        if plane is small.planes[1]:
            samples[(size // 2) * plane.line_size + size // 2] = 228
        plane.update(bytes(samples))
    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND
    planes, _ = planes_of(small.reformat(format="yuv444p", interpolation=exact))
    impulse = planes[1].astype(float) - 128
    across, down = ((impulse.sum(axis) @ range(32)) / impulse.sum() for axis in (0, 1))
    if across > 16.25 and down > 16.25:
        return "center" if codec in _CENTER_MEANT else "left"
    return ("top" if down < 16.25 else "") + ("left" if across < 16.25 else "")


def _side_data(frames: list[VideoFrame]) -> dict[str, bytes]:
    """Side data by its name, of the first frame that has it."""
    found: dict[str, bytes] = {}
    for frame in frames:
        entries: Any = frame.side_data
        for entry in entries.values():
            found.setdefault(entry.type.name, bytes(entry))
    return found


def _display_matrix(side: dict[str, bytes]) -> tuple[int, ...] | None:
    data = side.get("DISPLAYMATRIX")
    matrix = struct.unpack("=9i", data[:36]) if data else None
    return None if matrix == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30) else matrix


def _mastering(side: dict[str, bytes]) -> tuple[int, ...] | None:
    data = side.get("MASTERING_DISPLAY_METADATA")
    numbers = struct.unpack("=22i", data[:88]) if data else None
    return numbers if numbers and any(numbers[20:]) else None


def _light(side: dict[str, bytes]) -> tuple[int, int] | None:
    data = side.get("CONTENT_LIGHT_LEVEL")
    if not data:
        return None
    most, average = struct.unpack("=2I", data[:8])
    return (most, average) if most or average else None


def _dolby_colours(rpu: bytes) -> bool:
    """Whether Dolby Vision data (RPU) belong to a picture in Dolby's own colours: profile 0 in full range."""
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


def _flagged(container: InputContainer, stream: VideoStream, head: list[VideoFrame], timing: _Timing) -> bool:
    """Whether frames are interlaced: of the first ones, and of one at each quarter of the film."""
    if any(frame.interlaced_frame for frame in head):
        return True
    for quarter in (1, 2, 3) if timing.timed and len(timing.times) > 4 * _HEAD else ():
        try:
            container.seek(timing.times[len(timing.times) * quarter // 4], stream=stream)
            frame = next(container.decode(stream), None)
        except av.error.FFmpegError:
            continue
        if frame is not None and frame.interlaced_frame:
            return True
    return False


def _opaque(frame: VideoFrame) -> bool:
    alpha: Plane | None = planes_of(frame)[1]
    return alpha is None or bool((alpha == 255).all())


def _cut(path: Path, stream: VideoStream, scan: _Scan) -> tuple[str, list[str]]:
    """How a film is cut off, and a note where only something else than its frames is."""
    reach = extent(path)
    if reach.short and "mov" in stream.container.format.name and not reach.fragmented:
        entries = stream.index_entries
        missing = sum(entry.pos + entry.size > reach.size for entry in entries)
        if missing:
            return f"{missing} of {len(entries)} frames are missing", []
        return scan.failure, ["The file is shorter than it says, but all frames are there."]
    if reach.short:
        return f"{(reach.declared or 0) - reach.size} bytes are missing at its end", []
    return scan.failure, []
