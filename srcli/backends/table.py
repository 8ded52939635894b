"""The backends there are, which of them are installed, and which one "auto" takes."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from srcli.backends import driver
from srcli.backends.base import Backend, BackendOptions, Engine
from srcli.errors import BackendUnavailableError, MissingExtraError, UsageError
from srcli.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: where the backend lives and what it may be asked for (its `load` has the last word).

    Attributes:
        packages: modules that must all be installed.
        extra: the extra of pyproject.toml that brings them.
        flavours: modules of which one must be installed, too; empty: none.
    """

    module: str
    packages: tuple[str, ...]
    extra: str
    precisions: tuple[str, ...]
    devices: tuple[str, ...]
    flavours: tuple[str, ...] = ()


BACKENDS: dict[str, Entry] = {
    "tensorrt": Entry(
        "srcli.backends.tensorrt",
        ("onnx",),
        "trt",
        ("f32", "f16"),
        ("cuda",),
        flavours=("tensorrt", "tensorrt_rtx"),
    ),
    "openvino": Entry("srcli.backends.openvino", ("openvino",), "cpu", ("f32", "bf16"), ("cpu",)),
    "onnxruntime": Entry("srcli.backends.onnxruntime", ("onnxruntime",), "cpu", ("f32",), ("cpu",)),
    "torch": Entry(
        "srcli.backends.torch", ("torch", "onnx"), "export", ("f32", "bf16", "f16"), ("cpu", "cuda")
    ),
    "bicubic": Entry("srcli.backends.bicubic", (), "", ("f32",), ("cpu",)),
}
"""Fastest first: "auto" takes the first one that is installed, has its device and can do what was asked."""

ALIASES = {"trt": "tensorrt"}
"""Short names that users may say."""

PRECISIONS = ("auto", "f32", "bf16", "f16")
_NETWORK_BACKENDS = ("tensorrt", "openvino", "onnxruntime", "torch")


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend and why it was taken."""

    name: str
    why: str


def available() -> tuple[str, ...]:
    """Names of the backends whose packages are installed and whose device is there; nothing is imported."""
    return tuple(name for name in BACKENDS if _installed(name) and _has_device(name))


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
    name = canonical(name)
    if name == "auto":
        return _automatic(options)
    if name not in BACKENDS:
        raise UsageError(f"No backend {name!r}.", f"Choose from auto, {', '.join(BACKENDS)}.")
    if not _installed(name):
        raise MissingExtraError(f"The {name} backend", BACKENDS[name].extra)
    return Choice(name, "as asked for")


def load(name: str, path: Path, spec: ModelSpec, options: BackendOptions) -> Engine:
    """Load a model file with the named backend; raises what `base.Backend` says."""
    backend: Backend = import_module(BACKENDS[canonical(name)].module).load
    return backend(path, spec, options)


def describe(engine: Engine, choice: Choice) -> str:
    """One line for people: what runs, and why."""
    info = engine.info
    native = "; this CPU has native bf16" if (info.precision, info.device) == ("bf16", "cpu") else ""
    return f"{info.backend} {info.precision} on {info.device} ({choice.why}{native})"


def _automatic(options: BackendOptions) -> Choice:
    installed = [name for name in _NETWORK_BACKENDS if _installed(name) and _has_device(name)]
    if not installed:
        raise MissingExtraError("An inference backend (openvino or onnxruntime)", "cpu")
    able = [name for name in installed if _able(BACKENDS[name], options)]
    if not able:
        wanted = f"precision {options.precision} on device {options.device}"
        raise BackendUnavailableError(
            f"None of {', '.join(installed)} can run {wanted}.", "Use --device auto and --precision auto."
        )
    return Choice(able[0], "fastest installed" if able[0] == installed[0] else "fastest that can do this")


def _able(entry: Entry, options: BackendOptions) -> bool:
    device = options.device.partition(":")[0]
    return options.precision in ("auto", *entry.precisions) and device in ("auto", *entry.devices)


def _installed(name: str) -> bool:
    entry = BACKENDS[name]
    one_of = not entry.flavours or any(find_spec(flavour) is not None for flavour in entry.flavours)
    return one_of and all(find_spec(package) is not None for package in entry.packages)


def _has_device(name: str) -> bool:
    """Whether one of the backend's devices can be there: a CPU is, a GPU where the driver has one."""
    return "cpu" in BACKENDS[name].devices or bool(driver.ask().gpus)
