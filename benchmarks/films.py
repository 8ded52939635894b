"""Films: the whole command against the network alone, memory, start, still windows, and the usual way.

python benchmarks/films.py                             # all; writes results/films.{json,md}
python benchmarks/films.py --only memory,start

`srcli upscale` runs in this process where it is timed, from the first window that reaches the network to the
finished and checked file; what comes before is measured by `start`, in processes of its own.
"""

import argparse
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import beside
import clips
import still
from common import RESULTS, Section, Table, machine, publish, ratio, spread
from film_runs import Setup
from srcli.backends.base import results
from srcli.benchmark.rounds import interleave
from srcli.benchmark.run import engine_alone
from srcli.imaging import yuv
from srcli.io.films import reader, segments
from srcli.io.films.facts import probe
from srcli.io.films.journal import Journal
from srcli.io.films.segments import SegmentWriter
from srcli.jobs import film as jobs
from srcli.precision import Pass
from stages import STAGES, Share, clocked

AIMS = {"mdsr": 0.93, "edsr": 0.88}
MARKS = (100, 500, 1000, 1500, 2000)
"""Frames after which the memory is read."""
_AFTER = 50
"""Frames behind the last mark, so that the film is still being decoded there."""
BEGIN = 10
"""Seconds of the film whose beginning is timed."""
MINUTES = 120
"""Of the same over and over."""
_STAGES: dict[str, tuple[Any, str]] = {
    **{name: STAGES[name] for name in ("pixels to network", "check finite", "network to pixels")},
    "Y'CbCr to RGB": (yuv, "to_rgb"),
    "compare windows": (Pass, "_leave_out"),
    "RGB to Y'CbCr": (yuv, "from_rgb"),
    "encode": (SegmentWriter, "add"),
    "keep finished frames": (Journal, "spool"),
    "join": (segments, "join"),
    "read again": (jobs, "verify"),
}
_FIRST_WINDOW = """
import os, time
from srcli.precision import Pass
def feed(self):
    print(time.time(), flush=True)
    os._exit(0)
Pass.feed = feed
from srcli.__main__ import main
main()
"""
_RESIDENT = """
import os
from srcli.io.films.segments import SegmentWriter
add, done = SegmentWriter.add, 0
def counted(self, *values):
    global done
    add(self, *values)
    done += 1
    if done in {marks}:
        pages = int(open("/proc/self/statm").read().split()[1])
        print(done, pages * os.sysconf("SC_PAGE_SIZE"), flush=True)
SegmentWriter.add = counted
from srcli.__main__ import main
main()
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish, a section at a time."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parse(given)
    for name in options.only:
        before = machine()
        with TemporaryDirectory() as scratch:
            section = CASES[name](Setup(Path(scratch), options))
        publish(options.out, section, given, before)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--only", type=_names, default=list(CASES), help=f"of {','.join(CASES)}")
    add("--models", nargs="+", default=["mdsr", "edsr"], help="pipeline: networks")
    add(
        "--size", nargs=2, type=int, default=[1080, 1920], metavar=("HEIGHT", "WIDTH"), help="pipeline, start"
    )
    add("--frames", type=int, default=4, help="pipeline: frames")
    add("--rounds", type=int, default=2, help="runs of each, in turns")
    add("--long", type=int, default=2000, help="memory: frames")
    add("--still-size", nargs=2, type=int, default=[270, 480], metavar=("HEIGHT", "WIDTH"))
    add("--still-frames", type=int, default=60, help="still windows: frames")
    add("--still-tile", type=int, default=128, help="still windows: --tile, for windows as many as of 1080p")
    add("--still-model", default="edsr", help="still windows: network")
    add("--clips", nargs="+", default=list(still.CLIPS), help=f"still windows: of {' '.join(still.CLIPS)}")
    add("--usual-size", nargs=2, type=int, default=[270, 480], metavar=("HEIGHT", "WIDTH"))
    add("--usual-frames", type=int, default=30)
    add("--out", type=Path, default=RESULTS / "films.json")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in CASES]:
        raise argparse.ArgumentTypeError(f"no case {unknown[0]!r}: {','.join(CASES)}")
    return names


def pipeline(setup: Setup) -> Section:
    """The whole command against the network alone on the same frames, in turns, and where its time goes."""
    options = setup.options
    height, width = options.size
    source = setup.clip("camera", clips.camera(height, width, options.frames), crf=17)
    rows: list[tuple[str, ...]] = []
    tables, raw = [], {}
    for model in options.models:
        shares: list[tuple[dict[str, Share], float]] = []
        taken = interleave(
            {
                "command": partial(_with_clocks, setup, source, model, shares),
                "network": partial(_network, source, model),
            },
            options.rounds,
            warmup=0,
        )
        share = ratio(taken["network"], taken["command"])
        rates = [f"{options.frames / spread(taken[name]).median:.3f}" for name in ("network", "command")]
        limits = f"**{share.median:.3f}** ({share.lowest:.3f} – {share.highest:.3f})"
        rows.append((model, *rates, limits, str(AIMS.get(model, ""))))
        tables.append(_stages(model, *shares[-1]))
        raw[model] = {"seconds": taken, "ratio": asdict(share), "stages": _raw(shares[-1][0])}
    header = ("network", "alone, frames/s", "`srcli upscale`, frames/s", "of the network alone", "aim")
    method = (
        f"{options.frames} frames of {width}×{height} with grain, H.264 in Matroska, to twice the size, "
        f"default settings, {options.rounds} rounds in turns. Counted is from the first window to the "
        "finished file: decoding, conversion, comparison with the frame before, encoding, keeping finished "
        "frames for a kill, the end of the encoder, joining and reading again. The network alone has the "
        "same windows of the same frames, ready in memory as floats, and its results are dropped."
    )
    shown = (Table(header, tuple(rows)), *tables)
    names = ", ".join(options.models)
    title = f"Films: the whole command against the network alone ({names})"
    return Section(f"pipeline-{'-'.join(map(_stem, options.models))}", title, method, shown, raw)


def _stem(model: str) -> str:
    return Path(model).stem


def _with_clocks(
    setup: Setup, source: Path, model: str, shares: list[tuple[dict[str, Share], float]]
) -> float:
    """One `srcli upscale`; its stages are appended to `shares`."""
    with clocked(_STAGES) as found:
        seconds = setup.run(source, "pipeline.mkv", "--model", model)
    shares.append((found, seconds))
    return seconds


def _stages(model: str, shares: dict[str, Share], whole: float) -> Table:
    rows = tuple(
        (name, f"{share.wall:.2f}", f"{share.cpu:.2f}", f"{share.wall / whole:.1%}", str(share.calls))
        for name, share in shares.items()
    )
    caption = (
        f"`{model}`: where a run of {whole:.1f} s goes. Stages overlap; the threads of the network and of "
        "the encoder are in no CPU seconds here, and encoding goes on beyond its calls:"
    )
    return Table(("stage", "seconds", "CPU seconds of its thread", "of the run", "calls"), rows, caption)


def _raw(shares: dict[str, Share]) -> dict[str, Any]:
    return {name: asdict(share) for name, share in shares.items()}


def _network(source: Path, model: str) -> float:
    """Seconds of the network on every window of every frame."""
    engine, windows = engine_alone(model, 2, "auto", "auto")
    facts, seconds = probe(source), 0.0
    for frame in reader.frames(facts):
        rgb: Any = yuv.to_rgb(frame.planes, facts.coding)[0]
        batches = windows(rgb)
        begin = perf_counter()
        deque(results(engine, batches), maxlen=0)
        seconds += perf_counter() - begin
    return seconds


def start(setup: Setup) -> Section:
    """Seconds from the start of the process until a window is given to the network."""
    height, width = setup.options.size
    model = setup.options.models[0]
    camera = clips.camera(height, width, 25 * BEGIN, grain=0)
    short, long = (
        setup.clip("begin", camera, crf=23, rate=25, preset="ultrafast"),
        setup.scratch / "hours.mkv",
    )
    clips.repeat(short, long, MINUTES * 60 // BEGIN)
    sizes = (f"{path.stat().st_size / 1e6:.0f} MB" for path in (short, long))
    films = {
        f"{BEGIN} s of {width}×{height}, {next(sizes)}": short,
        f"{MINUTES} minutes of it, {25 * 60 * MINUTES:,} frames, {next(sizes)}": long,
    }
    rounds = range(setup.options.rounds + 1)
    taken = {name: [_started(setup, path, model) for _ in rounds][1:] for name, path in films.items()}
    found = {name: spread(seconds) for name, seconds in taken.items()}
    rows = tuple(
        (name, f"{one.median:.2f} s", f"{one.lowest:.2f} – {one.highest:.2f}") for name, one in found.items()
    )
    method = (
        f"`srcli upscale --model {model}` in a process of its own, from its start to the first window for "
        "the network: Python's imports, the network, all packets of the film, five frames of it decoded. "
        f"{setup.options.rounds} rounds after one that fills the file cache. Aim: 3 s."
    )
    table = Table(("film", "median", "range"), rows)
    return Section("start", "Films: from the start to the first window", method, (table,), {"seconds": taken})


def _started(setup: Setup, source: Path, model: str) -> float:
    words = [sys.executable, "-P", "-c", _FIRST_WINDOW, *setup.command(source, "start.mkv", "--model", model)]
    begin = time.time()
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout) - begin


def memory(setup: Setup) -> Section:
    """Resident memory after 100 frames, ..., 2,000."""
    long, model = setup.options.long, setup.options.models[0]
    runs = {
        "320×180, bicubic": (clips.camera(180, 320, long + _AFTER), ["--backend", "bicubic"]),
        f"64×36, `{model}`": (clips.camera(36, 64, long + _AFTER), ["--model", model]),
    }
    marks = [mark for mark in MARKS if mark < long] + [long]
    taken: dict[str, dict[int, int]] = {}
    for name, (frames, more) in runs.items():
        source = setup.clip(name.split(",")[0], frames, crf=17, preset="veryfast")
        taken[name] = _resident(setup, source, marks, more)
    header = ("film", *(f"frame {mark:,}" for mark in marks), f"frame {long:,} / {marks[0]:,}")
    rows = tuple(
        (name, *(f"{one[mark] / 1e6:.0f} MB" for mark in marks), f"**{one[long] / one[marks[0]]:.3f}**")
        for name, one in taken.items()
    )
    method = (
        f"Resident memory of `srcli upscale` on films of {long + _AFTER:,} frames, default settings, when so "
        "many of them have been given to the encoder. Aim: within 5%."
    )
    return Section("memory", "Films: memory", method, (Table(header, rows),), {"bytes": taken})


def _resident(setup: Setup, source: Path, marks: Sequence[int], more: Sequence[str]) -> dict[int, int]:
    code = _RESIDENT.format(marks=tuple(marks))
    words = [sys.executable, "-P", "-c", code, *setup.command(source, "memory.mkv", *more)]
    done = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    pairs = (line.split() for line in done.splitlines()[: len(marks)])
    return {int(frame): int(size) for frame, size in pairs}


CASES: dict[str, Callable[[Setup], Section]] = {
    "pipeline": pipeline,
    "start": start,
    "memory": memory,
    "still": still.section,
    "usual": beside.section,
}
"""By name, as `--only` takes them."""


if __name__ == "__main__":
    main()
