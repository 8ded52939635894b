"""Start-up and memory, measured in processes of their own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import srcli
from srcli.benchmark.attempts import Attempts
from srcli.benchmark.child import Job, Start
from srcli.benchmark.plan import Case, Request, Subject
from srcli.benchmark.rounds import Spread
from srcli.errors import InferenceError

Key = tuple[Case, int]
"""A case and the side of its tile."""


def measure(subject: Subject, request: Request, attempts: Attempts[Key]) -> dict[Key, tuple[Spread, Start]]:
    """Seconds until the first tile, by case and tile, and the process with the highest peak."""
    if not request.starts:
        return {}
    taken: dict[Key, list[Start]] = {(c, tile): [] for tile in request.tiles for c in subject.cases}
    runs = {key: _recorded(_job(subject, *key, request.threads), taken[key]) for key in taken}
    seconds = attempts.interleave(runs, request.starts, warmup=0)
    return {key: (Spread.of(one), _largest(taken[key])) for key, one in seconds.items()}


def start(job: Job) -> Start:
    """One fresh process, of the same Python and the same srcli as this one.

    Raises:
        InferenceError: it failed.
    """
    command = [sys.executable, "-P", "-m", "srcli.benchmark.child"]
    asked = replace(job, began=time.time()).to_json()
    done = subprocess.run([*command, asked], capture_output=True, text=True, env=_environment())
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InferenceError(f"{job.model} x{job.scale} on {job.backend} {job.precision}: {said[-1]}")
    return Start(**json.loads(done.stdout.splitlines()[-1]))


def _environment() -> dict[str, str]:
    """That of this process, with this srcli first on the path."""
    here = str(Path(srcli.__file__).resolve().parents[1])
    old = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, *([old] if old else [])])}


def _job(subject: Subject, case: Case, size: int, threads: int) -> Job:
    scale = subject.file.spec.scale
    return Job(subject.model, scale, case.backend, case.device, case.precision, size, threads, 0.0)


def _recorded(job: Job, taken: list[Start]) -> Callable[[], float]:
    def run() -> float:
        taken.append(start(job))
        return taken[-1].seconds

    return run


def _largest(starts: list[Start]) -> Start:
    return max(starts, key=lambda one: one.host_memory or 0)
