"""What happened to every picture, for people and programs (JSON), and the protocol of whoever watches."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Protocol

from srcli import __version__
from srcli.errors import ExitCode, InputError, OutputError, SrcliError, shown
from srcli.settings import Size

if TYPE_CHECKING:
    from srcli.io.remote import Location
    from srcli.jobs.outputs import Job
    from srcli.upscaler import Computed


SCHEMA = "srcli.upscale/2"
"""Name and version of the JSON report; the number grows when a field changes its meaning or goes."""


class Status(StrEnum):
    """How one picture ended."""

    WRITTEN = "written"
    SKIPPED = "skipped"
    """Its output is there, made by the same input, model and settings, or names are trusted."""
    UNCHANGED = "unchanged"
    """It has the size asked for, and its network only enlarges: nothing is written."""
    KEPT = "kept"
    """A file that says nothing of srcli is where its output goes."""
    FAILED = "failed"
    PLANNED = "planned"
    """Dry run: it would be written."""
    PENDING = "pending"
    """The run was interrupted, or the disk full, before this picture."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded: network, backend, device, precision, why that one, and the messages of the run."""

    model: str
    backend: str
    device: str
    precision: str
    reason: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FilmResult:
    """What happened to a film beside its sizes.

    Attributes:
        frames: in the output.
        lost: seconds from the film's start of the frames that damage cost.
        clipped: share of the input's pixels that no RGB value stands for, 0 to 1.
        carried, dropped: the other streams, in words.
        checks: what was compared after the file was written, in words.
    """

    frames: int
    lost: tuple[float, ...]
    clipped: float
    carried: tuple[str, ...]
    dropped: tuple[str, ...]
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PictureResult:
    """One line of the report: a picture or a film.

    Attributes:
        input: the file read.
        output: the file written or meant; None if the input never got a name.
        status: how it ended.
        input_size: (height, width), None if the picture could not be opened.
        output_size: (height, width), None if none was made.
        seconds: decoding, upscaling and encoding together, without waiting.
        error: what went wrong, for failed pictures.
        hint: what to do about it.
        notes: what the output could not keep, and other things worth knowing.
        computed: what a written output was computed with.
        film: what only films have; None for pictures.
    """

    input: "Location"
    output: "Location | None"
    status: Status
    input_size: Size | None = None
    output_size: Size | None = None
    seconds: float = 0.0
    error: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()
    computed: "Computed | None" = None
    film: FilmResult | None = None

    @property
    def megapixels(self) -> float:
        """Millions of pixels written; 0 if nothing was."""
        if self.status is not Status.WRITTEN or self.output_size is None:
            return 0.0
        frames = 1 if self.film is None else self.film.frames
        return self.output_size[0] * self.output_size[1] * frames / 1e6


