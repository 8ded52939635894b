"""All backends, which of them are installed, and which one "auto" takes."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from srcli.backends import devices
from srcli.backends.base import Backend, Engine, refused
from srcli.backends.devices import combine, split
from srcli.backends.feeding import fed
from srcli.errors import BackendUnavailableError, MissingExtraError, UsageError
from srcli.models.spec import ModelSpec
from srcli.settings import Settings


@dataclass(frozen=True, slots=True)
class Entry:
    """A backend: its module, its packages, and its devices and precisions, which its `load` checks again.

    Attributes:
        packages: modules that must all be installed.
        extra: the extra of pyproject.toml that installs them.
        computes: precisions by kind of device.
        flavours: modules of which one must be installed in addition; empty: none.
        gpu_extra: the extra that installs it for a GPU, where that is another one.
        gpu_build: distribution that CUDA needs, where the backend also runs on CPUs; its version must not end
            in "+cpu".
        load: name of the function in the module that loads a model file.
    """

    module: str
    packages: tuple[str, ...]
    extra: str
    computes: Mapping[str, tuple[str, ...]]
    flavours: tuple[str, ...] = ()
    gpu_extra: str = ""
    gpu_build: str = ""
    load: str = "load"

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions of all devices, each once."""
        return tuple(dict.fromkeys(p for precisions in self.computes.values() for p in precisions))


