"""Runs exported files in ONNX Runtime, float32 on the CPU: the judge of every export."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from srcli.errors import ExportError

Batch = NDArray[np.float32]
"""(N, 3, H, W) float32 RGB, 0-1."""
Pixels = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB, 0-255."""


class Runner:
    """An ONNX file, loaded: batch in, batch out.

    Args:
        path: the file.
        model: what to run in its place, with all weights inside.

    Raises:
        ExportError: ONNX Runtime cannot load it.
    """

    def __init__(self, path: Path, model: onnx.ModelProto | None = None) -> None:
        self._path, content = path, model.SerializeToString() if model else path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # the errors come back as exceptions
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class but Exception
            raise ExportError(f"{path.name}: ONNX Runtime cannot load the export ({error}).") from error

    def __call__(self, lr: Batch) -> Batch:
        """(N, 3, scale * H, scale * W) float32, not clipped.

        Raises:
            ExportError: ONNX Runtime fails.
        """
        return np.asarray(self.raw(lr), np.float32)

    def raw(self, lr: NDArray[Any]) -> NDArray[Any]:
        """The same for files with other types at their ends, in these types.

        Raises:
            ExportError: ONNX Runtime fails.
        """
        return self.values(["sr"], lr)[0]

    def values(self, outputs: Sequence[str], lr: NDArray[Any]) -> list[NDArray[Any]]:
        """The same for any outputs, by name.

        Raises:
            ExportError: ONNX Runtime fails.
        """
        try:
            return [np.asarray(value) for value in self._session.run(list(outputs), {"lr": lr})]
        except Exception as error:
            raise ExportError(f"{self._path.name}: ONNX Runtime cannot run the export ({error}).") from error


def to_batch(pixels: Pixels) -> Batch:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 0-1."""
    planes = pixels.transpose(2, 0, 1)[np.newaxis]
    return np.asarray(np.ascontiguousarray(planes, np.float32) / np.float32(255), np.float32)


def to_levels(batch: Batch) -> NDArray[np.float32]:
    """(1, 3, H, W) 0-1 -> (H, W, 3) on 0-255, clipped, not rounded."""
    levels = batch[0].transpose(1, 2, 0) * np.float32(255)
    return np.asarray(np.clip(levels, 0, 255), np.float32)


def to_pixels(batch: Batch) -> Pixels:
    """(1, 3, H, W) 0-1 -> (H, W, 3) uint8, clipped and rounded half up."""
    return np.asarray(np.floor(to_levels(batch) + np.float32(0.5)), np.uint8)
