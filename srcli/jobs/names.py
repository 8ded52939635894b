"""Output names that never collide."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from srcli.io.pictures import READ_ONLY_SUFFIXES, SUFFIXES
from srcli.jobs.inputs import Found, place

_PREFERRED = {"jpeg": ".jpg", "tiff": ".tif"}
"""Suffix a format is given; every other format is named like its suffix."""


@dataclass(frozen=True, slots=True)
class Job:
    """One picture: read `source`, write `target`."""

    source: Path
    target: Path


def name_outputs(pictures: Sequence[Found], out: Path, format: str | None = None) -> list[Job]:  # noqa: A002
    """An output below `out` for every picture, all different even where case does not count.

    The name and format of the input are kept; formats that cannot be written become PNG, and
    `format` ("png", "jpeg", ...) makes all outputs that one. Where two outputs would get one name,
    all of them are told apart by the input's suffix, else its folder, else a digest of its path: a
    picture's name never depends on the order of the inputs.
    """
    wanted = [_wanted(picture.relative, format) for picture in pictures]
    names = _told_apart(wanted, [picture.path for picture in pictures])
    return [Job(picture.path, out / name) for picture, name in zip(pictures, names, strict=True)]


def _wanted(relative: Path, format: str | None) -> Path:  # noqa: A002
    known = SUFFIXES.get(relative.suffix.lower())
    if known is not None and format in (None, known):
        return relative
    suffix = _PREFERRED.get(format or "png", f".{format or 'png'}")
    is_picture = known is not None or relative.suffix.lower() in READ_ONLY_SUFFIXES
    stem = relative.stem if is_picture else relative.name
    return relative.with_name(stem + suffix)


def _told_apart(wanted: Sequence[Path], sources: Sequence[Path]) -> list[Path]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(wanted):
        groups[_key(name)].append(index)
    names, taken = list(wanted), set(groups)
    for members in groups.values():
        if len(members) > 1:
            _rename(names, sources, members, taken)
    return names


def _rename(names: list[Path], sources: Sequence[Path], members: list[int], taken: set[str]) -> None:
    """Give the members of one group names that nobody has; `taken` learns them."""
    for tag in _TAGS:
        tagged = {i: names[i].with_stem(f"{names[i].stem}-{tag(sources[i])}") for i in members}
        keys = {_key(name) for name in tagged.values()}
        if len(keys) == len(members) and not keys & taken:
            break
    for index, name in tagged.items():
        names[index] = name
    taken |= keys


def _suffix_tag(source: Path) -> str:
    return source.suffix[1:] or "plain"


def _folder_tag(source: Path) -> str:
    return place(source).parent.name or "root"


def _short_digest(source: Path) -> str:
    return _digest(source)[:8]


def _digest(source: Path) -> str:
    return sha256(os.fsencode(place(source))).hexdigest()


_TAGS: tuple[Callable[[Path], str], ...] = (_suffix_tag, _folder_tag, _short_digest, _digest)


def _key(name: Path) -> str:
    """What two names share if some file system takes them for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.as_posix()).casefold())
