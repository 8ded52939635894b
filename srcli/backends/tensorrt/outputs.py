"""What an engine gives besides the network's own output: finished 8-bit pixels, and whether all is well.

The result is scale² times as large as the input and is what fills the bus and keeps the host busy. As 8-bit
pixels in the order of a picture it is a quarter of that, and needs no more work. Infinities and NaN do not
survive this, so they are counted where they still are what they are.
"""

from typing import Any

import numpy as np

LEVELS = "srcli.levels"
"""(N, sH, sW, C) uint8: the output times 255, rounded to the nearest, exact halves to even, and clipped."""

ODD = "srcli.odd"
"""() float32: 0 if every value of the output is a number, else 1."""


def with_levels(model: Any) -> Any:
    """Add the outputs `LEVELS` and `ODD` to an ONNX network of one float32 output (N, C, H, W) 0-1, in place.

    Returns:
        The same model.
    """
    from onnx import TensorProto, helper, numpy_helper
    from onnx.helper import make_node

    sr, graph = model.graph.output[0].name, model.graph
    for name, value in (("black", 0), ("white", 255)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"srcli.{name}"))
    graph.node.extend(
        [
            make_node("Mul", [sr, "srcli.white"], ["srcli.stretched"]),
            make_node("Round", ["srcli.stretched"], ["srcli.rounded"]),
            make_node("Clip", ["srcli.rounded", "srcli.black", "srcli.white"], ["srcli.clipped"]),
            make_node("Transpose", ["srcli.clipped"], ["srcli.turned"], perm=[0, 2, 3, 1]),
            make_node("Cast", ["srcli.turned"], [LEVELS], to=TensorProto.UINT8),
            make_node("IsNaN", [sr], ["srcli.nan"]),
            make_node("IsInf", [sr], ["srcli.inf"]),
            make_node("Or", ["srcli.nan", "srcli.inf"], ["srcli.wrong"]),
            make_node("Cast", ["srcli.wrong"], ["srcli.marks"], to=TensorProto.FLOAT),
            make_node("ReduceMax", ["srcli.marks"], [ODD], keepdims=0),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(LEVELS, TensorProto.UINT8, ["n", "sh", "sw", "c"]))
    graph.output.append(helper.make_tensor_value_info(ODD, TensorProto.FLOAT, []))
    return model
