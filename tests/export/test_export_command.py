"""`srcli export` from the command line: the files, the messages, and what is refused at once."""

from pathlib import Path

import pytest
from tiny_exports import checkpoint, files, photograph, small

from srcli.cli import export
from srcli.cli.app import main
from srcli.io import pictures
from srcli.io.pictures import Picture, write


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["export", *arguments]) == 0
    return capsys.readouterr().err


def test_figures_are_of_the_stored_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    full = told(capsys, str(path), "-o", str(tmp_path / "full"))
    assert "edsr-baseline-x2.onnx: x2 fp32" in full
    assert "max error" in full
    half = told(capsys, str(path), "-o", str(tmp_path / "half"), "--weights", "fp16")
    assert "max error" not in half, "that is the error before weights were rounded"
    assert "dB from the checkpoint" in half


def test_missing_photographs_are_mentioned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    without = told(capsys, str(path), "-o", str(tmp_path / "out"))
    assert "on noise and rendered charts alone" in without
    (tmp_path / "photos").mkdir()
    pictures.write(tmp_path / "photos" / "a.png", pictures.Picture(photograph()[:96, :96]))
    for option in ("--calibration", "--validation"):
        given = told(capsys, str(path), "-o", str(tmp_path / "out"), option, str(tmp_path / "photos"))
        assert "charts alone" not in given


def test_a_refused_export_says_nothing_of_photographs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tmp_path / "nosuch.pt")]) == 1
    error = capsys.readouterr().err
    assert "no such checkpoint" in error
    assert "--calibration" not in error


def test_the_command_writes_the_precisions_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("srcli_export.calibration.charts", small)
    checkpoint(tmp_path, "edsr-baseline")
    assert (
        main(["export", "checkpoint.pt", "-o", "out", "--precision", "fp16, fp32", "--weights", "fp16"]) == 0
    )
    out, err = capsys.readouterr()
    assert out.splitlines() == ["out/edsr-baseline-x2.onnx", "out/edsr-baseline-x2.fp16.onnx"]
    assert "x2 fp16, halo" in err
    assert "dB from the checkpoint, loses" in err


def test_engines_are_built_of_the_precisions_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the fp32 file, which comes with int8."""
    built: list[tuple[str, str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("srcli_export.calibration.charts", small)
    seconds = {True: 0.5, False: 1.0}
    monkeypatch.setattr(
        "srcli_export.int8.interleave", lambda runs, rounds: {key: [seconds[key[1]]] for key in runs}
    )
    monkeypatch.setattr(export, "check_engines", lambda: None)
    monkeypatch.setattr(
        export, "build_engines", lambda files, out: built.extend((f.name, p) for f, _, p in files)
    )
    checkpoint(tmp_path, "edsr-baseline")
    Path("photographs").mkdir()
    write(Path("photographs") / "a.png", Picture(small()[0]))
    options = ["--precision", "int8", "--calibration", "photographs", "--format", "trt", "-o", "out"]
    assert main(["export", "checkpoint.pt", *options]) == 0
    assert built == [("edsr-baseline-x2.int8.onnx", "auto")]


@pytest.mark.parametrize(("seconds", "code"), [(0.5, 0), (1.5, 1)])
def test_the_command_writes_int8_only_if_faster(
    seconds: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With real engines, photographs from a folder, and fixed timings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("srcli_export.calibration.charts", small)
    monkeypatch.setattr(
        "srcli_export.int8.interleave", lambda runs, rounds: {k: [seconds if k[1] else 1.0] for k in runs}
    )
    checkpoint(tmp_path, "edsr-baseline")
    for folder in ("photographs", "crops"):
        Path(folder).mkdir()
        write(Path(folder) / "a.png", Picture(small()[0]))
    options = ["--precision", "int8", "--calibration", "photographs", "--validation", "crops", "-o", "out"]
    assert main(["export", "checkpoint.pt", *options]) == code
    out, err = capsys.readouterr()
    written = ["out/edsr-baseline-x2.onnx", "out/edsr-baseline-x2.int8.onnx"]  # which falls back on the first
    assert out.splitlines() == written * (code == 0)
    shared = ["edsr-baseline-x2.weights"] * (code == 0)  # by both
    assert files(Path("out")) == sorted([*(Path(line).name for line in out.splitlines()), *shared])
    assert ("takes 0.50 of the time" if code == 0 else "takes 1.50 times as long as") in err
    assert "int8 loses " in err if code else "loses" in err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--precision", "fp32,int3"], "'int3'"),
        (["--precision", "int8"], "--calibration FOLDER"),
        (["--weights", "int8"], "'int8'"),
    ],
)
def test_the_command_refuses_at_once(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "c.pt", *options]) == 2
    assert told in capsys.readouterr().err


def test_io_variants_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    out = tmp_path / "out"
    assert main(["export", str(path), "-o", str(out), "--precision", "fp16", "--io", "uint8"]) == 0
    assert files(out) == ["edsr-baseline-x2.fp16.onnx", "edsr-baseline-x2.fp16.uint8.onnx"]
    told = capsys.readouterr().err
    assert "x2 fp16 with uint8 I/O" in told
    assert f"--model {out / 'edsr-baseline-x2.fp16.onnx'}" in told
