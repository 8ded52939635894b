"""Which worker does which unit of work when, and what becomes of it when a worker dies.

Units and workers are numbers; what they stand for, and how workers are started and ended, is the caller's.
The clock is the caller's as well, so that a run of a day can be tried in milliseconds.
"""

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic

AHEAD = 3
"""Units that a worker has at once: one is decoded, one computed, one encoded."""
ALONE = 2
"""Workers that a unit may end while it is their only one; then it has failed."""
NODES = 5
"""The same of whole nodes. They are also taken away from units that do no harm."""
QUIET = 90.0
"""Seconds without a step and without CPU time after which a worker hangs."""
BUSY = 900.0
"""Seconds without a step after which it hangs even if it computes."""
_IDLE_SHARE = 0.05
"""CPU seconds a second up to which a worker computes nothing."""
_DRAINED = 4
"""One worker in so many, and one at least, may be emptied for a unit that has to run alone."""


@dataclass(slots=True)
class _Worker:
    """What one worker has to do.

    Attributes:
        units: in flight, in the order in which they were given, with their costs.
        alone: whether the one in flight has it for itself.
        draining: whether it gets no more until it is empty, and then a unit alone.
        steps, cpu: of its last sign of life.
        since: when its steps last changed.
        cpu_then: its CPU seconds then.
    """

    units: dict[int, int] = field(default_factory=dict)
    alone: bool = False
    draining: bool = False
    steps: int = -1
    cpu: float = 0.0
    since: float = 0.0
    cpu_then: float = 0.0


