"""A fresh process that upscales one tile and says when it was done and how much memory that took.

    python -m srcli.benchmark.child '{"model": "mdsr", ...}'

It works as `srcli upscale` does, so what it takes is what a user waits for.
"""

import ctypes
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srcli.backends import devices
from srcli.backends.tensorrt.cuda import Cuda
from srcli.errors import InferenceError, SrcliError
from srcli.tiles import smallest_tile
from srcli.upscaler import Upscaler


@dataclass(frozen=True, slots=True)
class Job:
    """What the process does; `began` is when its parent started it, seconds since the epoch."""

    model: str
    scale: int
    backend: str
    device: str
    precision: str
    size: int
    threads: int
    began: float

    def to_json(self) -> str:
        """As the process takes it."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Start:
    """What a fresh process took up to its first tile.

    Attributes:
        seconds: from the start of the process; Python, imports and loading included.
        host_memory: peak resident bytes of the process; None if the system does not tell.
        device_memory: bytes that an NVIDIA GPU has free less after the tile than before anything was loaded,
            by which time CUDA had taken its own: what engine and libraries hold, and what other programs
            took or gave back meanwhile. None elsewhere.
    """

    seconds: float
    host_memory: int | None
    device_memory: int | None


def work(job: Job) -> Start:
    """Upscale one square picture in one tile."""
    before = free_on_device(job.device)
    picture = np.random.default_rng(0).integers(0, 256, (job.size, job.size, 3), np.uint8)
    upscaler = Upscaler(
        job.model,
        job.scale,
        backend=job.backend,
        precision=job.precision,
        device=job.device,
        threads=job.threads,
        tile=max(job.size, smallest_tile(0)),
        halo=0,  # one tile has no neighbours
    )
    upscaler(picture)
    seconds = time.time() - job.began
    after = free_on_device(job.device)
    taken = None if before is None or after is None else max(0, before - after)
    return Start(seconds, peak_resident(), taken)


def peak_resident() -> int | None:
    """Peak resident bytes of this process, or None where they cannot be had.

    The usual count (ru_maxrss) starts on Linux with the peak of the parent, so /proc goes first.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_on_device(device: str, library: Any = None) -> int | None:
    """Free bytes of an NVIDIA GPU ("cuda", "cuda:1"), as its driver says; None without one.

    Args:
        device: one, as the benchmark names them.
        library: the driver's, loaded already; None: load it.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number or "0").isdecimal():
        return None
    try:
        library = ctypes.CDLL(devices.LIBRARY) if library is None else library
        Cuda(int(number or 0), library)  # the question needs a context: the one that all backends share
    except (OSError, MemoryError, InferenceError):
        return None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    failed = library.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    return None if failed else free.value


def main(arguments: list[str]) -> int:
    """Do the job; print a `Start` as JSON, or what went wrong on stderr."""
    try:
        print(json.dumps(asdict(work(Job(**json.loads(arguments[0]))))))
    except SrcliError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
