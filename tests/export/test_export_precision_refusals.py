"""A precision that costs too much, wins nothing or cannot be made is refused, and nothing is written."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tiny_exports import Pixels, checkpoint, files, photograph, tiny

from srcli.backends.base import BackendOptions, Batch, EngineInfo
from srcli.cli import engines
from srcli.cli.app import main
from srcli.errors import BackendUnavailableError, ExportError, ModelFileError, UsageError
from srcli.io.pictures import Picture, write
from srcli.models.spec import ModelSpec
from srcli_export import exporter, gain
from srcli_export.exporter import export_checkpoint
from srcli_export.gain import Timing, check_gain, measure_timings
from srcli_export.verify import Verdict, check_loss
from srcli_train.checkpoint import Checkpoint, save_checkpoint
from srcli_train.recipes import Recipe


def timings(int8: float, *others: float) -> list[Timing]:
    named = [Timing(f"engine {number}", False, seconds) for number, seconds in enumerate(others)]
    return [*named, Timing("int8 engine", True, int8), Timing("slow int8", True, 9.0)]


def small() -> list[Pixels]:
    return [photograph()[60:140, 60:140]]


# Is int8 worth it?


def test_int8_that_is_cheap_and_fastest_is_offered() -> None:
    assert check_gain("a", 0.1, timings(0.3, 0.4, 0.9)) == pytest.approx(0.75)
    assert check_gain("a", -0.2, timings(0.3, 0.4)) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("lost", "seconds", "told"),
    [
        (0.05, 0.5, ("0.050 dB", "1.25 times", "int8 engine", "engine 0")),  # slower than the best
        (0.05, 0.4, ("0.050 dB", "1.00 times")),  # as fast is not faster
        (0.1001, 0.1, ("0.100 dB", "0.25 times")),
        (0.3, 0.5, ("0.300 dB", "1.25 times")),
        (float("nan"), 0.1, ("nan dB",)),
    ],
)
def test_int8_is_refused_with_both_numbers(lost: float, seconds: float, told: tuple[str, ...]) -> None:
    with pytest.raises(ExportError) as caught:
        check_gain("net-x2.int8.onnx", lost, timings(seconds, 0.4, 0.9))
    for text in ("net-x2.int8.onnx", *told):
        assert text in str(caught.value)


def test_an_export_whose_int8_is_slower_writes_nothing(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path, "edsr-baseline")

    def stopwatch(full: Path, int8: Path, spec: ModelSpec) -> Sequence[Timing]:
        return timings(0.5, 0.4)

    with pytest.raises(ExportError, match=r"edsr-baseline-x2\.int8\.onnx: int8 loses .* 1\.25 times"):
        export_checkpoint(
            path,
            tmp_path / "out",
            precisions=["fp32", "int8"],
            calibration=small(),
            photographs=small(),
            stopwatch=stopwatch,
        )
    assert files(tmp_path / "out") == []


def test_an_export_whose_int8_loses_quality_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that the tiny network, whose output is far from any picture, cannot keep."""
    path, _ = checkpoint(tmp_path, "edsr-baseline")
    monkeypatch.setattr(gain, "MAX_LOSS", -1.0)
    with pytest.raises(ExportError, match=r"0\.75 times"):
        export_checkpoint(
            path,
            tmp_path / "out",
            precisions=["int8"],
            calibration=small(),
            photographs=small(),
            stopwatch=lambda full, int8, spec: timings(0.3, 0.4),
        )
    assert files(tmp_path / "out") == []


# Which engines are compared?


class FakeEngine:
    """Says what it was loaded with."""

    scale = 2

    def __init__(self, name: str, precision: str) -> None:
        self.info = EngineInfo(name, "cpu", "bf16" if precision == "auto" else precision)

    def run(self, lr: Batch) -> Batch:
        return np.zeros((1, 3, 2 * lr.shape[2], 2 * lr.shape[3]), np.float32)


def test_both_files_run_on_everything_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(name: str, path: Path, spec: ModelSpec, options: BackendOptions) -> FakeEngine:
        if options.precision == "bf16":
            raise BackendUnavailableError("no bf16 on this CPU")
        loaded.append((name, path.name, spec.arithmetic, options.precision))
        return FakeEngine(name, options.precision)

    def interleave(runs: dict[tuple[str, bool], object], repetitions: int) -> dict[tuple[str, bool], object]:
        return {key: [float(number), 5.0 + number, 900.0] for number, key in enumerate(runs)}

    monkeypatch.setattr(gain.table, "load", load)
    monkeypatch.setattr(gain, "interleave", interleave)
    spec = ModelSpec("net", "edsr", 2, arithmetic="int8")
    found = measure_timings(Path("a.onnx"), Path("a.int8.onnx"), spec)
    assert loaded == [
        ("openvino", "a.onnx", "fp32", "fp32"),
        ("onnxruntime", "a.onnx", "fp32", "fp32"),
        ("openvino", "a.int8.onnx", "int8", "auto"),
        ("onnxruntime", "a.int8.onnx", "int8", "auto"),
    ]
    assert found == [
        Timing("openvino fp32", False, 5.0),
        Timing("onnxruntime fp32", False, 6.0),
        Timing("openvino int8", True, 7.0),
        Timing("onnxruntime int8", True, 8.0),
    ]  # medians


