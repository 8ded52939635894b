"""The few functions of the NVIDIA driver that an engine takes to run, through ctypes: no CUDA package.

Untested on hardware: the calls were checked against a stand-in of the driver only.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any, Protocol

from srcli.backends import devices
from srcli.errors import InferenceError

_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


class Device(Protocol):
    """A GPU as far as running needs it. Addresses, streams and graphs are numbers; 0 is none.

    Every method raises MemoryError if memory runs out, InferenceError if the GPU fails in another way.
    """

    def activate(self) -> None:
        """Make it the calling thread's; to be done before anything else in each thread."""

    def borrowed(self) -> AbstractContextManager[None]:
        """The calling thread's for a while; afterwards it has again the one it had."""

    def stream(self) -> int:
        """A new stream."""

    def end(self, stream: int) -> None:
        """Destroy a stream."""

    def allocate(self, size: int) -> int:
        """Bytes on the GPU, aligned for anything."""

    def free(self, address: int) -> None:
        """Give them back."""

    def pin(self, size: int) -> int:
        """Bytes of host memory that the GPU copies from and to directly."""

    def unpin(self, address: int) -> None:
        """Give them back."""

    def upload(self, device: int, host: int, size: int, stream: int) -> None:
        """Queue a copy to the GPU."""

    def download(self, host: int, device: int, size: int, stream: int) -> None:
        """Queue a copy to the host."""

    def wait(self, stream: int) -> None:
        """Until everything queued on a stream is done."""

    def record(self, stream: int, work: Callable[[], None]) -> int:
        """A graph of what `work` queues on the stream; nothing of it runs yet."""

    def launch(self, graph: int, stream: int) -> None:
        """Queue everything a graph recorded."""

    def forget(self, graph: int) -> None:
        """Destroy a graph."""


class Cuda:
    """`Device` over the driver; shares the context that TensorRT uses on this GPU.

    Args:
        number: of the GPU in the driver's order.
        library: the driver's, loaded already; None: load it.
    """

    def __init__(self, number: int, library: Any = None) -> None:
        self._library = ctypes.CDLL(devices.LIBRARY) if library is None else library
        self._call("cuInit", c_uint(0))
        device, context = c_int(), c_void_p()
        self._call("cuDeviceGet", byref(device), c_int(number))
        self._call("cuDevicePrimaryCtxRetain", byref(context), device)
        self._context = context
        self.activate()

    def activate(self) -> None:
        """Make it the calling thread's."""
        self._call("cuCtxSetCurrent", self._context)

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """The calling thread's for a while."""
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def stream(self) -> int:
        """A stream that does not wait for the default one."""
        stream = c_void_p()
        self._call("cuStreamCreate", byref(stream), c_uint(_NON_BLOCKING))
        return stream.value or 0

    def end(self, stream: int) -> None:
        """Destroy a stream."""
        self._call("cuStreamDestroy_v2", c_void_p(stream))

    def allocate(self, size: int) -> int:
        """Bytes on the GPU."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), c_size_t(max(1, size)))
        return address.value

    def free(self, address: int) -> None:
        """Give them back."""
        self._call("cuMemFree_v2", c_uint64(address))

    def pin(self, size: int) -> int:
        """Page-locked bytes on the host."""
        address = c_void_p()
        self._call("cuMemHostAlloc", byref(address), c_size_t(max(1, size)), c_uint(0))
        return address.value or 0

    def unpin(self, address: int) -> None:
        """Give them back."""
        self._call("cuMemFreeHost", c_void_p(address))

    def upload(self, device: int, host: int, size: int, stream: int) -> None:
        """Queue a copy to the GPU."""
        self._call("cuMemcpyHtoDAsync_v2", c_uint64(device), c_void_p(host), c_size_t(size), c_void_p(stream))

    def download(self, host: int, device: int, size: int, stream: int) -> None:
        """Queue a copy to the host."""
        self._call("cuMemcpyDtoHAsync_v2", c_void_p(host), c_uint64(device), c_size_t(size), c_void_p(stream))

    def wait(self, stream: int) -> None:
        """Until everything queued on a stream is done."""
        self._call("cuStreamSynchronize", c_void_p(stream))

    def record(self, stream: int, work: Callable[[], None]) -> int:
        """Capture what `work` queues; the capture ends whatever `work` does."""
        graph, executable = c_void_p(), c_void_p()
        self._call("cuStreamBeginCapture_v2", c_void_p(stream), c_int(_THREAD_LOCAL))
        try:
            work()
        except BaseException:
            self._library.cuStreamEndCapture(c_void_p(stream), byref(graph))
            self._drop(graph)
            raise
        self._call("cuStreamEndCapture", c_void_p(stream), byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", byref(executable), graph, c_uint64(0))
        finally:
            self._drop(graph)
        return executable.value or 0

    def launch(self, graph: int, stream: int) -> None:
        """Queue everything a graph recorded."""
        self._call("cuGraphLaunch", c_void_p(graph), c_void_p(stream))

    def forget(self, graph: int) -> None:
        """Destroy a graph."""
        self._call("cuGraphExecDestroy", c_void_p(graph))

    def _drop(self, graph: c_void_p) -> None:
        if graph.value:
            self._library.cuGraphDestroy(graph)

    def _call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver; every argument is a ctypes object of the type it declares."""
        code = int(getattr(self._library, name)(*arguments))
        if code == _OUT_OF_MEMORY:
            raise MemoryError(f"{name}: the GPU is out of memory")
        if code:
            raise InferenceError(f"The GPU failed in {name}: {self._words(code)}.")

    def _words(self, code: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(c_int(code), byref(text))
        return f"{(text.value or b'unknown').decode(errors='replace')} (error {code})"
