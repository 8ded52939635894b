"""What a run starts from, or goes on with: precision, first weights, time budget, and its history.

Models are a start, too: the weights of exported files, put back where they came from.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srcli.backends.base import load_failed
from srcli.errors import MissingExtraError, ModelNotFoundError, TrainingError, UsageError
from srcli.models.catalog import ModelFile, is_path, resolve, scales
from srcli.models.spec import ModelSpec, TrainingFacts
from srcli_train.checkpoint import Checkpoint, check_same_run, differences, load_checkpoint
from srcli_train.degradations import parameters
from srcli_train.device import machine, resolve_precision, resumed_precision
from srcli_train.job import Job
from srcli_train.networks import MEAN_RGB, Body, NetworkSpec
from srcli_train.ranks import Ranks
from srcli_train.recipes import Recipe

_log = logging.getLogger(__name__)

FP16_SUFFIX = "_fp16"
"""Ends the name of a kernel that is stored in fp16."""

MERGED = "merged"
"""Last part of the name of a convolution that stands for others, which the file holds as well."""

_TRAINED = (".weight", ".bias")
_HINT = (
    "Give a checkpoint of srcli train, a model by name (`srcli models`), or an .onnx file of srcli export."
)

_MANY = 6  # weights that are named one by one
_BLOCKS = "body.blocks."
_THEN = ", then "


def with_precision(job: Job, before: Checkpoint | None, device: torch.device) -> Job:
    """The job with the precision that is computed in; another one than before is logged.

    Args:
        before: checkpoint that it goes on from; None: it begins.

    Raises:
        UsageError: the run has another network or recipe, or the device has not the precision asked for.
    """
    if before:
        check_same_run(job.folder, before, job.network, job.recipe)
        precision = resumed_precision(before.recipe.precision, device)
    else:
        precision = resolve_precision(job.recipe.precision, device)
    return replace(job, recipe=replace(job.recipe, precision=precision))


def initialise(network: nn.Module, job: Job, ranks: Ranks) -> TrainingFacts:
    """Give a new network its first weights: those of `job.init`, where they fit.

    Returns:
        The facts of these weights; empty for new ones.

    Raises:
        TrainingError, ModelNotFoundError, ModelFileError: `job.init` is no start for this network.
    """
    init = job.init
    if job.recipe.icnr:
        icnr(network)
    if not init or job.resume:
        return TrainingFacts()
    start = ranks.from_first(lambda: load_start(init, job.network))
    new = start_from(network, start)
    parts = new if len(new) < _MANY else dict.fromkeys(".".join(name.split(".")[:2]) for name in new)
    _log.info("Started from %s; freshly initialised: %s.", init, ", ".join(parts) or "nothing")
    return start.facts


def log_changes(before: Checkpoint, pictures: str) -> None:
    """Log what a resumed run is trained on now and was not when it began.

    Args:
        pictures: fingerprint of the training pictures.
    """
    if before.pictures not in ("", pictures):
        _log.warning("These are not the training pictures that the run began with.")
    if before.degradation is not None:
        changed = "; ".join(differences(before.degradation, parameters(before.recipe.degradation)))
        if changed:
            _log.warning("LR is no longer made as when the run began: %s.", changed)


def resumed_minutes(asked: float | None, before: float | None) -> float:
    """The time budget of a resumed run, in minutes of training in all; 0: none. A change is logged.

    Args:
        asked: what is asked for now; None: nothing is, and the run keeps what it had.
        before: what the checkpoint holds; None: it was written before checkpoints held it.
    """
    if asked is None:
        if before is None:
            _log.warning(
                "The checkpoint does not say whether this run had a time budget; it goes on without one."
            )
        return before or 0.0
    if before is not None and asked != before:
        _log.info(
            "The time budget is now %s; before it was %s.",
            _minutes_in_words(asked),
            _minutes_in_words(before),
        )
    return asked


def _minutes_in_words(minutes: float) -> str:
    return f"{minutes:g} minutes" if minutes else "none"


def facts_of(job: Job, device: torch.device) -> TrainingFacts:
    """The facts of a run for the model card, as far as they are known at its start."""
    return TrainingFacts(data=job.data_name or job.data.name, machine=machine(device), command=job.command)


def added_facts(
    before: TrainingFacts, run: TrainingFacts, recipe: str, updates: int, seconds: float
) -> TrainingFacts:
    """The facts of a run's weights: of those that it began with, and of the run itself.

    Machines are named once each: "AMD EPYC, 2 cores, then NVIDIA H200".

    Args:
        before: of the weights that it began with.
        run: `facts_of` it.
        recipe: its name.
        updates, seconds: of the run so far.
    """
    machines = *before.machine.split(_THEN), run.machine
    return replace(
        run,
        recipe=recipe,
        machine=_THEN.join(dict.fromkeys(name for name in machines if name)),
        updates=before.updates + updates,
        hours=round(before.hours + seconds / 3600, 3),
    )


def earlier_facts(checkpoint: Checkpoint) -> TrainingFacts:
    """The inverse of `added_facts`: a checkpoint's facts without its own run's updates and hours."""
    facts = checkpoint.facts
    updates, hours = facts.updates - checkpoint.update, facts.hours - checkpoint.seconds / 3600
    return replace(facts, updates=max(0, updates), hours=max(0.0, hours))


def icnr(network: nn.Module) -> None:
    """Make every upsampler convolution repeat pixels: equal channels in groups (Aitken et al. 2017)."""
    for parent in network.modules():
        children = list(parent.children())
        for conv, shuffle in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(shuffle, nn.PixelShuffle):
                repeat = shuffle.upscale_factor**2
                with torch.no_grad():
                    conv.weight.copy_(conv.weight[::repeat].repeat_interleave(repeat, 0))
                    if conv.bias is not None:
                        conv.bias.copy_(conv.bias[::repeat].repeat_interleave(repeat, 0))


def start_from(network: nn.Module, checkpoint: Checkpoint) -> list[str]:
    """Copy every weight that fits (paper, section 4.2: x3 and x4 start from the trained x2).

    A single-scale checkpoint's upsampler goes to MDSR's branch of that scale, and MDSR's
    pre-processing modules then start as identities, so that the trunk sees what it was trained on. Where the
    network has more blocks than the checkpoint, those of the checkpoint are spread over it and the others
    start as identities, so that it begins as good as the checkpoint is.

    Returns:
        Names of the weights that could not be filled and keep their initialisation, but for further blocks.

    Raises:
        TrainingError: nothing fits.
    """
    given = _spread(network, checkpoint, _renamed(network, checkpoint))
    own = network.state_dict()
    fitting = {k: v for k, v in given.items() if k in own and own[k].shape == v.shape}
    if not any(k.startswith(("body", "blocks")) for k in fitting):
        raise TrainingError(
            f"The checkpoint holds {checkpoint.network.name}, of which no block fits this network.",
            "Blocks, features and family must match.",
        )
    network.load_state_dict(own | fitting)
    _identities(network, lambda name: name.startswith(_BLOCKS) and name not in fitting)
    if checkpoint.network.family == "edsr":
        _identities(network, lambda name: name.startswith("pre_process"))
    return sorted(name for name in set(own) - set(fitting) if not name.startswith(_BLOCKS))


def _renamed(network: nn.Module, checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The checkpoint's weights under this network's names."""
    weights = checkpoint.weights
    if checkpoint.network.family == "edsr" and hasattr(network, "pre_process"):
        branch = f"upsampler.{checkpoint.network.scales[0]}."
        return {k.replace("upsampler.", branch): v for k, v in weights.items()}
    if checkpoint.network.family == "mdsr" and hasattr(network, "scale"):
        return {k.replace(f"upsampler.{network.scale}.", "upsampler."): v for k, v in weights.items()}
    return weights


