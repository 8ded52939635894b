"""A graph rewritten into halves: what is half, what stays float32, and what it costs."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_networks
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from srcli.backends.rewrite import to_float32, to_half
from srcli.errors import ModelFileError, UsageError
from srcli.imaging import pixels
from srcli.imaging.metrics import decibels
from srcli.models import catalog
from srcli.models.spec import METADATA_KEY, WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY, ModelSpec

FLOAT, HALF, UINT8, INT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT8
KINDS = {"float32": FLOAT, "float16": HALF, "uint8": UINT8}

LEAST_PSNR = 75.0
"""dB of a tiny network in halves against float32. A rounding is off by 2**-12 of a value, 2**-13.8 in the
mean; a dozen of them one after the other, on values around 0.3, come to 7e-5 or 83 dB. Eight are allowed for
sums of products that are halves, too, as here."""


def model(scale: int = 2, stored_in_halves: bool = False) -> onnx.ModelProto:
    return tiny_networks.build(tiny_networks.tiny_spec(scale), seed=scale, half=stored_in_halves)


def photograph(height: int = 9, width: int = 11) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def planes(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def run(network: onnx.ModelProto, lr: NDArray[np.generic]) -> NDArray[np.generic]:
    """On ONNX Runtime, which widens halves and computes in float32."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result: NDArray[np.generic] = session.run(["sr"], {"lr": lr})[0]
    return result


def in_halves(network: onnx.ModelProto, lr: NDArray[np.generic]) -> NDArray[np.generic]:
    """In the reference implementation, which computes in halves, sums included."""
    result: NDArray[np.generic] = ReferenceEvaluator(network).run(None, {"lr": lr})[0]  # type: ignore[assignment]
    return result


def psnr(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return decibels(float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)), peak=1.0)


