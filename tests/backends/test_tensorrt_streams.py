"""Streams: results in order, CUDA graphs, memory that is freed."""

import gc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorrt_doubles import FakeDevice, FakeEngine, enlarged, picture, rounded

from srcli.backends.base import Batch
from srcli.backends.tensorrt.streams import MAX_SHAPES, Streams, Wanted
from srcli.errors import InferenceError


def streams(device: FakeDevice, count: int = 2, scratch: int = 8) -> Streams:
    return Streams(device, FakeEngine(device, scratch=scratch), count)


def run(work: Streams, *batches: Batch) -> list[Batch]:
    """The network's own output for each batch."""
    return [sr for (sr,) in work.run(batches)]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=20),
    count=st.integers(1, 4),
    memory=st.sampled_from([1 << 40, 7000]),  # 9x9 takes 6484: enough for one stream
)
def test_each_batch_gets_its_result_in_order(sizes: list[tuple[int, int]], count: int, memory: int) -> None:
    batches = [picture(*size, seed) for seed, size in enumerate(sizes)]
    results = run(streams(FakeDevice(memory), count), *batches)
    for result, batch in zip(results, batches, strict=True):
        assert np.array_equal(result, enlarged(batch))


def test_batches_overlap_on_as_many_streams_as_asked() -> None:
    for count in (1, 2, 3):
        device = FakeDevice()
        work = streams(device, count)
        list(work.run([picture(4, 4)] * 6))  # the first on each stream synchronizes
        device.most = 0
        list(work.run([picture(4, 4)] * 6))
        assert (device.most, len(device.queues)) == (count, count)


def test_single_batches_use_one_stream() -> None:
    device = FakeDevice()
    work = streams(device, 3)
    for seed in range(4):
        assert np.array_equal(run(work, picture(4, 4, seed))[0], enlarged(picture(4, 4, seed)))
    assert len(device.queues) == 1


def test_second_run_of_a_shape_captures_a_graph() -> None:
    device = FakeDevice()
    work = streams(device, 1)
    logs = []
    for _ in range(4):
        list(work.run([picture(4, 5)]))
        logs.append(list(device.log))
        device.log.clear()
    assert logs == [[], ["capture", "launch"], ["launch"], ["launch"]]


def test_without_graphs_the_result_is_the_same() -> None:
    device = FakeDevice(capturable=False)
    batches = [picture(4, 4, seed) for seed in range(5)]
    for result, batch in zip(run(streams(device), *batches), batches, strict=True):
        assert np.array_equal(result, enlarged(batch))
    assert "launch" not in device.log


def test_failed_capture_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    for capturable in (True, False):
        caplog.clear()
        device = FakeDevice(capturable=capturable)
        work = Streams(device, FakeEngine(device), 2)
        assert (work.graphs, work.problem) == (0, "")
        list(work.run([picture(4, 4)] * 8))
        assert work.graphs == (2 if capturable else 0), "one for each stream"
        assert ("capturing" in work.problem) == (not capturable)
        assert [work.problem in line for line in caplog.messages] == ([] if capturable else [True]), "once"


def test_larger_shape_moves_buffers_and_drops_graphs() -> None:
    device = FakeDevice()
    work = streams(device, 1)
    for size in (4, 4, 4, 8, 4, 4, 8):
        batch = picture(size, size, size)
        assert np.array_equal(run(work, batch)[0], enlarged(batch))
    assert device.log.count("destroy") == 1, "only the graph captured before the buffers grew"


def test_smaller_shape_keeps_buffers_and_graphs() -> None:
    device = FakeDevice()
    work = streams(device, 1)
    for size in (8, 8, 4, 4, 8):
        list(work.run([picture(size, size)]))
    assert len(device.device) == 5, "input, three outputs, scratch memory"
    assert len(device.host) == 2, "only what is copied is page-locked"
    assert device.log == ["capture", "launch", "capture", "launch", "launch"]


def test_least_recently_used_shapes_are_dropped() -> None:
    device = FakeDevice()
    work = streams(device, 1)
    list(work.run([picture(9, 9)]))
    for width in range(1, 9):
        list(work.run([picture(4, width)] * 2))
    assert len(device.graphs) == MAX_SHAPES
    list(work.run([picture(9, 9)]))
    assert len(device.graphs) == MAX_SHAPES - 1, "the new shape replaced the oldest"


def test_results_stay_valid() -> None:
    work = streams(FakeDevice(), 1)
    first = run(work, picture(4, 4))[0]
    kept = first.copy()
    list(work.run([picture(4, 4, seed=1)]))
    assert np.array_equal(first, kept)


