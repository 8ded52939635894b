"""ONNX graphs of networks in the form that is easy to rewrite in another precision. Needs onnx alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from srcli.errors import ModelFileError

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(slots=True)
class PlainGraph:
    """A graph without constants among its nodes and without Casts between floats.

    Attributes:
        input: name of the network's input.
        output: name of its output.
        result: the tensor that becomes the output, under its own name.
        nodes: copies of the others, in running order.
        constants: initialisers and what Constant nodes held, by name.
        types: element type by tensor, as far as inference finds them.
    """

    input: str
    output: str
    result: str
    nodes: list[NodeProto]
    constants: dict[str, TensorProto]
    types: dict[str, int]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> "PlainGraph":
        """Read a model, which is left as it is; external data must be loaded.

        Raises:
            ModelFileError: it has several inputs or outputs, others than floats, or graphs inside nodes.
        """
        types, constants = _types(model), {tensor.name: tensor for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in constants]
        if len(inputs) != 1 or len(model.graph.output) != 1:
            raise ModelFileError("Only a network of one input and one output can be rewritten.")
        for value in (inputs[0], model.graph.output[0]):
            if value.type.tensor_type.elem_type not in FLOATS:
                raise ModelFileError(
                    f"{value.name!r} is neither float32 nor float16: it cannot be rewritten."
                )
        nodes, same = _plain(_without_constants(model.graph.node, constants), types)
        output = model.graph.output[0].name
        return cls(inputs[0].name, output, same.get(output, output), nodes, constants, types)

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floats; what inference does not know does."""
        return self.types.get(name, TensorProto.FLOAT) in FLOATS

    def variable(self, node: NodeProto) -> list[str]:
        """Inputs of a node that hold floats and depend on the network's input."""
        return [name for name in node.input if name and name not in self.constants and self.is_float(name)]


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type by tensor, as far as inference finds them."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _without_constants(nodes: Iterable[NodeProto], constants: dict[str, TensorProto]) -> list[NodeProto]:
    """The nodes that are no Constant; those join `constants`."""
    rest = []
    for node in nodes:
        if any(
            attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute
        ):
            raise ModelFileError(f"{node.op_type} holds a graph of its own: it cannot be rewritten.")
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.from_array(_value(node.attribute[0]), node.output[0])
        else:
            rest.append(node)
    return rest


def _value(attribute: AttributeProto) -> NDArray[Any]:
    value = helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.TENSOR:
        return np.asarray(numpy_helper.to_array(value))
    kinds = {AttributeProto.FLOAT: np.float32, AttributeProto.FLOATS: np.float32}
    return np.array(value, kinds.get(attribute.type, np.int64))


def _plain(nodes: list[NodeProto], types: dict[str, int]) -> tuple[list[NodeProto], dict[str, str]]:
    """Copies of the nodes without Casts between floats, and what to read in place of each Cast."""
    same: dict[str, str] = {}
    rest = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [same.get(name, name) for name in node.input]
        if _is_float_cast(copy, types):
            same[copy.output[0]] = copy.input[0]
        else:
            rest.append(copy)
    return rest, same


def _is_float_cast(node: NodeProto, types: dict[str, int]) -> bool:
    return (
        node.op_type == "Cast"
        and types.get(node.input[0]) in FLOATS
        and helper.get_attribute_value(node.attribute[0]) in FLOATS
    )
