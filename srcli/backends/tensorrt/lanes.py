"""Several lanes at once: while the GPU computes on one, the host fills and empties the buffers of another.

All of this is tested with a stand-in of GPU and engine; untested on hardware.
"""

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from srcli.backends.base import Batch, say_nothing
from srcli.backends.tensorrt.cuda import Device
from srcli.backends.tensorrt.lane import Lane, Program, Wanted
from srcli.errors import InferenceError

Outputs = tuple[NDArray[Any], ...]
Tell = Callable[[str], None]


class Lanes:
    """Up to so many batches at work at once, results in order.

    Args:
        device: the GPU.
        program: the engine.
        count: lanes at most; fewer where memory does not suffice for all.
        tell: told once if the work cannot be recorded as CUDA graphs.

    Attributes:
        problem: why it cannot be recorded; empty if it can.
    """

    def __init__(self, device: Device, program: Program, count: int, tell: Tell = say_nothing) -> None:
        self._device, self._program, self._limit, self._tell = device, program, count, tell
        self.problem = ""
        self._idle: list[Lane] = []
        self._all: list[Lane] = []
        weakref.finalize(self, _close, device, self._all).atexit = False

    @property
    def graphs(self) -> int:
        """Shapes that are replayed as a CUDA graph, on all lanes."""
        return sum(lane.graphs for lane in self._all)

    def run(self, batches: Iterable[Batch], wanted: Wanted = Wanted.SR) -> Iterator[Outputs]:
        """Run batches of any shapes the engine takes; gives the wanted outputs of each.

        Raises:
            MemoryError: one of them is too large even alone; results before it were given out.
            InferenceError: the GPU failed in another way.
        """
        busy: deque[Lane] = deque()
        try:
            for batch in batches:
                while not self._start(batch, wanted, busy):
                    yield self._finish(busy)
            while busy:
                yield self._finish(busy)
        finally:
            self._device.activate()
            for lane in busy:
                lane.abandon()
                self._idle.append(lane)

    def release(self) -> None:
        """Give back the memory of all lanes that are not at work."""
        self._device.activate()
        for lane in self._idle:
            lane.release()

    def _start(self, batch: Batch, wanted: Wanted, busy: deque[Lane]) -> bool:
        """Start a batch on an idle lane; False if one of the busy ones must be finished before."""
        if len(busy) >= self._limit:
            return False
        self._device.activate()  # each time: the caller may have turned to another GPU in between
        try:
            busy.append(self._started(batch, wanted))
        except MemoryError:
            if not busy:
                raise
            self._limit = len(busy)
            return False
        return True

    def _started(self, batch: Batch, wanted: Wanted) -> Lane:
        """An idle lane, or a new one, with the batch at work on it."""
        lane = self._idle.pop() if self._idle else self._new()
        try:
            self._start_on(lane, batch, wanted)
        except BaseException:
            lane.abandon()
            self._idle.append(lane)
            raise
        return lane

    def _start_on(self, lane: Lane, batch: Batch, wanted: Wanted) -> None:
        """Other idle lanes give up their memory where this one needs it."""
        try:
            lane.start(batch, wanted)
        except MemoryError:
            if not self._idle:
                raise
            self.release()
            lane.start(batch, wanted)

    def _new(self) -> Lane:
        lane = Lane(self._device, self._program)
        self._all.append(lane)
        return lane

    def _finish(self, busy: deque[Lane]) -> Outputs:
        self._device.activate()
        lane = busy.popleft()
        self._idle.append(lane)
        if lane.problem and not self.problem:
            self.problem = lane.problem
            self._tell(f"{self.problem} No CUDA graph could be recorded: tiles are queued step by step.")
        return lane.finish()


def _close(device: Device, lanes: list[Lane]) -> None:
    """Nobody has the engine any more: give back what it held, in the midst of whatever this thread does."""
    with suppress(MemoryError, InferenceError), device.borrowed():
        for lane in lanes:
            lane.close()
