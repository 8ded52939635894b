"""The fenced blocks of the documentation, and the commands that a shell makes of them."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "examples" / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_PROGRAMS = (
    *("srcli", "python", "torchrun", "pip", "pytest"),
    *("tensorboard", "mkdocs", "ruff", "mypy", "lint-imports"),
    *("ffmpeg", "mpv", "x265"),
    *("sbatch", "parallel", "ray"),
)
_SCRIPTS = (".ci/run", *(f"benchmarks/gpu/{path.name}" for path in (ROOT / "benchmarks/gpu").glob("*.sh")))
_STUB = """#!/bin/bash
printf '%s\\0' "$LINE" "$#" "{name}" "$@" >> "$RECORD"
"""
_NOT_RUN = "not run"
_EXIT_CODE = re.compile(r"exit code (\d+)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the number of its first line, language and text."""

    page: Path
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command as the shell calls it.

    Attributes:
        argv: the program and its arguments.
        line: of the block, with its comment.
        run: False where the documentation marks it as not run.
        code: the exit code that the documentation states.
    """

    argv: tuple[str, ...]
    line: str
    run: bool
    code: int


def blocks(page: Path, language: str) -> Iterator[Block]:
    """The fenced blocks of a page in a language."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w+)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if match[1] == language:
            yield Block(page, text.count("\n", 0, match.start()) + 2, language, match[2])


def inline_commands(page: Path) -> Iterator[tuple[str, ...]]:
    """Commands inside sentences, where more than the name of the command stands there."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`((?:srcli|python) [^`]+)`", prose):
        if re.search(r" -", code):
            yield tuple(code.split())


def commands(block: Block, folder: Path) -> list[Command]:
    """What bash calls when it runs the block; programs are stubs that write down their arguments.

    Args:
        block: in the language "sh".
        folder: an empty one for the stubs.
    """
    lines, script = _logical_lines(block.text), ["set -euo pipefail"]
    for number, line in enumerate(lines):
        script += [f"export LINE={number}", line]
    stubs, record = _write_stubs(folder), folder / "record"
    record.touch()
    environment = {"PATH": str(stubs), "RECORD": str(record), "HOME": os.environ.get("HOME", "")}
    environment["SLURM_ARRAY_TASK_ID"] = "1"
    done = subprocess.run(
        ["/bin/bash", "-c", "\n".join(script)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{block.page.name}:{block.line}: {done.stderr}"
    return [_command(lines, number, argv) for number, argv in _recorded(record.read_bytes())]


def _logical_lines(text: str) -> list[str]:
    """Lines with those that continue them."""
    lines: list[str] = []
    for line in text.splitlines():
        if lines and lines[-1].endswith("\\"):
            lines[-1] += "\n" + line
        else:
            lines.append(line)
    return lines


def _write_stubs(folder: Path) -> Path:
    stubs = folder / "stubs"
    for path in (*(stubs / name for name in _PROGRAMS), *(folder / name for name in _SCRIPTS)):
        path.parent.mkdir(parents=True, exist_ok=True)
        name = path.name if path.parent == stubs else path.relative_to(folder)
        path.write_text(_STUB.format(name=name))
        path.chmod(0o755)
    return stubs


def _recorded(record: bytes) -> Iterator[tuple[int, tuple[str, ...]]]:
    parts = iter(record.decode().split("\0")[:-1])
    for number in parts:
        count = int(next(parts))
        yield int(number), tuple(next(parts) for _ in range(count + 1))


def _command(lines: list[str], number: int, argv: tuple[str, ...]) -> Command:
    line = lines[number]
    whole = any(_NOT_RUN in above for above in lines[:number] if above.lstrip().startswith("#"))
    code = _EXIT_CODE.search(line)
    return Command(argv, line, not whole and _NOT_RUN not in line, int(code[1]) if code else 0)
