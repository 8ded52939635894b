"""A film's picture in closed segments, each from an encoder of its own, and their join into the final file.

A segment needs no other one to be decoded, so that work can stop after any of them. The join copies packets.
Times of frames are exact in MP4 and MOV, and the nearest ones in Matroska and WebM, which count milliseconds.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from errno import EDQUOT, EFBIG, ENOSPC
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import av
from av import VideoFrame
from av.container import InputContainer, OutputContainer
from av.packet import PacketSideData, PktSideDataT, packet_sidedata_type_from_literal
from av.stream import Disposition

from srcli.errors import InputError, OutputError, shown
from srcli.imaging.pixels import Pixels
from srcli.io import storage
from srcli.io.films import animation, encoder, remux, streams
from srcli.io.films.encoding import Encoding, nominal_rate
from srcli.io.films.facts import Facts
from srcli.io.films.remux import Packet, disable_subtitles
from srcli.io.films.source import opened, reason
from srcli.io.films.streams import ANIMATED, CONTAINERS, Carried
from srcli.io.films.timeline import Timeline

_ALPHA: PktSideDataT = "matroska_block_additional"
"""Side data in which VP9 has its alpha. NUT does not hold it; there it is a stream of its own."""

FIXED = {"fflags": "+bitexact", "avoid_negative_ts": "disabled"}
"""Options of every muxer: nothing random; times as given."""
_UNASKED = Disposition.default | Disposition.forced
"""Streams that players show without being asked."""


class Writer(Protocol):
    """What FFmpeg writes to."""

    def write(self, data: bytes) -> int:
        """Take all of it."""


@contextmanager
def writing(path: Path, encoding: Encoding, facts: Facts) -> Iterator["SegmentWriter"]:
    """A segment to add frames to. It is complete, and on the disk, when the block ends and it has its name.

    Args:
        path: replaced. The file is NUT, which holds any time base; QuickTime for ProRes, which NUT has not.

    Raises:
        OutputError: it cannot be written, or the encoder fails; what was there stays.
    """
    scale = str(facts.time_base.denominator)
    exact = {"video_track_timescale": scale, "movie_timescale": scale} if encoding.codec == "prores" else {}
    with _whole(path, "mov" if exact else "nut", exact) as out:
        stream = encoder.add_encoder(out, encoding, facts.time_base, nominal_rate(facts))
        beside = None
        if encoding.alpha and encoding.codec == "vp9":
            beside = out.add_mux_stream("vp9", width=encoding.size[1], height=encoding.size[0])
            beside.time_base = facts.time_base
        yield SegmentWriter(out, stream, beside, encoding, facts)
        _mux(out, _encoded(stream, None), beside)


@dataclass(frozen=True, slots=True)
class SegmentWriter:
    """See `writing`."""

    _out: OutputContainer
    _stream: Any
    _beside: Any
    _encoding: Encoding
    _facts: Facts

    def add(self, time: int, planes: Sequence[Pixels], alpha: Pixels | None = None) -> None:
        """Encode a frame: its time in the film's time base, ascending. See `encoder.make_frame`."""
        tick = time - _origin(self._facts)
        frame = encoder.make_frame(planes, alpha, tick, self._facts.time_base, self._encoding)
        _mux(self._out, _encoded(self._stream, frame), self._beside)


