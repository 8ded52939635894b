"""Estimate of what a picture shows: JPEG blocks, noise, blur and hard edges. `srcli.models.auto` uses it.

Networks trained on bicubic downscalings sharpen JPEG blocks and noise, and draw ghost strokes beside edges
that no downscaling makes; a network trained on degraded photographs removes the former and draws none of
the latter. No reference is needed. A JPEG that was resized afterwards has no 8×8 grid any more: only its
noise and blur are seen.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.imaging import pixels

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of JPEG's luma, which is not rounded here."""
_MEGAPIXEL = 1 << 20
"""Pixels measured at most."""

_BLOCK = 8
"""Side of JPEG's blocks."""
_FREQUENCIES = ((0, 7), (7, 0), (2, 7), (7, 2), (5, 5), (7, 7))
"""(vertical, horizontal) DCT frequencies that JPEG quantises to zero first."""
_NOTHING = 0.01
"""0-255: coefficients below this come from exactly flat areas and do not count."""
_SMALL = 1.0
"""0-255: a coefficient that was quantised to zero is below this after rounding to 8 bits."""
_PRIOR = 20
"""Added to a number of coefficients or edges, so that a share of a few is small."""
_CHANCE = 2.0
"""Standard errors by which the best of 64 grids exceeds the others by chance."""
_LOW_FREQUENCIES = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (1, 2), (2, 1))
"""(vertical, horizontal) DCT frequencies that JPEG quantises least, and of which pictures have the most."""
_SCALES = range(64, 1, -1)
"""0-255: quantization scales looked for, the coarsest first: their divisors fit as well."""
_ROUNDING = 0.3
"""Standard deviation of a coefficient after rounding to 8 bits."""
_FIT = 0.7
"""Of the best possible fit, the share from which on coefficients count as quantised."""
_MOST_BLOCKS, _FEWEST = 4096, 20
"""Blocks looked at, and coefficients that are not quantised to zero below which there is no telling."""

_CORNER = np.array([1, -3, 3, -1], np.float32) / np.float32(20**0.5)
"""Finest octave along a line; of unit gain for white noise. Both ways: the finest diagonal detail."""
_COARSE = np.array([0.5, 0.5, -0.5, -0.5], np.float32)
"""The next octave; of unit gain too."""
_CELL = 16
"""Side of the areas in which noise and sharpness are measured."""
_SMOOTHEST = 0.15
"""Share of the areas, those with the least texture, in which noise is measured."""
_TEXTURE = 0.33
"""Amplitude of the finest octave against the next in the texture of pictures, at most; 1 in white noise."""
_INSIDE = (4, 251)
"""0-255: clipping hides noise outside."""
_ENOUGH = 0.25
"""Share of areas inside `_INSIDE` below which all areas count."""

_STEP = np.array([-1, 3, -3, 1], np.float32) / np.float32(20**0.5)
"""Finest octave along rows."""
_STRIDE = np.array([-1, 0, 2, 0, -1], np.float32) / np.float32(6**0.5)
"""Next octave along rows."""
_CONTRAST = 16.0
"""Variance (0-255 squared) of the next octave, beyond noise, from which on an area has edges."""
_SHARPEST = 0.1
"""Share of the areas with edges that decide: often only a face is in focus."""
_FEW = 8
"""Areas with edges below which sharpness is not judged."""

_JUMP = 40
"""0-255: difference of neighbouring pixels from which on they are an edge. Networks draw no visible strokes
beside weaker ones, and photographs in few colours have many of those."""

