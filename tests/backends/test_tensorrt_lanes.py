"""Lanes: right results whatever the order, graphs that are replayed, memory that is given back."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorrt_doubles import FakeDevice, FakeProgram, enlarged, finished, picture

from srcli.backends.base import Batch
from srcli.backends.tensorrt.lane import MAX_SHAPES, Wanted
from srcli.backends.tensorrt.lanes import Lanes
from srcli.errors import InferenceError


def lanes(device: FakeDevice, count: int = 2, **program: int) -> Lanes:
    return Lanes(device, FakeProgram(device, **program), count)


def run(work: Lanes, *batches: Batch) -> list[Batch]:
    """The network's own output for each batch."""
    return [sr for (sr,) in work.run(batches)]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=20),
    count=st.integers(1, 4),
    memory=st.sampled_from([1 << 40, 7000]),  # 9x9 takes 6484: enough for one lane
)
def test_every_batch_gets_its_own_result_in_order(
    sizes: list[tuple[int, int]], count: int, memory: int
) -> None:
    batches = [picture(*size, seed) for seed, size in enumerate(sizes)]
    results = run(lanes(FakeDevice(memory), count), *batches)
    for result, batch in zip(results, batches, strict=True):
        assert np.array_equal(result, enlarged(batch))


def test_batches_overlap_on_as_many_streams_as_asked() -> None:
    for count in (1, 2, 3):
        device = FakeDevice()
        work = lanes(device, count)
        list(work.run([picture(4, 4)] * 6))  # the first on each lane waits: it sets things up
        device.most = 0
        list(work.run([picture(4, 4)] * 6))
        assert (device.most, len(device.queues)) == (count, count)


def test_one_after_the_other_needs_one_lane() -> None:
    device = FakeDevice()
    work = lanes(device, 3)
    for seed in range(4):
        assert np.array_equal(run(work, picture(4, 4, seed))[0], enlarged(picture(4, 4, seed)))
    assert len(device.queues) == 1


def test_a_shape_is_recorded_when_it_comes_again_and_then_replayed() -> None:
    device = FakeDevice()
    work = lanes(device, 1)
    logs = []
    for _ in range(4):
        list(work.run([picture(4, 5)]))
        logs.append(list(device.log))
        device.log.clear()
    assert logs == [[], ["record", "launch"], ["launch"], ["launch"]]


def test_an_engine_that_cannot_be_recorded_gives_the_same() -> None:
    device = FakeDevice(recordable=False)
    batches = [picture(4, 4, seed) for seed in range(5)]
    for result, batch in zip(run(lanes(device), *batches), batches, strict=True):
        assert np.array_equal(result, enlarged(batch))
    assert "launch" not in device.log


def test_whether_it_is_recorded_can_be_seen() -> None:
    for recordable in (True, False):
        device, told = FakeDevice(recordable=recordable), list[str]()
        work = Lanes(device, FakeProgram(device), 2, told.append)
        assert (work.graphs, work.problem) == (0, "")
        list(work.run([picture(4, 4)] * 8))
        assert work.graphs == (2 if recordable else 0), "one a lane"
        assert ("capturing" in work.problem) == (not recordable)
        assert [work.problem in line for line in told] == ([] if recordable else [True]), "told once"


def test_larger_shapes_move_the_buffers_and_end_the_graphs() -> None:
    device = FakeDevice()
    work = lanes(device, 1)
    for size in (4, 4, 4, 8, 4, 4, 8):
        batch = picture(size, size, size)
        assert np.array_equal(run(work, batch)[0], enlarged(batch))
    assert device.log.count("forget") == 1, "only the graph recorded before the buffers grew"


def test_smaller_shapes_keep_the_memory_and_the_graphs() -> None:
    device = FakeDevice()
    work = lanes(device, 1)
    for size in (8, 8, 4, 4, 8):
        list(work.run([picture(size, size)]))
    assert len(device.device) == 5, "input, three outputs, scratch memory"
    assert len(device.host) == 2, "only what crosses the bus is pinned"
    assert device.log == ["record", "launch", "record", "launch", "launch"]


def test_only_the_last_shapes_are_kept() -> None:
    device = FakeDevice()
    work = lanes(device, 1)
    list(work.run([picture(9, 9)]))
    for width in range(1, 9):
        list(work.run([picture(4, width)] * 2))
    assert len(device.graphs) == MAX_SHAPES
    list(work.run([picture(9, 9)]))
    assert len(device.graphs) == MAX_SHAPES - 1, "the new shape took the place of the oldest"


def test_results_stay_valid() -> None:
    work = lanes(FakeDevice(), 1)
    first = run(work, picture(4, 4))[0]
    kept = first.copy()
    list(work.run([picture(4, 4, seed=1)]))
    assert np.array_equal(first, kept)


