"""Pure integer geometry: cut an image into overlapping windows whose cores partition it exactly.

All sizes are (height, width) in LR pixels. A *window* is what the network is fed; its *core* is the part
whose output is kept. Between core and window lies the halo, except where the window ends at the image:
there the network pads with zeros, just as it does for a whole-image run.
"""

from dataclasses import dataclass

from srcli.errors import UsageError
from srcli.settings import Size

SIDE = 384
"""Largest window side in LR pixels, unless the caller names one or `SIDES_ON_CPUS` says otherwise."""
SIDES_ON_CPUS = (
    # feature, precisions, most features of the network, side: MP/s by sides, where that was measured
    ("amx_bf16", ("bf16", "int8"), 64, 256),  # x4, 64 features, 192/256/384/512: bf16 1.7/2.2/1.4/1.5 (Xeon)
    ("", ("fp32", "bf16", "int8"), 64, 512),  # EPYC: results/networks.md, and results/speed-avx2.md
)
"""The first row that fits says the largest window side on a CPU. A table, and no timing, so that a machine
always gives the same result."""
_LIGHT_FAMILIES = ("edsr", "mdsr")
"""Families with all features at LR, as their upsampler is fused with the tail."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in LR pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this rectangle in an (H, W, ...) array."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def scaled(self, scale: int) -> "Box":
        """The same rectangle in the output of a network."""
        return Box(self.top * scale, self.left * scale, self.height * scale, self.width * scale)

    def within(self, outer: "Box") -> "Box":
        """The same rectangle in coordinates of `outer`."""
        return Box(self.top - outer.top, self.left - outer.left, self.height, self.width)


@dataclass(frozen=True, slots=True)
class Tile:
    """One run of the network: feed `window`, keep `core`."""

    window: Box
    core: Box


def plan(size: Size, tile: Size | int, halo: int) -> list[Tile]:
    """Windows over an image, row by row.

    Every window has the same size, `tile` clamped to the image; the last of a row or column shifts inward
    instead of shrinking. Every core pixel lies at least `halo` from each window edge that is not an image
    edge, so a halo of the receptive-field radius makes tiled equal to untiled.

    Args:
        size: the image.
        tile: the window, one number for a square.
        halo: LR pixels of context around each core.

    Raises:
        UsageError: the window leaves no core between its halos.
    """
    height, width = (tile, tile) if isinstance(tile, int) else tile
    return [
        Tile(Box(top, left, rows, columns), Box(core_top, core_left, core_rows, core_columns))
        for top, rows, core_top, core_rows in _spans(size[0], height, halo)
        for left, columns, core_left, core_columns in _spans(size[1], width, halo)
    ]


def fit(size: Size, tile: int, halo: int) -> Size:
    """The smallest window, at most `tile` a side, that needs no more windows than `tile` does.

    Shifting the last window inward computes its overlap twice; sharing the rest evenly does not.

    Raises:
        UsageError: the window leaves no core between its halos.
    """
    return _fit_axis(size[0], tile, halo), _fit_axis(size[1], tile, halo)


def check(tile: int, halo: int) -> None:
    """Refuse a window that leaves no core, before any image is there.

    Raises:
        UsageError: it does not.
    """
    _count(tile + 1, tile, halo)


def default_side(
    family: str, features: int, halo: int, device: str, precision: str, extensions: tuple[str, ...]
) -> int:
    """The largest window side in LR pixels where nobody names one; larger where the halo needs it.

    Large windows spend less on halos and borders, small ones fit into a cache. `SIDES_ON_CPUS` is of networks
    that take little memory a pixel: few features, all of them at LR. GPUs were measured with `SIDE`, which
    TensorRT builds first.

    Args:
        family, features: of the network, as in `srcli.models.spec.ModelSpec`.
        halo: LR pixels of context around each tile.
        device: kind of device, e.g. "cpu", "cuda:0".
        precision: that it computes in.
        extensions: vector extensions of the CPU, as in `srcli.backends.devices.Processor`.
    """
    sides = (
        side
        for extension, precisions, most, side in SIDES_ON_CPUS
        if device == "cpu" and family in _LIGHT_FAMILIES and features <= most
        and precision in precisions and extension in ("", *extensions)
    )  # fmt: skip
    return max(next(sides, SIDE), smallest_tile(halo))


def smallest_tile(halo: int) -> int:
    """The smallest window side with a useful core: half the window at the least."""
    return max(16, 4 * halo)


def _spans(length: int, tile: int, halo: int) -> list[tuple[int, int, int, int]]:
    """(window start, window length, core start, core length) along one axis."""
    window = min(tile, length)
    spans, core = [], 0
    for index in range(_count(length, tile, halo)):
        start = min(index * (tile - 2 * halo), length - window)
        end = length if start + window == length else start + window - halo
        spans.append((start, window, core, end - core))
        core = end
    return spans


def _count(length: int, tile: int, halo: int) -> int:
    """How many windows of `tile` cover an axis."""
    if tile < 1 or halo < 0:
        raise UsageError(f"Tile {tile} with halo {halo}: both count pixels.", "Give a tile of 1 or more.")
    if length <= tile:
        return 1
    step = tile - 2 * halo
    if step < 1:
        hint = f"Use a tile of at least {smallest_tile(halo)}."
        raise UsageError(f"A tile of {tile} leaves nothing between two halos of {halo}.", hint)
    return -(-(length - 2 * halo) // step)


def _fit_axis(length: int, tile: int, halo: int) -> int:
    count = _count(length, tile, halo)
    return -(-(length + (count - 1) * 2 * halo) // count)
