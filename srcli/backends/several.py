"""The same network on several devices, which share a picture's tiles."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Generic, TypeVar

from srcli.backends import devices
from srcli.backends.base import Batch, Engine, EngineInfo, Finishing, Levels, results
from srcli.errors import BackendUnavailableError, UsageError

T = TypeVar("T")

AHEAD = 4
"""Tiles a device may be ahead of the one that is waited for: enough to hide a slow one, few to hold."""


def split(device: str) -> tuple[str, ...]:
    """The devices that "cuda:0,1", "cuda:0,cuda:2" or "all" name; a single one as it is.

    Raises:
        UsageError: they are not of one kind, or one is named twice.
        BackendUnavailableError: "all" without a GPU.
    """
    if device == "all":
        found = devices.ask()
        if found.problem:
            raise BackendUnavailableError(f"--device all: {found.problem}.", "Use --device cpu, or auto.")
        return tuple(f"cuda:{number}" for number in range(len(found.gpus)))
    if "," not in device:
        return (device,)
    kind, _, numbers = device.partition(":")
    named = numbers.replace(f"{kind}:", "").split(",")
    if "," in kind or not all(number.isdecimal() for number in named) or len(set(named)) < len(named):
        raise UsageError(
            f"{device} does not name several devices.", "Name those of one kind, each once: cuda:0,1."
        )
    return tuple(f"{kind}:{number}" for number in named)


class Several:
    """Engines of one network, each on a device of its own. Results are those of one: a tile runs on one.

    Args:
        engines: at least one; same network, same kind of device and precision.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = tuple(engines)
        first = engines[0].info
        self.scale = engines[0].scale
        self.info: EngineInfo = replace(first, device=", ".join(e.info.device for e in engines))

    def run(self, lr: Batch) -> Batch:
        """On the first device."""
        return self.engines[0].run(lr)

    def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Every device takes the next batch that is left as soon as it has room.

        Raises:
            MemoryError, InferenceError: what the first device to fail said.
        """
        return _share([partial(results, engine) for engine in self.engines], batches)


class SeveralFinishing(Several):
    """Engines that all finish 8-bit pixels on their devices."""

    def run_levels(self, batches: Iterable[Batch]) -> Iterator[Levels | None]:
        """As `Finishing.run_levels`, shared as by `run_each`."""
        return _share([e.run_levels for e in self.engines if isinstance(e, Finishing)], batches)


def together(engines: Sequence[Engine]) -> Several:
    """The engines as one, which finishes pixels on the devices if all of them can."""
    able = all(isinstance(engine, Finishing) for engine in engines)
    return SeveralFinishing(engines) if able else Several(engines)


def _share(
    runners: Sequence[Callable[[Iterable[Batch]], Iterator[T]]], batches: Iterable[Batch]
) -> Iterator[T]:
    """Results in order of batches that runners share, each in a thread of its own."""
    work = _Work[T](iter(batches), AHEAD * len(runners))
    threads = [threading.Thread(target=work.do, args=(run_each,), daemon=True) for run_each in runners]
    for thread in threads:
        thread.start()
    try:
        yield from work.in_order()
    finally:
        work.stop()
        for thread in threads:
            thread.join()
        work.forget()


@dataclass(slots=True)
class _Work(Generic[T]):
    """Batches on their way: taken in order, done in any, given out in order."""

    batches: Iterator[Batch]
    ahead: int
    taken: int = 0
    given: int = 0
    done: dict[int, T] = field(default_factory=dict)
    exhausted: bool = False
    error: BaseException | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def do(self, run_each: Callable[[Iterable[Batch]], Iterator[T]]) -> None:
        """One device's thread."""
        numbers = deque[int]()
        try:
            for result in run_each(self._feed(numbers)):
                with self.changed:
                    self.done[numbers.popleft()] = result
                    self.changed.notify_all()
        except BaseException as error:  # the caller of `in_order` raises it
            with self.changed:
                self.error = self.error or error
                self.changed.notify_all()

    def _feed(self, numbers: deque[int]) -> Iterator[Batch]:
        """The next batches for one device, and their numbers."""
        while (batch := self._take(numbers)) is not None:
            yield batch

    def _take(self, numbers: deque[int]) -> Batch | None:
        with self.changed:
            self.changed.wait_for(lambda: self.exhausted or self._may_take(numbers))
            batch = None if self.exhausted else next(self.batches, None)
            if batch is None:
                self.exhausted = True
                self.changed.notify_all()
                return None
            numbers.append(self.taken)
            self.taken += 1
            return batch

    def _may_take(self, numbers: deque[int]) -> bool:
        """Not too far ahead; a device at work on what is waited for may want one more before it gives it."""
        return self.taken - self.given < self.ahead or bool(numbers and numbers[0] == self.given)

    def in_order(self) -> Iterator[T]:
        """Results as soon as it is their turn; an error as soon as it is known, for all is computed again."""
        while True:
            with self.changed:
                self.changed.wait_for(self._has_news)
                if self.error is not None:
                    raise self.error
                if self.given not in self.done:
                    return
                result = self.done.pop(self.given)
                self.given += 1
                self.changed.notify_all()
            yield result

    def _has_news(self) -> bool:
        finished = self.exhausted and self.given == self.taken
        return self.error is not None or self.given in self.done or finished

    def forget(self) -> None:
        """Drop what nobody took, which may be much where memory was short."""
        self.done.clear()
        self.error = None

    def stop(self) -> None:
        """Hand out no more batches."""
        with self.changed:
            self.exhausted = True
            self.changed.notify_all()
