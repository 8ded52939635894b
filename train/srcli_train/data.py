"""Training pictures as memory-mapped uint8, and the patches drawn from them.

Every image is decoded once into flat files of a cache folder. Drawing update n's minibatch depends
on nothing but the recipe's seed and n, so there is no sampler state to save and none to lose.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from threading import Event, Thread
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from srcli.errors import TrainingError
from srcli.resize import downscale, modcrop
from srcli_train.degradations import DEGRADATIONS, degraded_patch, of_image, of_patch
from srcli_train.folders import Source, check_pair, read_rgb
from srcli_train.recipes import Recipe
from srcli_train.rendered import render

Pixels = NDArray[np.uint8]
_AHEAD = 4  # minibatches kept ready
_CHUNK = 32  # images decoded at a time
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Pictures:
    """HR images and their LR images at each scale; (H, W, 3) uint8 views into mapped files.

    Attributes:
        hr, lr: in the same order.
        rendered: how many of them, at the end, are no photographs.
    """

    hr: list[Pixels]
    lr: dict[int, list[Pixels]]
    rendered: int = 0

    def fingerprint(self) -> str:
        """Tells other pictures, or another order, from these; the same wherever the files lie."""
        digest = hashlib.sha256()
        for image in self.hr:
            digest.update(repr(image.shape).encode() + image[image.shape[0] // 2].tobytes())
        return digest.hexdigest()[:16]


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


def default_cache() -> Path:
    """Folder for decoded images: $SRCLI_CACHE, $XDG_CACHE_HOME/srcli or ~/.cache/srcli."""
    if own := os.environ.get("SRCLI_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "srcli"


def load_pictures(
    source: Source, scales: tuple[int, ...], cache: Path, progress: Callable[[int, int], None]
) -> Pictures:
    """Map the decoded images, decoding and downscaling them first where the cache lacks them.

    Args:
        source: HR files and LR files.
        scales: scales for which LR images are needed.
        cache: folder for the decoded images; one subfolder a data set.
        progress: called with (images done, images in all) while decoding.

    Raises:
        TrainingError: LR and HR do not belong together, an image is too small, or the cache cannot be
            written.
        InputError: a file is not an image.
    """
    try:
        home = cache / _key(source)
        home.mkdir(parents=True, exist_ok=True)
        missing = [s for s in (1, *scales) if not (home / f"x{s}.json").is_file()]
        if missing:
            _decode(source, missing, home, progress)
    except OSError as error:
        where = error.filename or cache
        hint = "Decoded images need space there; --cache names another folder."
        raise TrainingError(f"{where}: {error.strerror}.", hint) from error
    maps = {s: _mapped(home, s) for s in (1, *scales)}
    return Pictures(maps[1], {s: maps[s] for s in scales})


def with_rendered(pictures: Pictures, count: int, seed: int) -> Pictures:
    """The pictures, and `count` rendered ones with their bicubic LR after them."""
    hr = [render(number, seed) for number in range(count)]
    lr = {s: [np.asarray(downscale(modcrop(i, s), s), np.uint8) for i in hr] for s in pictures.lr}
    return Pictures(pictures.hr + hr, {s: pictures.lr[s] + images for s, images in lr.items()}, count)


def _key(source: Source) -> str:
    """Changes when any file's name, size or time changes."""
    files = [*source.hr, *(f for s in sorted(source.lr) for f in source.lr[s])]
    facts = [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return hashlib.sha256(json.dumps([_VERSION, facts]).encode()).hexdigest()[:16]


def _decode(source: Source, scales: list[int], home: Path, progress: Callable[[int, int], None]) -> None:
    """Write x1 (HR) and LR files for `scales`, each finished by renaming its index into place."""
    outputs = {s: (home / f"x{s}.u8.{os.getpid()}").open("wb") for s in scales}
    try:
        shapes = _fill(outputs, source, scales, progress)
        for scale, file in outputs.items():
            file.close()
            Path(file.name).replace(home / f"x{scale}.u8")
            index = home / f"x{scale}.json.{os.getpid()}"
            index.write_text(json.dumps(shapes[scale]))
            index.replace(home / f"x{scale}.json")
    finally:  # gigabytes that nobody would ever find
        for file in outputs.values():
            file.close()
            Path(file.name).unlink(missing_ok=True)


def _fill(
    outputs: Mapping[int, BinaryIO], source: Source, scales: list[int], progress: Callable[[int, int], None]
) -> dict[int, list[tuple[int, int]]]:
    """Append every image to the files of its scales; returns their (height, width)."""
    shapes: dict[int, list[tuple[int, int]]] = {s: [] for s in scales}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(source.hr), _CHUNK):  # so that never more than a chunk is in memory
            numbers = range(start, min(start + _CHUNK, len(source.hr)))
            for number, versions in zip(
                numbers, pool.map(lambda i: _versions(source, i, scales), numbers), strict=True
            ):
                for scale, image in versions.items():
                    outputs[scale].write(np.ascontiguousarray(image).data)
                    shapes[scale].append((image.shape[0], image.shape[1]))
                progress(number + 1, len(source.hr))
    return shapes


