"""TensorRT on a GPU, where there is one: results, engines on disk, streams, memory."""

import logging
from pathlib import Path

import numpy as np
import pytest
import tiny_networks
from engines import FP32_TOLERANCE, load, picture, psnr

from srcli import Upscaler, tiles
from srcli.backends import devices, tensorrt
from srcli.backends.tensorrt import flavour
from srcli.backends.tensorrt.runtime import Cuda
from srcli.errors import BackendUnavailableError
from srcli.imaging import pixels
from srcli.models import catalog
from srcli.models.spec import read_spec
from srcli.settings import Settings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not devices.ask().gpus, reason="needs an NVIDIA GPU"),
    pytest.mark.skipif(not flavour.installed(), reason="needs TensorRT"),
]

FP16_PSNR = 60.0
"""dB against fp32 with float32 I/O: eleven bits of mantissa. bf16, with eight, gives 59."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> "pytest.MonkeyPatch":  # type: ignore[misc]
    """A cache for all tests of this module."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SRCLI_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield patch
    patch.undo()


def on_gpu(path: Path, precision: str = "fp32") -> tensorrt.TensorRtEngine:
    loaded = load("tensorrt", path, precision)
    assert isinstance(loaded, tensorrt.TensorRtEngine)
    return loaded


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (19, 23), (96, 384)])
def test_fp32_agrees_with_the_cpu(scale: int, size: tuple[int, int], tiny_models: Path) -> None:
    path = tiny_models / f"tiny-x{scale}.onnx"
    engine, lr = on_gpu(path), picture(*size)
    exact = load("onnxruntime", path, device="cpu").run(lr)
    for _ in range(3):  # directly, captured, launched
        assert np.abs(engine.run(lr) - exact).max() < FP32_TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_second_run_is_a_cuda_graph(precision: str, tiny_models: Path) -> None:
    engine = on_gpu(tiny_models / "tiny-x2.onnx", precision)
    for graphs in (0, 1, 1):
        engine.run(picture(32, 32))
        (streams,) = engine._streams.values()
        assert (streams.graphs, streams.problem) == (graphs, "")


@pytest.mark.parametrize("name", ["edsr-baseline", "mdsr-baseline"])
def test_shipped_network_in_both_precisions(name: str) -> None:
    path = catalog.resolve(name, 4).path
    lr = np.linspace(0, 1, 3 * 48 * 64, dtype=np.float32).reshape(1, 3, 48, 64)
    exact = load("onnxruntime", path, device="cpu").run(lr)
    assert np.abs(on_gpu(path).run(lr) - exact).max() < FP32_TOLERANCE
    fp16 = on_gpu(path, "fp16")
    assert fp16.info.precision == "fp16"
    assert psnr(fp16.run(lr), exact) > FP16_PSNR
    assert np.abs(fp16.run(lr) - exact).max() > 0, "equal to the bit: it did not run in fp16"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_result_does_not_depend_on_earlier_runs(precision: str, tiny_models: Path) -> None:
    engine, lr = on_gpu(tiny_models / "tiny-x2.onnx", precision), picture(40, 50)
    first = engine.run(lr)
    kept = first.copy()
    engine.run(picture(60, 12, seed=1))
    for _ in range(3):
        assert np.array_equal(engine.run(lr), kept)
    assert np.array_equal(first, kept), "a later run overwrote an earlier result"


def test_two_streams_equal_one(tiny_models: Path) -> None:
    engine = on_gpu(tiny_models / "tiny-x2.onnx", "fp16")
    batches = [picture(64 + seed % 3, 64, seed) for seed in range(24)]
    alone = [engine.run(batch) for batch in batches]
    together = list(engine.run_each(batches))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert np.array_equal(
        engine.run(np.concatenate([batches[0], batches[3]])), np.concatenate([alone[0], alone[3]])
    )


def test_engine_is_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    path = tiny_networks.write(tmp_path, tiny_networks.tiny_spec(2), seed=5)
    spec = read_spec(path)
    assert spec is not None
    options = Settings(precision="fp16")
    first = tensorrt.load(path, spec, options).run(picture(20, 20))
    assert any("building" in line for line in caplog.messages)
    caplog.clear()
    assert np.array_equal(tensorrt.load(path, spec, options).run(picture(20, 20)), first)
    assert caplog.messages == []


def test_tiled_equals_whole(tiny_catalog: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 170, 3), np.uint8)
    whole = Upscaler("tiny", 2, backend="tensorrt", precision="fp32")(image)
    tiled = Upscaler("tiny", 2, backend="trt", precision="fp32", tile=64)(image)
    difference = np.abs(whole.astype(int) - tiled.astype(int))
    assert difference.max() <= 1, "only rounding may differ"
    assert (difference > 0).mean() < 1e-3


def test_out_of_memory_halves_the_tile(
    tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Short memory is simulated by a limit on single allocations."""
    allocate = Cuda.allocate

    def limited(self: Cuda, size: int) -> int:
        if size > 1_000_000:  # the output of a tile of 204 pixels at x2
            raise MemoryError("the GPU is out of memory")
        return allocate(self, size)

    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    whole = Upscaler("tiny", 2, backend="tensorrt", precision="fp32")(image)
    monkeypatch.setattr(Cuda, "allocate", limited)
    upscaler = Upscaler("tiny", 2, backend="tensorrt", precision="fp32")
    assert np.abs(upscaler(image).astype(int) - whole).max() <= 1
    assert any("out of memory" in note for note in caplog.messages)


def test_real_lack_of_memory_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        Cuda(0).allocate(devices.ask().gpus[0].memory * 2)


def test_runs_again_after_release(tiny_models: Path) -> None:
    loaded = on_gpu(tiny_models / "tiny-x4.onnx")
    loaded.run(picture(tensorrt.DEFAULT_SIDE, tensorrt.DEFAULT_SIDE))
    for streams in loaded._streams.values():
        streams.release()
    lr = picture(tiles.smallest_tile(8), 20)
    assert np.isfinite(loaded.run(lr)).all()


def test_absent_gpu_is_refused(tiny_models: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="cuda:99"):
        load("tensorrt", tiny_models / "tiny-x2.onnx", device="cuda:99")


def test_uint8_is_what_the_host_rounds_to(tiny_models: Path) -> None:
    engine = on_gpu(tiny_models / "tiny-x2.onnx", "fp16")
    batches = [picture(64, 60 + seed % 2, seed) for seed in range(8)]
    for uint8, sr in zip(engine.run_uint8(batches), engine.run_each(batches), strict=True):
        assert uint8 is not None
        difference = np.abs(uint8[0].astype(int) - pixels.from_network(sr, np.dtype(np.uint8), 3))
        assert difference.max() <= 1, "x.5 may round to either side"
        assert (difference > 0).mean() < 1e-4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_values_are_reported(value: float, tiny_models: Path) -> None:
    engine, bad = on_gpu(tiny_models / "tiny-x2.onnx", "fp16"), picture(32, 32)
    bad[0, 0, 9, 9] = value
    good, wrong = engine.run_uint8([picture(32, 32), bad])
    assert good is not None
    assert wrong is None
    assert not np.isfinite(engine.run(bad)).all()
