"""Running an engine: several lanes, each a stream with its own buffers, contexts and CUDA graphs.

While the GPU computes on one lane, the host fills and empties the buffers of another. A lane replays, for
each input shape, one CUDA graph that holds the copy to the GPU, the network and the copy back.

All of this is tested with a stand-in of GPU and engine; untested on hardware.
"""

import ctypes
import math
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srcli.backends.base import Batch
from srcli.backends.trt.cuda import Device
from srcli.errors import InferenceError

Shape = tuple[int, ...]

MAX_SHAPES = 8
"""Input shapes whose contexts and graphs a lane keeps: two a picture with the self-ensemble."""


class Context(Protocol):
    """An engine's state for one input shape on one stream."""

    def prepare(self, shape: Shape, stream: int) -> tuple[Shape, int]:
        """Set the input's shape; returns the output's, and the bytes of scratch memory this takes."""

    def bind(self, lr: int, sr: int, scratch: int, size: int) -> None:
        """Device addresses of input, output and scratch memory, and the size of the last."""

    def enqueue(self, stream: int) -> None:
        """Queue the network."""


class Program(Protocol):
    """An engine ready to run; input and output are float32."""

    def context(self) -> Context:
        """A new one."""

    def settled(self) -> None:
        """A new shape has run once: whatever was compiled for it is there."""


@dataclass(slots=True)
class _Slot:
    """What one input shape needs on one lane."""

    context: Context
    output: Shape
    runs: int = 0
    graph: int = 0


@dataclass(slots=True)
class _Buffer:
    """Device memory, and pinned host memory of the same size where the host copies; 0 is none."""

    size: int = 0
    device: int = 0
    host: int = 0

    def view(self, shape: Shape) -> NDArray[np.float32]:
        """The host's side as an array."""
        raw: Any = (ctypes.c_float * math.prod(shape)).from_address(self.host)
        return np.frombuffer(raw, np.float32).reshape(shape)


class Lane:
    """One stream. A batch is started, then finished; in between the GPU works."""

    def __init__(self, device: Device, program: Program) -> None:
        self._device, self._program = device, program
        self._stream = device.stream()
        self._slots: dict[Shape, _Slot] = {}  # the least recently used first
        self._lr, self._sr, self._scratch = _Buffer(), _Buffer(), _Buffer()
        self._running: Shape | None = None

    def start(self, lr: Batch) -> None:
        """Queue one batch.

        Raises:
            MemoryError: the GPU has too little; the lane has given back all it held.
            InferenceError: the GPU failed in another way.
        """
        assert self._running is None, "a lane runs one batch at a time"
        try:
            slot = self._slot(lr.shape)
            self._lr.view(lr.shape)[...] = lr
            self._queue(slot, lr.shape)
        except MemoryError:
            self.release()
            raise
        self._running = slot.output

    def finish(self) -> Batch:
        """Wait for the batch that was started; the result is a copy and stays valid."""
        assert self._running is not None, "nothing was started"
        shape, self._running = self._running, None
        self._device.wait(self._stream)
        return self._sr.view(shape).copy()

    def abandon(self) -> None:
        """Wait for a batch nobody wants any more; its errors do not count."""
        self._running = None
        with suppress(MemoryError, InferenceError):
            self._device.wait(self._stream)

    def release(self) -> None:
        """Give back all memory; the next batch takes it anew."""
        self.abandon()
        self._drop_slots()
        for buffer in (self._lr, self._sr, self._scratch):
            self._free(buffer)

    def close(self) -> None:
        """Give back everything, the stream too."""
        self.release()
        self._device.end(self._stream)

    def _slot(self, shape: Shape) -> _Slot:
        """The shape's slot, most recently used from now on."""
        slot = self._slots.pop(shape, None) or self._prepared(shape)
        self._slots[shape] = slot
        while len(self._slots) > MAX_SHAPES:
            self._drop(next(iter(self._slots)))
        return slot

    def _prepared(self, shape: Shape) -> _Slot:
        context = self._program.context()
        output, scratch = context.prepare(shape, self._stream)
        self._reserve(4 * math.prod(shape), 4 * math.prod(output), max(1, scratch))
        context.bind(self._lr.device, self._sr.device, self._scratch.device, scratch)
        return _Slot(context, output)

    def _reserve(self, lr: int, sr: int, scratch: int) -> None:
        """Buffers of at least these sizes. A buffer that moves ends all graphs, which know its address."""
        wanted = [(self._lr, lr), (self._sr, sr), (self._scratch, scratch)]
        if all(buffer.size >= size for buffer, size in wanted):
            return
        self._drop_slots()
        for buffer, size in wanted:
            if buffer.size < size:
                self._free(buffer)
                buffer.device = self._device.allocate(size)
                if buffer is not self._scratch:
                    buffer.host = self._device.pin(size)
                buffer.size = size

    def _queue(self, slot: _Slot, shape: Shape) -> None:
        """The first time step by step, for what is set up then cannot be recorded; after that as a graph."""
        slot.runs += 1
        steps = partial(self._steps, slot, shape)
        if slot.runs == 2:
            self._record(slot, steps)
        if slot.graph:
            self._device.launch(slot.graph, self._stream)
        else:
            steps()
        if slot.runs == 1:
            self._device.wait(self._stream)
            self._program.settled()

    def _record(self, slot: _Slot, steps: partial[None]) -> None:
        """An engine that cannot be recorded runs step by step: the same result, more work for the host."""
        with suppress(InferenceError):
            slot.graph = self._device.record(self._stream, steps)

    def _steps(self, slot: _Slot, shape: Shape) -> None:
        lr, sr = 4 * math.prod(shape), 4 * math.prod(slot.output)
        self._device.upload(self._lr.device, self._lr.host, lr, self._stream)
        slot.context.enqueue(self._stream)
        self._device.download(self._sr.host, self._sr.device, sr, self._stream)

    def _drop_slots(self) -> None:
        for shape in list(self._slots):
            self._drop(shape)

    def _drop(self, shape: Shape) -> None:
        graph = self._slots.pop(shape).graph
        if graph:
            self._device.forget(graph)

    def _free(self, buffer: _Buffer) -> None:
        device, host = buffer.device, buffer.host
        buffer.size = buffer.device = buffer.host = 0
        if device:
            self._device.free(device)
        if host:
            self._device.unpin(host)


