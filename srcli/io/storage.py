"""Where bytes go: files written whole or not at all, scratch arrays, and files with a checksum."""

import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from srcli.errors import InferenceError, OutputError, UsageError, shown

_BEGUN, _UNFINISHED = ".srcli-", (".part", "-part")
"""How the names of unfinished files begin and end. OpenCV takes the format of "x.png-part" from its suffix;
folders that are searched for pictures do not."""
_ABANDONED = 3600.0
"""Age in seconds from which an unfinished file has no writer any more."""
_LONGEST = 255
"""Bytes of the longest name that a file can have, on the usual file systems."""
_BLOCK = 1 << 22
"""Bytes copied at a time."""


def cache_folder(name: str) -> Path:
    """Folder for files that can be made again, in $SRCLI_CACHE, $XDG_CACHE_HOME/srcli or ~/.cache/srcli."""
    if own := os.environ.get("SRCLI_CACHE"):
        return Path(own) / name
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118 - never raises
    return Path(cache) / "srcli" / name


def probe(folder: Path) -> None:
    """Make and remove a file in a folder: permissions alone do not show that writing works.

    Raises:
        OSError: nothing can be written there.
    """
    with TemporaryFile(dir=folder):
        pass


def check_takes_files(folder: Path, what: Path) -> None:
    """Refuse a folder that cannot take files. Of one that does not exist yet, its nearest parent is checked.

    Args:
        folder: not made by this.
        what: named in the error: the folder, or a file in it.

    Raises:
        UsageError, OutputError: no file can have this name; a file is in the way; nothing can be written.
    """
    _check_parts(folder, what, "Choose another one.")
    place = existing(folder)
    if not os.path.isdir(place):  # noqa: PTH112 - never raises
        raise OutputError(f"{what}: {place} is not a folder.", "Choose another place.")
    try:
        probe(place)
    except OSError as error:
        raise OutputError(
            f"{what}: nothing can be written to {place} ({error.strerror}).", "Choose another place."
        ) from error


def check_name(path: Path) -> None:
    """Refuse the name of a file, or of its unfinished form, that its file system cannot take.

    Raises:
        UsageError: it is too long, counted in bytes, or holds what no name may.
    """
    hint = "Shorten the input's name, or choose another output with -o."
    _check_parts(path, path, hint)
    _check_parts(_beside(path, path.suffix), path, hint)


def _check_parts(path: Path, what: Path, hint: str) -> None:
    """Look up each part of a path that is not there yet where the nearest folder is that is."""
    try:
        place = existing(path)
        missing = path.absolute().relative_to(place.absolute()).parts
        for name in (path, *(place / part for part in missing)):
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                name.lstat()
    except (OSError, ValueError) as error:  # e.g. too long, or a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{shown(what)}: no file can have this name ({reason}).", hint) from error


def has_space(folder: Path, needed: int) -> bool:
    """Whether so many bytes are free where a folder is, or is to be; True where nobody knows."""
    try:
        return shutil.disk_usage(existing(folder)).free >= needed
    except OSError:  # a file system that does not say
        return True


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is that of a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


def beside(path: Path, suffix: str) -> Path:
    """A path beside a file: its name with `suffix` added.

    Where that is too long for file systems, it is the name's beginning and a hash of it all, so that no two
    files share one.
    """
    name = os.fsencode(path.name)
    if len(name) + len(suffix) > _LONGEST:
        digest = hashlib.sha256(name).hexdigest()[:16]
        begin = name[: _LONGEST - len(suffix) - len(digest) - 1].decode("utf-8", "ignore")
        return path.with_name(f"{begin}-{digest}{suffix}")
    return path.with_name(path.name + suffix)


def existing(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))


def amount(number: int) -> str:
    """ "5.0 GB", "20.3 MB"."""
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"


@contextmanager
def unfinished(path: Path, suffix: str = "") -> Iterator[Path]:
    """A new, empty file beside `path` for the block to fill; it replaces `path` where the block ends.

    Nothing is left of it if the block fails. When it has replaced `path`, its bytes are on the disk.

    Args:
        path: what is replaced.
        suffix: of the unfinished file, e.g. ".png".

    Raises:
        OSError, ValueError: it cannot be written, or no file can have this name; what was there stays.
    """
    temporary = _beside(path, suffix)
    with suppress(FileNotFoundError):
        path.lstat()  # a name that no file can have is refused before the work
    try:
        temporary.open("xb").close()
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)


def _beside(path: Path, suffix: str) -> Path:
    """A new name for the unfinished file."""
    return path.parent / f"{_BEGUN}{uuid.uuid4().hex}{suffix}{_UNFINISHED[1 if suffix else 0]}"


def insert(file: Path, at: int, content: bytes) -> None:
    """Put bytes into a file at an offset. What follows moves up, a block at a time, from its end on."""
    with file.open("rb+") as stream:
        end = stream.seek(0, os.SEEK_END)
        while content and end > at:
            start = max(at, end - _BLOCK)
            stream.seek(start)
            block = stream.read(end - start)
            stream.seek(start + len(content))
            stream.write(block)
            end = start
        stream.seek(at)
        stream.write(content)


def overwrite(file: Path, at: int, content: bytes) -> None:
    """Replace bytes of a file; at its end, append them."""
    with file.open("rb+") as stream:
        stream.seek(at)
        stream.write(content)


