"""The frames of a film around some moments, without a reading of the rest.

Only a reading of all packets tells all frames of a film. Of a large film far away, of which a part is wanted,
that part is read, and its first frames, from which times count.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from srcli.io.films.packets import Shown
from srcli.io.films.scan import Scan, Timing, constant_rate
from srcli.io.films.source import codec_name

_SOUGHT = ("mov", "matroska")
"""Starts of the names of containers in which a seek leads to a key frame, by an index."""
_MARGIN = Fraction(1, 2)
"""Seconds before and after a part that are read, too."""
_FEWEST = 5
"""Places at which a film is looked at, at least."""


class Part(NamedTuple):
    """What of a film is wanted.

    Attributes:
        start, end: seconds after the first frame; None: the end of the film.
        places: 0: all frames between; else as many places or more, spread, are enough.
    """

    start: Fraction
    end: Fraction | None
    places: int = 0


class UnknownError(Exception):
    """The frames of a part cannot be told without all of the film."""


class Known(NamedTuple):
    """Frames that are known.

    Attributes:
        times, durations: of frames, in ticks, in order. Between parts that were read they are what the
            constant rate says; without one, and if places are enough, there are none.
        rate: frames a second if it is constant.
        estimate: of the number of frames in the part, if places are enough; else None.
    """

    times: list[int]
    durations: list[int]
    rate: Fraction | None
    estimate: int | None


_Times = dict[int, int]
"""Times of frames that follow each other -> durations."""


def known(
    container: InputContainer, stream: VideoStream, head: Scan, when: Timing, part: Part,
    hints: Sequence[Fraction | None],
) -> Known:  # fmt: skip
    """The frames of a part.

    Args:
        container: anywhere.
        head: the first packets.
        when: their times.
        hints: frames a second that the stream names.

    Raises:
        UnknownError: the container has no index, or its packets no times.
        FFmpegError: it cannot be read.
    """
    base = stream.time_base
    if base is None or not when.timed or not container.format.name.startswith(_SOUGHT):
        raise UnknownError
    decoded = [packet.dts for packet in head.packets if packet.dts is not None]
    first = when.times[0]
    begun = {
        time: duration
        for time, duration in zip(when.times, when.durations, strict=True)
        if decoded and time <= decoded[-1]
    }
    if first not in begun:
        raise UnknownError
    length = _length(container, stream)
    groups = [begun]
    for start, end in _spans(part, length):
        begin = first + round(start / base)
        until = None if end is None else first + round((end + _MARGIN) / base)
        groups.append(_read(container, stream, begin, until))
        if begin > first and min(groups[-1]) >= begin:
            raise UnknownError
    groups = _merged(groups)
    largest = max(groups, key=len)
    rate = constant_rate(list(largest), base, hints)
    filled = _filled(groups, 1 / (rate * base)) if rate else {}
    rate = constant_rate(list(filled), base, hints) if filled else None
    if part.places:
        mean = rate or _mean_rate(largest, base)
        seconds = (length if part.end is None else min(part.end, length or part.end)) or Fraction(0)
        times = {time: duration for group in groups for time, duration in group.items()}
        return Known(list(times), list(times.values()), rate, max(1, round((seconds - part.start) * mean)))
    times = filled if rate else {time: duration for group in groups for time, duration in group.items()}
    return Known(list(times), list(times.values()), rate, None)


def _mean_rate(times: Iterable[int], base: Fraction) -> Fraction:
    """Frames a second of consecutive frames."""
    ordered = list(times)
    return (len(ordered) - 1) / ((ordered[-1] - ordered[0]) * base) if len(ordered) > 1 else Fraction(25)


def _length(container: InputContainer, stream: VideoStream) -> Fraction | None:
    """Seconds of the picture, as the container says."""
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    return None if container.duration is None else Fraction(container.duration, av.time_base)


def _spans(part: Part, length: Fraction | None) -> list[tuple[Fraction, Fraction | None]]:
    """Start and end of what is to be read."""
    if not part.places:
        return [(part.start, part.end)]
    end = length if part.end is None else part.end
    if end is None or end <= part.start:
        raise UnknownError
    count = max(_FEWEST, part.places)
    moments = (part.start + (end - part.start) * Fraction(2 * place + 1, 2 * count) for place in range(count))
    return [(moment, moment) for moment in moments]


def _read(container: InputContainer, stream: VideoStream, begin: int, until: int | None) -> _Times:
    """Frames from the key frame before a time to the first one at another or later, all of them.

    A packet that is not read yet is decoded later than those that are, and shown no earlier than that.
    """
    assert stream.time_base is not None
    container.seek(begin - round(_MARGIN / stream.time_base), stream=stream)
    shows = Shown(codec_name(stream), stream.codec_context.extradata)
    found: _Times = {}
    key = decoded = None
    for packet in container.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None or (packet.dts is not None and packet.pts < packet.dts):
            raise UnknownError
        key = packet.pts if key is None else key
        decoded = packet.dts if packet.dts is not None else decoded
        if packet.pts >= key and shows(packet) and not packet.is_discard:
            if packet.pts in found:
                raise UnknownError
            found[packet.pts] = packet.duration or 0
        if until is not None and decoded is not None and decoded > until:
            whole = {time: duration for time, duration in found.items() if time <= decoded}
            if max(whole, default=until - 1) >= until:
                found = whole
                break
    if not found or decoded is None:
        raise UnknownError
    return dict(sorted(found.items()))


def _merged(groups: Iterable[_Times]) -> list[_Times]:
    """The same in order, those that overlap as one."""
    merged: list[_Times] = []
    for group in sorted((group for group in groups if group), key=lambda group: next(iter(group))):
        if merged and next(iter(group)) <= max(merged[-1]):
            merged[-1] = dict(sorted((merged[-1] | group).items()))
        else:
            merged.append(group)
    return merged


def _filled(groups: Sequence[_Times], step: Fraction) -> _Times:
    """With the frames between that a constant rate has.

    Args:
        step: ticks a frame.
    """
    first = next(iter(groups[0]))
    known: dict[int, int] = {}  # number of a frame -> time
    for group in groups:
        begin = round((next(iter(group)) - first) / step)
        known |= dict(enumerate(group, begin))
    off = [time - number * step for number, time in known.items()]
    origin = (min(off) + max(off)) / 2
    durations = {time: duration for group in groups for time, duration in group.items()}
    numbers = range(max(known) + 1)
    times = (known.get(number, round(origin + number * step)) for number in numbers)
    return {time: durations.get(time, 0) for time in times}
