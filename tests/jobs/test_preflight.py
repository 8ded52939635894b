"""What headers show before a run: places and names that take no file, and the space for all results."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from folder_doubles import TWICE, Watcher, double

from srcli.errors import OutputError
from srcli.io import pictures
from srcli.io.pictures import Header
from srcli.jobs.folder import FolderRun
from srcli.jobs.outputs import Job
from srcli.jobs.preflight import Preflight, result_bytes
from srcli.jobs.report import Status

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


def make(path: Path, height: int = 40, width: int = 60) -> Path:
    """Noise, which no encoder makes small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    pictures.write(path, pictures.Picture(noise))
    return path


def free(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    usage = shutil.disk_usage(".")._replace(free=size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sub_folder_that_cannot_be_made_fails_its_pictures_only(work: Path) -> None:
    jobs = [
        Job(make(Path("in/a.png")), Path("out/a.png")),
        Job(make(Path("in/sub/b.png")), Path("out/sub/b.png")),
    ]
    Path("out").mkdir()
    Path("out/sub").write_bytes(b"in the way")
    run = FolderRun(jobs, [double], TWICE, Watcher()).run()
    assert [result.status for result in run.results] == [Status.WRITTEN, Status.FAILED]
    assert "out/sub is not a folder" in run.results[1].error
    assert "out/sub/b.png" in run.results[1].error


@pytest.mark.skipif(ROOT or os.name == "nt", reason="root may write anywhere")
def test_a_sub_folder_that_takes_no_files_fails_its_pictures_only(work: Path) -> None:
    job = Job(make(Path("in/sub/b.png")), Path("out/sub/b.png"))
    Path("out/sub").mkdir(parents=True)
    Path("out/sub").chmod(0o500)
    result = Preflight(double, TWICE).look(job).result
    assert result.status is Status.FAILED
    assert "nothing can be written to out/sub" in result.error


def test_a_folder_is_tried_once(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Path] = []
    monkeypatch.setattr("srcli.jobs.preflight.check_takes_files", lambda folder, what: tried.append(folder))
    preflight = Preflight(double, TWICE)
    for name in ("a", "b", "c"):
        preflight.look(Job(make(Path(f"{name}.png")), Path(f"out/{name}.png")))
    assert tried == [Path("out")]


@pytest.mark.skipif(os.name == "nt", reason="there, other names are refused")
def test_a_name_that_becomes_too_long_fails_and_the_rest_goes_on(work: Path) -> None:
    long = make(Path("in", "x" * 251 + ".png"))
    jobs = [Job(long, Path("out", long.name.replace(".png", ".jpeg"))), Job(long, Path("out", long.name))]
    run = FolderRun(jobs, [double], TWICE, Watcher()).run()
    assert [result.status for result in run.results] == [Status.FAILED, Status.WRITTEN]
    assert "no file can have this name" in run.results[0].error


def test_results_that_may_not_fit_are_told_and_made(
    work: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = [Job(make(Path(f"in/{number}.png")), Path(f"out/{number}.png")) for number in range(4)]
    each = result_bytes(jobs[0], Header(40, 60, 3, 8, "png"), (80, 120))[1]
    assert each == 4 * jobs[0].source.stat().st_size or each == 80 * 120 * 3
    for size, told in ((4 * each, False), (4 * each - 1, True)):
        caplog.clear()
        free(monkeypatch, size)
        preflight = Preflight(double, TWICE)
        assert all(preflight.look(job).result.status is Status.PLANNED for job in jobs)
        preflight.check_space()
        assert ("may take" in caplog.text) is told
    run = FolderRun(jobs, [double], TWICE, Watcher()).run()
    assert {result.status for result in run.results} == {Status.WRITTEN}


def test_results_that_cannot_fit_are_refused_before_anything_is_made(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job(make(Path(f"in/{number}.png")), Path(f"out/{number}.bmp")) for number in range(4)]
    free(monkeypatch, 4 * 80 * 120 * 3 - 1)
    with pytest.raises(OutputError, match="free"):
        FolderRun(jobs, [double], TWICE, Watcher()).run()
    assert not Path("out").exists()


def test_a_result_that_cannot_fit_alone_fails_alone(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [
        Job(make(Path("in/large.png"), 80, 120), Path("out/large.bmp")),
        Job(make(Path("in/small.png")), Path("out/small.bmp")),
    ]
    free(monkeypatch, 80 * 120 * 3 + 10)
    run = FolderRun(jobs, [double], TWICE, Watcher()).run()
    assert [result.status for result in run.results] == [Status.FAILED, Status.WRITTEN]
    assert "out/large.bmp needs" in run.results[0].error


@pytest.mark.parametrize("written", ["png", "jpg", "bmp", "tif", "webp", "avif"])
def test_a_result_takes_at_least_what_is_counted(work: Path, written: str) -> None:
    """Of a picture in one colour, which every format makes as small as it can."""
    flat = np.full((400, 600, 3), 128, np.uint8)
    path = Path(f"flat.{written}")
    pictures.write(path, pictures.Picture(flat))
    least, likely = result_bytes(Job(path, path), pictures.probe(path), (400, 600))
    assert least <= path.stat().st_size <= likely + 1000
