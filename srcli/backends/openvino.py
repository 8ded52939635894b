"""OpenVINO on the CPU, in fp32, native bf16 or a file's own int8: the fastest backend on x86.

Compiled networks are kept in srcli's cache, so that the next run starts a tenth of a second sooner.
OpenVINO's
own cache is not used: a damaged file in it gives wrong pixels or ends the process. Here every file carries a
checksum.
"""

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from srcli.backends.base import (
    Batch,
    EngineInfo,
    Input,
    choose_precision,
    load_failed,
    refused,
    reported_precision,
    run_failed,
)
from srcli.errors import BackendUnavailableError, MissingExtraError
from srcli.io import storage
from srcli.io.storage import cache_folder
from srcli.models.spec import METADATA_KEY, ModelSpec, read_metadata
from srcli.settings import Settings

NAME = "openvino"
_X86 = ("x86_64", "amd64")
_HINTS = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's names of precisions."""

_SUFFIX = ".compiled"
_COMPILATION = 2
"""Part of the cache key: raise it when `compile_file` starts to compile the same file differently."""


def import_openvino() -> Any:
    """OpenVINO without its telemetry, which would send an event to a web service on import.

    Its telemetry package is made to fail to import; OpenVINO then uses a stub of its own.

    Raises:
        ImportError: OpenVINO is not installed.
    """
    package = "openvino_telemetry"
    was_there = package in sys.modules
    if not was_there:
        sys.modules[package] = None  # type: ignore[assignment]  # makes its import fail
    try:
        import openvino
    finally:
        if not was_there:
            del sys.modules[package]
    return openvino


