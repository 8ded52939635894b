"""The experiments behind the recipes: the same short training with one thing changed.

    python benchmarks/experiments.py detail data/train --valid data/valid
    python benchmarks/experiments.py --list

Every arm is one `srcli train` of its own, whose command is printed; `--jobs 2` runs two of them at a time
with one thread each. Arms that have ended are not run again, so an experiment can be interrupted; and at
full length (`--updates 300000 --device cuda`) it is the same command; nothing has to be installed for it
that PYTHONPATH can bring. Writes the curves of all arms as results/experiments/NAME.csv and .png and puts a
table into results/experiments.json.
"""

import argparse
import csv
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from arms import EXPERIMENTS, Arm, Experiment
from common import RESULTS, Section, Table, machine, publish
from srcli.errors import TrainingError
from srcli_train import runfolder
from srcli_train.networks import SCALES, build

_USUAL = Arm("", ("batch=16", "patch=32"), recipe="paper")
_USUAL_RATE = 2.0  # updates a second of that on two cores


@dataclass(frozen=True, slots=True)
class Curve:
    """What an arm's log says: rows as the training loop writes them."""

    arm: Arm
    rows: list[dict[str, str]]

    def psnr(self, scale: int) -> list[tuple[int, float]]:
        """(update, dB) of every validation."""
        points = [(int(r["update"]), r[f"psnr_x{scale}"]) for r in self.rows if r.get(f"psnr_x{scale}")]
        return [(u, float(v)) for i, (u, v) in enumerate(points) if i == 0 or v != points[i - 1][1]]

    @property
    def scales(self) -> tuple[int, ...]:
        """Those that were trained."""
        return tuple(scale for scale in SCALES if self.psnr(scale))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run an experiment and publish what came out."""
    given = sys.argv[1:] if arguments is None else arguments
    options, before = _parse(given), machine()
    if options.list:
        print(_listed(options.updates))
        return
    experiment = EXPERIMENTS[options.name]
    updates = options.updates or experiment.updates
    _run_all(experiment.arms, updates, options)
    curves = [Curve(arm, _rows(_folder(options, arm, updates) / "log.csv")) for arm in experiment.arms]
    place = options.out.with_suffix("")
    _write_csv(curves, place / f"{options.name}.csv")
    _draw(curves, experiment.question, place / f"{options.name}.png")
    publish(options.out, _section(options.name, experiment, curves, updates), given, before)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("name", nargs="?", choices=list(EXPERIMENTS))
    add("data", nargs="?", type=Path, help="folder of HR images")
    add("--valid", type=Path, help="folder of validation images")
    add("--list", action="store_true", help="say what there is")
    add("--updates", type=int, help="of the longest arm")
    add("--jobs", type=int, default=1, help="arms at a time; the cores are shared out among them")
    add("--device", default="cpu")
    add("--runs", type=Path, default=Path("runs/experiments"), help="checkpoints and logs of the arms")
    add("--out", type=Path, default=RESULTS / "experiments.json")
    options = parser.parse_args(arguments)
    if not options.list and not (options.name and options.data):
        parser.error("give a name and a folder of HR images, or --list")
    return options


def _listed(updates: int | None) -> str:
    """Every experiment with its arms, and about how long it takes on two cores."""
    lines, total = [], 0.0
    for name, experiment in EXPERIMENTS.items():
        longest = updates or experiment.updates
        usual = sum(arm.share * _work(arm) for arm in experiment.arms) * longest / _work(_USUAL)
        hours = usual / _USUAL_RATE / 3600
        total += hours
        labels = " | ".join(arm.label for arm in experiment.arms)
        lines.append(f"{name}: {experiment.question} {longest} updates, about {hours:.1f} h: {labels}")
    return "\n".join([*lines, f"all: about {total:.1f} h on two cores"])


@cache
def _work(arm: Arm) -> float:
    """Operations of an update's forward pass, on average over its scales."""
    network, recipe = arm.network, arm.chosen
    with torch.device("meta"):  # counted, not computed
        built, patch = build(network), torch.empty(recipe.batch, 3, recipe.patch, recipe.patch)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for scale in network.scales:
            built(patch, scale)
    return float(counter.get_total_flops() / len(network.scales))


def _run_all(arms: Sequence[Arm], updates: int, options: argparse.Namespace) -> None:
    """First the arms that start from scratch, then those that start from one of them."""
    for wave in ([a for a in arms if not a.init], [a for a in arms if a.init]):
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda arm: _run(arm, arms, updates, options), wave))


