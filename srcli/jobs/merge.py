"""The JSON reports of all shards of one run as one; a million results take little memory."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from tempfile import TemporaryFile
from textwrap import indent
from typing import IO, Any

from srcli.errors import ExitCode, InputError, OutputError, UsageError, shown
from srcli.io.storage import write_whole
from srcli.jobs.report import SCHEMA, Status

_ENGINE = ("model", "backend", "device", "precision")
_SAME = ("schema", "version")
_NAMED = 20
"""Missing shards that are named at most."""


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

    shards: dict[str, Path] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, dict[str, None]] = field(default_factory=lambda: {name: {} for name in _ENGINE})
    reasons: dict[str, None] = field(default_factory=dict)
    notes: dict[str, None] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False
    disk_full: bool = False

    def add(self, path: Path, report: dict[str, Any]) -> None:
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
        self.first = self.first or {**report, "pictures": None}
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


def merge(parts: Sequence[Path], out: Path) -> Merged:
    """Join the reports of the shards of one run to one report, in the order that one run has.

    Counts and seconds are summed. What all shards could not try, such as a folder that cannot be listed, is
    there once. Results wait for their place in a temporary file.

    Args:
        parts: JSON reports, each of another shard.
        out: where the joined report goes.

    Raises:
        InputError: a part cannot be read, or is no report.
        UsageError: the parts are not of one run, or `out` is one of them.
        OutputError: the joined report cannot be written.
    """
    if any(part.resolve() == out.resolve() for part in parts):
        raise UsageError(f"{shown(out)} is one of the reports to merge.", "Choose another name with -o.")
    heads, merged, problems = _Heads(), Merged(), set[str]()
    places: list[tuple[str, int, int]] = []
    try:
        with TemporaryFile() as spool:
            for part in parts:
                report = _read(part)
                heads.add(part, report)
                for picture in report["pictures"]:
                    text = indent(json.dumps(picture, indent=2), "    ").encode("ascii")
                    if picture["output"] is None:
                        if (about := f"{picture['input']}\0{picture['error']}") in problems:
                            continue
                        problems.add(about)
                    merged.counts[picture["status"]] += 1
                    places.append((_order(picture), spool.tell(), len(text)))
                    spool.write(text)
            places.sort()
            merged.missing, merged.interrupted = heads.missing(), heads.interrupted
            head = json.dumps(heads.to_json(merged.counts), indent=2).removesuffix("\n}")
            out.parent.mkdir(parents=True, exist_ok=True)
            write_whole(out, _text(head, places, spool))
    except OSError as error:
        raise OutputError(
            f"{shown(out)}: the report cannot be written ({error.strerror}).", "Choose another place."
        ) from error
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read ({error.strerror}).", "Check the name.") from error
    except ValueError as error:
        raise InputError(f"{shown(path)} is no JSON report: {error}.", "Write it with --report.") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA or "shard" not in report:
        schema = report.get("schema") if isinstance(report, dict) else None
        raise InputError(
            f"{shown(path)} is no report that this version of srcli joins (schema {schema}).",
            f"It joins {SCHEMA} of `srcli upscale --shard ... --report`.",
        )
    return report


def _parts(shard: str) -> tuple[int, int]:
    number, _, count = shard.partition("/")
    return int(number), int(count)


def _order(picture: dict[str, Any]) -> str:
    """Sorts as a run goes: what could not be tried, then the files of a folder, then the folders in it."""
    if picture["output"] is None:
        return f"\0{picture['input']}"
    *folders, name = PurePath(picture["input"]).parts
    return "".join(f"\2{folder}" for folder in folders) + f"\1{name}"


def _text(head: str, places: Iterable[tuple[str, int, int]], spool: IO[bytes]) -> Iterator[bytes]:
    """The file of the report, a picture at a time."""
    yield head.encode("ascii") + b',\n  "pictures": ['
    before = b"\n"
    for _, offset, length in places:
        spool.seek(offset)
        yield before + spool.read(length)
        before = b",\n"
    yield (b"]" if before == b"\n" else b"\n  ]") + b"\n}\n"