def _versions(source: Source, number: int, scales: list[int]) -> dict[int, Pixels]:
    """One HR image and its LR images."""
    path = source.hr[number]
    hr = read_rgb(path)
    if min(hr.shape[:2]) < max(scales):
        size = f"{hr.shape[1]}×{hr.shape[0]}"
        raise TrainingError(f"{path}: {size} pixels are too few to train on.", "Remove it from the folder.")
    return {s: hr if s == 1 else _lr_of(source, number, hr, s) for s in scales}


def _lr_of(source: Source, number: int, hr: Pixels, scale: int) -> Pixels:
    if scale not in source.lr:
        return np.asarray(downscale(modcrop(hr, scale), scale), np.uint8)
    path = source.lr[scale][number]
    lr = read_rgb(path)
    check_pair(hr, lr, scale, path)
    return lr


def _mapped(home: Path, scale: int) -> list[Pixels]:
    shapes = json.loads((home / f"x{scale}.json").read_text())
    flat = np.memmap(home / f"x{scale}.u8", np.uint8, "r")
    images, start = [], 0
    for height, width in shapes:
        size = height * width * 3
        images.append(flat[start : start + size].reshape(height, width, 3))
        start += size
    return images


class PatchSampler:
    """Draws the minibatch of any update: same seed and update, same patches."""

    def __init__(self, pictures: Pictures, recipe: Recipe) -> None:
        self._pictures, self._recipe = pictures, recipe
        self._scales = sorted(pictures.lr)
        smallest = min(min(i.shape[:2]) for images in pictures.lr.values() for i in images)
        if smallest < recipe.patch:
            raise TrainingError(
                f"The smallest LR image has a side of {smallest} pixels, the patches {recipe.patch}.",
                "Remove small images from the folder, or train with a smaller --patch.",
            )

    def __call__(self, update: int) -> Minibatch:
        """The minibatch of one update; MDSR's scale is drawn here (paper, section 4.2)."""
        draw = np.random.default_rng((self._recipe.seed, update))
        scale = self._scales[draw.integers(len(self._scales))]
        pairs = [self._pair(scale, draw, (update, patch)) for patch in range(self._recipe.batch)]
        return Minibatch(scale, np.stack([p[0] for p in pairs]), np.stack([p[1] for p in pairs]))

    def _pair(self, scale: int, draw: np.random.Generator, key: tuple[int, int]) -> tuple[Pixels, Pixels]:
        """The most detailed of the recipe's candidates, flipped and turned at random."""
        side = self._recipe.patch
        places = [self._place(scale, draw) for _ in range(self._recipe.candidates)]
        lows = [self._pictures.lr[scale][n][y : y + side, x : x + side] for n, y, x in places]
        best = int(np.argmax([_detail(low) for low in lows])) if len(lows) > 1 else 0
        number, y, x = places[best]
        high = self._pictures.hr[number][y * scale : (y + side) * scale, x * scale : (x + side) * scale]
        flip = self._recipe.flip and bool(draw.integers(2))
        turns = int(draw.integers(4)) if self._recipe.rotate else 0
        bicubic = self._recipe.degradation == "bicubic"  # the cache has that
        low = lows[best] if bicubic else self._degraded(scale, places[best], key)
        return _augmented(low, flip, turns), _augmented(high, flip, turns)

    def _degraded(self, scale: int, place: tuple[int, int, int], key: tuple[int, int]) -> Pixels:
        """LR made anew from HR, by a generator of its own: the places do not depend on the degradation."""
        (number, *corner), seed = place, self._recipe.seed
        degradation, hr = DEGRADATIONS[self._recipe.degradation], self._pictures.hr[number]
        draw, own = of_patch(seed, *key), of_image(seed, number)
        return degraded_patch(degradation, hr, scale, (corner[0], corner[1]), self._recipe.patch, draw, own)

    def _place(self, scale: int, draw: np.random.Generator) -> tuple[int, int, int]:
        """A picture's number, and where in its LR image a patch begins: row, column."""
        side, number = self._recipe.patch, self._number(draw)
        height, width = self._pictures.lr[scale][number].shape[:2]
        return number, int(draw.integers(height - side + 1)), int(draw.integers(width - side + 1))

    def _number(self, draw: np.random.Generator) -> int:
        """A photograph, or in the recipe's share of cases a rendered picture."""
        rendered = self._pictures.rendered
        photographs = len(self._pictures.hr) - rendered
        if rendered and draw.random() < self._recipe.rendered:
            return photographs + int(draw.integers(rendered))
        return int(draw.integers(photographs))


def _detail(patch: Pixels) -> float:
    """Mean step between neighbours of the green channel, in levels."""
    green = patch[..., 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean())


def _augmented(patch: Pixels, flip: bool, turns: int) -> Pixels:
    return np.rot90(patch[:, ::-1] if flip else patch, turns)


def prefetched(sampler: PatchSampler, updates: range) -> Iterator[Minibatch]:
    """Minibatches of `updates` in order, drawn ahead by one thread that ends with the iterator."""
    ready: Queue[Minibatch | BaseException] = Queue(_AHEAD)
    stop = Event()

    def work() -> None:
        for update in updates:
            if stop.is_set():
                return
            try:
                ready.put(sampler(update))
            except BaseException as error:
                ready.put(error)
                return

    Thread(target=work, daemon=True).start()
    try:
        for _ in updates:
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while not ready.empty():
            ready.get_nowait()
