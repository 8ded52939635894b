"""Several devices: which ones, every tile once, results in order and those of one device, and faults."""

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from srcli.backends import devices, registry
from srcli.backends.base import BackendOptions, Batch, EngineInfo
from srcli.backends.devices import Driver, Gpu
from srcli.backends.several import AHEAD, Several, SeveralFinishing, split, together
from srcli.errors import BackendUnavailableError, UsageError
from srcli.models.spec import read_spec

TWO = Driver("13.0", (Gpu("A", "9.0", 1 << 36), Gpu("B", "9.0", 1 << 36)))


class Device:
    """Doubles what it is given, in its own time; fails at a value; remembers its thread's work."""

    scale = 1

    def __init__(self, name: str, seconds: float = 0.0, fails_at: float | None = None) -> None:
        self.info = EngineInfo("test", name, "fp32")
        self.seconds, self.fails_at, self.ran = seconds, fails_at, list[float]()
        self._busy = threading.Lock()

    def run(self, lr: Batch) -> Batch:
        assert self._busy.acquire(blocking=False), "an engine has one caller at a time"
        try:
            time.sleep(self.seconds)
            self.ran.append(float(lr.flat[0]))
            if lr.flat[0] == self.fails_at:
                raise MemoryError("too large")
            return lr * 2
        finally:
            self._busy.release()


class TwoLanes(Device):
    """Takes a second batch before it gives the first result, as streams do."""

    def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        held: list[Batch] = []
        for batch in batches:
            held.append(self.run(batch))
            if len(held) == 2:
                yield held.pop(0)
        yield from held


def batches(count: int) -> list[Batch]:
    return [np.full((1, 3, 2, 2), number, np.float32) for number in range(count)]


@pytest.mark.parametrize("kind", [Device, TwoLanes])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 60])
def test_every_batch_runs_once_and_results_are_in_order(kind: type[Device], count: int) -> None:
    devices = [kind("a", 0.003), kind("b"), kind("c", 0.001)]
    made = [float(result.flat[0]) for result in Several(list(devices)).run_each(batches(count))]
    assert made == [2.0 * number for number in range(count)]
    assert sorted(number for device in devices for number in device.ran) == list(range(count))


def test_a_device_that_is_slow_holds_up_no_more_than_its_share() -> None:
    slow, fast = Device("slow", 0.05), Device("fast", 0.001)
    list(Several([slow, fast]).run_each(batches(40)))
    assert len(fast.ran) > 2 * len(slow.ran)


@pytest.mark.parametrize("kind", [Device, TwoLanes])
def test_nobody_runs_far_ahead_of_the_one_that_is_waited_for(kind: type[Device]) -> None:
    given = list[int]()
    taken = list[int]()

    def feed() -> Iterator[Batch]:
        for number, batch in enumerate(batches(100)):
            taken.append(number)
            assert number - len(given) <= 2 * AHEAD + 2  # and one more for each that is waited for
            yield batch

    for number, _ in enumerate(Several([kind("a", 0.002), kind("b")]).run_each(feed())):
        given.append(number)
    assert len(taken) == len(given) == 100


@pytest.mark.parametrize("kind", [Device, TwoLanes])
def test_a_failing_device_is_heard_and_all_threads_end(kind: type[Device]) -> None:
    before = threading.active_count()
    several = Several([kind("a", fails_at=5), kind("b", fails_at=5)])
    with pytest.raises(MemoryError, match="too large"):
        list(several.run_each(batches(30)))
    assert threading.active_count() == before
    assert len(list(several.run_each(batches(3)))) == 3, "and the next picture runs"


def test_a_caller_who_stops_ends_all_threads() -> None:
    before = threading.active_count()
    results = Several([Device("a"), Device("b")]).run_each(batches(50))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


class Finisher(Device):
    """Finishes its results itself; nothing comes of a value that is no number."""

    def run_levels(self, given: Iterable[Batch]) -> Iterator[np.ndarray | None]:
        for batch in given:
            result = self.run(batch)
            yield None if np.isnan(result).any() else result.astype(np.uint8)


def test_devices_that_finish_pixels_do_so_together() -> None:
    several = together([Finisher("a"), Finisher("b", 0.002)])
    assert isinstance(several, SeveralFinishing)
    given = batches(9)
    given[4][...] = np.nan
    made = list(several.run_levels(given))
    assert [None if r is None else int(r.flat[0]) for r in made] == [0, 2, 4, 6, None, 10, 12, 14, 16]
    assert not isinstance(together([Finisher("a"), Device("b")]), SeveralFinishing)


def test_two_engines_give_the_pixels_of_one(tiny_models: Path) -> None:
    path = tiny_models / "tiny-x2.onnx"
    spec = read_spec(path)
    assert spec is not None
    engines = [registry.load("onnxruntime", path, spec, BackendOptions("fp32", threads=1)) for _ in range(2)]
    tiles = [np.random.default_rng(n).random((1, 3, 16 + n, 20), np.float32) for n in range(6)]
    for one, both in zip(map(engines[0].run, tiles), Several(engines).run_each(tiles), strict=True):
        np.testing.assert_array_equal(one, both)


@pytest.mark.parametrize(
    ("device", "names"),
    [
        ("auto", ("auto",)),
        ("cuda:1", ("cuda:1",)),
        ("cuda:0,1", ("cuda:0", "cuda:1")),
        ("cuda:0,cuda:2", ("cuda:0", "cuda:2")),
        ("all", ("cuda:0", "cuda:1")),
    ],
)
def test_names_of_several_devices(
    device: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "ask", lambda: TWO)
    assert split(device) == names


@pytest.mark.parametrize(
    "device", ["cuda:0,0", "cuda:0,cuda:0", "cuda,cuda:1", "cuda:0,", "cpu,cuda:0", ",", "0,1"]
)
def test_what_names_no_devices_of_one_kind_is_refused(device: str) -> None:
    with pytest.raises(UsageError, match="several devices"):
        split(device)


def test_all_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "ask", lambda: Driver(problem="there is no NVIDIA driver"))
    with pytest.raises(BackendUnavailableError, match="no NVIDIA driver"):
        split("all")


def test_one_device_of_several_that_is_missing_is_refused(tiny_models: Path) -> None:
    path = tiny_models / "tiny-x2.onnx"
    spec = read_spec(path)
    assert spec is not None
    with pytest.raises(BackendUnavailableError, match="cuda:6"):
        registry.load("onnxruntime", path, spec, BackendOptions("fp32", "cuda:6,7"))
