"""ONNX graphs in PyTorch, operator by operator, and on a GPU as one CUDA graph a shape.

Import only where torch is wanted.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper

from srcli.backends.base import Batch
from srcli.backends.libraries import load_failed, one_line
from srcli.backends.rewrite import to_float32
from srcli.errors import ModelFileError

Tensor = torch.Tensor
Operator = Callable[[Sequence[Any], "Attributes"], Tensor]

_PIXEL_CHANNELS = 4
"""Convolutions from this many channels or fewer see pixels, not features: they stay in fp32, since bf16
would round a pixel of 0-255 to whole steps."""


class Attributes(dict[str, Any]):
    """ONNX attributes of one node, by name."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node: what to compute from which values, and which values nobody needs afterwards."""

    operator: Operator
    inputs: tuple[str, ...]
    output: str
    attributes: Attributes
    done_with: tuple[str, ...] = ()


class Network:
    """An ONNX graph on a device, convolutions in `dtype`, everything else in what its inputs promote to.

    `in_float32` undoes a graph's own halves first.
    """

    def __init__(
        self, path: Path, dtype: torch.dtype, device: torch.device, *, in_float32: bool = False
    ) -> None:
        try:
            model = onnx.load(path)
            graph = (to_float32(model) if in_float32 else model).graph
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
            for name in step.done_with:
                values.pop(name, None)
        result: Tensor = values[self._output]
        return result.to(torch.float32, memory_format=torch.contiguous_format)

    def _fold(self, steps: list[Step]) -> list[Step]:
        """Compute now what depends on constants only: fp16 weights are widened once."""
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
        raise ModelFileError(f"{path}: the torch backend does not know the operator {node.op_type}.", hint)
    attributes = Attributes({a.name: onnx.helper.get_attribute_value(a) for a in node.attribute})
    if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ModelFileError(f"{path}: the torch backend does not know automatic padding.")
    return Step(OPERATORS[node.op_type], tuple(node.input), node.output[0], attributes)


def _with_lifetimes(steps: list[Step], output: str) -> list[Step]:
    """Note after which step each value is needed no more, so that memory is freed as early as can be."""
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

    A single number must not be a tensor: it would promote a bf16 body to fp32.
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
        raise ModelFileError("The torch backend casts to float and half only.", "Use another --backend.")
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
    """Along one axis, in steps of one: single numbers arrive as such."""
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
"""Every operator this backend knows."""


Shape = tuple[int, ...]
Work = Callable[[], None]

MAX_SHAPES = 4
"""Input shapes whose buffers and graphs are kept: two a picture with the self-ensemble."""


class Gpu(Protocol):
    """A GPU as far as this needs it. Every method raises RuntimeError if it fails."""

    def pinned(self, shape: Shape) -> Tensor:
        """float32 on the host that the GPU copies from and to directly."""

    def empty(self, shape: Shape) -> Tensor:
        """float32 on the GPU."""

    def at_work(self) -> AbstractContextManager[object]:
        """What is queued inside runs on a stream of its own."""

    def record(self, work: Work) -> Work:
        """A graph of what `work` queues, as what replays it; nothing of it has run."""

    def wait(self) -> None:
        """Until everything queued is done."""

    def give_back(self) -> None:
        """Memory that nothing uses any more becomes free for others."""


@dataclass(slots=True)
class _Slot:
    """What one input shape needs: memory that stays where it is, and a graph once it came twice."""

    host_lr: Tensor
    lr: Tensor
    host_sr: Tensor | None = None
    sr: Tensor | None = None
    runs: int = 0
    replay: Work | None = None


class Replayed:
    """Runs a network (N, 3, H, W) -> (N, 3, sH, sW), both float32 on the GPU, for batches on the host.

    A shape's first run is as usual, which lets cuDNN choose its kernels; the second is recorded.

    Args:
        network: queues its work and waits for nothing.
        gpu: where it lies.
        tell: told once if it cannot be recorded.

    Attributes:
        problem: why it cannot be recorded and runs step by step, with the same result; empty if it can.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], gpu: Gpu, tell: Callable[[str], None]) -> None:
        self._network, self._gpu, self._tell = network, gpu, tell
        self._slots: dict[Shape, _Slot] = {}  # the least recently used first
        self.problem = ""

    @property
    def graphs(self) -> int:
        """Shapes that are replayed."""
        return sum(slot.replay is not None for slot in self._slots.values())

    def __call__(self, lr: Batch) -> Batch:
        """The result is the caller's own.

        Raises:
            RuntimeError: of PyTorch; all memory was given back.
        """
        try:
            return self._run(lr)
        except RuntimeError:
            self._slots.clear()
            self._gpu.give_back()
            raise

    def _run(self, lr: Batch) -> Batch:
        with self._gpu.at_work():
            slot = self._slot(lr.shape)
            slot.host_lr.numpy()[...] = lr
            slot.lr.copy_(slot.host_lr, non_blocking=True)
            sr = self._queue(slot)
            if slot.host_sr is None:
                slot.host_sr = self._gpu.pinned(tuple(sr.shape))
            slot.host_sr.copy_(sr, non_blocking=True)
            self._gpu.wait()
        result: Batch = slot.host_sr.numpy().copy()
        return result

    def _slot(self, shape: Shape) -> _Slot:
        """The shape's slot, most recently used from now on."""
        slot = self._slots.pop(shape, None) or _Slot(self._gpu.pinned(shape), self._gpu.empty(shape))
        self._slots[shape] = slot
        while len(self._slots) > MAX_SHAPES:
            del self._slots[next(iter(self._slots))]
        return slot

    def _queue(self, slot: _Slot) -> Tensor:
        slot.runs += 1
        if slot.runs == 2 and not self.problem:
            self._record(slot)
        if slot.replay is None or slot.sr is None:
            return self._network(slot.lr)
        slot.replay()
        return slot.sr

    def _record(self, slot: _Slot) -> None:
        """What fails here once, for lack of memory too, is not tried again."""

        def work() -> None:
            slot.sr = self._network(slot.lr)

        try:
            slot.replay = self._gpu.record(work)
        except RuntimeError as error:
            self.problem = one_line(error)
            self._tell(f"torch: no CUDA graph could be recorded ({self.problem}): tiles run step by step.")


class Cuda:
    """`Gpu` over a CUDA device of PyTorch."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()  # of all graphs: they run in turns

    def pinned(self, shape: Shape) -> Tensor:
        """Page-locked."""
        return torch.empty(shape, dtype=torch.float32, pin_memory=True)

    def empty(self, shape: Shape) -> Tensor:
        """On the device."""
        return torch.empty(shape, dtype=torch.float32, device=self._device)

    def at_work(self) -> AbstractContextManager[object]:
        """A stream that all runs share; the device becomes the thread's current one."""
        return torch.cuda.stream(self._stream)

    def record(self, work: Work) -> Work:
        """Other threads may use other GPUs meanwhile."""
        graph = torch.cuda.CUDAGraph()
        mode = "thread_local"
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode=mode):
            work()
        return graph.replay

    def wait(self) -> None:
        """For the stream."""
        self._stream.synchronize()

    def give_back(self) -> None:
        """What PyTorch holds in reserve, on all devices."""
        torch.cuda.empty_cache()
