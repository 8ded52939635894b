"""Exported files are the checkpoint's network, whole, readable by every runtime, or they do not exist."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from srcli.errors import ExportError, OutputError, TrainingError, UsageError
from srcli.spec import TrainingFacts, read_spec
from srcli_export import exporter
from srcli_export.exporter import Exported, export_checkpoint
from srcli_export.external import WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY
from srcli_export.layers import Chain, Conv
from srcli_export.runtime import Runner
from srcli_export.verify import check_cost, check_parity
from srcli_train.checkpoint import Checkpoint, save_checkpoint
from srcli_train.networks import NetworkSpec, build, exact_halo, parameter_count, preset
from srcli_train.recipes import Recipe

FLOAT32 = 1e-5
"""Two runtimes add the same products in different order: a few units in the last place on 0-1."""
SINGLE_SCALE = [(name, scale) for name in ("edsr", "edsr-baseline", "srresnet") for scale in (2, 3, 4)]
CASES = [*SINGLE_SCALE, ("mdsr-baseline", 2)]
FACTS = TrainingFacts(data="charts", recipe="none", updates=7)

Pixels = NDArray[np.uint8]


def tiny(name: str, scale: int) -> tuple[NetworkSpec, nn.Module]:
    """A preset of two blocks of eight features with weights and batch statistics that are not the default."""
    spec = replace(preset(name, scale), blocks=2, features=8)
    torch.manual_seed(scale)
    network = build(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_mean, module.running_var, module.bias):
                assert values is not None
                nn.init.uniform_(values, 0.5, 1.5)
        if isinstance(module, nn.Conv2d):
            assert module.bias is not None
            nn.init.uniform_(module.bias, -20, 20)  # on 0-255, so that biases matter
    return spec, network.eval()


def checkpoint(folder: Path, name: str = "edsr", scale: int = 2) -> tuple[Path, nn.Module]:
    spec, network = tiny(name, scale)
    quality = {"2": {"Set5": 37.5}, "3": {"Set5": 33.5}, "4": {"Set5": 31.5}}
    path = folder / "checkpoint.pt"
    save_checkpoint(path, Checkpoint(spec, Recipe(), network.state_dict(), facts=FACTS, quality=quality))
    return path, network


def photograph() -> Pixels:
    from skimage import data

    image: Pixels = data.astronaut()[:300, 100:360]
    return image


def export(path: Path, folder: Path, weights: str = "fp32") -> list[Exported]:
    """On an image too small to measure a halo on, which is quick."""
    return export_checkpoint(path, folder, weights=weights, calibration=[photograph()[60:140, 60:140]])


def photo_batch() -> NDArray[np.float32]:
    image = photograph()[60:107, 40:101]
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255


def expected(network: nn.Module, batch: NDArray[np.float32], scale: int) -> NDArray[np.float32]:
    with torch.inference_mode():
        out: NDArray[np.float32] = network(torch.from_numpy(batch), scale).numpy()
    return out


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
        network_spec = replace(preset(name, scale), blocks=2, features=8)
        assert spec.exact_halo == exact_halo(network_spec, spec.scale) >= spec.halo
        if name.startswith("edsr"):
            assert spec.parameters == parameter_count(network)


def test_without_calibration_images_charts_serve(tmp_path: Path) -> None:
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
def test_graph_holds_nothing_but_the_deployment_form(
    name: str, scale: int, shuffles: int, tmp_path: Path
) -> None:
    path, _ = checkpoint(tmp_path, name, scale)
    (one,) = export(path, tmp_path / "out")
    model = onnx.load(one.path)
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("DepthToSpace") == shuffles
    assert set(operators) == {"Sub", "Conv", "Relu", "Add", "DepthToSpace"}  # no Mul: scaling is folded
    assert model.opset_import[0].version == 20
    shape = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert shape == ["N", 3, "H", "W"]


def test_residual_scaling_is_folded_into_the_second_convolution(tmp_path: Path) -> None:
    from srcli_export.fuse import fuse
    from srcli_export.layers import arrays

    spec, network = tiny("edsr", 2)
    assert spec.residual_scale == 0.1
    fused, weights = dict(arrays(fuse(network, spec, 2))), network.state_dict()
    for key, factor in (("conv1.weight", 1.0), ("conv2.weight", 0.1), ("conv2.bias", 0.1 / 255)):
        name = f"body.blocks.1.{key}"
        np.testing.assert_allclose(fused[name], weights[name].numpy() * np.float32(factor), rtol=1e-6)


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
def test_fp16_storage_halves_the_kernels_and_stays_close(name: str, tmp_path: Path) -> None:
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


def _without_first_bias(chain: Chain) -> Chain:
    first = chain[0]
    assert isinstance(first, Conv)
    return (replace(first, bias=first.bias * 0), *chain[1:])


def test_an_export_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = checkpoint(tmp_path)
    fuse = exporter.fuse
    monkeypatch.setattr(exporter, "fuse", lambda *job: _without_first_bias(fuse(*job)))
    with pytest.raises(ExportError, match="differs from its checkpoint"):
        export(path, tmp_path / "out")
    assert files(tmp_path / "out") == []


def test_a_file_tampered_with_is_refused(tmp_path: Path) -> None:
    path, network = checkpoint(tmp_path)
    (one,) = export(path, tmp_path / "out")
    model = onnx.load(one.path)
    kernel = model.graph.initializer[1]
    values = onnx.numpy_helper.to_array(kernel) * np.float32(1.01)
    kernel.CopyFrom(onnx.numpy_helper.from_array(values, kernel.name))
    onnx.save(model, one.path)
    with pytest.raises(ExportError, match="differs from its checkpoint"):
        check_parity(one.path, network, 2, [photo_batch()])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(bad: float, tmp_path: Path) -> None:
    spec, network = tiny("edsr", 2)
    weights = network.state_dict()
    weights["tail.bias"][0] = bad
    save_checkpoint(tmp_path / "c.pt", Checkpoint(spec, Recipe(), weights))
    with pytest.raises(ExportError):
        export_checkpoint(tmp_path / "c.pt", tmp_path / "out")
    assert files(tmp_path / "out") == []


def test_fp16_storage_that_costs_quality_is_refused(tmp_path: Path) -> None:
    """Around 1e-7 fp16 has one or two bits left; later layers multiply what is lost back to full size."""
    spec, network = tiny("edsr-baseline", 2)
    weights = {key: values * (values.ndim == 4) for key, values in network.state_dict().items()}
    weights["head.weight"] *= 1e-6
    for key in ("upsampler.0.weight", "tail.weight"):
        weights[key] *= 1e3
    save_checkpoint(tmp_path / "c.pt", Checkpoint(spec, Recipe(), weights))
    assert export(tmp_path / "c.pt", tmp_path / "fp32")
    with pytest.raises(ExportError, match="fp16"):
        export(tmp_path / "c.pt", tmp_path / "fp16", "fp16")
    assert files(tmp_path / "fp16") == []


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


def test_exporting_again_replaces_and_leaves_no_partial_files(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path, "mdsr")
    first = export(path, tmp_path / "out", "fp16")
    again = export(path, tmp_path / "out", "fp32")
    assert [one.path for one in again] == [one.path for one in first]
    assert all(path.exists() for path in (one.path for one in again))
    assert len(files(tmp_path / "out")) == 4


def test_same_checkpoint_gives_the_same_bytes(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    (a,), (b,) = (export(path, tmp_path / name) for name in "ab")
    assert a.path.read_bytes() == b.path.read_bytes()


def test_missing_and_damaged_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no\.pt"):
        export_checkpoint(tmp_path / "no.pt", tmp_path / "out")
    path, _ = checkpoint(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt"):
        export(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_of_another_network(tmp_path: Path) -> None:
    spec, _ = tiny("edsr", 2)
    _, other = tiny("edsr", 3)
    save_checkpoint(tmp_path / "c.pt", Checkpoint(spec, Recipe(), other.state_dict()))
    with pytest.raises(ExportError, match="do not fit"):
        export_checkpoint(tmp_path / "c.pt", tmp_path / "out")


@pytest.mark.parametrize("name", ["../evil", "", "a/b", "..", "a\0b", "a\nb"])
def test_a_checkpoint_cannot_choose_another_folder(name: str, tmp_path: Path) -> None:
    spec, network = tiny("edsr", 2)
    save_checkpoint(tmp_path / "c.pt", Checkpoint(replace(spec, name=name), Recipe(), network.state_dict()))
    with pytest.raises(ExportError, match="file name"):
        export_checkpoint(tmp_path / "c.pt", tmp_path / "out")


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    with pytest.raises(OutputError, match=r"checkpoint\.pt"):
        export_checkpoint(path, path)


def test_bad_requests(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    with pytest.raises(UsageError, match="int4"):
        export_checkpoint(path, tmp_path / "out", weights="int4")
    for images in ([], [photograph()[:, :, 0]], [photograph()[:20]], [photograph().astype(np.uint16)]):
        with pytest.raises(UsageError, match="calibration image"):
            export_checkpoint(path, tmp_path / "out", calibration=images)  # type: ignore[arg-type]
