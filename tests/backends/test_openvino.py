"""OpenVINO: compiled networks in the cache."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engines import picture

from srcli.backends import openvino
from srcli.backends.base import Batch
from srcli.backends.openvino import compile_cached, import_openvino
from srcli.io.storage import cache_folder

CONFIG = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


class Core:
    """OpenVINO's Core, which logs what it compiles and imports."""

    def __init__(self) -> None:
        self._core, self.calls = import_openvino().Core(), list[str]()

    def __getattr__(self, name: str) -> Any:
        if name in ("compile_model", "import_model"):
            self.calls.append(name.removesuffix("_model"))
        return getattr(self._core, name)


@pytest.fixture
def core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Core:
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    return Core()


@pytest.fixture
def path(tiny_models: Path) -> Path:
    return tiny_models / "tiny-x2.onnx"


def run(core: Core, path: Path, config: dict[str, str] = CONFIG, version: str = "1.0") -> Batch:
    request = compile_cached(core, path, config, version).create_infer_request()
    return np.array(request.infer([picture(9, 14)])[0])


def cached() -> list[Path]:
    return sorted(cache_folder(openvino.NAME).glob("*"))


# The cache.


def test_second_run_imports_and_gives_the_same(core: Core, path: Path) -> None:
    first, second = run(core, path), run(core, path)
    assert core.calls == ["compile", "import"]
    np.testing.assert_array_equal(first, second)
    assert [file.suffix for file in cached()] == [".compiled"]


def test_other_model_config_or_version_is_another_file(core: Core, path: Path, tmp_path: Path) -> None:
    other = tmp_path / "tiny-x2.onnx"
    shutil.copy(path.with_name("tiny-x3.onnx"), other)
    run(core, path)
    run(core, other)
    run(core, path, CONFIG | {"INFERENCE_NUM_THREADS": "1"})
    run(core, path, version="1.1")
    assert core.calls == ["compile"] * 4
    assert len(cached()) == 4


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damaged_file_is_compiled_again(core: Core, path: Path, damage: str) -> None:
    first = run(core, path)
    (file,) = cached()
    whole = file.read_bytes()
    flipped = whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:]
    file.write_bytes({"cut": whole[: len(whole) // 2], "flip": flipped, "empty": b""}[damage])
    np.testing.assert_array_equal(run(core, path), first)
    assert core.calls == ["compile", "compile"]
    assert file.read_bytes()[:100] == whole[:100], "kept again"


def test_file_without_metadata_is_not_cached(core: Core, path: Path, tmp_path: Path) -> None:
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    run(core, tmp_path / "foreign.onnx")
    assert cached() == []


def test_runs_where_the_cache_cannot_be_written(
    core: Core, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "file"))
    run(core, path)
    run(core, path)
    assert core.calls == ["compile", "compile"]


def test_threads_are_not_bound_to_cores(path: Path) -> None:
    """Else two processes of one thread each would share the first core, and leave the others idle."""
    network = compile_cached(import_openvino().Core(), path, openvino._config("fp32", 1), "1.0")
    assert network.get_property("ENABLE_CPU_PINNING") is False
    assert network.get_property("INFERENCE_NUM_THREADS") == 1
