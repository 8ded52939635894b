"""What cannot be imported is refused with a reason, executes nothing, and leaves nothing behind."""

import builtins
import os
import pickle
import re
from pathlib import Path
from typing import Any

import foreign_weights
import pytest
import torch
from tiny_exports import checkpoint

from srcli.errors import (
    ExportError,
    MissingExtraError,
    ModelFileError,
    OutputError,
    TrainingError,
    UsageError,
)
from srcli.models import catalog
from srcli_export.importing import Request, edsr, import_weights, importer
from srcli_export.importing.importer import default_name


@pytest.fixture(autouse=True)
def nothing_left(user_models: Path) -> Any:
    """No test here may leave a model."""
    yield
    assert not user_models.exists() or list(user_models.iterdir()) == []


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


class _Trap:
    """Makes a folder when it is unpickled by a loader that executes what it reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_file_that_needs_code_is_refused_unexecuted(tmp_path: Path) -> None:
    path = saved(tmp_path / "evil.pt", {"head.0.weight": _Trap(tmp_path / "executed")})
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(_Trap(tmp_path / "executed")))
    for file in (path, tmp_path / "plain.pt"):
        with pytest.raises(ModelFileError, match=rf"{file.name}.*code.*refused") as caught:
            import_weights(Request(file))
        assert "Nothing in it was executed" in caught.value.hint
    assert not (tmp_path / "executed").exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="code"):
        import_weights(Request(saved(tmp_path / "module.pt", torch.nn.Conv2d(3, 3, 3))))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02", b"no weights at all", b"\xff" * 64])
def test_files_without_weights_are_refused(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"bad\."):
        import_weights(Request(path))


@pytest.mark.parametrize("kept", [10, 1000, -100])
def test_a_truncated_file(kept: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "cut.pt", foreign_weights.edsr(2))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelFileError, match=r"cut\.pt"):
        import_weights(Request(path))


def test_truncated_safetensors(tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}'
    path = tmp_path / "cut.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    with pytest.raises(ModelFileError, match=r"cut\.safetensors.*cut off"):
        import_weights(Request(path))


@pytest.mark.parametrize("content", [[1, 2], {}, {3: torch.zeros(1)}, torch.zeros(3)])
def test_files_without_named_weights_are_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="no weights by name"):
        import_weights(Request(saved(tmp_path / "a.pt", content)))


def test_a_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "no.pt", tmp_path):
        with pytest.raises(UsageError):
            import_weights(Request(path, "a"))


def test_without_spandrel_other_networks_name_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "spandrel":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    path = saved(tmp_path / "span.pth", {"conv_1.sk.weight": torch.zeros(8, 3, 1, 1)})
    with pytest.raises(MissingExtraError, match=re.escape('pip install "srcli[spandrel]"')):
        import_weights(Request(path))


def test_shipped_names_and_families_cannot_be_taken(tmp_path: Path, tiny_catalog: Path) -> None:
    path = saved(tmp_path / "tiny.pt", foreign_weights.edsr(2))
    for name in ("", "tiny", "mdsr", "edsr", "bicubic", "auto"):
        with pytest.raises(UsageError, match="itself has a model"):
            import_weights(Request(path, name))


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "a b", "a-x2", "a.onnx", "-", "ä"])
def test_impossible_names_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be the name"):
        import_weights(Request(saved(tmp_path / "a.pt", foreign_weights.edsr(2)), name))


@pytest.mark.parametrize("existing", ["a-x2.onnx", "a.weights"])
def test_nothing_is_replaced(existing: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / existing).write_bytes(b"precious")
    with pytest.raises(UsageError, match="already there"):
        import_weights(Request(saved(tmp_path / "a.pt", foreign_weights.mdsr())), tmp_path / "out")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "out").iterdir()] == [(existing, b"precious")]


def test_a_mean_shift_that_scales_colours_is_refused(tmp_path: Path) -> None:
    state = foreign_weights.edsr(2)
    state["sub_mean.weight"] = state["sub_mean.weight"] / 0.229
    with pytest.raises(ModelFileError, match="more than shift"):
        import_weights(Request(saved(tmp_path / "a.pt", state)))


def test_a_config_of_another_network_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", foreign_weights.edsr(2))
    (tmp_path / "config.json").write_text('{"model_type": "EDSR", "n_resblocks": 16, "n_feats": 64}')
    with pytest.raises(ModelFileError, match="another network"):
        import_weights(Request(path))


def test_an_import_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.pt", foreign_weights.edsr(2))
    layers = edsr._layers
    monkeypatch.setattr(edsr, "_layers", lambda *rest: layers(*rest[:-1], 0.9))
    with pytest.raises(ExportError, match="differs"):
        import_weights(Request(path))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = foreign_weights.edsr(2)
    state["tail.1.bias"][0] = float("nan")
    with pytest.raises(ExportError):
        import_weights(Request(saved(tmp_path / "a.pt", state)))


def test_an_interrupted_import_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*rest: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importer, "measure_halo", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_weights(Request(saved(tmp_path / "a.pt", foreign_weights.edsr(2))))


def test_damaged_own_checkpoints(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    raw = torch.load(path, weights_only=True)
    with pytest.raises(TrainingError, match="version"):
        import_weights(Request(saved(tmp_path / "v.pt", raw | {"format": 99}), "mine"))
    del raw["weights"]["tail.bias"]
    with pytest.raises(ModelFileError, match="do not fit"):
        import_weights(Request(saved(tmp_path / "w.pt", raw), "mine"))


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", foreign_weights.edsr(2))
    with pytest.raises(OutputError):
        import_weights(Request(path), path)


def test_bad_requests(tmp_path: Path) -> None:
    for scaling in (0.0, -1.0, 2.0, float("nan")):
        with pytest.raises(UsageError, match="residual"):
            Request(tmp_path, residual_scale=scaling)
    with pytest.raises(UsageError, match="Convention"):
        Request(tmp_path, convention="caffe")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("edsr_baseline_x2-1bc95232.pt", "edsr_baseline"),
        ("EDSR_x4-4f62e9ef.pt", "edsr"),
        ("4x-UltraSharp.pth", "ultrasharp"),
        ("RealESRGAN_x4plus_anime.pth", "realesrgan_x4plus_anime"),
        ("2x_Compact (new).pth", "compact-new"),
        ("edsr-base/pytorch_model_2x.pt", "edsr-base"),
        ("runs/mine/last.pt", "mine"),
    ],
)
def test_default_names(file: str, name: str) -> None:
    assert default_name(Path("/models") / file) == name


def test_the_users_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert catalog.user_folder() != tmp_path
    monkeypatch.setenv("SRCLI_MODELS", str(tmp_path))
    assert catalog.user_folder() == tmp_path
    monkeypatch.delenv("SRCLI_MODELS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert catalog.user_folder() == tmp_path / "srcli" / "models"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert catalog.user_folder() == tmp_path / ".local" / "share" / "srcli" / "models"
