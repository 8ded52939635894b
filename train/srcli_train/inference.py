"""Running a checkpoint's network on whole images, in float32."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from srcli.errors import TrainingError
from srcli_train.checkpoint import load_checkpoint
from srcli_train.networks import build

Batch = NDArray[np.float32]


def checkpoint_runner(path: Path, scale: int) -> Callable[[Batch], Batch]:
    """(N, 3, H, W) float32 RGB 0-1 -> (N, 3, scale*H, scale*W), not clipped.

    Raises:
        TrainingError: no checkpoint, or not for this scale.
    """
    checkpoint = load_checkpoint(path)
    if scale not in checkpoint.network.scales:
        has = ", ".join(f"x{s}" for s in checkpoint.network.scales)
        raise TrainingError(f"{path}: has no network for x{scale}, only {has}.")
    network = build(checkpoint.network).eval()
    network.load_state_dict(checkpoint.weights)

    def run(batch: Batch) -> Batch:
        with torch.no_grad():
            return np.asarray(network(torch.from_numpy(batch), scale).numpy(), np.float32)

    return run