def _spread(network: nn.Module, checkpoint: Checkpoint, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with their blocks evenly over the more blocks of a deeper network; else as they are."""
    body, trained = getattr(network, "body", None), checkpoint.network.blocks
    blocks = len(body.blocks) if isinstance(body, Body) else 0
    if blocks <= trained:
        return weights

    def renamed(name: str) -> str:
        if not name.startswith(_BLOCKS):
            return name
        number, _, rest = name.removeprefix(_BLOCKS).partition(".")
        return f"{_BLOCKS}{int(number) * blocks // trained}.{rest}"

    return {renamed(name): weight for name, weight in weights.items()}


def _identities(network: nn.Module, chosen: Callable[[str], bool]) -> None:
    """Make residual blocks give what they are given: their second convolution is zero."""
    for name, parameter in network.named_parameters():
        if ".conv2." in name and chosen(name):
            nn.init.zeros_(parameter)


def load_start(init: Path, network: NetworkSpec) -> Checkpoint:
    """What `--init` names: a checkpoint, or a model by its name or the path of its ONNX file.

    Args:
        init: path or name.
        network: that is to start from it; files do not hold residual scaling: its own is assumed.

    Raises:
        TrainingError: it cannot be read, or is none of srcli's networks.
        UsageError, ModelNotFoundError, ModelFileError: no such checkpoint or model, or it is damaged.
        MissingExtraError: a model is named, and onnx is not installed.
    """
    files = find_start(init, network)
    return _from_model(files, network) if files else load_checkpoint(init)


def find_start(init: Path, network: NetworkSpec) -> list[ModelFile]:
    """The files of the model that `--init` names; none if it names a checkpoint.

    Raises:
        UsageError, ModelNotFoundError, ModelFileError: as in `load_start`.
    """
    is_name = not (init.is_file() or is_path(str(init)) or init.suffix == ".pt")
    if is_name or init.suffix == ".onnx":
        return _files(init, network)
    if not init.is_file():
        raise UsageError(f"{init}: no such checkpoint.", _HINT)
    return []


def _files(init: Path, network: NetworkSpec) -> list[ModelFile]:
    """The files that make one network: all of an MDSR's, else that of the same scale, or the first."""
    model = init if init.suffix == ".onnx" else str(init)
    try:
        files = [resolve(model, scale) for scale in scales(model)]
    except ModelNotFoundError as error:
        raise ModelNotFoundError(error.message, _HINT) from error
    if all(file.spec.family == "mdsr" for file in files):
        return files
    return [next((file for file in files if file.spec.scale in network.scales), files[0])]


def _from_model(files: list[ModelFile], network: NetworkSpec) -> Checkpoint:
    weights, spec = dict[str, Tensor](), files[0].spec
    for file in files:
        found = _weights_of(file)
        if any(not torch.equal(weights[name], found[name]) for name in weights.keys() & found.keys()):
            names = ", ".join(one.path.name for one in files)
            hint = "Give the path of one of them, or export them again from one checkpoint."
            raise TrainingError(f"{names} are not of one network: what their scales share differs.", hint)
        weights |= found
    known = NetworkSpec(
        name=spec.name,
        family=spec.family,
        blocks=spec.blocks,
        features=spec.features,
        residual_scale=network.residual_scale,
        scales=tuple(file.spec.scale for file in files),
        pixel_range=network.pixel_range,
    )
    return Checkpoint(known, Recipe(), _as_trained(weights, known), facts=spec.training)


def _weights_of(file: ModelFile) -> dict[str, Tensor]:
    """Kernels and biases of a file by their names in training."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError("Training from a model", "export") from error
    _refuse_other(file.path, file.spec)
    try:
        stored = {
            tensor.name.removesuffix(FP16_SUFFIX): numpy_helper.to_array(tensor)
            for tensor in onnx.load(file.path).graph.initializer
        }
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise load_failed("training", file.path, error) from error
    _refuse_other_colour(file.path, stored)
    return {
        name: torch.from_numpy(value.astype(np.float32))
        for name, value in stored.items()
        if name.endswith(_TRAINED) and f".{MERGED}." not in name
    }


def _refuse_other(path: Path, spec: ModelSpec) -> None:
    if spec.family not in ("edsr", "mdsr") or spec.arithmetic != "fp32":
        raise TrainingError(
            f"{path}: training starts from EDSR and MDSR files in fp32 arithmetic only.",
            "Give the checkpoint that it was exported from.",
        )


def _refuse_other_colour(path: Path, stored: Mapping[str, NDArray[Any]]) -> None:
    """Imported networks may take off another mean colour than srcli's do, and have a tail in one part."""
    missing = np.zeros(0)
    mean, tail = stored.get("mean", missing).ravel(), stored.get("tail.bias", missing)
    if tail.shape != (6,) or mean.shape != (3,) or not np.allclose(mean, MEAN_RGB, atol=1e-6):
        raise TrainingError(
            f"{path}: is not as srcli exports networks, or takes off another mean colour than DIV2K's.",
            "Training starts from srcli's own networks.",
        )


def _as_trained(weights: Mapping[str, Tensor], network: NetworkSpec) -> dict[str, Tensor]:
    """The inverse of what the export does: biases for 0-1 pixels, scaled residuals, a tail in two parts."""
    trained = {}
    for name, stored in weights.items():
        value = stored * network.pixel_range if name.endswith(".bias") else stored
        if name.startswith("tail."):
            value = value[:3] + value[3:]
        if name.startswith(_BLOCKS) and ".conv2." in name:
            value = value / network.residual_scale
        trained[name] = value
    return trained
