"""int8 files: which convolutions, with which scales, and only if they are a gain."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_exports import Pixels, checkpoint, files, kernels, small, stored, tiny

from srcli import Upscaler
from srcli.backends.base import Batch, EngineInfo
from srcli.errors import BackendUnavailableError, ExportError, ModelFileError
from srcli.models.spec import ModelSpec, check_weights, weights_of
from srcli.settings import Settings
from srcli_export import int8 as int8_module
from srcli_export.calibration import letters
from srcli_export.exporter import Exported, export_checkpoint
from srcli_export.fuse import describe, fuse
from srcli_export.graph import QuantScales, build_model, embedded, stored_weights
from srcli_export.int8 import Timing, check_gain, choose, measure_timings, quantize
from srcli_export.layers import convolutions
from srcli_export.runtime import Runner, to_batch
from srcli_train.checkpoint import load_checkpoint


def picture() -> Pixels:
    return small()[0]


def scales_on(folder: Path, images: list[Pixels]) -> dict[str, QuantScales]:
    spec, network = tiny("edsr-baseline", 2)
    path, _ = checkpoint(folder, "edsr-baseline", 2)
    file = export_checkpoint(path, folder / "out", calibration=[picture()])[0].path
    layers = fuse(network, spec, 2)
    about = describe(load_checkpoint(path), 2, layers)
    return quantize(file, layers, stored_weights(layers, "fp32"), about, images)


def test_least_noise_for_the_work_is_chosen_up_to_the_limit() -> None:
    noise = {"loud": 9e-6, "quiet": 1e-6, "large": 4e-6, "middling": 2e-6}
    work = {"loud": 10, "quiet": 10, "large": 1000, "middling": 10}
    limit = 255 * (7e-6) ** 0.5
    assert choose(noise, work, limit * 1.001) == {"large", "quiet", "middling"}
    assert choose(noise, work, limit * 0.9) == {"large", "quiet"}
    assert choose(noise, work, 0.0) == set()


def test_dim_photographs_calibrate_for_bright_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all that is brighter would be clipped, and come out darker. Without letters, which are bright."""
    monkeypatch.setattr(int8_module, "letters", list)
    bright, dim = (scales_on(tmp_path, [photo]) for photo in (picture(), picture() // 4))
    common = bright.keys() & dim.keys()
    assert len(common) >= 3
    for name in common:
        assert dim[name].input == pytest.approx(bright[name].input, rel=0.1), (
            name
        )  # // 4 rounds, nothing else


NAME = "body.blocks.1.conv1"


def read_by(name: str, folder: Path) -> list[np.ndarray]:  # type: ignore[type-arg]
    """What a convolution reads on the photograph, on the same from black to white, and on letters."""
    model = onnx.load(next(folder.glob("*.onnx")))
    tensor = next(node.input[0] for node in model.graph.node if node.name == name)
    model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    stretched = np.rint((picture() - np.float64(picture().min())) * 255 / np.ptp(picture())).astype(np.uint8)
    shown = (picture(), stretched, *letters())
    return [Runner(Path("it"), model).values([tensor], to_batch(one))[0] for one in shown]


@pytest.mark.parametrize(("name", "least", "most"), [(NAME, -127, 127), ("body.blocks.1.conv2", 0, 255)])
def test_input_scales_have_the_least_square_error(name: str, least: int, most: int, tmp_path: Path) -> None:
    found = scales_on(tmp_path, [picture()])[name]
    assert found.signed == (least < 0)
    seen = np.concatenate([values.ravel() for values in read_by(name, tmp_path / "out")])
    tried = [np.float32(share * np.abs(seen).max() / most) for share in int8_module._RANGES]
    costs = [np.square(seen - np.clip(np.rint(seen / step), least, most) * step).sum() for step in tried]
    assert found.input == pytest.approx(tried[int(np.argmin(costs))], rel=1e-5)


def test_scales_do_not_clip_most_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_module, "_RANGES", (1.0, 0.001))
    found = scales_on(tmp_path, [picture()])[NAME]
    largest = max(np.abs(values).max() for values in read_by(NAME, tmp_path / "out"))
    assert found.input * 127 == pytest.approx(largest, rel=1e-5)


def test_int8_adds_noise_only_where_it_is_used(tmp_path: Path) -> None:
    spec, network = tiny("edsr-baseline", 2)
    layers = fuse(network, spec, 2)
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    about = describe(load_checkpoint(path), 2, layers)
    weights = embedded(stored_weights(layers, "fp32"))
    step = np.float32(1 / 127)
    kernel = np.abs(kernels(layers)["body.blocks.0.conv1"]).max(axis=(1, 2, 3)) / 127
    one = {"body.blocks.0.conv1": QuantScales(step, kernel.astype(np.float32))}
    batch = to_batch(picture())
    plain, same, eight = (
        Runner(Path("it"), build_model(layers, weights, about, int8=int8))(batch) for int8 in (None, {}, one)
    )
    np.testing.assert_array_equal(plain, same)
    assert np.abs(plain - eight).max() > 0


def test_too_much_noise_everywhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8_module, "NOISE", 0.0)
    with pytest.raises(ExportError, match="every convolution") as caught:
        scales_on(tmp_path, [picture()])
    assert "Leave int8 out" in caught.value.hint


