"""Pictures through the upscalers: PSNR against fp32 and HR, and the time of each stage from file to file."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.benchmark.rounds import Attempts, keeping
from srcli.benchmark.subjects import Case
from srcli.errors import InputError
from srcli.imaging.metrics import psnr, psnr_y, to_y
from srcli.imaging.pixels import as_rgb8
from srcli.imaging.resize import downscale, modcrop
from srcli.io import pictures
from srcli.io.pictures import Picture
from srcli.upscaler import Upscaler

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float64]

SIDE = 512
"""Of the chart that quality is measured on, HR pixels."""

_TEXT = "Sphinx of black quartz, judge my vow. 0123456789"
_QUALITY = 92  # of the JPEG whose stages are timed, as cameras write them
_REFERENCE = Case("", "cpu", "fp32")
"""Stands for the fp32 output where it is none of what is measured."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the pictures, dB: luma, shave = scale.

    Attributes:
        to_fp32: against the fp32 output, before rounding to 8 bits; infinite for equal ones, None for the
            one that is compared with, and where there is none.
        to_hr: against the HR pictures, rounded to 8 bits.
    """

    to_fp32: float | None
    to_hr: float


def measure(
    upscalers: Mapping[Case, Upscaler],
    exact: Upscaler | None,
    hr_pictures: Iterable[Pixels],
    scale: int,
    attempts: Attempts[Case],
) -> dict[Case, Quality]:
    """Upscale the bicubic LR image of each HR picture; those that fail are left out.

    Args:
        upscalers: what is measured.
        exact: the same model in fp32, one of `upscalers` or another; None: there is none.
        hr_pictures: (H, W, 3) uint8 RGB, larger than 2 * scale a side; at least one.
        scale: of the model.
        attempts: keeps what fails.
    """
    scores: dict[Case, list[Quality]] = {case: [] for case in upscalers}
    own = next((case for case, upscaler in upscalers.items() if upscaler is exact), _REFERENCE)
    for picture in hr_pictures:
        hr = modcrop(picture, scale)
        lr = downscale(hr, scale).astype(np.float32) / np.float32(255)
        reference = None if exact is None else attempts.of(own, partial(_enlarged, exact, lr))
        for case, upscaler in upscalers.items():
            sr = reference if case == own else attempts.of(case, partial(_enlarged, upscaler, lr))
            if sr is not None:
                scores[case].append(_score(sr, None if case == own else reference, hr, scale))
    return {case: _mean(values) for case, values in scores.items() if case not in attempts.problems}


def _enlarged(upscaler: Upscaler, lr: NDArray[Any]) -> NDArray[Any]:
    return upscaler(lr) * 255


def _score(sr: NDArray[Any], reference: NDArray[Any] | None, hr: Pixels, scale: int) -> Quality:
    to_fp32 = None if reference is None else psnr(to_y(sr), to_y(reference), shave=scale)
    return Quality(to_fp32, _to_hr(sr, hr, scale))


def _to_hr(sr: NDArray[Any], hr: Pixels, scale: int) -> float:
    return psnr_y(np.rint(sr).astype(np.uint8), hr, scale)


def _mean(values: list[Quality]) -> Quality:
    apart = [value.to_fp32 for value in values if value.to_fp32 is not None]
    to_hr = math.fsum(value.to_hr for value in values) / len(values)
    return Quality(sum(apart) / len(apart) if apart else None, to_hr)


@dataclass(frozen=True, slots=True)
class Stages:
    """Seconds of each stage for one picture; encoding includes writing the file."""

    decode: float
    infer: float
    encode: float

    @property
    def seconds(self) -> float:
        """From file to file, one stage after the other."""
        return self.decode + self.infer + self.encode


def stages(
    upscalers: Mapping[Case, Upscaler], side: int, repetitions: int, attempts: Attempts[Case]
) -> dict[Case, Stages]:
    """Medians over rounds in turns, after one that warms up, of those that do not fail.

    Args:
        upscalers: what upscales; their tiles count.
        side: of the square JPEG that goes in, pixels.
        repetitions: rounds that count.
        attempts: keeps what fails.
    """
    taken: dict[Case, list[Stages]] = {case: [] for case in upscalers}
    with TemporaryDirectory() as folder:
        source, target = Path(folder, "picture.jpg"), Path(folder, "large.jpg")
        pictures.write(source, Picture(chart(side)), quality=_QUALITY)
        runs = {
            case: keeping(partial(_once, upscaler, source, target), taken[case])
            for case, upscaler in upscalers.items()
        }
        done = attempts.interleave(runs, repetitions)
    return {case: _median(taken[case][-repetitions:]) for case in done}


def _once(upscaler: Upscaler, source: Path, target: Path) -> Stages:
    begin = perf_counter()
    picture = pictures.read(source)
    decoded = perf_counter()
    large = upscaler(picture.pixels)
    inferred = perf_counter()
    pictures.write(target, Picture(large, picture.metadata))
    return Stages(decoded - begin, inferred - decoded, perf_counter() - inferred)


def _median(values: list[Stages]) -> Stages:
    return Stages(
        median(v.decode for v in values), median(v.infer for v in values), median(v.encode for v in values)
    )


def chart(side: int) -> Pixels:
    """(side, side, 3) uint8 RGB: gradients and edges above, text and texture below; the same every time."""
    half, rest = side // 2, side - side // 2
    top = np.hstack([_gradients(half, half), _edges(half, rest)])
    bottom = np.hstack([_text(rest, half), _texture(rest, rest)])
    return np.vstack([top, bottom])


def hr_files(folder: Path) -> list[Path]:
    """The pictures in a folder, by name; hidden files, such as macOS's `._a.png`, are none.

    Raises:
        InputError: there is no such folder, or no picture in it.
    """
    suffixes = (*pictures.SUFFIXES, *pictures.READ_ONLY_SUFFIXES)
    try:
        seen = (p for p in folder.iterdir() if not p.name.startswith("."))
        found = sorted(p for p in seen if p.suffix.lower() in suffixes and p.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}).", "Name a folder.") from error
    if not found:
        raise InputError(f"{folder}: no pictures in this folder.", f"It needs {', '.join(suffixes)}.")
    return found


def read_hr(path: Path) -> Pixels:
    """A picture as (H, W, 3) uint8 RGB: gray in all three channels, alpha left out, 16 bits rounded to 8.

    Raises:
        InputError: it cannot be read.
    """
    return as_rgb8(pictures.read(path).pixels)


def _grid(height: int, width: int) -> tuple[Plane, Plane]:
    """Coordinates of the pixels, -1 to 1 down and across."""
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    return rows / height * 2 - 1, columns / width * 2 - 1


def _eight_bits(*planes: Plane) -> Pixels:
    """Planes of 0-1 as (H, W, 3) uint8."""
    return np.clip(np.rint(np.stack(planes, axis=2) * 255), 0, 255).astype(np.uint8)


def _gradients(height: int, width: int) -> Pixels:
    """A linear and a round gradient and their mixture."""
    y, x = _grid(height, width)
    ball = np.clip(1 - np.hypot(x, y), 0, 1)
    return _eight_bits((x + 1) / 2, (y + 1) / 2, 0.2 + 0.7 * ball)


def _edges(height: int, width: int) -> Pixels:
    """A star of 36 spokes, edges one pixel soft, as a camera's are."""
    y, x = _grid(height, width)
    radius = np.hypot(x, y)
    away = np.sin(18 * np.arctan2(y, x)) / 18 * radius * height / 2  # pixels from the next edge
    star = np.clip(away + 0.5, 0, 1)
    inside = np.clip((0.95 - radius) * height / 2, 0, 1)
    return _eight_bits(
        star * inside + 1 - inside, star * 0.8 * inside + 1 - inside, 0.9 - 0.6 * star * inside
    )


