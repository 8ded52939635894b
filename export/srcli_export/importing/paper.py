"""EDSR and MDSR in the formats of EDSR-PyTorch and super-image."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srcli.errors import ModelFileError
from srcli.models.spec import ModelSpec
from srcli_export.collapse import collapsed
from srcli_export.importing.chains import ChainSource, MeanColor
from srcli_export.importing.naming import Branch, Layout, layout, unwrapped
from srcli_export.importing.request import Request
from srcli_export.layers import (
    Chain,
    Conv,
    FineConv,
    Rectifier,
    Shuffle,
    Skip,
    multiply_adds,
    parameter_count,
    reach,
)
from srcli_train.networks.layers import MEAN_RGB

_CONFIG = "config.json"
_SUPER_IMAGE_FILE = re.compile(r"pytorch_model(_\d+x)?")
_PUBLISHED_SCALING = 0.1
LARGE = 256
"""Features from which EDSR was published with residual scaling (paper, section 3.3)."""
_SAME_COLOR = 1e-4
_SIDE = 48
_FAR_BETTER = 4  # times less squared error: 6 dB
_IDENTITY = 1e-6


@dataclass(frozen=True, slots=True)
class Pixels:
    """What a network takes as pixels.

    Attributes:
        range: they run from 0 to this.
        mean: the colour taken off before and added after the network, on 0-1.
        shifts: the same as the file has it: what is added before and after; None if it does not say.
    """

    range: float
    mean: MeanColor
    shifts: tuple[Tensor, Tensor] | None = None


_SUPER_IMAGE_PIXELS = Pixels(1.0, (0.0, 0.0, 0.0))


class PaperNetwork(nn.Module):
    """The network as the file has it: its own mean shift, range and residual scaling, nothing folded."""

    def __init__(self, state: Mapping[str, Tensor], found: Layout, pixels: Pixels, scaling: float) -> None:
        super().__init__()
        self.state, self.found, self.pixels, self.scaling = state, found, pixels, scaling

    def forward(self, image: Tensor, scale: int) -> Tensor:
        """(N, 3, H, W) float32 0-1 -> (N, 3, scale * H, scale * W), not clipped."""
        (branch,) = (branch for branch in self.found.branches if branch.scale == scale)
        x = self._conv(self._shifted(image * self.pixels.range, -1), self.found.head)
        x = self._blocks(x, branch.blocks)
        x = x + self._conv(self._blocks(x, self.found.blocks), self.found.last)
        for key, factor in branch.steps:
            x = F.pixel_shuffle(self._conv(x, key), factor)
        return self._shifted(self._conv(x, self.found.tail), 1) / self.pixels.range

    def _blocks(self, x: Tensor, blocks: tuple[tuple[str, str], ...]) -> Tensor:
        for first, second in blocks:
            x = x + self.scaling * self._conv(torch.relu(self._conv(x, first)), second)
        return x

    def _conv(self, x: Tensor, key: str) -> Tensor:
        weight = self.state[f"{key}.weight"]
        return F.conv2d(x, weight, self.state[f"{key}.bias"], padding=weight.shape[-1] // 2)

    def _shifted(self, x: Tensor, sign: int) -> Tensor:
        if self.pixels.shifts is None:
            return x + sign * self.pixels.range * torch.tensor(self.pixels.mean).view(1, 3, 1, 1)
        return x + self.pixels.shifts[sign > 0].view(1, 3, 1, 1)


def from_state(request: Request, state: Mapping[str, Tensor]) -> ChainSource | None:
    """The network in a state dict of EDSR or MDSR; None if it is of something else.

    Raises:
        ModelFileError: its mean shift is not one, or the config.json beside it is of another network.
    """
    found, names = layout(state), unwrapped(state)
    if found is None:
        return None
    config = _config(request, found)
    foreign = config is not None or _is_super_image(request, found)
    pixels, notes = (_SUPER_IMAGE_PIXELS, ()) if foreign else _pixels(request.file, names)
    scaling = _scaling(request, config or {}, found)
    notes += (f"residual scaling {scaling:g} is assumed: weights do not tell it (--residual-scale)",)
    origin = "super-image" if foreign else "EDSR-PyTorch"
    layers = {
        branch.scale: collapsed(_layers(names, found, branch, pixels, scaling)) for branch in found.branches
    }
    specs = {scale: _spec(found, scale, chain) for scale, chain in layers.items()}
    network = PaperNetwork(names, found, pixels, scaling).eval()
    if request.convention == "auto" and found.family == "edsr" and config is None:
        other = _pixels(request.file, names)[0] if foreign else _SUPER_IMAGE_PIXELS
        notes += _doubt(network, PaperNetwork(names, found, other, scaling).eval(), foreign)
    said = (
        f"read as {found.family.upper()} of {origin}: {len(found.blocks)} blocks, {found.features} features"
    )
    return ChainSource(origin, (said, *notes), network, specs, layers, pixels.mean)


def _is_super_image(request: Request, found: Layout) -> bool:
    """EDSR's names are the same in both formats: the file's own name decides, unless the user does."""
    if request.convention != "auto":
        return request.convention == "super-image"
    wrapped = found.family == "mdsr" and found.wrapped
    return wrapped or bool(_SUPER_IMAGE_FILE.fullmatch(request.file.stem))


def _doubt(chosen: PaperNetwork, other: PaperNetwork, foreign: bool) -> tuple[str, ...]:
    """A note if the weights keep a smooth picture far better when read the other way: no name tells."""
    scale, ramp = chosen.found.branches[0].scale, torch.linspace(0, 1, _SIDE)
    colors = [ramp.view(-1, 1) * ramp, ramp.view(-1, 1).expand(-1, _SIDE), (1 - ramp).expand(_SIDE, -1)]
    picture = torch.stack(colors)[None]
    with torch.inference_mode():
        smaller = [F.avg_pool2d(network(picture, scale), scale) for network in (chosen, other)]
    errors = [float((result - picture).square().mean()) for result in smaller]
    if not errors[1] < errors[0] / _FAR_BETTER:
        return ()
    name = "edsr-pytorch" if foreign else "super-image"
    return (f"these weights make a far better picture when read with --convention {name}",)


def _config(request: Request, found: Layout) -> Mapping[str, Any] | None:
    """super-image's config.json beside the file, if there is one of this family."""
    path = request.file.with_name(_CONFIG)
    if request.convention == "edsr-pytorch" or not path.is_file():
        return None
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict) or str(config.get("model_type")).lower() != found.family:
        return None
    described = config.get("n_resblocks"), config.get("n_feats")
    if found.family == "edsr" and described != (len(found.blocks), found.features):
        hint = "Move the weights to a folder of their own, or say --convention edsr-pytorch."
        raise ModelFileError(f"{path}: describes another network than {request.file.name}.", hint)
    return config


