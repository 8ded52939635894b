"""The layers of a fused network, with all weights as NumPy arrays, and what is counted on them.

Every network of the paper is a chain of these layers between subtracting and adding the mean colour.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod

import numpy as np
import torch
from numpy.typing import NDArray

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution with zero padding that keeps height and width.

    Attributes:
        name: of the module in the training network; unique, and the same for every scale.
        weight: (out, in, k, k) float32.
        bias: (out,) float32.
    """

    name: str
    weight: Weights
    bias: Weights


@dataclass(frozen=True, slots=True)
class FineConv:
    """A convolution exported as the sum of two: one has the leading bits of the weights, one the rest.

    An engine that computes in bf16 keeps 8 bits of a weight. That error is the same for every pixel, so the
    tail would change the picture's brightness; two convolutions keep 16 bits. In fp32 the result is the same.
    Six output channels cost as much as three, since engines compute eight or sixteen at a time. (A fused
    upsampler has up to 96 instead of 48.)

    Attributes: as of Conv.
    """

    name: str
    weight: Weights
    bias: Weights

    @property
    def split(self) -> tuple[Weights, Weights]:
        """Kernel (2 * out, in, k, k) and bias (2 * out,): leading bits, then the rest with a bias of 0."""
        leading = torch.from_numpy(self.weight).bfloat16().float().numpy()
        weight = np.concatenate([leading, self.weight - leading])
        return weight, np.concatenate([self.bias, np.zeros_like(self.bias)])


@dataclass(frozen=True, slots=True)
class Rectifier:
    """max(x, 0) + slope * min(x, 0): a PReLU, or a ReLU if there is no slope.

    Attributes:
        name: of the module in the training network.
        slope: None, or (channels, 1, 1) float32, or (1, 1, 1) for one slope shared by all channels.
    """

    name: str
    slope: Weights | None


@dataclass(frozen=True, slots=True)
class Shuffle:
    """PixelShuffle: (N, C * factor**2, H, W) -> (N, C, factor * H, factor * W)."""

    name: str
    factor: int


@dataclass(frozen=True, slots=True)
class Skip:
    """x + layers(x)."""

    name: str
    layers: "Chain"


@dataclass(frozen=True, slots=True)
class Upscale:
    """Convolutions and PixelShuffles without activations, fused into one of each: see `fuse_upsampler`.

    Attributes:
        fused: one convolution on LR, to (factor**2 * channels) channels, before one PixelShuffle.
        exact: the layers as trained, a convolution first; they run where zero padding matters.
    """

    fused: FineConv
    exact: "Chain"

    @property
    def factor(self) -> int:
        """Output size / input size."""
        return upscale_factor(self.exact)

    @property
    def edge(self) -> int:
        """Width of the picture's border, in LR pixels, where `fused` is wrong and `exact` runs."""
        return ceil(radius(self.exact) - radius(self.exact[:1]))

    @property
    def context(self) -> int:
        """Width of the strip, in LR pixels, that this border depends on."""
        return self.edge + ceil(radius(self.exact))


Layer = Conv | FineConv | Rectifier | Shuffle | Skip | Upscale
Chain = tuple[Layer, ...]


def arrays(layers: Sequence[Layer]) -> Iterator[tuple[str, Weights]]:
    """(initialiser name, values) of every weight, in the order the network runs."""
    for layer in layers:
        match layer:
            case Conv(name, weight, bias):
                yield f"{name}.weight", weight
                yield f"{name}.bias", bias
            case FineConv(name):
                yield f"{name}.weight", layer.split[0]
                yield f"{name}.bias", layer.split[1]
            case Rectifier(name, slope) if slope is not None:
                yield f"{name}.slope", slope
            case Skip(_, inner):
                yield from arrays(inner)
            case Upscale(fused, exact):
                yield from arrays((fused, *exact))


def parameter_count(layers: Sequence[Layer]) -> int:
    """Number of trained parameters of one scale; a FineConv counts once, an Upscale as its exact layers."""
    return sum(_count(layer) for layer in layers)


def _count(layer: Layer) -> int:
    match layer:
        case FineConv(_, weight, bias):
            return weight.size + bias.size
        case Skip(_, inner) | Upscale(exact=inner):
            return parameter_count(inner)
    return sum(values.size for _, values in arrays([layer]))


def multiply_adds(layers: Sequence[Layer]) -> int:
    """Multiply-adds of all convolutions for one LR pixel; a FineConv counts once, an Upscale as fused."""
    return sum(work for _, work in convolutions(layers))


def convolutions(layers: Sequence[Layer], area: int = 1) -> Iterator[tuple[str, int]]:
    """(name, multiply-adds for one LR pixel) of each convolution, in the order the network runs.

    Args:
        layers: a network, or a part of one.
        area: pixels per LR pixel at the first layer; upsampling by s multiplies it by s*s.
    """
    for layer in layers:
        match layer:
            case Conv(name, weight) | FineConv(name, weight):
                yield name, area * weight.size
            case Shuffle(_, factor):
                area *= factor**2
            case Skip(_, inner):  # keeps the size
                yield from convolutions(inner, area)
            case Upscale(fused):
                yield from convolutions((fused,), area)


def upscale_factor(layers: Sequence[Layer]) -> int:
    """Output size / input size."""
    return prod(layer.factor for layer in layers if isinstance(layer, Shuffle))


def radius(layers: Sequence[Layer], pixel: Fraction = Fraction(1)) -> Fraction:
    """Receptive-field radius in LR pixels; `pixel` is the size of the first layer's in LR pixels."""
    total = Fraction(0)
    for layer in layers:
        match layer:
            case Conv(_, weight) | FineConv(_, weight):
                total += weight.shape[-1] // 2 * pixel
            case Shuffle(_, factor):
                pixel /= factor
            case Skip(_, inner) | Upscale(exact=inner):  # nothing comes after an Upscale
                total += radius(inner, pixel)
    return total


def after_relu(layers: Sequence[Layer]) -> Iterator[str]:
    """Names of the convolutions whose input is the output of a ReLU, hence never negative."""
    for before, layer in zip((None, *layers), layers, strict=False):
        match before, layer:
            case Rectifier(_, None), Conv(name):
                yield name
            case _, Skip(_, inner):
                yield from after_relu(inner)