class OpenVinoEngine:
    """A network compiled for any input shape: as fast as one compiled for each shape, and ready at once."""

    def __init__(self, network: Any, scale: int) -> None:
        self.scale = scale
        self.info = EngineInfo(NAME, *_device_and_precision(network))
        self._compiled, self._request = network, network.create_infer_request()
        self._dtype = network.inputs[0].get_element_type().to_dtype()

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What the network takes."""
        return tuple(
            Input(one.get_any_name(), one.get_element_type().to_dtype().name, _sides(one.get_partial_shape()))
            for one in self._compiled.inputs
        )

    def run(self, lr: Batch) -> Batch:
        """(N, 3, H, W) -> (N, 3, scale*H, scale*W); the result is a copy and stays valid."""
        try:
            self._request = self._request or self._compiled.create_infer_request()
            result = self._request.infer([lr.astype(self._dtype, copy=False)], share_inputs=True)[0]
            return np.asarray(result, np.float32)
        except (RuntimeError, MemoryError) as error:
            raise run_failed(NAME, error) from error

    def release(self) -> None:
        """Free the memory of features, which grows with the input; the next run allocates it again."""
        self._request = None
        if hasattr(self._compiled, "release_memory"):
            self._compiled.release_memory()


def _sides(shape: Any) -> tuple[int | None, ...]:
    """Of a partial shape; empty if even the number of its sides is open."""
    if shape.rank.is_dynamic:
        return ()
    return tuple(side.get_length() if side.is_static else None for side in shape)


def load(path: Path, spec: ModelSpec, settings: Settings) -> OpenVinoEngine:
    """Compile an ONNX file for the CPU. "auto" is bf16 where the CPU has it natively, else fp32.

    Raises:
        MissingExtraError: OpenVINO is not installed.
        BackendUnavailableError: another device than the CPU, or a precision this CPU lacks.
        ModelFileError: the file cannot be loaded.
    """
    try:
        openvino = import_openvino()
    except ImportError as error:
        raise MissingExtraError("The openvino backend", "cpu") from error
    core = _core()
    if settings.device not in ("auto", "cpu"):
        raise refused(NAME, "device", settings.device, ("cpu",))
    possible = ("fp32", "bf16") if has_bf16(core) else ("fp32",)
    precision = choose_precision(NAME, settings.precision, possible)
    try:
        network = compile_cached(core, path, _config(precision, settings.threads), openvino.__version__)
    except RuntimeError as error:
        raise load_failed(NAME, path, error) from error
    engine = OpenVinoEngine(network, spec.scale)
    if (engine.info.device, engine.info.precision) != ("cpu", precision):
        raise BackendUnavailableError(f"OpenVINO was asked for {precision} on cpu and chose {engine.info}.")
    engine.info = replace(engine.info, precision=reported_precision(spec, precision))
    return engine


@lru_cache(maxsize=1)
def _core() -> Any:
    return import_openvino().Core()


def has_fast_int8() -> bool:
    """Whether int8 is likely the fastest precision: on x86 CPUs. False without OpenVINO.

    Measured on two: with AVX2 alone int8 takes 0.71 to 0.89 of the time of fp32, less the more convolutions
    are quantised; with AVX-512 BF16, on other files, 0.67 to 0.84 of the time of bf16. CPUs between these two
    were not measured.
    """
    try:
        return platform.machine().lower() in _X86 and "INT8" in _capabilities(_core())
    except (ImportError, RuntimeError):  # loading a network reports the reason
        return False


def has_bf16(core: Any) -> bool:
    """Whether this CPU multiplies bf16 natively (AVX512-BF16 or AMX)."""
    return "BF16" in _capabilities(core)


def _capabilities(core: Any) -> list[str]:
    return list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _config(precision: str, threads: int) -> dict[str, Any]:
    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "ENABLE_CPU_PINNING": False,  # it puts the threads of every process on the same, first cores
    }
    return config | {"INFERENCE_NUM_THREADS": threads} if threads else config


def _device_and_precision(network: Any) -> tuple[str, str]:
    """(device, precision) as the compiled network reports them."""
    devices = ",".join(network.get_property("EXECUTION_DEVICES")).lower()
    hint = network.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return devices, {theirs: ours for ours, theirs in _HINTS.items()}.get(hint, hint)


def compile_cached(core: Any, path: Path, config: Mapping[str, Any], version: str) -> Any:
    """The network compiled for the CPU: read from the cache, or compiled and written there if possible.

    Args:
        core: openvino.Core.
        path: an ONNX file.
        config: of the compilation.
        version: OpenVINO's.

    Raises:
        ModelFileError: the file is no ONNX file.
        RuntimeError: OpenVINO cannot load it.
    """
    key = _cache_key(core, path, config, version)
    if key is None:
        return compile_file(core, path, config)
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    file = cache_folder(NAME) / f"{path.stem}-{digest}{_SUFFIX}"
    content = None
    with suppress(storage.StaleError):
        content = storage.read_checked(file, key)
    if content is not None:
        with suppress(RuntimeError):  # then it is compiled again
            return core.import_model(content, "CPU", dict(config))
    network = compile_file(core, path, config)
    with suppress(OSError, RuntimeError):  # a full disk, or a plug-in that cannot export
        storage.write_checked(file, key, network.export_model().getvalue())
        storage.forget_unused(file.parent, (_SUFFIX,))
    return network


def compile_file(core: Any, path: Path, config: Mapping[str, Any]) -> Any:
    """The network of an ONNX file compiled for the CPU. Args: as of `compile_cached`."""
    return core.compile_model(core.read_model(path), "CPU", dict(config))


def _cache_key(core: Any, path: Path, config: Mapping[str, Any], version: str) -> str | None:
    """Everything that the compiled network depends on; None for files without srcli's metadata.

    Those of srcli hold their weights, or the checksum of the file beside them that does, which was compared
    before. Others may have weights in files that nothing checks.
    """
    if METADATA_KEY not in read_metadata(path):
        return None
    about = {
        "model": hashlib.sha256(path.read_bytes()).hexdigest(),
        "config": dict(config),
        "compilation": _COMPILATION,
        "openvino": version,
        "cpu": core.get_property("CPU", "FULL_DEVICE_NAME"),
        "capabilities": sorted(_capabilities(core)),
    }
    return json.dumps(about, sort_keys=True)
