"""What a graph in halves gives on hardware that computes in halves, found on a CPU that does not.

ONNX Runtime's CPU kernels widen halves and skip the rounding in between, so a file in fp16 runs there as if
it were in float32. A GPU rounds every tensor, and that is what an export in fp16 must be judged by.
"""

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper


def with_rounding(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same network in float32 whose tensors are rounded to halves wherever `model` has halves.

    Sums of products are exact to float32, as tensor cores accumulate them, and rounded once.

    Args:
        model: in halves between a float32 input and a float32 output, as `to_half` writes it.
    """
    values = onnx.shape_inference.infer_shapes(model).graph.value_info
    halves = {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    nodes = [step for node in model.graph.node for step in _rounded(node, halves)]
    ports = list(model.graph.input), list(model.graph.output)
    weights = [_widened(tensor) for tensor in model.graph.initializer]
    graph = helper.make_graph(nodes, model.graph.name, *ports, weights)
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _rounded(node: NodeProto, halves: set[str]) -> list[NodeProto]:
    """A node, and a Cast to halves and back after it if its output is in halves."""
    copy, output = NodeProto(), node.output[0]
    copy.CopyFrom(node)
    if output not in halves:
        return [copy]
    if node.op_type == "Cast":
        copy.attribute[0].i = TensorProto.FLOAT
    copy.output[0] = f"{output}.exact"
    down = helper.make_node("Cast", [f"{output}.exact"], [f"{output}.half"], to=TensorProto.FLOAT16)
    return [copy, down, helper.make_node("Cast", [f"{output}.half"], [output], to=TensorProto.FLOAT)]


def _widened(tensor: TensorProto) -> TensorProto:
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name)
