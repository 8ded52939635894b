"""The streams beside the picture: added to another container, and their packets with their times there."""

import logging
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import av
from av.container import InputContainer, OutputContainer
from av.stream import Discard, Disposition
from av.subtitles.subtitle import SubtitleSet

from srcli.errors import shown
from srcli.io import storage
from srcli.io.films import streams
from srcli.io.films.source import opened, reason
from srcli.io.films.streams import Container, Step, Stream
from srcli.io.remote import Location

log = logging.getLogger(__name__)

_WITHOUT_END = 5
"""Seconds for which a last text is shown that has no duration."""
_DRAWING = re.compile(rb"\\p[1-9]")
"""Vector graphics in ASS, which are no text."""
_MS = 1000


@dataclass(slots=True)
class _Event:
    """A text from `start` up to `end` (None: until the next one), in units of the input's time base."""

    start: int
    end: int | None
    ass: bytes


class TextSubtitles:
    """Converts the packets of one track.

    MP4's texts (mov_text) cannot overlap: where several are shown at once, they become one of several lines,
    cut where the set of texts changes. FFmpeg alone would lose all but the last one.

    Args:
        source: the stream in the input.
        target: the stream of the other codec in the output; its header is set.
    """

    def __init__(self, source: Any, target: Any) -> None:
        self._source, self._target = source, target
        self._apart = target.codec_context.name == "mov_text"
        self._shown: list[_Event] = []
        self._from = 0
        source.codec_context.open(strict=False)
        target.codec_context.subtitle_header = source.codec_context.subtitle_header

    def convert(self, packet: "av.Packet[Any]") -> Iterator["av.Packet[Any]"]:
        """The packets that are complete with this one, timed in the input's time base."""
        if packet.pts is None:
            return
        if self._apart:
            yield from self._until(packet.pts)
        for ass in self._texts(packet):
            event = _Event(packet.pts, packet.pts + packet.duration if packet.duration else None, ass)
            if self._apart:
                self._shown.append(event)
            else:
                yield self._encoded([ass], event.start, packet.duration or 0)

    def flush(self) -> Iterator["av.Packet[Any]"]:
        """What is left at the end of the track."""
        last = self._from + round(_WITHOUT_END / self._source.time_base)
        yield from self._until(max((event.end or last for event in self._shown), default=last))

    def _until(self, time: int) -> Iterator["av.Packet[Any]"]:
        """The texts shown from the last time up to `time`, a packet for each set of them."""
        for event in self._shown:
            event.end = event.end or time
        while self._shown and self._from < time:
            end = min(time, *(event.end or time for event in self._shown))
            if end > self._from:
                yield self._encoded([event.ass for event in self._shown], self._from, end - self._from)
            self._from = end
            self._shown = [event for event in self._shown if (event.end or time) > end]
        self._from = time

    def _texts(self, packet: "av.Packet[Any]") -> list[bytes]:
        """The ASS lines of a packet; none where it only ends what was shown."""
        try:
            decoded = self._source.codec_context.decode2(packet)
        except av.error.FFmpegError as error:
            log.warning("A subtitle is damaged and left out (%s).", reason(error))
            return []
        lines = [text.ass for text in decoded or () if getattr(text, "ass", None)]
        return [line for line in lines if _text(line).strip() and not _DRAWING.search(line)]

    def _encoded(self, lines: list[bytes], start: int, duration: int) -> "av.Packet[Any]":
        style = lines[0].split(b",", 8)[:8]
        line = b",".join([*style, rb"\N".join(map(_text, lines))])
        shown = round(duration * self._source.time_base * _MS)
        packet = self._target.codec_context.encode_subtitle(SubtitleSet.create(line, 0, shown))
        packet.pts = packet.dts = start
        packet.duration, packet.time_base = duration, self._source.time_base
        return packet  # type: ignore[no-any-return]


def _text(line: bytes) -> bytes:
    """The text of an ASS line: "ReadOrder,Layer,Style,Name,MarginL,MarginR,MarginV,Effect,Text"."""
    return line.split(b",", 8)[-1]


log = logging.getLogger(__name__)

Packet: TypeAlias = "av.Packet[Any]"

_PICTURES = {
    "mjpeg": ("image/jpeg", "jpg"), "png": ("image/png", "png"), "gif": ("image/gif", "gif"),
    "tiff": ("image/tiff", "tif"),
}  # fmt: skip
"""MIME types and suffixes of covers."""
_LOOK_AHEAD = 2000
"""Packets in which every stream of sound and video is expected to begin."""
_APART = 30
"""Seconds by which streams lie apart in a file at most."""


class Clock:
    """Times of one time base in another, `shift` seconds later, to the nearest."""

    def __init__(self, source: Fraction, target: Fraction, shift: Fraction) -> None:
        step, offset = source / target, shift / target + Fraction(1, 2)
        self._step = step.numerator * offset.denominator
        self._offset = offset.numerator * step.denominator
        self._unit = step.denominator * offset.denominator

    def __call__(self, time: int) -> int:
        return (time * self._step + self._offset) // self._unit


