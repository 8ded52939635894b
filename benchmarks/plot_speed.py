"""Quality against speed: one point a model and engine, from the results of speed.py and quality.py.

python benchmarks/plot_speed.py               writes results/quality-vs-speed.png
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import RESULTS

_COLOURS = {
    "openvino": "tab:blue",
    "onnxruntime": "tab:orange",
    "torch": "tab:green",
    "PyTorch eager": "tab:gray",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One model on one engine."""

    model: str
    engine: str
    megapixels: float
    psnr: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Read both results and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--set", default="Set5")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--side", type=int, default=256, help="the input size of speed.py to show")
    options = parser.parse_args(arguments)
    points = read(options.results, options.set, options.scale, options.side)
    if not points:
        raise SystemExit("Run speed.py and quality.py first, with the same models and this set.")
    draw(points, options.set, options.scale, options.results / "quality-vs-speed.png")


def read(results: Path, name: str, scale: int, side: int) -> list[Point]:
    """Models that both files have; an engine takes the PSNR of its precision, or else the model's in fp32."""
    speed = json.loads((results / "speed.json").read_text())["throughput"]["measurements"]["rows"]
    rows = json.loads((results / "quality.json").read_text())["quality"]["measurements"]["rows"]
    psnr = {
        (row["model"], row["precision"].rpartition(" ")[2]): row["psnr_y"]
        for row in rows
        if (row["set"], row["scale"]) == (name, scale)
    }
    points = []
    for row in speed:
        key = row["model"], row["engine"].rpartition(" ")[2]
        value = psnr.get(key, psnr.get((row["model"], "fp32")))
        if row["side"] == side and value is not None:
            points.append(Point(row["model"], row["engine"], row["megapixels"], value))
    return points


def draw(points: list[Point], name: str, scale: int, out: Path) -> None:
    """A colour an engine, a marker a model."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    models = list(dict.fromkeys(point.model for point in points))
    for point in points:
        marker = "osD^v"[models.index(point.model) % 5]
        colour = next((c for prefix, c in _COLOURS.items() if point.engine.startswith(prefix)), "black")
        axes.scatter(point.megapixels, point.psnr, marker=marker, color=colour, s=46)
        place = point.megapixels, point.psnr
        axes.annotate(point.engine, place, (3, 6), textcoords="offset points", fontsize=7, rotation=50)
    for index, model in enumerate(models):
        axes.scatter([], [], marker="osD^v"[index % 5], color="black", label=model)
    axes.legend(fontsize=8)
    axes.set(xlabel=f"output megapixels a second at x{scale}", ylabel=f"PSNR (Y) on {name} x{scale}, dB")
    axes.margins(0.15, 0.6)
    axes.grid(alpha=0.3)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    plt.close(figure)
    print(out)


if __name__ == "__main__":
    main()
