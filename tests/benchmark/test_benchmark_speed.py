"""Rates of engines: the accounting of pixels and operations, and the matrix product beside them."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_networks
from benchmark_fakes import BF16, FP32, Clock, FakeEngine

from srcli.backends import registry
from srcli.backends.base import Batch, Engine, EngineInfo
from srcli.benchmark import speed
from srcli.benchmark.rounds import Attempts
from srcli.benchmark.speed import Product
from srcli.benchmark.subjects import Case, Request, Subject
from srcli.errors import InferenceError
from srcli.models import catalog
from srcli.models.catalog import ModelFile
from srcli.models.spec import ModelSpec
from srcli.settings import Settings

SPEC = replace(tiny_networks.tiny_spec(4), macs=1000)


def test_operations_are_two_a_multiply_add() -> None:
    assert speed.flop(SPEC, 10) == 200_000  # 2 * 1000 multiply-adds * 100 LR pixels


def measured(monkeypatch: pytest.MonkeyPatch, spec: ModelSpec, size: int) -> dict[object, speed.Speed]:
    """bf16 takes 0.5 s, fp32 1 s; the products take 0.1 s for 10**9 operations, where there is one."""
    clock = Clock(monkeypatch)

    def load(name: str, path: Path, spec: ModelSpec, options: Settings) -> FakeEngine:
        seconds = {"bf16": 0.5, "fp32": 1.0}[options.precision]
        return FakeEngine(EngineInfo(name, "cpu", options.precision), spec.scale, clock.passing(seconds))

    def product(device: str, precision: str, threads: int) -> Product | None:
        return Product(clock.passing(0.1), 1e9, "fake") if precision == "bf16" else None

    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(speed, "product", product)
    subject = Subject("tiny", ModelFile(Path("tiny-x4.onnx"), spec), (BF16, FP32))
    attempts = Attempts[speed.Key]()
    found = speed.measure(subject, Request(("tiny",), sizes=(size,), repetitions=4), attempts)
    assert not attempts.problems
    return {case: one for (case, _), one in found.items()}


def test_rates_follow_from_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, SPEC, 50)
    bf16, fp32 = found[BF16], found[FP32]
    assert bf16.latency.median == pytest.approx(0.5)  # of differences on a clock: rounding alone
    assert bf16.latency.repetitions == 4
    assert bf16.tiles == 1
    assert bf16.megapixels == pytest.approx(200 * 200 / 1e6 / 0.5)
    assert bf16.tflops == pytest.approx(2 * 1000 * 50 * 50 / 0.5 / 1e12)
    assert bf16.peak == pytest.approx(1e9 / 0.1 / 1e12)
    assert fp32.tflops == pytest.approx(2 * 1000 * 50 * 50 / 1.0 / 1e12)
    assert fp32.peak is None
    assert fp32.info == EngineInfo("openvino", "cpu", "fp32")


def test_a_model_without_macs_gets_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    found = measured(monkeypatch, replace(SPEC, macs=0), 50)
    assert (found[BF16].tflops, found[BF16].peak) == (None, None)


def one_engine(monkeypatch: pytest.MonkeyPatch, engine: Engine, **asked: object) -> dict[int, speed.Speed]:
    """Its speeds by size, and for those that fail nothing."""
    monkeypatch.setattr(registry, "load", lambda *_: engine)
    monkeypatch.setattr(speed, "product", lambda *_: None)
    subject = Subject("tiny", ModelFile(Path("tiny-x4.onnx"), SPEC), (FP32,))
    request = Request(("tiny",), repetitions=2, **asked)  # type: ignore[arg-type]
    return {size: one for (_, size), one in speed.measure(subject, request, Attempts()).items()}


def test_a_failing_engine_or_size_leaves_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch.setattr(speed, "product", lambda *_: 1 / 0)  # not even that
    broken, attempts = Case("torch", "cpu", "fp32"), Attempts[speed.Key]()
    subject = Subject("tiny", ModelFile(Path("tiny-x4.onnx"), SPEC), (broken, FP32))
    found = speed.measure(subject, Request(("tiny",), sizes=(16, 48, 32), repetitions=2), attempts)
    assert found.keys() == {(FP32, 16), (FP32, 32)}
    assert attempts.problems == {
        (FP32, 48): "out of memory (a tile of 48 pixels is too large)",
        **{(broken, size): "No such kernel. Wait." for size in (16, 48, 32)},
    }
    assert found[FP32, 16].peak is None


def test_large_inputs_go_through_the_upscalers_tiles(
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


def test_concurrent_engines_are_measured_with_several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile takes a second; in a row, every one after it is there 0.25 s later."""
    clock = Clock(monkeypatch)

    class Streams(FakeEngine):
        def run_uint8(self, batches: Iterable[Batch]) -> Iterator[None]:
            for number, _ in enumerate(batches):
                clock.now += 0.25 if number else 1.0
                yield None

    engine = Streams(EngineInfo("tensorrt", "cuda:0", "fp16"), 4, clock.passing(1.0))
    found = one_engine(monkeypatch, engine, sizes=(50,))[50]
    row = 1.0 + 0.25 * (speed.AT_ONCE - 1)
    assert found.latency.median == pytest.approx(1.0)
    assert found.tiles == speed.AT_ONCE
    assert found.megapixels == pytest.approx(speed.AT_ONCE * 200 * 200 / 1e6 / row)
    assert found.tflops == pytest.approx(speed.AT_ONCE * speed.flop(SPEC, 50) / row / 1e12)


def test_the_peak_product_is_a_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SIDE", 64)
    product = speed.product("cpu", "fp32", 1)
    assert product is not None
    assert (product.by, product.flop) == ("openvino", 2 * 64**3)
    a, b = speed._matrices()
    found = product.run()[0]  # type: ignore[index]
    np.testing.assert_allclose(found, a @ b, rtol=1e-5)  # fp32: 64 additions of rounding at 6e-8 each


def test_without_openvino_numpy_gives_fp32_peak_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SIDE", 8)
    monkeypatch.setattr(speed, "find_spec", lambda name: None)
    product = speed.product("cpu", "fp32", 0)
    assert product is not None
    assert product.by == "numpy"
    a, b = speed._matrices()
    np.testing.assert_array_equal(product.run(), a @ b)
    assert speed.product("cpu", "bf16", 0) is None
    assert speed.product("cuda", "fp32", 0) is None
    assert speed.product("npu", "fp32", 0) is None


def test_engines_with_other_halos_get_own_tiles() -> None:
    """Beyond one tile: int8 has the larger halo, and needs more windows for the same input."""
    file = catalog.resolve("mdsr-baseline", 2)
    cases = [Case("openvino", "cpu", precision) for precision in ("bf16", "int8")]
    request = Request(("mdsr-baseline",), tile=256)
    subject = Subject("mdsr-baseline", file, tuple(cases))
    assert list(speed._works(subject, request, 200, cases).values()) == [cases]
    assert list(speed._works(subject, request, 1000, cases).values()) == [cases[:1], cases[1:]]
