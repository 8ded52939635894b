"""fp16 and int8 beside fp32: what the files hold, how they were judged, and that users can run them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from tiny_exports import Pixels, checkpoint, expected, files, photo_batch, photograph

from srcli import Upscaler
from srcli.backends import registry
from srcli.backends.base import BackendOptions
from srcli.errors import ModelFileError
from srcli.imaging.metrics import decibels
from srcli.models import catalog
from srcli.models.spec import ModelSpec, check_weights, read_spec, weights_of
from srcli_export import gain
from srcli_export.artefacts import judged
from srcli_export.emulate import with_rounding
from srcli_export.exporter import Exported, export_checkpoint
from srcli_export.gain import Timing
from srcli_export.runtime import Runner

HALVES = 78.0
"""dB between fp16 and fp32: see tests/backends/test_half.py; here sums of products are float32."""
INTEGERS = (50.0, 75.0)
"""dB between int8 and fp32, from and to. 127 steps to a tensor's largest value are off by 1/440 of it in the
mean; half a dozen convolutions add that to residuals of at most a tenth: 5e-4 to 3e-3, 50 to 66 dB. Above
75 dB nothing would have been quantised."""


def quick(full: Path, int8: Path, spec: ModelSpec) -> list[Timing]:
    """A machine on which int8 takes three quarters of the time."""
    assert (full.suffix, int8.suffix, spec.arithmetic) == (".onnx", ".onnx", "int8")
    return [
        Timing("openvino bf16", False, 0.4),
        Timing("onnxruntime fp32", False, 0.9),
        Timing("it", True, 0.3),
    ]


def small() -> list[Pixels]:
    return [photograph()[60:140, 60:140]]


def export_all(folder: Path, name: str = "edsr-baseline", weights: str = "fp32") -> list[Exported]:
    path, _ = checkpoint(folder, name, 2)
    return export_checkpoint(
        path,
        folder / "out",
        precisions=("int8", "fp32", "fp16"),
        weights=weights,
        calibration=small(),
        photographs=small(),
        stopwatch=quick,
    )


def psnr(a: np.ndarray, b: np.ndarray) -> float:  # type: ignore[type-arg]
    return decibels(float(np.mean((a.astype(np.float64) - b) ** 2)), peak=1.0)


@pytest.fixture(scope="module")
def edsr(tmp_path_factory: pytest.TempPathFactory) -> list[Exported]:
    return export_all(tmp_path_factory.mktemp("edsr"))


@pytest.fixture(scope="module")
def mdsr(tmp_path_factory: pytest.TempPathFactory) -> list[Exported]:
    return export_all(tmp_path_factory.mktemp("mdsr"), "mdsr")


def test_one_checkpoint_gives_all_three(edsr: list[Exported]) -> None:
    names = [one.path.name for one in edsr]
    assert names == [f"edsr-baseline-x2{kind}.onnx" for kind in ("", ".fp16", ".int8")]
    for one, kind in zip(edsr, ("fp32", "fp16", "int8"), strict=True):
        assert read_spec(one.path) == one.spec
        stored = "fp16" if kind == "fp16" else "fp32"
        assert (one.spec.name, one.spec.arithmetic, one.spec.precision) == ("edsr-baseline", kind, stored)
        assert one.spec.quality == edsr[0].spec.quality
        assert one.max_error < 1e-5
        onnx.checker.check_model(onnx.load(one.path), full_check=True)


def test_the_figures_stand_in_the_spec(edsr: list[Exported]) -> None:
    full, half, int8 = (one.spec.verified for one in edsr)
    assert full["psnr_to_checkpoint"] > 120, "the last bits of float32"
    assert HALVES < half["psnr_to_checkpoint"] < 110
    assert INTEGERS[0] < int8["psnr_to_checkpoint"] < INTEGERS[1]
    for one in edsr:
        found = one.spec.verified
        assert found["psnr_to_hr"] == pytest.approx(full["psnr_to_hr"] - found["psnr_lost"], abs=3e-4)
        assert found["images"] == 1
        assert json.loads(one.spec.to_json())["verified"] == found, "figures, not NaN or infinity"
    assert [one.psnr_cost for one in edsr[1:]] == [
        pytest.approx(half["psnr_lost"], abs=1e-4),
        pytest.approx(int8["psnr_lost"], abs=1e-4),
    ]
    assert int8["time_share"] == 0.75
    assert "time_share" not in half


def test_the_figures_are_those_of_the_images_given(tmp_path: Path) -> None:
    """Against the training network itself, on images that nothing else is measured on."""
    path, network = checkpoint(tmp_path, "edsr-baseline", 2)
    hr = photograph()[200:296, 100:180]
    (half,) = export_checkpoint(
        path, tmp_path / "out", precisions=["fp16"], calibration=small(), validation=[hr]
    )
    from srcli.imaging.resize import downscale
    from srcli_export.runtime import to_batch

    lr = to_batch(np.asarray(downscale(hr, 2), np.uint8))
    want = psnr(judged(half.path, "fp16")(lr), expected(network, lr, 2))
    assert half.spec.verified["psnr_to_checkpoint"] == pytest.approx(want, abs=1e-3)
    assert files(tmp_path / "out") == ["edsr-baseline-x2.fp16.onnx"]


def test_int8_files_store_their_weights_as_fp32_files_do(tmp_path: Path) -> None:
    full, half, int8 = export_all(tmp_path, weights="fp16")
    assert (full.spec.precision, full.spec.arithmetic) == ("fp16", "fp32")
    assert (half.spec.precision, int8.spec.precision) == ("fp16", "fp16")
    for one in (full, int8):
        assert _weights(one.path)["head.weight_fp16"].dtype == np.float16


# fp16


def test_judging_rounds_every_tensor(edsr: list[Exported]) -> None:
    """ONNX Runtime's own run of the file skips the rounding between the layers, and would flatter it."""
    batch, path = photo_batch(), edsr[1].path
    exact, rounded, plain = Runner(edsr[0].path)(batch), judged(path, "fp16")(batch), Runner(path)(batch)
    assert psnr(rounded, exact) < psnr(plain, exact) - 1
    with_own_rounding = with_rounding(onnx.load(path))
    assert {t.data_type for t in with_own_rounding.graph.initializer} <= {
        TensorProto.FLOAT,
        TensorProto.INT64,
    }
    torch = pytest.importorskip("torch")
    from srcli.backends.torch_network import Network

    with torch.inference_mode():  # which computes in halves, and accumulates in float32
        halves = Network(path, torch.float16, torch.device("cpu"))(torch.from_numpy(batch)).numpy()
    assert psnr(rounded, halves) > psnr(rounded, exact) + 3, "nearer to halves than to float32"


