"""The backends there are, which of them are installed, and which one "auto" takes."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from srcli.backends import devices
from srcli.backends.base import Backend, BackendOptions, Engine
from srcli.backends.libraries import refused
from srcli.backends.several import split, together
from srcli.backends.tensorrt import flavour
from srcli.errors import BackendUnavailableError, MissingExtraError, UsageError
from srcli.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: where the backend lives and what it may be asked for (its `load` has the last word).

    Attributes:
        packages: modules that must all be installed.
        extra: the extra of pyproject.toml that brings them.
        computes: precisions by kind of device.
        flavours: modules of which one must be installed, too; empty: none.
        gpu_extra: the extra that brings it for a GPU, where that is another one.
        gpu_build: distribution that must be there for CUDA, if the backend runs on CPUs as well; one whose
            version ends in "+cpu" does not count.
    """

    module: str
    packages: tuple[str, ...]
    extra: str
    computes: Mapping[str, tuple[str, ...]]
    flavours: tuple[str, ...] = ()
    gpu_extra: str = ""
    gpu_build: str = ""

    @property
    def precisions(self) -> tuple[str, ...]:
        """Those of all devices, each once."""
        return tuple(dict.fromkeys(p for precisions in self.computes.values() for p in precisions))


_HALF = ("fp32", "fp16")
BACKENDS: dict[str, Entry] = {
    "tensorrt": Entry(
        "srcli.backends.tensorrt.engine",
        ("onnx",),
        "trt",
        {"cuda": _HALF},
        flavours=("tensorrt", "tensorrt_rtx"),
    ),
    "openvino": Entry("srcli.backends.openvino", ("openvino",), "cpu", {"cpu": ("fp32", "bf16", "int8")}),
    "onnxruntime": Entry(
        "srcli.backends.onnxruntime",
        ("onnxruntime",),
        "cpu",
        {"cpu": ("fp32", "int8"), "cuda": _HALF, "directml": _HALF, "coreml": _HALF},
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
    "bicubic": Entry("srcli.backends.bicubic", (), "", {"cpu": ("fp32",)}),
}
"""Fastest first, on a GPU and without: "auto" takes the first that is installed and can do what was asked,
before all others those that run on a GPU that is there."""

ALIASES = {"trt": "tensorrt"}
"""Short names that users may say."""

PRECISION_ALIASES = {"f32": "fp32", "f16": "fp16"}
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
_NETWORK_BACKENDS = ("tensorrt", "openvino", "onnxruntime", "torch")


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend and why it was taken."""

    name: str
    why: str


def available() -> tuple[str, ...]:
    """Names of the backends whose packages are installed and whose device is there; nothing is imported."""
    return tuple(name for name in BACKENDS if _installed(name) and present(BACKENDS[name]))


def canonical(name: str) -> str:
    """The name in `BACKENDS` for what a user may call a backend; any other text as it is."""
    return ALIASES.get(name, name)


def choose(name: str, options: BackendOptions) -> Choice:
    """Resolve "auto" to an installed backend; check that any other name exists and is installed.

    Raises:
        UsageError: no such backend or precision.
        MissingExtraError: its package is not installed, or no backend at all is.
        BackendUnavailableError: nothing installed can do what was asked.
    """
    if options.precision not in PRECISIONS:
        raise UsageError(f"No precision {options.precision!r}.", f"Choose from {', '.join(PRECISIONS)}.")
    if options.threads < 0:
        raise UsageError(f"{options.threads} threads cannot run.", "Give 1 or more, or 0 for all cores.")
    _check_device(options.device)
    name = canonical(name)
    if name == "auto":
        return _automatic(options)
    if name not in BACKENDS:
        raise UsageError(f"No backend {name!r}.", f"Choose from auto, {', '.join(BACKENDS)}.")
    if not _installed(name):
        if not present(BACKENDS[name]):
            flavour.check_driver(devices.ask())
        raise MissingExtraError(f"The {name} backend", _extra(BACKENDS[name]))
    return Choice(name, "as asked for")


def _extra(entry: Entry) -> str:
    """The extra to install on this machine."""
    found = devices.ask()
    if entry.flavours:
        return flavour.extra(found)
    return (found.gpus and entry.gpu_extra) or entry.extra


def _check_device(device: str) -> None:
    """Refuse what is no device, and a GPU where there is none."""
    kind = device.partition(":")[0]
    kinds = dict.fromkeys(kind for entry in BACKENDS.values() for kind in entry.computes)
    if kind not in (*kinds, "auto", "all"):
        known = ", ".join(sorted(kinds))
        raise UsageError(f"No device {device!r}.", f"Choose from auto, {known}, cuda:N, cuda:0,1 or all.")
    problem = devices.ask().problem if kind == "cuda" else ""
    if problem:
        hint = "Use --device cpu, or auto. `srcli doctor` tells what runs here."
        raise BackendUnavailableError(f"Device {device} cannot be used: {problem}.", hint)


def load(name: str, path: Path, spec: ModelSpec, options: BackendOptions) -> Engine:
    """Load a model file with the named backend, on one device or several; raises what `base.Backend` says."""
    backend: Backend = import_module(BACKENDS[canonical(name)].module).load
    options = _of_file(path, spec, _for_int8(BACKENDS[canonical(name)], name, options))
    engines = [backend(path, spec, replace(options, device=one)) for one in split(options.device)]
    return engines[0] if len(engines) == 1 else together(engines)


def _for_int8(entry: Entry, name: str, options: BackendOptions) -> BackendOptions:
    """Where int8 is asked for, it takes a kind of device on which the backend has it; "auto" is the CPU."""
    if options.precision != "int8":
        return options
    device = "cpu" if options.device == "auto" else options.device
    possible = entry.computes.get(device.partition(":")[0], ())
    if "int8" not in possible:
        raise refused(name, "precision", "int8", possible or entry.precisions)
    return replace(options, device=device)


def _of_file(path: Path, spec: ModelSpec, options: BackendOptions) -> BackendOptions:
    """What the backend is asked for: a file in int8 says so itself, and has no other precision."""
    asked, quantised = options.precision, spec.arithmetic == "int8"
    if quantised and asked not in ("auto", "int8"):
        hint = "Use the fp32 file of this network."
        raise BackendUnavailableError(f"{path.name} computes in int8, not in {asked}.", hint)
    if asked == "int8" and not quantised:
        hint = "`srcli export --precision int8` makes one from a checkpoint; or use --precision auto."
        if path.with_suffix(".int8.onnx").is_file():
            hint = f"A path means that file alone: give {path.with_suffix('.int8.onnx').name}."
        raise BackendUnavailableError(f"{path.name or spec.name} does not compute in int8.", hint)
    return replace(options, precision="auto") if quantised else options


def prefers_int8(name: str, options: BackendOptions) -> bool:
    """Whether a backend takes a network's int8 file, where there is one."""
    if options.precision != "auto":
        return options.precision == "int8"
    if canonical(name) != "openvino" or options.device not in ("auto", "cpu"):
        return False
    from srcli.backends.openvino import has_fast_int8

    return has_fast_int8()


def describe(engine: Engine, choice: Choice) -> str:
    """One line for people: what runs, and why."""
    info = engine.info
    told = {"bf16": "; this CPU has native bf16", "int8": "; eight bits where they do not show"}
    more = told.get(info.precision, "") if info.device == "cpu" else ""
    return f"{info.backend} {info.precision} on {info.device} ({choice.why}{more})"


def present(entry: Entry) -> tuple[str, ...]:
    """The kinds of devices, of those the backend knows, that this machine can have."""
    there = {
        "cpu": True,
        "cuda": bool(devices.ask().gpus),
        "directml": sys.platform == "win32",
        "coreml": sys.platform == "darwin",
    }
    return tuple(kind for kind in entry.computes if there[kind])


def _automatic(options: BackendOptions) -> Choice:
    installed = [name for name in _NETWORK_BACKENDS if _installed(name) and _suits(BACKENDS[name])]
    if not installed:
        raise MissingExtraError("An inference backend (openvino or onnxruntime)", "cpu")
    able = [name for name in installed if _able(BACKENDS[name], options)]
    if not able:
        wanted = f"precision {options.precision} on device {options.device}"
        raise BackendUnavailableError(
            f"None of {', '.join(installed)} can run {wanted}.", "Use --device auto and --precision auto."
        )
    if options.device == "auto" and options.precision != "int8":  # which CPUs have
        able.sort(key=lambda name: "cuda" not in reachable(BACKENDS[name]))
    return Choice(able[0], "fastest installed" if len(able) == len(installed) else "fastest that can do this")


def _suits(entry: Entry) -> bool:
    """Whether the backend has a device here that it is known to run on; by name it is tried on others."""
    return bool(present(entry)) and (not entry.flavours or flavour.usable(devices.ask()))


def _able(entry: Entry, options: BackendOptions) -> bool:
    kind = split(options.device)[0].partition(":")[0]
    asked = ("cuda", "cpu") if kind == "auto" else (kind,)  # the others are had by name
    kinds = [known for known in reachable(entry) if known in asked]
    return any(options.precision in ("auto", *entry.computes[known]) for known in kinds)


def reachable(entry: Entry) -> tuple[str, ...]:
    """The kinds of devices that the installed build of a backend can have here."""
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
