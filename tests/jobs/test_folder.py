"""Folder runs: order, memory, faults and interrupts, with decoders and encoders made for it."""

import errno
import os
import random
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from folder_doubles import (
    TIMEOUT,
    TWICE,
    Disk,
    Double,
    Small,
    Watcher,
    double,
    doubled_bytes,
    finish,
    untouched,
)
from hypothesis import given
from hypothesis import strategies as st

from srcli import Upscaler, memory
from srcli.errors import InputError, OutputError
from srcli.imaging.pixels import Pixels
from srcli.io import pictures
from srcli.io.pictures import Picture
from srcli.jobs import folder, plan
from srcli.jobs.folder import FolderRun
from srcli.jobs.outputs import Job
from srcli.jobs.plan import first_factor
from srcli.jobs.preflight import foresee
from srcli.jobs.report import PictureResult, Status
from srcli.settings import Settings, Size


def names(results: list[PictureResult]) -> list[str]:
    return [result.input.name for result in results]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_inputs_however_long_each_takes(disk: Disk, workers: int) -> None:
    dice = random.Random(0)
    disk.delay = lambda: dice.random() * 0.004
    jobs = disk.jobs(*[(4, 4)] * 30)
    run = finish(FolderRun(jobs, [double], replace(TWICE, workers=workers), watcher := Watcher()))
    assert names(run.results) == [job.source.name for job in jobs] == names(watcher.seen)
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
        disk = Disk(delay=lambda: 0.0005, budget=memory)
        for name in ("probe", "read", "write"):
            patch.setattr(pictures, name, getattr(disk, name))
        patch.setattr(plan, "unchanged", untouched)
        patch.setattr(Path, "mkdir", lambda *a, **k: None)
        jobs = disk.jobs(*sizes)
        run = finish(FolderRun(jobs, [Small(memory)], replace(TWICE, workers=workers), Watcher()))
    assert len(disk.written) == len(sizes) == len(run.results)
    largest = max(doubled_bytes(size, memory) for size in sizes)
    assert disk.peak <= max(memory, largest)
    assert disk.most <= 2 * workers + 1


def test_stages_overlap_when_memory_allows(disk: Disk) -> None:
    """The first picture's encoder waits until another picture is being decoded."""
    met = threading.Event()
    jobs = disk.jobs((4, 4), (4, 4))
    decode, encode = disk.read, disk.write

    def read(path: Path, **options: Any) -> Picture:
        if path.name == "1.png":
            met.set()
        return decode(path, **options)

    def write(path: Path, picture: Picture, **options: Any) -> tuple[str, ...]:
        assert path.name != "0.png" or met.wait(TIMEOUT / 2), "nothing was decoded meanwhile"
        return encode(path, picture, **options)

    disk.read, disk.write = read, write  # type: ignore[method-assign, assignment]
    run = finish(FolderRun(jobs, [double], replace(TWICE, workers=1), Watcher()))
    assert [result.status for result in run.results] == [Status.WRITTEN] * 2


@pytest.mark.parametrize("stage", ["probe", "read", "write"])
@pytest.mark.parametrize(
    "error", [InputError("7.png: broken.", "Fix it."), ValueError("a bug"), MemoryError()]
)
def test_an_error_in_any_stage_fails_one_picture_and_nothing_hangs(
    disk: Disk, stage: str, error: Exception
) -> None:
    jobs = disk.jobs(*[(4, 4)] * 12)
    disk.faults = {(stage, "7.png"): error}
    run = finish(FolderRun(jobs, [double], TWICE, Watcher()))
    failed = [result for result in run.results if result.status is Status.FAILED]
    assert names(failed) == ["7.png"]
    assert "7.png" in failed[0].error
    assert sorted(disk.written) == sorted(f"{i}.png" for i in range(12) if i != 7)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("stage", ["read", "write"])