def test_fp16_files_of_several_scales_share_their_kernels(mdsr: list[Exported]) -> None:
    halves = [one for one in mdsr if one.spec.arithmetic == "fp16"]
    folder = halves[0].path.parent
    assert [one.path.name for one in halves] == [f"mdsr-x{scale}.fp16.onnx" for scale in (2, 3, 4)]
    assert {name for name in files(folder) if "weights" in name} == {"mdsr.weights", "mdsr.fp16.weights"}
    sizes = [(folder / name).stat().st_size for name in ("mdsr.fp16.weights", "mdsr.weights")]
    assert sizes[0] < 0.55 * sizes[1], "half of the kernels, and no biases"
    for one in halves:
        check_weights(one.path)
        model = onnx.load(one.path, load_external_data=False)
        beside = {tensor.name for tensor in model.graph.initializer if tensor.external_data}
        assert "body.blocks.1.conv2.weight" in beside
        assert f"upsampler.{one.spec.scale}.0.weight" in beside


# int8


def _weights(path: Path) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("kind", ["edsr", "mdsr"])
def test_int8_spares_the_pixels_at_both_ends(kind: str, request: pytest.FixtureRequest) -> None:
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


def test_int8_files_read_the_weights_of_the_others(mdsr: list[Exported]) -> None:
    int8 = [one for one in mdsr if one.spec.arithmetic == "int8"]
    folder = int8[0].path.parent
    for one in int8:
        check_weights(one.path)
        assert one.path.stat().st_size < 40_000
        assert weights_of(one.path) == folder / "mdsr.weights"


def test_no_sum_is_quantised_on_the_way_out(edsr: list[Exported]) -> None:
    """Residual sums read what the convolutions gave, not its eight bits."""
    model = onnx.load(edsr[2].path)
    maker = {output: node.op_type for node in model.graph.node for output in node.output}
    for node in (node for node in model.graph.node if node.op_type in ("Add", "Relu", "DepthToSpace")):
        assert "DequantizeLinear" not in [maker.get(name) for name in node.input]