def test_a_network_of_two_convolutions_is_refused(tmp_path: Path) -> None:
    """The first and the last are never quantized."""
    spec, network = tiny("edsr-baseline", 2)
    layers = fuse(network, spec, 2)
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    both, about = (layers[0], layers[-1]), describe(load_checkpoint(path), 2, layers)
    assert len(list(convolutions(both))) == 2
    with pytest.raises(ExportError, match="every convolution"):
        quantize(Path("none.onnx"), both, stored_weights(both, "fp32"), about, [picture()])


@pytest.mark.parametrize("kind", ["edsr", "mdsr"])
def test_first_and_last_convolutions_are_not_quantized(kind: str, request: pytest.FixtureRequest) -> None:
    for one in [one for one in request.getfixturevalue(kind) if one.spec.arithmetic == "int8"]:
        model = onnx.load(one.path)
        assert (model.opset_import[0].version, model.producer_name) == (20, "srcli")
        maker = {output: node.op_type for node in model.graph.node for output in node.output}
        eight = {}
        for node in (node for node in model.graph.node if node.op_type == "Conv"):
            quantised = [maker.get(name) == "DequantizeLinear" for name in node.input]
            assert quantised in ([True, True, False], [False] * 3), f"{node.name}: pixels, kernel, bias"
            eight[node.name] = quantised[0]
        assert not eight["head"]
        assert not any(eight[name] for name in eight if name.startswith(("upsampler", "tail")))
        assert sum(eight.values()) >= 4


def test_int8_files_share_the_weights_of_fp32_files(mdsr: list[Exported]) -> None:
    int8 = [one for one in mdsr if one.spec.arithmetic == "int8"]
    folder = int8[0].path.parent
    for one in int8:
        check_weights(one.path)
        assert one.path.stat().st_size < 40_000
        assert weights_of(one.path) == folder / "mdsr.weights"


def test_outputs_of_convolutions_are_not_quantized(edsr: list[Exported]) -> None:
    """Residual sums read them in full precision."""
    model = onnx.load(edsr[2].path)
    maker = {output: node.op_type for node in model.graph.node for output in node.output}
    for node in (node for node in model.graph.node if node.op_type in ("Add", "Relu", "DepthToSpace")):
        assert "DequantizeLinear" not in [maker.get(name) for name in node.input]


def test_int8_has_zero_points_of_0_and_kernel_scales_per_channel(edsr: list[Exported]) -> None:
    """And unsigned inputs after a ReLU."""
    values, full = stored(edsr[2].path), stored(edsr[0].path)
    zeros = {name: zero for name, zero in values.items() if name.endswith(".zero")}
    assert not any(zero.any() for zero in zeros.values())
    unsigned = {name for name, zero in zeros.items() if zero.dtype == np.uint8}
    assert unsigned == {name for name in zeros if name.endswith("conv2.input.zero")} != set()
    assert {zero.dtype for name, zero in zeros.items() if name not in unsigned} == {np.dtype(np.int8)}
    for name in [name for name in full if f"{name}.step" in values]:
        np.testing.assert_array_equal(values[name], full[name], err_msg="engines round it themselves")
        largest = np.abs(full[name]).max((1, 2, 3))
        np.testing.assert_allclose(values[f"{name}.step"], largest / 127, rtol=1e-6)


def test_torch_refuses_int8_files(edsr: list[Exported]) -> None:
    with pytest.raises(ModelFileError, match="QuantizeLinear"):
        Upscaler(edsr[2].path, 2, backend="torch")


def test_both_files_are_timed_on_real_engines(edsr: list[Exported], monkeypatch: pytest.MonkeyPatch) -> None:
    """One round on a tiny tile: that it runs, not how fast."""
    monkeypatch.setattr(int8_module, "_TIMED_SIDE", 8)
    monkeypatch.setattr(int8_module, "_REPETITIONS", 1)
    found = measure_timings(edsr[0].path, edsr[2].path, edsr[2].spec)
    assert {"onnxruntime fp32", "onnxruntime int8"} <= {timing.engine for timing in found}
    assert all(timing.int8 == timing.engine.endswith("int8") and timing.seconds > 0 for timing in found)


