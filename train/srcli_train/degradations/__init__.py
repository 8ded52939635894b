"""How LR is made from HR: the paper's bicubic, unknown kernels, or the chains of photographs and films.

Everything is drawn from a generator or an image number that is given, so the same arguments give the
same pixels. NumPy and OpenCV only; films need PyAV.
"""

import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.imaging.resize import downscale, modcrop
from srcli_train.degradations import kernels
from srcli_train.degradations.film import Film
from srcli_train.degradations.photo import Photo

__all__ = [
    "DEGRADATIONS",
    "MARGIN",
    "Degradation",
    "Film",
    "Photo",
    "Unknown",
    "degrade",
    "degrade_with",
    "degraded_patch",
    "drawing_generator",
    "image_generator",
    "parameters",
    "patch_generator",
]

Pixels = NDArray[np.uint8]
MARGIN = 8
"""LR pixels around a patch that are degraded with it and cut off: blur and JPEG blocks see them."""


class Degradation(Protocol):
    """Makes LR from HR, aligned: LR pixel (i, j) covers the HR pixels of its scale×scale square."""

    def __call__(self, hr: Pixels, scale: int, draw: np.random.Generator, own: np.random.Generator) -> Pixels:
        """LR of one picture or patch.

        Args:
            hr: (H, W, 3) uint8 RGB, sides multiples of `scale`.
            scale: 2, 3 or 4.
            draw: where all that changes from patch to patch is drawn from.
            own: where all that belongs to the image is drawn from, see `image_generator`.

        Returns:
            (H / scale, W / scale, 3) uint8 RGB.
        """
        ...


@dataclass(frozen=True, slots=True)
class Bicubic:
    """MATLAB's antialiased bicubic, the paper's first track (section 4.1)."""

    def __call__(self, hr: Pixels, scale: int, draw: np.random.Generator, own: np.random.Generator) -> Pixels:
        """See `Degradation`; nothing is drawn."""
        return np.asarray(downscale(hr, scale), np.uint8)


@dataclass(frozen=True, slots=True)
class Unknown:
    """The unknown-downscaling track (section 4.4): a blur kernel an image, decimation, no noise.

    Attributes:
        sigma: least and most standard deviation of the anisotropic Gaussian, in LR pixels.
    """

    sigma: tuple[float, float] = (0.2, 1.0)

    def __call__(self, hr: Pixels, scale: int, draw: np.random.Generator, own: np.random.Generator) -> Pixels:
        """See `Degradation`; nothing is drawn from `draw`."""
        low = kernels.blur_and_decimate(np.asarray(hr, np.float32), self.kernel(scale, own), scale)
        return np.asarray(np.floor(low + 0.5).clip(0, 255), np.uint8)

    def kernel(self, scale: int, own: np.random.Generator) -> kernels.Floats:
        """An image's kernel on the HR grid: the same Gaussian, in LR pixels, at every scale."""
        sigmas, angle = own.uniform(*self.sigma, 2), own.uniform(0, np.pi)
        side = scale + 2 * int(np.ceil(3 * max(sigmas) * scale))
        return kernels.gaussian((sigmas[0] * scale, sigmas[1] * scale), angle, side)


DEGRADATIONS: dict[str, Bicubic | Unknown | Photo | Film] = {
    "bicubic": Bicubic(),
    "unknown": Unknown(),
    "photo": Photo(),
    "film": Film(),
}
_MEASURED = DEGRADATIONS | {  # clean pictures and photographs are measured on their own
    "photo": Photo(clean_share=0),
    "film": Film(clean_share=0, film_share=1),
}


def parameters(name: str) -> dict[str, Any]:
    """The fields of one of `DEGRADATIONS`; a checkpoint keeps them, as they may change."""
    return asdict(DEGRADATIONS[name])


def image_generator(seed: int, number: int) -> np.random.Generator:
    """The generator of image `number`, new with every call: all patches of an image draw the same."""
    return np.random.default_rng((seed, number, 0, 1))  # no update and patch give this key


def patch_generator(seed: int, update: int, patch: int) -> np.random.Generator:
    """The generator of one patch of one update; another than the one that drew the patch's place."""
    return np.random.default_rng((seed, update, patch + 1))  # a trailing zero would change nothing


def drawing_generator(seed: int, update: int, patch: int) -> np.random.Generator:
    """The generator of whether one patch is a drawing, and of which; another than `patch_generator`'s."""
    return np.random.default_rng((seed, update, patch, 2))


def degrade(name: str, image: Pixels, scale: int, seed: int) -> Pixels:
    """LR of a whole picture, to measure with: the same for the same arguments; every picture draws its own.

    Args:
        name: one of `DEGRADATIONS`; "photo" and "film" leave no picture clean here.
        image: (H, W, 3) uint8 RGB HR of any size.
        scale: 2, 3 or 4.
        seed: 0 or more.

    Returns:
        (H // scale, W // scale, 3) uint8 RGB; bottom and right rows that fill no LR pixel are left out.
    """
    hr = np.ascontiguousarray(modcrop(image, scale), np.uint8)
    number = zlib.crc32(hr.data)  # of the picture, wherever it lies in its set
    return _MEASURED[name](hr, scale, np.random.default_rng((seed, number)), image_generator(seed, number))


def degrade_with(name: str, seed: int = 0) -> Callable[[Pixels, int], Pixels]:
    """`degrade` as a function of (HR picture, scale), for validation."""
    return lambda hr, scale: degrade(name, hr, scale, seed)


def degraded_patch(
    degradation: Degradation,
    hr: Pixels,
    scale: int,
    place: tuple[int, int],
    side: int,
    draw: np.random.Generator,
    own: np.random.Generator,
) -> Pixels:
    """LR of a patch, degraded with its surroundings.

    Args:
        hr: the whole HR picture, (H, W, 3) uint8.
        place: the patch's first row and column in LR pixels.
        side: of the patch in LR pixels.
        draw, own: see `Degradation`.

    Returns:
        (side, side, 3) uint8 RGB.
    """
    around = _with_margin(np.asarray(modcrop(hr, scale), np.uint8), scale, *place, side)
    low = degradation(around, scale, draw, own)
    return low[MARGIN : MARGIN + side, MARGIN : MARGIN + side]


def _with_margin(hr: Pixels, scale: int, y: int, x: int, side: int) -> Pixels:
    """The patch's HR pixels and `MARGIN` LR pixels more on every side, mirrored outside the picture."""
    (height, width), ends = hr.shape[:2], (y + side + MARGIN, x + side + MARGIN)
    top, left = max(0, y - MARGIN) * scale, max(0, x - MARGIN) * scale
    bottom, right = min(height, ends[0] * scale), min(width, ends[1] * scale)
    missing = (
        top - (y - MARGIN) * scale,
        ends[0] * scale - bottom,
        left - (x - MARGIN) * scale,
        ends[1] * scale - right,
    )
    window = np.ascontiguousarray(hr[top:bottom, left:right])
    framed = cv2.copyMakeBorder(window, *missing, cv2.BORDER_REFLECT) if any(missing) else window
    return np.asarray(framed, np.uint8)
