"""srcli beside what a user would pick instead: same weights, same pictures, in turns in one run.

python benchmarks/side_by_side.py                   all contenders that are installed, and a plot
pip install ncnn pnnx                               adds ncnn, from its wheel
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import numpy as np

import contenders
import pictures
from common import RESULTS, Section, Spread, Table, machine, publish, ratio, spread
from contenders import CONTENDERS, Pixels, Place, available
from srcli.benchmark.rounds import interleave, reason, timed
from srcli.imaging.metrics import decibels
from srcli.models import catalog

OURS, EXACT = "srcli", "PyTorch eager"
AIMS = {"PyTorch eager": 3.0, "ncnn": 1.7, "OpenCV DNN": 5.0}
"""How many times as fast as these srcli should be."""


@dataclass(frozen=True, slots=True)
class Row:
    """One contender.

    Attributes:
        megapixels: of output, a second.
        slower: how many times as long as srcli takes, by rounds.
        psnr: dB of its pictures against those of eager float32; infinite where all are equal.
        differing: largest difference from them, of 255.
    """

    name: str
    megapixels: float
    slower: Spread
    psnr: float
    differing: int
    seconds: Spread


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, publish and draw."""
    given = sys.argv[1:] if arguments is None else arguments
    options, before = _parse(given), machine()
    rows = measure(options)
    publish(options.out, _section(rows, options), given, before)
    draw(rows, options)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--model", default="mdsr-baseline", help="name or .onnx file")
    add("--scale", type=int, default=4)
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--backend", default="auto", help="of srcli")
    add("--contenders", nargs="+", choices=list(CONTENDERS), help="default: all that run there")
    add("--pictures", type=int, default=6)
    add("--smallest", type=float, default=0.04, help="megapixels of the smallest picture")
    add("--largest", type=float, default=0.12, help="megapixels of the largest picture")
    add("--repetitions", type=int, default=3, help="rounds that count, after a warm-up")
    add("--out", type=Path, default=RESULTS / "side-by-side.json")
    options = parser.parse_args(arguments)
    named = options.contenders or available(options.device)
    options.contenders = list(dict.fromkeys([OURS, EXACT, *named]))  # what the others are held against
    return options


def measure(options: argparse.Namespace) -> list[Row]:
    """All contenders in turns on all pictures."""
    file = catalog.resolve(options.model, options.scale)
    network = contenders.from_onnx(file)
    contenders.check_parity(network, file)
    photographs = _photographs(options)
    with TemporaryDirectory() as scratch:
        place = Place(Path(scratch), options.device, options.backend)
        ready, made = {}, {}
        for name in options.contenders:
            try:
                ready[name] = CONTENDERS[name].make(file, network, place)
                made[name] = ready[name](photographs)
            except Exception as error:  # a library can fail in any way, and the others still count
                if name in (OURS, EXACT):
                    raise
                ready.pop(name, None)
                print(f"left out: {name} ({reason(error)})", flush=True)
        runs = {name: timed(partial(contender, photographs)) for name, contender in ready.items()}
        seconds = interleave(runs, options.repetitions, warmup=0)  # making the pictures warmed up
    megapixels = sum(p.shape[0] * p.shape[1] for p in photographs) * options.scale**2 / 1e6
    return [
        Row(
            name,
            megapixels / spread(taken).median,
            ratio(taken, seconds[OURS]),
            *_difference(made[name], made[EXACT]),
            spread(taken),
        )
        for name, taken in seconds.items()
    ]


def _photographs(options: argparse.Namespace) -> list[Pixels]:
    """Mixed sizes and shapes, in memory."""
    shapes, sizes = (1.0, 3 / 2, 2 / 3), np.linspace(options.smallest, options.largest, options.pictures)
    return [pictures.shaped(size, shapes[number % 3], number) for number, size in enumerate(sizes)]


def _difference(one: Sequence[Pixels], other: Sequence[Pixels]) -> tuple[float, int]:
    """(PSNR in dB over all pixels, largest difference)."""
    differences = [a.astype(np.int16) - b for a, b in zip(one, other, strict=True)]
    error = mean(float(np.square(d, dtype=np.float64).mean()) for d in differences)
    return decibels(error), max(int(np.abs(d).max()) for d in differences)


def _section(rows: list[Row], options: argparse.Namespace) -> Section:
    by_name = {row.name: row for row in rows}
    aims = (
        ""
        if options.device == "cuda"
        else ", ".join(
            f"{name} {aim}× (reached: {by_name[name].slower.median:.2f}×)"
            for name, aim in AIMS.items()
            if name in by_name
        )
    )
    ncnn = f" ncnn {version('ncnn')}." if "ncnn" in by_name else ""
    return Section(
        "side-by-side",
        f"Side by side at x{options.scale}",
        f"{Path(options.model).stem} on {options.pictures} photographs of {options.smallest} to "
        f"{options.largest} MP, bytes in memory to bytes in memory on the {options.device}, "
        f'{options.repetitions} rounds in turns after one that warms up; "srcli is faster" is the median '
        "of the ratios within rounds. All but srcli run the network layer by layer; srcli's file has "
        "upsampler and tail merged. PSNR and the largest difference are against eager PyTorch's pictures. "
        f"{aims and f'Aims: {aims}.'}{ncnn}",
        (_table(rows),),
        {"rows": [asdict(row) for row in rows]},
    )


def _table(rows: list[Row]) -> Table:
    header = ("contender", "MP/s", "srcli is faster", "range", "PSNR to eager", "largest difference")
    return Table(
        header,
        tuple(
            (
                row.name,
                f"{row.megapixels:.2f}",
                f"{row.slower.median:.2f}×",
                f"{row.slower.lowest:.2f} – {row.slower.highest:.2f}",
                f"{row.psnr:.1f} dB" if np.isfinite(row.psnr) else "equal",
                str(row.differing),
            )
            for row in sorted(rows, key=lambda row: -row.megapixels)
        ),
    )


def draw(rows: list[Row], options: argparse.Namespace) -> None:
    """A bar a contender, beside the results file."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    ordered = sorted(rows, key=lambda row: row.megapixels)
    figure, axes = plt.subplots(figsize=(7, 0.9 + 0.38 * len(rows)), layout="constrained")
    colours = ["tab:blue" if row.name.startswith(OURS) else "tab:gray" for row in ordered]
    bars = axes.barh([row.name for row in ordered], [row.megapixels for row in ordered], color=colours)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlabel(f"megapixels of output a second, {Path(options.model).stem} x{options.scale}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    figure.savefig(options.out.with_suffix(".png"), dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
