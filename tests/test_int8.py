"""A network's int8 file: when it is taken, that it is the same network, and what happens where it fails."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from srcli import Upscaler
from srcli.backends import openvino, table
from srcli.backends.base import BackendOptions, Batch, Engine
from srcli.benchmark import plan
from srcli.errors import BackendUnavailableError
from srcli.metrics import decibels
from srcli.models import catalog
from srcli.spec import ModelSpec

pytest.importorskip("openvino")

NAMES = ("mdsr-baseline", "mdsr-photo")


@pytest.fixture(params=[True, False])
def fast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the CPU is one on which int8 is fast."""
    monkeypatch.setattr(openvino, "has_fast_int8", lambda: request.param)
    return bool(request.param)


def photograph(side: int = 72) -> np.ndarray:  # type: ignore[type-arg]
    return np.ascontiguousarray(data.rocket()[100 : 100 + side, 280 : 280 + side])


# Which file?


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_shipped_networks_have_int8_files_that_are_fit_for_use(name: str, scale: int) -> None:
    file = catalog.resolve(name, scale)
    assert file.int8 is not None
    int8 = file.at("int8")
    assert (int8.path.name, int8.full) == (f"{name}-x{scale}.int8.onnx", replace(file, int8=None))
    assert (int8.name, int8.spec.arithmetic, file.at("f32")) == (name, "int8", file)
    assert int8.spec.verified["psnr_lost"] <= 0.01
    assert int8.spec.verified["time_share"] < 1
    assert int8.spec.halo <= 32, "tiles of 384 would spend too much on it"


def test_they_are_no_models_of_their_own() -> None:
    assert not [spec.name for spec in catalog.list_models(catalog.MODELS_FOLDER) if "int8" in spec.name]


def test_a_path_means_that_file_alone() -> None:
    path = catalog.MODELS_FOLDER / "mdsr-baseline-x2.onnx"
    assert catalog.resolve(path, 2).int8 is None


def test_a_file_of_other_weights_is_none_of_it(tmp_path: Path) -> None:
    """As when a network was exported again, but not in int8."""
    for name in ("mdsr-photo-x2.onnx", "mdsr-photo.weights"):
        shutil.copy(catalog.MODELS_FOLDER / name, tmp_path)
    shutil.copy(catalog.MODELS_FOLDER / "mdsr-baseline-x2.int8.onnx", tmp_path / "mdsr-photo-x2.int8.onnx")
    assert catalog.resolve("mdsr-photo", 2, tmp_path).int8 is None
    shutil.copy(catalog.MODELS_FOLDER / "mdsr-photo-x2.int8.onnx", tmp_path)
    assert catalog.resolve("mdsr-photo", 2, tmp_path).int8 is not None


# When?


def test_it_is_the_default_where_int8_is_fast(fast: bool) -> None:
    upscaler = Upscaler("mdsr-baseline", 2, backend="openvino")
    assert (upscaler.info.precision == "int8") == fast
    assert (upscaler.spec.arithmetic == "int8") == fast
    assert upscaler.reason.startswith(f"openvino {upscaler.info.precision} on cpu (as asked for")


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_what_is_asked_for_is_used(backend: str, fast: bool) -> None:
    pytest.importorskip(backend)
    assert Upscaler("mdsr-baseline", 2, backend=backend, precision="int8").info.precision == "int8"
    assert Upscaler("mdsr-baseline", 2, backend=backend, precision="f32").info.precision == "f32"


def test_no_other_backend_takes_it_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "has_fast_int8", lambda: True)
    assert not table.prefers_int8("onnxruntime", BackendOptions())
    assert not table.prefers_int8("openvino", BackendOptions(precision="bf16"))
    assert table.prefers_int8("onnxruntime", BackendOptions(precision="int8"))


def test_int8_that_there_is_not_is_refused() -> None:
    with pytest.raises(BackendUnavailableError, match="edsr-baseline x2 has no int8 file here") as caught:
        Upscaler("edsr-baseline", 2, precision="int8")
    assert "srcli export --precision int8" in caught.value.hint


def test_a_backend_without_eight_bits_refuses_them() -> None:
    pytest.importorskip("torch")
    with pytest.raises(BackendUnavailableError, match="torch backend has no precision int8"):
        Upscaler("mdsr-baseline", 2, backend="torch", precision="int8")


# Is it the same network?


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("name", NAMES)
def test_its_pictures_are_those_of_float32(backend: str, name: str) -> None:
    """57 dB or more were measured; rounding both to 8 bits is 56 dB apart by itself, hence 52."""
    pytest.importorskip(backend)
    image = photograph()
    exact = Upscaler(name, 4, backend="onnxruntime", precision="f32")(image).astype(np.float64)
    eight = Upscaler(name, 4, backend=backend, precision="int8")(image)
    assert 52 < decibels(float(np.mean((eight - exact) ** 2)), peak=255.0) < 80


def test_tiles_leave_no_trace() -> None:
    image = photograph(150)
    whole = Upscaler("mdsr-baseline", 2, backend="openvino", precision="int8", tile=512)(image)
    tiled = Upscaler("mdsr-baseline", 2, backend="openvino", precision="int8", tile=96)(image)
    assert np.abs(whole.astype(int) - tiled).max() <= 1


class Spoilt:
    """An engine that gives no numbers in int8."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.info, self.scale = engine, engine.info, engine.scale

    def run(self, lr: Batch) -> Batch:
        made = self.engine.run(lr)
        return made * np.float32(np.nan) if self.info.precision == "int8" else made


def spoil(load: Callable[..., Engine]) -> Callable[..., Spoilt]:
    def loaded(name: str, path: Path, spec: ModelSpec, options: BackendOptions) -> Spoilt:
        return Spoilt(load(name, path, spec, options))

    return loaded


def test_where_it_fails_float32_is_computed_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photograph(20)
    exact = Upscaler("mdsr-baseline", 2, backend="openvino", precision="f32", halo=22)(image)
    monkeypatch.setattr(table, "load", spoil(table.load))
    upscaler = Upscaler("mdsr-baseline", 2, backend="openvino", precision="int8")
    np.testing.assert_array_equal(upscaler(image), exact)
    assert upscaler.notes == ["int8 on cpu gave infinities or NaN: computed again in f32"]
    assert upscaler.made is not None
    assert upscaler.made.info.precision == "f32"


# Benchmarks.


def planned(**asked: tuple[str, ...]) -> dict[str, set[str]]:
    request = replace(plan.Request(("mdsr-baseline", "edsr-baseline"), (2,), ("openvino",)), **asked)
    return {
        s.file.name: {case.precision for case in s.cases}
        for s in plan.make(request, lambda text: None).subjects
    }


def test_benchmarks_measure_int8_where_there_is_such_a_file() -> None:
    found = planned()
    assert {"f32", "int8"} <= found["mdsr-baseline"]
    assert found["edsr-baseline"] == found["mdsr-baseline"] - {"int8"}


def test_benchmarks_drop_nothing_that_was_asked_for() -> None:
    assert planned(models=("mdsr-baseline",), precisions=("int8",)) == {"mdsr-baseline": {"int8"}}
    with pytest.raises(BackendUnavailableError, match=r"edsr-baseline-x2\.onnx computes in .*, not in int8"):
        planned(precisions=("int8",))
    path = str(catalog.MODELS_FOLDER / "mdsr-baseline-x2.int8.onnx")
    assert planned(models=(path,)) == {"mdsr-baseline": {"int8"}}
