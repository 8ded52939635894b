"""The folder pipeline: order, memory, faults and interrupts, with decoders and encoders made for it."""

import os
import random
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folder_doubles import TIMEOUT, TWICE, Disk, Double, Listener, double, doubled_bytes, finish
from hypothesis import given
from hypothesis import strategies as st

from srcli.errors import InputError, OutputError
from srcli.io import pictures
from srcli.io.pictures import Picture
from srcli.jobs import stages
from srcli.jobs.folder import FolderOptions, FolderRun, Pixels, foresee
from srcli.jobs.plan import first_factor
from srcli.jobs.report import PictureResult, Status
from srcli.jobs.sizes import Size, SizeRequest


def names(results: list[PictureResult]) -> list[str]:
    return [result.input.name for result in results]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_inputs_however_long_each_takes(disk: Disk, workers: int) -> None:
    dice = random.Random(0)
    disk.delay = lambda: dice.random() * 0.004
    jobs = disk.jobs(*[(4, 4)] * 30)
    run = finish(FolderRun(jobs, double, replace(TWICE, workers=workers), listener := Listener()))
    assert names(run.results) == [job.source.name for job in jobs] == names(listener.told)
    assert {result.status for result in run.results} == {Status.WRITTEN}
    assert all(np.unique(disk.written[f"{i}.png"]).tolist() == [i] for i in range(30))


