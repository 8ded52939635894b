"""Which TensorRT is installed: the full one (10 or 11), or TensorRT for RTX; both have the same API here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any

from srcli.backends import devices
from srcli.backends.devices import Driver, Gpu
from srcli.errors import BackendUnavailableError, MissingExtraError

MODULES = ("tensorrt", "tensorrt_rtx")
"""The full one first: it tunes its kernels on the GPU itself, and takes data-centre GPUs."""

WHAT = "The tensorrt backend"
_OLDEST = (10, 0)  # of the full TensorRT: older ones know no strongly typed networks of this kind
_CUDA_MAJORS = (13, 12)
_KNOWN: dict[str, Callable[[tuple[int, ...]], bool]] = {
    "tensorrt": lambda capability: capability >= (7, 5),
    "tensorrt_rtx": lambda capability: (
        capability in ((7, 5), (8, 0), (8, 6), (8, 9)) or capability >= (12, 0)
    ),
}
"""Compute capabilities that the flavours say they run on."""


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
        """Whether its engines can be built without a GPU, for any GPU: kernels are compiled when they run."""
        return hasattr(self.api, "IRuntimeCache")


def installed() -> tuple[str, ...]:
    """Names of the flavours there are; nothing is imported."""
    return tuple(name for name in MODULES if find_spec(name) is not None)


def fitting(found: Driver) -> tuple[str, ...]:
    """Those installed that this driver can run, before all others what lists the first GPU."""
    names = [name for name in installed() if not found.problem and cuda_of(name) <= float(found.cuda)]
    return tuple(sorted(names, key=lambda name: not _lists(name, found.gpus[0])))


def find(names: Sequence[str]) -> Flavour:
    """Import the first flavour of these that works.

    One that does not fit the driver may end the process: take `fitting` where there is a GPU.

    Raises:
        MissingExtraError: there are none.
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
            problems.append(f"tensorrt {api.__version__} is too old, 10.0 is the oldest that serves")
            continue
        return Flavour(name, api.__version__, api)
    raise BackendUnavailableError(
        f"{WHAT} cannot start ({'; '.join(problems)}).",
        f'Install it again: pip install "srcli[{extra(devices.ask())}]"',
    )


def extra(found: Driver) -> str:
    """The extra of pyproject.toml that brings TensorRT for the first GPU: RTX's where that lists it."""
    only_full = found.gpus and not _lists("tensorrt_rtx", found.gpus[0]) and _lists("tensorrt", found.gpus[0])
    return "trt-full" if only_full else "trt"


def misplaced(found: Driver) -> bool:
    """Whether TensorRT for RTX is all there is to run, on a GPU that only the full one lists."""
    return installed() == fitting(found) == ("tensorrt_rtx",) and extra(found) == "trt-full"


def cuda_of(name: str) -> int:
    """Major CUDA version that an installed flavour is built for, as its packages say; 0: not known."""
    for major in _CUDA_MAJORS:
        try:
            metadata.version(f"{name}_cu{major}")
        except metadata.PackageNotFoundError:
            continue
        return major
    return 0


def usable(found: Driver) -> bool:
    """Whether "auto" may take this backend: an installed flavour is known to run on the first GPU.

    By name it is tried on others, too.
    """
    try:
        check_driver(found)
    except BackendUnavailableError:
        return False
    return any(_lists(name, found.gpus[0]) for name in fitting(found))


def _lists(name: str, gpu: Gpu) -> bool:
    return _KNOWN[name](_numbers(gpu.capability))


def check_driver(found: Driver) -> None:
    """Refuse a machine on which an installed TensorRT cannot run.

    Raises:
        BackendUnavailableError: no driver, no GPU, or a driver too old for every installed flavour.
    """
    if found.problem:
        hint = "Use --backend auto. `srcli doctor` tells what runs here."
        raise BackendUnavailableError(f"{WHAT} needs an NVIDIA GPU, but {found.problem}.", hint)
    needs = [cuda_of(name) for name in installed()]
    if needs and not fitting(found):
        raise BackendUnavailableError(
            f"The NVIDIA driver runs CUDA {found.cuda} at most, this TensorRT needs {min(needs)}.",
            "Update the driver. `srcli doctor` tells what runs here.",
        )


def capability_name(api: Any, gpu: Gpu) -> str | None:
    """TensorRT for RTX's name of a GPU's compute capability; None where it lists none, e.g. 9.0."""
    name = "SM" + gpu.capability.replace(".", "")
    return name if hasattr(getattr(api, "ComputeCapability", None), name) else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
