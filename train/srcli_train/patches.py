"""The patches of every minibatch: where they are cut, what is done to them, and by whom.

Drawing update n's minibatch depends on nothing but the recipe's seed and n, so there is no sampler state
to save and none to lose.
"""

from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from srcli.errors import TrainingError
from srcli_train import drawings
from srcli_train.data import Pictures, Pixels
from srcli_train.degradations import (
    DEGRADATIONS,
    degraded_patch,
    drawing_generator,
    image_generator,
    patch_generator,
)
from srcli_train.prefetch import prefetch
from srcli_train.recipes import Recipe


@dataclass(frozen=True, slots=True)
class Minibatch:
    """Patches of one update.

    Attributes:
        scale: the scale all patches of this minibatch have.
        lr: (N, P, P, 3) uint8 RGB.
        hr: (N, scale*P, scale*P, 3) uint8 RGB.
    """

    scale: int
    lr: Pixels
    hr: Pixels


@dataclass(frozen=True, slots=True)
class Place:
    """One patch: picture, top left corner in LR pixels, and what is done to it (flip before turns of 90°)."""

    number: int
    row: int
    column: int
    flip: bool
    turns: int


@dataclass(frozen=True, slots=True)
class MinibatchPlan:
    """The patches that make a minibatch."""

    scale: int
    places: tuple[Place, ...]


class PatchSampler:
    """Draws the minibatch of any update: same seed and update, same patches."""

    def __init__(self, pictures: Pictures, recipe: Recipe) -> None:
        self._pictures, self._recipe = pictures, recipe
        self._scales = sorted(pictures.lr)
        check_sizes(pictures, recipe.patch)

    def __call__(self, update: int) -> Minibatch:
        """The minibatch of one update."""
        plan = self.plan(update)
        pairs = [self._pair(plan.scale, place, (update, patch)) for patch, place in enumerate(plan.places)]
        return Minibatch(plan.scale, np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]))

    def plan(self, update: int) -> MinibatchPlan:
        """The patches of one update; MDSR's scale is drawn here (paper, section 4.2)."""
        draw = np.random.default_rng((self._recipe.seed, update))
        scale = self._scales[draw.integers(len(self._scales))]
        return MinibatchPlan(scale, tuple(self._place(scale, draw) for _ in range(self._recipe.batch)))

    def _place(self, scale: int, draw: np.random.Generator) -> Place:
        """The most detailed of the recipe's candidates, to be flipped and turned at random."""
        corners = [self._corner(scale, draw) for _ in range(self._recipe.candidates)]
        best = corners[0]
        if len(corners) > 1:
            best = max(corners, key=lambda corner: _detail(self._low(scale, *corner)))
        flip = self._recipe.flip and bool(draw.integers(2))
        return Place(*best, flip, int(draw.integers(4)) if self._recipe.rotate else 0)

    def _low(self, scale: int, number: int, y: int, x: int) -> Pixels:
        side = self._recipe.patch
        return self._pictures.lr[scale][number][y : y + side, x : x + side]

    def _pair(self, scale: int, place: Place, key: tuple[int, int]) -> tuple[Pixels, Pixels]:
        drawn = self._drawing(scale, key)
        if drawn:
            return drawn
        number, y, x, side = place.number, place.row, place.column, self._recipe.patch
        high = self._pictures.hr[number][y * scale : (y + side) * scale, x * scale : (x + side) * scale]
        bicubic = self._recipe.degradation == "bicubic"  # the cache has that
        low = self._low(scale, number, y, x) if bicubic else self._degraded(scale, place, key)
        return _augmented(low, place.flip, place.turns), _augmented(high, place.flip, place.turns)

    def _drawing(self, scale: int, key: tuple[int, int]) -> tuple[Pixels, Pixels] | None:
        """A drawing's LR and HR in place of a patch, as often as the recipe says."""
        if not self._recipe.drawings:
            return None
        random = drawing_generator(self._recipe.seed, *key)
        if random.random() >= self._recipe.drawings:
            return None
        kind = tuple(drawings.KINDS)[random.integers(len(drawings.KINDS))]
        return drawings.draw(kind, scale, random, (self._recipe.patch, self._recipe.patch))

    def _degraded(self, scale: int, place: Place, key: tuple[int, int]) -> Pixels:
        """LR made anew from HR, by a generator of its own: the places do not depend on the degradation."""
        seed, corner = self._recipe.seed, (place.row, place.column)
        degradation, hr = DEGRADATIONS[self._recipe.degradation], self._pictures.hr[place.number]
        draw, own = patch_generator(seed, *key), image_generator(seed, place.number)
        return degraded_patch(degradation, hr, scale, corner, self._recipe.patch, draw, own)

    def _corner(self, scale: int, draw: np.random.Generator) -> tuple[int, int, int]:
        """A picture's number, and where in its LR image a patch begins: row, column."""
        side, number = self._recipe.patch, int(draw.integers(len(self._pictures.hr)))
        height, width = self._pictures.lr[scale][number].shape[:2]
        return number, int(draw.integers(height - side + 1)), int(draw.integers(width - side + 1))


