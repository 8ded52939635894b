"""When everything of a film is shown in another container, in its time base, shifted by one constant."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import ceil, lcm
from typing import TYPE_CHECKING, Any

from av.container import InputContainer
from av.format import Flags

from srcli.io.films import streams
from srcli.io.films.facts import Facts
from srcli.io.films.streams import Container

if TYPE_CHECKING:
    from av.container.core import Chapter

_MS = Fraction(1, 1000)
_LARGEST_SCALE = 2**31 - 1
_ANY_START = int(Flags.ts_discont.value)  # type: ignore[call-overload]  # the types say Flags
"""Flag of formats whose times begin anywhere."""


class Timeline:
    """Times in the output.

    MP4 and MOV have any time base. Where the film's clock is too coarse for its constant rate (24000/1001 in
    Matroska's milliseconds), they get the rate's own, and the times of frames are those of the rate. Matroska
    and WebM count in milliseconds; they get the nearest, and the rate beside them.

    Everything moves by the same `shift`, so that sound stays where it is against the picture. It is 0, except
    for containers that begin at any time (MPEG-TS), with a `start`, and where Matroska cannot hold what lies
    before 0.

    Args:
        ticks: times of the frames in decoding order, in `facts.time_base`.
        begins: when the sound and video streams that are copied begin, in seconds, by their index.
        start: seconds in the film that become 0.
        delay: most frames that are decoded before one that is shown earlier, where `ticks` are in the order
            of presentation because that of decoding is not known yet.

    Attributes:
        base: seconds a unit of the picture's times in the output.
        in_ms: whether the container counts milliseconds.
        shift: seconds.
        options: for the muxer.
    """

    def __init__(
        self,
        facts: Facts,
        ticks: Sequence[int],
        holds: Container,
        film: InputContainer,
        begins: Mapping[int, Fraction],
        start: Fraction | None,
        delay: int | None = None,
    ) -> None:
        self.facts = facts
        self._ticks, self._delay = ticks, delay
        self._order = sorted(ticks)
        self.in_ms = holds.muxer in ("matroska", "webm")
        self.base = _MS if self.in_ms else _exact_base(facts)
        first = self._moment(self._order[0])
        self.shift = self._shift(film, first, begins, start)
        self.options = {"default_mode": "passthrough"} if self.in_ms else self._scale(film, first, begins)

    def _shift(
        self, film: InputContainer, first: Fraction, begins: Mapping[int, Fraction], start: Fraction | None
    ) -> Fraction:
        shift = Fraction(0)
        if start is not None:
            shift = -start
        elif film.format.flags & _ANY_START:
            shift = -min([first, *begins.values()])
        shown = [first]  # what must not lie below 0; MP4 skips sound that does
        if self.in_ms:
            hidden = [index for index in begins if start is None and _hidden(film, index)]
            shown += [time for index, time in begins.items() if index not in hidden]
        below = min(shown) + shift < 0
        shift = -min(shown) if below else shift
        return ceil(shift / self.base) * self.base if below or not self.in_ms else shift

    def shown(self, tick: int) -> tuple[int, int]:
        """Presentation time and duration of a frame, in `base`."""
        begin = self._placed(self._moment(tick))
        return begin, max(1, self._placed(self._end(tick)) - begin)

    @property
    def length(self) -> int:
        """From the first frame to the end of the last, in `base`."""
        begin, duration = self.shown(self._order[-1])
        return begin + duration - self.shown(self._order[0])[0]

    def decoding_times(self) -> Iterator[int]:
        """Decoding times, in `base`: the presentation times in order, as little early as can be."""
        delay = self._delay
        if delay is None:
            delay = max(index - bisect_left(self._order, tick) for index, tick in enumerate(self._ticks))
        first, length = self.shown(self._order[0])
        for early in range(delay, 0, -1):
            yield first - early * length
        for tick in self._order[: max(0, len(self._order) - delay)]:
            yield self._placed(self._moment(tick))

    def chapters(self, chapters: "list[Chapter]", end: Fraction | None) -> "list[Chapter]":
        """Chapters, shifted; those before 0 or from `end` on are left out."""
        kept: list[Chapter] = []
        for chapter in chapters:
            base = chapter["time_base"] or Fraction(1)
            begin, until = chapter["start"] * base, max(chapter["start"], chapter["end"]) * base
            if (end is not None and begin >= end) or until + self.shift <= 0:
                continue
            until = until if end is None else min(until, end)
            times = [max(round((time + self.shift) / base), 0) for time in (begin, until)]
            kept.append({**chapter, "start": times[0], "end": times[1]})
        return kept

    def _moment(self, tick: int) -> Fraction:
        """When a frame is shown in the film, in seconds."""
        number = None if self.in_ms else self.facts.number(tick)
        return tick * self.facts.time_base if number is None else self.facts.seconds(number)

    def _end(self, tick: int) -> Fraction:
        """When a frame is no longer shown."""
        facts, number = self.facts, self.facts.number(tick)
        if number is None:
            return (tick + facts.last_duration) * facts.time_base
        if number + 1 < len(facts.times):
            return self._moment(facts.times[number + 1])
        step = 1 / facts.rate if facts.rate and not self.in_ms else facts.last_duration * facts.time_base
        as_constant = abs(facts.last_duration * facts.time_base - step) < facts.time_base
        return self._moment(tick) + step if as_constant else facts.end * facts.time_base

    def _placed(self, moment: Fraction) -> int:
        return (moment + self.shift + self.base / 2) // self.base

    def _scale(self, film: InputContainer, first: Fraction, begins: Mapping[int, Fraction]) -> dict[str, str]:
        """MP4's edit lists say when streams begin, in a scale of their own: fine enough for all of them."""
        starts = [first + self.shift]
        for index, begin in begins.items():
            source: Any = film.streams[index]
            rate = source.codec_context.sample_rate if source.type == "audio" else 0
            unit = Fraction(1, rate) if rate else source.time_base
            starts.append((begin + self.shift + unit / 2) // unit * unit)
        scale = lcm(1000, *(start.denominator for start in starts))
        return {"movie_timescale": str(scale if scale <= _LARGEST_SCALE else self.base.denominator)}


def _exact_base(facts: Facts) -> Fraction:
    """The film's time base, or a finer one in which a constant rate has whole steps."""
    if not facts.rate or (1 / facts.rate / facts.time_base).denominator == 1:
        return facts.time_base
    first = facts.times[0] * facts.time_base
    return Fraction(1, lcm(facts.rate.numerator, first.denominator))


def _hidden(film: InputContainer, index: int) -> bool:
    """Whether Matroska knows what to skip at the start of a stream, which then may begin below 0."""
    stream: Any = film.streams[index]
    return stream.type == "audio" and ("matroska" in film.format.name or streams.codec_of(stream) == "opus")
