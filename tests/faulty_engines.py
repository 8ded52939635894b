"""Engines whose runs go through a fault, and what streams gave."""

from collections.abc import Callable, Iterable, Iterator

from srcli.backends.base import Batch, Engine
from srcli.imaging.pixels import Pixels
from srcli.stream import Result

Fault = Callable[[Batch, Engine], Batch]
Inject = Callable[[Fault], None]
DEADLINE = 60.0
"""Seconds after which something that never comes has failed to come."""


class Faulty:
    """An engine whose runs go through `fault`."""

    def __init__(self, engine: Engine, fault: Fault) -> None:
        self._engine, self._fault = engine, fault
        self.info, self.scale = engine.info, engine.scale

    def run(self, lr: Batch) -> Batch:
        return self._fault(lr, self._engine)


class Ahead(Faulty):
    """An engine that takes three windows before it gives the first result, as GPUs do."""

    def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        waiting = list[Batch]()
        for batch in batches:
            waiting.append(batch)
            if len(waiting) == 3:
                yield self.run(waiting.pop(0))
        yield from map(self.run, waiting)


def right(lr: Batch, engine: Engine) -> Batch:
    return engine.run(lr)


def pixels_of(results: Iterable[Result]) -> list[Pixels]:
    found = list(results)
    assert [result.error for result in found] == [None] * len(found)
    return [result.pixels for result in found if result.pixels is not None]
