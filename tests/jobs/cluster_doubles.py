"""Workers with faults, and three nodes of Ray on this machine."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srcli.jobs.cluster import RayCluster, connected
from srcli.jobs.cluster_worker import Done, Worker
from srcli.jobs.outputs import Job

OBJECTS = 80 << 20
TESTS = Path(__file__).parents[1]


class Faulty(Worker):
    """Has a fault at pictures of certain names; some only where a file without suffix is in "in"."""

    def picture(self, job: Job) -> Done:
        fault = Path("in", job.source.stem)
        if job.source.stem.startswith("slow"):
            time.sleep(0.1)
        if job.source.stem.startswith("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.exists():
            fault.unlink()
            os.kill(os.getpid(), signal.SIGSTOP if fault.name == "hang" else signal.SIGKILL)
        return super().picture(job)


@dataclass
class Nodes:
    """A cluster whose nodes can be added and killed."""

    cluster: RayCluster
    address: str
    _ray: Any

    def add(self) -> Any:
        """Another node, of two CPUs."""
        return self._ray.add_node(num_cpus=2, object_store_memory=OBJECTS, node_ip_address="127.0.0.1")

    def kill(self, node: Any) -> None:
        """End a node's processes without a word."""
        self._ray.remove_node(node, allow_graceful=False)


@contextmanager
def three_nodes() -> Iterator[Nodes]:
    """The node that `connected` starts, and two more."""
    paths = [str(TESTS.parent), str(TESTS / "jobs"), os.environ.get("PYTHONPATH", "")]
    os.environ |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "3000",
    }
    with connected("local"):
        import ray
        from ray.cluster_utils import Cluster

        before = signal.getsignal(signal.SIGTERM)  # nodes take it
        more = Cluster()
        more.head_node = ray._private.worker._global_node
        nodes = Nodes(RayCluster(ray, Faulty), more.head_node.gcs_address, more)
        try:
            nodes.add()
            nodes.add()
            yield nodes
        finally:
            for node in list(more.worker_nodes):
                with suppress(Exception):
                    nodes.kill(node)
            signal.signal(signal.SIGTERM, before)
