"""ONNX graphs rewritten: fp32 to fp16 and back, and int8 with signed integers only. Needs onnx alone."""

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


IO = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
"""Kinds of input and output: RGB 0-1 in the first two, 0-255 in the last."""

_POINTWISE = ("Add", "Sub", "Mul", "Div", "Slice", "Concat", "DepthToSpace", "Clip", "Identity")
"""Operators that give each pixel of a result from one pixel of each input, if not in the same place."""
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
    graph = PlainGraph.of(model)
    return _rewritten(model, _Writer(graph, _ends(graph), io), "fp16")


def to_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite a network in halves so that it computes in float32, with the weights that halves left it.

    Args:
        model: as of `to_half`.

    Returns:
        A new model with all weights inside, float32 at both ends; its spec says so.

    Raises:
        ModelFileError: the network is not of this kind.
    """
    graph = PlainGraph.of(model)
    every = {graph.input}.union(*(node.output for node in graph.nodes))
    return _rewritten(model, _Writer(graph, every, "float32"), "fp32")


def _ends(graph: PlainGraph) -> set[str]:
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

    graph: PlainGraph
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
        _retype_attributes(node, wide)
        for place, name in enumerate(node.output):
            node.output[place] = self.names[name, wide] = self._new_name(name, wide)
        if node.name == self.graph.output:  # the node that makes the output may be a new one
            node.name = node.output[0]
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


def _retype_attributes(node: NodeProto, wide: bool) -> None:
    """Floats that a node makes by itself get the type of the others: Cast of integers, ConstantOfShape."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i in FLOATS:
            attribute.i = FLOATS[0] if wide else FLOATS[1]
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type in FLOATS:
            attribute.t.CopyFrom(_stored(attribute.t, attribute.t.name, wide))


def _rewritten(model: onnx.ModelProto, writer: _Writer, arithmetic: str) -> onnx.ModelProto:
    """The model with the writer's graph, its ports in their new types, and metadata that fit."""
    writer.begin()
    for node in writer.graph.nodes:
        writer.add(node)
    writer.end()
    ports = [v for v in model.graph.input if v.name == writer.graph.input], list(model.graph.output)
    graph = helper.make_graph(writer.nodes, model.graph.name, *ports, list(writer.constants.values()))
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = IO[writer.io]
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
        if spec.arithmetic != "int8":  # which it stays, whatever the rest is computed in
            stored = spec.precision if arithmetic == "fp32" else "fp16"
            kept[METADATA_KEY] = replace(spec, precision=stored, arithmetic=arithmetic).to_json()
    return kept


_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


def with_signs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Let 8-bit integers of 0 to 255 be 0 to 127 in place, in steps twice as large as those measured.

    Args:
        model: QuantizeLinear and DequantizeLinear without an offset, steps and zeros among its initialisers.

    Returns:
        The same model.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    zeros = {tuple(node.input[1:3]) for node in model.graph.node if node.op_type in _QUANTISERS}
    for step, zero in zeros:
        if constants[zero].data_type == TensorProto.UINT8:
            coarser = numpy_helper.to_array(constants[step]) * np.float32(255 / 127)
            signless = np.zeros_like(numpy_helper.to_array(constants[zero]), np.int8)
            constants[step].CopyFrom(numpy_helper.from_array(np.asarray(coarser, np.float32), step))
            constants[zero].CopyFrom(numpy_helper.from_array(signless, zero))
    return model
