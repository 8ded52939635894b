"""How far a build is, out of the phases that TensorRT reports, and how long it will still take."""

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import Any

_EVERY = 5.0
"""Seconds between two lines."""

_ENOUGH = 0.02
"""Share of the work from which on the time left can be told."""


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


@dataclass(slots=True)
class Watch:
    """Told of phases by the builder; tells people a line now and then. Any thread may call it.

    Args:
        tell: where the lines go.
        what: what is being built, for the lines.
        clock: seconds.
    """

    tell: Callable[[str], None]
    what: str
    clock: Callable[[], float] = monotonic
    cancelled: bool = False
    _phases: dict[str, _Phase] = field(default_factory=dict)
    _lock: Any = field(default_factory=Lock)
    _fraction: float = 0.0
    _began: float = 0.0
    _told: float = 0.0

    def __post_init__(self) -> None:
        self._began = self._told = self.clock()

    @property
    def seconds(self) -> float:
        """Since the build began."""
        return self.clock() - self._began

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0-1; never falls."""
        return self._fraction

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(1, steps))

    def step(self, name: str, number: int) -> bool:
        """A step of a phase (0, 1, ...) is done; False asks the builder to stop."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = number + 1
                self._update()
            return not self.cancelled

    def finish(self, name: str) -> None:
        """A phase is over."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = self._phases[name].steps
                self._update()
                del self._phases[name]

    def _update(self) -> None:
        roots = [
            self._share(name) for name, phase in self._phases.items() if phase.parent not in self._phases
        ]
        self._fraction = max(self._fraction, min(1.0, max(roots, default=0.0)))
        now = self.clock()
        if now - self._told >= _EVERY:
            self._told = now
            self.tell(f"{self.what}: {self._fraction:.0%}{self._left(now - self._began)}")

    def _share(self, name: str) -> float:
        """Steps done, and of the step at work what its own phases say."""
        phase = self._phases[name]
        inner = sum(self._share(child) for child, other in self._phases.items() if other.parent == name)
        return min(1.0, (phase.done + min(inner, 1.0)) / phase.steps)

    def _left(self, elapsed: float) -> str:
        if self._fraction < _ENOUGH:
            return ""
        return f", about {duration(elapsed * (1 - self._fraction) / self._fraction)} left"


def duration(seconds: float) -> str:
    """For people: "40 s" or "3 min"."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def monitor(api: Any, watch: Watch) -> Any:
    """The builder's IProgressMonitor that tells `watch`.

    An exception out of a callback would end the process: Ctrl-C becomes a request to stop the build.
    """

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            _guarded(watch, lambda: watch.start(phase_name, parent_phase, num_steps))

        def phase_finish(self, phase_name: str) -> None:
            _guarded(watch, lambda: watch.finish(phase_name))

        def step_complete(self, phase_name: str, step: int) -> bool:
            _guarded(watch, lambda: watch.step(phase_name, step))
            return not watch.cancelled

    return Monitor()


def _guarded(watch: Watch, call: Callable[[], object]) -> None:
    try:
        call()
    except BaseException:  # nothing may leave a callback, not even KeyboardInterrupt
        watch.cancelled = True
