"""Films for the scripts, and `srcli upscale` on them in this process, timed from the first window on."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import clips
from srcli.cli.app import main as srcli_main
from srcli.imaging.pixels import Pixels
from srcli.precision import Pass


@dataclass(frozen=True, slots=True)
class Setup:
    """A folder for films, and the options of the command line."""

    scratch: Path
    options: argparse.Namespace

    def clip(self, name: str, frames: Iterator[Pixels], **how: Any) -> Path:
        """A film of these frames, written once."""
        path = self.scratch / f"{name}.mkv"
        if not path.exists():
            clips.write(path, frames, **how)
        return path

    def command(self, source: Path, target: str, *more: str, scale: int = 2) -> list[str]:
        """Arguments of srcli."""
        out = str(self.scratch / target)
        return ["upscale", str(source), "-s", str(scale), "-o", out, "--overwrite", "--quiet", *more]

    def run(self, source: Path, target: str, *more: str, scale: int = 2) -> float:
        """Run the command in this process; returns its seconds from the first window on, if there is one.

        Raises:
            RuntimeError: it failed.
        """
        begin = perf_counter()
        with first_window() as begun, redirect_stdout(TextIOWrapper(BytesIO())):
            code = srcli_main(self.command(source, target, *more, scale=scale))
        if code:
            raise RuntimeError(f"srcli ended with exit code {code}")
        return perf_counter() - (begun or [begin])[0]


@contextmanager
def first_window() -> Iterator[list[float]]:
    """While it lasts, the moment at which the first window is given to a network is kept."""
    begun: list[float] = []
    feed = Pass.feed

    def stamped(self: Pass) -> Any:
        if not begun:
            begun.append(perf_counter())
        return feed(self)

    with patch.object(Pass, "feed", stamped):
        yield begun
