"""Files that appear whole or not at all, and folders that take them."""

import os
from pathlib import Path
from tempfile import TemporaryFile


def probe(folder: Path) -> None:
    """Make a nameless file in a folder, which also tells where permissions look right and writing fails.

    Raises:
        OSError: nothing can be written there.
    """
    with TemporaryFile(dir=folder):
        pass


def write_text(path: Path, text: str) -> None:
    """Replace a file by this text (UTF-8, line ends as they are); its folder is made if it is missing.

    Raises:
        OSError: it cannot be written there; what was there stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
