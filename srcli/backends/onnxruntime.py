"""ONNX Runtime: fp32 on any CPU, the reference for other backends; GPUs where the installed wheel has them.

CUDA was tested on an H200. CoreML and DirectML are untested on hardware: their options and errors were tested
with a stand-in.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from srcli.backends import devices
from srcli.backends.base import (
    Batch,
    EngineInfo,
    Input,
    choose_precision,
    load_failed,
    one_line,
    refused,
    reported_precision,
    run_failed,
)
from srcli.errors import BackendUnavailableError, MissingExtraError, SrcliError
from srcli.models.spec import ModelSpec
from srcli.settings import Settings

NAME = "onnxruntime"


@dataclass(frozen=True, slots=True)
class Provider:
    """A kind of device and the options that ONNX Runtime takes for it.

    Attributes:
        name: of the execution provider.
        precisions: it computes in, best default last; for fp16 the graph is rewritten.
        options: of the provider, the same for every model.
        fp16_options: those that differ for fp16.
        numbered: whether there may be several devices ("cuda:1").
        on_device: whether input and output are bound to memory on the device.
    """

    name: str
    precisions: tuple[str, ...] = ("fp32",)
    options: Mapping[str, str] = field(default_factory=dict)
    fp16_options: Mapping[str, str] = field(default_factory=dict)
    numbered: bool = False
    on_device: bool = False


PROVIDERS: dict[str, Provider] = {
    "cuda": Provider(
        "CUDAExecutionProvider",
        ("fp32", "fp16"),
        {
            "cudnn_conv_algo_search": "EXHAUSTIVE",  # once a shape, and tiles share one shape
            "cudnn_conv_use_max_workspace": "1",
            "prefer_nhwc": "1",
            "use_tf32": "0",  # fp32 means fp32
        },
        {"use_tf32": "1"},  # fp16 stays fp16, but without it the search finds no kernels on tensor cores
        numbered=True,
        on_device=True,
    ),
    "directml": Provider("DmlExecutionProvider", ("fp32", "fp16"), numbered=True),
    "coreml": Provider("CoreMLExecutionProvider", ("fp32", "fp16"), {"ModelFormat": "MLProgram"}),
    "cpu": Provider("CPUExecutionProvider"),
}
"""By kind of device, fastest first. "auto" takes cuda, else the CPU; the others run by name only."""

_FATAL = 4  # log severity
_DOCTOR = "srcli doctor says what is missing; --device cpu runs."
_REPLACE = 'Replace it: pip uninstall onnxruntime, then pip install "srcli[gpu]"'


def import_onnxruntime() -> Any:
    """ONNX Runtime without its telemetry.

    Raises:
        ImportError: it is not installed.
    """
    disable_telemetry()
    import onnxruntime

    return onnxruntime


def disable_telemetry() -> None:
    """Keep ONNX Runtime from writing an identifier and a log of events into the home directory.

    Call it before ONNX Runtime is imported, which reads the environment. A value that the user set stays.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


