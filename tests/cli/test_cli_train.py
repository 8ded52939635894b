"""`srcli train` end to end: train, resume, export, refuse."""

from pathlib import Path

import pytest
from tiny_training import folder_of_pictures

from srcli.cli.app import main
from srcli_train import command
from srcli_train.checkpoint import load_checkpoint


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


def test_a_changed_network_is_trained_under_a_name_of_its_own(tmp_path: Path) -> None:
    folder_of_pictures(tmp_path / "hr", 4)
    settings = ("--set", "network.blocks=2", "--set", "network.features=8", "--set", "flip=false")
    assert _train(tmp_path, "--updates", "1", *settings) == 0
    checkpoint = load_checkpoint(tmp_path / "run" / "last.pt")
    assert checkpoint.network.name == "edsr-baseline-custom"
    assert (checkpoint.network.blocks, checkpoint.network.features) == (2, 8)
    assert not checkpoint.recipe.flip


def test_a_run_that_cannot_be_kept_does_not_begin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_ctrl_c_says_how_to_go_on_and_only_what_is_true(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(request: command.TrainRequest, watcher: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "train", interrupted)
    assert _train(tmp_path) == 130
    assert "the same command starts anew" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").touch()
    assert _train(tmp_path) == 130
    assert "with the same command and --resume" in capsys.readouterr().err