def join(
    segments: Sequence[Path],
    out: Path,
    encoding: Encoding,
    facts: Facts,
    carried: Carried,
    *,
    tags: Mapping[str, str],
    start: Fraction | None = None,
    end: Fraction | None = None,
) -> None:
    """Put segments in order and all other streams of the film into one file; complete when it has its name.

    Args:
        segments: of the same encoding, in the order of time.
        out: replaced.
        carried: from `streams.plan` for the same container.
        tags: added to the container's, e.g. `encoding_tool` for what made it.
        start, end: seconds in the film between which the other streams are carried; None: all.

    Raises:
        InputError: a segment is damaged or of another encoding, or the film cannot be opened.
        OutputError: the file cannot be written; what was there stays.
    """
    if encoding.container in ANIMATED:
        _join_picture(segments, out, encoding, facts, tags, end)
        return
    ticks = list(_ticks(segments, facts))
    with opened(facts.path) as film:
        parts = Parts(film, encoding, facts, carried, ticks, start, end)
        mp4 = parts.holds.muxer in ("mp4", "mov")
        finish = disable_subtitles if mp4 and _silent(film, carried) else None
        with _whole(out, parts.holds.muxer, parts.options(tags), finish) as target:
            parts.fill(target, segments, tags)


def _join_picture(
    segments: Sequence[Path], out: Path, encoding: Encoding, facts: Facts, tags: Mapping[str, str],
    end: Fraction | None,
) -> None:  # fmt: skip
    """The same for an animated picture, which is encoded from the segments."""
    number = facts.number(max(_ticks(segments, facts)))
    assert number is not None, "segments hold frames of the film"
    last = facts.until(number, end) - facts.times[number] * facts.time_base

    def frames() -> Iterator[tuple[int, VideoFrame]]:
        for path in segments:
            for packet, tick in _packets(path, facts):
                yield from ((tick, frame) for frame in packet.decode())

    def finish(file: Path) -> None:
        animation.finish(file, encoding, facts, tags.get(streams.RECORD, ""), last)

    muxer, options = ANIMATED[encoding.container].muxer, animation.header_options(encoding, facts, last)
    with _whole(out, muxer, options, finish) as target:
        animation.fill(target, frames, encoding, facts)


class Parts:
    """What is joined: see `join`.

    Args:
        delay: as of `Timeline`.
    """

    def __init__(
        self, film: InputContainer, encoding: Encoding, facts: Facts, carried: Carried, ticks: Sequence[int],
        start: Fraction | None, end: Fraction | None, delay: int | None = None,
    ) -> None:  # fmt: skip
        self._film, self._encoding, self._facts, self._carried = film, encoding, facts, carried
        self._start, self._end = start, end
        self.holds = CONTAINERS[encoding.container]
        begins = remux.first_times(facts.path, carried.steps, start)
        self._timeline = Timeline(facts, ticks, self.holds, film, begins, start, delay)
        self._chapters = self._timeline.chapters(film.chapters(), end)

    def options(self, tags: Mapping[str, str]) -> dict[str, str]:
        """Of the muxer."""
        header = streams.header_options(self.holds, self._tags(tags), self._carried, self._film)
        return {**self._timeline.options, **header}

    def fill(self, target: OutputContainer, segments: Iterable[Path], tags: Mapping[str, str]) -> None:
        """Write everything."""
        film, facts, encoding, timeline = self._film, self._facts, self._encoding, self._timeline
        ordered = iter(segments)
        head = next(ordered)
        target.metadata.update(streams.named(self._tags(tags), self.holds))
        target.set_chapters(self._chapters)
        video: Any = None
        tracks = []
        with _segment(head) as first:
            for step in self._carried.steps:
                if step.how == "picture":
                    video = _add_picture(target, first, film, encoding, facts, timeline.base)
                elif track := remux.add(film, facts.path, target, step, self.holds):
                    tracks.append(track)
            target.start_encoding()
        others = remux.placed(film, tracks, timeline.shift, self._start, self._end)
        _interleave(target, _pictures(chain([head], ordered), timeline, video), others)

    def _tags(self, tags: Mapping[str, str]) -> dict[str, str]:
        return {**streams.tags(self._film.metadata), **tags}


def _silent(film: InputContainer, carried: Carried) -> bool:
    """Whether the film has subtitles and shows none of them unasked."""
    kept = [film.streams[step.index] for step in carried.steps if film.streams[step.index].type == "subtitle"]
    return bool(kept) and not any(stream.disposition & _UNASKED for stream in kept)


