"""What happens to one picture before and after the engine: decode and encode, off its back."""

import os
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from srcli.errors import OutputError
from srcli.io import pictures
from srcli.io.pictures import Picture
from srcli.jobs.names import Job
from srcli.jobs.report import PictureResult, Status
from srcli.jobs.sizes import Size
from srcli.upscaler import Made

_NICE, _LOWEST = 10, 19
"""How far decoding and encoding stand back from the network: about a tenth of its share of a core."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A picture between two stages: pixels and metadata, what it was, and the work so far."""

    picture: Picture
    input_size: Size
    seconds: float
    made: Made | None = None


def stand_back() -> None:
    """Let this thread work only in gaps of the network's, which all wait for the slowest among them."""
    if sys.platform == "linux":  # elsewhere, priorities belong to processes
        thread = threading.get_native_id()
        lower = min(os.getpriority(os.PRIO_PROCESS, thread) + _NICE, _LOWEST)
        with suppress(OSError):  # a favour, not a need
            os.setpriority(os.PRIO_PROCESS, thread, lower)


def decode(job: Job) -> Stage:
    start = perf_counter()
    picture = pictures.read(job.source)
    height, width = picture.pixels.shape[:2]
    return Stage(picture, (height, width), perf_counter() - start)


def encode(job: Job, upscaled: Future[Stage], quality: int | None) -> PictureResult:
    stage = upscaled.result()
    start = perf_counter()
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{job.target}: its folder cannot be made ({error.strerror}).", "Choose another place with -o."
        ) from error
    notes = pictures.use_up(job.target, stage.picture, format=None, quality=quality)
    height, width = np.shape(stage.picture.pixels)[:2]
    return PictureResult(
        job.source,
        job.target,
        Status.WRITTEN,
        stage.input_size,
        (height, width),
        stage.seconds + perf_counter() - start,
        notes=(*stage.picture.notes, *notes),
        made=stage.made,
    )
