"""`srcli benchmark` from the command line."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmark_fakes import fake_trials, model_file

from srcli.backends import registry
from srcli.backends.base import load_bicubic
from srcli.benchmark import report
from srcli.cli.app import main
from srcli.cli.console import command_line
from srcli.errors import InferenceError


def test_a_whole_run(
    tiny_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_trials(monkeypatch, ("onnxruntime", "fp32"), ("bicubic", "fp32"))
    monkeypatch.setattr("srcli.benchmark.quality.SIDE", 64)
    outputs = [tmp_path / f"report.{kind}" for kind in ("json", "csv", "markdown", "html")]
    arguments = ["--model", model_file(tiny_models, 2), "-s", "2", "--size", "16", "--quick"]
    arguments += [word for path in outputs for word in (f"--{path.suffix[1:]}", str(path))]
    assert main(["benchmark", *arguments]) == 0
    shown, messages = capsys.readouterr()
    header, network, plain = shown.splitlines()
    assert "MP/s" in header
    assert network.startswith("tiny x2")
    assert "onnxruntime fp32 cpu" in network
    assert plain.startswith("bicubic x2")
    assert "left out: openvino bf16 on cpu: No bf16 there." in messages
    assert messages.count("Median of 3 rounds") == 1
    assert "95th percentile" not in messages, "how it was measured is in the reports"
    assert "95th percentile" in outputs[2].read_text()
    rows = json.loads(outputs[0].read_text())["rows"]
    assert [row["model"] for row in rows] == ["tiny", "bicubic"]
    for row, line in zip(rows, csv.DictReader(outputs[1].open()), strict=True):
        assert str(row["latency_s"]) == line["latency_s"]
        assert row["latency_low_s"] <= row["latency_s"] <= row["latency_high_s"]
        assert row["start_s"] > 0
        assert row["tflops"] is None  # the tiny network does not say its work
        assert f"{row['psnr_y_to_hr_db']:.2f}" in shown
    assert rows[0]["repetitions"] == 3
    assert "tiny x2" in outputs[2].read_text()
    assert outputs[3].read_text().count("<svg") == 3


def test_failures_are_named_and_the_rest_is_kept(
    tiny_models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A network that cannot be loaded any more beside bicubic, without fresh processes."""
    fake_trials(monkeypatch, ("onnxruntime", "fp32"), ("bicubic", "fp32"))
    monkeypatch.setattr("srcli.benchmark.quality.SIDE", 64)
    out, seen = tmp_path / "report.json", list[int]()
    write = report.write

    def count(path: Path, text: str) -> None:
        seen.append(len(json.loads(text)["rows"]))
        write(path, text)

    def load(name: str, *rest: Any) -> Any:
        if name == "onnxruntime":
            raise InferenceError("It broke.")
        return load_bicubic(*rest)

    monkeypatch.setattr(report, "write", count)
    monkeypatch.setattr(registry, "load", load)
    arguments = ["--model", model_file(tiny_models, 2), "-s", "2", "--size", "16", "--quick"]
    assert main(["benchmark", *arguments, "--starts", "0", "--json", str(out)]) == 1
    shown, messages = capsys.readouterr()
    assert seen == [1, 2], "written after each network"
    network, plain = json.loads(out.read_text())["rows"]
    assert network["problem"] == "speed, stages, quality: It broke."
    assert (network["backend"], network["latency_s"]) == ("onnxruntime", None)
    assert (plain["problem"], plain["start_s"]) == ("", None)
    assert plain["latency_s"] > 0
    assert "failed: tiny x2, onnxruntime fp32 cpu, 16²: speed, stages, quality: It broke." in messages
    assert len(shown.splitlines()) == 3


def test_the_help_lists_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "\n  benchmark " in capsys.readouterr().out


def test_what_cannot_run_is_refused_with_the_doctors_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_trials(monkeypatch, ("onnxruntime", "fp32"))
    assert main(["benchmark", "--backend", "torch", "--precision", "bf16"]) == 2
    shown, messages = capsys.readouterr()
    assert not shown
    assert "torch bf16 on cpu: No bf16 there." in messages
    assert "Buy one." in messages


def test_an_unknown_device_is_refused_by_the_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["benchmark", "--backend", "bicubic", "--device", "coreml"]) == 2
    assert "The bicubic backend has no device coreml here" in capsys.readouterr().err


def test_an_html_report_without_matplotlib_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["benchmark", "--html", str(tmp_path / "page.html")]) == 2
    assert 'pip install "srcli[benchmark]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "all", "--backend", "torch"], "stands alone"),
        (["--backend", "fastest"], "No backend 'fastest'"),
        (["--json", "a", "--csv", "a"], "same name"),
        (["--pictures", "nowhere"], "cannot be listed"),
        (["--json", "."], "is a folder"),
        (["--size", "3"], "--size"),
    ],
)
def test_wrong_usage_is_refused_before_anything_runs(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", *arguments]) != 0
    shown, messages = capsys.readouterr()
    assert not shown
    assert said in messages


def test_the_command_line_keeps_no_absolute_folders() -> None:
    line = command_line(["benchmark", "--json", "/home/me/a b.json", "-s", "4"])
    assert line == "srcli benchmark --json 'a b.json' -s 4"
