"""A network that computes in float32 -> the same network in fp16, by rewriting its graph. Needs onnx alone.

TensorRT 11 has no precision flags: what computes in halves is what the graph says, so every constant and
tensor of the body becomes a half. The two ends stay in float32: the nodes before the first and after the
last that do no more than add up and move pixels (mean shift; sum of the tail's halves, PixelShuffle after
it). They touch the values of a few pictures and cost next to nothing, while an image on 0-1 in halves is as
coarse as an eighth of an 8-bit step where it is bright: trained networks reach 80 dB against float32 so, and
76.5 dB in halves throughout. And since all kinds of input and output share these ends, they give the same
pixels.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from srcli.backends.plain_graph import FLOATS, PlainGraph
from srcli.errors import ModelFileError, UsageError
from srcli.spec import METADATA_KEY, WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY, ModelSpec

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
