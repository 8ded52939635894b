"""Training network -> deployment layers: everything that can be folded into a convolution is.

- Residual scaling (paper, section 3.3) goes into the second convolution of each block.
- Batch norm of SRResNet, in its evaluation form, goes into the convolution before it.
- The inner pixel range (0-255) vanishes: convolutions, ReLU, PReLU, skips and PixelShuffle scale with their
  input, so a network of biases b / range on pixels x gives what biases b give on range * x, over range.
- The mean shift stays: zero padding comes after it, so a bias could not stand for it at the border.
"""

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from srcli_export.layers import Chain, Conv, FineConv, Layer, Rectifier, Shuffle, Skip
from srcli_train.networks import EDSR, MDSR, NetworkSpec, SRResNet
from srcli_train.networks.layers import Body, ResBlock
from srcli_train.networks.srresnet import NormBlock


def fuse(network: nn.Module, spec: NetworkSpec, scale: int) -> Chain:
    """The layers that run at `scale`, on pixels 0-1 with the mean colour subtracted.

    Args:
        network: `build(spec)` with its trained weights; batch norm is folded as in evaluation.
        spec: what the network was built from.
        scale: one of spec.scales; the branches of other scales are left out.
    """
    layers = _FAMILIES[spec.family](network, scale)
    return tuple(_without_range(layer, spec.pixel_range) for layer in layers)


def _edsr(network: nn.Module, scale: int) -> Chain:
    edsr = cast(EDSR, network)
    up = _upsampler("upsampler", edsr.upsampler)
    return (_conv("head", edsr.head), _body(edsr.body), *up, _fine("tail", edsr.tail))


def _mdsr(network: nn.Module, scale: int) -> Chain:
    mdsr = cast(MDSR, network)
    pre_process = cast(nn.Sequential, mdsr.pre_process[str(scale)])
    before = _res_blocks(f"pre_process.{scale}", pre_process)
    up = _upsampler(f"upsampler.{scale}", cast(nn.Sequential, mdsr.upsampler[str(scale)]))
    return (_conv("head", mdsr.head), *before, _body(mdsr.body), *up, _fine("tail", mdsr.tail))


def _srresnet(network: nn.Module, scale: int) -> Chain:
    srresnet = cast(SRResNet, network)
    head, prelu = srresnet.head
    blocks = tuple(
        _norm_block(f"blocks.{i}", cast(NormBlock, block)) for i, block in enumerate(srresnet.blocks)
    )
    body = Skip("body", (*blocks, _normed("last", *srresnet.last)))
    up = _upsampler("upsampler", srresnet.upsampler)
    return (_conv("head", head), _rectifier("head", prelu), body, *up, _fine("tail", srresnet.tail))


_FAMILIES: dict[str, Callable[[nn.Module, int], Chain]] = {
    "edsr": _edsr,
    "mdsr": _mdsr,
    "srresnet": _srresnet,
}


def _body(body: Body) -> Skip:
    return Skip("body", (*_res_blocks("body.blocks", body.blocks), _conv("body.last", body.last)))


def _res_blocks(name: str, blocks: nn.Sequential) -> Chain:
    return tuple(_res_block(f"{name}.{i}", cast(ResBlock, block)) for i, block in enumerate(blocks))


def _res_block(name: str, block: ResBlock) -> Skip:
    second = _scaled(_conv(f"{name}.conv2", block.conv2), np.array(block.scale))
    return Skip(name, (_conv(f"{name}.conv1", block.conv1), Rectifier(name, None), second))


def _norm_block(name: str, block: NormBlock) -> Skip:
    first = _normed(f"{name}.conv1", block.conv1, block.norm1)
    second = _normed(f"{name}.conv2", block.conv2, block.norm2)
    return Skip(name, (first, _rectifier(name, block.activation), second))


def _upsampler(name: str, modules: nn.Sequential) -> Chain:
    return tuple(_UPSAMPLER[type(module)](f"{name}.{i}", module) for i, module in enumerate(modules))


def _conv(name: str, module: nn.Module) -> Conv:
    conv = cast(nn.Conv2d, module)
    assert conv.bias is not None
    return Conv(name, _numpy(conv.weight), _numpy(conv.bias))


def _fine(name: str, module: nn.Module) -> FineConv:
    conv = _conv(name, module)
    return FineConv(name, conv.weight, conv.bias)


def _rectifier(name: str, module: nn.Module) -> Rectifier:
    return Rectifier(name, _numpy(cast(nn.PReLU, module).weight).reshape(-1, 1, 1))


def _shuffle(name: str, module: nn.Module) -> Shuffle:
    return Shuffle(name, cast(nn.PixelShuffle, module).upscale_factor)


_UPSAMPLER: dict[type[nn.Module], Callable[[str, nn.Module], Layer]] = {
    nn.Conv2d: _conv,
    nn.PReLU: _rectifier,
    nn.PixelShuffle: _shuffle,
}


def _normed(name: str, module: nn.Module, norm: nn.Module) -> Conv:
    """A convolution and the batch norm after it as one convolution, computed in float64."""
    bn = cast(nn.BatchNorm2d, norm)
    assert bn.running_mean is not None
    assert bn.running_var is not None
    mean, variance = _numpy(bn.running_mean).astype(np.float64), _numpy(bn.running_var).astype(np.float64)
    conv = _scaled(_conv(name, module), _numpy(bn.weight) / np.sqrt(variance + bn.eps))
    shift = _numpy(bn.bias) - mean * _numpy(bn.weight) / np.sqrt(variance + bn.eps)
    return Conv(name, conv.weight, (conv.bias + shift).astype(np.float32))


def _scaled(conv: Conv, factor: NDArray[np.floating]) -> Conv:
    """A convolution whose output is multiplied by one factor, or by one a channel."""
    weight = conv.weight * np.reshape(factor, (-1, 1, 1, 1))
    return Conv(conv.name, weight.astype(np.float32), (conv.bias * factor).astype(np.float32))


def _without_range(layer: Layer, pixel_range: float) -> Layer:
    match layer:
        case Conv(name, weight, bias):
            return Conv(name, weight, (bias / pixel_range).astype(np.float32))
        case FineConv(name, weight, bias):
            return FineConv(name, weight, (bias / pixel_range).astype(np.float32))
        case Skip(name, layers):
            return Skip(name, tuple(_without_range(inner, pixel_range) for inner in layers))
    return layer


def _numpy(values: torch.Tensor) -> NDArray[np.float32]:
    return values.detach().to("cpu", torch.float32).numpy().copy()
