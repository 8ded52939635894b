"""Hidden units of residual blocks that never fire are started anew (ReDo: Sokar et al., ICML 2023).

A ReLU that is off everywhere passes no gradient, so it stays off for the rest of the training. Muon moves
all directions of a weight equally far, also the one along the mean of its input, and so drives many units
there: `benchmarks/units.py` found four in ten off in a network that was trained so.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from srcli_train.networks.layers import ResBlock
from srcli_train.patches import Minibatch
from srcli_train.validation import batch_of


@dataclass(slots=True)
class Seen:
    """Of one block: mean of its input (I,) and share of pixels at which each hidden unit fires (O,)."""

    mean: Tensor
    firing: Tensor
    count: int = 0

    def add(self, image: Tensor, hidden: Tensor) -> None:
        self.count += 1
        self.mean += (image.mean((0, 2, 3)) - self.mean) / self.count
        self.firing += ((hidden > 0).float().mean((0, 2, 3)) - self.firing) / self.count


def revive(
    network: nn.Module,
    minibatches: Iterable[Minibatch],
    share: float,
    seed: int,
    followers: Sequence[nn.Module] = (),
) -> int:
    """Start hidden units anew that fire at no more than `share` of all pixels.

    A revived unit sees a random pattern that is blind to the mean of its input, so that it fires at about
    half of the pixels, and its outgoing weights begin at zero: what the network computes stays the same,
    up to the little that the unit still did.

    Args:
        network: with `ResBlock`s; those are watched as they are used, not as they train.
        minibatches: their LR patches are looked at.
        share: 0-1.
        seed: of the random patterns.
        followers: networks of the same shape, such as the mean of its weights, that are given the revived
            units as they are. Else they would mix a unit's old outgoing weights with its new pattern.

    Returns:
        How many units.
    """
    draw, revived = torch.Generator().manual_seed(seed), 0
    names = {module: name for name, module in network.named_modules()}
    for block, seen in watched(network, minibatches).items():
        others = [cast(ResBlock, follower.get_submodule(names[block])) for follower in followers]
        for unit in (seen.firing <= share).nonzero().flatten().tolist():
            _start_anew(block, unit, seen.mean, draw)
            _give(block, unit, others)
            revived += 1
    return revived


def watched(network: nn.Module, minibatches: Iterable[Minibatch]) -> dict[ResBlock, Seen]:
    """What the hidden units of blocks do, by block that took part.

    Args:
        network: as of `revive`; in float32, so that all processes find the same.
        minibatches: their LR patches are looked at.
    """
    seen: dict[ResBlock, Seen] = {}
    blocks = {m.conv1: m for m in network.modules() if isinstance(m, ResBlock)}

    def watch(conv: nn.Module, given: tuple[Tensor, ...], hidden: Tensor) -> None:
        block = blocks[conv]  # type: ignore[index]
        if block not in seen:
            seen[block] = Seen(given[0].new_zeros(given[0].shape[1]), hidden.new_zeros(hidden.shape[1]))
        seen[block].add(given[0], hidden)

    handles = [conv.register_forward_hook(watch) for conv in blocks]
    device, training = next(network.parameters()).device, network.training
    network.eval()  # what other hooks and layers follow while it trains stays as it is
    try:
        with torch.no_grad():
            for minibatch in minibatches:
                network(batch_of(minibatch.lr, device), minibatch.scale)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return seen


def _start_anew(block: ResBlock, unit: int, mean: Tensor, draw: torch.Generator) -> None:
    """PyTorch's default initialisation, less the part along the mean input; nothing goes out yet."""
    weight = block.conv1.weight
    with torch.no_grad():
        reach = weight[0].numel() ** -0.5
        fresh = (torch.rand(weight[unit].shape, generator=draw) * 2 - 1).to(weight.device) * reach
        along = torch.einsum("i,ihw->hw", mean, fresh) / mean.square().sum().clamp_min(1e-12)
        weight[unit] = fresh - mean[:, None, None] * along
        if block.conv1.bias is not None:
            block.conv1.bias[unit] = 0
        block.conv2.weight[:, unit] = 0


def _give(block: ResBlock, unit: int, others: list[ResBlock]) -> None:
    with torch.no_grad():
        for other in others:
            other.conv1.weight[unit] = block.conv1.weight[unit]
            other.conv2.weight[:, unit] = block.conv2.weight[:, unit]
            if block.conv1.bias is not None and other.conv1.bias is not None:
                other.conv1.bias[unit] = block.conv1.bias[unit]
