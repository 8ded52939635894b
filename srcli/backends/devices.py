"""Which processors and GPUs are here, and which CUDA the installed packages were built for.

The NVIDIA driver is asked through ctypes before any GPU library is touched: a GPU library that is loaded
without a driver can end the process; the driver's own library cannot.
"""

import ctypes
import os
import platform
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
"""What the driver's own library is called."""

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU.

    Attributes:
        name: as the driver calls it.
        capability: compute capability, e.g. "9.0".
        memory: bytes on the device.
    """

    name: str
    capability: str
    memory: int


@dataclass(frozen=True, slots=True)
class Driver:
    """The NVIDIA driver, or why there is none.

    Attributes:
        cuda: newest CUDA version it runs, e.g. "13.0"; empty without a driver.
        gpus: in the driver's order, which is that of "cuda:N".
        problem: why no GPU can be used; empty if one can.
    """

    cuda: str = ""
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""


def ask() -> Driver:
    """Ask the driver; never raises, never loads a GPU library."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return Driver(problem="there is no NVIDIA driver")
    return from_library(library)


def from_library(library: ctypes.CDLL) -> Driver:
    """The answers of a driver library that is loaded already."""
    failed = library.cuInit(0)
    if failed:
        return Driver(problem=f"the NVIDIA driver does not start (error {failed})")
    version, count = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    library.cuDeviceGetCount(ctypes.byref(count))
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    gpus = tuple(_gpu(library, number) for number in range(count.value))
    return Driver(cuda, gpus, "" if gpus else "the NVIDIA driver sees no GPU")


def _gpu(library: ctypes.CDLL, number: int) -> Gpu:
    device, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), number)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = [_attribute(library, which, device) for which in (_MAJOR, _MINOR)]
    return Gpu(name.value.decode(errors="replace"), "{}.{}".format(*capability), memory.value)


def _attribute(library: ctypes.CDLL, which: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    library.cuDeviceGetAttribute(ctypes.byref(value), which, device)
    return value.value


_WRITTEN = {
    "torch": ("torch", "version.py", "cuda"),
    "onnxruntime-gpu": ("onnxruntime", "capi/build_and_package_info.py", "cuda_version"),
}
"""By distribution: its module, and in which file which name holds the version."""


def cuda_of_packages() -> dict[str, str]:
    """CUDA version by distribution, e.g. {"torch": "13.0"}; those built for none, or that do not say, are not
    in it."""
    found = {name: _assigned(*where) for name, where in _WRITTEN.items()}
    return {name: version for name, version in found.items() if version}


def _assigned(module: str, file: str, name: str) -> str:
    """The version that a file of a module assigns to a name; empty if there is none."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    path = Path(spec.origin).parent / file
    text = path.read_text(errors="replace") if path.is_file() else ""
    match = re.search(rf"^{name}\b[^=\n]*=\s*['\"](\d+[\d.]*)", text, re.MULTILINE)
    return match.group(1) if match else ""


_FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True)
class Processor:
    """The CPU: name, cores this process may use, and the vector units that decide about bf16 and int8."""

    name: str
    cores: int
    features: tuple[str, ...]


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> Processor:
    """This CPU, as far as the operating system tells."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    name = facts.get("model name") or platform.processor() or platform.machine()
    return Processor(name, cores(), tuple(feature for feature in _FEATURES if feature in flags))
