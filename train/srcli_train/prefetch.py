"""Results drawn ahead of their use, in order: by threads, or by processes where a GPU trains."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from srcli.backends.devices import cores
from srcli.errors import SrcliError, TrainingError

Drawn = TypeVar("Drawn")
_AHEAD = 4  # results kept ready, at least; by each process
_MOST_WORKERS = 8  # more threads wait for one another in Python


def prefetch(draw: Callable[[int], Drawn], device: torch.device) -> Callable[[range], Generator[Drawn]]:
    """A function from updates to what `draw` makes of them, in order and drawn ahead.

    For a GPU processes draw where the system forks: threads would hold Python's lock while the main thread
    has kernels to start.
    """
    forks = "fork" in multiprocessing.get_all_start_methods()
    drawn = drawn_by_processes if device.type == "cuda" and forks else drawn_by_threads
    return partial(drawn, draw, workers=_workers(device))


def _workers(device: torch.device) -> int:
    """Threads or processes that draw: this rank's share of the cores, less the one that drives a GPU.

    One where the CPU trains, which needs all its cores.
    """
    if device.type == "cpu":
        return 1
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST_WORKERS, cores() // ranks - 1))


def drawn_by_threads(draw: Callable[[int], Drawn], updates: range, workers: int = 1) -> Generator[Drawn]:
    """What `draw` makes of `updates`, in order, drawn ahead by threads that end with the iterator.

    Args:
        draw: of an update; with several workers it is called from several threads at once.
        updates: those wanted.
        workers: threads. For each there are two results drawn or being drawn, and never fewer than four.

    Raises:
        Exception: whatever `draw` raised, when its turn has come.
    """
    coming, drawn = iter(updates), deque[Future[Drawn]]()
    pool = ThreadPoolExecutor(workers, "patches")

    def ask(count: int) -> None:
        drawn.extend(pool.submit(draw, update) for update in islice(coming, count))

    try:
        ask(max(_AHEAD, 2 * workers))
        while drawn:
            item = drawn.popleft().result()
            ask(1)
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


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
    coming = _start_processes(draw, updates, workers)
    try:
        for _ in updates:
            drawn = _next(coming)
            if isinstance(drawn, SrcliError):
                raise drawn
            yield drawn
    finally:
        coming._shutdown_workers()  # else they live on in an error's traceback


class _Drawing(Dataset[Any]):
    """Results of `draw`; its errors are results, too, as PyTorch would put other words into them."""

    def __init__(self, draw: Callable[[int], object]) -> None:
        self._draw = draw

    def __getitem__(self, update: int) -> object:
        try:
            return self._draw(update)
        except SrcliError as error:
            return error


def _start_processes(draw: Callable[[int], Drawn], updates: range, workers: int) -> Any:
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
                collate_fn=_unchanged,
                worker_init_fn=_leave_signals_to_the_parent,
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


def _unchanged(drawn: Drawn) -> Drawn:
    return drawn


def _leave_signals_to_the_parent(number: int) -> None:
    """The parent answers signals to the group, as of a terminal or `timeout`: it has to save."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
