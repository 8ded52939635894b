"""The random chain that makes LR pictures like those of cameras, phones and web pages."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from srcli.imaging.resize import downscale
from srcli_train.degradations import kernels
from srcli_train.degradations.camera import GRID, Noise, add_noise, jpeg
from srcli_train.degradations.kernels import Floats

Pixels = NDArray[np.uint8]
Range = tuple[float, float]
_TAIL = 3.0  # standard deviations of a Gaussian that its kernel holds


@dataclass(frozen=True, slots=True)
class Photo:
    """Blur, resampling over an intermediate size, noise, JPEG; half the time JPEG at both sizes.

    Shares are probabilities, ranges are (least, most) and drawn evenly where nothing else is said.

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
        noise: standard deviation at middle gray in levels of 0-255, drawn evenly in log.
        gray_share: noises that are equal in all channels; else their correlation is drawn from 0-1.
        grain_share: noises blurred a little, as after demosaicing. grain: its sigma in pixels.
        jpeg_share: pictures that go through JPEG.
        quality: of JPEG, whole numbers, both ends included.
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
        image = self._blurred(np.asarray(hr, np.float32), scale, draw)
        again, packed = draw.random() < self.again_share, draw.random() < self.jpeg_share
        noisy = draw.random() < self.noise_share
        factor = _log_even((self.middle, scale), draw)
        middle = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
        phase = (draw.random() - 0.5, draw.random() - 0.5)  # of the intermediate grid alone
        image = self._resampled(image, middle, draw, phase=phase)
        image = self._shot(image, noisy, packed, draw) if again else image
        image = self._resampled(image, size, draw, offset=phase)
        return _levels(self._shot(image, noisy and not again, packed, draw))

    def _blurred(self, image: Floats, scale: int, draw: np.random.Generator) -> Floats:
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

    def _resampled(
        self,
        image: Floats,
        size: tuple[int, int],
        draw: np.random.Generator,
        *,
        offset: Range = (0.0, 0.0),
        phase: Range = (0.0, 0.0),
    ) -> Floats:
        name = tuple(kernels.FILTERS)[draw.integers(len(kernels.FILTERS))]
        widest = 1.0 if draw.random() < self.aliased_share else np.inf
        return kernels.resample(image, size, name, widest=widest, offset=offset, phase=phase)

    def _shot(self, image: Floats, noisy: bool, packed: bool, draw: np.random.Generator) -> Floats:
        """Noise if any is due, then JPEG if any is due."""
        image = add_noise(image, self._noise(draw), draw) if noisy else image
        return self._packed(image, draw) if packed else image

    def _noise(self, draw: np.random.Generator) -> Noise:
        common = 1.0 if draw.random() < self.gray_share else draw.random()
        grain = draw.uniform(*self.grain) if draw.random() < self.grain_share else 0.0
        return Noise(_log_even(self.noise, draw), draw.random(), common, grain)

    def _packed(self, image: Floats, draw: np.random.Generator) -> Floats:
        """JPEG with its blocks anywhere, as in a picture that was cropped."""
        quality = int(draw.integers(self.quality[0], self.quality[1] + 1))
        subsampling = "4:2:0" if draw.random() < self.halved_share else "4:4:4"
        phase = (int(draw.integers(GRID)), int(draw.integers(GRID)))
        return np.asarray(jpeg(_levels(image), quality, subsampling, phase), np.float32)


def _log_even(ends: Range, draw: np.random.Generator) -> float:
    return float(np.exp(draw.uniform(np.log(ends[0]), np.log(ends[1]))))


def _levels(image: Floats) -> Pixels:
    """Rounded half up and clipped."""
    return np.asarray(np.floor(image + 0.5).clip(0, 255), np.uint8)
