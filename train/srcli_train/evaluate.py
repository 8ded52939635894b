"""PSNR and SSIM of any upscaler on a folder of HR images, in the field's two protocols."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError, UsageError
from srcli.imaging import metrics
from srcli.imaging.resize import imresize, modcrop
from srcli_train.degradations import DEGRADATIONS, degrade
from srcli_train.folders import find_source, read_rgb

Pixels = NDArray[np.uint8]
Upscale = Callable[[Pixels], NDArray[Any]]
"""(H, W, 3) uint8 LR -> (scale*H, scale*W, 3) uint8."""


@dataclass(frozen=True, slots=True)
class Score:
    """PSNR in dB and SSIM: `_y` luma with shave = scale, `_rgb` RGB with shave = scale + 6."""

    name: str
    psnr_y: float
    ssim_y: float
    psnr_rgb: float
    ssim_rgb: float


def evaluate(
    folder: Path,
    scale: int,
    methods: dict[str, Upscale],
    progress: Callable[[int, int], None],
    *,
    degradation: str = "bicubic",
    seed: int = 0,
) -> dict[str, list[Score]]:
    """Score every method on every image of `folder`.

    Args:
        folder: HR images, or a folder in DIV2K's layout (its validation set).
        scale: 2, 3 or 4.
        methods: by name.
        progress: called with (images done, images in all).
        degradation: how LR is made: MATLAB's bicubic, as everybody measures, "unknown" or "photo".
        seed: of the degradation, 0 or more.

    Returns:
        By method, one score an image, in order of file names.

    Raises:
        TrainingError: no such folder, or no images in it.
        InputError: an image cannot be read, or is too small for both protocols.
        UsageError: no such degradation, or a seed below 0.
    """
    if degradation not in DEGRADATIONS or seed < 0:
        hint = f"Choose one of: {', '.join(DEGRADATIONS)}; seeds start at 0."
        raise UsageError(f"There is no degradation {degradation!r} with the seed {seed}.", hint)
    files = find_source(folder, "valid").hr
    scores: dict[str, list[Score]] = {name: [] for name in methods}
    for done, file in enumerate(files, 1):
        hr = np.asarray(modcrop(read_rgb(file), scale), np.uint8)
        if min(hr.shape[:2]) < (least := 2 * (scale + 6) + metrics.WINDOW):
            hint = f"{least} pixels a side are needed at x{scale}."
            raise InputError(f"{file}: {hr.shape[1]}×{hr.shape[0]} pixels are too few to measure.", hint)
        lr = degrade(degradation, hr, scale, seed)
        for name, upscale in methods.items():
            scores[name].append(score(file.name, upscale(lr), hr, scale))
        progress(done, len(files))
    return scores


def score(name: str, sr: NDArray[Any], hr: Pixels, scale: int) -> Score:
    """All four figures of one image; sr and hr are (H, W, 3) uint8."""
    return Score(
        name,
        metrics.psnr_y(sr, hr, scale),
        metrics.ssim_y(sr, hr, scale),
        metrics.psnr_rgb(sr, hr, scale),
        metrics.ssim_rgb(sr, hr, scale),
    )


def mean(scores: list[Score]) -> Score:
    """The mean of each figure, as papers report a set."""
    return Score(
        "mean",
        fmean(s.psnr_y for s in scores),
        fmean(s.ssim_y for s in scores),
        fmean(s.psnr_rgb for s in scores),
        fmean(s.ssim_rgb for s in scores),
    )


def bicubic(scale: int) -> Upscale:
    """The baseline of every table."""
    return lambda lr: imresize(lr, (lr.shape[0] * scale, lr.shape[1] * scale))


def from_checkpoint(path: Path, scale: int, *, ensemble: bool) -> Upscale:
    """A checkpoint as an upscaler: whole images, float32, PyTorch; needs the extra `train`.

    Raises:
        TrainingError: no checkpoint, or not for this scale.
    """
    from srcli.imaging.ensemble import run_ensemble
    from srcli.imaging.pixels import from_network, to_network
    from srcli_train.inference import checkpoint_runner

    run = checkpoint_runner(path, scale)

    def upscale(lr: Pixels) -> NDArray[Any]:
        batch = to_network(lr)
        return from_network(run_ensemble(run, batch) if ensemble else run(batch), lr.dtype, 3)

    return upscale
