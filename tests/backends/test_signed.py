"""Integers of 0 to 255 as 0 to 127, for engines that know no others."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from srcli.backends.rewrite import with_signs
from srcli.backends.tensorrt.build import graph
from srcli.models import catalog

INT8 = sorted(catalog.MODELS_FOLDER.glob("*.int8.onnx"))


def quantiser(kind: type[np.generic], step: float) -> onnx.ModelProto:
    """A tensor to eight bits and back."""
    values = {"step": np.float32(step), "zero": np.zeros((), kind)}
    names = ["step", "zero"]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in ("x", "y")]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", *names], ["eight"]),
        helper.make_node("DequantizeLinear", ["eight", *names], ["y"]),
    ]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()]
    body = helper.make_graph(nodes, "quantiser", ports[:1], ports[1:], constants)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_the_range_stays_and_steps_are_twice_as_large() -> None:
    x, step = np.linspace(0, 3, 3001, dtype=np.float32), 2 / 255
    without, signed = run(quantiser(np.uint8, step), x), run(with_signs(quantiser(np.uint8, step)), x)
    assert (without.max(), signed.max()) == (pytest.approx(2), pytest.approx(2))
    assert (len(np.unique(without)), len(np.unique(signed))) == (256, 128)
    assert np.abs(signed - np.minimum(x, 2)).max() <= 1.01 / 127


def test_what_has_signs_stays_as_it_is() -> None:
    before, after = quantiser(np.int8, 0.01), with_signs(quantiser(np.int8, 0.01))
    assert before.SerializeToString() == after.SerializeToString()


@pytest.mark.parametrize("path", INT8, ids=lambda path: path.stem)
def test_shipped_files_go_to_tensorrt_with_signs(path: Path) -> None:
    zeros = {t.data_type for t in onnx.load(path).graph.initializer if t.name.endswith(".zero")}
    assert zeros == {TensorProto.INT8, TensorProto.UINT8}, "the file itself has both"
    made = onnx.load_from_string(graph(path, "fp32"))
    assert {t.data_type for t in made.graph.initializer if t.name.endswith(".zero")} == {TensorProto.INT8}
