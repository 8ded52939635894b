"""fp16 and int8 files beside fp32: figures in their specs, and that backends and the catalogue take them."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_exports import checkpoint, expected, export_all, files, photo_batch, photograph, psnr, small, stored

from srcli import Upscaler
from srcli.backends import registry
from srcli.models import catalog
from srcli.models.spec import ModelSpec, read_spec
from srcli.settings import Settings
from srcli_export.exporter import Exported, export_checkpoint
from srcli_export.runtime import Runner, runner_for

FP16 = 78.0


"""dB between fp16 and fp32: see tests/backends/test_half.py; here sums of products are float32."""


INT8 = (50.0, 75.0)


"""dB between int8 and fp32, from and to. 127 integers to a tensor's largest value are off by 1/440 of it in
the mean; half a dozen convolutions add that to residuals of at most a tenth: 5e-4 to 3e-3, 50 to 66 dB. Above
75 dB nothing would have been quantized."""


def test_one_checkpoint_gives_all_precisions(edsr: list[Exported]) -> None:
    names = [one.path.name for one in edsr]
    assert names == [f"edsr-baseline-x2{kind}.onnx" for kind in ("", ".fp16", ".int8")]
    for one, kind in zip(edsr, ("fp32", "fp16", "int8"), strict=True):
        assert read_spec(one.path) == one.spec
        stored = "fp16" if kind == "fp16" else "fp32"
        assert (one.spec.name, one.spec.arithmetic, one.spec.precision) == ("edsr-baseline", kind, stored)
        assert one.spec.quality == edsr[0].spec.quality
        assert one.max_error < 1e-5
        onnx.checker.check_model(onnx.load(one.path), full_check=True)


def test_specs_have_the_measured_figures(edsr: list[Exported]) -> None:
    full, half, int8 = (one.spec.verified for one in edsr)
    assert full["psnr_to_checkpoint"] > 120, "the last bits of float32"
    assert FP16 < half["psnr_to_checkpoint"] < 110
    assert INT8[0] < int8["psnr_to_checkpoint"] < INT8[1]
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


def test_figures_are_of_the_validation_images(tmp_path: Path) -> None:
    """Against the training network itself, on images that nothing else is measured on."""
    path, network = checkpoint(tmp_path, "edsr-baseline", 2)
    hr = photograph()[200:296, 100:180]
    (half,) = export_checkpoint(
        path, tmp_path / "out", precisions=["fp16"], calibration=small(), validation=[hr]
    )
    from srcli.imaging.resize import downscale
    from srcli_export.runtime import to_batch

    lr = to_batch(np.asarray(downscale(hr, 2), np.uint8))
    want = psnr(runner_for(half.path, "fp16")(lr), expected(network, lr, 2))
    assert half.spec.verified["psnr_to_checkpoint"] == pytest.approx(want, abs=1e-3)
    assert files(tmp_path / "out") == ["edsr-baseline-x2.fp16.onnx"]


def test_int8_files_store_their_weights_as_fp32_files_do(tmp_path: Path) -> None:
    full, half, int8 = export_all(tmp_path, weights="fp16")
    assert (full.spec.precision, full.spec.arithmetic) == ("fp16", "fp32")
    assert (half.spec.precision, int8.spec.precision) == ("fp16", "fp16")
    for one in (full, int8):
        assert stored(one.path)["head.weight_fp16"].dtype == np.float16


RUNS = [(backend, 1) for backend in ("openvino", "onnxruntime", "torch")]


RUNS += [(backend, 2) for backend in ("openvino", "onnxruntime")]


@pytest.mark.parametrize(("backend", "place"), RUNS)
def test_backends_run_fp16_and_int8_by_path(backend: str, place: int, edsr: list[Exported]) -> None:
    pytest.importorskip(backend)
    one, image = edsr[place], photograph()[:40, :50]
    exact = Upscaler(edsr[0].path, 2, backend="onnxruntime", precision="fp32")(image)
    upscaler = Upscaler(one.path, 2, backend=backend)
    assert upscaler.spec == one.spec
    difference = np.abs(upscaler(image).astype(int) - exact).max()
    assert difference <= (1, 3)[place - 1]  # on top of a rounding: bf16 0.4 of 255, int8 about 1


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_cpus_report_fp32_for_fp16_files(backend: str, edsr: list[Exported]) -> None:
    """It says fp32 and computes in fp32: off by the weights' rounding, not by that of every tensor."""
    pytest.importorskip(backend)
    one, batch = edsr[1], photo_batch()
    engine = registry.load(backend, one.path, one.spec, Settings(precision="fp32"))
    assert engine.info.precision == "fp32"
    widened, exact = engine.run(batch), Runner(edsr[0].path)(batch)
    assert psnr(widened, exact) > psnr(runner_for(one.path, "fp16")(batch), exact) + 1


def test_the_catalogue_resolves_names_to_fp32_files(edsr: list[Exported]) -> None:
    folder = edsr[0].path.parent
    assert [spec.arithmetic for spec in catalog.list_models(folder)] == ["fp32"]
    assert catalog.resolve("edsr-baseline", 2, folder).path == edsr[0].path
    assert catalog.scales("edsr-baseline", folder) == (2,)
    for one in edsr:
        assert catalog.resolve(one.path, 2).spec == one.spec


def test_all_precisions_may_lie_among_the_users_models(edsr: list[Exported], user_models: Path) -> None:
    user_models.mkdir()
    shutil.copy(edsr[0].path.with_name("edsr-baseline-x2.weights"), user_models)  # of the fp32 and int8 files
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
