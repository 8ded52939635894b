"""What `srcli train` does, free of any printing."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from srcli.backends.devices import processor
from srcli.errors import TrainingError, UsageError
from srcli.io.storage import cache_folder, check_takes_files
from srcli.models.spec import TrainingFacts
from srcli_train.board import Board
from srcli_train.data import Pictures, is_cached, load_pictures
from srcli_train.deployed import find_start
from srcli_train.device import enough_devices, find_device, named_device
from srcli_train.folders import Source, find_source, read_rgb
from srcli_train.job import Job, Pixels, Watcher
from srcli_train.loop import Trainer
from srcli_train.memory import enough_memory
from srcli_train.misfits import outline, refuse_blank, refuse_misfit, refuse_sharing
from srcli_train.networks import NetworkSpec
from srcli_train.patches import refuse_small
from srcli_train.peers import even_share, first_process, local_rank
from srcli_train.precision import settled
from srcli_train.recipes import Recipe
from srcli_train.runfolder import holds_run

_VALIDATION_IMAGES = 12
_HELD_BACK = 10  # one training image of so many at most is used for validation instead
_VALIDATION_SIDE = 384  # pixels of HR, from the middle


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """A `srcli train` command line.

    Attributes:
        data: folder of HR images, or of DIV2K.
        network: what is trained.
        recipe: with the user's changes already made.
        run: folder of checkpoint and logs.
        valid: folder of validation images; None: DIV2K's, or a few held back from `data`.
        command: the command line, for the model card.
    """

    data: Path
    network: NetworkSpec
    recipe: Recipe
    run: Path
    valid: Path | None = None
    cache: Path | None = None
    device: str = "cpu"
    minutes: float | None = None
    init: Path | None = None
    resume: bool = False
    validate_every: int = 1000
    data_name: str = ""
    command: str = ""


def train(request: TrainRequest, watcher: Watcher) -> Path:
    """Train and return the checkpoint.

    Raises:
        TrainingError, InputError, UsageError: said in full by each.
    """
    refuse_misfit(outline(request.network), request.recipe)
    _refuse_early(request, find_device(request.device))
    if first_process():  # the others write nothing, and are told what to start from
        _refuse_overwriting(request)
        check_takes_files(request.run, request.run)  # before hours are spent on what cannot be kept
    source, validation = _split(request)
    watcher.note(f"{len(source.hr)} training images, {len(validation)} for validation.")
    pictures = _pictures(source, request.network.scales, request, watcher)
    refuse_small(pictures, request.recipe.patch, source.hr)
    facts = TrainingFacts(
        data=request.data_name or request.data.name,
        machine=machine(find_device(request.device)),
        command=request.command,
    )
    job = Job(
        network=request.network,
        recipe=request.recipe,
        folder=request.run,
        validation=tuple(_middle(read_rgb(p)) for p in validation),
        device=request.device,
        minutes=request.minutes,
        init=request.init,
        resume=request.resume,
        validate_every=request.validate_every,
        facts=facts,
    )
    board = Board(request.run, watcher) if first_process() else watcher
    with enough_memory(request.recipe):
        trainer = Trainer(job, pictures, board)
        taught = ", taught by what it was at the start" if request.recipe.distill else ""
        board.note(f"Training {request.network.name} on {trainer.device} in {trainer.precision}{taught}.")
        return trainer.run()


def check(request: TrainRequest, processes: int) -> None:
    """Refuse what so many processes need not try, before each of them says so.

    Raises:
        TrainingError, InputError, UsageError: said in full by each.
    """
    network = outline(request.network)
    refuse_misfit(network, request.recipe)
    refuse_sharing(network)
    even_share(request.recipe.batch, processes)
    enough_devices(request.device, processes)
    _refuse_early(request, named_device(request.device))
    _refuse_overwriting(request)
    check_takes_files(request.run, request.run)
    _split(request)


def _refuse_early(request: TrainRequest, device: torch.device) -> None:
    """What the loop would refuse, too, but not before the pictures are decoded."""
    refuse_blank(request.recipe, begun=request.resume or request.init is not None)
    if request.init and not request.resume and first_process():
        find_start(request.init, request.network)
    if request.recipe.precision == "bf16":
        settled("bf16", device)


def machine(device: torch.device) -> str:
    """What trains, in a few words: "AMD EPYC, 2 cores" or "NVIDIA H200"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor().name}, {os.cpu_count()} cores"


def _pictures(source: Source, scales: tuple[int, ...], request: TrainRequest, watcher: Watcher) -> Pictures:
    def progress(done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            watcher.note(f"Decoded {done} of {total} images into the cache.")

    cache = request.cache or cache_folder("train")
    while local_rank() and not is_cached(source, scales, cache):  # the first process of a machine decodes
        time.sleep(0.5)
    return load_pictures(source, scales, cache, progress)


def _split(request: TrainRequest) -> tuple[Source, tuple[Path, ...]]:
    """Training and validation files; without a validation set a few training images are held back."""
    source = find_source(request.data)
    if request.valid:
        return source, find_source(request.valid, "valid").hr[:_VALIDATION_IMAGES]
    if (request.data / "DIV2K_valid_HR").is_dir():
        return source, find_source(request.data, "valid").hr[:_VALIDATION_IMAGES]
    if len(source.hr) < 2:
        raise TrainingError(f"{request.data} holds one image only.", "Add images, or give --valid a folder.")
    count = max(1, min(_VALIDATION_IMAGES, len(source.hr) // _HELD_BACK))
    held = set(range(0, len(source.hr), len(source.hr) // count)[:count])
    rest = [i for i in range(len(source.hr)) if i not in held]
    lr = {s: tuple(files[i] for i in rest) for s, files in source.lr.items()}
    return Source(tuple(source.hr[i] for i in rest), lr), tuple(source.hr[i] for i in sorted(held))


def _middle(image: Pixels) -> Pixels:
    top, left = ((side - _VALIDATION_SIDE) // 2 if side > _VALIDATION_SIDE else 0 for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + _VALIDATION_SIDE, left : left + _VALIDATION_SIDE])


def _refuse_overwriting(request: TrainRequest) -> None:
    exists = holds_run(request.run)
    if request.resume and not exists:
        raise UsageError(f"{request.run} holds no checkpoint to resume.", "Leave out --resume to start anew.")
    if exists and not request.resume:
        raise UsageError(
            f"{request.run} already holds a run.", "Go on with --resume, or choose another folder with -o."
        )
