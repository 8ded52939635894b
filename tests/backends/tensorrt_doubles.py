"""A GPU and an engine in host memory. Work queued on a stream is done when the stream is synchronized."""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.backends import tensorrt
from srcli.backends.base import Batch
from srcli.backends.devices import Driver, Gpu
from srcli.backends.tensorrt import TensorRtEngine
from srcli.backends.tensorrt.runtime import Shape
from srcli.errors import InferenceError
from srcli.models.spec import ModelSpec, read_spec
from srcli.settings import Settings

Work = Callable[[], None]

NO_DRIVER = Driver(problem="there is no NVIDIA driver")
RTX = Gpu("NVIDIA GeForce RTX 4090", "8.9", 24 << 30)
TWO = Driver("13.0", (RTX, RTX))


class FakeDevice:
    """`runtime.Device` in host memory.

    Args:
        memory: bytes on the device.
        capturable: whether a stream can be captured.

    Attributes:
        log: operations on graphs, in order.
        most: streams that had work at the same time, at most.
    """

    def __init__(self, memory: int = 1 << 40, capturable: bool = True) -> None:
        self.memory, self.capturable = memory, capturable
        self.log: list[str] = []
        self.most = self.activations = 0
        self.queues: dict[int, list[Work]] = {}
        self.device: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.host: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.graphs: dict[int, list[Work]] = {}
        self._captured: list[Work] | None = None
        self._next = 1

    def make_current(self) -> None:
        self.activations += 1

    @contextmanager
    def temporarily_current(self) -> Iterator[None]:
        yield

    def create_stream(self) -> int:
        number = self._number()
        self.queues[number] = []
        return number

    def destroy_stream(self, stream: int) -> None:
        assert not self.queues.pop(stream), "a stream with work left was destroyed"

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

    def synchronize(self, stream: int) -> None:
        work, self.queues[stream] = self.queues[stream], []
        for step in work:
            step()

    def capture(self, stream: int, work: Work) -> int:
        if not self.capturable:
            raise InferenceError("operation not permitted when stream is capturing")
        self.log.append("capture")
        self._captured = []
        work()
        number = self._number()
        self.graphs[number], self._captured = self._captured, None
        return number

    def launch(self, graph: int, stream: int) -> None:
        self.log.append("launch")
        for step in self.graphs[graph]:
            self.queue(stream, step)

    def destroy_graph(self, graph: int) -> None:
        self.log.append("destroy")
        del self.graphs[graph]

    def queue(self, stream: int, step: Work) -> None:
        """Queue a step on a stream, or add it to the graph that is being captured."""
        if self._captured is not None:
            self._captured.append(step)
            return
        self.queues[stream].append(step)
        self.most = max(self.most, sum(map(bool, self.queues.values())))

    def _copy(self, to: int, source: int, size: int) -> None:
        assert (to in self.device) != (to in self.host), "a copy to or from freed memory"
        ctypes.memmove(to, source, size)

    def _take(self, where: dict[int, ctypes.Array[ctypes.c_char]], size: int) -> int:
        block = ctypes.create_string_buffer(size)
        where[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def _number(self) -> int:
        self._next += 1
        return self._next


class FakeEngine:
    """`runtime.CudaEngine` that repeats every pixel, scale times each way; one may overflow."""

    def __init__(self, device: FakeDevice, scale: int = 2, scratch: int = 8, overflows: bool = False) -> None:
        self.device, self.scale, self.scratch, self.overflows = device, scale, scratch, overflows
        self.contexts: list[FakeContext] = []
        self.saves = 0

    def create_context(self) -> "FakeContext":
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]

    def save_kernels(self) -> None:
        self.saves += 1


class FakeContext:
    """`runtime.ExecutionContext` of a `FakeEngine`; needs `scratch` bytes for each LR pixel."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.shape: Shape = ()
        self.addresses: tuple[int, ...] = ()

    def prepare(self, shape: Shape, stream: int) -> tuple[tuple[Shape, ...], int]:
        if shape[1] != 3:
            raise InferenceError("The tensorrt backend failed: wrong channels")
        n, c, h, w = self.shape = shape
        scale = self.engine.scale
        shapes = ((n, c, h * scale, w * scale), (n, h * scale, w * scale, c), ())
        return shapes, self.engine.scratch * h * w

    def bind(self, lr: int, outputs: tuple[int, ...], scratch: int, size: int) -> None:
        assert len(self.engine.device.device[scratch]) >= size
        self.addresses = (lr, *outputs)

    def enqueue(self, stream: int) -> None:
        addresses = self.addresses
        self.engine.device.queue(stream, lambda: self._compute(*addresses))

    def _compute(self, lr: int, sr: int, uint8: int, non_finite: int) -> None:
        assert {lr, sr, uint8, non_finite} <= self.engine.device.device.keys(), "memory was freed too early"
        count = int(np.prod(self.shape))
        batch = np.array((ctypes.c_float * count).from_address(lr), np.float32).reshape(self.shape)
        result = enlarged(batch, self.engine.scale)
        if self.engine.overflows:
            result[0, 0, 0, 0] = np.inf
        flag = np.array([not np.isfinite(result).all()], np.float32)
        for address, values in ((sr, result), (uint8, rounded(result)), (non_finite, flag)):
            ctypes.memmove(address, values.ctypes.data, values.nbytes)


def enlarged(batch: NDArray[np.float32], scale: int = 2) -> NDArray[np.float32]:
    """The result of a `FakeEngine` for a batch."""
    return np.ascontiguousarray(batch.repeat(scale, 2).repeat(scale, 3))


def rounded(sr: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A result as uint8 with channels last."""
    values = np.clip(np.rint(np.nan_to_num(sr, posinf=1) * np.float32(255)), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1))


def picture(height: int, width: int, seed: int = 0, count: int = 1) -> Batch:
    """Uniform noise."""
    return np.random.default_rng(seed).random((count, 3, height, width), np.float32)


def load(folder: Path, settings: Settings) -> TensorRtEngine:
    path = folder / "tiny-x2.onnx"
    return tensorrt.load(path, spec_of(path), settings)


def spec_of(path: Path) -> ModelSpec:
    spec = read_spec(path)
    assert spec is not None
    return spec
