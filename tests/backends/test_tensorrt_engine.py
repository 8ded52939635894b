"""Which engine serves which tile, and what comes out."""

import numpy as np
import pytest
from tensorrt_doubles import FakeDevice, FakeProgram, enlarged, finished, picture

from srcli.backends import tensorrt
from srcli.backends.base import EngineInfo
from srcli.backends.tensorrt import SIDES, TensorRtEngine
from srcli.errors import InferenceError


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
    return TensorRtEngine(programs, programs.device, EngineInfo("tensorrt", "cuda:0", "f16"), 2)


def test_one_engine_serves_all_tiles_of_a_picture(engine: TensorRtEngine, programs: Programs) -> None:
    engine.lanes(tensorrt.DEFAULT_SIDE)
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
    engine = TensorRtEngine(programs, programs.device, EngineInfo("tensorrt", "cuda:0", "f16"), 2)
    with pytest.raises(MemoryError):
        engine.run(picture(384, 384))
    engine.run(picture(192, 192))
    assert programs.made == [192]


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
