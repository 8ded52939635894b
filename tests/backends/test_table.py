"""What "auto" takes: a GPU that is there, if something installed was built for it."""

from importlib.metadata import PackageNotFoundError

import pytest

from srcli.backends import devices, registry
from srcli.backends.base import BackendOptions
from srcli.backends.devices import Driver, Gpu
from srcli.backends.tensorrt import flavour
from srcli.errors import BackendUnavailableError, MissingExtraError, UsageError

GPU = Driver("13.0", (Gpu("NVIDIA H200", "9.0", 150_754_820_096),))
RTX = Driver("13.0", (Gpu("NVIDIA GeForce RTX 4090", "8.9", 25_757_220_864),))
NO_GPU = Driver(problem="there is no NVIDIA driver")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> object:
    """Pretends a driver, installed modules and distributions."""

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
        (GPU, "onnx tensorrt_rtx openvino", {}, "openvino"),  # not a chip that RTX lists
        (GPU, "onnx openvino onnxruntime", {"onnxruntime_gpu": "1.31.1"}, "onnxruntime"),
        (GPU, "onnx openvino onnxruntime", {"onnxruntime": "1.31.1"}, "openvino"),
        (GPU, "onnx openvino torch", {"torch": "2.13.0"}, "torch"),
        (GPU, "onnx openvino torch", {"torch": "2.13.0+cpu"}, "openvino"),
        (NO_GPU, ALL, {"onnxruntime_gpu": "1.31.1", "torch": "2.13.0"}, "openvino"),
        (NO_GPU, "onnxruntime", {}, "onnxruntime"),
    ],
)
def test_auto_takes_the_fastest_that_fits_the_machine(
    machine, nvidia: Driver, modules: str, distributions: dict[str, str], chosen: str
) -> None:
    machine(nvidia, modules, **distributions)
    assert registry.choose("auto", BackendOptions()).name == chosen


def test_what_is_asked_for_decides_before_speed(machine) -> None:
    machine(GPU, ALL, torch="2.13.0")
    assert registry.choose("auto", BackendOptions(device="cpu")).name == "openvino"
    assert registry.choose("auto", BackendOptions("bf16", "cuda")).name == "torch"
    assert registry.choose("auto", BackendOptions("fp16", "cuda:0")).name == "tensorrt"
    assert registry.choose("auto", BackendOptions("bf16", "cpu")).name == "openvino"
    with pytest.raises(BackendUnavailableError, match="fp16 on device cpu"):
        registry.choose("auto", BackendOptions("fp16", "cpu"))


def test_a_cpu_build_is_not_taken_for_a_gpu(machine) -> None:
    machine(GPU, "onnx openvino onnxruntime torch", onnxruntime="1.31.1", torch="2.13.0")
    assert registry.choose("auto", BackendOptions(device="cuda")).name == "torch"
    assert registry.choose("auto", BackendOptions("fp16")).name == "torch"
    machine(GPU, "onnx openvino onnxruntime torch", onnxruntime="1.31.1", torch="2.13.0+cpu")
    with pytest.raises(BackendUnavailableError, match="cuda"):
        registry.choose("auto", BackendOptions(device="cuda"))


def test_a_precision_that_only_an_absent_gpu_has_is_refused_at_once(machine) -> None:
    machine(NO_GPU, ALL, torch="2.13.0")
    with pytest.raises(BackendUnavailableError, match="fp16"):
        registry.choose("auto", BackendOptions("fp16"))


def test_no_gpu_is_said_where_one_was_asked_for(machine) -> None:
    machine(NO_GPU, "onnxruntime openvino")
    for asked in ("cuda", "cuda:1", "cuda:0,1"):
        with pytest.raises(BackendUnavailableError, match="there is no NVIDIA driver"):
            registry.choose("auto", BackendOptions(device=asked))
    with pytest.raises(BackendUnavailableError, match="needs an NVIDIA GPU, but there is no NVIDIA driver"):
        registry.choose("trt", BackendOptions())
    machine(GPU, "onnxruntime openvino")
    with pytest.raises(MissingExtraError, match="tensorrt"):
        registry.choose("trt", BackendOptions())


@pytest.mark.parametrize("device", ["gpu", "CPU", "", "cudax:0"])
def test_an_unknown_device_is_refused_with_those_there_are(device: str) -> None:
    with pytest.raises(UsageError, match="No device") as caught:
        registry.choose("auto", BackendOptions(device=device))
    assert "cpu, cuda, directml, cuda:N" in caught.value.hint
