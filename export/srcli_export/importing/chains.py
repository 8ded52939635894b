"""Networks whose deployment form is a chain of layers: EDSR, MDSR and SRResNet, whoever trained them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from torch import nn

from srcli.spec import ModelSpec
from srcli_export.layers import Chain, Conv, FineConv, Shuffle, Skip
from srcli_export.writing import write_chains

MeanColor = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ChainSource:
    """A network with its layers by scale; see `Source`. Its mean shift takes off `mean`, on 0-1."""

    origin: str
    notes: tuple[str, ...]
    network: nn.Module
    specs: Mapping[int, ModelSpec]
    layers: Mapping[int, Chain]
    mean: MeanColor

    def write(self, folder: Path, specs: Mapping[int, ModelSpec]) -> dict[int, Path]:
        """One file a scale; more than one share `<name>.weights` beside them."""
        return write_chains(self.layers, specs, folder, mean=self.mean)


def reach(layers: Sequence[object]) -> int:
    """Receptive-field radius of a chain in LR pixels, fractions of upsampled layers rounded up."""
    return ceil(_reach(layers, Fraction(1))[0])


def _reach(layers: Sequence[object], pixel: Fraction) -> tuple[Fraction, Fraction]:
    """(radius, size of a pixel after the layers), both in LR pixels; `pixel` is its size before them."""
    radius = Fraction(0)
    for layer in layers:
        match layer:
            case Conv(_, weight) | FineConv(_, weight):
                radius += weight.shape[-1] // 2 * pixel
            case Shuffle(_, factor):
                pixel /= factor
            case Skip(_, inner):
                radius += _reach(inner, pixel)[0]
    return radius, pixel
