"""Repetitions: rounds in turns, work that may fail, and commands measured in processes of their own."""

import ctypes
import inspect
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from time import perf_counter, sleep
from typing import Any, Generic, Protocol, TypeVar

import srcli
from srcli.errors import InferenceError, SrcliError

Run = Callable[[], float]
"""Does something and returns how many seconds it took."""

PAUSE = 0.1
"""Seconds between two measurements, in which the threads of the last one stop spinning."""

Key = TypeVar("Key")
Result = TypeVar("Result")


class Timed(Protocol):
    """A result that says how long it took."""

    @property
    def seconds(self) -> float:
        """Wall time."""


AnyTimed = TypeVar("AnyTimed", bound=Timed)


@dataclass(frozen=True, slots=True)
class Spread:
    """Repetitions of one measurement, in its unit."""

    median: float
    p95: float
    lowest: float
    highest: float
    repetitions: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of at least one value."""
        return cls(median(values), percentile(values, 0.95), min(values), max(values), len(values))

    @property
    def width(self) -> float:
        """Highest minus lowest, as a share of the median."""
        return (self.highest - self.lowest) / self.median if self.median else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which that share (0-1) of the values lies, interpolated between neighbours."""
    ordered, place = sorted(values), share * (len(values) - 1)
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def ratio(one: Sequence[float], other: Sequence[float]) -> Spread:
    """Of two interleaved series: the ratios one / other of values taken in the same round."""
    return Spread.of([a / b for a, b in zip(one, other, strict=True)])


def timed(work: Callable[[], object]) -> Run:
    """`work` as something that returns how many seconds it took."""

    def run() -> float:
        begin = perf_counter()
        work()
        return perf_counter() - begin

    return run


def keeping(work: Callable[[], AnyTimed], results: list[AnyTimed]) -> Run:
    """`work`, which takes its own time, as a run; what it returns is appended to `results`."""

    def run() -> float:
        results.append(work())
        return results[-1].seconds

    return run


def interleave(
    runs: Mapping[Key, Run], repetitions: int, *, warmup: int = 1, pause: float = PAUSE
) -> dict[Key, list[float]]:
    """Seconds of each, taken in turns so that drift of the machine hits all of them alike.

    The order is reversed in every other round.

    Args:
        runs: what to measure.
        repetitions: rounds that count.
        warmup: rounds before them that do not.
        pause: seconds before each run.
    """
    seconds: dict[Key, list[float]] = {key: [] for key in runs}
    for number in range(warmup + repetitions):
        for key in list(runs) if number % 2 == 0 else list(runs)[::-1]:
            sleep(pause)
            taken = runs[key]()
            if number >= warmup:
                seconds[key].append(taken)
    return seconds


@dataclass(slots=True)
class Attempts(Generic[Key]):
    """Work by key that may fail without stopping the rest; what has failed once is not tried again.

    Attributes:
        problems: why, in one line, for each key that failed.
    """

    problems: dict[Key, str] = field(default_factory=dict)

    def of(self, key: Key, work: Callable[[], Result]) -> Result | None:
        """The result of `work`; None if it fails, or something of this key has failed before."""
        if key in self.problems:
            return None
        try:
            return work()
        except Exception as error:  # a library can fail in any way, and the other figures still count
            self.problems[key] = reason(error)  # no more: a traceback would hold on to the device's memory
            return None

    def interleave(
        self, runs: Mapping[Key, Run], repetitions: int, *, warmup: int = 1
    ) -> dict[Key, list[float]]:
        """As `interleave`, of the runs that never fail."""
        guarded = {key: self._guarded(key, run) for key, run in runs.items()}
        seconds = interleave(guarded, repetitions, warmup=warmup)
        return {key: taken for key, taken in seconds.items() if key not in self.problems}

    def _guarded(self, key: Key, run: Run) -> Run:
        return lambda: self.of(key, run) or 0.0


def reason(error: Exception) -> str:
    """An error in one line: the type is named unless it is srcli's own."""
    text = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, SrcliError):
        return text
    if isinstance(error, MemoryError):
        return f"out of memory ({text})" if text else "out of memory"
    return f"{type(error).__name__}: {text}".rstrip(": ")


@dataclass(frozen=True, slots=True)
class Taken:
    """What a command took.

    Attributes:
        seconds: wall time.
        cpu: seconds of CPU, user and system.
        peak: highest resident bytes of the process or of one of its children; pages of mapped files count.
        anonymous: highest anonymous resident bytes of the process (heap, not files), read every 50 ms; None
            where /proc is missing or the command ended before the first reading.
    """

    seconds: float
    cpu: float
    peak: int
    anonymous: int | None


