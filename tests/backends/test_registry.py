"""The table of backends, and which one "auto" chooses."""

import importlib
from importlib.metadata import PackageNotFoundError

import pytest

from srcli.backends import devices, registry
from srcli.backends.devices import Driver, Gpu
from srcli.backends.tensorrt import flavour
from srcli.errors import BackendUnavailableError, MissingExtraError, SrcliError, UsageError
from srcli.settings import Settings

GPU = Driver("13.0", (Gpu("NVIDIA H200", "9.0", 150_754_820_096),))
RTX = Driver("13.0", (Gpu("NVIDIA GeForce RTX 4090", "8.9", 25_757_220_864),))
NO_GPU = Driver(problem="there is no NVIDIA driver")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> object:
    """Sets the driver, the installed modules and the versions of distributions."""

    def pretend(nvidia: Driver, modules: str, **distributions: str) -> None:
        names = set(modules.split())
        versions = {name.replace("_", "-"): number for name, number in distributions.items()}

        def version(name: str) -> str:
            if name not in versions:
                raise PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(devices, "ask", lambda: nvidia)
        for module in (registry, flavour):
            monkeypatch.setattr(module, "find_spec", lambda name: name if name in names else None)
        monkeypatch.setattr(registry, "version", version)

    return pretend


ALL = "onnx tensorrt openvino onnxruntime torch"


@pytest.mark.parametrize(
    ("nvidia", "modules", "distributions", "chosen"),
    [
        (GPU, ALL, {}, "tensorrt"),
        (RTX, "onnx tensorrt_rtx openvino", {}, "tensorrt"),
        (GPU, "onnx tensorrt_rtx openvino", {}, "openvino"),  # not supported by TensorRT for RTX
        (GPU, "onnx openvino onnxruntime", {"onnxruntime_gpu": "1.31.1"}, "onnxruntime"),
        (GPU, "onnx openvino onnxruntime", {"onnxruntime": "1.31.1"}, "openvino"),
        (GPU, "onnx openvino torch", {"torch": "2.13.0"}, "torch"),
        (GPU, "onnx openvino torch", {"torch": "2.13.0+cpu"}, "openvino"),
        (NO_GPU, ALL, {"onnxruntime_gpu": "1.31.1", "torch": "2.13.0"}, "openvino"),
        (NO_GPU, "onnxruntime", {}, "onnxruntime"),
    ],
)
def test_auto_chooses_the_fastest_for_the_machine(
    machine, nvidia: Driver, modules: str, distributions: dict[str, str], chosen: str
) -> None:
    machine(nvidia, modules, **distributions)
    assert registry.choose("auto", Settings()).name == chosen


def test_auto_honours_device_and_precision(machine) -> None:
    machine(GPU, ALL, torch="2.13.0")
    assert registry.choose("auto", Settings(device="cpu")).name == "openvino"
    assert registry.choose("auto", Settings(precision="bf16", device="cuda")).name == "torch"
    assert registry.choose("auto", Settings(precision="fp16", device="cuda:0")).name == "tensorrt"
    assert registry.choose("auto", Settings(precision="bf16", device="cpu")).name == "openvino"
    with pytest.raises(BackendUnavailableError, match="fp16 on device cpu"):
        registry.choose("auto", Settings(precision="fp16", device="cpu"))


def test_auto_skips_cpu_build_for_gpu(machine) -> None:
    machine(GPU, "onnx openvino onnxruntime torch", onnxruntime="1.31.1", torch="2.13.0")
    assert registry.choose("auto", Settings(device="cuda")).name == "torch"
    assert registry.choose("auto", Settings(precision="fp16")).name == "torch"
    machine(GPU, "onnx openvino onnxruntime torch", onnxruntime="1.31.1", torch="2.13.0+cpu")
    with pytest.raises(BackendUnavailableError, match="cuda"):
        registry.choose("auto", Settings(device="cuda"))


def test_precision_of_absent_gpu_is_refused(machine) -> None:
    machine(NO_GPU, ALL, torch="2.13.0")
    with pytest.raises(BackendUnavailableError, match="fp16"):
        registry.choose("auto", Settings(precision="fp16"))


def test_missing_gpu_is_refused_with_reason(machine) -> None:
    machine(NO_GPU, "onnxruntime openvino")
    for asked in ("cuda", "cuda:1", "cuda:0,1"):
        with pytest.raises(BackendUnavailableError, match="there is no NVIDIA driver"):
            registry.choose("auto", Settings(device=asked))
    with pytest.raises(BackendUnavailableError, match="needs an NVIDIA GPU, but there is no NVIDIA driver"):
        registry.choose("trt", Settings())
    machine(GPU, "onnxruntime openvino")
    with pytest.raises(MissingExtraError, match="tensorrt"):
        registry.choose("trt", Settings())


@pytest.mark.parametrize("device", ["gpu", "CPU", "", "cudax:0"])
def test_unknown_device_is_refused_with_choices(device: str) -> None:
    with pytest.raises(UsageError, match="No device") as caught:
        registry.choose("auto", Settings(device=device))
    assert "cpu, cuda, directml, cuda:N" in caught.value.hint


def test_every_backend_has_a_load_function() -> None:
    for entry in registry.BACKENDS.values():
        assert callable(getattr(importlib.import_module(entry.module), entry.load))


def test_unknown_backend_is_refused() -> None:
    with pytest.raises(UsageError):
        registry.choose("tensorflow", Settings())


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError):
        registry.choose("auto", Settings(precision="f8"))


@pytest.mark.parametrize("settings", [Settings(device="tpu"), Settings(precision="fp16", device="npu")])
def test_unknown_device_is_named(settings: Settings) -> None:
    with pytest.raises(UsageError, match=settings.device):
        registry.choose("auto", settings)


def test_auto_chooses_the_first_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = {"openvino"}
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name in missing else name)
    assert registry.choose("auto", Settings()).name == "onnxruntime"
    missing.add("onnxruntime")
    assert registry.choose("auto", Settings()).name == "torch"
    missing.add("torch")
    with pytest.raises(SrcliError, match=r"srcli\[cpu\]"):
        registry.choose("auto", Settings())
