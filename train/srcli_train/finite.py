"""Losses and weights that are no numbers: found, and shown with the patches that came before."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from srcli.errors import OutputError, TrainingError
from srcli.io.pictures import Picture, write
from srcli_train.patches import Minibatch


def first_bad(losses: list[Tensor]) -> int | None:
    """Place of the first loss (a scalar each) that is not finite; None if all are."""
    bad = torch.isfinite(torch.stack(losses)).logical_not().nonzero()
    return int(bad[0]) if len(bad) else None


def all_finite(weights: dict[str, Tensor]) -> bool:
    """Whether all of a network's weights are."""
    return all(bool(torch.isfinite(w).all()) for w in weights.values() if w.is_floating_point())


def not_finite(what: str, update: int, minibatch: Minibatch, shown: Path | None) -> TrainingError:
    """The error that ends the run.

    Args:
        what: "loss" or "network".
        update: that made it so, 0-based.
        minibatch: of that update.
        shown: where its LR patches are written as a picture; None: nowhere.
    """
    if shown:
        with suppress(OutputError):  # the disk may be full; the reason matters more
            write(shown, Picture(np.concatenate(list(minibatch.lr), 1)), format="png", quality=None)
    patches = f"; patches: {shown}" if shown else ""
    return TrainingError(
        f"The {what} is not finite at update {update + 1} (x{minibatch.scale}){patches}.",
        "Lower the learning rate, or train in fp32; --resume goes on from the last good checkpoint.",
    )
