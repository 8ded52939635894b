"""Patches cut on the device are the sampler's, byte by byte."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import FAST, rendered, trainer

from srcli.imaging.resize import downscale, modcrop
from srcli_train.data import Pictures
from srcli_train.patches import DevicePatches, PatchSampler


def pictures_of_sizes() -> Pictures:
    """Of different sizes, none of them square."""
    hr = [np.ascontiguousarray(rendered(n, 120)[: 90 + 7 * n, : 118 - 5 * n]) for n in range(4)]
    lr = {s: [np.asarray(downscale(modcrop(i, s), s), np.uint8) for i in hr] for s in (2, 3, 4)}
    return Pictures(hr, lr)


@pytest.mark.parametrize("changes", [{}, {"flip": False}, {"rotate": False}, {"candidates": 3}], ids=str)
def test_minibatches_equal_the_samplers(changes: dict[str, object]) -> None:
    recipe = replace(FAST, patch=10, batch=8, **changes)
    sampler, pictures = PatchSampler(pictures_of_sizes(), recipe), pictures_of_sizes()
    patches = DevicePatches(pictures, sampler, recipe.patch, torch.device("cpu"))
    scales = set()
    for update, minibatch in enumerate(patches(range(12))):
        expected = sampler(update)
        assert minibatch.scale == expected.scale
        np.testing.assert_array_equal(minibatch.lr.numpy(), expected.lr)
        np.testing.assert_array_equal(minibatch.hr.numpy(), expected.hr)
        scales.add(minibatch.scale)
    assert scales == {2, 3, 4}


def test_an_update_takes_tensors_as_arrays(tmp_path: Path) -> None:
    """The loss of the same update on arrays and on tensors is the same number."""
    one, other = trainer(tmp_path, run="one"), trainer(tmp_path, run="other")
    sampler = one._sampler
    patches = DevicePatches(sampler._pictures, sampler, FAST.patch, torch.device("cpu"))
    loss = other._step(next(iter(patches(range(1))))).loss
    assert torch.equal(one._step(sampler(0)).loss, loss)