class OnnxRuntimeEngine:
    """One session; each `run` allocates its result."""

    def __init__(self, session: Any, info: EngineInfo, scale: int) -> None:
        self.scale, self.info = scale, info
        self._session = session
        self._input, self._output = _names(session)
        self._dtype = _dtype(session.get_inputs()[0])

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What the network takes."""
        return tuple(
            Input(one.name, _dtype(one), tuple(side if isinstance(side, int) else None for side in one.shape))
            for one in self._session.get_inputs()
        )

    def run(self, lr: Batch) -> Batch:
        """(N, 3, H, W) -> (N, 3, scale*H, scale*W)."""
        try:
            given = {self._input: lr.astype(self._dtype, copy=False)}
            return np.asarray(self._session.run([self._output], given)[0], np.float32)
        except Exception as error:  # its exceptions share no other base class
            raise run_failed(NAME, error) from error


def load(path: Path, spec: ModelSpec, settings: Settings) -> OnnxRuntimeEngine:
    """Open a session on one device, without fallback to another.

    "auto" is an NVIDIA GPU in fp16 where the machine has one and the installed wheel supports it, else the
    CPU in fp32.

    Raises:
        MissingExtraError: ONNX Runtime is not installed, or onnx is not and fp16 needs it.
        BackendUnavailableError: the device or precision is not available here, or does not start.
        ModelFileError: the file cannot be loaded.
    """
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        extra = "gpu" if devices.ask().gpus else "cpu"
        raise MissingExtraError("The onnxruntime backend", extra) from error
    kind, number = _device(onnxruntime, settings.device)
    provider = PROVIDERS[kind]
    precision = _precision(settings.precision, provider, spec)
    options = {**provider.options, **(provider.fp16_options if precision == "fp16" else {})}
    options |= {"device_id": str(number)} if provider.numbered else {}
    graph = _graph(path, spec, precision, kind)
    opened = partial(_opened, onnxruntime, graph, (provider.name, options), settings.threads)
    with redirect_stdout(sys.stderr):  # it prints, but stdout is for results
        if kind == "cuda":
            _prepare_cuda(onnxruntime)
        try:
            session = opened(kind)
        except Exception as error:  # as above
            check = partial(_verify, onnxruntime, kind)
            raise _explained(error, path, kind, lambda: check(opened("cpu"))) from error
    _verify(onnxruntime, kind, session)
    device = f"{kind}:{number}" if provider.numbered else kind
    if provider.on_device:
        session = BoundSession(onnxruntime.OrtValue, session, (kind, number), spec.scale)
    return OnnxRuntimeEngine(
        session, EngineInfo(NAME, device, reported_precision(spec, precision)), spec.scale
    )


def _prepare_cuda(onnxruntime: Any) -> None:
    """Load the CUDA libraries; silence the messages on a thousand kernels that cuDNN tries and rejects."""
    onnxruntime.set_default_logger_severity(_FATAL)  # of the whole process; errors are still raised
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # from the CUDA packages that its extras install


def _opened(
    onnxruntime: Any, graph: str | bytes, provider: tuple[str, dict[str, str]], threads: int, least: str
) -> Any:
    """A session on one provider that falls back to no other, neither now nor when it runs.

    `least` is the slowest kind of device that operators may be placed on.
    """
    options = _session_options(onnxruntime, threads, least)
    return onnxruntime.InferenceSession(graph, options, providers=[provider], enable_fallback=0)


def _explained(error: Exception, path: Path, kind: str, check: Callable[[], None]) -> SrcliError:
    """The error to raise where no session opened: due to the provider, the file's operators, or the file.

    Args:
        error: ONNX Runtime's. A bad file has exceptions of its own; a provider that fails to start raises
            RuntimeError, and one whose library cannot be loaded leaves all work to the CPU.
        check: opens a session that may also use the CPU; raises BackendUnavailableError if only the CPU runs.
    """
    if kind != "cpu" and "fallback" in str(error):
        try:
            check()
        except BackendUnavailableError as reason:
            return reason
        except Exception as other:
            error = other
        else:
            hint = "Use --device cpu, or another --backend."
            return BackendUnavailableError(f"{path.name} holds operators that {kind} lacks.", hint)
    if kind != "cpu" and isinstance(error, RuntimeError):
        return BackendUnavailableError(f"ONNX Runtime cannot start {kind}: {one_line(error)}.", _DOCTOR)
    return load_failed(NAME, path, error)


def kinds_here(providers: list[str]) -> dict[str, int]:
    """Kinds of devices that both a wheel with these providers and this machine have, with their count."""
    gpus = len(devices.ask().gpus) if PROVIDERS["cuda"].name in providers else 0
    count = {"cuda": gpus, "directml": 8 if sys.platform == "win32" else 0, "coreml": 1, "cpu": 1}
    return {kind: count[kind] for kind, row in PROVIDERS.items() if row.name in providers and count[kind]}


def _device(onnxruntime: Any, asked: str) -> tuple[str, int]:
    """(kind, number) of the device asked for.

    Raises:
        BackendUnavailableError: it is not present.
    """
    providers = onnxruntime.get_available_providers()  # compiled in, which does not mean that they work
    there = kinds_here(providers)
    if asked == "auto":
        return "cuda" if "cuda" in there else "cpu", 0
    kind, _, number = asked.partition(":")
    if kind == "cuda" and PROVIDERS[kind].name not in providers and devices.ask().gpus:
        raise BackendUnavailableError("The ONNX Runtime that is installed was built for CPUs only.", _REPLACE)
    known = kind in there and (not number or PROVIDERS[kind].numbered)
    if not known or not (number or "0").isdecimal() or int(number or 0) >= there[kind]:
        raise refused(NAME, "device", asked, tuple(there))
    return kind, int(number or 0)


def _precision(asked: str, provider: Provider, spec: ModelSpec) -> str:
    """As asked for; "auto" is fp32 for a quantised network, and without onnx, which rewrites to fp16."""
    plain = spec.arithmetic == "int8" or find_spec("onnx") is None
    return choose_precision(NAME, asked, ("fp32",) if asked == "auto" and plain else provider.precisions)


def _graph(path: Path, spec: ModelSpec, precision: str, kind: str) -> str | bytes:
    """The file, or the network rewritten to fp16 or fp32; as it is on a CPU, which has no fp16."""
    if kind == "cpu" or (precision == "fp16") == (spec.arithmetic == "fp16"):
        return str(path)
    try:
        import onnx

        from srcli.backends.rewrite import to_fp16, to_fp32
    except ImportError as error:
        raise MissingExtraError(f"Computing {path.name} in {precision}", "gpu") from error
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf's, onnx's and the system's
        raise load_failed(NAME, path, error) from error
    rewritten: bytes = (to_fp16 if precision == "fp16" else to_fp32)(model).SerializeToString()
    return rewritten


def _session_options(onnxruntime: Any, threads: int, kind: str) -> Any:
    """All graph optimisations; no arena, which would never free the memory of the largest tile."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = threads
    options.log_severity_level = _FATAL
    if kind != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _verify(onnxruntime: Any, kind: str, session: Any) -> None:
    """Check that a session runs where it should: it silently leaves out a provider that does not start.

    Raises:
        BackendUnavailableError: it runs on another provider.
    """
    got = session.get_providers()
    if got and got[0] == PROVIDERS[kind].name:
        return
    chose, missing = f"ONNX Runtime was asked for {kind} and chose {', '.join(got) or 'nothing'}", ""
    if kind == "cuda":
        missing = _missing_library(Path(onnxruntime.__file__).parent / "capi")
    if missing:
        hint = 'Add CUDA and cuDNN with: pip install "srcli[gpu]"; --device cpu runs.'
        raise BackendUnavailableError(f"{chose}: {missing}.", hint)
    raise BackendUnavailableError(f"{chose}.", _DOCTOR)