@dataclass(frozen=True, slots=True)
class Report:
    """A whole run: pictures in the order of the inputs, whether it ended early and why, and its shard."""

    engine: Loaded
    pictures: Sequence[PictureResult]
    seconds: float
    interrupted: bool = False
    disk_full: bool = False
    shard: str | None = None

    def count(self, status: Status) -> int:
        """How many pictures ended this way."""
        return sum(picture.status is status for picture in self.pictures)

    @property
    def exit_code(self) -> ExitCode:
        """0: all well (skipped and kept count as well), 1: some failed, 130: interrupted."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.FAILED if self.count(Status.FAILED) else ExitCode.OK

    def to_json(self) -> str:
        """The report as indented JSON, ASCII only, so that any file name survives."""
        return "".join(self.pieces())

    def pieces(self) -> Iterator[str]:
        """The same in pieces: a million pictures take little memory."""
        yield json.dumps(self._head(), indent=2).removesuffix("\n}")
        yield ',\n  "pictures": ['
        for number, picture in enumerate(self.pictures):
            yield ",\n" if number else "\n"
            yield indent(json.dumps(_picture_json(picture), indent=2), "    ")
        yield "\n  ]\n}" if self.pictures else "]\n}"

    def lines(self) -> Iterator[str]:
        """The same as JSON Lines: first everything but the pictures, then a line for each."""
        yield json.dumps(self._head()) + "\n"
        for picture in self.pictures:
            yield json.dumps(_picture_json(picture)) + "\n"

    def _head(self) -> dict[str, object]:
        counts = Counter(picture.status.value for picture in self.pictures)
        return {
            "schema": SCHEMA,
            "version": __version__,
            "shard": self.shard,
            "engine": {
                "model": self.engine.model,
                "backend": self.engine.backend,
                "device": self.engine.device,
                "precision": self.engine.precision,
            },
            "reason": self.engine.reason,
            "notes": list(self.engine.notes),
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "disk_full": self.disk_full,
            "counts": {status.value: counts[status.value] for status in Status},
        }


def _picture_json(picture: PictureResult) -> dict[str, object]:
    computed = picture.computed
    return {
        "input": str(picture.input),
        "output": None if picture.output is None else str(picture.output),
        "status": picture.status.value,
        "input_size": _size_json(picture.input_size),
        "output_size": _size_json(picture.output_size),
        "model": computed and computed.model,
        "scales": computed and list(computed.scales),
        "backend": computed and computed.info.backend,
        "device": computed and computed.info.device,
        "precision": computed and computed.info.precision,
        "seconds": round(picture.seconds, 4),
        "error": picture.error or None,
        "hint": picture.hint or None,
        "notes": list(picture.notes),
        "film": None if picture.film is None else asdict(picture.film),
    }


def _size_json(size: Size | None) -> dict[str, int] | None:
    return None if size is None else {"width": size[1], "height": size[0]}


def is_lines(path: "Location") -> bool:
    """Whether a report of this name is JSON Lines."""
    return path.suffix.lower() == ".jsonl"


def write_report(report: Report, path: "Location") -> None:
    """Write the report as JSON, or as JSON Lines if the file is named .jsonl; whole or not at all.

    Raises:
        OutputError: it cannot be written there.
    """
    text = report.lines() if is_lines(path) else chain(report.pieces(), "\n")
    write_pieces(path, (piece.encode() for piece in text))


def write_pieces(path: "Location", pieces: Iterable[bytes]) -> None:
    """Write the pieces of a report; whole or not at all.

    Raises:
        OutputError: it cannot be written there.
    """
    from srcli.io.storage import write_whole  # NumPy comes with it

    if not isinstance(path, Path):
        from tempfile import TemporaryDirectory

        from srcli.io import remote

        with TemporaryDirectory(prefix="srcli-") as scratch:
            write_pieces(file := Path(scratch, "report"), pieces)
            remote.put(file, path, replaces=True)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, pieces)
    except OSError as error:
        raise OutputError(
            f"{shown(path)}: the report cannot be written ({error.strerror}).", "Choose another place."
        ) from error


class Progress(Protocol):
    """Listener of a run. `tile` and `frames` are called by an engine's thread, the rest by the caller's."""

    def start(self) -> None:
        """A run begins."""

    def tile(self, job: "Job", done: int, total: int) -> None:
        """`done` of the `total` tiles of this picture are ready."""

    def frames(self, job: "Job", done: int, total: int, enlarged: int) -> None:
        """`done` of the `total` frames of this film are ready, `enlarged` of them by this run."""

    def finished(self, result: PictureResult) -> None:
        """A picture or film ended, one way or another; in the order of the inputs, but for clusters."""

    def stopping(self) -> None:
        """An interrupt came: the run ends as soon as the tiles at work are done."""


def pending(job: "Job") -> PictureResult:
    """A picture or film that is left for the next run."""
    return PictureResult(job.source, job.target, Status.PENDING)


def failure(job: "Job", error: Exception) -> PictureResult:
    """A failed picture, in words that name the file."""
    if not isinstance(error, SrcliError):
        error = InputError(
            f"{shown(job.source)}: failed unexpectedly ({type(error).__name__}: {error}).",
            "This is a bug in srcli: please report it with the picture.",
        )
    message = job.named(error.message)
    if not any(shown(path) in message for path in (job.source, job.target)):
        message = f"{shown(job.source)}: {message}"
    return PictureResult(job.source, job.target, Status.FAILED, error=message, hint=error.hint)


def problem(path: "Location", error: InputError) -> PictureResult:
    """An input that could not even be tried."""
    return PictureResult(path, None, Status.FAILED, error=error.message, hint=error.hint)
