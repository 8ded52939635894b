"""LR like that of cameras, phones and web pages: blur, resampling, noise, JPEG."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.imaging.resize import downscale
from srcli_train.degradations import kernels
from srcli_train.degradations.kernels import Floats

Pixels = NDArray[np.uint8]
Range = tuple[float, float]
_TAIL = 3.0  # standard deviations of a Gaussian that its kernel holds
GRID = 16  # pixels after which JPEG's blocks repeat, chroma at half size included
_MIDDLE = 128.0  # of 0-255, where noise has its nominal strength
_SUBSAMPLING = {
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
}


@dataclass(frozen=True, slots=True)
class Noise:
    """Sensor-like noise.

    Attributes:
        sigma: standard deviation at middle gray, on 0-255.
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
    field = _with_grain(np.asarray(field, np.float32), noise.grain) if noise.grain else field
    strength = noise.sigma * np.sqrt(1 - noise.signal + noise.signal / _MIDDLE * image.clip(0, 255))
    return np.asarray((image + strength * field).clip(0, 255), np.float32)


def _with_grain(field: Floats, sigma: float) -> Floats:
    """Blurred, with the variance it had."""
    line = cv2.getGaussianKernel(5, sigma, cv2.CV_32F)
    blurred = cv2.sepFilter2D(field, cv2.CV_32F, line, line, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred / float((line**2).sum()), np.float32)


def jpeg(image: Pixels, quality: int, subsampling: str, phase: tuple[int, int] = (0, 0)) -> Pixels:
    """Encode as JPEG and decode.

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


@dataclass(frozen=True, slots=True)
class Photo:
    """Blur, resampling over an intermediate size, noise, JPEG; half the time JPEG at both sizes.

    Shares are probabilities, ranges are (least, most) and drawn uniformly where not noted otherwise.

    Attributes:
        clean_share: pictures left as plain bicubic LR, so that clean input stays sharp.
        blur_share: pictures that are blurred before anything else.
        sigma: of Gaussian blur, in LR pixels.
        anisotropic_share: blurs that are Gaussians with two sigmas and an angle.
        disc_share: blurs that are a defocus disc; the remaining ones are isotropic Gaussians.
        radius: of the disc, in LR pixels.
        middle: least intermediate size as a multiple of LR's; the most is HR's. Drawn evenly in log.
        aliased_share: resamplings whose filter is not widened when shrinking.
        noise_share: pictures with noise.
        noise: standard deviation at middle gray on 0-255, drawn evenly in log.
        gray_share: noises that are equal in all channels; else their correlation is drawn from 0-1.
        grain_share: noises blurred a little, as after demosaicing. grain: its sigma in pixels.
        jpeg_share: pictures that go through JPEG.
        quality: of JPEG, whole numbers, both bounds included.
        halved_share: JPEGs with chroma at half size (4:2:0); the others are 4:4:4.
        again_share: pictures that get noise and JPEG at the intermediate size and JPEG again at the end.
    """

    clean_share: float = 0.3
    blur_share: float = 0.8
    sigma: Range = (0.1, 0.8)
    anisotropic_share: float = 0.4
    disc_share: float = 0.15
    radius: Range = (0.2, 0.9)
    middle: float = 0.75
    aliased_share: float = 0.15
    noise_share: float = 0.6
    noise: Range = (1.0, 25.0)
    gray_share: float = 0.3
    grain_share: float = 0.4
    grain: Range = (0.3, 0.8)
    jpeg_share: float = 0.9
    quality: tuple[int, int] = (30, 98)
    halved_share: float = 0.6
    again_share: float = 0.5

    def __call__(self, hr: Pixels, scale: int, draw: np.random.Generator, own: np.random.Generator) -> Pixels:
        """See `Degradation`. Every step is centred, so LR and HR stay aligned."""
        if draw.random() < self.clean_share:
            return np.asarray(downscale(hr, scale), np.uint8)
        size = (hr.shape[0] // scale, hr.shape[1] // scale)
        image = self.blurred(np.asarray(hr, np.float32), scale, draw)
        again, compressed = draw.random() < self.again_share, draw.random() < self.jpeg_share
        noisy = draw.random() < self.noise_share
        factor = log_uniform((self.middle, scale), draw)
        middle = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
        phase = (draw.random() - 0.5, draw.random() - 0.5)  # of the intermediate grid alone
        image = self.resampled(image, middle, draw, phase=phase)
        image = self._noise_and_jpeg(image, noisy, compressed, draw) if again else image
        image = self.resampled(image, size, draw, offset=phase)
        return to_uint8(self._noise_and_jpeg(image, noisy and not again, compressed, draw))

    def blurred(self, image: Floats, scale: int, draw: np.random.Generator) -> Floats:
        """HR after one of the blurs, or as it is."""
        if draw.random() >= self.blur_share:
            return image
        kind = draw.random()
        if kind < self.disc_share:
            radius = draw.uniform(*self.radius) * scale
            return kernels.blur(image, kernels.disc(radius, kernels.odd_side(radius)))
        first, second = draw.uniform(*self.sigma, 2) * scale
        second = second if kind < self.disc_share + self.anisotropic_share else first
        side = kernels.odd_side(_TAIL * max(first, second))
        return kernels.blur(image, kernels.gaussian((first, second), draw.uniform(0, np.pi), side))

    def resampled(
        self,
        image: Floats,
        size: tuple[int, int],
        draw: np.random.Generator,
        *,
        offset: Range = (0.0, 0.0),
        phase: Range = (0.0, 0.0),
    ) -> Floats:
        """Resampled by one of the filters; see `kernels.resample`."""
        name = tuple(kernels.FILTERS)[draw.integers(len(kernels.FILTERS))]
        widest = 1.0 if draw.random() < self.aliased_share else np.inf
        return kernels.resample(image, size, name, widest=widest, offset=offset, phase=phase)

    def _noise_and_jpeg(
        self, image: Floats, noisy: bool, compressed: bool, draw: np.random.Generator
    ) -> Floats:
        """Noise if any is due, then JPEG if any is due."""
        image = add_noise(image, self._noise(draw), draw) if noisy else image
        return self._compressed(image, draw) if compressed else image

    def _noise(self, draw: np.random.Generator) -> Noise:
        common = 1.0 if draw.random() < self.gray_share else draw.random()
        grain = draw.uniform(*self.grain) if draw.random() < self.grain_share else 0.0
        return Noise(log_uniform(self.noise, draw), draw.random(), common, grain)

    def _compressed(self, image: Floats, draw: np.random.Generator) -> Floats:
        """JPEG with its blocks anywhere, as in a picture that was cropped."""
        quality = int(draw.integers(self.quality[0], self.quality[1] + 1))
        subsampling = "4:2:0" if draw.random() < self.halved_share else "4:4:4"
        phase = (int(draw.integers(GRID)), int(draw.integers(GRID)))
        return np.asarray(jpeg(to_uint8(image), quality, subsampling, phase), np.float32)


def log_uniform(bounds: Range, draw: np.random.Generator) -> float:
    """A number between two above 0, drawn evenly in log."""
    return float(np.exp(draw.uniform(np.log(bounds[0]), np.log(bounds[1]))))


def to_uint8(image: Floats) -> Pixels:
    """Rounded half up and clipped."""
    return np.asarray(np.floor(image + 0.5).clip(0, 255), np.uint8)
