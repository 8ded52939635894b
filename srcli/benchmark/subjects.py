"""What a benchmark measures: which models, on which backends, devices and precisions, at which sizes."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from srcli import settings, tiles
from srcli.backends import devices, registry
from srcli.backends.base import BICUBIC, Engine, bicubic_spec
from srcli.backends.tensorrt import flavour
from srcli.errors import BackendUnavailableError, SrcliError, UsageError
from srcli.models import catalog
from srcli.models.catalog import ModelFile
from srcli.settings import Settings

PRECISIONS = tuple(precision for precision in settings.PRECISIONS if precision != "auto")
ALL = "all"
LARGEST_TILE = 1024
"""LR pixels a side: inputs beyond go through tiles, unless the user says otherwise."""

_TILE = 32  # LR pixels a side, of a trial
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for.

    Attributes:
        models: names or paths, as `catalog.resolve` takes them, or "bicubic".
        scales: of the networks.
        backends: names; empty: all that work here.
        precisions: "fp32", "bf16", "fp16", "int8"; empty: all that each backend has.
        device: "auto" (the CPU, and the GPU where there is one), "cpu", "cuda", "cuda:1".
        sizes: sides of the square inputs, LR pixels.
        tile: largest tile, LR pixels; an input up to that is one tile, a larger one goes through several, as
            the upscaler plans them.
        repetitions: rounds that count, after one that warms up.
        starts: fresh processes for each start-up; 0: it is not measured, nor is memory.
        pictures: folder of HR pictures to measure quality on; None: a rendered chart.
        threads: CPU threads; 0: all.
    """

    models: tuple[str, ...]
    scales: tuple[int, ...] = (4,)
    backends: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    device: str = "auto"
    sizes: tuple[int, ...] = (256,)
    tile: int = LARGEST_TILE
    repetitions: int = 10
    starts: int = 3
    pictures: Path | None = None
    threads: int = 0

    def tile_of(self, size: int) -> int:
        """The largest tile of an input of that side."""
        return min(size, self.tile)

    @property
    def tiles(self) -> tuple[int, ...]:
        """Those of all inputs, each once."""
        return tuple(dict.fromkeys(map(self.tile_of, self.sizes)))


