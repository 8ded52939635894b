"""A written film read again: are all frames there, at their times, and all copied packets as they were?"""

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from srcli.io.films import remux, streams
from srcli.io.films.facts import Facts, probe
from srcli.io.films.remux import Packet
from srcli.io.films.source import opened
from srcli.io.films.streams import Carried, Stream


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found in a written film.

    Attributes:
        frames: of its picture.
        deviation: seconds by which the time of a frame differs at most from the film's, but for one constant.
        apart: seconds by which a copied stream has moved at most against the picture.
        packets: of the copied streams.
        changed: the copied streams whose packets are not those of the film, in words.
        merged: frames of an animated picture that became one with the frame before, to which they are equal.
    """

    frames: int
    deviation: Fraction
    apart: Fraction
    packets: int
    changed: tuple[str, ...]
    merged: int = 0


class _Content:
    """The packets of a stream: their number, a hash of them all, and when the first one is."""

    def __init__(self) -> None:
        self.count, self.first = 0, Fraction(0)
        self._hash = hashlib.blake2b(digest_size=16)

    def add(self, packet: Packet) -> None:
        self._hash.update(hashlib.blake2b(_payload(packet), digest_size=16).digest())
        if not self.count:
            self.first = (packet.pts or 0) * packet.time_base
        self.count += 1

    @property
    def digest(self) -> tuple[int, bytes]:
        return self.count, self._hash.digest()


def verify(
    out: Path,
    facts: Facts,
    carried: Carried,
    times: Sequence[int] | None = None,
    *,
    start: Fraction | None = None,
    end: Fraction | None = None,
) -> Verified:
    """Read a film that `segments.join` wrote, packet by packet, and compare it with what it was made from.

    Args:
        times: of the frames written, in `facts.time_base`; None: all of the film's.
        start, end: as given to `segments.join`.

    Raises:
        InputError: one of the two cannot be read.
    """
    if out.suffix.lower() in streams.ANIMATED:
        return _verify_picture(out, facts, facts.times if times is None else times, end)
    with opened(facts.path) as film, opened(out) as written:
        kept = [step for step in carried.steps if step.how in ("picture", "copy", "convert")]
        kept = [step for step in kept if not streams.is_cover(film.streams[step.index])]
        before = {step.index: _Content() for step in kept if step.how != "picture"}
        for packet in remux.packets(film, list(before), start, end):
            if _counts(packet):
                before[packet.stream.index].add(packet)
        found = [stream for stream in written.streams if _is_track(stream)]
        if len(found) < len(kept):  # MP4 leaves out a stream without packets
            kept = [step for step in kept if step.how == "picture" or before[step.index].count]
        pairs = {step.index: stream for step, stream in zip(kept, found, strict=False)}
        picture = pairs.pop(facts.index)
        copied = [step.index for step in kept if step.how == "copy" and step.index in pairs]
        shown: list[int] = []
        after = {pairs[index].index: _Content() for index in copied}
        for packet in written.demux([picture, *(pairs[index] for index in copied)]):
            if packet.size and packet.stream.index == picture.index:
                shown.append(packet.pts or 0)
            elif _counts(packet):
                after[packet.stream.index].add(packet)
        contents = [(film.streams[index], before[index], after[pairs[index].index]) for index in copied]
        base = picture.time_base or Fraction(1)
        moments = [_moment(facts, time) for time in (facts.times if times is None else times)]
        moved = sorted(time * base for time in shown)
        shift = moved[0] - moments[0] if moved and moments else Fraction(0)
        lags = [abs(new.first - old.first - shift) for _, old, new in contents if old.count and new.count]
        return Verified(
            frames=len(shown),
            deviation=max(_differences(moved, moments, shift), default=Fraction(0)),
            apart=max(lags, default=Fraction(0)),
            packets=sum(new.count for _, _, new in contents),
            changed=tuple(
                streams.described(stream) for stream, old, new in contents if not _same(stream, old, new)
            ),
        )


def _verify_picture(out: Path, facts: Facts, times: Sequence[int], end: Fraction | None) -> Verified:
    """An animated picture: each of its frames begins with one of the film's, and the last ends with it. Equal
    frames may have become one."""
    written = probe(out)
    moments, number = [_moment(facts, time) for time in times], facts.number(times[-1])
    assert number is not None
    moments = [moment - moments[0] for moment in (*moments, facts.until(number, end))]
    begun = [written.seconds(number) - written.seconds(0) for number in range(len(written.times))]
    ended = written.end * written.time_base - written.seconds(0)

    def off(moment: Fraction) -> Fraction:
        at = bisect_left(moments, moment)
        return min(abs(moment - near) for near in moments[max(0, at - 1) : at + 1])

    deviation = max(*(off(moment) for moment in begun), abs(ended - moments[-1]))
    return Verified(len(begun), deviation, Fraction(0), 0, (), max(0, len(times) - len(begun)))


def _is_track(stream: Stream) -> bool:
    return stream.type in ("video", "audio", "subtitle") and not streams.is_cover(stream)


def _moment(facts: Facts, time: int) -> Fraction:
    number = facts.number(time)
    return time * facts.time_base if number is None else facts.seconds(number)


def _differences(
    moved: Sequence[Fraction], moments: Sequence[Fraction], shift: Fraction
) -> Iterable[Fraction]:
    return (abs(after - before - shift) for after, before in zip(moved, moments, strict=False))


def _counts(packet: Packet) -> bool:
    """Not the packets by which MP4 ends a text; its muxer writes its own."""
    return bool(packet.size) and not (packet.size <= 2 and streams.codec_of(packet.stream) == "mov_text")


def _same(stream: Stream, before: _Content, after: _Content) -> bool:
    """Video is only counted: H.264 and H.265 look otherwise in MPEG-TS than in files."""
    return before.count == after.count if stream.type == "video" else before.digest == after.digest


def _payload(packet: Packet) -> bytes:
    """What a packet holds, without the header (ADTS) that AAC has in streams and not in files."""
    data = bytes(packet)
    is_adts = streams.codec_of(packet.stream) == "aac" and data[:2] >= b"\xff\xf0" and data[1] & 6 == 0
    return data[7 if data[1] & 1 else 9 :] if is_adts else data
