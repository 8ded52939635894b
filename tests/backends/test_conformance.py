"""One suite over all installed backends: same file and picture, same result, settings used or refused."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import tiny_networks
from engines import FP32_TOLERANCE, load, picture, psnr

from srcli.backends import registry
from srcli.backends.base import Batch, Engine, bicubic_spec, run_failed
from srcli.errors import BackendUnavailableError, InferenceError, ModelFileError
from srcli.models import catalog
from srcli.models.spec import read_spec
from srcli.settings import Settings

SCALES = (2, 3, 4)

BF16_PSNR = 50.0
"""dB against fp32: eight bits of mantissa through a dozen layers; 59 dB were measured on trained networks."""


ANOTHER_ENGINE_PSNR = 60.0
"""dB on a GPU between two engines of one file: each chooses its kernels by its own timings."""


class Row(NamedTuple):
    """A backend on a kind of device."""

    name: str
    device: str

    def load(self, path: Path, precision: str = "fp32") -> Engine:
        return load(self.name, path, precision, self.device)


def rows() -> Iterator[Any]:
    """Every installed backend on CPU and GPU; on a GPU marked, and skipped where there is none."""
    for name in registry.available():
        for device in ("cpu", "cuda"):
            if name != "bicubic" and device in registry.BACKENDS[name].computes:
                marks = on_gpu(name) if device == "cuda" else []
                yield pytest.param(Row(name, device), marks=marks, id=f"{name}-{device}")


def on_gpu(name: str) -> list[pytest.MarkDecorator]:
    there = "cuda" in registry.reachable(registry.BACKENDS[name])
    return [pytest.mark.gpu, pytest.mark.skipif(not there, reason="needs an NVIDIA GPU and a build for it")]


def reference(path: Path, lr: Batch) -> Batch:
    return load("onnxruntime", path, device="cpu").run(lr)


@pytest.fixture(params=rows())
def row(request: pytest.FixtureRequest) -> Row:
    assert isinstance(request.param, Row)
    return request.param


@pytest.fixture(params=SCALES)
def path(request: pytest.FixtureRequest, tiny_models: Path) -> Path:
    return tiny_models / f"tiny-x{request.param}.onnx"


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (1, 37), (19, 23)])
def test_fp32_agrees_with_onnxruntime(row: Row, path: Path, size: tuple[int, int]) -> None:
    engine, lr = row.load(path), picture(*size)
    sr = engine.run(lr)
    assert sr.shape == (1, 3, size[0] * engine.scale, size[1] * engine.scale)
    assert sr.dtype == np.float32
    assert np.abs(sr - reference(path, lr)).max() < FP32_TOLERANCE


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision_is_close_to_fp32(row: Row, path: Path, precision: str) -> None:
    try:
        engine = row.load(path, precision)
    except BackendUnavailableError:
        pytest.skip(f"{row.name} has no {precision} on {row.device} here")
    lr = picture(24, 24)
    sr, exact = engine.run(lr), reference(path, lr)
    assert engine.info.precision == precision
    assert psnr(sr, exact) > BF16_PSNR
    assert np.abs(sr - exact).max() > 0, "equal to the bit: it did not run in low precision"


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3), (19, 23)])
@pytest.mark.parametrize(("precision", "least"), [("fp32", 90.0), ("bf16", BF16_PSNR), ("fp16", 65.0)])
def test_shipped_network_is_right_at_borders(
    row: Row, precision: str, least: float, size: tuple[int, int]
) -> None:
    """Merged upsamplers run layer by layer there, on strips that may be wider than a small picture."""
    path = catalog.MODELS_FOLDER / "edsr-baseline-x4.onnx"
    try:
        engine = row.load(path, precision)
    except BackendUnavailableError:
        pytest.skip(f"{row.name} has no {precision} on {row.device} here")
    lr = picture(*size)
    sr = engine.run(lr)
    assert sr.shape == (1, 3, size[0] * engine.scale, size[1] * engine.scale)
    assert psnr(sr, reference(path, lr)) > least


def test_batch_equals_single_pictures(row: Row, path: Path) -> None:
    engine, lr = row.load(path), np.concatenate([picture(9, 8, seed) for seed in range(3)])
    one_by_one = np.concatenate([engine.run(lr[i : i + 1]) for i in range(3)])
    assert np.abs(engine.run(lr) - one_by_one).max() < FP32_TOLERANCE


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_result_does_not_depend_on_earlier_runs(row: Row, path: Path, precision: str) -> None:
    engine, lr = row.load(path, precision), picture(15, 17)
    first = engine.run(lr)
    kept = first.copy()
    engine.run(picture(33, 12, seed=1))
    assert np.array_equal(first, kept), "a later run overwrote an earlier result"
    assert np.array_equal(engine.run(lr), kept)
    again = row.load(path, precision).run(lr)
    assert np.array_equal(again, kept) if row.device == "cpu" else psnr(again, kept) > ANOTHER_ENGINE_PSNR


def test_info_names_backend_device_and_precision(row: Row, tiny_models: Path) -> None:
    info = row.load(tiny_models / "tiny-x2.onnx").info
    assert (info.backend, info.device.partition(":")[0], info.precision) == (*row, "fp32")


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "gpu"])
def test_wrong_device_is_refused(row: Row, tiny_models: Path, device: str) -> None:
    with pytest.raises(BackendUnavailableError, match=device):
        load(row.name, tiny_models / "tiny-x2.onnx", device=device)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_precision_is_used_or_refused(row: Row, tiny_models: Path, precision: str) -> None:
    path = tiny_models / "tiny-x2.onnx"
    try:
        found = row.load(path, precision).info.precision
    except BackendUnavailableError as error:
        found = error.message
    assert precision in found, "neither used nor named in the refusal"


def test_fp16_weights_give_the_reference_result(row: Row, tmp_path: Path) -> None:
    path = tiny_networks.write(tmp_path, tiny_networks.tiny_spec(2), half=True)
    lr = picture(12, 12)
    assert np.abs(row.load(path).run(lr) - reference(path, lr)).max() < FP32_TOLERANCE


def test_weights_beside_the_model_are_read(row: Row, tmp_path: Path) -> None:
    spec, lr = tiny_networks.tiny_spec(3), picture(12, 12)
    inside = tiny_networks.write(tmp_path, spec)
    beside = tmp_path / "sub" / "tiny-x3.onnx"
    beside.parent.mkdir()
    onnx.save(
        tiny_networks.build(spec), beside, save_as_external_data=True, location="w.bin", size_threshold=64
    )
    assert (beside.parent / "w.bin").stat().st_size > 1000
    assert np.abs(row.load(beside).run(lr) - reference(inside, lr)).max() < FP32_TOLERANCE


def with_threads(row: Row, path: Path, threads: int) -> Engine:
    if row.device != "cpu":
        pytest.skip("threads concern the CPU only")
    spec = read_spec(path)
    assert spec is not None
    return registry.load(row.name, path, spec, Settings(precision="fp32", device=row.device, threads=threads))


def test_threads_do_not_change_the_result(row: Row, path: Path) -> None:
    lr = picture(40, 50)
    one, two = (with_threads(row, path, threads).run(lr) for threads in (1, 2))
    assert np.abs(one - two).max() < FP32_TOLERANCE
    assert np.abs(one - reference(path, lr)).max() < FP32_TOLERANCE


@pytest.mark.parametrize("threads", [2, 1])
def test_thread_count_reaches_the_library(row: Row, tiny_models: Path, threads: int) -> None:
    if row.name not in THREADS:
        pytest.skip(f"{row.name} does not report its threads")
    engine = with_threads(row, tiny_models / "tiny-x2.onnx", threads)
    assert THREADS[row.name](engine) == threads


THREADS: dict[str, Callable[[Any], int]] = {
    "openvino": lambda engine: engine._request.get_compiled_model().get_property("INFERENCE_NUM_THREADS"),
    "onnxruntime": lambda engine: engine._session.get_session_options().intra_op_num_threads,
    "torch": lambda _: importlib.import_module("torch").get_num_threads(),  # of the whole process
}
"""The number of threads that an engine's library reports, by backend."""


