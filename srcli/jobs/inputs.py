"""Which pictures and films the user means."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from srcli.errors import InputError, shown
from srcli.io import heif, remote
from srcli.io.films import signatures
from srcli.io.pictures import READ_ONLY_SUFFIXES, SUFFIXES, kind_of, probe
from srcli.io.remote import Location, Remote, location

_READABLE = (*SUFFIXES, *READ_ONLY_SUFFIXES)
_PHONES = (".jxl",)
_CAMERAS = (
    ".arw",
    ".cr2",
    ".cr3",
    ".crw",
    ".dng",
    ".nef",
    ".nrw",
    ".orf",
    ".pef",
    ".raf",
    ".raw",
    ".rw2",
    ".srw",
)
_EDITORS = (".exr", ".hdr", ".jp2", ".pgm", ".ppm", ".psb", ".psd", ".tga", ".xcf")
_ANIMATED = ("gif", "png", "webp")
_OTHER_PICTURES = frozenset((*_PHONES, *_CAMERAS, *_EDITORS))
"""Suffixes of pictures that cannot be read; a folder's owner should know that they were left."""


@dataclass(frozen=True, slots=True)
class Found:
    """One picture or film to upscale.

    Attributes:
        path: the file, as the user named it.
        relative: where its output goes below the output folder, still with the input's suffix.
        film: whether it is a film, or an animated picture.
        animation: the format of an animated picture, "gif", "png" or "webp"; else empty.
    """

    path: Location
    relative: Path
    film: bool = False
    animation: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """An input that cannot even be tried."""

    path: Location
    error: InputError


@dataclass(slots=True)
class Discovery:
    """What the inputs came to, in the order given; folders sorted by name.

    Attributes:
        pictures: the files to upscale, each once, films included.
        problems: inputs that do not exist, cannot be listed or hold no pictures.
        left_out: the output folder, if it was met inside an input folder and passed by.
        passed_by: links to folders that are searched already, or that hold one that is.
        unread: suffixes of pictures in folders that cannot be read, each with how many there are; films too
            where they are not wanted.
        sound: files in folders that may be films by their suffix, and have sound alone.
        elsewhere: paths below the folder that searches of other parts of it give, unopened.
    """

    pictures: list[Found] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: Location | None = None
    passed_by: list[Path] = field(default_factory=list)
    unread: Counter[str] = field(default_factory=Counter)
    sound: list[Path] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


def discover(
    inputs: Sequence[str],
    out: Location,
    *,
    recursive: bool,
    films: bool = False,
    holds: Callable[[Path], bool] | None = None,
) -> Discovery:
    """The pictures that files, folders and glob patterns name, and with `films` the films in folders.

    With `films` an animated GIF, APNG or WebP is a film, too.

    A folder gives the pictures in it (known suffixes, no hidden files), with `recursive` also those
    below it and in other folders that links in it lead to, the sub-folders kept in `Found.relative`. Source
    code and sound with the suffix of a film are no films there; damaged films are.
    A file is taken whatever its suffix. The output folder is never searched, so a second run does not
    upscale the results of the first.

    `holds` chooses by their paths in a folder the files that are opened and given; others with a known suffix
    are `elsewhere`.

    What lies behind a URL is taken by its suffix, and not opened, but for what may be animated (not
    PNG) or source code.
    """
    found = Discovery()
    for name in inputs:
        for path in expand(name):
            try:
                if isinstance(path, Remote):
                    _add_remote(found, path, out, recursive, films, holds)
                else:
                    _add(found, path, out, recursive, films, holds)
            except InputError as error:
                found.problems.append(Problem(path, error))
    found.pictures = _each_once(found.pictures)
    return found


def expand(name: str) -> Sequence[Location]:
    """The name itself if it exists or is no pattern, else what the pattern matches."""
    if isinstance(there := location(name), Remote):
        return [there]
    if os.path.lexists(name) or not glob.has_magic(name):
        return [Path(name)]
    return [Path(match) for match in sorted(glob.glob(name, recursive=True))] or [Path(name)]  # noqa: PTH207


def _add(
    found: Discovery,
    path: Path,
    out: Location,
    recursive: bool,
    films: bool,
    holds: Callable[[Path], bool] | None,
) -> None:
    try:
        path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        hint = "No file matches this pattern." if glob.has_magic(str(path)) else "Check the name."
        if isinstance(error, PermissionError):
            hint = "Check the permissions of the folders that it lies in."
        if os.path.islink(path):  # noqa: PTH114 (`is_symlink` raises on names too long)
            hint = f"It is a link to {path.readlink()}, which leads nowhere."
        raise InputError(f"{path}: cannot be read ({reason}).", hint) from error
    if path.is_dir():
        _add_folder(found, path, out, recursive, films, holds)
    else:
        found.pictures.append(_taken(path, Path(path.name), films=films))


