"""Commands measured from outside, as a user meets them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Taken:
    """What a command took: seconds on the wall and of CPU, and the peak of its memory in bytes."""

    seconds: float
    cpu: float
    peak: int


def srcli(*arguments: str) -> list[str]:
    """The command as a module, found where this Python finds it: it needs not be installed.

    That imports one module of the standard library more than the installed script does.
    """
    return [sys.executable, "-P", "-m", "srcli", *arguments]


def measure(command: Sequence[str]) -> Taken:
    """Run a command to its end.

    Raises:
        RuntimeError: it did not end well.
    """
    watcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("child.py"))]
    done = subprocess.run([*watcher, *command], check=True, capture_output=True, text=True)
    result = json.loads(done.stdout)
    if result["code"]:
        raise RuntimeError(f"exit code {result['code']}: {' '.join(command)}")
    return Taken(result["seconds"], result["cpu"], result["peak"])
