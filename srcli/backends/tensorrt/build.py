"""ONNX file to TensorRT engine, with progress. TensorRT for RTX builds without a GPU."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

import numpy as np

from srcli.backends.base import load_failed
from srcli.backends.devices import Gpu
from srcli.backends.tensorrt.flavour import NAME, ErrorLog, Flavour, capability_name, failure
from srcli.errors import ModelFileError
from srcli.models.spec import read_spec

_logger = logging.getLogger(__name__)

UINT8_OUTPUT = "srcli.uint8"
"""(N, sH, sW, C) uint8: the network's output times 255, rounded to the nearest (half to even) and clipped."""

NON_FINITE_OUTPUT = "srcli.non_finite"
"""() float32: 0 if all values of the network's output are finite, else 1."""

PORTABLE_WORKSPACE = 64 << 30
"""Limit, in bytes, of the scratch memory of an engine for any GPU; the builder takes none of it."""

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_LOG_INTERVAL = 5.0  # seconds between two messages on the progress of a build
_MIN_FRACTION = 0.02  # of the work done before the time left is estimated


@dataclass(frozen=True, slots=True)
class Built:
    """A serialized engine, and the builder's timing cache (empty with TensorRT for RTX)."""

    engine: bytes
    timings: bytes = b""


def graph(path: Path, precision: str) -> bytes:
    """The network as ONNX bytes with its weights, in "fp32" or "fp16", with the outputs added.

    A quantised network stays quantised: fp32 around convolutions in int8.

    Raises:
        ModelFileError: the file cannot be read, or not be rewritten in that precision.
    """
    import onnx

    from srcli.backends.rewrite import to_fp16, to_fp32

    try:
        model, spec = onnx.load(path), read_spec(path)
    except Exception as error:  # protobuf's, onnx's and the system's
        raise load_failed(NAME, path, error) from error
    if precision == "fp16":
        model = to_fp16(model)
    elif spec is not None and spec.arithmetic != "fp32":  # fp16, or int8 with weights stored in fp16
        model = with_signed_int8(to_fp32(model))
    data: bytes = with_uint8_output(model).SerializeToString()
    return data


def with_signed_int8(model: Any) -> Any:
    """Replace unsigned 8-bit integers by signed ones, which are the only ones TensorRT has, in place.

    What was quantised to 0..255 becomes 0..127, with quantization scales 255/127 times as large.

    Args:
        model: an onnx.ModelProto with QuantizeLinear and DequantizeLinear of zero point 0, whose scales and
            zero points are initializers.

    Returns:
        The same model.
    """
    from onnx import TensorProto, numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    pairs = {tuple(node.input[1:3]) for node in model.graph.node if node.op_type in _QUANTIZERS}
    for scale, zero in pairs:
        if constants[zero].data_type == TensorProto.UINT8:
            larger = numpy_helper.to_array(constants[scale]) * np.float32(255 / 127)
            signed = np.zeros_like(numpy_helper.to_array(constants[zero]), np.int8)
            constants[scale].CopyFrom(numpy_helper.from_array(np.asarray(larger, np.float32), scale))
            constants[zero].CopyFrom(numpy_helper.from_array(signed, zero))
    return model


def with_uint8_output(model: Any) -> Any:
    """Add `UINT8_OUTPUT` and `NON_FINITE_OUTPUT` to a network, in place.

    The result has scale² times the pixels of the input and dominates the copies and the host's work. As uint8
    in the layout of a picture it is a quarter as large and needs no conversion. Rounding hides infinities and
    NaN, so they are detected before it.

    Args:
        model: an onnx.ModelProto with one float32 output (N, C, H, W) 0-1.

    Returns:
        The same model.
    """
    from onnx import TensorProto, helper, numpy_helper
    from onnx.helper import make_node

    sr, graph = model.graph.output[0].name, model.graph
    for name, value in (("black", 0), ("white", 255)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"srcli.{name}"))
    graph.node.extend(
        [
            make_node("Mul", [sr, "srcli.white"], ["srcli.scaled"]),
            make_node("Round", ["srcli.scaled"], ["srcli.rounded"]),
            make_node("Clip", ["srcli.rounded", "srcli.black", "srcli.white"], ["srcli.clipped"]),
            make_node("Transpose", ["srcli.clipped"], ["srcli.transposed"], perm=[0, 2, 3, 1]),
            make_node("Cast", ["srcli.transposed"], [UINT8_OUTPUT], to=TensorProto.UINT8),
            make_node("IsNaN", [sr], ["srcli.nan"]),
            make_node("IsInf", [sr], ["srcli.inf"]),
            make_node("Or", ["srcli.nan", "srcli.inf"], ["srcli.nan_or_inf"]),
            make_node("Cast", ["srcli.nan_or_inf"], ["srcli.flags"], to=TensorProto.FLOAT),
            make_node("ReduceMax", ["srcli.flags"], [NON_FINITE_OUTPUT], keepdims=0),
        ]
    )
    shape = ["n", "sh", "sw", "c"]
    graph.output.append(helper.make_tensor_value_info(UINT8_OUTPUT, TensorProto.UINT8, shape))
    graph.output.append(helper.make_tensor_value_info(NON_FINITE_OUTPUT, TensorProto.FLOAT, []))
    return model


