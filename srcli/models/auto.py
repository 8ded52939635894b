"""Model "auto": for each picture, one of two shipped networks, by what the picture shows."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from srcli.imaging import estimate
from srcli.models.spec import ModelSpec

AUTO = "auto"
"""Name that stands for both."""
CLEAN = "mdsr"
"""Trained on bicubic downscalings: the higher PSNR on clean pictures. Sharpens JPEG blocks and noise too, and
draws ghost strokes beside hard edges."""
PHOTO = "mdsr-photo"
"""Trained on blurred, noisy and compressed photographs: removes these, and draws no ghost strokes."""


def models(model: str | Path) -> tuple[str | Path, ...]:
    """The models that a name stands for: two for "auto", else itself."""
    return (CLEAN, PHOTO) if model == AUTO else (model,)


def cleans(spec: ModelSpec) -> bool:
    """Whether a network also improves pictures that are not enlarged: it has learned to remove damage."""
    return spec.training.recipe in ("photo", "film")


def name_of(model: str | Path, spec: ModelSpec) -> str:
    """The name shown for a model of which `spec` is a network: "auto" for "auto", which has two."""
    return AUTO if model == AUTO else spec.name


def choose(model: str | Path, image: NDArray[Any]) -> str | Path:
    """The model for one picture.

    Of "auto", the photo network for a picture that is a coarsely quantised JPEG, noisy, blurred or
    hard-edged, else the clean one. Pictures smaller than 32 pixels a side are judged by their hard edges
    alone, those smaller than 8 count as clean.

    Args:
        model: "auto", or any other model, which is returned as it is.
        image: what `srcli.imaging.pixels.check` accepts.
    """
    if model != AUTO:
        return model
    found = estimate.measure(image)
    return PHOTO if found.degraded or found.hard_edged else CLEAN
