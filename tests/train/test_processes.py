"""Runs processes_cases.py, which says why not here."""

import subprocess
import sys
from pathlib import Path

CASES = Path(__file__).with_name("processes_cases.py")


def test_processes_that_draw() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:faulthandler", "-p", "no:cacheprovider", str(CASES)]
    run = subprocess.run(command, cwd=CASES.parents[2], capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout
