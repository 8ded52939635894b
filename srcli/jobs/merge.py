"""The reports of all shards of one run as one, JSON or JSON Lines; a million results take little memory."""

import json
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory, TemporaryFile
from textwrap import indent
from typing import IO, Any

from srcli.errors import ExitCode, InputError, OutputError, UsageError, shown
from srcli.io import remote
from srcli.io.remote import Location, Remote, is_url
from srcli.jobs.inputs import expand
from srcli.jobs.report import SCHEMA, Status, is_lines, write_pieces

_ENGINE = ("model", "backend", "device", "precision")
_SAME = ("schema", "version")
_NAMED = 20
"""Missing shards that are named at most."""
_FETCHES = 8
"""Reports that come from buckets at once."""


@dataclass(slots=True)
class Merged:
    """What joined reports came to.

    Attributes:
        counts: status -> number of pictures and films.
        missing: texts of the shards of which there is no report.
        interrupted: whether any shard was.
    """

    counts: Counter[str] = field(default_factory=Counter)
    missing: list[str] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """That of one run over all; a shard that is missing counts as failed."""
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.FAILED if self.missing or self.counts[Status.FAILED] else ExitCode.OK

    @property
    def missing_text(self) -> str:
        """ "2/16, 7/16"; of many the first ones."""
        more = len(self.missing) - _NAMED
        return ", ".join(self.missing[:_NAMED]) + (f" and {more} more" if more > 0 else "")


@dataclass(slots=True)
class _Heads:
    """What the reports say of their runs, gathered one report after the other."""

    shards: dict[str, Location] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, dict[str, None]] = field(default_factory=lambda: {name: {} for name in _ENGINE})
    reasons: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False
    disk_full: bool = False

    def add(self, path: Location, report: dict[str, Any]) -> None:
        """Take in one report.

        Raises:
            UsageError: it does not belong to the same run as those before, or is there twice.
        """
        shard = report["shard"]
        if shard is None:
            raise UsageError(f"{shown(path)} is no report of a shard.", "Merge what --shard runs reported.")
        if shard in self.shards:
            raise UsageError(
                f"{shown(path)} and {shown(self.shards[shard])} both report shard {shard}.",
                "Keep the later one.",
            )
        self.first = self.first or report
        before = next(iter(self.shards.values()), path)
        for name in _SAME:
            if report[name] != self.first[name]:
                raise UsageError(
                    f"{shown(path)} has the {name} {report[name]}, {shown(before)} {self.first[name]}.",
                    "Make all shards by one version of srcli.",
                )
        if _parts(shard)[1] != _parts(self.first["shard"])[1]:
            raise UsageError(
                f"{shown(path)} is of shard {shard}, {shown(before)} of {self.first['shard']}.",
                "Merge the shards of one run.",
            )
        self.shards[shard] = path
        for name in _ENGINE:
            if report["engine"][name]:  # a shard without files loads none
                self.engine[name][report["engine"][name]] = None
        self.reasons |= dict.fromkeys([report["reason"]] if report["reason"] else [])
        self.notes |= dict.fromkeys(report["notes"])
        self.seconds += report["seconds"]
        self.interrupted |= report["interrupted"]
        self.disk_full |= report["disk_full"]

    def missing(self) -> list[str]:
        """The shards that have no report, in order."""
        count = _parts(self.first["shard"])[1]
        every = (f"{number}/{count}" for number in range(1, count + 1))
        return [shard for shard in every if shard not in self.shards]

    def to_json(self, counts: Counter[str]) -> dict[str, object]:
        """The joined report up to its pictures."""
        return {
            **{name: self.first[name] for name in _SAME},
            "shard": None,
            "engine": {name: ", ".join(found) for name, found in self.engine.items()},
            "reason": "; ".join(self.reasons),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "disk_full": self.disk_full,
            "counts": {status.value: counts[status.value] for status in Status},
        }


def expanded(names: Sequence[str]) -> list[Location]:
    """The reports that paths, URLs and patterns of both name.

    Raises:
        InputError: a pattern names nothing, or its bucket cannot be listed.
    """
    found = list[Location]()
    for here in chain.from_iterable(map(expand, names)):
        if isinstance(here, Path) or not remote.is_pattern(here) or remote.exists(here):
            found.append(here)
            continue
        matched = [one for one in remote.matches(here) if one.size is not None]
        if not matched:
            raise InputError(f"{shown(here)}: cannot be read.", "No file matches this pattern.")
        found += matched
    return found


def merge(parts: Sequence[Location], out: Location) -> Merged:
    """Join the reports of the shards of one run to one report, in the order that one run has.

    Counts and seconds are summed. What all shards could not try, such as a folder that cannot be listed, is
    there once. Results wait for their place in a temporary file.

    Args:
        parts: reports, JSON or JSON Lines, each of another shard.
        out: where the joined report goes; it is JSON Lines if its name ends in ".jsonl".

    Raises:
        InputError: a part cannot be read, or is no report.
        UsageError: the parts are not of one run, or `out` is one of them.
        OutputError: the joined report cannot be written.
    """
    if any(_real(part) == _real(out) for part in parts):
        raise UsageError(f"{shown(out)} is one of the reports to merge.", "Choose another name with -o.")
    if isinstance(out, Remote):
        remote.check_output(out)
    heads, merged, problems = _Heads(), Merged(), set[str]()
    places: list[tuple[str, int, int]] = []
    as_lines = is_lines(out)
    try:
        with TemporaryFile() as spool, closing(_local(parts)) as files:
            for part, file in files:
                with _translated(part):
                    head, pictures = _read(part, file)
                    heads.add(part, head)
                    for picture in pictures:
                        if picture["output"] is None:
                            if (about := f"{picture['input']}\0{picture['error']}") in problems:
                                continue
                            problems.add(about)
                        text = _as_text(picture, as_lines).encode("ascii")
                        merged.counts[Status(picture["status"])] += 1
                        places.append((_order(picture), spool.tell(), len(text)))
                        spool.write(text)
            places.sort()
            merged.missing, merged.interrupted = heads.missing(), heads.interrupted
            whole, results = heads.to_json(merged.counts), _spooled(places, spool)
            write_pieces(out, _lines(whole, results) if as_lines else _text(whole, results))
    except OSError as error:
        raise OutputError(
            f"{shown(out)}: the report cannot be written ({error.strerror}).", "Choose another place."
        ) from error
    return merged


