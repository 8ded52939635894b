"""Checkpoints: written by rename, self-describing, loaded without executing anything from the file."""

import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import Tensor

from srcli.errors import OutputError, TrainingError, UsageError
from srcli.models.spec import TrainingFacts
from srcli_train.networks import NetworkSpec
from srcli_train.recipes import Recipe

_FORMAT = 1
_HINT = "Give a checkpoint that srcli train wrote, such as runs/mdsr-baseline/last.pt."
_GONE = ("rendered", "mixup", "revive", "revive_every")
"""Fields that recipes of older checkpoints have: they showed no gain, and a resumed run does without."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network in training.

    Attributes:
        network: builds the network these weights fit.
        recipe: how it is trained.
        weights: state_dict of the network, for use: where the recipe averages, the mean.
        trained: the state_dict that training goes on from; empty where that is `weights`.
        teacher: the state_dict of the network that it learns from; empty without one.
        update: updates done; with the recipe's seed also the position in the data.
        seconds: training time so far.
        minutes: the run's time budget; 0: none; None: not known, in a checkpoint of an earlier version.
        optimizer: state of all optimizers; empty in a checkpoint that only holds weights.
        rng: PyTorch's CPU generator state.
        facts: data, recipe, machine and time, for the model card.
        pictures: fingerprint of the training pictures; empty if not known.
        degradation: `degradations.numbers` of the recipe's; None: not known, as before they were kept.
        quality: PSNR in dB by scale ("2") and test set.
    """

    network: NetworkSpec
    recipe: Recipe
    weights: dict[str, Tensor]
    trained: dict[str, Tensor] = field(default_factory=dict)
    teacher: dict[str, Tensor] = field(default_factory=dict)
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
    return _from_raw(path, raw)


def _from_raw(path: Path, raw: dict[str, Any]) -> Checkpoint:
    raw.pop("format")
    try:
        raw["network"] = NetworkSpec(**_tuples(raw["network"]))
        recipe = _tuples(raw["recipe"])
        raw["recipe"] = Recipe(**{k: v for k, v in recipe.items() if k not in _GONE})
        raw["facts"] = TrainingFacts(**raw["facts"])
        return Checkpoint(**raw)
    except (KeyError, TypeError, UsageError) as error:
        raise TrainingError(f"{path}: the checkpoint's description does not fit ({error}).") from error


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
