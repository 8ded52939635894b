"""The queue of a cluster: order, suspects, hanging workers; and 64 simulated workers with their own clock."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import pytest

from srcli.jobs.queue import Queue


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Simulation:
    """Workers of different speeds, each of which does its units one after the other.

    Attributes:
        seconds: of each unit on a worker of speed 1.
        kills: whether a unit kills its worker when it comes to be done.
        restart: seconds until a dead worker has a successor.
    """

    seconds: list[float]
    speeds: list[float]
    kills: Callable[[int], bool] = lambda unit: False
    restart: float = 10.0
    clock: Clock = field(default_factory=Clock)
    done: dict[int, int] = field(default_factory=dict)
    failed: list[int] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)
    deaths: int = 0

    def __post_init__(self) -> None:
        self.queue = Queue(self.clock, expected=len(self.speeds))
        self.events: list[tuple[float, int, str, int]] = []
        self.speed: dict[int, float] = {}
        self.at: dict[int, list[int]] = {}
        self.numbers = 0
        for unit, seconds in enumerate(self.seconds):
            self.queue.add(unit, int(1000 * seconds))
        for speed in self.speeds:
            self.later(0.0, "join", speed)

    def later(self, seconds: float, what: str, about: float) -> None:
        self.numbers += 1
        heapq.heappush(self.events, (self.clock.now + seconds, self.numbers, what, about))  # type: ignore[misc]

    def run(self) -> "Simulation":
        while not self.queue.finished:
            self.clock.now, _, what, about = heapq.heappop(self.events)
            if what == "join":
                self.numbers += 1
                self.speed[self.numbers], self.at[self.numbers] = about, []
                self.queue.join(self.numbers)
            elif what == "leave":
                self.leave(next(iter(self.speed)), node=True)
            elif about in self.at:
                self.end(about)
            for worker, unit in self.queue.hand_out():
                self.begun.append(unit)
                self.at[worker].append(unit)
                if len(self.at[worker]) == 1:
                    self.later(self.seconds[unit] / self.speed[worker], "end", worker)
        return self

    def end(self, worker: int) -> None:
        unit = self.at[worker][0]
        if self.kills(unit):
            self.leave(worker)
            return
        self.at[worker].pop(0)
        self.done[unit] = worker
        self.queue.done(worker, unit)
        if self.at[worker]:
            self.later(self.seconds[self.at[worker][0]] / self.speed[worker], "end", worker)

    def leave(self, worker: int, *, node: bool = False) -> None:
        self.deaths += 1
        self.failed += self.queue.leave(worker, node=node)
        del self.at[worker]
        self.later(self.restart, "join", self.speed.pop(worker))


def mixed(many: int, spread: float = 1.0) -> list[float]:
    """Seconds of pictures of very different sizes."""
    return [float(one) for one in np.random.default_rng(1).lognormal(0, spread, many)]


@pytest.mark.parametrize(("many", "spread"), [(4000, 1.0), (4000, 0.7), (640, 0.7)])
def test_64_workers_are_busy_to_the_end(many: int, spread: float) -> None:
    seconds = mixed(many, spread)
    begin = perf_counter()
    run = Simulation(seconds, [1.0] * 64).run()
    assert len(run.done) == many
    assert sum(seconds) / 64 / run.clock.now >= 0.95
    assert perf_counter() - begin < 5
    assert run.begun[:64] == sorted(range(many), key=lambda unit: -int(1000 * seconds[unit]))[:64]


def test_unlike_workers_are_busy_to_the_end() -> None:
    seconds = mixed(4000, 1.0)
    run = Simulation(seconds, [1.0, 2.0] * 32).run()
    assert sum(seconds) / 96 / run.clock.now >= 0.9


def test_large_units_do_not_wait_for_one_worker() -> None:
    queue = Queue(Clock(), expected=4)
    for unit in range(8):
        queue.add(unit, 8 - unit)
    queue.join(0)
    assert queue.hand_out() == [(0, 0)]
    for worker in (1, 2, 3):
        queue.join(worker)
    assert queue.hand_out() == [(1, 1), (2, 2), (3, 3)]


def test_a_poisonous_unit_alone_fails_and_takes_no_other_with_it() -> None:
    run = Simulation(mixed(600), [1.0] * 16, kills=lambda unit: unit in (7, 300)).run()
    assert sorted(run.failed) == [7, 300]
    assert sorted(run.done) == [unit for unit in range(600) if unit not in (7, 300)]
    assert run.deaths == 6  # once among others, twice alone


def test_workers_that_leave_with_their_nodes_fail_nothing() -> None:
    run = Simulation(mixed(2000), [1.0] * 8)
    for second in range(1, 60):
        run.later(float(4 * second), "leave", 0)
    assert run.run().failed == []
    assert len(run.done) == 2000
    assert run.deaths > 30


def test_a_unit_that_ends_every_node_fails_in_the_end() -> None:
    clock, failed = Clock(), list[int]()
    queue = Queue(clock)
    queue.add(0, 1)
    for worker in range(6):
        queue.join(worker)
        assert queue.hand_out() == [(worker, 0)]
        failed += queue.leave(worker, node=True)
    assert failed == [0]
    assert queue.finished


def test_a_worker_that_joins_gets_work_at_once() -> None:
    queue = Queue(Clock())
    for unit in range(5):
        queue.add(unit, 0)
    queue.join(0)
    assert queue.hand_out() == [(0, 0), (0, 1), (0, 2)]
    queue.join(1)
    assert queue.hand_out() == [(1, 3), (1, 4)]


def test_what_was_in_flight_at_a_death_runs_alone_next() -> None:
    queue = Queue(Clock())
    for unit in range(9):
        queue.add(unit, 0)
    queue.join(0)
    queue.join(1)
    assert sorted(queue.hand_out()) == [(0, 0), (0, 2), (0, 4), (1, 1), (1, 3), (1, 5)]
    queue.leave(0)
    assert queue.hand_out() == []  # the other one is emptied
    queue.done(1, 1)
    queue.done(1, 3)
    assert queue.hand_out() == []
    queue.done(1, 5)
    for suspect in (0, 2, 4):
        assert queue.hand_out() == [(1, suspect)]
        queue.done(1, suspect)
    assert queue.hand_out() == [(1, 6), (1, 7), (1, 8)]


def test_suspects_leave_most_workers_to_the_others() -> None:
    queue = Queue(Clock())
    for unit in range(100):
        queue.add(unit, 0)
    for worker in range(8):
        queue.join(worker)
    queue.hand_out()
    for worker in (0, 1, 2, 3):
        queue.leave(worker)  # twelve suspects
    for worker in (4, 5, 6, 7):
        for unit in queue.units(worker):
            queue.done(worker, unit)
    given = queue.hand_out()
    assert sum(unit < 12 and unit % 8 < 4 for _, unit in given) == 1
    assert len(given) == 3 * 3 + 1


@pytest.mark.parametrize(
    ("steps", "cpu", "after", "hangs"),
    [
        (0, 0.0, 95.0, True),  # neither a step nor CPU time
        (0, 0.0, 85.0, False),
        (0, 0.9, 500.0, False),  # it computes
        (0, 0.9, 905.0, True),  # for too long
        (1, 0.0, 2000.0, False),  # a step each time
    ],
)
def test_a_worker_hangs_by_its_steps_and_cpu_time(steps: int, cpu: float, after: float, hangs: bool) -> None:
    clock = Clock()
    queue = Queue(clock)
    queue.add(0, 1)
    queue.join(3)
    queue.hand_out()
    queue.sign(3, 1, 0.0)
    while clock.now < after:
        clock.now += 5
        queue.sign(3, 1 + int(steps * clock.now), cpu * clock.now)
    assert queue.hanging() == ([3] if hangs else [])


def test_a_worker_without_units_never_hangs() -> None:
    clock = Clock()
    queue = Queue(clock)
    queue.join(0)
    clock.now = 1e6
    queue.add(0, 1)
    assert queue.hand_out() == [(0, 0)]
    assert queue.hanging() == []
    clock.now += 91
    assert queue.hanging() == [0]


def test_a_lower_limit_holds_from_the_next_unit_on() -> None:
    queue = Queue(Clock())
    for worker in (0, 1):
        queue.join(worker)
    queue.add(0, 1)
    ((worker, unit),) = queue.hand_out()
    queue.done(worker, unit)
    queue.limit(1)
    for unit in range(1, 6):
        queue.add(unit, 1)
    assert len(queue.hand_out()) == 2
    queue.done(0, next(iter(queue.units(0))))
    assert [worker for worker, _ in queue.hand_out()] == [0]
