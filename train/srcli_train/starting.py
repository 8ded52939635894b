"""What a run begins with, or goes on with: precision, first weights, and what these have behind them."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from srcli.models.spec import TrainingFacts
from srcli_train import runfolder
from srcli_train.checkpoint import Checkpoint
from srcli_train.degradations import numbers
from srcli_train.deployed import load_start
from srcli_train.init import icnr, start_from
from srcli_train.job import Job
from srcli_train.misfits import refuse_blank, refuse_partly_new
from srcli_train.peers import Peers
from srcli_train.precision import continued, settled
from srcli_train.teacher import Teacher

_MANY = 6  # weights that are named one by one
_THEN = ", then "


def settled_job(
    job: Job, before: Checkpoint | None, device: torch.device, note: Callable[[str], None]
) -> Job:
    """The job with the precision that is computed in.

    Args:
        before: checkpoint that it goes on from; None: it begins.
        note: is told if it goes on in another precision.

    Raises:
        UsageError: the run has another network or recipe, or the device has not the precision asked for.
    """
    if before:
        runfolder.refuse_another(job.folder, before, job.network, job.recipe)
        precision = continued(before.recipe.precision, device, note)
    else:
        precision = settled(job.recipe.precision, device)
    return replace(job, recipe=replace(job.recipe, precision=precision))


def initialise(network: nn.Module, job: Job, peers: Peers, note: Callable[[str], None]) -> TrainingFacts:
    """Give a new network its first weights: those of `job.init`, where they fit.

    Returns:
        What these weights have behind them.

    Raises:
        TrainingError, ModelNotFoundError, ModelFileError: `job.init` is no start for this network.
        UsageError: the recipe learns from a network that is new, or that the start did not fill.
    """
    recipe, init = job.recipe, job.init
    refuse_blank(recipe, begun=job.resume or init is not None)
    if recipe.icnr:
        icnr(network)
    if not init or job.resume:
        return TrainingFacts()
    start = peers.ask_first(lambda: load_start(init, job.network))
    new = start_from(network, start)
    parts = new if len(new) < _MANY else dict.fromkeys(".".join(name.split(".")[:2]) for name in new)
    note(f"Started from {init}; freshly initialised: {', '.join(parts) or 'nothing'}.")
    if recipe.distill:
        refuse_partly_new(tuple(parts))
    return start.facts


def tell_changes(before: Checkpoint, pictures: str, note: Callable[[str], None]) -> None:
    """Tell `note` what a resumed run is trained on now and was not when it began."""
    if before.pictures not in ("", pictures):
        note("These are not the training pictures that the run began with.")
    if before.degradation is not None:
        changed = "; ".join(runfolder.differences(before.degradation, numbers(before.recipe.degradation)))
        if changed:
            note(f"LR is no longer made as when the run began: {changed}.")


def teacher_of(network: nn.Module, job: Job, device: torch.device) -> Teacher | None:
    """The network as it is at the start; a resumed run then loads what it was then."""
    return Teacher(deepcopy(network), device, job.recipe.precision) if job.recipe.distill else None


def added(before: TrainingFacts, job: Job, updates: int, seconds: float) -> TrainingFacts:
    """What a run's weights have behind them: what those had that it began with, and the run itself.

    Machines are named once each: "AMD EPYC, 2 cores, then NVIDIA H200".
    """
    machines = *before.machine.split(_THEN), job.facts.machine
    return replace(
        job.facts,
        recipe=job.recipe.name,
        machine=_THEN.join(dict.fromkeys(name for name in machines if name)),
        updates=before.updates + updates,
        hours=round(before.hours + seconds / 3600, 3),
    )


def earlier(checkpoint: Checkpoint) -> TrainingFacts:
    """The inverse of `added`, as far as it matters: a checkpoint's facts without its own run."""
    facts = checkpoint.facts
    updates, hours = facts.updates - checkpoint.update, facts.hours - checkpoint.seconds / 3600
    return replace(facts, updates=max(0, updates), hours=max(0.0, hours))
