"""Files of bytes that say what they are for and whether they are whole.

TensorRT and OpenVINO end the process on some damaged files, so nothing reaches them before its checksum is
right.
"""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from srcli.files import write_whole

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