# fp16


def test_a_loss_is_refused_with_its_number() -> None:
    check_loss("a", Verdict(80.0, 30.0, 0.01, 3), "fp16")
    with pytest.raises(ExportError, match=r"fp16 loses 0\.0101 dB .* more than 0\.01"):
        check_loss("a", Verdict(80.0, 30.0, 0.0101, 3), "fp16")
    with pytest.raises(ExportError, match="a: gives infinities or NaN in fp16"):
        check_loss("a", Verdict(float("nan"), 30.0, 0.0, 3), "fp16")
    with pytest.raises(ExportError, match="a: fp16 loses nan"):
        check_loss("a", Verdict(80.0, 30.0, float("nan"), 3), "fp16")


def _scaled(folder: Path, factor: float) -> Path:
    """A checkpoint whose body sees values that many times larger; what comes out is the same."""
    spec, network = tiny("edsr-baseline", 2)
    weights = network.state_dict()
    for key, values in weights.items():
        if key.startswith("head") or key.endswith("bias"):
            weights[key] = values * factor
    weights["tail.weight"] = weights["tail.weight"] / factor
    weights["tail.bias"] = weights["tail.bias"] / factor
    save_checkpoint(folder / "c.pt", Checkpoint(spec, Recipe(), weights))
    return folder / "c.pt"


def test_activations_that_overflow_halves_are_refused(tmp_path: Path) -> None:
    """The weights fit (0.2 * 2e5 < 65504) but what the head gives does not."""
    path = _scaled(tmp_path, 2e5)
    assert export_checkpoint(path, tmp_path / "fp32", calibration=small())
    with pytest.raises(ExportError, match=r"edsr-baseline-x2\.fp16\.onnx: gives infinities or NaN"):
        export_checkpoint(path, tmp_path / "out", precisions=["fp16"], calibration=small())
    assert files(tmp_path / "out") == []


def test_weights_that_overflow_halves_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="65504"):
        export_checkpoint(_scaled(tmp_path, 1e7), tmp_path / "out", precisions=["fp16"], calibration=small())
    assert files(tmp_path / "out") == []


# Requests


@pytest.mark.parametrize("precisions", [["fp64"], ["fp32", "fp8"], []])
def test_unknown_precisions(precisions: list[str], tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    with pytest.raises(UsageError, match="precision"):
        export_checkpoint(path, tmp_path / "out", precisions=precisions)


def test_int8_needs_photographs(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    with pytest.raises(UsageError, match="photographs"):
        export_checkpoint(path, tmp_path / "out", precisions=["int8"])


def test_images_to_judge_on_are_checked(tmp_path: Path) -> None:
    path, _ = checkpoint(tmp_path)
    with pytest.raises(UsageError, match="calibration image"):
        export_checkpoint(path, tmp_path / "out", validation=[photograph()[:20]])


# The command


def test_the_command_writes_what_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("srcli_export.calibration.charts", small)
    monkeypatch.setattr(exporter.images, "charts", small)
    checkpoint(tmp_path, "edsr-baseline")
    assert (
        main(["export", "checkpoint.pt", "-o", "out", "--precision", "fp16, fp32", "--weights", "fp16"]) == 0
    )
    out, err = capsys.readouterr()
    assert out.splitlines() == ["out/edsr-baseline-x2.onnx", "out/edsr-baseline-x2.fp16.onnx"]
    assert "x2 fp16, halo" in err
    assert "dB from the checkpoint, loses" in err


def test_engines_are_built_of_the_files_that_were_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the fp32 file, which comes with int8."""
    built: list[tuple[str, str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("srcli_export.calibration.charts", small)
    monkeypatch.setattr(gain, "interleave", lambda runs, rounds: {k: [1.0 - k[1] / 2] for k in runs})
    monkeypatch.setattr(engines, "check", lambda: None)
    monkeypatch.setattr(engines, "build", lambda files, out: built.extend((f.name, p) for f, _, p in files))
    checkpoint(tmp_path, "edsr-baseline")
    Path("photographs").mkdir()
    write(Path("photographs") / "a.png", Picture(small()[0]))
    options = ["--precision", "int8", "--calibration", "photographs", "--format", "trt", "-o", "out"]
    assert main(["export", "checkpoint.pt", *options]) == 0
    assert built == [("edsr-baseline-x2.int8.onnx", "auto")]


@pytest.mark.parametrize(("seconds", "code"), [(0.5, 0), (1.5, 1)])
def test_the_command_offers_int8_or_says_why_not(
    seconds: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Real engines, photographs from a folder, and a clock of our own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("srcli_export.calibration.charts", small)
    monkeypatch.setattr(
        gain, "interleave", lambda runs, rounds: {k: [seconds if k[1] else 1.0] for k in runs}
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
    assert files(Path("out")) == sorted(Path(line).name for line in out.splitlines())
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
