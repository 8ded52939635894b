"""Minibatches drawn ahead by processes, which leave Python to the one that drives a GPU."""

import os
import signal
from collections.abc import Callable, Generator
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from srcli.errors import SrcliError, TrainingError
from srcli_train.patches import Drawn

_AHEAD = 4  # results kept ready by each process


class _Drawing(Dataset[Any]):
    """Results of `draw`; its errors are results, too, as PyTorch would put other words into them."""

    def __init__(self, draw: Callable[[int], object]) -> None:
        self._draw = draw

    def __getitem__(self, update: int) -> object:
        try:
            return self._draw(update)
        except SrcliError as error:
            return error


def drawn_by_processes(draw: Callable[[int], Drawn], updates: range, workers: int) -> Generator[Drawn]:
    """What `draw` makes of `updates`, in order, drawn ahead by processes that end with the iterator.

    They are forked, so that mapped pictures are there at once. What they draw must not need the GPU.

    Args:
        draw: of an update.
        updates: those wanted.
        workers: processes.

    Raises:
        TrainingError: one of the processes is gone.
        Exception: of the kind that `draw` raised, when its turn has come.
    """
    coming = _started(draw, updates, workers)
    try:
        for _ in updates:
            drawn = _next(coming)
            if isinstance(drawn, SrcliError):
                raise drawn
            yield drawn
    finally:
        coming._shutdown_workers()  # else they live on in an error's traceback


def _started(draw: Callable[[int], Drawn], updates: range, workers: int) -> Any:
    """PyTorch's iterator over what the processes draw, which has forked them."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # they would not be there in a forked process, which waits for them
    try:
        return iter(
            DataLoader(
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
        )
    finally:
        cv2.setNumThreads(threads)


def _next(coming: Any) -> Any:
    try:
        return next(coming)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error).partition("\n")[0]:
            raise
        reason = str(error).partition("\n")[0].rstrip(". ")
        raise TrainingError(
            f"A process that draws patches is gone ({reason}).",
            "It may have been short of memory; --resume goes on from the last checkpoint.",
        ) from error


def _as_it_is(drawn: Drawn) -> Drawn:
    return drawn


def _settle(number: int) -> None:
    """Signals to the group, as of a terminal or `timeout`, are the parent's to answer, which has to save."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
