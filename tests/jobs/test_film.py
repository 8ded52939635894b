"""Film runs: all frames and streams, kills and continuations, damage, one decision a film."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import copies
import numpy as np
import pytest
import scenes
from folder_doubles import COMPUTED, TWICE, Double, Watcher, double

from srcli.errors import OutputError
from srcli.imaging.pixels import Pixels
from srcli.io.films import journal, segments
from srcli.io.films.facts import probe
from srcli.io.films.segments import SegmentWriter
from srcli.jobs import film as film_runs
from srcli.jobs import film_plan, film_worker
from srcli.jobs.film import FilmRun, partial_of, run_films
from srcli.jobs.film_plan import foresee
from srcli.jobs.outputs import Job
from srcli.jobs.report import PictureResult, Status
from srcli.settings import FilmSettings, Settings
from srcli.stream import Computed, Image, Result

SCENE = scenes.Scene(frames=40)
LOSSLESS = replace(TWICE, provenance=True, film=FilmSettings(lossless=True))


class Failing(Double):
    """Fails after so many frames, as a machine does that loses power: nothing is tidied up after it."""

    def __init__(self, frames: int) -> None:
        self.left = frames

    def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None]) -> Pixels:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("lost")
        return super().enlarge(image, on_tile)


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(film_plan, "SEGMENT", 16)
    monkeypatch.chdir(tmp_path)


def job(name: str = "out/film.mkv", scene: scenes.Scene = SCENE, source: str = "film.mkv") -> Job:
    if not Path(source).exists():
        scenes.write(Path(source), scene)
    return Job(Path(source), Path(name), film=True)


def run(one: Job, settings: Settings = LOSSLESS, *upscalers: Any) -> PictureResult:
    return FilmRun(one, upscalers or (double,), settings, Watcher()).run()


def test_every_frame_comes_out_in_order_at_its_time_with_all_sound() -> None:
    result = run(one := job())
    assert (result.status, result.error) == (Status.WRITTEN, "")
    assert (result.input_size, result.output_size) == ((96, 128), (192, 256))
    assert copies.numbers(one.target) == list(range(40))
    assert copies.times(one.target) == copies.times(one.source)
    assert copies.packets(one.target, "audio") == copies.packets(one.source, "audio")
    assert result.film is not None
    assert (result.film.frames, result.film.lost, result.film.dropped) == (40, (), ())
    assert not journal.folder_of(one.target).exists()


@pytest.mark.parametrize("frames", [1, 15, 16, 31, 32, 33])
def test_segments_cover_any_number_of_frames(frames: int) -> None:
    one = job(scene=scenes.Scene(frames=frames))
    assert run(one).status is Status.WRITTEN
    assert copies.numbers(one.target) == list(range(frames))


def test_equal_frames_are_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of ten pictures stands for four frames, and segments change within them."""
    draw, calls = scenes.picture, Counter[str]()
    monkeypatch.setattr(scenes, "picture", lambda scene, number, *more: draw(scene, number // 4, *more))
    monkeypatch.setattr(film_plan, "SEGMENT", 10)
    for name in ("to_rgb", "_to_planes"):
        real = getattr(film_worker, name)

        def counted(*given: Any, name: str = name, real: Callable[..., Any] = real) -> Any:
            calls[name] += 1
            return real(*given)

        monkeypatch.setattr(film_worker, name, counted)
    one = job(scene=scenes.Scene(frames=40, codec="ffv1", options={}), source="held.mkv")
    assert run(one).status is Status.WRITTEN
    assert copies.numbers(one.target) == [number // 4 for number in range(40)]
    assert calls == {"to_rgb": 10, "_to_planes": 10}


@pytest.mark.parametrize("codec", ["ffv1", "h264", "h265", "av1", "vp9"])
def test_a_continued_run_gives_the_same_bytes(codec: str) -> None:
    """Stopped at frames 5, 21 and 38: within the first segment, the second and the last."""
    settings = replace(LOSSLESS, film=FilmSettings(codec=codec))
    undisturbed = job("whole/film.mkv")
    assert run(undisturbed, settings).status is Status.WRITTEN
    one = job()
    done = 0
    for stop in (5, 21, 38):
        failed = run(one, settings, Failing(stop - done))
        assert (failed.status, one.target.exists()) == (Status.FAILED, False)
        done = stop - 3  # what was on its way to the encoder is made again
    assert run(one, settings).status is Status.WRITTEN
    assert one.target.read_bytes() == undisturbed.target.read_bytes()


def test_finished_frames_of_an_open_segment_are_not_enlarged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_worker, "_SLOW", 0.0)
    one = job()
    run(one, LOSSLESS, Failing(30))
    counted = Failing(1000)
    assert run(one, LOSSLESS, counted).status is Status.WRITTEN
    assert 1000 - counted.left <= 40 - 30 + 2 * film_worker._AHEAD + film_plan._SAMPLES


def test_damaged_work_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_worker, "_SLOW", 0.0)
    one = job()
    run(one, LOSSLESS, Failing(30))
    folder = journal.folder_of(one.target)
    kept = sorted(folder.glob("*/*.npz"))
    kept[-2].write_bytes(kept[-2].read_bytes()[:-900] + bytes(900))
    with (folder / "journal.jsonl").open("a") as file:
        file.write('{"number":1,"frames":1')
    assert run(one).status is Status.WRITTEN
    assert copies.numbers(one.target) == list(range(40))


def stopped_after(one: Job, frames: int, settings: Settings = LOSSLESS) -> Path:
    """A run that failed there; the folder of its work."""
    assert run(one, settings, Failing(frames)).status is Status.FAILED
    return journal.folder_of(one.target)


def test_a_hole_among_the_finished_frames_is_filled() -> None:
    run(whole := job("whole/film.mkv"))
    folder = stopped_after(one := job(), 12)
    sorted(folder.glob("*/*.npz"))[4].unlink()
    assert run(one).status is Status.WRITTEN
    assert one.target.read_bytes() == whole.target.read_bytes()


@pytest.mark.parametrize("how", ["cut", "zeroed", "emptied", "one byte", "gone"])
def test_a_damaged_segment_is_made_again(how: str) -> None:
    run(whole := job("whole/film.mkv"))
    segment = stopped_after(one := job(), 28) / "000000.nut"
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    contents = {"cut": data[:-200], "zeroed": bytes(len(data)), "emptied": b"", "one byte": data}
    segment.unlink() if how == "gone" else segment.write_bytes(contents[how])
    assert run(one).status is Status.WRITTEN
    assert one.target.read_bytes() == whole.target.read_bytes()


def test_segments_that_are_lost_whole_are_left_out() -> None:
    scene = scenes.Scene(frames=80, codec="mpeg4", options={"g": "1", "bf": "0"}, audio=())
    skip = replace(LOSSLESS, film=FilmSettings(lossless=True, on_error="skip"))
    one = job(scene=scene, source="film.avi")
    scenes.damage(one.source, range(20, 52))
    result = run(whole := job("whole/film.mkv", source="film.avi"), skip)
    assert result.film is not None
    assert any("damaged frames" in note for note in result.notes)
    for frames in (10, 24, 40):
        stopped_after(one, frames, skip)
        assert run(one, skip).status is Status.WRITTEN
        assert one.target.read_bytes() == whole.target.read_bytes()
        one.target.unlink()


@pytest.mark.parametrize(
    ("before", "way", "anew"),
    [("stop", "skip", 30), ("stop", "repeat", 30), ("repeat", "skip", 50), ("skip", "repeat", 50)],
)
def test_another_way_with_damage_makes_only_what_lost_frames_anew(
    before: Any, way: Any, anew: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second and the last of five segments lose frames; a run that stops does so in the last."""
    monkeypatch.setattr(film_worker, "_SLOW", 0.0)
    scene = scenes.Scene(frames=80, codec="mpeg4", options={"g": "1", "bf": "0"}, audio=())
    one = job(scene=scene, source="film.avi")
    scenes.damage(one.source, [70] if before == "stop" else [20, 70])
    lossless = FilmSettings(lossless=True)
    first, then = (replace(LOSSLESS, film=replace(lossless, on_error=each)) for each in (before, way))
    result = run(whole := job("whole/film.mkv", source="film.avi"), then)
    stopped_after(one, 76, first)
    counted = Failing(1000)
    again = run(one, then, counted)
    assert (again.status, again.film) == (Status.WRITTEN, result.film)
    assert one.target.read_bytes() == whole.target.read_bytes()
    assert 1000 - counted.left < anew


def test_another_input_of_the_same_size_never_continues_a_run() -> None:
    stopped_after(one := job(), 30)
    os.utime(one.source, (1, 1))
    assert run(one).status is Status.FAILED
    assert run(one, replace(LOSSLESS, overwrite=True)).status is Status.WRITTEN


def test_an_input_replaced_meanwhile_fails_the_film() -> None:
    one = job()

    class Replacing(Double):
        def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None]) -> Pixels:
            if not Path("copy.mkv").exists():
                shutil.copy(one.source, "copy.mkv")
                shutil.copy(one.source, "other.mkv")
                Path("other.mkv").replace(one.source)
            return super().enlarge(image, on_tile)

    result = run(one, LOSSLESS, Replacing())
    assert (result.status, "changed" in result.error, one.target.exists()) == (Status.FAILED, True, False)


def test_a_film_that_is_not_as_written_never_gets_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    one, real = job(), film_runs.verify
    with monkeypatch.context() as patch:
        patch.setattr(film_runs, "verify", lambda *a, **k: replace(real(*a, **k), frames=39))
        assert (run(one).status, one.target.exists()) == (Status.FAILED, False)
    assert run(one).status is Status.WRITTEN


def test_work_left_beside_a_whole_film_is_removed() -> None:
    run(one := job())
    folder = journal.folder_of(one.target)
    folder.mkdir()
    (folder / "000000.nut").write_bytes(b"x")
    assert (run(one).status, folder.exists()) == (Status.SKIPPED, False)


def test_kill_9_loses_nothing() -> None:
    """The whole command, killed at several moments."""
    one = job(scene=scenes.Scene(frames=150, width=320, height=240))
    command = [sys.executable, "-m", "srcli", "upscale", str(one.source), "-s", "2", "--backend", "bicubic"]
    command += ["--codec", "ffv1", "-q", "-o"]
    subprocess.run([*command, "whole.mkv"], check=True)
    for seconds in (1.2, 1.6, 2.0):
        process = subprocess.Popen([*command, str(one.target)])
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(one.target)], check=True)
    assert one.target.read_bytes() == Path("whole.mkv").read_bytes()
    assert [path.name for path in Path("out").iterdir()] == ["film.mkv"]


def test_several_engines_share_the_segments() -> None:
    run(alone := job("alone/film.mkv"))
    result = run(one := job(), LOSSLESS, Double(), Double(), Double())
    assert result.status is Status.WRITTEN
    assert one.target.read_bytes() == alone.target.read_bytes()


def test_an_interrupt_leaves_the_film_pending_and_the_next_run_finishes_it() -> None:
    one = job()
    stopping = FilmRun(one, (double,), LOSSLESS, Watcher(), lambda: True)
    assert (stopping.run().status, stopping.interrupted) == (Status.PENDING, True)
    assert not one.target.exists()
    assert run(one).status is Status.WRITTEN


PARTIAL = replace(LOSSLESS, film=FilmSettings(lossless=True, keep_partial=True))


def partial_numbers(one: Job) -> list[int]:
    """The frames of what was kept of a film, which plays."""
    place = partial_of(one.target)
    assert copies.times(place) == copies.times(one.source)[: len(copies.times(place))]
    return copies.numbers(place)


def test_what_is_done_is_joined_when_a_run_ends_early() -> None:
    scene = scenes.Scene(frames=50, subtitles=True, chapters=True)
    one = job("out/film.mkv", scene)
    assert run(one, PARTIAL, Failing(40)).status is Status.FAILED
    assert (one.target.exists(), partial_numbers(one)) == (False, list(range(32)))
    end = Fraction(32, 25)
    assert copies.packets(partial_of(one.target), "audio") == [
        packet for packet in copies.packets(one.source, "audio") if packet[0] < end
    ]
    assert run(one, PARTIAL).status is Status.WRITTEN
    assert copies.numbers(one.target) == list(range(50))
    assert [path.name for path in Path("out").iterdir()] == ["film.mkv"]


def test_what_a_killed_run_did_is_joined_before_it_goes_on() -> None:
    run(one := job(), LOSSLESS, Failing(38))
    assert not partial_of(one.target).exists()
    stopped = FilmRun(one, (Failing(0),), PARTIAL, Watcher())
    assert stopped.run().status is Status.FAILED
    assert partial_numbers(one) == list(range(16))
    before = partial_of(one.target).stat()
    assert run(one, PARTIAL, Failing(0)).status is Status.FAILED
    assert partial_of(one.target).stat() == before


def test_an_interrupt_keeps_what_is_done(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "srcli")
    one, ready = job(), threading.Event()

    class Slow(Double):
        left = 20

        def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None]) -> Pixels:
            self.left -= 1
            if self.left <= 0:
                ready.set()
                time.sleep(0.05)
            return super().enlarge(image, on_tile)

    film = FilmRun(one, (Slow(),), PARTIAL, Watcher(), ready.is_set)
    assert (film.run().status, film.interrupted) == (Status.PENDING, True)
    assert partial_numbers(one) == list(range(16))
    assert "has the first 16 of 40 frames" in caplog.text


def test_what_else_has_the_name_of_a_partial_film_stays() -> None:
    one = job()
    place = partial_of(one.target)
    place.parent.mkdir()
    scenes.write(place, scenes.Scene(frames=2))
    before = place.read_bytes()
    assert run(one, PARTIAL, Failing(38)).status is Status.FAILED
    assert run(one, PARTIAL).status is Status.WRITTEN
    assert place.read_bytes() == before


def test_a_partial_film_is_no_finished_one() -> None:
    run(one := job(), PARTIAL, Failing(38))
    partial_of(one.target).rename(one.target)
    assert run(one, PARTIAL).status is Status.KEPT


@pytest.mark.parametrize("full", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_what_is_kept_and_how_to_go_on(full: int, monkeypatch: pytest.MonkeyPatch) -> None:
    add, left = SegmentWriter.add, [20]

    def failing(self: SegmentWriter, *frame: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(full, "no space")
        add(self, *frame)

    monkeypatch.setattr(SegmentWriter, "add", failing)
    result = run(one := job())
    assert result.status is Status.FAILED
    assert "the disk is full, after 16 of 40 frames" in result.error
    assert str(journal.folder_of(one.target)) in result.hint
    assert "--keep-partial" in result.hint
    assert run(one).status is Status.WRITTEN


class Full:
    """In place of a function: works so many times, then the disk is full."""

    def __init__(self, works: Callable[..., Any], times: int) -> None:
        self.works, self.left = works, times

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.works(*arguments, **more)


def test_a_full_disk_is_said_where_finished_frames_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_worker, "_SLOW", 0.0)
    one = job()
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", Full(np.savez, 20))
        result = run(one)
    assert "the disk is full, after 16 of 40 frames" in result.error
    assert str(journal.folder_of(one.target)) in result.hint
    assert run(one).status is Status.WRITTEN


@pytest.mark.parametrize("place", ["mkdir", "write_text"])
def test_a_full_disk_is_said_before_the_first_frame(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = job()
    with monkeypatch.context() as patch:
        patch.setattr(Path, place, Full(getattr(Path, place), 0))
        result = run(one)
    assert "the disk is full, after 0 of 40 frames" in result.error
    assert "Free some space" in result.hint
    assert run(one).status is Status.WRITTEN


def test_a_full_disk_at_the_join_keeps_all_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OutputError("full") from OSError(errno.ENOSPC, "no space")

    one = job()
    with monkeypatch.context() as patch:
        patch.setattr("srcli.io.films.segments.join", full)
        result = run(one, PARTIAL)
    assert "the disk is full, after 40 of 40 frames" in result.error
    assert run(one, LOSSLESS, Failing(0)).status is Status.WRITTEN


def test_other_settings_never_continue_a_run() -> None:
    one = job()
    run(one, LOSSLESS, Failing(20))
    other = replace(LOSSLESS, film=FilmSettings(codec="h265"))
    refused = run(one, other)
    assert (refused.status, one.target.exists()) == (Status.FAILED, False)
    assert "other settings" in refused.error
    assert run(one, replace(other, overwrite=True)).status is Status.WRITTEN
    assert probe(one.target).codec == "hevc"


def test_two_runs_at_once_are_refused() -> None:
    one = job()
    with journal.opened(one.target, "record", "stop"):
        refused = run(one)
    assert refused.status is Status.FAILED
    assert "another run" in refused.error


def test_what_is_done_is_skipped_and_what_others_made_is_left_alone() -> None:
    run(one := job())
    before = one.target.stat().st_mtime_ns
    assert run(one).status is Status.SKIPPED
    other = run(one, replace(LOSSLESS, ensemble=True))
    assert (other.status, "ensemble" in other.error) == (Status.FAILED, True)
    scenes.write(one.target, SCENE)
    assert run(one).status is Status.KEPT
    assert before != one.target.stat().st_mtime_ns
    assert run(one, replace(LOSSLESS, overwrite=True)).status is Status.WRITTEN


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4", "film.mov", "film.webm"])
def test_every_container_says_what_made_the_film(name: str) -> None:
    settings = replace(LOSSLESS, film=FilmSettings())
    one = job(f"out/{name}")
    assert run(one, settings).status is Status.WRITTEN
    assert run(one, settings).status is Status.SKIPPED


def test_the_record_names_no_place_and_no_moment() -> None:
    run(one := job())
    with av.open(str(one.target)) as made:
        text = {key.lower(): value for key, value in made.metadata.items()}["upscaled_by"]
    record = json.loads(text)
    assert record["model"] == "double"
    assert len(record["input_sha256"]) == 64
    assert str(Path.cwd()) not in text


@pytest.mark.parametrize(("way", "frames"), [("repeat", 40), ("skip", None), ("stop", None)])
def test_damaged_frames_are_counted_and_treated_as_asked_for(way: Any, frames: int | None) -> None:
    scene = scenes.Scene(frames=40, codec="mpeg4", options={"g": "1", "bf": "0"})
    one = job(scene=scene, source="film.avi")
    scenes.damage(one.source, [17])
    result = run(one, replace(LOSSLESS, film=FilmSettings(lossless=True, on_error=way)))
    if way == "stop":
        assert (result.status, one.target.exists()) == (Status.FAILED, False)
        return
    assert result.film is not None
    lost = len(result.film.lost)
    assert result.film.frames == (frames or 40 - lost)
    assert len(copies.times(one.target)) == result.film.frames


def test_a_film_that_is_cut_off_is_no_shorter_success() -> None:
    one = job(source="film.mp4")
    scenes.cut(one.source, 0.6)
    assert run(one).status is Status.FAILED
    assert not one.target.exists()


def test_films_without_picture_are_refused() -> None:
    one = job(scene=scenes.Scene(codec=None, frames=25), source="sound.mkv")
    result = run(one)
    assert result.status is Status.FAILED
    assert "sound.mkv" in result.error


def test_interlaced_films_need_deinterlacing() -> None:
    scene = scenes.Scene(frames=20, codec="mpeg2video", options={"flags": "+ildct+ilme"}, interlaced=True)
    one = job(scene=scene)
    refused = run(one)
    assert (refused.status, "--deinterlace" in refused.hint) == (Status.FAILED, True)
    asked = replace(LOSSLESS, film=FilmSettings(lossless=True, deinterlace=True))
    assert run(one, asked).status is Status.WRITTEN
    assert copies.numbers(one.target) == list(range(20))


@pytest.mark.parametrize(
    ("start", "end", "numbers"), [("0.4", None, range(10, 40)), ("0.2", "1", range(5, 25))]
)
def test_a_part_of_a_film(start: str, end: str | None, numbers: range) -> None:
    part = FilmSettings(lossless=True, start=Fraction(start), end=None if end is None else Fraction(end))
    result = run(one := job(), replace(LOSSLESS, film=part))
    assert (result.status, result.error) == (Status.WRITTEN, "")
    assert copies.numbers(one.target) == list(numbers)


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [("1.001", "1.002", "film.mkv: no frame begins in that part"), ("99", None, "film.mkv ends after 1.6")],
)
def test_a_part_without_frames_is_refused(start: str, end: str | None, words: str) -> None:
    part = FilmSettings(start=Fraction(start), end=None if end is None else Fraction(end))
    result = run(job(), replace(TWICE, film=part))
    assert (result.status, words in result.error) == (Status.FAILED, True), result.error


def test_a_part_of_a_film_that_begins_late_has_its_sound() -> None:
    """The first frame is shown at 3 seconds; the part begins 0.64 seconds later, at a flash and its click."""
    scene = scenes.Scene(frames=40, start=Fraction(3), audio=(scenes.Audio(codec="pcm_s16le"),))
    one = job(scene=scene, source="late.mkv")
    part = replace(LOSSLESS, film=FilmSettings(lossless=True, start=Fraction("0.64"), end=Fraction("1.28")))
    result = run(one, part)
    assert (result.status, result.error) == (Status.WRITTEN, "")
    assert copies.numbers(one.target) == list(range(16, 32))
    begin = copies.times(one.target)[0]
    clicks = [moment - begin for moment in scenes.clicks(one.target)]
    assert [round(float(moment), 2) for moment in clicks[:2]] == [0.0, 0.32]  # a packet may reach beyond


def test_the_work_on_films_of_long_names_lies_apart() -> None:
    names = ["é" * 125 + end for end in ("1.mkv", "2.mkv")]
    one, other = (job(f"out/{name}") for name in names)
    folders = [stopped_after(each, 30, PARTIAL) for each in (one, other)]
    assert [len(os.fsencode(folder.name)) <= 255 for folder in folders] == [True, True]
    assert len({path.name for path in Path("out").iterdir()}) == 4
    for each in (one, other):
        assert run(each, PARTIAL).status is Status.WRITTEN
    assert sorted(path.name for path in Path("out").iterdir()) == names


def test_names_that_no_file_can_have_are_refused_before_the_work() -> None:
    one = job(f"out/{'x' * 252}.mkv")
    for result in (foresee(one, double, LOSSLESS), run(one, replace(LOSSLESS, overwrite=True))):
        assert (result.status, "no file can have this name" in result.error) == (Status.FAILED, True)
    assert not Path("out").exists()


def test_what_is_foreseen_names_frames_encoder_and_streams() -> None:
    one = job("out/film.mp4", scenes.Scene(frames=40, subtitles=True, attachment=True), "rich.mkv")
    found = foresee(one, double, replace(TWICE, film=FilmSettings(crf=20)))
    assert (found.status, one.target.exists()) == (Status.PLANNED, False)
    assert found.notes[0] == "40 frames at 25 a second, enlarged by double"
    assert found.notes[1] == "written by libx264 (preset veryfast, crf 20), yuv420p"
    assert [note.split(" ")[:3] for note in found.notes[2:4]] == [
        ["goes", "along:", "audio"],
        ["goes", "along:", "subtitle"],
    ]
    assert found.notes[-1].startswith("left out: ")


def test_a_start_behind_the_end_is_refused() -> None:
    result = run(job(), replace(LOSSLESS, film=FilmSettings(start=Fraction(60))))
    assert (result.status, "1.600" in result.error) == (Status.FAILED, True)


def test_width_is_that_of_the_film_as_it_is_shown() -> None:
    one = job("out/film.mp4", scenes.Scene(frames=4, rotation=90), "film.mp4")
    settings = replace(LOSSLESS, width=192, film=FilmSettings(codec="h264"))
    assert foresee(one, double, settings).output_size == (192, 256)


class Voting(Double):
    """Says "auto" chose as told, frame by frame, and remembers what each frame was computed with."""

    def __init__(self, votes: list[str]) -> None:
        self.votes = votes
        self.seen: list[Image] = []

    def model_for(self, image: Pixels) -> str:
        return self.votes.pop(0)

    def candidates(self, source: Any, target: Any) -> list[Computed]:
        return [replace(COMPUTED, model=name) for name in ("mdsr", "mdsr-photo")]

    def stream(self, images: Iterable[Any], on_tile: Any) -> Any:
        def noted() -> Iterable[Any]:
            for image in images:
                self.seen.append(replace(image, pixels=np.zeros((1, 1))))
                yield image

        yield from super().stream(noted(), on_tile)


def test_one_model_is_chosen_for_all_frames() -> None:
    votes = ["mdsr", "mdsr-photo", "mdsr-photo", "mdsr", "mdsr-photo"]
    voting = Voting(votes.copy())
    result = run(job(), replace(LOSSLESS, model="auto"), voting)
    assert result.computed is not None
    assert result.computed.model == "mdsr-photo"
    assert {image.model for image in voting.seen} == {"mdsr-photo"}
    assert {image.two_colors for image in voting.seen} == {False}
    assert len(voting.seen) == 40


def test_an_error_of_the_engine_fails_the_film_alone() -> None:
    class Broken(Double):
        def stream(self, images: Iterable[Any], on_tile: Any) -> Any:
            for _ in images:
                yield Result(None, None, RuntimeError("broken"), 0.0)

    result = run(job(), LOSSLESS, Broken())
    assert (result.status, "broken" in result.error) == (Status.FAILED, True)


def test_the_next_film_is_computed_while_one_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first film's join waits until the second film's frames come; so would a run one after the other."""
    names = ["a.mkv", "b.mkv", "c.mkv"]
    jobs = [job(f"out/{name}", source=name) for name in names]
    second, join, seen = threading.Event(), segments.join, list[str]()

    class Noting(Double):
        frames = 0

        def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None]) -> Pixels:
            self.frames += 1
            if self.frames > SCENE.frames:
                second.set()
            return super().enlarge(image, on_tile)

    def joining(paths: Any, out: Path, *rest: Any, **more: Any) -> None:
        seen.append(out.parent.name)
        assert second.wait(20)
        join(paths, out, *rest, **more)

    monkeypatch.setattr(segments, "join", joining)
    watcher, one = Watcher(), Noting()
    results = run_films([FilmRun(each, (one,), LOSSLESS, watcher) for each in jobs])
    assert [result.status for result in results] == [Status.WRITTEN] * 3
    assert seen == [f"{name}.unfinished" for name in names]
    assert [result.output for result in watcher.seen] == [each.target for each in jobs]
    assert one.frames == 3 * SCENE.frames
    assert [path.name for path in sorted(Path("out").iterdir())] == names


