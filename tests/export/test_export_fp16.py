"""fp16 files: rounding, shared kernels, overflow, and variants of other I/O dtypes."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from tiny_exports import checkpoint, files, photo_batch, photograph, psnr, small, tiny

from srcli import Upscaler
from srcli.backends.rewrite import to_fp16
from srcli.errors import ExportError, ModelFileError, UsageError
from srcli.imaging.pixels import from_network, to_network
from srcli.models.spec import ModelSpec, check_weights, read_spec
from srcli_export import fp16
from srcli_export.exporter import Exported, export_checkpoint
from srcli_export.runtime import Runner, runner_for, with_rounding
from srcli_train.checkpoint import Checkpoint, save_checkpoint
from srcli_train.recipes import Recipe

LR = photograph()[60:92, 60:108]


def exported(folder: Path, name: str = "mdsr-baseline") -> Path:
    path, _ = checkpoint(folder, name)
    out = folder / "out"
    precisions, kinds = ("fp32", "fp16"), ("uint8", "float16")
    export_checkpoint(path, out, precisions=precisions, io=kinds, calibration=small())
    return out


def run(path: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["sr"], {"lr": image})[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("io"))


def test_each_scale_has_a_file_of_each_io_dtype(folder: Path, tmp_path: Path) -> None:
    kinds = {2: TensorProto.UINT8, 10: TensorProto.FLOAT16}
    for number, kind in zip(kinds, fp16.IO_DTYPES[::-1], strict=True):
        for scale in (2, 3, 4):
            alone = tmp_path / "alone.onnx"
            shutil.copy(folder / f"mdsr-baseline-x{scale}.fp16.{kind}.onnx", alone)
            ports = onnx.load(alone).graph
            assert [p.type.tensor_type.elem_type for p in (*ports.input, *ports.output)] == [number] * 2
            spec = read_spec(alone)
            assert spec is not None
            assert (spec.io, spec.arithmetic, spec.scale) == (kind, "fp16", scale)


def test_uint8_io_gives_the_pixels_of_the_plain_file(folder: Path) -> None:
    planes = np.ascontiguousarray(LR.transpose(2, 0, 1)[None])
    result = run(folder / "mdsr-baseline-x2.fp16.uint8.onnx", planes)
    plain = from_network(run(folder / "mdsr-baseline-x2.fp16.onnx", to_network(LR)), np.dtype(np.uint8), 3)
    assert result.dtype == np.uint8
    difference = np.abs(result[0].transpose(1, 2, 0).astype(int) - plain)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3  # one or two of 18,432 values at exactly x.5


def test_float16_io_is_the_plain_file_up_to_rounding(folder: Path) -> None:
    given = to_network(LR).astype(np.float16)
    result = run(folder / "mdsr-baseline-x2.fp16.float16.onnx", given)
    plain = run(folder / "mdsr-baseline-x2.fp16.onnx", given.astype(np.float32))
    assert result.dtype == np.float16
    assert np.abs(result.astype(np.float32) - plain).max() <= 2.0**-10  # values beyond 2 do not occur


def test_srcli_refuses_other_io_and_names_its_own_file(folder: Path) -> None:
    with pytest.raises(ModelFileError, match="takes uint8, for other programs") as caught:
        Upscaler(folder / "mdsr-baseline-x2.fp16.uint8.onnx", 2)
    assert "mdsr-baseline-x2.fp16.onnx" in (caught.value.hint or "")


def test_an_io_variant_of_other_pixels_is_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n-x2.fp16.onnx"
    onnx.save(onnx.load(folder / "mdsr-baseline-x2.fp16.onnx"), path)
    monkeypatch.setattr(fp16, "to_fp16", darker)
    spec = ModelSpec("n", "mdsr", 2, arithmetic="fp16", io="uint8")
    with pytest.raises(ExportError, match=r"fp16\.uint8\.onnx: .* of its values differ"):
        fp16.write_io_variant(path, spec, [LR])


def darker(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    result = to_fp16(model, kind)
    (white,) = [t for t in result.graph.initializer if t.name == "uint8.white"]
    white.CopyFrom(numpy_helper.from_array(np.array(250, np.float32), white.name))
    return result


@pytest.mark.parametrize(
    ("kinds", "precisions", "said"),
    [(["int4"], ["fp16"], "'int4'"), (["uint8"], ["fp32"], "fp16")],
)
def test_unknown_io_dtypes_are_refused(
    tmp_path: Path, kinds: list[str], precisions: list[str], said: str
) -> None:
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    with pytest.raises(UsageError, match=said):
        export_checkpoint(path, tmp_path / "out", precisions=precisions, io=kinds)


def test_fp16_files_are_judged_with_every_tensor_rounded(edsr: list[Exported]) -> None:
    """ONNX Runtime's own run of the file skips the rounding between the layers, and would be too good."""
    batch, path = photo_batch(), edsr[1].path
    exact, rounded, plain = Runner(edsr[0].path)(batch), runner_for(path, "fp16")(batch), Runner(path)(batch)
    assert psnr(rounded, exact) < psnr(plain, exact) - 1
    with_own_rounding = with_rounding(onnx.load(path))
    assert {t.data_type for t in with_own_rounding.graph.initializer} <= {
        TensorProto.FLOAT,
        TensorProto.INT64,
    }
    torch = pytest.importorskip("torch")
    from srcli.backends.torch_network import Network

    with torch.inference_mode():  # which computes in fp16, and accumulates in fp32
        by_torch = Network(path, torch.float16, torch.device("cpu"))(torch.from_numpy(batch)).numpy()
    assert psnr(rounded, by_torch) > psnr(rounded, exact) + 3, "nearer to fp16 than to fp32"


