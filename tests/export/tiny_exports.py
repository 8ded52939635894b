"""Tiny checkpoints and what to export and compare them with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from srcli.models.spec import TrainingFacts
from srcli_export.exporter import Exported, export_checkpoint
from srcli_train.checkpoint import Checkpoint, save_checkpoint
from srcli_train.networks import NetworkSpec, build, preset
from srcli_train.recipes import Recipe

FACTS = TrainingFacts(data="charts", recipe="none", updates=7)

Pixels = NDArray[np.uint8]


def tiny(name: str, scale: int) -> tuple[NetworkSpec, nn.Module]:
    """A preset of two blocks of eight features with weights and batch statistics that are not the default."""
    spec = replace(preset(name, scale), blocks=2, features=8)
    torch.manual_seed(scale)
    network = build(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_mean, module.running_var, module.bias):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            nn.init.uniform_(module.bias, -20, 20)  # on 0-255, so that biases matter
    return spec, network.eval()


def checkpoint(folder: Path, name: str = "edsr", scale: int = 2) -> tuple[Path, nn.Module]:
    spec, network = tiny(name, scale)
    quality = {"2": {"Set5": 37.5}, "3": {"Set5": 33.5}, "4": {"Set5": 31.5}}
    path = folder / "checkpoint.pt"
    save_checkpoint(path, Checkpoint(spec, Recipe(), network.state_dict(), facts=FACTS, quality=quality))
    return path, network


def photograph() -> Pixels:
    from skimage import data

    image: Pixels = data.astronaut()[:300, 100:360]
    return image


def export(path: Path, folder: Path, weights: str = "fp32") -> list[Exported]:
    """On an image too small to measure a halo on, which is quick."""
    return export_checkpoint(path, folder, weights=weights, calibration=[photograph()[60:140, 60:140]])


def photo_batch() -> NDArray[np.float32]:
    image = photograph()[60:107, 40:101]
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255


def expected(network: nn.Module, batch: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    with torch.inference_mode():
        out: NDArray[np.float32] = network(torch.from_numpy(batch), scale).numpy()
    return out


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
