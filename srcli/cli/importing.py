"""`srcli models import`: weights from elsewhere become a model of the user's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli.console import product_path, talk
from srcli.cli.extras import missing_extra

if TYPE_CHECKING:
    from srcli_export.importing import Imported


def import_file(
    file: Annotated[
        Path, typer.Argument(help="Weights: .pt, .pth, .ckpt, .bin or .safetensors of EDSR, MDSR or others.")
    ],
    name: Annotated[
        str, typer.Option(help="Name for --model; default: made from the name of the file.")
    ] = "",
    license_name: Annotated[
        str, typer.Option("--license", help="Licence of the weights (SPDX name), stored in the files.")
    ] = "",
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder for the .onnx files; default: your models.")
    ] = None,
    residual_scale: Annotated[
        float | None,
        typer.Option(
            help="Residual scaling of EDSR and MDSR, which weights do not tell; default: as published."
        ),
    ] = None,
    convention: Annotated[
        str,
        typer.Option(help="What pixels EDSR and MDSR weights expect: edsr-pytorch, super-image or auto."),
    ] = "auto",
) -> None:
    """Import weights from elsewhere as ONNX files, checked against PyTorch."""
    try:
        from srcli_export.importing import Request, import_weights
    except ImportError as error:
        raise missing_extra(error, "Import", "export") from error
    request = Request(file, name, license_name, residual_scale, convention)
    imported = import_weights(request, out)
    for note in imported.notes:
        talk(f"note: {note}")
    _tell(imported, out)


def _tell(imported: "Imported", out: Path | None) -> None:
    for network in imported.files:
        product_path(network.path)
        talk(
            f"{network.path}: x{network.spec.scale}, {network.spec.parameters:,} parameters, "
            f"halo {network.spec.halo}, differs from PyTorch by {network.max_error:.1e} at most"
        )
    last = imported.files[-1]
    model = last.spec.name if out is None else last.path
    talk(f"Imported. Try: srcli upscale FILE -s {last.spec.scale} --model {model}")
