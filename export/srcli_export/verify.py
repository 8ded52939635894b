"""Is the exported file the network of the checkpoint? An export that is not is refused."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from srcli.errors import ExportError
from srcli.imaging.metrics import decibels, psnr_y
from srcli_export.runtime import Batch, Pixels, Runner, to_batch, to_levels

MAX_ERROR = 1e-4
"""Largest difference allowed between PyTorch and the exported file, on 0-1."""
MAX_COST = 0.001
"""Decibels that fp16 storage must stay under."""

MAX_LOSS = {"fp32": MAX_COST, "fp16": 0.01}
"""Decibels that a file may lose against the checkpoint, by its arithmetic; for int8 see `gain`."""
_INSTEAD = {"fp32": "Store the weights as fp32.", "fp16": "Leave fp16 out of the precisions."}

_SIZES = ((1, 17, 23), (2, 12, 9), (1, 1, 1), (1, 48, 48))
_CROP = (61, 47)
_SAME = 150.0
"""dB that equal images are told as; float32 against itself in another order of sums gives some 130."""


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a file compares with its checkpoint in float32; means over HR images and their bicubic LR, dB.

    Attributes:
        psnr_to_checkpoint: between the two outputs, on 0-1, neither clipped nor rounded; at most 150.
        psnr_to_hr: of the file's output (Y, shave = scale, not rounded).
        psnr_lost: what the checkpoint's has more of that; may be negative.
        images: how many.
    """

    psnr_to_checkpoint: float
    psnr_to_hr: float
    psnr_lost: float
    images: int

    def figures(self) -> dict[str, float]:
        """For a spec: every figure by its name, to 0.0001 dB."""
        return {name: round(float(figure), 4) for name, figure in asdict(self).items()}


class Judge:
    """Compares files with the checkpoint of one scale, whose own outputs are computed once.

    Args:
        network: the training network, not fused, in evaluation mode.
        scale: of the files.
        pairs: (LR, HR) images.
    """

    def __init__(self, network: nn.Module, scale: int, pairs: Sequence[tuple[Pixels, Pixels]]) -> None:
        self.scale, self._pairs = scale, pairs
        self._references = [_reference(network, scale, to_batch(lr)) for lr, _ in pairs]
        self._best = [psnr_y(to_levels(sr), hr, scale) for sr, (_, hr) in self._of(self._references)]

    def __call__(self, run: Runner) -> Verdict:
        """The verdict on one file.

        Raises:
            ExportError: the file cannot be run.
        """
        outputs = [run(to_batch(lr)) for lr, _ in self._pairs]
        near = [_psnr(sr, best) for sr, best in zip(outputs, self._references, strict=True)]
        reached = [psnr_y(to_levels(sr), hr, self.scale) for sr, (_, hr) in self._of(outputs)]
        lost = float(np.mean(self._best)) - float(np.mean(reached))
        return Verdict(float(np.mean(near)), float(np.mean(reached)), lost, len(outputs))

    def _of(self, outputs: Sequence[Batch]) -> list[tuple[Batch, tuple[Pixels, Pixels]]]:
        return list(zip(outputs, self._pairs, strict=True))


def check_loss(name: str, verdict: Verdict, arithmetic: str) -> None:
    """Refuse a file that is further from its checkpoint than its arithmetic excuses.

    Raises:
        ExportError: it loses more than `MAX_LOSS`, or its output is not a number.
    """
    hint = f"Nothing was written. {_INSTEAD[arithmetic]}"
    if not np.isfinite(verdict.psnr_to_checkpoint):
        raise ExportError(f"{name}: gives infinities or NaN in {arithmetic}.", hint)
    if not verdict.psnr_lost <= MAX_LOSS[arithmetic]:
        lost = f"{arithmetic} loses {verdict.psnr_lost:.4f} dB against the checkpoint"
        raise ExportError(f"{name}: {lost}, more than {MAX_LOSS[arithmetic]}.", hint)


def _psnr(a: Batch, b: Batch) -> float:
    """PSNR on 0-1 in dB, at most 150; not a number where one of them is not finite."""
    psnr = decibels(float(np.mean((a.astype(np.float64) - b) ** 2)), peak=1.0)
    return min(psnr, _SAME)


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
