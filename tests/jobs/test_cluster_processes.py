"""Processes on nodes, here threads: nodes that join, leave or differ, processes that are lost."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_threads import ONE, TWICE, TWO, Threads, contents, jobs, run_of
from folder_doubles import Watcher

from srcli.errors import BackendUnavailableError, OutputError
from srcli.jobs import cluster_run
from srcli.jobs.cluster_nodes import Node, NodeWork, Share, share_of
from srcli.jobs.cluster_worker import Done, Hello, Order, Worker, computes
from srcli.jobs.outputs import Job
from srcli.jobs.report import PictureResult, Status, failure
from srcli.upscaler import Upscaler

pytestmark = pytest.mark.usefixtures("cluster_folder")


class Slow(Worker):
    """Takes its time."""

    def picture(self, job: Job) -> Done:
        time.sleep(0.02)
        return super().picture(job)


def test_what_each_node_does_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_run, "_SHOW", 0.0)
    told = dict[str, tuple[int, int]]()

    def nodes(work: Sequence[NodeWork], now: float) -> None:
        told.update({one.node.host: (one.processes, one.done) for one in work})
        assert all(one.since <= now for one in work)

    run = run_of(Threads([ONE, TWO], lambda node: Slow()), given := jobs(20), nodes=nodes).run()
    assert {processes for processes, _ in told.values()} == {1}
    assert 0 < sum(done for _, done in told.values()) <= sum(run.done.values()) == 20
    made = sum(one.megapixels for one in run._processes.work.values())
    assert (
        made
        == pytest.approx(sum(one.megapixels for one in run.results))
        == pytest.approx(sum(20 * (10 + number) * 4 for number in range(len(given))) / 1e6)
    )


def test_a_node_that_joins_takes_part_and_one_that_leaves_loses_nothing() -> None:
    cluster = Threads([ONE], lambda node: Slow())

    class Change(Watcher):
        def finished(self, result: PictureResult) -> None:
            super().finished(result)
            if len(self.seen) == 5:
                cluster.here.append(TWO)
            if len(self.seen) == 40:
                cluster.here.remove(ONE)

    run = run_of(cluster, jobs(150), progress=Change()).run()
    assert {one.status for one in run.results} <= {Status.WRITTEN, Status.SKIPPED}
    assert run.done[TWO] > 20
    assert sum(run.done.values()) == 150
    assert len(contents("out")) == 150


class Other(Worker):
    """Is told that the run is of another version."""

    def start(self, order: Order) -> Hello:
        return super().start(replace(order, computes=replace(order.computes, version="9.9")))


def test_a_node_that_differs_takes_no_part_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Threads([ONE, TWO], lambda node: Other() if node is TWO else Worker())
    run = run_of(cluster, jobs(6)).run()
    assert {one.status for one in run.results} == {Status.WRITTEN}
    assert set(run.done) == {ONE}
    assert any("two (10.0.0.1) takes no part: it has srcli" in text for text in caplog.messages)


def test_where_no_node_can_do_it_the_run_says_why() -> None:
    with pytest.raises(
        BackendUnavailableError, match=r"one \(10.0.0.0\): it has srcli .* this run is of 9.9"
    ):
        run_of(Threads([ONE], lambda node: Other()), jobs(2)).run()
    assert not contents("out")


class Broken(Worker):
    """Its engine can do nothing more from the third picture on."""

    broken = 0

    def picture(self, job: Job) -> Done:
        done = super().picture(job)
        type(self).broken += 1
        return replace(done, lost=True) if type(self).broken == 3 else done


def test_a_lost_engine_ends_its_process_and_no_picture() -> None:
    cluster = Threads([ONE], lambda node: Broken())
    run = run_of(cluster, jobs(8)).run()
    assert {one.status for one in run.results} <= {Status.WRITTEN, Status.SKIPPED}
    assert len(cluster.processes) == 2


class Cramped(Worker):
    """Has no room for scratch files."""

    def picture(self, job: Job) -> Done:
        return Done(failure(job, OutputError("no room")), full=True, lost=True)


def test_a_node_without_room_for_scratch_files_takes_no_part(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Threads([ONE, TWO], lambda node: Cramped() if node is TWO else Slow())
    run = run_of(cluster, jobs(12)).run()
    assert ({one.status for one in run.results}, run.full) == ({Status.WRITTEN}, False)
    assert set(run.done) == {ONE}
    assert [one for one in caplog.messages if "takes no part: its disk for scratch files is full" in one]


class Never(Worker):
    """Dies before it is ready."""

    def start(self, order: Order) -> Hello:
        raise SystemExit


def test_a_node_whose_processes_never_start_gets_no_more() -> None:
    cluster = Threads([ONE, TWO], lambda node: Never() if node is TWO else Worker())
    run = run_of(cluster, jobs(30)).run()
    assert set(run.done) == {ONE}
    assert sum(process.node is TWO for process in cluster.processes) <= 3


def test_shares_of_a_node_are_by_threads_memory_and_gpus() -> None:
    upscaler = Upscaler.from_settings(TWICE)
    order = Order(TWICE, 2, computes(upscaler), Path(), (), Path(), Path(), "")
    node = Node("x", "x", "", 8, 2, 6 << 30)
    assert share_of(node, order) == (Share(1, 0), 6)
    assert share_of(node, replace(order, settings=replace(TWICE, threads=3))) == (Share(3, 0), 2)
    assert share_of(node, replace(order, settings=replace(TWICE, threads=0))) == (Share(8, 0), 1)
    assert share_of(replace(node, cpus=0), order)[1] == 0
    on_gpu = replace(order, computes=replace(order.computes, device="cuda"))
    assert share_of(node, on_gpu) == (Share(0, 1), 2)
