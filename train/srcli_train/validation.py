"""What is checked of a network in training: PSNR on validation pictures, and that its numbers are finite."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from srcli.errors import OutputError, TrainingError
from srcli.imaging.metrics import psnr_y
from srcli.imaging.resize import downscale, modcrop
from srcli.io.pictures import Picture, write
from srcli_train.data import Pixels
from srcli_train.device import autocast
from srcli_train.patches import Minibatch

Degrade = Callable[[Pixels, int], Pixels]
"""((H, W, 3) uint8 HR with sides divisible by the scale, scale) -> its LR image."""


def bicubic(hr: Pixels, scale: int) -> Pixels:
    """LR as the paper has it."""
    return np.asarray(downscale(hr, scale), np.uint8)


def to_device(pixels: Pixels | Tensor, device: torch.device) -> Tensor:
    """The same bytes as a tensor on the device."""
    tensor = pixels if isinstance(pixels, Tensor) else torch.from_numpy(np.ascontiguousarray(pixels))
    return tensor.to(device, non_blocking=True)


def to_batch(pixels: Pixels | Tensor, device: torch.device) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 0-1, channels_last, without a copy in between."""
    return to_device(pixels, device).permute(0, 3, 1, 2).float().div_(255)


class Validation:
    """PSNR of one run's network on images it never trains on.

    Args:
        images: HR, (H, W, 3) uint8.
        scales: those that the network has.
        device, precision: of the run.
        degrade: makes the LR images.
    """

    def __init__(
        self,
        images: tuple[Pixels, ...],
        scales: tuple[int, ...],
        device: torch.device,
        precision: str,
        degrade: Degrade = bicubic,
    ) -> None:
        self._images, self._scales = images, scales
        self._device, self._precision, self._degrade = device, precision, degrade

    def scores(self, network: nn.Module) -> dict[int, float]:
        """Mean PSNR in dB (Y, shave = scale) over the images, by scale; empty without images."""
        if not self._images:
            return {}
        network.eval()
        scores = {s: [self._score(network, hr, s) for hr in self._images] for s in self._scales}
        network.train()
        return {s: float(np.mean(values)) for s, values in scores.items()}

    def picture(self, network: nn.Module) -> Pixels | None:
        """LR with large pixels, SR and HR of the first image side by side, at the largest scale."""
        if not self._images:
            return None
        network.eval()
        scale = self._scales[-1]
        lr, hr = self._pair(self._images[0], scale)
        sr = self.upscale(network, lr, scale)
        network.train()
        return np.asarray(np.concatenate([lr.repeat(scale, 0).repeat(scale, 1), sr, hr], 1), np.uint8)

    def _score(self, network: nn.Module, hr: Pixels, scale: int) -> float:
        lr, hr = self._pair(hr, scale)
        return float(psnr_y(self.upscale(network, lr, scale), hr, scale))

    def _pair(self, hr: Pixels, scale: int) -> tuple[Pixels, Pixels]:
        hr = np.asarray(modcrop(hr, scale), np.uint8)
        return self._degrade(hr, scale), hr

    def upscale(self, network: nn.Module, lr: Pixels, scale: int) -> Pixels:
        """(H, W, 3) uint8 -> (scale*H, scale*W, 3) uint8, whole image, in the run's precision."""
        with torch.no_grad(), autocast(self._device, self._precision):
            sr = network(to_batch(lr[None], self._device), scale)[0]
        return np.asarray((sr.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy(), np.uint8)


def first_bad(losses: list[Tensor]) -> int | None:
    """Place of the first loss (a scalar each) that is not finite; None if all are."""
    bad = torch.isfinite(torch.stack(losses)).logical_not().nonzero()
    return int(bad[0]) if len(bad) else None


def all_finite(weights: dict[str, Tensor]) -> bool:
    """Whether all of a network's weights are."""
    return all(bool(torch.isfinite(w).all()) for w in weights.values() if w.is_floating_point())


def not_finite(what: str, update: int, minibatch: Minibatch, shown: Path | None) -> TrainingError:
    """The error that ends the run.

    Args:
        what: "loss" or "network".
        update: that made it so, 0-based.
        minibatch: of that update.
        shown: where its LR patches are written as a picture; None: nowhere.
    """
    if shown:
        with suppress(OutputError):  # the disk may be full; the reason matters more
            write(shown, Picture(np.concatenate(list(minibatch.lr), 1)), format="png", quality=None)
    patches = f"; patches: {shown}" if shown else ""
    return TrainingError(
        f"The {what} is not finite at update {update + 1} (x{minibatch.scale}){patches}.",
        "Lower the learning rate, or train in fp32; --resume goes on from the last good checkpoint.",
    )
