"""A run on many processes: what each is told to do, what becomes of its answers, and of those that die.

The queue decides who does what when, a `Cluster` starts and ends processes. Only paths travel; every process
reads and writes the files itself.
"""

import logging
import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from secrets import token_hex
from tempfile import NamedTemporaryFile
from threading import Event
from typing import IO, TYPE_CHECKING, Any

from srcli.errors import BackendUnavailableError, InferenceError, OutputError, shown
from srcli.io.storage import sweep
from srcli.jobs.cluster_nodes import Cluster, LostError, Node, share_of
from srcli.jobs.cluster_worker import Done, Hello, Order, Signs, computes, settled
from srcli.jobs.folder import make_folder
from srcli.jobs.outputs import Job
from srcli.jobs.queue import Queue
from srcli.jobs.report import PictureResult, Progress, Status, failure
from srcli.settings import Settings
from srcli.stream import Computed
from srcli.upscaler import Upscaler

if TYPE_CHECKING:
    from srcli.io.films.journal import Segment
    from srcli.jobs.film import FilmRun
    from srcli.jobs.film_plan import FilmPlan

log = logging.getLogger(__name__)

_GLANCE = 0.2
"""Seconds that a wait for answers lasts before it looks up whether it is to stop."""
_LOOK = 2.0
"""Seconds between looks at which nodes there are."""
_TELL = 60.0
"""Seconds between messages of what each node has done."""
_STARTS = 3
"""Processes of a node that may die before they are ready; then it gets no more."""
_LOADING = 1800.0
"""Seconds in which a process is ready; TensorRT builds engines meanwhile."""
_LEAVING = 15.0
"""Seconds that a run which is to stop waits for what its processes have at work."""
_ASK = 5.0
"""Seconds between questions to each process how it goes, at most."""
_ALONE = 300.0
"""Seconds that a run waits for a node where there is none."""
_FILMS = 8
"""Films whose segments are on the cluster at once."""
_LOOKS = 16
"""Threads that ask for the sizes of files."""


