"""Rounds in turns, their statistics, and the accounting of pixels and operations."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_networks
from benchmark_fakes import BF16, F32, Clock, FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from srcli.backends import registry
from srcli.backends.base import BackendOptions, Batch, Engine, EngineInfo
from srcli.benchmark import peak, speed
from srcli.benchmark.attempts import Attempts
from srcli.benchmark.peak import Product
from srcli.benchmark.plan import Case, Request, Subject
from srcli.benchmark.rounds import Spread, interleave, percentile, timed
from srcli.errors import InferenceError
from srcli.models.catalog import ModelFile
from srcli.models.spec import ModelSpec

SPEC = replace(tiny_networks.tiny_spec(4), macs=1000)


def test_rounds_are_reversed_in_turns_and_the_warm_up_does_not_count() -> None:
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


def test_operations_are_two_a_multiply_add() -> None:
    assert speed.flop(SPEC, 10) == 200_000  # 2 * 1000 multiply-adds * 100 LR pixels


def measured(monkeypatch: pytest.MonkeyPatch, spec: ModelSpec, size: int) -> dict[object, speed.Speed]:
    """bf16 takes 0.5 s, fp32 1 s; the products take 0.1 s for 10**9 operations, where there is one."""
    clock = Clock(monkeypatch)

    def load(name: str, path: Path, spec: ModelSpec, options: BackendOptions) -> FakeEngine:
        seconds = {"bf16": 0.5, "fp32": 1.0}[options.precision]
        return FakeEngine(EngineInfo(name, "cpu", options.precision), spec.scale, clock.passing(seconds))

    def product(device: str, precision: str, threads: int) -> Product | None:
        return Product(clock.passing(0.1), 1e9, "fake") if precision == "bf16" else None

    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(peak, "product", product)
    subject = Subject("tiny", ModelFile(Path("tiny-x4.onnx"), spec), (BF16, F32))
    attempts = Attempts[speed.Key]()
    found = speed.measure(subject, Request(("tiny",), sizes=(size,), repetitions=4), attempts)
    assert not attempts.problems
    return {case: one for (case, _), one in found.items()}


def test_rates_follow_from_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, SPEC, 50)
    bf16, fp32 = found[BF16], found[F32]
    assert bf16.latency.median == pytest.approx(0.5)  # of differences on a clock: rounding alone
    assert bf16.latency.repetitions == 4
    assert bf16.tiles == 1
    assert bf16.megapixels == pytest.approx(200 * 200 / 1e6 / 0.5)
    assert bf16.tflops == pytest.approx(2 * 1000 * 50 * 50 / 0.5 / 1e12)
    assert bf16.peak == pytest.approx(1e9 / 0.1 / 1e12)
    assert fp32.tflops == pytest.approx(2 * 1000 * 50 * 50 / 1.0 / 1e12)
    assert fp32.peak is None
    assert fp32.info == EngineInfo("openvino", "cpu", "fp32")


def test_a_model_that_does_not_say_its_work_gets_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, replace(SPEC, macs=0), 50)
    assert (found[BF16].tflops, found[BF16].peak) == (None, None)


def one_engine(monkeypatch: pytest.MonkeyPatch, engine: Engine, **asked: object) -> dict[int, speed.Speed]:
    """Its speeds by size, and for those that fail nothing."""
    monkeypatch.setattr(registry, "load", lambda *_: engine)
    monkeypatch.setattr(peak, "product", lambda *_: None)
    subject = Subject("tiny", ModelFile(Path("tiny-x4.onnx"), SPEC), (F32,))
    request = Request(("tiny",), repetitions=2, **asked)  # type: ignore[arg-type]
    return {size: one for (_, size), one in speed.measure(subject, request, Attempts()).items()}


def test_what_fails_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    class Small(FakeEngine):
        def run(self, lr: Batch) -> Batch:
            if lr.shape[3] > 32:
                raise MemoryError("a tile of 48 pixels is too large")
            return super().run(lr)

    def load(name: str, *_: object) -> FakeEngine:
        if name == "torch":
            raise InferenceError("No such kernel.", "Wait.")
        return Small(EngineInfo(name, "cpu", "fp32"), 4, clock.passing(1.0))

    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(peak, "product", lambda *_: 1 / 0)  # not even that
    broken, attempts = Case("torch", "cpu", "fp32"), Attempts[speed.Key]()
    subject = Subject("tiny", ModelFile(Path("tiny-x4.onnx"), SPEC), (broken, F32))
    found = speed.measure(subject, Request(("tiny",), sizes=(16, 48, 32), repetitions=2), attempts)
    assert found.keys() == {(F32, 16), (F32, 32)}
    assert attempts.problems == {
        (F32, 48): "out of memory (a tile of 48 pixels is too large)",
        **{(broken, size): "No such kernel. Wait." for size in (16, 48, 32)},
    }
    assert found[F32, 16].peak is None


def test_an_input_beyond_the_largest_tile_goes_through_the_upscalers_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Halo 8, tiles of at most 50: 3 to a side, (100 + 2 * 2 * 8) / 3 = 44 pixels each."""
    clock, seen = Clock(monkeypatch), list[tuple[int, ...]]()

    class Watched(FakeEngine):
        def run(self, lr: Batch) -> Batch:
            seen.append(lr.shape)
            return super().run(lr)

    engine = Watched(EngineInfo("openvino", "cpu", "fp32"), 4, clock.passing(0.5))
    found = one_engine(monkeypatch, engine, sizes=(40, 100), tile=50)
    assert (found[40].tiles, found[100].tiles) == (1, 9)
    assert set(seen) == {(1, 3, 40, 40), (1, 3, 44, 44)}
    assert found[100].latency.median == pytest.approx(0.5)
    assert found[100].megapixels == pytest.approx(400 * 400 / 1e6 / 4.5)
    assert found[100].tflops == pytest.approx(9 * 2 * 1000 * 44 * 44 / 4.5 / 1e12)


