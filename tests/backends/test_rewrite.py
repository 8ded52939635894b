"""Graphs rewritten to fp16 and back: which tensors are fp16, and how close the results are."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_networks
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from srcli.backends.rewrite import to_fp16, to_fp32
from srcli.errors import ModelFileError, UsageError
from srcli.imaging import pixels
from srcli.imaging.metrics import decibels
from srcli.models import catalog
from srcli.models.spec import METADATA_KEY, WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY, ModelSpec

FLOAT, FP16, UINT8, INT8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.INT8
KINDS = {"float32": FLOAT, "float16": FP16, "uint8": UINT8}

LEAST_PSNR = 75.0
"""dB of a tiny network in fp16 against fp32. A rounding is off by at most 2**-12 of a value, 2**-13.8 in the
mean; a dozen in a row on values around 0.3 add up to 7e-5 or 83 dB. 8 dB less is for sums in fp16."""


def model(scale: int = 2, stored_in_fp16: bool = False) -> onnx.ModelProto:
    return tiny_networks.build(tiny_networks.tiny_spec(scale), seed=scale, half=stored_in_fp16)


def photograph(height: int = 9, width: int = 11) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def planes(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None])


def run(network: onnx.ModelProto, lr: NDArray[np.generic]) -> NDArray[np.generic]:
    """On ONNX Runtime, which computes fp16 graphs in fp32."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        network.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result: NDArray[np.generic] = session.run(["sr"], {"lr": lr})[0]
    return result


def run_in_fp16(network: onnx.ModelProto, lr: NDArray[np.generic]) -> NDArray[np.generic]:
    """In ONNX's reference implementation, which computes in fp16, sums included."""
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
@pytest.mark.parametrize("stored_in_fp16", [False, True])
def test_body_is_fp16_and_io_is_not(stored_in_fp16: bool, io: str) -> None:
    fp16 = to_fp16(model(stored_in_fp16=stored_in_fp16), io)
    onnx.checker.check_model(fp16, full_check=True)  # infers every type, and strictly
    ports = [*fp16.graph.input, *fp16.graph.output]
    assert [port.type.tensor_type.elem_type for port in ports] == [KINDS[io]] * 2
    types = {tensor.name: tensor.data_type for tensor in fp16.graph.initializer}
    for node in fp16.graph.node:
        if node.op_type == "Conv":
            assert [types[name] for name in node.input[1:]] == [FP16, FP16]
    assert set(types.values()) == {FLOAT, FP16}
    fp32 = {node.op_type for node in fp16.graph.node if any(types.get(n) == FLOAT for n in node.input)}
    assert fp32 <= {"Sub", "Add", "Mul", "Clip"}, "pixel range and mean shift, next to input and output"


@pytest.mark.parametrize("name", ["edsr-baseline-x4", "mdsr-baseline-x2"])
def test_pixels_of_shipped_network_stay_fp32(name: str) -> None:
    """From the last convolution on, through PixelShuffle and the strips added at the border."""
    fp16 = to_fp16(onnx.load(catalog.MODELS_FOLDER / f"{name}.onnx"))
    values = onnx.shape_inference.infer_shapes(fp16, strict_mode=True).graph.value_info
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    makers = {output: node for node in fp16.graph.node for output in node.output}
    after, waiting = set[str](), ["sr"]
    while waiting:  # from the output back to the convolutions
        for name in makers[waiting.pop()].input:
            if name in makers and makers[name].op_type not in ("Conv", "Cast", "Sub") and name not in after:
                after.add(name)
                waiting.append(name)
    assert {makers[name].op_type for name in after} == {"Add", "Concat", "Slice", "DepthToSpace"}
    assert {types[name] for name in after} == {FLOAT}
    read = {name for node in fp16.graph.node if node.op_type == "Conv" for name in node.input[:1]}
    assert {types[name] for name in read} == {FP16}


def test_fp16_weights_need_no_cast() -> None:
    fp16 = to_fp16(model(stored_in_fp16=True))
    casts = [node for node in fp16.graph.node if node.op_type == "Cast"]
    weights = {tensor.name for tensor in fp16.graph.initializer}
    assert len(casts) == 2, "into the body and out of it"
    assert not any(cast.input[0] in weights for cast in casts)
    lr = pixels.to_network(photograph())
    plain = run(to_fp16(model()), lr)
    np.testing.assert_array_equal(run(fp16, lr), plain)  # the weights round to the same fp16 values


def test_uint8_io_begins_and_ends_with_cast() -> None:
    nodes = to_fp16(model(), "uint8").graph.node
    assert [(nodes[i].op_type, nodes[i].attribute[0].i) for i in (0, -1)] == [
        ("Cast", FLOAT),
        ("Cast", UINT8),
    ]
    assert (list(nodes[0].input), list(nodes[-1].output)) == (["lr"], ["sr"])


@pytest.mark.parametrize("io", ["float32", "float16"])
def test_fp16_network_can_be_rewritten_again(io: str) -> None:
    once = to_fp16(model(), io)
    again = to_fp16(once)
    lr = pixels.to_network(photograph())
    np.testing.assert_array_equal(run(again, lr), run(to_fp16(model()), lr))
    assert len(again.graph.node) == len(to_fp16(model()).graph.node)


