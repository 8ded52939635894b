"""Streams of other code pages, as of Windows: messages always come out, paths and JSON stay exact."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import picture

NAME = "Ünï–日本\N{CYRILLIC SMALL LETTER ZHE}\N{GRINNING FACE}.png"


def run(encoding: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """srcli in a process whose stdin, stdout and stderr are pipes of that encoding."""
    own = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "srcli", *arguments]
    done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, check=False)
    assert b"Traceback" not in done.stderr
    assert b"UnicodeEncodeError" not in done.stderr
    assert b"bug" not in done.stderr
    return done


@pytest.fixture(params=["cp932", "cp437", "cp1252", "ascii", "latin-1"])
def encoding(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    picture(f"in/{NAME}")
    return str(request.param)


def test_upscale_and_its_paths_and_its_report(encoding: str) -> None:
    done = run(encoding, "upscale", "in", "in/nosuch–×.png", "-s", "2", "--backend", "bicubic")
    assert done.returncode == 1
    assert done.stdout.rstrip(b"\r\n") == os.fsencode(Path("upscaled", NAME))
    assert b"error: in" in done.stderr
    assert b"1 picture is in upscaled" in done.stderr
    dry = run(encoding, "upscale", "in", "-s", "3", "-o", "other", "--dry-run", "--backend", "bicubic")
    assert dry.returncode == 0
    line = dry.stdout.decode("utf-8" if encoding == "ascii" else encoding)  # click takes UTF-8 for ASCII
    assert "9×6" in line or "9x6" in line
    assert ".png" in line
    told = run(encoding, "upscale", "in", "-s", "2", "--json", "--overwrite", "--backend", "bicubic")
    assert told.returncode == 0
    assert told.stdout.isascii()
    assert json.loads(told.stdout)["pictures"][0]["output"] == str(Path("upscaled", NAME))


def test_tables_help_and_wrong_usage(encoding: str) -> None:
    assert run(encoding, "models").returncode == 0
    models = run(encoding, "models", "--json")
    assert models.stdout.isascii()
    assert json.loads(models.stdout)
    assert run(encoding, "upscale", "--help").returncode == 0
    wrong = run(encoding, "upscale", "in", "--nönsense–日本")
    assert wrong.returncode == 2
    assert b"nsense" in wrong.stderr
