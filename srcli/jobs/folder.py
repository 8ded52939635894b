"""Many pictures through the engines: decode, enlarge and encode at the same time, results in order.

The caller's thread admits pictures while they fit into memory and commits results in the order of the inputs.
Each engine has a thread that streams pictures through it; small pools decode before it and encode after it.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from time import perf_counter

from srcli.errors import OutputError, shown
from srcli.imaging.pixels import Pixels
from srcli.io import pictures, provenance
from srcli.io.pictures import Picture
from srcli.io.remote import Location, Remote
from srcli.io.storage import copy_times, has_space, is_full, sweep
from srcli.jobs import plan
from srcli.jobs.outputs import Job
from srcli.jobs.plan import Upscale
from srcli.jobs.preflight import Outlook, Preflight
from srcli.jobs.report import PictureResult, Progress, Status, failure, pending
from srcli.jobs.staging import MEANWHILE, Staging, deliver, release
from srcli.settings import Settings, Size
from srcli.stream import WAIT, Image, Result, Wait

_GLANCE = 0.1
"""Seconds that a wait for a picture lasts before it looks up whether it is to stop."""
_NICE, _LOWEST = 10, 19
"""Lowered priority of decoding and encoding: about a tenth of the network's share of a core."""


@dataclass(frozen=True, slots=True)
class _Decoded:
    """A picture, the file it comes from, the model for it, and the seconds it took."""

    picture: Picture
    given: plan.Input
    model: str | Path
    seconds: float


class _LeftAloneError(Exception):
    """Ends the way of a picture for which there is nothing to do."""

    def __init__(self, result: PictureResult) -> None:
        super().__init__()
        self.result = result


@dataclass(slots=True, eq=False)
class _Flight:
    """A picture on its way: the bytes it was granted, its decoding, and the end of its way.

    Attributes:
        told: whether its end was said before it began.
    """

    job: Job
    cost: int = 0
    told: bool = False
    decoded: Future[_Decoded] | None = None
    result: Future[PictureResult] = field(default_factory=Future)


