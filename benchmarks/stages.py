"""Clocks around the stages of the pipeline, for one run."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter, thread_time
from typing import Any
from unittest.mock import patch

from srcli.backends import registry
from srcli.backends.base import Batch, Concurrent, Engine, Uint8Engine
from srcli.imaging import pixels
from srcli.io import pictures


@dataclass(slots=True)
class Share:
    """Seconds inside one stage, over all calls: on the wall, and of the calling thread's CPU."""

    wall: float = 0.0
    cpu: float = 0.0
    calls: int = 0


STAGES: dict[str, tuple[Any, str]] = {
    "decode": (pictures, "read"),
    "pixels to network": (pixels, "to_network"),
    "check finite": (pixels, "is_finite"),
    "network to pixels": (pixels, "from_network"),
    "encode and write": (pictures, "write"),
}
"""Everything but the network itself: (module, function) as the pipeline calls them."""


@contextmanager
def clocked(stages: Mapping[str, tuple[Any, str]] = STAGES) -> Iterator[dict[str, Share]]:
    """While it lasts, the network and every stage are timed; the figures are whole after it."""
    shares = {"network": Share()} | {name: Share() for name in stages}
    lock = threading.Lock()
    with ExitStack() as stack:
        for name, (module, function) in stages.items():
            work = _timed(getattr(module, function), shares[name], lock)
            stack.enter_context(patch.object(module, function, work))
        stack.enter_context(patch.object(registry, "load", _loading(registry.load, shares["network"], lock)))
        yield shares


def _timed(work: Callable[..., Any], share: Share, lock: threading.Lock) -> Callable[..., Any]:
    def run(*values: Any, **options: Any) -> Any:
        begin, cpu = perf_counter(), thread_time()
        try:
            return work(*values, **options)
        finally:
            with lock:
                share.wall += perf_counter() - begin
                share.cpu += thread_time() - cpu
                share.calls += 1

    return run


class _Clocked:
    """An engine whose runs are timed, by every call that it has."""

    def __init__(self, engine: Engine, share: Share, lock: threading.Lock) -> None:
        self.info, self.scale = engine.info, engine.scale
        self.run = _timed(engine.run, share, lock)
        if isinstance(engine, Concurrent):
            self.run_each = partial(_row, engine.run_each, share, lock)
        if isinstance(engine, Uint8Engine):
            self.run_uint8 = partial(_row, engine.run_uint8, share, lock)


def _row(
    run: Callable[[Iterable[Batch]], Iterator[Any]],
    share: Share,
    lock: threading.Lock,
    batches: Iterable[Batch],
) -> Iterator[Any]:
    """Results of a run over several batches; the time in which these are made is not the network's."""
    own, done = Share(), object()
    results = run(_subtracted(batches, own))
    while (result := _timed(next, own, threading.Lock())(results, done)) is not done:
        yield result
    with lock:
        share.wall, share.cpu = share.wall + own.wall, share.cpu + own.cpu
        share.calls += own.calls - 1  # the last one found nothing


def _subtracted(batches: Iterable[Batch], share: Share) -> Iterator[Batch]:
    """The batches; what making one takes is taken off."""
    begin, cpu = perf_counter(), thread_time()
    for batch in batches:
        share.wall -= perf_counter() - begin
        share.cpu -= thread_time() - cpu
        yield batch
        begin, cpu = perf_counter(), thread_time()


def _loading(load: Callable[..., Engine], share: Share, lock: threading.Lock) -> Callable[..., Engine]:
    return lambda *values: _Clocked(load(*values), share, lock)
