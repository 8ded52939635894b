"""ONNX Runtime's devices and options, with a stand-in for the wheels that this machine cannot run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from srcli.backends import driver, table
from srcli.backends.base import BackendOptions
from srcli.backends.driver import Driver, Gpu
from srcli.backends.half import to_half
from srcli.backends.onnxruntime import PROVIDERS, BoundSession, devices
from srcli.errors import BackendUnavailableError, UsageError
from srcli.spec import read_spec

CUDA, CPU = PROVIDERS["cuda"].name, PROVIDERS["cpu"].name
REAL_SESSION, REAL_VALUE = onnxruntime.InferenceSession, onnxruntime.OrtValue
TWO_GPUS = Driver("13.0", (Gpu("A", "9.0", 1 << 36), Gpu("B", "9.0", 1 << 36)))


class GpuWheel:
    """A CUDA build of ONNX Runtime: real sessions on the CPU that say they are where they were sent.

    `broken`: the provider does not start, and the session is silently on the CPU.
    """

    def __init__(self, *, broken: bool = False) -> None:
        self.broken, self.preloaded = broken, 0
        self.asked: list[Any] = []
        self.graphs: list[str | bytes] = []
        self.configuration: list[dict[str, str]] = []

    def get_available_providers(self) -> list[str]:
        return ["TensorrtExecutionProvider", CUDA, CPU]

    def preload_dlls(self) -> None:
        self.preloaded += 1

    def session(self, graph: str | bytes, options: Any, providers: Sequence[Any]) -> Any:
        self.asked.append(providers)
        self.graphs.append(graph)
        key = "session.disable_cpu_ep_fallback"
        self.configuration.append({key: options.get_session_config_entry(key)})
        plain = onnxruntime.SessionOptions()
        plain.log_severity_level = 4
        real = REAL_SESSION(graph, plain, providers=[CPU])
        got = [CPU] if self.broken else [providers[0][0], CPU]
        names = ("get_inputs", "get_outputs", "io_binding", "run_with_iobinding", "run")
        return SimpleNamespace(get_providers=lambda: got, **{name: getattr(real, name) for name in names})

    @staticmethod
    def value(shape: list[int], dtype: type, device: str, number: int) -> Any:
        return REAL_VALUE.ortvalue_from_shape_and_type(shape, dtype, "cpu", 0)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(wheel: GpuWheel, nvidia: Driver = TWO_GPUS) -> GpuWheel:
        monkeypatch.setattr(driver, "ask", lambda: nvidia)
        monkeypatch.setattr(onnxruntime, "get_available_providers", wheel.get_available_providers)
        monkeypatch.setattr(onnxruntime, "preload_dlls", wheel.preload_dlls, raising=False)
        values = SimpleNamespace(ortvalue_from_shape_and_type=wheel.value)
        monkeypatch.setattr(onnxruntime, "OrtValue", values)
        monkeypatch.setattr(
            onnxruntime,
            "InferenceSession",
            lambda graph, options, providers: (
                REAL_SESSION(graph, options, providers=providers)
                if providers[0][0] == CPU
                else wheel.session(graph, options, providers)
            ),
        )
        return wheel

    return put


def load(folder: Path, device: str, precision: str = "auto") -> Any:
    path = folder / "tiny-x2.onnx"
    spec = read_spec(path)
    assert spec is not None
    return table.load("onnxruntime", path, spec, BackendOptions(precision, device))


def test_a_gpu_is_taken_where_there_is_one_in_halves(tiny_models: Path, install: Any) -> None:
    wheel = install(GpuWheel())
    engine = load(tiny_models, "auto")
    assert (engine.info.device, engine.info.precision) == ("cuda:0", "f16")
    assert wheel.preloaded == 1
    assert isinstance(wheel.graphs[0], bytes), "f16 is a graph in halves, not the file"


def test_f32_on_cuda_is_the_file_without_tf32_and_without_a_way_back_to_the_cpu(
    tiny_models: Path, install: Any
) -> None:
    wheel = install(GpuWheel())
    assert load(tiny_models, "cuda:1", "f32").info.device == "cuda:1"
    ((name, options),) = wheel.asked[0]
    assert (name, options["device_id"], options["use_tf32"]) == (CUDA, "1", "0")
    assert options["cudnn_conv_algo_search"] == "EXHAUSTIVE"
    assert wheel.configuration == [{"session.disable_cpu_ep_fallback": "1"}]
    assert wheel.graphs == [str(tiny_models / "tiny-x2.onnx")]


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_bound_memory_gives_what_copies_give(tiny_models: Path, install: Any, precision: str) -> None:
    install(GpuWheel())
    engine, exact = load(tiny_models, "cuda", precision), load(tiny_models, "cpu")
    # halves: 2**-11 a rounding through a few layers; the same graph elsewhere: kernels alone
    tolerance = 1e-6 if precision == "f32" else 5e-3
    for size in ((8, 9), (8, 9), (16, 4), (8, 9)):
        lr = np.random.default_rng(size[0]).random((1, 3, *size), np.float32)
        assert np.abs(engine.run(lr) - exact.run(lr)).max() < tolerance


def test_a_file_in_halves_computes_in_f32_where_that_is_asked_for(
    tiny_models: Path, tmp_path: Path, install: Any
) -> None:
    halves = to_half(onnx.load(tiny_models / "tiny-x2.onnx"))
    onnx.save(halves, tmp_path / "tiny-x2.onnx")
    wheel = install(GpuWheel())
    assert load(tmp_path, "cuda", "f16").info.precision == "f16"
    assert load(tmp_path, "cuda", "f32").info.precision == "f32"
    as_it_is, widened = wheel.graphs
    assert as_it_is == str(tmp_path / "tiny-x2.onnx")
    assert isinstance(widened, bytes)
    assert not any(
        t.data_type == TensorProto.FLOAT16 for t in onnx.load_from_string(widened).graph.initializer
    )


def test_a_quantised_file_says_so_and_takes_no_other_precision(tiny_models: Path) -> None:
    path = tiny_models / "tiny-x2.onnx"
    spec = read_spec(path)
    assert spec is not None
    quantised = replace(spec, arithmetic="int8")
    for backend in ("onnxruntime", "openvino"):
        engine = table.load(backend, path, quantised, BackendOptions(device="cpu"))
        assert engine.info.precision == "int8"
        with pytest.raises(BackendUnavailableError, match="computes in int8, not in f32"):
            table.load(backend, path, quantised, BackendOptions("f32", "cpu"))


def test_a_provider_that_does_not_start_is_an_error(tiny_models: Path, install: Any) -> None:
    install(GpuWheel(broken=True))
    with pytest.raises(BackendUnavailableError, match="asked for cuda and chose CPUExecutionProvider"):
        load(tiny_models, "cuda")


def test_a_wheel_for_gpus_without_a_driver_runs_on_the_cpu(tiny_models: Path, install: Any) -> None:
    install(GpuWheel(), Driver(problem="there is no NVIDIA driver"))
    assert load(tiny_models, "auto").info.device == "cpu"
    with pytest.raises(BackendUnavailableError, match="cuda"):
        load(tiny_models, "cuda")


@pytest.mark.parametrize("device", ["cuda:2", "cuda:x", "cuda:-1", "cpu:0", "coreml", "directml:0", ""])
def test_devices_that_are_not_there_are_refused(tiny_models: Path, install: Any, device: str) -> None:
    install(GpuWheel())
    with pytest.raises(UsageError, match="device"):
        load(tiny_models, device)


def test_halves_on_the_cpu_are_refused(tiny_models: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="f16"):
        load(tiny_models, "cpu", "f16")


def test_coreml_comes_with_its_wheel() -> None:
    assert list(devices([PROVIDERS["coreml"].name, CPU])) == ["coreml", "cpu"]


def test_a_bound_session_keeps_its_memory_while_the_shape_stays(tiny_models: Path) -> None:
    real = onnxruntime.InferenceSession(str(tiny_models / "tiny-x2.onnx"), providers=[CPU])
    bound = BoundSession(onnxruntime.OrtValue, real, ("cpu", 0), 2)
    name = real.get_inputs()[0].name
    kept = []
    for side in (8, 8, 12):
        bound.run([], {name: np.zeros((1, 3, side, side), np.float32)})
        kept.append(bound._lr)
    assert kept[0] is kept[1]
    assert kept[1] is not kept[2]