def network_of(
    nodes: list[onnx.NodeProto], weights: dict[str, NDArray[np.generic]], elem_type: int = FLOAT
) -> onnx.ModelProto:
    ports = [helper.make_tensor_value_info(name, elem_type, ["n", 3, "h", "w"]) for name in ("lr", "sr")]
    constants = [numpy_helper.from_array(np.asarray(values), name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "net", ports[:1], ports[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


# What the new graph holds.


@pytest.mark.parametrize("io", KINDS)
@pytest.mark.parametrize("stored_in_halves", [False, True])
def test_the_body_is_half_and_the_ends_are_not(stored_in_halves: bool, io: str) -> None:
    half = to_half(model(stored_in_halves=stored_in_halves), io)
    onnx.checker.check_model(half, full_check=True)  # infers every type, and strictly
    ports = [*half.graph.input, *half.graph.output]
    assert [port.type.tensor_type.elem_type for port in ports] == [KINDS[io]] * 2
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    for node in half.graph.node:
        if node.op_type == "Conv":
            assert [types[name] for name in node.input[1:]] == [HALF, HALF]
    assert set(types.values()) == {FLOAT, HALF}
    wide = {node.op_type for node in half.graph.node if any(types.get(n) == FLOAT for n in node.input)}
    assert wide <= {"Sub", "Add", "Mul", "Clip"}, "pixel range and mean shift, next to the ports"


@pytest.mark.parametrize("name", ["edsr-baseline-x4", "mdsr-baseline-x2"])
def test_pixels_of_shipped_networks_stay_float32(name: str) -> None:
    """From the last convolution on, through PixelShuffle and what is put in its place at the border."""
    half = to_half(onnx.load(catalog.MODELS_FOLDER / f"{name}.onnx"))
    values = onnx.shape_inference.infer_shapes(half, strict_mode=True).graph.value_info
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    makers = {output: node for node in half.graph.node for output in node.output}
    after, waiting = set[str](), ["sr"]
    while waiting:  # from the output back to the convolutions
        for name in makers[waiting.pop()].input:
            if name in makers and makers[name].op_type not in ("Conv", "Cast", "Sub") and name not in after:
                after.add(name)
                waiting.append(name)
    assert {makers[name].op_type for name in after} == {"Add", "Concat", "Slice", "DepthToSpace"}
    assert {types[name] for name in after} == {FLOAT}
    read = {name for node in half.graph.node if node.op_type == "Conv" for name in node.input[:1]}
    assert {types[name] for name in read} == {HALF}


def test_weights_stored_in_halves_are_no_longer_widened() -> None:
    half = to_half(model(stored_in_halves=True))
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    weights = {tensor.name for tensor in half.graph.initializer}
    assert len(casts) == 2, "into the body and out of it"
    assert not any(cast.input[0] in weights for cast in casts)
    lr = pixels.to_network(photograph())
    plain = run(to_half(model()), lr)
    np.testing.assert_array_equal(run(half, lr), plain)  # rounded then or now, they are the same halves


def test_a_cast_comes_first_and_last_where_pixels_are_bytes() -> None:
    nodes = to_half(model(), "uint8").graph.node
    assert [(nodes[i].op_type, nodes[i].attribute[0].i) for i in (0, -1)] == [
        ("Cast", FLOAT),
        ("Cast", UINT8),
    ]
    assert (list(nodes[0].input), list(nodes[-1].output)) == (["lr"], ["sr"])


@pytest.mark.parametrize("io", ["float32", "float16"])
def test_halves_may_come_again(io: str) -> None:
    once = to_half(model(), io)
    again = to_half(once)
    lr = pixels.to_network(photograph())
    np.testing.assert_array_equal(run(again, lr), run(to_half(model()), lr))
    assert len(again.graph.node) == len(to_half(model()).graph.node)


def test_metadata_tell_the_truth(tmp_path: Path) -> None:
    original = model()
    entries = {entry.key: entry.value for entry in original.metadata_props}
    more = {WEIGHTS_FILE_KEY: "w.weights", WEIGHTS_SHA256_KEY: "00", "author": "somebody"}
    helper.set_model_props(original, entries | more)
    onnx.save(
        original, tmp_path / "m.onnx", save_as_external_data=True, location="w.weights", size_threshold=0
    )
    half = to_half(onnx.load(tmp_path / "m.onnx"))
    found = {entry.key: entry.value for entry in half.metadata_props}
    spec = ModelSpec.from_json(found.pop(METADATA_KEY))
    assert (spec.name, spec.precision, spec.arithmetic) == ("tiny", "fp16", "fp16")
    assert found == {"author": "somebody"}
    assert not any(tensor.external_data for tensor in half.graph.initializer)
    assert original.graph.node[0].op_type == "Mul", "the model given is left as it was"


# What it computes.


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_halves_stay_close_to_float32(scale: int) -> None:
    lr = pixels.to_network(photograph())
    exact = run(model(scale), lr)
    assert LEAST_PSNR < psnr(in_halves(to_half(model(scale)), lr), exact) < 110, "above: not in halves"


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_kind_of_port_gives_the_same_pixels(scale: int) -> None:
    """Bit for bit: float32 ends multiply and round as `to_network` and `from_network` do."""
    image = photograph()
    sr = run(to_half(model(scale)), pixels.to_network(image))
    levels = run(to_half(model(scale), "uint8"), planes(image))
    assert levels.dtype == np.uint8
    expected = pixels.from_network(np.asarray(sr, np.float32), np.dtype(np.uint8), 3)
    np.testing.assert_array_equal(levels, planes(expected))
    halves = run(to_half(model(scale), "float16"), pixels.to_network(image).astype(np.float16))
    np.testing.assert_allclose(halves, sr.astype(np.float16), atol=2**-10)  # the input is off by 2**-12


def test_bytes_through_an_identity_come_back() -> None:
    """A level / 255 as a half is off by 2**-12 at most, or a sixteenth of a level: every level returns."""
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    identity = network_of([helper.make_node("Conv", ["lr", "eye"], ["sr"])], {"eye": eye})
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    np.testing.assert_array_equal(in_halves(to_half(identity, "uint8"), every), every)


def test_bytes_are_rounded_and_clipped_as_pixels_are() -> None:
    """A network whose output is a constant of our choice: every level and beyond, a hundredth or more away
    from halves, where a product in float32 (off by 2**-17 of a level) cannot fall on the other side."""
    levels = np.arange(-150, 400)[:, None] + np.array([0, 0.25, 0.49, 0.51, 0.75])
    wanted = np.append((levels / 255).astype(np.float32), np.float32(0.5))  # 127.5: a half in any precision
    image = np.broadcast_to(wanted, (1, 3, 1, wanted.size)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["lr", "nothing"], ["black"]),
        helper.make_node("Add", ["black", "image"], ["sr"]),
    ]
    constant = network_of(nodes, {"nothing": np.zeros((3, 3, 1, 1), np.float32), "image": image})
    found = in_halves(to_half(constant, "uint8"), np.zeros(image.shape, np.uint8))
    expected = planes(pixels.from_network(image, np.dtype(np.uint8), 3))
    np.testing.assert_array_equal(found, expected)
    assert set(np.unique(found)) == set(range(256))
    assert found[0, 0, 0, -1] == 128


def test_other_networks() -> None:
    """Constants among the nodes, a Resize whose scales must stay float32, integers, a skip from the input."""
    weight = np.random.default_rng(0).normal(0, 0.1, (3, 3, 3, 3)).astype(np.float32)
    twice = np.array([1, 1, 2, 2], np.float32)
    nodes = [
        helper.make_node("Constant", [], ["weight"], value=numpy_helper.from_array(weight)),
        helper.make_node("Constant", [], ["low"], value_float=0.25),
        helper.make_node("Resize", ["lr", "", "twice"], ["large"], mode="nearest"),
        helper.make_node("Conv", ["large", "weight"], ["detail"], pads=[1] * 4),
        helper.make_node("Shape", ["detail"], ["size"]),
        helper.make_node("Reshape", ["detail", "size"], ["same"]),
        helper.make_node("Cast", ["same"], ["wide"], to=FLOAT),
        helper.make_node("Add", ["wide", "large"], ["sum"]),
        helper.make_node("Clip", ["sum", "low"], ["sr"]),
    ]
    network, lr = network_of(nodes, {"twice": twice}), pixels.to_network(photograph())
    half = to_half(network)
    onnx.checker.check_model(half, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert types == {"twice": FLOAT, "weight": HALF, "low": FLOAT}
    np.testing.assert_allclose(run(half, lr), run(network, lr), atol=2**-10)  # a few roundings of 2**-12


def test_back_in_float32() -> None:
    """What a network in halves is where float32 was asked for: rounded weights, and nothing else rounded."""
    lr, stored = pixels.to_network(photograph()), model(stored_in_halves=True)
    wide = to_float32(to_half(model()))
    onnx.checker.check_model(wide, full_check=True)
    assert not any(tensor.data_type == HALF for tensor in wide.graph.initializer)
    assert not any(node.op_type == "Cast" for node in wide.graph.node)
    np.testing.assert_allclose(in_halves(wide, lr), run(stored, lr), atol=1e-6)  # sums in another order
    spec = ModelSpec.from_json(next(e.value for e in wide.metadata_props if e.key == METADATA_KEY))
    assert (spec.precision, spec.arithmetic) == ("fp16", "fp32")
    np.testing.assert_array_equal(run(to_half(wide), lr), run(to_half(model()), lr))


def test_a_network_in_eight_bits_keeps_them() -> None:
    """Its scales become halves like every other float, and its spec still says int8."""
    spec = ModelSpec("net", "other", 1, precision="int8", arithmetic="int8")
    weights: dict[str, NDArray[np.generic]] = {
        "step": np.array(1 / 127, np.float32),
        "zero": np.array(0, np.int8),
        "kernel": np.random.default_rng(0).integers(-127, 128, (3, 3, 3, 3), np.int8),
        "steps": np.array([1e-3, 2e-3, 5e-4], np.float32),
        "zeros": np.zeros(3, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["lr", "step", "zero"], ["eight"]),
        helper.make_node("DequantizeLinear", ["eight", "step", "zero"], ["float"]),
        helper.make_node("DequantizeLinear", ["kernel", "steps", "zeros"], ["weight"], axis=0),
        helper.make_node("Conv", ["float", "weight"], ["sr"], pads=[1] * 4),
    ]
    network, lr = network_of(nodes, weights), pixels.to_network(photograph())
    helper.set_model_props(network, {METADATA_KEY: spec.to_json()})
    half = to_half(network)
    onnx.checker.check_model(half, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert [types[name] for name in ("step", "steps", "zero", "kernel")] == [HALF, HALF, INT8, INT8]
    assert {entry.value for entry in half.metadata_props} == {spec.to_json()}
    # As halves, steps and pixels are off by 2**-12, and one pixel in sixteen rounds to another step:
    # at most three of 27, each by 1/127 times a kernel of 0.25.
    np.testing.assert_allclose(run(half, lr), run(network, lr), atol=3 * 0.25 / 127 + 1e-3)


@pytest.mark.parametrize("io", KINDS)
def test_tensorrt_takes_every_kind(io: str) -> None:
    """Strongly typed, as TensorRT 11 always is; needs no GPU."""
    api = pytest.importorskip("tensorrt_rtx")
    from srcli.backends.tensorrt.build import Log

    builder = api.Builder(Log.of(api).logger)
    network = builder.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = api.OnnxParser(network, Log.of(api).logger)
    assert parser.parse(to_half(model(), io).SerializeToString()), parser.get_error(0).desc()
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    profile.set_shape("lr", (1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
    ports = {network.get_input(0).dtype, network.get_output(0).dtype}
    assert ports == {{"float32": api.float32, "float16": api.float16, "uint8": api.uint8}[io]}


# What cannot be had.


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="int16"):
        to_half(model(), "int16")


def test_a_weight_beyond_the_largest_half_is_refused() -> None:
    eye = np.full((3, 3, 1, 1), 7e4, np.float32)
    with pytest.raises(ModelFileError, match="7e\\+04"):
        to_half(network_of([helper.make_node("Conv", ["lr", "eye"], ["sr"])], {"eye": eye}))


def test_networks_of_another_kind_are_refused() -> None:
    copy = [helper.make_node("Identity", ["lr"], ["sr"])]
    with pytest.raises(ModelFileError, match="neither float32 nor float16"):
        to_half(network_of(copy, {}, UINT8))
    two = network_of(copy, {})
    two.graph.input.append(helper.make_tensor_value_info("other", FLOAT, [1]))
    with pytest.raises(ModelFileError, match="one input"):
        to_half(two)
    body = helper.make_graph(copy, "body", [], [])
    nodes = [helper.make_node("If", ["yes"], ["sr"], then_branch=body, else_branch=body)]
    with pytest.raises(ModelFileError, match="If holds a graph"):
        to_half(network_of(nodes, {"yes": np.array(True)}))
