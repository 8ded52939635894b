"""fp16 files that take and give bytes or halves: what other programs see, and that srcli refuses them."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper
from tiny_exports import checkpoint, files, photograph

from srcli import Upscaler
from srcli.backends.rewrite import to_half
from srcli.cli.app import main
from srcli.errors import ExportError, ModelFileError, UsageError
from srcli.imaging.pixels import from_network, to_network
from srcli.models.spec import ModelSpec, read_spec
from srcli_export import ends
from srcli_export.exporter import export_checkpoint

LR = photograph()[60:92, 60:108]


def exported(folder: Path, name: str = "mdsr-baseline") -> Path:
    path, _ = checkpoint(folder, name)
    out = folder / "out"
    precisions, kinds = ("fp32", "fp16"), ("uint8", "float16")
    export_checkpoint(
        path, out, precisions=precisions, ends=kinds, calibration=[photograph()[60:140, 60:140]]
    )
    return out


def run(path: Path, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["sr"], {"lr": image})[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(tmp_path_factory.mktemp("ends"))


def test_each_scale_has_a_file_of_each_kind_that_stands_alone(folder: Path, tmp_path: Path) -> None:
    kinds = {2: TensorProto.UINT8, 10: TensorProto.FLOAT16}
    for number, kind in zip(kinds, ends.ENDS[::-1], strict=True):
        for scale in (2, 3, 4):
            alone = tmp_path / "alone.onnx"
            shutil.copy(folder / f"mdsr-baseline-x{scale}.fp16.{kind}.onnx", alone)
            ports = onnx.load(alone).graph
            assert [p.type.tensor_type.elem_type for p in (*ports.input, *ports.output)] == [number] * 2
            spec = read_spec(alone)
            assert spec is not None
            assert (spec.io, spec.arithmetic, spec.scale) == (kind, "fp16", scale)


def test_bytes_in_and_out_are_the_pixels_of_the_plain_file(folder: Path) -> None:
    planes = np.ascontiguousarray(LR.transpose(2, 0, 1)[None])
    result = run(folder / "mdsr-baseline-x2.fp16.uint8.onnx", planes)
    plain = from_network(run(folder / "mdsr-baseline-x2.fp16.onnx", to_network(LR)), np.dtype(np.uint8), 3)
    assert result.dtype == np.uint8
    steps = np.abs(result[0].transpose(1, 2, 0).astype(int) - plain)
    assert steps.max() <= 1
    assert (steps > 0).mean() < 1e-3  # one or two of 18,432 values at exactly a half of a level


def test_halves_in_and_out_are_the_plain_file_up_to_their_rounding(folder: Path) -> None:
    given = to_network(LR).astype(np.float16)
    result = run(folder / "mdsr-baseline-x2.fp16.float16.onnx", given)
    plain = run(folder / "mdsr-baseline-x2.fp16.onnx", given.astype(np.float32))
    assert result.dtype == np.float16
    assert np.abs(result.astype(np.float32) - plain).max() <= 2.0**-10  # values beyond 2 do not occur


def test_srcli_refuses_them_and_names_its_own(folder: Path) -> None:
    with pytest.raises(ModelFileError, match="takes uint8, for other programs") as caught:
        Upscaler(folder / "mdsr-baseline-x2.fp16.uint8.onnx", 2)
    assert "mdsr-baseline-x2.fp16.onnx" in (caught.value.hint or "")


def test_a_file_that_gives_other_pixels_is_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n-x2.fp16.onnx"
    onnx.save(onnx.load(folder / "mdsr-baseline-x2.fp16.onnx"), path)
    monkeypatch.setattr(ends, "to_half", darker)
    spec = ModelSpec("n", "mdsr", 2, arithmetic="fp16", io="uint8")
    with pytest.raises(ExportError, match="from the file with float32 at its ends"):
        ends.write_ends(path, spec, [LR])


def darker(model: onnx.ModelProto, kind: str) -> onnx.ModelProto:
    result = to_half(model, kind)
    (white,) = [t for t in result.graph.initializer if t.name == "levels.white"]
    white.CopyFrom(numpy_helper.from_array(np.array(250, np.float32), white.name))
    return result


@pytest.mark.parametrize(
    ("kinds", "precisions", "said"),
    [(["int4"], ["fp16"], "No file has 'int4'"), (["uint8"], ["fp32"], "Only fp16 files")],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, kinds: list[str], precisions: list[str], said: str
) -> None:
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    with pytest.raises(UsageError, match=said):
        export_checkpoint(path, tmp_path / "out", precisions=precisions, ends=kinds)


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    out = tmp_path / "out"
    assert main(["export", str(path), "-o", str(out), "--precision", "fp16", "--io", "uint8"]) == 0
    assert files(out) == ["edsr-baseline-x2.fp16.onnx", "edsr-baseline-x2.fp16.uint8.onnx"]
    told = capsys.readouterr().err
    assert "x2 fp16 between uint8" in told
    assert f"--model {out / 'edsr-baseline-x2.fp16.onnx'}" in told