@dataclass(slots=True)
class FolderRun:
    """One run. `results` grows in the order of the jobs; after an interrupt it is complete too.

    Attributes:
        jobs: what to read and write.
        upscalers: one a device; each takes a picture of its own.
        settings: of the run.
        progress: watches it.
        stop: says whether the run is to end early; it is asked between steps and while waiting.
        interrupted: whether it ended early.
        full: whether it ended early as the disk was full.
        lost: whether an engine can do nothing more.
    """

    jobs: Sequence[Job]
    upscalers: Sequence[Upscale]
    settings: Settings
    progress: Progress
    stop: Callable[[], bool] = lambda: False
    results: list[PictureResult] = field(default_factory=list)
    interrupted: bool = False
    full: bool = False
    lost: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ahead: dict[Location, Outlook] = field(default_factory=dict)
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _flights: deque[_Flight] = field(default_factory=deque)
    _ready: SimpleQueue[_Flight | None] = field(default_factory=SimpleQueue)
    _staging: Staging = field(init=False)
    _decoders: ThreadPoolExecutor | None = None
    _preflight: Preflight | None = None
    _room: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self._staging = Staging(self.jobs, self.settings, Preflight(self.upscalers[0], self.settings))

    @property
    def _budget(self) -> int:
        budget = min(upscale.picture_memory for upscale in self.upscalers)
        return max(budget // 2, budget - self._staging.memory)

    @property
    def _limit(self) -> int:
        return _largest(self._budget)

    def run(self) -> "FolderRun":
        """Do all jobs; `stop` or an interrupt ends the run early and sets `interrupted`, a full disk `full`.

        The headers of all pictures are read first: what cannot be done is told before the first one begins.
        Of those behind URLs that is done when they have come, a few ahead of their turn.
        Failed pictures become results, they raise nothing. Signals are better remembered for `stop`
        (`srcli.errors.Interrupt`) than raised: an interrupt in the lock of a future would leave it taken.

        Raises:
            OutputError: the results cannot fit on their disk; nothing was begun.
        """
        self.progress.start()
        try:
            self._look_ahead()
        except KeyboardInterrupt:
            self.interrupted = True
            self.progress.stopping()
            self._settle()
            return self
        for folder in {job.target.parent for job in self.jobs if isinstance(job.target, Path)}:
            sweep(folder)
        with self.at_work():
            try:
                for job in self.jobs:
                    self._heed()
                    self._admit(self._arrived(job))
                self._commit_while(lambda: bool(self._flights))
            except KeyboardInterrupt:
                self.interrupted = not self.full or self.stop()
                self._cancelled.set()
                self.progress.stopping()
        self._settle()
        return self

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """In here, the threads of the engines, decoders and encoders run."""
        self._decoders, encoders = (
            ThreadPoolExecutor(self.settings.workers, initializer=lower_priority) for _ in range(2)
        )
        streams = [
            threading.Thread(target=self._serve, args=(upscale, encoders), daemon=True)
            for upscale in self.upscalers
        ]
        for stream in streams:
            stream.start()
        try:
            yield
        finally:
            self._decoders.shutdown(wait=False, cancel_futures=True)
            self._ready.put(None)
            for stream in streams:
                stream.join()
            self._decoders.shutdown(wait=True)
            encoders.shutdown(wait=True)
            self._staging.close()

    def do(self, job: Job) -> PictureResult:
        """One picture, from its header to its end; in `at_work`, for several threads at once.

        It begins as soon as there is room for it, as in `run`, and is told to nobody. What is behind URLs is
        fetched before, and put when it is finished.

        Raises:
            OutputError: the disk for what is fetched is full.
        """
        if job.remote:
            return self._do_remote(job)
        with self._room:
            self._preflight = self._preflight or Preflight(self.upscalers[0], self.settings)
            outlook = self._preflight.look(job)
        return self._do(job, outlook)

    def _do_remote(self, job: Job) -> PictureResult:
        preflight = Preflight(self.upscalers[0], self.settings)
        with closing(Staging([job], self.settings, preflight)) as staging:
            return self._do(*staging.next(lambda fetched: None))

    def _do(self, job: Job, outlook: Outlook) -> PictureResult:
        if outlook.result.status is not Status.PLANNED:
            return outlook.result
        with self._room:
            flight, folder = _Flight(job, outlook.cost), job.output.parent
            self._room.wait_for(lambda: not self._has_to_wait(flight.cost, outlook.scratch, folder))
            self._begin(flight)
            self._flights.append(flight)
        wait([flight.result])
        with self._room:
            self._flights.remove(flight)
            self._room.notify_all()
        return _outcome(flight)

    def cancel(self) -> None:
        """End what is on its way in `do`; it stays pending."""
        self._cancelled.set()

    def _look_ahead(self) -> None:
        """Decide about every picture by its header, and say what fails."""
        preflight = Preflight(self.upscalers[0], self.settings)
        for job in self.jobs:
            self._heed()
            if job.remote:
                continue
            outlook = self._ahead[job.target] = preflight.look(job)
            if outlook.result.status is Status.FAILED:
                self.progress.finished(outlook.result)
        preflight.check_space()

    def _arrived(self, job: Job) -> Job:
        """The job with local files in place of those behind URLs, once they are here."""
        if not job.remote:
            return job
        try:
            job, self._ahead[job.target] = self._staging.next(self._await)
        except OutputError as error:  # the disk is full
            flight = _Flight(job)
            self._append(flight)
            self._fail(flight, error)
            raise KeyboardInterrupt from error
        return job

    def _await(self, fetched: Future[Job]) -> None:
        while not fetched.done():
            self._heed()
            self._commit_while(lambda: bool(self._flights) and self._flights[0].result.done())
            wait([fetched], _GLANCE)

    def _admit(self, job: Job) -> None:
        """Start a picture as soon as there is room for it."""
        outlook = self._ahead[job.target]
        flight = _Flight(job, outlook.cost)
        if outlook.result.status is not Status.PLANNED:
            flight.told = outlook.result.status is Status.FAILED and not job.remote
            flight.result.set_result(outlook.result)
            self._append(flight)
            return
        self._commit_while(lambda: self._has_to_wait(flight.cost, outlook.scratch, job.output.parent))
        self._begin(flight)
        self._append(flight)

    def _begin(self, flight: _Flight) -> None:
        """Decode a picture, and let an engine wait for it."""
        assert self._decoders is not None, "this is called at work"
        flight.decoded = self._decoders.submit(self._decode, flight.job)
        self._ready.put(flight)

    def _append(self, flight: _Flight) -> None:
        self._flights.append(flight)
        self._commit_while(lambda: bool(self._flights) and self._flights[0].result.done())

    def _has_to_wait(self, cost: int, scratch: int, folder: Path) -> bool:
        """Whether a picture of `cost` bytes, and `scratch` on disk, has to wait for one on its way."""
        if not self._flights:
            return False
        if scratch and not has_space(folder, scratch):
            return True
        granted = sum(flight.cost for flight in self._flights)
        most = 2 * self.settings.workers + len(self.upscalers) - 1 + self._staging.deliveries
        return granted + cost > self._budget or len(self._flights) > most

    def _commit_while(self, wanted: Callable[[], bool]) -> None:
        while wanted():
            flight = self._flights[0]
            while not flight.result.done():
                self._heed()
                wait([flight.result], _GLANCE)
            self._flights.popleft()
            result = _outcome(flight)
            release(flight.job)
            self.results.append(result)
            if not (flight.told or result.status is Status.PENDING):  # an interrupt cut it off
                self.progress.finished(result)

    def _heed(self) -> None:
        """Interrupt the run if it is to stop, here where nothing is half done."""
        if self.full or self.stop():
            raise KeyboardInterrupt

    def _fail(self, flight: _Flight, error: Exception) -> None:
        """End a picture's way. A full disk ends the run: of the pictures that find it so, the first fails."""
        if is_full(error):
            with self._lock:
                first, self.full = not self.full, True
            self._cancelled.set()
            error = _disk_full(flight.job, error) if first else CancelledError()
        flight.result.set_exception(error)

    def _settle(self) -> None:
        """After the end: commit what was still finished, and say what is left."""
        for flight in self._flights:
            if not flight.result.done():
                flight.result.set_exception(CancelledError())
        self._commit_while(lambda: bool(self._flights))
        for job in self.jobs[len(self.results) :]:
            outlook = self._ahead.get(job.target)
            failed = outlook is not None and outlook.result.status is Status.FAILED
            self.results.append(outlook.result if outlook and failed else pending(job))

    def _decode(self, job: Job) -> _Decoded:
        start, folder = perf_counter(), job.output.parent
        make_folder(job.output)
        with plan.unchanged(job.input) as given:
            picture = pictures.read(job.input, limit=self._limit, memory=self._budget, folder=folder)
        model = self.upscalers[0].model_for(picture.pixels)
        source = picture.pixels.shape[0], picture.pixels.shape[1]
        if self.upscalers[0].leaves(source, self.settings.output_size(source), model):
            raise _LeftAloneError(plan.left_alone(job, source, model))
        return _Decoded(picture, given, model, perf_counter() - start)

    def _serve(self, upscale: Upscale, encoders: ThreadPoolExecutor) -> None:
        """An engine's thread: stream pictures through it and hand each on to an encoder."""
        pending, jobs = deque[_Flight](), list[Job]()
        try:
            with closing(upscale.stream(self._images(pending, jobs), partial(self._tile, jobs))) as results:
                for result in results:
                    self._hand_on(pending.popleft(), result, encoders)
        except Exception as error:  # the engine is lost, or the run is to stop
            self.lost = not isinstance(error, CancelledError)
            for flight in chain(pending, iter(self._ready.get, None)):
                self._fail(flight, error)
            self._ready.put(None)

    def _images(self, pending: deque[_Flight], jobs: list[Job]) -> Iterator[Image | Wait]:
        """The next pictures for one engine; `WAIT` where it should finish what it has first."""
        while True:
            try:
                flight = self._ready.get(block=not pending)
            except Empty:
                yield WAIT
                continue
            if flight is None:
                self._ready.put(None)  # for the other engines
                return
            assert flight.decoded is not None, "what is ready is being decoded"
            if pending and not flight.decoded.done():
                yield WAIT
            pending.append(flight)
            jobs.append(flight.job)
            yield self._image(flight)

    def _image(self, flight: _Flight) -> Image:
        """A picture for the stream, decoded; an error of its decoding is raised when it is its turn."""
        assert flight.decoded is not None, "what is ready is being decoded"
        try:
            self._go_on()
            decoded = flight.decoded.result()
        except Exception as error:
            return Image(partial(_raise, error))
        folder = flight.job.output.parent
        return Image(decoded.picture.pixels, None, decoded.model, "BGR", self._limit, folder)

    def _tile(self, jobs: list[Job], number: int, complete: int, total: int) -> None:
        if complete < total:  # of the last one, the picture is there
            self._go_on()
        self.progress.tile(jobs[number], complete, total)

    def _go_on(self) -> None:
        """Raise CancelledError if the run has been interrupted."""
        if self._cancelled.is_set():
            raise CancelledError

    def _hand_on(self, flight: _Flight, result: Result, encoders: ThreadPoolExecutor) -> None:
        """Give an enlarged picture to an encoder, without the pixels that it was made from."""
        if result.error is not None or result.pixels is None or flight.decoded is None:
            self._fail(flight, result.error or CancelledError())
            return
        decoded, flight.decoded = flight.decoded.result(), None
        height, width = decoded.picture.pixels.shape[:2]
        enlarged = replace(decoded.picture, pixels=result.pixels, order="BGR")
        seconds = decoded.seconds + result.seconds
        encoders.submit(self._encode, flight, enlarged, decoded.given, (height, width), result, seconds)

    def _encode(
        self,
        flight: _Flight,
        picture: Picture,
        given: plan.Input,
        source: Size,
        result: Result,
        seconds: float,
    ) -> None:
        """Write a picture with what made it, and commit its result, or leave that to its delivery."""
        start, job, settings = perf_counter(), flight.job, self.settings
        written = pictures.format_of(job.output)
        try:
            assert result.computed is not None, "pixels were computed by something"
            height, width = picture.pixels.shape[:2]
            metadata, dropped = picture.metadata, tuple[str, ...]()
            if settings.provenance:
                record = plan.record(job, given, result.computed, settings, (height, width))
                metadata, dropped = provenance.add_to(metadata, written, record)
            else:
                metadata = provenance.remove_from(metadata)
            picture = replace(picture, metadata=metadata)
            notes = pictures.write(
                job.output,
                picture,
                quality=settings.quality,
                keep_dpi=settings.keep_dpi,
                memory=self._limit,
                folder=job.output.parent,
            )
            if settings.keep_times:
                copy_times(job.input, job.output)
            ended = PictureResult(
                job.source,
                job.target,
                Status.WRITTEN,
                source,
                (height, width),
                seconds + perf_counter() - start,
                notes=(*picture.notes, *dropped, *notes),
                computed=result.computed,
            )
            if isinstance(job.target, Remote):
                self._staging.deliver(partial(self._delivered, flight, ended))
            else:
                flight.result.set_result(ended)
        except Exception as error:
            self._fail(flight, error)

    def _delivered(self, flight: _Flight, ended: PictureResult) -> None:
        """Put a written picture where it goes, and commit its result."""
        try:
            if not deliver(flight.job, replaces=self.settings.overwrite, made_by=provenance.read):
                ended = PictureResult(ended.input, ended.output, Status.SKIPPED, notes=(MEANWHILE,))
            flight.result.set_result(ended)
        except Exception as error:
            self._fail(flight, error)


def make_folder(target: Path) -> None:
    """Make the folder of an output.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{target}: its folder cannot be made ({error.strerror}).", "Choose another place with -o."
        ) from error


def lower_priority() -> None:
    """Lower this thread's priority below the network's."""
    if sys.platform == "linux":  # elsewhere, priorities belong to processes
        thread = threading.get_native_id()
        lower = min(os.getpriority(os.PRIO_PROCESS, thread) + _NICE, _LOWEST)
        with suppress(OSError):  # not needed, only better
            os.setpriority(os.PRIO_PROCESS, thread, lower)


def _disk_full(job: Job, error: Exception) -> OutputError:
    """What becomes of the picture that finds the disk full."""
    full = OutputError(
        f"{shown(job.target)} cannot be written: the disk, or your share of it, is full.",
        "Free some space, and the same command goes on with what is left.",
    )
    full.__cause__ = error
    return full


def _largest(budget: int) -> int:
    """Bytes of the largest array in RAM; larger ones lie in scratch files beside the output."""
    return budget // 3


def _outcome(flight: _Flight) -> PictureResult:
    """The result of a picture at its end; its error becomes a failed picture."""
    try:
        return flight.result.result()
    except _LeftAloneError as left:
        return left.result
    except CancelledError:
        return pending(flight.job)
    except Exception as error:  # a bug in one picture must not lose the others
        return failure(flight.job, error)


def _raise(error: Exception) -> Pixels:
    raise error
