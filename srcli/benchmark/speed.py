"""How fast engines start, run one tile, and run many as the pipeline does, beside the machine's best."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import repeat
from typing import Any

import numpy as np

from srcli.backends.base import Batch, Concurrent, Engine, EngineInfo, Uint8Engine, results
from srcli.backends.openvino import import_openvino
from srcli.benchmark.rounds import Attempts, Job, Run, Spread, Start, keeping, start, timed
from srcli.benchmark.subjects import Case, Request, Subject, load, windows
from srcli.models.spec import ModelSpec

AT_ONCE = 8
"""Tiles in a row for engines that work on several at once, where the input is a single one."""

SIDE = 2048
"""Of the matrices; their product takes 2 * SIDE**3 floating-point operations, 17 billion."""

GPU_SIDE = 8192
"""The same on a GPU, which smaller ones do not fill: 1.1 trillion."""

_ON_GPU = 8  # products for each synchronisation: one alone is soon over
_TORCH_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

Peak = tuple[str, str]
"""A device and a precision that a matrix product is measured for."""

Key = tuple[Case, int]
"""A case and the side of its input."""


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product ready to run.

    Attributes:
        run: does it.
        flop: floating-point operations of one run; a multiply-add counts as two.
        by: what computes it, e.g. "openvino".
    """

    run: Callable[[], object]
    flop: float
    by: str


@dataclass(frozen=True, slots=True)
class Work:
    """What one input asks of an engine.

    Attributes:
        size: side of the input, LR pixels.
        side: of its tiles, halo included.
        tiles: how many there are.
    """

    size: int
    side: int
    tiles: int


@dataclass(frozen=True, slots=True)
class Speed:
    """One engine on one input.

    Attributes:
        info: what really ran.
        latency: seconds for one tile, from float pixels to float pixels.
        tiles: how many were run in a row, as the pipeline runs them, for what follows; 1: it is that tile.
        megapixels: of output, a second (median); what halos compute twice does not count.
        tflops: 10**12 floating-point operations a second (median), as direct convolution counts them, halos
            included; None where the model does not say how many it takes.
        peak: the same of a large matrix product in the same precision; None where nothing can show it.
    """

    info: EngineInfo
    latency: Spread
    tiles: int
    megapixels: float
    tflops: float | None
    peak: float | None


def starts(subject: Subject, request: Request, attempts: Attempts[Key]) -> dict[Key, tuple[Spread, Start]]:
    """Seconds until the first tile, by case and side of the tile, and the process with the highest peak."""
    if not request.starts:
        return {}
    taken: dict[Key, list[Start]] = {(case, tile): [] for tile in request.tiles for case in subject.cases}
    runs = {key: keeping(partial(start, _job(subject, *key, request.threads)), taken[key]) for key in taken}
    seconds = attempts.interleave(runs, request.starts, warmup=0)
    largest = {key: max(taken[key], key=lambda one: one.host_memory or 0) for key in seconds}
    return {key: (Spread.of(one), largest[key]) for key, one in seconds.items()}


def _job(subject: Subject, case: Case, size: int, threads: int) -> Job:
    scale = subject.file.spec.scale
    return Job(subject.model, scale, case.backend, case.device, case.precision, size, threads, 0.0)


def measure(subject: Subject, request: Request, attempts: Attempts[Key]) -> dict[Key, Speed]:
    """Every case at every size; all cases of one size run in turns, with the matrix products."""
    loaded = Attempts[Case]()
    engines = {
        case: loaded.of(case, partial(load, subject.file, case, request.threads)) for case in subject.cases
    }
    attempts.problems |= {(c, size): why for c, why in loaded.problems.items() for size in request.sizes}
    ready = {case: engine for case, engine in engines.items() if engine is not None}
    products = _products(subject.cases, request.threads) if subject.file.spec.macs else {}
    found: dict[Key, Speed] = {}
    for size in request.sizes:
        for work, cases in _works(subject, request, size, ready).items():
            at = _At(work, subject.file.spec, {case: ready[case] for case in cases}, products)
            found |= at.measure(request.repetitions, attempts)
    return found


def _works(subject: Subject, request: Request, size: int, cases: Iterable[Case]) -> dict[Work, list[Case]]:
    """The cases by the tiles they need: int8 may have another halo, which matters beyond one tile."""
    found: dict[Work, list[Case]] = {}
    for case in cases:
        tiles, side = windows(size, request.tile_of(size), subject.file.at(case.precision).spec.halo)
        found.setdefault(Work(size, side, tiles), []).append(case)
    return found


def drain(engine: Engine, batches: Iterable[Batch]) -> None:
    """Run batches with the call that `srcli.tiled` makes for pictures of 8 bits, and drop the results.

    Raises:
        MemoryError, InferenceError: as `Engine.run`.
    """
    made = engine.run_uint8(batches) if isinstance(engine, Uint8Engine) else results(engine, batches)
    deque(made, maxlen=0)


def flop(spec: ModelSpec, size: int) -> float:
    """Floating-point operations for a square of that side in LR pixels: two a multiply-add; 0: unknown."""
    return 2.0 * spec.macs * size**2


