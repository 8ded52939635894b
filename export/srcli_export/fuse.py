"""Checkpoint -> fused network: everything that can be computed once is folded into convolutions.

- Residual scaling (paper, section 3.3) goes into the second convolution of each block.
- Batch norm of SRResNet, in its evaluation form, goes into the convolution before it.
- The inner pixel range (0-255) goes into the biases: convolutions, ReLU, PReLU, skips and PixelShuffles are
  homogeneous, so biases b / range on pixels 0-1 give what biases b give on pixels 0-range, over range.
- Upsampler and tail become one convolution. EDSR and MDSR have no activation after the body (paper,
  figures 3 and 5): up to three convolutions with PixelShuffles in between, most on more pixels than LR has.
  As one 5×5 convolution on LR they take a fifth of the multiply-adds at x4, and no features at the output's
  size. At the picture's border the result differs, since each convolution pads its own input with zeros;
  there the layers themselves run, on a strip.
- The mean shift stays: zero padding comes after it, so a bias would be wrong at the border.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from srcli.errors import ExportError
from srcli.models.spec import ModelSpec
from srcli_export.layers import (
    Chain,
    Conv,
    FineConv,
    Layer,
    Rectifier,
    Shuffle,
    Skip,
    Upscale,
    Weights,
    multiply_adds,
    parameter_count,
    radius,
    upscale_factor,
)
from srcli_train.checkpoint import Checkpoint, load_checkpoint
from srcli_train.networks import (
    EDSR,
    MDSR,
    Body,
    NetworkSpec,
    NormBlock,
    ResBlock,
    SRResNet,
    build,
    exact_halo,
)
from srcli_train.start import MERGED

_CHANNELS_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class FusedNetwork:
    """A checkpoint, its network in evaluation mode, and the fused layers by scale."""

    checkpoint: Checkpoint
    network: nn.Module
    layers: Mapping[int, Chain]


def load_fused(path: Path) -> FusedNetwork:
    """The network of a checkpoint, fused at each of its scales.

    Raises:
        TrainingError: the checkpoint is missing, damaged or of another version.
        ExportError: its weights are not those of the network it describes.
    """
    checkpoint = load_checkpoint(path)
    spec = checkpoint.network
    try:
        network = build(spec)
        network.load_state_dict(checkpoint.weights)
        network.float().eval()
        layers = {scale: fuse(network, spec, scale) for scale in spec.scales}
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ExportError(f"{path}: the weights do not fit the network {spec.name!r} ({error}).") from error
    return FusedNetwork(checkpoint, network, layers)


def describe(checkpoint: Checkpoint, scale: int, layers: Chain) -> ModelSpec:
    """The spec of a checkpoint's network at one scale, with the exact halo as its halo."""
    network, halo = checkpoint.network, exact_halo(checkpoint.network, scale)
    return ModelSpec(
        name=network.name,
        family=network.family,
        scale=scale,
        blocks=network.blocks,
        features=network.features,
        parameters=parameter_count(layers),
        macs=multiply_adds(layers),
        exact_halo=halo,
        halo=halo,
        training=checkpoint.facts,
        quality=checkpoint.quality.get(str(scale), {}),
    )


def fuse(network: nn.Module, spec: NetworkSpec, scale: int) -> Chain:
    """The fused network at `scale`, on pixels 0-1 with the mean colour subtracted.

    Args:
        network: `build(spec)` with its trained weights; batch norm is folded as in evaluation.
        spec: what the network was built from.
        scale: one of spec.scales; the branches of other scales are left out.
    """
    return fuse_upsampler(fold(network, spec, scale))


def fold(network: nn.Module, spec: NetworkSpec, scale: int) -> Chain:
    """The same with upsampler and tail as they were trained."""
    layers = _FAMILIES[spec.family](network, scale)
    return tuple(_without_range(layer, spec.pixel_range) for layer in layers)


def fuse_upsampler(layers: Chain) -> Chain:
    """The same network with the convolutions after its last activation or skip fused into one.

    A network that ends in a single convolution, as SRResNet does, is returned as it is.
    """
    count = next(n for n, layer in enumerate((*reversed(layers), None)) if not _is_linear(layer))
    before, end = layers[: len(layers) - count], layers[len(layers) - count :]
    if not any(isinstance(layer, Shuffle) for layer in end):
        return layers
    return (*before, _upscale(end))


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


def _is_linear(layer: Layer | None) -> bool:
    return isinstance(layer, Conv | FineConv | Shuffle)


def _upscale(layers: Chain) -> Upscale:
    first = layers[0]
    assert isinstance(first, Conv), "features are not shuffled before they are summed"
    stem, dot, _ = first.name.rpartition(".")
    assert dot, "the fused layer needs a name of its own"
    return Upscale(FineConv(f"{stem}.{MERGED}", *_kernel(first, layers)), layers)


def _kernel(first: Conv, layers: Chain) -> tuple[Weights, Weights]:
    """Kernel (factor² * channels, in, 2r + 1, 2r + 1) and bias, measured as impulse responses in float64."""
    r, factor = ceil(radius(layers)), upscale_factor(layers)
    inputs, middle, side = first.weight.shape[1], 2 * r, 4 * r + 1
    near = slice(middle - r, middle + r + 1)

    def respond(x: Tensor) -> Tensor:
        """(N, channels, down, factor, across, factor)"""
        y = _run(layers, x)
        return y.reshape(len(y), -1, side, factor, side, factor)

    zero, kernel = respond(torch.zeros(1, inputs, side, side, dtype=torch.float64)), []
    for start in range(0, inputs, _CHANNELS_AT_ONCE):
        channels = torch.eye(inputs, dtype=torch.float64)[start : start + _CHANNELS_AT_ONCE]
        response = respond(F.pad(channels[:, :, None, None], (middle,) * 4)) - zero
        response = response[:, :, near, :, near].flip(2, 4)  # a kernel is its impulse response mirrored
        kernel.append(response.permute(1, 3, 5, 0, 2, 4).flatten(0, 2))
    return _numpy(torch.cat(kernel, dim=1)), _numpy(zero[0, :, middle, :, middle].flatten())


def _run(layers: Sequence[Layer], x: Tensor) -> Tensor:
    """Run the layers in float64."""
    for layer in layers:
        match layer:
            case Conv(_, weight, bias) | FineConv(_, weight, bias):
                kernel, shift = (torch.from_numpy(values).double() for values in (weight, bias))
                x = F.conv2d(x, kernel, shift, padding=weight.shape[-1] // 2)
            case Shuffle(_, factor):
                x = F.pixel_shuffle(x, factor)
    return x


def _numpy(values: Tensor) -> Weights:
    """A copy in fp32."""
    return values.detach().to("cpu", torch.float32).numpy().copy()
