"""A cluster: what a picture costs more than in a local run, how fast two processes are, and what faults cost.

python benchmarks/cluster.py                        # all; writes results/cluster.{json,md}
python benchmarks/cluster.py --only driver          # a million pictures that are none: memory of the driver
python benchmarks/cluster.py --only overhead rate node hang --model mdsr --scale 2

All but `driver` starts Ray on this machine. Starts are not counted: a run is measured from its first result
to its last. `rate` compares two processes, so give it two cores: taskset -c 0,1.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from common import RESULTS, Section, Table, machine, publish
from srcli.backends.base import EngineInfo
from srcli.io import pictures
from srcli.jobs.cluster import connected
from srcli.jobs.cluster_nodes import Node, Share
from srcli.jobs.cluster_run import ClusterRun
from srcli.jobs.cluster_worker import Done, Hello, Signs
from srcli.jobs.folder import FolderRun
from srcli.jobs.outputs import Job
from srcli.jobs.report import Loaded, PictureResult, Report, Status, write_report
from srcli.settings import Settings
from srcli.stream import Computed
from srcli.upscaler import Upscaler

sys.path.append(str(Path(__file__).parents[1] / "tests" / "jobs"))

MEASURES = ("driver", "overhead", "rate", "node", "hang")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Watch:
    """Notes when results come, and what the CPUs have done by then."""

    cpu: Callable[[], float] = time.process_time
    after: Callable[[int], None] = lambda many: None
    seen: list[tuple[float, float, Path]] = field(default_factory=list)

    def start(self) -> None:
        """A run begins."""

    def tile(self, job: Job, done: int, total: int) -> None:
        """A tile is ready."""

    def frames(self, job: Job, done: int, total: int, enlarged: int) -> None:
        """There are no films."""

    def finished(self, result: PictureResult) -> None:
        """A picture ended."""
        first_or_last = not self.seen or len(self.seen) + 1 >= self.expected
        self.seen.append((time.perf_counter(), self.cpu() if first_or_last else 0.0, result.input))
        self.after(len(self.seen))

    def stopping(self) -> None:
        """No run is ended early."""

    expected: int = 0

    @property
    def seconds(self) -> float:
        """A picture, without the first quarter, in which not all processes may be there."""
        times = [when for when, _, _ in self.seen[len(self.seen) // 4 :]]
        return (times[-1] - times[0]) / (len(times) - 1)

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds a picture, without the first one."""
        return (self.seen[-1][1] - self.seen[0][1]) / (len(self.seen) - 1)


