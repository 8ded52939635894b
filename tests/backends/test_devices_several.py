"""Sharing tiles between devices: each once, results in order and equal to one device's, failures."""

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from srcli.backends import registry
from srcli.backends.base import Batch, EngineInfo
from srcli.backends.devices import TILES_AHEAD, Several, SeveralUint8, combine
from srcli.errors import BackendUnavailableError
from srcli.models.spec import read_spec
from srcli.settings import Settings


class Device:
    """Doubles batches, each in some seconds; fails at a value; keeps a list of what it ran."""

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


class TwoStreams(Device):
    """Reads a second batch before it yields the first result."""

    def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        held: list[Batch] = []
        for batch in batches:
            held.append(self.run(batch))
            if len(held) == 2:
                yield held.pop(0)
        yield from held


def batches(count: int) -> list[Batch]:
    return [np.full((1, 3, 2, 2), number, np.float32) for number in range(count)]


@pytest.mark.parametrize("kind", [Device, TwoStreams])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 60])
def test_each_batch_runs_once_with_results_in_order(kind: type[Device], count: int) -> None:
    devices = [kind("a", 0.003), kind("b"), kind("c", 0.001)]
    made = [float(result.flat[0]) for result in Several(list(devices)).run_each(batches(count))]
    assert made == [2.0 * number for number in range(count)]
    assert sorted(number for device in devices for number in device.ran) == list(range(count))


class Waiting(Device):
    """Runs each batch no sooner than another device has run three more, or all others are done."""

    def __init__(self, other: Device, total: int) -> None:
        super().__init__("slow")
        self.other, self.total = other, total

    def run(self, lr: Batch) -> Batch:
        until = len(self.other.ran) + 3
        while len(self.other.ran) < min(until, self.total - len(self.ran) - 1):
            time.sleep(0.001)
        return super().run(lr)


def test_slow_device_computes_less() -> None:
    fast = Device("fast")
    slow = Waiting(fast, 40)
    list(Several([slow, fast]).run_each(batches(40)))
    assert len(fast.ran) > 2 * len(slow.ran)


@pytest.mark.parametrize("kind", [Device, TwoStreams])
def test_reading_ahead_is_bounded(kind: type[Device]) -> None:
    given = list[int]()
    taken = list[int]()

    def feed() -> Iterator[Batch]:
        for number, batch in enumerate(batches(100)):
            taken.append(number)
            assert number - len(given) <= 2 * TILES_AHEAD + 2  # and one more for each that is waited for
            yield batch

    for number, _ in enumerate(Several([kind("a", 0.002), kind("b")]).run_each(feed())):
        given.append(number)
    assert len(taken) == len(given) == 100


@pytest.mark.parametrize("kind", [Device, TwoStreams])
def test_failure_is_raised_and_threads_end(kind: type[Device]) -> None:
    before = set(threading.enumerate())
    several = Several([kind("a", fails_at=5), kind("b", fails_at=5)])
    with pytest.raises(MemoryError, match="too large"):
        list(several.run_each(batches(30)))
    assert set(threading.enumerate()) <= before
    assert len(list(several.run_each(batches(3)))) == 3, "and the next picture runs"


def test_closing_the_iterator_ends_all_threads() -> None:
    before = set(threading.enumerate())
    results = Several([Device("a"), Device("b")]).run_each(batches(50))
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before


class Uint8Device(Device):
    """Has `run_uint8`; yields None for NaN."""

    def run_uint8(self, given: Iterable[Batch]) -> Iterator[np.ndarray | None]:
        for batch in given:
            result = self.run(batch)
            yield None if np.isnan(result).any() else result.astype(np.uint8)


def test_uint8_only_if_all_engines_have_it() -> None:
    several = combine([Uint8Device("a"), Uint8Device("b", 0.002)])
    assert isinstance(several, SeveralUint8)
    given = batches(9)
    given[4][...] = np.nan
    made = list(several.run_uint8(given))
    assert [None if r is None else int(r.flat[0]) for r in made] == [0, 2, 4, 6, None, 10, 12, 14, 16]
    assert not isinstance(combine([Uint8Device("a"), Device("b")]), SeveralUint8)


def test_two_engines_equal_one(tiny_models: Path) -> None:
    path = tiny_models / "tiny-x2.onnx"
    spec = read_spec(path)
    assert spec is not None
    engines = [
        registry.load("onnxruntime", path, spec, Settings(precision="fp32", threads=1)) for _ in range(2)
    ]
    tiles = [np.random.default_rng(n).random((1, 3, 16 + n, 20), np.float32) for n in range(6)]
    for one, both in zip(map(engines[0].run, tiles), Several(engines).run_each(tiles), strict=True):
        np.testing.assert_array_equal(one, both)


def test_missing_device_among_several_is_refused(tiny_models: Path) -> None:
    path = tiny_models / "tiny-x2.onnx"
    spec = read_spec(path)
    assert spec is not None
    with pytest.raises(BackendUnavailableError, match="cuda:6"):
        registry.load("onnxruntime", path, spec, Settings(precision="fp32", device="cuda:6,7"))
