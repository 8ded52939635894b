"""What runs a built engine: the CUDA driver, through ctypes, and TensorRT's runtime.

The driver needs no CUDA package. Without a GPU its calls are tested with a stand-in only; TensorRT's runtime
ends a process that has no driver.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any, Protocol

import numpy as np

from srcli.backends import devices
from srcli.backends.tensorrt.build import NON_FINITE_OUTPUT, UINT8_OUTPUT
from srcli.backends.tensorrt.flavour import NAME, ErrorLog, Flavour, failure
from srcli.errors import InferenceError

Shape = tuple[int, ...]

OUTPUT_DTYPES: tuple[np.dtype[Any], ...] = (np.dtype(np.float32), np.dtype(np.uint8), np.dtype(np.float32))
"""Of an engine: the network's own output, `UINT8_OUTPUT` and `NON_FINITE_OUTPUT`."""

_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: does not wait for the default stream
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads may allocate meanwhile


class Device(Protocol):
    """The functions of a GPU that running an engine needs. Addresses, streams and graphs are integers; 0 is
    none.

    Every method raises MemoryError if memory runs out, InferenceError for another failure of the GPU.
    """

    def make_current(self) -> None:
        """Select it for the calling thread; needed before any other call in each thread."""

    def temporarily_current(self) -> AbstractContextManager[None]:
        """Select it for the calling thread within a `with` block."""

    def create_stream(self) -> int:
        """A new stream."""

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""

    def allocate(self, size: int) -> int:
        """Bytes on the GPU, aligned for any type."""

    def free(self, address: int) -> None:
        """Free what `allocate` returned."""

    def pin(self, size: int) -> int:
        """Page-locked bytes on the host, which the GPU copies from and to directly."""

    def unpin(self, address: int) -> None:
        """Free what `pin` returned."""

    def upload(self, device: int, host: int, size: int, stream: int) -> None:
        """Queue a copy to the GPU."""

    def download(self, host: int, device: int, size: int, stream: int) -> None:
        """Queue a copy to the host."""

    def synchronize(self, stream: int) -> None:
        """Wait until everything queued on a stream is done."""

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """A CUDA graph of what `work` queues on the stream, none of which runs yet."""

    def launch(self, graph: int, stream: int) -> None:
        """Queue everything in a graph."""

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph."""


class ExecutionContext(Protocol):
    """An engine's state for one input shape on one stream."""

    def prepare(self, shape: Shape, stream: int) -> tuple[tuple[Shape, ...], int]:
        """Set the input's shape; returns the outputs' shapes and the bytes of scratch memory needed."""

    def bind(self, lr: int, outputs: tuple[int, ...], scratch: int, size: int) -> None:
        """Set the device addresses of input, outputs and scratch memory, and the latter's size in bytes."""

    def enqueue(self, stream: int) -> None:
        """Queue the network."""


class CudaEngine(Protocol):
    """An engine loaded onto the GPU: float32 input, outputs of `OUTPUT_DTYPES`."""

    def create_context(self) -> ExecutionContext:
        """A new execution context."""

    def save_kernels(self) -> None:
        """Called when a new shape has run once: keep the kernels that were compiled for it."""


