"""Units that never fire come back, and nothing else changes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import FAST, TINY, TINY_MDSR, Quiet, tiny_pictures, trainer
from torch import nn

from srcli_train.checkpoint import load_checkpoint
from srcli_train.networks import build
from srcli_train.patches import Minibatch, PatchSampler
from srcli_train.revival import revive, watched
from srcli_train.validation import batch_of

CPU = torch.device("cpu")


@pytest.fixture
def minibatches(tmp_path: Path) -> list[Minibatch]:
    sampler = PatchSampler(tiny_pictures(tmp_path, (2, 3, 4)), FAST)
    return [sampler(number) for number in range(12)]


@pytest.fixture
def network() -> nn.Module:
    """MDSR whose body's first block has three units that are off everywhere."""
    torch.manual_seed(3)
    network = build(TINY_MDSR)
    with torch.no_grad():
        network.body.blocks[0].conv1.bias[[1, 4, 6]] = -1e3
    return network


def _outputs(network: nn.Module, minibatches: list[Minibatch]) -> Iterator[torch.Tensor]:
    with torch.no_grad():
        for minibatch in minibatches:
            yield network(batch_of(minibatch.lr, CPU), minibatch.scale)


def test_dead_units_fire_again_and_the_network_computes_the_same(
    network: nn.Module, minibatches: list[Minibatch]
) -> None:
    before = list(_outputs(network, minibatches))
    assert revive(network, minibatches, 0.001, seed=1) == 3
    for old, new in zip(before, _outputs(network, minibatches), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-6)
    firing = watched(network, minibatches)[network.body.blocks[0]].firing
    assert ((firing[[1, 4, 6]] > 0.2) & (firing[[1, 4, 6]] < 0.8)).all()


def test_living_units_keep_their_weights(network: nn.Module, minibatches: list[Minibatch]) -> None:
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    revive(network, minibatches, 0.001, seed=1)
    after = network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"body.blocks.0.{name}" for name in ("conv1.weight", "conv1.bias", "conv2.weight")}
    alive = [0, 2, 3, 5, 7]
    for name in ("body.blocks.0.conv1.weight", "body.blocks.0.conv1.bias"):
        assert torch.equal(before[name][alive], after[name][alive])
    name = "body.blocks.0.conv2.weight"
    assert torch.equal(before[name][:, alive], after[name][:, alive])


def test_revived_units_do_not_see_the_mean_of_their_input(
    network: nn.Module, minibatches: list[Minibatch]
) -> None:
    revive(network, minibatches, 0.001, seed=1)
    block = network.body.blocks[0]
    mean = watched(network, minibatches)[block].mean
    weight = block.conv1.weight[[1, 4, 6]].detach()
    seen = torch.einsum("i,oihw->ohw", mean, weight)
    assert seen.abs().max() < 1e-5 * weight.abs().sum(1).max() * mean.norm()


def test_a_gradient_reaches_revived_units(network: nn.Module, minibatches: list[Minibatch]) -> None:
    def gradient() -> torch.Tensor:
        network.zero_grad()
        minibatch = minibatches[0]
        network(batch_of(minibatch.lr, CPU), minibatch.scale).square().mean().backward()
        weight = network.body.blocks[0].conv2.weight.grad
        assert weight is not None
        return weight[:, [1, 4, 6]].abs().sum((0, 2, 3))

    assert (gradient() == 0).all()
    revive(network, minibatches, 0.001, seed=1)
    assert (gradient() > 0).all()


def test_watching_moves_nothing_that_follows_the_training(tmp_path: Path) -> None:
    run = trainer(tmp_path, network=TINY_MDSR, recipe=replace(FAST, muon_centred=True, revive=0.001))
    run.run(stop_at=2)
    before = [mean.clone() for mean in run._optimizer.means]
    assert any(mean.any() for mean in before)
    run._revive()
    assert all(torch.equal(mean, old) for mean, old in zip(run._optimizer.means, before, strict=True))
    assert run.network.training


def test_a_follower_gets_the_revived_units_and_keeps_the_others(
    network: nn.Module, minibatches: list[Minibatch]
) -> None:
    follower = build(TINY_MDSR)
    before = {name: weight.clone() for name, weight in follower.state_dict().items()}
    revive(network, minibatches, 0.001, 1, [follower])
    after, source, dead = follower.state_dict(), network.state_dict(), [1, 4, 6]
    for name in ("body.blocks.0.conv1.weight", "body.blocks.0.conv1.bias", "body.blocks.0.conv2.weight"):
        axis = 1 if "conv2" in name else 0
        units = torch.tensor(dead)
        assert torch.equal(after[name].index_select(axis, units), source[name].index_select(axis, units))
        expected = before[name].index_copy(axis, units, source[name].index_select(axis, units))
        assert torch.equal(after[name], expected)
        del before[name]
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


def test_the_mean_of_the_weights_holds_revived_units_as_they_started(tmp_path: Path) -> None:
    recipe = replace(FAST, average=0.9, revive=0.5, revive_every=4)
    kept = load_checkpoint(trainer(tmp_path, recipe=recipe).run(stop_at=4))
    revived = 0
    for name, trained in kept.trained.items():
        if name.endswith("conv2.weight"):
            units = (trained == 0).all(3).all(2).all(0)
            revived += int(units.sum())
            assert (kept.weights[name][:, units] == 0).all()
            first = name.replace("conv2", "conv1")
            assert torch.equal(kept.weights[first][units], kept.trained[first][units])
    assert revived > 0


def test_training_revives_at_the_start_and_as_often_as_asked_and_says_so(tmp_path: Path) -> None:
    first = trainer(tmp_path, network=TINY, run="first")
    with torch.no_grad():
        first.network.body.blocks[1].conv1.bias[:5] = -1e3
    init = first.run(stop_at=1)
    watcher = Quiet()
    recipe = replace(FAST, revive=0.001, revive_every=5)
    trainer(tmp_path, recipe=recipe, init=init, run="second", watcher=watcher).run()
    notes = [note for note in watcher.notes if "start anew" in note]
    assert [note.split(":")[0] for note in notes] == ["Update 0", "Update 5", "Update 10", "Update 15"]
    assert int(notes[0].split()[2]) >= 5


@pytest.mark.parametrize("more", [{}, {"average": 0.9, "muon_centred": True}], ids=["alone", "with all"])
def test_a_resumed_run_revives_what_a_straight_one_does(tmp_path: Path, more: dict[str, Any]) -> None:
    recipe = replace(FAST, revive=0.5, revive_every=4, **more)  # 0.5: half of an untrained network
    watcher = Quiet()
    straight = load_checkpoint(trainer(tmp_path, recipe=recipe, run="straight", watcher=watcher).run())
    revived = {note.split()[1]: int(note.split()[2]) for note in watcher.notes if "start anew" in note}
    assert revived["12:"] > 0  # after the resumption there is something to agree on
    trainer(tmp_path, recipe=recipe, run="halves").run(stop_at=8)
    halves = load_checkpoint(trainer(tmp_path, recipe=recipe, run="halves", resume=True).run())
    for name, weight in straight.weights.items():
        assert torch.equal(weight, halves.weights[name]), name
