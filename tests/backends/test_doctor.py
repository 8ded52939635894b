"""The doctor tells what runs from what does not, and knows the usual ailments."""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from srcli.backends import devices, doctor, registry
from srcli.backends.devices import Driver, Gpu
from srcli.backends.tensorrt import flavour
from srcli.cli.app import main
from srcli.errors import InferenceError, MissingExtraError

H200 = Driver("13.0", (Gpu("NVIDIA H200", "9.0", 150_754_820_096),))


class FakeCuda:
    """The driver's functions, with two GPUs or an error."""

    def __init__(self, error: int = 0, count: int = 2) -> None:
        self.error, self.count = error, count

    def cuInit(self, flags: int) -> int:
        return self.error

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 12080
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, device: Any, number: int) -> int:
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name: Any, size: int, device: ctypes.c_int) -> int:
        name.value = f"GPU {device.value}".encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, device: ctypes.c_int) -> int:
        memory._obj.value = 24 << 30
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, device: ctypes.c_int) -> int:
        value._obj.value = {75: 8, 76: 9}[which]
        return 0


def test_the_driver_is_read() -> None:
    found = devices.from_library(FakeCuda())
    assert found == Driver("12.8", (Gpu("GPU 0", "8.9", 24 << 30), Gpu("GPU 1", "8.9", 24 << 30)))


@pytest.mark.parametrize(
    ("library", "problem"),
    [(FakeCuda(error=100), "does not start (error 100)"), (FakeCuda(count=0), "sees no GPU")],
)
def test_a_driver_without_gpu_says_so(library: FakeCuda, problem: str) -> None:
    assert problem in devices.from_library(library).problem


def test_usual_ailments_are_known() -> None:
    assert "CPU build" in doctor.problems({"torch": "2.13.0+cpu"}, H200, {})[0]
    assert doctor.problems({"torch": "2.13.0+cpu", "onnxruntime": "1.31"}, Driver(), {}) == []


@pytest.mark.parametrize(("nvidia", "extra"), [(H200, "gpu"), (Driver(), "cpu")])
def test_two_wheels_of_one_module_end_with_the_one_to_install(nvidia: Driver, extra: str) -> None:
    (problem,) = doctor.problems({"onnxruntime": "1.31", "onnxruntime-gpu": "1.31"}, nvidia, {})
    assert "overwrite each other" in problem
    assert "pip uninstall onnxruntime onnxruntime-gpu" in problem
    assert problem.endswith(f'pip install "srcli[{extra}]"')


@pytest.mark.parametrize("package", ["torch", "onnxruntime-gpu"])
@pytest.mark.parametrize(
    ("driver_cuda", "built_for", "runs"),
    [("12.8", "13.0", False), ("12.4", "12.8", True), ("13.0", "13.2", True), ("13.0", "12.8", True)],
)
def test_a_build_too_new_for_the_driver(package: str, driver_cuda: str, built_for: str, runs: bool) -> None:
    """Within one major version, older drivers run newer builds."""
    found = doctor.problems({package: "2.0"}, Driver(driver_cuda, H200.gpus), {package: built_for})
    assert (found == []) == runs
    assert all(f"CUDA {driver_cuda} at most, {package} 2.0 was built for {built_for}" in f for f in found)


def test_what_a_package_was_built_for_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "torch/version.py": "from typing import Optional\ncuda: Optional[str] = '13.0'\nhip = None\n",
        "onnxruntime/capi/build_and_package_info.py": "__version__ = '1.24.1'\ncuda_version = '12.8'\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name.partition("/")[0] / "__init__.py").write_text("raise RuntimeError('imported')")
    for module in ("torch", "onnxruntime"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert devices.cuda_of_packages() == {"torch": "13.0", "onnxruntime-gpu": "12.8"}
    (tmp_path / "torch/version.py").write_text("cuda: Optional[str] = None\n")
    (tmp_path / "onnxruntime/capi/build_and_package_info.py").unlink()
    assert devices.cuda_of_packages() == {}


def test_on_a_gpu_the_extra_for_gpus_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    for found, extra in ((H200, "gpu"), (Driver(problem="there is no NVIDIA driver"), "cpu")):
        monkeypatch.setattr(devices, "ask", lambda found=found: found)
        assert doctor.trial("onnxruntime", "cpu", "fp32").fix == f'Add it with: pip install "srcli[{extra}]"'


@pytest.mark.parametrize(
    ("capability", "extra"),
    [("8.9", "trt"), ("12.0", "trt"), ("9.0", "trt-full"), ("10.0", "trt-full"), ("7.0", "trt")],
)
def test_the_tensorrt_that_lists_the_gpu_is_named(
    capability: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = Driver("13.0", (Gpu("G", capability, 1 << 34),))
    monkeypatch.setattr(devices, "ask", lambda: gpu)
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert doctor.trial("tensorrt", "cuda", "fp16").fix == f'Add it with: pip install "srcli[{extra}]"'
    monkeypatch.setattr(registry, "find_spec", lambda name: name)
    monkeypatch.setattr(flavour, "installed", lambda: ("tensorrt_rtx",))
    monkeypatch.setattr(flavour, "cuda_of", lambda name: 13)
    monkeypatch.setattr(registry, "load", refuse)
    assert ("srcli[trt-full]" in doctor.trial("tensorrt", "cuda", "fp16").fix) == (extra == "trt-full")


def refuse(*_: object) -> None:
    raise InferenceError("The tensorrt backend failed: no kernel image is available.", "Try another backend.")


def test_what_works_is_tried_and_what_does_not_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choose = registry.choose

    def without_torch(name: str, options: object) -> object:
        if name == "torch":
            raise MissingExtraError("The torch backend", "export")
        return choose(name, options)

    def broken(*_: object) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr("srcli.backends.registry.choose", without_torch)
    monkeypatch.setattr("srcli.backends.openvino.load", broken)
    monkeypatch.setattr("srcli.backends.devices.ask", lambda: Driver(problem="there is no NVIDIA driver"))
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    works = {(t["backend"], t["precision"]): t["works"] for t in report["trials"]}
    assert works["onnxruntime", "fp32"]
    assert works["bicubic", "fp32"]
    assert not works["openvino", "fp32"]
    assert not works["torch", "fp32"]
    reasons = {t["backend"]: f"{t['reason']} {t['fix']}" for t in report["trials"] if not t["works"]}
    assert "libgomp" in reasons["openvino"]
    assert 'pip install "srcli[export]"' in reasons["torch"]
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any("no NVIDIA driver" in line for line in lines)
    assert any(line.startswith("onnxruntime") and " yes " in line for line in lines)


def test_without_any_network_backend_the_exit_code_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str, options: object) -> object:
        raise MissingExtraError(f"The {name} backend", "cpu")

    monkeypatch.setattr("srcli.backends.registry.choose", missing)
    assert main(["doctor"]) == 1
    assert 'pip install "srcli[cpu]"' in capsys.readouterr().out
