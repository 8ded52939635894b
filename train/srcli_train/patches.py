"""The patches of every minibatch: where they are cut, and what is done to them.

Drawing update n's minibatch depends on nothing but the recipe's seed and n, so there is no sampler state
to save and none to lose.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from srcli.errors import TrainingError
from srcli_train.data import Pictures, Pixels
from srcli_train.degradations import DEGRADATIONS, degraded_patch, of_image, of_patch
from srcli_train.recipes import Recipe

Drawn = TypeVar("Drawn")
_AHEAD = 4  # minibatches kept ready, at least


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
class Plan:
    """What a minibatch is made of."""

    scale: int
    places: tuple[Place, ...]


class PatchSampler:
    """Draws the minibatch of any update: same seed and update, same patches."""

    def __init__(self, pictures: Pictures, recipe: Recipe) -> None:
        self._pictures, self._recipe = pictures, recipe
        self._scales = sorted(pictures.lr)
        refuse_small(pictures, recipe.patch)

    def __call__(self, update: int) -> Minibatch:
        """The minibatch of one update."""
        plan = self.plan(update)
        pairs = [self._pair(plan.scale, place, (update, patch)) for patch, place in enumerate(plan.places)]
        return Minibatch(plan.scale, np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]))

    def plan(self, update: int) -> Plan:
        """What the minibatch of one update is made of; MDSR's scale is drawn here (paper, section 4.2)."""
        draw = np.random.default_rng((self._recipe.seed, update))
        scale = self._scales[draw.integers(len(self._scales))]
        return Plan(scale, tuple(self._place(scale, draw) for _ in range(self._recipe.batch)))

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
        number, y, x, side = place.number, place.row, place.column, self._recipe.patch
        high = self._pictures.hr[number][y * scale : (y + side) * scale, x * scale : (x + side) * scale]
        bicubic = self._recipe.degradation == "bicubic"  # the cache has that
        low = self._low(scale, number, y, x) if bicubic else self._degraded(scale, place, key)
        return _augmented(low, place.flip, place.turns), _augmented(high, place.flip, place.turns)

    def _degraded(self, scale: int, place: Place, key: tuple[int, int]) -> Pixels:
        """LR made anew from HR, by a generator of its own: the places do not depend on the degradation."""
        seed, corner = self._recipe.seed, (place.row, place.column)
        degradation, hr = DEGRADATIONS[self._recipe.degradation], self._pictures.hr[place.number]
        draw, own = of_patch(seed, *key), of_image(seed, place.number)
        return degraded_patch(degradation, hr, scale, corner, self._recipe.patch, draw, own)

    def _corner(self, scale: int, draw: np.random.Generator) -> tuple[int, int, int]:
        """A picture's number, and where in its LR image a patch begins: row, column."""
        side, number = self._recipe.patch, int(draw.integers(len(self._pictures.hr)))
        height, width = self._pictures.lr[scale][number].shape[:2]
        return number, int(draw.integers(height - side + 1)), int(draw.integers(width - side + 1))


def refuse_small(pictures: Pictures, side: int, files: Sequence[Path] = ()) -> None:
    """Refuse pictures that hold no patch.

    Args:
        pictures: to draw from.
        side: of an LR patch in pixels.
        files: of the HR pictures, to name the smallest; may be empty.

    Raises:
        TrainingError: there are such pictures.
    """
    sides = [
        min(min(images[n].shape[:2]) for images in pictures.lr.values()) for n in range(len(pictures.hr))
    ]
    small = sum(length < side for length in sides)
    if small:
        least = min(sides)
        which = files[sides.index(least)] if files else "The smallest"
        raise TrainingError(
            f"{which}: its LR has a side of {least} pixels, and patches take {side}; "
            f"{small} of {len(sides)} images are too small.",
            "Remove small images from the folder, or train with a smaller --patch.",
        )


def _detail(patch: Pixels) -> float:
    """Mean step between neighbours of the green channel, in levels."""
    green = patch[..., 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())


def _augmented(patch: Pixels, flip: bool, turns: int) -> Pixels:
    return np.rot90(patch[:, ::-1] if flip else patch, turns)


def prefetched(draw: Callable[[int], Drawn], updates: range, workers: int = 1) -> Generator[Drawn]:
    """What `draw` makes of `updates`, in order, drawn ahead by threads that end with the iterator.

    Args:
        draw: of an update; with several workers it is called from several threads at once.
        updates: those wanted.
        workers: threads. For each there are two results drawn or being drawn, and never fewer than four.

    Raises:
        Exception: whatever `draw` raised, when its turn has come.
    """
    coming, drawn = iter(updates), deque[Future[Drawn]]()
    pool = ThreadPoolExecutor(workers, "patches")

    def ask(count: int) -> None:
        drawn.extend(pool.submit(draw, update) for update in islice(coming, count))

    try:
        ask(max(_AHEAD, 2 * workers))
        while drawn:
            item = drawn.popleft().result()
            ask(1)
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