SMALLEST = 2 * _CELL
"""Side in pixels from which on blocks, noise and sharpness are measured."""
SMALLEST_HARD = 8
"""Side in pixels from which on hard edges are measured."""
BLOCKS = 0.035
"""`Estimate.blocks` above which a picture counts as a JPEG; photographs of quality 90 have 0.1 to 0.6."""
COARSE = 6.0
"""`Estimate.quantization` from which on a JPEG counts as degraded; libjpeg's quality 75 has 6, 90 has 2.
Clean pictures stored finer get a higher PSNR from mdsr, those stored coarser from mdsr-photo; about the same
at quality 65 to 75."""
NOISE = 1.6
"""`Estimate.noise` above which a picture counts as noisy."""
BLURRED = 0.02, 0.232
"""`Estimate.sharpness` between which a picture counts as blurred, by a Gaussian of about 0.5 to 1.5 pixels.
mdsr-photo was trained for no more, and smoother pictures may have been drawn so. Of 1,323 training pictures
that were only downscaled, ten lie between."""
BLURRED_JPEG = 0.27
"""The same upper bound in JPEGs, where it is less sure: blurred photographs are mostly JPEGs."""
HARD = 0.02
"""`Estimate.hard_edges` above which a picture counts as hard-edged. Drawings, text and photographs of few
colours get a higher PSNR from mdsr-photo from 0.01 to 0.03 on, and more the harder. Above 0.01 lies none of
1,323 training pictures, neither as they are nor downscaled by 2. Pixel art and one-bit text have 0.1 to 1,
text that FreeType fits to pixels of 8 to 32 a line 0.01 to 0.1, smooth text that is not fitted 0 to 0.02."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What was measured on one picture.

    Attributes:
        blocks: share of high-frequency coefficients that are zero on the best 8×8 grid, less the same on
            the grids half a block away and what chance makes of it; 0 to 1. 0 for a picture that never was
            a JPEG, or was resized since.
        grid: rows and columns before that grid's first whole block, 0 to 7.
        quantization: median of the quantization scales of luma's lowest frequencies, on the scale 0-255; 0
            for what is no JPEG, or one too fine to tell (a quality above 92), or without texture.
        noise: standard deviation of gray or colour noise in the smoothest areas, on the scale 0-255.
        sharpness: energy of the finest octave over that of the next, both beyond the noise of luma, in the
            sharpest areas. 0.3 to 0.6 for most clean pictures, less for blurred ones; 1 where there are no
            edges.
        hard_edges: of the edges along rows and columns, the share of those that lead in one step from two
            equal pixels to two equal pixels, or to and from a line of one pixel; 0 to 1. Antialiasing and
            downscaling leave none.
    """

    blocks: float = 0.0
    grid: tuple[int, int] = (0, 0)
    quantization: float = 0.0
    noise: float = 0.0
    sharpness: float = 1.0
    hard_edges: float = 0.0

    @property
    def degraded(self) -> bool:
        """Whether it is a coarsely quantised JPEG, noisy or blurred."""
        sharp = BLURRED_JPEG if self.blocks > BLOCKS else BLURRED[1]
        return self.quantization >= COARSE or self.noise > NOISE or BLURRED[0] < self.sharpness < sharp

    @property
    def hard_edged(self) -> bool:
        """Whether it is pixel art, one-bit, or text and lines drawn to whole pixels."""
        return self.hard_edges > HARD


def measure(image: NDArray[Any]) -> Estimate:
    """Measure one picture; of one larger than a megapixel, its middle.

    What a picture is too small for keeps the value of a clean one: blocks, noise and sharpness with a side
    of less than 32 pixels, hard edges with less than 8.

    Args:
        image: of any layout and dtype in `srcli.imaging.pixels`.

    Raises:
        InputError: the array is no image.
    """
    pixels.check(image)
    part, side = _middle(image), min(image.shape[:2])
    rgb = pixels.as_rgb8(part)
    hard = _hard_edges(_visible(part, rgb)) if side >= SMALLEST_HARD else 0.0
    if side < SMALLEST:
        return Estimate(hard_edges=hard)
    luma = rgb.astype(np.float32) @ _LUMA
    blocks, grid = _blocks(luma)
    quantization = _quantization(luma, grid) if blocks > BLOCKS else 0.0
    noise = _noise(luma, luma)
    colour = max(_noise(plane, luma) for plane in _differences(rgb))
    return Estimate(blocks, grid, quantization, max(noise, colour), _sharpness(luma, noise), hard)


