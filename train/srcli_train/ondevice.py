"""The whole data set as bytes on the GPU, where patches are cut, flipped and turned."""

import multiprocessing
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from srcli.backends.devices import cores
from srcli_train.data import Pictures, Pixels
from srcli_train.patches import Drawn, Minibatch, PatchSampler, Place, Plan, prefetched
from srcli_train.processes import drawn_by_processes
from srcli_train.recipes import Recipe

_MOST = 8  # that draw: threads, of which more wait for one another in Python, or processes


@dataclass(frozen=True, slots=True)
class DeviceMinibatch:
    """As `patches.Minibatch`, but (N, H, W, 3) uint8 tensors on the device."""

    scale: int
    lr: Tensor
    hr: Tensor


def minibatches(
    pictures: Pictures, sampler: PatchSampler, recipe: Recipe, device: torch.device
) -> Callable[[range], Generator[Minibatch | DeviceMinibatch]]:
    """Where minibatches come from: cut on a GPU that holds all pictures, unless LR is made patch by patch."""
    if device.type == "cuda" and recipe.degradation == "bicubic" and fits(pictures, device):
        return DevicePatches(pictures, sampler, recipe.patch, device)
    return ahead(sampler, device)


def ahead(draw: Callable[[int], Drawn], device: torch.device) -> Callable[[range], Generator[Drawn]]:
    """What `draw` makes of updates, in order, drawn ahead: for a GPU by processes where the system forks.

    Threads that draw would take from the one that drives the GPU the Python it needs.
    """
    forks = "fork" in multiprocessing.get_all_start_methods()
    drawn = drawn_by_processes if device.type == "cuda" and forks else prefetched
    return partial(drawn, draw, workers=_workers(device))


def _workers(device: torch.device) -> int:
    """Who draws minibatches: as many as this process's share of the cores, less the one that drives a GPU.

    A CPU that trains has none to spare.
    """
    if device.type == "cpu":
        return 1
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST, cores() // processes - 1))


class _Images:
    """Images one after the other in one byte tensor, with where each begins and how wide it is."""

    def __init__(self, images: list[Pixels], device: torch.device) -> None:
        sizes = np.array([image.size for image in images], np.int64)
        starts = np.cumsum(sizes) - sizes
        self.bytes = torch.empty(int(sizes.sum()), dtype=torch.uint8, device=device)
        for start, image in zip(starts, images, strict=True):  # one at a time: they may not fit in memory
            self.bytes[start : start + image.size] = torch.from_numpy(np.array(image)).flatten()
        self.starts = torch.from_numpy(starts).to(device)
        self.widths = torch.tensor([image.shape[1] for image in images], device=device)


def fits(pictures: Pictures, device: torch.device) -> bool:
    """Whether the pictures take at most half of the memory that is free on a CUDA device."""
    needed = sum(i.size for images in (pictures.hr, *pictures.lr.values()) for i in images)
    free, _ = torch.cuda.mem_get_info(device)
    return needed <= free // 2


class DevicePatches:
    """Makes the same minibatches as a `PatchSampler`, which only says from where.

    Args:
        pictures: copied to the device: three bytes a pixel of HR and of LR at each scale.
        sampler: of a recipe whose LR is bicubic.
        side: of an LR patch.
        device: where the patches are wanted.
    """

    def __init__(self, pictures: Pictures, sampler: PatchSampler, side: int, device: torch.device) -> None:
        self._sampler, self._side, self._device = sampler, side, device
        self._hr = _Images(pictures.hr, device)
        self._lr = {scale: _Images(images, device) for scale, images in pictures.lr.items()}
        self._looks = {n: _looks(n).to(device) for n in {side, *(side * scale for scale in pictures.lr)}}

    def __call__(self, updates: range) -> Generator[DeviceMinibatch]:
        """Minibatches of `updates` in order."""
        for plan in ahead(self._sampler.plan, self._device)(updates):
            yield self.cut(plan)

    def cut(self, plan: Plan) -> DeviceMinibatch:
        """The patches of a plan."""
        places = torch.tensor([_numbers(place) for place in plan.places])
        where = places.pin_memory() if self._device.type == "cuda" else places
        where = where.to(self._device, non_blocking=True)
        lr = self._crop(self._lr[plan.scale], where, 1, self._side)
        return DeviceMinibatch(
            plan.scale, lr, self._crop(self._hr, where, plan.scale, self._side * plan.scale)
        )

    def _crop(self, images: _Images, where: Tensor, scale: int, side: int) -> Tensor:
        number, row, column, look = where.unbind(1)
        seen = self._looks[side][look]
        rows = (row * scale)[:, None, None] + seen[..., 0]
        columns = (column * scale)[:, None, None] + seen[..., 1]
        pixel = rows * images.widths[number][:, None, None] + columns
        first = images.starts[number][:, None, None] + 3 * pixel
        return images.bytes[first[..., None] + torch.arange(3, device=first.device)]


def _numbers(place: Place) -> tuple[int, int, int, int]:
    return place.number, place.row, place.column, 4 * place.flip + place.turns


def _looks(side: int) -> Tensor:
    """(8, side, side, 2): for each flip and turn, the row and column that every output pixel comes from."""
    square = np.moveaxis(np.mgrid[:side, :side], 0, -1)
    looks = [np.rot90(flipped, turns) for flipped in (square, square[:, ::-1]) for turns in range(4)]
    return torch.from_numpy(np.stack(looks))
