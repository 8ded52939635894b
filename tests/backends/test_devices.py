"""The NVIDIA driver's report, the CUDA of packages, and names of several devices."""

import ctypes
import sys
from pathlib import Path
from typing import Any

import pytest

from srcli.backends import devices
from srcli.backends.devices import Driver, Gpu, split
from srcli.errors import BackendUnavailableError, UsageError

TWO = Driver("13.0", (Gpu("A", "9.0", 1 << 36), Gpu("B", "9.0", 1 << 36)))


class FakeCuda:
    """A stand-in of the driver's library with two GPUs, or an error."""

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


def test_driver_reports_cuda_and_gpus() -> None:
    found = devices.from_library(FakeCuda())
    assert found == Driver("12.8", (Gpu("GPU 0", "8.9", 24 << 30), Gpu("GPU 1", "8.9", 24 << 30)))


@pytest.mark.parametrize(
    ("library", "problem"),
    [(FakeCuda(error=100), "does not start (error 100)"), (FakeCuda(count=0), "sees no GPU")],
)
def test_driver_without_gpu_has_a_problem(library: FakeCuda, problem: str) -> None:
    assert problem in devices.from_library(library).problem


def test_cuda_of_packages_needs_no_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.parametrize(
    ("device", "names"),
    [
        ("auto", ("auto",)),
        ("cuda:1", ("cuda:1",)),
        ("cuda:0,1", ("cuda:0", "cuda:1")),
        ("cuda:0,cuda:2", ("cuda:0", "cuda:2")),
        ("all", ("cuda:0", "cuda:1")),
    ],
)
def test_names_of_several_devices(
    device: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "ask", lambda: TWO)
    assert split(device) == names


@pytest.mark.parametrize(
    "device", ["cuda:0,0", "cuda:0,cuda:0", "cuda,cuda:1", "cuda:0,", "cpu,cuda:0", ",", "0,1"]
)
def test_devices_of_mixed_kinds_are_refused(device: str) -> None:
    with pytest.raises(UsageError, match="several devices"):
        split(device)


def test_all_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "ask", lambda: Driver(problem="there is no NVIDIA driver"))
    with pytest.raises(BackendUnavailableError, match="no NVIDIA driver"):
        split("all")
