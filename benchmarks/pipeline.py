"""A folder of photographs from decode to encode, against the engine alone on the same tiles.

The pipeline is `srcli upscale` itself, called in this process and timed from its loaded network to its last
written file (`--report`). The engine alone runs the windows that the pipeline plans for the same pictures,
freshly loaded each time as the command does, with the inputs ready in memory and the outputs dropped.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import pictures
from common import RESULTS, Section, Spread, Table, machine, publish, ratio, spread
from processes import measure as measure_command
from processes import srcli
from srcli import pixels
from srcli.backends.base import Batch
from srcli.benchmark.rounds import interleave
from srcli.cli.app import main as srcli_main
from srcli.doctor import cores
from srcli.media import images
from srcli.tiled import TiledNetwork
from srcli.upscaler import Upscaler
from stages import Share, clocked

AIM = 0.93
FORMATS = {"mixed": (".jpg", ".png"), "jpeg": (".jpg",), "png": (".png",)}


@dataclass(frozen=True, slots=True)
class Setup:
    """Pictures, where results go, and what runs."""

    pictures: tuple[Path, ...]
    scratch: Path
    model: str
    scale: int

    @property
    def command(self) -> list[str]:
        """Arguments of srcli."""
        report, out = str(self.scratch / "report.json"), str(self.scratch / "out")
        network = ["-s", str(self.scale), "--model", self.model]
        place = ["-o", out, "--report", report, "--overwrite", "--quiet"]
        return ["upscale", str(self.pictures[0].parent), *network, *place]

    def told(self) -> float:
        """Seconds that the last run reported.

        Raises:
            RuntimeError: a picture failed.
        """
        report = json.loads((self.scratch / "report.json").read_text())
        if any(picture["status"] != "written" for picture in report["pictures"]):
            raise RuntimeError("not every picture was written")
        return float(report["seconds"])


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds on the wall and of CPU, of the whole process."""

    seconds: float
    cpu: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish."""
    options, given = _parse(arguments)
    before = machine()
    with TemporaryDirectory() as scratch:
        place = Path(scratch) / "photographs"
        place.mkdir()
        sizes = options.smallest, options.largest
        made = tuple(pictures.folder(place, options.pictures, *sizes, FORMATS[options.formats]))
        setup = Setup(made, Path(scratch), options.model, options.scale)
        section = measure(setup, options)
    publish(options.out, section, given, before)


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Sequence[str]]:
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", default="mdsr-baseline", help="name or .onnx file")
    add("--scale", type=int, default=4)
    add("--pictures", type=int, default=20)
    add("--smallest", type=float, default=0.05, help="megapixels of the smallest picture")
    add("--largest", type=float, default=0.25, help="megapixels of the largest picture")
    add("--formats", choices=list(FORMATS), default="mixed", help="mixed: half JPEG, half PNG")
    add("--repetitions", type=int, default=3)
    add("--out", type=Path, default=RESULTS / "pipeline.json")
    return parser.parse_args(given), given


def measure(setup: Setup, options: argparse.Namespace) -> Section:
    """Pipeline and engine in turns, one run from the shell, and one with a clock at every stage."""
    megapixels, cpu = _megapixels(setup), _Cpu()
    runs = {"pipeline": cpu.of("pipeline", pipeline, setup), "engine": cpu.of("engine", engine_alone, setup)}
    seconds = interleave(runs, options.repetitions, warmup=1)
    share = ratio(seconds["engine"], seconds["pipeline"])
    bound = cpu.bound(spread(seconds["engine"]).median)
    shell = measure_command(srcli(*setup.command))
    start = shell.seconds - setup.told()
    with clocked() as shares:
        whole = pipeline(setup).seconds
    method = (
        f"{len(setup.pictures)} photographs of {options.smallest} to {options.largest} MP "
        f"({' and '.join(FORMATS[options.formats])} in turns), written in their own format "
        f"with {Path(setup.model).stem}: {megapixels:.0f} MP of output. "
        f"`srcli upscale` and the engine alone on the same tiles, {options.repetitions} times in turns "
        "after a warm-up, in one process; each loads its network anew, and the loading is not counted."
    )
    tables = _compared(seconds, megapixels, share, (cpu.extra, bound), start), _shared(shares, whole)
    raw = {"seconds": seconds, "ratio": asdict(share), "start": start, "shell": asdict(shell)}
    raw |= {"cpu": cpu.seconds, "stages": {k: asdict(v) for k, v in shares.items()}}
    title = f"A folder of photographs at x{setup.scale} ({options.formats})"
    return Section(f"pipeline-{options.formats}", title, method, tables, raw)


class _Cpu:
    """CPU seconds of the process, beside the seconds on the wall."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def of(self, name: str, work: Callable[[Setup], Run], setup: Setup) -> Callable[[], float]:
        """`work` as a candidate for `interleave`, its CPU seconds kept under `name`."""

        def run() -> float:
            done = work(setup)
            self.seconds.setdefault(name, []).append(done.cpu)
            return done.seconds

        return run

    @property
    def extra(self) -> float:
        """CPU seconds that the pipeline takes beyond the engine's."""
        return spread(self.seconds["pipeline"]).median - spread(self.seconds["engine"]).median

    def bound(self, engine: float) -> float:
        """Engine / pipeline if the extra work spread over all cores without disturbing the engine."""
        return engine / (engine + self.extra / cores())


