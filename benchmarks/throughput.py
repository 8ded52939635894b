"""Engines on square inputs beside plain PyTorch and a matrix product; OpenVINO's streams and tile sides."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

import contenders
from common import Section, Spread, Table, ratio, spread
from srcli.backends.devices import cores
from srcli.backends.openvino import compile_file, has_bf16, has_fast_int8, import_openvino
from srcli.benchmark import speed
from srcli.benchmark.rounds import Run, interleave, timed
from srcli.benchmark.subjects import Case, load
from srcli.errors import BackendUnavailableError
from srcli.models import catalog
from srcli.models.catalog import ModelFile

ENGINES = (
    ("openvino", "int8"),
    ("openvino", "bf16"),
    ("openvino", "fp32"),
    ("onnxruntime", "fp32"),
    ("torch", "bf16"),
    ("torch", "fp32"),
)
_EAGER = "PyTorch eager fp32"
_WARMED = 256
_REQUESTS = 4  # tiles of one measurement


@dataclass(frozen=True, slots=True)
class Rate:
    """One engine on one size; rates are medians.

    Attributes:
        megapixels: of output, a second.
        to_eager: how many times as fast as plain PyTorch, by rounds.
        gflops: billions of floating-point operations a second, as direct convolution counts them: of engines
            those of the file, in which upsampler and tail are merged, of PyTorch those of the network.
        share: of the matrix product in the same precision, measured in the same rounds; of int8 that in bf16,
            and of both that in fp32 on a CPU without native bf16.
        seconds: one run.
    """

    model: str
    side: int
    engine: str
    megapixels: float
    to_eager: Spread
    gflops: float
    share: float
    seconds: Spread


def measure(options: argparse.Namespace) -> Section:
    """All models, all sizes."""
    torch.set_num_threads(options.threads or torch.get_num_threads())
    rows = [row for model in options.models for row in _model(model, options)]
    return Section(
        "throughput",
        f"Engines at x{options.scale}",
        "One network run on a square input, output pixels counted, no decoding or conversion. All engines of "
        f"a row group ran in turns ({options.repetitions} rounds, up to {_WARMED}² after a warm-up); the "
        "ratio is the median of the ratios within rounds. GFLOP/s count direct convolution (2 a "
        "multiply-add): of engines those of the file, with upsampler and tail merged and without what that "
        "repeats for precision and at borders, of eager those of the network. So a Winograd kernel may pass "
        "100% of the matrix product; int8 is held against that in bf16, or in fp32 on a CPU without native "
        "bf16.",
        (_rates(rows),),
        {"rows": [asdict(row) for row in rows]},
    )


def _model(model: str, options: argparse.Namespace) -> list[Rate]:
    file = catalog.resolve(model, options.scale)
    checkpoint = getattr(options, f"checkpoint_{file.spec.family}", None)
    network = contenders.from_checkpoint(checkpoint) if checkpoint else contenders.from_onnx(file)
    contenders.check_parity(network, file)
    engines = _engines(file, options.threads) | {_EAGER: contenders.runner(network, options.scale)}
    work = dict.fromkeys(engines, 2.0 * file.spec.macs) | {
        _EAGER: contenders.flops_per_pixel(network, options.scale)
    }
    return [row for side in options.sizes for row in _side(file, side, engines, work, options.repetitions)]


def _engines(file: ModelFile, threads: int) -> dict[str, Callable[[contenders.Batch], contenders.Batch]]:
    """What is installed and can do the precision, by name."""
    found: dict[str, Callable[[contenders.Batch], contenders.Batch]] = {}
    for backend, precision in ENGINES:
        try:
            engine = load(file, Case(backend, "cpu", precision), threads)
        except BackendUnavailableError as error:
            print(f"left out: {backend} {precision} ({error})", flush=True)
            continue
        found[f"{backend} {precision}"] = engine.run
    return found


def _side(
    file: ModelFile,
    side: int,
    engines: dict[str, Callable[[contenders.Batch], contenders.Batch]],
    work: Mapping[str, float],
    repetitions: int,
) -> list[Rate]:
    batch = np.random.default_rng(side).random((1, 3, side, side), dtype=np.float32)
    runs: dict[str, Run] = {name: timed(partial(run, batch)) for name, run in engines.items()}
    warmup = 1 if side <= _WARMED else 0  # a first round of three hardly moves the median
    products = _products()
    products_runs: dict[str, Run] = {p: timed(product.run) for p, product in products.items()}
    seconds = interleave(runs | products_runs, repetitions, warmup=warmup)
    peaks = {p: product.flop / spread(seconds[p]).median for p, product in products.items()}

    def row(name: str) -> Rate:
        taken = spread(seconds[name])
        flops = work[name] * side**2 / taken.median
        megapixels = (side * file.spec.scale) ** 2 / 1e6 / taken.median
        precision = name.rpartition(" ")[2]
        peak = peaks["fp32"] if precision == "fp32" else peaks.get("bf16", peaks["fp32"])
        to_eager = ratio(seconds[_EAGER], seconds[name])
        return Rate(file.name, side, name, megapixels, to_eager, flops / 1e9, flops / peak, taken)

    return [row(name) for name in engines]


def _products() -> dict[str, speed.Product]:
    """Matrix products by precision, of those that the CPU has natively."""
    found = {precision: speed.product("cpu", precision, 0) for precision in ("fp32", "bf16")}
    return {precision: product for precision, product in found.items() if product is not None}


def _rates(rows: list[Rate]) -> Table:
    header = ("model", "input", "engine", "MP/s", "× eager", "GFLOP/s", "of matrix product", "spread")
    return Table(
        header,
        tuple(
            (
                row.model,
                f"{row.side}²",
                row.engine,
                f"{row.megapixels:.2f}",
                f"{row.to_eager.median:.2f}",
                f"{row.gflops:.0f}",
                f"{row.share:.0%}",
                f"{row.seconds.width:.0%}",
            )
            for row in rows
        ),
    )


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One way to run tiles.

    Attributes:
        streams: tiles computed at once, each on its share of the cores.
        side: of the tile, LR pixels.
        megapixels: of output a second that end up in the picture: without the halos.
        kept: share of the computed pixels that do.
        to_default: rate over that of one stream with the largest tile, by rounds.
    """

    streams: int
    side: int
    megapixels: float
    kept: float
    to_default: Spread