@pytest.mark.parametrize("content", [b"", b"neither ONNX nor anything"])
def test_damaged_file_is_named(row: Row, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"bad\.onnx"):
        registry.load(
            row.name, path, tiny_networks.tiny_spec(2), Settings(precision="fp32", device=row.device)
        )


def test_wrong_input_raises_inference_error(row: Row, tiny_models: Path) -> None:
    with pytest.raises(InferenceError, match=row.name):
        row.load(tiny_models / "tiny-x2.onnx").run(np.zeros((1, 5, 8, 8), np.float32))


@pytest.mark.parametrize(
    "text",
    [
        "std::bad_alloc",
        "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
        "CUDA out of memory. Tried to allocate 20.00 GiB",
        "Failed to allocate memory for requested buffer of size 99",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDNN failure 4002: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        "BFCArena::AllocateRawInternal Available memory of 9 is smaller than requested bytes of 99",
    ],
)
def test_out_of_memory_text_is_a_memory_error(text: str) -> None:
    assert isinstance(run_failed("any", RuntimeError(text)), MemoryError)


def test_other_text_is_an_inference_error() -> None:
    assert isinstance(run_failed("any", RuntimeError("shape mismatch")), InferenceError)


class Broken:
    """A stand-in of a library's handle that fails for lack of memory."""

    def __call__(self, *inputs: object, share_inputs: bool = False) -> object:
        raise RuntimeError("std::bad_alloc")

    run = infer = __call__


def test_out_of_memory_in_run_raises_memory_error(
    row: Row, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if row.name == "tensorrt":
        pytest.skip("it has no single handle; its own tests cover this")
    engine = row.load(tiny_models / "tiny-x2.onnx")
    (handle,) = {"_request", "_session", "_network"} & vars(engine).keys()
    monkeypatch.setattr(engine, handle, Broken())
    with pytest.raises(MemoryError):
        engine.run(picture(8, 8))


def test_bicubic_is_an_engine() -> None:
    engine = registry.load("bicubic", Path(), bicubic_spec(3), Settings())
    flat = np.full((2, 3, 5, 7), 0.25, np.float32)
    assert engine.run(flat).shape == (2, 3, 15, 21)
    assert np.abs(engine.run(flat) - 0.25).max() < 1e-6, "the taps sum to one, up to float32"
    with pytest.raises(BackendUnavailableError):
        registry.load("bicubic", Path(), bicubic_spec(3), Settings(device="cuda"))
