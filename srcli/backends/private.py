"""Inference libraries imported so that they report to nobody.

Imported as they come, OpenVINO sends an event to a web service and ONNX Runtime keeps an identifier and a
log of events in the home directory. People's pictures are no one else's business.
"""

import os
import sys
from typing import Any


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
