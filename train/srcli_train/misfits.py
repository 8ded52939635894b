"""Networks that a recipe, or several processes, cannot train as asked."""

from collections.abc import Sequence

import torch
from torch import nn

from srcli.errors import UsageError
from srcli_train.networks import NetworkSpec, build
from srcli_train.recipes import Recipe


def outline(spec: NetworkSpec) -> nn.Module:
    """The network without memory for its weights: enough for what is asked here."""
    with torch.device("meta"):
        return build(spec)


def refuse_misfit(network: nn.Module, recipe: Recipe) -> None:
    """Refuse a recipe that would do less to this network than it says.

    Raises:
        UsageError: there is nothing for Muon.
    """
    with_convolutions = [name for name, module in network.named_children() if _has_convolutions(module)]
    if recipe.optimizer == "muon" and not set(recipe.muon_modules) & set(with_convolutions):
        raise UsageError(
            f"Muon would train nothing: this network has none of `muon_modules` {list(recipe.muon_modules)}.",
            f"It has: {', '.join(with_convolutions)}. Or set optimizer=adam.",
        )


def refuse_blank(recipe: Recipe, *, begun: bool) -> None:
    """Refuse to learn from a network that has learnt nothing.

    Args:
        recipe: asked for.
        begun: whether there is a network to start from, or a run to resume.

    Raises:
        UsageError: see above.
    """
    if recipe.distill and not begun:
        raise UsageError(
            "`distill` learns from what the network was at the start, which is nothing in a new one.",
            "Start from a checkpoint or a model with --init.",
        )


def refuse_partly_new(new: Sequence[str]) -> None:
    """Refuse to learn from a network that the start did not fill.

    Args:
        new: names of the weights that are freshly initialised.

    Raises:
        UsageError: there are any.
    """
    if new:
        raise UsageError(
            f"`distill` learns from what the network was at the start, and of that is new: {', '.join(new)}.",
            "Train without distill first, or start from a network with all of it.",
        )


def refuse_sharing(network: nn.Module) -> None:
    """Refuse what several processes would train otherwise than one.

    Raises:
        UsageError: the network has batch norm, whose statistics each process would take of its own patches.
    """
    if any(isinstance(m, nn.BatchNorm2d) for m in network.modules()):
        raise UsageError(
            "A network with batch norm is trained by one process: several would each see the statistics of "
            "their own patches only.",
            "Leave out --gpus, or start srcli train without torchrun.",
        )


def _has_convolutions(module: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) for m in module.modules())