def _run(arm: Arm, arms: Sequence[Arm], updates: int, options: argparse.Namespace) -> None:
    """Train an arm to its end, unless its checkpoint says that this is done."""
    folder, end = _folder(options, arm, updates), round(arm.share * updates)
    if _reached(folder) >= end:
        return
    arguments = [*_arguments(arm, options, end), "-o", str(folder)]
    if arm.init:
        start = next(a for a in arms if a.label == arm.init)
        arguments += ["--init", str(_folder(options, start, updates) / runfolder.LAST)]
    arguments += ["--resume"] if runfolder.holds_run(folder) else []
    print(shlex.join(["srcli", *arguments]), flush=True)
    threads = max(1, (os.cpu_count() or 1) // options.jobs)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "srcli", *arguments]
    with folder.with_suffix(".out").open("a") as talk:
        done = subprocess.run(command, check=False, env=environment, stdout=talk, stderr=talk)
    if done.returncode:
        raise SystemExit(f"The arm {arm.label!r} failed; {talk.name} says why.")


def _reached(folder: Path) -> int:
    """Updates in a run's checkpoint. The log may be ahead of it: its last row comes before the last save."""
    if not runfolder.holds_run(folder):
        return 0
    try:
        return runfolder.load(folder, print)[1].update
    except TrainingError:  # the arm's own command says what is wrong with it
        return 0


def _arguments(arm: Arm, options: argparse.Namespace, updates: int) -> list[str]:
    scale = [] if arm.model.startswith("mdsr") else ["-s", str(arm.scale)]
    settings = [part for setting in arm.settings for part in ("--set", setting)]
    valid = ["--valid", str(options.valid)] if options.valid else []
    every = max(1, updates // 1000) * 100  # when there is also a row in the log
    numbers = ["--updates", str(updates), "--validate-every", str(every)]
    what = ["--model", arm.model, *scale, "--recipe", arm.recipe, *settings, *numbers]
    options.runs.mkdir(parents=True, exist_ok=True)
    return ["train", str(options.data), *valid, *what, "--device", options.device]


def _folder(options: argparse.Namespace, arm: Arm, updates: int) -> Path:
    """Of its own for every length, as a schedule cannot be stretched afterwards."""
    plain = "".join(c if c.isalnum() else "-" for c in f"{options.name}-{updates}-{arm.label}")
    return Path(options.runs) / plain


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _write_csv(curves: Sequence[Curve], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ["update", "seconds", "loss", "rate", *(f"psnr_x{scale}" for scale in SCALES)]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", *names])
        for curve in curves:
            writer.writerows([curve.arm.label, *(row.get(n, "") for n in names)] for row in curve.rows)


def _draw(curves: Sequence[Curve], title: str, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    scales = sorted({scale for curve in curves for scale in curve.scales})
    figure, panels = plt.subplots(
        1, len(scales), figsize=(6 * len(scales), 4), squeeze=False, layout="constrained"
    )
    for panel, scale in zip(panels[0], scales, strict=True):
        for curve in curves:
            if points := curve.psnr(scale):
                panel.plot(*zip(*points, strict=True), label=curve.arm.label, marker=".", linewidth=1.2)
        _label(panel, scale)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _label(panel: Any, scale: int) -> None:
    panel.set_xlabel("updates")
    panel.set_ylabel(f"validation PSNR at x{scale} (Y), dB")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)


def _section(name: str, experiment: Experiment, curves: Sequence[Curve], updates: int) -> Section:
    scales = sorted({scale for curve in curves for scale in curve.scales})
    header = ("arm", "updates", "minutes", "loss", *(f"x{scale} (dB)" for scale in scales))
    rows = tuple(_row(curve, scales) for curve in curves)
    method = (
        f"Validation PSNR (Y, shave = scale) after {updates} updates of the longest; "
        f"everything else is the arm's recipe. {experiment.finding}"
    )
    values = {curve.arm.label: {str(s): curve.psnr(s) for s in curve.scales} for curve in curves}
    return Section(name, experiment.question, method.strip(), (Table(header, rows),), {"psnr": values})


def _row(curve: Curve, scales: Sequence[int]) -> tuple[str, ...]:
    last = curve.rows[-1]
    recent = [float(row["loss"]) for row in curve.rows[-max(1, len(curve.rows) // 10) :]]
    reached = [f"{curve.psnr(s)[-1][1]:.2f}" if curve.psnr(s) else "–" for s in scales]
    minutes = f"{float(last['seconds']) / 60:.1f}"
    return (curve.arm.label, last["update"], minutes, f"{sum(recent) / len(recent):.2f}", *reached)


if __name__ == "__main__":
    main()
