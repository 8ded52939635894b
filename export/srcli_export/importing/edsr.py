"""EDSR and MDSR in the formats of EDSR-PyTorch and super-image."""

import json
import logging
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
from srcli_export.fuse import fuse_upsampler
from srcli_export.importing.source import FusedSource, MeanColor, Request
from srcli_export.importing.state_dict import Branch, Layout, find_layout, unwrapped
from srcli_export.layers import (
    Chain,
    Conv,
    FineConv,
    Rectifier,
    Shuffle,
    Skip,
    multiply_adds,
    parameter_count,
    radius,
)
from srcli_train.networks import MEAN_RGB

_CONFIG = "config.json"
_SUPER_IMAGE_FILE = re.compile(r"pytorch_model(_\d+x)?")
_PUBLISHED_SCALING = 0.1
LARGE = 256
"""Features from which EDSR was published with residual scaling (paper, section 3.3)."""
_SAME_COLOR = 1e-4
_SIDE = 48
_FAR_BETTER = 4  # times less squared error: 6 dB
_IDENTITY = 1e-6

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Convention:
    """What pixels a network takes.

    Attributes:
        range: pixels are 0 to this.
        mean: the colour subtracted before and added after the network, on 0-1.
        shifts: the mean shift in the file: biases before and after, on 0-range; None if it has none.
    """

    range: float
    mean: MeanColor
    shifts: tuple[Tensor, Tensor] | None = None


_SUPER_IMAGE = Convention(1.0, (0.0, 0.0, 0.0))


class ForeignEDSR(nn.Module):
    """EDSR or MDSR as the file has it: its own mean shift, range and residual scaling, nothing folded."""

    def __init__(
        self, state: Mapping[str, Tensor], layout: Layout, convention: Convention, scaling: float
    ) -> None:
        super().__init__()
        self.state, self.layout, self.convention, self.scaling = state, layout, convention, scaling

    def forward(self, image: Tensor, scale: int) -> Tensor:
        """(N, 3, H, W) float32 0-1 -> (N, 3, scale * H, scale * W), not clipped."""
        (branch,) = (branch for branch in self.layout.branches if branch.scale == scale)
        x = self._conv(self._shifted(image * self.convention.range, -1), self.layout.head)
        x = self._blocks(x, branch.blocks)
        x = x + self._conv(self._blocks(x, self.layout.blocks), self.layout.last)
        for key, factor in branch.upsampler:
            x = F.pixel_shuffle(self._conv(x, key), factor)
        return self._shifted(self._conv(x, self.layout.tail), 1) / self.convention.range

    def _blocks(self, x: Tensor, blocks: tuple[tuple[str, str], ...]) -> Tensor:
        for first, second in blocks:
            x = x + self.scaling * self._conv(torch.relu(self._conv(x, first)), second)
        return x

    def _conv(self, x: Tensor, key: str) -> Tensor:
        weight = self.state[f"{key}.weight"]
        return F.conv2d(x, weight, self.state[f"{key}.bias"], padding=weight.shape[-1] // 2)

    def _shifted(self, x: Tensor, sign: int) -> Tensor:
        if self.convention.shifts is None:
            return x + sign * self.convention.range * torch.tensor(self.convention.mean).view(1, 3, 1, 1)
        return x + self.convention.shifts[sign > 0].view(1, 3, 1, 1)


def from_state(request: Request, state: Mapping[str, Tensor]) -> FusedSource | None:
    """The network in a state dict of EDSR or MDSR; None if it is of something else.

    Raises:
        ModelFileError: its mean shift is not one, or the config.json beside it is of another network.
    """
    layout, names = find_layout(state), unwrapped(state)
    if layout is None:
        return None
    config = _config(request, layout)
    is_super_image = config is not None or _is_super_image(request, layout)
    origin = "super-image" if is_super_image else "EDSR-PyTorch"
    _log.info(
        "Read as %s of %s: %d blocks, %d features.",
        *(layout.family.upper(), origin, len(layout.blocks), layout.features),
    )
    convention = _SUPER_IMAGE if is_super_image else _convention(request.file, names)
    if not is_super_image:
        _log_mean(convention)
    scaling = _scaling(request, config or {}, layout)
    _log.info("Residual scaling %g is assumed: weights do not tell it (--residual-scale).", scaling)
    network = ForeignEDSR(names, layout, convention, scaling).eval()
    if request.convention == "auto" and layout.family == "edsr" and config is None:
        _check_convention(request, network, is_super_image)
    layers = {
        branch.scale: fuse_upsampler(_layers(names, layout, branch, convention, scaling))
        for branch in layout.branches
    }
    specs = {scale: _spec(layout, scale, chain) for scale, chain in layers.items()}
    return FusedSource(origin, network, specs, layers, convention.mean)


def _is_super_image(request: Request, layout: Layout) -> bool:
    """Whether super-image's convention holds. EDSR's keys are the same in both: the file's name decides."""
    if request.convention != "auto":
        return request.convention == "super-image"
    wrapped = layout.family == "mdsr" and layout.wrapped
    return wrapped or bool(_SUPER_IMAGE_FILE.fullmatch(request.file.stem))


def _check_convention(request: Request, network: ForeignEDSR, is_super_image: bool) -> None:
    """Warn if a smooth picture comes out far better in the other convention: keys do not tell them apart."""
    names, scale, ramp = network.state, network.layout.branches[0].scale, torch.linspace(0, 1, _SIDE)
    convention = _convention(request.file, names) if is_super_image else _SUPER_IMAGE
    other = ForeignEDSR(names, network.layout, convention, network.scaling).eval()
    colors = [ramp.view(-1, 1) * ramp, ramp.view(-1, 1).expand(-1, _SIDE), (1 - ramp).expand(_SIDE, -1)]
    picture = torch.stack(colors)[None]
    with torch.inference_mode():
        smaller = [F.avg_pool2d(one(picture, scale), scale) for one in (network, other)]
    errors = [float((result - picture).square().mean()) for result in smaller]
    if errors[1] < errors[0] / _FAR_BETTER:
        better = "edsr-pytorch" if is_super_image else "super-image"
        _log.warning("These weights make a far better picture when read with --convention %s.", better)


def _config(request: Request, layout: Layout) -> Mapping[str, Any] | None:
    """super-image's config.json beside the file, if it is of this family."""
    path = request.file.with_name(_CONFIG)
    if request.convention == "edsr-pytorch" or not path.is_file():
        return None
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict) or str(config.get("model_type")).lower() != layout.family:
        return None
    described = config.get("n_resblocks"), config.get("n_feats")
    if layout.family == "edsr" and described != (len(layout.blocks), layout.features):
        hint = "Move the weights to a folder of their own, or say --convention edsr-pytorch."
        raise ModelFileError(f"{path}: describes another network than {request.file.name}.", hint)
    return config


