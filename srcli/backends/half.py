"""A network that computes in float32 -> the same network in fp16, by rewriting its graph. Needs onnx alone.

TensorRT 11 has no precision flags: what computes in halves is what the graph says, so every constant and
tensor of the body becomes a half. The two ends stay in float32: the few pointwise nodes (mean shift, sum of
the tail's halves) before the first other node and after the last. They touch three channels and cost next
to nothing, while an image on 0-1 in halves is as coarse as an eighth of an 8-bit step where it is bright:
trained networks come within 80 dB of float32 so, and within 76.5 dB in halves throughout. And since all
kinds of input and output share these ends, they give the same pixels.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from srcli.errors import ModelFileError, UsageError
from srcli.spec import METADATA_KEY, WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY, ModelSpec

IO = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
"""Kinds of input and output: RGB 0-1 in the first two, 0-255 in the last."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
_POINTWISE = ("Add", "Sub", "Mul", "Div", "Slice", "Clip", "Identity")
_ALWAYS_FLOAT32 = {("Resize", 2), ("Upsample", 1)}
"""Inputs that ONNX defines as float32 whatever the data's type, as (operator, position)."""
_WIDE, _NARROW = ".float32", ".float16"


def to_half(model: onnx.ModelProto, io: str = "float32") -> onnx.ModelProto:
    """Rewrite a network so that it computes in fp16.

    Args:
        model: one input (N, C, H, W) and one output, both float32 or float16 on 0-1; weights float32, or
            float16 widened by Casts. External data must be loaded. A model in halves may come again.
        io: kind of the new model's input and output. "float32": as before. "float16": RGB 0-1 in halves.
            "uint8": RGB 0-255; the output is rounded to the nearest and clipped as `pixels.from_network`
            does, from a product in float32 where that has float64: two pixels in a million, at a half of a
            level, may differ by one. What is not a number comes out as some number, and nobody can tell.

    Returns:
        A new model with all weights inside. Names of input and output stay; metadata too, except that a
        spec says fp16 and a weights file beside the model is no longer named.

    Raises:
        UsageError: no such kind.
        ModelFileError: the network is not of this kind, or a weight exceeds 65504, a half's largest.
    """
    if io not in IO:
        raise UsageError(f"No kind of input and output {io!r}.", f"Choose from {', '.join(IO)}.")
    graph = _Graph.of(model)
    writer = _Writer(graph, _ends(graph), io)
    writer.begin()
    for node in graph.nodes:
        writer.add(node)
    writer.end()
    return _replaced(model, writer)