@dataclass(frozen=True, slots=True)
class Case:
    """One way to run a network. The device is the one asked for, e.g. "cuda" for "cuda:0"."""

    backend: str
    device: str
    precision: str

    @property
    def name(self) -> str:
        """For people, e.g. "openvino bf16 cpu"."""
        return f"{self.backend} {self.precision} {self.device}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One backend in one precision on one device, tried on a small tile with a shipped model.

    Attributes:
        backend, device, precision: what was tried.
        works: whether it gave a finite result.
        start: seconds to load; tile: seconds for a 32×32 tile. Both 0 where it does not work.
        reason, fix: why it does not work, and what to do.
    """

    backend: str
    device: str
    precision: str
    works: bool
    start: float = 0.0
    tile: float = 0.0
    reason: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """One network at one scale and everything it is run on; `model` is what `Upscaler` takes."""

    model: str
    file: ModelFile
    cases: tuple[Case, ...]

    @property
    def name(self) -> str:
        """For people, e.g. "mdsr-baseline x4"."""
        return f"{self.file.name} x{self.file.spec.scale}"


def windows(size: int, tile: int, halo: int) -> tuple[int, int]:
    """(how many, their side): the tiles that a square input is computed in; alone, one has no halo."""
    if size <= tile:
        return 1, size
    largest = tiles.fit((size, size), max(tile, tiles.smallest_tile(halo)), halo)
    planned = tiles.plan((size, size), largest, halo)
    return len(planned), planned[0].window.height


def load(file: ModelFile, case: Case, threads: int = 0) -> Engine:
    """The engine of a network in one case; in int8 that of its int8 file, where it has one.

    Raises:
        MissingExtraError, BackendUnavailableError, ModelFileError: as `registry.load`.
    """
    one = file.at(case.precision)
    chosen = Settings(precision=case.precision, device=case.device, threads=threads)
    return registry.load(case.backend, one.path, one.spec, chosen)


def reference() -> Case:
    """fp32 on the CPU backend that `--backend auto` takes: what other precisions are held against.

    Raises:
        BackendUnavailableError: no backend runs networks here.
    """
    name = registry.choose("auto", Settings(precision="fp32", device="cpu")).name
    return Case(name, "cpu", "fp32")


def trial(name: str, device: str, precision: str) -> Trial:
    """Load a shipped model on a backend and run one tile; never raises."""
    chosen = Settings(precision=precision, device=device)
    try:
        file = catalog.resolve("mdsr-baseline", 2).at(precision)
        begin = time.perf_counter()
        registry.choose(name, chosen)
        engine = registry.load(name, file.path, file.spec, chosen)
        loaded = time.perf_counter()
        lr = np.random.default_rng(0).random((1, 3, _TILE, _TILE), np.float32)
        sr = engine.run(lr)
        done = time.perf_counter()
    except SrcliError as error:
        return Trial(name, device, precision, False, reason=error.message, fix=_fix(name, error.hint))
    except Exception as error:  # a broken installation can fail in any way
        reason = f"{type(error).__name__}: {error}"
        fix = _fix(name, "Reinstall its packages.")
        return Trial(name, device, precision, False, reason=reason, fix=fix)
    if not np.isfinite(sr).all():
        return Trial(name, device, precision, False, reason="It gave infinities or NaN.")
    return Trial(name, device, precision, True, loaded - begin, done - loaded)


def _fix(name: str, otherwise: str) -> str:
    """What to do; on a GPU that only full TensorRT supports, to install that, whatever the failure."""
    if name == "tensorrt" and flavour.needs_full(devices.ask()):
        return 'TensorRT for RTX does not support this GPU, the full one does: pip install "srcli[trt-full]"'
    return otherwise


def resolve(request: Request) -> tuple[Subject, ...]:
    """What will be measured, in order: resolves the models and tries the backends; logs what is left out.

    Raises:
        UsageError: a backend, precision, model or scale does not exist.
        BackendUnavailableError: something asked for by name cannot run here; with the trial's words.
    """
    request = replace(request, backends=tuple(dict.fromkeys(map(registry.canonical, request.backends))))
    networks = [_subject(model, scale) for model in request.models for scale in request.scales]
    cases = _cases(request)
    runs = tuple(case for case in cases if case.backend != BICUBIC)
    found = [(model, file) for model, file in networks if runs and model != BICUBIC]
    subjects = [Subject(model, file, _able(file, runs)) for model, file in found]
    _refuse_idle(request, subjects)
    subjects = [subject for subject in subjects if subject.cases]
    plain = tuple(case for case in cases if case.backend == BICUBIC)
    if plain or BICUBIC in request.models:
        plain = plain or (Case(BICUBIC, "cpu", "fp32"),)
        subjects += [Subject(BICUBIC, _bicubic(scale), plain) for scale in request.scales]
    return tuple(subjects)


def _able(file: ModelFile, cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """The ways to run a network: in int8 where it has such a file, and such a file in nothing else."""
    only, has = file.spec.arithmetic == "int8", bool(file.int8)
    able = tuple(case for case in cases if (only or has if case.precision == "int8" else not only))
    for case in cases:
        if case not in able:
            _log.info("left out: %s for %s, which is not of that precision", case.name, file.path.name)
    return able


def _refuse_idle(request: Request, subjects: Sequence[Subject]) -> None:
    """Backends and precisions asked for by name must each have a network that runs so.

    Raises:
        BackendUnavailableError: one has none.
    """
    cases = [case for subject in subjects for case in subject.cases]
    for name in (*request.precisions, *request.backends) if subjects else ():
        if name != BICUBIC and not any(name in (case.backend, case.precision) for case in cases):
            hint = "int8 takes a network with an int8 file, and such a file nothing else."
            raise BackendUnavailableError(f"None of the networks runs with {name}.", hint)


def _subject(model: str, scale: int) -> tuple[str, ModelFile]:
    """What `Upscaler` takes and the network it will then use, for a name, a family or a path."""
    if model == BICUBIC:
        return model, _bicubic(scale)
    file = catalog.resolve(model, scale)
    return (model if catalog.is_path(model) else file.name), file


def _bicubic(scale: int) -> ModelFile:
    return ModelFile(Path(), bicubic_spec(scale))


def _cases(request: Request) -> list[Case]:
    """What works of what was asked for."""
    _check_names("backend", request.backends, tuple(registry.BACKENDS), f"{ALL}, ")
    _check_names("precision", request.precisions, PRECISIONS, "")
    names = dict.fromkeys(request.backends or registry.BACKENDS)
    trials = [trial for name in names for trial in _trials(request, name)]
    _refuse(request, trials)
    for trial in trials:
        if not trial.works:
            _log.info("left out: %s", _explained(trial))
    return [Case(trial.backend, trial.device, trial.precision) for trial in trials if trial.works]


def _check_names(what: str, asked: Sequence[str], known: Sequence[str], more: str) -> None:
    for name in asked:
        if name not in known:
            raise UsageError(f"No {what} {name!r}.", f"Choose from {more}{', '.join(known)}.")


def _trials(request: Request, name: str) -> list[Trial]:
    """A trial of each precision on each device that was asked for or is there."""
    entry = registry.BACKENDS[name]
    here = registry.present(entry)
    if request.backends and not here:  # asked for by name: the trial says what is missing
        here = tuple(entry.computes)
    kinds = here if request.device == "auto" else (request.device,)
    return [
        trial(name, device, precision)
        for device in kinds
        for precision in dict.fromkeys(request.precisions or _precisions(entry, device))
    ]


def _precisions(entry: registry.Entry, device: str) -> tuple[str, ...]:
    """Those of a device; all, where the backend does not know it: the trial says so."""
    return entry.computes.get(device.partition(":")[0], entry.precisions)


def _refuse(request: Request, trials: list[Trial]) -> None:
    """Nothing asked for by name is dropped: each backend, each precision, and each pair of both must work.

    Raises:
        BackendUnavailableError: something does not; with the first reason.
    """
    groups = [
        [t for t in trials if backend in (None, t.backend) and precision in (None, t.precision)]
        for backend in (request.backends or (None,))
        for precision in (request.precisions or (None,))
    ]
    if not request.backends:  # bicubic alone would be no benchmark of networks
        groups = [[t for t in group if t.backend != BICUBIC] for group in groups]
    for group in groups:
        if not any(trial.works for trial in group):
            raise BackendUnavailableError(f"Cannot run here: {_named(group[0])}", group[0].fix)


def _explained(trial: Trial) -> str:
    return f"{_named(trial)} {trial.fix}".strip()


def _named(trial: Trial) -> str:
    return f"{trial.backend} {trial.precision} on {trial.device}: {trial.reason}"
