"""Batches on CUDA streams: while the GPU computes one, the host fills and empties the buffers of another.

Each stream has its own buffers, execution contexts and CUDA graphs. For each input shape it replays one CUDA
graph that holds the copy to the GPU, the network and the copy of the wanted outputs back.

Tested with a stand-in of GPU and engine; untested on hardware.
"""

import ctypes
import logging
import math
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.backends.base import Batch
from srcli.backends.tensorrt.runtime import OUTPUT_DTYPES, CudaEngine, Device, ExecutionContext, Shape
from srcli.errors import InferenceError

_logger = logging.getLogger(__name__)
Outputs = tuple[NDArray[Any], ...]

MAX_SHAPES = 8
"""Input shapes whose contexts and graphs a stream keeps; a picture with self-ensemble has two."""


class Wanted(Enum):
    """Which outputs are copied to the host, as indices into `OUTPUT_DTYPES`."""

    FLOAT32 = (0,)
    UINT8 = (1, 2)


@dataclass(slots=True)
class _ShapeState:
    """What one input shape needs on one stream, for one choice of outputs."""

    context: ExecutionContext
    outputs: tuple[Shape, ...]
    wanted: Wanted
    runs: int = 0
    graph: int = 0


@dataclass(slots=True)
class _Buffer:
    """Device memory, and page-locked host memory of the same size for what is copied; 0 is none."""

    size: int = 0
    device: int = 0
    host: int = 0

    def view(self, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        """The host memory as an array."""
        raw: Any = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(self.host)
        return np.frombuffer(raw, dtype).reshape(shape)


class Stream:
    """One CUDA stream. A batch is started, then finished; in between the GPU computes.

    Attributes:
        problem: why no CUDA graph could be captured, so that every run is queued anew; empty if none.
    """

    def __init__(self, device: Device, engine: CudaEngine) -> None:
        self._device, self._engine = device, engine
        self._stream = device.create_stream()
        self._shapes: dict[tuple[Shape, Wanted], _ShapeState] = {}  # the least recently used first
        self._lr, self._scratch = _Buffer(), _Buffer()
        self._outputs = tuple(_Buffer() for _ in OUTPUT_DTYPES)
        self._running: _ShapeState | None = None
        self.problem = ""

    @property
    def graphs(self) -> int:
        """How many CUDA graphs it holds."""
        return sum(bool(state.graph) for state in self._shapes.values())

    def start(self, lr: Batch, wanted: Wanted) -> None:
        """Queue one batch.

        Raises:
            MemoryError: the GPU has too little; all memory of this stream is free again.
            InferenceError: the GPU failed in another way.
        """
        assert self._running is None, "a stream runs one batch at a time"
        try:
            state = self._state(lr.shape, wanted)
            self._lr.view(lr.shape, lr.dtype)[...] = lr
            self._queue(state, lr.nbytes)
        except MemoryError:
            self.release()
            raise
        self._running = state

    def finish(self) -> Outputs:
        """Wait for the batch that was started; its wanted outputs, as copies that stay valid."""
        assert self._running is not None, "nothing was started"
        state, self._running = self._running, None
        self._device.synchronize(self._stream)
        return tuple(
            self._outputs[place].view(state.outputs[place], OUTPUT_DTYPES[place]).copy()
            for place in state.wanted.value
        )

    def abandon(self) -> None:
        """Wait for a batch whose result is not needed; its errors are ignored."""
        self._running = None
        with suppress(MemoryError, InferenceError):
            self._device.synchronize(self._stream)

    def release(self) -> None:
        """Free all memory; the next batch allocates it again."""
        self.abandon()
        self._drop_shapes()
        for buffer in (self._lr, self._scratch, *self._outputs):
            self._free(buffer)

    def close(self) -> None:
        """Free everything, the stream too."""
        self.release()
        self._device.destroy_stream(self._stream)

    def _state(self, shape: Shape, wanted: Wanted) -> _ShapeState:
        """The state of a shape, which becomes the most recently used."""
        state = self._shapes.pop((shape, wanted), None) or self._prepared(shape, wanted)
        self._shapes[shape, wanted] = state
        while len(self._shapes) > MAX_SHAPES:
            self._drop(next(iter(self._shapes)))
        return state

    def _prepared(self, shape: Shape, wanted: Wanted) -> _ShapeState:
        context = self._engine.create_context()
        outputs, scratch = context.prepare(shape, self._stream)
        state = _ShapeState(context, outputs, wanted)
        self._reserve(
            [(self._lr, 4 * math.prod(shape)), (self._scratch, max(1, scratch)), *self._output_sizes(state)]
        )
        for buffer in (self._lr, *(self._outputs[place] for place in wanted.value)):
            buffer.host = buffer.host or self._device.pin(buffer.size)
        addresses = tuple(buffer.device for buffer in self._outputs)
        context.bind(self._lr.device, addresses, self._scratch.device, scratch)
        return state

    def _output_sizes(self, state: _ShapeState) -> list[tuple[_Buffer, int]]:
        """Each output's buffer and size in bytes."""
        outputs = zip(self._outputs, state.outputs, OUTPUT_DTYPES, strict=True)
        return [(buffer, math.prod(shape) * dtype.itemsize) for buffer, shape, dtype in outputs]

    def _reserve(self, sizes: list[tuple[_Buffer, int]]) -> None:
        """Make buffers at least this large. Graphs hold addresses: all are dropped where a buffer moves."""
        small = [(buffer, size) for buffer, size in sizes if buffer.size < size]
        if small:
            self._drop_shapes()
        for buffer, size in small:
            self._free(buffer)
            buffer.device = self._device.allocate(size)
            buffer.size = size

    def _queue(self, state: _ShapeState, size: int) -> None:
        """Queue directly the first time, whose set-up cannot be captured; from the second on as a graph."""
        state.runs += 1
        operations = partial(self._queue_operations, state, size)
        if state.runs == 2:
            self._capture(state, operations)
        if state.graph:
            self._device.launch(state.graph, self._stream)
        else:
            operations()
        if state.runs == 1:
            self._device.synchronize(self._stream)
            self._engine.save_kernels()

    def _capture(self, state: _ShapeState, operations: partial[None]) -> None:
        """Without a graph the same operations are queued each time: same result, more work for the host."""
        try:
            state.graph = self._device.capture(self._stream, operations)
        except InferenceError as error:
            self.problem = error.message

    def _queue_operations(self, state: _ShapeState, size: int) -> None:
        self._device.upload(self._lr.device, self._lr.host, size, self._stream)
        state.context.enqueue(self._stream)
        sizes = self._output_sizes(state)
        for buffer, length in (sizes[place] for place in state.wanted.value):
            self._device.download(buffer.host, buffer.device, length, self._stream)

    def _drop_shapes(self) -> None:
        for key in list(self._shapes):
            self._drop(key)

    def _drop(self, key: tuple[Shape, Wanted]) -> None:
        graph = self._shapes.pop(key).graph
        if graph:
            self._device.destroy_graph(graph)

    def _free(self, buffer: _Buffer) -> None:
        device, host = buffer.device, buffer.host
        buffer.size = buffer.device = buffer.host = 0
        if device:
            self._device.free(device)
        if host:
            self._device.unpin(host)


class Streams:
    """Computes up to `count` batches at once, results in order.

    Args:
        device: the GPU.
        engine: on that GPU.
        count: streams at most; fewer where memory does not suffice for all.

    Attributes:
        problem: why no CUDA graph could be captured; empty if none.
    """

    def __init__(self, device: Device, engine: CudaEngine, count: int) -> None:
        self._device, self._engine, self._limit = device, engine, count
        self.problem = ""
        self._idle: list[Stream] = []
        self._all: list[Stream] = []
        weakref.finalize(self, _close, device, self._all).atexit = False

    @property
    def graphs(self) -> int:
        """How many CUDA graphs all streams hold."""
        return sum(stream.graphs for stream in self._all)

    def run(self, batches: Iterable[Batch], wanted: Wanted = Wanted.FLOAT32) -> Iterator[Outputs]:
        """Run batches of any shapes that the engine takes; yields the wanted outputs of each.

        Raises:
            MemoryError: one of them is too large even alone; earlier results were yielded.
            InferenceError: the GPU failed in another way.
        """
        busy: deque[Stream] = deque()
        try:
            for batch in batches:
                while not self._start(batch, wanted, busy):
                    yield self._finish(busy)
            while busy:
                yield self._finish(busy)
        finally:
            self._device.make_current()
            for stream in busy:
                stream.abandon()
                self._idle.append(stream)

    def release(self) -> None:
        """Free the memory of all idle streams."""
        self._device.make_current()
        for stream in self._idle:
            stream.release()

    def _start(self, batch: Batch, wanted: Wanted, busy: deque[Stream]) -> bool:
        """Start a batch on an idle stream; False if a busy one must finish first."""
        if len(busy) >= self._limit:
            return False
        self._device.make_current()  # each time: the caller may have selected another GPU since
        try:
            busy.append(self._started(batch, wanted))
        except MemoryError:
            if not busy:
                raise
            self._limit = len(busy)
            return False
        return True

    def _started(self, batch: Batch, wanted: Wanted) -> Stream:
        """An idle or new stream on which the batch is started."""
        stream = self._idle.pop() if self._idle else self._new()
        try:
            self._start_on(stream, batch, wanted)
        except BaseException:
            stream.abandon()
            self._idle.append(stream)
            raise
        return stream

    def _start_on(self, stream: Stream, batch: Batch, wanted: Wanted) -> None:
        """Start a batch; where memory is short, free that of the idle streams and try again."""
        try:
            stream.start(batch, wanted)
        except MemoryError:
            if not self._idle:
                raise
            self.release()
            stream.start(batch, wanted)

    def _new(self) -> Stream:
        stream = Stream(self._device, self._engine)
        self._all.append(stream)
        return stream

    def _finish(self, busy: deque[Stream]) -> Outputs:
        self._device.make_current()
        stream = busy.popleft()
        self._idle.append(stream)
        if stream.problem and not self.problem:
            self.problem = stream.problem
            _logger.warning("%s No CUDA graph was captured: every tile is queued anew.", self.problem)
        return stream.finish()


def _close(device: Device, streams: list[Stream]) -> None:
    """Free everything when the engine is garbage-collected, in whatever thread that happens."""
    with suppress(MemoryError, InferenceError), device.temporarily_current():
        for stream in streams:
            stream.close()