_LOOKS = 8
"""Files behind URLs that are looked at at once."""
_MOVING = (".gif", ".apng", ".webp")
"""Suffixes of files behind URLs that are opened to see whether they are animated: few. A PNG is not."""


def _add_remote(
    found: Discovery,
    here: Remote,
    out: Location,
    recursive: bool,
    films: bool,
    holds: Callable[[Path], bool] | None,
) -> None:
    if remote.is_pattern(here) and not remote.exists(here):
        named = [one for one in remote.matches(here) if one.size is not None or recursive]
        if not named:
            raise InputError(f"{shown(here)}: cannot be read.", "No file matches this pattern.")
        for one in named:
            _add_remote(found, one, out, recursive, films, holds)
        return
    here = remote.looked_up(here)
    if here.size is None:
        _add_remote_folder(found, here, out, recursive, films, holds)
    else:
        found.pictures += _seen([here], [Path(here.name)], films=films, named=True)


def _add_remote_folder(
    found: Discovery,
    folder: Remote,
    out: Location,
    recursive: bool,
    films: bool,
    holds: Callable[[Path], bool] | None,
) -> None:
    before, elsewhere = len(found.pictures), len(found.elsewhere)
    paths, relatives = list[Location](), list[Path]()
    for name, path in remote.listing(folder, recursive=recursive).items():
        suffix, parts = path.suffix.lower(), name.split("/")
        if any(part.startswith(".") and part.strip(".") for part in parts):
            continue  # hidden
        if isinstance(out, Remote) and f"{path}".startswith(f"{out}/"):
            found.left_out = out
        elif suffix in _OTHER_PICTURES or (suffix in signatures.SUFFIXES and not films):
            found.unread[suffix] += 1
        elif suffix not in (*_READABLE, *(signatures.SUFFIXES if films else ())):
            continue
        elif not _is_relative(parts):
            error = InputError(f"{shown(path)}: no file can have this name.", "Rename it.")
            found.problems.append(Problem(path, error))
        elif holds is not None and not holds(Path(name)):
            found.elsewhere.append(name)
        elif READ_ONLY_SUFFIXES.get(suffix) == "heif" and not heif.installed():
            found.unread[suffix] += 1
        else:
            paths.append(path)
            relatives.append(Path(name))
    found.pictures += _seen(paths, relatives, films=films, named=False)
    if (
        len(found.pictures) == before
        and len(found.elsewhere) == elsewhere
        and not any(one.path == folder for one in found.problems)
    ):
        deeper = "" if recursive else " --recursive also searches the folders in it."
        raise InputError(
            f"{shown(folder)}: no pictures in this folder.", f"It needs {', '.join(_READABLE)}.{deeper}"
        )


def _is_relative(parts: Sequence[str]) -> bool:
    """Whether a key, at its slashes, is a path below a folder; keys may hold anything, "../" too."""
    return not any(
        part in ("", ".", "..") or "\0" in part or os.sep in part or "\\" in part for part in parts
    )


def _seen(paths: Sequence[Location], relatives: Sequence[Path], *, films: bool, named: bool) -> list[Found]:
    """Files behind URLs without source code; some have to be looked at, several at once."""
    with TemporaryDirectory(prefix="srcli-") as scratch, ThreadPoolExecutor(_LOOKS) as pool:

        def see(number: int, path: Location, relative: Path) -> Found | None:
            suffix = path.suffix.lower()
            looks = films and (named or suffix in (*_MOVING, *signatures.SOURCES))
            if not looks or not isinstance(path, Remote):
                return Found(path, relative, film=suffix in signatures.SUFFIXES)
            file = Path(scratch, str(number), relative.name)
            remote.look(path, file)
            one = _taken(file, relative, films=films)
            source = not named and signatures.is_source(file)
            file.unlink()
            return None if source else replace(one, path=path)

        seen = pool.map(see, range(len(paths)), paths, relatives)
        return [one for one in seen if one is not None]


def _is_film(path: Path) -> bool:
    """Whether a file named by the user is a film: by its suffix, else by its content."""
    suffix = path.suffix.lower()
    return suffix in signatures.SUFFIXES or (suffix not in _READABLE and signatures.is_film(path))


def _taken(path: Path, relative: Path, *, films: bool) -> Found:
    """A file named by the user."""
    animation = _animation(path) if films else ""
    return Found(path, relative, bool(animation) or _is_film(path), animation)


def _animation(path: Path) -> str:
    """The format of an animated picture; empty where a file is none."""
    suffix, kind = path.suffix.lower(), kind_of(path)
    if (suffix in _READABLE and suffix not in signatures.ANIMATED) or kind not in _ANIMATED:
        return ""
    try:
        return kind or "" if probe(path).frames > 1 else ""
    except InputError:
        return ""