def test_out_of_memory_frees_all_and_smaller_runs() -> None:
    device = FakeDevice(memory=6000)  # 80 bytes a pixel: 8x8 takes 5124, 16x16 too much
    work = streams(device)
    with pytest.raises(MemoryError):
        list(work.run([picture(16, 16)]))
    assert not device.device
    assert not device.host
    assert np.array_equal(run(work, picture(8, 8))[0], enlarged(picture(8, 8)))


def test_memory_for_one_stream_is_enough() -> None:
    device = FakeDevice(memory=6000)
    batches = [picture(8, 8, seed) for seed in range(4)]
    results = run(streams(device, 3), *batches)
    assert all(np.array_equal(r, enlarged(b)) for r, b in zip(results, batches, strict=True))


def test_idle_stream_frees_memory_for_larger_tile() -> None:
    device = FakeDevice(memory=6000)  # two streams of 4x4 (1284 bytes each) are there when 8x8 (5124) comes
    work = streams(device)
    list(work.run([picture(4, 4)] * 4))
    assert len(device.queues) == 2
    assert np.array_equal(run(work, picture(8, 8))[0], enlarged(picture(8, 8)))


def test_results_before_a_failure_are_yielded() -> None:
    device = FakeDevice()
    work = streams(device)
    results = work.run([picture(4, 4), picture(4, 4), picture(4, 4), np.zeros((1, 5, 4, 4), np.float32)])
    assert np.array_equal(next(results)[0], enlarged(picture(4, 4)))
    with pytest.raises(InferenceError):
        list(results)
    assert not any(device.queues.values()), "work was left behind"
    assert np.array_equal(run(work, picture(5, 4))[0], enlarged(picture(5, 4)))


def test_closing_early_leaves_no_work_queued() -> None:
    device = FakeDevice()
    work = streams(device)
    for _ in work.run(endless()):
        break
    gc.collect()
    assert not any(device.queues.values())
    assert np.array_equal(run(work, picture(4, 4, 7))[0], enlarged(picture(4, 4, 7)))


def endless() -> Iterator[Batch]:
    while True:
        yield picture(4, 4)


def test_garbage_collection_frees_all_memory() -> None:
    device = FakeDevice()
    work = streams(device)
    list(work.run([picture(4, 4)] * 5))
    assert device.device
    del work
    gc.collect()
    assert (device.device, device.host, device.graphs, device.queues) == ({}, {}, {}, {})


def test_engine_without_scratch_memory_runs() -> None:
    assert np.array_equal(run(streams(FakeDevice(), scratch=0), picture(3, 3))[0], enlarged(picture(3, 3)))


def test_each_run_makes_the_gpu_current() -> None:
    device = FakeDevice()
    work = streams(device)
    list(work.run([picture(4, 4)]))
    list(work.run([picture(4, 4)]))
    assert device.activations >= 2


def test_kernels_are_saved_after_a_new_shape() -> None:
    device = FakeDevice()
    engine = FakeEngine(device)
    work = Streams(device, engine, 1)
    list(work.run([picture(4, 4)] * 3))
    list(work.run([picture(4, 5)]))
    assert engine.saves == 2


def test_uint8_comes_from_the_same_engine() -> None:
    device = FakeDevice()
    work = streams(device)
    batches = [picture(4, 5, seed) for seed in range(6)]
    for (uint8, non_finite), batch in zip(work.run(batches, Wanted.UINT8), batches, strict=True):
        assert np.array_equal(uint8, rounded(enlarged(batch)))
        assert non_finite == 0
    assert np.array_equal(run(work, batches[0])[0], enlarged(batches[0]))
    largest = max(map(len, device.host.values()))
    assert largest == 4 * 3 * 8 * 10, "the float output is copied once it is wanted"


def test_each_output_choice_has_its_own_graph() -> None:
    device = FakeDevice()
    work = streams(device, 1)
    for _ in range(3):
        for wanted in Wanted:
            list(work.run([picture(4, 4)], wanted))
    assert device.log == ["capture", "launch", "capture", "launch", "launch", "launch"]
    assert len(device.graphs) == 2


def test_non_finite_value_is_reported() -> None:
    results = streams(FakeDevice()).run([picture(4, 4), broken(), picture(4, 4)], Wanted.UINT8)
    assert [float(non_finite) for _, non_finite in results] == [0, 1, 0]


def broken() -> Batch:
    batch = picture(4, 4)
    batch[0, 1, 2, 3] = np.nan
    return batch
