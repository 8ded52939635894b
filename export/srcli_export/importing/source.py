"""What the user asks to import, and the network found in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from srcli.errors import UsageError
from srcli.models.spec import ModelSpec
from srcli_export.files import weights_file, write_onnx
from srcli_export.layers import Chain

CONVENTIONS = ("auto", "edsr-pytorch", "super-image")

MeanColor = tuple[float, float, float]
"""RGB, 0-1."""


@dataclass(frozen=True, slots=True)
class Request:
    """One file to import.

    Attributes:
        file: a state dict, a checkpoint, or a .safetensors file.
        name: of the model; empty: made from the file's name.
        license_name: SPDX name of the licence of the weights; empty: not known.
        residual_scale: of EDSR and MDSR; None: as published for that size.
        convention: what pixels EDSR and MDSR take: "edsr-pytorch" (0-255, mean colour subtracted),
            "super-image" (0-1, no mean), or "auto": super-image if the file's name or a config.json beside it
            says so.

    Raises:
        UsageError: the convention is not known, or the residual scale is not in 0-1.
    """

    file: Path
    name: str = ""
    license_name: str = ""
    residual_scale: float | None = None
    convention: str = "auto"

    def __post_init__(self) -> None:
        if self.convention not in CONVENTIONS:
            hint = f"Choose {', '.join(CONVENTIONS)}."
            raise UsageError(f"Convention {self.convention!r} is not known.", hint)
        if self.residual_scale is not None and not 0 < self.residual_scale <= 1:
            raise UsageError(f"A residual scale of {self.residual_scale:g} is not in 0-1.")


class Source(Protocol):
    """A network found in a file.

    Attributes:
        origin: the file's format, for the spec.
        network: the PyTorch network that the ONNX files must equal, in evaluation mode; called as
            `network(batch, scale)`.
        specs: by scale; halos are exact ones, the name is not the final one.
    """

    @property
    def origin(self) -> str: ...
    @property
    def network(self) -> nn.Module: ...
    @property
    def specs(self) -> Mapping[int, ModelSpec]: ...

    def write(self, folder: Path, specs: Mapping[int, ModelSpec]) -> dict[int, Path]:
        """Write `<name>-x<scale>.onnx` for each spec, shared weights beside them; returns them by scale."""
        ...


@dataclass(frozen=True, slots=True)
class FusedSource:
    """EDSR, MDSR or SRResNet, with its fused layers by scale; see `Source`. `mean` is its mean colour."""

    origin: str
    network: nn.Module
    specs: Mapping[int, ModelSpec]
    layers: Mapping[int, Chain]
    mean: MeanColor

    def write(self, folder: Path, specs: Mapping[int, ModelSpec]) -> dict[int, Path]:
        """One file a scale; several share `<name>.weights` beside them."""
        first = next(iter(specs.values()))
        location = weights_file(first.name, tuple(specs))
        return write_onnx(self.layers, specs, folder, mean=self.mean, location=location)
