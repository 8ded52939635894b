"""A built engine in TensorRT's runtime.

Untested on hardware: deserialising without a driver ends the process, so nothing here runs without a GPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from srcli.backends.tensorrt.build import Log, failure
from srcli.backends.tensorrt.flavour import Flavour
from srcli.backends.tensorrt.lane import OUTPUTS, Shape
from srcli.backends.tensorrt.outputs import LEVELS, ODD
from srcli.errors import InferenceError

Keep = Callable[[bytes], None]


class TensorRtProgram:
    """`lanes.Program` over a deserialised engine.

    Args:
        flavour: the TensorRT it was built with.
        plan: the engine.
        kernels: TensorRT for RTX compiles an engine's kernels when they first run: those of an earlier
            process, or b"".
        keep: told of the compiled kernels whenever there are new ones.

    Raises:
        InferenceError: TensorRT refuses the engine.
        MemoryError: the GPU has too little memory for its weights.
    """

    def __init__(self, flavour: Flavour, plan: bytes, kernels: bytes, keep: Keep) -> None:
        self._api, self._log, self._keep = flavour.api, Log.of(flavour.api), keep
        self._log.forget()
        self._runtime = self._api.Runtime(self._log.logger)  # must live as long as the engine
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise failure(self._log.problem())
        self._names = _names(self._api, self._engine)
        self._kernels: Any = None
        self._kept = kernels
        self._config = self._rtx_config(kernels) if flavour.portable else None

    def context(self) -> "TensorRtContext":
        """A new execution context that takes its scratch memory from outside."""
        how = self._config or self._api.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(how)
        if context is None:
            raise failure(self._log.problem())
        return TensorRtContext(context, self._names, self._log)

    def settled(self) -> None:
        """Keep the kernels compiled so far, if there are new ones."""
        if self._kernels is None:
            return
        compiled = bytes(self._kernels.serialize())
        if compiled != self._kept:
            self._kept = compiled
            self._keep(compiled)

    def _rtx_config(self, kernels: bytes) -> Any:
        """Kernels are compiled for each shape before it first runs: the same ones, and so the same result,
        for every tile of a picture, and none left to exchange once a graph is recorded."""
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
    """`lanes.Context` over an execution context."""

    def __init__(self, context: Any, names: tuple[str, ...], log: Log) -> None:
        self._context, self._log = context, log
        self._lr, *self._outputs = names

    def prepare(self, shape: Shape, stream: int) -> tuple[tuple[Shape, ...], int]:
        """Set the input's shape; the outputs', and the bytes of scratch memory."""
        self._do(self._context.set_optimization_profile_async, 0, stream)
        self._do(self._context.set_input_shape, self._lr, shape)
        size = int(self._context.update_device_memory_size_for_shapes())
        return tuple(tuple(self._context.get_tensor_shape(name)) for name in self._outputs), size

    def bind(self, lr: int, outputs: tuple[int, ...], scratch: int, size: int) -> None:
        """Device addresses."""
        for name, address in zip((self._lr, *self._outputs), (lr, *outputs), strict=True):
            self._do(self._context.set_tensor_address, name, address)
        self._context.set_device_memory(scratch, size)

    def enqueue(self, stream: int) -> None:
        """Queue the network."""
        self._do(self._context.execute_async_v3, stream)

    def _do(self, call: Callable[..., bool], *arguments: Any) -> None:
        """Some of TensorRT's calls say False when they fail, others raise."""
        try:
            done = call(*arguments)
        except (RuntimeError, ValueError) as error:
            raise failure(f"{error} ({self._log.problem()})") from error
        if not done:
            raise failure(self._log.problem())


def _names(api: Any, engine: Any) -> tuple[str, ...]:
    """Names of the input and of `OUTPUTS`, in their order."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == api.TensorIOMode.INPUT]
    sr = [name for name in names if name not in (*inputs, LEVELS, ODD)]
    found = (*inputs, *sr, LEVELS, ODD)
    if len(found) != 1 + len(OUTPUTS) or not {LEVELS, ODD} <= set(names):
        raise InferenceError(f"The tensorrt backend cannot run an engine of {', '.join(names)}.")
    types = [np.dtype(api.nptype(engine.get_tensor_dtype(name))) for name in found]
    if types != [np.dtype(np.float32), *OUTPUTS]:
        raise InferenceError("The tensorrt backend runs networks of float32 input and output.")
    return found
