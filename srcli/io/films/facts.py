"""What a film is: its picture, its times and its colour, all read before its container closes."""

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream

from srcli.errors import InputError, shown
from srcli.imaging.yuv import Coding
from srcli.io.films import colour
from srcli.io.films import times as clock
from srcli.io.films.planes import Layout, layout_of, planes_of
from srcli.io.films.scan import HEAD, Scan, Timing, scan, timing
from srcli.io.films.signatures import extent
from srcli.io.films.source import codec_name, main_stream, only, opened

_ALWAYS_PROGRESSIVE = ("vp8", "vp9", "av1", "gif", "apng", "png")
_FLAGS_FIELDS = ("h264", "hevc", "mpeg2video")
"""Codecs whose frames say whether they are interlaced, so that it does not count what the stream says."""
_DURATIONS_STORED = ("mov", "gif", "apng")
"""Starts of the names of containers that store how long each frame is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a film is. Picklable; says all that is needed once the container is closed.

    Attributes:
        path: of the file.
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


def probe(path: Path) -> Facts:
    """Read what a film is. The whole file is read, since nothing else tells its frames; few are decoded.

    Raises:
        InputError: it cannot be read, has no video, no frame that can be decoded, or is of a kind that cannot
            be upscaled; says which and what to do.
    """
    with opened(path) as container:
        stream = main_stream(container, path)
        only(container, stream)
        where, base = f"{shown(path)}, stream #{stream.index}", stream.time_base
        assert base is not None
        colour.refuse_dolby(where, stream.codec_context.codec_tag)
        found = scan(container, stream, where)
        colour.refuse_dolby(where, "", found.head)
        first = found.head[0]
        layout = _layout(first, where)
        tags = colour.read(stream, first, layout, where)
        side = colour.side_data(found.head)
        hints = stream.average_rate, stream.guessed_rate, stream.base_rate, stream.codec_context.framerate
        when = timing(found, stream, hints, where)
        rate = clock.constant_rate(when.times, base, hints)
        stored = container.format.name.startswith(_DURATIONS_STORED)
        cut, cut_notes = _cut(path, stream, found)
        flagged = _fields_flagged(container, stream, found, when, where)
        return Facts(
            path=path,
            size=path.stat().st_size,
            container=container.format.name,
            index=stream.index,
            codec=codec_name(stream),
            width=first.width,
            height=first.height,
            pixel_format=first.format.name,
            coding=tags.coding,
            alpha=layout.alpha and not (first.format.has_palette and _opaque(first)),
            gray=layout.gray,
            primaries=tags.primaries,
            transfer=tags.transfer,
            matrix=tags.matrix,
            time_base=base,
            times=tuple(when.times),
            last_duration=clock.last_duration(when.times, when.durations, base, rate, stored=stored),
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
        )


def _layout(frame: VideoFrame, where: str) -> Layout:
    layout = layout_of(frame.format.name)
    if layout is None:
        raise InputError(
            f"{where}: frames of the kind {frame.format.name} are not supported.",
            "Convert the film to 4:2:0, 4:2:2, 4:4:4, RGB or gray of 8 to 16 bits first.",
        )
    return layout


def _opaque(frame: VideoFrame) -> bool:
    alpha = planes_of(frame)[1]
    return alpha is None or bool((alpha == 255).all())


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


def _cut(path: Path, stream: VideoStream, found: Scan) -> tuple[str, list[str]]:
    """How a film is cut off, in words, and a note where its end is missing but no frame."""
    reach = extent(path)
    if not reach.short:
        return found.failure, []
    if stream.container.format.name.startswith("mov") and not reach.fragmented:
        entries = stream.index_entries
        missing = sum(entry.pos + entry.size > reach.size for entry in entries)
        if missing:
            return f"{missing} of {len(entries)} frames are missing", []
        return found.failure, ["The file is shorter than it says, but all frames are there."]
    return f"{(reach.declared or 0) - reach.size} bytes are missing at its end", []
