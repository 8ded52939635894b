"""Every backend with CUDA, on a GPU where there is one: agreement with the CPU, precision, memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engines import FP32_TOLERANCE, psnr

from srcli import Upscaler
from srcli.backends import devices, registry
from srcli.backends.base import Batch, Engine, results
from srcli.errors import SrcliError
from srcli.models import catalog
from srcli.settings import Settings

GPUS = devices.ask().gpus
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="needs an NVIDIA GPU")]

LOW_PSNR = {"bf16": 50.0, "fp16": 60.0}
"""dB against fp32 on trained networks: eight and eleven bits of mantissa; 59 and 75 were measured on CPUs."""

BACKENDS = [name for name, entry in registry.BACKENDS.items() if "cuda" in entry.computes]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    try:
        load(name, "edsr-baseline", 2, "fp32")
    except SrcliError as error:
        pytest.skip(f"{name}: {error.message}")
    return name


def load(backend: str, model: str, scale: int, precision: str, device: str = "cuda:0") -> Engine:
    file = catalog.resolve(model, scale)
    options = Settings(precision=precision, device=device)
    return registry.load(registry.choose(backend, options).name, file.path, file.spec, options)


def picture(height: int, width: int, seed: int = 0) -> Batch:
    """Smooth shapes and some noise, closer to photographs than uniform noise."""
    y, x = np.mgrid[:height, :width] / 20
    waves = np.stack([np.sin(x + y * c) for c in (1, 2, 3)]) * 0.4 + 0.5
    noise = np.random.default_rng(seed).normal(0, 0.02, waves.shape)
    return np.clip(waves + noise, 0, 1).astype(np.float32)[None]


@pytest.mark.parametrize("model", ["mdsr-baseline", "edsr-baseline"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_fp32_agrees_with_the_cpu(backend: str, model: str, scale: int) -> None:
    lr = picture(80, 72)
    engine = load(backend, model, scale, "fp32")
    assert engine.info.device == "cuda:0"
    assert np.abs(engine.run(lr) - load("auto", model, scale, "fp32", "cpu").run(lr)).max() < FP32_TOLERANCE


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_close_but_not_equal(backend: str, precision: str) -> None:
    if precision not in registry.BACKENDS[backend].computes["cuda"]:
        pytest.skip(f"{backend} has no {precision}")
    lr = picture(96, 96)
    engine = load(backend, "mdsr-baseline", 4, precision)
    exact = load("auto", "mdsr-baseline", 4, "fp32", "cpu").run(lr)
    assert engine.info.precision == precision
    assert psnr(engine.run(lr), exact) > LOW_PSNR[precision]
    assert np.abs(engine.run(lr) - exact).max() > 1e-5, "as exact as fp32: it did not run in low precision"


def test_mixed_sizes_give_their_own_results(backend: str) -> None:
    engine = load(backend, "edsr-baseline", 2, "fp32")
    batches = [picture(*size, seed) for seed, size in enumerate([(64, 64), (40, 64), (64, 40), (64, 64)] * 3)]
    alone = [engine.run(batch) for batch in batches]
    for one, other in zip(results(engine, batches), alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_tiled_equals_whole_and_cpu(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    image = np.rint(picture(500, 420)[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    upscaler = Upscaler("mdsr", 2, backend=backend, precision="fp32", device="cuda")
    whole = upscaler(image)
    tiled = Upscaler("mdsr", 2, backend=backend, precision="fp32", device="cuda", tile=160)(image)
    on_cpu = Upscaler("mdsr", 2, precision="fp32", device="cpu")(image)
    for other in (tiled, on_cpu):
        difference = np.abs(whole.astype(int) - other.astype(int))
        assert difference.max() <= 1, "only rounding may differ"
        assert (difference > 0).mean() < 0.01
    assert caplog.messages[1:] == [], "only the choice of the network is noted"


@pytest.fixture
def short_memory() -> Iterator[None]:
    """Allocates all memory of the GPU but about 1.5 GB."""
    import torch

    free, _ = torch.cuda.mem_get_info(0)
    taken = torch.empty(max(0, free - 1_500_000_000), dtype=torch.uint8, device="cuda:0")
    yield
    del taken
    torch.cuda.empty_cache()


def test_out_of_memory_halves_the_tile(
    backend: str, short_memory: None, caplog: pytest.LogCaptureFixture
) -> None:
    """A tile of 2,400 pixels at x4 needs 2 GB for one layer's features alone."""
    image = np.rint(picture(2400, 2400)[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    upscaler = Upscaler("mdsr", 4, backend=backend, precision="fp16", device="cuda", tile=2400)
    result = upscaler(image)
    assert result.shape == (9600, 9600, 3)
    assert any("out of memory" in note for note in caplog.messages)


def test_all_gpus_equal_one(backend: str) -> None:
    if len(GPUS) < 2:
        pytest.skip("needs two GPUs")
    image = np.rint(picture(900, 700)[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    one = Upscaler("mdsr", 2, backend=backend, device="cuda:0")(image)
    both = Upscaler("mdsr", 2, backend=backend, device="all")(image)
    np.testing.assert_array_equal(one, both)


def test_auto_uses_the_gpu(backend: str, tmp_path: Path) -> None:
    assert Upscaler("mdsr", 2, backend=backend).info.device == "cuda:0"
