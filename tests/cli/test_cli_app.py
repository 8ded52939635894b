"""The program around the commands: start-up, errors, pipes, tables and units."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from cli_runs import Command, picture

import srcli as package
from srcli.cli import app, console
from srcli.cli.upscale import parse_bytes, parse_time
from srcli.errors import ExitCode, InputError, UsageError

HEAVY = (
    *("numpy", "cv2", "torch", "onnxruntime", "openvino", "tensorrt", "onnx", "ray", "av", "rich"),
    *("fsspec", "s3fs"),
)
PROGRAM = "import sys; from srcli.cli.app import main; code = main(); "


def test_help_lists_the_commands(srcli: Command) -> None:
    run = srcli("--help")
    assert run.code == 0
    for command in ("upscale", "report", "models", "train", "evaluate", "export"):
        assert f"\n  {command} " in run.out
        assert srcli(command, "--help").code == 0


def test_version(srcli: Command) -> None:
    assert srcli("--version").out == f"srcli {package.__version__}\n"


def test_no_command_shows_the_help_and_is_wrong_usage(srcli: Command) -> None:
    run = srcli()
    assert "upscale" in run.out + run.err
    assert run.code == 2


def test_an_unknown_command_is_wrong_usage(srcli: Command) -> None:
    run = srcli("upscael")
    assert run.code == 2
    assert "upscael" in run.err


@pytest.mark.parametrize("arguments", [["--help"], ["upscale", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    report = f"print([m for m in sys.modules if m.partition('.')[0] in {HEAVY}])"
    command = [sys.executable, "-c", PROGRAM + report, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def failing(error: BaseException) -> object:
    def models() -> None:
        raise error

    return models


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> object:
    """Replace what `srcli models` does by raising an error."""

    def install(error: BaseException) -> None:
        monkeypatch.setattr("srcli.models.catalog.list_files", failing(error))

    return install


def test_known_errors_are_two_lines_and_their_exit_code(srcli: Command, broken) -> None:  # type: ignore[no-untyped-def]
    broken(InputError("x[red].png: is\nbad.", "Mend it."))
    run = srcli("models")
    assert (run.code, run.err) == (1, "error: x[red].png: is\\nbad.\n  Mend it.\n")
    broken(UsageError("No."))
    assert srcli("models").code == 2


def test_unknown_errors_are_called_a_bug(  # type: ignore[no-untyped-def]
    srcli: Command, broken, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(ZeroDivisionError("by zero"))
    run = srcli("models")
    assert run.code == 1
    assert "bug in srcli: ZeroDivisionError: by zero" in run.err
    monkeypatch.setenv("SRCLI_DEBUG", "1")
    assert app.main(["models"]) == 1
    assert b"Traceback" in capsysbinary.readouterr().err


def test_only_printing_is_blamed_for_what_cannot_be_printed(srcli: Command, broken) -> None:  # type: ignore[no-untyped-def]
    broken(FileExistsError(17, "File exists"))
    run = srcli("models")
    assert run.code == 1
    assert "bug in srcli: FileExistsError" in run.err
    assert "could be printed" not in run.err


def test_an_interrupt_anywhere_ends_with_130(srcli: Command, broken) -> None:  # type: ignore[no-untyped-def]
    broken(KeyboardInterrupt())
    run = srcli("models")
    assert (run.code, run.err) == (ExitCode.INTERRUPTED, "Interrupted.\n")


def test_a_reader_that_leaves_stops_no_work(work: Path) -> None:
    for index in range(3):
        picture(f"in/{index}.png", 100, 100)
    given = ["upscale", "in", "-o", "out", "--backend", "bicubic", "--report", "report.json", "--json"]
    command = [sys.executable, "-c", PROGRAM + "sys.exit(code)", *given]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 0, err
    assert "3 pictures" in err
    assert "Broken" not in err
    assert len(list(Path("out").iterdir())) == 3
    assert len(json.loads(Path("report.json").read_text())["pictures"]) == 3


def _in_shell(line: str) -> subprocess.CompletedProcess[str]:
    program = f"{sys.executable} -c '{PROGRAM}sys.exit(code)'"
    command = ["sh", "-c", line.replace("srcli", program)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_stdout_is_told_and_stops_no_work(work: Path) -> None:
    for index in range(3):
        picture(f"in/{index}.png")
    run = _in_shell("srcli upscale in -o out --backend bicubic > /dev/full")
    assert run.returncode == 1
    assert "Not all output could be printed (No space left on device)" in run.stderr
    assert "bug" not in run.stderr
    assert "Exception ignored" not in run.stderr
    assert len(list(Path("out").iterdir())) == 3
    assert "Not all output could be printed" in _in_shell("srcli models > /dev/full").stderr


@pytest.mark.skipif(os.name == "nt", reason="needs a shell that closes streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_program_without_streams_works(closed: str, work: Path) -> None:
    picture("in/a.png")
    run = _in_shell(f"srcli upscale in -o out --backend bicubic {closed}")
    assert (run.returncode, "bug" in run.stderr) == (0, False)
    assert Path("out/a.png").exists()


def test_models_as_table_and_json(srcli: Command, tiny_catalog: Path) -> None:
    lines = srcli("models").out.splitlines()
    assert lines[0].split()[:3] == ["name", "scale", "for"]
    assert [line.split()[:2] for line in lines[1:]] == [["tiny", "x2"], ["tiny", "x3"], ["tiny", "x4"]]
    facts = json.loads(srcli("models", "--json").out)
    assert [fact["scale"] for fact in facts] == [2, 3, 4]
    assert all(fact["bytes"] > 0 for fact in facts)


def test_export_refuses_what_it_cannot_do(srcli: Command) -> None:
    assert srcli("export", "c.pt", "--precision", "int3").code == 2


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("512M", 512 << 20),
        ("2G", 2 << 30),
        ("1.5g", 3 << 29),
        ("2GiB", 2 << 30),
        ("64 kB", 64 << 10),
    ],
)
def test_amounts_of_memory(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "0", "1X", "1e9", "2 G B"])
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="not an amount"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1:30", 90), ("0:01.5", Fraction(3, 2)), ("90:00", 5400), ("1:02:03.5", Fraction(7447, 2))],
)
def test_times(text: str, seconds: Fraction) -> None:
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "1:99", "0:60", "1:75:00", "1:00:60", "1::2", "1:2:3:4"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is no time"):
        parse_time(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.84, "0.8 s"), (42.4, "42 s"), (187, "3:07"), (3750, "1:02:30"), (59.9, "1:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_text_is_made_printable_but_stays_readable() -> None:
    assert console.printable("a\nb\x1b[31m🦊é\udcff") == "a\\nb\\x1b[31m🦊é\\udcff"


def test_tables_align_numbers_to_the_right() -> None:
    assert console.table([["name", "n"], ["a", "1"], ["bcd", "20"]]) == ["name   n", "a      1", "bcd   20"]


def test_python_m_srcli_is_the_command() -> None:
    command = [sys.executable, "-m", "srcli", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f"srcli {package.__version__}\n"


def test_ctrl_c_while_python_still_imports_shows_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), *sys.path])
    command = [sys.executable, "-m", "srcli", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    assert (result.returncode, result.stderr) == (ExitCode.INTERRUPTED, "Interrupted.\n")
