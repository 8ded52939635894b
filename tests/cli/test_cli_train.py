"""`srcli train` end to end, and what it shows while it works."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from tiny_training import folder_of_pictures

from srcli.cli.app import main
from srcli.cli.console import Lines
from srcli.cli.train import TrainingWatcher, log_messages
from srcli_train import command
from srcli_train.checkpoint import load_checkpoint
from srcli_train.job import Job
from srcli_train.log import Status


def _train(tmp_path: Path, *more: str) -> int:
    options = ["-s", "2", "--model", "edsr-baseline", "--recipe", "fast", "--batch", "2", "--patch", "8"]
    places = ["-o", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]
    return main(["train", str(tmp_path / "hr"), *options, *places, *more])


def test_train_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of_pictures(tmp_path / "hr", 4)
    assert _train(tmp_path, "--updates", "3", "--minutes", "1000") == 0
    captured = capsys.readouterr()
    checkpoint = tmp_path / "run" / "last.pt"
    assert captured.out.strip() == str(checkpoint)
    assert f"srcli export {checkpoint}" in captured.err
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    assert _train(tmp_path, "--updates", "3") == 2
    assert "--resume" in capsys.readouterr().err
    before = checkpoint.read_bytes()
    assert _train(tmp_path, "--updates", "3", "--resume") == 0
    assert "This run is finished: 3 updates" in capsys.readouterr().err
    assert checkpoint.read_bytes() == before
    assert load_checkpoint(checkpoint).minutes == 1000


def test_resume_takes_the_runs_own_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model, scale, recipe, its numbers and the folders of pictures; from another folder, too."""
    folder_of_pictures(tmp_path / "hr", 4)
    folder_of_pictures(tmp_path / "valid", 2)
    run = tmp_path / "run"
    options = ["--set", "network.blocks=2", "--set", "network.features=8", "--valid", str(tmp_path / "valid")]
    stop_at = ["--minutes", "0.000001"]
    assert _train(tmp_path, "--updates", "3", "--validate-every", "7", *options, *stop_at) == 0
    before = load_checkpoint(run / "last.pt")
    assert before.update < 3
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    capsys.readouterr()
    assert main(["train", "--resume", str(run), "--minutes", "0"]) == 0
    assert "4 training images, 2 for validation" in capsys.readouterr().err
    after = load_checkpoint(run / "last.pt")
    assert after.update == 3
    assert (after.network, after.recipe) == (before.network, before.recipe)
    assert json.loads((run / "run.json").read_text())["validate_every"] == 7
    assert str(tmp_path).encode() not in (run / "last.pt").read_bytes()
    assert main(["train", "--resume", str(run), "--batch", "3"]) == 2
    assert "batch was 2, now 3" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "hr"), "--resume", "-o", str(run)]) == 0
    (run / "run.json").unlink()
    assert main(["train", "--resume", str(run)]) == 2
    assert "does not say what it was trained on" in capsys.readouterr().err
    assert main(["train", "--resume", "nosuch"]) == 2
    assert "nosuch holds no checkpoint to resume" in capsys.readouterr().err
    assert main(["train"]) == 2
    assert "nothing to train on" in capsys.readouterr().err


def test_one_picture_is_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of_pictures(tmp_path / "hr", 2)
    assert _train(tmp_path, "--updates", "1") == 0
    assert "1 training image, 1 for validation." in capsys.readouterr().err


def test_a_changed_network_gets_another_name(tmp_path: Path) -> None:
    folder_of_pictures(tmp_path / "hr", 4)
    settings = ("--set", "network.blocks=2", "--set", "network.features=8", "--set", "flip=false")
    assert _train(tmp_path, "--updates", "1", *settings) == 0
    checkpoint = load_checkpoint(tmp_path / "run" / "last.pt")
    assert checkpoint.network.name == "edsr-baseline-custom"
    assert (checkpoint.network.blocks, checkpoint.network.features) == (2, 8)
    assert not checkpoint.recipe.flip


