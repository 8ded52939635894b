"""Checkpoints: one file, a run's folder of them, and when a run saves.

A checkpoint is written completely or not at all, describes itself, and is loaded without executing anything
from the file.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor

from srcli.errors import OutputError, TrainingError, UsageError
from srcli.models.spec import TrainingFacts
from srcli_train.networks import NetworkSpec
from srcli_train.recipes import Recipe

_log = logging.getLogger(__name__)

_FORMAT = 1
_HINT = "Give a checkpoint that srcli train wrote, such as runs/mdsr-baseline/last.pt."
_RENAMED = {"average": "ema"}
"""Recipe fields of older checkpoints that have another name now."""

LAST = "last.pt"
BEFORE_FALL = "before-fall.pt"
"""Weights of a trapezoid's run before its rate falls: never resumed, but a start for another run."""
_NEW, _PREVIOUS = "new.pt", "previous.pt"
_BEST_FIRST = (LAST, _NEW, _PREVIOUS)  # new.pt exists only if a save was cut off between its two renames

RETRY_SECONDS = 30.0
"""After which a save that failed is tried again."""
PATIENCE_SECONDS = 300.0
"""For which the save at the end of a run is tried: there is no later one."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network in training.

    Attributes:
        network: builds the network these weights fit.
        recipe: how it is trained.
        weights: state_dict of the network, for use: the EMA where the recipe has one.
        trained: the state_dict that training goes on from; empty where that is `weights`.
        update: updates done; with the recipe's seed also the position in the data.
        seconds: training time so far.
        minutes: the run's time budget; 0: none; None: not known, in a checkpoint of an earlier version.
        optimizer: state of all optimizers; empty in a checkpoint that only holds weights.
        rng: PyTorch's CPU generator state.
        facts: data, recipe, machine and time, for the model card.
        pictures: fingerprint of the training pictures; empty if not known.
        degradation: `degradations.parameters` of the recipe's; None: not known, in an earlier version's.
        quality: PSNR in dB by scale ("2") and test set.
    """

    network: NetworkSpec
    recipe: Recipe
    weights: dict[str, Tensor]
    trained: dict[str, Tensor] = field(default_factory=dict)
    update: int = 0
    seconds: float = 0.0
    minutes: float | None = None
    optimizer: dict[str, Any] = field(default_factory=dict)
    rng: Tensor | None = None
    facts: TrainingFacts = field(default_factory=TrainingFacts)
    pictures: str = ""
    degradation: dict[str, Any] | None = None
    quality: dict[str, dict[str, float]] = field(default_factory=dict)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write completely or not at all.

    Raises:
        OutputError: the file cannot be written; an earlier checkpoint of that name is untouched.
    """
    raw = {f.name: getattr(checkpoint, f.name) for f in fields(checkpoint)}
    raw |= {f: asdict(getattr(checkpoint, f)) for f in ("network", "recipe", "facts")}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(raw | {"format": _FORMAT}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: the checkpoint cannot be written ({error}).") from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; tensors land on the CPU.

    Fields that this version does not have are left out; those of the recipe that were in use are logged.

    Raises:
        TrainingError: no such file, damaged, not ours, or it would need code to load.
    """
    hint = f"{_HINT} Nothing in this file was executed."
    try:
        with ZipFile(path) as parts:  # PyTorch reads damaged parts without looking at their checksums
            damaged = parts.testzip()
        raw = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no such checkpoint.", _HINT) from error
    except Exception as error:  # there is no end to what a damaged pickle can raise
        raise TrainingError(f"{path}: damaged, or not a checkpoint of srcli.", hint) from error
    if damaged:
        raise TrainingError(f"{path}: damaged ({damaged}).", hint)
    if not isinstance(raw, dict) or raw.get("format") != _FORMAT:
        raise TrainingError(f"{path}: not a checkpoint that this version of srcli wrote.")
    try:
        return _from_raw(path, raw)
    except (KeyError, TypeError, UsageError) as error:
        raise TrainingError(f"{path}: the checkpoint's description does not fit ({error}).") from error