def copy_times(source: Path, target: Path) -> None:
    """Give a file the dates of another, where the file system lets us."""
    with suppress(OSError):
        facts = source.stat()
        os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def write_whole(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Replace a file by these bytes, one part after the other: all of them, on the disk, or nothing.

    A device or a pipe, such as /dev/stdout, is written to and stays.

    Raises:
        OSError, ValueError: it cannot be written, or no file can have this name; what was there stays.
    """
    is_special = path.is_symlink() and path.is_relative_to("/dev")
    if is_special or (path.exists() and not path.is_file() and not path.is_dir()):
        with path.open("wb") as device:
            device.writelines(parts)
        return
    with unfinished(path) as temporary, temporary.open("wb") as file:
        file.writelines(parts)


def write_text(path: Path, text: str) -> None:
    """Replace a file by this text (UTF-8, line ends as they are); its folder is made if it is missing.

    Raises:
        OSError: it cannot be written there; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [text.encode()])


def sweep(folder: Path) -> None:
    """Remove unfinished files that a killed process, or a power failure, left in a folder an hour ago.

    The hour is counted by the clock of the file system: in a shared folder, other machines are at work, and
    clocks differ.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        found = [one for one in entries if one.name.startswith(_BEGUN) and one.name.endswith(_UNFINISHED)]
        now = _clock(folder) if found else 0.0
        for entry in found:
            with suppress(OSError):
                if now - entry.stat().st_mtime > _ABANDONED:
                    os.unlink(entry)  # noqa: PTH108 - an entry of the scan


def abandoned(parent: Path, prefix: str, seconds: float) -> Iterator[Path]:
    """Scratch folders of this user that were not changed for so many seconds."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            facts = folder.stat()
            if facts.st_uid == getattr(os, "getuid", int)() and time.time() - facts.st_mtime > seconds:
                yield folder


def _clock(folder: Path) -> float:
    """The time that a file gets which is made there now, as `os.stat_result.st_mtime`."""
    try:
        with TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:  # e.g. a full disk
        return time.time()


class Scratch(NamedTuple):
    """Where arrays go: up to `limit` bytes each into memory, else into a file in `folder`.

    Attributes:
        limit: bytes.
        folder: for scratch files; None: the system's temporary folder.
    """

    limit: int
    folder: Path | None = None

    @property
    def where(self) -> Path:
        """The folder of the scratch files."""
        return self.folder or Path(gettempdir())

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """As `allocate`."""
        return allocate(shape, dtype, limit=self.limit, folder=self.folder)


def allocate(shape: tuple[int, ...], dtype: DTypeLike, *, limit: int, folder: Path | None) -> NDArray[Any]:
    """An uninitialised array: in memory up to `limit` bytes, beyond that in a scratch file.

    The file has no name (on Windows it is deleted on close), so that nothing is left of it however the
    process ends, and its disk space is reserved first: writing to a sparse map on a full disk kills.

    Args:
        shape, dtype: as of numpy.empty.
        limit: bytes.
        folder: for the file; None: the system's temporary folder.

    Raises:
        InferenceError: not enough memory.
        OutputError: the disk is full, or the folder cannot take the file.
    """
    size = prod(shape) * np.dtype(dtype).itemsize
    try:
        return np.empty(shape, dtype) if size <= limit else _mapped(shape, dtype, size, folder)
    except (MemoryError, ValueError) as error:
        raise InferenceError(
            f"A result of {shape[0]}x{shape[1]} needs {size / 1e9:.1f} GB of memory."
        ) from error


def _mapped(shape: tuple[int, ...], dtype: DTypeLike, size: int, folder: Path | None) -> NDArray[Any]:
    try:
        with TemporaryFile(dir=folder, buffering=0) as file:
            _reserve(file, size)
            return np.asarray(np.memmap(file, dtype, "r+", shape=shape))
    except OSError as error:
        raise OutputError(
            f"A scratch file of {amount(size)} cannot be made in {folder or 'the temporary folder'} "
            f"({(error.strerror or str(error)).lower()}).",
            "Free some space, choose another folder, or give more memory with --memory.",
        ) from error


def _reserve(file: IO[bytes], size: int) -> None:
    """Give a new file its size, with blocks on the disk behind every byte."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
            return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
    for start in range(0, size, _BLOCK):
        zeros = memoryview(bytes(min(_BLOCK, size - start)))
        while zeros:
            zeros = zeros[file.write(zeros) :]


UNUSED_DAYS = 180
"""Days without a read after which a cache file is deleted."""

_MAGIC = b"srcli checksum 1\n"
_MAX_HEADER = 1 << 16


class StaleError(Exception):
    """The file cannot be used: it is damaged, or made for something else."""


def write_checked(path: Path, key: str, content: bytes) -> None:
    """Write a file with a magic number, the key and a checksum of its content.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    header = json.dumps({"key": key, "sha256": hashlib.sha256(content).hexdigest()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, [_MAGIC + header.encode() + b"\n", content])


def read_checked(path: Path, key: str) -> bytes | None:
    """The content of such a file, or None if there is none.

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
    """Delete the files of a cache folder that were not read for `UNUSED_DAYS`."""
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
