"""Bicubic interpolation behind the Engine interface: the baseline, and a double for tests. Needs no file."""

from pathlib import Path

import numpy as np

from srcli.backends.base import BackendOptions, Batch, EngineInfo
from srcli.backends.libraries import refused
from srcli.imaging.resize import imresize
from srcli.models.spec import ModelSpec

NAME = "bicubic"
HALO = 3
"""LR pixels the kernel sees to each side when enlarging (2), and one for the phase."""


class BicubicEngine:
    """Our bicubic, equal to MATLAB's up to the rounding of its first pass."""

    def __init__(self, scale: int) -> None:
        self.scale = scale
        self.info = EngineInfo(NAME, "cpu", "fp32")

    def run(self, lr: Batch) -> Batch:
        """(N, 3, H, W) -> (N, 3, scale*H, scale*W)."""
        size = (lr.shape[2] * self.scale, lr.shape[3] * self.scale)
        images = [imresize(image.transpose(1, 2, 0), size).transpose(2, 0, 1) for image in lr]
        return np.ascontiguousarray(np.stack(images), np.float32)


def spec(scale: int) -> ModelSpec:
    """What stands in for a model file's spec."""
    return ModelSpec(NAME, "other", scale, exact_halo=HALO, halo=HALO, license="Apache-2.0")


def load(path: Path, spec: ModelSpec, options: BackendOptions) -> BicubicEngine:
    """An engine for spec.scale; the file is not looked at.

    Raises:
        BackendUnavailableError: another device than the CPU or another precision than fp32.
    """
    if options.precision not in ("auto", "fp32"):
        raise refused(NAME, "precision", options.precision, ("fp32",))
    if options.device not in ("auto", "cpu"):
        raise refused(NAME, "device", options.device, ("cpu",))
    return BicubicEngine(spec.scale)
