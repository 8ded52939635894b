"""Which engine serves which tile, and what comes out."""

import numpy as np
import pytest
from tensorrt_doubles import FakeDevice, FakeProgram, enlarged, finished, picture

from srcli.backends.base import EngineInfo
from srcli.backends.tensorrt.engine import DEFAULT_SIDE, SIDES, TensorRtEngine, sides_for
from srcli.errors import InferenceError
from srcli.models.spec import ModelSpec


class Programs:
    """Hands out fake engines; those for large tiles may be too large for the GPU."""

    def __init__(self, device: FakeDevice, largest: int = 10**6) -> None:
        self.device, self.largest, self.made = device, largest, list[int]()

    def program(self, side: int) -> FakeProgram:
        if side > self.largest:
            raise MemoryError("no memory to build")
        self.made.append(side)
        return FakeProgram(self.device)


@pytest.fixture
def programs() -> Programs:
    return Programs(FakeDevice())


@pytest.fixture
def engine(programs: Programs) -> TensorRtEngine:
    return TensorRtEngine(programs, programs.device, EngineInfo("tensorrt", "cuda:0", "fp16"), 2)


def test_one_engine_serves_all_tiles_of_a_picture(engine: TensorRtEngine, programs: Programs) -> None:
    engine.lanes(DEFAULT_SIDE)
    for size in ((384, 384), (384, 120), (1, 1), (37, 384)):  # whole tile, turned, tiny, last
        assert np.array_equal(engine.run(picture(*size)), enlarged(picture(*size)))
    assert programs.made == [384]


@pytest.mark.parametrize(("size", "side"), [(1, 96), (96, 96), (97, 192), (385, 768), (1080, 1536)])
def test_a_new_engine_is_the_smallest_that_will_do(
    size: int, side: int, engine: TensorRtEngine, programs: Programs
) -> None:
    engine.run(picture(1, size))
    assert programs.made == [side]


def test_half_a_tile_that_is_too_large_asks_for_the_next_smaller_engine() -> None:
    programs = Programs(FakeDevice(), largest=192)
    engine = TensorRtEngine(programs, programs.device, EngineInfo("tensorrt", "cuda:0", "fp16"), 2)
    with pytest.raises(MemoryError):
        engine.run(picture(384, 384))
    engine.run(picture(192, 192))
    assert programs.made == [192]


def test_after_no_memory_smaller_tiles_run_on_smaller_engines() -> None:
    """An engine's scratch memory may be as large for half a tile as for a whole one."""
    device = FakeDevice(memory=600_000)  # 80 bytes a pixel: 100x60 takes 480 kB, 100x80 too much
    programs = Programs(device)
    engine = TensorRtEngine(programs, device, EngineInfo("tensorrt", "cuda:0", "fp16"), 2)
    engine.lanes(384)
    engine.run(picture(100, 60))
    assert programs.made == [384]
    with pytest.raises(MemoryError):
        engine.run(picture(100, 80))
    for size in ((100, 60), (20, 30), (100, 60)):
        assert np.array_equal(engine.run(picture(*size)), enlarged(picture(*size)))
    assert programs.made == [384, 192], "that one serves every tile up to its size"


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
def test_no_engine_is_asked_for_whose_tensors_are_too_large(scale: int, features: int, largest: int) -> None:
    sides = sides_for(ModelSpec("net", "edsr", scale, features=features))
    assert sides[-1] == largest
    assert sides[:-1] == tuple(side for side in SIDES if side < largest)
    for side, fits in ((largest, True), (largest + 1, largest == SIDES[-1])):
        assert (scale**2 * max(features, 3) * side**2 < 2**31) == fits
    programs = Programs(FakeDevice())
    info = EngineInfo("tensorrt", "cuda:0", "fp16")
    engine = TensorRtEngine(programs, programs.device, info, scale, sides)
    with pytest.raises(MemoryError, match=str(largest)):
        engine.run(picture(1, largest + 1))
    engine.run(picture(1, largest))
    assert programs.made == [largest]


def test_too_large_for_any_engine_is_a_memory_error(engine: TensorRtEngine) -> None:
    with pytest.raises(MemoryError, match=str(SIDES[-1])):
        engine.run(picture(1, SIDES[-1] + 1))


def test_a_batch_is_its_pictures_one_by_one(engine: TensorRtEngine) -> None:
    batch = picture(5, 6, count=5)
    assert np.array_equal(engine.run(batch), enlarged(batch))


def test_batches_of_all_sizes_come_out_in_order(engine: TensorRtEngine) -> None:
    batches = [picture(h, w, h + w) for h, w in ((4, 4), (100, 4), (4, 4), (200, 5), (4, 5))]
    results = list(engine.run_each(iter(batches)))
    assert all(np.array_equal(r, enlarged(b)) for r, b in zip(results, batches, strict=True))


def test_wrong_input_names_the_backend(engine: TensorRtEngine) -> None:
    with pytest.raises(InferenceError, match="tensorrt"):
        engine.run(np.zeros((1, 5, 8, 8), np.float32))


def test_finished_pixels_and_values_come_from_one_engine(engine: TensorRtEngine, programs: Programs) -> None:
    good, bad = picture(4, 6), picture(4, 6, seed=1)
    bad[0, 0, 1, 1] = np.inf
    levels = list(engine.run_levels([good, bad, good]))
    assert levels[1] is None
    for found in (levels[0], levels[2]):
        assert found is not None
        assert np.array_equal(found, finished(enlarged(good)))
    engine.run(good)
    assert programs.made == [96]
