"""Running srcli in this process."""

from pathlib import Path

import pytest
from cli_runs import Command, Run

from srcli.cli.app import main


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def srcli(work: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """`srcli("upscale", "a.png", ...)` in the empty folder. No command may ever show a traceback."""

    def run(*arguments: str) -> Run:
        capsys.readouterr()
        code = main([*arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Run(int(code), captured.out, captured.err)

    return run
