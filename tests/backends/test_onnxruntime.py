"""ONNX Runtime's devices and options, with a stand-in for wheels that this machine cannot run."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_networks
from onnx import TensorProto

from srcli.backends import devices, registry
from srcli.backends.devices import Driver, Gpu
from srcli.backends.onnxruntime import PROVIDERS, BoundSession, kinds_here
from srcli.backends.rewrite import to_fp16
from srcli.errors import BackendUnavailableError, ModelFileError, UsageError
from srcli.models.spec import read_spec
from srcli.settings import Settings

CUDA, CPU = PROVIDERS["cuda"].name, PROVIDERS["cpu"].name
REAL_SESSION, REAL_VALUE = onnxruntime.InferenceSession, onnxruntime.OrtValue
TWO_GPUS = Driver("13.0", (Gpu("A", "9.0", 1 << 36), Gpu("B", "9.0", 1 << 36)))


class GpuWheel:
    """A CUDA build of ONNX Runtime: real sessions on the CPU that report the provider asked for.

    Args:
        broken: the provider's library cannot be loaded: everything is left to the CPU, where that is allowed.
        raises: what opening a session raises.
        lacks: the provider has not all of the operators.
    """

    def __init__(self, *, broken: bool = False, raises: Exception | None = None, lacks: bool = False) -> None:
        self.broken, self.raises, self.lacks, self.preloaded = broken, raises, lacks, 0
        self.severity = 2  # warnings
        self.asked: list[Any] = []
        self.graphs: list[str | bytes] = []
        self.configuration: list[str] = []

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", CUDA, CPU]

    def preload_dlls(self) -> None:
        print("WARNING: it prints")
        self.preloaded += 1

    def set_default_logger_severity(self, severity: int) -> None:
        self.severity = severity

    def session(self, graph: str | bytes, options: Any, providers: Sequence[Any]) -> Any:
        self.asked.append(providers)
        self.graphs.append(graph)
        key = "session.disable_cpu_ep_fallback"
        alone = _entry(options, key)
        self.configuration.append(alone)
        if self.raises:
            raise self.raises
        if alone and (self.broken or self.lacks):
            return REAL_SESSION(graph, options, enable_fallback=0)  # which refuses, in words of its own
        plain = onnxruntime.SessionOptions()
        plain.log_severity_level = 4
        real = REAL_SESSION(graph, plain, providers=[CPU])
        got = [CPU] if self.broken else [providers[0][0], CPU]
        names = ("get_inputs", "get_outputs", "io_binding", "run_with_iobinding", "run")
        return SimpleNamespace(get_providers=lambda: got, **{name: getattr(real, name) for name in names})

    def open(self, graph: str | bytes, options: Any, providers: Sequence[Any], enable_fallback: int) -> Any:
        """`onnxruntime.InferenceSession`, which must be called without fallback to the CPU."""
        assert enable_fallback == 0
        if providers[0][0] == CPU:
            return REAL_SESSION(graph, options, providers=providers)
        return self.session(graph, options, providers)

    @staticmethod
    def value(shape: list[int], dtype: type, device: str, number: int) -> Any:
        return REAL_VALUE.ortvalue_from_shape_and_type(shape, dtype, "cpu", 0)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(wheel: GpuWheel, nvidia: Driver = TWO_GPUS) -> GpuWheel:
        monkeypatch.setattr(devices, "ask", lambda: nvidia)
        monkeypatch.setattr(onnxruntime, "get_available_providers", wheel.get_available_providers)
        monkeypatch.setattr(onnxruntime, "preload_dlls", wheel.preload_dlls, raising=False)
        monkeypatch.setattr(onnxruntime, "set_default_logger_severity", wheel.set_default_logger_severity)
        values = SimpleNamespace(ortvalue_from_shape_and_type=wheel.value)
        monkeypatch.setattr(onnxruntime, "OrtValue", values)
        monkeypatch.setattr(onnxruntime, "InferenceSession", wheel.open)
        return wheel

    return put


def _entry(options: Any, key: str) -> str:
    try:
        return str(options.get_session_config_entry(key))
    except RuntimeError:  # there is none
        return ""


def load(folder: Path, device: str, precision: str = "auto") -> Any:
    path = folder / "tiny-x2.onnx"
    spec = read_spec(path)
    assert spec is not None
    return registry.load("onnxruntime", path, spec, Settings(precision=precision, device=device))


def test_auto_is_fp16_on_the_gpu(tiny_models: Path, install: Any) -> None:
    wheel = install(GpuWheel())
    engine = load(tiny_models, "auto")
    assert (engine.info.device, engine.info.precision) == ("cuda:0", "fp16")
    assert wheel.preloaded == 1
    assert isinstance(wheel.graphs[0], bytes), "fp16 is a rewritten graph, not the file"


def test_fp16_on_cuda_allows_tensor_cores(tiny_models: Path, install: Any) -> None:
    """Without TF32 the search finds kernels without tensor cores, seven times slower on an H200."""
    wheel = install(GpuWheel())
    load(tiny_models, "cuda", "fp16")
    ((_, options),) = wheel.asked[0]
    assert options["use_tf32"] == "1"
    assert wheel.severity == 4, "messages on kernels that cuDNN tries are off"


def test_cpu_leaves_log_severity(tiny_models: Path, install: Any) -> None:
    wheel = install(GpuWheel())
    load(tiny_models, "cpu")
    assert wheel.severity == 2


def test_fp32_on_cuda_has_no_tf32_and_no_fallback(tiny_models: Path, install: Any) -> None:
    wheel = install(GpuWheel())
    assert load(tiny_models, "cuda:1", "fp32").info.device == "cuda:1"
    ((name, options),) = wheel.asked[0]
    assert (name, options["device_id"], options["use_tf32"]) == (CUDA, "1", "0")
    assert options["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    assert wheel.configuration == ["1"]
    assert wheel.graphs == [str(tiny_models / "tiny-x2.onnx")]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_bound_memory_gives_same_result_as_copies(tiny_models: Path, install: Any, precision: str) -> None:
    install(GpuWheel())
    engine, exact = load(tiny_models, "cuda", precision), load(tiny_models, "cpu")
    # fp16: 2**-11 for each rounding through a few layers; fp32: other kernels
    tolerance = 1e-6 if precision == "fp32" else 5e-3
    for size in ((8, 9), (8, 9), (16, 4), (8, 9)):
        lr = np.random.default_rng(size[0]).random((1, 3, *size), np.float32)
        assert np.abs(engine.run(lr) - exact.run(lr)).max() < tolerance


def test_fp16_file_computes_in_fp32_if_asked(tiny_models: Path, tmp_path: Path, install: Any) -> None:
    fp16 = to_fp16(onnx.load(tiny_models / "tiny-x2.onnx"))
    onnx.save(fp16, tmp_path / "tiny-x2.onnx")
    wheel = install(GpuWheel())
    assert load(tmp_path, "cuda", "fp16").info.precision == "fp16"
    assert load(tmp_path, "cuda", "fp32").info.precision == "fp32"
    unchanged, rewritten = wheel.graphs
    assert unchanged == str(tmp_path / "tiny-x2.onnx")
    assert isinstance(rewritten, bytes)
    assert not any(
        t.data_type == TensorProto.FLOAT16 for t in onnx.load_from_string(rewritten).graph.initializer
    )


def test_int8_file_takes_no_other_precision(tiny_models: Path) -> None:
    path = tiny_models / "tiny-x2.onnx"
    spec = read_spec(path)
    assert spec is not None
    quantised = replace(spec, arithmetic="int8")
    for backend in ("onnxruntime", "openvino"):
        engine = registry.load(backend, path, quantised, Settings(device="cpu"))
        assert engine.info.precision == "int8"
        with pytest.raises(BackendUnavailableError, match="computes in int8, not in fp32"):
            registry.load(backend, path, quantised, Settings(precision="fp32", device="cpu"))


@pytest.fixture
def libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of that of ONNX Runtime's providers."""
    monkeypatch.setattr(onnxruntime, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "capi").mkdir()
    return tmp_path / "capi"


