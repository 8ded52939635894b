"""The processes of a run on a cluster: started where there is room, asked how it goes, and ended.

What they do is the queue's; what becomes of their answers is the run's.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from queue import SimpleQueue
from typing import Any

from srcli.errors import BackendUnavailableError
from srcli.jobs.cluster_nodes import Cluster, Node, NodeWork, share_of
from srcli.jobs.cluster_worker import Hello, Order, Signs
from srcli.jobs.queue import Queue

log = logging.getLogger(__name__)

_LOOK = 2.0
"""Seconds between looks at which nodes there are."""
_ASK = 5.0
"""Seconds between questions to each process how it goes, at most."""
_STARTS = 3
"""Processes of a node that may die before they are ready; then it gets no more."""
_LOADING = 1800.0
"""Seconds in which a process is ready; TensorRT builds engines meanwhile."""
_ALONE = 300.0
"""Seconds that a run waits for a node where there is none."""


class StopError(Exception):
    """The run is to end early."""


@dataclass(slots=True, eq=False)
class _Process:
    """One process.

    Attributes:
        handle: of the cluster.
        node: where it is.
        begun: when it was started.
        ready: whether it takes units.
        asked: whether it owes an answer to a question how it goes.
        stopping: whether it was told to stop, and has not.
    """

    handle: Any
    node: Node
    begun: float
    ready: bool = False
    asked: bool = False
    stopping: bool = False


@dataclass(slots=True)
class Processes:
    """All processes of a run, by their numbers.

    Attributes:
        cluster: where they are.
        queue: what they do.
        fail: takes each unit that ended too many processes, and why the last one went.
        answers: what they answer: the process, what it is about (a unit, "start", "signs" or "stop"), and the
            answer.
        work: what each node that has had a ready process has done.
    """

    cluster: Cluster
    queue: Queue
    fail: Callable[[int, str], None]
    answers: SimpleQueue[tuple[int, int | str, Any]] = field(default_factory=SimpleQueue)
    work: dict[Node, NodeWork] = field(default_factory=dict)
    _all: dict[int, _Process] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)
    _nodes: dict[str, Node] = field(default_factory=dict)
    _refused: dict[str, str] = field(default_factory=dict)
    _starts: Counter[str] = field(default_factory=Counter)
    _looked: float = float("-inf")
    _asked: float = float("-inf")
    _alone_since: float = 0.0

    def __contains__(self, number: int) -> bool:
        return number in self._all

    def attend(self, order: Order) -> None:
        """From time to time start processes where there is room, end those that hang, and ask the others.

        Args:
            order: what new ones are told.

        Raises:
            BackendUnavailableError: no node can do this, from the beginning.
            StopError: no node is left.
        """
        now = self.queue.clock()
        if now - self._looked > _LOOK:
            self._looked = now
            self._look(order)
        if now - self._asked > min(_ASK, self.queue.quiet / 4):
            self._asked = now
            self._ask()

    def call(self, number: int, about: int | str, method: str, arguments: tuple[Any, ...] = ()) -> None:
        """Call a method in a process; the answer comes with what it is about."""
        self.cluster.call(
            self._all[number].handle,
            method,
            arguments,
            lambda answer: self.answers.put((number, about, answer)),
        )

    def started(self, number: int, answer: Hello | Exception) -> None:
        """A process is ready, or says why its node does not take part."""
        process = self._all[number]
        if not isinstance(answer, Hello):
            self._refuse(process.node, str(answer))
        elif answer.refused:
            self._refuse(process.node, answer.refused)
        else:
            process.ready = True
            self.work.setdefault(process.node, NodeWork(process.node, self.queue.clock())).processes += 1
            self.queue.join(number)
            log.info("%s: a process is ready.", process.node)

    def signs(self, number: int, answer: Signs | Exception) -> None:
        """A process says how it goes."""
        self._all[number].asked = False
        if isinstance(answer, Signs):
            self.queue.sign(number, answer.steps, answer.cpu)

    def ended(self, number: int, unit: int, megapixels: float) -> None:
        """A process is done with a unit, and has made a result of that many megapixels."""
        self.queue.done(number, unit)
        work = self.work[self._all[number].node]
        work.done += 1
        work.megapixels += megapixels

    def bury(self, number: int, why: str, *, silent: bool = False) -> None:
        """A process is gone, or is to go: what it was at is done again, alone, or has failed.

        Args:
            number: of the process.
            why: in words that follow "a process".
            silent: whether its whole node may be gone.
        """
        process = self._all.pop(number)
        self.cluster.end(process.handle)
        node = process.node
        gone = silent or all(one.id != node.id for one in self.cluster.nodes())
        units = self.queue.units(number) if process.ready else []
        if process.ready:
            self.work[node].processes -= 1
        failed = self.queue.leave(number, node=gone)
        if node.id in self._nodes and node.id not in self._refused:
            log.warning("%s: a process %s%s.", node, why, "; its work is done again" if units else "")
            if not process.ready:
                self._starts[node.id] += 1
                if self._starts[node.id] >= _STARTS:
                    self._refuse(node, f"its processes are never ready: the last one {why}")
        for unit in failed:
            self.fail(unit, why)

    def refuse(self, number: int, why: str) -> None:
        """The node of a process takes no part from now on; what its processes are at is done again."""
        self._refuse(self._all[number].node, why)

    def stop(self) -> None:
        """Tell all to end what they are at."""
        for number, process in self._all.items():
            if process.ready:
                process.stopping = True
                self.call(number, "stop", "stop")

    def stopped(self, number: int) -> None:
        """A process has ended what it was at."""
        self._all[number].stopping = False

    @property
    def at_work(self) -> bool:
        """Whether any has a unit, or is to stop."""
        return any(
            process.stopping or self.queue.units(number)
            for number, process in self._all.items()
            if process.ready
        )

    def end(self) -> None:
        """End all."""
        for process in self._all.values():
            self.cluster.end(process.handle)

    def _look(self, order: Order) -> None:
        """Start processes where there is room, and let go of those whose nodes left."""
        nodes = {node.id: node for node in self.cluster.nodes()}
        for node in [node for key, node in self._nodes.items() if key not in nodes]:
            log.warning("%s left; what it was at is done again.", node)
            for number in self._of(node):
                self.bury(number, "left")
        self._nodes = nodes
        for node in nodes.values():
            if node.id not in self._refused:
                self._staff(node, order)
        self.queue.expected = len(self._all)
        self._check_nodes()

    def _of(self, node: Node) -> list[int]:
        """The processes of a node."""
        return [number for number, process in self._all.items() if process.node.id == node.id]

    def _staff(self, node: Node, order: Order) -> None:
        """Start the processes that a node has room for, and that there is work for."""
        share, most = share_of(node, order)
        starting = sum(not process.ready for process in self._all.values())
        for _ in range(min(most - len(self._of(node)), self.queue.waiting - starting)):
            number = next(self._numbers)
            self._all[number] = _Process(self.cluster.start(node, share), node, self.queue.clock())
            own = replace(order, settings=replace(order.settings, threads=share.cpus))
            self.call(number, "start", "start", (own,))

    def _check_nodes(self) -> None:
        """See to it that the run does not wait for ever."""
        now = self.queue.clock()
        if self._all or not self.queue.waiting:
            self._alone_since = now
            return
        usable = any(node.id not in self._refused for node in self._nodes.values())
        if not any(one.done for one in self.work.values()) and self._refused and not usable:
            raise BackendUnavailableError(
                f"No node can do this: {'; '.join(self._refused.values())}.", "Make the nodes equal."
            )
        self._alone_since = self._alone_since or now
        if now - self._alone_since > _ALONE:
            log.warning("No node of the cluster has been usable for %.0f s.", _ALONE)
            raise StopError

    def _refuse(self, node: Node, why: str) -> None:
        """A node takes no part in this run."""
        if node.id not in self._refused:
            self._refused[node.id] = f"{node}: {why.rstrip('.')}"
            log.warning("%s takes no part: %s.", node, why.rstrip("."))
        for number in self._of(node):
            self.bury(number, "takes no part")

    def _ask(self) -> None:
        """End processes that hang, and ask the others how it goes."""
        now = self.queue.clock()
        for number in self.queue.hanging():
            self.bury(number, f"made no step for {self.queue.quiet:.0f} s or more, and was ended")
        for number, process in list(self._all.items()):
            if process.ready and not process.asked:
                process.asked = True
                self.call(number, "signs", "signs")
            elif not process.ready and now - process.begun > _LOADING:
                self.bury(number, f"is not ready after {_LOADING:.0f} s")
