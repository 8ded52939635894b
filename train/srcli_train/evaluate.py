"""PSNR and SSIM of any upscaler on a folder of HR images, in two protocols, beside published figures.

PyTorch is imported for checkpoints alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError, TrainingError, UsageError
from srcli.imaging import metrics
from srcli.imaging.pixels import from_network, run_ensemble, to_network
from srcli.imaging.resize import imresize, modcrop
from srcli_train.degradations import DEGRADATIONS, degrade
from srcli_train.folders import find_source, read_rgb

Pixels = NDArray[np.uint8]
Upscale = Callable[[Pixels], NDArray[Any]]
"""(H, W, 3) uint8 LR -> (scale*H, scale*W, 3) uint8."""
_Batch = NDArray[np.float32]


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
        degradation: how LR is made: MATLAB's bicubic, as everybody measures, "unknown", "photo" or
            "film".
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
        whole = read_rgb(file)
        hr = np.asarray(modcrop(whole, scale), np.uint8)
        if min(hr.shape[:2]) < (least := 2 * (scale + 6) + metrics.WINDOW):
            hint = f"{least} pixels a side are needed at x{scale}."
            size = f"{whole.shape[1]}×{whole.shape[0]} {'pixel is' if whole.size == 3 else 'pixels are'}"
            raise InputError(f"{file}: {size} too few to measure.", hint)
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
    """A checkpoint as an upscaler: whole images, fp32, PyTorch; needs the extra `train`.

    Raises:
        TrainingError: no checkpoint, or not for this scale.
    """
    run = _checkpoint_runner(path, scale)

    def upscale(lr: Pixels) -> NDArray[Any]:
        batch = to_network(lr)
        return from_network(run_ensemble(run, batch) if ensemble else run(batch), lr.dtype, 3)

    return upscale


def _checkpoint_runner(path: Path, scale: int) -> Callable[[_Batch], _Batch]:
    """(N, 3, H, W) float32 RGB 0-1 -> (N, 3, scale*H, scale*W), not clipped."""
    import torch

    from srcli_train.checkpoint import load_checkpoint
    from srcli_train.networks import build

    checkpoint = load_checkpoint(path)
    if scale not in checkpoint.network.scales:
        has = ", ".join(f"x{s}" for s in checkpoint.network.scales)
        raise TrainingError(f"{path}: has no network for x{scale}, only {has}.")
    network = build(checkpoint.network).eval()
    network.load_state_dict(checkpoint.weights)

    def run(batch: _Batch) -> _Batch:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(batch), scale).numpy(), np.float32)

    return run


@dataclass(frozen=True, slots=True)
class Published:
    """One published row. `protocol` is "Y" (luma, shave = scale) or "RGB" (shave = scale + 6)."""

    method: str
    scale: int
    psnr: float
    ssim: float | None = None
    protocol: str = "Y"


def _rows(method: str, *figures: float, protocol: str = "Y") -> tuple[Published, ...]:
    """A row for each of x2, x3, x4, PSNR only."""
    return tuple(Published(method, s, f, None, protocol) for s, f in zip((2, 3, 4), figures, strict=True))


def _with_ssim(method: str, *figures: tuple[float, float]) -> tuple[Published, ...]:
    return tuple(Published(method, s, p, q) for s, (p, q) in zip((2, 3, 4), figures, strict=True))


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "Set5": (
        *_with_ssim("bicubic", (33.66, 0.9299), (30.39, 0.8682), (28.42, 0.8104)),
        *_rows("SRCNN", 36.66, 32.75, 30.48),
        *_rows("VDSR", 37.53, 33.66, 31.35),
        *_rows("EDSR-baseline", 37.99, 34.37, 32.09),
        *_with_ssim("EDSR", (38.11, 0.9601), (34.65, 0.9282), (32.46, 0.8968)),
    ),
    "Set14": (
        *_with_ssim("bicubic", (30.24, 0.8688), (27.55, 0.7742), (26.00, 0.7027)),
        *_rows("SRCNN", 32.42, 29.28, 27.49),
        *_rows("VDSR", 33.03, 29.77, 28.01),
        *_rows("EDSR-baseline", 33.57, 30.28, 28.58),
        *_with_ssim("EDSR", (33.92, 0.9195), (30.52, 0.8462), (28.80, 0.7876)),
    ),
    "B100": (
        *_with_ssim("bicubic", (29.56, 0.8431), (27.21, 0.7385), (25.96, 0.6675)),
        *_rows("SRCNN", 31.36, 28.41, 26.90),
        *_rows("VDSR", 31.90, 28.82, 27.29),
        *_rows("EDSR-baseline", 32.16, 29.09, 27.57),
        *_with_ssim("EDSR", (32.32, 0.9013), (29.25, 0.8093), (27.71, 0.7420)),
    ),
    "Urban100": (
        *_with_ssim("bicubic", (26.88, 0.8403), (24.46, 0.7349), (23.14, 0.6577)),
        *_rows("SRCNN", 29.50, 26.24, 24.52),
        *_rows("VDSR", 30.76, 27.14, 25.18),
        *_rows("EDSR-baseline", 31.98, 28.15, 26.04),
        *_with_ssim("EDSR", (32.93, 0.9351), (28.80, 0.8653), (26.64, 0.8033)),
    ),
    "DIV2K_valid_HR": (
        *_rows("EDSR-baseline", 34.61, 30.92, 28.95, protocol="RGB"),
        *_rows("MDSR-baseline", 34.63, 30.94, 28.97, protocol="RGB"),
        *_rows("EDSR", 35.03, 31.26, 29.25, protocol="RGB"),
        *_rows("MDSR", 34.92, 31.22, 29.24, protocol="RGB"),
    ),
}
"""By name of the HR folder, in its usual spelling. EDSR-baseline as later papers report it."""

_OTHER_NAMES = {
    "BSD100": "B100",
    "BSDS100": "B100",
    "DIV2K": "DIV2K_valid_HR",
    "DIV2K_valid": "DIV2K_valid_HR",
}


def published(folder_name: str, scale: int) -> tuple[Published, ...]:
    """Published rows for a test set, recognised by its folder's name; none for unknown sets."""
    names = {name.lower(): name for name in PUBLISHED} | {k.lower(): v for k, v in _OTHER_NAMES.items()}
    known = names.get(folder_name.lower(), "")
    return tuple(row for row in PUBLISHED.get(known, ()) if row.scale == scale)