@dataclass(slots=True, eq=False)
class _Process:
    """One process.

    Attributes:
        handle: of the cluster.
        node: where it is.
        begun: when it was started.
        ready: whether it takes units.
        asked: whether it owes an answer to a question how it goes.
    """

    handle: Any
    node: Node
    begun: float
    ready: bool = False
    asked: bool = False


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment of a film as a unit.

    Attributes:
        job: the film.
        arguments: of `Worker.segment`.
        ended: takes its end.
        given_up: whether nobody wants it any more.
    """

    job: Job
    arguments: tuple[Any, Path, int]
    ended: SimpleQueue[Done]
    given_up: Event


class _StopError(Exception):
    """The run is to end early."""


@dataclass(slots=True)
class ClusterRun:
    """One run. `results` are complete after it, in the order of the jobs, films behind pictures.

    Attributes:
        cluster: where it runs.
        jobs: pictures.
        upscaler: of this machine, which says what "auto" means for all.
        settings: of the run.
        progress: watches it; pictures are told as they end, large ones first.
        stop: says whether the run is to end early.
        films: films; their segments go to the cluster, and this machine joins them.
        queue: who does what when.
        results: one for each picture and film.
        interrupted: whether it ended early.
        full: whether it ended early as the disk was full.
        done: how many pictures and segments each node has done.
    """

    cluster: Cluster
    jobs: Sequence[Job]
    upscaler: Upscaler
    settings: Settings
    progress: Progress
    stop: Callable[[], bool] = lambda: False
    films: Sequence["FilmRun"] = ()
    queue: Queue = field(default_factory=Queue)
    results: list[PictureResult] = field(default_factory=list)
    interrupted: bool = False
    full: bool = False
    done: Counter[Node] = field(default_factory=Counter)
    _ended: list[PictureResult | None] = field(default_factory=list)
    _segments: dict[int, _Segment] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)
    _processes: dict[int, _Process] = field(default_factory=dict)
    _answers: SimpleQueue[tuple[int, int | str, Any]] = field(default_factory=SimpleQueue)
    _nodes: dict[str, Node] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)
    _starts: Counter[str] = field(default_factory=Counter)
    _seen: dict[Computed, Computed] = field(default_factory=dict)
    _looked: float = float("-inf")
    _asked: float = float("-inf")
    _told: float = 0.0
    _alone_since: float = 0.0
    _leaving: Event = field(default_factory=Event)
    _witness: Path = Path()

    def run(self) -> "ClusterRun":
        """Do all jobs; `stop` ends the run early and sets `interrupted`, a full disk `full`.

        Raises:
            OutputError: the output folder cannot be written.
            BackendUnavailableError: no node can do this, or the cluster is gone.
        """
        self.progress.start()
        films: list[Future[PictureResult]] = []
        self._ended = [None] * len(self.jobs)
        first = self.jobs[0] if self.jobs else self.films[0].job
        with self._order(first) as order, ThreadPoolExecutor(_FILMS) as pool:
            try:
                self._begin_pictures()
                self._go_on(order, lambda: self.queue.finished)
                self.queue = self._for_films()
                films = [pool.submit(film.run) for film in self.films]
                self._go_on(order, lambda: all(film.done() for film in films))
            except _StopError:
                self._leave()
            finally:
                self._leaving.set()
                for process in self._processes.values():
                    self.cluster.end(process.handle)
        self.results = [result or _pending(job) for job, result in zip(self.jobs, self._ended, strict=True)]
        self.results += [one.result() for one in films] or [_pending(film.job) for film in self.films]
        self._tell(final=True)
        return self

    @contextmanager
    def _order(self, first: Job) -> Iterator[Order]:
        """What processes are told when they start; while it holds, they can see that folders are shared."""
        make_folder(first.output)
        settings, word = settled(self.settings, self.upscaler), token_hex(16)
        log.info("all nodes compute with %s.", self.upscaler.reason)
        try:
            with _witness(first.output.parent) as witness:
                witness.write(word)
                witness.flush()
                self._witness = Path(witness.name)
                self._witness.chmod(0o644)  # processes of other users read it
                yield Order(
                    settings,
                    self.upscaler.settings.scale,
                    computes(self.upscaler),
                    Path.cwd(),
                    first.input,
                    self._witness,
                    word,
                )
        except OSError as error:
            raise OutputError(
                f"{shown(first.target.parent)} cannot be written ({error.strerror}).", "Choose another place."
            ) from error

    def _begin_pictures(self) -> None:
        for folder in {job.output.parent for job in self.jobs}:
            sweep(folder)
        for number, size in enumerate(sizes(self.jobs)):
            self.queue.add(number, size)
        self._numbers = count(len(self.jobs))

    def _for_films(self) -> Queue:
        """A queue that gives each process one segment at a time, as it computes one at a time."""
        before = self.queue
        queue = Queue(before.clock, 1, before.quiet, before.busy)
        for number, process in self._processes.items():
            if process.ready:
                queue.join(number)
        return queue

    def _go_on(self, order: Order, finished: Callable[[], bool]) -> None:
        """Hand out units and heed answers until all is done.

        Raises:
            _StopError: the run is to end early.
        """
        while not finished():
            if self.full or self.stop():
                raise _StopError
            now = self.queue.clock()
            if now - self._looked > _LOOK:
                self._looked = now
                self._look(order)
            if now - self._asked > min(_ASK, self.queue.quiet / 4):
                self._asked = now
                self._ask()
                self._tell()
            for number, unit in self.queue.hand_out():
                self._send(number, unit)
            self._heed_all()

    def _send(self, number: int, unit: int) -> None:
        """Give a unit to a process."""
        if unit < len(self.jobs):
            self._call(number, unit, "picture", (self.jobs[unit],))
        elif self._segments[unit].given_up.is_set():
            self.queue.done(number, unit)
            del self._segments[unit]
        else:
            self._call(number, unit, "segment", self._segments[unit].arguments)

    def _call(self, number: int, about: int | str, method: str, arguments: tuple[Any, ...] = ()) -> None:
        """Call a method in a process; the answer comes with what it is about."""
        self.cluster.call(
            self._processes[number].handle,
            method,
            arguments,
            lambda answer: self._answers.put((number, about, answer)),
        )

    def _heed_all(self) -> None:
        """Wait for an answer, and heed all that are there."""
        with suppress(Empty):
            self._heed(*self._answers.get(timeout=_GLANCE))
            while True:
                self._heed(*self._answers.get_nowait())

    def _heed(self, number: int, about: int | str, answer: Any) -> None:
        process = self._processes.get(number)
        if about == "film":
            self._add_film(answer)
        elif process is None:  # what it says came too late
            return
        elif isinstance(answer, LostError):
            self._bury(number, answer.why, silent=answer.silent)
        elif about == "start":
            self._started(number, process, answer)
        elif about == "signs":
            process.asked = False
            if isinstance(answer, Signs):
                self._signs(number, answer)
        elif isinstance(about, int):
            self._answered(number, about, answer)

    def _answered(self, number: int, unit: int, answer: Done | Exception) -> None:
        """A unit ended, or its process can do nothing more."""
        job = self.jobs[unit] if unit < len(self.jobs) else self._segments[unit].job
        done = answer if isinstance(answer, Done) else Done(failure(job, answer), error=answer)
        if done.lost:
            why = done.result.error if done.result else "its engine is lost"
            self._bury(number, f"can do nothing more ({why})")
            return
        self.queue.done(number, unit)
        self.done[self._processes[number].node] += 1
        self._end(unit, done)

    def _end(self, unit: int, done: Done) -> None:
        """Keep what became of a unit."""
        if unit >= len(self.jobs):
            self._segments.pop(unit).ended.put(done)
            self.full = self.full or done.full
            return
        if done.result is None or done.result.status is Status.PENDING or (done.full and self.full):
            return
        self.full = self.full or done.full
        job, computed = self.jobs[unit], done.result.computed
        computed = computed and self._seen.setdefault(computed, computed)  # a million equal ones
        result = replace(done.result, input=job.source, output=job.target, computed=computed)
        self._ended[unit] = result
        self.progress.finished(result)

    def _look(self, order: Order) -> None:
        """Start processes where there is room, and let go of those whose nodes left.

        Raises:
            BackendUnavailableError: no node can do this, from the beginning.
            _StopError: no node is left.
        """
        nodes = {node.id: node for node in self.cluster.nodes()}
        for node in [node for key, node in self._nodes.items() if key not in nodes]:
            log.warning("%s left; what it was at is done again.", node)
            for number in [number for number, one in self._processes.items() if one.node.id == node.id]:
                self._bury(number, "left")
        self._nodes = nodes
        for node in nodes.values():
            if node.id not in self._refused:
                self._staff(node, order)
        self.queue.expected = len(self._processes)
        self._check_nodes()

    def _staff(self, node: Node, order: Order) -> None:
        """Start the processes that a node has room for, and that there is work for."""
        share, most = share_of(node, order)
        there = sum(process.node.id == node.id for process in self._processes.values())
        starting = sum(not process.ready for process in self._processes.values())
        for _ in range(min(most - there, self.queue.waiting - starting)):
            number = next(self._numbers)
            self._processes[number] = _Process(self.cluster.start(node, share), node, self.queue.clock())
            own = replace(order, settings=replace(order.settings, threads=share.cpus))
            self._call(number, "start", "start", (own,))

    def _check_nodes(self) -> None:
        """See to it that the run does not wait for ever."""
        now = self.queue.clock()
        if self._processes or not self.queue.waiting:
            self._alone_since = now
            return
        usable = any(node.id not in self._refused for node in self._nodes.values())
        if not any(self.done.values()) and self._refused and not usable:
            raise BackendUnavailableError(
                f"No node can do this: {'; '.join(self._refused.values())}.", "Make the nodes equal."
            )
        self._alone_since = self._alone_since or now
        if now - self._alone_since > _ALONE:
            log.warning("No node of the cluster has been usable for %.0f s.", _ALONE)
            raise _StopError

    def _started(self, number: int, process: _Process, answer: Hello | Exception) -> None:
        """A process is ready, or says why its node does not take part."""
        if not isinstance(answer, Hello):
            self._refuse(process.node, str(answer))
        elif answer.refused:
            self._refuse(process.node, answer.refused)
        else:
            process.ready = True
            self.queue.join(number)
            log.info("%s: a process is ready.", process.node)

    def _refuse(self, node: Node, why: str) -> None:
        """A node takes no part in this run."""
        if node.id not in self._refused:
            self._refused[node.id] = f"{node}: {why.rstrip('.')}"
            log.warning("%s takes no part: %s.", node, why.rstrip("."))
        for number in [number for number, one in self._processes.items() if one.node.id == node.id]:
            self._bury(number, "takes no part")

    def _bury(self, number: int, why: str, *, silent: bool = False) -> None:
        """A process is gone, or is to go: what it was at is done again, alone, or has failed."""
        process = self._processes.pop(number)
        self.cluster.end(process.handle)
        node = process.node
        gone = silent or all(one.id != node.id for one in self.cluster.nodes())
        units = self.queue.units(number) if process.ready else []
        failed = self.queue.leave(number, node=gone)
        if node.id in self._nodes and node.id not in self._refused:
            log.warning("%s: a process %s%s.", node, why, "; its work is done again" if units else "")
            if not process.ready:
                self._starts[node.id] += 1
                if self._starts[node.id] >= _STARTS:
                    self._refuse(node, f"its processes are never ready: the last one {why}")
        for unit in failed:
            job = self.jobs[unit] if unit < len(self.jobs) else self._segments[unit].job
            error = InferenceError(
                f"{shown(job.source)}: every process that worked on it alone was lost; the last one {why}.",
                "Try it on one machine; is there enough memory?",
            )
            self._end(unit, Done(failure(job, error), error=error))

    def _ask(self) -> None:
        """End processes that hang, and ask the others how it goes."""
        now = self.queue.clock()
        with suppress(OSError):
            os.utime(self._witness)  # else other runs take it for forgotten
        for number in self.queue.hanging():
            self._bury(number, f"made no step for {self.queue.quiet:.0f} s or more, and was ended")
        for number, process in list(self._processes.items()):
            if process.ready and not process.asked:
                process.asked = True
                self._call(number, "signs", "signs")
            elif not process.ready and now - process.begun > _LOADING:
                self._bury(number, f"is not ready after {_LOADING:.0f} s")

    def _signs(self, number: int, signs: Signs) -> None:
        self.queue.sign(number, signs.steps, signs.cpu)
        held = {
            self.jobs[unit].source: self.jobs[unit]
            for unit in self.queue.units(number)
            if unit < len(self.jobs)
        }
        for source, (done, total) in signs.parts.items():
            if source in held:
                self.progress.tile(held[source], done, total)
        for name, level, text in signs.messages:
            logging.getLogger(name).log(level, "%s", text)

    def _tell(self, *, final: bool = False) -> None:
        """Say from time to time, and in the end, what each node has done."""
        now = self.queue.clock()
        self._told = self._told or now
        if self.done and (final or now - self._told > _TELL):
            self._told = now
            parts = [
                f"{node.host} {many}" for node, many in sorted(self.done.items(), key=lambda one: str(one[0]))
            ]
            log.info("done by node: %s.", ", ".join(parts))

    def _leave(self) -> None:
        """End early: let what is at work come to an end."""
        self.interrupted = not self.full or self.stop()
        self.progress.stopping()
        self._leaving.set()
        for number, process in self._processes.items():
            if process.ready:
                self._call(number, "stop", "stop")
        end = time.monotonic() + _LEAVING
        while any(self.queue.units(n) for n, one in self._processes.items() if one.ready):
            if time.monotonic() > end:
                return
            self._heed_all()

    def _add_film(self, segments: list[_Segment]) -> None:
        """Segments that a film's thread wants closed; those of earlier films go first."""
        cost = -len(self._segments)
        for segment in segments:
            unit = next(self._numbers)
            self._segments[unit] = segment
            self.queue.add(unit, cost)

    def close_segments(
        self, job: Job, film: "FilmPlan", folder: Path, numbers: Sequence[int]
    ) -> Iterator["Segment"]:
        """Close segments of a film, in a thread of its own; they come as they close.

        Raises:
            CancelledError: the run is to end.
        """
        plan, ended, given_up = self.cluster.put(film), SimpleQueue[Done](), Event()
        units = [_Segment(job, (plan, folder.absolute(), number), ended, given_up) for number in numbers]
        self._answers.put((-1, "film", units))
        try:
            for _ in units:
                done = self._next(ended)
                if done.error is not None or done.segment is None:
                    raise done.error or CancelledError
                yield done.segment
        finally:
            given_up.set()

    def _next(self, ended: SimpleQueue[Done]) -> Done:
        while True:
            with suppress(Empty):
                return ended.get(timeout=_GLANCE)
            if self._leaving.is_set():
                raise CancelledError


def _witness(folder: Path) -> "AbstractContextManager[IO[str]]":
    """A file that others look for; left by a killed run, it is swept away like unfinished ones."""
    return NamedTemporaryFile("w", prefix=".srcli-", suffix=".part", dir=folder)


def sizes(jobs: Sequence[Job]) -> Iterator[int]:
    """Bytes of the inputs; 0 of those that do not say."""
    part = -(-len(jobs) // _LOOKS) or 1
    with ThreadPoolExecutor(_LOOKS) as pool:
        parts = [jobs[start : start + part] for start in range(0, len(jobs), part)]
        for found in pool.map(_sizes, parts):
            yield from found


def _sizes(jobs: Sequence[Job]) -> "array[int]":
    found = array("q")
    for job in jobs:
        try:
            found.append(job.input.stat().st_size)
        except (OSError, ValueError):  # its process says what is wrong with it
            found.append(0)
    return found


def _pending(job: Job) -> PictureResult:
    return PictureResult(job.source, job.target, Status.PENDING)
