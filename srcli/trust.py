"""Whether a device computes what the network means: a part of its first tile beside the CPU's."""

import numpy as np

from srcli.backends import registry
from srcli.backends.base import BackendOptions, Batch, Engine
from srcli.errors import BackendUnavailableError, MissingExtraError
from srcli.imaging.metrics import decibels
from srcli.models.catalog import ModelFile

LEAST = 35.0
"""dB on 0-1 that a device must reach. Halves and bfloat16 reach more than 50; a wrong kernel less than 20."""
_SIDE = 128  # LR pixels: enough of a picture, and quick on a CPU with the largest network


def psnr_to_cpu(engine: Engine, lr: Batch, file: ModelFile) -> float | None:
    """How close a device comes to the CPU in fp32 on the middle of a tile; None without a CPU backend.

    Args:
        engine: on the device; not a number counts as no PSNR at all.
        lr: (1, 3, H, W), the tile.
        file: the network; one that is quantised is compared with itself on the CPU.
    """
    quantised = file.spec.arithmetic == "int8"
    options = BackendOptions("auto" if quantised else "fp32", "cpu")
    try:
        reference = registry.load(registry.choose("auto", options).name, file.path, file.spec, options)
    except (MissingExtraError, BackendUnavailableError):
        return None
    middle = np.ascontiguousarray(lr[:, :, _middle(lr.shape[2]), _middle(lr.shape[3])])
    error = np.square(engine.run(middle) - reference.run(middle), dtype=np.float64).mean()
    return decibels(float(error), peak=1.0)


def _middle(length: int) -> slice:
    start = max(0, (length - _SIDE) // 2)
    return slice(start, start + min(length, _SIDE))