def build(
    flavour: Flavour,
    path: Path,
    precision: str,
    side: int,
    gpu: Gpu | None,
    timings: bytes,
    progress: "BuildProgress",
) -> Built:
    """Build an engine for inputs (1, C, H, W) with H and W from 1 to `side`, tuned for the largest.

    Args:
        path: ONNX file.
        precision: "fp32" (TF32 off) or "fp16".
        gpu: the one to build for, which must be the current one; None: any that the flavour supports.
        timings: timing cache of an earlier build on this GPU with this TensorRT, or b"".
        progress: updated by the builder; can stop it.

    Raises:
        ModelFileError: the network cannot be parsed or built.
        MemoryError: the GPU has too little memory to build for this size, or a tensor would be too large.
        KeyboardInterrupt: the user stopped it.
    """
    api, log = flavour.api, ErrorLog.of(flavour.api)
    log.clear()
    builder = api.Builder(log.logger)
    network = builder.create_network(_flags(flavour))
    parser = api.OnnxParser(network, log.logger)
    if not parser.parse(graph(path, precision)):
        errors = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise load_failed(NAME, path, RuntimeError(errors))
    reporter = monitor(api, progress)
    config = _config(flavour, builder, gpu, reporter)
    _add_profile(builder, config, network, side, path)
    cache = None if flavour.portable else _timing_cache(config, timings)
    engine = builder.build_serialized_network(network, config)
    if progress.cancelled:
        raise KeyboardInterrupt
    if engine is None:
        raise _build_failed(path, log.take())
    return Built(bytes(engine), b"" if cache is None else bytes(config.get_timing_cache().serialize()))


def _build_failed(path: Path, text: str) -> Exception:
    error = failure(text)
    return error if isinstance(error, MemoryError) else load_failed(NAME, path, RuntimeError(text))


def _flags(flavour: Flavour) -> int:
    """Strongly typed: the graph decides the precision. TensorRT 11 is always so and has no flag for it."""
    if flavour.name == "tensorrt" and not flavour.version.startswith("10."):
        return 0
    return 1 << int(flavour.api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _config(flavour: Flavour, builder: Any, gpu: Gpu | None, reporter: Any) -> Any:
    api, config = flavour.api, builder.create_builder_config()
    workspace = PORTABLE_WORKSPACE if gpu is None else gpu.memory
    config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, workspace)
    config.clear_flag(api.BuilderFlag.TF32)
    _set_newer_options(api, config)
    config.progress_monitor = reporter
    name = capability_name(api, gpu) if flavour.portable and gpu is not None else None
    if name is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(api.ComputeCapability, name), 0)
    return config


