"""How fast engines run one tile, and many as the pipeline does, beside the machine's best."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import repeat

import numpy as np

from srcli.backends import registry
from srcli.backends.base import Batch, Concurrent, Engine, EngineInfo, Finishing, results
from srcli.benchmark import peak
from srcli.benchmark.attempts import Attempts
from srcli.benchmark.peak import Product
from srcli.benchmark.plan import Case, Request, Subject, windows
from srcli.benchmark.rounds import Run, Spread, timed
from srcli.models.spec import ModelSpec

AT_ONCE = 8
"""Tiles in a row for engines that work on several at once, where the input is a single one."""

Peak = tuple[str, str]
"""A device and a precision that a matrix product is measured for."""

Key = tuple[Case, int]
"""A case and the side of its input."""


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


def measure(subject: Subject, request: Request, attempts: Attempts[Key]) -> dict[Key, Speed]:
    """Every case at every size; all cases of one size run in turns, with the matrix products."""
    loaded = Attempts[Case]()
    engines = {case: loaded.of(case, partial(_load, subject, case, request)) for case in subject.cases}
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
    made = engine.run_levels(batches) if isinstance(engine, Finishing) else results(engine, batches)
    deque(made, maxlen=0)


def flop(spec: ModelSpec, size: int) -> float:
    """Floating-point operations for a square of that side in LR pixels: two a multiply-add; 0: unknown."""
    return 2.0 * spec.macs * size**2


def _load(subject: Subject, case: Case, request: Request) -> Engine:
    file = subject.file.at(case.precision)
    return registry.load(case.backend, file.path, file.spec, case.options(request.threads))


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
        able = isinstance(engine, (Concurrent, Finishing))
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
    found = {key: attempts.of(key, partial(peak.product, *key, threads)) for key in wanted}
    return {key: product for key, product in found.items() if product is not None}
