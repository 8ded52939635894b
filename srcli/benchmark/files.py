"""Text files that appear whole or not at all."""

import os
from pathlib import Path

from srcli.errors import OutputError


def write(path: Path, text: str) -> None:
    """Replace a file by this text (UTF-8); its folder is made if it is missing.

    Raises:
        OutputError: it cannot be written there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8", newline="")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}).", "Choose another place."
        ) from error
