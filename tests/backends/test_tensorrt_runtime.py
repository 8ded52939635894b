"""Calls of the NVIDIA driver: functions, arguments, errors."""

import ctypes
from typing import Any

import pytest

from srcli.backends.tensorrt.runtime import Cuda
from srcli.errors import InferenceError


class FakeDriver:
    """A stand-in of the driver's library: logs each call, returns increasing addresses, fails on demand."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        self.failing: dict[str, int] = {}
        self.next = 0x7F00_0000_0000  # more than 32 bits, like real addresses

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._call(name, arguments)

    def _call(self, name: str, arguments: tuple[Any, ...]) -> int:
        if name in self.failing:
            return self.failing[name]
        if name == "cuGetErrorString":
            arguments[1]._obj.value = b"an illegal memory access"
            return 0
        plain = []
        for argument in arguments:
            if hasattr(argument, "_obj"):
                self.next += 256
                argument._obj.value = 1 if isinstance(argument._obj, ctypes.c_int) else self.next
                plain.append("out")
            else:
                plain.append((type(argument), argument.value))
        self.calls.append((name, plain))
        return 0


@pytest.fixture
def library() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def cuda(library: FakeDriver) -> Cuda:
    return Cuda(1, library)


def test_uses_the_primary_context_of_the_gpu(library: FakeDriver, cuda: Cuda) -> None:
    names = [name for name, _ in library.calls]
    assert names == ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent"]
    assert library.calls[1][1] == ["out", (ctypes.c_int, 1)]


def test_addresses_keep_64_bits(library: FakeDriver, cuda: Cuda) -> None:
    device, host, stream = cuda.allocate(10), cuda.pin(10), cuda.create_stream()
    assert min(device, host, stream) > 1 << 32
    library.calls.clear()
    cuda.upload(device, host, 10, stream)
    cuda.download(host, device, 10, stream)
    pointer, address, size = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t
    assert library.calls == [
        ("cuMemcpyHtoDAsync_v2", [(address, device), (pointer, host), (size, 10), (pointer, stream)]),
        ("cuMemcpyDtoHAsync_v2", [(pointer, host), (address, device), (size, 10), (pointer, stream)]),
    ]


def test_graph_is_captured_instantiated_and_launched(library: FakeDriver, cuda: Cuda) -> None:
    stream = cuda.create_stream()
    library.calls.clear()
    graph = cuda.capture(stream, lambda: cuda.upload(1, 2, 3, stream))
    cuda.launch(graph, stream)
    assert [name for name, _ in library.calls] == [
        "cuStreamBeginCapture_v2",
        "cuMemcpyHtoDAsync_v2",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",
        "cuGraphLaunch",
    ]
    assert library.calls[-1][1] == [(ctypes.c_void_p, graph), (ctypes.c_void_p, stream)]


def test_capture_ends_after_an_exception(library: FakeDriver, cuda: Cuda) -> None:
    def broken() -> None:
        raise InferenceError("enqueue failed")

    with pytest.raises(InferenceError, match="enqueue"):
        cuda.capture(cuda.create_stream(), broken)
    assert [name for name, _ in library.calls][-2:] == ["cuStreamEndCapture", "cuGraphDestroy"]


@pytest.mark.parametrize("name", ["cuMemAlloc_v2", "cuMemHostAlloc", "cuStreamSynchronize"])
def test_out_of_memory_is_a_memory_error(name: str, library: FakeDriver, cuda: Cuda) -> None:
    library.failing[name] = 2
    calls = {
        "cuMemAlloc_v2": cuda.allocate,
        "cuMemHostAlloc": cuda.pin,
        "cuStreamSynchronize": cuda.synchronize,
    }
    with pytest.raises(MemoryError):
        calls[name](1)


def test_other_error_has_the_drivers_text(library: FakeDriver, cuda: Cuda) -> None:
    library.failing["cuStreamSynchronize"] = 700
    with pytest.raises(InferenceError, match=r"illegal memory access \(error 700\)"):
        cuda.synchronize(1)


def test_previous_gpu_is_current_again_after_block(library: FakeDriver, cuda: Cuda) -> None:
    library.calls.clear()
    with pytest.raises(MemoryError), cuda.temporarily_current():
        raise MemoryError
    assert [name for name, _ in library.calls] == ["cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2"]
