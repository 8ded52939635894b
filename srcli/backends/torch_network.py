"""ONNX graphs in PyTorch, operator by operator; on a GPU as one CUDA graph for each input shape.

Imports torch: import it only in functions that need torch.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from srcli.backends.base import Batch, load_failed, one_line
from srcli.backends.rewrite import to_fp32
from srcli.errors import ModelFileError

_logger = logging.getLogger(__name__)
Tensor = torch.Tensor
Operator = Callable[[Sequence[Any], "Attributes"], Tensor]

_PIXEL_CHANNELS = 4
"""Convolutions of at most this many input channels read pixels, not features. They stay in fp32, since bf16
would round pixels of 0-255 to integers."""


class Attributes(dict[str, Any]):
    """ONNX attributes of one node, by name."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node: what to compute from which values, and which values are not needed afterwards."""

    operator: Operator
    inputs: tuple[str, ...]
    output: str
    attributes: Attributes
    last_uses: tuple[str, ...] = ()


class Network:
    """An ONNX graph on a device: convolutions in `dtype`, all else in the type its inputs promote to.

    `rewrite_to_fp32` first rewrites an fp16 graph to fp32.
    """

    def __init__(
        self, path: Path, dtype: torch.dtype, device: torch.device, *, rewrite_to_fp32: bool = False
    ) -> None:
        try:
            model = onnx.load(path)
            graph = (to_fp32(model) if rewrite_to_fp32 else model).graph
        except Exception as error:  # protobuf, onnx and the file system each raise their own
            raise load_failed("torch", path, error) from error
        if len(graph.output) != 1:
            raise ModelFileError(f"{path}: has {len(graph.output)} outputs instead of one.")
        self._values = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in graph.initializer}
        self._input = next(value.name for value in graph.input if value.name not in self._values)
        self._output = graph.output[0].name
        self._steps = _with_lifetimes(self._fold([_step(path, node) for node in graph.node]), self._output)
        self._values = _placed(self._values, self._steps, dtype, device)

    def __call__(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) float32 on the device -> (N, 3, sH, sW) float32."""
        values: dict[str, Any] = {self._input: x.contiguous(memory_format=torch.channels_last)}
        for step in self._steps:
            inputs = [values.get(name, self._values.get(name)) for name in step.inputs]
            values[step.output] = step.operator(inputs, step.attributes)
            for name in step.last_uses:
                values.pop(name, None)
        result: Tensor = values[self._output]
        return result.to(torch.float32, memory_format=torch.contiguous_format)

    def _fold(self, steps: list[Step]) -> list[Step]:
        """Compute once what depends on constants only, such as Casts of fp16 weights."""
        rest = []
        for step in steps:
            if all(name in self._values for name in step.inputs if name):
                inputs = [self._values.get(name) for name in step.inputs]
                self._values[step.output] = step.operator(inputs, step.attributes)
            else:
                rest.append(step)
        return rest


def _step(path: Path, node: onnx.NodeProto) -> Step:
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
        hint = "Use --backend openvino or onnxruntime for this model."
        raise ModelFileError(f"{path}: the torch backend lacks the operator {node.op_type}.", hint)
    attributes = Attributes({a.name: onnx.helper.get_attribute_value(a) for a in node.attribute})
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ModelFileError(f"{path}: the torch backend lacks automatic padding.")
    return Step(OPERATORS[node.op_type], tuple(node.input), node.output[0], attributes)


def _with_lifetimes(steps: list[Step], output: str) -> list[Step]:
    """The steps with the values that each uses last, so that memory is freed as early as possible."""
    last = {name: index for index, step in enumerate(steps) for name in step.inputs}
    result = []
    for index, step in enumerate(steps):
        gone = tuple({name for name in step.inputs if last[name] == index and name != output})
        result.append(Step(step.operator, step.inputs, step.output, step.attributes, gone))
    return result


def _placed(
    values: dict[str, Tensor], steps: list[Step], dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Constants on the device: weights in `dtype` and channels_last, single numbers as floats.

    A single number must not be a tensor, which would promote a bf16 body to fp32.
    """
    placed: dict[str, Any] = {}
    for name, value in values.items():
        placed[name] = value.item() if value.numel() == 1 else value.to(device)
    for step in (step for step in steps if step.operator is _conv):
        weight, *bias = (values[name].to(device) for name in step.inputs[1:])
        kind = torch.float32 if weight.shape[1] <= _PIXEL_CHANNELS else dtype
        placed[step.inputs[1]] = weight.to(kind, memory_format=torch.channels_last)
        placed.update({name: b.to(kind) for name, b in zip(step.inputs[2:], bias, strict=True)})
        step.attributes["result"] = dtype
    return placed


