"""An export that is not its checkpoint, or cannot be made, is an error and leaves no file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_exports import checkpoint, export, files, photograph, tiny

from srcli.errors import ExportError, OutputError, TrainingError, UsageError
from srcli_export import fuse
from srcli_export.exporter import export_checkpoint
from srcli_export.layers import Chain, Conv
from srcli_train.checkpoint import Checkpoint, save_checkpoint
from srcli_train.recipes import Recipe


def _without_first_bias(chain: Chain) -> Chain:
    first = chain[0]
    assert isinstance(first, Conv)
    return (replace(first, bias=first.bias * 0), *chain[1:])


def test_an_export_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = checkpoint(tmp_path)
    original = fuse.fuse
    monkeypatch.setattr(fuse, "fuse", lambda *job: _without_first_bias(original(*job)))
    with pytest.raises(ExportError, match="differs from its checkpoint"):
        export(path, tmp_path / "out")
    assert files(tmp_path / "out") == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad: float, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("precisions", [["fp64"], ["fp32", "fp8"], []])
def test_unknown_precisions(precisions: list[str], tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    with pytest.raises(UsageError, match="precision"):
        export_checkpoint(path, tmp_path / "out", precisions=precisions)


def test_int8_needs_photographs(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    with pytest.raises(UsageError, match="photographs"):
        export_checkpoint(path, tmp_path / "out", precisions=["int8"])


def test_validation_images_are_checked(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    with pytest.raises(UsageError, match="calibration image"):
        export_checkpoint(path, tmp_path / "out", validation=[photograph()[:20]])
