"""A run's folder: its last checkpoint, and the one before it in case that one is damaged."""

from collections.abc import Callable
from pathlib import Path

from srcli.errors import OutputError, TrainingError
from srcli_train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

LAST = "last.pt"
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
    for partial in folder.glob(f".{_NEW}.*"):  # of a save that was killed
        partial.unlink(missing_ok=True)
    save_checkpoint(new, checkpoint)
    try:
        if last.is_file():
            last.replace(folder / _PREVIOUS)
        new.replace(last)
    except OSError as error:
        raise OutputError(f"{last}: the checkpoint cannot be put in place ({error}).") from error
    return last


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
