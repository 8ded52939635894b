"""What every benchmark shares: who measured, and results that say how they were made."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from srcli.backends.devices import ask, processor

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("numpy", "opencv-python-headless", "torch", "openvino", "onnxruntime", "srcli")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was measured; `load` is the one-minute load average before the first measurement."""

    cpu: str
    cores: int
    features: tuple[str, ...]
    memory_gb: float
    system: str
    load: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Repetitions of one measurement."""

    median: float
    lowest: float
    highest: float
    repetitions: int

    @property
    def percent(self) -> float:
        """Highest minus lowest in percent of the median."""
        return 100 * (self.highest - self.lowest) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """One experiment.

    Attributes:
        name: its key in the results file.
        title: heading.
        method: how it was measured, in a sentence or two.
        tables: for people.
        measurements: for programs; anything JSON can hold.
    """

    name: str
    title: str
    method: str
    tables: tuple[Table, ...]
    measurements: dict[str, Any] = field(default_factory=dict)


def machine() -> Machine:
    """This machine, by what Linux and the NVIDIA driver say about it."""
    cpu = processor()
    return Machine(
        cpu=cpu.name,
        cores=cpu.cores,
        features=cpu.features,
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        system=", ".join([f"{platform.system()} {platform.machine()}", *(gpu.name for gpu in ask().gpus)]),
        load=round(os.getloadavg()[0], 2),
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that do the work; absent ones are left out."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def command_line(arguments: Sequence[str]) -> str:
    """The command that repeats this run; of absolute paths only the last part is kept."""
    script = f"benchmarks/{Path(sys.argv[0]).name}"
    shown = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    return shlex.join(["python", script, *shown])


def spread(values: Sequence[float]) -> Spread:
    """Median and range."""
    return Spread(median(values), min(values), max(values), len(values))


def ratio(one: Sequence[float], other: Sequence[float]) -> Spread:
    """Of two interleaved series: the ratios of values taken in the same round."""
    return spread([a / b for a, b in zip(one, other, strict=True)])


def publish(out: Path, section: Section, arguments: Sequence[str], before: Machine) -> None:
    """Put a section into `out` (JSON; other sections stay) and write the same as Markdown beside it.

    Args:
        out: the results file.
        section: what was measured.
        arguments: of the command line that measured it.
        before: the machine as it was when the measurement began.
    """
    content = json.loads(out.read_text()) if out.is_file() else {}
    content[section.name] = {
        **asdict(section),
        "command": command_line(arguments),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": asdict(before),
        "versions": versions(),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(content, indent=2) + "\n")
    text = "\n\n".join(markdown(entry) for entry in content.values())
    out.with_suffix(".md").write_text(f"# {out.stem}\n\n{text}\n")
    print(markdown(content[section.name]), flush=True)


def markdown(entry: Mapping[str, Any]) -> str:
    """A section of a results file as Markdown, with all that is needed to repeat it."""
    m = entry["machine"]
    made = ", ".join(f"{name} {number}" for name, number in entry["versions"].items())
    facts = f"{m['cpu']}, {m['cores']} cores ({', '.join(m['features'])}), {m['memory_gb']} GB, {m['system']}"
    lines = [f"## {entry['title']}", "", entry["method"], ""]
    for table in entry["tables"]:
        lines += [*([table["caption"], ""] if table["caption"] else []), *_table_lines(table), ""]
    lines += [f"`{entry['command']}` · {entry['date']} · load before {m['load']}  ", f"{facts}  ", made]
    return "\n".join(lines)


def _table_lines(table: Mapping[str, Any]) -> list[str]:
    rule = ["---"] * len(table["header"])
    return [f"| {' | '.join(cells)} |" for cells in (table["header"], rule, *table["rows"])]
