"""Helpers of the tests of backends: load an engine, a random picture, the PSNR of two results."""

from pathlib import Path

import numpy as np

from srcli.backends import registry
from srcli.backends.base import Batch, Engine
from srcli.imaging.metrics import decibels
from srcli.models.spec import read_spec
from srcli.settings import Settings

FP32_TOLERANCE = 1e-4
"""Largest difference on 0-1 that an export may have. Kernels differ by 1e-6, TF32 would by 1e-3."""


def picture(height: int, width: int, seed: int = 0) -> Batch:
    """Uniform noise."""
    return np.random.default_rng(seed).random((1, 3, height, width), np.float32)


def load(backend: str, path: Path, precision: str = "fp32", device: str = "auto") -> Engine:
    """The engine of a file with metadata."""
    spec = read_spec(path)
    assert spec is not None
    return registry.load(backend, path, spec, Settings(precision=precision, device=device))


def psnr(a: Batch, b: Batch) -> float:
    """In dB on 0-1; infinite for equal ones."""
    return decibels(float(np.mean(np.square(a - b, dtype=np.float64))), peak=1.0)
