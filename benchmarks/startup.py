"""What a user waits for before the first picture, and the memory it takes."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pictures
from common import Section, Table, spread
from processes import Taken, srcli
from processes import measure as measure_command
from srcli.benchmark.rounds import interleave


def measure(options: argparse.Namespace) -> Section:
    """Commands in turns, each in a fresh process."""
    with TemporaryDirectory() as scratch:
        commands = _commands(options, Path(scratch))
        taken: dict[str, list[Taken]] = {name: [] for name in commands}
        runs = {name: _recorded(command, taken[name]) for name, command in commands.items()}
        interleave(runs, options.starts, warmup=1)
    taken = {name: values[1:] for name, values in taken.items()}  # the first round warmed up
    return Section(
        "startup",
        "Start-up",
        f"Whole commands from the shell, {options.starts} runs each in turns after one that fills the file "
        "cache; memory is the peak resident set of the process.",
        (_table(taken),),
        {name: [asdict(value) for value in values] for name, values in taken.items()},
    )


def _commands(options: argparse.Namespace, scratch: Path) -> dict[str, list[str]]:
    """By the name they get in the table."""
    model, scale = options.models[0], str(options.scale)
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        'python -c "import srcli"': [sys.executable, "-c", "import srcli"],
        "srcli --help": srcli("--help"),
    }
    for side in options.sides:
        picture = scratch / f"{side}.png"
        pictures.save(pictures.photograph(side, side), picture)
        work = srcli("upscale", str(picture), "-s", scale, "--model", model, "--overwrite", "--quiet")
        commands[f"srcli upscale, {side}×{side}"] = [*work, "-o", str(scratch / f"out-{side}")]
    return commands


def _recorded(command: list[str], taken: list[Taken]) -> Callable[[], float]:
    def run() -> float:
        taken.append(measure_command(command))
        return taken[-1].seconds

    return run


def _table(taken: dict[str, list[Taken]]) -> Table:
    rows = []
    for name, values in taken.items():
        seconds, peak = spread([v.seconds for v in values]), spread([v.peak / 1e6 for v in values])
        limits = f"{seconds.lowest:.2f} – {seconds.highest:.2f}"
        rows.append((name, f"{seconds.median:.2f}", limits, f"{peak.median:.0f}"))
    return Table(("command", "seconds", "range", "MB"), tuple(rows))
