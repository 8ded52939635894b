"""The folder pipeline: order, memory, faults and interrupts, with decoders and encoders made for it."""

import os
import random
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.backends.base import EngineInfo
from srcli.errors import InputError, OutputError
from srcli.media import images
from srcli.media.images import Header, Picture
from srcli.pipelines import folder
from srcli.pipelines.folder import FolderOptions, FolderRun, Pixels, foresee
from srcli.pipelines.memory import picture_bytes
from srcli.pipelines.names import Job
from srcli.pipelines.outputs import first_factor
from srcli.pipelines.progress import NullProgress
from srcli.pipelines.report import PictureResult, Status
from srcli.pipelines.sizes import Size, SizeRequest
from srcli.upscaler import Made

TIMEOUT = 20.0
TWICE = FolderOptions(SizeRequest(2))


class Double:
    """Nearest-neighbour x2, in two tiles."""

    made = Made("double", (2,), EngineInfo("test", "cpu", "f32"))

    def __call__(
        self, image: Pixels, *, size: Size | None, progress: Callable[[int, int], None] | None
    ) -> Pixels:
        for done in (1, 2):
            if progress is not None:
                progress(done, 2)
        return np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)


double = Double()


def finish(run: FolderRun) -> FolderRun:
    """Run it, but not forever: a pipeline that hangs fails its test."""
    thread = threading.Thread(target=run.run, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "the pipeline hangs"
    return run


@dataclass
class Disk:
    """Pictures in memory in place of `srcli.media.images`; faults and delays by name."""

    sizes: dict[str, Size] = field(default_factory=dict)
    faults: dict[tuple[str, str], Exception] = field(default_factory=dict)
    delay: Callable[[], float] = lambda: 0.0
    written: dict[str, Pixels] = field(default_factory=dict)
    alive: dict[str, int] = field(default_factory=dict)
    peak: int = 0
    most: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def jobs(self, *sizes: Size) -> list[Job]:
        """A job for each size, 0.png, 1.png, ..."""
        self.sizes = {f"{index}.png": size for index, size in enumerate(sizes)}
        return [Job(Path("in", name), Path("out", name)) for name in self.sizes]

    def probe(self, path: Path) -> Header:
        self._visit("probe", path)
        return Header(*self.sizes[path.name], 3, 8, "png")

    def read(self, path: Path) -> Picture:
        with self.lock:
            self.alive[path.name] = picture_bytes(Header(*self.sizes[path.name], 3, 8, "png"), TWICE.size)
            self.peak = max(self.peak, sum(self.alive.values()))
            self.most = max(self.most, len(self.alive))
        self._visit("read", path)
        shade = int(path.stem) % 251
        return Picture(np.full((*self.sizes[path.name], 3), shade, np.uint8))

    def write(
        self,
        path: Path,
        picture: Picture,
        *,
        format: str | None,  # noqa: A002
        quality: int | None,
    ) -> tuple[str, ...]:
        self._visit("write", path)
        with self.lock:
            self.written[path.name] = picture.pixels
            del self.alive[path.name]
        return ()

    def _visit(self, stage: str, path: Path) -> None:
        sleep(self.delay())
        if error := self.faults.get((stage, path.name)):
            with self.lock:
                self.alive.pop(path.name, None)
            raise error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Disk:
    monkeypatch.chdir(tmp_path)
    made = Disk()
    for name in ("probe", "read", "write"):
        monkeypatch.setattr(images, name, lambda *a, _name=name, **k: getattr(made, _name)(*a, **k))
    return made


@dataclass
class Listener(NullProgress):
    """Remembers what it was told; interrupts the run after so many pictures."""

    interrupt_after: int = -1
    told: list[PictureResult] = field(default_factory=list)

    def finished(self, result: PictureResult) -> None:
        self.told.append(result)
        if len(self.told) == self.interrupt_after:
            raise KeyboardInterrupt


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
        for name in ("probe", "read", "write"):
            patch.setattr(images, name, getattr(disk, name))
        patch.setattr(Path, "mkdir", lambda *a, **k: None)
        jobs = disk.jobs(*sizes)
        run = finish(FolderRun(jobs, double, replace(TWICE, memory=memory, workers=workers), Listener()))
    assert len(disk.written) == len(sizes) == len(run.results)
    largest = max(picture_bytes(Header(*size, 3, 8, "png"), TWICE.size) for size in sizes)
    assert disk.peak <= max(memory, largest)
    assert disk.most <= 2 * workers + 1


def test_stages_overlap_when_memory_allows(disk: Disk) -> None:
    """The first picture's encoder waits until another picture is being decoded."""
    met = threading.Event()
    jobs = disk.jobs((4, 4), (4, 4))
    decode, encode = disk.read, disk.write

    def read(path: Path) -> Picture:
        if path.name == "1.png":
            met.set()
        return decode(path)

    def write(path: Path, picture: Picture, **options: Any) -> tuple[str, ...]:
        assert path.name != "0.png" or met.wait(TIMEOUT / 2), "nothing was decoded meanwhile"
        return encode(path, picture, **options)

    disk.read, disk.write = read, write  # type: ignore[method-assign, assignment]
    run = finish(FolderRun(jobs, double, replace(TWICE, workers=1), Listener()))
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
    disk.faults = {("write", job.target.name): OutputError("disk full") for job in jobs}
    run = finish(FolderRun(jobs, double, replace(TWICE, memory=1), Listener()))
    assert [result.status for result in run.results] == [Status.FAILED] * 9
    assert run.results[3].error.startswith(str(jobs[3].source))


@pytest.mark.parametrize("after", [1, 4])
def test_an_interrupt_keeps_what_is_done_and_says_what_is_left(disk: Disk, after: int) -> None:
    jobs = disk.jobs(*[(4, 4)] * 20)
    run = finish(FolderRun(jobs, double, TWICE, Listener(interrupt_after=after)))
    assert run.interrupted
    assert names(run.results) == [job.source.name for job in jobs]
    status = [result.status for result in run.results]
    assert status[:after] == [Status.WRITTEN] * after
    assert status[-1] is Status.PENDING
    assert {r.input.name for r in run.results if r.status is Status.WRITTEN} == set(disk.written)


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


def test_bytes_of_a_picture_are_its_input_and_three_times_its_output() -> None:
    assert picture_bytes(Header(10, 20, 3, 8, "png"), SizeRequest(2)) == 3 * (200 + 5 * 800)
    assert picture_bytes(Header(10, 20, 4, 16, "png"), SizeRequest(width=20)) == 8 * (200 + 5 * 200)
    between = 4 * 200  # x1.5 runs the network at x2
    assert picture_bytes(Header(10, 20, 3, 8, "png"), SizeRequest(1.5)) == 3 * (200 + between + 5 * 450)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, priorities belong to processes")
def test_threads_beside_the_network_stand_back_and_never_push_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was started with the lowest priority stays there; a system that refuses is no error."""
    asked: list[int] = []
    monkeypatch.setattr(os, "setpriority", lambda which, who, priority: asked.append(priority))
    for own in (0, 12, 19):
        monkeypatch.setattr(os, "getpriority", lambda which, who, own=own: own)
        folder._yield()
    assert asked == [10, 19, 19]

    def refuse(which: int, who: int, priority: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    folder._yield()
