"""Times of frames: exact rates behind coarse clocks, and how long the last frame is shown."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import pairwise

_SLACK = Fraction(11, 10)
"""Ticks by which times of a constant rate may differ from it, from the earliest to the latest; 1 comes from
rounding once, the rest from clocks that were rounded before."""
_ROUGH = Fraction(2, 10000)
"""Share by which a rate that FFmpeg names may differ from what it means; rates of NTSC differ by 1/1001."""
_SLOWEST, _FASTEST = Fraction(1, 60), Fraction(1000)


def constant_rate(
    times: Sequence[int], base: Fraction, hints: Iterable[Fraction | None] = ()
) -> Fraction | None:
    """Frames a second if the times are those of a constant rate, else None.

    Args:
        times: ascending, in `base`; rounded to it in any way.
        base: seconds a tick.
        hints: rates that the film names, likeliest first.

    Of usual rates (n, n / 2 and their 1000/1001) that the times agree with, one that is named is taken, else
    the one that they agree with best; else another one that is named; else the step if it is always the same.
    """
    named = [hint for hint in hints if hint and _SLOWEST <= hint <= _FASTEST]
    steps = len(times) - 1
    if steps < 1:
        return _usual(named[0]) if named else None
    mean = steps / ((times[-1] - times[0]) * base)
    spreads = {rate: _spread(times, 1 / (rate * base)) for rate in _around(mean)}
    fitting = [(spread, rate) for rate, spread in spreads.items() if spread is not None]
    for hint in named:
        if any(rate == _usual(hint) for _, rate in fitting):
            return _usual(hint)
    if fitting:
        return min(fitting)[1]
    for hint in named:
        if _spread(times, 1 / (hint * base)) is not None:
            return hint
    step = times[1] - times[0]
    return 1 / (step * base) if all(b - a == step for a, b in pairwise(times)) else None


def _around(rate: Fraction) -> list[Fraction]:
    """Usual rates close to one."""
    halves = (Fraction(count, 2) for count in range(max(1, round(2 * rate) - 2), round(2 * rate) + 3))
    return sorted(half * ntsc for half in halves for ntsc in (Fraction(1), Fraction(1000, 1001)))


def _usual(rate: Fraction) -> Fraction:
    """The usual rate that a rate means: FFmpeg has some from clocks of a millisecond, such as 19001/317."""
    nearest = min(_around(rate), key=lambda usual: abs(usual - rate))
    return nearest if abs(nearest - rate) < rate * _ROUGH else rate


def _spread(times: Sequence[int], step: Fraction) -> Fraction | None:
    """Ticks from the earliest to the latest against a constant step; None: more than rounding explains."""
    ticks, parts = step.numerator, step.denominator
    if abs((times[-1] - times[0]) * parts - (len(times) - 1) * ticks) > _SLACK * parts:
        return None
    errors = [time * parts - number * ticks for number, time in enumerate(times)]
    spread = Fraction(max(errors) - min(errors), parts)
    return spread if spread <= _SLACK else None


def ascending(times: Iterable[int]) -> tuple[list[int], int]:
    """Times in order, each later than the one before by a tick at least; and how many had to be moved."""
    ordered: list[int] = []
    moved = 0
    for time in sorted(times):
        if ordered and time <= ordered[-1]:
            time, moved = ordered[-1] + 1, moved + 1
        ordered.append(time)
    return ordered, moved


def last_duration(
    times: Sequence[int], durations: Sequence[int], base: Fraction, rate: Fraction | None, *, stored: bool
) -> int:
    """Ticks for which the last frame is shown.

    Args:
        times, durations: of all frames, in order; a duration may be 0 where the film has none.
        base: seconds a tick.
        rate: if constant.
        stored: the container stores durations (MP4, GIF). Elsewhere FFmpeg makes them up, so that they count
            only where most agree with the steps.
    """
    steps = [after - before for before, after in pairwise(times)]
    agreeing = sum(abs(step - duration) <= 1 for step, duration in zip(steps, durations, strict=False))
    if durations[-1] > 0 and stored:
        return durations[-1]
    if rate:
        return max(1, round(1 / (rate * base)))
    if durations[-1] > 0 and 2 * agreeing > len(steps):
        return durations[-1]
    return steps[-1] if steps else max(1, durations[-1])
