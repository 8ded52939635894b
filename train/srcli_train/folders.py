"""HR and LR images in folders: any folder of HR images, or DIV2K in its official layout."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.errors import SrcliError, TrainingError
from srcli.imaging.metrics import psnr
from srcli.imaging.pixels import as_rgb8
from srcli.imaging.resize import downscale
from srcli.io.pictures import SUFFIXES, read

_CHECK = 96  # side of the LR crop that is compared with our own bicubic
_MARGIN = 6  # LR pixels at the crop's edge that see HR pixels outside it
_SAME = 40.0  # dB; the same bicubic gives over 50 even through other roundings
_REACH = 3  # misalignments looked for, in LR pixels
_VALIDATION_IMAGES = 12
_HELD_BACK = 10  # one training image of so many at most is used for validation instead
_VALIDATION_SIDE = 384  # pixels of HR, from the middle


class UnfitPicturesError(TrainingError):
    """Pictures of a folder that cannot be trained on, all of them.

    Attributes:
        problems: one for each.
    """

    def __init__(self, problems: Sequence[SrcliError]) -> None:
        self.problems = tuple(problems)
        first, *more = self.problems
        others = f" {len(more)} more cannot be used either." if more else ""
        super().__init__(first.message + others, first.hint)


@dataclass(frozen=True, slots=True)
class Source:
    """HR files and, a scale, the LR files that belong to them (empty: LR is made)."""

    hr: tuple[Path, ...]
    lr: dict[int, tuple[Path, ...]] = field(default_factory=dict)


def find_source(folder: Path, part: str = "train") -> Source:
    """HR images of `folder` (not hidden ones) and, in DIV2K's layout, the bicubic LR sets that are present.

    DIV2K's layout is `DIV2K_<part>_HR/0001.png` beside
    `DIV2K_<part>_LR_bicubic/X2/0001x2.png`; only `LR_bicubic` is looked for, never `LR_mild` and others.

    Raises:
        TrainingError: no images, or an LR set that misses a file.
    """
    if not folder.is_dir():
        raise TrainingError(f"{folder} is not a folder.", "Give a folder of HR images, or DIV2K's.")
    hr_folder = folder / f"DIV2K_{part}_HR"
    home = hr_folder if hr_folder.is_dir() else folder
    seen = (p for p in home.iterdir() if not p.name.startswith("."))  # macOS: ._0001.png is no image
    hr = tuple(sorted(p for p in seen if p.suffix.lower() in SUFFIXES))
    if not hr:
        raise TrainingError(f"No images in {home}.", f"Formats: {', '.join(sorted(SUFFIXES))}.")
    sets = folder / f"DIV2K_{part}_LR_bicubic"
    return Source(hr, {s: _lr_files(sets / f"X{s}", hr, s) for s in (2, 3, 4) if (sets / f"X{s}").is_dir()})


def split(data: Path, valid: Path | None) -> tuple[Source, tuple[Path, ...]]:
    """Training files, and HR files for validation: at most 12.

    Args:
        data: folder of HR images, or of DIV2K.
        valid: folder of validation images; None: DIV2K's, or a tenth held back from `data`.

    Raises:
        TrainingError: as `find_source`, or `data` holds one image only.
    """
    source = find_source(data)
    if valid:
        return source, find_source(valid, "valid").hr[:_VALIDATION_IMAGES]
    if (data / "DIV2K_valid_HR").is_dir():
        return source, find_source(data, "valid").hr[:_VALIDATION_IMAGES]
    if len(source.hr) < 2:
        raise TrainingError(f"{data} holds one image only.", "Add images, or give --valid a folder.")
    count = max(1, min(_VALIDATION_IMAGES, len(source.hr) // _HELD_BACK))
    held = set(range(0, len(source.hr), len(source.hr) // count)[:count])
    rest = [i for i in range(len(source.hr)) if i not in held]
    lr = {s: tuple(files[i] for i in rest) for s, files in source.lr.items()}
    return Source(tuple(source.hr[i] for i in rest), lr), tuple(source.hr[i] for i in sorted(held))


def read_middle(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image's middle, at most 384 pixels a side.

    Raises:
        InputError: the file is not a readable image.
    """
    image, side = read_rgb(path), _VALIDATION_SIDE
    top, left = (max(0, length - side) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _lr_files(folder: Path, hr: tuple[Path, ...], scale: int) -> tuple[Path, ...]:
    files = tuple(folder / f"{p.stem}x{scale}{p.suffix}" for p in hr)
    missing = [f for f in files if not f.is_file()]
    if missing:
        raise TrainingError(
            f"{folder} lacks {len(missing)} of {len(files)} LR images, the first is {missing[0].name}.",
            "Unpack the LR set again, or remove it: LR is then made from HR.",
        )
    return files


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB; gray is repeated, alpha dropped, 16 bits rounded to 8.

    Raises:
        InputError: the file is not a readable image.
    """
    return as_rgb8(read(path).pixels)


def check_pair(hr: NDArray[np.uint8], lr: NDArray[np.uint8], scale: int, path: Path) -> None:
    """Refuse an LR image that is not the bicubic, aligned LR of its HR image.

    Compares size, then the middle of the picture with our own bicubic.

    Raises:
        TrainingError: naming the file and whether size, alignment or degradation is wrong.
    """
    want = (hr.shape[0] // scale, hr.shape[1] // scale)
    if lr.shape[:2] != want:
        raise TrainingError(
            f"{path}: is {lr.shape[1]}×{lr.shape[0]}, but HR / {scale} is {want[1]}×{want[0]}.",
            "This LR image belongs to another HR image or scale.",
        )
    best, (dy, dx) = _best_shift(hr, lr, scale)
    if best < _SAME:
        raise TrainingError(
            f"{path}: is not a bicubic x{scale} of its HR image (PSNR to ours {best:.1f} dB).",
            'Use "LR_bicubic"; DIV2K\'s mild, difficult, wild and unknown sets are other degradations.',
        )
    if (dy, dx) != (0, 0):
        raise TrainingError(
            f"{path}: is shifted by {dx} pixels to the right and {dy} down against its HR image.",
            "Make the LR set again with MATLAB's imresize, or remove it: LR is then made from HR.",
        )


def _best_shift(hr: NDArray[np.uint8], lr: NDArray[np.uint8], scale: int) -> tuple[float, tuple[int, int]]:
    """Highest PSNR between the LR image's middle and our own, and the shift that gives it."""
    height, width = min(_CHECK, lr.shape[0]), min(_CHECK, lr.shape[1])
    top, left = (lr.shape[0] - height) // 2, (lr.shape[1] - width) // 2
    ours = downscale(hr[top * scale : (top + height) * scale, left * scale : (left + width) * scale], scale)
    margin = min(_MARGIN + _REACH, (min(height, width) - 1) // 2)
    reach = min(_REACH, margin)
    core = ours[margin : height - margin, margin : width - margin]

    def score(shift: tuple[int, int]) -> float:
        y, x = top + margin + shift[0], left + margin + shift[1]
        return psnr(core, lr[y : y + core.shape[0], x : x + core.shape[1]])

    if (straight := score((0, 0))) >= _SAME:
        return straight, (0, 0)
    shifts = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    best = max(shifts, key=score)
    return score(best), best
