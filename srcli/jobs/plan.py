"""A run before it starts: what to read, where to write, what is done already, and what must not begin."""

import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from srcli import __version__
from srcli.backends import registry
from srcli.backends.base import BICUBIC
from srcli.errors import InputError, OutputError, SrcliError, UsageError, shown
from srcli.imaging.pixels import Pixels
from srcli.io import pictures, provenance, remote
from srcli.io.codec import translated
from srcli.io.films.signatures import ANIMATED, WRITTEN
from srcli.io.films.signatures import SUFFIXES as FILM_SUFFIXES
from srcli.io.pictures import READ_ONLY_SUFFIXES, SUFFIXES
from srcli.io.provenance import Finished, Provenance
from srcli.io.remote import Location, Remote, location
from srcli.io.storage import check_takes_files, existing
from srcli.jobs.inputs import Discovery, Problem, discover, is_folder, may_be, opened, place
from srcli.jobs.outputs import Job, name_alone, name_outputs, named_alone
from srcli.jobs.report import PictureResult, Status
from srcli.jobs.shard import Shard, check_names
from srcli.models import auto
from srcli.settings import Settings, Size
from srcli.stream import Computed, Image, Result, Wait

log = logging.getLogger(__name__)

_LOSSY = ("jpeg", "webp", "avif")
LEFT_ALONE = "its output is there and does not say what made it: left alone (--overwrite replaces it)"
_LOOK_AT = 16
"""Pictures whose headers may be read to choose the network that is loaded first."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run before it starts.

    Attributes:
        jobs: what to read and write, in the order of the inputs.
        out: the output folder, or the one output file.
        problems: inputs that cannot be tried.
        left_out: the output folder, if it lies in an input folder and was passed by.
        passed_by: links in input folders to folders that are searched already, or that hold one that is.
        unread: suffixes of pictures in input folders that cannot be read, and how many there are of each.
        sound: files in input folders that may be films by their suffix, and have sound alone.
        elsewhere: how many files of the input folder belong to other shards.
    """

    jobs: tuple[Job, ...]
    out: Location
    problems: tuple[Problem, ...] = ()
    left_out: Location | None = None
    passed_by: tuple[Path, ...] = ()
    unread: tuple[tuple[str, int], ...] = ()
    sound: tuple[Path, ...] = ()
    elsewhere: int = 0


def plan(
    inputs: Sequence[str],
    out: Location,
    *,
    recursive: bool = False,
    format: str | None = None,  # noqa: A002
    container: str | None = None,
    as_folder: bool = False,
    shard: Shard | None = None,
) -> Plan:
    """Find the pictures and films that the inputs name, and give each an output.

    Args:
        inputs: files, folders, glob patterns, and URLs of them.
        out: output folder; for one input file also the output file, if it has a picture's or film's suffix.
        recursive: also search the folders in folders, and those that links in them lead to.
        format: "png", "jpg", ...: makes all pictures that; None keeps the format of each input.
        container: "mkv", "mp4", "mov", "webm", "gif", "apng" or "webp": the same of films.
        as_folder: `out` is a folder whatever its suffix.
        shard: of one input folder, only the files that it holds; each output is named by its input alone.

    Raises:
        UsageError: an output would overwrite an input, or the format is not known; with `shard`, there is not
            one input folder and one output folder, or two files would have one output.
        OutputError: the outputs cannot be written where they should go.
        MissingExtraError: a URL is named, and what reads it is not installed.
    """
    planned = _plan(inputs, out, recursive, format, container, as_folder, shard)
    return replace(planned, jobs=_found_there(planned.jobs, out))


def _found_there(jobs: tuple[Job, ...], out: Location) -> tuple[Job, ...]:
    """The same jobs, with what is behind the URLs of their outputs already: one listing."""
    if not isinstance(out, Remote) or not jobs:
        return jobs
    targets = [job.target for job in jobs if isinstance(job.target, Remote)]
    there = remote.there(out, targets)
    return tuple(replace(job, target=target) for job, target in zip(jobs, there, strict=True))