def test_an_unwritable_run_folder_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder_of_pictures(tmp_path / "hr", 4)
    (tmp_path / "run").symlink_to(tmp_path / "gone")
    assert _train(tmp_path, "--updates", "1") == 1
    assert "run is not a folder" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists(), "pictures were decoded for nothing"


def test_bad_requests_are_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder_of_pictures(tmp_path / "hr", 4)
    cases = {
        ("--recipe", "slow"): "No recipe is called 'slow'",
        ("--model", "edsr-small"): "No network is called 'edsr-small'",
        ("--resume",): "holds no checkpoint to resume",
        ("--model", "mdsr-baseline"): "Leave out -s; fewer scales",
        ("--device", "tpu"): "tpu",
        ("--device", "mps"): "mps",
        ("--lr", "-1"): "Learning rates",
        ("--lr", "nan"): "Learning rates",
        ("--set", "depth=3"): "no 'depth' to set",
        ("--set", "network.blocks=many"): "'blocks=many' does not fit",
        ("--seed", "-1"): "seed",
        ("--minutes", "-1"): "--minutes",
        ("--validate-every", "0"): "--validate-every",
    }
    for options, message in cases.items():
        assert _train(tmp_path, "--updates", "1", *options) == 2
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
    assert not (tmp_path / "run").exists(), "nothing began"


def test_ctrl_c_names_resume_only_after_a_save(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(job: Job, watcher: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", interrupted)
    assert _train(tmp_path) == 130
    assert "the same command starts anew" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").touch()
    assert _train(tmp_path) == 130
    assert "with the same command and --resume" in capsys.readouterr().err


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


def test_the_progress_line_holds_all_figures() -> None:
    shown = TrainingWatcher(view := Recorder())
    shown.status(_status(250, {}))
    shown.status(_status(500, {2: 33.333, 4: 28.0}))
    text = "loss 3.142, 2.35 updates/s, 3:07 left"
    scores = "validation x2 33.33 dB, x4 28.00 dB"
    assert view.updates == [(0.25, 1, f"update 250, {text}"), (0.5, 1, f"update 500, {text}, {scores}")]
    assert view.lines == [f"update 500: loss 3.142, {scores}"]


def test_each_validation_leaves_one_line() -> None:
    shown = TrainingWatcher(view := Recorder())
    for update, psnr in ((10, 30.0), (20, 30.0), (30, 31.0)):
        shown.status(_status(update, {2: psnr}))
    assert [line.partition(":")[0] for line in view.lines] == ["update 10", "update 30"]
    assert len(view.updates) == 3


def test_log_messages_become_printable_lines() -> None:
    view, logger = Recorder(), logging.getLogger("srcli_train.checkpoint")
    with log_messages(view):
        logger.info("%s is damaged", "odd\x1b[2Jname.png")
        logger.debug("nothing for people")
        TrainingWatcher(view).picture(10, np.zeros((2, 6, 3), np.uint8))
    logger.info("after the run")
    assert len(view.lines) == 1
    assert "name.png is damaged" in view.lines[0]
    assert "\x1b" not in view.lines[0]
    assert view.updates == []


def test_in_a_log_the_line_comes_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("srcli.cli.console.monotonic", lambda: now[0])
    shown = TrainingWatcher(Lines())
    for update in (1, 2, 3):
        shown.status(_status(update, {}))
        now[0] += 6.0
    assert capsys.readouterr().err.splitlines() == ["update 3, loss 3.142, 2.35 updates/s, 3:07 left"]


def test_of_several_ranks_only_the_first_one_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trained(job: Job, watcher: TrainingWatcher) -> Path:
        logging.getLogger("srcli_train").warning("a message")
        watcher.status(_status(1, {2: 30.0}))
        return job.folder

    monkeypatch.setattr(command, "train", trained)
    monkeypatch.setenv("RANK", "1")
    assert _train(tmp_path) == 0
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("RANK", "0")
    assert _train(tmp_path) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(tmp_path / "run")
    assert "a message" in shown.err
    assert "update 1" in shown.err
