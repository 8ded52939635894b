"""Minibatches drawn ahead by processes, which leave Python to the one that drives a GPU."""

import signal
from collections.abc import Callable, Iterator
from typing import TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

Drawn = TypeVar("Drawn")
_AHEAD = 4  # results kept ready by each process


class _Drawing(Dataset[Drawn]):
    def __init__(self, draw: Callable[[int], Drawn]) -> None:
        self._draw = draw

    def __getitem__(self, update: int) -> Drawn:
        return self._draw(update)


def drawn_by_processes(draw: Callable[[int], Drawn], updates: range, workers: int) -> Iterator[Drawn]:
    """What `draw` makes of `updates`, in order, drawn ahead by processes that end with the iterator.

    They are forked, so that mapped pictures are there at once. What they draw must not need the GPU.

    Args:
        draw: of an update.
        updates: those wanted.
        workers: processes.

    Raises:
        Exception: of the kind that `draw` raised, when its turn has come.
    """
    cv2.setNumThreads(0)  # its threads would not be there in a forked process, which waits for them
    yield from DataLoader(
        _Drawing(draw),
        batch_size=None,
        sampler=updates,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        collate_fn=_as_it_is,
        worker_init_fn=_settle,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # not the one that draws weights
    )


def _as_it_is(drawn: Drawn) -> Drawn:
    return drawn


def _settle(number: int) -> None:
    """A forked process has its parent's handlers; but Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