def _plan(
    inputs: Sequence[str],
    out: Location,
    recursive: bool,
    format: str | None,  # noqa: A002
    container: str | None,
    as_folder: bool,
    shard: Shard | None,
) -> Plan:
    wanted = None if format is None else _format(format)
    held = None if container is None else _container(container)
    suffix = "" if as_folder or is_folder(out) else out.suffix.lower()
    if shard is not None and (len(inputs) != 1 or not _may_be_folder(inputs[0])):
        what = inputs[0] if len(inputs) == 1 else "These inputs"
        raise UsageError(f"--shard is for one folder; {what} is not.", "Name one folder, and no pattern.")
    if suffix in (*SUFFIXES, *WRITTEN, *ANIMATED):
        if shard is not None:
            raise UsageError(f"{out} is one file's name, and --shard is for folders.", f"Use -o {out.stem}/.")
        return _plan_file(inputs, out, wanted, held)
    if suffix in FILM_SUFFIXES:
        raise UsageError(f"{out}: such films can be read, not written.", f"Name it {out.stem}.mkv.")
    if suffix in READ_ONLY_SUFFIXES:
        raise UsageError(f"{out}: this format can be read, not written.", f"Name it {out.stem}.png.")
    check_folder(inputs, out)
    holds = None if shard is None else shard.holds
    found = discover(inputs, out, recursive=recursive, films=_reads_films(), holds=holds)
    _refuse_films(found)
    if shard is None:
        jobs = name_outputs(found.pictures, out, wanted, held)
    else:
        jobs = _name_alone(found, location(inputs[0]), out, wanted, held)
    check_targets(jobs)
    problems, unread = tuple(found.problems), tuple(sorted(found.unread.items()))
    passed_by, sound, left_out = tuple(found.passed_by), tuple(found.sound), found.left_out
    if shard is not None and shard.index > 0:  # what all shards meet, the first one says
        passed_by, left_out = (), None
    return Plan(tuple(jobs), out, problems, left_out, passed_by, unread, sound, len(found.elsewhere))


def _may_be_folder(name: str) -> bool:
    """Whether a name is that of a folder; a URL may be, unless it is a pattern."""
    where = location(name)
    return not remote.is_pattern(where) if isinstance(where, Remote) else is_folder(where)


def _name_alone(
    found: Discovery,
    folder: Location,
    out: Location,
    format: str | None,  # noqa: A002
    container: str | None,
) -> list[Job]:
    """Jobs of a shard, after a look at the names of all: each shard refuses what would meet in any."""
    films = _reads_films()
    check_names(
        sorted([*(str(one.relative) for one in found.pictures), *found.elsewhere]),
        lambda file: may_be(Path(file), films=films),
        lambda file: opened(folder, Path(file), films=films),
        lambda one: named_alone(one, format, container)[0],
    )
    return [name_alone(one, out, format, container) for one in found.pictures]


def _format(name: str) -> str:
    """The format behind "jpg", ".jpg" or "JPEG"."""
    known = SUFFIXES.get(f".{name.lower().lstrip('.')}")
    if known is None:
        listing = ", ".join(dict.fromkeys(SUFFIXES.values()))
        raise UsageError(f"Format {name!r} cannot be written.", f"Choose from {listing}.")
    return known


def _reads_films() -> bool:
    return find_spec("av") is not None


def _refuse_films(found: Discovery) -> None:
    """Turn films that are named where nothing reads them into problems."""
    if _reads_films():
        return
    for film in (one for one in found.pictures if one.film):
        error = InputError(
            f"{shown(film.path)} is a film.", 'Install what reads films: pip install "srcli[video]"'
        )
        found.problems.append(Problem(film.path, error))
    found.pictures = [one for one in found.pictures if not one.film]


