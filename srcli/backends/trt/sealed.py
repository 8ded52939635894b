"""Files of bytes that say what they are for and whether they are whole.

TensorRT aborts the process on some damaged caches, so nothing reaches it before its checksum is right.
"""

import hashlib
import json
from pathlib import Path

from srcli.files import write_whole

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
    return content


def _header(line: bytes) -> dict[str, object]:
    try:
        header = json.loads(line)
    except ValueError as error:
        raise StaleError("is damaged") from error
    if not isinstance(header, dict):
        raise StaleError("is damaged")
    return header