def command(*arguments: str) -> list[str]:
    """`srcli` with these arguments as a module of this Python: it needs not be installed.

    That imports one module of the standard library more than the installed script does.
    """
    return [sys.executable, "-P", "-m", "srcli", *arguments]


def measure(words: Sequence[str], environment: Mapping[str, str] | None = None) -> Taken:
    """Run a command to its end, its stdout thrown away. POSIX only.

    Args:
        words: program and arguments.
        environment: of the command; None: that of this process.

    Raises:
        InferenceError: its exit code is not 0; with the last line of its stderr.
    """
    watcher = [sys.executable, "-I", "-S", "-c", f"{inspect.getsource(_watch)}\n_watch()"]
    done = subprocess.run([*watcher, *words], check=True, capture_output=True, text=True, env=environment)
    result = json.loads(done.stdout)
    if code := result.pop("code"):
        last = next(iter(done.stderr.strip().splitlines()[-1:]), "")
        raise InferenceError(f"exit code {code}: {' '.join(words)}: {last}".rstrip(": "))
    return Taken(**result)


def _watch() -> None:
    """Run the command in `sys.argv` and print a `Taken` and its exit code as JSON.

    `measure` runs this function alone, in a Python without packages: a process starts with the peak memory of
    its parent, so the parent of a measured command has to be small.
    """
    import os
    import select
    import sys
    import time

    words, anonymous = sys.argv[1:], "null"
    begin = time.perf_counter()
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawnp(words[0], words, os.environ, file_actions=silent)
    try:
        ended = os.pidfd_open(process)
    except (AttributeError, OSError):
        ended = -1  # no Linux: there is no /proc to read
    while ended >= 0 and not select.select([ended], [], [], 0.05)[0]:
        with open(f"/proc/{process}/status") as status:  # noqa: PTH123 - pathlib takes memory
            for line in status:
                if line.startswith("RssAnon:"):
                    now = int(line.split()[1]) * 1024
                    anonymous = str(max(now, 0 if anonymous == "null" else int(anonymous)))
    _, status_word, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - begin
    code, cpu = os.waitstatus_to_exitcode(status_word), usage.ru_utime + usage.ru_stime
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    figures = f'"seconds": {seconds}, "cpu": {cpu}, "peak": {peak}, "anonymous": {anonymous}'
    print(f'{{{figures}, "code": {code}}}')


@dataclass(frozen=True, slots=True)
class Job:
    """What a fresh process does; `began` is when its parent started it, seconds since the epoch."""

    model: str
    scale: int
    backend: str
    device: str
    precision: str
    size: int
    threads: int
    began: float


@dataclass(frozen=True, slots=True)
class Start:
    """What a fresh process took up to its first tile.

    Attributes:
        seconds: from the start of the process; Python, imports and loading included.
        host_memory: peak resident bytes of the process; None if it is not known.
        device_memory: bytes that an NVIDIA GPU has free less after the tile than before anything was loaded,
            by which time CUDA had taken its own: what engine and libraries hold, and what other programs
            took or gave back meanwhile. None elsewhere.
    """

    seconds: float
    host_memory: int | None
    device_memory: int | None


def start(job: Job) -> Start:
    """One fresh process, of the same Python and the same srcli as this one.

    Raises:
        InferenceError: it failed.
    """
    asked = json.dumps(asdict(replace(job, began=time.time())))
    words = [sys.executable, "-P", "-m", "srcli.benchmark.rounds", asked]
    done = subprocess.run(words, capture_output=True, text=True, env=_environment())
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InferenceError(f"{job.model} x{job.scale} on {job.backend} {job.precision}: {said[-1]}")
    return Start(**json.loads(done.stdout.splitlines()[-1]))


def _environment() -> dict[str, str]:
    """That of this process, with this srcli first on the path."""
    here = str(Path(srcli.__file__).resolve().parents[1])
    old = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *([old] if old else [])])}


def work(job: Job) -> Start:
    """Upscale one square picture in one tile, as `srcli upscale` does: runs in the fresh process."""
    import numpy as np

    from srcli.tiles import smallest_tile
    from srcli.upscaler import Upscaler

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
    from srcli.backends import devices
    from srcli.backends.tensorrt.runtime import Cuda

    try:
        library = ctypes.CDLL(devices.LIBRARY) if library is None else library
        Cuda(int(number or 0), library)  # the question needs a context: the one that all backends share
    except (OSError, MemoryError, InferenceError):
        return None
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    failed = library.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    return None if failed else free.value


def main(arguments: Sequence[str]) -> int:
    """In the fresh process: do the job; print a `Start` as JSON, or what went wrong on stderr."""
    try:
        print(json.dumps(asdict(work(Job(**json.loads(arguments[0]))))))
    except SrcliError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
