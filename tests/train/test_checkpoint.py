"""Checkpoints: whole or not at all, and never code."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import TINY

from srcli.errors import OutputError, TrainingError
from srcli_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from srcli_train.networks import build
from srcli_train.recipes import RECIPES

CHECKPOINT = Checkpoint(
    TINY, RECIPES["fast"], build(TINY).state_dict(), update=7, quality={"2": {"validation": 30.1}}
)


def test_round_trip(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", CHECKPOINT)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert (loaded.network, loaded.recipe, loaded.update) == (TINY, RECIPES["fast"], 7)
    assert loaded.quality == {"2": {"validation": 30.1}}
    assert all(torch.equal(loaded.weights[k], v) for k, v in CHECKPOINT.weights.items())


def test_older_checkpoints_are_read_without_fields_that_are_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was in use of the recipe is named; the weights' EMA had another name."""
    save_checkpoint(tmp_path / "a.pt", replace(CHECKPOINT, recipe=replace(RECIPES["fast"], ema=0.9)))
    raw = torch.load(tmp_path / "a.pt", weights_only=True)
    raw["recipe"] |= {"rendered": 0.0, "mixup": 0.0, "revive": 0.001, "distill": 0.1, "frequency": 0.0}
    raw["recipe"]["average"] = raw["recipe"].pop("ema")
    raw["teacher"] = raw["weights"]
    torch.save(raw, tmp_path / "old.pt")
    assert load_checkpoint(tmp_path / "old.pt").recipe == replace(RECIPES["fast"], ema=0.9)
    (message,) = caplog.messages
    assert "revive=0.001, distill=0.1" in message
    assert "mixup" not in message


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code ran')",)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"weights": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(TrainingError, match="not a checkpoint") as caught:
        load_checkpoint(tmp_path / "evil.pt")
    assert "weights_only" not in str(caught.value)  # PyTorch advises to switch this off


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", pickle.dumps({"a": 1})])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(TrainingError, match=r"x\.pt"):
        load_checkpoint(tmp_path / "x.pt")


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", CHECKPOINT)
    data = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(TrainingError, match="damaged"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_flipped_bit_in_the_weights_is_found(tmp_path: Path) -> None:
    path = tmp_path / "one.pt"
    save_checkpoint(path, CHECKPOINT)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="damaged"):
        load_checkpoint(path)


def test_a_failed_write_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, CHECKPOINT)

    def full(state: object, file: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(OutputError, match="No space left"):
            save_checkpoint(path, replace(CHECKPOINT, update=8))
    assert load_checkpoint(path).update == 7
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]