def _compared(
    seconds: dict[str, list[float]], megapixels: float, share: Spread, cpu: tuple[float, float], start: float
) -> Table:
    rows = [_timed(name, seconds[name], megapixels) for name in ("engine", "pipeline")]
    limits = f"{share.lowest:.3f} – {share.highest:.3f}"
    rows += [
        ("pipeline / engine", f"**{share.median:.3f}**", limits, f"aim: {AIM}"),
        ("CPU seconds beyond the engine's", f"{cpu[0]:.2f} s", "", f"alone they allow {cpu[1]:.3f}"),
        ("start of the command, once, not counted", f"{start:.2f} s", "", ""),
    ]
    return Table(("", "median", "range", "MP/s"), tuple(rows))


def _timed(name: str, seconds: list[float], megapixels: float) -> tuple[str, str, str, str]:
    taken = spread(seconds)
    limits = f"{taken.lowest:.2f} – {taken.highest:.2f}"
    return name, f"{taken.median:.2f} s", limits, f"{megapixels / taken.median:.2f}"


def _shared(shares: dict[str, Share], whole: float) -> Table:
    rows = tuple(
        (name, f"{share.wall:.2f}", f"{share.cpu:.2f}", f"{share.wall / whole:.1%}")
        for name, share in shares.items()
    )
    caption = (
        f"Where a run of {whole:.2f} s goes (one more run, with clocks). Stages overlap; the network's own "
        "threads are not in its CPU seconds:"
    )
    return Table(("stage", "seconds", "CPU seconds of its thread", "of the run"), rows, caption)


def pipeline(setup: Setup) -> Run:
    """One `srcli upscale`; loading the network is in its CPU seconds only.

    Raises:
        RuntimeError: it failed.
    """
    begin = process_time()
    with redirect_stdout(TextIOWrapper(BytesIO())):
        code = srcli_main(setup.command)
    if code:
        raise RuntimeError(f"srcli ended with exit code {code}")
    return Run(setup.told(), process_time() - begin)


def engine_alone(setup: Setup) -> Run:
    """The network on every window of every picture; loading it is in its CPU seconds only."""
    seconds, cpu = 0.0, -process_time()
    network = fresh_network(setup)
    cpu += process_time()
    for batch in (batch for path in setup.pictures for batch in _windows(network, path)):
        begin, begin_cpu = perf_counter(), process_time()
        network.engine.run(batch)
        seconds, cpu = seconds + perf_counter() - begin, cpu + process_time() - begin_cpu
    return Run(seconds, cpu)


def fresh_network(setup: Setup) -> TiledNetwork:
    """The network exactly as the command loads it: same choices of backend, precision, tile and halo."""
    return Upscaler(setup.model, setup.scale)._network(setup.scale)


def _windows(network: TiledNetwork, path: Path) -> list[Batch]:
    picture = images.read(path).pixels
    size = (picture.shape[0], picture.shape[1])
    return [pixels.to_network(picture[tile.window.slices]) for tile in network.plan(size)]


def _megapixels(setup: Setup) -> float:
    headers = [images.probe(path) for path in setup.pictures]
    return sum(h.height * h.width for h in headers) * setup.scale**2 / 1e6


if __name__ == "__main__":
    main()