def _add_folder(
    found: Discovery,
    folder: Path,
    out: Location,
    recursive: bool,
    films: bool,
    holds: Callable[[Path], bool] | None,
) -> None:
    before = len(found.pictures)
    for path in _walk(found, folder, out, recursive):
        suffix = path.suffix.lower()
        if holds is not None and not holds(relative := path.relative_to(folder)):
            if suffix in _READABLE or (films and suffix in signatures.SUFFIXES):
                found.elsewhere.append(str(relative))
        elif READ_ONLY_SUFFIXES.get(suffix) == "heif" and not heif.installed() and kind_of(path) == "heif":
            found.unread[suffix] += 1
        elif suffix in _READABLE:
            animation = _animation(path) if films else ""
            found.pictures.append(Found(path, path.relative_to(folder), bool(animation), animation))
        elif suffix in signatures.SUFFIXES and films and not signatures.is_source(path):
            if _is_sound(path):
                found.sound.append(path)
            else:
                found.pictures.append(Found(path, path.relative_to(folder), film=True))
        elif suffix in _OTHER_PICTURES or (suffix in signatures.SUFFIXES and not signatures.is_source(path)):
            found.unread[suffix] += 1
    if (
        len(found.pictures) == before
        and not found.elsewhere
        and not any(p.path == folder for p in found.problems)
    ):
        deeper = "" if recursive else " --recursive also searches the folders in it."
        raise InputError(
            f"{folder}: no pictures in this folder.", f"It needs {', '.join(_READABLE)}.{deeper}"
        )


def _is_sound(path: Path) -> bool:
    from srcli.io.films.source import is_sound  # PyAV comes with it

    return is_sound(path)


def _walk(found: Discovery, folder: Path, out: Location, recursive: bool) -> Iterator[Path]:
    """The visible files of a folder, its sub-folders after them, by name."""

    def unreadable(error: OSError) -> None:
        where = Path(error.filename or folder)
        problem = InputError(f"{where}: cannot be listed ({error.strerror}).", "Check its permissions.")
        found.problems.append(Problem(where, problem))

    entered = [Path(os.path.realpath(folder))]
    for here, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))
        if any(_same(Path(here, name), out) for name in folders):
            found.left_out = out
        keep = (name for name in sorted(folders) if not name.startswith("."))
        paths = [Path(here, name) for name in keep if recursive and not _same(Path(here, name), out)]
        folders[:] = [path.name for path in paths if _enters(found, path, entered)]


def _enters(found: Discovery, path: Path, entered: list[Path]) -> bool:
    """Whether to search a folder: yes, unless it is a link to what is searched under another name.

    Args:
        found: told of links that are passed by.
        path: the folder.
        entered: real paths of the input folder and of the links entered below it; grows. No link leads to
            one of them again, and none into the input folder or above it, so that there is no loop.
    """
    if not path.is_symlink():
        return True
    real, root = Path(os.path.realpath(path)), entered[0]
    if real in entered or real.is_relative_to(root) or root.is_relative_to(real):
        found.passed_by.append(path)
        return False
    entered.append(real)
    return True


def _same(a: Path, b: Location) -> bool:
    return isinstance(b, Path) and os.path.realpath(a) == os.path.realpath(b)


def _each_once(pictures: list[Found]) -> list[Found]:
    """The list without files already named earlier in it."""
    return list({place(p.path): p for p in reversed(pictures)}.values())[::-1]


def place(path: Location) -> Location:
    """The absolute path with the folder's links resolved, not the file's own: a link has its own name."""
    if isinstance(path, Remote):
        return path
    return path.parent.resolve() / path.name


def is_folder(path: Location) -> bool:
    """Whether it is a folder; `Path.is_dir` raises on some names that cannot be one. A URL is none yet."""
    return isinstance(path, Path) and os.path.isdir(path)  # noqa: PTH112


def may_be(relative: Path, *, films: bool) -> list[Found]:
    """All that a file of a folder may be, by its name alone."""
    suffix = relative.suffix.lower()
    if not films or suffix not in (*signatures.SUFFIXES, *signatures.ANIMATED):
        return [Found(relative, relative)]
    if suffix in signatures.SUFFIXES:
        return [Found(relative, relative, film=True)]
    animation = {"apng": "png"}.get(suffix[1:], suffix[1:])
    return [Found(relative, relative), Found(relative, relative, film=True, animation=animation)]


def opened(folder: Location, relative: Path, *, films: bool) -> Found:
    """What a file of a folder is, by its content too."""
    path = folder / relative
    if isinstance(path, Remote):
        seen = _seen([remote.looked_up(path)], [relative], films=films, named=False)
        return seen[0] if seen else Found(path, relative, film=True)
    return _taken(path, relative, films=films) if films else Found(path, relative)
