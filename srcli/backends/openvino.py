"""OpenVINO on the CPU, in fp32, native bf16 or a file's own int8: the fastest way to run these on x86."""

import platform
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from srcli.backends import compiled, libraries
from srcli.backends.base import BackendOptions, Batch, EngineInfo, in_use
from srcli.backends.libraries import load_failed, refused, run_failed, settled
from srcli.errors import BackendUnavailableError, MissingExtraError
from srcli.models.spec import ModelSpec

NAME = "openvino"
_X86 = ("x86_64", "amd64")
_HINTS = {"fp32": "f32", "bf16": "bf16"}
"""What OpenVINO calls a precision."""


class OpenVinoEngine:
    """A compiled model with dynamic shapes: as fast as one compiled per shape, and ready at once."""

    def __init__(self, network: Any, scale: int) -> None:
        self.scale = scale
        self.info = EngineInfo(NAME, *_in_use(network))
        self._request = network.create_infer_request()

    def run(self, lr: Batch) -> Batch:
        """(N, 3, H, W) -> (N, 3, scale*H, scale*W); the result is a copy and stays valid."""
        try:
            return np.asarray(self._request.infer([lr], share_inputs=True)[0])
        except (RuntimeError, MemoryError) as error:
            raise run_failed(NAME, error) from error


def load(path: Path, spec: ModelSpec, options: BackendOptions) -> OpenVinoEngine:
    """Compile an ONNX file for the CPU. "auto" is bf16 where the CPU has it natively, else fp32.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BackendUnavailableError: another device than the CPU, or a precision this CPU lacks.
        ModelFileError: the file cannot be loaded.
    """
    try:
        openvino = libraries.openvino()
    except ImportError as error:
        raise MissingExtraError("The openvino backend", "cpu") from error
    core = _core()
    if options.device not in ("auto", "cpu"):
        raise refused(NAME, "device", options.device, ("cpu",))
    precision = settled(NAME, options.precision, ("fp32", "bf16") if has_bf16(core) else ("fp32",))
    try:
        config = _config(precision, options.threads)
        made = compiled.load(core, path, config, openvino.__version__)
    except RuntimeError as error:
        raise load_failed(NAME, path, error) from error
    engine = OpenVinoEngine(made, spec.scale)
    if (engine.info.device, engine.info.precision) != ("cpu", precision):
        raise BackendUnavailableError(f"OpenVINO was asked for {precision} on cpu and chose {engine.info}.")
    engine.info = replace(engine.info, precision=in_use(spec, precision))
    return engine


@lru_cache(maxsize=1)
def _core() -> Any:
    return libraries.openvino().Core()


def has_fast_int8() -> bool:
    """Whether int8 is likely the fastest: on x86 CPUs.

    It was measured on two: with AVX2 alone it takes 0.71 to 0.89 of the time of fp32, as more convolutions
    bear eight bits, and with AVX-512 BF16, where other files were measured, 0.67 to 0.84 of that of bf16; not
    on what lies between. False on others, and without OpenVINO.
    """
    try:
        return platform.machine().lower() in _X86 and "INT8" in _capabilities(_core())
    except (ImportError, RuntimeError):  # which loading a network says in its own words
        return False


def has_bf16(core: Any) -> bool:
    """Whether this CPU multiplies bf16 natively (AVX512-BF16 or AMX)."""
    return "BF16" in _capabilities(core)


def _capabilities(core: Any) -> list[str]:
    return list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _config(precision: str, threads: int) -> dict[str, Any]:
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS[precision]}
    return config | {"INFERENCE_NUM_THREADS": threads} if threads else config


def _in_use(network: Any) -> tuple[str, str]:
    """(device, precision) as the compiled model reports them."""
    devices = ",".join(network.get_property("EXECUTION_DEVICES")).lower()
    hint = network.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return devices, {its: ours for ours, its in _HINTS.items()}.get(hint, hint)
