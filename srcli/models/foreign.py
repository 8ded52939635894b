"""Model files from elsewhere: what an undescribed network does, and whether a file is the right one."""

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from srcli.backends import table
from srcli.backends.base import BackendOptions
from srcli.errors import ModelFileError, SrcliError
from srcli.spec import ModelSpec

UNKNOWN_HALO = 32
"""LR pixels of halo for a network that does not say how far it sees; more than trained ones use."""
_PROBE = 16


def unknown(name: str, scale: int) -> ModelSpec:
    """What can be said about a network of which only the scale is known."""
    return ModelSpec(name=name, family="other", scale=scale, exact_halo=UNKNOWN_HALO, halo=UNKNOWN_HALO)


def measure_scale(path: Path) -> int:
    """The scale of a network, by running it once on a small black picture on the CPU.

    Raises:
        ModelFileError: it does not turn (1, 3, H, W) into (1, 3, sH, sW).
        MissingExtraError, BackendUnavailableError: no backend for the CPU is installed.
    """
    options = BackendOptions("f32", "cpu")  # a GPU's engine would be built for this alone
    hint = "srcli runs networks that turn (N, 3, H, W) RGB 0-1 of any size into (N, 3, sH, sW)."
    engine = table.load(table.choose("auto", options).name, path, unknown(path.stem, 1), options)
    try:
        shape = engine.run(np.zeros((1, 3, _PROBE, _PROBE), np.float32)).shape
    except (SrcliError, MemoryError) as error:
        raise ModelFileError(f"{path}: fails on a {_PROBE}x{_PROBE} RGB picture ({error}).", hint) from error
    scale = shape[-1] // _PROBE
    if shape != (1, 3, _PROBE * scale, _PROBE * scale) or scale < 1:
        raise ModelFileError(f"{path}: turns (1, 3, {_PROBE}, {_PROBE}) into {shape}.", hint)
    return int(scale)


def check_sum_beside(path: Path) -> None:
    """Compare a file with the SHA-256 in the .sha256 file beside it (hex, as `sha256sum` writes it), if any.

    Raises:
        ModelFileError: they differ, or one of them cannot be read.
    """
    if path.with_name(f"{path.name}.sha256").exists():
        _check_sum(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _check_sum(path: Path, modified: int) -> None:
    try:
        wanted = path.with_name(f"{path.name}.sha256").read_text("ascii").split()
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: its checksum cannot be read ({error}).") from error
    if [word.lower() for word in wanted[:1]] != [found]:
        raise ModelFileError(f"{path}: is not what {path.name}.sha256 says.", "Copy or download it again.")
