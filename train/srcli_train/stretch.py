"""Before a stretch of training elsewhere: is all there that it needs, and can its result come home?

    python -m srcli_train.stretch PIECE COUNT TRANSFERS [options of srcli train]

`train/stretch.sh` asks this first. Nothing but Python has to be there to be told what is missing.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from srcli.errors import SrcliError, TrainingError, UsageError

MODULES = (
    "numpy", "cv2", "simplejpeg", "typer", "rich", "torch", "tensorboard",
    "srcli.io.pictures", "srcli_train.command",
)  # fmt: skip
"""What training imports, early or late; at the end its own, which may want newer versions of the others."""

_MIB = 1 << 20
_LOG = _MIB  # room for log and archive


def missing() -> list[str]:
    """Modules that cannot be imported, each with the reason; all of them are tried."""
    wrong = []
    for name in MODULES:
        try:
            import_module(name)
        except Exception as error:  # a wheel for another machine can raise anything
            wrong.append(f"{name} ({error})")
    return wrong


def expected(arguments: Sequence[str]) -> int:
    """Bytes of a run's checkpoint with its optimizer state, and of the one before a trapezoid's fall.

    Args:
        arguments: options of `srcli train`; those that do not change the size are passed over.

    Raises:
        UsageError: there is no such network, recipe or setting.
    """
    from srcli_train.networks import build, preset
    from srcli_train.recipes import find
    from srcli_train.settings import changed, divided

    options = _size_options(arguments)
    about_network, about_recipe = divided(options.set)
    recipe = changed(find(options.recipe), about_recipe)
    network = build(changed(preset(options.model, options.scale), about_network))
    weights = _bytes(network.state_dict())
    checkpoint = weights * (2 if recipe.average else 1) + _bytes(_after_an_update(network, recipe))
    return checkpoint * (2 if recipe.schedule == "trapezoid" else 1)


def _size_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Those of `srcli train` that decide how large a checkpoint is, with the same defaults."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--model", default="mdsr-baseline")
    parser.add_argument("-s", "--scale", type=int)
    parser.add_argument("--recipe", default="paper")
    parser.add_argument("--set", action="append", default=[])
    return parser.parse_known_args(arguments)[0]


def _after_an_update(network: Any, recipe: Any) -> dict[str, Any]:
    """State of the recipe's optimizer once it has seen every weight."""
    import torch

    from srcli_train.optim import Optimizer

    optimizer = Optimizer(network.to(memory_format=torch.channels_last), recipe)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step(0.0)
    return optimizer.state_dict()


def _bytes(state: Any) -> int:
    """Of all tensors in nested dicts and lists."""
    if isinstance(state, dict):
        state = list(state.values())
    if isinstance(state, list):
        return sum(map(_bytes, state))
    return int(getattr(state, "nbytes", 0))


def check(piece: float, count: int, transfers: int, arguments: Sequence[str]) -> str:
    """Refuse what cannot run, or cannot come home.

    Args:
        piece: size of one in MiB.
        count: pieces that one transfer takes.
        transfers: how many there will be.
        arguments: options of `srcli train`.

    Returns:
        What is to be expected, in words.

    Raises:
        TrainingError: modules are missing; all are named.
        UsageError: the result is too large, or the options are wrong.
    """
    if wrong := missing():
        hint = "Bring their wheels, unpack them into a folder, and put the folder on PYTHONPATH."
        raise TrainingError(f"Training cannot import: {'; '.join(wrong)}.", hint)
    if min(piece, count, transfers) <= 0:
        raise UsageError("PIECE, COUNT and TRANSFERS are numbers above 0.")
    size = expected(arguments)
    pieces = math.ceil((size + _LOG) / (piece * _MIB))
    needed = math.ceil(pieces / count)
    told = (
        f"What is saved takes {size / _MIB:.1f} MiB: pieces of {piece:g} MiB: {pieces}, transfers: {needed}"
    )
    if needed > transfers:
        raise UsageError(
            f"{told}, and TRANSFERS is {transfers}.", f"Set TRANSFERS={needed} if so many can be made."
        )
    return f"{told}."


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, and say what came out; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m srcli_train.stretch", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("piece", type=float, help="MiB")
    parser.add_argument("count", type=int, help="pieces in one transfer")
    parser.add_argument("transfers", type=int)
    parser.add_argument("options", nargs=argparse.REMAINDER, help="of srcli train")
    given = parser.parse_args(arguments)
    try:
        print(check(given.piece, given.count, given.transfers, given.options))
    except SrcliError as error:
        print(f"error: {error.message}\n  {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
