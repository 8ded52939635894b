"""Pictures for tests of the Upscaler, and how far two ways to compute them may differ."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]

ROUNDING = 2e-5
"""Tiled against untiled in fp32, on 0-1: the kernels sum the same products in another order, each rounding
2**-24 relative; some tens of layers leave about 1e-6, and twenty times that is safe."""


def picture(height: int, width: int, seed: int = 0) -> Image:
    """(H, W, 3) float32: noise over a ramp, so that any seam or shift shows."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0.2, 0.8, width, dtype=np.float32)[None, :, None]
    return np.clip(ramp + rng.normal(0, 0.15, (height, width, 3)), 0, 1).astype(np.float32)


def to_8bit(image: Image) -> Image:
    return np.rint(image * 255).astype(np.uint8)