def test_an_engine_with_several_at_work_is_measured_with_several(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile takes a second; in a row, every one after it is there 0.25 s later."""
    clock = Clock(monkeypatch)

    class Lanes(FakeEngine):
        def run_levels(self, batches: Iterable[Batch]) -> Iterator[None]:
            for number, _ in enumerate(batches):
                clock.now += 0.25 if number else 1.0
                yield None

    engine = Lanes(EngineInfo("tensorrt", "cuda:0", "fp16"), 4, clock.passing(1.0))
    found = one_engine(monkeypatch, engine, sizes=(50,))[50]
    row = 1.0 + 0.25 * (speed.AT_ONCE - 1)
    assert found.latency.median == pytest.approx(1.0)
    assert found.tiles == speed.AT_ONCE
    assert found.megapixels == pytest.approx(speed.AT_ONCE * 200 * 200 / 1e6 / row)
    assert found.tflops == pytest.approx(speed.AT_ONCE * speed.flop(SPEC, 50) / row / 1e12)


def test_the_peak_is_a_real_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "SIDE", 64)
    product = peak.product("cpu", "fp32", 1)
    assert product is not None
    assert (product.by, product.flop) == ("openvino", 2 * 64**3)
    a, b = peak._matrices()
    found = product.run()[0]  # type: ignore[index]
    np.testing.assert_allclose(found, a @ b, rtol=1e-5)  # fp32: 64 additions of rounding at 6e-8 each


def test_without_openvino_numpy_shows_the_peak_of_f32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "SIDE", 8)
    monkeypatch.setattr(peak, "find_spec", lambda name: None)
    product = peak.product("cpu", "fp32", 0)
    assert product is not None
    assert product.by == "numpy"
    a, b = peak._matrices()
    np.testing.assert_array_equal(product.run(), a @ b)
    assert peak.product("cpu", "bf16", 0) is None
    assert peak.product("cuda", "fp32", 0) is None
    assert peak.product("npu", "fp32", 0) is None
