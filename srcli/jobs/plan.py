"""A run before it starts: what to read, where to write, and everything that must not begin."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from srcli.errors import OutputError, SrcliError, UsageError
from srcli.io import pictures
from srcli.io.pictures import READ_ONLY_SUFFIXES, SUFFIXES
from srcli.io.storage import check_takes_files
from srcli.jobs.inputs import Problem, discover, is_folder, place
from srcli.jobs.names import Job, name_outputs
from srcli.jobs.sizes import SizeRequest

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
    """

    jobs: tuple[Job, ...]
    out: Path
    problems: tuple[Problem, ...] = ()
    left_out: Path | None = None
    passed_by: tuple[Path, ...] = ()
    unread: tuple[tuple[str, int], ...] = ()


def plan(inputs: Sequence[str], out: Path, *, recursive: bool = False, format: str | None = None) -> Plan:  # noqa: A002
    """Find the pictures that the inputs name, and give each an output.

    Args:
        inputs: files, folders and glob patterns.
        out: output folder; for one input file also the output file, if it has a picture's suffix.
        recursive: also search the folders in folders, and those that links in them lead to.
        format: "png", "jpg", ...: makes all outputs that; None keeps the format of each input.

    Raises:
        UsageError: an output would overwrite an input, or the format is not known.
        OutputError: the outputs cannot be written where they should go.
    """
    wanted = None if format is None else _format(format)
    if out.suffix.lower() in SUFFIXES and not is_folder(out):
        return _plan_file(inputs, out, wanted)
    if out.suffix.lower() in READ_ONLY_SUFFIXES and not is_folder(out):
        raise UsageError(f"{out}: this format can be read, not written.", f"Name it {out.stem}.png.")
    check_folder(inputs, out)
    found = discover(inputs, out, recursive=recursive)
    jobs = name_outputs(found.pictures, out, wanted)
    check_targets(jobs)
    problems, unread = tuple(found.problems), tuple(sorted(found.unread.items()))
    return Plan(tuple(jobs), out, problems, found.left_out, tuple(found.passed_by), unread)


def _format(name: str) -> str:
    """The format behind "jpg", ".jpg" or "JPEG"."""
    known = SUFFIXES.get(f".{name.lower().lstrip('.')}")
    if known is None:
        listing = ", ".join(dict.fromkeys(SUFFIXES.values()))
        raise UsageError(f"Format {name!r} cannot be written.", f"Choose from {listing}.")
    return known


def _plan_file(inputs: Sequence[str], out: Path, format: str | None) -> Plan:  # noqa: A002
    """`-o large.png`: one picture with a name of its own."""
    if format not in (None, SUFFIXES[out.suffix.lower()]):
        raise UsageError(f"{out} is not named like the format {format}.", "Leave out --format.")
    found = discover(inputs, out, recursive=False)
    if len(inputs) > 1 or len(found.pictures) > 1 or is_folder(Path(inputs[0])):
        raise UsageError(f"{out} is one picture's name, but there may be more.", "Name a folder with -o.")
    check_file(out)
    jobs = tuple(Job(picture.path, out) for picture in found.pictures)
    check_targets(jobs)
    return Plan(jobs, out, tuple(found.problems))


def check_folder(inputs: Sequence[str], out: Path) -> None:
    """Refuse an output folder that is an input folder, or that cannot be made or written.

    Raises:
        UsageError: `out` is one of the input folders.
        OutputError: a file is in the way, or the folder is not writable.
    """
    for name in inputs:
        if is_folder(Path(name)) and os.path.realpath(name) == os.path.realpath(out):
            raise UsageError(f"{out}: the output folder is also an input.", "Name another one with -o.")
    check_takes_files(out, out)


def check_file(path: Path) -> None:
    """Refuse a file that cannot be written for want of a folder.

    Raises:
        OutputError: a file or folder is in the way, or the folder is not writable.
    """
    if is_folder(path):
        raise OutputError(f"{path}: is a folder.", "Name a file.")
    check_takes_files(path.parent, path)
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:  # e.g. too long
        raise OutputError(f"{path}: no file can have this name ({error.strerror}).", "Shorten it.") from error


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


def check_report(path: Path, jobs: Sequence[Job]) -> None:
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


def _identity(path: Path) -> tuple[int, int] | None:
    """What two names of the same file share (links, case); None if there is no file."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino


def first_factor(jobs: Sequence[Job], size: SizeRequest) -> float:
    """How much the first picture grows, so that the network loaded first is one that is used."""
    for job in () if size.by_factor else jobs[:_LOOK_AT]:
        try:
            header = pictures.probe(job.source)
            factor = size.factor((header.height, header.width))
        except SrcliError:
            continue
        if factor > 1:
            return factor
    return size.scale
