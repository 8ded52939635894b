"""The experiments behind the recipes: the same short training with one thing changed.

    python benchmarks/experiments.py detail data/train --valid data/valid
    python benchmarks/experiments.py all data/train --valid data/valid --jobs 2
    python benchmarks/experiments.py --list
    python benchmarks/experiments.py small --list --updates 1500

Every arm is one `srcli train` of its own, whose command is printed; `--jobs 2` runs two of them at a time
with one thread each. Arms that ask for the same training share it. What has ended is not run again, so an
experiment can be interrupted; and at full length (`--updates 300000 --device cuda`) it is the same command;
nothing has to be installed for it that PYTHONPATH can bring. Writes the curves of all arms as
results/experiments/NAME.csv and .png and puts a table into results/experiments.json.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from arms import EXPERIMENTS, Arm, Experiment
from common import RESULTS, Machine, Section, Table, machine, publish
from srcli_train.networks import SCALES, build
from trials import Place, Trial, run_all, trial_of

_USUAL = Arm("", ("batch=16", "patch=32"), recipe="paper")
_USUAL_RATE = 2.0  # updates a second of that on two cores


@dataclass(frozen=True, slots=True)
class Curve:
    """An arm's log: rows as the training loop writes them."""

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
    names = list(EXPERIMENTS) if options.name in (None, "all") else [options.name]
    if options.list:
        print("\n".join(_listed(names, options.updates)))
        return
    place = Place(options.data, options.valid, options.runs, options.device, options.jobs)
    run_all([trial for name in names for trial in _trials(name, options.updates)], place)
    for name in names:
        _publish(name, options, given, before)


def _trials(name: str, updates: int | None) -> list[Trial]:
    """Of the arms, in their order."""
    experiment = EXPERIMENTS[name]
    return [trial_of(arm, experiment, updates or experiment.updates) for arm in experiment.arms]


def _publish(name: str, options: argparse.Namespace, given: Sequence[str], before: Machine) -> None:
    """Curves, plot and table of one experiment."""
    experiment, trials = EXPERIMENTS[name], _trials(name, options.updates)
    curves = [Curve(trial.arm, _rows(options.runs / trial.name / "log.csv")) for trial in trials]
    place = options.out.with_suffix("")
    _write_csv(curves, place / f"{name}.csv")
    _draw(curves, experiment.question, place / f"{name}.png")
    longest = max(trial.updates for trial in trials)
    publish(options.out, _section(name, experiment, curves, longest), given, before)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("name", nargs="?", choices=[*EXPERIMENTS, "all"])
    add("data", nargs="?", type=Path, help="folder of HR images")
    add("--valid", type=Path, help="folder of validation images")
    add("--list", action="store_true", help="list all arms or those of NAME, and their hours; nothing runs")
    add("--updates", type=int, help="of the longest arm")
    add("--jobs", type=int, default=1, help="arms at a time; the cores are shared out among them")
    add("--device", default="cpu")
    add("--runs", type=Path, default=Path("runs/experiments"), help="checkpoints and logs of the arms")
    add("--out", type=Path, default=RESULTS / "experiments.json")
    options = parser.parse_args(arguments)
    if not options.list and not (options.name and options.data):
        parser.error("give a name and a folder of HR images, or --list")
    return options


def _listed(names: Sequence[str], updates: int | None) -> Iterator[str]:
    """Experiments with their arms, and about how long each trains on two cores, and all of several."""
    once: dict[str, Trial] = {}
    for name in names:
        experiment, trials = EXPERIMENTS[name], _trials(name, updates)
        once |= {trial.name: trial for trial in trials}
        labels, longest = " | ".join(arm.label for arm in experiment.arms), max(t.updates for t in trials)
        yield f"{name}: {experiment.question} {longest} updates, about {_hours(trials):.1f} h: {labels}"
    if len(names) > 1:
        yield f"all: about {_hours(once.values()):.1f} h on two cores, as some arms are the same"


def _hours(trials: Iterable[Trial]) -> float:
    usual = sum(trial.updates * _work(trial.arm) for trial in trials) / _work(_USUAL)
    return usual / _USUAL_RATE / 3600


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
        f"{_common(experiment)}; validation PSNR (Y, shave = scale) after {updates} updates of the longest; "
        "everything else is the arm's recipe. Minutes are by the clock, whatever else ran. "
        f"{experiment.finding}"
    )
    values = {curve.arm.label: {str(s): curve.psnr(s) for s in curve.scales} for curve in curves}
    return Section(name, experiment.question, method.strip(), (Table(header, rows),), {"psnr": values})


def _common(experiment: Experiment) -> str:
    """The networks of an experiment, with the settings that all its arms share."""
    arms = experiment.arms
    names = dict.fromkeys(" ".join([arm.model, *(f"x{scale}" for scale in arm.scales)]) for arm in arms)
    shared = [setting for setting in arms[0].settings if all(setting in arm.settings for arm in arms)]
    return f"{', '.join(names)}{' with ' if shared else ''}{', '.join(shared)}"


def _row(curve: Curve, scales: Sequence[int]) -> tuple[str, ...]:
    last = curve.rows[-1]
    recent = [float(row["loss"]) for row in curve.rows[-max(1, len(curve.rows) // 10) :]]
    reached = [f"{curve.psnr(s)[-1][1]:.2f}" if curve.psnr(s) else "–" for s in scales]
    minutes = f"{float(last['seconds']) / 60:.1f}"
    return (curve.arm.label, last["update"], minutes, f"{sum(recent) / len(recent):.2f}", *reached)


if __name__ == "__main__":
    main()