def _scaling(request: Request, config: Mapping[str, Any], found: Layout) -> float:
    """Asked for, else what the config says, else what was published for this network."""
    if request.residual_scale is not None:
        return request.residual_scale
    if isinstance(config.get("res_scale"), int | float):
        return float(config["res_scale"])
    if found.family == "mdsr":
        return _PUBLISHED_SCALING if found.wrapped else 1.0
    return _PUBLISHED_SCALING if found.features >= LARGE else 1.0


def _pixels(path: Path, names: Mapping[str, Tensor]) -> tuple[Pixels, tuple[str, ...]]:
    """Range and mean colour from the file's mean shift: 1×1 convolutions, identities but for their biases."""
    if "sub_mean.bias" not in names or "add_mean.bias" not in names:
        return Pixels(255.0, MEAN_RGB), ("no mean colour in the file: DIV2K's and pixels 0-255 are assumed",)
    biases = names["sub_mean.bias"].reshape(-1), names["add_mean.bias"].reshape(-1)
    limit = 255.0 if float(biases[0].abs().max()) > 1 else 1.0
    if not (_is_identity(names, "sub_mean") and _is_identity(names, "add_mean") and _opposite(*biases)):
        hint = "srcli runs networks that take a mean colour off and add it again."
        raise ModelFileError(f"{path}: its mean shift does more than shift.", hint)
    red, green, blue = (-biases[0].double() / limit).tolist()
    if not 0 <= min(red, green, blue) <= max(red, green, blue) <= 1:
        raise ModelFileError(f"{path}: its mean colour is outside 0-{limit:g}.")
    same = max(abs(a - b) for a, b in zip((red, green, blue), MEAN_RGB, strict=True)) <= _SAME_COLOR
    note = f"it takes off the mean colour {red:.4f}, {green:.4f}, {blue:.4f}, not DIV2K's; so does its export"
    return Pixels(limit, (red, green, blue), biases), () if same else (note,)


def _is_identity(names: Mapping[str, Tensor], key: str) -> bool:
    weight = names.get(f"{key}.weight")
    if weight is None or weight.numel() != 9:
        return False
    return bool((weight.reshape(3, 3) - torch.eye(3)).abs().max() <= _IDENTITY)


def _opposite(taken: Tensor, added: Tensor) -> bool:
    if taken.shape != (3,) or added.shape != (3,):
        return False
    return bool((taken + added).abs().max() <= _SAME_COLOR * max(1.0, float(taken.abs().max())))


def _layers(
    names: Mapping[str, Tensor], found: Layout, branch: Branch, pixels: Pixels, scaling: float
) -> Chain:
    """The deployment form: range and residual scaling folded into the convolutions, as in `fuse`."""

    def conv(name: str, key: str, factor: float = 1.0) -> Conv:
        weight = names[f"{key}.weight"].double() * factor
        bias = names[f"{key}.bias"].double() * factor / pixels.range
        return Conv(name, weight.float().numpy(), bias.float().numpy())

    def block(name: str, first: str, second: str) -> Skip:
        layers = (conv(f"{name}.conv1", first), Rectifier(name, None), conv(f"{name}.conv2", second, scaling))
        return Skip(name, layers)

    own = f".{branch.scale}" if found.family == "mdsr" else ""
    before = [block(f"pre_process{own}.{i}", *pair) for i, pair in enumerate(branch.blocks)]
    body = [block(f"body.blocks.{i}", *pair) for i, pair in enumerate(found.blocks)]
    up: list[Conv | Shuffle] = []
    for i, (key, factor) in enumerate(branch.steps):
        up += [conv(f"upsampler{own}.{2 * i}", key), Shuffle(f"upsampler{own}.{2 * i + 1}", factor)]
    tail = conv("tail", found.tail)
    return (
        conv("head", found.head),
        *before,
        Skip("body", (*body, conv("body.last", found.last))),
        *up,
        FineConv("tail", tail.weight, tail.bias),
    )


def _spec(found: Layout, scale: int, layers: Chain) -> ModelSpec:
    halo = ceil(reach(layers))
    return ModelSpec(
        name=found.family,
        family=found.family,
        scale=scale,
        blocks=len(found.blocks),
        features=found.features,
        parameters=parameter_count(layers),
        macs=multiply_adds(layers),
        exact_halo=halo,
        halo=halo,
    )
