"""The streams beside the picture: added to another container, and their packets with their times there."""

import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import av
from av.container import InputContainer, OutputContainer
from av.stream import Discard

from srcli.errors import shown
from srcli.io.films import streams
from srcli.io.films.source import opened, reason
from srcli.io.films.streams import Container, Step, Stream
from srcli.io.films.subtitles import TextSubtitles

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


def add(film: InputContainer, path: Path, out: OutputContainer, step: Step, holds: Container) -> Track | None:
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
    return Track(source, added, text, ascending=holds.muxer in ("mp4", "mov"))


def _attach(path: Path, out: OutputContainer, source: Stream) -> Stream:
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

    Where the film cannot be read on, they end with a warning: the picture is not lost for the sound.
    """
    for stream in film.streams:
        stream.discard = Discard.default if stream.index in wanted else Discard.all
    at = Fraction(0)
    try:
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


def first_times(path: Path, steps: Sequence[Step], start: Fraction | None) -> dict[int, Fraction]:
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