def streams(options: argparse.Namespace) -> Section:
    """All streams and tiles in turns."""
    file = catalog.resolve(options.models[0], options.scale)
    file = file.at("int8") if has_fast_int8() else file
    shares = cores()
    engines = {streams: _queue(file, streams) for streams in (1, shares)}  # of one core, one
    cases = [(streams, side) for streams in engines for side in options.tiles]
    runs = {case: timed(partial(engines[case[0]], _tiles(case[1]))) for case in cases}
    seconds = interleave(runs, options.repetitions, warmup=1)
    rows = [_stream_row(file, case, seconds) for case in cases]
    return Section(
        "streams",
        f"Streams and tiles at x{options.scale}",
        f"{file.name} on OpenVINO, {_REQUESTS} tiles a run by asynchronous requests, "
        f"{options.repetitions} runs of each in turns after a warm-up; one stream has all cores, {shares} "
        f"streams have one each. Halos ({file.spec.halo} LR pixels a side) are computed and not counted.",
        (_stream_table(rows),),
        {"rows": [asdict(row) for row in rows]},
    )


def _queue(file: ModelFile, streams: int) -> Callable[[list[Any]], None]:
    """Runs tiles on so many streams."""
    library = import_openvino()
    core = library.Core()
    precision = "bf16" if has_bf16(core) else "f32"
    config = {"NUM_STREAMS": str(streams), "INFERENCE_PRECISION_HINT": precision}
    queue = library.AsyncInferQueue(compile_file(core, file.path, config), streams)

    def run(tiles: list[Any]) -> None:
        for tile in tiles:
            queue.start_async([tile])
        queue.wait_all()

    return run


def _tiles(side: int) -> list[Any]:
    return list(np.random.default_rng(side).random((_REQUESTS, 1, 3, side, side), np.float32))


def _stream_row(
    file: ModelFile, case: tuple[int, int], seconds: dict[tuple[int, int], list[float]]
) -> StreamRow:
    streams, side = case
    core = _core(file, side)
    kept = core**2 / side**2
    default = max(other for other in seconds if other[0] == 1)
    work = core**2 * file.spec.scale**2 * _REQUESTS / 1e6
    rates = {key: [_core(file, key[1]) ** 2 / s for s in taken] for key, taken in seconds.items()}
    return StreamRow(
        streams, side, work / spread(seconds[case]).median, kept, ratio(rates[case], rates[default])
    )


def _core(file: ModelFile, side: int) -> int:
    return max(0, side - 2 * file.spec.halo)


def _stream_table(rows: list[StreamRow]) -> Table:
    header = ("streams", "tile", "MP/s kept", "kept of computed", "to one stream, largest tile", "range")
    return Table(
        header,
        tuple(
            (
                str(row.streams),
                str(row.side),
                f"{row.megapixels:.2f}",
                f"{row.kept:.0%}",
                f"{row.to_default.median:.2f}",
                f"{row.to_default.lowest:.2f} – {row.to_default.highest:.2f}",
            )
            for row in rows
        ),
    )