def test_a_full_disk_ends_the_run_and_the_rest_stays_pending(disk: Disk, stage: str, code: int) -> None:
    """Only the picture that found it fails; the same run goes on when there is room."""
    jobs, watcher = disk.jobs(*[(4, 4)] * 40), Watcher()
    full = OutputError("out/5.png cannot be written.")
    full.__cause__ = OSError(code, os.strerror(code))
    disk.faults = {(stage, f"{number}.png"): full for number in range(5, 40)}
    run = finish(FolderRun(jobs, [double], TWICE, watcher))
    status = [result.status for result in run.results]
    assert run.full
    assert not run.interrupted
    assert names(run.results) == [job.source.name for job in jobs]
    assert [status.count(one) for one in (Status.WRITTEN, Status.FAILED)] == [5, 1]
    assert status[-1] is Status.PENDING
    failed = next(result for result in run.results if result.status is Status.FAILED)
    assert "is full" in failed.error
    assert "the same command goes on" in failed.hint
    assert len(watcher.seen) == 6
    disk.faults = {}
    again = finish(FolderRun(jobs, [double], replace(TWICE, overwrite=True), Watcher()))
    assert [result.status for result in again.results] == [Status.WRITTEN] * 40


def test_what_headers_show_is_told_before_the_first_picture_begins(disk: Disk) -> None:
    """Out of order in time, in order in the results."""
    jobs, watcher = disk.jobs(*[(4, 4)] * 6, (4, 20_000)), Watcher()
    jobs[-1] = Job(jobs[-1].source, Path("out/6.webp"))
    disk.faults = {("probe", "3.png"): InputError("3.png: broken.", "Fix it.")}
    told: list[int] = []

    def read(path: Path, **options: object) -> Picture:
        told.append(len(watcher.seen))
        return Disk.read(disk, path, **options)

    disk.read = read  # type: ignore[method-assign]
    run = finish(FolderRun(jobs, [double], TWICE, watcher))
    assert told[0] == 2
    assert names(watcher.seen[:2]) == ["3.png", "6.png"]
    assert len(watcher.seen) == 7
    assert names(run.results) == [job.source.name for job in jobs]
    failed = [result.input.name for result in run.results if result.status is Status.FAILED]
    assert failed == ["3.png", "6.png"]
    assert "16383" in run.results[6].error


def test_failures_known_before_an_interrupt_stay_failures(disk: Disk) -> None:
    jobs = disk.jobs(*[(4, 4)] * 6)
    disk.faults = {("probe", "5.png"): InputError("5.png: broken.", "Fix it.")}
    run = finish(FolderRun(jobs, [double], TWICE, Watcher(interrupt_after=2)))
    assert run.interrupted
    assert run.results[5].status is Status.FAILED


def test_an_error_of_the_engine_fails_that_picture_only(disk: Disk) -> None:
    class Picky(Double):
        def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None]) -> Pixels:
            if image[0, 0, 0] == 2:
                raise RuntimeError("device lost")
            return super().enlarge(image, on_tile)

    run = finish(FolderRun(disk.jobs(*[(4, 4)] * 5), [Picky()], TWICE, Watcher()))
    assert [result.status is Status.FAILED for result in run.results] == [False, False, True, False, False]
    assert "device lost" in run.results[2].error
    assert "bug in srcli" in run.results[2].hint


def test_every_encoder_failing_does_not_hang(disk: Disk) -> None:
    jobs = disk.jobs(*[(4, 4)] * 9)
    disk.faults = {("write", job.target.name): OutputError("disk full") for job in jobs}
    run = finish(FolderRun(jobs, [Small(1)], TWICE, Watcher()))
    assert [result.status for result in run.results] == [Status.FAILED] * 9
    assert run.results[3].error.startswith(str(jobs[3].source))


@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupt_keeps_what_is_done_and_says_what_is_left(disk: Disk, after: int) -> None:
    jobs = disk.jobs(*[(4, 4)] * 20)
    watcher = Watcher(interrupt_after=after)
    run = finish(FolderRun(jobs, [double], TWICE, watcher))
    assert run.interrupted
    assert {r.input.name for r in watcher.seen} == set(disk.written)  # what was cut off did not end
    assert names(run.results) == [job.source.name for job in jobs]
    status = [result.status for result in run.results]
    assert status[:after] == [Status.WRITTEN] * after
    assert status[-1] is Status.PENDING
    assert {r.input.name for r in run.results if r.status is Status.WRITTEN} == set(disk.written)


