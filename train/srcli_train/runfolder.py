"""A run's folder: its last checkpoint, and the one before it in case that one is damaged."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from srcli.errors import OutputError, TrainingError, UsageError
from srcli_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from srcli_train.networks import NetworkSpec
from srcli_train.recipes import Recipe

LAST = "last.pt"
BEFORE_FALL = "before-fall.pt"
"""What a trapezoid's run was before its rate began to fall; never resumed, but a start for another run."""
_NEW, _PREVIOUS = "new.pt", "previous.pt"
_BEST_FIRST = (LAST, _NEW, _PREVIOUS)  # new.pt exists only if a save was cut off between its two renames


def holds_run(folder: Path) -> bool:
    """Whether there is a checkpoint to resume, or to be careful with."""
    return any((folder / name).is_file() for name in _BEST_FIRST)


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write last.pt; what was last.pt becomes previous.pt. There is a whole checkpoint at every moment.

    Raises:
        OutputError: it cannot be written; the checkpoints that are there stay.
    """
    new, last = folder / _NEW, folder / LAST
    try:
        for partial in folder.glob(f".{_NEW}.*"):  # of a save that was killed
            partial.unlink(missing_ok=True)
        save_checkpoint(new, checkpoint)
        if last.is_file():
            last.replace(folder / _PREVIOUS)
        new.replace(last)
    except OSError as error:
        raise OutputError(f"{last}: the checkpoint cannot be put in place ({error}).") from error
    return last


def keep_before_fall(folder: Path, checkpoint: Checkpoint, note: Callable[[str], None]) -> None:
    """Write before-fall.pt, weights alone; if the disk refuses, `note` is told, and the run does without."""
    weights = replace(checkpoint, trained={}, teacher={}, optimizer={}, rng=None)
    try:
        save_checkpoint(folder / BEFORE_FALL, weights)
    except OutputError as error:
        note(f"{error.message} Training goes on without it.")


def load(folder: Path, note: Callable[[str], None]) -> tuple[Path, Checkpoint]:
    """The newest checkpoint that can be read, and its file; `note` is told of each that cannot.

    Raises:
        TrainingError: none can.
    """
    for name in _BEST_FIRST:
        if (folder / name).is_file():
            try:
                return folder / name, load_checkpoint(folder / name)
            except TrainingError as error:
                note(f"{error.message} Going back to the one before.")
    raise TrainingError(
        f"{folder} holds no checkpoint that can be read.", "Leave out --resume to start anew."
    )


def refuse_another(folder: Path, checkpoint: Checkpoint, network: NetworkSpec, recipe: Recipe) -> None:
    """Refuse to go on with another network or recipe than the run has; precision "auto" means the run's own.

    Raises:
        UsageError: with the fields that differ.
    """
    if recipe.precision == "auto":
        recipe = replace(recipe, precision=checkpoint.recipe.precision)
    pairs = ((checkpoint.network, network), (checkpoint.recipe, recipe))
    differing = [text for before, now in pairs for text in differences(asdict(before), asdict(now))]
    if differing:
        raise UsageError(
            f"The run in {folder} was made with another network or recipe: {'; '.join(differing)}.",
            "Give the same options as before, or start another run from its weights with -o and --init.",
        )


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """The fields that differ, for people."""
    for name in before | now:
        old, new = before.get(name), now.get(name)
        if old != new:
            yield f"{name} was {old}, now {new}"
