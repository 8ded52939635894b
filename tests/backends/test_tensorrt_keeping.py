"""What is built, what is found, and how the upscaler works with it."""

from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorrt_doubles import (
    NO_DRIVER,
    TWO,
    FakeDevice,
    FakeProgram,
    enlarged,
    load,
    picture,
    spec_of,
)

from srcli import Upscaler
from srcli.backends import devices, registry
from srcli.backends.base import BackendOptions, EngineInfo
from srcli.backends.devices import Driver, Gpu
from srcli.backends.tensorrt import engine, flavour, workshop
from srcli.backends.tensorrt.build import Built
from srcli.backends.tensorrt.flavour import Flavour
from srcli.backends.tensorrt.progress import Watch
from srcli.errors import BackendUnavailableError, InferenceError, UsageError
from srcli.tiled import TiledNetwork


class Builds:
    """Stands in for building and for TensorRT's runtime."""

    def __init__(self, device: FakeDevice) -> None:
        self.device, self.built, self.timings = device, list[tuple[str, int]](), list[bytes]()
        self.refused: set[bytes] = set()
        self.overflowing: set[bytes] = set()

    def build(
        self, what: Flavour, path: Path, precision: str, side: int, gpu: Gpu | None, timings: bytes, w: Watch
    ) -> Built:
        self.built.append((precision, side))
        self.timings.append(timings)
        return Built(f"plan {len(self.built)}".encode(), b"" if what.portable else b"measured")

    def program(self, what: Flavour, plan: bytes, kernels: bytes, keep: Any) -> FakeProgram:
        if plan in self.refused:
            raise InferenceError("TensorRT refuses it.")
        return FakeProgram(self.device, overflows=plan in self.overflowing)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Builds]:
    made = Builds(FakeDevice())
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(devices, "ask", lambda: TWO)
    monkeypatch.setattr(workshop, "build", made.build)
    monkeypatch.setattr(workshop, "TensorRtProgram", made.program)
    monkeypatch.setattr(engine, "Cuda", lambda number: made.device)
    monkeypatch.setattr(flavour, "cuda_of", lambda name: 13)
    set_flavour(monkeypatch, "tensorrt_rtx", "1.7.1")
    return made


