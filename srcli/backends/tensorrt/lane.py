"""One lane: a stream with its own buffers, contexts and CUDA graphs.

For each input shape a lane replays one CUDA graph that holds the copy to the GPU, the network and the copy
back of what is wanted of its outputs.

All of this is tested with a stand-in of GPU and engine; untested on hardware.
"""

import ctypes
import math
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from srcli.backends.base import Batch
from srcli.backends.tensorrt.cuda import Device
from srcli.errors import InferenceError

Shape = tuple[int, ...]

MAX_SHAPES = 8
"""Input shapes whose contexts and graphs a lane keeps: two a picture with the self-ensemble."""


OUTPUTS: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.uint8), np.dtype(np.float32))
"""Types of what an engine gives: the network's output, the same as 8-bit pixels, and whether one of its
values is no number (`outputs.with_levels`)."""


class Wanted(Enum):
    """Which of the outputs cross the bus."""

    SR = (0,)
    LEVELS = (1, 2)


class Context(Protocol):
    """An engine's state for one input shape on one stream."""

    def prepare(self, shape: Shape, stream: int) -> tuple[tuple[Shape, ...], int]:
        """Set the input's shape; returns those of `OUTPUTS`, and the bytes of scratch memory this takes."""

    def bind(self, lr: int, outputs: tuple[int, ...], scratch: int, size: int) -> None:
        """Device addresses of input, outputs and scratch memory, and the size of the last."""

    def enqueue(self, stream: int) -> None:
        """Queue the network."""


class Program(Protocol):
    """An engine ready to run; its input is float32, `OUTPUTS` are what it gives."""

    def context(self) -> Context:
        """A new one."""

    def settled(self) -> None:
        """A new shape has run once: whatever was compiled for it is there."""


@dataclass(slots=True)
class _Slot:
    """What one input shape needs on one lane, for one use of the outputs."""

    context: Context
    outputs: tuple[Shape, ...]
    wanted: Wanted
    runs: int = 0
    graph: int = 0


@dataclass(slots=True)
class _Buffer:
    """Device memory, and pinned host memory of the same size where something crosses; 0 is none."""

    size: int = 0
    device: int = 0
    host: int = 0

    def view(self, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The host's side as an array."""
        raw: Any = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(self.host)
        return np.frombuffer(raw, dtype).reshape(shape)


class Lane:
    """One stream. A batch is started, then finished; in between the GPU works.

    Attributes:
        problem: why a shape could not be recorded as a graph and runs step by step; empty if none.
    """

    def __init__(self, device: Device, program: Program) -> None:
        self._device, self._program = device, program
        self._stream = device.stream()
        self._slots: dict[tuple[Shape, Wanted], _Slot] = {}  # the least recently used first
        self._lr, self._scratch = _Buffer(), _Buffer()
        self._outputs = tuple(_Buffer() for _ in OUTPUTS)
        self._running: _Slot | None = None
        self.problem = ""

    @property
    def graphs(self) -> int:
        """Shapes that are replayed as a CUDA graph."""
        return sum(bool(slot.graph) for slot in self._slots.values())

    def start(self, lr: Batch, wanted: Wanted) -> None:
        """Queue one batch.

        Raises:
            MemoryError: the GPU has too little; the lane has given back all it held.
            InferenceError: the GPU failed in another way.
        """
        assert self._running is None, "a lane runs one batch at a time"
        try:
            slot = self._slot(lr.shape, wanted)
            self._lr.view(lr.shape, lr.dtype)[...] = lr
            self._queue(slot, lr.nbytes)
        except MemoryError:
            self.release()
            raise
        self._running = slot

    def finish(self) -> tuple[NDArray[Any], ...]:
        """Wait for the batch that was started: the outputs that were wanted, as copies that stay valid."""
        assert self._running is not None, "nothing was started"
        slot, self._running = self._running, None
        self._device.wait(self._stream)
        return tuple(
            self._outputs[place].view(slot.outputs[place], OUTPUTS[place]).copy()
            for place in slot.wanted.value
        )

    def abandon(self) -> None:
        """Wait for a batch nobody wants any more; its errors do not count."""
        self._running = None
        with suppress(MemoryError, InferenceError):
            self._device.wait(self._stream)

    def release(self) -> None:
        """Give back all memory; the next batch takes it anew."""
        self.abandon()
        self._drop_slots()
        for buffer in (self._lr, self._scratch, *self._outputs):
            self._free(buffer)

    def close(self) -> None:
        """Give back everything, the stream too."""
        self.release()
        self._device.end(self._stream)

    def _slot(self, shape: Shape, wanted: Wanted) -> _Slot:
        """The shape's slot, most recently used from now on."""
        slot = self._slots.pop((shape, wanted), None) or self._prepared(shape, wanted)
        self._slots[shape, wanted] = slot
        while len(self._slots) > MAX_SHAPES:
            self._drop(next(iter(self._slots)))
        return slot

    def _prepared(self, shape: Shape, wanted: Wanted) -> _Slot:
        context = self._program.context()
        outputs, scratch = context.prepare(shape, self._stream)
        slot = _Slot(context, outputs, wanted)
        self._reserve(
            [(self._lr, 4 * math.prod(shape)), (self._scratch, max(1, scratch)), *self._sizes(slot)]
        )
        for buffer in (self._lr, *(self._outputs[place] for place in wanted.value)):
            buffer.host = buffer.host or self._device.pin(buffer.size)
        addresses = tuple(buffer.device for buffer in self._outputs)
        context.bind(self._lr.device, addresses, self._scratch.device, scratch)
        return slot

    def _sizes(self, slot: _Slot) -> list[tuple[_Buffer, int]]:
        """Bytes of each output."""
        kinds = zip(self._outputs, slot.outputs, OUTPUTS, strict=True)
        return [(buffer, math.prod(shape) * dtype.itemsize) for buffer, shape, dtype in kinds]

    def _reserve(self, sizes: list[tuple[_Buffer, int]]) -> None:
        """Buffers of at least these sizes. A buffer that moves ends all graphs, which know its address."""
        small = [(buffer, size) for buffer, size in sizes if buffer.size < size]
        if small:
            self._drop_slots()
        for buffer, size in small:
            self._free(buffer)
            buffer.device = self._device.allocate(size)
            buffer.size = size

    def _queue(self, slot: _Slot, size: int) -> None:
        """The first time step by step, for what is set up then cannot be recorded; after that as a graph."""
        slot.runs += 1
        steps = partial(self._steps, slot, size)
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
        try:
            slot.graph = self._device.record(self._stream, steps)
        except InferenceError as error:
            self.problem = error.message

    def _steps(self, slot: _Slot, size: int) -> None:
        self._device.upload(self._lr.device, self._lr.host, size, self._stream)
        slot.context.enqueue(self._stream)
        sizes = self._sizes(slot)
        for buffer, length in (sizes[place] for place in slot.wanted.value):
            self._device.download(buffer.host, buffer.device, length, self._stream)

    def _drop_slots(self) -> None:
        for key in list(self._slots):
            self._drop(key)

    def _drop(self, key: tuple[Shape, Wanted]) -> None:
        graph = self._slots.pop(key).graph
        if graph:
            self._device.forget(graph)

    def _free(self, buffer: _Buffer) -> None:
        device, host = buffer.device, buffer.host
        buffer.size = buffer.device = buffer.host = 0
        if device:
            self._device.free(device)
        if host:
            self._device.unpin(host)
