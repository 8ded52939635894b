"""What this machine can run, found out by running it, and what stands in the way of the rest."""

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from srcli.backends import devices, registry
from srcli.backends.base import BackendOptions, say_nothing
from srcli.backends.devices import Driver, Processor, processor
from srcli.backends.tensorrt import flavour
from srcli.errors import SrcliError
from srcli.models import catalog

PACKAGES = (
    "srcli",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "onnx",
    "tensorrt",
    "tensorrt-rtx",
)
_TILE = 32  # LR pixels a side of the trial
_CURES = {
    "torch": "Update the driver, or install a build for CUDA {major}: https://pytorch.org/get-started/locally/",
    "onnxruntime-gpu": "Update the driver.",
}
"""What to do about a package that is too new for the driver."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One backend in one precision on one device, tried on a small tile with a shipped model's file for it.

    Attributes:
        backend, device, precision: what was tried.
        works: whether an image came out.
        start: seconds to load, tile: seconds for a 32×32 tile; 0 where it does not work.
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
class Diagnosis:
    """Everything `srcli doctor` says.

    Attributes:
        system: operating system, Python.
        versions: of the installed packages that matter here.
        processor, nvidia: what could compute.
        trials: what was tried.
        problems: what is wrong with the installation, each with its cure.
    """

    system: str
    versions: dict[str, str]
    processor: Processor
    nvidia: Driver
    trials: tuple[Trial, ...]
    problems: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether a network can run, and nothing is wrong."""
        return any(t.works for t in self.trials if t.backend != "bicubic") and not self.problems


def examine(tell: Callable[[str], None] = say_nothing) -> Diagnosis:
    """Try every backend that is installed, in every precision, on every kind of device there is.

    `tell` hears of what takes long: an engine that is built for its trial.
    """
    nvidia, versions = devices.ask(), installed()
    return Diagnosis(
        system=system(),
        versions=versions,
        processor=processor(),
        nvidia=nvidia,
        trials=tuple(tried for name in registry.BACKENDS for tried in _trials(name, nvidia, tell)),
        problems=tuple(problems(versions, nvidia, devices.cuda_of_packages())),
    )


def system() -> str:
    """Operating system and Python in a few words."""
    return f"{platform.platform()}, Python {platform.python_version()}"


def installed() -> dict[str, str]:
    """Versions of the packages that matter, without importing any of them."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def problems(versions: dict[str, str], nvidia: Driver, cuda: dict[str, str]) -> list[str]:
    """What is wrong with this combination of packages and driver, with the cure.

    Args:
        versions: of the installed packages.
        nvidia: the driver.
        cuda: version of CUDA that packages were built for, as far as they say.
    """
    found = []
    both = {"onnxruntime", "onnxruntime-gpu"}
    if both <= versions.keys():
        found.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other. "
            "Remove both: pip uninstall onnxruntime onnxruntime-gpu, then install one: "
            f'pip install "srcli[{"gpu" if nvidia.gpus else "cpu"}]"'
        )
    if nvidia.gpus and versions.get("torch", "").endswith("+cpu"):
        found.append(
            "There is a GPU, but this PyTorch is a CPU build. "
            "Install the CUDA build: https://pytorch.org/get-started/locally/"
        )
    too_new = [name for name in cuda if nvidia.gpus and name in versions and _newer(cuda[name], nvidia.cuda)]
    found += [
        f"The NVIDIA driver runs CUDA {nvidia.cuda} at most, {name} {versions[name]} was built for "
        f"{cuda[name]}. {_CURES[name].format(major=_major(nvidia.cuda))}"
        for name in too_new
    ]
    return found


def _newer(built_for: str, cuda: str) -> bool:
    """Whether a build asks too much of a driver, which runs those of its own major version and older ones."""
    return _major(built_for) > _major(cuda)


def _major(version: str) -> int:
    return int(version.partition(".")[0])


def _trials(name: str, nvidia: Driver, tell: Callable[[str], None]) -> list[Trial]:
    """Every precision on every device that the backend knows and the machine has."""
    entry = registry.BACKENDS[name]
    devices = registry.present(entry)
    if not devices:
        reason = f"It needs an NVIDIA GPU, but {nvidia.problem}."
        return [Trial(name, d, p, False, reason=reason) for d in entry.computes for p in entry.computes[d]]
    return [
        trial(name, device, precision, tell) for device in devices for precision in entry.computes[device]
    ]


def trial(name: str, device: str, precision: str, tell: Callable[[str], None] = say_nothing) -> Trial:
    """Load a shipped model on a backend and run one tile; never raises."""
    options = BackendOptions(precision, device, tell=tell)
    try:
        file = catalog.resolve("mdsr-baseline", 2).at(precision)
        begin = time.perf_counter()
        registry.choose(name, options)
        engine = registry.load(name, file.path, file.spec, options)
        loaded = time.perf_counter()
        lr = np.random.default_rng(0).random((1, 3, _TILE, _TILE), np.float32)
        sr = engine.run(lr)
        done = time.perf_counter()
    except SrcliError as error:
        return Trial(name, device, precision, False, reason=error.message, fix=_fix(name, error.hint))
    except Exception as error:  # a broken installation can fail in any way, and that is what is asked for
        reason = f"{type(error).__name__}: {error}"
        fix = _fix(name, "Reinstall its packages.")
        return Trial(name, device, precision, False, reason=reason, fix=fix)
    if not np.isfinite(sr).all():
        return Trial(name, device, precision, False, reason="It gave infinities or NaN.")
    return Trial(name, device, precision, True, loaded - begin, done - loaded)


def _fix(name: str, otherwise: str) -> str:
    """What to do; on a GPU that TensorRT for RTX does not list, whatever it fails with."""
    if name == "tensorrt" and flavour.misplaced(devices.ask()):
        return 'TensorRT for RTX does not list this GPU, the full one does: pip install "srcli[trt-full]"'
    return otherwise