def set_flavour(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    api = SimpleNamespace(IRuntimeCache=object) if name == "tensorrt_rtx" else SimpleNamespace()
    monkeypatch.setattr(flavour, "installed", lambda: (name,))
    monkeypatch.setattr(flavour, "find", lambda names: Flavour(name, version, api))
    monkeypatch.setattr(registry, "find_spec", lambda module: module)  # as if everything were installed


def test_an_engine_is_built_once(builds: Builds, tiny_models: Path) -> None:
    told: list[str] = []
    first = load(tiny_models, BackendOptions(tell=told.append))
    assert (first.info, first.scale) == (EngineInfo("tensorrt", "cuda:0", "fp16"), 2)
    assert np.array_equal(first.run(picture(9, 9)), enlarged(picture(9, 9)))
    assert builds.built == [("fp16", 384)]
    assert "building it once for NVIDIA GeForce RTX 4090" in told[0]
    assert "kept as" in told[-1]
    told.clear()
    load(tiny_models, BackendOptions(tell=told.append))
    assert (len(builds.built), told) == (1, [])


def test_another_precision_version_or_gpu_is_another_engine(
    builds: Builds, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tiny_models, BackendOptions())
    load(tiny_models, BackendOptions("fp32"))
    set_flavour(monkeypatch, "tensorrt_rtx", "1.8.0")
    load(tiny_models, BackendOptions())
    set_flavour(monkeypatch, "tensorrt", "11.4.0")
    load(tiny_models, BackendOptions())
    monkeypatch.setattr(devices, "ask", lambda: Driver("13.0", (Gpu("NVIDIA H200", "9.0", 1 << 37),)))
    load(tiny_models, BackendOptions())
    assert len(builds.built) == 5
    load(tiny_models, BackendOptions(device="cuda:0"))
    assert len(builds.built) == 5


def test_a_quantised_network_is_int8_in_f32(builds: Builds, tiny_models: Path) -> None:
    path = tiny_models / "tiny-x2.onnx"
    spec = replace(spec_of(path), arithmetic="int8")
    assert engine.load(path, spec, BackendOptions()).info.precision == "int8"
    assert builds.built == [("fp32", 384)]


def test_uninstalled_it_still_has_a_key(
    builds: Builds, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uninstalled(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", uninstalled)
    load(tiny_models, BackendOptions())
    load(tiny_models, BackendOptions())
    assert len(builds.built) == 1


def test_a_damaged_engine_is_built_again(builds: Builds, tiny_models: Path, tmp_path: Path) -> None:
    told: list[str] = []
    load(tiny_models, BackendOptions())
    (file,) = (tmp_path / "cache" / "tensorrt").glob("*.engine")
    file.write_bytes(file.read_bytes()[:-1])
    load(tiny_models, BackendOptions(tell=told.append))
    assert len(builds.built) == 2
    assert "is damaged" in told[0]
    load(tiny_models, BackendOptions())
    assert len(builds.built) == 2


def test_an_engine_that_tensorrt_refuses_is_built_again(builds: Builds, tiny_models: Path) -> None:
    load(tiny_models, BackendOptions())
    builds.refused = {b"plan 1"}
    load(tiny_models, BackendOptions())
    assert len(builds.built) == 2
    builds.refused = {b"plan 2", b"plan 3"}
    with pytest.raises(InferenceError, match="refuses"):
        load(tiny_models, BackendOptions())


def test_measurements_of_the_builder_are_kept_for_the_next(
    builds: Builds, tiny_models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_flavour(monkeypatch, "tensorrt", "11.4.0")
    load(tiny_models, BackendOptions())
    load(tiny_models, BackendOptions("fp32"))
    assert builds.timings == [b"", b"measured"]
    (file,) = (tmp_path / "cache" / "tensorrt").glob("*.timings")
    file.write_bytes(file.read_bytes()[:-1] + b"X")  # a damaged one would abort the process
    (tmp_path / "cache" / "tensorrt").joinpath(next(file.parent.glob("*fp32*.engine"))).unlink()
    load(tiny_models, BackendOptions("fp32"))
    assert builds.timings[-1] == b""


def test_no_memory_to_build_shows_at_the_first_tile(
    builds: Builds, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*arguments: Any) -> Built:
        if arguments[3] > 96:
            raise MemoryError
        return builds.build(*arguments)

    monkeypatch.setattr(workshop, "build", too_large)
    engine = load(tiny_models, BackendOptions())
    with pytest.raises(MemoryError):
        engine.run(picture(384, 384))
    assert np.array_equal(engine.run(picture(96, 96)), enlarged(picture(96, 96)))


# Building ahead.


def test_what_was_built_ahead_is_found_beside_the_model(
    builds: Builds, tiny_models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny-x2.onnx"
    path.write_bytes((tiny_models / "tiny-x2.onnx").read_bytes())
    file = engine.build_ahead(path, spec_of(path), BackendOptions(), tmp_path)
    assert file.parent == tmp_path
    assert file.name.startswith("tiny-x2-fp16-384-")
    assert engine.build_ahead(path, spec_of(path), BackendOptions(), tmp_path) == file
    load(tmp_path, BackendOptions())
    assert builds.built == [("fp16", 384)]


def test_without_a_gpu_it_is_built_for_any_and_found_on_all(
    builds: Builds, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny-x2.onnx"
    path.write_bytes((tiny_models / "tiny-x2.onnx").read_bytes())
    monkeypatch.setattr(devices, "ask", lambda: NO_DRIVER)
    engine.build_ahead(path, spec_of(path), BackendOptions(), tmp_path)
    monkeypatch.setattr(devices, "ask", lambda: TWO)
    load(tmp_path, BackendOptions())
    assert len(builds.built) == 1


def test_full_tensorrt_cannot_build_without_a_gpu(
    builds: Builds, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_flavour(monkeypatch, "tensorrt", "11.4.0")
    monkeypatch.setattr(devices, "ask", lambda: NO_DRIVER)
    path = tiny_models / "tiny-x2.onnx"
    with pytest.raises(BackendUnavailableError, match="no NVIDIA driver"):
        engine.build_ahead(path, spec_of(path), BackendOptions(), tmp_path)
    with pytest.raises(UsageError, match="bf16"):
        engine.build_ahead(path, spec_of(path), BackendOptions("bf16"), tmp_path)


# In the upscaler.


def test_the_tiles_of_a_picture_are_worked_on_together(
    builds: Builds, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TiledNetwork, "_compare", lambda *arguments: None)  # a fake GPU's pixels are no match
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    told: list[str] = []
    upscaler = Upscaler("tiny", 2, backend="trt", tile=32, tell=told.append)
    result = upscaler(image)
    assert np.array_equal(result, image.repeat(2, 0).repeat(2, 1))
    assert builds.device.most == engine.LANES
    assert upscaler.info == EngineInfo("tensorrt", "cuda:0", "fp16")
    assert "building" in told[0]
    turned = Upscaler("tiny", 2, backend="trt", tile=32, ensemble=True)(image)
    assert np.array_equal(turned, result), "eight symmetries of repeating pixels are all the same"
    builds.device.memory = 0
    for lanes in upscaler._networks["tiny", 2].engine._lanes.values():  # type: ignore[attr-defined]
        lanes.release()
    with pytest.raises(InferenceError, match="Out of memory"):
        upscaler(image)


@pytest.mark.parametrize("kind", ["rgb", "gray", "rgba", "uint16", "float32"])
def test_every_kind_of_picture_comes_out_right(
    kind: str, builds: Builds, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TiledNetwork, "_compare", lambda *arguments: None)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 70, {"gray": 1, "rgba": 4}.get(kind, 3)), np.uint8)
    if kind == "rgba":
        image[..., 3] |= 1  # what lies under no opacity at all is filled up before
    if kind == "uint16":
        image = image.astype(np.uint16) * 257
    if kind == "float32":
        image = image.astype(np.float32) / 255
    result = Upscaler("tiny", 2, backend="trt", tile=32)(image)
    assert result.dtype == image.dtype
    assert np.array_equal(result, image.repeat(2, 0).repeat(2, 1))


def test_8_bit_pictures_cross_the_bus_as_such(
    builds: Builds, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TiledNetwork, "_compare", lambda *arguments: None)
    upscaler = Upscaler("tiny", 2, backend="trt")
    upscaler(np.zeros((32, 32, 3), np.uint8))
    assert sorted(map(len, builds.device.host.values())) == [4, 3 * 64 * 64, 4 * 3 * 32 * 32]
    upscaler(np.zeros((32, 32, 3), np.uint16))
    assert 4 * 3 * 64 * 64 in map(len, builds.device.host.values())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_overflows_in_halves_is_computed_again(
    dtype: type, builds: Builds, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TiledNetwork, "_compare", lambda *arguments: None)
    builds.overflowing = {b"plan 1"}
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(dtype)
    upscaler = Upscaler("tiny", 2, backend="trt", tile=32)
    assert np.array_equal(upscaler(image), image.repeat(2, 0).repeat(2, 1))
    assert builds.built == [("fp16", 384), ("fp32", 384)]
    assert any("infinities or NaN" in note for note in upscaler.notes)
    assert upscaler.made is not None
    assert upscaler.made.info.precision == "fp32"


def test_a_tile_is_halved_when_memory_is_short(
    builds: Builds, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TiledNetwork, "_compare", lambda *arguments: None)
    builds.device.memory = 2 * 80 * 40 * 40  # 80 bytes a pixel: enough for two tiles of 40 pixels, not for 64
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    upscaler = Upscaler("tiny", 2, backend="tensorrt")
    assert np.array_equal(upscaler(image), image.repeat(2, 0).repeat(2, 1))
    assert any("going on with 32" in note for note in upscaler.notes)
