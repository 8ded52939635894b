"""The benchmark of training: what its synthetic updates are made of, and on which networks."""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import training
from srcli_train.networks import preset
from srcli_train.patches import DeviceMinibatch, Minibatch
from srcli_train.recipes import Recipe

TWO = Recipe(batch=2, patch=8)


def test_noise_lies_where_training_wants_it() -> None:
    """PyTorch's device without memory stands in for a GPU."""
    here = training._noise(3, TWO, torch.device("cpu"))
    there = training._noise(3, TWO, torch.device("meta"))
    assert isinstance(here, Minibatch)
    assert isinstance(there, DeviceMinibatch)
    assert isinstance(here.lr, np.ndarray)
    assert there.lr.device.type == there.hr.device.type == "meta"
    assert here.hr.shape == tuple(there.hr.shape) == (2, 24, 24, 3)


def test_networks_to_measure_are_presets() -> None:
    for name, scale in training.NETWORKS.items():
        assert preset(name, scale).scales == ((scale,) if scale else (2, 3, 4))
    assert training._parse([]).networks == ["edsr-baseline", "mdsr-baseline"]
    assert training._parse(["--networks", "mdsr-80", "edsr"]).networks == ["mdsr-80", "edsr"]
