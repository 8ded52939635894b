"""Many pictures through the engines: decode, upscale and encode at the same time, results in order.

The caller's thread admits pictures while they fit the memory budget and commits results in the
order of the inputs; each engine has one picture at a time; small pools decode before it and encode after it.
Every picture is a chain of futures, so nothing is shared but what the chain hands on, and an error
anywhere in it arrives at the commit.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Protocol

from numpy.typing import NDArray

from srcli.errors import InputError, SrcliError
from srcli.io import pictures
from srcli.io.storage import sweep
from srcli.jobs.inputs import is_folder
from srcli.jobs.memory import picture_bytes
from srcli.jobs.names import Job
from srcli.jobs.progress import Progress
from srcli.jobs.report import PictureResult, Status
from srcli.jobs.sizes import Size, SizeRequest
from srcli.jobs.stages import Stage, decode, encode, stand_back
from srcli.upscaler import Made

Pixels = NDArray[Any]
"""(H, W) or (H, W, C), uint8 or uint16, as `srcli.io.pictures` reads them."""

_GLANCE = 0.1
"""Seconds that a wait for a picture lasts before it looks up whether it is to stop."""


class Upscale(Protocol):
    """One picture's pixels to larger ones; `srcli.Upscaler` is one."""

    @property
    def scales(self) -> tuple[int, ...]:
        """Of the networks at hand; empty where bicubic does everything."""

    @property
    def made(self) -> Made | None:
        """What the last call made its result with."""

    def __call__(
        self, image: Pixels, *, size: Size | None, progress: Callable[[int, int], None] | None
    ) -> Pixels:
        """Upscale to `size` (height, width), or by its own scale; same dtype and layout."""


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """How a folder run works.

    Attributes:
        size: how large the outputs shall be.
        quality: 1 to 100 for lossy formats; None leaves it to the format.
        overwrite: replace outputs that exist; otherwise they are skipped.
        memory: bytes that all pictures in flight may take (`picture_bytes`); one that alone takes
            more runs alone. The network's own memory, which depends on the tile, comes on top.
        workers: threads that decode, and as many that encode.
    """

    size: SizeRequest
    quality: int | None = None
    overwrite: bool = False
    memory: int = 2 << 30
    workers: int = 2


@dataclass(slots=True)
class _Flight:
    """An admitted picture: the bytes it was granted and the end of its chain."""

    job: Job
    cost: int
    result: Future[PictureResult]


@dataclass(slots=True)
class FolderRun:
    """One run. `results` grows in the order of the jobs; after an interrupt it is complete too.

    `more` are further engines, on other devices: each takes a picture of its own.
    `stop` says whether the run is to end early; it is asked between steps and while waiting.
    """

    jobs: Sequence[Job]
    upscale: Upscale
    options: FolderOptions
    progress: Progress
    more: Sequence[Upscale] = ()
    stop: Callable[[], bool] = lambda: False
    results: list[PictureResult] = field(default_factory=list)
    interrupted: bool = False
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _flights: deque[_Flight] = field(default_factory=deque)
    _idle: SimpleQueue[Upscale] = field(default_factory=SimpleQueue)

    def run(self) -> "FolderRun":
        """Do all jobs; `stop` or an interrupt ends the run early and sets `interrupted`.

        Failed pictures become results, they raise nothing. Signals are better remembered for `stop`
        (`srcli.interrupt`) than raised: an interrupt in the lock of a future would leave it taken.
        """
        self.progress.start(len(self.jobs))
        for folder in {job.target.parent for job in self.jobs}:
            sweep(folder)
        beside = partial(ThreadPoolExecutor, self.options.workers, initializer=stand_back)
        for upscale in (self.upscale, *self.more):
            self._idle.put(upscale)
        pools = beside(), ThreadPoolExecutor(1 + len(self.more)), beside()
        try:
            for job in self.jobs:
                self._heed()
                self._admit(job, *pools)
            self._commit_while(lambda: bool(self._flights))
        except KeyboardInterrupt:
            self.interrupted = True
            self._cancelled.set()
            self.progress.stopping()
        finally:
            for pool in pools:
                pool.shutdown(wait=False, cancel_futures=True)
            for pool in pools:
                pool.shutdown(wait=True)
        self._settle()
        return self

    def _admit(
        self, job: Job, decoders: ThreadPoolExecutor, engine: ThreadPoolExecutor, encoders: ThreadPoolExecutor
    ) -> None:
        """Start a picture as soon as there is room for it."""
        try:
            if already_there(job, self.options):
                self._append(job, 0, _ready(_skipped(job, self.options)))
                return
            header = pictures.probe(job.source)
            cost = self._cost(job, header)
        except Exception as error:  # whatever a file does to a decoder must not stop the others
            self._append(job, 0, _failed(error))
            return
        self._commit_while(lambda: self._is_full(cost))
        decoded = decoders.submit(decode, job)
        upscaled = engine.submit(self._upscale, job, decoded)
        self._append(job, cost, encoders.submit(encode, job, upscaled, self.options.quality))

    def _cost(self, job: Job, header: pictures.Header) -> int:
        return picture_bytes(header, self.options.size, self.upscale.scales, pictures.format_of(job.target))

    def _append(self, job: Job, cost: int, result: Future[PictureResult]) -> None:
        self._flights.append(_Flight(job, cost, result))
        self._commit_while(lambda: bool(self._flights) and self._flights[0].result.done())

    def _is_full(self, cost: int) -> bool:
        """Whether a picture of `cost` bytes has to wait for one in flight."""
        if not self._flights:
            return False
        granted = sum(flight.cost for flight in self._flights)
        return granted + cost > self.options.memory or len(self._flights) > 2 * self.options.workers + len(
            self.more
        )

    def _commit_while(self, wanted: Callable[[], bool]) -> None:
        while wanted():
            flight = self._flights[0]
            while not flight.result.done():
                self._heed()
                wait([flight.result], _GLANCE)
            self._flights.popleft()
            self._record(_outcome(flight))

    def _heed(self) -> None:
        """Interrupt the run if it is to stop, here where nothing is half done."""
        if self.stop():
            raise KeyboardInterrupt

    def _record(self, result: PictureResult) -> None:
        self.results.append(result)
        if result.status is not Status.PENDING:  # an interrupt cut it off
            self.progress.finished(result)

    def _settle(self) -> None:
        """After the end: commit what was still finished, and say what is left."""
        self._commit_while(lambda: bool(self._flights))
        settled = {result.output for result in self.results}
        left = (job for job in self.jobs if job.target not in settled)
        self.results += [PictureResult(job.source, job.target, Status.PENDING) for job in left]

    def _upscale(self, job: Job, decoded: Future[Stage]) -> Stage:
        stage = decoded.result()
        self._go_on()
        start = perf_counter()
        size = None if self.options.size.by_factor else self.options.size.output(stage.input_size)
        upscale = self._idle.get()
        try:
            pixels = upscale(stage.picture.pixels, size=size, progress=self._tiles(job))
            made = upscale.made
        finally:
            self._idle.put(upscale)
        seconds = stage.seconds + perf_counter() - start
        return replace(stage, picture=replace(stage.picture, pixels=pixels), seconds=seconds, made=made)

    def _tiles(self, job: Job) -> Callable[[int, int], None]:
        def tile(done: int, total: int) -> None:
            if done < total:  # of the last one, the picture is there
                self._go_on()
            self.progress.tile(job, done, total)

        return tile

    def _go_on(self) -> None:
        """Raise CancelledError if the run has been interrupted."""
        if self._cancelled.is_set():
            raise CancelledError


