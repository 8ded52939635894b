"""All optimizers of a run behind one step: recorded steps, rates on the device, state for any device."""

import copy
from dataclasses import replace

import pytest
import torch
from test_gradients import CPU, batch
from tiny_training import FAST, TINY_MDSR
from torch import nn

from srcli_train.gradients import Gradients
from srcli_train.networks import build
from srcli_train.optim import Optimizer
from srcli_train.recipes import Recipe
from srcli_train.recorded import Work

MUON = replace(FAST, optimizer="muon", muon_centred=True, clip=1.0)
ADAM = replace(FAST, optimizer="adam", clip=0.0)


class Recorder:
    """Repeats the work without running it first, as a CUDA graph does."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, work: Work) -> Work:
        self.recorded += 1
        return work


def network() -> nn.Module:
    torch.manual_seed(3)
    return build(TINY_MDSR).to(memory_format=torch.channels_last)


@pytest.mark.parametrize("recipe", [MUON, ADAM], ids=["muon", "adam"])
def test_recorded_steps_are_plain_ones_and_each_set_of_gradients_is_recorded_once(recipe: Recipe) -> None:
    plain, other, recorder = network(), network(), Recorder()
    runs = [(n, Gradients(n, recipe, CPU), Optimizer(n, recipe, recorder)) for n in (plain, other)]
    for number, scale in enumerate([2, 3, 2, 2, 3, 3]):
        for (_, gradients, optimizer), recorded in zip(runs, (None, scale), strict=True):
            gradients(*batch(number, scale))
            optimizer.step(1 / (number + 1), recorded)
    assert recorder.recorded == 2
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), other.parameters(), strict=True))
    assert all(p.grad is None for p in other.parameters())


def test_rates_are_the_recipes_times_the_factor() -> None:
    """Adam's first step is as long as its rate, whatever the gradient."""
    for factor in (1.0, 0.25):
        trained = network()
        before = trained.head.bias.detach().clone()  # type: ignore[union-attr,operator]
        Gradients(trained, ADAM, CPU)(*batch(0, 2))
        Optimizer(trained, ADAM).step(factor)
        moved = (trained.head.bias - before).abs()  # type: ignore[union-attr,operator]
        torch.testing.assert_close(moved, torch.full_like(moved, ADAM.lr * factor), rtol=1e-3, atol=0)


@pytest.mark.parametrize("recipe", [MUON, ADAM], ids=["muon", "adam"])
def test_state_is_numbers_and_goes_on_as_if_never_stopped(recipe: Recipe) -> None:
    whole = network()
    optimizer, gradients = Optimizer(whole, recipe), Gradients(whole, recipe, CPU)
    for number in range(3):
        gradients(*batch(number, 2))
        optimizer.step(0.5)
    state, halfway = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(whole.state_dict())
    assert isinstance(state["adam"]["param_groups"][0]["lr"], float)
    gradients(*batch(9, 2))
    optimizer.step(0.1)
    resumed = network()
    resumed.load_state_dict(halfway)
    again = Optimizer(resumed, recipe)
    again.load_state_dict(state)
    Gradients(resumed, recipe, CPU)(*batch(9, 2))
    again.step(0.1)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
