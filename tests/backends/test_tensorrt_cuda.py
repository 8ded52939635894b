"""The calls to the NVIDIA driver: right functions, right arguments, errors told apart."""

import ctypes
from typing import Any

import pytest

from srcli.backends.tensorrt.cuda import Cuda
from srcli.errors import InferenceError


class FakeDriver:
    """The driver's library: notes each call and its plain arguments, hands out numbers, fails on demand."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        self.failing: dict[str, int] = {}
        self.next = 0x7F00_0000_0000  # as large as real addresses: a call that cuts to 32 bits shows

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


def test_it_takes_tensorrts_context_of_that_gpu(library: FakeDriver, cuda: Cuda) -> None:
    names = [name for name, _ in library.calls]
    assert names == ["cuInit", "cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent"]
    assert library.calls[1][1] == ["out", (ctypes.c_int, 1)]


def test_addresses_keep_all_their_bits(library: FakeDriver, cuda: Cuda) -> None:
    device, host, stream = cuda.allocate(10), cuda.pin(10), cuda.stream()
    assert min(device, host, stream) > 1 << 32
    library.calls.clear()
    cuda.upload(device, host, 10, stream)
    cuda.download(host, device, 10, stream)
    pointer, address, size = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_size_t
    assert library.calls == [
        ("cuMemcpyHtoDAsync_v2", [(address, device), (pointer, host), (size, 10), (pointer, stream)]),
        ("cuMemcpyDtoHAsync_v2", [(pointer, host), (address, device), (size, 10), (pointer, stream)]),
    ]


def test_a_graph_is_captured_instantiated_and_launched(library: FakeDriver, cuda: Cuda) -> None:
    stream = cuda.stream()
    library.calls.clear()
    graph = cuda.record(stream, lambda: cuda.upload(1, 2, 3, stream))
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


def test_a_capture_ends_whatever_happens_in_it(library: FakeDriver, cuda: Cuda) -> None:
    def broken() -> None:
        raise InferenceError("enqueue failed")

    with pytest.raises(InferenceError, match="enqueue"):
        cuda.record(cuda.stream(), broken)
    assert [name for name, _ in library.calls][-2:] == ["cuStreamEndCapture", "cuGraphDestroy"]


@pytest.mark.parametrize("name", ["cuMemAlloc_v2", "cuMemHostAlloc", "cuStreamSynchronize"])
def test_out_of_memory_is_a_memory_error(name: str, library: FakeDriver, cuda: Cuda) -> None:
    library.failing[name] = 2
    with pytest.raises(MemoryError):
        {"cuMemAlloc_v2": cuda.allocate, "cuMemHostAlloc": cuda.pin, "cuStreamSynchronize": cuda.wait}[name](
            1
        )


def test_other_errors_are_told_in_the_drivers_words(library: FakeDriver, cuda: Cuda) -> None:
    library.failing["cuStreamSynchronize"] = 700
    with pytest.raises(InferenceError, match=r"illegal memory access \(error 700\)"):
        cuda.wait(1)


def test_a_thread_gets_back_the_gpu_it_had(library: FakeDriver, cuda: Cuda) -> None:
    library.calls.clear()
    with pytest.raises(MemoryError), cuda.borrowed():
        raise MemoryError
    assert [name for name, _ in library.calls] == ["cuCtxPushCurrent_v2", "cuCtxPopCurrent_v2"]
