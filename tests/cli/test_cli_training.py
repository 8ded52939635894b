"""What `srcli train` shows while it works."""

import numpy as np
import pytest

from srcli.cli.live import Lines
from srcli.cli.training import SilentWatcher, TrainingWatcher, watcher
from srcli_train.job import Status


class Recorder:
    """A screen that remembers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.updates: list[tuple[float, int, str]] = []
        self.closed = False

    def line(self, text: str) -> None:
        self.lines.append(text)

    def update(self, done: float, total: int, text: str) -> None:
        self.updates.append((done, total, text))

    def close(self) -> None:
        self.closed = True


def _status(update: int, psnr: dict[int, float]) -> Status:
    return Status(
        update, update / 1000, loss=3.14159, rate=0.5, updates_per_second=2.345, seconds_left=187.0, psnr=psnr
    )


def test_the_line_tells_place_loss_speed_time_left_and_psnr() -> None:
    shown = TrainingWatcher(view := Recorder())
    shown.status(_status(250, {}))
    shown.status(_status(500, {2: 33.333, 4: 28.0}))
    text = "loss 3.142, 2.35 updates/s, 3:07 left"
    scores = "validation x2 33.33 dB, x4 28.00 dB"
    assert view.updates == [(0.25, 1, f"update 250, {text}"), (0.5, 1, f"update 500, {text}, {scores}")]
    assert view.lines == [f"update 500: loss 3.142, {scores}"]


def test_a_line_stays_for_every_validation_and_only_for_one() -> None:
    shown = TrainingWatcher(view := Recorder())
    for update, psnr in ((10, 30.0), (20, 30.0), (30, 31.0)):
        shown.status(_status(update, {2: psnr}))
    assert [line.partition(":")[0] for line in view.lines] == ["update 10", "update 30"]
    assert len(view.updates) == 3


def test_notes_stay_with_nothing_that_moves_the_cursor_and_pictures_are_not_for_the_screen() -> None:
    shown = TrainingWatcher(view := Recorder())
    shown.note("odd\x1b[2Jname.png is damaged")
    shown.picture(10, np.zeros((2, 6, 3), np.uint8))
    shown.close()
    assert len(view.lines) == 1
    assert "name.png is damaged" in view.lines[0]
    assert "\x1b" not in view.lines[0]
    assert (view.updates, view.closed) == ([], True)


def test_in_a_log_the_line_comes_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("srcli.cli.live.monotonic", lambda: now[0])
    shown = TrainingWatcher(Lines())
    for update in (1, 2, 3):
        shown.status(_status(update, {}))
        now[0] += 6.0
    assert capsys.readouterr().err.splitlines() == ["update 3, loss 3.142, 2.35 updates/s, 3:07 left"]


def test_of_several_processes_only_the_first_one_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    second = watcher()
    assert isinstance(second, SilentWatcher)
    second.note("a note")
    second.status(_status(1, {2: 30.0}))
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    assert isinstance(watcher(), TrainingWatcher)
