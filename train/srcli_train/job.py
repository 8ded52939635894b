"""A training run as it is asked for, what its folder remembers of that, and whether it can be run."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from srcli.errors import OutputError, UsageError
from srcli.io.storage import write_text
from srcli_train.checkpoint import holds_run
from srcli_train.networks import NetworkSpec, build
from srcli_train.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Job:
    """One training run.

    Attributes:
        data: folder of HR images, or of DIV2K.
        network: what is trained.
        recipe: how.
        folder: of the run: checkpoints, log.csv and TensorBoard events.
        valid: folder of validation images; None: DIV2K's, or a few held back from `data`.
        cache: folder for decoded images; None: the user's cache.
        device: "auto", "cpu", "cuda", "cuda:1".
        minutes: wall-clock budget; the schedule then runs on time instead of updates. 0: no limit; None:
            that of the run that is resumed, no limit for a new one.
        init: checkpoint, or model by name or path, to take starting weights from.
        resume: go on from the run folder's last checkpoint.
        log_every, validate_every: in updates.
        save_minutes: between checkpoints.
        data_name: of the data, for the model card; empty: the folder's.
        command: the command line, for the model card.
    """

    data: Path
    network: NetworkSpec
    recipe: Recipe
    folder: Path
    valid: Path | None = None
    cache: Path | None = None
    device: str = "cpu"
    minutes: float | None = None
    init: Path | None = None
    resume: bool = False
    log_every: int = 50
    validate_every: int = 1000
    save_minutes: float = 5.0
    data_name: str = ""
    command: str = ""


_REMEMBERED = "run.json"
"""Not part of the checkpoint: paths tell of a machine, and checkpoints are passed on."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a run's folder remembers for those who resume it, beside the checkpoint.

    Attributes: as of `Job`; `data` is None where nothing is known.
    """

    data: Path | None = None
    valid: Path | None = None
    cache: Path | None = None
    validate_every: int = 1000
    data_name: str = ""


def remember(job: Job) -> None:
    """Write that into the run's folder.

    Raises:
        OutputError: it cannot be written.
    """
    paths = {"data": job.data, "valid": job.valid, "cache": job.cache}
    text = {name: None if path is None else str(path.absolute()) for name, path in paths.items()}
    facts = {**text, "validate_every": job.validate_every, "data_name": job.data_name}
    try:
        write_text(job.folder / _REMEMBERED, json.dumps(facts, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"{job.folder / _REMEMBERED} cannot be written ({error.strerror}).") from error


def remembered(folder: Path) -> Remembered:
    """The same of a run; nothing of those of earlier versions, and where it is damaged."""
    try:
        facts = json.loads((folder / _REMEMBERED).read_text(encoding="utf-8"))
        data, valid, cache = (facts[name] and Path(facts[name]) for name in ("data", "valid", "cache"))
        return Remembered(data, valid, cache, int(facts["validate_every"]), str(facts["data_name"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Remembered()


def check_overwriting(job: Job) -> None:
    """Refuse a run folder that holds a run, unless that is resumed, and to resume what is not there.

    Raises:
        UsageError: see above.
    """
    exists = holds_run(job.folder)
    if job.resume and not exists:
        raise UsageError(f"{job.folder} holds no checkpoint to resume.", "Leave out --resume to start anew.")
    if exists and not job.resume:
        raise UsageError(
            f"{job.folder} already holds a run.", "Go on with --resume, or choose another folder with -o."
        )


def outline(spec: NetworkSpec) -> nn.Module:
    """The network on PyTorch's meta device, without memory for its weights: enough for the checks below."""
    with torch.device("meta"):
        return build(spec)


def check_recipe(network: nn.Module, recipe: Recipe) -> None:
    """Refuse a recipe that would do less to this network than it says.

    Raises:
        UsageError: there is nothing for Muon.
    """
    with_convolutions = [name for name, module in network.named_children() if _has_convolutions(module)]
    if recipe.optimizer == "muon" and not set(recipe.muon_modules) & set(with_convolutions):
        raise UsageError(
            f"Muon would train nothing: this network has none of `muon_modules` {list(recipe.muon_modules)}.",
            f"It has: {', '.join(with_convolutions)}. Or set optimizer=adam.",
        )


def check_for_ranks(network: nn.Module) -> None:
    """Refuse a network that several ranks would train otherwise than one.

    Raises:
        UsageError: the network has batch norm, whose statistics each rank would take of its own patches.
    """
    if any(isinstance(m, nn.BatchNorm2d) for m in network.modules()):
        raise UsageError(
            "A network with batch norm is trained by one process: several would each see the statistics of "
            "their own patches only.",
            "Leave out --gpus, or start srcli train without torchrun.",
        )


def _has_convolutions(module: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) for m in module.modules())