@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=14),
    memory=st.integers(1, 60_000),
    workers=st.integers(1, 4),
)
def test_memory_in_flight_stays_below_the_budget_or_one_picture_is_alone(
    sizes: list[Size], memory: int, workers: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(delay=lambda: 0.0005)
        for name in ("probe", "read", "use_up"):
            patch.setattr(pictures, name, getattr(disk, name))
        patch.setattr(Path, "mkdir", lambda *a, **k: None)
        jobs = disk.jobs(*sizes)
        run = finish(FolderRun(jobs, double, replace(TWICE, memory=memory, workers=workers), Listener()))
    assert len(disk.written) == len(sizes) == len(run.results)
    largest = max(doubled_bytes(size) for size in sizes)
    assert disk.peak <= max(memory, largest)
    assert disk.most <= 2 * workers + 1


def test_stages_overlap_when_memory_allows(disk: Disk) -> None:
    """The first picture's encoder waits until another picture is being decoded."""
    met = threading.Event()
    jobs = disk.jobs((4, 4), (4, 4))
    decode, encode = disk.read, disk.use_up

    def read(path: Path) -> Picture:
        if path.name == "1.png":
            met.set()
        return decode(path)

    def write(path: Path, picture: Picture, **options: Any) -> tuple[str, ...]:
        assert path.name != "0.png" or met.wait(TIMEOUT / 2), "nothing was decoded meanwhile"
        return encode(path, picture, **options)

    disk.read, disk.use_up = read, write  # type: ignore[method-assign, assignment]
    run = finish(FolderRun(jobs, double, replace(TWICE, workers=1), Listener()))
    assert [result.status for result in run.results] == [Status.WRITTEN] * 2


@pytest.mark.parametrize("stage", ["probe", "read", "use_up"])
@pytest.mark.parametrize(
    "error", [InputError("7.png: broken.", "Fix it."), ValueError("a bug"), MemoryError()]
)
def test_an_error_in_any_stage_fails_one_picture_and_nothing_hangs(
    disk: Disk, stage: str, error: Exception
) -> None:
    jobs = disk.jobs(*[(4, 4)] * 12)
    disk.faults = {(stage, "7.png"): error}
    run = finish(FolderRun(jobs, double, TWICE, Listener()))
    failed = [result for result in run.results if result.status is Status.FAILED]
    assert names(failed) == ["7.png"]
    assert "7.png" in failed[0].error
    assert sorted(disk.written) == sorted(f"{i}.png" for i in range(12) if i != 7)


def test_an_error_of_the_engine_fails_that_picture_only(disk: Disk) -> None:
    class Picky(Double):
        def __call__(
            self, image: Pixels, *, size: Size | None, progress: Callable[[int, int], None] | None
        ) -> Pixels:
            if image[0, 0, 0] == 2:
                raise RuntimeError("device lost")
            return super().__call__(image, size=size, progress=progress)

    run = finish(FolderRun(disk.jobs(*[(4, 4)] * 5), Picky(), TWICE, Listener()))
    assert [result.status is Status.FAILED for result in run.results] == [False, False, True, False, False]
    assert "device lost" in run.results[2].error
    assert "bug in srcli" in run.results[2].hint


def test_every_encoder_failing_does_not_hang(disk: Disk) -> None:
    jobs = disk.jobs(*[(4, 4)] * 9)
    disk.faults = {("use_up", job.target.name): OutputError("disk full") for job in jobs}
    run = finish(FolderRun(jobs, double, replace(TWICE, memory=1), Listener()))
    assert [result.status for result in run.results] == [Status.FAILED] * 9
    assert run.results[3].error.startswith(str(jobs[3].source))


@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupt_keeps_what_is_done_and_says_what_is_left(disk: Disk, after: int) -> None:
    jobs = disk.jobs(*[(4, 4)] * 20)
    listener = Listener(interrupt_after=after)
    run = finish(FolderRun(jobs, double, TWICE, listener))
    assert run.interrupted
    assert {r.input.name for r in listener.told} == set(disk.written)  # what was cut off did not end
    assert names(run.results) == [job.source.name for job in jobs]
    status = [result.status for result in run.results]
    assert status[:after] == [Status.WRITTEN] * after
    assert status[-1] is Status.PENDING
    assert {r.input.name for r in run.results if r.status is Status.WRITTEN} == set(disk.written)


@pytest.mark.parametrize("asked", [1, 2, 7, 20])
def test_a_stop_that_is_asked_for_ends_the_run_wherever_it_is_noticed(disk: Disk, asked: int) -> None:
    """Nothing is raised into the middle of a step, so nothing that is done is missing either."""
    jobs, listener = disk.jobs(*[(4, 4)] * 20), Listener()
    answers = iter([False] * (asked - 1))
    run = finish(FolderRun(jobs, double, TWICE, listener, stop=lambda: next(answers, True)))
    assert run.interrupted
    assert names(run.results) == [job.source.name for job in jobs]
    assert {r.input.name for r in run.results if r.status is Status.WRITTEN} == set(disk.written)
    assert {r.input.name for r in listener.told} == set(disk.written)
    assert run.results[-1].status is Status.PENDING


def test_a_stop_is_noticed_while_a_picture_takes_long(disk: Disk) -> None:
    class Slow(Double):
        def __call__(
            self, image: Pixels, *, size: Size | None, progress: Callable[[int, int], None] | None
        ) -> Pixels:
            begun.set()
            while not told.is_set():  # as an engine does that hears of it between two tiles
                assert progress is not None
                progress(1, 2)
            return super().__call__(image, size=size, progress=progress)

    class Stopping(Listener):
        def stopping(self) -> None:
            told.set()

    begun, told = threading.Event(), threading.Event()
    run = finish(FolderRun(disk.jobs((4, 4), (4, 4)), Slow(), TWICE, Stopping(), stop=begun.is_set))
    assert run.interrupted
    assert not disk.written
    assert [result.status for result in run.results] == [Status.PENDING] * 2


def test_after_a_stop_no_other_picture_begins_and_one_that_is_there_is_written(disk: Disk) -> None:
    """The engine has one picture's last tile when the stop is asked for, and others are decoded."""

    class Last(Double):
        def __call__(
            self, image: Pixels, *, size: Size | None, progress: Callable[[int, int], None] | None
        ) -> Pixels:
            begun.append(image[0, 0, 0])
            assert told.wait(TIMEOUT)
            return super().__call__(image, size=size, progress=lambda done, total: done < 2 or call(progress))

    def call(progress: Callable[[int, int], None] | None) -> None:
        assert progress is not None
        progress(2, 2)

    class Stopping(Listener):
        def stopping(self) -> None:
            told.set()

    begun, told = [], threading.Event()
    jobs = disk.jobs(*[(4, 4)] * 4)
    run = finish(FolderRun(jobs, Last(), TWICE, Stopping(), stop=lambda: bool(begun)))
    assert begun == [0]
    assert [result.status for result in run.results] == [Status.WRITTEN, *[Status.PENDING] * 3]


def test_a_run_begins_by_sweeping_the_folders_it_writes_to(disk: Disk) -> None:
    left = Path("out", ".srcli-0.part")
    left.parent.mkdir()
    left.touch()
    os.utime(left, (0, 0))
    finish(FolderRun(disk.jobs((4, 4)), double, TWICE, Listener()))
    assert not left.exists()


def test_existing_outputs_are_skipped_unless_overwritten(disk: Disk) -> None:
    jobs = disk.jobs((4, 4), (4, 4))
    Path("out").mkdir()
    jobs[0].target.write_bytes(b"older")
    assert [r.status for r in finish(FolderRun(jobs, double, TWICE, Listener())).results] == [
        Status.SKIPPED,
        Status.WRITTEN,
    ]
    assert foresee(jobs[0], TWICE).status is Status.SKIPPED
    again = replace(TWICE, overwrite=True)
    assert [r.status for r in finish(FolderRun(jobs, double, again, Listener())).results] == [
        Status.WRITTEN
    ] * 2


def test_sizes_too_large_fail_before_anything_is_decoded(disk: Disk) -> None:
    jobs = disk.jobs((4, 4), (40, 40))
    run = finish(FolderRun(jobs, double, FolderOptions(SizeRequest(width=80)), Listener()))
    assert "16 times is the limit" in run.results[0].error
    assert run.results[1].status is Status.WRITTEN
    assert "0.png" not in disk.alive


def test_foresee_gives_the_sizes_of_the_real_run(disk: Disk) -> None:
    jobs = disk.jobs((3, 5))
    foreseen = foresee(jobs[0], TWICE)
    real = finish(FolderRun(jobs, double, TWICE, Listener())).results[0]
    assert (
        (foreseen.input_size, foreseen.output_size)
        == (real.input_size, real.output_size)
        == ((3, 5), (6, 10))
    )
    assert foreseen.status is Status.PLANNED


def test_the_first_network_is_one_that_is_used(disk: Disk) -> None:
    jobs = disk.jobs((40, 40), (10, 10))
    assert first_factor(jobs, SizeRequest(3)) == 3
    assert first_factor(jobs, SizeRequest(width=30)) == 3  # the first picture only shrinks
    assert first_factor(jobs, SizeRequest(width=10)) == 4  # none grows: the default
    assert first_factor([], SizeRequest(width=10)) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, priorities belong to processes")
def test_threads_beside_the_network_stand_back_and_never_push_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was started with the lowest priority stays there; a system that refuses is no error."""
    asked: list[int] = []
    monkeypatch.setattr(os, "setpriority", lambda which, who, priority: asked.append(priority))
    for own in (0, 12, 19):
        monkeypatch.setattr(os, "getpriority", lambda which, who, own=own: own)
        stages.stand_back()
    assert asked == [10, 19, 19]

    def refuse(which: int, who: int, priority: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    stages.stand_back()


def test_further_engines_take_a_picture_each(disk: Disk) -> None:
    """Two engines that wait for each other: one alone would wait for ever."""
    both = threading.Barrier(2, timeout=TIMEOUT / 2)

    class Waiting(Double):
        def __call__(
            self, image: Pixels, *, size: Size | None, progress: Callable[[int, int], None] | None
        ) -> Pixels:
            both.wait()
            return super().__call__(image, size=size, progress=progress)

    jobs = disk.jobs(*[(4, 4)] * 6)
    run = finish(FolderRun(jobs, Waiting(), TWICE, Listener(), [Waiting()]))
    assert [result.status for result in run.results] == [Status.WRITTEN] * 6
    assert names(run.results) == [job.target.name for job in jobs]
