"""ONNX graphs rewritten from fp32 to fp16 and back. Needs the onnx package only."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from srcli.errors import ModelFileError, UsageError
from srcli.models.spec import METADATA_KEY, WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY, ModelSpec

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(slots=True)
class PlainGraph:
    """A graph without Constant nodes and without Casts between floats.

    Attributes:
        input: name of the network's input.
        output: name of its output.
        result: name of the tensor that becomes the output.
        nodes: copies of the other nodes, in execution order.
        constants: initializers and the values of Constant nodes, by name.
        types: element type by tensor, as far as shape inference finds it.
    """

    input: str
    output: str
    result: str
    nodes: list[NodeProto]
    constants: dict[str, TensorProto]
    types: dict[str, int]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> "PlainGraph":
        """Read a model, which is not changed; external data must be loaded.

        Raises:
            ModelFileError: it has several inputs or outputs, some that are not floats, or subgraphs.
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
        """Whether a tensor holds floats; assumed where its type is unknown."""
        return self.types.get(name, TensorProto.FLOAT) in FLOATS

    def variable(self, node: NodeProto) -> list[str]:
        """Inputs of a node that hold floats and depend on the network's input."""
        return [name for name in node.input if name and name not in self.constants and self.is_float(name)]


def _types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type by tensor, as far as shape inference finds it."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _without_constants(nodes: Iterable[NodeProto], constants: dict[str, TensorProto]) -> list[NodeProto]:
    """The nodes other than Constant, whose values are added to `constants`."""
    rest = []
    for node in nodes:
        if any(
            attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute
        ):
            raise ModelFileError(f"{node.op_type} has a subgraph: it cannot be rewritten.")
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
    """Copies of the nodes without Casts between floats, and each Cast's input by its output."""
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


IO_DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
"""I/O dtypes: RGB 0-1 for the first two, 0-255 for uint8."""

_POINTWISE = ("Add", "Sub", "Mul", "Div", "Slice", "Concat", "DepthToSpace", "Clip", "Identity")
"""Operators that compute each value of a result from one value of each input, perhaps at another position."""
_ALWAYS_FP32 = {("Resize", 2), ("Upsample", 1)}
"""Inputs that ONNX defines as float32 for any type of data, as (operator, position)."""
_FP32, _FP16 = ".fp32", ".fp16"


def to_fp16(model: onnx.ModelProto, io: str = "float32") -> onnx.ModelProto:
    """Rewrite a network to compute in fp16.

    Args:
        model: one input (N, C, H, W) and one output, both float32 or float16 on 0-1; weights float32, or
            float16 behind Casts to float32. External data must be loaded. It may be in fp16 already.
        io: I/O dtype of the new model. "float32" or "float16": RGB 0-1. "uint8": RGB 0-255, the output
            rounded to the nearest and clipped like `pixels.from_network`, but from a float32 product instead
            of a
            float64 one: two pixels in a million, halfway between two integers, may differ by one. NaN becomes
            some integer, which the caller cannot detect.

    Returns:
        A new model with all weights inside. Names of input and output and the metadata stay, except that the
        spec says fp16 and no weights file beside the model is named.

    Raises:
        UsageError: no such I/O dtype.
        ModelFileError: the network does not fit this description, or a weight exceeds fp16's largest, 65504.
    """
    if io not in IO_DTYPES:
        raise UsageError(f"No I/O dtype {io!r}.", f"Choose from {', '.join(IO_DTYPES)}.")
    graph = PlainGraph.of(model)
    return _rewritten(model, _Writer(graph, _fp32_tensors(graph), io), "fp16")


