"""A GPU and an engine made of host memory: work is queued on streams and done no earlier than it must be."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.backends.base import BackendOptions, Batch
from srcli.backends.devices import Driver, Gpu
from srcli.backends.tensorrt import engine
from srcli.backends.tensorrt.engine import TensorRtEngine
from srcli.backends.tensorrt.lane import Shape
from srcli.errors import InferenceError
from srcli.models.spec import ModelSpec, read_spec

Work = Callable[[], None]

NO_DRIVER = Driver(problem="there is no NVIDIA driver")
RTX = Gpu("NVIDIA GeForce RTX 4090", "8.9", 24 << 30)
TWO = Driver("13.0", (RTX, RTX))


class FakeDevice:
    """`cuda.Device` in host memory.

    Args:
        memory: bytes there are on the device.
        recordable: whether a stream can be captured.

    Attributes:
        log: names of what was done, in order.
        most: streams that had work at the same time.
    """

    def __init__(self, memory: int = 1 << 40, recordable: bool = True) -> None:
        self.memory, self.recordable = memory, recordable
        self.log: list[str] = []
        self.most = self.activations = 0
        self.queues: dict[int, list[Work]] = {}
        self.device: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.host: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self._recording: list[Work] | None = None
        self._next = 1

    def activate(self) -> None:
        self.activations += 1

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        yield

    def stream(self) -> int:
        number = self._number()
        self.queues[number] = []
        return number

    def end(self, stream: int) -> None:
        assert not self.queues.pop(stream), "a stream was ended that had work left"

    def allocate(self, size: int) -> int:
        if sum(map(len, self.device.values())) + size > self.memory:
            raise MemoryError("the GPU is out of memory")
        return self._take(self.device, size)

    def free(self, address: int) -> None:
        del self.device[address]

    def pin(self, size: int) -> int:
        return self._take(self.host, size)

    def unpin(self, address: int) -> None:
        del self.host[address]

    def upload(self, device: int, host: int, size: int, stream: int) -> None:
        assert len(self.device[device]) >= size
        assert len(self.host[host]) >= size
        self.queue(stream, lambda: self._copy(device, host, size))

    def download(self, host: int, device: int, size: int, stream: int) -> None:
        assert len(self.device[device]) >= size
        assert len(self.host[host]) >= size
        self.queue(stream, lambda: self._copy(host, device, size))

    def wait(self, stream: int) -> None:
        work, self.queues[stream] = self.queues[stream], []
        for step in work:
            step()

    def record(self, stream: int, work: Work) -> int:
        if not self.recordable:
            raise InferenceError("operation not permitted when stream is capturing")
        self.log.append("record")
        self._recording = []
        work()
        number = self._number()
        self.graphs[number], self._recording = self._recording, None
        return number

    def launch(self, graph: int, stream: int) -> None:
        self.log.append("launch")
        for step in self.graphs[graph]:
            self.queue(stream, step)

    def forget(self, graph: int) -> None:
        self.log.append("forget")
        del self.graphs[graph]

    def queue(self, stream: int, step: Work) -> None:
        """Put a step on a stream, or into the graph that is being recorded."""
        if self._recording is not None:
            self._recording.append(step)
            return
        self.queues[stream].append(step)
        self.most = max(self.most, sum(map(bool, self.queues.values())))

    def _copy(self, to: int, source: int, size: int) -> None:
        assert (to in self.device) != (to in self.host), "a copy went where no memory is any more"
        ctypes.memmove(to, source, size)

    def _take(self, where: dict[int, ctypes.Array[ctypes.c_char]], size: int) -> int:
        block = ctypes.create_string_buffer(size)
        where[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def _number(self) -> int:
        self._next += 1
        return self._next


class FakeProgram:
    """`lane.Program` that repeats every pixel, scale times each way; one may overflow."""

    def __init__(self, device: FakeDevice, scale: int = 2, scratch: int = 8, overflows: bool = False) -> None:
        self.device, self.scale, self.scratch, self.overflows = device, scale, scratch, overflows
        self.contexts: list[FakeContext] = []
        self.settlings = 0

    def context(self) -> "FakeContext":
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]

    def settled(self) -> None:
        self.settlings += 1


class FakeContext:
    """`lane.Context` of a `FakeProgram`; scratch memory is `scratch` bytes for each LR pixel."""

    def __init__(self, program: FakeProgram) -> None:
        self.program = program
        self.shape: Shape = ()
        self.addresses: tuple[int, ...] = ()

    def prepare(self, shape: Shape, stream: int) -> tuple[tuple[Shape, ...], int]:
        if shape[1] != 3:
            raise InferenceError("The tensorrt backend failed: wrong channels")
        n, c, h, w = self.shape = shape
        scale = self.program.scale
        shapes = ((n, c, h * scale, w * scale), (n, h * scale, w * scale, c), ())
        return shapes, self.program.scratch * h * w

    def bind(self, lr: int, outputs: tuple[int, ...], scratch: int, size: int) -> None:
        assert len(self.program.device.device[scratch]) >= size
        self.addresses = (lr, *outputs)

    def enqueue(self, stream: int) -> None:
        addresses = self.addresses
        self.program.device.queue(stream, lambda: self._compute(*addresses))

    def _compute(self, lr: int, sr: int, levels: int, odd: int) -> None:
        assert {lr, sr, levels, odd} <= self.program.device.device.keys(), "memory was freed too early"
        count = int(np.prod(self.shape))
        batch = np.array((ctypes.c_float * count).from_address(lr), np.float32).reshape(self.shape)
        result = enlarged(batch, self.program.scale)
        if self.program.overflows:
            result[0, 0, 0, 0] = np.inf
        wrong = np.array([not np.isfinite(result).all()], np.float32)
        for address, values in ((sr, result), (levels, finished(result)), (odd, wrong)):
            ctypes.memmove(address, values.ctypes.data, values.nbytes)


def enlarged(batch: NDArray[np.float32], scale: int = 2) -> NDArray[np.float32]:
    """What a `FakeProgram` makes of a batch."""
    return np.ascontiguousarray(batch.repeat(scale, 2).repeat(scale, 3))


def finished(sr: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A result as 8-bit pixels in the order of a picture."""
    levels = np.clip(np.rint(np.nan_to_num(sr, posinf=1) * np.float32(255)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(levels.transpose(0, 2, 3, 1))


def picture(height: int, width: int, seed: int = 0, count: int = 1) -> Batch:
    """Noise."""
    return np.random.default_rng(seed).random((count, 3, height, width), np.float32)


def load(folder: Path, options: BackendOptions) -> TensorRtEngine:
    path = folder / "tiny-x2.onnx"
    return engine.load(path, spec_of(path), options)


def spec_of(path: Path) -> ModelSpec:
    spec = read_spec(path)
    assert spec is not None
    return spec
