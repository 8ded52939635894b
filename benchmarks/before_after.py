"""The README's pictures: the same part of an example by bicubic and by srcli, at 100%.

python benchmarks/before_after.py             writes docs/images/<example>-x4.png
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pictures import EXAMPLES
from srcli.media import images
from srcli.resize import imresize
from srcli.upscaler import Upscaler

OUT = Path(__file__).parents[1] / "docs" / "images"
LIMIT = 400_000
"""Bytes that all pictures together may have."""

_BAR = 22  # pixels of the strip with the labels
_GAP = 4

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of an example, in its own pixels: middle (y, x), height and width."""

    file: str
    y: int
    x: int
    height: int = 50
    width: int = 64


CROPS = (
    Crop("chelsea.jpg", 56, 76),
    Crop("astronaut.png", 50, 112),
    Crop("coffee.png", 140, 180),
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one picture a crop.

    Raises:
        SystemExit: together they are larger than a README should load.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", default="mdsr", help="name or .onnx file")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    upscaler, total = Upscaler(options.model, options.scale), 0
    for crop in CROPS:
        path = options.out / f"{Path(crop.file).stem}-x{options.scale}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), beside(crop, upscaler)[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 9))
        total += path.stat().st_size
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    if total > LIMIT:
        raise SystemExit(f"{total} bytes are more than {LIMIT}: make the crops smaller.")


def beside(crop: Crop, upscaler: Upscaler) -> Pixels:
    """Bicubic on the left, the network on the right; the whole example is upscaled, then cut."""
    image, scale = images.read(EXAMPLES / crop.file).pixels, int(upscaler.scale)
    bicubic = imresize(image, (image.shape[0] * scale, image.shape[1] * scale))
    panels = {"bicubic": bicubic, f"srcli, {upscaler.spec.name}": upscaler(image)}
    labelled = [_labelled(_cut(panel, crop, scale), f"{name} x{scale}") for name, panel in panels.items()]
    gap = np.full((labelled[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([labelled[0], gap, labelled[1]], axis=1)


def _cut(image: Pixels, crop: Crop, scale: int) -> Pixels:
    """The crop in an upscaled image, moved inside where it would leave it."""
    height, width = crop.height * scale, crop.width * scale
    top = min(max(0, crop.y * scale - height // 2), image.shape[0] - height)
    left = min(max(0, crop.x * scale - width // 2), image.shape[1] - width)
    return image[top : top + height, left : left + width]


def _labelled(panel: Pixels, text: str) -> Pixels:
    """A white strip with the text above the panel."""
    strip = np.full((_BAR, panel.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (3, _BAR - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([strip, panel])


if __name__ == "__main__":
    main()
