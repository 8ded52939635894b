"""Fused network -> ONNX graph, node by node. Names come from the training network and stay the same.

Input "lr" (N, 3, H, W) float32 RGB 0-1, output "sr" (N, 3, scale * H, scale * W) float32, not clipped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from srcli.models.spec import METADATA_KEY, ModelSpec
from srcli_export.layers import Conv, FineConv, Layer, Rectifier, Shuffle, Skip, Upscale, arrays
from srcli_train.networks import MEAN_RGB
from srcli_train.start import FP16_SUFFIX

OPSET = 20
IR_VERSION = 9
"""ONNX's intermediate representation of opset 20."""

Stored = NDArray[np.float16] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class QuantScales:
    """Quantization scales of a convolution: the real value of 1 in its 8-bit integers. Zero points are 0.

    Attributes:
        input: () float32, of its input.
        kernel: (out,) float32, of its weights per output channel, which are -127 to 127.
        signed: whether the input's integers are -127 to 127; else they are 0 to 255.
    """

    input: NDArray[np.float32]
    kernel: NDArray[np.float32]
    signed: bool = True

    @property
    def zero(self) -> NDArray[Any]:
        """() the input's zero point, which also gives its integer type."""
        return np.asarray(0, np.int8 if self.signed else np.uint8)


def stored_weights(layers: Sequence[Layer], precision: str) -> dict[str, Stored]:
    """Initialiser name -> values as they are stored, in running order.

    Args:
        layers: the network.
        precision: "fp32", or "fp16" for the convolution kernels, which are nearly all of the file. Biases and
            slopes stay float32: on 0-1 pixels biases are too small for fp16.
    """
    if precision == "fp32":
        return dict(arrays(layers))
    return dict(
        _as_fp16(name, values) if values.ndim == 4 else (name, values) for name, values in arrays(layers)
    )


def _as_fp16(name: str, values: NDArray[np.float32]) -> tuple[str, Stored]:
    return name + FP16_SUFFIX, values.astype(np.float16)


def kernel_of(name: str, stored: Mapping[str, Stored]) -> NDArray[np.float32]:
    """(out, in, k, k) float32 kernel of a convolution, however it is stored."""
    weight = f"{name}.weight"
    return np.asarray(stored[weight if weight in stored else weight + FP16_SUFFIX], np.float32)


def embedded(weights: Mapping[str, Stored]) -> list[TensorProto]:
    """Initialisers with their values inside the ONNX file."""
    return [numpy_helper.from_array(values, name) for name, values in weights.items()]


def build_model(
    layers: Sequence[Layer],
    initializers: Sequence[TensorProto],
    spec: ModelSpec,
    metadata: Mapping[str, str] | None = None,
    mean: Sequence[float] = MEAN_RGB,
    int8: Mapping[str, QuantScales] | None = None,
) -> onnx.ModelProto:
    """The ONNX model of one scale.

    Args:
        layers: the fused network, without the mean shift.
        initializers: its weights by the names of `stored_weights`, embedded or external.
        spec: stored as JSON in the metadata.
        metadata: further entries of the metadata.
        mean: the colour that is subtracted before and added after the network, on 0-1.
        int8: quantization scales of the convolutions that compute in int8, by name. Their inputs and kernels
            pass through QuantizeLinear and DequantizeLinear (Q/DQ), which engines fold; outputs do not.
    """
    graph = _Graph(frozenset(int8 or ()))
    graph.widen(initializers)
    graph.add("Sub", ["lr", "mean"], "mean_removed")
    graph.add("Add", [graph.chain("mean_removed", layers), "mean"], "sr")
    shift = numpy_helper.from_array(np.array(mean, np.float32).reshape(1, 3, 1, 1), "mean")
    inputs, outputs = _ports(spec.channels, spec.scale)
    constants = [shift, *graph.numbers(), *_quantization(int8 or {})]
    proto = helper.make_graph(graph.nodes, spec.name, [inputs], [outputs], [*constants, *initializers])
    model = helper.make_model(
        proto, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="srcli"
    )
    helper.set_model_props(model, {METADATA_KEY: spec.to_json(), **(metadata or {})})
    return model


def _quantization(int8: Mapping[str, QuantScales]) -> list[TensorProto]:
    """Quantization scales (".step", as in files of earlier versions) and zero points, which give the type."""
    values: dict[str, NDArray[Any]] = {}
    for name, scales in int8.items():
        values |= {f"{name}.input.step": scales.input, f"{name}.input.zero": scales.zero}
        values |= {
            f"{name}.weight.step": scales.kernel,
            f"{name}.weight.zero": np.zeros_like(scales.kernel, np.int8),
        }
    return [numpy_helper.from_array(value, name) for name, value in values.items()]


def _ports(channels: int, scale: int) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto]:
    info = helper.make_tensor_value_info
    lr = info("lr", TensorProto.FLOAT, ["N", channels, "H", "W"])
    return lr, info("sr", TensorProto.FLOAT, ["N", channels, f"{scale}H", f"{scale}W"])


