"""A training run small enough for a test: rendered pictures, two blocks, eight features."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from srcli.io.pictures import Picture, write
from srcli_train.cuda_graph import Capture, GraphedGradients
from srcli_train.data import Pictures, load_pictures
from srcli_train.folders import find_source
from srcli_train.job import Job
from srcli_train.log import Status
from srcli_train.loop import Trainer
from srcli_train.networks import NetworkSpec
from srcli_train.recipes import RECIPES, Recipe

TINY = NetworkSpec("tiny", "edsr", blocks=2, features=8, scales=(2,))
TINY_MDSR = NetworkSpec("tiny-mdsr", "mdsr", blocks=2, features=8, scales=(2, 3, 4))
FAST = replace(RECIPES["fast"], updates=20, batch=4, patch=8, warmup=2)


class Quiet:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.statuses: list[Status] = []
        self.pictures: list[NDArray[np.uint8]] = []

    def status(self, status: Status) -> None:
        self.statuses.append(status)

    def picture(self, update: int, image: NDArray[np.uint8]) -> None:
        self.pictures.append(image)


def rendered(number: int, size: int = 96) -> NDArray[np.uint8]:
    """Sloped stripes of a different frequency and colour a picture: something to learn."""
    y, x = np.mgrid[:size, :size] / size
    waves = [np.sin((number + 3) * (3 * x + (c + 1) * 2 * y) + c) for c in range(3)]
    return np.asarray(np.stack(waves, -1) * 100 + 128, np.uint8)


def folder_of_pictures(folder: Path, count: int = 4, size: int = 96) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        write(folder / f"{number:04d}.png", Picture(rendered(number, size)))
    return folder


def tiny_pictures(tmp_path: Path, scales: tuple[int, ...] = (2,)) -> Pictures:
    source = find_source(folder_of_pictures(tmp_path / "hr"))
    return load_pictures(source, scales, tmp_path / "cache", lambda done, total: None)


def trainer(
    tmp_path: Path,
    *,
    network: NetworkSpec = TINY,
    recipe: Recipe = FAST,
    run: str = "run",
    resume: bool = False,
    init: Path | None = None,
    minutes: float | None = None,
    watcher: Quiet | None = None,
) -> Trainer:
    job = Job(
        tmp_path / "hr",
        network,
        recipe,
        tmp_path / run,
        resume=resume,
        init=init,
        minutes=minutes,
        log_every=5,
        validate_every=10,
    )
    pictures = tiny_pictures(tmp_path, network.scales)
    return Trainer(job, pictures, (rendered(2, 48),), watcher or Quiet())


def gradients(network: nn.Module, recipe: Recipe, capture: Capture | None = None) -> GraphedGradients:
    """As the trainer makes them, on a CPU."""
    compute = partial(Trainer.forward_backward, network, recipe, torch.device("cpu"))
    return GraphedGradients(network, compute, capture)
