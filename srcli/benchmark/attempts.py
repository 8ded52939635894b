"""Work that may fail without taking the rest of a benchmark with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from srcli.benchmark.rounds import Run, interleave
from srcli.errors import SrcliError

Key = TypeVar("Key")
Result = TypeVar("Result")


@dataclass(slots=True)
class Attempts(Generic[Key]):
    """Attempts by key; what has failed once is not tried again.

    Attributes:
        problems: why, in one line, for each key that failed.
    """

    problems: dict[Key, str] = field(default_factory=dict)

    def of(self, key: Key, work: Callable[[], Result]) -> Result | None:
        """What it gives; None if it fails, or something of this key has failed before."""
        if key in self.problems:
            return None
        try:
            return work()
        except Exception as error:  # a library can fail in any way, and the other figures still count
            self.problems[key] = reason(error)  # no more: a traceback would hold on to the device's memory
            return None

    def interleave(
        self, runs: Mapping[Key, Run], repetitions: int, *, warmup: int = 1
    ) -> dict[Key, list[float]]:
        """As `rounds.interleave`, of the runs that never fail."""
        guarded = {key: self._guarded(key, run) for key, run in runs.items()}
        seconds = interleave(guarded, repetitions, warmup=warmup)
        return {key: taken for key, taken in seconds.items() if key not in self.problems}

    def _guarded(self, key: Key, run: Run) -> Run:
        return lambda: self.of(key, run) or 0.0


def reason(error: Exception) -> str:
    """One line for people."""
    text = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, SrcliError):
        return text
    if isinstance(error, MemoryError):
        return f"out of memory ({text})" if text else "out of memory"
    return f"{type(error).__name__}: {text}".rstrip(": ")
