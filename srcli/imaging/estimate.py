"""How much JPEG, noise and blur a picture shows: which network suits it, the bicubic or the photo one.

Bicubic-trained networks sharpen whatever they are given; a network trained on degraded photographs
removes it. No reference is needed, and the cost is a fraction of an upscaling. JPEGs that were resized
since show no grid any more and count by their noise and blur alone.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.errors import UsageError
from srcli.imaging import pixels

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""JPEG's, not rounded."""
_BLOCK = 8
_FREQUENCIES = ((0, 7), (7, 0), (2, 7), (7, 2), (5, 5), (7, 7))
"""Of the DCT, (vertical, horizontal): those that JPEG quantises away first."""
_NOTHING = 0.01  # levels; coefficients below are of exactly flat areas
_SMALL = 1.0  # levels; what is left of a coefficient that was quantised to zero, after rounding to 8 bits
_PRIOR = 20  # coefficients; a share of fewer tells nothing
_CHANCE = 2.0  # standard errors by which the best of 64 grids beats others anyway
_CORNER = np.array([1, -3, 3, -1], np.float32) / np.float32(20**0.5)
"""Keeps white noise as strong as it is, and of a picture only the finest diagonal detail."""
_COARSE = np.array([0.5, 0.5, -0.5, -0.5], np.float32)
"""The same of the next octave."""
_CELL = 16  # side of the areas in which noise is measured
_SMOOTHEST = 0.15  # share of the areas that count: those with the least texture
_TEXTURE = 0.33  # at most, finest detail of a picture against the next coarser; of noise it is 1
_STEP = np.array([-1, 3, -3, 1], np.float32) / np.float32(20**0.5)
"""The finest detail along one direction."""
_STRIDE = np.array([-1, 0, 2, 0, -1], np.float32) / np.float32(6**0.5)
"""The same of the next octave."""
_CONTRAST = 16.0  # levels squared of the next octave, beyond noise, from which an area has edges to judge by
_SHARPEST = 0.1  # share of these areas that count: a picture may be out of focus but for a face
_FEW = 8  # areas; fewer tell nothing
_INSIDE = (4, 251)  # levels; outside, clipping hides noise
_ENOUGH = 0.25  # least share of areas inside those levels, or all count
_MEGAPIXEL = 1 << 20

