"""Running srcli in this process."""

import os
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
def srcli(work: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Command:
    """`srcli("upscale", "a.png", ...)` in the empty folder. No command may ever show a traceback."""

    def run(*arguments: str) -> Run:
        capsysbinary.readouterr()
        code = main([*arguments])
        out, err = map(os.fsdecode, capsysbinary.readouterr())
        assert "Traceback" not in out + err
        return Run(int(code), out, err)

    return run
