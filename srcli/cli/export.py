"""`srcli export`: a checkpoint becomes ONNX files that every backend runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli import engines
from srcli.cli.console import product_path, talk
from srcli.cli.extras import missing_extra
from srcli.cli.units import count
from srcli.errors import UsageError

if TYPE_CHECKING:
    from srcli.io.codec import Pixels
    from srcli_export.exporter import Exported

_FORMATS = ("onnx", "trt")
_PRECISIONS = ("fp32", "fp16", "int8")
_WEIGHTS = ("fp32", "fp16")
_OPSET = 20
_MAX_PHOTOGRAPHS = 32


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint written by srcli train; with --format trt also an .onnx file or a model."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for the files, one for each scale.  [default: models]"),
    ] = None,
    format_name: Annotated[
        str,
        typer.Option(
            "--format", help="onnx, or trt: also a TensorRT engine of each file, for this machine's GPU."
        ),
    ] = "onnx",
    precision: Annotated[
        str | None,
        typer.Option(
            help="What the files compute in, several with commas: fp32 (any backend, which may take less), "
            "fp16, int8 (only where it costs little and is fastest on this CPU; needs --calibration, and "
            "writes the fp32 files, too, whose weights it shares).  "
            "[default: fp32; engines: fp16]"
        ),
    ] = None,
    ends: Annotated[
        str | None,
        typer.Option(
            "--io",
            help="uint8, float16 or both with a comma: write fp16 files also with these as input and output, "
            "for other programs.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="How fp32 and int8 files store weights: fp32, or fp16 (half the size, widened at load)."
        ),
    ] = "fp32",
    opset: Annotated[int, typer.Option(help=f"ONNX opset; {_OPSET} is the one supported.")] = _OPSET,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Photographs to calibrate int8 on, and to measure with, besides rendered charts."),
    ] = None,
    validation: Annotated[
        Path | None,
        typer.Option(help="HR images that decide what a precision costs; default: those of --calibration."),
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
    precisions, kinds = _precisions(precision or "fp32"), _listed(ends or "")
    _check(format_name, weights, opset)
    if format_name == "trt" and engines.is_model(checkpoint):
        if calibration or validation or measure or license_name or ends or weights != "fp32":
            raise UsageError(f"{checkpoint} is exported already.", "Give only --precision and -o with it.")
        return engines.of_model(str(checkpoint), out, _of_engine(precision, "fp32"))
    if engines.is_model(checkpoint) and engines.is_known(str(checkpoint)):
        hint = "Models are exported already: srcli models lists them, and --format trt builds their engines."
        raise UsageError(f"{checkpoint} is no checkpoint of srcli train.", hint)
    if "int8" in precisions and calibration is None:
        raise UsageError("int8 needs photographs to be calibrated on.", "Give some: --calibration FOLDER.")
    try:
        from srcli_export.calibration import charts
        from srcli_export.exporter import export_checkpoint
    except ImportError as error:
        raise missing_extra(error, "Export", "export") from error
    if format_name == "trt":
        engines.check()
    photographs, proof, folder = _photographs(calibration), _photographs(validation), out or Path("models")
    if not photographs and not proof:
        talk("note: checked on noise and rendered charts alone; with photographs: --calibration FOLDER.")
    files = export_checkpoint(
        checkpoint,
        folder,
        precisions=precisions,
        ends=kinds,
        weights=weights,
        calibration=[*(photographs or proof), *charts()],
        photographs=photographs,
        validation=proof,
        license_name=license_name,
        test_sets=measure or (),
    )
    for file in files:
        product_path(file.path)
        talk(_told(file))
    ours = [file for file in files if file.spec.io == "float32"]
    last, exported = ours[-1], f"{count(len(files), 'file')} exported and verified."
    talk(f"{exported} Try: srcli upscale FILE -s {last.spec.scale} --model {last.path}")
    if format_name == "trt":
        asked = [f for f in ours if f.spec.arithmetic in precisions]  # fp32 files come with int8 ones
        engines.build([(f.path, f.spec, _of_engine(precision, f.spec.arithmetic)) for f in asked], folder)
    return None


def _check(format_name: str, weights: str, opset: int) -> None:
    """Refuse what no export can be.

    Raises:
        UsageError: one of them is not among those there are.
    """
    if format_name not in _FORMATS:
        raise UsageError(f"Format {format_name!r} is not known.", f"Choose {' or '.join(_FORMATS)}.")
    if weights not in _WEIGHTS:
        raise UsageError(f"Weights cannot be stored as {weights!r}.", f"Choose {' or '.join(_WEIGHTS)}.")
    if opset != _OPSET:
        raise UsageError(f"Opset {opset} is not supported.", f"Leave --opset out or set it to {_OPSET}.")


def _of_engine(asked: str | None, arithmetic: str) -> str:
    """The precision of an engine: as asked for, which its file must allow; else the backend's choice.

    Raises:
        UsageError: an engine has one, and of int8 only where the file does.
    """
    if asked is None or arithmetic == "int8":
        return "auto"
    precisions = {"fp32": "fp32", "fp16": "fp16"}
    if arithmetic == "fp32" and asked in precisions:
        return precisions[asked]
    if arithmetic == "fp32" and "fp32" not in asked:
        raise UsageError(f"No engine of this file computes in {asked}.", "Choose fp32 or fp16.")
    return precisions[arithmetic]


def _precisions(text: str) -> list[str]:
    """ "fp32,int8" as a list.

    Raises:
        UsageError: one of them is not known.
    """
    names = _listed(text)
    for name in names:
        if name not in _PRECISIONS:
            raise UsageError(f"Precision {name!r} is not known.", f"Choose from {', '.join(_PRECISIONS)}.")
    return names


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")] if text else []


def _told(file: "Exported") -> str:
    """One line for people: what the file holds and how it was checked."""
    spec, found = file.spec, file.spec.verified
    scores = "".join(f", {name} {psnr:.2f} dB" for name, psnr in spec.quality.items())
    checked = f"max error {file.max_error:.1e}"
    if spec.arithmetic != "fp32" or spec.precision != "fp32":  # the error is that of fp32 throughout
        checked = (
            f"{found['psnr_to_checkpoint']:.1f} dB from the checkpoint, loses {found['psnr_lost']:.4f} dB"
        )
    if "time_share" in found:
        checked += f", takes {found['time_share']:.2f} of the time of the next best"
    ends = "" if spec.io == "float32" else f" between {spec.io}"
    return f"{file.path}: x{spec.scale} {spec.arithmetic}{ends}, halo {spec.halo}, {checked}{scores}"


def _photographs(folder: Path | None) -> "list[Pixels]":
    """The pictures of a folder as 8-bit RGB; others in it are refused by the exporter."""
    from srcli.io.pictures import read
    from srcli.jobs.inputs import discover

    if folder is None:
        return []
    found = discover([str(folder)], folder / "none", recursive=False)
    for problem in found.problems:
        raise problem.error
    return [read(picture.path).pixels for picture in found.pictures[:_MAX_PHOTOGRAPHS]]