SMALLEST = 2 * _CELL
"""Pixels a side from which on an image can be measured."""
BLOCKS = 0.035
"""`Artifacts.blocks` from which on a picture counts as a JPEG; photographs of quality 90 have 0.1 to 0.6."""
NOISE = 1.6
"""`Artifacts.noise` from which on a picture counts as noisy."""
BLURRED = 0.02, 0.232
"""`Artifacts.sharpness` between which a picture counts as blurred, by a Gaussian of about 0.5 to 1.5 pixels:
the photo network was trained for no more, and what is smoother still may have been drawn so. Of 1,323
training pictures that were only downscaled, ten lie there."""


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What was measured on one picture.

    Attributes:
        blocks: share of high-frequency coefficients that are zero on the best 8×8 grid, less the same on
            the grids half a block away and what chance makes of it: 0 for a picture that never was a JPEG,
            or was resized since; up to 1.
        grid: rows and columns before that grid's first whole block, 0 to 7.
        noise: standard deviation of gray or colour noise in the smoothest areas, in levels of 0-255.
        sharpness: energy of the finest detail against that of the next octave, both beyond the noise of
            luma, where there is most of it; 1 for a picture without edges, 0.3 to 0.6 for most clean ones,
            less for blurred ones.
    """

    blocks: float
    grid: tuple[int, int]
    noise: float
    sharpness: float

    @property
    def suits_photo(self) -> bool:
        """Whether the network trained on degraded photographs will do better than the bicubic one."""
        return self.blocks > BLOCKS or self.noise > NOISE or BLURRED[0] < self.sharpness < BLURRED[1]


def measure(image: NDArray[Any]) -> Artifacts:
    """Measure one picture; of large ones the middle.

    Args:
        image: of any layout and type in `srcli.imaging.pixels`, 32 pixels a side or more.

    Raises:
        InputError: the array is no image.
        UsageError: it is too small.
    """
    pixels.check(image)
    if min(image.shape[:2]) < SMALLEST:
        raise UsageError(
            f"JPEG, noise and blur are measured from {SMALLEST} pixels a side on, not {image.shape}."
        )
    part = pixels.as_rgb8(_middle(image))
    luma = part.astype(np.float32) @ _LUMA
    blocks, grid = _blocks(luma)
    noise = _noise(luma, luma)
    colour = max(_noise(plane, luma) for plane in _differences(part))
    return Artifacts(blocks, grid, max(noise, colour), _sharpness(luma, noise))


def _middle(image: NDArray[Any]) -> NDArray[Any]:
    """At most a megapixel of about the picture's shape; the corner keeps its place in an 8×8 grid."""
    share = min(1.0, np.sqrt(_MEGAPIXEL / (image.shape[0] * image.shape[1])))
    height, width = (int(side * share) for side in image.shape[:2])
    top, left = ((image.shape[axis] - size) // 16 * 8 for axis, size in enumerate((height, width)))
    return image[top : top + height, left : left + width]


def _blocks(luma: NDArray[np.float32]) -> tuple[float, tuple[int, int]]:
    """`Artifacts.blocks` and `grid`: every place's coefficients first, then each grid's share of zeros."""
    zeros, counted = np.zeros((_BLOCK, _BLOCK)), np.zeros((_BLOCK, _BLOCK))
    for vertical, horizontal in _FREQUENCIES:
        size = np.abs(_coefficients(luma, vertical, horizontal))
        zeros += _by_grid((size > _NOTHING) & (size < _SMALL))
        counted += _by_grid(size > _NOTHING)
    share = zeros / (counted + _PRIOR)
    row, column = np.unravel_index(int(share.argmax()), share.shape)
    best, other = share.max(), max(share[row - 4, column], share[row, column - 4])
    chance = _CHANCE * np.sqrt(2 * best * (1 - best) / (counted[row, column] + _PRIOR))
    return max(0.0, float(best - other - chance)), (int(row), int(column))


def _coefficients(luma: NDArray[np.float32], vertical: int, horizontal: int) -> NDArray[np.float32]:
    """One DCT coefficient of the 8×8 block that begins at each pixel."""
    full = cv2.sepFilter2D(luma, cv2.CV_32F, _basis(horizontal), _basis(vertical), anchor=(0, 0))
    return np.asarray(full[: 1 - _BLOCK, : 1 - _BLOCK], np.float32)


def _basis(frequency: int) -> NDArray[np.float32]:
    wave = np.cos((2 * np.arange(_BLOCK) + 1) * frequency * np.pi / (2 * _BLOCK))
    return np.asarray(wave * np.sqrt((2 if frequency else 1) / _BLOCK), np.float32)


def _by_grid(marks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Counts by (row, column) modulo 8."""
    height, width = (side // _BLOCK * _BLOCK for side in marks.shape)
    cells = marks[:height, :width].reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    return np.asarray(cells.sum((0, 2)), np.float64)


def _differences(image: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """Red and blue less green, at the noise level of one channel: pictures have little fine detail there."""
    red, green, blue = (image[..., c].astype(np.float32) for c in range(3))
    return [(red - green) / np.sqrt(np.float32(2)), (blue - green) / np.sqrt(np.float32(2))]


def _noise(plane: NDArray[np.float32], luma: NDArray[np.float32]) -> float:
    """Finest detail in the smoothest areas, beyond what the texture there can have of it."""
    fine, coarse = (_areas(_diagonal(plane, line)).var(1) for line in (_CORNER, _COARSE))
    levels = _areas(luma[2:-2, 2:-2])
    unclipped = (levels.min(1) >= _INSIDE[0]) & (levels.max(1) <= _INSIDE[1])
    if unclipped.mean() >= _ENOUGH:
        fine, coarse = fine[unclipped], coarse[unclipped]
    smooth = np.argsort(coarse)[: max(4, int(_SMOOTHEST * len(coarse)))]
    variance = (fine[smooth] - _TEXTURE**2 * coarse[smooth]) / (1 - _TEXTURE**2)
    return float(np.sqrt(max(0.0, np.median(variance))))


def _diagonal(plane: NDArray[np.float32], line: NDArray[np.float32]) -> NDArray[np.float32]:
    """Through a filter of 4×4 pixels, where it lies wholly inside."""
    return np.asarray(cv2.sepFilter2D(plane, cv2.CV_32F, line, line)[2:-2, 2:-2], np.float32)


def _areas(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(areas, 16*16)."""
    height, width = (side // _CELL * _CELL for side in image.shape)
    cells = image[:height, :width].reshape(height // _CELL, _CELL, width // _CELL, _CELL)
    return np.asarray(cells.swapaxes(1, 2).reshape(-1, _CELL * _CELL), np.float32)


def _sharpness(luma: NDArray[np.float32], noise: float) -> float:
    """`Artifacts.sharpness`: along rows and along columns, in the areas that have edges beyond the noise."""
    both = [_octaves(luma), _octaves(np.ascontiguousarray(luma.T))]
    fine, coarse = np.concatenate(both, 1) - np.float32(noise**2)
    judged = coarse > _CONTRAST
    if judged.sum() < _FEW:
        return 1.0
    fine, coarse = fine[judged], coarse[judged]
    sharpest = np.argsort(fine / coarse)[int((1 - _SHARPEST) * len(fine)) :]
    return float(fine[sharpest].sum() / coarse[sharpest].sum())


def _octaves(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2, areas): energy along the rows of the finest detail and of the next octave."""
    one = np.ones(1, np.float32)
    lines = (cv2.sepFilter2D(luma, cv2.CV_32F, line, one)[:, 2:-2] for line in (_STEP, _STRIDE))
    return np.stack([np.square(_areas(np.ascontiguousarray(detail))).mean(1) for detail in lines])