def test_metadata_describe_the_new_file(tmp_path: Path) -> None:
    original = model()
    entries = {entry.key: entry.value for entry in original.metadata_props}
    more = {WEIGHTS_FILE_KEY: "w.weights", WEIGHTS_SHA256_KEY: "00", "author": "somebody"}
    helper.set_model_props(original, entries | more)
    onnx.save(
        original, tmp_path / "m.onnx", save_as_external_data=True, location="w.weights", size_threshold=0
    )
    fp16 = to_fp16(onnx.load(tmp_path / "m.onnx"))
    found = {entry.key: entry.value for entry in fp16.metadata_props}
    spec = ModelSpec.from_json(found.pop(METADATA_KEY))
    assert (spec.name, spec.precision, spec.arithmetic) == ("tiny", "fp16", "fp16")
    assert found == {"author": "somebody"}
    assert not any(tensor.external_data for tensor in fp16.graph.initializer)
    assert original.graph.node[0].op_type == "Mul", "the model given is left as it was"


# What it computes.


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_fp16_is_close_to_fp32(scale: int) -> None:
    lr = pixels.to_network(photograph())
    exact = run(model(scale), lr)
    assert LEAST_PSNR < psnr(run_in_fp16(to_fp16(model(scale)), lr), exact) < 110, "above: not in fp16"


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_io_dtype_gives_the_same_pixels(scale: int) -> None:
    """Equal to the bit: fp32 I/O multiplies and rounds like `to_network` and `from_network`."""
    image = photograph()
    sr = run(to_fp16(model(scale)), pixels.to_network(image))
    uint8 = run(to_fp16(model(scale), "uint8"), planes(image))
    assert uint8.dtype == np.uint8
    expected = pixels.from_network(np.asarray(sr, np.float32), np.dtype(np.uint8), 3)
    np.testing.assert_array_equal(uint8, planes(expected))
    float16 = run(to_fp16(model(scale), "float16"), pixels.to_network(image).astype(np.float16))
    np.testing.assert_allclose(float16, sr.astype(np.float16), atol=2**-10)  # the input is off by 2**-12


def test_uint8_survives_an_identity() -> None:
    """n / 255 in fp16 is off by at most 2**-12, a sixteenth of 1/255: every n of 0-255 returns."""
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    identity = network_of([helper.make_node("Conv", ["lr", "eye"], ["sr"])], {"eye": eye})
    every = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, axis=1)
    np.testing.assert_array_equal(run_in_fp16(to_fp16(identity, "uint8"), every), every)


def test_uint8_output_rounds_and_clips_like_from_network() -> None:
    """On a network with a constant output: multiples of 1/255 in 0-1 and beyond, 0.01/255 or more away from
    midpoints, so that a float32 product (off by 2**-17/255) rounds to the same side."""
    values = np.arange(-150, 400)[:, None] + np.array([0, 0.25, 0.49, 0.51, 0.75])
    wanted = np.append((values / 255).astype(np.float32), np.float32(0.5))  # 127.5 is exact in any precision
    image = np.broadcast_to(wanted, (1, 3, 1, wanted.size)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["lr", "nothing"], ["black"]),
        helper.make_node("Add", ["black", "image"], ["sr"]),
    ]
    constant = network_of(nodes, {"nothing": np.zeros((3, 3, 1, 1), np.float32), "image": image})
    found = run_in_fp16(to_fp16(constant, "uint8"), np.zeros(image.shape, np.uint8))
    expected = planes(pixels.from_network(image, np.dtype(np.uint8), 3))
    np.testing.assert_array_equal(found, expected)
    assert set(np.unique(found)) == set(range(256))
    assert found[0, 0, 0, -1] == 128


def test_network_with_constants_resize_and_skip() -> None:
    """Constant nodes, a Resize whose scales must stay float32, integers, a skip from the input."""
    weight = np.random.default_rng(0).normal(0, 0.1, (3, 3, 3, 3)).astype(np.float32)
    twice = np.array([1, 1, 2, 2], np.float32)
    nodes = [
        helper.make_node("Constant", [], ["weight"], value=numpy_helper.from_array(weight)),
        helper.make_node("Constant", [], ["low"], value_float=0.25),
        helper.make_node("Resize", ["lr", "", "twice"], ["large"], mode="nearest"),
        helper.make_node("Conv", ["large", "weight"], ["detail"], pads=[1] * 4),
        helper.make_node("Shape", ["detail"], ["size"]),
        helper.make_node("Reshape", ["detail", "size"], ["same"]),
        helper.make_node("Cast", ["same"], ["float"], to=FLOAT),
        helper.make_node("Add", ["float", "large"], ["sum"]),
        helper.make_node("Clip", ["sum", "low"], ["sr"]),
    ]
    network, lr = network_of(nodes, {"twice": twice}), pixels.to_network(photograph())
    fp16 = to_fp16(network)
    onnx.checker.check_model(fp16, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in fp16.graph.initializer}
    assert types == {"twice": FLOAT, "weight": FP16, "low": FLOAT}
    np.testing.assert_allclose(run(fp16, lr), run(network, lr), atol=2**-10)  # a few roundings of 2**-12


