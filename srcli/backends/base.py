"""What every backend promises: one model file in, one Engine out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from srcli.models.spec import ModelSpec

Batch = NDArray[np.float32]
"""(N, C, H, W) float32 RGB, 0-1, C-contiguous."""

Levels = NDArray[np.uint8]
"""(N, H, W, C) uint8 RGB, 0-255: pixels in the order of a picture."""


def say_nothing(text: str) -> None:
    """A listener that nobody listens to."""


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """What the user asked for; "auto" and 0 leave the choice to the backend.

    Attributes:
        precision: "auto", "fp32", "bf16", "fp16" or, for int8 files, "int8". Anything but "auto"
            is used or refused.
        device: "auto", "cpu", "cuda", "cuda:1", ... Anything but "auto" is used or refused; "cuda:0,1" and
            "all" (GPUs) share a picture's tiles.
        threads: CPU threads; 0 means all cores this process may use.
        tell: hears, in lines for people, of work that takes long before anything runs: an engine being
            built, how far it is, how long it will still take. Any thread may call it.
    """

    precision: str = "auto"
    device: str = "auto"
    threads: int = 0
    tell: Callable[[str], None] = field(default=say_nothing, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is really running, verified after loading: never what was merely asked for."""

    backend: str
    device: str
    precision: str


def in_use(spec: ModelSpec, precision: str) -> str:
    """The precision to report for a network that was loaded in one: a quantised one computes in int8."""
    return "int8" if spec.arithmetic == "int8" else precision


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


@runtime_checkable
class Concurrent(Protocol):
    """An engine that may work on several batches at once: on streams, or on several devices."""

    def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """As `Engine.run` on each, results in order; takes the next batches before it gives a result."""


def results(engine: Engine, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Run batches of any sizes and give the results in order, several at once where the engine can.

    Raises:
        MemoryError, InferenceError: as `Engine.run`; some results may not be given out then.
    """
    return engine.run_each(batches) if isinstance(engine, Concurrent) else map(engine.run, batches)


@runtime_checkable
class Finishing(Protocol):
    """An engine that can also finish 8-bit pixels on its device: less to bring back, nothing to convert."""

    def run_levels(self, batches: Iterable[Batch]) -> Iterator[Levels | None]:
        """As `Concurrent.run_each`, each result rounded and clipped as `pixels.from_network` does it.

        None stands for a result in which a value was no number.
        """


class Backend(Protocol):
    """A module-level `load` of each file in this folder."""

    def __call__(self, path: Path, spec: ModelSpec, options: BackendOptions) -> Engine:
        """Load a model file.

        Raises:
            MissingExtraError: the package behind this backend is not installed.
            BackendUnavailableError: device or precision cannot be had here.
            ModelFileError: the file cannot be loaded.
        """
