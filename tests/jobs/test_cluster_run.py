"""Runs on many processes, here threads: nodes that join, leave or differ, films, full disks, early ends."""

import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import scenes
from buckets import SECRETS, Bucket
from folder_doubles import Watcher

from srcli.errors import BackendUnavailableError, OutputError
from srcli.io import pictures
from srcli.io.remote import location
from srcli.jobs import cluster_processes, cluster_run, cluster_worker, film_plan
from srcli.jobs.cluster_nodes import LostError, Node, NodeWork, Share, share_of
from srcli.jobs.cluster_run import ClusterRun
from srcli.jobs.cluster_worker import Computes, Done, Hello, Order, Worker, computes, differences, settled
from srcli.jobs.film import FilmRun
from srcli.jobs.folder import FolderRun
from srcli.jobs.inputs import Job
from srcli.jobs.plan import plan
from srcli.jobs.preflight import Preflight
from srcli.jobs.report import PictureResult, Status
from srcli.settings import FilmSettings, Settings
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


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster_processes, "_LOOK", 0.05)
    monkeypatch.setattr(cluster_run, "_GLANCE", 0.02)


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


def test_files_and_results_are_those_of_a_local_run() -> None:
    given = jobs(30)
    Path("in/7.png").write_bytes(b"\x89PNG\r\n\x1a\nnone")
    run = run_of(Threads([ONE, TWO]), given).run()
    local = [replace(job, target=Path("one", job.target.name)) for job in given]
    expected = FolderRun(local, [Upscaler.from_settings(TWICE)], TWICE, Watcher()).run()
    assert contents("out") == contents("one")
    assert [(one.input, one.status, one.error) for one in run.results] == [
        (one.input, one.status, one.error) for one in expected.results
    ]
    assert sum(run.done.values()) in (29, 30)  # the broken one may have been found before its turn
    assert len({id(one.computed) for one in run.results if one.computed}) == 1


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


class Slow(Worker):
    """Takes its time."""

    def picture(self, job: Job) -> Done:
        time.sleep(0.02)
        return super().picture(job)


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


def test_a_machine_that_sees_another_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_worker, "_WAITS", (0,))
    given, upscaler = jobs(1), Upscaler.from_settings(TWICE)
    Path("out").mkdir()
    Path("out/witness").write_text("word")
    order = Order(
        settled(TWICE, upscaler),
        2,
        computes(upscaler),
        Path.cwd(),
        (given[0].source,),
        given[0].target,
        Path("out/witness"),
        "word",
    )
    assert Worker().start(order).refused == ""
    assert Worker().start(replace(order, word="other")).refused == "its folder out is not that of this run"
    assert Worker().start(replace(order, folder=Path("/missing"))).refused == "it has no folder /missing"
    assert Worker().start(replace(order, sources=(Path("no.png"),))).refused == "it does not see no.png"


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="only Linux counts bytes")
def test_bytes_that_are_read_or_written_are_signs_of_life() -> None:
    worker = Worker()
    before = worker.signs().steps
    assert worker.signs().steps == before
    Path("large").write_bytes(bytes(2 << 20))
    assert worker.signs().steps == before + 1
    assert worker.signs().steps == before + 1


def of_bucket(bucket: Bucket, given: Sequence[Job]) -> list[Job]:
    """The same jobs from and to a bucket that has their inputs."""
    bucket.put({f"{job.source}": job.input.read_bytes() for job in given})
    return list(plan([f"{bucket.url}/in"], location(f"{bucket.url}/out")).jobs)