def already_there(job: Job, options: FolderOptions) -> bool:
    """Whether the output exists and is to be kept. Outputs appear whole, so it is a finished one."""
    return not options.overwrite and os.path.lexists(job.target) and not is_folder(job.target)


def _skipped(job: Job, options: FolderOptions) -> PictureResult:
    """An output that is kept; a note says if it has not the size that was asked for."""
    notes = list[str]()
    with suppress(SrcliError):
        source, there = pictures.probe(job.source), pictures.probe(job.target)
        wanted, has = options.size.output((source.height, source.width)), (there.height, there.width)
        if sorted(wanted) != sorted(has):  # sorted: one of them may be turned by EXIF
            notes.append(f"its output is there with {has[1]}×{has[0]} pixels, not {wanted[1]}×{wanted[0]}")
    return PictureResult(job.source, job.target, Status.SKIPPED, notes=tuple(notes))


def foresee(job: Job, options: FolderOptions) -> PictureResult:
    """What a run would do with a picture, by its header; nothing is decoded or written."""
    if already_there(job, options):
        return _skipped(job, options)
    try:
        header = pictures.probe(job.source)
        size = header.height, header.width
        options.size.factor(size)
    except Exception as error:
        return failure(job, error)
    return PictureResult(job.source, job.target, Status.PLANNED, size, options.size.output(size))


def _outcome(flight: _Flight) -> PictureResult:
    """The result of a chain at its end; its error becomes a failed picture."""
    try:
        return flight.result.result()
    except CancelledError:
        return PictureResult(flight.job.source, flight.job.target, Status.PENDING)
    except Exception as error:  # a bug in one picture must not lose the others
        return failure(flight.job, error)


def failure(job: Job, error: Exception) -> PictureResult:
    """A failed picture, in words that name the file."""
    if not isinstance(error, SrcliError):
        error = InputError(
            f"{pictures.shown(job.source)}: failed unexpectedly ({type(error).__name__}: {error}).",
            "This is a bug in srcli: please report it with the picture.",
        )
    message = error.message
    if not any(pictures.shown(path) in message for path in (job.source, job.target)):
        message = f"{pictures.shown(job.source)}: {message}"
    return PictureResult(job.source, job.target, Status.FAILED, error=message, hint=error.hint)


def _ready(result: PictureResult) -> Future[PictureResult]:
    future: Future[PictureResult] = Future()
    future.set_result(result)
    return future


def _failed(error: Exception) -> Future[PictureResult]:
    future: Future[PictureResult] = Future()
    future.set_exception(error)
    return future
