"""A cluster in this process, whose processes are threads, and runs on it."""

import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from buckets import Bucket
from folder_doubles import Watcher

from srcli.io import pictures
from srcli.io.remote import location
from srcli.jobs.cluster_nodes import LostError, Node, Share
from srcli.jobs.cluster_run import ClusterRun
from srcli.jobs.cluster_worker import Done, Worker
from srcli.jobs.outputs import Job
from srcli.jobs.plan import plan
from srcli.settings import Settings
from srcli.upscaler import Upscaler

TWICE = Settings("bicubic", 2, threads=1)
ONE, TWO = (Node(name, name, f"10.0.0.{number}", 1, 0, 1 << 33) for number, name in enumerate(("one", "two")))


@dataclass
class Process:
    worker: Worker
    node: Node
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(8))
    ended: bool = False


@dataclass
class Threads:
    """A cluster in this process; what travels is pickled."""

    here: list[Node]
    worker: Callable[[Node], Worker] = lambda node: Worker()
    processes: list[Process] = field(default_factory=list)

    def nodes(self) -> list[Node]:
        return list(self.here)

    def start(self, node: Node, share: Share) -> Process:
        self.processes.append(Process(self.worker(node), node))
        return self.processes[-1]

    def call(
        self, process: Process, method: str, arguments: tuple[Any, ...], answered: Callable[[Any], None]
    ) -> None:
        given = pickle.dumps(arguments)

        def work() -> None:
            try:
                answer = getattr(process.worker, method)(*pickle.loads(given))
            except SystemExit:
                answer = LostError("died")
            if not process.ended:
                answered(pickle.loads(pickle.dumps(answer)) if isinstance(answer, Done) else answer)

        process.threads.submit(work)

    def put(self, value: Any) -> Any:
        return value

    def end(self, process: Process) -> None:
        process.ended = True
        process.worker.stop()


def jobs(many: int) -> list[Job]:
    random = np.random.default_rng(0)
    Path("in").mkdir(exist_ok=True)
    for number in range(many):
        pixels = random.integers(0, 255, (20, 10 + number, 3), dtype=np.uint8)
        pictures.write(Path(f"in/{number}.png"), pictures.Picture(pixels))
    return [Job(Path(f"in/{number}.png"), Path(f"out/{number}.png")) for number in range(many)]


def run_of(cluster: Threads, given: list[Job], settings: Settings = TWICE, **more: Any) -> ClusterRun:
    watcher = more.pop("progress", None) or Watcher()
    return ClusterRun(cluster, given, Upscaler.from_settings(settings), settings, watcher, **more)


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def of_bucket(bucket: Bucket, given: Sequence[Job]) -> list[Job]:
    """The same jobs from and to a bucket that has their inputs."""
    bucket.put({f"{job.source}": job.input.read_bytes() for job in given})
    return list(plan([f"{bucket.url}/in"], location(f"{bucket.url}/out")).jobs)
