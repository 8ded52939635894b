"""What the cache of decoded images need not keep: files of decodings that were killed, and old data sets.

A lock on a data set's folder tells a decoding that is at work from one that is gone, in other containers too.
"""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNUSED_DAYS = 30
"""A data set that no run has used for so long is deleted when another one is decoded."""

_HOME = re.compile(r"[0-9a-f]{16}")
_OURS = re.compile(r"x\d\.(u8|json)(\.\d+)?")


def used(home: Path) -> None:
    """A run uses this data set: that is when its days begin anew."""
    with suppress(OSError):  # a cache that can only be read
        os.utime(home)


@contextmanager
def decoding(home: Path) -> Iterator[None]:
    """While entered, nobody takes this data set's unfinished files for leftovers."""
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


def forget(cache: Path) -> None:
    """Delete unfinished files that nobody writes, and data sets that were not used for `UNUSED_DAYS`.

    A run that has such a data set mapped keeps its pictures: on Linux and macOS a mapped file outlives its
    name, and Windows does not delete it. Whatever else lies in the folder is not ours, and stays.
    """
    oldest = time.time() - UNUSED_DAYS * 24 * 3600
    for home in cache.iterdir():
        with suppress(OSError):  # another process may have been quicker
            if _HOME.fullmatch(home.name) and home.is_dir():
                forget_some = _forget_all if home.stat().st_mtime < oldest else _forget_unfinished
                forget_some(home)


def _forget_unfinished(home: Path) -> None:
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


def _forget_all(home: Path) -> None:
    """Indexes first, as they sort: without its index, a data set is as good as gone."""
    files = sorted(home.iterdir())
    if all(_OURS.fullmatch(file.name) for file in files):
        for file in files:
            file.unlink()
        home.rmdir()
