"""The deployment form of a network: a short list of layers, all weights as NumPy arrays.

Every network of the paper is a chain of these four layers between the two halves of the mean shift.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
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


Layer = Conv | Rectifier | Shuffle | Skip
Chain = tuple[Layer, ...]


def arrays(layers: Sequence[Layer]) -> Iterator[tuple[str, Weights]]:
    """(initialiser name, values) of every weight, in the order the network runs."""
    for layer in layers:
        match layer:
            case Conv(name, weight, bias):
                yield f"{name}.weight", weight
                yield f"{name}.bias", bias
            case Rectifier(name, slope) if slope is not None:
                yield f"{name}.slope", slope
            case Skip(_, inner):
                yield from arrays(inner)


def parameter_count(layers: Sequence[Layer]) -> int:
    """Number of values in the deployment form of one scale."""
    return sum(values.size for _, values in arrays(layers))