def test_int8_has_no_offset_and_steps_per_channel(edsr: list[Exported]) -> None:
    """And no sign where a convolution reads a ReLU."""
    values, full = _weights(edsr[2].path), _weights(edsr[0].path)
    zeros = {name: zero for name, zero in values.items() if name.endswith(".zero")}
    assert not any(zero.any() for zero in zeros.values())
    unsigned = {name for name, zero in zeros.items() if zero.dtype == np.uint8}
    assert unsigned == {name for name in zeros if name.endswith("conv2.input.zero")} != set()
    assert {zero.dtype for name, zero in zeros.items() if name not in unsigned} == {np.dtype(np.int8)}
    for name in [name for name in full if f"{name}.step" in values]:
        np.testing.assert_array_equal(values[name], full[name], err_msg="engines round it themselves")
        largest = np.abs(full[name]).max((1, 2, 3))
        np.testing.assert_allclose(values[f"{name}.step"], largest / 127, rtol=1e-6)


# For users.


RUNS = [(backend, 1) for backend in ("openvino", "onnxruntime", "torch")]
RUNS += [(backend, 2) for backend in ("openvino", "onnxruntime")]


@pytest.mark.parametrize(("backend", "place"), RUNS)
def test_backends_run_them_by_path(backend: str, place: int, edsr: list[Exported]) -> None:
    pytest.importorskip(backend)
    one, image = edsr[place], photograph()[:40, :50]
    exact = Upscaler(edsr[0].path, 2, backend="onnxruntime", precision="fp32")(image)
    upscaler = Upscaler(one.path, 2, backend=backend)
    assert upscaler.spec == one.spec
    steps = np.abs(upscaler(image).astype(int) - exact).max()
    assert steps <= (1, 3)[place - 1]  # on top of a rounding: bf16 0.4 of a level, int8 about one


def test_a_backend_without_eight_bits_says_so(edsr: list[Exported]) -> None:
    with pytest.raises(ModelFileError, match="QuantizeLinear"):
        Upscaler(edsr[2].path, 2, backend="torch")


def test_both_files_are_measured_on_real_engines(
    edsr: list[Exported], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One round on a tiny tile: that it runs, not how fast."""
    monkeypatch.setattr(gain, "_SIDE", 8)
    monkeypatch.setattr(gain, "_REPETITIONS", 1)
    found = gain.measure_timings(edsr[0].path, edsr[2].path, edsr[2].spec)
    assert {"onnxruntime fp32", "onnxruntime int8"} <= {timing.engine for timing in found}
    assert all(timing.int8 == timing.engine.endswith("int8") and timing.seconds > 0 for timing in found)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_cpu_says_in_what_it_computes_halves(backend: str, edsr: list[Exported]) -> None:
    """It says fp32 and computes in fp32: off by the weights' rounding, not by that of every tensor."""
    pytest.importorskip(backend)
    one, batch = edsr[1], photo_batch()
    engine = registry.load(backend, one.path, one.spec, BackendOptions("fp32"))
    assert engine.info.precision == "fp32"
    widened, exact = engine.run(batch), Runner(edsr[0].path)(batch)
    assert psnr(widened, exact) > psnr(judged(one.path, "fp16")(batch), exact) + 1


def test_the_catalogue_takes_the_plain_file_by_name(edsr: list[Exported]) -> None:
    folder = edsr[0].path.parent
    assert [spec.arithmetic for spec in catalog.list_models(folder)] == ["fp32"]
    assert catalog.resolve("edsr-baseline", 2, folder).path == edsr[0].path
    assert catalog.scales("edsr-baseline", folder) == (2,)
    for one in edsr:
        assert catalog.resolve(one.path, 2).spec == one.spec


def test_they_may_lie_among_the_users_models(edsr: list[Exported], user_models: Path) -> None:
    user_models.mkdir()
    for one in edsr:
        (user_models / one.path.name.replace("edsr-baseline", "mine")).write_bytes(one.path.read_bytes())
    assert catalog.problems() == []
    assert catalog.resolve("mine", 2).spec.arithmetic == "fp32"
    assert catalog.resolve(user_models / "mine-x2.fp16.onnx", 2).spec.arithmetic == "fp16"


def test_files_of_older_versions_stay_valid() -> None:
    old = json.loads(ModelSpec("a", "edsr", 2).to_json())
    for key in ("arithmetic", "verified"):
        del old[key]
    assert ModelSpec.from_json(json.dumps(old)) == ModelSpec("a", "edsr", 2)
    assert (ModelSpec("a", "edsr", 2).arithmetic, ModelSpec("a", "edsr", 2).verified) == ("fp32", {})
