"""Text subtitles made into those of another container: decoded to ASS, FFmpeg's common form, and encoded."""

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
from av.subtitles.subtitle import SubtitleSet

from srcli.io.films.source import reason

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
