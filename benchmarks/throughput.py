"""Engines on square inputs beside plain PyTorch on the same weights, and beside the machine's best."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

import eager
from common import Section, Spread, Table, ratio, spread
from srcli.backends import registry
from srcli.backends.base import BackendOptions
from srcli.backends.torch import has_bf16
from srcli.benchmark.rounds import interleave, timed
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
_SIDE = 2048  # of the matrix products: 17 GFLOP each
_WARMED = 256

Run = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Row:
    """One engine on one size; rates are medians.

    Attributes:
        megapixels: of output, a second.
        to_eager: how many times as fast as plain PyTorch, by rounds.
        gflops: billions of floating-point operations a second, as direct convolution counts them: of engines
            those of the file, in which upsampler and tail are merged, of PyTorch those of the network.
        share: of the matrix product in the same precision, measured in the same rounds; of int8 that in bf16,
            and of both that in fp32 where PyTorch has no native bf16.
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
        (_table(rows),),
        {"rows": [asdict(row) for row in rows]},
    )


def _model(model: str, options: argparse.Namespace) -> list[Row]:
    file = catalog.resolve(model, options.scale)
    checkpoint = getattr(options, f"checkpoint_{file.spec.family}", None)
    network = eager.from_checkpoint(checkpoint) if checkpoint else eager.from_onnx(file)
    eager.check_parity(network, file)
    engines = _engines(file, options.threads) | {_EAGER: eager.runner(network, options.scale)}
    work = dict.fromkeys(engines, 2.0 * file.spec.macs) | {
        _EAGER: eager.flops_per_pixel(network, options.scale)
    }
    return [row for side in options.sizes for row in _side(file, side, engines, work, options.repetitions)]


def _engines(file: ModelFile, threads: int) -> dict[str, Callable[[eager.Batch], eager.Batch]]:
    """What is installed and can do the precision, by name."""
    found: dict[str, Callable[[eager.Batch], eager.Batch]] = {}
    for backend, precision in ENGINES:
        try:
            one = file.at(precision)
            engine = registry.load(backend, one.path, one.spec, BackendOptions(precision, "cpu", threads))
        except BackendUnavailableError as error:
            print(f"left out: {backend} {precision} ({error})", flush=True)
            continue
        found[f"{backend} {precision}"] = engine.run
    return found


def _side(
    file: ModelFile,
    side: int,
    engines: dict[str, Callable[[eager.Batch], eager.Batch]],
    work: Mapping[str, float],
    repetitions: int,
) -> list[Row]:
    batch = np.random.default_rng(side).random((1, 3, side, side), dtype=np.float32)
    runs: dict[str, Run] = {name: timed(partial(run, batch)) for name, run in engines.items()}
    warmup = 1 if side <= _WARMED else 0  # a first round of three hardly moves the median
    products = _products()
    seconds = interleave(runs | products, repetitions, warmup=warmup)
    peaks = {precision: 2 * _SIDE**3 / spread(seconds[precision]).median for precision in products}

    def row(name: str) -> Row:
        taken = spread(seconds[name])
        flops = work[name] * side**2 / taken.median
        megapixels = (side * file.spec.scale) ** 2 / 1e6 / taken.median
        precision = name.rpartition(" ")[2]
        peak = peaks["fp32"] if precision == "fp32" else peaks.get("bf16", peaks["fp32"])
        to_eager = ratio(seconds[_EAGER], seconds[name])
        return Row(file.name, side, name, megapixels, to_eager, flops / 1e9, flops / peak, taken)

    return [row(name) for name in engines]


def _products() -> dict[str, Run]:
    """Matrix products by precision, of those that the CPU has natively."""
    dtypes = {"fp32": torch.float32}
    if has_bf16(torch, torch.device("cpu")):
        dtypes["bf16"] = torch.bfloat16
    matrices = {p: [torch.rand(_SIDE, _SIDE).to(dtype) for _ in range(2)] for p, dtype in dtypes.items()}
    return {precision: timed(partial(torch.mm, *pair)) for precision, pair in matrices.items()}


def _table(rows: list[Row]) -> Table:
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
                f"{row.seconds.percent:.0f}%",
            )
            for row in rows
        ),
    )
