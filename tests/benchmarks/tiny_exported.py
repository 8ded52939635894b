"""A tiny network with random weights, exported as users would."""

from pathlib import Path

import torch

from srcli_export.exporter import export_checkpoint
from srcli_train.checkpoint import Checkpoint, save_checkpoint
from srcli_train.networks import NetworkSpec, build
from srcli_train.recipes import find


def exported(folder: Path, family: str, scale: int, weights: str = "fp32") -> Path:
    """The ONNX file of one block of eight features."""
    torch.manual_seed(0)
    spec = NetworkSpec("tiny", family, blocks=1, features=8, residual_scale=0.5, scales=(scale,))
    save_checkpoint(folder / "tiny.pt", Checkpoint(spec, find("fast"), build(spec).state_dict()))
    return export_checkpoint(folder / "tiny.pt", folder, weights=weights)[0].path
