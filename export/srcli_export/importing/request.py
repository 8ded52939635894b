"""What the user asks to import, and what is found in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import nn

from srcli.errors import UsageError
from srcli.models.spec import ModelSpec

CONVENTIONS = ("auto", "edsr-pytorch", "super-image")


@dataclass(frozen=True, slots=True)
class Request:
    """One file to import.

    Attributes:
        file: a state dict, a checkpoint, or a .safetensors file.
        name: what the model is to be called; empty: made from the file's name.
        license_name: SPDX name of the licence of the weights; empty: not known.
        residual_scale: of EDSR and MDSR; None: as published for that size.
        convention: "edsr-pytorch" (pixels 0-255, mean colour subtracted), "super-image" (0-1, no mean), or
            "auto": super-image if the file's name or a config.json beside it says so.

    Raises:
        UsageError: a value that cannot be.
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
    """A network that was found in a file.

    Attributes:
        origin: whose format it is, for the spec.
        notes: what was assumed about it.
        network: the PyTorch network that the ONNX files must equal, in evaluation mode; called as
            `network(batch, scale)`.
        specs: by scale; halos are exact ones, the name is not the final one.
    """

    @property
    def origin(self) -> str: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def network(self) -> nn.Module: ...
    @property
    def specs(self) -> Mapping[int, ModelSpec]: ...

    def write(self, folder: Path, specs: Mapping[int, ModelSpec]) -> dict[int, Path]:
        """Write `<name>-x<scale>.onnx` for each spec, and what they share; returns them by scale."""
        ...