class Lanes:
    """Up to so many batches at work at once, results in order.

    Args:
        device: the GPU.
        program: the engine.
        count: lanes at most; fewer where memory does not suffice for all.
    """

    def __init__(self, device: Device, program: Program, count: int) -> None:
        self._device, self._program, self._limit = device, program, count
        self._idle: list[Lane] = []
        self._all: list[Lane] = []
        weakref.finalize(self, _close, device, self._all)

    def run(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Run batches of any shapes the engine takes.

        Raises:
            MemoryError: one of them is too large even alone; results before it were given out.
            InferenceError: the GPU failed in another way.
        """
        self._device.activate()
        busy: deque[Lane] = deque()
        try:
            for batch in batches:
                while not self._start(batch, busy):
                    yield self._finish(busy)
            while busy:
                yield self._finish(busy)
        finally:
            for lane in busy:
                lane.abandon()
                self._idle.append(lane)

    def release(self) -> None:
        """Give back the memory of all lanes that are not at work."""
        for lane in self._idle:
            lane.release()

    def _start(self, batch: Batch, busy: deque[Lane]) -> bool:
        """Start a batch on an idle lane; False if one of the busy ones must be finished before."""
        if len(busy) >= self._limit:
            return False
        try:
            busy.append(self._started(batch))
        except MemoryError:
            if not busy:
                raise
            self._limit = len(busy)
            return False
        return True

    def _started(self, batch: Batch) -> Lane:
        """An idle lane, or a new one, with the batch at work on it."""
        lane = self._idle.pop() if self._idle else self._new()
        try:
            self._start_on(lane, batch)
        except BaseException:
            lane.abandon()
            self._idle.append(lane)
            raise
        return lane

    def _start_on(self, lane: Lane, batch: Batch) -> None:
        """Other idle lanes give up their memory where this one needs it."""
        try:
            lane.start(batch)
        except MemoryError:
            if not self._idle:
                raise
            self.release()
            lane.start(batch)

    def _new(self) -> Lane:
        lane = Lane(self._device, self._program)
        self._all.append(lane)
        return lane

    def _finish(self, busy: deque[Lane]) -> Batch:
        lane = busy.popleft()
        self._idle.append(lane)
        return lane.finish()


def _close(device: Device, lanes: list[Lane]) -> None:
    """Nobody has the engine any more: give back what it held, in whichever thread this is."""
    with suppress(MemoryError, InferenceError):
        device.activate()
        for lane in lanes:
            lane.close()
