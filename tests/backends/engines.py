"""What the tests of backends share: an engine of a file, a picture, and how close two results are."""

from pathlib import Path

import numpy as np

from srcli.backends import registry
from srcli.backends.base import BackendOptions, Batch, Engine
from srcli.imaging.metrics import decibels
from srcli.models.spec import read_spec

F32_TOLERANCE = 1e-4
"""On 0-1: what an export may differ by. Kernels differ by some 1e-6; TF32, which is off, would by 1e-3."""


def picture(height: int, width: int, seed: int = 0) -> Batch:
    """Noise."""
    return np.random.default_rng(seed).random((1, 3, height, width), np.float32)


def load(backend: str, path: Path, precision: str = "fp32", device: str = "auto") -> Engine:
    """The engine of a file with a spec."""
    spec = read_spec(path)
    assert spec is not None
    return registry.load(backend, path, spec, BackendOptions(precision, device))


def psnr(a: Batch, b: Batch) -> float:
    """In dB on 0-1; infinite for equal ones."""
    return decibels(float(np.mean(np.square(a - b, dtype=np.float64))), peak=1.0)
