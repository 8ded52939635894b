"""Training curves from the logs: validation PSNR and loss over hours.

python benchmarks/plot_training.py            reads results/training/**/*.csv, writes results/training.png
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS

_SMOOTH = 0.02  # share of a run that the shown loss is averaged over


@dataclass(frozen=True, slots=True)
class Log:
    """One run: time in hours, loss, and validation PSNR in dB by column ("psnr_x2")."""

    name: str
    hours: list[float]
    loss: list[float]
    psnr: dict[str, list[tuple[float, float]]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw all logs into one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--logs", type=Path, default=RESULTS / "training")
    parser.add_argument("--out", type=Path, default=RESULTS / "training.png")
    options = parser.parse_args(arguments)
    logs = [read(path) for path in sorted(options.logs.rglob("*.csv"))]
    if not logs:
        raise SystemExit(
            f"No logs in {options.logs.name}: copy each run's log.csv there under a name of its own."
        )
    draw(logs, options.out)
    print(options.out)


def read(path: Path) -> Log:
    """A log.csv as the training loop writes it; PSNR is kept where a validation changed it."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    hours = [float(row["seconds"]) / 3600 for row in rows]
    columns = [name for name in (rows[0] if rows else {}) if name.startswith("psnr_")]
    psnr = {c: _changes([(h, r[c]) for h, r in zip(hours, rows, strict=True) if r[c]]) for c in columns}
    name = path.parent.name if path.stem == "log" else path.stem
    return Log(name, hours, [float(row["loss"]) for row in rows], psnr)


def _changes(points: list[tuple[float, str]]) -> list[tuple[float, float]]:
    kept = [p for i, p in enumerate(points) if i == 0 or p[1] != points[i - 1][1]]
    return [(hours, float(value)) for hours, value in kept]


def draw(logs: list[Log], out: Path) -> None:
    """Two panels side by side: validation PSNR, and the loss as a running mean."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for log in logs:
        for column, points in log.psnr.items():
            scale = column.removeprefix("psnr_")
            if points:
                left.plot(*zip(*points, strict=True), label=f"{log.name} {scale}", linewidth=1.2)
        right.plot(log.hours, _running_mean(log.loss), label=log.name, linewidth=1)
    _label(left, "validation PSNR (Y), dB")
    _label(right, "loss on 0–255, running mean")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def _running_mean(values: list[float]) -> list[float]:
    """Exponential, over a small share of the run."""
    keep, mean, means = 1 - 1 / max(1.0, _SMOOTH * len(values)), values[0] if values else 0.0, []
    for value in values:
        mean = keep * mean + (1 - keep) * value
        means.append(mean)
    return means


def _label(axes: Any, what: str) -> None:
    axes.set_xlabel("hours")
    axes.set_ylabel(what)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


if __name__ == "__main__":
    main()
