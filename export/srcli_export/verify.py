"""Is the exported file the network of the checkpoint? An export that is not is refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from srcli.errors import ExportError
from srcli.metrics import psnr_y
from srcli_export.runtime import Batch, Pixels, Runner, to_batch, to_levels

MAX_ERROR = 1e-4
"""Largest difference allowed between PyTorch and the exported file, on 0-1."""
MAX_COST = 0.001
"""Decibels that fp16 storage must stay under."""

_SIZES = ((1, 17, 23), (2, 12, 9), (1, 1, 1), (1, 48, 48))
_CROP = (61, 47)


def probes(images: Sequence[Pixels]) -> list[Batch]:
    """Random batches of odd and even sizes, 1×1 among them, and a crop of each image."""
    rng = np.random.default_rng(0)
    noise = [rng.random((n, 3, height, width), np.float32) for n, height, width in _SIZES]
    return noise + [to_batch(image[: _CROP[0], : _CROP[1]]) for image in images]


def check_parity(path: Path, network: nn.Module, scale: int, batches: Sequence[Batch]) -> float:
    """Compare an ONNX file with the network it was made from, both in float32.

    Args:
        path: the export.
        network: the training network, not fused, in evaluation mode.
        scale: the scale of the export.
        batches: (N, 3, H, W) float32 0-1.

    Returns:
        The largest absolute difference, on 0-1.

    Raises:
        ExportError: it is over 1e-4, or not a number.
    """
    run = Runner(path)
    error = max(_difference(run(batch), _reference(network, scale, batch)) for batch in batches)
    if error <= MAX_ERROR:
        return error
    raise ExportError(
        f"{path.name}: the export differs from its checkpoint by {error:.2g}, more than {MAX_ERROR:g}.",
        "Nothing was written. If the checkpoint's weights are sound, this is a bug of the exporter.",
    )


def check_cost(full: Path, half: Path, pairs: Sequence[tuple[Pixels, Pixels]], scale: int) -> float:
    """Compare a file with fp16 weights with the one with fp32 weights on (LR, HR) images.

    Returns:
        PSNR lost, in dB (Y, shave = scale, output not rounded, mean over the images); may be negative.

    Raises:
        ExportError: it is 0.001 dB or more, or not a number.
    """
    cost = _quality(Runner(full), pairs, scale) - _quality(Runner(half), pairs, scale)
    if cost < MAX_COST:
        return cost
    raise ExportError(
        f"{half.name}: weights stored as fp16 cost {cost:.4f} dB, {MAX_COST} dB or more.",
        "Store them as fp32.",
    )


def _reference(network: nn.Module, scale: int, batch: Batch) -> Batch:
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(batch), scale).numpy(), np.float32)


def _difference(a: Batch, b: Batch) -> float:
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    if a.shape != b.shape or not np.isfinite(a).all() or not np.isfinite(b).all():
        return float("inf")
    return float(np.abs(a - b).max())


def _quality(run: Runner, pairs: Sequence[tuple[Pixels, Pixels]], scale: int) -> float:
    return float(np.mean([psnr_y(to_levels(run(to_batch(lr))), hr, scale) for lr, hr in pairs]))