def test_buckets_at_either_end_get_what_folders_get(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    given = jobs(8)
    Path("in/7.png").write_bytes(b"none")
    far = of_bucket(bucket, given)
    up = [replace(job, target=location(f"{bucket.url}/up/{job.target.name}")) for job in given]
    down = [replace(job, source=one.source) for job, one in zip(given, far, strict=True)]
    for some in (far, up, down):
        cluster = Threads([ONE, TWO])
        assert SECRETS[1].encode() not in pickle.dumps(some)
        run = run_of(cluster, some).run()
        statuses = [one.status for one in run.results]
        assert statuses == [Status.WRITTEN] * 7 + [Status.FAILED]
        assert f"{some[7].source} is not a picture" in run.results[7].error
        assert [one.output for one in run.results] == [one.target for one in some]
    assert bucket.contents("out") == bucket.contents("up") == contents("out")
    again = run_of(Threads([ONE]), list(plan([f"{bucket.url}/in"], location(f"{bucket.url}/out")).jobs)).run()
    assert [one.status for one in again.results] == [Status.SKIPPED] * 7 + [Status.FAILED]


def test_a_result_that_was_put_before_its_process_died_is_skipped(bucket: Bucket) -> None:
    class Late(Worker):
        """Ends after the first picture, without a word."""

        died = False

        def picture(self, job: Job) -> Done:
            done = super().picture(job)
            if not Late.died:
                Late.died = True
                raise SystemExit
            return done

    run = run_of(Threads([ONE], lambda node: Late()), of_bucket(bucket, jobs(3))).run()
    assert {one.status for one in run.results} == {Status.WRITTEN, Status.SKIPPED}
    assert bucket.count("out") == 3


def test_a_machine_that_cannot_reach_the_store_is_refused(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,), upscaler = of_bucket(bucket, jobs(1)), Upscaler.from_settings(TWICE)
    folder, wanted = Path("/missing"), settled(TWICE, upscaler)
    order = Order(wanted, 2, computes(upscaler), folder, (job.source,), job.target, None, "")
    assert Worker().start(order).refused == ""
    gone = location("s3://no-bucket-of-ours/a.png")
    for other in (replace(order, sources=(gone,)), replace(order, target=gone)):
        assert "its bucket does not exist" in Worker().start(other).refused
    absent = location(f"{bucket.url}/in/no.png")
    assert Worker().start(replace(order, sources=(absent,))).refused == f"it does not see {absent}"
    local = replace(order, sources=(Path("in/0.png"), job.source))
    assert Worker().start(local).refused == "it has no folder /missing"


def test_what_cannot_be_done_is_said_before_the_turn_of_its_picture() -> None:
    given = jobs(8)
    for number in (2, 5):
        given[number].input.write_bytes(b"none")  # the smallest files, whose turn is the last

    class Waits(Worker):
        """Does nothing before the broken pictures are known."""

        def picture(self, job: Job) -> Done:
            assert known.wait(30)
            assert job.source.name not in ("2.png", "5.png")
            return super().picture(job)

    class Known(Watcher):
        def finished(self, result: PictureResult) -> None:
            super().finished(result)
            if len(self.seen) == 2:
                known.set()

    known, watcher = Event(), Known()
    run = run_of(Threads([ONE], lambda node: Waits()), given, progress=watcher).run()
    assert [one.input.name for one in run.results if one.status is Status.FAILED] == ["2.png", "5.png"]
    assert [one.input.name for one in watcher.seen[:2]] == ["2.png", "5.png"]
    assert "is not a picture" in run.results[2].error
    assert sum(run.done.values()) == 6
    assert len(contents("out")) == 6


def test_results_that_cannot_fit_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def check_space(preflight: Preflight) -> None:
        raise OutputError("out: the results need 2 GB or more, and 1 GB are free.")

    monkeypatch.setattr(Preflight, "check_space", check_space)
    run = run_of(Threads([ONE]), jobs(2)).run()
    assert {one.status for one in run.results} == {Status.WRITTEN}
    assert [one for one in caplog.messages if one.startswith("out: the results need 2 GB or more")]


class Dying(Worker):
    """Ends where a picture is poisonous, and before it is ready where it is to."""

    def picture(self, job: Job) -> Done:
        if job.source.stem == "3":
            raise SystemExit
        return super().picture(job)


def test_a_poisonous_picture_fails_alone() -> None:
    cluster = Threads([ONE, TWO], lambda node: Dying())
    run = run_of(cluster, jobs(20)).run()
    assert [one.input.name for one in run.results if one.status is Status.FAILED] == ["3.png"]
    assert len(contents("out")) == 19
    assert len(cluster.processes) <= 2 + 3


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


class Never(Worker):
    """Dies before it is ready."""

    def start(self, order: Order) -> Hello:
        raise SystemExit


def test_a_node_whose_processes_never_start_gets_no_more() -> None:
    cluster = Threads([ONE, TWO], lambda node: Never() if node is TWO else Worker())
    run = run_of(cluster, jobs(30)).run()
    assert set(run.done) == {ONE}
    assert sum(process.node is TWO for process in cluster.processes) <= 3


class Full(Worker):
    """Finds the disk full."""

    def picture(self, job: Job) -> Done:
        return replace(Done(PictureResult(job.source, job.target, Status.FAILED)), full=True)


def test_a_full_disk_ends_the_run() -> None:
    run = run_of(Threads([ONE, TWO], lambda node: Full()), jobs(9)).run()
    assert (run.full, run.interrupted) == (True, False)
    assert [one.status for one in run.results].count(Status.FAILED) == 1
    assert [one.status for one in run.results].count(Status.PENDING) == 8


def test_an_early_end_leaves_the_rest_pending() -> None:
    watcher = Watcher()
    run = run_of(Threads([ONE]), jobs(60), progress=watcher, stop=lambda: len(watcher.seen) >= 5).run()
    written = [one.status for one in run.results].count(Status.WRITTEN)
    assert run.interrupted
    assert 5 <= written < 60
    assert len(contents("out")) == written
    assert [one.status for one in run.results].count(Status.PENDING) == 60 - written


@pytest.fixture
def films(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    monkeypatch.setattr(film_plan, "SEGMENT", 8)
    for name, frames in (("a", 40), ("b", 17)):
        scenes.write(Path(f"{name}.mkv"), scenes.Scene(frames=frames))
    return [Job(Path(f"{name}.mkv"), Path(f"out/{name}.mkv"), film=True) for name in "ab"]


LOSSLESS = replace(TWICE, film=FilmSettings(lossless=True))


class Unlucky(Worker):
    """Ends at the second segment, once."""

    seen = 0

    def segment(self, film: film_plan.FilmPlan, folder: Path, number: int) -> Done:
        type(self).seen += 1
        if type(self).seen == 2:
            raise SystemExit
        return super().segment(film, folder, number)


def test_films_equal_those_of_one_machine_though_a_process_dies(films: list[Job]) -> None:
    run = run_of(Threads([ONE, TWO], lambda node: Unlucky()), [], LOSSLESS)
    run.films = [
        FilmRun(job, [run.upscaler], LOSSLESS, run.progress, lambda: run.full, elsewhere=run.close_segments)
        for job in films
    ]
    run.run()
    assert [(one.status, one.error) for one in run.results] == [(Status.WRITTEN, "")] * 2
    assert sum(run.done.values()) == 5 + 2
    for job in films:
        local = replace(job, target=Path("one", job.target.name))
        FilmRun(local, [Upscaler.from_settings(LOSSLESS)], LOSSLESS, Watcher()).run()
    assert contents("out") == contents("one")


def test_a_damaged_film_fails_and_the_other_does_not(films: list[Job]) -> None:
    films[1].source.write_bytes(films[1].source.read_bytes()[:900])
    run = run_of(Threads([ONE, TWO]), [], LOSSLESS)
    run.films = [
        FilmRun(job, [run.upscaler], LOSSLESS, run.progress, elsewhere=run.close_segments) for job in films
    ]
    assert [one.status for one in run.run().results] == [Status.WRITTEN, Status.FAILED]


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


def test_what_differs_is_said() -> None:
    wanted = Computes("1", "openvino", "cpu", "int8", "bf16", "abc")
    assert differences(wanted, wanted) == ""
    assert differences(wanted, replace(wanted, finer="fp32")) == "it has finer fp32 where this run has bf16"
    assert differences(wanted, replace(wanted, models="x")) == "its model files are others"
    assert differences(wanted, replace(wanted, version="2")) == "it has srcli 2, and this run is of 1"


def test_auto_is_settled_once(tiny_models: Path) -> None:
    settings = Settings(tiny_models / "tiny-x2.onnx", 2)
    upscaler = Upscaler.from_settings(settings)
    found = settled(settings, upscaler)
    assert (found.backend, found.device) == ("openvino", "cpu")
    assert found.precision == upscaler.info.precision
    assert computes(Upscaler.from_settings(found)) == computes(upscaler)
