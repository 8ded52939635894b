"""Networks whose deployment form is a chain of layers: EDSR, MDSR and SRResNet, whoever trained them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from srcli.models.spec import ModelSpec
from srcli_export.layers import Chain
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