class Cuda:
    """`Device` on the driver; shares the context that TensorRT uses on this GPU.

    Args:
        number: of the GPU in the driver's order.
        library: the driver's, if loaded already; None: load it.
    """

    def __init__(self, number: int, library: Any = None) -> None:
        self._library = ctypes.CDLL(devices.LIBRARY) if library is None else library
        self._call("cuInit", c_uint(0))
        device, context = c_int(), c_void_p()
        self._call("cuDeviceGet", byref(device), c_int(number))
        self._call("cuDevicePrimaryCtxRetain", byref(context), device)
        self._context = context
        self.make_current()

    def make_current(self) -> None:
        """Select it for the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    @contextmanager
    def temporarily_current(self) -> Iterator[None]:
        """Select it for the calling thread within a `with` block."""
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", byref(c_void_p()))

    def create_stream(self) -> int:
        """A new stream that does not wait for the default one."""
        stream = c_void_p()
        self._call("cuStreamCreate", byref(stream), c_uint(_NON_BLOCKING))
        return stream.value or 0

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""
        self._call("cuStreamDestroy_v2", c_void_p(stream))

    def allocate(self, size: int) -> int:
        """Bytes on the GPU."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", byref(address), c_size_t(max(1, size)))
        return address.value

    def free(self, address: int) -> None:
        """Free what `allocate` returned."""
        self._call("cuMemFree_v2", c_uint64(address))

    def pin(self, size: int) -> int:
        """Page-locked bytes on the host."""
        address = c_void_p()
        self._call("cuMemHostAlloc", byref(address), c_size_t(max(1, size)), c_uint(0))
        return address.value or 0

    def unpin(self, address: int) -> None:
        """Free what `pin` returned."""
        self._call("cuMemFreeHost", c_void_p(address))

    def upload(self, device: int, host: int, size: int, stream: int) -> None:
        """Queue a copy to the GPU."""
        self._call("cuMemcpyHtoDAsync_v2", c_uint64(device), c_void_p(host), c_size_t(size), c_void_p(stream))

    def download(self, host: int, device: int, size: int, stream: int) -> None:
        """Queue a copy to the host."""
        self._call("cuMemcpyDtoHAsync_v2", c_void_p(host), c_uint64(device), c_size_t(size), c_void_p(stream))

    def synchronize(self, stream: int) -> None:
        """Wait until everything queued on a stream is done."""
        self._call("cuStreamSynchronize", c_void_p(stream))

    def capture(self, stream: int, work: Callable[[], None]) -> int:
        """A CUDA graph of what `work` queues; the capture also ends if `work` raises."""
        graph, executable = c_void_p(), c_void_p()
        self._call("cuStreamBeginCapture_v2", c_void_p(stream), c_int(_THREAD_LOCAL))
        try:
            work()
        except BaseException:
            self._library.cuStreamEndCapture(c_void_p(stream), byref(graph))
            self._destroy(graph)
            raise
        self._call("cuStreamEndCapture", c_void_p(stream), byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", byref(executable), graph, c_uint64(0))
        finally:
            self._destroy(graph)
        return executable.value or 0

    def launch(self, graph: int, stream: int) -> None:
        """Queue everything in a graph."""
        self._call("cuGraphLaunch", c_void_p(graph), c_void_p(stream))

    def destroy_graph(self, graph: int) -> None:
        """Destroy a graph."""
        self._call("cuGraphExecDestroy", c_void_p(graph))

    def _destroy(self, graph: c_void_p) -> None:
        if graph.value:
            self._library.cuGraphDestroy(graph)

    def _call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver; every argument is a ctypes object of the declared type."""
        code = int(getattr(self._library, name)(*arguments))
        if code == _OUT_OF_MEMORY:
            raise MemoryError(f"{name}: the GPU is out of memory")
        if code:
            raise InferenceError(f"The GPU failed in {name}: {self._message(code)}.")

    def _message(self, code: int) -> str:
        text = ctypes.c_char_p()
        self._library.cuGetErrorString(c_int(code), byref(text))
        return f"{(text.value or b'unknown').decode(errors='replace')} (error {code})"


class TensorRtCudaEngine:
    """`CudaEngine` on TensorRT.

    Args:
        flavour: the TensorRT that built the engine.
        engine: serialized.
        kernels: compiled by an earlier process, or b"": TensorRT for RTX compiles an engine's kernels when
            they first run.
        keep: called with the compiled kernels whenever there are new ones.

    Raises:
        InferenceError: TensorRT rejects the engine.
        MemoryError: the GPU has too little memory for its weights.
    """

    def __init__(
        self, flavour: Flavour, engine: bytes, kernels: bytes, keep: Callable[[bytes], None]
    ) -> None:
        self._api, self._log, self._keep = flavour.api, ErrorLog.of(flavour.api), keep
        self._log.clear()
        self._runtime = self._api.Runtime(self._log.logger)  # must live as long as the engine
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise failure(self._log.take())
        self._names = _tensor_names(self._api, self._engine)
        self._kernels: Any = None
        self._kept = kernels
        self._config = self._rtx_config(kernels) if flavour.portable else None

    def create_context(self) -> "TensorRtContext":
        """A new execution context that takes its scratch memory from outside."""
        how = self._config or self._api.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(how)
        if context is None:
            raise failure(self._log.take())
        return TensorRtContext(context, self._names, self._log)

    def save_kernels(self) -> None:
        """Keep the kernels compiled so far, if there are new ones."""
        if self._kernels is None:
            return
        compiled = bytes(self._kernels.serialize())
        if compiled != self._kept:
            self._kept = compiled
            self._keep(compiled)

    def _rtx_config(self, kernels: bytes) -> Any:
        """Compile all kernels of a shape before it first runs: every tile of a picture then runs the same
        ones and gets the same result, and none is replaced after a CUDA graph was captured."""
        api, config = self._api, self._engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(api.ExecutionContextAllocationStrategy.USER_MANAGED)
        strategy = api.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = strategy
        config.cuda_graph_strategy = api.CudaGraphStrategy.DISABLED
        self._kernels = config.create_runtime_cache()
        if kernels:
            self._kernels.deserialize(kernels)
        config.set_runtime_cache(self._kernels)
        return config


class TensorRtContext:
    """`ExecutionContext` on TensorRT's IExecutionContext."""

    def __init__(self, context: Any, names: tuple[str, ...], log: ErrorLog) -> None:
        self._context, self._log = context, log
        self._lr, *self._outputs = names

    def prepare(self, shape: Shape, stream: int) -> tuple[tuple[Shape, ...], int]:
        """Set the input's shape; returns the outputs' shapes and the bytes of scratch memory needed."""
        self._check(self._context.set_optimization_profile_async, 0, stream)
        self._check(self._context.set_input_shape, self._lr, shape)
        size = int(self._context.update_device_memory_size_for_shapes())
        return tuple(tuple(self._context.get_tensor_shape(name)) for name in self._outputs), size

    def bind(self, lr: int, outputs: tuple[int, ...], scratch: int, size: int) -> None:
        """Set the device addresses."""
        for name, address in zip((self._lr, *self._outputs), (lr, *outputs), strict=True):
            self._check(self._context.set_tensor_address, name, address)
        self._context.set_device_memory(scratch, size)

    def enqueue(self, stream: int) -> None:
        """Queue the network."""
        self._check(self._context.execute_async_v3, stream)

    def _check(self, call: Callable[..., bool], *arguments: Any) -> None:
        """Call TensorRT; some of its functions return False when they fail, others raise."""
        try:
            done = call(*arguments)
        except (RuntimeError, ValueError) as error:
            raise failure(f"{error} ({self._log.take()})") from error
        if not done:
            raise failure(self._log.take())


def _tensor_names(api: Any, engine: Any) -> tuple[str, ...]:
    """Names of the input and of the outputs in the order of `OUTPUT_DTYPES`.

    Raises:
        InferenceError: the engine has other tensors or types.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == api.TensorIOMode.INPUT]
    added = (UINT8_OUTPUT, NON_FINITE_OUTPUT)
    found = (*inputs, *(name for name in names if name not in (*inputs, *added)), *added)
    if len(found) != 1 + len(OUTPUT_DTYPES) or not set(added) <= set(names):
        raise InferenceError(f"The {NAME} backend cannot run an engine of {', '.join(names)}.")
    types = [np.dtype(api.nptype(engine.get_tensor_dtype(name))) for name in found]
    if types != [np.dtype(np.float32), *OUTPUT_DTYPES]:
        raise InferenceError(f"The {NAME} backend runs networks of float32 input and output.")
    return found
