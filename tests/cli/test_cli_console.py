"""What a run shows while it works."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from srcli.cli import console
from srcli.cli.console import Bar, FolderProgress, Lines, Silent, screen
from srcli.jobs.cluster_nodes import Node, NodeWork
from srcli.jobs.outputs import Job
from srcli.jobs.report import PictureResult, Status

WRITTEN = PictureResult(Path("a.png"), Path("out/a.png"), Status.WRITTEN, (1000, 1000), (2000, 1000), 1.0)


class Recorder:
    """A screen that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.updates: list[tuple[float, int, str]] = []
        self.below_it: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def update(self, done: float, total: int, text: str) -> None:
        self.updates.append((done, total, text))

    def below(self, lines: Sequence[str]) -> None:
        self.below_it = list(lines)

    def close(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that stands still unless moved."""
    now = [100.0]
    monkeypatch.setattr(console, "monotonic", lambda: now[0])
    return now


def test_pictures_megapixels_a_second_and_time_left(clock: list[float]) -> None:
    teller = FolderProgress(view := Recorder(), 5, notes=True, paths=False)
    teller.start()
    clock[0] += 4.0
    teller.finished(WRITTEN)  # 2 MP in 4 s, four more pictures
    assert view.updates[-1] == (1.0, 5, "1/5 pictures, 0.50 MP/s, 16 s left")
    clock[0] += 2.0
    teller.tile(Job(Path("b.png"), Path("out/b.png")), 1, 2)  # 1.5 pictures in 6 s, 3.5 more
    assert view.updates[-1] == (1.5, 5, "1/5 pictures, 0.33 MP/s, 14 s left")


def works(number: int) -> NodeWork:
    node = Node(str(number), f"gpu-{number}", f"10.0.0.{number}", 8, 0, 0)
    return NodeWork(node, since=90.0, processes=number, done=10 * number, megapixels=5.0 * number)


def test_each_node_has_a_line_and_the_rest_one() -> None:
    teller = FolderProgress(view := Recorder(), 5, notes=True, paths=False)
    teller.nodes([works(2), works(1)], 100.0)
    assert view.below_it == ["gpu-1: 1 process, 10 done, 0.50 MP/s", "gpu-2: 2 processes, 20 done, 1.00 MP/s"]
    teller.nodes([NodeWork(works(3).node, since=100.0)], 100.0)
    assert view.below_it == ["gpu-3: 0 processes, 0 done"]
    teller.nodes([works(number) for number in range(10)], 100.0)
    assert (len(view.below_it), view.below_it[-1]) == (9, "2 more nodes: 17 processes, 170 done, 8.50 MP/s")


def test_frames_a_second_and_time_left_of_a_film(clock: list[float]) -> None:
    teller = FolderProgress(view := Recorder(), 2, notes=True, paths=False)
    job = Job(Path("in/film.mkv"), Path("out/film.mkv"), film=True)
    teller.start()
    teller.frames(job, 100, 400, 0)
    assert view.updates[-1] == (0.25, 2, "film.mkv: 100/400 frames")
    clock[0] += 10.0
    teller.frames(job, 150, 400, 50)  # the first 100 were there already
    assert view.updates[-1] == (0.375, 2, "film.mkv: 150/400 frames, 5.00 frames/s, 50 s left")


def test_frames_that_come_at_once_have_no_rate_yet(clock: list[float]) -> None:
    teller = FolderProgress(view := Recorder(), 1, notes=True, paths=False)
    job = Job(Path("in/film.mkv"), Path("out/film.mkv"), film=True)
    teller.frames(job, 24, 48, 24)  # a segment of a cluster
    assert view.updates[-1] == (0.5, 1, "film.mkv: 24/48 frames")
    clock[0] += 8.0
    teller.frames(job, 48, 48, 48)
    assert view.updates[-1] == (1.0, 1, "film.mkv: 48/48 frames, 3.00 frames/s, 0.0 s left")


def test_skipped_pictures_do_not_count_for_the_time_left(clock: list[float]) -> None:
    teller = FolderProgress(view := Recorder(), 10, notes=True, paths=False)
    teller.start()
    for _ in range(8):
        teller.finished(PictureResult(Path("s.png"), Path("out/s.png"), Status.SKIPPED))
    assert view.updates[-1][2] == "8/10 pictures"
    clock[0] += 3.0
    teller.finished(WRITTEN)
    assert view.updates[-1][2].endswith("3.0 s left")


def test_failures_are_always_shown_and_notes_if_wanted() -> None:
    failed = PictureResult(Path("b.png"), None, Status.FAILED, error="b.png\x1b is bad.", hint="Mend it.")
    noted = PictureResult(Path("c.png"), Path("out/c.png"), Status.WRITTEN, notes=("alpha dropped",))
    for notes, count in ((True, 3), (False, 2)):
        teller = FolderProgress(view := Recorder(), 2, notes=notes, paths=False)
        teller.start()
        teller.finished(failed)
        teller.finished(noted)
        assert len(view.lines) == count
        assert "b.png\\x1b is bad." in view.lines[0]
    assert view.lines[1] == "  Mend it."


def test_without_a_terminal_lines_come_seldom(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    view = Lines()
    for _ in range(100):
        clock[0] += 0.25
        view.update(1, 2, "half")
    view.line("message")
    assert capsys.readouterr().err.splitlines() == ["half", "half", "message"]


def test_a_bar_appears_only_in_longer_runs_and_messages_stay(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    bar = Bar()
    bar.update(1, 10, "early")
    assert stream.getvalue() == ""
    clock[0] += 1.0
    bar.update(2, 10, "[red]2/10 pictures")
    bar.line("error: [bold].png")
    bar.close()
    assert "error: [bold].png" in stream.getvalue()


def test_lines_below_a_bar_are_shown_on_a_terminal(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stderr", stream := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    bar = Bar()
    clock[0] += 1.0
    bar.below(["gpu-[1]: 2 processes\033[2J", "x" * 300])
    bar.update(2, 10, "2/10 pictures")
    bar.close()
    assert "gpu-[1]: 2 processes\\x1b[2J" in stream.getvalue()
    assert "x" * 81 not in stream.getvalue()


def test_the_screen_fits_wish_and_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(screen(quiet=True), Silent)
    assert type(screen(quiet=False)) is Lines
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert isinstance(screen(quiet=False), Bar)
