"""Rounds in turns and their statistics, commands measured in processes of their own, fresh processes."""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_fakes import Clock
from hypothesis import given
from hypothesis import strategies as st

from srcli.benchmark import rounds
from srcli.benchmark.rounds import Job, Spread, interleave, keeping, measure, percentile, ratio, timed
from srcli.errors import InferenceError


def test_rounds_alternate_direction_and_leave_warmup_out() -> None:
    order: list[str] = []

    def run(name: str) -> float:
        order.append(name)
        return float(len(order))

    runs = {name: lambda name=name: run(name) for name in "abc"}
    seconds = interleave(runs, 2, warmup=1, pause=0)
    assert "".join(order) == "abccbaabc"
    assert seconds == {"a": [6.0, 7.0], "b": [5.0, 8.0], "c": [4.0, 9.0]}


def test_median_and_p95_of_known_values() -> None:
    found = Spread.of([float(n) for n in range(100, -1, -1)])
    assert (found.median, found.p95, found.lowest, found.highest) == (50, 95, 0, 100)
    assert found.repetitions == 101
    assert found.width == 2.0  # 100 / 50
    assert Spread.of([2.0, 1.0]).p95 == pytest.approx(1.95)  # between the two, 0.95 of the way


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_p95_is_numpys(values: list[float]) -> None:
    assert percentile(values, 0.95) == pytest.approx(float(np.percentile(values, 95)), rel=1e-9, abs=1e-9)


def test_timed_reads_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert timed(clock.passing(0.25))() == 0.25


def test_ratios_are_taken_within_rounds() -> None:
    found = ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0])
    assert (found.median, found.lowest, found.highest, found.repetitions) == (3.0, 2.0, 4.0, 3)


@dataclass(frozen=True)
class Took:
    """A result that says how long it took."""

    seconds: float


def test_results_are_kept_beside_their_seconds() -> None:
    results = list[Took]()
    run = keeping(lambda: Took(len(results) + 0.5), results)
    assert [run(), run()] == [0.5, 1.5]
    assert results == [Took(0.5), Took(1.5)]


def test_a_process_is_measured_without_its_parents_memory() -> None:
    """64 MB are touched; Python itself takes about 10, this test process far more than both."""
    taken = measure([sys.executable, "-c", "x = b'1' * 64_000_000"])
    assert 64e6 < taken.peak < 100e6
    assert taken.seconds > 0
    assert taken.cpu > 0


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_anonymous_memory_leaves_mapped_files_out(tmp_path: Path) -> None:
    """64 MB of a file are read through a map, and 32 MB are allocated, both held until they are seen."""
    large = tmp_path / "large"
    large.write_bytes(bytes(64 << 20))
    code = (
        "import mmap, sys, time; file = open(sys.argv[1], 'rb')\n"
        "map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ); sum(map[::4096])\n"
        "held = b'1' * (32 << 20)\n"
        "time.sleep(0.5)"
    )
    taken = measure([sys.executable, "-c", code, str(large)])
    assert taken.anonymous is not None
    assert 32 << 20 < taken.anonymous < 60 << 20
    assert taken.peak > 96 << 20


def test_a_failing_command_raises_with_its_last_line() -> None:
    with pytest.raises(InferenceError, match=r"exit code 1: .*: It broke\."):
        measure([sys.executable, "-c", "raise SystemExit('It broke.')"])


def test_a_command_gets_the_environment_it_is_given() -> None:
    code = "import os; raise SystemExit(os.environ.get('GIVEN') != 'yes')"
    assert measure([sys.executable, "-c", code], {"GIVEN": "yes"}).peak > 0


def job(model: str, backend: str) -> Job:
    return Job(model, 2, backend, "cpu", "fp32", size=16, threads=1, began=0.0)


def test_a_fresh_process_reports_start_and_peak() -> None:
    began = time.time()
    found = rounds.start(job("bicubic", "bicubic"))
    assert 0 < found.seconds <= time.time() - began
    assert found.host_memory is not None
    assert (
        15e6 < found.host_memory < 1e9
    )  # Python with numpy and OpenCV is above the one; nothing else is loaded
    assert found.device_memory is None


class FakeDriver:
    """The few calls of the NVIDIA driver that a question for memory takes."""

    def __init__(self, free: int, error: int = 0) -> None:
        self.free, self.error = free, error
        self.asked = list[object]()

    def __getattr__(self, name: str) -> object:
        return lambda *arguments: 0

    def cuDeviceGet(self, device: Any, number: Any) -> int:  # noqa: N802
        self.asked.append(number.value)
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:  # noqa: N802
        free._obj.value, total._obj.value = self.free, 1 << 40
        return self.error


def test_free_memory_is_the_drivers_of_that_gpu() -> None:
    library = FakeDriver(5 << 32)  # more than fits into 32 bits
    assert rounds.free_on_device("cuda:3", library) == 5 << 32
    assert rounds.free_on_device("cuda", library) == 5 << 32
    assert library.asked == [3, 0]
    for device in ("cpu", "coreml", "cuda:0,1"):
        assert rounds.free_on_device(device, library) is None
    assert rounds.free_on_device("cuda", FakeDriver(1, error=999)) is None


@pytest.mark.parametrize(("left", "taken"), [(300, 700), (1200, 0)])  # another program may give some back
def test_device_memory_is_the_difference_or_zero(
    left: int, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = iter([1000, left])
    monkeypatch.setattr(rounds, "free_on_device", lambda device: next(free))
    assert rounds.work(replace(job("bicubic", "bicubic"), began=time.time())).device_memory == taken


def test_a_failing_process_raises_with_its_reason() -> None:
    with pytest.raises(InferenceError, match=r"nowhere\.onnx: does not exist"):
        rounds.start(job("nowhere.onnx", "onnxruntime"))


def test_the_peak_covers_what_the_process_allocated() -> None:
    before = rounds.peak_resident()
    held = np.ones(64 << 20, np.uint8)
    after = rounds.peak_resident()
    assert before is not None
    assert after is not None
    assert after >= max(before, held.nbytes)
