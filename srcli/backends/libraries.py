"""Inference libraries imported without their telemetry, and their errors translated into srcli's.

Imported as they come, OpenVINO sends an event to a web service and ONNX Runtime keeps an identifier and a log
of events in the home directory. People's pictures are no one else's business.
"""

import os
import sys
from pathlib import Path
from typing import Any

from srcli.errors import BackendUnavailableError, InferenceError, ModelFileError


def openvino() -> Any:
    """OpenVINO, whose own stand-in for its telemetry package takes over where that cannot be imported.

    Raises:
        ImportError: it is not installed.
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


def onnxruntime() -> Any:
    """ONNX Runtime.

    Raises:
        ImportError: it is not installed.
    """
    silence_onnxruntime()
    import onnxruntime

    return onnxruntime


def silence_onnxruntime() -> None:
    """To be called before it is imported: it asks the environment. What the user has set there stands."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


_OUT_OF_MEMORY = (
    "out of memory",
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "can't allocate",
    "cannot allocate",
    "not enough memory",
    "alloc_failed",  # cuDNN's and cuBLAS's names for it
    "allocation_failed",  # cuDNN 9's
    "is smaller than requested bytes",  # ONNX Runtime's arena
)


def run_failed(backend: str, error: Exception) -> MemoryError | InferenceError:
    """The error to raise when a network's run failed: MemoryError where a smaller input may work."""
    text = str(error)
    if isinstance(error, MemoryError) or any(phrase in text.lower() for phrase in _OUT_OF_MEMORY):
        return MemoryError(f"{backend}: {one_line(error)}")
    return InferenceError(f"The {backend} backend failed: {one_line(error)}")


def load_failed(backend: str, path: Path, error: Exception) -> ModelFileError:
    """The error to raise when a library cannot load a model file."""
    hint = "Is the file complete? Export it again, or try another --backend."
    return ModelFileError(f"{path}: the {backend} backend cannot load it ({one_line(error)}).", hint)


def settled(backend: str, asked: str, possible: tuple[str, ...]) -> str:
    """The precision asked for, if it is possible; "auto" is the last of those.

    Raises:
        BackendUnavailableError: it is not possible.
    """
    if asked == "auto":
        return possible[-1]
    if asked not in possible:
        raise refused(backend, "precision", asked, possible)
    return asked


def refused(backend: str, what: str, asked: str, possible: tuple[str, ...]) -> BackendUnavailableError:
    """The error to raise when a device or precision cannot be had; nothing falls back silently."""
    hint = f"Use {what} {', '.join(possible)}, or auto, or another backend."
    return BackendUnavailableError(f"The {backend} backend has no {what} {asked} here.", hint)


def one_line(error: Exception) -> str:
    """What a library says, as far as it fits in a sentence: the last line, which is the innermost reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no reason given"