def timings(int8: float, *others: float) -> list[Timing]:
    named = [Timing(f"engine {number}", False, seconds) for number, seconds in enumerate(others)]
    return [*named, Timing("int8 engine", True, int8), Timing("slow int8", True, 9.0)]


def test_int8_that_loses_little_and_is_fastest_is_accepted() -> None:
    assert check_gain("a", 0.1, timings(0.3, 0.4, 0.9)) == pytest.approx(0.75)
    assert check_gain("a", -0.2, timings(0.3, 0.4)) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("lost", "seconds", "told"),
    [
        (0.05, 0.5, ("0.050 dB", "1.25 times", "int8 engine", "engine 0")),  # slower than the best
        (0.05, 0.4, ("0.050 dB", "1.00 times")),  # as fast is not faster
        (0.1001, 0.1, ("0.100 dB", "0.25 times")),
        (0.3, 0.5, ("0.300 dB", "1.25 times")),
        (float("nan"), 0.1, ("nan dB",)),
    ],
)
def test_int8_is_refused_with_both_numbers(lost: float, seconds: float, told: tuple[str, ...]) -> None:
    with pytest.raises(ExportError) as caught:
        check_gain("net-x2.int8.onnx", lost, timings(seconds, 0.4, 0.9))
    for text in ("net-x2.int8.onnx", *told):
        assert text in str(caught.value)


def test_an_export_whose_int8_is_slower_writes_nothing(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path, "edsr-baseline")

    def stopwatch(full: Path, int8: Path, spec: ModelSpec) -> Sequence[Timing]:
        return timings(0.5, 0.4)

    with pytest.raises(ExportError, match=r"edsr-baseline-x2\.int8\.onnx: int8 loses .* 1\.25 times"):
        export_checkpoint(
            path,
            tmp_path / "out",
            precisions=["fp32", "int8"],
            calibration=small(),
            photographs=small(),
            stopwatch=stopwatch,
        )
    assert files(tmp_path / "out") == []


def test_an_export_whose_int8_loses_quality_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that the tiny network, whose output is far from any picture, cannot keep."""
    path, _ = checkpoint(tmp_path, "edsr-baseline")
    monkeypatch.setattr(int8_module, "MAX_LOSS", -1.0)
    with pytest.raises(ExportError, match=r"0\.75 times"):
        export_checkpoint(
            path,
            tmp_path / "out",
            precisions=["int8"],
            calibration=small(),
            photographs=small(),
            stopwatch=lambda full, int8, spec: timings(0.3, 0.4),
        )
    assert files(tmp_path / "out") == []


class FakeEngine:
    """Says what it was loaded with."""

    scale = 2

    def __init__(self, name: str, precision: str) -> None:
        self.info = EngineInfo(name, "cpu", "bf16" if precision == "auto" else precision)

    def run(self, lr: Batch) -> Batch:
        return np.zeros((1, 3, 2 * lr.shape[2], 2 * lr.shape[3]), np.float32)


def test_both_files_are_timed_on_every_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(name: str, path: Path, spec: ModelSpec, options: Settings) -> FakeEngine:
        if options.precision == "bf16":
            raise BackendUnavailableError("no bf16 on this CPU")
        loaded.append((name, path.name, spec.arithmetic, options.precision))
        return FakeEngine(name, options.precision)

    def interleave(runs: dict[tuple[str, bool], object], repetitions: int) -> dict[tuple[str, bool], object]:
        return {key: [float(number), 5.0 + number, 900.0] for number, key in enumerate(runs)}

    monkeypatch.setattr(int8_module.registry, "load", load)
    monkeypatch.setattr(int8_module, "interleave", interleave)
    spec = ModelSpec("net", "edsr", 2, arithmetic="int8")
    found = measure_timings(Path("a.onnx"), Path("a.int8.onnx"), spec)
    assert loaded == [
        ("openvino", "a.onnx", "fp32", "fp32"),
        ("onnxruntime", "a.onnx", "fp32", "fp32"),
        ("openvino", "a.int8.onnx", "int8", "auto"),
        ("onnxruntime", "a.int8.onnx", "int8", "auto"),
    ]
    assert found == [
        Timing("openvino fp32", False, 5.0),
        Timing("onnxruntime fp32", False, 6.0),
        Timing("openvino int8", True, 7.0),
        Timing("onnxruntime int8", True, 8.0),
    ]  # medians
