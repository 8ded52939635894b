"""Loading: what is refused and why, which engine serves which tile, what is built and what is found."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorrt_doubles import FakeDevice, FakeProgram, enlarged

from srcli import Upscaler, doctor
from srcli.backends import driver, table, tensorrt
from srcli.backends.base import BackendOptions, Batch, EngineInfo
from srcli.backends.driver import Driver, Gpu
from srcli.backends.tensorrt import SIDES, TensorRtEngine
from srcli.backends.trt import flavour, workshop
from srcli.backends.trt.build import Built
from srcli.backends.trt.flavour import Flavour
from srcli.backends.trt.progress import Watch
from srcli.errors import BackendUnavailableError, InferenceError, MissingExtraError, UsageError
from srcli.spec import ModelSpec, read_spec
from srcli.tiled import TiledNetwork

NO_DRIVER = Driver(problem="there is no NVIDIA driver")
RTX = Gpu("NVIDIA GeForce RTX 4090", "8.9", 24 << 30)
TWO = Driver("13.0", (RTX, RTX))


def picture(height: int, width: int, seed: int = 0, count: int = 1) -> Batch:
    return np.random.default_rng(seed).random((count, 3, height, width), np.float32)


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


# Which engine serves which tile.


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


# What is refused, before anything of TensorRT is touched.


@pytest.fixture
def untouchable(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched() -> Flavour:
        raise AssertionError("TensorRT was touched")

    monkeypatch.setattr(flavour, "find", touched)
    monkeypatch.setattr(flavour, "installed", lambda: ("tensorrt_rtx",))
    monkeypatch.setattr(flavour, "cuda_of", lambda name: 13)


def load(folder: Path, options: BackendOptions) -> TensorRtEngine:
    path = folder / "tiny-x2.onnx"
    return tensorrt.load(path, spec_of(path), options)


def spec_of(path: Path) -> ModelSpec:
    spec = read_spec(path)
    assert spec is not None
    return spec


@pytest.mark.usefixtures("untouchable")
@pytest.mark.parametrize(
    ("found", "options", "words"),
    [
        (NO_DRIVER, BackendOptions(), "needs an NVIDIA GPU, but there is no NVIDIA driver"),
        (NO_DRIVER, BackendOptions(device="cuda:1"), "there is no NVIDIA driver"),
        (NO_DRIVER, BackendOptions(device="cpu"), "no device cpu"),
        (Driver("12.8", (RTX,)), BackendOptions(), "runs CUDA 12.8 at most, this TensorRT needs 13"),
        (TWO, BackendOptions(device="cuda:2"), "no device cuda:2"),
        (TWO, BackendOptions(device="cpu"), "no device cpu"),
        (TWO, BackendOptions(device="gpu"), "no device gpu"),
        (TWO, BackendOptions("bf16"), "no precision bf16"),
    ],
)
def test_what_cannot_run_here_is_refused(
    found: Driver, options: BackendOptions, words: str, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "ask", lambda: found)
    with pytest.raises(BackendUnavailableError, match=words):
        load(tiny_models, options)


def test_without_the_package_the_extra_is_named(tiny_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flavour, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"srcli\[trt\]"):
        load(tiny_models, BackendOptions())
    with pytest.raises(MissingExtraError, match=r"srcli\[trt\]"):
        flavour.find()


def test_a_broken_full_tensorrt_makes_way_for_rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(name: str) -> Any:
        if name == "tensorrt":
            raise ImportError("libnvinfer.so.11: cannot open shared object file")
        return SimpleNamespace(__version__="1.7.1", IRuntimeCache=object)

    monkeypatch.setattr(flavour, "installed", lambda: flavour.MODULES)
    monkeypatch.setattr(flavour, "import_module", importing)
    assert (flavour.find().name, flavour.find().portable) == ("tensorrt_rtx", True)
    monkeypatch.setattr(flavour, "installed", lambda: ("tensorrt",))
    with pytest.raises(BackendUnavailableError, match=r"libnvinfer\.so\.11"):
        flavour.find()
    monkeypatch.setattr(flavour, "import_module", lambda name: SimpleNamespace(__version__="8.6.0"))
    with pytest.raises(BackendUnavailableError, match="too old"):
        flavour.find()


# The table and the doctor.


def test_auto_takes_it_only_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda name: name)
    monkeypatch.setattr(flavour, "installed", lambda: ("tensorrt_rtx",))
    monkeypatch.setattr(flavour, "cuda_of", lambda name: 13)
    monkeypatch.setattr(driver, "ask", lambda: NO_DRIVER)
    assert table.choose("auto", BackendOptions()).name == "openvino"
    assert "tensorrt" not in table.available()
    monkeypatch.setattr(driver, "ask", lambda: TWO)
    assert table.choose("auto", BackendOptions()).name == "tensorrt"
    assert table.choose("auto", BackendOptions(device="cpu")).name == "openvino"
    assert table.choose("auto", BackendOptions("bf16")).name == "openvino"
    assert table.choose("trt", BackendOptions()).name == "tensorrt"


@pytest.mark.parametrize(
    ("name", "cuda", "capability", "known"),
    [
        ("tensorrt_rtx", "13.0", "7.0", False),
        ("tensorrt_rtx", "13.0", "8.9", True),
        ("tensorrt_rtx", "13.0", "9.0", False),  # a data-centre GPU that it does not list
        ("tensorrt_rtx", "13.0", "12.0", True),
        ("tensorrt_rtx", "12.8", "12.0", False),  # the driver
        ("tensorrt", "13.0", "9.0", True),
        ("tensorrt", "13.0", "7.0", False),
    ],
)
def test_auto_takes_it_only_on_gpus_it_knows(
    name: str, cuda: str, capability: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flavour, "installed", lambda: (name,))
    monkeypatch.setattr(flavour, "cuda_of", lambda name: 13)
    assert flavour.usable(Driver(cuda, (Gpu("G", capability, 1),))) == known


@pytest.mark.parametrize("there", [("tensorrt", "onnx"), ("tensorrt_rtx", "onnx")])
def test_either_flavour_counts_as_installed(there: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "find_spec", lambda name: name if name in there else None)
    assert table.choose("tensorrt", BackendOptions()).name == "tensorrt"
    monkeypatch.setattr(table, "find_spec", lambda name: name if name == there[0] else None)
    with pytest.raises(MissingExtraError, match=r"srcli\[trt\]"):
        table.choose("tensorrt", BackendOptions())


def test_the_doctor_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("tried without a GPU")

    monkeypatch.setattr(doctor, "trial", never)
    monkeypatch.setattr(driver, "ask", lambda: NO_DRIVER)
    trials = doctor._trials("tensorrt", NO_DRIVER)
    assert {t.reason for t in trials} == {"It needs an NVIDIA GPU, but there is no NVIDIA driver."}
    assert [(t.device, t.precision, t.works) for t in trials] == [
        ("cuda", "f32", False),
        ("cuda", "f16", False),
    ]


# What is built, and what is found.


class Builds:
    """Stands in for building and for TensorRT's runtime."""

    def __init__(self, device: FakeDevice) -> None:
        self.device, self.built, self.timings = device, list[tuple[str, int]](), list[bytes]()
        self.refused: set[bytes] = set()

    def build(
        self, what: Flavour, path: Path, precision: str, side: int, gpu: Gpu | None, timings: bytes, w: Watch
    ) -> Built:
        self.built.append((precision, side))
        self.timings.append(timings)
        return Built(f"plan {len(self.built)}".encode(), b"" if what.portable else b"measured")

    def program(self, what: Flavour, plan: bytes, kernels: bytes, keep: Any) -> FakeProgram:
        if plan in self.refused:
            raise InferenceError("TensorRT refuses it.")
        return FakeProgram(self.device)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Builds]:
    made = Builds(FakeDevice())
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(driver, "ask", lambda: TWO)
    monkeypatch.setattr(workshop, "build", made.build)
    monkeypatch.setattr(workshop, "TensorRtProgram", made.program)
    monkeypatch.setattr(tensorrt, "Cuda", lambda number: made.device)
    monkeypatch.setattr(flavour, "cuda_of", lambda name: 13)
    set_flavour(monkeypatch, "tensorrt_rtx", "1.7.1")
    return made