def _missing_library(folder: Path) -> str:
    """The system's error on loading CUDA's provider; empty if it loads.

    Call it after ONNX Runtime has tried the same, which loads the libraries that the provider needs.
    """
    windows = sys.platform == "win32"
    file = folder / ("onnxruntime_providers_cuda.dll" if windows else "libonnxruntime_providers_cuda.so")
    if not file.is_file():
        return f"{file.name} is missing"
    try:
        ctypes.CDLL(str(file))
    except OSError as error:
        return str(error)
    return ""


def _dtype(one: Any) -> str:
    """NumPy's name of the type of an input or output."""
    name = str(one.type).removeprefix("tensor(").removesuffix(")")
    return {"float": "float32", "double": "float64"}.get(name, name)


def _names(session: Any) -> tuple[str, str]:
    return session.get_inputs()[0].name, session.get_outputs()[0].name


class BoundSession:
    """A session whose input and output stay in the same device memory while the shape stays the same."""

    def __init__(self, values: Any, session: Any, device: tuple[str, int], scale: int) -> None:
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self._values, self._session = values, session
        self._device, self._scale = device, scale
        self._shape: tuple[int, ...] = ()
        self._lr: Any = None
        self._sr: Any = None
        self._binding: Any = None

    def run(self, outputs: list[str], feed: Mapping[str, Batch]) -> list[Batch]:
        """As `InferenceSession.run` with the one input and the one output."""
        (lr,) = feed.values()
        if lr.shape != self._shape:
            self._bind(lr.shape)
        self._lr.update_inplace(lr)
        self._session.run_with_iobinding(self._binding)
        return [self._sr.numpy()]

    def _bind(self, shape: tuple[int, ...]) -> None:
        self._shape, self._lr, self._sr, self._binding = (), None, None, None  # frees their memory
        batch, channels, height, width = shape
        larger = batch, channels, height * self._scale, width * self._scale
        create, (lr, sr) = self._values.ortvalue_from_shape_and_type, _names(self._session)
        one, other = self.get_inputs()[0], self.get_outputs()[0]
        self._lr = create(list(shape), np.dtype(_dtype(one)), *self._device)
        self._sr = create(list(larger), np.dtype(_dtype(other)), *self._device)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(lr, self._lr)
        self._binding.bind_ortvalue_output(sr, self._sr)
        self._shape = shape