def check_sizes(pictures: Pictures, side: int) -> None:
    """Refuse pictures that hold no patch.

    Args:
        pictures: to draw from.
        side: of an LR patch in pixels.

    Raises:
        TrainingError: there are such pictures.
    """
    sides = [
        min(min(images[n].shape[:2]) for images in pictures.lr.values()) for n in range(len(pictures.hr))
    ]
    small = sum(length < side for length in sides)
    if small:
        raise TrainingError(
            f"The smallest: its LR has a side of {min(sides)} pixels, and patches take {side}; "
            f"{small} of {len(sides)} images are too small.",
            "Remove small images from the folder, or train with a smaller --patch.",
        )


def _detail(patch: Pixels) -> float:
    """Mean difference between neighbours of the green channel, on 0-255."""
    green = patch[..., 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())


def _augmented(patch: Pixels, flip: bool, turns: int) -> Pixels:
    return np.rot90(patch[:, ::-1] if flip else patch, turns)


@dataclass(frozen=True, slots=True)
class DeviceMinibatch:
    """As `Minibatch`, but (N, H, W, 3) uint8 tensors on the device."""

    scale: int
    lr: Tensor
    hr: Tensor


def minibatches(
    pictures: Pictures, sampler: PatchSampler, recipe: Recipe, device: torch.device
) -> Callable[[range], Generator[Minibatch | DeviceMinibatch]]:
    """A function from updates to their minibatches: bicubic ones are cut on a GPU that holds all pictures."""
    if device.type == "cuda" and recipe.degradation == "bicubic" and fits(pictures, device):
        return DevicePatches(pictures, sampler, recipe.patch, device)
    return prefetch(sampler, device)


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
    """Cuts the minibatches of a `PatchSampler` on the device, which holds all pictures as uint8.

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
        self._orientations = {
            n: _orientations(n).to(device) for n in {side, *(side * scale for scale in pictures.lr)}
        }

    def __call__(self, updates: range) -> Generator[DeviceMinibatch]:
        """Minibatches of `updates` in order."""
        for plan in prefetch(self._sampler.plan, self._device)(updates):
            yield self.cut(plan)

    def cut(self, plan: MinibatchPlan) -> DeviceMinibatch:
        """The patches of a plan."""
        places = torch.tensor([_numbers(place) for place in plan.places])
        where = places.pin_memory() if self._device.type == "cuda" else places
        where = where.to(self._device, non_blocking=True)
        lr = self._crop(self._lr[plan.scale], where, 1, self._side)
        return DeviceMinibatch(
            plan.scale, lr, self._crop(self._hr, where, plan.scale, self._side * plan.scale)
        )

    def _crop(self, images: _Images, where: Tensor, scale: int, side: int) -> Tensor:
        number, row, column, orientation = where.unbind(1)
        pixels = self._orientations[side][orientation]
        rows = (row * scale)[:, None, None] + pixels[..., 0]
        columns = (column * scale)[:, None, None] + pixels[..., 1]
        pixel = rows * images.widths[number][:, None, None] + columns
        first = images.starts[number][:, None, None] + 3 * pixel
        return images.bytes[first[..., None] + torch.arange(3, device=first.device)]


def _numbers(place: Place) -> tuple[int, int, int, int]:
    return place.number, place.row, place.column, 4 * place.flip + place.turns


def _orientations(side: int) -> Tensor:
    """(8, side, side, 2): for each flip and turn, the row and column that every output pixel comes from."""
    square = np.moveaxis(np.mgrid[:side, :side], 0, -1)
    orientations = [np.rot90(flipped, turns) for flipped in (square, square[:, ::-1]) for turns in range(4)]
    return torch.from_numpy(np.stack(orientations))
