"""Self-ensemble: the mean over the eight flips and rotations of a square (EDSR paper, section 3.4)."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

Batch = NDArray[np.float32]

TRANSFORMS = range(8)
"""Each number is a symmetry of the square: bit 0 flips rows, bit 1 flips columns, bit 2 transposes."""


def apply(batch: Batch, transform: int) -> Batch:
    """One symmetry of an (N, C, H, W) batch; a view."""
    if transform & 1:
        batch = batch[..., ::-1, :]
    if transform & 2:
        batch = batch[..., ::-1]
    return batch.swapaxes(-1, -2) if transform & 4 else batch


def invert(batch: Batch, transform: int) -> Batch:
    """Undo `apply(..., transform)`; a view."""
    if transform & 4:
        batch = batch.swapaxes(-1, -2)
    if transform & 2:
        batch = batch[..., ::-1]
    return batch[..., ::-1, :] if transform & 1 else batch


def run_ensemble(run: Callable[[Batch], Batch], batch: Batch) -> Batch:
    """Mean of `run` over the eight symmetries, one after the other: no more memory than two runs.

    Args:
        run: (N, C, H, W) in, (N, C, sH, sW) out.
        batch: (N, C, H, W) float32.
    """
    return next(ensembles(partial(map, run), [batch]))


def ensembles(
    run_each: Callable[[Iterable[Batch]], Iterator[Batch]], batches: Iterable[Batch]
) -> Iterator[Batch]:
    """`run_ensemble` of each batch, in order, by something that may run several batches at once."""
    seen = (np.ascontiguousarray(apply(batch, number)) for batch in batches for number in TRANSFORMS)
    made = run_each(seen)
    for first in made:
        total = first.astype(np.float32, copy=True)
        for transform, result in zip(TRANSFORMS[1:], made, strict=False):  # the rest is for other batches
            total += invert(result, transform)
        total *= np.float32(1 / len(TRANSFORMS))
        yield total