_GPU_PRECISIONS = ("fp32", "fp16")
BACKENDS: dict[str, Entry] = {
    "tensorrt": Entry(
        "srcli.backends.tensorrt",
        ("onnx",),
        "trt",
        {"cuda": _GPU_PRECISIONS},
        flavours=("tensorrt", "tensorrt_rtx"),
    ),
    "openvino": Entry("srcli.backends.openvino", ("openvino",), "cpu", {"cpu": ("fp32", "bf16", "int8")}),
    "onnxruntime": Entry(
        "srcli.backends.onnxruntime",
        ("onnxruntime",),
        "cpu",
        {
            "cpu": ("fp32", "int8"),
            "cuda": _GPU_PRECISIONS,
            "directml": _GPU_PRECISIONS,
            "coreml": _GPU_PRECISIONS,
        },
        gpu_extra="gpu",
        gpu_build="onnxruntime-gpu",
    ),
    "torch": Entry(
        "srcli.backends.torch",
        ("torch", "onnx"),
        "export",
        {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")},
        gpu_build="torch",
    ),
    "bicubic": Entry("srcli.backends.base", (), "", {"cpu": ("fp32",)}, load="load_bicubic"),
}
"""Fastest first, with and without a GPU. "auto" takes the first that is installed and has the device and
precision asked for; those that run on a GPU that is present come before all others."""

ALIASES = {"trt": "tensorrt"}
"""Short names that users may give."""

_NETWORK_BACKENDS = ("tensorrt", "openvino", "onnxruntime", "torch")


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend and why it was chosen."""

    name: str
    why: str


def available() -> tuple[str, ...]:
    """Names of backends whose packages are installed and whose device is present; nothing is imported."""
    return tuple(name for name in BACKENDS if _installed(name) and present(BACKENDS[name]))


def canonical(name: str) -> str:
    """The name in `BACKENDS` for an alias; any other text as it is."""
    return ALIASES.get(name, name)


def choose(name: str, settings: Settings) -> Choice:
    """Resolve "auto" to an installed backend; check that any other name exists and is installed.

    Raises:
        UsageError: no such backend or device.
        MissingExtraError: its package is not installed, or no backend at all is.
        BackendUnavailableError: no installed backend has the device and precision asked for.
    """
    _check_device(settings.device)
    name = canonical(name)
    if name == "auto":
        return _automatic(settings)
    if name not in BACKENDS:
        raise UsageError(f"No backend {name!r}.", f"Choose from auto, {', '.join(BACKENDS)}.")
    if not _installed(name):
        if not present(BACKENDS[name]):
            _flavour().check_driver(devices.ask())
        raise MissingExtraError(f"The {name} backend", _extra(BACKENDS[name]))
    return Choice(name, "as asked for")


def has_gpu(settings: Settings) -> bool:
    """Whether a GPU would compute. Raises as `choose` does."""
    kinds = reachable(BACKENDS[choose(settings.backend, settings).name])
    asked = split(settings.device)[0].partition(":")[0]
    return "cuda" in kinds if asked == "auto" else asked != "cpu"


def _extra(entry: Entry) -> str:
    """The extra to install on this machine."""
    found = devices.ask()
    if entry.flavours:
        return str(_flavour().extra(found))
    return (found.gpus and entry.gpu_extra) or entry.extra


def _check_device(device: str) -> None:
    """Refuse unknown devices, and GPUs where there is none."""
    kind = device.partition(":")[0]
    kinds = dict.fromkeys(kind for entry in BACKENDS.values() for kind in entry.computes)
    if kind not in (*kinds, "auto", "all"):
        known = ", ".join(sorted(kinds))
        raise UsageError(f"No device {device!r}.", f"Choose from auto, {known}, cuda:N, cuda:0,1 or all.")
    problem = devices.ask().problem if kind == "cuda" else ""
    if problem:
        hint = "Use --device cpu, or auto. `srcli doctor` shows what runs here."
        raise BackendUnavailableError(f"Device {device} cannot be used: {problem}.", hint)


def load(name: str, path: Path, spec: ModelSpec, settings: Settings) -> Engine:
    """Load a model file with the named backend, on one device or several.

    Raises:
        UsageError: the devices are not of one kind.
        MissingExtraError, BackendUnavailableError, ModelFileError: as `base.Backend`.
    """
    entry = BACKENDS[canonical(name)]
    backend: Backend = getattr(import_module(entry.module), entry.load)
    settings = for_file(path, spec, for_int8(name, settings))
    each = (replace(settings, device=one) for one in split(settings.device))
    engines = [fed(backend(path, spec, one), spec.feed) for one in each]
    return engines[0] if len(engines) == 1 else combine(engines)


def describe(engine: Engine, choice: Choice) -> str:
    """One line on what runs, and why, e.g. "openvino bf16 on cpu (fastest installed; …)"."""
    info = engine.info
    reasons = {"bf16": "; this CPU has native bf16", "int8": "; eight bits where they do not show"}
    more = reasons.get(info.precision, "") if info.device == "cpu" else ""
    return f"{info.backend} {info.precision} on {info.device} ({choice.why}{more})"


def present(entry: Entry) -> tuple[str, ...]:
    """Kinds of devices of a backend that this machine has, whatever build is installed."""
    here = {
        "cpu": True,
        "cuda": bool(devices.ask().gpus),
        "directml": sys.platform == "win32",
        "coreml": sys.platform == "darwin",
    }
    return tuple(kind for kind in entry.computes if here[kind])


def _automatic(settings: Settings) -> Choice:
    installed = [name for name in _NETWORK_BACKENDS if _installed(name) and _has_known_device(BACKENDS[name])]
    if not installed:
        raise MissingExtraError("An inference backend (openvino or onnxruntime)", "cpu")
    capable = [name for name in installed if _can_run(BACKENDS[name], settings)]
    if not capable:
        wanted = f"precision {settings.precision} on device {settings.device}"
        raise BackendUnavailableError(
            f"None of {', '.join(installed)} can run {wanted}.", "Use --device auto and --precision auto."
        )
    if settings.device == "auto" and settings.precision != "int8":  # only CPUs have int8
        capable.sort(key=lambda name: "cuda" not in reachable(BACKENDS[name]))
    return Choice(
        capable[0], "fastest installed" if len(capable) == len(installed) else "fastest that can do this"
    )


def _has_known_device(entry: Entry) -> bool:
    """Whether "auto" may take the backend: a device that it supports is present."""
    return bool(present(entry)) and (not entry.flavours or _flavour().usable(devices.ask()))


def _flavour() -> Any:
    """Which TensorRT is installed; its package is imported only where that is asked."""
    return import_module("srcli.backends.tensorrt.flavour")


def _can_run(entry: Entry, settings: Settings) -> bool:
    kind = split(settings.device)[0].partition(":")[0]
    asked = ("cuda", "cpu") if kind == "auto" else (kind,)  # the others run by name only
    kinds = [known for known in reachable(entry) if known in asked]
    return any(settings.precision in ("auto", *entry.computes[known]) for known in kinds)


def reachable(entry: Entry) -> tuple[str, ...]:
    """Kinds of devices of a backend that this machine has and the installed build supports."""
    kinds = present(entry)
    if "cuda" not in kinds or "cpu" not in kinds:
        return kinds
    try:
        for_gpu = not version(entry.gpu_build).endswith("+cpu")
    except PackageNotFoundError:
        for_gpu = False
    return kinds if for_gpu else tuple(kind for kind in kinds if kind != "cuda")


def _installed(name: str) -> bool:
    entry = BACKENDS[name]
    one_of = not entry.flavours or any(find_spec(module) is not None for module in entry.flavours)
    return one_of and all(find_spec(package) is not None for package in entry.packages)


def for_int8(name: str, settings: Settings) -> Settings:
    """Where int8 is asked for, the settings with a device on which the backend has it; "auto" is the CPU.

    Raises:
        BackendUnavailableError: the backend has no int8 on that device.
    """
    if settings.precision != "int8":
        return settings
    entry = BACKENDS[canonical(name)]
    device = "cpu" if settings.device == "auto" else settings.device
    possible = entry.computes.get(device.partition(":")[0], ())
    if "int8" not in possible:
        raise refused(name, "precision", "int8", possible or entry.precisions)
    return replace(settings, device=device)


def for_file(path: Path, spec: ModelSpec, settings: Settings) -> Settings:
    """The settings for a backend that loads this file: "auto" for an int8 file, which has one precision only.

    Raises:
        BackendUnavailableError: int8 is asked for and the file is not int8, or the reverse.
    """
    asked, quantised = settings.precision, spec.arithmetic == "int8"
    if quantised and asked not in ("auto", "int8"):
        hint = "Use the fp32 file of this network."
        raise BackendUnavailableError(f"{path.name} computes in int8, not in {asked}.", hint)
    if asked == "int8" and not quantised:
        hint = "`srcli export --precision int8` makes one from a checkpoint; or use --precision auto."
        if path.with_suffix(".int8.onnx").is_file():
            hint = f"A path means that file alone: give {path.with_suffix('.int8.onnx').name}."
        raise BackendUnavailableError(f"{path.name or spec.name} does not compute in int8.", hint)
    return replace(settings, precision="auto") if quantised else settings
