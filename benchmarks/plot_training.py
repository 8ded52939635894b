"""Training curves from the logs: validation PSNR and loss over hours.

python benchmarks/plot_training.py            reads results/training/*.csv, writes results/training.png
"""

import argparse
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import RESULTS

_SHOWN = 1.2  # dB below the best; what is below was over in minutes
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
    logs = [read(path) for path in sorted(options.logs.glob("*.csv"))]
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
    """A panel for each scale's validation PSNR, one for the loss as a running mean; a colour a run."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    columns = sorted({column for log in logs for column, points in log.psnr.items() if points})
    size = (4 * len(columns) + 4, 4.6)
    figure, grid = plt.subplots(1, len(columns) + 1, figsize=size, layout="constrained", squeeze=False)
    panels = grid[0]
    colours = {log.name: f"C{number % 10}" for number, log in enumerate(logs)}
    lines: dict[str, Any] = {}
    for axes, column in zip(panels, columns, strict=False):
        for log in (log for log in logs if log.psnr.get(column)):
            style = "-" if len(log.psnr) > 1 else "--"
            (line,) = axes.plot(
                *zip(*log.psnr[column], strict=True),
                style,
                color=colours[log.name],
                linewidth=1.3,
                marker="o",
                markersize=3,
            )
            lines.setdefault(log.name, line)
        _label(axes, f"{column.removeprefix('psnr_')}: validation PSNR (Y), dB")
        best = max(value for log in logs for _, value in log.psnr.get(column, []))
        axes.set_ylim(best - _SHOWN, best + _SHOWN / 20)
    for log in logs:
        (line,) = panels[-1].plot(log.hours, _running_mean(log.loss), color=colours[log.name], linewidth=1)
        lines.setdefault(log.name, line)
    _label(panels[-1], "loss on 0–255, running mean")
    panels[-1].set_ylim(0, 2 * max(log.loss[-1] for log in logs))
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=7, fontsize=8)
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


if __name__ == "__main__":
    main()
