"""A run on many processes: what they are told to do, and what becomes of their answers.

The queue decides who does what when, a `Cluster` starts and ends processes. Only paths and URLs travel; every
process reads and writes the files itself, with its machine's own credentials.
"""

import logging
import os
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from secrets import token_hex
from tempfile import NamedTemporaryFile
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

from srcli.errors import InferenceError, OutputError, shown
from srcli.io.remote import Location, Remote, remove
from srcli.io.storage import sweep
from srcli.jobs import staging
from srcli.jobs.cluster_nodes import Cluster, LostError, Node, NodeWork
from srcli.jobs.cluster_processes import Processes, StopError
from srcli.jobs.cluster_worker import Done, Order, Signs, computes, settled
from srcli.jobs.folder import lower_priority, make_folder
from srcli.jobs.outputs import Job
from srcli.jobs.preflight import Preflight
from srcli.jobs.queue import Queue
from srcli.jobs.report import PictureResult, Progress, Status, failure, pending
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
_SHOW = 1.0
"""Seconds between calls that tell what each node has done."""
_TELL = 60.0
"""Seconds between messages of what each node has done."""
_LEAVING = 15.0
"""Seconds that a run which is to stop waits for what its processes have at work."""
_FILMS = 8
"""Films whose segments are on the cluster at once."""
_LOOKS = 16
"""Threads that ask for the sizes of files."""


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
    arguments: tuple[Job, Any, Location, int]
    ended: SimpleQueue[Done]
    given_up: Event


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
        nodes: is told, each second, what each node has done so far.
        films: films; their segments go to the cluster, and this machine joins them.
        queue: who does what when.
        results: one for each picture and film.
        interrupted: whether it ended early.
        full: whether it ended early as the disk was full.
    """

    cluster: Cluster
    jobs: Sequence[Job]
    upscaler: Upscaler
    settings: Settings
    progress: Progress
    stop: Callable[[], bool] = lambda: False
    nodes: Callable[[Sequence[NodeWork], float], None] = lambda work, now: None
    films: Sequence["FilmRun"] = ()
    queue: Queue = field(default_factory=Queue)
    results: list[PictureResult] = field(default_factory=list)
    interrupted: bool = False
    full: bool = False
    _ended: list[PictureResult | None] = field(default_factory=list)
    _segments: dict[int, _Segment] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)
    _processes: Processes = field(init=False)
    _seen: dict[Computed, Computed] = field(default_factory=dict)
    _told: float = 0.0
    _shown: float = 0.0
    _leaving: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self._processes = Processes(self.cluster, self.queue, self._fail)

    @property
    def done(self) -> Counter[Node]:
        """How many pictures and segments each node has done."""
        return Counter({one.node: one.done for one in self._processes.work.values() if one.done})

    def run(self) -> "ClusterRun":
        """Do all jobs; `stop` ends the run early and sets `interrupted`, a full disk `full`.

        Raises:
            OutputError: the output folder cannot be written.
            BackendUnavailableError: no node can do this, or the cluster is gone.
        """
        self.progress.start()
        self._told = self.queue.clock()
        films: list[Future[PictureResult]] = []
        self._ended = [None] * len(self.jobs)
        ahead = Thread(target=self._look_ahead, daemon=True)
        with self._order() as order, ThreadPoolExecutor(_FILMS) as pool:
            self._begin_pictures()
            ahead.start()
            try:
                self._go_on(order, lambda: self.queue.finished)
                self.queue.limit(1)  # of segments, a process computes one at a time
                films = [pool.submit(_run_film, film) for film in self.films]
                self._go_on(order, lambda: all(film.done() for film in films))
                self._stop()
            except StopError:
                self._leave()
            finally:
                self._leaving.set()
                self._processes.end()
                ahead.join()
        self.results = [result or pending(job) for job, result in zip(self.jobs, self._ended, strict=True)]
        self.results += [one.result() for one in films] or [pending(film.job) for film in self.films]
        self._tell()
        return self

    @contextmanager
    def _order(self) -> Iterator[Order]:
        """What processes are told when they start; while it holds, they can see that folders are shared."""
        jobs = self.jobs or [film.job for film in self.films]
        settings, word = settled(self.settings, self.upscaler), token_hex(16)
        log.info("all nodes compute with %s.", self.upscaler.reason)
        with _witness(jobs[0].target, word) as witness:
            yield Order(
                settings,
                self.upscaler.settings.scale,
                computes(self.upscaler),
                Path.cwd(),
                _of_each_kind(job.source for job in jobs),
                jobs[0].target,
                witness,
                word,
            )

    def _begin_pictures(self) -> None:
        for folder in {job.target.parent for job in self.jobs if isinstance(job.target, Path)}:
            sweep(folder)
        for number, size in enumerate(sizes(self.jobs)):
            self.queue.add(number, size)
        self._numbers = count(len(self.jobs))

    def _go_on(self, order: Order, finished: Callable[[], bool]) -> None:
        """Hand out units and heed answers until all is done.

        Raises:
            StopError: the run is to end early.
        """
        while not finished():
            if self.full or self.stop():
                raise StopError
            self._processes.attend(order)
            self._tell_nodes(order)
            while units := self.queue.hand_out():
                for number, unit in units:
                    self._send(number, unit)
            self._heed_all()

    def _look_ahead(self) -> None:
        """Read the headers of all local pictures, in a thread beside the work; what cannot be done ends."""
        lower_priority()
        preflight = Preflight(self.upscaler, self.settings)
        for unit, job in enumerate(self.jobs):
            if self._leaving.is_set():
                return
            if job.remote or self._ended[unit] is not None:
                continue
            result = preflight.look(job).result
            if result.status is Status.FAILED:
                self._processes.answers.put((-1, "ahead", (unit, result)))
        try:
            preflight.check_space()
        except OutputError as error:
            log.warning("%s The run ends when the disk is full.", error.message)

    def _send(self, number: int, unit: int) -> None:
        """Give a unit to a process."""
        if unit < len(self.jobs):
            if self._ended[unit] is None:
                self._processes.call(number, unit, "picture", (self.jobs[unit],))
            else:  # it was found to be impossible
                self.queue.done(number, unit)
        elif self._segments[unit].given_up.is_set():
            self.queue.done(number, unit)
            del self._segments[unit]
        else:
            self._processes.call(number, unit, "segment", self._segments[unit].arguments)

    def _heed_all(self) -> None:
        """Wait for an answer, and heed all that are there."""
        with suppress(Empty):
            self._heed(*self._processes.answers.get(timeout=_GLANCE))
            while True:
                self._heed(*self._processes.answers.get_nowait())

    def _heed(self, number: int, about: int | str, answer: Any) -> None:
        if about == "film":
            self._add_film(answer)
        elif about == "ahead":
            self._foreseen(*answer)
        elif number not in self._processes:  # what it says came too late
            return
        elif isinstance(answer, LostError):
            self._processes.bury(number, answer.why, silent=answer.silent)
        elif about == "start":
            self._processes.started(number, answer)
        elif about == "stop":
            self._processes.stopped(number)
        elif about == "signs":
            self._processes.signs(number, answer)
            if isinstance(answer, Signs):
                self._tell_signs(number, answer)
        elif isinstance(about, int):
            self._answered(number, about, answer)

    def _answered(self, number: int, unit: int, answer: Done | Exception) -> None:
        """A unit ended, or its process can do nothing more."""
        done = answer if isinstance(answer, Done) else Done(failure(self._job(unit), answer), error=answer)
        if done.lost and done.full:
            self._processes.refuse(number, "its disk for scratch files is full")
            return
        if done.lost:
            why = done.result.error if done.result else "its engine is lost"
            self._processes.bury(number, f"can do nothing more ({why})")
            return
        self._processes.ended(number, unit, done.result.megapixels if done.result else 0.0)
        self._end(unit, done)

    def _foreseen(self, unit: int, result: PictureResult) -> None:
        """A picture cannot be done; if a process has it, that one says it."""
        if self._ended[unit] is None and not self.queue.in_flight(unit):
            self._end(unit, Done(result))

    def _job(self, unit: int) -> Job:
        return self.jobs[unit] if unit < len(self.jobs) else self._segments[unit].job

    def _fail(self, unit: int, why: str) -> None:
        """A unit ended too many processes."""
        job = self._job(unit)
        error = InferenceError(
            f"{shown(job.source)}: every process that worked on it alone was lost; the last one {why}.",
            "Try it on one machine; is there enough memory?",
        )
        self._end(unit, Done(failure(job, error), error=error))

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

    def _tell_signs(self, number: int, signs: Signs) -> None:
        """Pass on how far a process is, and its messages."""
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

    def _tell_nodes(self, order: Order) -> None:
        """Say from time to time what each node has done, and keep the witness: others sweep away what is an
        hour old."""
        now = self.queue.clock()
        if now - self._shown > _SHOW:
            self._shown = now
            self.nodes([*self._processes.work.values()], now)
        if now - self._told > _TELL:
            self._told = now
            self._tell()
            if order.witness is not None:
                with suppress(OSError):
                    os.utime(order.witness)

    def _tell(self) -> None:
        if self.done:
            nodes = sorted(self.done.items(), key=lambda one: str(one[0]))
            log.info("done by node: %s.", ", ".join(f"{node.host} {many}" for node, many in nodes))

    def _leave(self) -> None:
        """End early: let what is at work come to an end."""
        self.interrupted = not self.full or self.stop()
        self.progress.stopping()
        self._leaving.set()
        self._stop()

    def _stop(self) -> None:
        """Let processes end what they are at, and remove their scratch files."""
        self._processes.stop()
        end = time.monotonic() + _LEAVING
        while self._processes.at_work:
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

        Those of a film that goes behind a URL come by way of a folder beside it, which goes with the film.

        Raises:
            CancelledError: the run is to end.
        """
        plan, ended, given_up = self.cluster.put(film), SimpleQueue[Done](), Event()
        shared: Location = folder.absolute()
        if isinstance(job.target, Remote):
            shared = staging.segments_beside(job.target) / token_hex(4)
        units = [_Segment(job, (job, plan, shared, number), ended, given_up) for number in numbers]
        self._processes.answers.put((-1, "film", units))
        try:
            for _ in units:
                done = self._next(ended)
                if done.error is not None or done.segment is None:
                    raise done.error or CancelledError
                if isinstance(shared, Remote):
                    staging.fetch_segment(done.segment, shared, folder)
                yield done.segment
        finally:
            given_up.set()

    def _next(self, ended: SimpleQueue[Done]) -> Done:
        while True:
            with suppress(Empty):
                return ended.get(timeout=_GLANCE)
            if self._leaving.is_set():
                raise CancelledError