def _conv(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, weight, bias = (*inputs, None)[:3]
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    padding = (top, left)
    if padding != (bottom, right):
        x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    stride, dilation = attributes.get("strides", (1, 1)), attributes.get("dilations", (1, 1))
    y = F.conv2d(x.to(weight.dtype), weight, bias, stride, padding, dilation, attributes.get("group", 1))
    return y.to(attributes["result"])


def _depth_to_space(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, factor = inputs[0], attributes["blocksize"]
    if attributes.get("mode", b"DCR") == b"DCR":
        n, c, h, w = x.shape
        x = x.reshape(n, factor * factor, c // factor**2, h, w).transpose(1, 2).reshape(n, c, h, w)
    return F.pixel_shuffle(x, factor)


def _cast(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    kinds = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.FLOAT16: torch.float16}
    if attributes["to"] not in kinds:
        raise ModelFileError("The torch backend casts to float32 and float16 only.", "Use another --backend.")
    result: Tensor = inputs[0].to(kinds[attributes["to"]])
    return result


def _clip(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, low, high = (*inputs, None, None)[:3]
    return torch.clamp(x, low, high)


def _batch_norm(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, weight, bias, mean, variance = inputs
    y = F.batch_norm(x.float(), mean, variance, weight, bias, eps=attributes.get("epsilon", 1e-5))
    return y.to(x.dtype)


def _prelu(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    x, slope = inputs
    return torch.where(x >= 0, x, x * (slope if isinstance(slope, float) else slope.to(x.dtype)))


def _slice(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    """Along one axis with step 1, whose bounds `_placed` has made plain numbers."""
    x, *bounds = inputs
    if len(bounds) != 3 or not all(isinstance(bound, int) for bound in bounds):
        raise ModelFileError("The torch backend slices along one axis only.", "Use another --backend.")
    start, end, axis = bounds
    result: Tensor = x[(slice(None),) * (axis % x.ndim) + (slice(start, end),)]
    return result


def _constant(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    if "value" in attributes:
        return torch.from_numpy(numpy_helper.to_array(attributes["value"]).copy())
    return torch.tensor(next(iter(attributes.values())))


OPERATORS: dict[str, Operator] = {
    "Add": lambda inputs, attributes: inputs[0] + inputs[1],
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda inputs, attributes: torch.cat(list(inputs), attributes["axis"]),
    "Constant": _constant,
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "Div": lambda inputs, attributes: inputs[0] / inputs[1],
    "Identity": lambda inputs, attributes: inputs[0],
    "LeakyRelu": lambda inputs, attributes: F.leaky_relu(inputs[0], attributes.get("alpha", 0.01)),
    "Mul": lambda inputs, attributes: inputs[0] * inputs[1],
    "PRelu": _prelu,
    "Relu": lambda inputs, attributes: torch.relu(inputs[0]),
    "Slice": _slice,
    "Sub": lambda inputs, attributes: inputs[0] - inputs[1],
}
"""The operators that this backend runs."""


Shape = tuple[int, ...]
Work = Callable[[], None]

MAX_SHAPES = 4
"""Input shapes whose buffers and CUDA graphs are kept; a picture with self-ensemble has two."""


class Gpu(Protocol):
    """The functions of a GPU that `CudaGraphs` needs. Every method raises RuntimeError if it fails."""

    def pinned(self, shape: Shape) -> Tensor:
        """Page-locked float32 on the host, which the GPU copies from and to directly."""

    def empty(self, shape: Shape) -> Tensor:
        """float32 on the GPU."""

    def on_stream(self) -> AbstractContextManager[object]:
        """Within it, work is queued on a stream of its own."""

    def capture(self, work: Work) -> Work:
        """Capture what `work` queues as a CUDA graph, without running it; returns what launches the graph."""

    def synchronize(self) -> None:
        """Wait until everything queued is done."""

    def free_unused(self) -> None:
        """Free memory that is cached but not in use."""


@dataclass(slots=True)
class _ShapeState:
    """What one input shape needs: memory at fixed addresses, and from its second run on a CUDA graph."""

    host_lr: Tensor
    lr: Tensor
    host_sr: Tensor | None = None
    sr: Tensor | None = None
    runs: int = 0
    launch: Work | None = None


class CudaGraphs:
    """Runs a network (N, 3, H, W) -> (N, 3, sH, sW), both float32 on the GPU, on batches on the host.

    The first run of a shape is ordinary, which lets cuDNN choose its kernels; the second is captured as a
    CUDA graph, which that run and later ones launch.

    Args:
        network: queues its work without synchronizing.
        gpu: that holds the network.

    Attributes:
        problem: why no CUDA graph could be captured, so that kernels are launched one by one with the same
            result; empty if none.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], gpu: Gpu) -> None:
        self._network, self._gpu = network, gpu
        self._shapes: dict[Shape, _ShapeState] = {}  # the least recently used first
        self.problem = ""

    @property
    def graphs(self) -> int:
        """How many CUDA graphs it holds."""
        return sum(state.launch is not None for state in self._shapes.values())

    def __call__(self, lr: Batch) -> Batch:
        """Run a batch; the result stays valid.

        Raises:
            RuntimeError: of PyTorch; all memory is free again.
        """
        try:
            return self._run(lr)
        except RuntimeError:
            self._shapes.clear()
            self._gpu.free_unused()
            raise

    def _run(self, lr: Batch) -> Batch:
        with self._gpu.on_stream():
            state = self._state(lr.shape)
            state.host_lr.numpy()[...] = lr
            state.lr.copy_(state.host_lr, non_blocking=True)
            sr = self._queue(state)
            if state.host_sr is None:
                state.host_sr = self._gpu.pinned(tuple(sr.shape))
            state.host_sr.copy_(sr, non_blocking=True)
            self._gpu.synchronize()
        result: Batch = state.host_sr.numpy().copy()
        return result

    def _state(self, shape: Shape) -> _ShapeState:
        """The state of a shape, which becomes the most recently used."""
        state = self._shapes.pop(shape, None) or _ShapeState(self._gpu.pinned(shape), self._gpu.empty(shape))
        self._shapes[shape] = state
        while len(self._shapes) > MAX_SHAPES:
            del self._shapes[next(iter(self._shapes))]
        return state

    def _queue(self, state: _ShapeState) -> Tensor:
        state.runs += 1
        if state.runs == 2 and not self.problem:
            self._capture(state)
        if state.launch is None or state.sr is None:
            return self._network(state.lr)
        state.launch()
        return state.sr

    def _capture(self, state: _ShapeState) -> None:
        """Capture a CUDA graph; a failure, for lack of memory too, is not tried again."""

        def work() -> None:
            state.sr = self._network(state.lr)

        try:
            state.launch = self._gpu.capture(work)
        except RuntimeError as error:
            self.problem = one_line(error)
            _logger.warning(
                "torch: no CUDA graph was captured (%s): kernels start one by one.",
                self.problem,
            )


class TorchGpu:
    """`Gpu` on a CUDA device of PyTorch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()  # shared by all graphs, which never run at once

    def pinned(self, shape: Shape) -> Tensor:
        """Page-locked on the host."""
        return torch.empty(shape, dtype=torch.float32, pin_memory=True)

    def empty(self, shape: Shape) -> Tensor:
        """On the device."""
        return torch.empty(shape, dtype=torch.float32, device=self._device)

    def on_stream(self) -> AbstractContextManager[object]:
        """The stream that all runs share; selects the device for the thread too."""
        return torch.cuda.stream(self._stream)

    def capture(self, work: Work) -> Work:
        """A CUDA graph of what `work` queues; other threads may use other GPUs meanwhile."""
        graph = torch.cuda.CUDAGraph()
        mode = "thread_local"
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode=mode):
            work()
        return graph.replay

    def synchronize(self) -> None:
        """Wait for the stream."""
        self._stream.synchronize()

    def free_unused(self) -> None:
        """Free PyTorch's cache, on all devices."""
        torch.cuda.empty_cache()
