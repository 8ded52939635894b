"""Which engine runs which tile, and its results."""

import numpy as np
import pytest
from tensorrt_doubles import FakeDevice, FakeEngine, enlarged, picture, rounded

from srcli.backends.base import EngineInfo
from srcli.backends.tensorrt import DEFAULT_SIDE, SIDES, TensorRtEngine, sides_for
from srcli.errors import InferenceError
from srcli.models.spec import ModelSpec


class Source:
    """Gives fake engines; those for large tiles may need too much memory."""

    def __init__(self, device: FakeDevice, largest: int = 10**6) -> None:
        self.device, self.largest, self.sides = device, largest, list[int]()

    def engine(self, side: int) -> FakeEngine:
        if side > self.largest:
            raise MemoryError("no memory to build")
        self.sides.append(side)
        return FakeEngine(self.device)


@pytest.fixture
def source() -> Source:
    return Source(FakeDevice())


@pytest.fixture
def engine(source: Source) -> TensorRtEngine:
    return TensorRtEngine(source, source.device, EngineInfo("tensorrt", "cuda:0", "fp16"), 2)


def test_one_engine_takes_all_tiles(engine: TensorRtEngine, source: Source) -> None:
    engine.streams(DEFAULT_SIDE)
    for size in ((384, 384), (384, 120), (1, 1), (37, 384)):  # whole tile, turned, tiny, last
        assert np.array_equal(engine.run(picture(*size)), enlarged(picture(*size)))
    assert source.sides == [384]


@pytest.mark.parametrize(("size", "side"), [(1, 96), (96, 96), (97, 192), (385, 768), (1080, 1536)])
def test_smallest_sufficient_engine_is_loaded(
    size: int, side: int, engine: TensorRtEngine, source: Source
) -> None:
    engine.run(picture(1, size))
    assert source.sides == [side]


def test_halved_tile_loads_the_next_smaller_engine() -> None:
    source = Source(FakeDevice(), largest=192)
    engine = TensorRtEngine(source, source.device, EngineInfo("tensorrt", "cuda:0", "fp16"), 2)
    with pytest.raises(MemoryError):
        engine.run(picture(384, 384))
    engine.run(picture(192, 192))
    assert source.sides == [192]


def test_out_of_memory_moves_to_smaller_engine() -> None:
    """An engine's scratch memory may be as large for half a tile as for a whole one."""
    device = FakeDevice(memory=600_000)  # 80 bytes a pixel: 100x60 takes 480 kB, 100x80 too much
    source = Source(device)
    engine = TensorRtEngine(source, device, EngineInfo("tensorrt", "cuda:0", "fp16"), 2)
    engine.streams(384)
    engine.run(picture(100, 60))
    assert source.sides == [384]
    with pytest.raises(MemoryError):
        engine.run(picture(100, 80))
    for size in ((100, 60), (20, 30), (100, 60)):
        assert np.array_equal(engine.run(picture(*size)), enlarged(picture(*size)))
    assert source.sides == [384, 192], "it takes every tile up to its size"


@pytest.mark.parametrize(
    ("scale", "features", "largest"),
    [
        (4, 64, 1448),
        (3, 64, 1930),
        (2, 64, 2896),
        (4, 256, 724),
        (2, 256, 1448),
        (2, 0, 3072),
        (16, 256, 181),
    ],
)
def test_sides_keep_tensors_within_the_limit(scale: int, features: int, largest: int) -> None:
    sides = sides_for(ModelSpec("net", "edsr", scale, features=features))
    assert sides[-1] == largest
    assert sides[:-1] == tuple(side for side in SIDES if side < largest)
    for side, fits in ((largest, True), (largest + 1, largest == SIDES[-1])):
        assert (scale**2 * max(features, 3) * side**2 < 2**31) == fits
    source = Source(FakeDevice())
    info = EngineInfo("tensorrt", "cuda:0", "fp16")
    engine = TensorRtEngine(source, source.device, info, scale, sides)
    with pytest.raises(MemoryError, match=str(largest)):
        engine.run(picture(1, largest + 1))
    engine.run(picture(1, largest))
    assert source.sides == [largest]


def test_tile_beyond_largest_side_is_memory_error(engine: TensorRtEngine) -> None:
    with pytest.raises(MemoryError, match=str(SIDES[-1])):
        engine.run(picture(1, SIDES[-1] + 1))


def test_batch_equals_single_pictures(engine: TensorRtEngine) -> None:
    batch = picture(5, 6, count=5)
    assert np.array_equal(engine.run(batch), enlarged(batch))


def test_mixed_sizes_come_out_in_order(engine: TensorRtEngine) -> None:
    batches = [picture(h, w, h + w) for h, w in ((4, 4), (100, 4), (4, 4), (200, 5), (4, 5))]
    results = list(engine.run_each(iter(batches)))
    assert all(np.array_equal(r, enlarged(b)) for r, b in zip(results, batches, strict=True))


def test_wrong_input_names_the_backend(engine: TensorRtEngine) -> None:
    with pytest.raises(InferenceError, match="tensorrt"):
        engine.run(np.zeros((1, 5, 8, 8), np.float32))


def test_uint8_and_float32_share_one_engine(engine: TensorRtEngine, source: Source) -> None:
    good, bad = picture(4, 6), picture(4, 6, seed=1)
    bad[0, 0, 1, 1] = np.inf
    results = list(engine.run_uint8([good, bad, good]))
    assert results[1] is None
    for found in (results[0], results[2]):
        assert found is not None
        assert np.array_equal(found, rounded(enlarged(good)))
    engine.run(good)
    assert source.sides == [96]
