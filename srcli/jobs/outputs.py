"""The name of each output: what was found becomes jobs."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from srcli.io.films import signatures
from srcli.io.pictures import READ_ONLY_SUFFIXES, SUFFIXES
from srcli.io.remote import Location, Remote
from srcli.jobs.inputs import Found, place

_PREFERRED = {"jpeg": ".jpg", "tiff": ".tif"}
"""Suffix a format is given; every other format is named like its suffix."""


@dataclass(frozen=True, slots=True)
class Job:
    """One picture or film: read `source`, write `target`.

    Attributes:
        source, target: as the user knows them.
        film: whether it is a film, or an animated picture.
        scratch: of files behind URLs, the folder of the local files in their place.
        ranged: a film that is read where it is, by ranges, and not fetched.
    """

    source: Location
    target: Location
    film: bool = False
    scratch: Path | None = None
    ranged: bool = False

    @property
    def remote(self) -> bool:
        """Whether it reads or writes behind a URL."""
        return isinstance(self.source, Remote) or isinstance(self.target, Remote)

    @property
    def input(self) -> Path:
        """The local file that is read."""
        return self._local(self.source, "in")

    @property
    def film_input(self) -> Location:
        """What a film is read from: the local file, or the URL."""
        return self.source if self.ranged else self.input

    @property
    def output(self) -> Path:
        """The local file that is written."""
        return self._local(self.target, "out")

    def named(self, message: str) -> str:
        """A message about the local files, with the names that the user knows."""
        for there, folder in ((self.source, "in"), (self.target, "out")):
            if isinstance(there, Remote) and self.scratch is not None:
                message = message.replace(f"{self.scratch / folder}{os.sep}", f"{there.parent}/")
        return message

    def _local(self, there: Location, folder: str) -> Path:
        if isinstance(there, Path):
            return there
        assert self.scratch is not None, "files behind URLs are fetched before they are used"
        return self.scratch / folder / there.name


def name_outputs(
    pictures: Sequence[Found],
    out: Location,
    format: str | None = None,  # noqa: A002
    container: str | None = None,
) -> list[Job]:
    """An output below `out` for every picture, all different even where case does not count.

    The name and format of the input are kept; formats that cannot be written become PNG, and
    `format` ("png", "jpeg", ...) makes all outputs that one; of films likewise MKV and `container`. Animated
    pictures stay what they are; `format` and `container` make them that, and where `format` has no animation
    their first frame. Where two
    outputs would get one name, all of them are told apart by the input's suffix, else its folder, else a
    digest of its path: a picture's name never depends on the order of the inputs.
    """
    wanted = [_output(one, format, container) for one in pictures]
    names = _told_apart([name for name, _ in wanted], [picture.path for picture in pictures])
    return [
        Job(one.path, out / name, film) for one, name, (_, film) in zip(pictures, names, wanted, strict=True)
    ]


def name_alone(
    one: Found,
    out: Location,
    format: str | None = None,  # noqa: A002
    container: str | None = None,
) -> Job:
    """As `name_outputs`, by the path of one input and nothing else: "a.jpg" becomes "a.jpg.png"."""
    name, film = named_alone(one, format, container)
    return Job(one.path, out / name, film)


def named_alone(one: Found, format: str | None = None, container: str | None = None) -> tuple[Path, bool]:  # noqa: A002
    """The name of that output below the output folder, and whether it is a film."""
    name, film = _output(one, format, container)
    if name.suffix.lower() == one.relative.suffix.lower():
        return one.relative, film
    return one.relative.with_name(one.relative.name + name.suffix), film


def _output(one: Found, format: str | None, container: str | None) -> tuple[Path, bool]:  # noqa: A002
    """The name and format that one output should have, and whether it is a film."""
    if not one.film or (one.animation and container is None and format not in (None, "png", "webp")):
        return _wanted(one.relative, format), False
    return _wanted_film(one.relative, container or (format if one.animation else None), one.animation), True


def _wanted_film(relative: Path, container: str | None, animation: str) -> Path:
    """The output of a film; `animation` is the format of an animated picture."""
    suffix = relative.suffix.lower()
    if animation and suffix not in signatures.ANIMATED:
        container = container or animation
    if container is None and suffix in (*signatures.WRITTEN, *signatures.ANIMATED):
        return relative
    stem = relative.stem if suffix in (*signatures.SUFFIXES, *signatures.ANIMATED) else relative.name
    return relative.with_name(f"{stem}.{container or 'mkv'}")


def _wanted(relative: Path, format: str | None) -> Path:  # noqa: A002
    known = SUFFIXES.get(relative.suffix.lower())
    if known is not None and format in (None, known):
        return relative
    suffix = _PREFERRED.get(format or "png", f".{format or 'png'}")
    is_picture = known is not None or relative.suffix.lower() in READ_ONLY_SUFFIXES
    stem = relative.stem if is_picture else relative.name
    return relative.with_name(stem + suffix)


def _told_apart(wanted: Sequence[Path], sources: Sequence[Location]) -> list[Path]:
    groups: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(wanted):
        groups[name_key(name)].append(index)
    names, taken = list(wanted), set(groups)
    for members in groups.values():
        if len(members) > 1:
            _rename(names, sources, members, taken)
    return names


def _rename(names: list[Path], sources: Sequence[Location], members: list[int], taken: set[str]) -> None:
    """Give the members of one group names that nobody has; `taken` learns them."""
    for tag in _TAGS:
        tagged = {i: names[i].with_stem(f"{names[i].stem}-{tag(sources[i])}") for i in members}
        keys = {name_key(name) for name in tagged.values()}
        if len(keys) == len(members) and not keys & taken:
            break
    for index, name in tagged.items():
        names[index] = name
    taken |= keys


def _suffix_tag(source: Location) -> str:
    return source.suffix[1:] or "plain"


def _folder_tag(source: Location) -> str:
    return place(source).parent.name or "root"


def _short_digest(source: Location) -> str:
    return _digest(source)[:8]


def _digest(source: Location) -> str:
    return sha256(os.fsencode(str(place(source)))).hexdigest()


_TAGS: tuple[Callable[[Location], str], ...] = (_suffix_tag, _folder_tag, _short_digest, _digest)


def name_key(name: Path) -> str:
    """What two names share if some file system takes them for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.as_posix()).casefold())
