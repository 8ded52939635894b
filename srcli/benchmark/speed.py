"""How fast engines run one tile, beside the machine's best in the same precision."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from srcli.backends import table
from srcli.backends.base import Batch, Engine, EngineInfo
from srcli.benchmark import peak
from srcli.benchmark.peak import Product
from srcli.benchmark.plan import Case, Request, Subject
from srcli.benchmark.rounds import Run, Spread, interleave, timed
from srcli.errors import InferenceError
from srcli.spec import ModelSpec

Peak = tuple[str, str]
"""A device and a precision that a matrix product is measured for."""


@dataclass(frozen=True, slots=True)
class Speed:
    """One engine on one size.

    Attributes:
        info: what really ran.
        latency: seconds for one tile, from float pixels to float pixels.
        megapixels: of output, a second (median).
        tflops: 10**12 floating-point operations a second (median), as direct convolution counts them; None
            where the model does not say how many it takes.
        peak: the same of a large matrix product in the same precision; None where nothing can show it.
    """

    info: EngineInfo
    latency: Spread
    megapixels: float
    tflops: float | None
    peak: float | None


def measure(subject: Subject, request: Request) -> dict[tuple[Case, int], Speed]:
    """Every case at every size; all cases of one size run in turns, with the matrix products.

    Raises:
        InferenceError: an engine failed, or the input does not fit into memory.
    """
    spec, path = subject.file.spec, subject.file.path
    engines = {
        case: table.load(case.backend, path, spec, case.options(request.threads)) for case in subject.cases
    }
    products = _products(subject.cases, request.threads) if spec.macs else {}
    return {
        (case, size): speed
        for size in request.sizes
        for case, speed in _at(size, engines, products, spec, request.repetitions).items()
    }


def flop(spec: ModelSpec, size: int) -> float:
    """Floating-point operations for a square of that side in LR pixels: two a multiply-add; 0: unknown."""
    return 2.0 * spec.macs * size**2


def _at(
    size: int,
    engines: Mapping[Case, Engine],
    products: Mapping[Peak, Product],
    spec: ModelSpec,
    repetitions: int,
) -> dict[Case, Speed]:
    batch = np.random.default_rng(size).random((1, 3, size, size), dtype=np.float32)
    runs: dict[Case | Peak, Run] = {
        case: timed(_fitting(engine.run, batch, case)) for case, engine in engines.items()
    }
    runs |= {key: timed(product.run) for key, product in products.items()}
    seconds = interleave(runs, repetitions)
    peaks = {key: p.flop / Spread.of(seconds[key]).median / 1e12 for key, p in products.items()}

    def speed(case: Case, engine: Engine) -> Speed:
        latency, work = Spread.of(seconds[case]), flop(spec, size)
        megapixels = (size * spec.scale) ** 2 / 1e6 / latency.median
        tflops = work / latency.median / 1e12 if work else None
        return Speed(engine.info, latency, megapixels, tflops, peaks.get((case.device, case.precision)))

    return {case: speed(case, engine) for case, engine in engines.items()}


def _products(cases: tuple[Case, ...], threads: int) -> dict[Peak, Product]:
    wanted = dict.fromkeys((case.device, case.precision) for case in cases)
    found = {key: peak.product(*key, threads) for key in wanted}
    return {key: product for key, product in found.items() if product is not None}


def _fitting(run: Callable[[Batch], Batch], batch: Batch, case: Case) -> Callable[[], Batch]:
    """One tile; memory that runs out is said with what to do."""
    work = partial(run, batch)

    def one() -> Batch:
        try:
            return work()
        except MemoryError as error:
            size = f"{batch.shape[3]}×{batch.shape[2]}"
            raise InferenceError(
                f"{case.name}: out of memory at {size}.", "Give a smaller --size."
            ) from error

    return one
