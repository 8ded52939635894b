"""Exported files give what their checkpoint gives, have all of it, and run in every runtime."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_exports import FACTS, checkpoint, expected, export, files, photo_batch, photograph, tiny

from srcli.models.spec import WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY, read_spec
from srcli_export.exporter import Exported, export_checkpoint
from srcli_export.runtime import Runner
from srcli_train.networks import exact_halo, parameter_count

FLOAT32 = 1e-5


"""Two runtimes add the same products in different order: a few units in the last place on 0-1."""


SINGLE_SCALE = [(name, scale) for name in ("edsr", "edsr-baseline", "srresnet") for scale in (2, 3, 4)]


CASES = [*SINGLE_SCALE, ("mdsr-baseline", 2)]


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_every_family_and_scale_matches_its_checkpoint(name: str, scale: int, tmp_path: Path) -> None:
    path, network = checkpoint(tmp_path, name, scale)
    for one in export(path, tmp_path / "out"):
        run = Runner(one.path)
        for batch in (photo_batch(), np.random.default_rng(1).random((2, 3, 5, 8), np.float32)):
            want = expected(network, batch, one.spec.scale)
            np.testing.assert_allclose(run(batch), want, atol=FLOAT32, rtol=0)
        assert one.max_error <= FLOAT32
        assert one.psnr_cost == 0


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_spec_says_what_the_file_holds(name: str, scale: int, tmp_path: Path) -> None:
    path, network = checkpoint(tmp_path, name, scale)
    small = [photograph()[:80, :80]]
    for one in export_checkpoint(path, tmp_path / "out", calibration=small, license_name="CC-BY-4.0"):
        spec = read_spec(one.path)
        assert spec == one.spec
        assert spec is not None
        assert (spec.name, spec.blocks, spec.features, spec.precision) == (name, 2, 8, "fp32")
        assert (spec.training, spec.license) == (FACTS, "CC-BY-4.0")
        assert spec.quality == {"Set5": {2: 37.5, 3: 33.5, 4: 31.5}[spec.scale]}
        network_spec = tiny(name, scale)[0]
        assert spec.exact_halo == exact_halo(network_spec, spec.scale) >= spec.halo
        if name.startswith("edsr"):
            assert spec.parameters == parameter_count(network)


def test_charts_are_the_default_calibration_images(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path, "mdsr")
    for one in export_checkpoint(path, tmp_path / "out"):
        assert 0 < one.spec.halo < one.spec.exact_halo == 16


def test_mdsr_parameters_are_those_of_one_scale(tmp_path: Path) -> None:
    path, network = checkpoint(tmp_path, "mdsr")
    (x2, x3, x4) = export(path, tmp_path / "out")
    shared = sum(p.numel() for key, p in network.named_parameters() if key.split(".")[1] not in "234")
    branches = parameter_count(network) - shared
    assert sum(one.spec.parameters - shared for one in (x2, x3, x4)) == branches > 0


@pytest.mark.parametrize(("name", "scale", "shuffles"), [("edsr", 2, 1), ("edsr", 3, 1), ("edsr", 4, 2)])
def test_graphs_have_the_operators_of_the_fused_network(
    name: str, scale: int, shuffles: int, tmp_path: Path
) -> None:
    path, _ = checkpoint(tmp_path, name, scale)
    (one,) = export(path, tmp_path / "out")
    model = onnx.load(one.path)
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("DepthToSpace") == 1 + 4 * shuffles  # upsampler and tail fused, and four strips
    assert set(operators) == {
        "Sub",
        "Conv",
        "Relu",
        "Add",
        "Slice",
        "Concat",
        "DepthToSpace",
    }  # no Mul: folded
    assert operators.count("Conv") == 6 + 1 + 4 * (shuffles + 1)
    assert model.opset_import[0].version == 20
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["N", 3, "H", "W"]


def test_mdsr_shares_one_weights_file(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path, "mdsr")
    exported = export(path, tmp_path / "out", "fp16")
    assert files(tmp_path / "out") == ["mdsr-x2.onnx", "mdsr-x3.onnx", "mdsr-x4.onnx", "mdsr.weights"]
    content = (tmp_path / "out" / "mdsr.weights").read_bytes()
    for one in exported:
        metadata = {entry.key: entry.value for entry in onnx.load(one.path).metadata_props}
        assert metadata[WEIGHTS_FILE_KEY] == "mdsr.weights"
        assert metadata[WEIGHTS_SHA256_KEY] == hashlib.sha256(content).hexdigest()
    offsets = [_offsets(one.path) for one in exported]
    shared = set(offsets[0]) & set(offsets[1]) & set(offsets[2])
    assert any(name.startswith("body.blocks.1.conv2.weight") for name in shared)
    assert all(offsets[0][name] == offsets[1][name] == offsets[2][name] for name in shared)
    assert not any(name.startswith(("pre_process", "upsampler")) for name in shared)


def _offsets(path: Path) -> dict[str, str]:
    model = onnx.load(path, load_external_data=False)
    return {
        tensor.name: next(entry.value for entry in tensor.external_data if entry.key == "offset")
        for tensor in model.graph.initializer
        if tensor.external_data
    }


@pytest.mark.parametrize("weights", ["fp32", "fp16"])
@pytest.mark.parametrize("name", ["edsr", "mdsr", "srresnet"])
def test_openvino_gives_what_onnxruntime_gives(name: str, weights: str, tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    path, _ = checkpoint(tmp_path, name, 3)
    one = export(path, tmp_path / "out", weights)[-1]
    hint = {"INFERENCE_PRECISION_HINT": "f32"}  # bf16 is OpenVINO's default where the CPU has it
    compiled = openvino.Core().compile_model(one.path, "CPU", hint)
    for batch in (photo_batch(), np.random.default_rng(1).random((2, 3, 5, 8), np.float32)):
        (out,) = compiled(batch).values()
        np.testing.assert_allclose(out, Runner(one.path)(batch), atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("name", ["edsr", "mdsr", "srresnet"])
def test_fp16_storage_takes_half_and_stays_close(name: str, tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path, name)
    full = export(path, tmp_path / "fp32")
    half = export(path, tmp_path / "fp16", "fp16")
    for a, b in zip(full, half, strict=True):
        assert b.spec.precision == "fp16"
        assert b.psnr_cost < 0.001
        error = np.abs(Runner(a.path)(photo_batch()) - Runner(b.path)(photo_batch())).max()
        assert 0 < error < 2e-3  # kernels are off by up to 2**-12 of their value, a layer at a time
        types = {
            t.data_type for t in onnx.load(b.path).graph.initializer if len(t.dims) == 4 and t.name != "mean"
        }
        assert types == {onnx.TensorProto.FLOAT16}
    assert _size(half) < 0.75 * _size(full)


def _size(exported: list[Exported]) -> int:
    return sum(path.stat().st_size for path in exported[0].path.parent.iterdir())


def test_quality_on_test_sets_goes_into_the_spec(tmp_path: Path) -> None:
    """As `srcli evaluate` measures it on the checkpoint: same protocol, same network, same LR."""
    from srcli.io.pictures import Picture, write
    from srcli_train.evaluate import evaluate, from_checkpoint, mean

    path, _ = checkpoint(tmp_path, "edsr", 2)
    (tmp_path / "Mine").mkdir()
    write(tmp_path / "Mine" / "a.png", Picture(photograph()[:80, :80]))
    image = [photograph()[60:140, 60:140]]
    (file,) = export_checkpoint(path, tmp_path / "out", calibration=image, test_sets=[tmp_path / "Mine"])
    run = from_checkpoint(path, 2, ensemble=False)
    scores = evaluate(tmp_path / "Mine", 2, {"": run}, lambda done, total: None)
    assert file.spec.quality["Mine"] == pytest.approx(
        mean(scores[""]).psnr_y, abs=0.002
    )  # rounding to 8 bits
    assert read_spec(file.path) == file.spec
    assert file.spec.quality["Set5"] == 37.5
