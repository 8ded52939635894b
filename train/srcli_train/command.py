"""What `srcli train` does, free of any printing: checks, pictures, training."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from srcli.backends.base import run_failed
from srcli.errors import SrcliError, TrainingError
from srcli.io.storage import cache_folder, check_takes_files
from srcli_train.data import Pictures, Pixels, is_cached, load_pictures
from srcli_train.device import check_device_count, find_device, named_device, resolve_precision
from srcli_train.folders import Source, UnfitPicturesError, read_middle, split
from srcli_train.job import Job, check_for_ranks, check_overwriting, check_recipe, outline, remember
from srcli_train.log import Board, Watcher
from srcli_train.loop import Trainer
from srcli_train.ranks import check_share, is_first_rank, local_rank
from srcli_train.recipes import Recipe
from srcli_train.start import find_start

_log = logging.getLogger(__name__)


def train(job: Job, watcher: Watcher) -> Path:
    """Train and return the checkpoint.

    Raises:
        TrainingError, InputError, UsageError: the job cannot be run as asked.
    """
    check_recipe(outline(job.network), job.recipe)
    _check_early(job, find_device(job.device))
    if is_first_rank():  # the others write nothing, and get their start from the first
        check_overwriting(job)
        check_takes_files(job.folder, job.folder)  # before hours are spent on what cannot be kept
    source, validation = split(job.data, job.valid)
    images = "1 training image" if len(source.hr) == 1 else f"{len(source.hr)} training images"
    _log.info("%s, %d for validation.", images, len(validation))
    pictures, middles = _pictures(source, validation, job)
    board = Board(job.folder, watcher) if is_first_rank() else watcher
    if is_first_rank():
        remember(job)
    with memory_errors_explained(job.recipe):
        trainer = Trainer(job, pictures, middles, board)
        _log.info("Training %s on %s in %s.", job.network.name, trainer.device, trainer.precision)
        return trainer.run()


def check(job: Job, processes: int) -> None:
    """Refuse, once, what each of so many processes would refuse.

    Raises:
        TrainingError, InputError, UsageError: the job cannot be run as asked.
    """
    network = outline(job.network)
    check_recipe(network, job.recipe)
    check_for_ranks(network)
    check_share(job.recipe.batch, processes)
    check_device_count(job.device, processes)
    _check_early(job, named_device(job.device))
    check_overwriting(job)
    check_takes_files(job.folder, job.folder)
    split(job.data, job.valid)


def _check_early(job: Job, device: torch.device) -> None:
    """Refuse what the loop would refuse, too, but only after the pictures are decoded."""
    if job.init and not job.resume and is_first_rank():
        find_start(job.init, job.network)
    if job.recipe.precision == "bf16":
        resolve_precision("bf16", device)


def _pictures(source: Source, validation: Sequence[Path], job: Job) -> tuple[Pictures, tuple[Pixels, ...]]:
    """Pictures to train on, and those for validation.

    Raises:
        UnfitPicturesError: some cannot be used; each is logged where there are several.
    """
    problems, middles = list[SrcliError](), list[Pixels]()
    for path in validation:
        try:
            middles.append(read_middle(path))
        except SrcliError as error:
            problems.append(error)
    try:
        pictures = _load(source, job)
        problems = [*pictures.smaller_than(job.recipe.patch, source.hr), *problems]
        if not problems:
            return pictures, tuple(middles)
    except UnfitPicturesError as error:
        problems = [*error.problems, *problems]
    if len(problems) > 1:
        for problem in problems:
            _log.warning("%s", problem.message)
    raise UnfitPicturesError(problems)


def _load(source: Source, job: Job) -> Pictures:
    def progress(done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            _log.info("Decoded %d of %d images into the cache.", done, total)

    scales, cache = job.network.scales, job.cache or cache_folder("train")
    while local_rank() and not is_cached(source, scales, cache):  # the first rank of a machine decodes
        time.sleep(0.5)
    return load_pictures(source, scales, cache, progress, job.recipe.patch)


@contextmanager
def memory_errors_explained(recipe: Recipe) -> Iterator[None]:
    """Around what trains.

    Raises:
        TrainingError: the memory of the machine or of the GPU ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        failure = run_failed("training", error)
        if not isinstance(failure, MemoryError):
            raise
        raise TrainingError(
            f"Memory ran out ({failure}).",
            f"Lower --batch (now {recipe.batch}) or --patch (now {recipe.patch}).",
        ) from error
