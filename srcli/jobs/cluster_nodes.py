"""The nodes of a cluster, what a process has of one, and what a cluster does for a run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from srcli.jobs.cluster_worker import Order


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster: its id, its names, and what it has to give; memory in bytes."""

    id: str
    host: str
    address: str
    cpus: int
    gpus: int
    memory: int

    def __str__(self) -> str:
        return f"{self.host} ({self.address})"


@dataclass(slots=True)
class NodeWork:
    """What a node does for a run.

    Attributes:
        node: that it is.
        since: when its first process was ready, by the run's clock.
        processes: that are ready.
        done: pictures and segments.
        megapixels: of the results.
    """

    node: Node
    since: float
    processes: int = 0
    done: int = 0
    megapixels: float = 0.0


@dataclass(frozen=True, slots=True)
class Share:
    """What one process has of its node."""

    cpus: int
    gpus: int


class LostError(Exception):
    """A process is gone.

    Args:
        why: in words that follow "it".
        silent: whether it just does not answer; its node may be gone.
    """

    def __init__(self, why: str, *, silent: bool = False) -> None:
        super().__init__(why)
        self.why, self.silent = why, silent


class Cluster(Protocol):
    """Starts and ends processes that hold a `srcli.jobs.cluster_worker.Worker` each."""

    def nodes(self) -> list[Node]:
        """The nodes that live."""

    def start(self, node: Node, share: Share) -> Any:
        """A process on a node."""

    def call(
        self, process: Any, method: str, arguments: tuple[Any, ...], answered: Callable[[Any], None]
    ) -> None:
        """Call a method in a process; its result, or its error, goes to `answered` in another thread."""

    def put(self, value: Any) -> Any:
        """A value as an argument of many calls."""

    def end(self, process: Any) -> None:
        """Kill a process."""


def share_of(node: Node, order: Order) -> tuple[Share, int]:
    """What one process gets of a node, and how many of them it has room for."""
    settings = order.settings
    if order.computes.device not in ("cpu", ""):
        return Share(0, 1), node.gpus
    if not node.cpus:
        return Share(0, 0), 0
    cpus = min(settings.threads or node.cpus, node.cpus)
    return Share(cpus, 0), max(1, min(node.cpus // cpus, node.memory // settings.memory))