def _middle(image: NDArray[Any]) -> NDArray[Any]:
    """About a megapixel of the picture's shape, no side below 32 pixels; its corner lies on the 8×8 grid."""
    share = min(1.0, np.sqrt(_MEGAPIXEL / (image.shape[0] * image.shape[1])))
    height, width = (max(int(side * share), min(side, SMALLEST)) for side in image.shape[:2])
    top, left = ((image.shape[axis] - size) // 16 * 8 for axis, size in enumerate((height, width)))
    return image[top : top + height, left : left + width]


def _blocks(luma: NDArray[np.float32]) -> tuple[float, tuple[int, int]]:
    """`Estimate.blocks` and `grid`: every place's coefficients first, then each grid's share of zeros."""
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


def _quantization(luma: NDArray[np.float32], grid: tuple[int, int]) -> float:
    """`Estimate.quantization`: coefficients are multiples of their scale, but for rounding."""
    height, width = ((side - first) // _BLOCK for side, first in zip(luma.shape, grid, strict=True))
    aligned = luma[grid[0] :, grid[1] :][: height * _BLOCK, : width * _BLOCK]
    blocks = aligned.reshape(height, _BLOCK, width, _BLOCK).swapaxes(1, 2).reshape(-1, _BLOCK, _BLOCK)
    blocks = blocks[:: -(-len(blocks) // _MOST_BLOCKS)]
    found = [
        _scale_of(np.asarray(blocks @ _basis(across) @ _basis(down), np.float32))
        for down, across in _LOW_FREQUENCIES
    ]
    return float(np.median(found))


def _scale_of(coefficients: NDArray[np.float32]) -> float:
    """The largest scale of which they are multiples; 0 if there is none."""
    sizes = np.abs(coefficients)
    for scale in _SCALES:
        some = sizes[sizes > scale / 2]
        best = np.exp(-2 * (np.pi * _ROUNDING / scale) ** 2)
        if len(some) >= _FEWEST and np.cos(some * (2 * np.pi / scale)).mean() > _FIT * best:
            return float(scale)
    return 0.0


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
    values = _areas(luma[2:-2, 2:-2])
    unclipped = (values.min(1) >= _INSIDE[0]) & (values.max(1) <= _INSIDE[1])
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
    """`Estimate.sharpness`: along rows and along columns, in the areas that have edges beyond the noise."""
    both = [_octaves(luma), _octaves(np.ascontiguousarray(luma.T))]
    fine, coarse = np.concatenate(both, 1) - np.float32(noise**2)
    judged = coarse > _CONTRAST
    if judged.sum() < _FEW:
        return 1.0
    fine, coarse = fine[judged], coarse[judged]
    sharpest = np.argsort(fine / coarse)[int((1 - _SHARPEST) * len(fine)) :]
    return float(fine[sharpest].sum() / coarse[sharpest].sum())


def _octaves(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """(2, areas): energy along the rows of the finest octave and of the next."""
    one = np.ones(1, np.float32)
    lines = (cv2.sepFilter2D(luma, cv2.CV_32F, line, one)[:, 2:-2] for line in (_STEP, _STRIDE))
    return np.stack([np.square(_areas(np.ascontiguousarray(detail))).mean(1) for detail in lines])


def _visible(image: NDArray[Any], rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W) luma, over mid-gray where there is alpha: colours that alpha hides have no edges."""
    gray = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    alpha = pixels.color_and_alpha(image)[1]
    if alpha is None:
        return gray
    opacity = (alpha / pixels.white(alpha.dtype)).clip(0, 1)
    return np.asarray(np.rint(128 + (gray - 128.0) * opacity), np.uint8)


def _hard_edges(gray: NDArray[np.uint8]) -> float:
    """`Estimate.hard_edges`; both steps across a line of one pixel count."""
    edges = hard = 0
    for plane in (gray, cv2.transpose(gray)):
        difference, rising = cv2.absdiff(plane[:, 1:], plane[:, :-1]), plane[:, 1:] > plane[:, :-1]
        edge, flat = difference > _JUMP, difference == 0
        edges += int(np.count_nonzero(edge[:, 1:-1]))
        hard += int(np.count_nonzero(flat[:, :-2] & edge[:, 1:-1] & flat[:, 2:]))
        line = edge[:, 1:-2] & edge[:, 2:-1] & (rising[:, 1:-2] != rising[:, 2:-1])
        hard += 2 * int(np.count_nonzero(flat[:, :-3] & line & flat[:, 3:]))
    return hard / (edges + _PRIOR)
