"""Networks whose deployment form is a chain of layers: EDSR, MDSR and SRResNet, whoever trained them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from torch import nn

from srcli.spec import ModelSpec
from srcli_export.external import share
from srcli_export.graph import build_model, embedded, stored_weights
from srcli_export.layers import Chain, Conv, FineConv, Shuffle, Skip
from srcli_export.storage import save

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
        stored = {scale: stored_weights(self.layers[scale], "fp32") for scale in specs}
        together = {name: values for weights in stored.values() for name, values in weights.items()}
        shared = share(f"{_name(specs)}.weights", together) if len(stored) > 1 else None
        if shared:
            save(folder / shared.location, shared.content)
        paths = {}
        for scale, spec in specs.items():
            tensors = shared.initializers(stored[scale]) if shared else embedded(stored[scale])
            metadata = shared.metadata if shared else {}
            model = build_model(self.layers[scale], tensors, spec, metadata, self.mean)
            paths[scale] = folder / f"{spec.name}-x{scale}.onnx"
            save(paths[scale], model.SerializeToString())
        return paths


def _name(specs: Mapping[int, ModelSpec]) -> str:
    return next(iter(specs.values())).name


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
