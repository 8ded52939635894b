"""What one process of a cluster does: pictures and segments of films, by the functions of a local run.

It knows nothing of Ray, and nothing of the others. The driver says once what to compute with; a process that
would compute with something else says so and does nothing.
"""

import logging
import os
import platform
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from srcli import __version__
from srcli.errors import SrcliError
from srcli.io import provenance, remote
from srcli.io.remote import Location, Remote
from srcli.io.storage import is_full
from srcli.jobs import staging
from srcli.jobs.folder import FolderRun, make_folder
from srcli.jobs.outputs import Job
from srcli.jobs.report import PictureResult, failure
from srcli.models import auto, catalog
from srcli.precision import choose_file
from srcli.settings import Settings
from srcli.upscaler import Upscaler

if TYPE_CHECKING:
    from srcli.io.films.journal import Segment
    from srcli.jobs.film_plan import FilmPlan

_ROOT = "srcli"
_WAITS = (0, 1, 4, 10)
"""Seconds before each look for a file that was just written elsewhere."""
_MOVED = 1 << 20
"""Bytes read or written that count as a step: fetching and putting large files takes long and little CPU."""
Message = tuple[str, int, str]
"""Logger, level and text."""


@dataclass(frozen=True, slots=True)
class Computes:
    """What decides the pixels beside the settings; equal on all machines of a run.

    Attributes:
        version: of srcli.
        backend, device, precision: of the network; the device without its number.
        finer: precision of what is too hard for int8; "" where no network is int8.
        models: SHA-256 of all files that the settings may use.
    """

    version: str
    backend: str
    device: str
    precision: str
    finer: str
    models: str


def computes(upscaler: Upscaler) -> Computes:
    """What an upscaler computes with."""
    info, settings = upscaler.info, upscaler.settings
    paths: dict[Path, None] = {}
    finer = False
    for model in auto.models(settings.model) if upscaler.scales else ():
        for scale in upscaler.scales:
            file = choose_file(catalog.resolve(model, scale), info.backend, settings)
            paths |= dict.fromkeys(file.files)
            finer = finer or file.full is not None
    models = provenance.model_sha256(tuple(paths)) if paths else ""
    device = info.device.partition(":")[0]
    return Computes(
        __version__, info.backend, device, info.precision, _finer(info.backend) if finer else "", models
    )


def _finer(backend: str) -> str:
    """Precision of a network beside its int8 file."""
    if backend != "openvino":
        return "fp32"
    from srcli.backends import openvino

    return "bf16" if openvino.has_bf16(openvino.import_openvino().Core()) else "fp32"


def settled(settings: Settings, upscaler: Upscaler) -> Settings:
    """The settings with what this machine chose in place of "auto".

    Where a network is int8, "auto" also says what may do without it, so the precision stays as it is.
    """
    found = computes(upscaler)
    precision = settings.precision if found.finer else found.precision
    return replace(settings, backend=found.backend, device=found.device, precision=precision)


def differences(wanted: Computes, found: Computes) -> str:
    """What differs, in words; "" if nothing does."""
    names = [one.name for one in fields(Computes) if getattr(wanted, one.name) != getattr(found, one.name)]
    if "version" in names:
        return f"it has srcli {found.version}, and this run is of {wanted.version}"
    if not names:
        return ""
    if names == ["models"]:
        return "its model files are others"
    pairs = [(f"{one} {getattr(found, one)}", f"{getattr(wanted, one)}") for one in names if one != "models"]
    return ", ".join(f"it has {has} where this run has {want}" for has, want in pairs)


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told when it starts.

    Attributes:
        settings: of the run, settled.
        scale: of the network to load at once.
        computes: what it must compute with.
        folder: current folder of the driver, from which paths are.
        sources: some of its inputs, local and behind URLs.
        target: one of its outputs.
        witness, word: a file in the output folder, and what it holds; None where the outputs go behind URLs.
    """

    settings: Settings
    scale: float
    computes: Computes
    folder: Path
    sources: tuple[Location, ...]
    target: Location
    witness: Path | None
    word: str


@dataclass(frozen=True, slots=True)
class Hello:
    """What a worker says when it is ready, or why it never will be."""

    node: str
    pid: int
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a unit.

    Attributes:
        result: of a picture.
        segment: of a film, closed.
        error: of a film.
        full: whether the disk is full; with `lost`, the worker's own one, for scratch files.
        lost: whether the worker can do nothing more.
    """

    result: PictureResult | None = None
    segment: "Segment | None" = None
    error: Exception | None = None
    full: bool = False
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Signs:
    """Signs of life: steps done, CPU seconds, pictures at work with their tiles, and new messages."""

    steps: int
    cpu: float
    parts: dict[Location, tuple[int, int]]
    messages: Sequence[Message]