@dataclass(frozen=True, slots=True)
class _At:
    """All engines on one input."""

    work: Work
    spec: ModelSpec
    engines: Mapping[Case, Engine]
    products: Mapping[Peak, Product]

    def measure(self, repetitions: int, attempts: Attempts[Key]) -> dict[Key, Speed]:
        side = self.work.side
        batch = np.random.default_rng(side).random((1, 3, side, side), dtype=np.float32)
        alone: dict[tuple[str, Case | Peak], Run] = {
            ("tile", case): timed(partial(engine.run, batch)) for case, engine in self.engines.items()
        }
        alone |= {("row", c): self._row(e, batch) for c, e in self.engines.items() if self._many(e) > 1}
        alone |= {("peak", key): timed(product.run) for key, product in self.products.items()}
        tried = Attempts[tuple[str, Case | Peak]]()
        seconds = tried.interleave(alone, repetitions)
        problems = {case: why for (_, case), why in tried.problems.items() if isinstance(case, Case)}
        attempts.problems |= {(case, self.work.size): why for case, why in problems.items()}
        return {
            (case, self.work.size): self._speed(case, engine, seconds)
            for case, engine in self.engines.items()
            if case not in problems
        }

    def _many(self, engine: Engine) -> int:
        """Tiles to run in a row."""
        able = isinstance(engine, (Concurrent, Uint8Engine))
        return max(self.work.tiles, AT_ONCE if able else 1)

    def _row(self, engine: Engine, batch: Batch) -> Run:
        return timed(lambda: drain(engine, repeat(batch, self._many(engine))))

    def _speed(
        self, case: Case, engine: Engine, seconds: Mapping[tuple[str, Case | Peak], list[float]]
    ) -> Speed:
        many, key = self._many(engine), (case.device, case.precision)
        latency = Spread.of(seconds["tile", case])
        taken = Spread.of(seconds["row", case]).median if many > 1 else latency.median
        pictures = many / self.work.tiles
        megapixels = pictures * (self.work.size * self.spec.scale) ** 2 / 1e6 / taken
        tflops = many * flop(self.spec, self.work.side) / taken / 1e12 or None
        best = seconds.get(("peak", key))
        reached = self.products[key].flop / Spread.of(best).median / 1e12 if best else None
        return Speed(engine.info, latency, many, megapixels, tflops, reached)


def _products(cases: tuple[Case, ...], threads: int) -> dict[Peak, Product]:
    """What shows the peaks; without it there is no share, and all else stands."""
    wanted = dict.fromkeys((case.device, case.precision) for case in cases)
    attempts = Attempts[Peak]()
    found = {key: attempts.of(key, partial(product, *key, threads)) for key in wanted}
    return {key: product for key, product in found.items() if product is not None}


def product(device: str, precision: str, threads: int) -> Product | None:
    """The product that shows the peak of a device in a precision; None where nothing here can show it.

    On the CPU it is OpenVINO's, or numpy's for fp32 where OpenVINO is not installed (numpy's libraries
    take their number of threads from the environment). On CUDA it is PyTorch's.
    """
    if device.startswith("cuda"):
        return _by_torch(device, precision)
    if device != "cpu":
        return None
    return _by_openvino(precision, threads) or (_by_numpy() if precision == "fp32" else None)


def _matrices() -> tuple[Any, Any]:
    draw = np.random.default_rng(0)
    return draw.random((SIDE, SIDE), np.float32), draw.random((SIDE, SIDE), np.float32)


def _by_numpy() -> Product:
    a, b = _matrices()
    out = np.empty_like(a)
    return Product(lambda: np.matmul(a, b, out=out), 2.0 * SIDE**3, "numpy")


def _by_openvino(precision: str, threads: int) -> Product | None:
    """The second matrix is a constant, as the weights of a network are."""
    if find_spec("openvino") is None or precision not in ("fp32", "bf16"):
        return None
    openvino = import_openvino()
    ops = openvino.opset13
    a, b = _matrices()
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision.replace("fp32", "f32"),
    }
    try:
        left = ops.parameter([SIDE, SIDE], np.float32)
        model = openvino.Model([ops.matmul(left, ops.constant(b), False, False)], [left])
        more = {"INFERENCE_NUM_THREADS": threads} if threads else {}
        compiled = openvino.Core().compile_model(model, "CPU", config | more)
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    except (ImportError, RuntimeError):
        return None
    request = compiled.create_infer_request()
    run = Product(lambda: request.infer([a], share_inputs=True), 2.0 * SIDE**3, "openvino")
    return run if used == precision.replace("fp32", "f32") else None


def _by_torch(device: str, precision: str) -> Product | None:
    if find_spec("torch") is None:
        return None
    import torch

    dtype = getattr(torch, _TORCH_TYPES[precision])
    a, b = (torch.rand(GPU_SIDE, GPU_SIDE, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)

    def run() -> None:
        for _ in range(_ON_GPU):
            torch.mm(a, b, out=out)
        torch.cuda.synchronize(device)

    return Product(run, 2.0 * GPU_SIDE**3 * _ON_GPU, "torch")
