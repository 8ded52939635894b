"""Graphs for TensorRT: the added outputs, and signed integers only; run by ONNX Runtime."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_networks
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tensorrt_doubles import picture

from srcli.backends.rewrite import to_fp16
from srcli.backends.tensorrt.build import (
    NON_FINITE_OUTPUT,
    UINT8_OUTPUT,
    graph,
    with_signed_int8,
    with_uint8_output,
)
from srcli.imaging import pixels
from srcli.models import catalog

INT8 = sorted(catalog.MODELS_FOLDER.glob("*.int8.onnx"))


def run(
    model: onnx.ModelProto, inputs: dict[str, NDArray[np.float32]], outputs: list[str]
) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(outputs, inputs)]


# The added outputs.


def run_network(model: onnx.ModelProto, lr: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return run(model, {"lr": lr}, ["sr", UINT8_OUTPUT, NON_FINITE_OUTPUT])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_uint8_output_is_what_the_host_rounds_to(precision: str) -> None:
    plain = tiny_networks.build(tiny_networks.tiny_spec(2))
    model = with_uint8_output(to_fp16(plain) if precision == "fp16" else plain)
    onnx.checker.check_model(model)
    lr = picture(17, 23) * 3 - 1  # so that the output leaves 0-1 on both sides
    sr, uint8, non_finite = run_network(model, lr)
    assert sr.min() < 0
    assert sr.max() > 1
    assert uint8.dtype == np.uint8
    assert np.array_equal(uint8[0], pixels.from_network(sr, np.dtype(np.uint8), 3))
    assert (non_finite.shape, float(non_finite)) == ((), 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_non_finite_value_is_reported(value: float) -> None:
    model = with_uint8_output(tiny_networks.build(tiny_networks.tiny_spec(2)))
    lr = picture(17, 23)
    lr[0, 1, 5, 6] = value
    assert float(run_network(model, lr)[2]) == 1


# Signed integers.


def quantizer(kind: type[np.generic], scale: float) -> onnx.ModelProto:
    """A tensor x to eight bits and back to y."""
    values = {"scale": np.float32(scale), "zero": np.zeros((), kind)}
    names = ["scale", "zero"]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y"))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *names], ["eight"]),
        helper.make_node("DequantizeLinear", ["eight", *names], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    body = helper.make_graph(nodes, "quantizer", [x], [y], constants)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_signed_keeps_range_with_half_the_values() -> None:
    x, scale = np.linspace(0, 3, 3001, dtype=np.float32), 2 / 255
    (unsigned,) = run(quantizer(np.uint8, scale), {"x": x}, ["y"])
    (signed,) = run(with_signed_int8(quantizer(np.uint8, scale)), {"x": x}, ["y"])
    assert (unsigned.max(), signed.max()) == (pytest.approx(2), pytest.approx(2))
    assert (len(np.unique(unsigned)), len(np.unique(signed))) == (256, 128)
    assert np.abs(signed - np.minimum(x, 2)).max() <= 1.01 / 127


def test_signed_quantizer_stays_as_it_is() -> None:
    before, after = quantizer(np.int8, 0.01), with_signed_int8(quantizer(np.int8, 0.01))
    assert before.SerializeToString() == after.SerializeToString()


@pytest.mark.parametrize("path", INT8, ids=lambda path: path.stem)
def test_shipped_int8_graph_is_signed(path: Path) -> None:
    zeros = {t.data_type for t in onnx.load(path).graph.initializer if t.name.endswith(".zero")}
    assert zeros == {TensorProto.INT8, TensorProto.UINT8}, "the file itself has both"
    made = onnx.load_from_string(graph(path, "fp32"))
    assert {t.data_type for t in made.graph.initializer if t.name.endswith(".zero")} == {TensorProto.INT8}
