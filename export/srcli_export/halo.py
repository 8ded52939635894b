"""Measures how much context a tile needs before nobody can see the seams."""

from collections.abc import Sequence

import numpy as np

from srcli.tiles import plan
from srcli_export.runtime import Pixels, Runner, to_batch, to_pixels

_TILE = 64
_STEP = 2
_MARGIN = 4
"""LR pixels on top of what was measured: other images may be harder than these."""


def measure_halo(run: Runner, images: Sequence[Pixels], scale: int, exact: int) -> int:
    """The default halo of a network, in LR pixels.

    It is the smallest even halo at which no 8-bit output pixel of a tiled run differs by more than 1 from
    a whole-image run, plus a margin of 4, at most `exact`. Tiles are 64×64, or four halos where that is
    more. Images no larger than one tile prove nothing; where a tile outgrows another, the exact halo is
    returned.

    Args:
        run: the exported network.
        images: (H, W, 3) uint8 LR images.
        scale: output size / input size.
        exact: receptive-field radius.
    """
    images = [image for image in images if max(image.shape[:2]) > _TILE]
    whole = [to_pixels(run(to_batch(image))) for image in images]
    for halo in range(0, exact, _STEP):
        tile = max(_TILE, 4 * halo)
        if not images or any(max(image.shape[:2]) <= tile for image in images):
            return exact
        if all(
            _seam(run, image, result, scale, (tile, halo)) <= 1
            for image, result in zip(images, whole, strict=True)
        ):
            return min(halo + _MARGIN, exact)
    return exact


def _seam(run: Runner, image: Pixels, whole: Pixels, scale: int, tiling: tuple[int, int]) -> int:
    """Largest difference, in 8-bit levels, between a run in tiles (side, halo) and the whole image."""
    worst = 0
    for tile in plan((image.shape[0], image.shape[1]), *tiling):
        result = to_pixels(run(to_batch(image[tile.window.slices])))
        core = result[tile.core.within(tile.window).scaled(scale).slices].astype(np.int16)
        worst = max(worst, int(np.abs(core - whole[tile.core.scaled(scale).slices]).max()))
        if worst > 1:
            break
    return worst
