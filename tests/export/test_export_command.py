"""`srcli export` from the command line: what it tells, and that it is of the files as they were written."""

from pathlib import Path

import pytest
from tiny_exports import checkpoint, photograph

from srcli.cli.app import main
from srcli.io import pictures


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["export", *arguments]) == 0
    return capsys.readouterr().err


def test_the_figures_are_those_of_the_stored_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    full = told(capsys, str(path), "-o", str(tmp_path / "full"))
    assert "edsr-baseline-x2.onnx: x2 fp32" in full
    assert "max error" in full
    half = told(capsys, str(path), "-o", str(tmp_path / "half"), "--weights", "fp16")
    assert "max error" not in half, "that is the error before weights were rounded"
    assert "dB from the checkpoint" in half


def test_missing_photographs_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    without = told(capsys, str(path), "-o", str(tmp_path / "out"))
    assert "on noise and rendered charts alone" in without
    (tmp_path / "photos").mkdir()
    pictures.write(tmp_path / "photos" / "a.png", pictures.Picture(photograph()[:96, :96]))
    for option in ("--calibration", "--validation"):
        given = told(capsys, str(path), "-o", str(tmp_path / "out"), option, str(tmp_path / "photos"))
        assert "charts alone" not in given