def _text(height: int, width: int) -> Pixels:
    """Lines of growing letters, dark on paper."""
    page = np.full((height, width, 3), (244, 240, 226), np.uint8)
    bottom, size = 4.0, 0.3
    while bottom < height:
        bottom += 34 * size
        ink = (30, 24, round(120 * size) % 256)
        cv2.putText(
            page,
            _TEXT,
            (4, round(bottom)),
            cv2.FONT_HERSHEY_SIMPLEX,
            size,
            ink,
            1 + (size > 0.7),
            cv2.LINE_AA,
        )
        size *= 1.15
    return page


def _texture(height: int, width: int) -> Pixels:
    """Rings that grow finer, over grain of two sizes."""
    y, x = _grid(height, width)
    draw = np.random.default_rng(0)
    fine, coarse = (draw.standard_normal((height, width)) for _ in range(2))
    grain = 0.12 * cv2.GaussianBlur(fine, (0, 0), 0.8) + 0.5 * cv2.GaussianBlur(coarse, (0, 0), 3.0)
    rings = 0.5 + 0.3 * np.cos(np.hypot(x, y) ** 2 * height / 4)
    weave = 0.08 * np.sin(x * width / 5) * np.sin(y * height / 7)
    return _eight_bits(rings + grain, 0.9 * rings + grain + weave, 0.6 * rings + grain + 0.2)
