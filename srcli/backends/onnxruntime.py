"""ONNX Runtime on the CPU, in f32: runs everywhere, and is what other backends are measured against."""

from pathlib import Path
from typing import Any

import numpy as np

from srcli.backends.base import BackendOptions, Batch, EngineInfo
from srcli.backends.failures import load_failed, refused, run_failed
from srcli.errors import BackendUnavailableError, MissingExtraError
from srcli.spec import ModelSpec

NAME = "onnxruntime"
_PROVIDERS = {"cpu": "CPUExecutionProvider"}


class OnnxRuntimeEngine:
    """One session; `run` allocates its result anew each time."""

    def __init__(self, session: Any, scale: int) -> None:
        self.scale = scale
        self.info = EngineInfo(NAME, _device(session), "f32")
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name

    def run(self, lr: Batch) -> Batch:
        """(N, 3, H, W) -> (N, 3, scale*H, scale*W)."""
        try:
            return np.asarray(self._session.run([self._output], {self._input: lr})[0])
        except Exception as error:  # its exceptions derive from Exception, each on its own
            raise run_failed(NAME, error) from error


def load(path: Path, spec: ModelSpec, options: BackendOptions) -> OnnxRuntimeEngine:
    """Open a session on the CPU.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        BackendUnavailableError: another device than the CPU, another precision than f32.
        ModelFileError: the file cannot be loaded.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("The onnxruntime backend", "cpu") from error
    if options.precision not in ("auto", "f32"):
        raise refused(NAME, "precision", options.precision, ("f32",))
    device = "cpu" if options.device == "auto" else options.device
    if device not in _PROVIDERS:
        raise refused(NAME, "device", device, tuple(_PROVIDERS))
    try:
        session = onnxruntime.InferenceSession(
            str(path), _session_options(onnxruntime, options.threads), providers=[_PROVIDERS[device]]
        )
    except Exception as error:  # as above
        raise load_failed(NAME, path, error) from error
    engine = OnnxRuntimeEngine(session, spec.scale)
    if engine.info.device != device:
        raise BackendUnavailableError(f"ONNX Runtime was asked for {device} and chose {engine.info.device}.")
    return engine


def _session_options(onnxruntime: Any, threads: int) -> Any:
    """All graph optimisations; no arena, which would keep the largest tile's memory for good."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return options


def _device(session: Any) -> str:
    """The device of the session's first provider, as the session reports it."""
    first: str = session.get_providers()[0]
    return {provider: device for device, provider in _PROVIDERS.items()}.get(first, first)
