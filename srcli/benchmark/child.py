"""A fresh process that upscales one tile and says when it was done and how much memory that took.

    python -m srcli.benchmark.child '{"model": "mdsr", ...}'

It works as `srcli upscale` does, so what it takes is what a user waits for.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from srcli.errors import SrcliError
from srcli.tiling import smallest_tile
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
        device_memory: peak bytes on the device; None if the backend does not know.
    """

    seconds: float
    host_memory: int | None
    device_memory: int | None


def work(job: Job) -> Start:
    """Upscale one square picture in one tile."""
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
    return Start(time.time() - job.began, peak_resident(), peak_on_device(upscaler.info.device))


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


def peak_on_device(device: str) -> int | None:
    """Peak bytes that PyTorch has taken on a CUDA device; None where it is not PyTorch that computes."""
    torch = sys.modules.get("torch")
    if torch is None or not device.startswith("cuda"):
        return None
    return int(torch.cuda.max_memory_allocated(device))


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