@pytest.mark.parametrize("asked", [1, 2, 7, 20])
def test_a_stop_that_is_asked_for_ends_the_run_wherever_it_is_noticed(disk: Disk, asked: int) -> None:
    """Nothing is raised into the middle of a step, so nothing that is done is missing either."""
    jobs, watcher = disk.jobs(*[(4, 4)] * 20), Watcher()
    answers = iter([False] * (asked - 1))
    run = finish(FolderRun(jobs, [double], TWICE, watcher, stop=lambda: next(answers, True)))
    assert run.interrupted
    assert names(run.results) == [job.source.name for job in jobs]
    assert {r.input.name for r in run.results if r.status is Status.WRITTEN} == set(disk.written)
    assert {r.input.name for r in watcher.seen} == set(disk.written)
    assert run.results[-1].status is Status.PENDING


def test_a_stop_is_noticed_while_a_picture_takes_long(disk: Disk) -> None:
    class Slow(Double):
        def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None]) -> Pixels:
            begun.set()
            while not told.is_set():  # as an engine does that hears of it between two tiles
                on_tile(1, 2)
            return super().enlarge(image, on_tile)

    class Stopping(Watcher):
        def stopping(self) -> None:
            told.set()

    begun, told = threading.Event(), threading.Event()
    run = finish(FolderRun(disk.jobs((4, 4), (4, 4)), [Slow()], TWICE, Stopping(), stop=begun.is_set))
    assert run.interrupted
    assert not disk.written
    assert [result.status for result in run.results] == [Status.PENDING] * 2


def test_after_a_stop_no_other_picture_begins_and_one_that_is_there_is_written(disk: Disk) -> None:
    """The engine has one picture's last tile when the stop is asked for, and others are decoded."""

    class Last(Double):
        def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None]) -> Pixels:
            begun.append(image[0, 0, 0])
            assert told.wait(TIMEOUT)
            return super().enlarge(image, lambda done, total: None if done < 2 else on_tile(2, 2))

    class Stopping(Watcher):
        def stopping(self) -> None:
            told.set()

    begun, told = [], threading.Event()
    jobs = disk.jobs(*[(4, 4)] * 4)
    run = finish(FolderRun(jobs, [Last()], TWICE, Stopping(), stop=lambda: bool(begun)))
    assert begun == [0]
    assert [result.status for result in run.results] == [Status.WRITTEN, *[Status.PENDING] * 3]


def test_a_run_begins_by_sweeping_the_folders_it_writes_to(disk: Disk) -> None:
    left = Path("out", ".srcli-0.part")
    left.parent.mkdir()
    left.touch()
    os.utime(left, (0, 0))
    finish(FolderRun(disk.jobs((4, 4)), [double], TWICE, Watcher()))
    assert not left.exists()


def test_files_of_others_are_kept_unless_overwritten(disk: Disk) -> None:
    jobs = disk.jobs((4, 4), (4, 4))
    Path("out").mkdir()
    cv2.imwrite(str(jobs[0].target), np.zeros((8, 8, 3), np.uint8))
    assert [r.status for r in finish(FolderRun(jobs, [double], TWICE, Watcher())).results] == [
        Status.KEPT,
        Status.WRITTEN,
    ]
    assert foresee(jobs[0], double, TWICE).status is Status.KEPT
    again = replace(TWICE, overwrite=True)
    assert [r.status for r in finish(FolderRun(jobs, [double], again, Watcher())).results] == [
        Status.WRITTEN
    ] * 2


def test_sizes_too_large_fail_before_anything_is_decoded(disk: Disk) -> None:
    jobs = disk.jobs((4, 4), (40, 40))
    run = finish(FolderRun(jobs, [double], Settings("double", width=80, provenance=False), Watcher()))
    assert "16 times is the limit" in run.results[0].error
    assert run.results[1].status is Status.WRITTEN
    assert "0.png" not in disk.alive


