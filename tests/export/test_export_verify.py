"""The measured halo is the smallest that holds; a file that differs or loses too much is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tiny_exports import checkpoint, export, photo_batch, photograph

from srcli.errors import ExportError, UsageError
from srcli_export.calibration import charts, checked, pairs
from srcli_export.runtime import Runner, to_batch, to_uint8
from srcli_export.verify import Accuracy, check_cost, check_loss, check_parity, measure_halo

MARGIN = 4


Pixels = NDArray[np.uint8]


def blur(folder: Path, radius: int, far: float) -> Runner:
    """A 1x network: near pixels weigh 1 - far, the ring at `radius` weighs `far`."""
    kernel = np.zeros((3, 3, 2 * radius + 1, 2 * radius + 1), np.float32)
    for channel in range(3):
        kernel[channel, channel, radius, radius] = 1 - far
        kernel[channel, channel, radius, 0] = kernel[channel, channel, radius, -1] = far / 2
    node = helper.make_node("Conv", ["lr", "k"], ["sr"], pads=[radius] * 4)
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3, "h", "w"]) for n in ("lr", "sr")]
    graph = helper.make_graph([node], "blur", ports[:1], ports[1:], [numpy_helper.from_array(kernel, "k")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, folder / "blur.onnx")
    return Runner(folder / "blur.onnx")


def noise(side: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


@pytest.mark.parametrize("radius", [4, 10, 16])
def test_the_halo_is_the_smallest_that_holds(radius: int, tmp_path: Path) -> None:
    """Half the weight lies at `radius`, so nothing less will do; the exact halo given is far beyond."""
    run = blur(tmp_path, radius, far=0.5)
    assert measure_halo(run, [noise(150)], 1, exact=40) == radius + MARGIN


def test_weak_context_needs_no_halo(tmp_path: Path) -> None:
    """At most 0.3% of 255 comes from afar: under 1."""
    assert measure_halo(blur(tmp_path, 12, far=0.003), [noise(150)], 1, exact=12) == MARGIN


def test_halo_never_exceeds_the_exact_one(tmp_path: Path) -> None:
    assert measure_halo(blur(tmp_path, 8, far=0.5), [noise(150)], 1, exact=8) == 8


def test_images_of_one_tile_give_the_exact_halo(tmp_path: Path) -> None:
    assert measure_halo(blur(tmp_path, 4, far=0.5), [noise(64)], 1, exact=40) == 40
    assert measure_halo(blur(tmp_path, 20, far=0.5), [noise(70)], 1, exact=40) == 40


def test_charts_are_always_the_same_and_of_full_contrast() -> None:
    first, second = charts(), charts()
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a.dtype, a.shape[2]) == (np.uint8, 3)
        assert a.min() < 30
        assert a.max() > 225
        assert np.abs(np.diff(a.astype(int), axis=0)).max() > 50


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pairs_fit_the_scale(scale: int) -> None:
    for lr, hr in pairs(checked([*charts(), noise(101)[:, :77]]), scale):
        assert hr.shape[:2] == (lr.shape[0] * scale, lr.shape[1] * scale)
        assert max(lr.shape) <= 160


def test_uint8_round_trip_is_exact() -> None:
    image = noise(33)
    np.testing.assert_array_equal(to_uint8(to_batch(image)), image)


def test_no_calibration_images_are_refused() -> None:
    with pytest.raises(UsageError):
        checked([])


def test_a_loss_beyond_the_limit_is_refused() -> None:
    check_loss("a", Accuracy(80.0, 30.0, 0.01, 3), "fp16")
    with pytest.raises(ExportError, match=r"fp16 loses 0\.0101 dB .* more than 0\.01"):
        check_loss("a", Accuracy(80.0, 30.0, 0.0101, 3), "fp16")
    with pytest.raises(ExportError, match="a: gives infinities or NaN in fp16"):
        check_loss("a", Accuracy(float("nan"), 30.0, 0.0, 3), "fp16")
    with pytest.raises(ExportError, match="a: fp16 loses nan"):
        check_loss("a", Accuracy(80.0, 30.0, float("nan"), 3), "fp16")


def test_a_file_with_changed_weights_is_refused(tmp_path: Path) -> None:
    path, network = checkpoint(tmp_path)
    (one,) = export(path, tmp_path / "out")
    model = onnx.load(one.path)
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
    values = onnx.numpy_helper.to_array(kernel) * np.float32(1.01)
    kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
    onnx.save(model, one.path)
    with pytest.raises(ExportError, match="differs from its checkpoint"):
        check_parity(one.path, network, 2, [photo_batch()])


def test_cost_is_measured_against_the_real_image(tmp_path: Path) -> None:
    """A file whose output is far from the HR image loses what PSNR says it loses."""
    path, _ = checkpoint(tmp_path, "edsr-baseline")
    (good,) = export(path, tmp_path / "a")
    with pytest.raises(ExportError, match="cost"):
        check_cost(good.path, _brighter(good.path), [(photograph()[::2, ::2], photograph())], 2)


def _brighter(path: Path) -> Path:
    """The same network with outputs further from any image: the mean is added twice more."""
    model = onnx.load(path)
    for _ in range(2):
        last = model.graph.node[-1]
        last.output[0] = f"before_{len(model.graph.node)}"
        model.graph.node.append(onnx.helper.make_node("Add", [last.output[0], "mean"], ["sr"]))
    other = path.with_name("brighter.onnx")
    onnx.save(model, other)
    return other