@dataclass(slots=True)
class Queue:
    """Units, largest first, for workers that come and go.

    What was in flight when a worker died runs alone on its next one, so that what kills workers takes no
    other unit with it.

    Attributes:
        clock: seconds that only grow.
        ahead: units that a worker has at once.
        quiet, busy: seconds, see `QUIET` and `BUSY`.
        expected: workers that have joined or soon will.
    """

    clock: Callable[[], float] = monotonic
    ahead: int = AHEAD
    quiet: float = QUIET
    busy: float = BUSY
    expected: int = 0
    _waiting: list[tuple[int, int]] = field(default_factory=list)
    _suspects: deque[int] = field(default_factory=deque)
    _workers: dict[int, _Worker] = field(default_factory=dict)
    _room: list[dict[int, None]] = field(default_factory=list)
    _deaths: Counter[int] = field(default_factory=Counter)
    _lost: Counter[int] = field(default_factory=Counter)
    _draining: int = 0
    _left: int = 0

    def __post_init__(self) -> None:
        self._room = [{} for _ in range(self.ahead)]

    def add(self, unit: int, cost: int) -> None:
        """A unit that waits; those of a higher cost go first, equal ones by their numbers."""
        heapq.heappush(self._waiting, (-cost, unit))
        self._left += cost

    @property
    def waiting(self) -> int:
        """Units that no worker has."""
        return len(self._waiting) + len(self._suspects)

    @property
    def finished(self) -> bool:
        """Whether no unit waits or is in flight."""
        return not self.waiting and not any(worker.units for worker in self._workers.values())

    def in_flight(self, unit: int) -> bool:
        """Whether a worker has this unit."""
        return any(unit in worker.units for worker in self._workers.values())

    def units(self, worker: int) -> list[int]:
        """What is in flight at a worker, in the order in which it was given."""
        return list(self._workers[worker].units)

    def limit(self, ahead: int) -> None:
        """Let workers have at most that many units at once from now on; no unit is in flight."""
        self.ahead = ahead
        del self._room[ahead:]

    def join(self, worker: int) -> None:
        """A worker is ready for units."""
        self._workers[worker] = _Worker(since=self.clock())
        self._room[0][worker] = None

    def hand_out(self) -> list[tuple[int, int]]:
        """(worker, unit) of what is to begin now: first to those that have least."""
        self._empty_some()
        return [*self._next(), *self._alone()]

    def _next(self) -> Iterator[tuple[int, int]]:
        """The largest units that wait, for the workers that have room.

        A worker that has a unit gets another one only if both are at most half of each share of what is
        left: else large units would wait for one worker while others have nothing more to do.
        """
        workers = max(self.expected, len(self._workers))
        for depth, room in enumerate(self._room):
            for worker in list(room):
                if not self._waiting:
                    return
                cost = -self._waiting[0][0]
                held = sum(self._workers[worker].units.values())
                if depth and 2 * (held + cost) * workers > self._left:
                    continue
                del room[worker]
                unit = heapq.heappop(self._waiting)[1]
                self._left -= cost
                self._give(worker, unit, cost)
                if depth + 1 < self.ahead:
                    self._room[depth + 1][worker] = None
                yield worker, unit

    def done(self, worker: int, unit: int) -> None:
        """A unit has ended, well or not."""
        one = self._workers[worker]
        del one.units[unit]
        one.alone = False
        self._alive(one)
        if not one.draining:
            self._place(worker)

    def leave(self, worker: int, *, node: bool = False) -> list[int]:
        """A worker is gone; what it had in flight waits to run alone.

        Args:
            worker: that is gone.
            node: whether its whole node went.

        Returns:
            The units that fail, as they ended too many workers while they ran alone.
        """
        one = self._workers.pop(worker, None)
        if one is None:
            return []
        for room in self._room:
            room.pop(worker, None)
        self._draining -= one.draining
        failed = []
        for unit in one.units:
            if one.alone:
                (self._lost if node else self._deaths)[unit] += 1
            if self._deaths[unit] >= ALONE or self._lost[unit] >= NODES:
                failed.append(unit)
            else:
                self._suspects.append(unit)
        return failed

    def sign(self, worker: int, steps: int, cpu: float) -> None:
        """A sign of life: steps of any unit so far, and CPU seconds."""
        one = self._workers.get(worker)
        if one is None:
            return
        one.cpu = cpu
        if steps != one.steps:
            one.steps = steps
            self._alive(one)

    def hanging(self) -> list[int]:
        """Workers that have been at their units for too long without a step."""
        now = self.clock()
        return [number for number, one in self._workers.items() if one.units and self._hangs(one, now)]

    def _hangs(self, one: _Worker, now: float) -> bool:
        still = now - one.since
        computes = one.cpu - one.cpu_then > _IDLE_SHARE * still
        return still > (self.busy if computes else self.quiet)

    def _alive(self, one: _Worker) -> None:
        one.since, one.cpu_then = self.clock(), one.cpu

    def _give(self, worker: int, unit: int, cost: int = 0) -> None:
        one = self._workers[worker]
        if not one.units:
            self._alive(one)
        one.units[unit] = cost

    def _place(self, worker: int) -> None:
        """Put a worker where those with as many units are."""
        for room in self._room:
            room.pop(worker, None)
        held = len(self._workers[worker].units)
        if held < self.ahead:
            self._room[held][worker] = None

    def _empty_some(self) -> None:
        """Choose workers for the units that have to run alone: empty ones, or those that soon are."""
        most = max(1, len(self._workers) // _DRAINED)
        for room in self._room:
            while room and self._draining < min(most, len(self._suspects)):
                worker = next(iter(room))
                del room[worker]
                self._drain(worker)
        if self._suspects and not self._draining and self._workers:
            full = next((number for number, one in self._workers.items() if not one.alone), None)
            if full is not None:
                self._drain(full)

    def _drain(self, worker: int) -> None:
        self._workers[worker].draining = True
        self._draining += 1

    def _alone(self) -> Iterator[tuple[int, int]]:
        """Units that run alone, on workers that are empty now."""
        if not self._draining:
            return
        for number, one in self._workers.items():
            if not one.draining or one.units:
                continue
            one.draining = False
            self._draining -= 1
            if self._suspects:
                unit = self._suspects.popleft()
                one.alone = True
                self._give(number, unit)
                yield number, unit
            else:
                self._place(number)