def test_missing_provider_library_is_an_error(
    tiny_models: Path, install: Any, libraries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = install(GpuWheel(broken=True))
    with pytest.raises(
        BackendUnavailableError, match=r"asked for cuda and chose CPU.*providers_cuda.* is missing"
    ) as caught:
        load(tiny_models, "cuda")
    assert 'pip install "srcli[gpu]"' in caught.value.hint
    assert wheel.configuration == ["1", ""], "opened again without the entry, to see which provider starts"
    assert capsys.readouterr().out == "", "stdout is for results"


@pytest.mark.skipif(sys.platform != "linux", reason="the system's words differ")
def test_error_names_the_missing_library(tiny_models: Path, install: Any, libraries: Path) -> None:
    install(GpuWheel(broken=True))
    (libraries / "libonnxruntime_providers_cuda.so").write_bytes(b"not a library")
    with pytest.raises(BackendUnavailableError, match=r"providers_cuda\.so: .*(header|short)"):
        load(tiny_models, "cuda")


def test_silent_fallback_to_cpu_is_an_error(
    tiny_models: Path, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(GpuWheel(broken=True))
    monkeypatch.setattr("srcli.backends.onnxruntime._missing_library", lambda folder: "")
    with pytest.raises(BackendUnavailableError, match="asked for cuda and chose CPUExecutionProvider\\."):
        load(tiny_models, "cuda")


def test_provider_that_fails_to_start_is_unavailable(tiny_models: Path, install: Any) -> None:
    text = "cuda_call.cc:129\nCUDA failure 35: CUDA driver version is insufficient"
    install(GpuWheel(raises=RuntimeError(text)))
    with pytest.raises(BackendUnavailableError, match="cannot start cuda: CUDA failure 35"):
        load(tiny_models, "cuda")


def test_missing_operators_name_the_file(tiny_models: Path, install: Any) -> None:
    install(GpuWheel(lacks=True))
    with pytest.raises(BackendUnavailableError, match=r"tiny-x2\.onnx holds operators that cuda lacks"):
        load(tiny_models, "cuda")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_damaged_file_on_gpu_is_named(precision: str, tmp_path: Path, install: Any) -> None:
    install(GpuWheel())
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"neither ONNX nor anything")
    with pytest.raises(ModelFileError, match=r"bad\.onnx"):
        registry.load(
            "onnxruntime", path, tiny_networks.tiny_spec(2), Settings(precision=precision, device="cuda")
        )


def test_cpu_wheel_beside_gpu_names_the_commands(
    tiny_models: Path, install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(GpuWheel())
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    assert load(tiny_models, "auto").info.device == "cpu"
    with pytest.raises(BackendUnavailableError, match="built for CPUs") as caught:
        load(tiny_models, "cuda")
    assert 'pip uninstall onnxruntime, then pip install "srcli[gpu]"' in caught.value.hint


def test_gpu_wheel_without_driver_runs_on_cpu(tiny_models: Path, install: Any) -> None:
    install(GpuWheel(), Driver(problem="there is no NVIDIA driver"))
    assert load(tiny_models, "auto").info.device == "cpu"
    with pytest.raises(BackendUnavailableError, match="cuda"):
        load(tiny_models, "cuda")


@pytest.mark.parametrize("device", ["cuda:2", "cuda:x", "cuda:-1", "cpu:0", "coreml", "directml:0", ""])
def test_absent_device_is_refused(tiny_models: Path, install: Any, device: str) -> None:
    install(GpuWheel())
    with pytest.raises(UsageError, match="device"):
        load(tiny_models, device)


def test_fp16_on_cpu_is_refused(tiny_models: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="fp16"):
        load(tiny_models, "cpu", "fp16")


def test_coreml_runs_by_name_only(tiny_models: Path, install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    providers = [PROVIDERS["coreml"].name, CPU]
    assert list(kinds_here(providers)) == ["coreml", "cpu"]
    install(GpuWheel(), Driver(problem="there is no NVIDIA driver"))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    assert load(tiny_models, "auto").info.device == "cpu"
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(BackendUnavailableError, match="fp16"):
        registry.choose("auto", Settings(precision="fp16"))


def test_bound_session_keeps_memory_for_same_shape(tiny_models: Path) -> None:
    real = onnxruntime.InferenceSession(str(tiny_models / "tiny-x2.onnx"), providers=[CPU])
    bound = BoundSession(onnxruntime.OrtValue, real, ("cpu", 0), 2)
    name = real.get_inputs()[0].name
    kept = []
    for side in (8, 8, 12):
        bound.run([], {name: np.zeros((1, 3, side, side), np.float32)})
        kept.append(bound._lr)
    assert kept[0] is kept[1]
    assert kept[1] is not kept[2]
