"""Telemetry is off: nothing is written to the home directory, and no telemetry package is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
from engines import load, picture
load(sys.argv[1], Path(sys.argv[2])).run(picture(8, 8))
assert sys.argv[1] in sys.modules
assert not any(name.startswith("openvino_telemetry") for name in sys.modules)
"""
EXPORT = "import srcli_export"


def run_at_home(home: Path, program: str, *arguments: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    homes = {
        "SRCLI_CACHE": f"{home}-cache",
        "HOME": str(home),
        "USERPROFILE": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
    }
    here = str(Path(__file__).parent)
    path = {"PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment | homes | path, check=True, timeout=120
    )


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_run_writes_nothing_to_the_home_directory(backend: str, tmp_path: Path, tiny_models: Path) -> None:
    run_at_home(tmp_path, PROGRAM, backend, str(tiny_models / "tiny-x2.onnx"))
    assert list(tmp_path.rglob("*")) == []


def test_export_writes_nothing_to_the_home_directory(tmp_path: Path) -> None:
    run_at_home(tmp_path, EXPORT)
    assert list(tmp_path.rglob("*")) == []
