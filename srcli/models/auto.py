"""Model "auto": for each image, of two shipped networks the one that suits it."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from srcli.imaging import estimate
from srcli.models.spec import ModelSpec

AUTO = "auto"
"""Name that stands for both."""
CLEAN = "mdsr"
"""Trained on bicubic downscalings: most faithful to clean images, and to the JPEG blocks of others."""
PHOTO = "mdsr-photo"
"""Trained on blurred, noisy and compressed photographs: removes what they suffered from."""


def models(model: str | Path) -> tuple[str | Path, ...]:
    """The models that a name stands for: two for "auto", else itself."""
    return (CLEAN, PHOTO) if model == AUTO else (model,)


def name_of(model: str | Path, spec: ModelSpec) -> str:
    """What to call a model of which `spec` is the network; of "auto" it is but one, and that stays "auto"."""
    return AUTO if model == AUTO else spec.name


def model_for(model: str | Path, image: NDArray[Any]) -> str | Path:
    """The one of them that suits an image, by its JPEG blocks, noise and blur; small ones count as clean.

    Args:
        model: "auto", or a model that is meant whatever the image.
        image: any that `srcli.imaging.pixels.check` lets pass.
    """
    if model != AUTO:
        return model
    if min(image.shape[:2]) < estimate.SMALLEST:
        return CLEAN
    return PHOTO if estimate.measure(image).suits_photo else CLEAN
