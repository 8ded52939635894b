"""The deployment form of a network: a short list of layers, all weights as NumPy arrays.

Every network of the paper is a chain of these layers between the two halves of the mean shift.
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
        name: where it came from in the training network; unique, and the same for every scale.
        weight: (out, in, k, k) float32.
        bias: (out,) float32.
    """

    name: str
    weight: Weights
    bias: Weights


@dataclass(frozen=True, slots=True)
class FineConv:
    """A convolution exported as two that are added: leading bits of the weights, and the rest.

    Where an engine computes in bf16, a weight keeps 8 bits, and that error is the same for every pixel: the
    tail would shift the picture's brightness. Its two halves keep 16 bits. In float32 nothing changes, and
    six output channels cost what three do: engines compute eight or sixteen at a time. (Of an Upscale there
    may be 96 instead of 48.)

    Attributes: as of Conv.
    """

    name: str
    weight: Weights
    bias: Weights

    @property
    def halves(self) -> tuple[Weights, Weights]:
        """(2 * out, in, k, k) and (2 * out,): leading bits, then the rest, which has no bias."""
        leading = torch.from_numpy(self.weight).bfloat16().float().numpy()
        weight = np.concatenate([leading, self.weight - leading])
        return weight, np.concatenate([self.bias, np.zeros_like(self.bias)])


@dataclass(frozen=True, slots=True)
class Rectifier:
    """max(x, 0) + slope * min(x, 0): a ReLU where there is no slope, else a PReLU.

    Attributes:
        name: where it came from in the training network.
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
    """Convolutions and PixelShuffles without activation, as one of each: see `collapse`.

    Attributes:
        merged: one convolution on LR, to (factor**2 * channels) channels, before the one PixelShuffle.
        exact: the layers themselves, a convolution first.
    """

    merged: FineConv
    exact: "Chain"

    @property
    def factor(self) -> int:
        """Of the one PixelShuffle."""
        return enlargement(self.exact)

    @property
    def edge(self) -> int:
        """LR pixels beside the border of the picture for which `merged` is wrong and `exact` runs."""
        return ceil(reach(self.exact) - reach(self.exact[:1]))

    @property
    def context(self) -> int:
        """LR pixels from the border that these depend on."""
        return self.edge + ceil(reach(self.exact))


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
                yield f"{name}.weight", layer.halves[0]
                yield f"{name}.bias", layer.halves[1]
            case Rectifier(name, slope) if slope is not None:
                yield f"{name}.slope", slope
            case Skip(_, inner):
                yield from arrays(inner)
            case Upscale(merged, exact):
                yield from arrays((merged, *exact))


def parameter_count(layers: Sequence[Layer]) -> int:
    """Number of trained values of one scale: a FineConv counts once, an Upscale as what it stands for."""
    return sum(_count(layer) for layer in layers)


def _count(layer: Layer) -> int:
    match layer:
        case FineConv(_, weight, bias):
            return weight.size + bias.size
        case Skip(_, inner) | Upscale(exact=inner):
            return parameter_count(inner)
    return sum(values.size for _, values in arrays([layer]))


def multiply_adds(layers: Sequence[Layer]) -> int:
    """Multiply-adds of all convolutions for one LR pixel; a FineConv counts once, an Upscale as merged."""
    return sum(work for _, work in convolutions(layers))


def convolutions(layers: Sequence[Layer], area: int = 1) -> Iterator[tuple[str, int]]:
    """(name, multiply-adds for one LR pixel) of each convolution, in the order the network runs.

    Args:
        layers: the network, or a part of it.
        area: pixels there are for one LR pixel where it begins; upsampling by s makes s*s as many.
    """
    for layer in layers:
        match layer:
            case Conv(name, weight) | FineConv(name, weight):
                yield name, area * weight.size
            case Shuffle(_, factor):
                area *= factor**2
            case Skip(_, inner):  # keeps the size
                yield from convolutions(inner, area)
            case Upscale(merged):
                yield from convolutions((merged,), area)


def enlargement(layers: Sequence[Layer]) -> int:
    """Size of the result in pixels of where the layers begin."""
    return prod(layer.factor for layer in layers if isinstance(layer, Shuffle))


def reach(layers: Sequence[Layer], pixel: Fraction = Fraction(1)) -> Fraction:
    """Receptive-field radius in LR pixels; `pixel` is the size of a pixel where the layers begin."""
    radius = Fraction(0)
    for layer in layers:
        match layer:
            case Conv(_, weight) | FineConv(_, weight):
                radius += weight.shape[-1] // 2 * pixel
            case Shuffle(_, factor):
                pixel /= factor
            case Skip(_, inner) | Upscale(exact=inner):  # nothing comes after an Upscale
                radius += reach(inner, pixel)
    return radius


def never_negative(layers: Sequence[Layer]) -> Iterator[str]:
    """Names of the convolutions that read a ReLU."""
    for before, layer in zip((None, *layers), layers, strict=False):
        match before, layer:
            case Rectifier(_, None), Conv(name):
                yield name
            case _, Skip(_, inner):
                yield from never_negative(inner)