class _Watch(logging.Handler):
    """Keeps what a run says until it is asked for."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.steps = 0
        self.parts: dict[Location, tuple[int, int]] = {}
        self.messages: dict[Message, None] = {}
        self.told = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message, once."""
        self.messages[record.name, record.levelno, record.getMessage()] = None

    def start(self) -> None:
        """A run begins."""

    def tile(self, job: Job, done: int, total: int) -> None:
        """A tile is ready."""
        self.steps += 1
        self.parts[job.source] = done, total

    def frames(self, job: Job, done: int, total: int, enlarged: int) -> None:
        """Frames are ready; segments tell of them by `step`."""

    def finished(self, result: PictureResult) -> None:
        """Results are returned instead."""

    def stopping(self) -> None:
        """The driver says it."""

    def step(self, done: int, made: int) -> None:
        """A frame is ready."""
        self.steps += 1


class Worker:
    """One engine. `start` comes first; then several threads may call the rest."""

    def __init__(self) -> None:
        self._watch, self._lane, self._scratch = _Watch(), ExitStack(), ExitStack()
        self._run: FolderRun | None = None
        self._film: Job | None = None
        self._moved = _moved()
        self._turn = threading.Lock()
        self._stopped = threading.Event()

    def start(self, order: Order) -> Hello:
        """Load the networks, and look whether this machine does what is wanted."""
        try:
            refused = self._start(order)
        except SrcliError as error:
            refused = error.message
        except OSError as error:
            refused = f"{error.filename or order.folder}: {error.strerror}"
        return Hello(platform.node(), os.getpid(), refused)

    def _start(self, order: Order) -> str:
        if order.computes.version != __version__:
            return differences(order.computes, replace(order.computes, version=__version__))
        logging.getLogger(_ROOT).addHandler(self._watch)
        logging.getLogger(_ROOT).setLevel(logging.INFO)
        if lacks := _lacks(order):
            return lacks
        self._upscaler = Upscaler.from_settings(replace(order.settings, scale=order.scale))
        if differs := differences(order.computes, computes(self._upscaler)):
            return differs
        self._order = order
        return ""

    def picture(self, job: Job) -> Done:
        """One picture; other threads may be at others."""
        try:
            run = self._pictures()
            self._watch.steps += 1
            result = run.do(job)
        except Exception as error:  # a bug in one picture must not lose the others
            full = job.remote and is_full(error)
            return Done(failure(job, error), full=full, lost=full)
        finally:
            self._watch.steps += 1
            self._watch.parts.pop(job.source, None)
        return Done(result, full=run.full, lost=run.lost or (run.full and isinstance(job.target, Remote)))

    def _pictures(self) -> FolderRun:
        """The run that all pictures go through."""
        with self._turn:
            if self._run is None:
                order = self._order
                one = Job(order.sources[0], order.target)  # like all others, at least in where it goes
                self._run = FolderRun([one], [self._upscaler], order.settings, self._watch)
                self._lane.enter_context(self._run.at_work())
            return self._run

    def segment(self, job: Job, film: "FilmPlan", folder: Location, number: int) -> Done:
        """One segment of a film, into the folder of its work; pictures are over by then."""
        with self._turn:
            self._lane.close()
            self._run = None
            try:
                here = self._staged(job)
            except Exception as error:
                return Done(error=error, full=is_full(error), lost=is_full(error))
            try:
                return Done(segment=self._close(here, film, folder, number))
            except Exception as error:
                if isinstance(error, SrcliError):
                    error.message = here.named(error.message)
                full = is_full(error)
                return Done(error=error, full=full, lost=full and isinstance(folder, Remote))

    def _staged(self, job: Job) -> Job:
        """The job of a film with scratch files of this process, if anything of it is behind a URL.

        They go when the process comes to another film.
        """
        if not job.remote:
            return job
        if self._film is None or (self._film.source, self._film.target) != (job.source, job.target):
            self._scratch.close()
            self._film = None
            scratch = Path(self._scratch.enter_context(staging.scratch_folder()))
            bare = replace(job, scratch=None, ranged=False)
            self._film = staging.film(bare, self._order.settings, scratch, in_part=True)
        return self._film

    def _close(self, job: Job, film: "FilmPlan", folder: Location, number: int) -> "Segment":
        """Make a segment, and put it into the folder of the work if that is behind a URL."""
        from srcli.io.films.journal import Elsewhere
        from srcli.jobs.film_worker import FilmWorker, Shared

        if isinstance(folder, Remote):
            make_folder(job.output)
        work = Elsewhere(job.output.parent if isinstance(folder, Remote) else folder)
        film = replace(film, facts=replace(film.facts, path=job.film_input))
        shared = Shared(film, work, self._order.settings, self._watch.step, {}, self._stopped)
        FilmWorker(shared, self._upscaler).run(iter([number]))
        segment = work.noted[number]
        if isinstance(folder, Remote):
            staging.put_segment(segment, work.folder, folder)
        return segment

    def signs(self) -> Signs:
        """What happened since this was asked last."""
        if (moved := _moved()) - self._moved > _MOVED:
            self._moved = moved
            self._watch.steps += 1
        messages = list(self._watch.messages)
        new, self._watch.told = messages[self._watch.told :], len(messages)
        return Signs(self._watch.steps, time.process_time(), dict(self._watch.parts), new)

    def stop(self) -> None:
        """End what is at work, which stays pending, and remove scratch files of films."""
        self._stopped.set()
        if self._run is not None:
            self._run.cancel()
        with self._turn:
            self._scratch.close()
            self._film = None


def _moved() -> int:
    """Bytes that this process has read and written; 0 where the system does not count them (not Linux)."""
    with suppress(OSError):
        read, written = Path("/proc/self/io").read_text().split()[1:4:2]
        return int(read) + int(written)
    return 0


def _lacks(order: Order) -> str:
    """What this machine cannot reach; "" if nothing. The current folder becomes the driver's.

    Raises:
        SrcliError: a URL cannot be reached, in words.
    """
    places = (*order.sources, order.target)
    if order.folder.is_dir():
        os.chdir(order.folder)
    elif any(isinstance(place, Path) for place in places):
        return f"it has no folder {order.folder}"
    for source in order.sources:
        if not (remote.exists(source) if isinstance(source, Remote) else source.exists()):
            return f"it does not see {source}"
    if isinstance(order.target, Remote):
        remote.exists(order.target)  # not yet; but its bucket is
    elif order.witness is not None and not _sees(order.witness, order.word):
        return f"its folder {order.witness.parent} is not that of this run"
    return ""


def _sees(path: Path, text: str) -> bool:
    """Whether a file is there and holds this; a network file system may take its time."""
    for wait in _WAITS:
        time.sleep(wait)
        with suppress(OSError):
            if path.read_text() == text:
                return True
    return False