class Track:
    """A stream of the film and what it becomes in the output.

    Args:
        source, target: in the film and in the output.
        text: converts its packets; None: they are copied.
        ascending: the container takes no two packets at the same decoding time.
    """

    def __init__(
        self, source: Stream, target: Stream, text: TextSubtitles | None, *, ascending: bool
    ) -> None:
        self.source, self.target, self._text = source, target, text
        self._least = 1 if ascending else 0
        self._last: int | None = None
        self._length = 0
        self._samples: int | None = None

    def start(self, shift: Fraction) -> None:
        """Called when the output's header is written, which settles its time bases."""
        self._clock = Clock(self.source.time_base, self.target.time_base, shift)
        rate = self.source.codec_context.sample_rate if self.source.type == "audio" else 0
        counted = rate and self.target.time_base == Fraction(1, rate) < self.source.time_base
        self._frame = int(self.source.codec_context.frame_size or 0) if counted else 0

    def become(self, packet: Packet) -> Iterator[Packet]:
        """What a packet of the film becomes; nothing for the end of a text in MP4: the muxer has its own."""
        if self._text is None and packet.size <= 2 and streams.codec_of(self.source) == "mov_text":
            return
        yield from map(self._placed, self._text.convert(packet) if self._text else [packet])

    def flush(self) -> Iterator[Packet]:
        """What is left at the end of the film."""
        yield from map(self._placed, self._text.flush() if self._text else [])

    def _placed(self, packet: Packet) -> Packet:
        """Give a packet its stream and times in the output.

        Decoding times that do not ascend, which muxers refuse, are moved, as FFmpeg's own command does.
        """
        pts, dts = packet.pts, packet.dts
        if self.source.type != "video":
            pts = dts = pts if pts is not None else dts
        begin = dts if dts is not None else pts
        if begin is not None:
            packet.duration = self._clock(begin + (packet.duration or 0)) - self._clock(begin)
        else:
            dts = pts = 0 if self._last is None else self._last + self._length
        pts, dts = (time if begin is None or time is None else self._clock(time) for time in (pts, dts))
        if self._frame and pts is not None:
            pts = dts = self._counted(pts)
            packet.duration = self._frame
        if dts is not None and self._last is not None and dts < self._last + self._least:
            dts = self._last + self._least
            pts = max(pts or dts, dts)
        packet.stream, packet.time_base = self.target, self.target.time_base
        packet.pts, packet.dts = pts, dts
        if self.source.type == "audio":  # the last packet would otherwise be outside of MP4's edit list
            packet.duration = self._length = packet.duration or self._length
        self._last = dts if dts is not None else self._last
        return packet

    def _counted(self, pts: int) -> int:
        """A time in samples that the film rounds, e.g. to milliseconds: where the packet before ends."""
        rounded = self.source.time_base / self.target.time_base
        if self._samples is None or abs(pts - self._samples) > rounded:
            self._samples = pts
        exact, self._samples = self._samples, self._samples + self._frame
        return exact


def add(
    film: InputContainer, path: Location, out: OutputContainer, step: Step, holds: Container
) -> Track | None:
    """Add a stream other than the picture to the output.

    Returns:
        None for what is written with the header: fonts, covers in Matroska.
    """
    source: Stream = film.streams[step.index]
    carried = streams.tags(source.metadata)
    if step.how in ("attachment", "cover"):
        _attach(path, out, source).metadata.update(carried)
        return None
    added: Any
    text = None
    if step.how == "convert":
        added = out.add_stream(holds.text)
        added.time_base = added.codec_context.time_base = Fraction(1, 1000)
        text = TextSubtitles(source, added)
    else:
        added = out.add_stream_from_template(source, opaque=True)
        if layout := streams.layout_of(source):
            added.codec_context.layout = layout
    added.metadata.update(carried)
    added.disposition = source.disposition
    if source.type == "video" and not streams.is_cover(source):  # the picture is what players show
        added.disposition &= ~Disposition.default
    return Track(source, added, text, ascending=holds.muxer in ("mp4", "mov"))


def _attach(path: Location, out: OutputContainer, source: Stream) -> Stream:
    name = source.metadata.get("filename")
    if source.type == "attachment":
        mime = source.mimetype or "application/octet-stream"
        return out.add_attachment(name or f"attachment {source.index}", mime, source.data)
    mime, suffix = _PICTURES[streams.codec_of(source)]
    with opened(path) as again:
        picture = next(
            (bytes(packet) for packet in again.demux(again.streams[source.index]) if packet.size), b""
        )
    return out.add_attachment(name or f"cover.{suffix}", mime, picture)