def _container(name: str) -> str:
    """The suffix, without its dot, of "MKV", ".mkv" or "matroska"."""
    known = {"matroska": "mkv", "quicktime": "mov"}.get(name.lower(), name.lower().lstrip("."))
    if f".{known}" not in (*WRITTEN, *ANIMATED):
        listing = ", ".join(suffix[1:] for suffix in (*WRITTEN, *ANIMATED) if suffix != ".png")
        raise UsageError(f"Container {name!r} cannot be written.", f"Choose from {listing}.")
    return known


def _plan_file(inputs: Sequence[str], out: Location, format: str | None, container: str | None) -> Plan:  # noqa: A002
    """`-o large.png`, `-o large.mkv`: one picture or film with a name of its own."""
    suffix = out.suffix.lower()
    if format not in (None, SUFFIXES.get(suffix, format)):
        raise UsageError(f"{out} is not named like the format {format}.", "Leave out --format.")
    held = (*WRITTEN, *ANIMATED)
    if suffix in held and container not in (None, suffix[1:]):
        raise UsageError(f"{out} is not named like the container {container}.", "Leave out --container.")
    found = discover(inputs, out, recursive=False, films=_reads_films())
    _refuse_films(found)
    if len(inputs) > 1 or len(found.pictures) > 1 or is_folder(location(inputs[0])):
        raise UsageError(f"{out} is one picture's name, but there may be more.", "Name a folder with -o.")
    jobs = []
    for one in found.pictures:
        film = one.film and (suffix in held or not one.animation)
        jobs.append(Job(one.path, out, film))
        if film != (suffix in held) and not (suffix in SUFFIXES and not film):
            kind, other = ("film", ".mkv") if one.film else ("picture", ".png")
            raise UsageError(
                f"{shown(one.path)} is a {kind}, and {out} is not named like one.", f"Use {other}."
            )
    check_file(out)
    check_targets(jobs)
    return Plan(tuple(jobs), out, tuple(found.problems))


def check_folder(inputs: Sequence[str], out: Location) -> None:
    """Refuse an output folder that is an input folder, or that cannot be made or written.

    Raises:
        UsageError: `out` is one of the input folders.
        OutputError: a file is in the way, or the folder is not writable.
    """
    if isinstance(out, Remote):
        remote.check_output(out)
        if any(location(name) == out for name in inputs):
            raise UsageError(f"{out}: the output folder is also an input.", "Name another one with -o.")
        return
    for name in inputs:
        if is_folder(location(name)) and os.path.realpath(name) == os.path.realpath(out):
            raise UsageError(f"{out}: the output folder is also an input.", "Name another one with -o.")
    check_takes_files(out, out)


def check_file(path: Location) -> None:
    """Refuse a file that cannot be written for want of a folder.

    Raises:
        OutputError: a file or folder is in the way, or the folder is not writable.
    """
    if isinstance(path, Remote):
        remote.check_output(path)
        return
    if is_folder(path):
        raise OutputError(f"{path}: is a folder.", "Name a file.")
    check_takes_files(path.parent, path)
    _is_there(path)


def check_targets(jobs: Sequence[Job]) -> None:
    """Refuse jobs of which one would overwrite the input of any.

    Raises:
        UsageError: naming the file in danger.
    """
    sources = {identity for job in jobs if (identity := _identity(job.source))}
    for job in jobs:
        if _identity(job.target) in sources:
            raise UsageError(
                f"{job.target}: this output would overwrite an input.", "Name another folder with -o."
            )


def check_report(path: Location, jobs: Sequence[Job]) -> None:
    """Refuse a report that cannot be written, or that would replace a picture.

    Raises:
        UsageError: it has the name of an input or output.
        OutputError: there is no place to write it.
    """
    check_file(path)
    if any(place(path) in (place(job.source), place(job.target)) for job in jobs):
        raise UsageError(
            f"{path}: the report would replace a picture.", "Name it otherwise, e.g. report.json."
        )


def _identity(path: Location) -> Remote | tuple[int, int] | None:
    """What two names of the same file share (links, case); None if there is no file."""
    if isinstance(path, Remote):
        return path
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino


def for_films(settings: Settings) -> Settings:
    """The settings of films: on a CPU, model "auto" is the pair of small networks, and a message says so."""
    if settings.model != auto.AUTO or settings.backend == BICUBIC or registry.has_gpu(settings):
        return settings
    log.info(
        "auto, for films without a GPU: %s or %s, by what a film shows; --model mdsr is slower and better",
        *auto.models(auto.AUTO_FAST),
    )
    return replace(settings, model=auto.AUTO_FAST)


def first_factor(jobs: Sequence[Job], settings: Settings) -> float:
    """How much the first picture grows, so that the network loaded first is one that is used."""
    for job in () if settings.by_factor else jobs[:_LOOK_AT]:
        if isinstance(job.source, Remote):
            continue
        try:
            if job.film:
                from srcli.io.films.facts import probe  # PyAV comes with it

                facts = probe(job.source)
                source = facts.height, facts.width
            else:
                header = pictures.probe(job.source)
                source = header.height, header.width
            factor = settings.factor(source)
        except SrcliError:
            continue
        if factor > 1:
            return factor
    return settings.scale


class Upscale(Protocol):
    """Streams pictures through an engine; `srcli.Upscaler` is one."""

    @property
    def scales(self) -> tuple[int, ...]:
        """Of the networks at hand; empty where bicubic does everything."""

    @property
    def picture_memory(self) -> int:
        """Bytes that pictures on their way may take."""

    def network_memory(self, source: Size, target: Size) -> int:
        """Bytes that process and network take with an image of that size, whatever its pixels take."""

    def model_for(self, image: Pixels) -> str | Path:
        """The model that an image is enlarged with."""

    def leaves(self, source: Size, target: Size, model: str | Path) -> bool:
        """Whether there is nothing to do: the size is the image's own, and the model only enlarges."""

    def candidates(self, source: Size, target: Size) -> list[Computed]:
        """What may compute an image of that size, by what is known before it is decoded."""

    def stream(
        self, images: Iterable[Image | Wait], on_tile: Callable[[int, int, int], None]
    ) -> Generator[Result]:
        """Enlarge images in order."""


def left_alone(job: Job, source: Size, model: str | Path) -> PictureResult:
    """The result of a picture that has the size asked for, of which a clean network makes nothing better."""
    note = f"nothing to do: it has this size already, and {model} only enlarges ({auto.PHOTO} also cleans)"
    return PictureResult(job.source, job.target, Status.UNCHANGED, source, notes=(note,))


def done_already(job: Job, upscale: Upscale, settings: Settings) -> PictureResult | None:
    """What becomes of a picture whose output is to be left as it is; None where it is to be made.

    Raises:
        InputError: the input cannot be read.
        OutputError: the output is there, and it is damaged or other settings, another model or another input
            made it.
    """
    if not output_exists(job) or settings.overwrite:
        return None
    if settings.trust_names:
        return by_name(job)
    try:
        existing = provenance.read(job.output)
    except InputError as error:
        raise OutputError(
            f"{error.message} It is where the output goes.", "--overwrite replaces it."
        ) from error
    if existing is None:
        return PictureResult(job.source, job.target, Status.KEPT, notes=(LEFT_ALONE,))
    header = pictures.probe(job.input)
    source = header.height, header.width
    settings.factor(source)
    target = settings.output_size(source)
    # A model by name is also what auto may have chosen.
    computed, size = upscale.candidates(source, target), job.input.stat().st_size
    chosen = ("auto",) if len(computed) > 1 else ("by name", "auto")
    check_made_by(
        job, existing, [_wanted(job, size, one, settings, target, by) for one in computed for by in chosen]
    )
    return PictureResult(job.source, job.target, Status.SKIPPED)


def by_name(job: Job) -> PictureResult:
    """The result of an input whose output is there, where names are trusted."""
    return PictureResult(job.source, job.target, Status.SKIPPED)


