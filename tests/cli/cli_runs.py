"""What the tests of the command line share: how a run ended, and pictures to run it on."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from srcli.io import pictures


@dataclass(frozen=True)
class Run:
    """What a command line did."""

    code: int
    out: str
    err: str


Command = Callable[..., Run]


def picture(path: Path | str, height: int = 6, width: int = 9) -> Path:
    """Write a smooth picture with a little texture; the format follows the suffix."""
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [rows * 7 + columns * 3, rows * 2 + columns * 11, (rows ^ columns) * 5]
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.write(path, pictures.Picture(np.stack(planes, axis=2).astype(np.uint8)))
    return path
