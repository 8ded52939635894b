"""State dicts as other programs write them, and what they mean, in plain torch.nn.functional."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

FEATURES = 6
BLOCKS = 2
MEAN = torch.tensor([0.4488, 0.4371, 0.4040])

State = dict[str, Tensor]
Conv = Callable[[Tensor, str], Tensor]


def _conv(
    state: State, generator: torch.Generator, name: str, outputs: int, inputs: int, side: int = 3
) -> None:
    """A convolution that keeps the size of what goes through it, with biases that matter on 0-255."""
    bound = (inputs * side * side) ** -0.5
    state[f"{name}.weight"] = (torch.rand(outputs, inputs, side, side, generator=generator) * 2 - 1) * bound
    state[f"{name}.bias"] = (torch.rand(outputs, generator=generator) - 0.5) * 0.2


def _shifts(state: State, limit: float, mean: Tensor = MEAN) -> None:
    for name, sign in (("sub_mean", -1), ("add_mean", 1)):
        state[f"{name}.weight"] = torch.eye(3).view(3, 3, 1, 1)
        state[f"{name}.bias"] = sign * limit * mean


def edsr(scale: int, features: int = FEATURES, limit: float = 255.0, mean: Tensor = MEAN) -> State:
    """EDSR as EDSR-PyTorch and super-image save it; only what the pixels mean differs between them."""
    state: State = {}
    generator = torch.Generator().manual_seed(scale)
    _shifts(state, limit, mean)
    _conv(state, generator, "head.0", features, 3)
    for i in range(BLOCKS):
        for j in (0, 2):
            _conv(state, generator, f"body.{i}.body.{j}", features, features)
    _conv(state, generator, f"body.{BLOCKS}", features, features)
    for k, factor in enumerate({2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}[scale]):
        _conv(state, generator, f"tail.0.{2 * k}", features * factor**2, features)
    _conv(state, generator, "tail.1", 3, features)
    return state


def mdsr(scales: tuple[int, ...] = (2, 3, 4)) -> State:
    """MDSR as EDSR-PyTorch saves it: branches by number, 5×5 pre-processing."""
    state: State = {}
    generator = torch.Generator().manual_seed(0)
    _shifts(state, 255.0)
    _conv(state, generator, "head.0", FEATURES, 3)
    for i in range(len(scales)):
        for j in (0, 1):
            for k in (0, 2):
                _conv(state, generator, f"pre_process.{i}.{j}.body.{k}", FEATURES, FEATURES, 5)
    for i in range(BLOCKS):
        for j in (0, 2):
            _conv(state, generator, f"body.{i}.body.{j}", FEATURES, FEATURES)
    _conv(state, generator, f"body.{BLOCKS}", FEATURES, FEATURES)
    for i, scale in enumerate(scales):
        for k, factor in enumerate({2: (2,), 3: (3,), 4: (2, 2)}[scale]):
            _conv(state, generator, f"upsample.{i}.{2 * k}", FEATURES * factor**2, FEATURES)
    _conv(state, generator, "tail.0", 3, FEATURES)
    return state


def super_image_mdsr(scale: int) -> State:
    """MDSR as super-image saves it: one branch by its scale, 3×3 pre-processing, wrapped convolutions."""
    state: State = {}
    generator = torch.Generator().manual_seed(1)
    _conv(state, generator, "head.0.0", FEATURES, 3)
    for folder, count in ((f"pre_process.{scale}", 2), ("body", BLOCKS)):
        for i in range(count):
            for k in (0, 2):
                _conv(state, generator, f"{folder}.{i}.body.{k}.0", FEATURES, FEATURES)
    _conv(state, generator, f"body.{BLOCKS}.0", FEATURES, FEATURES)
    for k, factor in enumerate({2: (2,), 3: (3,), 4: (2, 2)}[scale]):
        _conv(state, generator, f"upsample.{scale}.{2 * k}.0", FEATURES * factor**2, FEATURES)
    _conv(state, generator, "tail.0.0", 3, FEATURES)
    _shifts(state, 255.0)
    return state


def _conv_of(state: State, wrapped: str = "") -> Conv:
    def conv(x: Tensor, name: str) -> Tensor:
        weight = state[f"{name}{wrapped}.weight"]
        return F.conv2d(x, weight, state[f"{name}{wrapped}.bias"], padding=weight.shape[-1] // 2)

    return conv


def _block(conv: Conv, x: Tensor, name: str, scaling: float) -> Tensor:
    return conv(F.relu(conv(x, f"{name}.body.0")), f"{name}.body.2") * scaling + x


def _up(conv: Conv, x: Tensor, folder: str, scale: int) -> Tensor:
    for k, factor in enumerate({2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}[scale]):
        x = F.pixel_shuffle(conv(x, f"{folder}.{2 * k}"), factor)
    return x


def run_edsr(state: State, image: Tensor, scale: int, *, limit: float, shift: bool, scaling: float) -> Tensor:
    """Image and result on 0-1; the network works on 0-limit, with its mean shift or without."""
    conv = _conv_of(state)
    x = image * limit
    if shift:
        x = F.conv2d(x, state["sub_mean.weight"], state["sub_mean.bias"])
    head = body = conv(x, "head.0")
    for i in range(BLOCKS):
        body = _block(conv, body, f"body.{i}", scaling)
    x = conv(_up(conv, conv(body, f"body.{BLOCKS}") + head, "tail.0", scale), "tail.1")
    if shift:
        x = F.conv2d(x, state["add_mean.weight"], state["add_mean.bias"])
    return x / limit


def run_mdsr(state: State, image: Tensor, scales: tuple[int, ...], scale: int) -> Tensor:
    conv, branch = _conv_of(state), scales.index(scale)
    x = F.conv2d(image * 255, state["sub_mean.weight"], state["sub_mean.bias"])
    x = conv(x, "head.0")
    for j in (0, 1):
        x = _block(conv, x, f"pre_process.{branch}.{j}", 1.0)
    body = x
    for i in range(BLOCKS):
        body = _block(conv, body, f"body.{i}", 1.0)
    x = conv(_up(conv, conv(body, f"body.{BLOCKS}") + x, f"upsample.{branch}", scale), "tail.0")
    return F.conv2d(x, state["add_mean.weight"], state["add_mean.bias"]) / 255


def run_super_image_mdsr(state: State, image: Tensor, scale: int, scaling: float = 0.1) -> Tensor:
    conv = _conv_of(state, ".0")
    x = conv(image, "head.0")
    for j in (0, 1):
        x = _block(conv, x, f"pre_process.{scale}.{j}", scaling)
    body = x
    for i in range(BLOCKS):
        body = _block(conv, body, f"body.{i}", scaling)
    return conv(_up(conv, conv(body, f"body.{BLOCKS}") + x, f"upsample.{scale}", scale), "tail.0")