@dataclass(slots=True)
class _Graph:
    """A graph without constants among its nodes and without Casts between floats."""

    input: str
    output: str
    result: str  # the tensor that becomes the output
    nodes: list[NodeProto]
    constants: dict[str, TensorProto]
    types: dict[str, int]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> "_Graph":
        types, constants = _types(model), {tensor.name: tensor for tensor in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in constants]
        if len(inputs) != 1 or len(model.graph.output) != 1:
            raise ModelFileError("Only a network of one input and one output can be turned into fp16.")
        for value in (inputs[0], model.graph.output[0]):
            if value.type.tensor_type.elem_type not in _FLOATS:
                raise ModelFileError(f"{value.name!r} is neither float32 nor float16: no fp16 can be made.")
        nodes, same = _plain(_without_constants(model.graph.node, constants), types)
        output = model.graph.output[0].name
        return cls(inputs[0].name, output, same.get(output, output), nodes, constants, types)

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floats; what inference does not know does."""
        return self.types.get(name, TensorProto.FLOAT) in _FLOATS

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
            raise ModelFileError(f"{node.op_type} holds a graph of its own: no fp16 can be made of it.")
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
        and types.get(node.input[0]) in _FLOATS
        and helper.get_attribute_value(node.attribute[0]) in _FLOATS
    )


def _ends(graph: _Graph) -> set[str]:
    """The tensors that stay float32: those of pointwise nodes next to the input or the output."""
    head = {graph.input}
    for node in graph.nodes:
        inputs = graph.variable(node)
        if node.op_type in _POINTWISE and inputs and head.issuperset(inputs):
            head.update(node.output)
    tail: set[str] = set()
    read_wide, read_narrow = {graph.result}, set[str]()
    for node in reversed(graph.nodes):
        output, inputs = node.output[0], graph.variable(node)
        if node.op_type in _POINTWISE and output in read_wide - read_narrow:
            tail.add(output)
            read_wide.update(inputs)
        else:
            read_narrow.update(inputs)
    return head | tail


@dataclass(slots=True)
class _Writer:
    """The new graph under construction.

    Attributes:
        wide: tensors of the old graph that are float32 in the new one.
        io: kind of input and output.
        names: name in the new graph by (name in the old one, whether it is float32 there).
    """

    graph: _Graph
    wide: set[str]
    io: str
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    names: dict[tuple[str, bool], str] = field(default_factory=dict)

    def begin(self) -> None:
        """From the input of that kind to a float32 image on 0-1."""
        name = self.graph.input
        if self.io == "uint8":  # TensorRT takes nothing but a Cast on uint8
            name = self._node("Cast", [name], f"{name}.levels", to=TensorProto.FLOAT)
            name = self._node("Mul", [name, self._number("levels.step", 1 / 255)], self.graph.input + _WIDE)
        elif self.io == "float16":
            name = self._node("Cast", [name], name + _WIDE, to=TensorProto.FLOAT)
        self.names[self.graph.input, True] = name

    def add(self, node: NodeProto) -> None:
        """One node of the old graph, in the type its output has in the new one."""
        wide = node.output[0] in self.wide
        node.input[:] = [self._read(node, place, wide) for place in range(len(node.input))]
        if not wide:
            _narrow_attributes(node)
        for place, name in enumerate(node.output):
            node.output[place] = self.names[name, wide] = self._new_name(name, wide)
        self.nodes.append(node)

    def end(self) -> None:
        """From the last tensor, read as float32, to the output of that kind."""
        name, output = self._floats(self.graph.result, True), self.graph.output
        if self.io == "uint8":
            name = self._node("Mul", [name, self._number("levels.white", 255)], f"{output}.levels")
            name = self._node("Round", [name], f"{output}.rounded")  # exact halves to even
            limits = [self._number("levels.black", 0), self._number("levels.white", 255)]
            name = self._node("Clip", [name, *limits], f"{output}.clipped")
        if self.io != "float32":
            self._node("Cast", [name], output, to=IO[self.io])
        elif name != output:
            self._node("Identity", [name], output)

    def _read(self, node: NodeProto, place: int, wide: bool) -> str:
        """The name under which a node finds one of its inputs."""
        name = str(node.input[place])
        if not name or not self.graph.is_float(name):
            if name in self.graph.constants:
                self.constants[name] = self.graph.constants[name]
            return name
        return self._floats(name, wide or (node.op_type, place) in _ALWAYS_FLOAT32)

    def _floats(self, name: str, wide: bool) -> str:
        """A tensor of floats in the type wanted: cast, or stored once more, where it has the other."""
        if (name, wide) not in self.names:
            other = self.names.get((name, not wide))
            fresh = name + (_WIDE if wide else _NARROW) if other else name
            if name in self.graph.constants:
                self.constants[fresh] = _stored(self.graph.constants[name], fresh, wide)
            else:
                assert other is not None, f"{name} is read before it is made"
                self._node("Cast", [other], fresh, to=TensorProto.FLOAT if wide else TensorProto.FLOAT16)
            self.names[name, wide] = fresh
        return self.names[name, wide]

    def _new_name(self, name: str, wide: bool) -> str:
        """The name of a tensor that a node makes: the output's own is for what ends up there."""
        if name == self.graph.result and wide and self.io == "float32":
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


def _stored(tensor: TensorProto, name: str, wide: bool) -> TensorProto:
    """A constant of floats as float32 or as halves."""
    values = np.asarray(numpy_helper.to_array(tensor))
    if wide:
        return numpy_helper.from_array(values.astype(np.float32), name)
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if np.isfinite(halves).all() or not np.isfinite(values).all():
        return numpy_helper.from_array(halves, name)
    largest = f"{np.abs(values).max():.4g}"
    raise ModelFileError(f"{tensor.name} holds {largest}: fp16 ends at 65504.", "Use float32 or bf16.")


def _narrow_attributes(node: NodeProto) -> None:
    """Floats that a node makes by itself become halves: Cast to float, ConstantOfShape."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(_stored(attribute.t, attribute.t.name, False))


def _replaced(model: onnx.ModelProto, writer: _Writer) -> onnx.ModelProto:
    """The model with the writer's graph, its ports in their new types, and metadata that fit."""
    ports = [v for v in model.graph.input if v.name == writer.graph.input], list(model.graph.output)
    graph = helper.make_graph(writer.nodes, model.graph.name, *ports, list(writer.constants.values()))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = IO[writer.io]
    result = helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, producer_name="srcli"
    )
    helper.set_model_props(result, _metadata(model))
    return result


def _metadata(model: onnx.ModelProto) -> dict[str, str]:
    found = {entry.key: entry.value for entry in model.metadata_props}
    kept = {key: text for key, text in found.items() if key not in (WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY)}
    if METADATA_KEY in kept:
        spec = ModelSpec.from_json(kept[METADATA_KEY])
        kept[METADATA_KEY] = replace(spec, precision="fp16", arithmetic="fp16").to_json()
    return kept
