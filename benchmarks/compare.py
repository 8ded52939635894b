"""Two checkouts of srcli against each other: the same commands in turns, time and memory of each process.

python benchmarks/compare.py BEFORE AFTER                  all cases; writes results/compare.{json,md}
python benchmarks/compare.py BEFORE AFTER --only help,single --rounds 10

Only the command line of the two is used, each from the source in its folder, with the same Python.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pictures
from common import RESULTS, Section, Spread, Table, machine, publish, ratio, spread
from srcli.benchmark.rounds import Attempts, Taken, command, keeping, measure

CASES = {
    "folder": "a folder of {folder} photographs of 0.05 to 0.25 MP",
    "single": "a 64×64 picture",
    "help": "`srcli --help`",
    "large": "one photograph of {large[1]}×{large[0]}",
    "small": "a folder of {small} pictures of 96×96",
}
"""By name, as `--only` takes them: what is enlarged."""

Pair = dict[str, list[Taken]]
"""Runs of one case by checkout: "before" and "after"."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """The source of srcli in a folder."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that imports srcli, srcli_train and srcli_export from this folder."""
        places = [self.folder, self.folder / "train", self.folder / "export"]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}

    @property
    def name(self) -> str:
        """Its folder's name, with the commit where git knows it and a + where files differ from it."""
        done = subprocess.run(
            ["git", "-C", str(self.folder), "describe", "--always", "--dirty=+"],
            capture_output=True,
            text=True,
        )
        commit = done.stdout.strip() if not done.returncode else ""
        return f"{self.folder.name} ({commit})" if commit else self.folder.name

    def check(self) -> None:
        """Make sure that Python finds srcli here.

        Raises:
            SystemExit: it does not.
        """
        code = "import srcli; print(srcli.__file__)"
        words = [sys.executable, "-P", "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, env=self.environment)
        found = Path(done.stdout.strip()).resolve() if not done.returncode else Path()
        if self.folder.resolve() not in found.parents:
            raise SystemExit(f"{self.folder}: no checkout of srcli that this Python can import.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish.

    Raises:
        SystemExit: a folder holds no checkout, or a case failed; the others are published.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options, before = _parse(given), machine()
    checkouts = {"before": Checkout(options.before.resolve()), "after": Checkout(options.after.resolve())}
    for checkout in checkouts.values():
        checkout.check()
    attempts = Attempts[str]()
    with TemporaryDirectory() as scratch:
        inputs = _inputs(options, Path(scratch))
        for name, checkout in checkouts.items():  # compiles Python's files, fills the file cache
            attempts.of(f"warm-up, {name}", partial(_run, checkout, options, inputs["single"]))
        taken = {name: compare(name, checkouts, options, inputs[name], attempts) for name in options.only}
    publish(options.out, _section(taken, checkouts, options), given, before)
    if attempts.problems:
        raise SystemExit("; ".join(f"{case}: {why}" for case, why in attempts.problems.items()))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("before", type=Path, help="folder of a checkout")
    add("after", type=Path, help="folder of another")
    add("--rounds", type=int, default=3, help="runs of each command and checkout, in turns")
    add("--only", type=_names, default=list(CASES), help=f"of {','.join(CASES)}")
    add("--model", default="mdsr")
    add("--scale", type=int, default=4)
    add("--folder", type=int, default=20, help="photographs of the folder")
    add("--large", nargs=2, type=int, default=[3000, 4000], metavar=("HEIGHT", "WIDTH"))
    add("--small", type=int, default=500, help="pictures of 96×96")
    add("--out", type=Path, default=RESULTS / "compare.json")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in CASES]:
        raise argparse.ArgumentTypeError(f"no case {unknown[0]!r}: {','.join(CASES)}")
    return names


def _inputs(options: argparse.Namespace, scratch: Path) -> dict[str, Path | None]:
    """What each case enlarges; None: nothing. Only those of `--only` are written, and the single picture."""
    made = {name: scratch / name for name in CASES}
    for folder in made.values():
        folder.mkdir()
    pictures.save(pictures.photograph(64, 64), made["single"] / "single.png")
    if "folder" in options.only:
        pictures.folder(made["folder"], options.folder, 0.05, 0.25)
    if "large" in options.only:
        pictures.save(pictures.photograph(*options.large), made["large"] / "large.jpg", 92)
    if "small" in options.only:
        for number in range(options.small):
            pictures.save(pictures.photograph(96, 96, number), made["small"] / f"{number:03}.png")
    return {
        **made,
        "single": made["single"] / "single.png",
        "large": made["large"] / "large.jpg",
        "help": None,
    }


def compare(
    name: str,
    checkouts: Mapping[str, Checkout],
    options: argparse.Namespace,
    source: Path | None,
    attempts: Attempts[str],
) -> Pair:
    """One case on both checkouts in turns; empty where one of them fails, which `attempts` keeps."""
    taken: Pair = {side: [] for side in checkouts}
    keys = {side: f"{name}, {side}" for side in checkouts}
    runs: dict[str, Callable[[], float]] = {
        keys[side]: keeping(partial(_run, checkout, options, source), taken[side])
        for side, checkout in checkouts.items()
    }
    done = attempts.interleave(runs, options.rounds, warmup=0)
    return taken if len(done) == len(checkouts) else {}


def _run(checkout: Checkout, options: argparse.Namespace, source: Path | None) -> Taken:
    """One process; its pictures go into a folder of their own, which is deleted after it."""
    if source is None:
        return measure(command("--help"), checkout.environment)
    with TemporaryDirectory() as out:
        words = command("upscale", str(source), "-s", str(options.scale), "--model", options.model)
        return measure([*words, "-o", str(Path(out) / "out"), "--quiet"], checkout.environment)


def _section(
    taken: Mapping[str, Pair], checkouts: Mapping[str, Checkout], options: argparse.Namespace
) -> Section:
    names = ", ".join(f"{side}: {checkout.name}" for side, checkout in checkouts.items())
    rows = [row for name, pair in taken.items() if pair for row in _rows(name, pair, options)]
    header = ("case", "measure", "before: min / median / max", "after: min / median / max", "after / before")
    return Section(
        "compare",
        "Two checkouts side by side",
        f"{names}. Whole commands with `--model {options.model}` at x{options.scale}, {options.rounds} "
        "rounds in turns after one run that warms up; the ratio is the median of the ratios within rounds, "
        "with its range. Peak: resident set of the process; anonymous: of that what is not of files, read "
        "every 50 ms.",
        (Table(header, tuple(rows)),),
        {
            name: {side: list(map(asdict, runs)) for side, runs in pair.items()}
            for name, pair in taken.items()
        },
    )


def _rows(name: str, pair: Pair, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """Time, CPU time and memory of one case; figures that are not known are left out."""
    case = CASES[name].format(**vars(options))
    measures: dict[str, Callable[[Taken], float | None]] = {
        "seconds": lambda run: run.seconds,
        "CPU seconds": lambda run: run.cpu,
        "peak MB": lambda run: run.peak / 1e6,
        "anonymous MB": lambda run: None if run.anonymous is None else run.anonymous / 1e6,
    }
    found = []
    for measured, figure in measures.items():
        series = {
            side: [value for run in runs if (value := figure(run)) is not None] for side, runs in pair.items()
        }
        if all(len(series[side]) == len(runs) for side, runs in pair.items()):
            digits = 0 if measured.endswith("MB") else 2
            cells = [_shown(spread(values), digits) for values in series.values()]
            share = ratio(series["after"], series["before"])
            limits = f"{share.lowest:.3f} – {share.highest:.3f}"
            found.append((case, measured, *cells, f"**{share.median:.3f}** ({limits})"))
    return found


def _shown(values: Spread, digits: int) -> str:
    return " / ".join(f"{value:.{digits}f}" for value in (values.lowest, values.median, values.highest))


if __name__ == "__main__":
    main()