def to_fp32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite an fp16 network to compute in fp32; its weights keep their fp16 rounding.

    Args:
        model: as of `to_fp16`.

    Returns:
        A new model with all weights inside, float32 input and output, and a spec that says fp32.

    Raises:
        ModelFileError: the network does not fit the description in `to_fp16`.
    """
    graph = PlainGraph.of(model)
    every = {graph.input}.union(*(node.output for node in graph.nodes))
    return _rewritten(model, _Writer(graph, every, "float32"), "fp32")


def _fp32_tensors(graph: PlainGraph) -> set[str]:
    """Tensors that stay fp32: those of pointwise nodes next to the input or the output."""
    head = {graph.input}
    for node in graph.nodes:
        inputs = graph.variable(node)
        if node.op_type in _POINTWISE and inputs and head.issuperset(inputs):
            head.update(node.output)
    tail: set[str] = set()
    fp32_read, fp16_read = {graph.result}, set[str]()
    for node in reversed(graph.nodes):
        output, inputs = node.output[0], graph.variable(node)
        if node.op_type in _POINTWISE and output in fp32_read - fp16_read:
            tail.add(output)
            fp32_read.update(inputs)
        else:
            fp16_read.update(inputs)
    return head | tail


@dataclass(slots=True)
class _Writer:
    """The new graph under construction.

    Attributes:
        fp32: tensors of the old graph that are fp32 in the new one.
        io: I/O dtype.
        names: name in the new graph by (name in the old one, whether it is fp32 there).
    """

    graph: PlainGraph
    fp32: set[str]
    io: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    names: dict[tuple[str, bool], str] = field(default_factory=dict)

    def begin(self) -> None:
        """Convert the input to a float32 picture on 0-1."""
        name = self.graph.input
        if self.io == "uint8":  # TensorRT supports only Cast on uint8
            name = self._node("Cast", [name], f"{name}.uint8", to=TensorProto.FLOAT)
            name = self._node("Mul", [name, self._number("uint8.scale", 1 / 255)], self.graph.input + _FP32)
        elif self.io == "float16":
            name = self._node("Cast", [name], name + _FP32, to=TensorProto.FLOAT)
        self.names[self.graph.input, True] = name

    def add(self, node: NodeProto) -> None:
        """Add a node of the old graph in the type that its output has in the new one."""
        fp32 = node.output[0] in self.fp32
        node.input[:] = [self._read(node, place, fp32) for place in range(len(node.input))]
        _retype_attributes(node, fp32)
        for place, name in enumerate(node.output):
            node.output[place] = self.names[name, fp32] = self._new_name(name, fp32)
        if node.name == self.graph.output:  # keep the name free for the node that computes the output
            node.name = node.output[0]
        self.nodes.append(node)

    def end(self) -> None:
        """Convert the last tensor, read as fp32, to the output."""
        name, output = self._floats(self.graph.result, True), self.graph.output
        if self.io == "uint8":
            name = self._node("Mul", [name, self._number("uint8.white", 255)], f"{output}.scaled")
            name = self._node("Round", [name], f"{output}.rounded")  # half to even
            limits = [self._number("uint8.black", 0), self._number("uint8.white", 255)]
            name = self._node("Clip", [name, *limits], f"{output}.clipped")
        if self.io != "float32":
            self._node("Cast", [name], output, to=IO_DTYPES[self.io])
        elif name != output:
            self._node("Identity", [name], output)

    def _read(self, node: NodeProto, place: int, fp32: bool) -> str:
        """The new name of a node's input, which is converted or stored as needed."""
        name = str(node.input[place])
        if not name or not self.graph.is_float(name):
            if name in self.graph.constants:
                self.constants[name] = self.graph.constants[name]
            return name
        return self._floats(name, fp32 or (node.op_type, place) in _ALWAYS_FP32)

    def _floats(self, name: str, fp32: bool) -> str:
        """The name of a float tensor in the wanted type: cast, or stored again, where it has the other."""
        if (name, fp32) not in self.names:
            other = self.names.get((name, not fp32))
            fresh = name + (_FP32 if fp32 else _FP16) if other else name
            if name in self.graph.constants:
                self.constants[fresh] = _stored(self.graph.constants[name], fresh, fp32)
            else:
                assert other is not None, f"{name} is read before it is computed"
                self._node("Cast", [other], fresh, to=TensorProto.FLOAT if fp32 else TensorProto.FLOAT16)
            self.names[name, fp32] = fresh
        return self.names[name, fp32]

    def _new_name(self, name: str, fp32: bool) -> str:
        """The new name of a node's output; the network's output name is for the last tensor only."""
        if name == self.graph.result and fp32 and self.io == "float32":
            return self.graph.output
        return f"{name}.result" if name == self.graph.output else name

    def _number(self, name: str, value: float) -> str:
        self.constants[name] = numpy_helper.from_array(np.array(value, np.float32), name)
        return name

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: int) -> str:
        node = helper.make_node(operator, inputs, [output], name=output)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return output


def _stored(tensor: TensorProto, name: str, fp32: bool) -> TensorProto:
    """A float constant as float32 or float16."""
    values = np.asarray(numpy_helper.to_array(tensor))
    if fp32:
        return numpy_helper.from_array(values.astype(np.float32), name)
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    if np.isfinite(rounded).all() or not np.isfinite(values).all():
        return numpy_helper.from_array(rounded, name)
    largest = f"{np.abs(values).max():.4g}"
    raise ModelFileError(f"{tensor.name} holds {largest}: fp16 ends at 65504.", "Use fp32 or bf16.")


def _retype_attributes(node: NodeProto, fp32: bool) -> None:
    """Set the float type of nodes that create floats: Cast from integers, ConstantOfShape."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i in FLOATS:
            attribute.i = FLOATS[0] if fp32 else FLOATS[1]
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type in FLOATS:
            attribute.t.CopyFrom(_stored(attribute.t, attribute.t.name, fp32))


def _rewritten(model: onnx.ModelProto, writer: _Writer, arithmetic: str) -> onnx.ModelProto:
    """The model with the writer's graph, new types of input and output, and matching metadata."""
    writer.begin()
    for node in writer.graph.nodes:
        writer.add(node)
    writer.end()
    ports = [v for v in model.graph.input if v.name == writer.graph.input], list(model.graph.output)
    graph = helper.make_graph(writer.nodes, model.graph.name, *ports, list(writer.constants.values()))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = IO_DTYPES[writer.io]
    result = helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, producer_name="srcli"
    )
    helper.set_model_props(result, _metadata(model, arithmetic))
    return result


def _metadata(model: onnx.ModelProto, arithmetic: str) -> dict[str, str]:
    found = {entry.key: entry.value for entry in model.metadata_props}
    kept = {key: text for key, text in found.items() if key not in (WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY)}
    if METADATA_KEY in kept:
        spec = ModelSpec.from_json(kept[METADATA_KEY])
        if spec.arithmetic != "int8":  # which it stays in either precision
            stored = spec.precision if arithmetic == "fp32" else "fp16"
            kept[METADATA_KEY] = replace(spec, precision=stored, arithmetic=arithmetic).to_json()
    return kept
