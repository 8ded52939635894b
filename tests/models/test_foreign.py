"""Networks of others: what one probe finds out, and that they then run right or are refused for a reason."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from srcli import Upscaler
from srcli.errors import ModelFileError
from srcli.models import catalog, foreign
from srcli.models.spec import Feed, ModelSpec

NEAREST = helper.make_node("Resize", ["x", "", "scales"], ["big"], mode="nearest")
SCALES = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
IMAGE = np.random.default_rng(3).integers(0, 256, (23, 27, 3), np.uint8)
NEAREST_OF_IMAGE = IMAGE.repeat(2, 0).repeat(2, 1)


def network(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, Any] | None = None,
    *,
    dtype: int = TensorProto.FLOAT,
    shape: Sequence[int | str] = ("n", 3, "h", "w"),
    more: Sequence[str] = (),
    output: str = "y",
) -> Path:
    """An ONNX file without a description; `more` are names of further inputs, of one number each."""
    one = onnx.TensorProto.DataType.Value("FLOAT")
    inputs = [helper.make_tensor_value_info("x", dtype, list(shape))]
    inputs += [helper.make_tensor_value_info(name, one, [1]) for name in more]
    outputs = [helper.make_tensor_value_info(output, dtype, ["n", 3, "H", "W"])]
    weights = [SCALES, *(numpy_helper.from_array(np.asarray(v), k) for k, v in (constants or {}).items())]
    graph = helper.make_graph(list(nodes), "foreign", inputs, outputs, weights)
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def result(path: Path, backend: str) -> np.ndarray[Any, Any]:
    return np.asarray(Upscaler(path, 2, backend=backend, precision="fp32", device="cpu")(IMAGE))


BACKENDS = pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])


@BACKENDS
def test_a_network_on_0_to_1_is_taken_for_one(tmp_path: Path, backend: str) -> None:
    path = network(tmp_path / "a.onnx", [NEAREST], output="big")
    file = catalog.resolve(path, 2)
    assert file.spec.feed == Feed()
    assert file.note == "a.onnx carries no description: found x2, halo assumed 32"
    np.testing.assert_array_equal(result(path, backend), NEAREST_OF_IMAGE)


@BACKENDS
def test_halves_in_and_out(tmp_path: Path, backend: str) -> None:
    add = helper.make_node("Mul", ["big", "one"], ["y"])
    path = network(tmp_path / "a.onnx", [NEAREST, add], {"one": np.float16(1)}, dtype=TensorProto.FLOAT16)
    assert np.abs(result(path, backend).astype(int) - NEAREST_OF_IMAGE).max() <= 1


@BACKENDS
@pytest.mark.parametrize(
    ("white", "out_white", "words"),
    [
        (255, 255, "takes 0-255,"),
        (1, 255, "takes 0-1 and gives 0-255"),
        (255, 1, "takes 0-255 and gives 0-1"),
    ],
)
def test_the_range_is_found(tmp_path: Path, backend: str, white: float, out_white: float, words: str) -> None:
    """Brighter by two levels, clipped to its range: on 0-1 a network on 0-255 gives nothing but white."""
    nodes = [
        NEAREST,
        helper.make_node("Mul", ["big", "ratio"], ["scaled"]),
        helper.make_node("Add", ["scaled", "two"], ["brighter"]),
        helper.make_node("Clip", ["brighter", "low", "high"], ["y"]),
    ]
    constants = {"ratio": out_white / white, "two": 2 * out_white / 255, "low": 0, "high": out_white}
    path = network(tmp_path / "a.onnx", nodes, {k: np.float32(v) for k, v in constants.items()})
    file = catalog.resolve(path, 2)
    assert file.spec.feed == Feed(white, out_white)
    assert words in file.note
    np.testing.assert_array_equal(result(path, backend), np.minimum(NEAREST_OF_IMAGE.astype(int) + 2, 255))


def deep(multiple: int) -> list[onnx.NodeProto]:
    """Nodes that fail, or give other sizes, unless sides are multiples."""
    return [
        helper.make_node("SpaceToDepth", ["x"], ["packed"], blocksize=multiple),
        helper.make_node("DepthToSpace", ["packed"], ["same"], blocksize=multiple),
        helper.make_node("Resize", ["same", "", "scales"], ["y"], mode="nearest"),
    ]


@BACKENDS
@pytest.mark.parametrize("multiple", [2, 4, 7, 8, 64])
def test_sizes_are_filled_up_to_the_multiple_and_cut(tmp_path: Path, backend: str, multiple: int) -> None:
    path = network(tmp_path / "a.onnx", deep(multiple))
    file = catalog.resolve(path, 2)
    assert file.spec.feed.multiple == multiple
    assert f"filled up to multiples of {multiple}" in file.note
    np.testing.assert_array_equal(result(path, backend), NEAREST_OF_IMAGE)


@BACKENDS
def test_a_network_that_rounds_sizes_down_gets_multiples(tmp_path: Path, backend: str) -> None:
    """It pools by 4 and enlarges by 8, and gives no error for other sides, but another size."""
    nodes = [
        helper.make_node("AveragePool", ["x"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Resize", ["small", "", "eight"], ["y"], mode="linear"),
    ]
    path = network(tmp_path / "a.onnx", nodes, {"eight": np.array([1, 1, 8, 8], np.float32)})
    assert catalog.resolve(path, 2).spec.feed.multiple == 4
    assert result(path, backend).shape == (46, 54, 3)


def refusal(path: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        foreign.describe(path)
    assert caught.value.hint
    return caught.value.message


def test_what_cannot_be_served_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    times = helper.make_node("Mul", ["big", "strength"], ["y"])
    assert "takes 2 inputs (x, strength)" in refusal(network(path, [NEAREST, times], more=["strength"]))
    fixed = refusal(network(path, [NEAREST], shape=(1, 3, 64, 48), output="big"))
    assert "takes (1, 3, 64, 48), pictures of one size only" in fixed
    gray = refusal(network(path, [NEAREST], shape=(1, 1, "h", "w"), output="big"))
    assert "takes (1, 1, ?, ?) instead of (N, 3, H, W)" in gray
    last = refusal(network(path, [NEAREST], shape=(1, "h", "w", 3), output="big"))
    assert "takes (1, ?, ?, 3) instead of (N, 3, H, W)" in last
    integers = refusal(network(path, [NEAREST], dtype=TensorProto.UINT8, output="big"))
    assert "takes uint8 instead of float32 or float16" in integers
    nothing = helper.make_node("Sub", ["big", "big"], ["y"])
    assert "no enlarged picture" in refusal(network(path, [NEAREST, nothing]))


def test_how_a_network_is_fed_is_not_part_of_its_description() -> None:
    spec = ModelSpec("a", "other", 2, feed=Feed(255, 255, 8))
    assert "feed" not in spec.to_json()
    assert ModelSpec.from_json(spec.to_json()).feed == Feed()
