"""`srcli export`: a checkpoint becomes ONNX files that every backend runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli.console import product_path, talk
from srcli.cli.extras import missing_extra
from srcli.cli.units import count
from srcli.errors import UsageError

if TYPE_CHECKING:
    from srcli.media.containers.base import Pixels

_WEIGHTS = ("fp32", "fp16")
_OPSET = 20
_MAX_PHOTOGRAPHS = 32


def export(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint written by srcli train.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the .onnx files, one for each scale.")
    ] = Path("models"),
    precision: Annotated[
        str, typer.Option(help="How weights are stored: fp32, or fp16 (half the size, widened at load).")
    ] = "fp32",
    opset: Annotated[int, typer.Option(help=f"ONNX opset; {_OPSET} is the one supported.")] = _OPSET,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Photographs to measure halo and fp16's cost on, besides rendered charts."),
    ] = None,
    measure: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of HR images; its PSNR goes into the files. May be given several times."),
    ] = None,
    license_name: Annotated[
        str, typer.Option("--license", help="Licence of the weights (SPDX name), stored in the files.")
    ] = "",
) -> None:
    """Export a checkpoint to ONNX files and check them against it."""
    if precision not in _WEIGHTS:
        raise UsageError(f"Precision {precision!r} is not known.", f"Choose {' or '.join(_WEIGHTS)}.")
    if opset != _OPSET:
        raise UsageError(f"Opset {opset} is not supported.", f"Leave --opset out or set it to {_OPSET}.")
    try:
        from srcli_export.calibration import charts
        from srcli_export.exporter import export_checkpoint
    except ImportError as error:
        raise missing_extra(error, "Export", "export") from error
    photographs = [] if calibration is None else _photographs(calibration)
    files = export_checkpoint(
        checkpoint,
        out,
        weights=precision,
        calibration=[*photographs, *charts()],
        license_name=license_name,
        test_sets=measure or (),
    )
    for file in files:
        product_path(file.path)
        scores = "".join(f", {name} {psnr:.2f} dB" for name, psnr in file.spec.quality.items())
        talk(
            f"{file.path}: x{file.spec.scale}, halo {file.spec.halo}, max error {file.max_error:.1e}{scores}"
        )
    talk(
        f"{count(len(files), 'file')} exported and verified. "
        f"Try: srcli upscale FILE -s {files[-1].spec.scale} --model {files[-1].path}"
    )


def _photographs(folder: Path) -> "list[Pixels]":
    """The pictures of a folder as 8-bit RGB; others in it are refused by the exporter."""
    from srcli.media.images import read
    from srcli.pipelines.inputs import discover

    found = discover([str(folder)], folder / "none", recursive=False)
    for problem in found.problems:
        raise problem.error
    return [read(picture.path).pixels for picture in found.pictures[:_MAX_PHOTOGRAPHS]]
