"""A folder of photographs from decode to encode, against the engine alone on the same tiles.

The pipeline is `srcli upscale` itself, called in this process and timed from its loaded network to its last
written file (`--report`). The engine alone runs the windows that the pipeline plans for the same pictures,
with the same call, freshly loaded each time as the command does, with the inputs ready in memory and the
outputs dropped.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO, TextIOWrapper
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import pictures
from common import RESULTS, Section, Spread, Table, machine, publish, ratio, spread
from srcli.backends.devices import cores
from srcli.benchmark import rounds
from srcli.benchmark.rounds import Attempts, Taken, command, interleave, keeping
from srcli.benchmark.run import engine_alone
from srcli.benchmark.speed import drain
from srcli.cli.app import main as srcli_main
from srcli.io import pictures as images
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
    backend: str = "auto"
    device: str = "auto"

    @property
    def arguments(self) -> list[str]:
        """Arguments of srcli."""
        report, out = str(self.scratch / "report.json"), str(self.scratch / "out")
        network = ["-s", str(self.scale), "--model", self.model]
        engine = ["--backend", self.backend, "--device", self.device]
        place = ["-o", out, "--report", report, "--overwrite", "--quiet"]
        return ["upscale", str(self.pictures[0].parent), *network, *engine, *place]

    def working(self) -> float:
        """Seconds that the last run reported.

        Raises:
            RuntimeError: a picture failed.
        """
        report = json.loads((self.scratch / "report.json").read_text())
        if any(picture["status"] != "written" for picture in report["pictures"]):
            raise RuntimeError("not every picture was written")
        return float(report["seconds"])

    def engine(self) -> str:
        """What the last run ran on."""
        used = json.loads((self.scratch / "report.json").read_text())["engine"]
        return f"{used['backend']} {used['precision']} {used['device']}"


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds on the wall and of CPU, of the whole process."""

    seconds: float
    cpu: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish; what failed after the comparison is said in the end."""
    options, given = _parse(arguments)
    before, later = machine(), Attempts[str]()
    with TemporaryDirectory() as scratch:
        place = Path(scratch) / "photographs"
        place.mkdir()
        sizes = options.smallest, options.largest
        made = tuple(pictures.folder(place, options.pictures, *sizes, FORMATS[options.formats]))
        choice = options.backend, options.device
        setup = Setup(made, Path(scratch), options.model, options.scale, *choice)
        section = measure(setup, options, later)
    publish(options.out, section, given, before)
    if later.problems:
        raise SystemExit("; ".join(f"{part}: {why}" for part, why in later.problems.items()))


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Sequence[str]]:
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", default="mdsr-baseline", help="name or .onnx file")
    add("--scale", type=int, default=4)
    add("--backend", default="auto", help="as of srcli upscale")
    add("--device", default="auto", help="as of srcli upscale")
    add("--pictures", type=int, default=20)
    add("--smallest", type=float, default=0.05, help="megapixels of the smallest picture")
    add("--largest", type=float, default=0.25, help="megapixels of the largest picture")
    add("--formats", choices=list(FORMATS), default="mixed", help="mixed: half JPEG, half PNG")
    add("--repetitions", type=int, default=3)
    add("--out", type=Path, default=RESULTS / "pipeline.json")
    return parser.parse_args(given), given


def measure(setup: Setup, options: argparse.Namespace, later: Attempts[str]) -> Section:
    """Pipeline and engine in turns; then, where these work, one run from the shell and one with clocks."""
    megapixels, taken = _megapixels(setup), {"pipeline": list[Run](), "engine": list[Run]()}
    runs = {
        "pipeline": keeping(partial(pipeline, setup), taken["pipeline"]),
        "engine": keeping(partial(engine, setup), taken["engine"]),
    }
    seconds = interleave(runs, options.repetitions, warmup=1)
    cpu = {name: [run.cpu for run in done[1:]] for name, done in taken.items()}
    share = ratio(seconds["engine"], seconds["pipeline"])
    used = setup.engine()
    started = later.of("from the shell", lambda: _from_shell(setup))
    stages = later.of("with clocks", lambda: _with_clocks(setup))
    method = (
        f"{len(setup.pictures)} photographs of {options.smallest} to {options.largest} MP "
        f"({' and '.join(FORMATS[options.formats])} in turns), written in their own format "
        f"with {Path(setup.model).stem} on {used}: {megapixels:.0f} MP of output. "
        f"`srcli upscale` and the engine alone on the same tiles, {options.repetitions} times in turns "
        "after a warm-up, in one process; each loads its network anew, and the loading is not counted."
    )
    rows = _compared(seconds, megapixels, share, _bound(cpu, spread(seconds["engine"]).median))
    raw: dict[str, Any] = {"seconds": seconds, "ratio": asdict(share), "cpu": cpu, "engine": used}
    if started:
        rows += [("start of the command, once, not counted", f"{started[0]:.2f} s", "", "")]
        raw |= {"start": started[0], "shell": asdict(started[1])}
    tables = [Table(("", "median", "range", "MP/s"), tuple(rows))]
    if stages:
        tables += [_shared(*stages)]
        raw |= {"stages": {name: asdict(stage) for name, stage in stages[0].items()}}
    title = f"A folder of photographs at x{setup.scale} ({options.formats})"
    return Section(f"pipeline-{options.formats}", title, method, tuple(tables), raw)


def _from_shell(setup: Setup) -> tuple[float, Taken]:
    """(seconds until the network was loaded, all of it) of the command in a process of its own."""
    shell = rounds.measure(command(*setup.arguments))
    return shell.seconds - setup.working(), shell


def _with_clocks(setup: Setup) -> tuple[dict[str, Share], float]:
    """Time by stage, and of the whole run."""
    with clocked() as shares:
        whole = pipeline(setup).seconds
    return shares, whole


def _bound(cpu: dict[str, list[float]], engine: float) -> tuple[float, float]:
    """(CPU seconds of the pipeline beyond the engine's, and engine / pipeline if that were all).

    The second supposes that the extra work spreads over all cores without disturbing the engine.
    """
    extra = spread(cpu["pipeline"]).median - spread(cpu["engine"]).median
    return extra, engine / (engine + extra / cores())


def _compared(
    seconds: dict[str, list[float]], megapixels: float, share: Spread, cpu: tuple[float, float]
) -> list[tuple[str, str, str, str]]:
    rows = [_timed(name, seconds[name], megapixels) for name in ("engine", "pipeline")]
    limits = f"{share.lowest:.3f} – {share.highest:.3f}"
    rows += [
        ("pipeline / engine", f"**{share.median:.3f}**", limits, f"aim: {AIM}"),
        ("CPU seconds beyond the engine's", f"{cpu[0]:.2f} s", "", f"alone they allow {cpu[1]:.3f}"),
    ]
    return rows


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
        code = srcli_main(setup.arguments)
    if code:
        raise RuntimeError(f"srcli ended with exit code {code}")
    return Run(setup.working(), process_time() - begin)


def engine(setup: Setup) -> Run:
    """The network on every window of every picture; loading it is in its CPU seconds only."""
    seconds, cpu = 0.0, -process_time()
    loaded, windows = engine_alone(setup.model, setup.scale, setup.backend, setup.device)
    cpu += process_time()
    for batches in (windows(images.read(path).pixels) for path in setup.pictures):
        begin, begin_cpu = perf_counter(), process_time()
        drain(loaded, batches)
        seconds, cpu = seconds + perf_counter() - begin, cpu + process_time() - begin_cpu
    return Run(seconds, cpu)


def _megapixels(setup: Setup) -> float:
    headers = [images.probe(path) for path in setup.pictures]
    return sum(h.height * h.width for h in headers) * setup.scale**2 / 1e6


if __name__ == "__main__":
    main()