def test_fp16_files_of_several_scales_share_their_kernels(mdsr: list[Exported]) -> None:
    found = [one for one in mdsr if one.spec.arithmetic == "fp16"]
    folder = found[0].path.parent
    assert [one.path.name for one in found] == [f"mdsr-x{scale}.fp16.onnx" for scale in (2, 3, 4)]
    assert {name for name in files(folder) if "weights" in name} == {"mdsr.weights", "mdsr.fp16.weights"}
    sizes = [(folder / name).stat().st_size for name in ("mdsr.fp16.weights", "mdsr.weights")]
    assert sizes[0] < 0.55 * sizes[1], "half of the kernels, and no biases"
    for one in found:
        check_weights(one.path)
        model = onnx.load(one.path, load_external_data=False)
        beside = {tensor.name for tensor in model.graph.initializer if tensor.external_data}
        assert "body.blocks.1.conv2.weight" in beside
        assert f"upsampler.{one.spec.scale}.0.weight" in beside


def _scaled(folder: Path, factor: float) -> Path:
    """A checkpoint whose body sees values that many times larger; what comes out is the same."""
    spec, network = tiny("edsr-baseline", 2)
    weights = network.state_dict()
    for key, values in weights.items():
        if key.startswith("head") or key.endswith("bias"):
            weights[key] = values * factor
    weights["tail.weight"] = weights["tail.weight"] / factor
    weights["tail.bias"] = weights["tail.bias"] / factor
    save_checkpoint(folder / "c.pt", Checkpoint(spec, Recipe(), weights))
    return folder / "c.pt"


def test_activations_that_overflow_fp16_are_refused(tmp_path: Path) -> None:
    """The weights fit (0.2 * 2e5 < 65504) but what the head gives does not."""
    path = _scaled(tmp_path, 2e5)
    assert export_checkpoint(path, tmp_path / "fp32", calibration=small())
    with pytest.raises(ExportError, match=r"edsr-baseline-x2\.fp16\.onnx: gives infinities or NaN"):
        export_checkpoint(path, tmp_path / "out", precisions=["fp16"], calibration=small())
    assert files(tmp_path / "out") == []


def test_weights_that_overflow_fp16_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="65504"):
        export_checkpoint(_scaled(tmp_path, 1e7), tmp_path / "out", precisions=["fp16"], calibration=small())
    assert files(tmp_path / "out") == []
