"""Which TensorRT is installed, full (10 or 11) or for RTX, with the same API here; its log and its errors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from importlib.util import find_spec
from threading import get_ident
from typing import Any

from srcli.backends import devices
from srcli.backends.base import run_failed
from srcli.backends.devices import Driver, Gpu
from srcli.errors import BackendUnavailableError, InferenceError, MissingExtraError

NAME = "tensorrt"

MODULES = ("tensorrt", "tensorrt_rtx")
"""The full one first: it tunes its kernels on the GPU, and supports data-centre GPUs."""

WHAT = "The tensorrt backend"
_OLDEST = (10, 0)  # full TensorRT; older ones have no strongly typed networks of this kind
_CUDA_MAJORS = (13, 12)
_SUPPORTED: dict[str, Callable[[tuple[int, ...]], bool]] = {
    "tensorrt": lambda capability: capability >= (7, 5),
    "tensorrt_rtx": lambda capability: (
        capability in ((7, 5), (8, 0), (8, 6), (8, 9)) or capability >= (12, 0)
    ),
}
"""Compute capabilities that the flavours officially support."""

_NO_MEMORY = (
    "outofmemory",
    "within workspace limit",
    "volume exceeds",  # of a tensor, which has at most 2^31 - 1 elements, whatever the memory
    "could not find any implementation",  # of the full TensorRT, where no kernel's scratch memory fits
)


@dataclass(frozen=True, slots=True)
class Flavour:
    """An imported TensorRT.

    Attributes:
        name: "tensorrt" or "tensorrt_rtx".
        version: its own.
        api: the module.
    """

    name: str
    version: str
    api: Any

    @property
    def portable(self) -> bool:
        """Whether it builds without a GPU, for any GPU: kernels are compiled when they first run."""
        return hasattr(self.api, "IRuntimeCache")


def installed() -> tuple[str, ...]:
    """Names of the installed flavours; nothing is imported."""
    return tuple(name for name in MODULES if find_spec(name) is not None)


def fitting(found: Driver) -> tuple[str, ...]:
    """Installed flavours that this driver can run, first those that support the first GPU."""
    names = [name for name in installed() if not found.problem and cuda_of(name) <= float(found.cuda)]
    return tuple(sorted(names, key=lambda name: not _supports(name, found.gpus[0])))


def find(names: Sequence[str]) -> Flavour:
    """Import the first of these flavours that works.

    One that does not fit the driver may end the process: pass `fitting` where there is a GPU.

    Raises:
        MissingExtraError: no names are given.
        BackendUnavailableError: none can be imported, or all are too old.
    """
    if not names:
        raise MissingExtraError(WHAT, extra(devices.ask()))
    problems = []
    for name in names:
        try:
            api = import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            problems.append(f"{name} cannot be imported: {error}")
            continue
        if name == "tensorrt" and _numbers(api.__version__) < _OLDEST:
            problems.append(f"tensorrt {api.__version__} is too old, 10.0 or later is needed")
            continue
        return Flavour(name, api.__version__, api)
    raise BackendUnavailableError(
        f"{WHAT} cannot start ({'; '.join(problems)}).",
        f'Install it again: pip install "srcli[{extra(devices.ask())}]"',
    )


def extra(found: Driver) -> str:
    """The extra of pyproject.toml with the TensorRT for the first GPU: that for RTX where it supports it."""
    only_full = (
        found.gpus and not _supports("tensorrt_rtx", found.gpus[0]) and _supports("tensorrt", found.gpus[0])
    )
    return "trt-full" if only_full else "trt"


def needs_full(found: Driver) -> bool:
    """Whether only TensorRT for RTX is installed, on a GPU that only the full one supports."""
    return installed() == fitting(found) == ("tensorrt_rtx",) and extra(found) == "trt-full"


def cuda_of(name: str) -> int:
    """Major CUDA version that an installed flavour is built for, as its packages say; 0: unknown."""
    for major in _CUDA_MAJORS:
        try:
            metadata.version(f"{name}_cu{major}")
        except metadata.PackageNotFoundError:
            continue
        return major
    return 0


def usable(found: Driver) -> bool:
    """Whether "auto" may take this backend: an installed flavour supports the first GPU.

    Asked for by name, the backend is also tried on others.
    """
    try:
        check_driver(found)
    except BackendUnavailableError:
        return False
    return any(_supports(name, found.gpus[0]) for name in fitting(found))


def _supports(name: str, gpu: Gpu) -> bool:
    return _SUPPORTED[name](_numbers(gpu.capability))


def check_driver(found: Driver) -> None:
    """Check that an installed TensorRT can run on this machine.

    Raises:
        BackendUnavailableError: no driver, no GPU, or a driver too old for every installed flavour.
    """
    if found.problem:
        hint = "Use --backend auto. `srcli doctor` shows what runs here."
        raise BackendUnavailableError(f"{WHAT} needs an NVIDIA GPU, but {found.problem}.", hint)
    needs = [cuda_of(name) for name in installed()]
    if needs and not fitting(found):
        raise BackendUnavailableError(
            f"The NVIDIA driver runs CUDA {found.cuda} at most, this TensorRT needs {min(needs)}.",
            "Update the driver. `srcli doctor` shows what runs here.",
        )


def capability_name(api: Any, gpu: Gpu) -> str | None:
    """TensorRT for RTX's name of a GPU's compute capability; None for those it does not list, e.g. 9.0."""
    name = "SM" + gpu.capability.replace(".", "")
    return name if hasattr(getattr(api, "ComputeCapability", None), name) else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


@dataclass(frozen=True, slots=True)
class ErrorLog:
    """A logger for TensorRT that prints nothing and keeps the errors of each thread."""

    logger: Any
    errors: dict[int, list[str]]

    @classmethod
    @cache
    def of(cls, api: Any) -> "ErrorLog":
        """The one of this process: TensorRT uses only the first logger that it is given."""
        errors: dict[int, list[str]] = {}
        serious = (api.ILogger.INTERNAL_ERROR, api.ILogger.ERROR)

        class Logger(api.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                api.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in serious:
                    errors.setdefault(get_ident(), []).append(msg)

        return cls(Logger(), errors)

    def take(self) -> str:
        """The errors of this thread since the last call, removed from the log."""
        return "; ".join(self.errors.pop(get_ident(), [])) or "no reason given"

    def clear(self) -> None:
        """Remove the errors of this thread."""
        self.errors.pop(get_ident(), None)


def failure(text: str) -> MemoryError | InferenceError:
    """The error to raise for TensorRT's error text: MemoryError where that means too little memory."""
    if any(phrase in text.lower() for phrase in _NO_MEMORY):
        return MemoryError(f"{NAME}: {text[:200]}")
    return run_failed(NAME, RuntimeError(text))
