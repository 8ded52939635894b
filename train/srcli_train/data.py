"""Training pictures as memory-mapped uint8: every image is decoded once into flat files of a cache folder."""

import hashlib
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from srcli.errors import SrcliError, TrainingError
from srcli.imaging.resize import downscale, modcrop
from srcli_train.folders import Source, UnfitPicturesError, check_pair, read_rgb

_log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]
_CHUNK = 32  # images decoded at a time
_VERSION = 1
UNUSED_DAYS = 30
"""A data set that no run has used for so long is deleted when another one is decoded."""

_HOME = re.compile(r"[0-9a-f]{16}")
_OURS = re.compile(r"x\d\.(u8|json)(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Pictures:
    """HR images and their LR images at each scale; (H, W, 3) uint8 views into mapped files.

    Attributes:
        hr, lr: in the same order.
    """

    hr: list[Pixels]
    lr: dict[int, list[Pixels]]

    def fingerprint(self) -> str:
        """Tells other pictures, or another order, from these; the same wherever the files lie."""
        digest = hashlib.sha256()
        for image in self.hr:
            digest.update(repr(image.shape).encode() + image[image.shape[0] // 2].tobytes())
        return digest.hexdigest()[:16]

    def smaller_than(self, side: int, files: Sequence[Path]) -> list[TrainingError]:
        """What is wrong with the pictures that hold no patch.

        Args:
            side: of an LR patch in pixels.
            files: of the HR pictures.
        """
        shapes = {scale: [image.shape[:2] for image in images] for scale, images in self.lr.items()}
        return _too_small(shapes, side, files)


def is_cached(source: Source, scales: tuple[int, ...], cache: Path) -> bool:
    """Whether `load_pictures` would find everything decoded."""
    home = cache / _key(source)
    return all((home / f"x{s}.json").is_file() for s in (1, *scales))


def load_pictures(
    source: Source,
    scales: tuple[int, ...],
    cache: Path,
    progress: Callable[[int, int], None],
    side: int = 0,
) -> Pictures:
    """Map the decoded images, decoding and downscaling them first where the cache lacks them.

    Decoding also clears the cache, see `clear_cache`, and logs images that are there twice.

    Args:
        source: HR files and LR files.
        scales: scales for which LR images are needed.
        cache: folder for the decoded images; one subfolder a data set.
        progress: called with (images done, images in all) while decoding.
        side: of an LR patch in pixels. Where images cannot be used, those that hold no patch are named too.

    Raises:
        UnfitPicturesError: LR and HR do not belong together, files are not images or too small; it has all.
        TrainingError: the cache cannot be written.
    """
    try:
        home = cache / _key(source)
        home.mkdir(parents=True, exist_ok=True)
        mark_used(home)
        missing = [s for s in (1, *scales) if not (home / f"x{s}.json").is_file()]
        if missing:
            clear_cache(cache)
            with decoding(home):
                _decode(source, missing, home, progress, side)
    except OSError as error:
        where = error.filename or cache
        hint = "Decoded images need space there; --cache names another folder."
        raise TrainingError(f"{where}: {error.strerror}.", hint) from error
    maps = {s: _mapped(home, s) for s in (1, *scales)}
    return Pictures(maps[1], {s: maps[s] for s in scales})


def _key(source: Source) -> str:
    """Changes when any file's name, size or time changes."""
    files = [*source.hr, *(f for s in sorted(source.lr) for f in source.lr[s])]
    facts = [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return hashlib.sha256(json.dumps([_VERSION, facts]).encode()).hexdigest()[:16]


def _decode(
    source: Source, scales: list[int], home: Path, progress: Callable[[int, int], None], side: int
) -> None:
    """Write x1 (HR) and LR files for `scales`, each finished by renaming its index into place."""
    outputs = {s: (home / f"x{s}.u8.{os.getpid()}").open("wb") for s in scales}
    try:
        shapes = _fill(outputs, source, scales, progress, side)
        for scale, file in outputs.items():
            file.close()
            Path(file.name).replace(home / f"x{scale}.u8")
            index = home / f"x{scale}.json.{os.getpid()}"
            index.write_text(json.dumps(shapes[scale]))
            index.replace(home / f"x{scale}.json")
    finally:  # else gigabytes stay there, under names that no run looks for
        for file in outputs.values():
            file.close()
            Path(file.name).unlink(missing_ok=True)


def _fill(
    outputs: Mapping[int, BinaryIO],
    source: Source,
    scales: list[int],
    progress: Callable[[int, int], None],
    side: int,
) -> dict[int, list[tuple[int, int]]]:
    """Append every image to the files of its scales; returns their (height, width).

    Raises:
        UnfitPicturesError: some cannot be used; all were looked at.
    """
    shapes: dict[int, list[tuple[int, int]]] = {s: [] for s in scales}
    problems, good, copies = list[SrcliError](), list[Path](), _Copies()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(source.hr), _CHUNK):  # so that never more than a chunk is in memory
            numbers = range(start, min(start + _CHUNK, len(source.hr)))
            for number, versions in zip(
                numbers, pool.map(lambda i: _versions(source, i, scales), numbers), strict=True
            ):
                progress(number + 1, len(source.hr))
                if isinstance(versions, SrcliError):
                    problems.append(versions)
                    continue
                good.append(source.hr[number])
                if 1 in versions:
                    copies.note(good[-1], versions[1])
                for scale, image in versions.items():
                    shapes[scale].append((image.shape[0], image.shape[1]))
                    if not problems:
                        outputs[scale].write(np.ascontiguousarray(image).data)
    if problems:
        small = _too_small({scale: shapes[scale] for scale in scales if scale > 1}, side, good)
        raise UnfitPicturesError([*problems, *small])
    return shapes


class _Copies:
    """Logs pictures that have the same pixels as one before: patches of them are drawn twice as often."""

    def __init__(self) -> None:
        self._seen: dict[bytes, Path] = {}

    def note(self, path: Path, image: Pixels) -> None:
        """One more picture."""
        digest = hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).data).digest()
        first = self._seen.setdefault(digest, path)
        if first != path:
            _log.warning("%s shows the same as %s: it is trained on twice.", path, first.name)


def _too_small(
    shapes: Mapping[int, Sequence[tuple[int, ...]]], side: int, files: Sequence[Path]
) -> list[TrainingError]:
    """What is wrong with images of which an LR image, of the (height, width) in `shapes`, holds no patch."""
    problems = []
    for number, path in enumerate(files):
        least = min((min(sizes[number]) for sizes in shapes.values()), default=side)
        if least < side:
            problems.append(
                TrainingError(
                    f"{path}: its LR has a side of {least} pixels, and patches take {side}.",
                    "Remove small images from the folder, or train with a smaller --patch.",
                )
            )
    return problems


def _versions(source: Source, number: int, scales: list[int]) -> dict[int, Pixels] | SrcliError:
    """One HR image and its LR images, or why it cannot be used."""
    path = source.hr[number]
    try:
        hr = read_rgb(path)
        if min(hr.shape[:2]) < max(scales):
            size = f"{hr.shape[1]}×{hr.shape[0]}"
            hint = "Remove it from the folder."
            return TrainingError(f"{path}: {size} pixels are too few to train on.", hint)
        return {s: hr if s == 1 else _lr_of(source, number, hr, s) for s in scales}
    except SrcliError as error:
        return error


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


def mark_used(home: Path) -> None:
    """Set the time at which a run last used this data set to now."""
    with suppress(OSError):  # a cache that can only be read
        os.utime(home)


@contextmanager
def decoding(home: Path) -> Iterator[None]:
    """While entered, `clear_cache` leaves this data set's unfinished files alone, in any process.

    A lock on the folder tells a decoding that is at work from one that was killed, in other containers too.
    """
    if sys.platform == "win32":  # a file that is open stays there anyway
        yield
        return
    import fcntl

    folder = os.open(home, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks, on which nothing unfinished is deleted
            fcntl.flock(folder, fcntl.LOCK_SH)
        yield
    finally:
        os.close(folder)


def clear_cache(cache: Path) -> None:
    """Delete unfinished files that no process writes, and data sets that were not used for `UNUSED_DAYS`.

    A run that has such a data set mapped keeps its pictures: on Linux and macOS a mapped file outlives its
    name, and Windows does not delete it. Whatever else lies in the folder is not ours, and stays.
    """
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for home in cache.iterdir():
        with suppress(OSError):  # another process may have been quicker
            if _HOME.fullmatch(home.name) and home.is_dir():
                clear = _delete_all if home.stat().st_mtime < oldest else _delete_unfinished
                clear(home)


def _delete_unfinished(home: Path) -> None:
    if sys.platform == "win32":  # folders cannot be locked there: unfinished files go with their data set
        return
    import fcntl

    folder = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for file in home.glob("x?.u8.*"):
            file.unlink()
    finally:
        os.close(folder)


def _delete_all(home: Path) -> None:
    """Indexes first, as they sort: without its index, a data set is as good as gone."""
    files = sorted(home.iterdir())
    if all(_OURS.fullmatch(file.name) for file in files):
        for file in files:
            file.unlink()
        home.rmdir()