def _interleave(out: OutputContainer, video: Iterator[Packet], others: Iterator[Packet]) -> None:
    """Write packets in the order of their decoding times."""
    head = next(others, None)
    for packet in video:
        while head is not None and _moment(head) <= _moment(packet):
            out.mux(head)
            head = next(others, None)
        out.mux(packet)
    while head is not None:
        out.mux(head)
        head = next(others, None)


def _moment(packet: Packet) -> Fraction:
    time = packet.dts if packet.dts is not None else packet.pts
    return (time or 0) * packet.time_base


def _add_picture(
    out: OutputContainer,
    segment: InputContainer,
    film: InputContainer,
    encoding: Encoding,
    facts: Facts,
    base: Fraction,
) -> Any:
    """The picture's stream: the codec as in a segment, all else as in the film."""
    source = film.streams[facts.index]
    stream: Any = out.add_stream_from_template(segment.streams.video[0], opaque=True)
    context = stream.codec_context
    encoder.tag(context, encoding)
    stream.time_base = base
    context.framerate = facts.rate or Fraction(0)  # Matroska has it as the duration of frames
    context.pix_fmt = encoding.pixel_format  # FFmpeg's decoder of VP9 does not see the alpha
    if encoding.codec_tag:
        context.codec_tag = encoding.codec_tag
    if encoding.codec not in ("h264", "hevc") and encoding.coding.sub_x > 1:
        # Only an opened context takes it. Matroska then says where chroma lies, which these codecs cannot.
        context.options = {"chroma_sample_location": encoding.coding.siting}
        context.open()
    if facts.display_matrix:
        stream.set_display_matrix(_moved(facts, encoding.size))
    stream.metadata.update(streams.tags(source.metadata))
    stream.disposition = source.disposition
    if sum(other.type == "video" and not streams.is_cover(other) for other in film.streams) > 1:
        stream.disposition |= Disposition.default  # else muxers give it to the first one
    return stream


def _moved(facts: Facts, size: tuple[int, int]) -> list[int]:
    """The display matrix; what it moves the picture by grows with the picture."""
    matrix = list(facts.display_matrix or ())
    height, width = size
    across, down = (height, width) if facts.turned else (width, height)
    old_across, old_down = (facts.height, facts.width) if facts.turned else (facts.width, facts.height)
    matrix[6] = round(Fraction(matrix[6] * across, old_across))
    matrix[7] = round(Fraction(matrix[7] * down, old_down))
    return matrix


def _pictures(segments: Iterable[Path], timeline: Timeline, video: Any) -> Iterator[Packet]:
    """The packets of all segments, with their times in the output."""
    decoding = iter(timeline.decoding_times())
    first, last = 0, None
    for path in segments:
        for packet, tick in _packets(path, timeline.facts):
            packet.stream, packet.time_base = video, timeline.base
            packet.pts, packet.duration = timeline.shown(tick)
            packet.dts = next(decoding)
            if last is None:
                first = packet.dts
            else:
                yield last
            last = packet
    if last is not None:
        if not timeline.in_ms and last.dts is not None:  # MP4 adds durations up in the order of decoding
            last.duration = max(1, timeline.length - (last.dts - first))
        yield last


def _ticks(segments: Sequence[Path], facts: Facts) -> Iterator[int]:
    """Times of all packets in decoding order, as in the film."""
    parameters = None
    for path in segments:
        with _segment(path) as segment:
            extradata = segment.streams.video[0].codec_context.extradata or b""
        if parameters is not None and extradata != parameters:
            raise InputError(
                f"{shown(path)} was encoded with other settings than the segments before.", "Start anew."
            )
        parameters = extradata
        for _, tick in _packets(path, facts):
            yield tick


