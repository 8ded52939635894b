"""What is measured on an exported file, and the limits beyond which it is refused: parity, PSNR, halo."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from srcli.errors import ExportError
from srcli.imaging.metrics import decibels, psnr_y
from srcli.tiles import plan
from srcli_export.runtime import Batch, Pixels, Runner, to_255, to_batch, to_uint8
from srcli_train.evaluate import evaluate, mean

MAX_ERROR = 1e-4
"""Largest difference allowed between PyTorch and the exported file, on 0-1."""
MAX_COST = 0.001
"""Decibels that fp16 storage must stay under."""

MAX_LOSS = {"fp32": MAX_COST, "fp16": 0.01}
"""Decibels that a file may lose against the checkpoint, by its arithmetic; for int8 see `int8.MAX_LOSS`."""
_INSTEAD = {"fp32": "Store the weights as fp32.", "fp16": "Leave fp16 out of the precisions."}

_SIZES = ((1, 17, 23), (2, 12, 9), (1, 1, 1), (1, 48, 48))
_CROP = (61, 47)
_MAX_PSNR = 150.0
"""dB reported for equal images; fp32 against itself with sums in another order gives about 130."""

_TILE = 64
_HALO_STEP = 2
_MARGIN = 4
"""LR pixels added to the measured halo, since other images may need more."""
_DECIMALS = 3


def probes(images: Sequence[Pixels]) -> list[Batch]:
    """Random batches of odd and even sizes, 1×1 among them, and a crop of each image."""
    rng = np.random.default_rng(0)
    noise = [rng.random((n, 3, height, width), np.float32) for n, height, width in _SIZES]
    return noise + [to_batch(image[: _CROP[0], : _CROP[1]]) for image in images]


def check_parity(path: Path, network: nn.Module, scale: int, batches: Sequence[Batch]) -> float:
    """Compare an ONNX file with the PyTorch network it was made from, both in fp32.

    Args:
        path: the export.
        network: the training network, not fused, in evaluation mode.
        scale: the scale of the export.
        batches: (N, 3, H, W) float32 0-1.

    Returns:
        The largest absolute difference, on 0-1.

    Raises:
        ExportError: it is over 1e-4, or not finite.
    """
    run = Runner(path)
    error = max(_difference(run(batch), _pytorch(network, scale, batch)) for batch in batches)
    if error <= MAX_ERROR:
        return error
    raise ExportError(
        f"{path.name}: the export differs from its checkpoint by {error:.2g}, more than {MAX_ERROR:g}.",
        "Nothing was written. If the checkpoint's weights are sound, this is a bug of the exporter.",
    )


def check_cost(fp32: Path, fp16: Path, pairs: Sequence[tuple[Pixels, Pixels]], scale: int) -> float:
    """Compare a file that stores fp16 weights with the one that stores fp32 weights, on (LR, HR) images.

    Returns:
        PSNR lost, in dB (Y, shave = scale, output not rounded, mean over the images); may be negative.

    Raises:
        ExportError: it is 0.001 dB or more, or not finite.
    """
    cost = _psnr(Runner(fp32), pairs, scale) - _psnr(Runner(fp16), pairs, scale)
    if cost < MAX_COST:
        return cost
    raise ExportError(
        f"{fp16.name}: weights stored as fp16 cost {cost:.4f} dB, {MAX_COST} dB or more.",
        "Store them as fp32.",
    )


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How a file compares with its checkpoint in fp32; means over HR images and their bicubic LR, in dB.

    Attributes:
        psnr_to_checkpoint: between the two outputs, on 0-1, neither clipped nor rounded; at most 150.
        psnr_to_hr: of the file's output (Y, shave = scale, not rounded).
        psnr_lost: of the checkpoint's output, minus that; may be negative.
        images: number of images.
    """

    psnr_to_checkpoint: float
    psnr_to_hr: float
    psnr_lost: float
    images: int

    def figures(self) -> dict[str, float]:
        """For a spec: every figure by its name, to 0.0001 dB."""
        return {name: round(float(figure), 4) for name, figure in asdict(self).items()}


class Reference:
    """Outputs of a checkpoint in PyTorch at one scale, computed once, to compare files with.

    Args:
        network: the training network, not fused, in evaluation mode.
        scale: of the files.
        pairs: (LR, HR) images.
    """

    def __init__(self, network: nn.Module, scale: int, pairs: Sequence[tuple[Pixels, Pixels]]) -> None:
        self.scale, self._pairs = scale, pairs
        self._outputs = [_pytorch(network, scale, to_batch(lr)) for lr, _ in pairs]
        self._psnr = self._to_hr(self._outputs)

    def compare(self, run: Runner) -> Accuracy:
        """The accuracy of one file.

        Raises:
            ExportError: the file cannot be run.
        """
        outputs = [run(to_batch(lr)) for lr, _ in self._pairs]
        near = [_psnr_between(sr, best) for sr, best in zip(outputs, self._outputs, strict=True)]
        reached = self._to_hr(outputs)
        return Accuracy(float(np.mean(near)), reached, self._psnr - reached, len(outputs))

    def _to_hr(self, outputs: Sequence[Batch]) -> float:
        scores = [
            psnr_y(to_255(sr), hr, self.scale) for sr, (_, hr) in zip(outputs, self._pairs, strict=True)
        ]
        return float(np.mean(scores))


