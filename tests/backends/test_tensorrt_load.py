"""Loading: which engines are built and which are found; and the upscaler on them."""

import logging
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
    FakeEngine,
    enlarged,
    load,
    picture,
    spec_of,
)

from srcli import Upscaler
from srcli.backends import devices, registry, tensorrt
from srcli.backends.base import EngineInfo
from srcli.backends.devices import Driver, Gpu
from srcli.backends.tensorrt import flavour, store
from srcli.backends.tensorrt.build import BuildProgress, Built
from srcli.backends.tensorrt.flavour import Flavour
from srcli.errors import BackendUnavailableError, InferenceError, UsageError
from srcli.precision import Network
from srcli.settings import Settings


class Builds:
    """A stand-in for building and for TensorRT's runtime."""

    def __init__(self, device: FakeDevice) -> None:
        self.device, self.built, self.timings = device, list[tuple[str, int]](), list[bytes]()
        self.refused: set[bytes] = set()
        self.overflowing: set[bytes] = set()

    def build(
        self,
        what: Flavour,
        path: Path,
        precision: str,
        side: int,
        gpu: Gpu | None,
        timings: bytes,
        p: BuildProgress,
    ) -> Built:
        self.built.append((precision, side))
        self.timings.append(timings)
        return Built(f"engine {len(self.built)}".encode(), b"" if what.portable else b"measured")

    def load(self, what: Flavour, engine: bytes, kernels: bytes, keep: Any) -> FakeEngine:
        if engine in self.refused:
            raise InferenceError("TensorRT refuses it.")
        return FakeEngine(self.device, overflows=engine in self.overflowing)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Builds]:
    made = Builds(FakeDevice())
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(devices, "ask", lambda: TWO)
    monkeypatch.setattr(store, "build", made.build)
    monkeypatch.setattr(store, "TensorRtCudaEngine", made.load)
    monkeypatch.setattr(tensorrt, "Cuda", lambda number: made.device)
    monkeypatch.setattr(flavour, "cuda_of", lambda name: 13)
    set_flavour(monkeypatch, "tensorrt_rtx", "1.7.1")
    return made


