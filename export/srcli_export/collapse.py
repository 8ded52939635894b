"""Upsampler and tail as one convolution: nothing but sums lies between them, and sums of sums are sums.

EDSR and MDSR have no activation after the body (paper, figures 3 and 5): up to three convolutions with
PixelShuffle in between, most of them on more pixels than LR has. Together they are one convolution on LR with
a kernel of 5×5, which at x4 takes a fifth of the multiply-adds, and no features on the picture's pixels.

At the border of the picture that is not the same, since each of the convolutions pads its own input with
zeros. There, the layers themselves run on a strip.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from srcli_export.layers import Chain, Conv, FineConv, Layer, Shuffle, Upscale, Weights, enlargement, reach
from srcli_train.deployed import MERGED

_AT_ONCE = 32  # channels


def collapsed(layers: Chain) -> Chain:
    """The same network, with the convolutions after its last activation or skip as one.

    Args:
        layers: as `fuse` gives them.

    Returns:
        The network as it was where it ends in a single convolution, as SRResNet does.
    """
    count = next(n for n, layer in enumerate((*reversed(layers), None)) if not _is_linear(layer))
    before, end = layers[: len(layers) - count], layers[len(layers) - count :]
    if not any(isinstance(layer, Shuffle) for layer in end):
        return layers
    return (*before, _upscale(end))


def _is_linear(layer: Layer | None) -> bool:
    return isinstance(layer, Conv | FineConv | Shuffle)


def _upscale(layers: Chain) -> Upscale:
    first = layers[0]
    assert isinstance(first, Conv), "features are not shuffled before they are summed"
    stem, dot, _ = first.name.rpartition(".")
    assert dot, "the merged layer is told from trained ones by its name"
    return Upscale(FineConv(f"{stem}.{MERGED}", *_kernel(first, layers)), layers)


def _kernel(first: Conv, layers: Chain) -> tuple[Weights, Weights]:
    """(factor² * channels, in, 2 * radius + 1, ...) and (factor² * channels,): what single pixels lead to."""
    radius, factor = ceil(reach(layers)), enlargement(layers)
    inputs, middle, side = first.weight.shape[1], 2 * radius, 4 * radius + 1
    near = slice(middle - radius, middle + radius + 1)

    def answer(x: Tensor) -> Tensor:
        """(N, channels, down, factor, across, factor)"""
        y = _run(layers, x)
        return y.reshape(len(y), -1, side, factor, side, factor)

    nothing, kernel = answer(torch.zeros(1, inputs, side, side, dtype=torch.float64)), []
    for start in range(0, inputs, _AT_ONCE):
        channels = torch.eye(inputs, dtype=torch.float64)[start : start + _AT_ONCE]
        around = answer(F.pad(channels[:, :, None, None], (middle,) * 4)) - nothing
        around = around[:, :, near, :, near].flip(2, 4)  # a pixel leads to what lies on its other side
        kernel.append(around.permute(1, 3, 5, 0, 2, 4).flatten(0, 2))
    return _numpy(torch.cat(kernel, dim=1)), _numpy(nothing[0, :, middle, :, middle].flatten())


def _run(layers: Sequence[Layer], x: Tensor) -> Tensor:
    """The layers as they are, in float64."""
    for layer in layers:
        match layer:
            case Conv(_, weight, bias) | FineConv(_, weight, bias):
                kernel, shift = (torch.from_numpy(values).double() for values in (weight, bias))
                x = F.conv2d(x, kernel, shift, padding=weight.shape[-1] // 2)
            case Shuffle(_, factor):
                x = F.pixel_shuffle(x, factor)
    return x


def _numpy(values: Tensor) -> Weights:
    return np.ascontiguousarray(values.numpy(), np.float32)
