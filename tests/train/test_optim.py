"""All optimizers of a run behind one step: CUDA graphs, rates on the device, state for any device."""

import copy
from dataclasses import replace

import pytest
import torch
from test_cuda_graph import batch
from tiny_training import FAST, TINY_MDSR, gradients
from torch import nn

from srcli_train.cuda_graph import Work
from srcli_train.networks import build
from srcli_train.optim import Optimizer
from srcli_train.recipes import Recipe

MUON = replace(FAST, optimizer="muon", muon_centred=True, clip=1.0)
ADAM = replace(FAST, optimizer="adam", clip=0.0)


class Capturer:
    """Repeats the work without running it first, as a CUDA graph does."""

    def __init__(self) -> None:
        self.captured = 0

    def __call__(self, work: Work) -> Work:
        self.captured += 1
        return work


def network() -> nn.Module:
    torch.manual_seed(3)
    return build(TINY_MDSR).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("recipe", [MUON, ADAM], ids=["muon", "adam"])
def test_graphed_steps_equal_plain_steps(recipe: Recipe) -> None:
    plain, other, capturer = network(), network(), Capturer()
    runs = [(n, gradients(n, recipe), Optimizer(n, recipe, capturer)) for n in (plain, other)]
    for number, scale in enumerate([2, 3, 2, 2, 3, 3]):
        for (_, compute, optimizer), graph in zip(runs, (None, scale), strict=True):
            compute(*batch(number, scale))
            optimizer.step(1 / (number + 1), graph)
    assert capturer.captured == 2
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True))
    assert all(p.grad is None for p in other.parameters())


def test_rates_are_the_recipes_times_the_factor() -> None:
    """Adam's first step is as long as its rate, whatever the gradient."""
    for factor in (1.0, 0.25):
        trained = network()
        before = trained.head.bias.detach().clone()  # type: ignore[union-attr,operator]
        gradients(trained, ADAM)(*batch(0, 2))
        Optimizer(trained, ADAM).step(factor)
        moved = (trained.head.bias - before).abs()  # type: ignore[union-attr,operator]
        torch.testing.assert_close(moved, torch.full_like(moved, ADAM.lr * factor), rtol=1e-3, atol=0)


@pytest.mark.parametrize("recipe", [MUON, ADAM], ids=["muon", "adam"])
def test_restored_state_continues_exactly(recipe: Recipe) -> None:
    whole = network()
    optimizer, compute = Optimizer(whole, recipe), gradients(whole, recipe)
    for number in range(3):
        compute(*batch(number, 2))
        optimizer.step(0.5)
    state, halfway = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(whole.state_dict())
    assert isinstance(state["adam"]["param_groups"][0]["lr"], float)
    compute(*batch(9, 2))
    optimizer.step(0.1)
    resumed = network()
    resumed.load_state_dict(halfway)
    again = Optimizer(resumed, recipe)
    again.load_state_dict(state)
    gradients(resumed, recipe)(*batch(9, 2))
    again.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
