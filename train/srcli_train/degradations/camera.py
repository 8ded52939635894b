"""What a camera and a file format do to a picture: sensor-like noise and JPEG."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli_train.degradations.kernels import Floats

Pixels = NDArray[np.uint8]
GRID = 16  # pixels after which JPEG's blocks repeat, chroma at half size included
_MIDDLE = 128.0  # the level at which noise has its nominal strength
_SUBSAMPLING = {
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}


@dataclass(frozen=True, slots=True)
class Noise:
    """One exposure's noise.

    Attributes:
        sigma: standard deviation at middle gray, in levels of 0-255.
        signal: share of the variance that grows with the light (Poisson), 0-1; the rest is constant.
        common: correlation of the three channels, 0-1; 1 is gray noise.
        grain: standard deviation in pixels of the blur that demosaicing leaves in it; 0: none.
    """

    sigma: float
    signal: float
    common: float
    grain: float


def add_noise(image: Floats, noise: Noise, draw: np.random.Generator) -> Floats:
    """(H, W, 3) float32, 0-255 -> the same with noise, clipped to 0-255."""
    gray = draw.standard_normal((*image.shape[:2], 1), np.float32)
    colour = draw.standard_normal(image.shape, np.float32)
    field = np.sqrt(noise.common) * gray + np.sqrt(1 - noise.common) * colour
    field = _grained(np.asarray(field, np.float32), noise.grain) if noise.grain else field
    strength = noise.sigma * np.sqrt(1 - noise.signal + noise.signal / _MIDDLE * image.clip(0, 255))
    return np.asarray((image + strength * field).clip(0, 255), np.float32)


def _grained(field: Floats, sigma: float) -> Floats:
    """Blurred, with the variance it had."""
    line = cv2.getGaussianKernel(5, sigma, cv2.CV_32F)
    blurred = cv2.sepFilter2D(field, cv2.CV_32F, line, line, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred / float((line**2).sum()), np.float32)


def jpeg(image: Pixels, quality: int, subsampling: str, phase: tuple[int, int] = (0, 0)) -> Pixels:
    """Through a JPEG file and back.

    Args:
        image: (H, W, 3) uint8 RGB.
        quality: libjpeg's, 1-100.
        subsampling: of chroma, "4:2:0" or "4:4:4".
        phase: rows and columns of the first block that lie outside the picture, 0 to 15.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    top, left = phase
    framed = cv2.copyMakeBorder(image, top, 0, left, 0, cv2.BORDER_REFLECT)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SUBSAMPLING[subsampling]]
    done, file = cv2.imencode(".jpg", framed[..., ::-1], options)
    assert done, "OpenCV was built without JPEG"
    decoded = np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)
    return np.ascontiguousarray(decoded[top:, left:, ::-1])