def test_foresee_gives_the_sizes_of_the_real_run(disk: Disk) -> None:
    jobs = disk.jobs((3, 5))
    foreseen = foresee(jobs[0], double, TWICE)
    real = finish(FolderRun(jobs, [double], TWICE, Watcher())).results[0]
    assert (
        (foreseen.input_size, foreseen.output_size)
        == (real.input_size, real.output_size)
        == ((3, 5), (6, 10))
    )
    assert foreseen.status is Status.PLANNED


@pytest.mark.parametrize("short_of", ["memory", "disk space"])
def test_run_and_foresee_refuse_what_has_no_room(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, short_of: str
) -> None:
    jobs = disk.jobs((300, 500))
    settings = replace(TWICE, memory=memory.LEAST - 1) if short_of == "memory" else TWICE
    if short_of == "disk space":
        usage = shutil.disk_usage(".")._replace(free=100)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    foreseen = foresee(jobs[0], double, settings)
    real = finish(FolderRun(jobs, [double], settings, Watcher())).results[0]
    assert foreseen.status is real.status is Status.FAILED
    assert foreseen.error == real.error
    assert not disk.alive


def test_the_first_network_is_one_that_is_used(disk: Disk) -> None:
    jobs = disk.jobs((40, 40), (10, 10))
    assert first_factor(jobs, Settings(scale=3)) == 3
    assert first_factor(jobs, Settings(width=30)) == 3  # the first picture only shrinks
    assert first_factor(jobs, Settings(width=10)) == 4  # none grows: the default
    assert first_factor([], Settings(width=10)) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, priorities belong to processes")
def test_threads_beside_the_network_stand_back_and_never_push_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was started with the lowest priority stays there; a system that refuses is no error."""
    asked: list[int] = []
    monkeypatch.setattr(os, "setpriority", lambda which, who, priority: asked.append(priority))
    for own in (0, 12, 19):
        monkeypatch.setattr(os, "getpriority", lambda which, who, own=own: own)
        folder.lower_priority()
    assert asked == [10, 19, 19]

    def refuse(which: int, who: int, priority: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    folder.lower_priority()


def test_further_engines_take_a_picture_each(disk: Disk) -> None:
    """Two engines that wait for each other: one alone would wait for ever."""
    both = threading.Barrier(2, timeout=TIMEOUT / 2)

    class Waiting(Double):
        def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None]) -> Pixels:
            both.wait()
            return super().enlarge(image, on_tile)

    jobs = disk.jobs(*[(4, 4)] * 6)
    run = finish(FolderRun(jobs, [Waiting(), Waiting()], TWICE, Watcher()))
    assert [result.status for result in run.results] == [Status.WRITTEN] * 6
    assert names(run.results) == [job.target.name for job in jobs]


def test_a_run_counts_with_its_models_scales_and_its_outputs_format(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, tiny_catalog: Path
) -> None:
    class Eight(Double):
        scales: tuple[int, ...] = (8,)

    seen: list[tuple[object, ...]] = []

    def count(*facts: object) -> int:
        seen.append(facts[2:4])
        return 1

    monkeypatch.setattr(memory, "of_picture", count)
    finish(FolderRun(disk.jobs((4, 4)), [Eight()], TWICE, Watcher()))
    assert seen[0] == ((8,), "png")
    assert Upscaler("tiny", 2, backend="onnxruntime").scales == (2, 3, 4)
    assert Upscaler("bicubic", 2).scales == ()


def test_a_model_that_cannot_enlarge_fails_the_picture_only(disk: Disk) -> None:
    class Flat(Double):
        scales: tuple[int, ...] = (1,)

    run = finish(FolderRun(disk.jobs((4, 4)), [Flat()], TWICE, Watcher()))
    assert [result.status for result in run.results] == [Status.FAILED]


def test_an_engine_that_is_lost_fails_what_is_left(disk: Disk) -> None:
    class Lost(Double):
        def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None]) -> Pixels:
            raise ValueError("gone")

    run = finish(FolderRun(disk.jobs(*[(4, 4)] * 9), [Lost()], TWICE, Watcher()))
    assert [result.status for result in run.results] == [Status.FAILED] * 9
    assert not run.interrupted