def _as_text(picture: dict[str, Any], as_lines: bool) -> str:
    return json.dumps(picture) if as_lines else indent(json.dumps(picture, indent=2), "    ")


@contextmanager
def _translated(path: Location) -> Iterator[None]:
    """Turn the errors that a damaged report causes into one that names the file."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{shown(path)}: no report of srcli, or damaged ({type(error).__name__}: {error}).",
            "Run that shard again.",
        ) from error


def _real(path: Location) -> Location:
    if isinstance(path, Path):
        return path.resolve()
    return replace(path, protocol={"s3a": "s3", "gcs": "gs"}.get(path.protocol, path.protocol))


def _local(parts: Sequence[Location]) -> Generator[tuple[Location, Path]]:
    """Each report and its file on this machine. Those behind URLs are fetched a few ahead."""
    coming = deque[tuple[Location, Path, Future[None] | None]]()
    left = enumerate(parts)
    with TemporaryDirectory(prefix="srcli-") as scratch, ThreadPoolExecutor(_FETCHES) as pool:
        try:
            while True:
                for number, part in islice(left, _FETCHES - len(coming)):
                    file = Path(scratch, f"{number}") if isinstance(part, Remote) else part
                    fetch = pool.submit(remote.fetch, part, file) if isinstance(part, Remote) else None
                    coming.append((part, file, fetch))
                if not coming:
                    return
                part, file, fetch = coming.popleft()
                if fetch is not None:
                    fetch.result()
                yield part, file
                if fetch is not None:
                    file.unlink()
        finally:
            pool.shutdown(cancel_futures=True)


def _read(path: Location, file: Path) -> tuple[dict[str, Any], Iterable[dict[str, Any]]]:
    """A report's head, and its results: of JSON Lines as they are read.

    Args:
        path: for messages.
        file: where it is on this machine.
    """
    try:
        with file.open("rb") as lines:
            head = _lines_head(lines.readline())
        pictures = None if head is None else _pictures(path, file, sum(head["counts"].values()))
        report = json.loads(file.read_bytes()) if head is None else head
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise InputError(f"{shown(path)} is no JSON report: {error}.", "Write it with --report.") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA or "shard" not in report:
        schema = report.get("schema") if isinstance(report, dict) else None
        raise InputError(
            f"{shown(path)} is no report that this version of srcli joins (schema {schema}).",
            f"It joins {SCHEMA} of `srcli upscale --shard ... --report`.",
        )
    return report, report.pop("pictures") if pictures is None else pictures


def _lines_head(line: bytes) -> dict[str, Any] | None:
    """The first line of JSON Lines; None: the file is something else."""
    try:
        head = json.loads(line)
    except ValueError:
        return None
    return head if isinstance(head, dict) and "counts" in head and "pictures" not in head else None


def _pictures(path: Location, file: Path, expected: int) -> Iterator[dict[str, Any]]:
    """The results of JSON Lines, one at a time.

    Raises:
        InputError: they cannot be read, or are fewer than `expected`.
    """
    number = 0
    try:
        with file.open("rb") as lines:
            next(lines)
            for line in lines:
                yield json.loads(line)
                number += 1
    except OSError as error:
        raise _unreadable(path, error) from error
    except ValueError as error:
        raise InputError(f"{shown(path)}, line {number + 2}: {error}.", "Is it a whole copy?") from error
    if number != expected:
        raise InputError(f"{shown(path)} has {number} of {expected} results.", "Take a whole copy.")


def _unreadable(path: Location, error: OSError) -> InputError:
    return InputError(f"{shown(path)}: cannot be read ({error.strerror}).", "Check the name.")


def _parts(shard: str) -> tuple[int, int]:
    number, _, count = shard.partition("/")
    return int(number), int(count)


def _order(picture: dict[str, Any]) -> str:
    """Sorts as a run goes: what could not be tried, then the files of a folder, then the folders in it;
    behind URLs, by name alone."""
    if picture["output"] is None:
        return f"\0{picture['input']}"
    if is_url(picture["input"]):
        return f"\1{picture['input']}"
    *folders, name = PurePath(picture["input"]).parts
    return "".join(f"\2{folder}" for folder in folders) + f"\1{name}"


def _spooled(places: Iterable[tuple[str, int, int]], spool: IO[bytes]) -> Iterator[bytes]:
    for _, offset, length in places:
        spool.seek(offset)
        yield spool.read(length)


def _text(head: dict[str, object], pictures: Iterable[bytes]) -> Iterator[bytes]:
    """The file of the report, a picture at a time."""
    yield json.dumps(head, indent=2).removesuffix("\n}").encode("ascii") + b',\n  "pictures": ['
    before = b"\n"
    for picture in pictures:
        yield before + picture
        before = b",\n"
    yield (b"]" if before == b"\n" else b"\n  ]") + b"\n}\n"


def _lines(head: dict[str, object], pictures: Iterable[bytes]) -> Iterator[bytes]:
    """The same as JSON Lines."""
    yield json.dumps(head).encode("ascii") + b"\n"
    for picture in pictures:
        yield picture + b"\n"