def test_fp16_network_back_to_fp32() -> None:
    """The weights stay rounded to fp16, and nothing else is rounded."""
    lr, stored = pixels.to_network(photograph()), model(stored_in_fp16=True)
    fp32 = to_fp32(to_fp16(model()))
    onnx.checker.check_model(fp32, full_check=True)
    assert not any(tensor.data_type == FP16 for tensor in fp32.graph.initializer)
    assert not any(node.op_type == "Cast" for node in fp32.graph.node)
    np.testing.assert_allclose(run_in_fp16(fp32, lr), run(stored, lr), atol=1e-6)  # sums in another order
    spec = ModelSpec.from_json(next(e.value for e in fp32.metadata_props if e.key == METADATA_KEY))
    assert (spec.precision, spec.arithmetic) == ("fp16", "fp32")
    np.testing.assert_array_equal(run(to_fp16(fp32), lr), run(to_fp16(model()), lr))


def test_int8_network_stays_int8() -> None:
    """Its quantization scales become fp16 like other floats; its spec still says int8."""
    spec = ModelSpec("net", "other", 1, precision="int8", arithmetic="int8")
    weights: dict[str, NDArray[np.generic]] = {
        "scale": np.array(1 / 127, np.float32),
        "zero": np.array(0, np.int8),
        "kernel": np.random.default_rng(0).integers(-127, 128, (3, 3, 3, 3), np.int8),
        "scales": np.array([1e-3, 2e-3, 5e-4], np.float32),
        "zeros": np.zeros(3, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["lr", "scale", "zero"], ["eight"]),
        helper.make_node("DequantizeLinear", ["eight", "scale", "zero"], ["float"]),
        helper.make_node("DequantizeLinear", ["kernel", "scales", "zeros"], ["weight"], axis=0),
        helper.make_node("Conv", ["float", "weight"], ["sr"], pads=[1] * 4),
    ]
    network, lr = network_of(nodes, weights), pixels.to_network(photograph())
    helper.set_model_props(network, {METADATA_KEY: spec.to_json()})
    fp16 = to_fp16(network)
    onnx.checker.check_model(fp16, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in fp16.graph.initializer}
    assert [types[name] for name in ("scale", "scales", "zero", "kernel")] == [FP16, FP16, INT8, INT8]
    assert {entry.value for entry in fp16.metadata_props} == {spec.to_json()}
    # In fp16, scales and pixels are off by 2**-12, and one pixel in sixteen rounds to another integer:
    # at most three of 27, each by 1/127 times a kernel of 0.25.
    np.testing.assert_allclose(run(fp16, lr), run(network, lr), atol=3 * 0.25 / 127 + 1e-3)


@pytest.mark.parametrize("io", KINDS)
def test_tensorrt_takes_every_io_dtype(io: str) -> None:
    """Strongly typed, as TensorRT 11 always is; needs no GPU."""
    api = pytest.importorskip("tensorrt_rtx")
    from srcli.backends.tensorrt.build import Log

    builder = api.Builder(Log.of(api).logger)
    network = builder.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = api.OnnxParser(network, Log.of(api).logger)
    assert parser.parse(to_fp16(model(), io).SerializeToString()), parser.get_error(0).desc()
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    profile.set_shape("lr", (1, 3, 8, 8), (1, 3, 8, 8), (1, 3, 8, 8))
    config.add_optimization_profile(profile)
    assert builder.build_serialized_network(network, config) is not None
    ports = {network.get_input(0).dtype, network.get_output(0).dtype}
    assert ports == {{"float32": api.float32, "float16": api.float16, "uint8": api.uint8}[io]}


# What cannot be had.


def test_unknown_io_dtype_is_refused() -> None:
    with pytest.raises(UsageError, match="int16"):
        to_fp16(model(), "int16")


def test_weight_beyond_fp16_range_is_refused() -> None:
    eye = np.full((3, 3, 1, 1), 7e4, np.float32)
    with pytest.raises(ModelFileError, match="7e\\+04"):
        to_fp16(network_of([helper.make_node("Conv", ["lr", "eye"], ["sr"])], {"eye": eye}))


def test_unsupported_network_is_refused() -> None:
    copy = [helper.make_node("Identity", ["lr"], ["sr"])]
    with pytest.raises(ModelFileError, match="neither float32 nor float16"):
        to_fp16(network_of(copy, {}, UINT8))
    two = network_of(copy, {})
    two.graph.input.append(helper.make_tensor_value_info("other", FLOAT, [1]))
    with pytest.raises(ModelFileError, match="one input"):
        to_fp16(two)
    body = helper.make_graph(copy, "body", [], [])
    nodes = [helper.make_node("If", ["yes"], ["sr"], then_branch=body, else_branch=body)]
    with pytest.raises(ModelFileError, match="If has a subgraph"):
        to_fp16(network_of(nodes, {"yes": np.array(True)}))