def _scaling(request: Request, config: Mapping[str, Any], layout: Layout) -> float:
    """As asked for, else as config.json says, else as published for this network."""
    if request.residual_scale is not None:
        return request.residual_scale
    if isinstance(config.get("res_scale"), int | float):
        return float(config["res_scale"])
    if layout.family == "mdsr":
        return _PUBLISHED_SCALING if layout.wrapped else 1.0
    return _PUBLISHED_SCALING if layout.features >= LARGE else 1.0


def _convention(path: Path, names: Mapping[str, Tensor]) -> Convention:
    """Range and mean colour from the file's mean shift: 1×1 convolutions, identities but for their biases."""
    if "sub_mean.bias" not in names or "add_mean.bias" not in names:
        return Convention(255.0, MEAN_RGB)
    biases = names["sub_mean.bias"].reshape(-1), names["add_mean.bias"].reshape(-1)
    limit = 255.0 if float(biases[0].abs().max()) > 1 else 1.0
    if not (_is_identity(names, "sub_mean") and _is_identity(names, "add_mean") and _opposite(*biases)):
        hint = "srcli runs networks that subtract a mean colour and add it again."
        raise ModelFileError(f"{path}: its mean shift does more than shift.", hint)
    red, green, blue = (-biases[0].double() / limit).tolist()
    if not 0 <= min(red, green, blue) <= max(red, green, blue) <= 1:
        raise ModelFileError(f"{path}: its mean colour is outside 0-{limit:g}.")
    return Convention(limit, (red, green, blue), biases)


def _log_mean(convention: Convention) -> None:
    """Log a mean colour that is assumed, or not that of DIV2K."""
    if convention.shifts is None:
        _log.info("No mean colour in the file: DIV2K's and pixels 0-255 are assumed.")
    elif max(abs(a - b) for a, b in zip(convention.mean, MEAN_RGB, strict=True)) > _SAME_COLOR:
        color = ", ".join(f"{value:.4f}" for value in convention.mean)
        _log.info("It subtracts the mean colour %s, not DIV2K's; so does its export.", color)


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
    names: Mapping[str, Tensor], layout: Layout, branch: Branch, convention: Convention, scaling: float
) -> Chain:
    """The layers with range and residual scaling folded into the convolutions, as in `fuse.fold`."""

    def conv(name: str, key: str, factor: float = 1.0) -> Conv:
        weight = names[f"{key}.weight"].double() * factor
        bias = names[f"{key}.bias"].double() * factor / convention.range
        return Conv(name, weight.float().numpy(), bias.float().numpy())

    def block(name: str, first: str, second: str) -> Skip:
        layers = (conv(f"{name}.conv1", first), Rectifier(name, None), conv(f"{name}.conv2", second, scaling))
        return Skip(name, layers)

    own = f".{branch.scale}" if layout.family == "mdsr" else ""
    before = [block(f"pre_process{own}.{i}", *pair) for i, pair in enumerate(branch.blocks)]
    body = [block(f"body.blocks.{i}", *pair) for i, pair in enumerate(layout.blocks)]
    up: list[Conv | Shuffle] = []
    for i, (key, factor) in enumerate(branch.upsampler):
        up += [conv(f"upsampler{own}.{2 * i}", key), Shuffle(f"upsampler{own}.{2 * i + 1}", factor)]
    tail = conv("tail", layout.tail)
    return (
        conv("head", layout.head),
        *before,
        Skip("body", (*body, conv("body.last", layout.last))),
        *up,
        FineConv("tail", tail.weight, tail.bias),
    )


def _spec(layout: Layout, scale: int, layers: Chain) -> ModelSpec:
    halo = ceil(radius(layers))
    return ModelSpec(
        name=layout.family,
        family=layout.family,
        scale=scale,
        blocks=len(layout.blocks),
        features=layout.features,
        parameters=parameter_count(layers),
        macs=multiply_adds(layers),
        exact_halo=halo,
        halo=halo,
    )