def _run_film(film: "FilmRun") -> PictureResult:
    """A film, after which nothing is left of the segments that killed runs had put behind its URL."""
    result = film.run()
    if isinstance(film.job.target, Remote) and result.status is Status.WRITTEN:
        remove(staging.segments_beside(film.job.target))
    return result


@contextmanager
def _witness(target: Location, word: str) -> Iterator[Path | None]:
    """A file beside a local output that others look for; left by a killed run, it is swept away like
    unfinished ones.

    Raises:
        OutputError: it cannot be written.
    """
    if isinstance(target, Remote):
        yield None
        return
    make_folder(target)
    try:
        with NamedTemporaryFile("w", prefix=".srcli-", suffix=".part", dir=target.parent) as file:
            file.write(word)
            file.flush()
            place = Path(file.name)
            place.chmod(0o644)  # processes of other users read it
            yield place
    except OSError as error:
        raise OutputError(
            f"{shown(target.parent)} cannot be written ({error.strerror}).", "Choose another place."
        ) from error


def _of_each_kind(sources: Iterable[Location]) -> tuple[Location, ...]:
    """The first of the local files, and of those behind URLs."""
    kinds = dict[type[Location], Location]()
    for source in sources:
        kinds.setdefault(type(source), source)
    return tuple(kinds.values())


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
        if isinstance(job.source, Remote):
            found.append(job.source.size or 0)
            continue
        try:
            found.append(job.source.stat().st_size)
        except (OSError, ValueError):  # its process says what is wrong with it
            found.append(0)
    return found
