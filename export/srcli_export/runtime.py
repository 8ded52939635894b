"""Runs exported files in ONNX Runtime on the CPU, which every export is checked with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from srcli.errors import ExportError

Batch = NDArray[np.float32]
"""(N, 3, H, W) float32 RGB, 0-1."""
Pixels = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB, 0-255."""


class Runner:
    """An ONNX file in ONNX Runtime, float32 on the CPU: batch in, batch out.

    Args:
        path: the file.
        model: run instead of the file, whose name then only stands in messages; with all weights inside.

    Raises:
        ExportError: ONNX Runtime cannot load it.
    """

    def __init__(self, path: Path, model: onnx.ModelProto | None = None) -> None:
        self._path, content = path, model.SerializeToString() if model else path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # the errors come back as exceptions
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions share no base class but Exception
            raise ExportError(f"{path.name}: ONNX Runtime cannot load the export ({error}).") from error

    def __call__(self, lr: Batch) -> Batch:
        """(N, 3, scale * H, scale * W) float32, not clipped.

        Raises:
            ExportError: ONNX Runtime fails.
        """
        return np.asarray(self.raw(lr), np.float32)

    def raw(self, lr: NDArray[Any]) -> NDArray[Any]:
        """The same for files with another I/O dtype, in that dtype.

        Raises:
            ExportError: ONNX Runtime fails.
        """
        return self.values(["sr"], lr)[0]

    def values(self, outputs: Sequence[str], lr: NDArray[Any]) -> list[NDArray[Any]]:
        """The same for any outputs, given by name.

        Raises:
            ExportError: ONNX Runtime fails.
        """
        try:
            return [np.asarray(value) for value in self._session.run(list(outputs), {"lr": lr})]
        except Exception as error:
            raise ExportError(f"{self._path.name}: ONNX Runtime cannot run the export ({error}).") from error


def runner_for(path: Path, arithmetic: str) -> Runner:
    """A runner that gives what hardware of that arithmetic gives: fp16 with every tensor rounded."""
    return Runner(path, with_rounding(onnx.load(path))) if arithmetic == "fp16" else Runner(path)


def to_batch(pixels: Pixels) -> Batch:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 0-1."""
    planes = pixels.transpose(2, 0, 1)[np.newaxis]
    return np.asarray(np.ascontiguousarray(planes, np.float32) / np.float32(255), np.float32)


def to_255(batch: Batch) -> NDArray[np.float32]:
    """(1, 3, H, W) 0-1 -> (H, W, 3) on 0-255, clipped, not rounded."""
    values = batch[0].transpose(1, 2, 0) * np.float32(255)
    return np.asarray(np.clip(values, 0, 255), np.float32)


def to_uint8(batch: Batch) -> Pixels:
    """(1, 3, H, W) 0-1 -> (H, W, 3) uint8, clipped and rounded half up."""
    return np.asarray(np.floor(to_255(batch) + np.float32(0.5)), np.uint8)


def with_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """An fp32 network that rounds each tensor to fp16 where `model` has fp16.

    It gives what hardware gives that computes in fp16: sums are accumulated in fp32, as in tensor cores, and
    rounded once. ONNX Runtime's CPU kernels widen fp16 to fp32 and skip the rounding in between.

    Args:
        model: in fp16 between a float32 input and a float32 output.
    """
    values = onnx.shape_inference.infer_shapes(model).graph.value_info
    fp16 = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes = [one for node in model.graph.node for one in _rounded(node, fp16)]
    ports = list(model.graph.input), list(model.graph.output)
    weights = [_widened(tensor) for tensor in model.graph.initializer]
    graph = helper.make_graph(nodes, model.graph.name, *ports, weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _rounded(node: NodeProto, fp16: set[str]) -> list[NodeProto]:
    """A node, followed by a Cast to fp16 and back if its output is among the fp16 tensors."""
    copy, output = NodeProto(), node.output[0]
    copy.CopyFrom(node)
    if output not in fp16:
        return [copy]
    if node.op_type == "Cast":
        copy.attribute[0].i = TensorProto.FLOAT
    copy.output[0] = f"{output}.exact"
    down = helper.make_node("Cast", [f"{output}.exact"], [f"{output}.fp16"], to=TensorProto.FLOAT16)
    return [copy, down, helper.make_node("Cast", [f"{output}.fp16"], [output], to=TensorProto.FLOAT)]


def _widened(tensor: TensorProto) -> TensorProto:
    """The tensor in fp32, if it is fp16."""
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name)