def set_flavour(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    api = SimpleNamespace(IRuntimeCache=object) if name == "tensorrt_rtx" else SimpleNamespace()
    monkeypatch.setattr(flavour, "installed", lambda: (name,))
    monkeypatch.setattr(flavour, "find", lambda names: Flavour(name, version, api))
    monkeypatch.setattr(registry, "find_spec", lambda module: module)  # as if everything were installed


def test_engine_is_built_once(builds: Builds, tiny_models: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = load(tiny_models, Settings())
    assert (first.info, first.scale) == (EngineInfo("tensorrt", "cuda:0", "fp16"), 2)
    assert np.array_equal(first.run(picture(9, 9)), enlarged(picture(9, 9)))
    assert builds.built == [("fp16", 384)]
    assert "building it once for NVIDIA GeForce RTX 4090" in caplog.messages[0]
    assert "kept as" in caplog.messages[-1]
    caplog.clear()
    load(tiny_models, Settings())
    assert (len(builds.built), caplog.messages) == (1, [])


def test_other_precision_version_or_gpu_is_another_engine(
    builds: Builds, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tiny_models, Settings())
    load(tiny_models, Settings(precision="fp32"))
    set_flavour(monkeypatch, "tensorrt_rtx", "1.8.0")
    load(tiny_models, Settings())
    set_flavour(monkeypatch, "tensorrt", "11.4.0")
    load(tiny_models, Settings())
    monkeypatch.setattr(devices, "ask", lambda: Driver("13.0", (Gpu("NVIDIA H200", "9.0", 1 << 37),)))
    load(tiny_models, Settings())
    assert len(builds.built) == 5
    load(tiny_models, Settings(device="cuda:0"))
    assert len(builds.built) == 5


def test_int8_network_builds_in_fp32(builds: Builds, tiny_models: Path) -> None:
    path = tiny_models / "tiny-x2.onnx"
    spec = replace(spec_of(path), arithmetic="int8")
    assert tensorrt.load(path, spec, Settings()).info.precision == "int8"
    assert builds.built == [("fp32", 384)]


def test_engine_is_built_once_without_package_metadata(
    builds: Builds, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uninstalled(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", uninstalled)
    load(tiny_models, Settings())
    load(tiny_models, Settings())
    assert len(builds.built) == 1


def test_damaged_engine_is_built_again(
    builds: Builds, tiny_models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(tiny_models, Settings())
    (file,) = (tmp_path / "cache" / "tensorrt").glob("*.engine")
    file.write_bytes(file.read_bytes()[:-1])
    load(tiny_models, Settings())
    assert len(builds.built) == 2
    assert any("is damaged" in message for message in caplog.messages)
    load(tiny_models, Settings())
    assert len(builds.built) == 2


def test_rejected_engine_is_built_again(builds: Builds, tiny_models: Path) -> None:
    load(tiny_models, Settings())
    builds.refused = {b"engine 1"}
    load(tiny_models, Settings())
    assert len(builds.built) == 2
    builds.refused = {b"engine 2", b"engine 3"}
    with pytest.raises(InferenceError, match="refuses"):
        load(tiny_models, Settings())


def test_timing_cache_is_kept_for_the_next_build(
    builds: Builds, tiny_models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_flavour(monkeypatch, "tensorrt", "11.4.0")
    load(tiny_models, Settings())
    load(tiny_models, Settings(precision="fp32"))
    assert builds.timings == [b"", b"measured"]
    (file,) = (tmp_path / "cache" / "tensorrt").glob("*.timings")
    file.write_bytes(file.read_bytes()[:-1] + b"X")  # TensorRT would abort the process on a damaged one
    (tmp_path / "cache" / "tensorrt").joinpath(next(file.parent.glob("*fp32*.engine"))).unlink()
    load(tiny_models, Settings(precision="fp32"))
    assert builds.timings[-1] == b""


def test_no_memory_to_build_fails_at_first_tile(
    builds: Builds, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*arguments: Any) -> Built:
        if arguments[3] > 96:
            raise MemoryError
        return builds.build(*arguments)

    monkeypatch.setattr(store, "build", too_large)
    engine = load(tiny_models, Settings())
    with pytest.raises(MemoryError):
        engine.run(picture(384, 384))
    assert np.array_equal(engine.run(picture(96, 96)), enlarged(picture(96, 96)))


# Building ahead.


def test_engine_built_ahead_is_found_beside_the_model(
    builds: Builds, tiny_models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny-x2.onnx"
    path.write_bytes((tiny_models / "tiny-x2.onnx").read_bytes())
    file = tensorrt.build_ahead(path, spec_of(path), Settings(), tmp_path)
    assert file.parent == tmp_path
    assert file.name.startswith("tiny-x2-fp16-384-")
    assert tensorrt.build_ahead(path, spec_of(path), Settings(), tmp_path) == file
    load(tmp_path, Settings())
    assert builds.built == [("fp16", 384)]


def test_engine_built_without_gpu_is_found_on_all(
    builds: Builds, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny-x2.onnx"
    path.write_bytes((tiny_models / "tiny-x2.onnx").read_bytes())
    monkeypatch.setattr(devices, "ask", lambda: NO_DRIVER)
    tensorrt.build_ahead(path, spec_of(path), Settings(), tmp_path)
    monkeypatch.setattr(devices, "ask", lambda: TWO)
    load(tmp_path, Settings())
    assert len(builds.built) == 1


def test_full_tensorrt_needs_a_gpu_to_build(
    builds: Builds, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_flavour(monkeypatch, "tensorrt", "11.4.0")
    monkeypatch.setattr(devices, "ask", lambda: NO_DRIVER)
    path = tiny_models / "tiny-x2.onnx"
    with pytest.raises(BackendUnavailableError, match="no NVIDIA driver"):
        tensorrt.build_ahead(path, spec_of(path), Settings(), tmp_path)
    with pytest.raises(UsageError, match="bf16"):
        tensorrt.build_ahead(path, spec_of(path), Settings(precision="bf16"), tmp_path)


# In the upscaler.


def test_tiles_run_on_all_streams(
    builds: Builds, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Network, "check", lambda *arguments: None)  # a fake GPU's pixels are no match
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    upscaler = Upscaler("tiny", 2, backend="trt", tile=32)
    result = upscaler(image)
    assert np.array_equal(result, image.repeat(2, 0).repeat(2, 1))
    assert builds.device.most == tensorrt.STREAMS
    assert upscaler.info == EngineInfo("tensorrt", "cuda:0", "fp16")
    assert "building" in caplog.messages[0]
    turned = Upscaler("tiny", 2, backend="trt", tile=32, ensemble=True)(image)
    assert np.array_equal(turned, result), "repeated pixels are equal in all eight symmetries"
    builds.device.memory = 0
    for streams in upscaler._networks["tiny", 2].engine._streams.values():  # type: ignore[attr-defined]
        streams.release()
    with pytest.raises(InferenceError, match="Out of memory"):
        upscaler(image)


@pytest.mark.parametrize("kind", ["rgb", "gray", "rgba", "uint16", "float32"])
def test_every_layout_and_dtype_is_right(
    kind: str, builds: Builds, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "check", lambda *arguments: None)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 70, {"gray": 1, "rgba": 4}.get(kind, 3)), np.uint8)
    if kind == "rgba":
        image[..., 3] |= 1  # fully transparent pixels would be replaced
    if kind == "uint16":
        image = image.astype(np.uint16) * 257
    if kind == "float32":
        image = image.astype(np.float32) / 255
    result = Upscaler("tiny", 2, backend="trt", tile=32)(image)
    assert result.dtype == image.dtype
    assert np.array_equal(result, image.repeat(2, 0).repeat(2, 1))


def test_uint8_pictures_are_copied_as_uint8(
    builds: Builds, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Network, "check", lambda *arguments: None)
    upscaler = Upscaler("tiny", 2, backend="trt")
    upscaler(np.zeros((32, 32, 3), np.uint8))
    assert sorted(map(len, builds.device.host.values())) == [4, 3 * 64 * 64, 4 * 3 * 32 * 32]
    upscaler(np.zeros((32, 32, 3), np.uint16))
    assert 4 * 3 * 64 * 64 in map(len, builds.device.host.values())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_overflow_in_fp16_is_computed_in_fp32(
    dtype: type,
    builds: Builds,
    tiny_catalog: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Network, "check", lambda *arguments: None)
    builds.overflowing = {b"engine 1"}
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(dtype)
    upscaler = Upscaler("tiny", 2, backend="trt", tile=32)
    assert np.array_equal(upscaler(image), image.repeat(2, 0).repeat(2, 1))
    assert builds.built == [("fp16", 384), ("fp32", 384)]
    assert any("infinities or NaN" in note for note in caplog.messages)
    assert upscaler.computed is not None
    assert upscaler.computed.info.precision == "fp32"


def test_tile_is_halved_when_memory_is_short(
    builds: Builds, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Network, "check", lambda *arguments: None)
    builds.device.memory = 2 * 80 * 40 * 40  # 80 bytes a pixel: enough for two tiles of 40 pixels, not for 64
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    upscaler = Upscaler("tiny", 2, backend="tensorrt")
    assert np.array_equal(upscaler(image), image.repeat(2, 0).repeat(2, 1))
    assert any("going on with 32" in note for note in caplog.messages)