def test_out_of_memory_gives_everything_back_and_a_smaller_tile_runs() -> None:
    device = FakeDevice(memory=6000)  # 80 bytes a pixel: 8x8 takes 5124, 16x16 too much
    work = lanes(device)
    with pytest.raises(MemoryError):
        list(work.run([picture(16, 16)]))
    assert not device.device
    assert not device.host
    assert np.array_equal(run(work, picture(8, 8))[0], enlarged(picture(8, 8)))


def test_memory_for_one_lane_only_is_enough() -> None:
    device = FakeDevice(memory=6000)
    batches = [picture(8, 8, seed) for seed in range(4)]
    results = run(lanes(device, 3), *batches)
    assert all(np.array_equal(r, enlarged(b)) for r, b in zip(results, batches, strict=True))


def test_an_idle_lane_gives_way_to_a_larger_tile() -> None:
    device = FakeDevice(memory=6000)  # two lanes of 4x4 (1284 bytes each) are there when 8x8 (5124) comes
    work = lanes(device)
    list(work.run([picture(4, 4)] * 4))
    assert len(device.queues) == 2
    assert np.array_equal(run(work, picture(8, 8))[0], enlarged(picture(8, 8)))


def test_results_before_a_failure_come_out_and_later_ones_run() -> None:
    device = FakeDevice()
    work = lanes(device)
    results = work.run([picture(4, 4), picture(4, 4), picture(4, 4), np.zeros((1, 5, 4, 4), np.float32)])
    assert np.array_equal(next(results)[0], enlarged(picture(4, 4)))
    with pytest.raises(InferenceError):
        list(results)
    assert not any(device.queues.values()), "work was left behind"
    assert np.array_equal(run(work, picture(5, 4))[0], enlarged(picture(5, 4)))


def test_a_caller_who_stops_early_leaves_nothing_behind() -> None:
    device = FakeDevice()
    work = lanes(device)
    for _ in work.run(endless()):
        break
    gc.collect()
    assert not any(device.queues.values())
    assert np.array_equal(run(work, picture(4, 4, 7))[0], enlarged(picture(4, 4, 7)))


def endless() -> Iterator[Batch]:
    while True:
        yield picture(4, 4)


def test_memory_comes_back_when_nobody_has_the_engine_any_more() -> None:
    device = FakeDevice()
    work = lanes(device)
    list(work.run([picture(4, 4)] * 5))
    assert device.device
    del work
    gc.collect()
    assert (device.device, device.host, device.graphs, device.queues) == ({}, {}, {}, {})


def test_an_engine_without_scratch_memory_runs() -> None:
    assert np.array_equal(run(lanes(FakeDevice(), scratch=0), picture(3, 3))[0], enlarged(picture(3, 3)))


def test_every_run_makes_the_gpu_the_threads_own() -> None:
    device = FakeDevice()
    work = lanes(device)
    list(work.run([picture(4, 4)]))
    list(work.run([picture(4, 4)]))
    assert device.activations >= 2


def test_compiled_kernels_are_kept_once_a_shape_has_run() -> None:
    device = FakeDevice()
    program = FakeProgram(device)
    work = Lanes(device, program, 1)
    list(work.run([picture(4, 4)] * 3))
    list(work.run([picture(4, 5)]))
    assert program.settlings == 2


def test_finished_pixels_come_out_of_the_same_engine() -> None:
    device = FakeDevice()
    work = lanes(device)
    batches = [picture(4, 5, seed) for seed in range(6)]
    for (levels, odd), batch in zip(work.run(batches, Wanted.LEVELS), batches, strict=True):
        assert np.array_equal(levels, finished(enlarged(batch)))
        assert odd == 0
    assert np.array_equal(run(work, batches[0])[0], enlarged(batches[0]))
    largest = max(map(len, device.host.values()))
    assert largest == 4 * 3 * 8 * 10, "the float output crossed once it was asked for"


def test_both_uses_of_one_shape_have_graphs_of_their_own() -> None:
    device = FakeDevice()
    work = lanes(device, 1)
    for _ in range(3):
        for wanted in Wanted:
            list(work.run([picture(4, 4)], wanted))
    assert device.log == ["record", "launch", "record", "launch", "launch", "launch"]
    assert len(device.graphs) == 2


def test_a_value_that_is_no_number_is_told() -> None:
    odd = [
        float(o) for _, o in lanes(FakeDevice()).run([picture(4, 4), broken(), picture(4, 4)], Wanted.LEVELS)
    ]
    assert odd == [0, 1, 0]


def broken() -> Batch:
    batch = picture(4, 4)
    batch[0, 1, 2, 3] = np.nan
    return batch
