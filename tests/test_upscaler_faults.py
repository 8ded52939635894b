"""Engines that fail on purpose: memory runs out, precision overflows, a spec lies."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks
from upscaler_pictures import ROUNDING, picture, to_8bit

from srcli import precision, tiles
from srcli.backends import registry, tensorrt
from srcli.backends.base import Batch, Engine
from srcli.backends.devices import Processor, Several
from srcli.errors import InferenceError, UsageError
from srcli.models import catalog
from srcli.models.spec import ModelSpec
from srcli.settings import Settings
from srcli.upscaler import Upscaler


class FaultyEngine:
    """An engine that spoils the runs for which `fault` says so."""

    def __init__(self, engine: Engine, fault: Callable[[Batch, Engine], Batch]) -> None:
        self._engine, self._fault = engine, fault
        self.info, self.scale = engine.info, engine.scale

    def run(self, lr: Batch) -> Batch:
        return self._fault(lr, self._engine)


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Batch, Engine], Batch]], None]:
    real = registry.load

    def install(fault: Callable[[Batch, Engine], Batch]) -> None:
        def load(name: str, path: Path, spec: ModelSpec, options: Settings) -> FaultyEngine:
            return FaultyEngine(real(name, path, spec, options), fault)

        monkeypatch.setattr(registry, "load", load)

    return install


Inject = Callable[[Callable[[Batch, Engine], Batch]], None]


def test_out_of_memory_halves_the_tile(
    tiny_catalog: Path, inject: Inject, caplog: pytest.LogCaptureFixture
) -> None:
    image = picture(100, 100)
    whole = Upscaler("tiny", 2, precision="fp32")(image)
    sizes: list[int] = []

    def small_only(lr: Batch, engine: Engine) -> Batch:
        sizes.append(max(lr.shape[2:]))
        if sizes[-1] > 60:
            raise MemoryError("injected")
        return engine.run(lr)

    inject(small_only)
    up, calls = Upscaler("tiny", 2, precision="fp32"), []
    result = up(image, progress=lambda done, total: calls.append((done, total)))
    assert np.abs(result - whole).max() < ROUNDING
    assert len([note for note in caplog.messages if "out of memory" in note]) == 1
    assert sizes[0] == 100
    assert sizes.count(100) == 1
    assert calls[-1][0] == calls[-1][1] == len(calls)
    up(image)
    assert sizes.count(100) == 1, "the next image starts with the smaller tile"


def test_out_of_memory_with_the_smallest_tile(tiny_catalog: Path, inject: Inject) -> None:
    def never(lr: Batch, engine: Engine) -> Batch:
        raise MemoryError("injected")

    inject(never)
    with pytest.raises(InferenceError, match="Out of memory"):
        Upscaler("tiny", 2)(picture(100, 100))


def spoiled(batch: Batch) -> Batch:
    batch = batch.copy()
    batch[0, 1, 7, 7] = np.nan
    return batch


def test_overflow_in_low_precision_is_computed_again(
    tiny_catalog: Path, inject: Inject, caplog: pytest.LogCaptureFixture
) -> None:
    image = to_8bit(picture(30, 30))
    exact = Upscaler("tiny", 2, precision="fp32")(image)

    def low_fails(lr: Batch, engine: Engine) -> Batch:
        return spoiled(engine.run(lr)) if engine.info.precision != "fp32" else engine.run(lr)

    try:
        low = Upscaler("tiny", 2, precision="bf16")
    except UsageError:
        pytest.skip("no bf16 on this CPU")
    assert low.info.precision == "bf16"
    inject(low_fails)
    up = Upscaler("tiny", 2, precision="bf16")
    assert np.array_equal(up(image), exact)
    assert any("fp32" in note for note in caplog.messages)
    assert up.computed is not None
    assert (up.info.precision, up.computed.info.precision) == ("bf16", "fp32")


def test_non_finite_in_f32_is_an_error(tiny_catalog: Path, inject: Inject) -> None:
    inject(lambda lr, engine: spoiled(engine.run(lr)))
    with pytest.raises(InferenceError, match="NaN"):
        Upscaler("tiny", 2, precision="fp32")(picture(30, 30))


def test_a_lying_spec_is_found_out(tmp_path: Path) -> None:
    spec = replace(tiny_networks.tiny_spec(2), scale=2)
    path = tiny_networks.write(tmp_path, spec)
    liar = catalog.ModelFile(path, replace(spec, scale=3))
    engine = registry.load("onnxruntime", liar.path, liar.spec, Settings())
    with pytest.raises(InferenceError, match="spec"):
        precision.core_of(engine.run(np.zeros((1, 3, 8, 8), np.float32)), _whole(8), engine.scale)


def _whole(side: int) -> tiles.Tile:
    return tiles.plan((side, side), side, 0)[0]


class Elsewhere(FaultyEngine):
    """An engine that says it is on a GPU."""

    def __init__(self, engine: Engine, fault: Callable[[Batch, Engine], Batch], precision: str) -> None:
        super().__init__(engine, fault)
        self.info = replace(engine.info, device="cuda:0", precision=precision)


def elsewhere(
    monkeypatch: pytest.MonkeyPatch, faults: dict[str, Callable[[Batch, Engine], Batch]]
) -> list[str]:
    """Engines by precision that pretend to be on a GPU, computed by ONNX Runtime; loads are remembered."""
    real, loads = registry.load, list[str]()

    def load(name: str, path: Path, spec: ModelSpec, options: Settings) -> Engine:
        loads.append(f"{options.device} {options.precision}")
        engine = real("onnxruntime", path, spec, Settings(precision="fp32"))
        if options.device == "cpu":
            return engine
        return Elsewhere(engine, faults[options.precision], options.precision)

    monkeypatch.setattr(registry, "load", load)
    return loads


def right(lr: Batch, engine: Engine) -> Batch:
    return engine.run(lr)


def wrong(lr: Batch, engine: Engine) -> Batch:
    """Finite, of the right shape, and of another picture."""
    return engine.run(lr)[..., ::-1].copy()


@pytest.mark.parametrize("size", [(30, 30), (300, 40), (300, 300)])
def test_a_device_that_computes_right_is_checked_once(
    tiny_catalog: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: tuple[int, int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    exact = Upscaler("tiny", 2, precision="fp32")(picture(*size))
    loads = elsewhere(monkeypatch, {"auto": right})
    up = Upscaler("tiny", 2)
    for _ in range(2):
        assert np.abs(up(picture(*size)) - exact).max() < ROUNDING
    assert loads == ["auto auto", "cpu fp32"]
    assert caplog.messages == []


def test_tiles_are_as_large_as_suits_the_device(tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(**asked: Any) -> int:
        seen: list[int] = []
        Upscaler("tiny", 2, **asked)(picture(8, 780), progress=lambda done, total: seen.append(total))
        return seen[-1]

    monkeypatch.setattr("srcli.precision.processor", lambda: Processor("any", 2, ("avx2",)))
    assert (count(), count(tile=256), count(halo=250)) == (2, 4, 1), "a halo of 250 wants 1,000 pixels"
    elsewhere(monkeypatch, {"auto": right})
    assert (count(), count(tile=512)) == (3, 2)
    assert tensorrt.DEFAULT_SIDE == tiles.SIDE, "the engine that is built first is the one that runs"


@pytest.mark.parametrize(
    ("changes", "side"),
    [({}, 512), ({"features": 256}, 384), ({"family": "srresnet"}, 384), ({"family": "other"}, 384)],
)
def test_large_tiles_are_for_networks_that_take_little_memory(changes: dict[str, Any], side: int) -> None:
    spec = replace(catalog.resolve("mdsr-baseline", 4).spec, **changes)
    about = spec.family, spec.features, 0
    assert tiles.default_side(*about, "cpu", "fp32", ("avx2",)) == side
    assert tiles.default_side(*about, "cuda:0", "fp16", ()) == 384


def test_tiles_are_small_where_amx_multiplies() -> None:
    sides = {
        precision: tiles.default_side("mdsr", 64, 0, "cpu", precision, ("avx2", "amx_bf16"))
        for precision in ("fp32", "bf16", "int8")
    }
    assert sides == {"fp32": 512, "bf16": 256, "int8": 256}
    assert tiles.default_side("mdsr", 64, 100, "cpu", "bf16", ("amx_bf16",)) == 400  # as the halo needs it


def test_a_device_that_computes_something_else_is_tried_in_f32(
    tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exact = Upscaler("tiny", 2, precision="fp32")(picture(60, 60))
    elsewhere(monkeypatch, {"fp16": wrong, "fp32": right})
    monkeypatch.setattr(registry, "choose", lambda name, options: registry.Choice("onnxruntime", "test"))
    up = Upscaler("tiny", 2, precision="fp16")
    assert np.abs(up(picture(60, 60)) - exact).max() < ROUNDING
    assert up.computed is not None
    assert up.computed.info.precision == "fp32"
    (note,) = caplog.messages
    assert note.startswith("fp16 on cuda:0 is far from what the CPU computes")


def test_a_device_that_is_wrong_in_f32_as_well_is_an_error(
    tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch, {"fp16": wrong, "fp32": wrong})
    monkeypatch.setattr(registry, "choose", lambda name, options: registry.Choice("onnxruntime", "test"))
    with pytest.raises(
        InferenceError, match=r"far from what the CPU computes \(-?\d+ dB on cuda:0\) in fp32"
    ):
        Upscaler("tiny", 2, precision="fp16")(picture(60, 60))


def test_every_one_of_several_devices_is_checked(
    tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = registry.load

    def load(name: str, path: Path, spec: ModelSpec, options: Settings) -> Engine:
        engine = real("onnxruntime", path, spec, Settings(precision="fp32"))
        if options.device == "cpu":
            return engine
        faults = (right, wrong if options.precision == "fp16" else right)
        return Several([Elsewhere(engine, fault, options.precision) for fault in faults])

    exact = Upscaler("tiny", 2, precision="fp32")(picture(60, 60))
    monkeypatch.setattr(registry, "load", load)
    monkeypatch.setattr(registry, "choose", lambda name, options: registry.Choice("onnxruntime", "test"))
    up = Upscaler("tiny", 2, precision="fp16")
    assert np.abs(up(picture(60, 60)) - exact).max() < ROUNDING
    assert any("far from what the CPU computes" in note for note in caplog.messages)
    loads: list[object] = []
    monkeypatch.setattr(precision, "psnr_to_cpu", lambda *a: loads.append(a) or 99.0)
    up(picture(60, 60))
    assert loads == [], "a verdict is not asked for again"


def test_a_quantised_network_has_no_other_precision_to_fall_back_to(
    tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch, inject: Inject
) -> None:
    inject(lambda lr, engine: spoiled(engine.run(lr)))
    up = Upscaler("tiny", 2, precision="fp32")
    network = up._networks["tiny", 2]
    network.engine.info = replace(network.engine.info, precision="int8")
    network.file = replace(network.file, spec=replace(network.file.spec, arithmetic="int8"))
    with pytest.raises(InferenceError, match="NaN in int8"):
        up(picture(30, 30))