def set_flavour(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    api = SimpleNamespace(IRuntimeCache=object) if name == "tensorrt_rtx" else SimpleNamespace()
    monkeypatch.setattr(flavour, "installed", lambda: (name,))
    monkeypatch.setattr(flavour, "find", lambda: Flavour(name, version, api))


def test_an_engine_is_built_once(builds: Builds, tiny_models: Path) -> None:
    told: list[str] = []
    first = load(tiny_models, BackendOptions(tell=told.append))
    assert (first.info, first.scale) == (EngineInfo("tensorrt", "cuda:0", "f16"), 2)
    assert np.array_equal(first.run(picture(9, 9)), enlarged(picture(9, 9)))
    assert builds.built == [("f16", 384)]
    assert "building it once for NVIDIA GeForce RTX 4090" in told[0]
    assert "kept as" in told[-1]
    told.clear()
    load(tiny_models, BackendOptions(tell=told.append))
    assert (len(builds.built), told) == (1, [])


def test_another_precision_version_or_gpu_is_another_engine(
    builds: Builds, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(tiny_models, BackendOptions())
    load(tiny_models, BackendOptions("f32"))
    set_flavour(monkeypatch, "tensorrt_rtx", "1.8.0")
    load(tiny_models, BackendOptions())
    set_flavour(monkeypatch, "tensorrt", "11.4.0")
    load(tiny_models, BackendOptions())
    monkeypatch.setattr(driver, "ask", lambda: Driver("13.0", (Gpu("NVIDIA H200", "9.0", 1 << 37),)))
    load(tiny_models, BackendOptions())
    assert len(builds.built) == 5
    load(tiny_models, BackendOptions(device="cuda:0"))
    assert len(builds.built) == 5


def test_a_damaged_engine_is_built_again(builds: Builds, tiny_models: Path, tmp_path: Path) -> None:
    told: list[str] = []
    load(tiny_models, BackendOptions())
    (file,) = (tmp_path / "cache" / "tensorrt").glob("*.engine")
    file.write_bytes(file.read_bytes()[:-1])
    load(tiny_models, BackendOptions(tell=told.append))
    assert len(builds.built) == 2
    assert "is damaged" in told[0]
    load(tiny_models, BackendOptions())
    assert len(builds.built) == 2


def test_an_engine_that_tensorrt_refuses_is_built_again(builds: Builds, tiny_models: Path) -> None:
    load(tiny_models, BackendOptions())
    builds.refused = {b"plan 1"}
    load(tiny_models, BackendOptions())
    assert len(builds.built) == 2
    builds.refused = {b"plan 2", b"plan 3"}
    with pytest.raises(InferenceError, match="refuses"):
        load(tiny_models, BackendOptions())


def test_measurements_of_the_builder_are_kept_for_the_next(
    builds: Builds, tiny_models: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_flavour(monkeypatch, "tensorrt", "11.4.0")
    load(tiny_models, BackendOptions())
    load(tiny_models, BackendOptions("f32"))
    assert builds.timings == [b"", b"measured"]
    (file,) = (tmp_path / "cache" / "tensorrt").glob("*.timings")
    file.write_bytes(file.read_bytes()[:-1] + b"X")  # a damaged one would abort the process
    (tmp_path / "cache" / "tensorrt").joinpath(next(file.parent.glob("*f32*.engine"))).unlink()
    load(tiny_models, BackendOptions("f32"))
    assert builds.timings[-1] == b""


def test_no_memory_to_build_shows_at_the_first_tile(
    builds: Builds, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*arguments: Any) -> Built:
        if arguments[3] > 96:
            raise MemoryError
        return builds.build(*arguments)

    monkeypatch.setattr(workshop, "build", too_large)
    engine = load(tiny_models, BackendOptions())
    with pytest.raises(MemoryError):
        engine.run(picture(384, 384))
    assert np.array_equal(engine.run(picture(96, 96)), enlarged(picture(96, 96)))


# Building ahead.


def test_what_was_built_ahead_is_found_beside_the_model(
    builds: Builds, tiny_models: Path, tmp_path: Path
) -> None:
    path = tmp_path / "tiny-x2.onnx"
    path.write_bytes((tiny_models / "tiny-x2.onnx").read_bytes())
    file = tensorrt.build_ahead(path, spec_of(path), BackendOptions(), tmp_path)
    assert file.parent == tmp_path
    assert file.name.startswith("tiny-x2-f16-384-")
    assert tensorrt.build_ahead(path, spec_of(path), BackendOptions(), tmp_path) == file
    load(tmp_path, BackendOptions())
    assert builds.built == [("f16", 384)]


def test_without_a_gpu_it_is_built_for_any_and_found_on_all(
    builds: Builds, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tiny-x2.onnx"
    path.write_bytes((tiny_models / "tiny-x2.onnx").read_bytes())
    monkeypatch.setattr(driver, "ask", lambda: NO_DRIVER)
    tensorrt.build_ahead(path, spec_of(path), BackendOptions(), tmp_path)
    monkeypatch.setattr(driver, "ask", lambda: TWO)
    load(tmp_path, BackendOptions())
    assert len(builds.built) == 1


def test_full_tensorrt_cannot_build_without_a_gpu(
    builds: Builds, tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_flavour(monkeypatch, "tensorrt", "11.4.0")
    monkeypatch.setattr(driver, "ask", lambda: NO_DRIVER)
    path = tiny_models / "tiny-x2.onnx"
    with pytest.raises(BackendUnavailableError, match="no NVIDIA driver"):
        tensorrt.build_ahead(path, spec_of(path), BackendOptions(), tmp_path)
    with pytest.raises(UsageError, match="bf16"):
        tensorrt.build_ahead(path, spec_of(path), BackendOptions("bf16"), tmp_path)


# In the upscaler.


def test_the_tiles_of_a_picture_are_worked_on_together(
    builds: Builds, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TiledNetwork, "_compare", lambda *arguments: None)  # a fake GPU's pixels are no match
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    told: list[str] = []
    upscaler = Upscaler("tiny", 2, backend="trt", tile=32, tell=told.append)
    result = upscaler(image)
    assert np.array_equal(result, image.repeat(2, 0).repeat(2, 1))
    assert builds.device.most == tensorrt.LANES
    assert upscaler.info == EngineInfo("tensorrt", "cuda:0", "f16")
    assert "building" in told[0]
    turned = Upscaler("tiny", 2, backend="trt", tile=32, ensemble=True)(image)
    assert np.array_equal(turned, result), "eight symmetries of repeating pixels are all the same"
    builds.device.memory = 0
    for lanes in upscaler._networks[2].engine._lanes.values():  # type: ignore[attr-defined]
        lanes.release()
    with pytest.raises(InferenceError, match="Out of memory"):
        upscaler(image)


def test_a_tile_is_halved_when_memory_is_short(
    builds: Builds, tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TiledNetwork, "_compare", lambda *arguments: None)
    builds.device.memory = 2 * 80 * 40 * 40  # 80 bytes a pixel: enough for two tiles of 40 pixels, not for 64
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    upscaler = Upscaler("tiny", 2, backend="tensorrt")
    assert np.array_equal(upscaler(image), image.repeat(2, 0).repeat(2, 1))
    assert any("going on with 32" in note for note in upscaler.notes)