class Answering:
    """A cluster of 64 processes that say at once that a picture is done."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[str, tuple[Any, ...], Callable[[Any], None]]] = SimpleQueue()
        self.info = EngineInfo("openvino", "cpu", "int8")

    def nodes(self) -> list[Node]:
        return [Node(str(n), f"node{n}", f"10.0.0.{n}", 1, 0, 4 << 30) for n in range(64)]

    def start(self, node: Node, share: Share) -> Node:
        return node

    def call(
        self, process: Node, method: str, arguments: tuple[Any, ...], answered: Callable[[Any], None]
    ) -> None:
        if method == "start":
            answered(Hello(process.host, 1))
        elif method == "signs":
            answered(Signs(1, 1.0, {}, ()))
        elif method == "picture":
            job = arguments[0]
            computed = Computed("mdsr-baseline", (4,), self.info, "int8", (Path("model.onnx"),))
            answered(
                Done(
                    PictureResult(
                        job.source,
                        job.target,
                        Status.WRITTEN,
                        (3000, 4000),
                        (12000, 16000),
                        3.0,
                        computed=computed,
                    )
                )
            )

    def put(self, value: Any) -> Any:
        return value

    def end(self, process: Node) -> None:
        """Nothing is there."""


def _driver(many: int) -> None:
    """In a process of its own: that many pictures that are none, and their report."""
    with TemporaryDirectory() as name:
        os.chdir(name)
        jobs = [
            Job(Path(f"in/{n % 1000:03}/IMG_{n:07}.jpg"), Path(f"out/{n % 1000:03}/IMG_{n:07}.jpg"))
            for n in range(many)
        ]
        watch = Watch(expected=many)
        settings = Settings("bicubic", 4)
        run = ClusterRun(Answering(), jobs, Upscaler.from_settings(settings), settings, watch).run()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        write_report(Report(Loaded("", "", "", ""), run.results, 1.0), Path("report.json"))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(before, after, watch.cpu_seconds * 1e3)


def driver(many: int) -> Section:
    """Memory and CPU time of the driver alone."""
    child = [sys.executable, __file__, "--driver", str(many)]
    run, whole, cpu = map(
        float, subprocess.run(child, check=True, capture_output=True, text=True).stdout.split()
    )
    table = Table(("pictures", "run", "with the report", "CPU a picture"), (
        (f"{many:,}", f"{run:.0f} MB", f"{whole:.0f} MB", f"{cpu:.3f} ms"),
    ))  # fmt: skip
    how = (
        "Jobs, queue, results and report of pictures that do not exist; 64 made-up processes answer at once."
    )
    return Section("driver", "Memory of the driver", how, (table,),
                   {"pictures": many, "run_mb": run, "report_mb": whole, "cpu_ms": cpu})  # fmt: skip


def make(many: int, side: int) -> list[Job]:
    """JPEGs of a smooth scene with texture, in the current folder."""
    Path("in").mkdir(exist_ok=True)
    rows, columns = np.mgrid[0:side, 0 : side * 4 // 3]
    for number in range(many):
        planes = [rows + number, columns * 2, (rows ^ columns) * 3]
        pixels = np.stack(planes, axis=2).astype(np.uint8)
        pictures.write(Path(f"in/{number:05}.jpg"), pictures.Picture(pixels))
    return [Job(Path(f"in/{number:05}.jpg"), Path(f"out/{number:05}.jpg")) for number in range(many)]


def cpu_of_all() -> float:
    """CPU seconds of this process and of all that it started, those that live."""
    parents, spent = dict[int, int](), dict[int, float]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
        spent[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / _TICK

    def ours(pid: int) -> bool:
        while pid and pid != os.getpid():
            pid = parents.get(pid, 0)
        return bool(pid)

    return sum(seconds for pid, seconds in spent.items() if ours(pid))


def there(jobs: list[Job], settings: Settings, cluster: Any, watch: Watch) -> ClusterRun:
    """A run on the cluster."""
    _empty()
    return ClusterRun(cluster, jobs, Upscaler.from_settings(settings), settings, watch).run()


def here(jobs: list[Job], settings: Settings, watch: Watch) -> None:
    """A run on this machine alone."""
    _empty()
    FolderRun(jobs, [Upscaler.from_settings(settings)], settings, watch).run()


def _empty() -> None:
    for path in Path("out").glob("*"):
        path.unlink()


def overhead(options: argparse.Namespace, cluster: Any) -> Section:
    """CPU time a picture, of small pictures by bicubic, where the network does not hide it."""
    jobs = make(options.pictures, 120)
    settings = Settings("bicubic", 2, threads=1)
    local, far = [], []
    for _ in range(options.rounds):
        watch = Watch(cpu_of_all, expected=len(jobs))
        here(jobs, settings, watch)
        local.append(watch.cpu_seconds * 1e3)
        watch = Watch(cpu_of_all, expected=len(jobs))
        there(jobs, settings, cluster, watch)
        far.append(watch.cpu_seconds * 1e3)
    more = median(far) - median(local)
    table = Table(
        ("local run", "cluster", "more"),
        ((f"{median(local):.1f} ms", f"{median(far):.1f} ms", f"{more:.1f} ms"),),
    )
    how = (
        f"{len(jobs)} JPEGs of 160×120, bicubic ×2; CPU time of all processes a picture, Ray's included; "
        f"median of {options.rounds} runs."
    )
    return Section("overhead", "CPU time a picture", how, (table,), {"local_ms": local, "cluster_ms": far})


def rate(options: argparse.Namespace, cluster: Any) -> Section:
    """Two processes of one thread beside one of two threads."""
    jobs = make(options.pictures // 10, options.side)
    local, far = [], []
    for _ in range(options.rounds):
        settings = Settings(options.model, options.scale, threads=2)
        here(jobs, settings, watch := Watch())
        local.append(watch.seconds)
        there(jobs, replace(settings, threads=1), cluster, watch := Watch())
        far.append(watch.seconds)
    share = median(local) / median(far)
    table = Table(("one of two threads", "two of one thread", "ratio of rates"), (
        (f"{median(local) * 1e3:.0f} ms", f"{median(far) * 1e3:.0f} ms", f"{share:.2f}"),
    ))  # fmt: skip
    how = (
        f"{len(jobs)} JPEGs of {options.side * 4 // 3}×{options.side}, {options.model} ×{options.scale:g}; "
        f"a picture, median of {options.rounds} runs, in turns."
    )
    return Section("rate", "Two processes", how, (table,), {"local_s": local, "cluster_s": far})


def node(options: argparse.Namespace, nodes: Any) -> Section:
    """A node is killed: seconds until all that it was at is done."""
    victim = nodes.add()
    return _fault(
        "node", "A killed node", "A node is killed while others work.", nodes, lambda: nodes.kill(victim)
    )


def hang(options: argparse.Namespace, nodes: Any) -> Section:
    """A process stops without dying."""

    def stop() -> None:
        Path("in/hang").touch()

    return _fault("hang", "A hanging process", "A process is stopped (SIGSTOP) at a picture.", nodes, stop)


def _fault(name: str, title: str, how: str, nodes: Any, fault: Callable[[], None]) -> Section:
    """Seconds from a fault to the last result of a run that had little left to do."""
    jobs = [Job(job.source.rename(f"in/slow{job.source.name}"), job.target) for job in make(60, 120)]
    hanging = Job(Path("in/hang.jpg"), Path("out/hang.jpg"))
    hanging.source.write_bytes(jobs[0].source.read_bytes())
    moment = [0.0]

    def after(many: int) -> None:
        if many == 10:
            moment[0] = time.perf_counter()
            fault()

    watch = Watch(after=after)
    run = there([*jobs, hanging], Settings("bicubic", 2, threads=2), nodes.cluster, watch)
    begin = moment[0]
    seconds = watch.seen[-1][0] - begin
    failed = sum(one.status is Status.FAILED for one in run.results)
    table = Table(("all is done after", "failed"), ((f"{seconds:.0f} s", str(failed)),))
    more = f" {len(jobs)} pictures of 0.1 s, nodes of one process each; from the fault to the last result."
    return Section(name, title, how + more, (table,), {"seconds": seconds, "failed": failed})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=MEASURES, default=MEASURES)
    add("--many", type=int, default=1_000_000, help="pictures of `driver`")
    add("--pictures", type=int, default=400, help="of `overhead`; a tenth of them of `rate`")
    add("--rounds", type=int, default=3)
    add("--model", default="mdsr")
    add("--scale", type=float, default=2)
    add("--side", type=int, default=384, help="height of the pictures of `rate`")
    add("--out", type=Path, default=RESULTS / "cluster.json")
    add("--driver", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.driver:
        _driver(options.driver)
        return
    out = options.out.absolute()
    if "driver" in options.only:
        before = machine()
        publish(out, driver(options.many), arguments, before)
    from cluster_doubles import three_nodes

    groups: tuple[tuple[Any, dict[str, Callable[..., Section]]], ...] = (
        (lambda: connected("local"), {"overhead": overhead, "rate": rate}),
        (three_nodes, {"node": node, "hang": hang}),
    )
    for begin, measures in groups:
        wanted = [name for name in measures if name in options.only]
        if wanted:
            with TemporaryDirectory() as folder, begin() as found:
                os.chdir(folder)
                for name in wanted:
                    before = machine()
                    publish(out, measures[name](options, found), arguments, before)
                os.chdir(out.parent)


if __name__ == "__main__":
    main()