def _from_raw(path: Path, raw: dict[str, Any]) -> Checkpoint:
    known = {f.name for f in fields(Checkpoint)}
    described = {name: value for name, value in raw.items() if name in known}
    described["network"] = NetworkSpec(**_tuples(raw["network"]))
    described["recipe"] = _recipe(path, _tuples(raw["recipe"]))
    described["facts"] = TrainingFacts(**raw["facts"])
    return Checkpoint(**described)


def _recipe(path: Path, raw: dict[str, Any]) -> Recipe:
    """The recipe of a checkpoint of any version."""
    values = {_RENAMED.get(name, name): value for name, value in raw.items()}
    known = {f.name for f in fields(Recipe)}
    gone = ", ".join(f"{name}={value}" for name, value in values.items() if name not in known and value)
    if gone:
        _log.info("%s: this version of srcli trains without %s.", path, gone)
    return Recipe(**{name: value for name, value in values.items() if name in known})


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}


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


def save_before_fall(folder: Path, checkpoint: Checkpoint) -> None:
    """Write before-fall.pt, weights alone; a disk that refuses is logged, and the run does without."""
    weights = replace(checkpoint, trained={}, optimizer={}, rng=None)
    try:
        save_checkpoint(folder / BEFORE_FALL, weights)
    except OutputError as error:
        _log.warning("%s Training goes on without it.", error.message)


def load(folder: Path) -> tuple[Path, Checkpoint]:
    """The newest checkpoint that can be read, and its file; each that cannot is logged.

    Raises:
        TrainingError: none can.
    """
    for name in _BEST_FIRST:
        if (folder / name).is_file():
            try:
                return folder / name, load_checkpoint(folder / name)
            except TrainingError as error:
                _log.warning("%s Going back to the one before.", error.message)
    raise TrainingError(
        f"{folder} holds no checkpoint that can be read.", "Leave out --resume to start anew."
    )


def check_same_run(folder: Path, checkpoint: Checkpoint, network: NetworkSpec, recipe: Recipe) -> None:
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
            "Leave these options out, or start another run from its weights with -o and --init.",
        )


def differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """The fields that differ, in words."""
    for name in before | now:
        old, new = before.get(name), now.get(name)
        if old != new:
            yield f"{name} was {old}, now {new}"


class SaveSchedule:
    """When a run saves, and how long it tries. A full disk is logged once, until a save has worked again.

    Args:
        minutes: between saves.
    """

    def __init__(self, minutes: float) -> None:
        self._seconds = 60 * minutes
        self._next = time.monotonic() + self._seconds
        self._logged = False

    def due(self) -> bool:
        """Whether it is time for `attempt`."""
        return time.monotonic() > self._next

    def attempt(self, save: Callable[[], Path]) -> None:
        """Save in the middle of a run; if the disk refuses, training goes on, and it is due again soon."""
        try:
            save()
        except OutputError as error:
            again = f"Training goes on; saving is tried again every {RETRY_SECONDS:g} seconds."
            self._log_once(f"{error.message} {again}")
            self._next = time.monotonic() + RETRY_SECONDS
        else:
            self._next, self._logged = time.monotonic() + self._seconds, False

    def insist(self, save: Callable[[], Path]) -> Path:
        """Save at the end of a run.

        Returns:
            What `save` gives.

        Raises:
            OutputError: the disk has refused for `PATIENCE_SECONDS`.
        """
        end, self._logged = time.monotonic() + PATIENCE_SECONDS, False
        while True:
            try:
                return save()
            except OutputError as error:
                if time.monotonic() >= end:
                    raise
                minutes = f"{PATIENCE_SECONDS / 60:g} more minutes"
                self._log_once(f"{error.message} Make room: this is tried for {minutes}.")
                time.sleep(RETRY_SECONDS)

    def _log_once(self, message: str) -> None:
        if not self._logged:
            _log.warning("%s", message)
        self._logged = True
