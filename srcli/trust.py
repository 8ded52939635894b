"""Whether a device computes what the network means: its first tile beside the CPU's, in f32."""

from dataclasses import dataclass, replace

import numpy as np

from srcli.backends import table
from srcli.backends.base import BackendOptions, Batch, Engine
from srcli.errors import BackendUnavailableError, MissingExtraError
from srcli.models.catalog import ModelFile

LEAST = 35.0
"""dB on 0-1 that a device must reach. Halves and bfloat16 reach more than 50; a wrong kernel less than 20."""
_CORE = 64  # LR pixels of the tile that are compared, each side


@dataclass(frozen=True, slots=True)
class _Part:
    """Where to cut one side of a tile: from `start`, `length` pixels, of which `margin` at both ends do not
    count because their surroundings are cut away."""

    start: int
    length: int
    margin: int

    @property
    def inner(self) -> "_Part":
        """What counts."""
        return _Part(self.start + self.margin, self.length - 2 * self.margin, 0)


def psnr_to_cpu(lr: Batch, sr: Batch, file: ModelFile, halo: int) -> float | None:
    """How close a tile is to what the CPU makes of its middle; None if no CPU backend is installed.

    Args:
        lr: (1, 3, H, W), what the device was given.
        sr: (1, 3, scale*H, scale*W), what it made.
        file: the network.
        halo: LR pixels around a pixel that matter to it.
    """
    try:
        reference = _on_cpu(file)
    except (MissingExtraError, BackendUnavailableError):
        return None
    scale = file.spec.scale
    rows, columns = _part(lr.shape[2], halo), _part(lr.shape[3], halo)
    exact = reference.run(np.ascontiguousarray(_cut(lr, rows, columns, 1)))
    made = _cut(sr, rows.inner, columns.inner, scale)
    wanted = _cut(exact, replace(rows, start=0).inner, replace(columns, start=0).inner, scale)
    error = np.square(wanted - made, dtype=np.float64).mean()
    return float(-10 * np.log10(error + 1e-20))


def _on_cpu(file: ModelFile) -> Engine:
    options = BackendOptions("f32", "cpu")
    return table.load(table.choose("auto", options).name, file.path, file.spec, options)


def _part(length: int, halo: int) -> _Part:
    side = _CORE + 2 * halo
    return _Part(0, length, 0) if length <= side else _Part((length - side) // 2, side, halo)


def _cut(batch: Batch, rows: _Part, columns: _Part, scale: int) -> Batch:
    """A rectangle, in pixels of a network's input, out of a batch that is `scale` times as large."""
    return batch[
        :,
        :,
        rows.start * scale : (rows.start + rows.length) * scale,
        columns.start * scale : (columns.start + columns.length) * scale,
    ]