def test_a_failed_film_does_not_stop_the_next_and_an_interrupt_does() -> None:
    bad = Job(Path("bad.mkv"), Path("out/bad.mkv"), film=True)
    bad.source.write_bytes(b"\x1a\x45\xdf\xa3" + bytes(500))
    jobs = [job("out/a.mkv", source="a.mkv"), bad, *(job(f"out/{n}.mkv", source=f"{n}.mkv") for n in "bc")]
    stopped = threading.Event()

    class Interrupted(Double):
        """Interrupted at the first frame of the second film that it is given."""

        frames = 0

        def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None]) -> Pixels:
            self.frames += 1
            if self.frames == SCENE.frames + 1:
                stopped.set()
                time.sleep(0.5)
            return super().enlarge(image, on_tile)

    def statuses(engine: Double, stop: Callable[[], bool]) -> list[Status]:
        runs = [FilmRun(each, (engine,), LOSSLESS, Watcher(), stop) for each in jobs]
        return [result.status for result in run_films(runs)]

    written, failed, pending = Status.WRITTEN, Status.FAILED, Status.PENDING
    assert statuses(Interrupted(), stopped.is_set) == [written, failed, pending, pending]
    assert statuses(Double(), lambda: False) == [Status.SKIPPED, failed, written, written]
