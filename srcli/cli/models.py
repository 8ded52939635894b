"""`srcli models`: what ships with srcli."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli.console import product, table, talk

if TYPE_CHECKING:
    from srcli.models.catalog import ModelFile

_HEADER = ["name", "scale", "parameters", "Set5 PSNR (dB)", "size (MB)", "licence"]


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything known as JSON.")] = False,
) -> None:
    """List the shipped models: scale, parameters, quality, size, licence."""
    from srcli.models.catalog import list_models, resolve

    files = [resolve(spec.name, spec.scale) for spec in list_models()]
    if as_json:
        product(json.dumps([_facts(file) for file in files], indent=2))
    elif files:
        for line in table([_HEADER, *map(_row, files)]):
            product(line)
    else:
        talk("No models are shipped with this copy; --model also takes the path of an .onnx file.")


def _row(file: "ModelFile") -> list[str]:
    spec = file.spec
    quality = f"{spec.quality['Set5']:.2f}" if "Set5" in spec.quality else "–"
    size = f"{_size(file.path) / 1e6:.2f}"
    return [spec.name, f"x{spec.scale}", f"{spec.parameters:,}", quality, size, spec.license or "–"]


def _facts(file: "ModelFile") -> dict[str, object]:
    return {**asdict(file.spec), "file": str(file.path), "bytes": _size(file.path)}


def _size(path: Path) -> int:
    """Bytes of a network: its file, and the weights that several may share."""
    from srcli.spec import weights_of

    weights = weights_of(path)
    return path.stat().st_size + (weights.stat().st_size if weights else 0)
