"""PSNR and SSIM of the shipped models on folders of HR images, and what the default precision costs.

python benchmarks/quality.py Set5 Set14            writes results/quality.{json,md,csv}
python benchmarks/quality.py data/valid --degradations bicubic photo --models mdsr-baseline mdsr-photo \
    --out benchmarks/results/photo.json            clean and degraded input
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from common import RESULTS, Section, Table, machine, publish
from srcli.models import catalog
from srcli.upscaler import Upscaler
from srcli_train.degradations import DEGRADATIONS
from srcli_train.evaluate import Score, Upscale, bicubic, evaluate, mean, published

AIM = 0.01
"""Most dB (Y) that the default precision may lose."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results. `lost` is PSNR (Y, dB) below the same model in fp32, 0 for fp32 itself."""

    set: str
    scale: int
    model: str
    precision: str
    psnr_y: float
    ssim_y: float | None
    psnr_rgb: float | None
    ssim_rgb: float | None
    lost: float | None = None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish; the CSV has every row with all its digits."""
    given = sys.argv[1:] if arguments is None else arguments
    options, before = _parse(given), machine()
    places = [(f, d) for f in options.folders for d in options.degradations]
    rows = [row for folder, d in places for s in options.scales for row in measure(folder, s, options, d)]
    publish(options.out, _section(rows, options), given, before)
    with options.out.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(Row.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folders", nargs="+", type=Path, help="folders of HR images; the name of a known set adds its rows")
    add("--models", nargs="+", default=["mdsr-baseline", "edsr-baseline"], help="names or .onnx files")
    add("--scales", nargs="+", type=int, default=[2, 3, 4])
    add("--precisions", nargs="+", default=["fp32", "auto"], help="fp32 is what the others are compared with")
    add("--ensemble", action="store_true", help="also the mean over flips and rotations (8 times the work)")
    add("--degradations", nargs="+", default=["bicubic"], choices=list(DEGRADATIONS), help="how LR is made")
    add("--out", type=Path, default=RESULTS / "quality.json")
    return parser.parse_args(arguments)


def measure(folder: Path, scale: int, options: argparse.Namespace, degradation: str) -> list[Row]:
    """All methods on one folder at one scale: bicubic, then each model in each precision, then papers'."""
    methods: dict[tuple[str, str], Upscale] = {("bicubic", ""): bicubic(scale)}
    for model in options.models:
        if scale in catalog.scales(model):
            methods |= _model(model, scale, options)
    names = {"|".join(key): method for key, method in methods.items()}
    scores = evaluate(folder, scale, names, lambda done, total: None, degradation=degradation)
    means = {key: mean(scores["|".join(key)]) for key in methods}
    if degradation != "bicubic":  # papers have no rows for that
        return [_row(f"{folder.name}, {degradation}", scale, k, score, means) for k, score in means.items()]
    rows = [_row(folder.name, scale, key, score, means) for key, score in means.items()]
    return rows + [
        Row(folder.name, scale, f"{r.method}, published", "", r.psnr, r.ssim, None, None)
        for r in published(folder.name, scale)
        if r.protocol == "Y"
    ]


def _model(model: str, scale: int, options: argparse.Namespace) -> dict[tuple[str, str], Upscale]:
    """A model in every precision asked for, by (name, precision in use)."""
    found: dict[tuple[str, str], Upscale] = {}
    for precision in options.precisions:
        for ensemble in (False, True) if options.ensemble else (False,):
            upscaler = Upscaler(model, scale, precision=precision, ensemble=ensemble)
            name = f"{upscaler.spec.name}{'+' if ensemble else ''}"
            found[name, f"{upscaler.info.backend} {upscaler.info.precision}"] = upscaler
    return found


def _row(
    folder: str, scale: int, key: tuple[str, str], score: Score, means: dict[tuple[str, str], Score]
) -> Row:
    name, precision = key
    exact = next((s for (n, p), s in means.items() if n == name and p.endswith(" fp32")), None)
    lost = exact.psnr_y - score.psnr_y if exact else None
    return Row(
        folder, scale, name, precision, score.psnr_y, score.ssim_y, score.psnr_rgb, score.ssim_rgb, lost
    )


def _section(rows: list[Row], options: argparse.Namespace) -> Section:
    sets = ", ".join(folder.name for folder in options.folders)
    lost = [row.lost for row in rows if row.lost is not None]
    loss = f"; the most is {max(lost):.4f} dB (aim: at most {AIM})" if lost else ", not measured here"
    return Section(
        "quality",
        f"Quality on {sets}",
        f"LR by MATLAB's bicubic{_others(options.degradations)}. "
        "Y: luma, shave = scale (benchmark protocol); "
        "RGB: shave = scale + 6 (DIV2K protocol). A + marks the self-ensemble. Lost: PSNR (Y) below the same "
        f"model in fp32{loss}.",
        tuple(_table(name, s, rows) for name in dict.fromkeys(r.set for r in rows) for s in options.scales),
        {"rows": [asdict(row) for row in rows]},
    )


def _others(degradations: Sequence[str]) -> str:
    others = [name for name in degradations if name != "bicubic"]
    return f", or degraded where the set's name says so ({', '.join(others)}; seed 0)" if others else ""


def _table(folder: str, scale: int, rows: list[Row]) -> Table:
    header = (f"{folder} x{scale}", "precision", "PSNR Y", "SSIM Y", "PSNR RGB", "SSIM RGB", "lost, dB")
    cells = [_cells(row) for row in rows if (row.set, row.scale) == (folder, scale)]
    return Table(header, tuple(cells))


def _cells(row: Row) -> tuple[str, ...]:
    figures = (row.psnr_y, row.ssim_y, row.psnr_rgb, row.ssim_rgb, row.lost)
    digits = (2, 4, 2, 4, 4)
    shown = ["–" if f is None else f"{f:.{d}f}" for f, d in zip(figures, digits, strict=True)]
    return row.model, row.precision or "–", *shown


if __name__ == "__main__":
    main()
