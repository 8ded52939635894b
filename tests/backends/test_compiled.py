"""Compiled networks on disk: found again only if nothing that matters differs, and only if they are whole."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engines import picture

from srcli.backends import compiled, libraries
from srcli.backends.base import Batch
from srcli.io.storage import cache_folder

CONFIG = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


class Core:
    """OpenVINO's, which notes what is asked of it."""

    def __init__(self) -> None:
        self.openvino = libraries.openvino()
        self._core, self.asked = self.openvino.Core(), list[str]()

    def __getattr__(self, name: str) -> Any:
        if name in ("compile_model", "import_model"):
            self.asked.append(name.removesuffix("_model"))
        return getattr(self._core, name)


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Core:
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    return Core()


def run(core: Core, path: Path, config: dict[str, str] = CONFIG, library: str = "1.0") -> Batch:
    request = compiled.load(core, path, config, library).create_infer_request()
    return np.array(request.infer([picture(9, 14)])[0])


def kept() -> list[Path]:
    return sorted(cache_folder("openvino").glob("*"))


@pytest.fixture
def path(tiny_models: Path) -> Path:
    return tiny_models / "tiny-x2.onnx"


def test_the_second_run_compiles_nothing_and_gives_the_same(core: Core, path: Path) -> None:
    first, second = run(core, path), run(core, path)
    assert core.asked == ["compile", "import"]
    np.testing.assert_array_equal(first, second)
    assert [file.suffix for file in kept()] == [".compiled"]


def test_any_difference_is_another_file(core: Core, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "tiny-x2.onnx"
    shutil.copy(path.with_name("tiny-x3.onnx"), other)
    run(core, path)
    run(core, other)
    run(core, path, CONFIG | {"INFERENCE_NUM_THREADS": "1"})
    run(core, path, library="1.1")
    assert core.asked == ["compile"] * 4
    assert len(kept()) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_file_never_reaches_openvino(core: Core, path: Path, damage: str) -> None:
    first = run(core, path)
    (file,) = kept()
    whole = file.read_bytes()
    flipped = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
    file.write_bytes({"cut": whole[: len(whole) // 2], "flip": flipped, "empty": b""}[damage])
    np.testing.assert_array_equal(run(core, path), first)
    assert core.asked == ["compile", "compile"]
    assert file.read_bytes()[:100] == whole[:100], "kept anew"


def test_weights_that_nothing_vouches_for_are_not_kept(core: Core, path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    run(core, tmp_path / "foreign.onnx")
    assert kept() == []


def test_where_nothing_can_be_kept_it_runs_all_the_same(
    core: Core, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "file"))
    run(core, path)
    run(core, path)
    assert core.asked == ["compile", "compile"]
