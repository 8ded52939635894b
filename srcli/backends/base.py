"""What every backend offers, one model file in, one `Engine` out; their errors; and bicubic, the simplest."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from srcli.errors import BackendUnavailableError, InferenceError, ModelFileError
from srcli.imaging.resize import imresize
from srcli.models.spec import ModelSpec
from srcli.settings import Settings

Batch = NDArray[np.float32]
"""(N, C, H, W) float32 RGB, 0-1, C-contiguous."""

Uint8Batch = NDArray[np.uint8]
"""(N, H, W, C) uint8 RGB, 0-255, channels last as in a picture."""

BICUBIC = "bicubic"
"""Name of the one backend that needs no model file."""

_BICUBIC_HALO = 3
"""LR pixels to each side: the kernel reads 2 when enlarging, and 1 is for the phase."""

_OUT_OF_MEMORY = (
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "can't allocate",
    "cannot allocate",
    "not enough memory",
    "alloc_failed",  # cuDNN's and cuBLAS's names for it
    "allocation_failed",  # cuDNN 9's
    "is smaller than requested bytes",  # ONNX Runtime's arena
)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Backend, device and precision in use, verified after loading rather than copied from the settings."""

    backend: str
    device: str
    precision: str


class Engine(Protocol):
    """A network loaded on a device. Not thread-safe: one caller at a time."""

    @property
    def info(self) -> EngineInfo:
        """Backend, device and precision in use."""

    @property
    def scale(self) -> int:
        """Output size / input size."""

    def run(self, lr: Batch) -> Batch:
        """(N, 3, H, W) 0-1 in, (N, 3, scale*H, scale*W) out; values may leave 0-1 slightly.

        Raises:
            MemoryError: the input is too large for the device; a smaller one may work.
            InferenceError: the backend failed for another reason.
        """


@dataclass(frozen=True, slots=True)
class Input:
    """What a network takes: name, dtype and shape, in which None is any size; no shape: not told."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@runtime_checkable
class Described(Protocol):
    """An engine that tells what its network takes."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """All that must be given at each run."""


@runtime_checkable
class Concurrent(Protocol):
    """An engine that computes several batches at once: on CUDA streams, or on several devices."""

    def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """`Engine.run` on each batch, results in order; reads batches ahead of the results it yields."""


@runtime_checkable
class Releasing(Protocol):
    """An engine that holds on to the memory of its largest window, and can give it back."""

    def release(self) -> None:
        """Free what only a next run needs; it is allocated again then."""


@runtime_checkable
class Uint8Engine(Protocol):
    """An engine that rounds to uint8 on its device: a quarter of the bytes to copy, nothing to convert."""

    def run_uint8(self, batches: Iterable[Batch]) -> Iterator[Uint8Batch | None]:
        """As `Concurrent.run_each`, each result rounded and clipped like `pixels.from_network`.

        Yields None for a result that holds infinities or NaN.
        """


class Backend(Protocol):
    """The function `load` of each backend's module."""

    def __call__(self, path: Path, spec: ModelSpec, settings: Settings) -> Engine:
        """Load a model file. Of the settings, precision, device and threads are read.

        Raises:
            MissingExtraError: the package behind this backend is not installed.
            BackendUnavailableError: the device or precision is not available here.
            ModelFileError: the file cannot be loaded.
        """


def results(engine: Engine, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Run batches of any sizes and yield the results in order, several at once where the engine can.

    Raises:
        MemoryError, InferenceError: as `Engine.run`; results already computed may be lost.
    """
    return engine.run_each(batches) if isinstance(engine, Concurrent) else map(engine.run, batches)


def reported_precision(spec: ModelSpec, precision: str) -> str:
    """The precision of `EngineInfo`: int8 for a quantised network, whatever the rest of it computes in."""
    return "int8" if spec.arithmetic == "int8" else precision


def choose_precision(backend: str, asked: str, possible: tuple[str, ...]) -> str:
    """The precision asked for, if it is possible; for "auto" the last of the possible ones.

    Raises:
        BackendUnavailableError: it is not possible.
    """
    if asked == "auto":
        return possible[-1]
    if asked not in possible:
        raise refused(backend, "precision", asked, possible)
    return asked


def refused(backend: str, what: str, asked: str, possible: tuple[str, ...]) -> BackendUnavailableError:
    """The error to raise for a device or precision that a backend lacks here; nothing falls back silently."""
    hint = f"Use {what} {', '.join(possible)}, or auto, or another backend."
    return BackendUnavailableError(f"The {backend} backend has no {what} {asked} here.", hint)


def run_failed(backend: str, error: Exception) -> MemoryError | InferenceError:
    """The error to raise for a library's error in a run: MemoryError where a smaller input may work."""
    text = str(error)
    if isinstance(error, MemoryError) or any(phrase in text.lower() for phrase in _OUT_OF_MEMORY):
        return MemoryError(f"{backend}: {one_line(error)}")
    return InferenceError(f"The {backend} backend failed: {one_line(error)}")


def load_failed(backend: str, path: Path, error: Exception) -> ModelFileError:
    """The error to raise when a library cannot load a model file."""
    hint = "Is the file complete? Export it again, or try another --backend."
    return ModelFileError(f"{path}: the {backend} backend cannot load it ({one_line(error)}).", hint)


def one_line(error: Exception) -> str:
    """The last line of an error's text, which is the innermost reason, cut to 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no reason given"


class BicubicEngine:
    """Bicubic interpolation, the baseline for comparisons.

    It is `imresize`, equal to MATLAB's up to the rounding of its first pass.
    """

    def __init__(self, scale: int) -> None:
        self.scale = scale
        self.info = EngineInfo(BICUBIC, "cpu", "fp32")

    def run(self, lr: Batch) -> Batch:
        """(N, 3, H, W) -> (N, 3, scale*H, scale*W)."""
        size = (lr.shape[2] * self.scale, lr.shape[3] * self.scale)
        images = [imresize(image.transpose(1, 2, 0), size).transpose(2, 0, 1) for image in lr]
        return np.ascontiguousarray(np.stack(images), np.float32)


def bicubic_spec(scale: int) -> ModelSpec:
    """The spec of bicubic interpolation, to use in place of a model file's."""
    return ModelSpec(
        BICUBIC, "other", scale, exact_halo=_BICUBIC_HALO, halo=_BICUBIC_HALO, license="Apache-2.0"
    )


def load_bicubic(path: Path, spec: ModelSpec, settings: Settings) -> BicubicEngine:
    """Bicubic interpolation by spec.scale; the path is ignored.

    Raises:
        BackendUnavailableError: another device than the CPU or another precision than fp32.
    """
    if settings.precision not in ("auto", "fp32"):
        raise refused(BICUBIC, "precision", settings.precision, ("fp32",))
    if settings.device not in ("auto", "cpu"):
        raise refused(BICUBIC, "device", settings.device, ("cpu",))
    return BicubicEngine(spec.scale)
