"""`srcli models`: the shipped networks and the user's own, and `srcli models import`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli.console import missing_extra, product, product_path, table, talk

if TYPE_CHECKING:
    from srcli.models.catalog import ModelFile
    from srcli_export.exporter import Exported

_HEADER = [
    "name",
    "scale",
    "for",
    "multiply-adds a pixel of output",
    "parameters",
    "Set5 PSNR, fp32 (dB)",
    "size (MB)",
    "licence",
    "from",
]
_INPUTS = dict.fromkeys(("paper", "fast", "modern"), "clean pictures") | {
    "photo": "JPEG, noise, blur",
    "film": "films, JPEG, noise, blur",
}
"""Pictures that a network is for, by the recipe that trained it."""

models_app = typer.Typer(rich_markup_mode=None, help="List the models, or import weights from elsewhere.")


@models_app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything known as JSON.")] = False,
) -> None:
    """List the models (scale, parameters, quality, size, licence), or import weights from elsewhere."""
    if context.invoked_subcommand is None:
        _list(as_json)


def _list(as_json: bool) -> None:
    from srcli.models.catalog import list_files, problems

    files = [file for file in list_files() if _is_whole(file)]
    for problem in problems():
        talk(f"note: {problem}")
    if as_json:
        product(json.dumps([_facts(file) for file in files], indent=2))
    elif files:
        for line in table([_HEADER, *map(_row, files)]):
            product(line)
    else:
        talk("No models are shipped with this copy; --model also takes the path of an .onnx file.")


def _is_whole(file: "ModelFile") -> bool:
    """Whether the weights beside a file are there and undamaged; for a shipped file they must be."""
    from srcli.errors import ModelFileError
    from srcli.models.spec import check_weights

    try:
        check_weights(file.path)
    except ModelFileError as error:
        if not file.yours:
            raise
        talk(f"note: {error}")
        return False
    return True


def _row(file: "ModelFile") -> list[str]:
    spec = file.spec
    quality = f"{spec.quality['Set5']:.2f}" if "Set5" in spec.quality else "–"
    own, shared = _sizes(file.path)
    size = f"{own / 1e6:.2f}" + (f" + {shared / 1e6:.2f} shared" if shared else "")
    origin = "yours" if file.yours else "srcli"
    parameters = f"{spec.parameters:,}" if spec.parameters else "–"
    inputs = _INPUTS.get(spec.training.recipe, "–")
    work = f"{spec.macs / spec.scale**2 / 1000:,.0f} k" if spec.macs else "–"
    return [spec.name, f"x{spec.scale}", inputs, work, parameters, quality, size, spec.license or "–", origin]


def _facts(file: "ModelFile") -> dict[str, object]:
    own, shared = _sizes(file.path)
    return {
        **asdict(file.spec),
        "file": str(file.path),
        "bytes": own + shared,
        "shared_bytes": shared,
        "yours": file.yours,
    }


def _sizes(path: Path) -> tuple[int, int]:
    """Bytes of a network's file, and of the weights file that its scales share, 0 if there is none."""
    from srcli.models.spec import weights_of

    weights = weights_of(path)
    return path.stat().st_size, weights.stat().st_size if weights else 0


@models_app.command("import")
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
    files = import_weights(Request(file, name, license_name, residual_scale, convention), out)
    _print_imported(files, out)


def _print_imported(files: "list[Exported]", out: Path | None) -> None:
    for file in files:
        product_path(file.path)
        talk(
            f"{file.path}: x{file.spec.scale}, {file.spec.parameters:,} parameters, "
            f"halo {file.spec.halo}, differs from PyTorch by {file.max_error:.1e} at most"
        )
    last = files[-1]
    model = last.spec.name if out is None else last.path
    talk(f"Imported. Try: srcli upscale FILE -s {last.spec.scale} --model {model}")
