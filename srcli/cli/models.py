"""`srcli models`: the shipped networks and the user's own, and `srcli models import`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli.console import product, table, talk
from srcli.cli.importing import import_file

if TYPE_CHECKING:
    from srcli.models.catalog import ModelFile

_HEADER = ["name", "scale", "for", "parameters", "Set5 PSNR, fp32 (dB)", "size (MB)", "licence", "from"]
_INPUTS = dict.fromkeys(("paper", "fast", "modern"), "clean pictures") | {"photo": "JPEG, noise, blur"}
"""What a network suits, by the recipe that trained it."""

models_app = typer.Typer(rich_markup_mode=None, help="List the models, or import weights from elsewhere.")
models_app.command("import")(import_file)


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
    """Whether its shared weights are there; a shipped file without them is an error."""
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
    suits = _INPUTS.get(spec.training.recipe, "–")
    return [spec.name, f"x{spec.scale}", suits, parameters, quality, size, spec.license or "–", origin]


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
    """Bytes of a network's file, and of the weights beside it that its scales share, if they do."""
    from srcli.models.spec import weights_of

    weights = weights_of(path)
    return path.stat().st_size, weights.stat().st_size if weights else 0
