"""Runs on many processes, here threads: a local run's results, buckets, films, full disks, early ends."""

import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
import scenes
from buckets import SECRETS, Bucket
from cluster_threads import ONE, TWICE, TWO, Threads, contents, jobs, of_bucket, run_of
from folder_doubles import Watcher

from srcli.errors import OutputError
from srcli.io.remote import Location, location
from srcli.jobs import film_plan
from srcli.jobs.cluster_run import ClusterRun
from srcli.jobs.cluster_worker import Done, Worker
from srcli.jobs.film import FilmRun
from srcli.jobs.folder import FolderRun
from srcli.jobs.outputs import Job
from srcli.jobs.plan import plan
from srcli.jobs.preflight import Preflight
from srcli.jobs.report import PictureResult, Status
from srcli.settings import FilmSettings
from srcli.upscaler import Upscaler

pytestmark = pytest.mark.usefixtures("cluster_folder")


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

    def segment(self, job: Job, film: film_plan.FilmPlan, folder: Location, number: int) -> Done:
        type(self).seen += 1
        if type(self).seen == 2:
            raise SystemExit
        return super().segment(job, film, folder, number)


def made(given: Sequence[Job], worker: type[Worker] = Worker) -> ClusterRun:
    """A run of films on two nodes, one of which dies if the worker is unlucky."""
    run = run_of(Threads([ONE, TWO], lambda node: worker()), [], LOSSLESS)
    run.films = [
        FilmRun(job, [run.upscaler], LOSSLESS, run.progress, lambda: run.full, elsewhere=run.close_segments)
        for job in given
    ]
    return run.run()


def made_here(given: Sequence[Job]) -> dict[str, bytes]:
    """The same films by a local run."""
    for job in given:
        local = replace(job, target=Path("one", job.target.name))
        FilmRun(local, [Upscaler.from_settings(LOSSLESS)], LOSSLESS, Watcher()).run()
    return contents("one")


def test_films_equal_those_of_one_machine_though_a_process_dies(
    films: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unlucky, "seen", 0)
    run = made(films, Unlucky)
    assert [(one.status, one.error) for one in run.results] == [(Status.WRITTEN, "")] * 2
    assert sum(run.done.values()) == 5 + 2
    assert contents("out") == made_here(films)


@pytest.mark.parametrize("ends", ["from", "to", "both"])
def test_films_of_buckets_equal_local_ones_and_leave_nothing_beside_them(
    films: list[Job], ends: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unlucky, "seen", 0)
    bucket.put({f"in/{job.source}": job.input.read_bytes() for job in films})
    source = "." if ends == "to" else f"{bucket.url}/in"
    target = Path("out") if ends == "from" else location(f"{bucket.url}/out")
    run = made([job for job in plan([source], target).jobs if job.film], Unlucky)
    assert [(one.status, one.error) for one in run.results] == [(Status.WRITTEN, "")] * 2
    assert sum(run.done.values()) == 5 + 2
    assert (contents("out") if ends == "from" else bucket.contents("out")) == made_here(films)
    again = made([job for job in plan([source], target).jobs if job.film])
    assert [one.status for one in again.results] == [Status.SKIPPED] * 2


def test_a_film_without_an_index_is_fetched_by_each_process_that_makes_part_of_it(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_plan, "SEGMENT", 8)
    Path("scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", "scratch")
    scenes.write(Path("film.nut"), scenes.Scene(frames=24))
    bucket.put({"in/film.nut": Path("film.nut").read_bytes()})
    run = made(plan([f"{bucket.url}/in"], Path("out")).jobs)
    assert [(one.status, one.error) for one in run.results] == [(Status.WRITTEN, "")]
    assert sum(run.done.values()) == 3
    assert not list(Path("scratch").iterdir())


def test_a_damaged_film_fails_and_the_other_does_not(films: list[Job]) -> None:
    films[1].source.write_bytes(films[1].source.read_bytes()[:900])
    run = run_of(Threads([ONE, TWO]), [], LOSSLESS)
    run.films = [
        FilmRun(job, [run.upscaler], LOSSLESS, run.progress, elsewhere=run.close_segments) for job in films
    ]
    assert [one.status for one in run.run().results] == [Status.WRITTEN, Status.FAILED]
