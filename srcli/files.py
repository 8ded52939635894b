"""Files that appear whole or not at all, and folders that take them."""

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
