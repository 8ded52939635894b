"""Reports on disk."""

from pathlib import Path

from srcli.errors import OutputError
from srcli.io.storage import write_text


def write(path: Path, text: str) -> None:
    """Replace a file by this text (UTF-8); its folder is made if it is missing.

    Raises:
        OutputError: it cannot be written there.
    """
    try:
        write_text(path, text)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}).", "Choose another place."
        ) from error
