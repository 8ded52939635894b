"""What every script shares: results files whose sections say how they were made."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from srcli.benchmark.report import Machine, markdown_table, now, versions, write
from srcli.benchmark.report import here as machine
from srcli.benchmark.rounds import Spread, ratio

__all__ = [
    "RESULTS",
    "Machine",
    "Section",
    "Spread",
    "Table",
    "command_line",
    "machine",
    "markdown",
    "publish",
    "ratio",
    "spread",
]

RESULTS = Path(__file__).parent / "results"
spread = Spread.of


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


def command_line(arguments: Sequence[str]) -> str:
    """The command that repeats this run; of absolute paths only the last part is kept."""
    script = f"benchmarks/{Path(sys.argv[0]).name}"
    shown = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    return shlex.join(["python", script, *shown])


def publish(out: Path, section: Section, arguments: Sequence[str], before: Machine) -> None:
    """Put a section into `out` (JSON; other sections stay), the same as Markdown beside it, and print it.

    Args:
        out: the results file.
        section: what was measured.
        arguments: of the command line that measured it.
        before: the machine as it was when the measurement began.

    Raises:
        OutputError: a file cannot be written.
    """
    content = json.loads(out.read_text()) if out.is_file() else {}
    content[section.name] = {
        **asdict(section),
        "command": command_line(arguments),
        "date": now(),
        "machine": asdict(before),
        "versions": versions(),
    }
    write(out, json.dumps(content, indent=2) + "\n")
    text = "\n\n".join(markdown(entry) for entry in content.values())
    write(out.with_suffix(".md"), f"# {out.stem}\n\n{text}\n")
    print(markdown(content[section.name]), flush=True)


def markdown(entry: Mapping[str, Any]) -> str:
    """A section of a results file as Markdown, with all that is needed to repeat it."""
    made = ", ".join(f"{name} {number}" for name, number in entry["versions"].items())
    lines = [f"## {entry['title']}", "", entry["method"], ""]
    for table in entry["tables"]:
        caption = [table["caption"], ""] if table["caption"] else []
        lines += [*caption, *markdown_table(table["header"], table["rows"]), ""]
    load = entry["machine"]["load"]
    lines += [f"`{entry['command']}` · {entry['date']} · load before {load}  "]
    return "\n".join([*lines, f"{_facts(entry['machine'])}  ", made])


def _facts(m: Mapping[str, Any]) -> str:
    """A machine in one line; older results give its memory as `memory_gb`."""
    memory = m["memory_gb"] if "memory_gb" in m else round((m["memory"] or 0) / 1e9, 1)
    parts = [f"{m['cpu']}, {m['cores']} cores ({', '.join(m['features'])}), {memory} GB, {m['system']}"]
    return ", ".join([*parts, *m.get("gpus", ())])
