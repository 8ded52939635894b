"""What a training run is given, and what it tells whoever watches."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from srcli.models.spec import TrainingFacts
from srcli_train.networks import NetworkSpec
from srcli_train.recipes import Recipe

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Job:
    """One training run.

    Attributes:
        network: what is trained.
        recipe: how.
        folder: checkpoint, CSV log and TensorBoard events go here.
        validation: HR images, (H, W, 3) uint8, never trained on.
        device: "auto", "cpu", "cuda", "cuda:1".
        minutes: wall-clock budget; the schedule then runs on time instead of updates. 0: no limit; None:
            that of the run that is resumed, no limit for a new one.
        init: checkpoint, or model by name or path, to take starting weights from.
        resume: go on from the run folder's last checkpoint.
        log_every, validate_every: in updates. save_minutes: between checkpoints.
        facts: kept in the checkpoint for the model card.
    """

    network: NetworkSpec
    recipe: Recipe
    folder: Path
    validation: tuple[Pixels, ...] = ()
    device: str = "cpu"
    minutes: float | None = None
    init: Path | None = None
    resume: bool = False
    log_every: int = 50
    validate_every: int = 1000
    save_minutes: float = 5.0
    facts: TrainingFacts = field(default_factory=TrainingFacts)


@dataclass(frozen=True, slots=True)
class Status:
    """Where a run is: updates, share of the run 0-1, mean loss since the last one, rates, PSNR by scale."""

    update: int
    progress: float
    loss: float
    rate: float
    updates_per_second: float
    seconds_left: float
    psnr: dict[int, float]


class Watcher(Protocol):
    """Whoever shows a run to the user."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def status(self, status: Status) -> None:
        """Progress, every `log_every` updates."""

    def picture(self, update: int, image: Pixels) -> None:
        """A validation picture (H, W, 3): LR, SR and HR side by side."""
