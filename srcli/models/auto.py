"""Models "auto" and "auto-fast": for each picture, one of two shipped networks, by what the picture shows."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from srcli.imaging import estimate
from srcli.models.spec import ModelSpec

AUTO, AUTO_FAST = "auto", "auto-fast"
"""Names that stand for two networks each."""
CLEAN = "mdsr"
"""Trained on bicubic downscalings: the higher PSNR on clean pictures. Sharpens JPEG blocks and noise too, and
draws ghost strokes beside hard edges."""
PHOTO = "mdsr-photo"
"""Trained on blurred, noisy and compressed photographs: removes these, and draws no ghost strokes."""
FAST, FAST_PHOTO = "fast", "fast-photo"
"""For clean and for damaged pictures too, with a ninth of the work: films on a CPU."""


def models(model: str | Path) -> tuple[str | Path, ...]:
    """The models that a name stands for: of "auto" and "auto-fast" two, the clean one first; else itself."""
    pairs = {AUTO: (CLEAN, PHOTO), AUTO_FAST: (FAST, FAST_PHOTO)}
    return pairs.get(str(model), (model,))


def chooses(model: str | Path) -> bool:
    """Whether a name stands for two networks, of which each picture gets one."""
    return len(models(model)) > 1


def cleans(spec: ModelSpec) -> bool:
    """Whether a network also improves pictures that are not enlarged: it has learned to remove damage."""
    return spec.training.recipe in ("photo", "film")


def name_of(model: str | Path, spec: ModelSpec) -> str:
    """The name shown for a model: "auto" or "auto-fast" as asked for, else that of its network `spec`."""
    return str(model) if chooses(model) else spec.name


def choose(model: str | Path, image: NDArray[Any]) -> str | Path:
    """The model for one picture.

    Of two networks, the photo network for a picture that is a coarsely quantised JPEG, noisy, blurred or
    hard-edged, else the clean one. Pictures smaller than 32 pixels a side are judged by their hard edges
    alone, those smaller than 8 count as clean.

    Args:
        model: "auto" or "auto-fast", or any other model, which is returned as it is.
        image: what `srcli.imaging.pixels.check` accepts.
    """
    if not chooses(model):
        return model
    (clean, photo), found = models(model), estimate.measure(image)
    return photo if found.degraded or found.hard_edged else clean
