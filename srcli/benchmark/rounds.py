"""Fair repetitions: everything in turns, and what the repetitions came to."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter, sleep
from typing import TypeVar

Run = Callable[[], float]
"""Does something and returns how many seconds it took."""

PAUSE = 0.1
"""Seconds between two measurements, in which the threads of the last one stop spinning."""

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Spread:
    """Repetitions of one measurement, in its unit."""

    median: float
    p95: float
    lowest: float
    highest: float
    repetitions: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(median(values), percentile(values, 0.95), min(values), max(values), len(values))

    @property
    def width(self) -> float:
        """Highest minus lowest, as a share of the median."""
        return (self.highest - self.lowest) / self.median if self.median else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share (0-1) of the values lies, interpolated between neighbours."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def timed(work: Callable[[], object]) -> Run:
    """`work` as something that returns how many seconds it took."""

    def run() -> float:
        begin = perf_counter()
        work()
        return perf_counter() - begin

    return run


def interleave(
    runs: Mapping[Key, Run], repetitions: int, *, warmup: int = 1, pause: float = PAUSE
) -> dict[Key, list[float]]:
    """Seconds of each, taken in turns so that drift of the machine hits all of them alike.

    The order is reversed in every other round.

    Args:
        runs: what to measure.
        repetitions: rounds that count.
        warmup: rounds before them that do not.
        pause: seconds before each run.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in runs}
    for number in range(warmup + repetitions):
        for key in list(runs) if number % 2 == 0 else list(runs)[::-1]:
            sleep(pause)
            taken = runs[key]()
            if number >= warmup:
                seconds[key].append(taken)
    return seconds
