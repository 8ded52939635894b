"""Peak memory of `srcli upscale`: for a camera's picture, and by the side of the tile."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pictures
from common import Section, Table, spread
from processes import measure as measure_command
from processes import srcli
from srcli.benchmark.rounds import interleave
from srcli.upscaler import Upscaler


@dataclass(frozen=True, slots=True)
class Upscaled:
    """One run of `srcli upscale` on one picture.

    Attributes:
        seconds: the whole command.
        working: seconds from the loaded network to the written file, as srcli reports them.
        megapixels: of output.
        peak: bytes, of the whole process.
    """

    seconds: float
    working: float
    megapixels: float
    peak: int


def measure(options: argparse.Namespace) -> Section:
    """The first model on one large picture, with srcli's default settings."""
    height, width = options.picture
    with TemporaryDirectory() as scratch:
        picture = _picture(Path(scratch), height, width)
        done = _upscale(picture, options, "--format", options.format)
    output = height * width * options.scale**2 * 3 / 1e9
    row = (
        f"{width}×{height}",
        f"{done.megapixels:.0f} MP {options.format}",
        f"{done.peak / 1e9:.2f} GB",
        f"{done.seconds:.0f} s",
        f"{done.megapixels / done.working:.2f}",
    )
    return Section(
        f"memory-{height * width / 1e6:.0f}",
        f"Memory for {height * width / 1e6:.0f} megapixels at x{options.scale}",
        f"`srcli upscale` with its default settings ({Path(options.models[0]).stem}), peak resident "
        f"set of the process. The finished pixels alone are {output:.2f} GB.",
        (Table(("input", "output", "peak memory", "time", "MP/s"), (row,)),),
        asdict(done),
    )


def sweep(options: argparse.Namespace) -> Section:
    """One picture a tile's side."""
    halo = Upscaler(options.models[0], options.scale).spec.halo
    done: dict[int, list[Upscaled]] = {tile: [] for tile in options.tiles}
    with TemporaryDirectory() as scratch:
        runs = {}
        for tile, taken in done.items():
            side = 2 * (tile - halo)  # exactly two by two windows of this side
            picture = _picture(Path(scratch) / str(tile), side, side)
            work = partial(_upscale, picture, options, "--tile", str(tile))
            runs[str(tile)] = _recorded(work, taken)
        interleave(runs, options.repetitions, warmup=0)
    return Section(
        "tiles",
        "Side of the tile",
        f"`srcli upscale --tile` at x{options.scale} ({Path(options.models[0]).stem}) on a JPEG that takes "
        f"exactly 2×2 tiles, {options.repetitions} runs of each in turns; MP/s from the loaded network to "
        "the written file.",
        (Table(("tile", "MP/s", "peak memory"), tuple(_row(tile, taken) for tile, taken in done.items())),),
        {str(tile): [asdict(one) for one in taken] for tile, taken in done.items()},
    )


def _row(tile: int, runs: list[Upscaled]) -> tuple[str, str, str]:
    rate = spread([run.megapixels / run.working for run in runs]).median
    return str(tile), f"{rate:.2f}", f"{spread([run.peak / 1e9 for run in runs]).median:.2f} GB"


def _recorded(work: Callable[[], Upscaled], done: list[Upscaled]) -> Callable[[], float]:
    def run() -> float:
        done.append(work())
        return done[-1].seconds

    return run


def _picture(scratch: Path, height: int, width: int) -> Path:
    path = scratch / "picture.jpg"
    path.parent.mkdir(exist_ok=True)
    pictures.save(pictures.photograph(height, width), path, 92)
    return path


def _upscale(picture: Path, options: argparse.Namespace, *more: str) -> Upscaled:
    """Run the command and read its report."""
    report = picture.with_name("report.json")
    work = ["upscale", str(picture), "-s", str(options.scale), "--model", options.models[0], "--overwrite"]
    place = ["-o", str(picture.with_name("out")), "--report", str(report), "--quiet"]
    taken = measure_command(srcli(*work, *place, *more))
    told = json.loads(report.read_text())
    size = told["pictures"][0]["output_size"]
    return Upscaled(taken.seconds, told["seconds"], size["height"] * size["width"] / 1e6, taken.peak)