def _packets(path: Path, facts: Facts) -> Iterator[tuple[Packet, int]]:
    """The packets of a segment with their times in the film's time base; alpha is back where it was."""
    with _segment(path) as segment:
        video = segment.streams.video
        waiting: list[Packet] = []
        try:
            for packet in segment.demux(*video):
                if not packet.size:
                    continue
                if len(video) > 1:
                    waiting.append(packet)
                    if len(waiting) < 2:
                        continue
                    packet, alpha = sorted(waiting, key=lambda each: each.stream.index)
                    if packet.pts != alpha.pts:
                        raise InputError(f"{shown(path)} is damaged: its alpha is missing.", "Start anew.")
                    waiting = []
                    _put_alpha(packet, bytes(alpha))
                tick = (packet.pts or 0) * packet.time_base / facts.time_base + _origin(facts)
                if tick.denominator != 1:
                    raise InputError(f"{shown(path)} has times between those of the film.", "Start anew.")
                yield packet, tick.numerator
        except av.error.FFmpegError as error:
            raise InputError(f"{shown(path)} is damaged ({reason(error)}).", "Start anew.") from error


def _put_alpha(packet: Packet, alpha: bytes) -> None:
    create: Any = PacketSideData  # its types lack the arguments
    side = create(packet_sidedata_type_from_literal(_ALPHA), len(alpha))
    side.update(alpha)
    packet.set_sidedata(side)


@contextmanager
def _segment(path: Path) -> Iterator[InputContainer]:
    try:
        segment = av.open(str(path.absolute()))
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{shown(path)} cannot be opened ({reason(error)}).", "Start anew.") from error
    with segment:
        yield segment


def _origin(facts: Facts) -> int:
    """The time that is 0 in segments: NUT has none below."""
    return min(0, facts.times[0])


def _encoded(stream: Any, frame: VideoFrame | None) -> list[Packet]:
    try:
        packets: list[Packet] = stream.encode(frame)
    except av.error.FFmpegError as error:
        raise OutputError(
            f"The encoder {stream.codec_context.codec.name} fails ({reason(error)}).",
            "Try another --codec, or a smaller scale.",
        ) from error
    return packets


def _mux(out: OutputContainer, packets: Iterable[Packet], beside: Any) -> None:
    for packet in packets:
        alpha = packet.get_sidedata(_ALPHA) if beside is not None else None
        out.mux(packet)
        if alpha is not None:
            other: Packet = av.Packet(bytes(alpha))
            other.stream, other.time_base = beside, packet.time_base
            other.pts, other.dts, other.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
            out.mux(other)


@contextmanager
def filling(file: str | Writer, muxer: str, options: Mapping[str, str]) -> Iterator[OutputContainer]:
    """A container to fill, closed where the block ends; how closing fails after another error is not said.

    Args:
        file: a path, or what FFmpeg writes to, forward only.

    Raises:
        FFmpegError, OSError: it cannot be written.
    """
    out = av.open(file, "w", format=muxer, container_options={**FIXED, **options})
    try:
        yield out
    except BaseException:
        with suppress(av.error.FFmpegError, OSError):
            out.close()
        raise
    out.close()


@contextmanager
def _whole(
    path: Path, muxer: str, options: Mapping[str, str], finish: Callable[[Path], None] | None = None
) -> Iterator[OutputContainer]:
    """A container to fill; it replaces `path` when it is complete.

    Args:
        finish: is called with the file when it is written and has not yet its name.

    Raises:
        OutputError: it cannot be written; what was at `path` stays.
    """
    try:
        with storage.unfinished(path) as part:
            with filling(str(part.absolute()), muxer, options) as out:
                yield out
            if finish:
                finish(part)
    except (av.error.FFmpegError, OSError) as error:
        if error.errno in (ENOSPC, EDQUOT, EFBIG):
            raise OutputError(
                f"{shown(path)}: the disk is full, or its file system takes no file this large.",
                "Free some space, or choose another place.",
            ) from error
        raise OutputError(f"{shown(path)} cannot be written ({reason(error)}).") from error