def placed(
    film: InputContainer,
    tracks: Sequence[Track],
    shift: Fraction,
    start: Fraction | None,
    end: Fraction | None,
) -> Iterator[Packet]:
    """The packets of all tracks in the order of the film, with their streams and times in the output.

    To be called when the output's header is written.

    Args:
        shift: seconds by which everything is later in the output.
        start, end: seconds in the film between which something is heard or shown; None: all.
    """
    by_index = {track.source.index: track for track in tracks}
    for track in tracks:
        track.start(shift)
    for packet in packets(film, list(by_index), start, end):
        yield from by_index[packet.stream.index].become(packet)
    for track in tracks:
        yield from track.flush()


def packets(
    film: InputContainer, wanted: Sequence[int], start: Fraction | None, end: Fraction | None
) -> Iterator[Packet]:
    """Packets of some streams in the order of the film, as far as they are heard or shown between two times.

    Where the film cannot be read on, they end with a warning: the picture is not lost for the sound. A film
    that is read by ranges is read from a while before `start` on, others from where they are.
    """
    for stream in film.streams:
        stream.discard = Discard.default if stream.index in wanted else Discard.all
    at = Fraction(0)
    try:
        if start is not None and film.file is not None:
            _skip(film, start - _APART)
        for packet in film.demux(*(film.streams[index] for index in wanted)) if wanted else ():
            if not packet.size:
                continue
            time = _time(packet)
            if time is not None:
                at = time * packet.time_base
                if end is not None and at >= end + _APART:
                    return
                until = at + (packet.duration or 0) * packet.time_base
                if (end is not None and at >= end) or (start is not None and at < start and until <= start):
                    continue
                if start is not None and packet.stream.type == "subtitle" and at < start:
                    packet.pts = packet.dts = round(start / packet.time_base)
                    packet.duration = round((until - start) / packet.time_base)
            yield packet
    except av.error.FFmpegError as error:
        log.warning(
            "%s cannot be read beyond %.3f s (%s); sound and subtitles after it are left out.",
            shown(film.name.removeprefix("file:")), at, reason(error),
        )  # fmt: skip


def _skip(film: InputContainer, until: Fraction) -> None:
    """Seek by a picture, of which containers have an index; where that fails, stay."""
    pictures = (stream for stream in film.streams.video if not streams.is_cover(stream))
    stream = next(pictures, None)
    if stream is None or stream.time_base is None or until * av.time_base <= (film.start_time or 0):
        return
    with suppress(av.error.FFmpegError):
        film.seek(round(until / stream.time_base), stream=stream)


def first_times(path: Location, steps: Sequence[Step], start: Fraction | None) -> dict[int, Fraction]:
    """When the sound and video streams that are copied begin, in seconds, by their index.

    By their packets: what a container says leaves out what decoders skip at the start of sound.
    """
    found: dict[int, Fraction] = {}
    with opened(path) as film:
        copied = [film.streams[step.index] for step in steps if step.how == "copy"]
        wanted = [
            each.index for each in copied if each.type in ("audio", "video") and not streams.is_cover(each)
        ]
        for packet in islice(packets(film, wanted, start, None), _LOOK_AHEAD):
            if (time := _time(packet)) is not None:
                found.setdefault(packet.stream.index, time * packet.time_base)
            if len(found) == len(wanted):
                break
    return found


def _time(packet: Packet) -> int | None:
    return packet.pts if packet.pts is not None else packet.dts


_ENABLED = 1
"""Bit of a track's flags: players show it without being asked."""


def disable_subtitles(file: Path) -> None:
    """Let players show no subtitles unasked; FFmpeg enables the first track of a kind where none is default.

    Args:
        file: complete; its index (moov) lies anywhere.
    """
    with file.open("rb") as stream:
        headers = [
            (at, header)
            for moov in _boxes(stream, b"moov", 0, file.stat().st_size)
            for track in _boxes(stream, b"trak", *moov)
            for media in _boxes(stream, b"mdia", *track)
            for at, _ in _boxes(stream, b"hdlr", *media)
            if _read(stream, at + 8, 4) in (b"sbtl", b"text", b"subt", b"subp")
            for header, _ in _boxes(stream, b"tkhd", *track)
        ]
        flags = [(header, _read(stream, header, 4)) for _, header in headers]
    for header, (version, *high, low) in flags:
        storage.overwrite(file, header, bytes([version, *high, low & ~_ENABLED]))


def _boxes(stream: BinaryIO, kind: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Begin and end of what the boxes of a kind hold, among those between two places."""
    while begin + 8 <= end:
        size, name = struct.unpack(">I4s", _read(stream, begin, 8))
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", _read(stream, begin + 8, 8))[0], 16
        size = size or end - begin
        if name == kind:
            yield begin + head, begin + size
        begin += max(size, head)


def _read(stream: BinaryIO, at: int, count: int) -> bytes:
    stream.seek(at)
    return stream.read(count)
