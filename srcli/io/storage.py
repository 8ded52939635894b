"""Files that appear whole or not at all, folders for them, and files with a magic number and a checksum."""

import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from srcli.errors import OutputError, UsageError

_BEGUN, _UNFINISHED = ".srcli-", ".part"
"""How names of files begin and end that do not have their own yet."""
_FORGOTTEN = 3600.0
"""Seconds after which nobody is writing a file any more."""


def cache_folder(name: str) -> Path:
    """For what can be made again: `name` in $SRCLI_CACHE, $XDG_CACHE_HOME/srcli or ~/.cache/srcli."""
    if own := os.environ.get("SRCLI_CACHE"):
        return Path(own) / name
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118 - never raises
    return Path(cache) / "srcli" / name


def probe(folder: Path) -> None:
    """Make a nameless file in a folder, which also tells where permissions look right and writing fails.

    Raises:
        OSError: nothing can be written there.
    """
    with TemporaryFile(dir=folder):
        pass


def check_takes_files(folder: Path, what: Path) -> None:
    """Refuse a folder that cannot take files; of one that is to be made, the nearest above it that is there.

    Args:
        folder: not made by this.
        what: named in the error: the folder, or a file in it.

    Raises:
        UsageError, OutputError: no file can have this name; a file is in the way; nothing can be written.
    """
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass
    except (OSError, ValueError) as error:  # e.g. too long, or a null byte
        raise UsageError(f"{what}: no file can have this name.", "Choose another one.") from error
    existing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not os.path.isdir(existing):  # noqa: PTH112 - never raises
        raise OutputError(f"{what}: {existing} is not a folder.", "Choose another place.")
    try:
        probe(existing)
    except OSError as error:
        raise OutputError(
            f"{what}: nothing can be written to {existing} ({error.strerror}).", "Choose another place."
        ) from error


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Replace a file by these bytes, one part after the other: all of them, on the disk, or nothing.

    Raises:
        OSError, ValueError: it cannot be written, or no file can have this name; what was there stays.
    """
    temporary = path.parent / f"{_BEGUN}{uuid.uuid4().hex}{_UNFINISHED}"
    try:
        with temporary.open("xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what `write_whole` left in a folder where it was killed, or the power failed, an hour ago."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_BEGUN) and entry.name.endswith(_UNFINISHED):
                with suppress(OSError):
                    if time.time() - entry.stat().st_mtime > _FORGOTTEN:
                        os.unlink(entry)  # noqa: PTH108 - an entry of the scan


def write_text(path: Path, text: str) -> None:
    """Replace a file by this text (UTF-8, line ends as they are); its folder is made if it is missing.

    Raises:
        OSError: it cannot be written there; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [text.encode()])


UNUSED_DAYS = 180
"""A file that was not read for so long may be deleted: its model, GPU or version is gone."""

_MAGIC = b"srcli sealed 1\n"
_MAX_HEADER = 1 << 16


class StaleError(Exception):
    """The file cannot be used: it is damaged, or made for something else."""


def write(path: Path, key: str, content: bytes) -> None:
    """Write content under a header of its key and checksum; the file appears whole or not at all.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    header = json.dumps({"key": key, "sha256": hashlib.sha256(content).hexdigest()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [_MAGIC + header.encode() + b"\n", content])


def read(path: Path, key: str) -> bytes | None:
    """The content, or None if there is no such file.

    Raises:
        StaleError: it is damaged, cannot be read, or was written under another key.
    """
    try:
        with path.open("rb") as file:
            if file.readline(len(_MAGIC)) != _MAGIC:
                raise StaleError("is damaged")
            header, content = _header(file.readline(_MAX_HEADER)), file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StaleError(f"cannot be read ({error.strerror})") from error
    if header.get("key") != key:
        raise StaleError("was made for something else")
    if header.get("sha256") != hashlib.sha256(content).hexdigest():
        raise StaleError("is damaged")
    with suppress(OSError):  # a folder that can only be read
        os.utime(path)
    return content


def forget_unused(folder: Path, suffixes: tuple[str, ...]) -> None:
    """Delete the files of a folder that nobody has read for `UNUSED_DAYS`."""
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for file in folder.glob("*"):
        with suppress(OSError):  # another process may have been quicker
            if file.suffix in suffixes and file.stat().st_mtime < oldest:
                file.unlink()


def _header(line: bytes) -> dict[str, object]:
    try:
        header = json.loads(line)
    except ValueError as error:
        raise StaleError("is damaged") from error
    if not isinstance(header, dict):
        raise StaleError("is damaged")
    return header