def output_exists(job: Job) -> bool:
    """Whether a file is where the output goes.

    Raises:
        OutputError: a folder is, or no file can have its name.
    """
    if isinstance(job.target, Remote):
        return job.target.size is not None
    if is_folder(job.target):
        raise OutputError(
            f"{shown(job.target)} is a folder, where the output goes.", "Move it away, or use another -o."
        )
    return _is_there(job.target)


def _is_there(path: Path) -> bool:
    """Whether something has this name.

    Raises:
        OutputError: no file can have it.
    """
    folder = existing(path.parent)  # in one that is missing, no name is too long
    try:
        (folder / path.name).lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    except OSError as error:  # e.g. too long
        raise OutputError(
            f"{shown(path)}: no file can have this name ({error.strerror}).", "Shorten it, or use another -o."
        ) from error
    return folder == path.parent


def check_made_by(job: Job, existing: Provenance, wanted: Sequence[Provenance]) -> None:
    """Refuse an output that this run would not make as it is.

    Args:
        job: whose output it is.
        existing: its record.
        wanted: records that this run would write, without the input's checksum.

    Raises:
        OutputError: other settings, another model or another input made it.
    """
    (read, moved), (made, kept) = _times(job.source), _times(job.target)
    # The times of changes tell of `mv`, too. A result that has its input's date was made after both.
    dated = made == read and kept >= moved and isinstance(job.target, Path)
    older = not dated and made < max(read, moved)
    if isinstance(job.target, Remote):  # stores count seconds: of two times in one, either may be the later
        older = older or made == moved
    older = older or 0 in (read, made)  # a store that does not tell
    found, difference = provenance.finished(
        existing, wanted, older=older, input_sha256=lambda: provenance.file_sha256(job.input)
    )
    if found is Finished.OTHER:
        hint = "--overwrite replaces it; or choose another folder with -o."
        raise OutputError(f"{shown(job.target)} is there already: {difference}.", hint)


def _times(path: Location) -> tuple[int, int]:
    """When its content changed, and when it came to its place, in nanoseconds."""
    if isinstance(path, Remote):
        return path.modified, path.modified
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_ctime_ns


@dataclass(frozen=True, slots=True)
class Input:
    """An input file as it was decoded: bytes and SHA-256."""

    size: int
    sha256: str


@contextmanager
def unchanged(path: Path) -> Iterator[Input]:
    """In here, a file is read that must stay as it is; gives its size and SHA-256.

    Raises:
        InputError: it cannot be read, or another program changed it meanwhile.
    """
    with translated(path):
        before = path.stat()
    yield Input(before.st_size, provenance.file_sha256(path))
    with translated(path):
        after = path.stat()
    if any(getattr(before, name) != getattr(after, name) for name in ("st_ino", "st_size", "st_mtime_ns")):
        raise InputError(f"{shown(path)} changed while it was read.", "Run again when it is complete.")


def record(job: Job, given: Input, computed: Computed, settings: Settings, target: Size) -> Provenance:
    """What made an output, to be written into it."""
    chosen = "auto" if auto.chooses(settings.model) and computed.scales else "by name"
    return replace(_wanted(job, given.size, computed, settings, target, chosen), input_sha256=given.sha256)


def _wanted(
    job: Job, input_size: int, computed: Computed, settings: Settings, target: Size, chosen: str
) -> Provenance:
    """The record that this run would write, its input's checksum left out."""
    written = pictures.format_of(job.target.name)
    resolved: dict[str, provenance.Setting] = {
        "size": target[::-1],
        "scales": computed.scales,
        "precision": computed.precision,
        "ensemble": settings.ensemble,
        "halo": "measured" if settings.halo is None else settings.halo,
        "model chosen": chosen,
        "format": written,
        "quality": settings.quality if written in _LOSSY else None,
        **({"dpi": "kept"} if settings.keep_dpi else {}),
    }
    model = provenance.model_sha256(computed.files) if computed.files else ""
    return Provenance(__version__, computed.model, model, resolved, input_size)
