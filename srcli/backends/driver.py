"""What the NVIDIA driver says, asked through ctypes before any GPU library is touched.

A GPU library that is loaded without a driver can end the process; the driver's own library cannot.
"""

import ctypes
import sys
from dataclasses import dataclass

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