def _set_newer_options(api: Any, config: Any) -> None:
    """Options that only newer versions have: all memory comes from outside, which capturing a CUDA graph
    needs, and scratch memory is sized for the tile that runs instead of the largest one."""
    if hasattr(api.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        config.set_flag(api.BuilderFlag.REQUIRE_USER_ALLOCATION)
    resizing = "RUNTIME_ACTIVATION_RESIZE_10_10"
    if hasattr(getattr(api, "PreviewFeature", None), resizing):
        config.set_preview_feature(getattr(api.PreviewFeature, resizing), True)


def _add_profile(builder: Any, config: Any, network: Any, side: int, path: Path) -> None:
    """Allow every height and width from 1 to `side`: small pictures, last and transposed tiles."""
    name, channels = _input(network, path)
    profile = builder.create_optimization_profile()
    largest = (1, channels, side, side)
    try:
        profile.set_shape(name, (1, channels, 1, 1), largest, largest)
        accepted = config.add_optimization_profile(profile) >= 0
    except (RuntimeError, ValueError) as error:
        raise load_failed(NAME, path, error) from error
    if not accepted:
        raise load_failed(NAME, path, RuntimeError("it takes no inputs of any size"))


def _input(network: Any, path: Path) -> tuple[str, int]:
    """Name and channels of the input; its height and width must be dynamic (-1), its batch dynamic or 1."""
    first = network.get_input(0)
    if first is None or len(first.shape) != 4:
        raise load_failed(NAME, path, RuntimeError("its input is not (N, C, H, W)"))
    batch, channels, height, width = first.shape
    if batch > 1 or height > 0 or width > 0:
        raise ModelFileError(
            f"{path}: takes inputs of one size only, {' × '.join(map(str, first.shape))}.",
            "Export it again with a dynamic height and width and batches of 1.",
        )
    return str(first.name), channels if channels > 0 else 3


def _timing_cache(config: Any, timings: bytes) -> Any:
    """The builder's timing cache; an empty one where the given one is of another GPU or version."""
    cache = config.create_timing_cache(timings)
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


@dataclass(slots=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


@dataclass(slots=True)
class BuildProgress:
    """How much of a build is done, from the phases that TensorRT reports; logged every few seconds.

    Any thread may call it.

    Args:
        what: is built, for the log messages.
        clock: seconds.

    Attributes:
        cancelled: asks the builder to stop.
    """

    what: str
    clock: Callable[[], float] = monotonic
    cancelled: bool = False
    _phases: dict[str, _Phase] = field(default_factory=dict)
    _lock: Any = field(default_factory=Lock)
    _fraction: float = 0.0
    _start: float = 0.0
    _logged: float = 0.0

    def __post_init__(self) -> None:
        self._start = self._logged = self.clock()

    @property
    def seconds(self) -> float:
        """Since the build began."""
        return self.clock() - self._start

    @property
    def fraction(self) -> float:
        """Share of the work that is done, 0-1; never falls."""
        return self._fraction

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._phases[name] = _Phase(parent, max(1, steps))

    def step(self, name: str, number: int) -> bool:
        """A step of a phase (0, 1, ...) is done; False asks the builder to stop."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = number + 1
                self._update()
            return not self.cancelled

    def finish(self, name: str) -> None:
        """A phase is over."""
        with self._lock:
            if name in self._phases:
                self._phases[name].done = self._phases[name].steps
                self._update()
                del self._phases[name]

    def _update(self) -> None:
        roots = [
            self._share(name) for name, phase in self._phases.items() if phase.parent not in self._phases
        ]
        self._fraction = max(self._fraction, min(1.0, max(roots, default=0.0)))
        now = self.clock()
        if now - self._logged >= _LOG_INTERVAL:
            self._logged = now
            _logger.info("%s: %.0f%%%s", self.what, 100 * self._fraction, self._time_left(now - self._start))

    def _share(self, name: str) -> float:
        """Share of a phase's steps that is done, the running step counted by its own phases."""
        phase = self._phases[name]
        inner = sum(self._share(child) for child, other in self._phases.items() if other.parent == name)
        return min(1.0, (phase.done + min(inner, 1.0)) / phase.steps)

    def _time_left(self, elapsed: float) -> str:
        if self._fraction < _MIN_FRACTION:
            return ""
        return f", about {duration(elapsed * (1 - self._fraction) / self._fraction)} left"


def duration(seconds: float) -> str:
    """A rounded duration: "40 s" or "3 min"."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def monitor(api: Any, progress: BuildProgress) -> Any:
    """An IProgressMonitor for the builder that updates `progress`.

    An exception in a callback would end the process: Ctrl-C there becomes a request to stop the build.
    """

    class Monitor(api.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            _guarded(progress, lambda: progress.start(phase_name, parent_phase, num_steps))

        def phase_finish(self, phase_name: str) -> None:
            _guarded(progress, lambda: progress.finish(phase_name))

        def step_complete(self, phase_name: str, step: int) -> bool:
            _guarded(progress, lambda: progress.step(phase_name, step))
            return not progress.cancelled

    return Monitor()


def _guarded(progress: BuildProgress, call: Callable[[], object]) -> None:
    try:
        call()
    except BaseException:  # no exception may leave a callback, not even KeyboardInterrupt
        progress.cancelled = True
