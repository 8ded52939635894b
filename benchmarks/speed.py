"""How fast srcli is: engines beside plain PyTorch, start-up, memory, and the tile's size.

python benchmarks/speed.py                     engines and start-up
python benchmarks/speed.py --only memory       a 12-megapixel picture at x4
python benchmarks/speed.py --only tiles        window sides from 256 to 1024
python benchmarks/speed.py --only streams      OpenVINO's streams against the tile's side
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pictures
import throughput
from common import RESULTS, Section, Table, machine, publish, spread
from srcli.benchmark import rounds
from srcli.benchmark.rounds import Taken, command, interleave, keeping
from srcli.upscaler import Upscaler


@dataclass(frozen=True, slots=True)
class Upscaled:
    """One run of `srcli upscale` on one picture.

    Attributes:
        seconds: the whole command.
        working: seconds from the loaded network to the written file, as srcli reports them.
        megapixels: of output.
        peak: resident bytes, of the whole process.
        anonymous: of these, bytes that are not of files; None where it is not known.
    """

    seconds: float
    working: float
    megapixels: float
    peak: int
    anonymous: int | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sections asked for and publish each as soon as it is there."""
    options, given = _parse(arguments)
    for name in options.only:
        before = machine()
        publish(options.out, SECTIONS[name](options), given, before)


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Sequence[str]]:
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--only", nargs="+", choices=list(SECTIONS), default=["throughput", "startup"])
    add("--models", nargs="+", default=["mdsr-baseline", "edsr-baseline"], help="names or .onnx files")
    add("--scale", type=int, default=4)
    add("--sizes", nargs="+", type=int, default=[256, 512], help="sides of the square inputs")
    add("--repetitions", type=int, default=3, help="of each engine; one more round warms up")
    add("--starts", type=int, default=10, help="runs of each command of the start-up section")
    add("--sides", nargs="+", type=int, default=[64, 256], help="pictures of the start-up section")
    add("--checkpoint-mdsr", type=Path, help="eager weights; default: rebuilt from the ONNX file")
    add("--checkpoint-edsr", type=Path)
    add("--picture", nargs=2, type=int, default=[3000, 4000], metavar=("HEIGHT", "WIDTH"))
    add("--format", default="jpeg", help="of the output of the memory section")
    add("--tiles", nargs="+", type=int, default=[256, 384, 512, 768, 1024])
    add("--threads", type=int, default=0)
    add("--out", type=Path, default=RESULTS / "speed.json")
    return parser.parse_args(given), given


def startup(options: argparse.Namespace) -> Section:
    """Commands in turns, each in a fresh process."""
    with TemporaryDirectory() as scratch:
        commands = _commands(options, Path(scratch))
        taken: dict[str, list[Taken]] = {name: [] for name in commands}
        runs = {
            name: keeping(partial(rounds.measure, words), taken[name]) for name, words in commands.items()
        }
        interleave(runs, options.starts, warmup=1)
    taken = {name: values[1:] for name, values in taken.items()}  # the first round warmed up
    return Section(
        "startup",
        "Start-up",
        f"Whole commands from the shell, {options.starts} runs each in turns after one that fills the file "
        "cache; memory is the peak resident set of the process.",
        (_start_table(taken),),
        {name: [asdict(value) for value in values] for name, values in taken.items()},
    )


def _commands(options: argparse.Namespace, scratch: Path) -> dict[str, list[str]]:
    """By the name they get in the table."""
    model, scale = options.models[0], str(options.scale)
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        'python -c "import srcli"': [sys.executable, "-c", "import srcli"],
        "srcli --help": command("--help"),
    }
    for side in options.sides:
        picture = scratch / f"{side}.png"
        pictures.save(pictures.photograph(side, side), picture)
        work = command("upscale", str(picture), "-s", scale, "--model", model, "--overwrite", "--quiet")
        commands[f"srcli upscale, {side}×{side}"] = [*work, "-o", str(scratch / f"out-{side}")]
    return commands


def _start_table(taken: dict[str, list[Taken]]) -> Table:
    rows = []
    for name, values in taken.items():
        seconds, peak = spread([v.seconds for v in values]), spread([v.peak / 1e6 for v in values])
        limits = f"{seconds.lowest:.2f} – {seconds.highest:.2f}"
        rows.append((name, f"{seconds.median:.2f}", limits, f"{peak.median:.0f}"))
    return Table(("command", "seconds", "range", "MB"), tuple(rows))


def memory(options: argparse.Namespace) -> Section:
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
        "–" if done.anonymous is None else f"{done.anonymous / 1e9:.2f} GB",
        f"{done.seconds:.0f} s",
        f"{done.megapixels / done.working:.2f}",
    )
    return Section(
        f"memory-{height * width / 1e6:.0f}",
        f"Memory for {height * width / 1e6:.0f} megapixels at x{options.scale}",
        f"`srcli upscale` with its default settings ({Path(options.models[0]).stem}), peak resident "
        "set of the process, and of that the anonymous memory (not files, read every 50 ms). The finished "
        f"pixels alone are {output:.2f} GB.",
        (Table(("input", "output", "peak memory", "anonymous", "time", "MP/s"), (row,)),),
        asdict(done),
    )


def tiles(options: argparse.Namespace) -> Section:
    """One picture a tile's side."""
    halo = Upscaler(options.models[0], options.scale).spec.halo
    done: dict[int, list[Upscaled]] = {tile: [] for tile in options.tiles}
    with TemporaryDirectory() as scratch:
        runs = {}
        for tile, taken in done.items():
            side = 2 * (tile - halo)  # exactly two by two windows of this side
            picture = _picture(Path(scratch) / str(tile), side, side)
            work = partial(_upscale, picture, options, "--tile", str(tile))
            runs[str(tile)] = keeping(work, taken)
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


def _picture(scratch: Path, height: int, width: int) -> Path:
    path = scratch / "picture.jpg"
    path.parent.mkdir(exist_ok=True)
    pictures.save(pictures.photograph(height, width), path, 92)
    return path


def _upscale(picture: Path, options: argparse.Namespace, *more: str) -> Upscaled:
    """Run the command and read its report."""
    file = picture.with_name("report.json")
    work = ["upscale", str(picture), "-s", str(options.scale), "--model", options.models[0], "--overwrite"]
    place = ["-o", str(picture.with_name("out")), "--report", str(file), "--quiet"]
    taken = rounds.measure(command(*work, *place, *more))
    report = json.loads(file.read_text())
    size = report["pictures"][0]["output_size"]
    megapixels = size["height"] * size["width"] / 1e6
    return Upscaled(taken.seconds, report["seconds"], megapixels, taken.peak, taken.anonymous)


SECTIONS: dict[str, Callable[[argparse.Namespace], Section]] = {
    "throughput": throughput.measure,
    "startup": startup,
    "memory": memory,
    "tiles": tiles,
    "streams": throughput.streams,
}


if __name__ == "__main__":
    main()
