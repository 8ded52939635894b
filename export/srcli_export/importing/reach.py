"""How far a network sees, and whether it cares where: measured, as nothing in a foreign file tells.

Tiles equal a whole-image run only if an output pixel depends on a bounded part of the input, and on that part
in the same way wherever it lies. Channel attention over the whole picture breaks the first, windows and
networks that need sizes in multiples break the second.
"""

import torch
from torch import Tensor, nn

from srcli.errors import ModelFileError

_WIDTHS = (65, 257, 1025)
"""Of the pictures probed: the first one that is wide enough ends the search."""
_HEIGHT = 17
_OFFSETS = (1, 5)
_SAME = 1e-4
_HINT = "srcli works in tiles, so a network must treat all parts of a picture alike. Choose another network."


def measure_reach(network: nn.Module, scale: int) -> int:
    """Radius of the receptive field in LR pixels, exact: a pixel that is no number makes all it reaches none.

    Args:
        network: called as `network(batch, scale)`, in evaluation mode.
        scale: output / input.

    Raises:
        ModelFileError: it sees further than 512 pixels, e.g. the whole picture.
    """
    for width in _WIDTHS:
        radius = max(_radius(network, scale, width, axis) for axis in (2, 3))
        if radius < width // 2:
            return radius
    raise ModelFileError(
        f"Each pixel of its output depends on more than {_WIDTHS[-1] // 2} around it.", _HINT
    )


def check_position(network: nn.Module, scale: int, radius: int) -> None:
    """Compare what a network makes of a picture and of the same picture without its first few columns.

    Args:
        network: called as `network(batch, scale)`, in evaluation mode.
        scale: output / input.
        radius: of its receptive field; columns closer to the border than that may differ.

    Raises:
        ModelFileError: what lies further inside differs by more than 1e-4.
    """
    picture = torch.rand(1, 3, _HEIGHT, 2 * radius + 48, generator=torch.Generator().manual_seed(0))
    for axis in (2, 3):
        turned = picture.transpose(2, 3) if axis == 2 else picture
        whole = _run(network, turned, scale)
        for offset in _OFFSETS:
            part = _run(network, turned.narrow(axis, offset, turned.shape[axis] - offset), scale)
            skip = (radius + offset) * scale
            count = part.shape[axis] - skip - radius * scale
            a, b = whole.narrow(axis, skip + offset * scale, count), part.narrow(axis, skip, count)
            if not torch.allclose(a, b, rtol=0, atol=_SAME):
                raise ModelFileError("Its output depends on where in the picture something lies.", _HINT)


def _radius(network: nn.Module, scale: int, width: int, axis: int) -> int:
    """Largest distance, along an axis, of an output pixel that the middle pixel reaches; in LR pixels."""
    shape = [1, 3, _HEIGHT, _HEIGHT]
    shape[axis], middle = width, width // 2
    picture = torch.full(shape, 0.5)
    picture.narrow(axis, middle, 1).fill_(float("nan"))
    reached = _run(network, picture, scale).isnan().any(dim=1).any(dim=4 - axis)[0].nonzero()
    if len(reached) == 0:
        raise ModelFileError("Its output does not depend on its input.", _HINT)
    first, last = int(reached.min()) // scale, int(reached.max()) // scale
    return max(middle - first, last - middle)


def _run(network: nn.Module, batch: Tensor, scale: int) -> Tensor:
    with torch.inference_mode():
        result: Tensor = network(batch, scale)
    wanted = batch.shape[2] * scale, batch.shape[3] * scale
    if result.ndim != 4 or result.shape[1] != 3 or result.shape[2:] != wanted:
        raise ModelFileError(f"It turns {tuple(batch.shape)} into {tuple(result.shape)}.", _HINT)
    return result
