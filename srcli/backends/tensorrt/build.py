"""A network's file -> a TensorRT engine. With TensorRT for RTX this needs no GPU."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import get_ident
from typing import Any

from srcli.backends.devices import Gpu
from srcli.backends.libraries import load_failed, run_failed
from srcli.backends.tensorrt.flavour import Flavour, capability_name
from srcli.backends.tensorrt.outputs import with_levels
from srcli.backends.tensorrt.progress import Watch, monitor
from srcli.errors import InferenceError, ModelFileError
from srcli.models.spec import read_spec

NAME = "tensorrt"

PORTABLE_WORKSPACE = 64 << 30
"""Bytes of scratch memory that an engine for any GPU may ask for: a limit for the builder, none is taken."""

_NO_MEMORY = (
    "outofmemory",
    "within workspace limit",
    "volume exceeds",  # of a tensor: 2^31 - 1 elements are the most, whatever memory there is
    "could not find any implementation",  # what the full one says where no kernel's scratch memory fits
)


@dataclass(frozen=True, slots=True)
class Built:
    """An engine, and what the builder measured on the way (empty with TensorRT for RTX)."""

    plan: bytes
    timings: bytes = b""


def graph(path: Path, precision: str) -> bytes:
    """The network as an ONNX file's bytes, weights inside, in "fp32" or "fp16", with the outputs added.

    A quantised network stays so: fp32 around convolutions in int8.

    Raises:
        ModelFileError: the file cannot be read, or not be rewritten in that precision.
    """
    import onnx

    from srcli.backends.rewrite import to_float32, to_half, with_signs

    try:
        model, spec = onnx.load(path), read_spec(path)
    except Exception as error:  # protobuf's, onnx's and the system's
        raise load_failed(NAME, path, error) from error
    if precision == "fp16":
        model = to_half(model)
    elif spec is not None and spec.arithmetic != "fp32":  # halves, or convolutions in int8 whose weights are
        model = with_signs(to_float32(model))
    data: bytes = with_levels(model).SerializeToString()
    return data


def build(
    flavour: Flavour, path: Path, precision: str, side: int, gpu: Gpu | None, timings: bytes, watch: Watch
) -> Built:
    """Build an engine for inputs (1, C, H, W) with H and W from 1 to `side`, tuned for the largest.

    Args:
        path: ONNX file.
        precision: "fp32" (TF32 off) or "fp16".
        gpu: the one to build for, which must be the current one; None: any that the flavour takes.
        timings: of an earlier build on this GPU with this TensorRT, or b"".
        watch: told how far it is.

    Raises:
        ModelFileError: the network cannot be parsed, or not be built.
        MemoryError: the GPU has too little memory to build for this size, or a tensor would be too large.
        KeyboardInterrupt: the user stopped it.
    """
    api, log = flavour.api, Log.of(flavour.api)
    log.forget()
    builder = api.Builder(log.logger)
    network = builder.create_network(_flags(flavour))
    parser = api.OnnxParser(network, log.logger)
    if not parser.parse(graph(path, precision)):
        errors = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise load_failed(NAME, path, RuntimeError(errors))
    reporter = monitor(api, watch)
    config = _config(flavour, builder, gpu, reporter)
    _add_profile(builder, config, network, side, path)
    cache = None if flavour.portable else _timing_cache(config, timings)
    plan = builder.build_serialized_network(network, config)
    if watch.cancelled:
        raise KeyboardInterrupt
    if plan is None:
        raise _failure(path, log.problem())
    return Built(bytes(plan), b"" if cache is None else bytes(config.get_timing_cache().serialize()))


@dataclass(frozen=True, slots=True)
class Log:
    """A logger for TensorRT that prints nothing and remembers errors, each thread's apart."""

    logger: Any
    errors: dict[int, list[str]]

    @classmethod
    @cache
    def of(cls, api: Any) -> "Log":
        """The one of this process: TensorRT tells everything to the first logger it is given."""
        errors: dict[int, list[str]] = {}
        serious = (api.ILogger.INTERNAL_ERROR, api.ILogger.ERROR)

        class Logger(api.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                api.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in serious:
                    errors.setdefault(get_ident(), []).append(msg)

        return cls(Logger(), errors)

    def problem(self) -> str:
        """What went wrong in this thread since the last call, told once."""
        return "; ".join(self.errors.pop(get_ident(), [])) or "no reason given"

    def forget(self) -> None:
        """What went wrong before does not matter."""
        self.errors.pop(get_ident(), None)


def failure(text: str) -> MemoryError | InferenceError:
    """TensorRT's words as the error to raise; it says in ways of its own that memory ran out."""
    if any(phrase in text.lower() for phrase in _NO_MEMORY):
        return MemoryError(f"{NAME}: {text[:200]}")
    return run_failed(NAME, RuntimeError(text))


def _failure(path: Path, text: str) -> Exception:
    error = failure(text)
    return error if isinstance(error, MemoryError) else load_failed(NAME, path, RuntimeError(text))


def _flags(flavour: Flavour) -> int:
    """Strongly typed: arithmetic is what the graph says. TensorRT 11 is always so and has no flag."""
    if flavour.name == "tensorrt" and not flavour.version.startswith("10."):
        return 0
    return 1 << int(flavour.api.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _config(flavour: Flavour, builder: Any, gpu: Gpu | None, reporter: Any) -> Any:
    api, config = flavour.api, builder.create_builder_config()
    workspace = PORTABLE_WORKSPACE if gpu is None else gpu.memory
    config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, workspace)
    config.clear_flag(api.BuilderFlag.TF32)
    _set_what_it_knows(api, config)
    config.progress_monitor = reporter
    name = capability_name(api, gpu) if flavour.portable and gpu is not None else None
    if name is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(api.ComputeCapability, name), 0)
    return config


def _set_what_it_knows(api: Any, config: Any) -> None:
    """What newer versions offer. All memory from outside, as recording a CUDA graph requires; and scratch
    memory for the tile that runs, not for the largest the engine takes."""
    if hasattr(api.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
        config.set_flag(api.BuilderFlag.REQUIRE_USER_ALLOCATION)
    resizing = "RUNTIME_ACTIVATION_RESIZE_10_10"
    if hasattr(getattr(api, "PreviewFeature", None), resizing):
        config.set_preview_feature(getattr(api.PreviewFeature, resizing), True)


def _add_profile(builder: Any, config: Any, network: Any, side: int, path: Path) -> None:
    """Pictures smaller than a tile, last windows and turned ones all lie between 1 pixel and the side."""
    name, channels = _input(network, path)
    profile = builder.create_optimization_profile()
    largest = (1, channels, side, side)
    try:
        profile.set_shape(name, (1, channels, 1, 1), largest, largest)
        taken = config.add_optimization_profile(profile) >= 0
    except (RuntimeError, ValueError) as error:
        raise load_failed(NAME, path, error) from error
    if not taken:
        raise load_failed(NAME, path, RuntimeError("it takes no inputs of any size"))


def _input(network: Any, path: Path) -> tuple[str, int]:
    """Name and channels of the input, of which height and width must be free (-1) and the batch free or 1."""
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
    """The builder's memory of how fast each kernel was; one of another GPU or version counts as none."""
    cache = config.create_timing_cache(timings)
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache
