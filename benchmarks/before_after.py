"""The README's pictures: the same part of an example by bicubic and by srcli, at 100%.

python benchmarks/before_after.py             writes docs/images/<example>-x4.png and photo-x4.png
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
from srcli.imaging.resize import imresize
from srcli.io import pictures
from srcli.models.auto import PHOTO
from srcli.upscaler import Upscaler
from srcli_train.degradations.photo import Noise, add_noise, jpeg

OUT = Path(__file__).parents[1] / "docs" / "images"
LIMIT = 800_000
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
DAMAGED = Crop("astronaut.png", 50, 112, 48, 62)
"""The part that is shown clean and damaged."""
QUALITY, NOISE = 40, 4.0
"""How it is damaged: libjpeg's quality after noise of that many of 255."""


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
    upscaler = Upscaler(options.model, options.scale)
    made = {Path(crop.file).stem: beside(crop, upscaler) for crop in CROPS}
    made["photo"] = clean_and_damaged(DAMAGED, upscaler, Upscaler(PHOTO, options.scale))
    total = sum(_write(image, options.out / f"{name}-x{options.scale}.png") for name, image in made.items())
    if total > LIMIT:
        raise SystemExit(f"{total} bytes are more than {LIMIT}: make the crops smaller.")


def _write(image: Pixels, path: Path) -> int:
    """The bytes it takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 9))
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return path.stat().st_size


def beside(crop: Crop, *upscalers: Upscaler, image: Pixels | None = None, what: str = "") -> Pixels:
    """Bicubic on the left, networks to the right of it; the whole image is upscaled, then cut.

    Args:
        crop: what to show of the example.
        upscalers: of one scale.
        image: (H, W, 3) uint8 instead of the example as it is.
        what: to say about it.
    """
    image = pictures.read(EXAMPLES / crop.file).pixels if image is None else image
    scale = int(upscalers[0].settings.scale)
    panels = {"bicubic": imresize(image, (image.shape[0] * scale, image.shape[1] * scale))}
    panels |= {f"srcli, {upscaler.spec.name}": upscaler(image) for upscaler in upscalers}
    labelled = [
        _labelled(_cut(panel, crop, scale), f"{name} x{scale}{what}") for name, panel in panels.items()
    ]
    gap = np.full((labelled[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([part for panel in labelled for part in (panel, gap)][:-1], axis=1)


def clean_and_damaged(crop: Crop, *upscalers: Upscaler) -> Pixels:
    """The same part of the example as it is, and below it with noise and JPEG."""
    image = pictures.read(EXAMPLES / crop.file).pixels
    noise = Noise(NOISE, signal=0.5, common=0.5, grain=0.0)
    noisy = add_noise(image.astype(np.float32), noise, np.random.default_rng(0)).round().astype(np.uint8)
    damaged = jpeg(noisy, QUALITY, "4:2:0")
    rows = [beside(crop, *upscalers, image=i, what=w) for i, w in ((image, ""), (damaged, ", of a JPEG"))]
    return np.concatenate(rows)


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