_END = 2**63 - 1  # of an axis, in ONNX's Slice


def _number(value: int) -> str:
    return "end" if value == _END else f"number{value}"


@dataclass(slots=True)
class _Graph:
    """Nodes under construction; a method returns the name of the tensor it made.

    Attributes:
        int8: names of the convolutions that compute in 8-bit integers.
        nodes: made so far.
        bounds: constants of all slices: begin, end and axis.
        suffix: of the names of all outputs, for layers that run more than once.
    """

    int8: frozenset[str] = frozenset()
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    bounds: set[int] = field(default_factory=set)
    suffix: str = ""

    def add(self, op: str, inputs: list[str], output: str, **attributes: int | str | list[int]) -> str:
        output += self.suffix
        node = helper.make_node(op, inputs, [output], name=output)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return output

    def widen(self, initializers: Sequence[TensorProto]) -> None:
        """A Cast to float32 after each fp16 initialiser, under the name the layers ask for."""
        for tensor in initializers:
            if tensor.data_type == TensorProto.FLOAT16:
                self.add("Cast", [tensor.name], tensor.name.removesuffix(FP16_SUFFIX), to=TensorProto.FLOAT)

    def chain(self, x: str, layers: Sequence[Layer]) -> str:
        for layer in layers:
            x = self._layer(x, layer)
        return x

    def _layer(self, x: str, layer: Layer) -> str:
        match layer:
            case Conv(name, weight):
                return self._conv(x, name, weight.shape[-1])
            case FineConv(name, weight):
                both, count = self._conv(x, name, weight.shape[-1]), len(weight)
                leading = self._slice(both, 0, count, 1, f"{name}.leading")
                rest = self._slice(both, count, 2 * count, 1, f"{name}.rest")
                return self.add("Add", [leading, rest], f"{name}.sum")
            case Rectifier(name, None):
                return self.add("Relu", [x], f"{name}.relu")
            case Rectifier(name, _):
                return self.add("PRelu", [x, f"{name}.slope"], f"{name}.prelu")
            case Shuffle(name, factor):
                return self.add("DepthToSpace", [x], name, blocksize=factor, mode="CRD")
            case Skip(name, inner):
                return self.add("Add", [x, self.chain(x, inner)], f"{name}.sum")
            case Upscale():
                return self._upscale(x, layer)

    def _upscale(self, x: str, layer: Upscale) -> str:
        """The fused convolution everywhere, then the exact layers for the rows and columns at the border.

        Where two borders overlap, in tiny pictures, the second leaves out the first's rows or columns.
        """
        name, edge = layer.fused.name, layer.edge * layer.factor
        sr = self.chain(x, [layer.fused, Shuffle(f"{name}.inside", layer.factor)])
        for axis, sides in ((2, ("top", "bottom")), (3, ("left", "right"))):
            first, second = (f"{name}.{side}" for side in sides)
            start = self._exact(self._slice(x, 0, layer.context, axis, first), layer, sides[0])
            start = self._slice(start, 0, edge, axis, f"{first}.edge")
            end = self._exact(self._slice(x, -layer.context, _END, axis, second), layer, sides[1])
            end = self._slice(end, edge, _END, axis, f"{second}.own")
            end = self._slice(end, -edge, _END, axis, f"{second}.edge")
            inside = self._slice(sr, edge, -edge, axis, f"{first}.{sides[1]}.inside")
            sr = self.add("Concat", [start, inside, end], f"{first}.{sides[1]}", axis=axis)
        return sr

    def _exact(self, x: str, layer: Upscale, side: str) -> str:
        return _Graph(nodes=self.nodes, bounds=self.bounds, suffix=f".{side}").chain(x, layer.exact)

    def _slice(self, x: str, start: int, end: int, axis: int, output: str) -> str:
        self.bounds |= {start, end, axis}
        return self.add("Slice", [x, *(_number(bound) for bound in (start, end, axis))], output)

    def numbers(self) -> list[TensorProto]:
        """The constants of all slices, each under its own name."""
        return [
            numpy_helper.from_array(np.array([bound], np.int64), _number(bound))
            for bound in sorted(self.bounds)
        ]

    def _conv(self, x: str, name: str, kernel: int) -> str:
        weight = f"{name}.weight"
        if name in self.int8:
            x, weight = self._quantized(x, f"{name}.input", 1), self._quantized(weight, weight, 0)
        inputs = [x, weight, f"{name}.bias"]
        return self.add("Conv", inputs, name, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)

    def _quantized(self, x: str, name: str, axis: int) -> str:
        """A tensor quantized and dequantized; scales run along the axis, if there are several."""
        scaling = [f"{name}.step", f"{name}.zero"]
        integers = self.add("QuantizeLinear", [x, *scaling], f"{name}.int8", axis=axis)
        return self.add("DequantizeLinear", [integers, *scaling], f"{name}.rounded", axis=axis)
