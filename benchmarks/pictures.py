"""Photographs to measure on, made from the three in examples/ so that everybody has the same ones."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.resize import imresize
from srcli.io import pictures
from srcli.io.pictures import Metadata, Picture

EXAMPLES = Path(__file__).parents[1] / "examples"
_SHORT = 720  # pixels of the short side that photographs are cut from

Pixels = NDArray[Any]


@lru_cache(maxsize=1)
def _examples() -> tuple[Pixels, ...]:
    """The examples, enlarged so that crops of any of them have the detail of a camera's picture."""
    files = sorted(p for p in EXAMPLES.iterdir() if p.suffix in (".png", ".jpg"))
    return tuple(_enlarged(pictures.read(file).pixels) for file in files)


def _enlarged(image: Pixels) -> Pixels:
    factor = _SHORT / min(image.shape[:2])
    size = round(image.shape[0] * factor), round(image.shape[1] * factor)
    grain = np.random.default_rng(0).normal(0, 2.0, (*size, 3))  # a camera's pictures are not smooth
    return np.clip(imresize(image, size) + grain, 0, 255).round().astype(np.uint8)


def photograph(height: int, width: int, seed: int = 0) -> Pixels:
    """(height, width, 3) uint8 RGB: a part of an example, repeated in mirror image where it is too small."""
    draw = np.random.default_rng(seed)
    source = _examples()[int(draw.integers(len(_examples())))]
    top = int(draw.integers(max(1, source.shape[0] - height + 1)))
    left = int(draw.integers(max(1, source.shape[1] - width + 1)))
    part = source[top : top + height, left : left + width]
    missing = ((0, height - part.shape[0]), (0, width - part.shape[1]), (0, 0))
    return np.pad(part, missing, mode="symmetric")


def shaped(megapixels: float, shape: float, seed: int = 0) -> Pixels:
    """As `photograph`, of so many megapixels and width / height."""
    height = round((megapixels * 1e6 / shape) ** 0.5)
    return photograph(height, round(height * shape), seed)


def save(pixels: Pixels, path: Path, quality: int | None = None) -> None:
    """Write in the format of the suffix."""
    picture = Picture(pixels, Metadata(None, None, None), pictures.format_of(path) or "png", ())
    pictures.write(path, picture, format=None, quality=quality)


def folder(
    into: Path, count: int, smallest: float, largest: float, suffixes: tuple[str, ...] = (".jpg", ".png")
) -> list[Path]:
    """Write `count` photographs of mixed sizes and shapes.

    Args:
        into: an empty folder.
        smallest, largest: megapixels; sizes are spread evenly between them, in no order.
        suffixes: formats that take turns.
    """
    draw, paths = np.random.default_rng(1), []
    for number, megapixels in enumerate(draw.permutation(np.linspace(smallest, largest, count))):
        shape = (1.0, 3 / 2, 2 / 3, 16 / 9)[int(draw.integers(4))]
        path = into / f"{number:03}{suffixes[number % len(suffixes)]}"
        save(shaped(megapixels, shape, number), path, 92 if path.suffix == ".jpg" else None)
        paths.append(path)
    return paths
