"""State dicts of EDSR and MDSR by other hands: which key is which layer.

EDSR-PyTorch calls its layers head.0, body.<i>.body.0 and .2 (the convolutions of a block), body.<blocks>
(the body's last), tail.0.<2k> (upsampler), tail.1. Its MDSR has pre_process.<branch>.<j>.body.0 and .2,
upsample.<branch>.<2k> and tail.0, with branches numbered in the order of its scales. super-image uses the
same names, but its MDSR calls branches by their scale and wraps each convolution once more (head.0.0).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, prod

from torch import Tensor

_MEANS = ("sub_mean", "add_mean")


@dataclass(frozen=True, slots=True)
class Branch:
    """What one scale adds to the trunk.

    Attributes:
        scale: product of the upsampler's factors.
        blocks: keys of the two convolutions of each pre-processing block; none for EDSR.
        steps: (key of the convolution, factor of the PixelShuffle after it).
    """

    scale: int
    blocks: tuple[tuple[str, str], ...]
    steps: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Keys of all convolutions, without ".weight" and ".bias".

    Attributes:
        family: "edsr" or "mdsr".
        wrapped: whether the names were super-image's for MDSR.
        features: channels of the body.
    """

    family: str
    wrapped: bool
    features: int
    head: str
    blocks: tuple[tuple[str, str], ...]
    last: str
    branches: tuple[Branch, ...]
    tail: str

    @property
    def keys(self) -> set[str]:
        """Every key that is needed."""
        pairs = [*self.blocks, *(pair for branch in self.branches for pair in branch.blocks)]
        steps = [key for branch in self.branches for key, _ in branch.steps]
        convolutions = [self.head, self.last, self.tail, *steps, *(key for pair in pairs for key in pair)]
        return {f"{key}.{part}" for key in convolutions for part in ("weight", "bias")}


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict under EDSR-PyTorch's names, where it has super-image's for MDSR."""
    if "head.0.0.weight" not in state:
        return dict(state)
    return {_unwrapped(key): value for key, value in state.items()}


def _unwrapped(key: str) -> str:
    return key if key.startswith(_MEANS) else re.sub(r"\.0\.(weight|bias)$", r".\1", key)


def layout(state: Mapping[str, Tensor]) -> Layout | None:
    """Where everything is in a state dict of EDSR or MDSR; None if it is of something else.

    It is one of them only if every key is accounted for and every kernel has the shape it should have.
    """
    names = unwrapped(state)
    if "head.0.weight" not in names or names["head.0.weight"].ndim != 4:
        return None
    features = names["head.0.weight"].shape[0]
    wrapped = "head.0.0.weight" in state
    found = _mdsr(names, features, wrapped) if "tail.0.weight" in names else _edsr(names, features)
    scales = {branch.scale for branch in found.branches}
    if not scales or len(scales) < len(found.branches) or min(scales) < 2:
        return None
    extra = {key for key in names if not key.startswith(_MEANS)}
    return found if found.keys == extra and _fits(names, found) else None


def _edsr(names: Mapping[str, Tensor], features: int) -> Layout:
    blocks = _blocks(names, "body")
    branch = _branch(names, features, "tail.0", ())
    return Layout(
        "edsr",
        False,
        features,
        "head.0",
        blocks,
        f"body.{len(blocks)}",
        (branch,) if branch else (),
        "tail.1",
    )


def _mdsr(names: Mapping[str, Tensor], features: int, wrapped: bool) -> Layout:
    blocks = _blocks(names, "body")
    ids = dict.fromkeys(key.split(".")[1] for key in names if key.startswith("upsample."))
    branches = [_branch(names, features, f"upsample.{i}", _blocks(names, f"pre_process.{i}")) for i in ids]
    found = sorted((branch for branch in branches if branch), key=lambda branch: branch.scale)
    return Layout("mdsr", wrapped, features, "head.0", blocks, f"body.{len(blocks)}", tuple(found), "tail.0")


def _blocks(names: Mapping[str, Tensor], folder: str) -> tuple[tuple[str, str], ...]:
    count = 0
    while f"{folder}.{count}.body.0.weight" in names:
        count += 1
    return tuple((f"{folder}.{i}.body.0", f"{folder}.{i}.body.2") for i in range(count))


def _branch(
    names: Mapping[str, Tensor], features: int, folder: str, blocks: tuple[tuple[str, str], ...]
) -> Branch | None:
    """The upsampler under `folder`, every second module of which is a PixelShuffle."""
    steps: list[tuple[str, int]] = []
    while (kernel := names.get(f"{folder}.{2 * len(steps)}.weight")) is not None:
        steps.append((f"{folder}.{2 * len(steps)}", isqrt(kernel.shape[0] // features)))
    return Branch(prod(factor for _, factor in steps), blocks, tuple(steps)) if steps else None


def _fits(names: Mapping[str, Tensor], found: Layout) -> bool:
    """Whether every kernel is (out, in, k, k) with odd k and the channels its place asks for."""
    f = found.features
    shapes = {found.head: (f, 3), found.last: (f, f), found.tail: (3, f)}
    for branch in found.branches:
        shapes |= {key: (f * factor**2, f) for key, factor in branch.steps}
        shapes |= {key: (f, f) for pair in branch.blocks for key in pair}
    shapes |= {key: (f, f) for pair in found.blocks for key in pair}
    return all(_has_shape(names, key, *shape) for key, shape in shapes.items())


def _has_shape(names: Mapping[str, Tensor], key: str, outputs: int, inputs: int) -> bool:
    kernel, bias = names[f"{key}.weight"], names[f"{key}.bias"]
    if kernel.ndim != 4 or bias.shape != (outputs,):
        return False
    side = kernel.shape[-1]
    return kernel.shape == (outputs, inputs, side, side) and side % 2 == 1
