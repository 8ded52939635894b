"""Which processors, GPUs and packages are here, and one network on several devices.

The NVIDIA driver is asked through ctypes before any GPU library is touched: a GPU library that is loaded
without a driver can end the process; the driver's own library cannot.
"""

import ctypes
import os
import platform
import re
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar

from srcli.backends.base import Batch, Engine, EngineInfo, Uint8Batch, Uint8Engine, results
from srcli.errors import BackendUnavailableError, UsageError

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
"""File name of the driver's library."""

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
    """What the NVIDIA driver reports; never raises, never loads a GPU library."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return Driver(problem="there is no NVIDIA driver")
    return from_library(library)


def split(device: str) -> tuple[str, ...]:
    """The devices that "cuda:0,1", "cuda:0,cuda:2" or "all" (GPUs) name; a single name as it is.

    Raises:
        UsageError: they are not of one kind, or one is named twice.
        BackendUnavailableError: "all" without a GPU.
    """
    if device == "all":
        found = ask()
        if found.problem:
            raise BackendUnavailableError(f"--device all: {found.problem}.", "Use --device cpu, or auto.")
        return tuple(f"cuda:{number}" for number in range(len(found.gpus)))
    if "," not in device:
        return (device,)
    kind, _, numbers = device.partition(":")
    named = numbers.replace(f"{kind}:", "").split(",")
    if "," in kind or not all(number.isdecimal() for number in named) or len(set(named)) < len(named):
        raise UsageError(
            f"{device} does not name several devices.", "Name those of one kind, each once: cuda:0,1."
        )
    return tuple(f"{kind}:{number}" for number in named)


def from_library(library: ctypes.CDLL) -> Driver:
    """What a loaded driver library reports."""
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


_CUDA_VERSIONS = {
    "torch": ("torch", "version.py", "cuda"),
    "onnxruntime-gpu": ("onnxruntime", "capi/build_and_package_info.py", "cuda_version"),
}
"""By distribution: its module, the file that holds the CUDA version, and the name there."""


def cuda_of_packages() -> dict[str, str]:
    """CUDA version by distribution, e.g. {"torch": "13.0"}, without those built for none or for an unknown
    one. Nothing is imported."""
    found = {name: _assigned(*where) for name, where in _CUDA_VERSIONS.items()}
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


PACKAGES = (
    "srcli",
    "numpy",
    "opencv-python-headless",
    "opencv-python",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "torch",
    "onnx",
    "tensorrt",
    "tensorrt-rtx",
)
"""Distributions that results and problems depend on."""


def installed() -> dict[str, str]:
    """Versions of those of `PACKAGES` that are installed; nothing is imported."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


_FEATURES = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True)
class Processor:
    """The CPU: name, cores this process may use, and vector extensions that bf16 and int8 need."""

    name: str
    cores: int
    features: tuple[str, ...]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> Processor:
    """This CPU, as far as the operating system describes it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    name = facts.get("model name") or platform.processor() or platform.machine()
    return Processor(name, cores(), tuple(feature for feature in _FEATURES if feature in flags))


T = TypeVar("T")

TILES_AHEAD = 4
"""Tiles for each device that may be read before the next result in order is there: this hides a slow device
and bounds the memory."""


class Several:
    """Engines of one network, each on its own device. Each tile runs on one, so results are those of one.

    Args:
        engines: at least one; same network, same kind of device and precision.
    """

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = tuple(engines)
        first = engines[0].info
        self.scale = engines[0].scale
        self.info: EngineInfo = replace(first, device=", ".join(e.info.device for e in engines))

    def run(self, lr: Batch) -> Batch:
        """On the first device."""
        return self.engines[0].run(lr)

    def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Results in order; each device takes the next batch as soon as it has room.

        Raises:
            MemoryError, InferenceError: that of the first device to fail.
        """
        return _share([partial(results, engine) for engine in self.engines], batches)


class SeveralUint8(Several):
    """Engines that all round to uint8 on their devices."""

    def run_uint8(self, batches: Iterable[Batch]) -> Iterator[Uint8Batch | None]:
        """As `Uint8Engine.run_uint8`, shared as by `run_each`."""
        return _share([e.run_uint8 for e in self.engines if isinstance(e, Uint8Engine)], batches)


def combine(engines: Sequence[Engine]) -> Several:
    """The engines as one, with `run_uint8` if all of them have it."""
    all_uint8 = all(isinstance(engine, Uint8Engine) for engine in engines)
    return SeveralUint8(engines) if all_uint8 else Several(engines)


def _share(
    runners: Sequence[Callable[[Iterable[Batch]], Iterator[T]]], batches: Iterable[Batch]
) -> Iterator[T]:
    """Results in order; each runner takes batches in its own thread."""
    work = _Work[T](iter(batches), TILES_AHEAD * len(runners))
    threads = [threading.Thread(target=work.compute, args=(run_each,), daemon=True) for run_each in runners]
    for thread in threads:
        thread.start()
    try:
        yield from work.in_order()
    finally:
        work.stop()
        for thread in threads:
            thread.join()
        work.clear()


@dataclass(slots=True)
class _Work(Generic[T]):
    """Batches taken in order and computed in any order, results yielded in order."""

    batches: Iterator[Batch]
    ahead: int
    taken: int = 0
    given: int = 0
    done: dict[int, T] = field(default_factory=dict)
    exhausted: bool = False
    error: BaseException | None = None
    changed: threading.Condition = field(default_factory=threading.Condition)

    def compute(self, run_each: Callable[[Iterable[Batch]], Iterator[T]]) -> None:
        """The thread of one device."""
        numbers = deque[int]()
        try:
            for result in run_each(self._feed(numbers)):
                with self.changed:
                    self.done[numbers.popleft()] = result
                    self.changed.notify_all()
        except BaseException as error:  # the caller of `in_order` raises it
            with self.changed:
                self.error = self.error or error
                self.changed.notify_all()

    def _feed(self, numbers: deque[int]) -> Iterator[Batch]:
        """The next batches for one device, and their numbers."""
        while (batch := self._take(numbers)) is not None:
            yield batch

    def _take(self, numbers: deque[int]) -> Batch | None:
        with self.changed:
            self.changed.wait_for(lambda: self.exhausted or self._may_take(numbers))
            batch = None if self.exhausted else next(self.batches, None)
            if batch is None:
                self.exhausted = True
                self.changed.notify_all()
                return None
            numbers.append(self.taken)
            self.taken += 1
            return batch

    def _may_take(self, numbers: deque[int]) -> bool:
        """Within `ahead`; and where the device holds the next result, which may need one more batch."""
        return self.taken - self.given < self.ahead or bool(numbers and numbers[0] == self.given)

    def in_order(self) -> Iterator[T]:
        """Results in order; raises the first error at once, since the caller computes all of it again."""
        while True:
            with self.changed:
                self.changed.wait_for(self._has_news)
                if self.error is not None:
                    raise self.error
                if self.given not in self.done:
                    return
                result = self.done.pop(self.given)
                self.given += 1
                self.changed.notify_all()
            yield result

    def _has_news(self) -> bool:
        finished = self.exhausted and self.given == self.taken
        return self.error is not None or self.given in self.done or finished

    def clear(self) -> None:
        """Drop results that were not taken, and the error with its traceback, to free their memory."""
        self.done.clear()
        self.error = None

    def stop(self) -> None:
        """Give out no more batches."""
        with self.changed:
            self.exhausted = True
            self.changed.notify_all()