def check_loss(name: str, accuracy: Accuracy, arithmetic: str) -> None:
    """Check that a file is as close to its checkpoint as its arithmetic allows.

    Raises:
        ExportError: it loses more than `MAX_LOSS`, or its output is not finite.
    """
    hint = f"Nothing was written. {_INSTEAD[arithmetic]}"
    if not np.isfinite(accuracy.psnr_to_checkpoint):
        raise ExportError(f"{name}: gives infinities or NaN in {arithmetic}.", hint)
    if not accuracy.psnr_lost <= MAX_LOSS[arithmetic]:
        lost = f"{arithmetic} loses {accuracy.psnr_lost:.4f} dB against the checkpoint"
        raise ExportError(f"{name}: {lost}, more than {MAX_LOSS[arithmetic]}.", hint)


def measure_halo(run: Runner, images: Sequence[Pixels], scale: int, exact: int) -> int:
    """The default halo of a network, in LR pixels.

    It is the smallest even halo at which no 8-bit output pixel of a tiled run differs by more than 1 from
    a whole-image run, plus a margin of 4, at most `exact`. Tiles are 64×64, or four halos a side where that
    is more. Images of at most one tile are left out; if there are no others, or a tile grows larger than an
    image, the exact halo is returned.

    Args:
        run: the exported network.
        images: (H, W, 3) uint8 LR images.
        scale: output size / input size.
        exact: receptive-field radius.
    """
    images = [image for image in images if max(image.shape[:2]) > _TILE]
    whole = [to_uint8(run(to_batch(image))) for image in images]
    for halo in range(0, exact, _HALO_STEP):
        tile = max(_TILE, 4 * halo)
        if not images or any(max(image.shape[:2]) <= tile for image in images):
            return exact
        if all(
            _seam(run, image, result, scale, (tile, halo)) <= 1
            for image, result in zip(images, whole, strict=True)
        ):
            return min(halo + _MARGIN, exact)
    return exact


def _seam(run: Runner, image: Pixels, whole: Pixels, scale: int, tiling: tuple[int, int]) -> int:
    """Largest difference on 0-255 between a run in tiles (side, halo) and the whole image; stops beyond 1."""
    worst = 0
    for tile in plan((image.shape[0], image.shape[1]), *tiling):
        result = to_uint8(run(to_batch(image[tile.window.slices])))
        core = result[tile.core.within(tile.window).scaled(scale).slices].astype(np.int16)
        worst = max(worst, int(np.abs(core - whole[tile.core.scaled(scale).slices]).max()))
        if worst > 1:
            break
    return worst


def measure_quality(run: Runner, test_sets: Sequence[Path], scale: int) -> dict[str, float]:
    """PSNR in dB (Y, shave = scale, no ensemble, fp32) by folder name.

    Args:
        run: the exported file.
        test_sets: folders of HR images.
        scale: of the file.

    Raises:
        TrainingError, InputError: a folder has no images, or one that cannot be read.
    """

    def upscale(lr: Pixels) -> Pixels:
        return to_uint8(run(to_batch(np.ascontiguousarray(lr))))

    def psnr(folder: Path) -> float:
        return mean(evaluate(folder, scale, {"": upscale}, lambda done, total: None)[""]).psnr_y

    return {folder.name: round(psnr(folder), _DECIMALS) for folder in test_sets}


def _psnr_between(a: Batch, b: Batch) -> float:
    """PSNR on 0-1 in dB, at most 150; NaN where one of them is not finite."""
    psnr = decibels(float(np.mean((a.astype(np.float64) - b) ** 2)), peak=1.0)
    return min(psnr, _MAX_PSNR)


def _pytorch(network: nn.Module, scale: int, batch: Batch) -> Batch:
    with torch.inference_mode():
        return np.asarray(network(torch.from_numpy(batch), scale).numpy(), np.float32)


def _difference(a: Batch, b: Batch) -> float:
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    if a.shape != b.shape or not np.isfinite(a).all() or not np.isfinite(b).all():
        return float("inf")
    return float(np.abs(a - b).max())


def _psnr(run: Runner, pairs: Sequence[tuple[Pixels, Pixels]], scale: int) -> float:
    return float(np.mean([psnr_y(to_255(run(to_batch(lr))), hr, scale) for lr, hr in pairs]))
