"""TensorRT on a GPU, where there is one: right pixels, engines found again, several streams, no memory."""

from pathlib import Path

import numpy as np
import pytest
import tiny_networks
from engines import F32_TOLERANCE, load, picture, psnr

from srcli import Upscaler, tiles
from srcli.backends import devices
from srcli.backends.base import BackendOptions
from srcli.backends.tensorrt import engine, flavour
from srcli.backends.tensorrt.cuda import Cuda
from srcli.errors import BackendUnavailableError
from srcli.imaging import pixels
from srcli.models import catalog
from srcli.models.spec import read_spec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not devices.ask().gpus, reason="needs an NVIDIA GPU"),
    pytest.mark.skipif(not flavour.installed(), reason="needs TensorRT"),
]

F16_PSNR = 60.0
"""dB against fp32: eleven bits of mantissa between float32 ends; bf16's eight give 59 on trained networks."""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> "pytest.MonkeyPatch":  # type: ignore[misc]
    """Engines of these tests go nowhere else, and are built once for all of them."""
    patch = pytest.MonkeyPatch()
    patch.setenv("SRCLI_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield patch
    patch.undo()


def on_gpu(path: Path, precision: str = "fp32") -> engine.TensorRtEngine:
    engine = load("tensorrt", path, precision)
    assert isinstance(engine, engine.TensorRtEngine)
    return engine


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (19, 23), (96, 384)])
def test_f32_agrees_with_the_cpu(scale: int, size: tuple[int, int], tiny_models: Path) -> None:
    path = tiny_models / f"tiny-x{scale}.onnx"
    engine, lr = on_gpu(path), picture(*size)
    exact = load("onnxruntime", path, device="cpu").run(lr)
    for _ in range(3):  # step by step, recorded, replayed
        assert np.abs(engine.run(lr) - exact).max() < F32_TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_second_run_is_recorded_as_a_graph(precision: str, tiny_models: Path) -> None:
    engine = on_gpu(tiny_models / "tiny-x2.onnx", precision)
    for graphs in (0, 1, 1):
        engine.run(picture(32, 32))
        (lanes,) = engine._lanes.values()
        assert (lanes.graphs, lanes.problem) == (graphs, "")


@pytest.mark.parametrize("name", ["edsr-baseline", "mdsr-baseline"])
def test_shipped_networks_in_both_precisions(name: str) -> None:
    path = catalog.resolve(name, 4).path
    lr = np.linspace(0, 1, 3 * 48 * 64, dtype=np.float32).reshape(1, 3, 48, 64)
    exact = load("onnxruntime", path, device="cpu").run(lr)
    assert np.abs(on_gpu(path).run(lr) - exact).max() < F32_TOLERANCE
    half = on_gpu(path, "fp16")
    assert half.info.precision == "fp16"
    assert psnr(half.run(lr), exact) > F16_PSNR
    assert np.abs(half.run(lr) - exact).max() > 0, "equal to the bit: it did not run in halves"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_same_bits_whatever_ran_before(precision: str, tiny_models: Path) -> None:
    engine, lr = on_gpu(tiny_models / "tiny-x2.onnx", precision), picture(40, 50)
    first = engine.run(lr)
    kept = first.copy()
    engine.run(picture(60, 12, seed=1))
    for _ in range(3):
        assert np.array_equal(engine.run(lr), kept)
    assert np.array_equal(first, kept), "a later run overwrote an earlier result"


def test_several_streams_give_what_one_gives(tiny_models: Path) -> None:
    engine = on_gpu(tiny_models / "tiny-x2.onnx", "fp16")
    batches = [picture(64 + seed % 3, 64, seed) for seed in range(24)]
    alone = [engine.run(batch) for batch in batches]
    together = list(engine.run_each(batches))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
    assert np.array_equal(
        engine.run(np.concatenate([batches[0], batches[3]])), np.concatenate([alone[0], alone[3]])
    )


def test_an_engine_is_built_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    path = tiny_networks.write(tmp_path, tiny_networks.tiny_spec(2), seed=5)
    spec = read_spec(path)
    assert spec is not None
    told: list[str] = []
    options = BackendOptions("fp16", tell=told.append)
    first = engine.load(path, spec, options).run(picture(20, 20))
    assert any("building" in line for line in told)
    told.clear()
    assert np.array_equal(engine.load(path, spec, options).run(picture(20, 20)), first)
    assert told == []


def test_tiles_leave_no_trace(tiny_catalog: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (150, 170, 3), np.uint8)
    whole = Upscaler("tiny", 2, backend="tensorrt", precision="fp32")(image)
    tiled = Upscaler("tiny", 2, backend="trt", precision="fp32", tile=64)(image)
    steps = np.abs(whole.astype(int) - tiled.astype(int))
    assert steps.max() <= 1, "only rounding may differ"
    assert (steps > 0).mean() < 1e-3


def test_out_of_memory_halves_the_tile(tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is short is played by a limit on what the driver gives out."""
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
    assert any("out of memory" in note for note in upscaler.notes)


def test_memory_that_is_really_short_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        Cuda(0).allocate(devices.ask().gpus[0].memory * 2)


def test_memory_comes_back(tiny_models: Path) -> None:
    engine = on_gpu(tiny_models / "tiny-x4.onnx")
    engine.run(picture(engine.DEFAULT_SIDE, engine.DEFAULT_SIDE))
    for lanes in engine._lanes.values():
        lanes.release()
    lr = picture(tiles.smallest_tile(8), 20)
    assert np.isfinite(engine.run(lr)).all()


def test_a_gpu_that_is_not_there_is_refused(tiny_models: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="cuda:99"):
        load("tensorrt", tiny_models / "tiny-x2.onnx", device="cuda:99")


def test_finished_pixels_are_those_the_host_would_make(tiny_models: Path) -> None:
    engine = on_gpu(tiny_models / "tiny-x2.onnx", "fp16")
    batches = [picture(64, 60 + seed % 2, seed) for seed in range(8)]
    for levels, sr in zip(engine.run_levels(batches), engine.run_each(batches), strict=True):
        assert levels is not None
        steps = np.abs(levels[0].astype(int) - pixels.from_network(sr, np.dtype(np.uint8), 3))
        assert steps.max() <= 1, "exact halves may fall to either side"
        assert (steps > 0).mean() < 1e-4


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_number_are_told(value: float, tiny_models: Path) -> None:
    engine, bad = on_gpu(tiny_models / "tiny-x2.onnx", "fp16"), picture(32, 32)
    bad[0, 0, 9, 9] = value
    good, wrong = engine.run_levels([picture(32, 32), bad])
    assert good is not None
    assert wrong is None
    assert not np.isfinite(engine.run(bad)).all()
