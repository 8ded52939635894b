"""The doctor tells what runs from what does not, and knows the usual ailments."""

import ctypes
import json
from typing import Any

import pytest

from srcli import doctor
from srcli.backends import driver, table
from srcli.backends.driver import Driver, Gpu
from srcli.cli.app import main
from srcli.errors import MissingExtraError

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
    found = driver.from_library(FakeCuda())
    assert found == Driver("12.8", (Gpu("GPU 0", "8.9", 24 << 30), Gpu("GPU 1", "8.9", 24 << 30)))


@pytest.mark.parametrize(
    ("library", "problem"),
    [(FakeCuda(error=100), "does not start (error 100)"), (FakeCuda(count=0), "sees no GPU")],
)
def test_a_driver_without_gpu_says_so(library: FakeCuda, problem: str) -> None:
    assert problem in driver.from_library(library).problem


def test_usual_ailments_are_known() -> None:
    both = {"onnxruntime": "1.31", "onnxruntime-gpu": "1.31"}
    assert "overwrite each other" in doctor.problems(both, Driver())[0]
    assert "CPU build" in doctor.problems({"torch": "2.13.0+cpu"}, H200)[0]
    old = Driver("12.8", H200.gpus)
    assert "CUDA 12.8 at most" in doctor.problems({"onnxruntime-gpu": "1.31"}, old)[0]
    assert doctor.problems({"torch": "2.13.0+cu130", "onnxruntime-gpu": "1.31"}, H200) == []
    assert doctor.problems({"torch": "2.13.0+cpu", "onnxruntime": "1.31"}, Driver()) == []


def test_what_works_is_tried_and_what_does_not_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choose = table.choose

    def without_torch(name: str, options: object) -> object:
        if name == "torch":
            raise MissingExtraError("The torch backend", "export")
        return choose(name, options)

    def broken(*_: object) -> None:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr("srcli.backends.table.choose", without_torch)
    monkeypatch.setattr("srcli.backends.openvino.load", broken)
    monkeypatch.setattr("srcli.backends.driver.ask", lambda: Driver(problem="there is no NVIDIA driver"))
    assert main(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    works = {(t["backend"], t["precision"]): t["works"] for t in report["trials"]}
    assert works["onnxruntime", "f32"]
    assert works["bicubic", "f32"]
    assert not works["openvino", "f32"]
    assert not works["torch", "f32"]
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

    monkeypatch.setattr("srcli.backends.table.choose", missing)
    assert main(["doctor"]) == 1
    assert 'pip install "srcli[cpu]"' in capsys.readouterr().out
