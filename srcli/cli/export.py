"""`srcli export`: a checkpoint becomes ONNX files, and TensorRT engines of them or of a model."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srcli.cli.console import count, missing_extra, product_path, talk
from srcli.errors import ModelNotFoundError, UsageError
from srcli.settings import Settings

if TYPE_CHECKING:
    from srcli.io.codec import Pixels
    from srcli.models.spec import ModelSpec
    from srcli_export.exporter import Exported

_FORMATS = ("onnx", "trt")
_PRECISIONS = ("fp32", "fp16", "int8")
_WEIGHTS = ("fp32", "fp16")
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
            help="Precisions of the files, several with commas: fp32 (backends may compute in less), fp16, "
            "int8 (only if it loses little and is the fastest on this CPU; needs --calibration; the fp32 "
            "files come with it, since both share weights).  [default: fp32; engines: fp16]"
        ),
    ] = None,
    io: Annotated[
        str | None,
        typer.Option(
            "--io",
            help="uint8, float16 or both with a comma: write fp16 files also with this I/O dtype, for other "
            "programs.",
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="How fp32 and int8 files store weights: fp32, or fp16 (half the size, widened at load)."
        ),
    ] = "fp32",
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
    precisions, dtypes = _precisions(precision or "fp32"), _listed(io or "")
    _check_choice("Format", format_name, _FORMATS)
    _check_choice("Storage of weights", weights, _WEIGHTS)
    if format_name == "trt" and _is_model(checkpoint):
        if calibration or validation or measure or license_name or io or weights != "fp32":
            raise UsageError(f"{checkpoint} is exported already.", "Give only --precision and -o with it.")
        return _build_engines_of(str(checkpoint), out, _engine_precision(precision, "fp32"))
    _refuse_model(checkpoint)
    if "int8" in precisions and calibration is None:
        raise UsageError("int8 needs photographs to be calibrated on.", "Give some: --calibration FOLDER.")
    try:
        from srcli_export import export_checkpoint
    except ImportError as error:
        raise missing_extra(error, "Export", "export") from error
    if format_name == "trt":
        check_engines()
    folder = out or Path("models")
    files = export_checkpoint(
        checkpoint,
        folder,
        precisions=precisions,
        io=dtypes,
        weights=weights,
        photographs=_photographs(calibration),
        validation=_photographs(validation),
        license_name=license_name,
        test_sets=measure or (),
    )
    _print_exported(files)
    if format_name == "trt":  # not of fp32 files that only came with int8 ones
        asked = [f for f in files if f.spec.io == "float32" and f.spec.arithmetic in precisions]
        build_engines(
            [(f.path, f.spec, _engine_precision(precision, f.spec.arithmetic)) for f in asked], folder
        )
    return None


def _refuse_model(checkpoint: Path) -> None:
    """Raise UsageError for a model's name or file: only checkpoints are exported to ONNX."""
    if _is_model(checkpoint) and _is_known(str(checkpoint)):
        hint = "Models are exported already: srcli models lists them, and --format trt builds their engines."
        raise UsageError(f"{checkpoint} is no checkpoint of srcli train.", hint)


def _print_exported(files: "list[Exported]") -> None:
    for file in files:
        product_path(file.path)
        talk(_summary(file))
    last = [file for file in files if file.spec.io == "float32"][-1]
    exported = f"{count(len(files), 'file')} exported and verified."
    talk(f"{exported} Try: srcli upscale FILE -s {last.spec.scale} --model {last.path}")


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{what} {value!r} is not known.", f"Choose {' or '.join(choices)}.")


def _engine_precision(asked: str | None, arithmetic: str) -> str:
    """The precision of the engine of a file: as asked for, else "auto", the backend's choice.

    Args:
        asked: the value of --precision.
        arithmetic: of the file; an int8 file's engine computes in int8.

    Raises:
        UsageError: an fp32 file's engine computes in fp32 or fp16 only.
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
    """The precisions in "fp32,int8".

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


def _summary(file: "Exported") -> str:
    """One line: what is in the file and how it was checked."""
    spec, found = file.spec, file.spec.verified
    scores = "".join(f", {name} {psnr:.2f} dB" for name, psnr in spec.quality.items())
    checked = f"max error {file.max_error:.1e}"
    if spec.arithmetic != "fp32" or spec.precision != "fp32":  # the error is that of fp32 throughout
        checked = (
            f"{found['psnr_to_checkpoint']:.1f} dB from the checkpoint, loses {found['psnr_lost']:.4f} dB"
        )
    if "time_share" in found:
        checked += f", takes {found['time_share']:.2f} of the time of the next fastest"
    io = "" if spec.io == "float32" else f" with {spec.io} I/O"
    return f"{file.path}: x{spec.scale} {spec.arithmetic}{io}, halo {spec.halo}, {checked}{scores}"


def _photographs(folder: Path | None) -> "list[Pixels]":
    """Up to 32 pictures of a folder; the exporter refuses what is not 8-bit RGB."""
    from srcli.io.pictures import read
    from srcli.jobs.inputs import discover

    if folder is None:
        return []
    found = discover([str(folder)], folder / "none", recursive=False)
    for problem in found.problems:
        raise problem.error
    paths = [one.path for one in found.pictures[:_MAX_PHOTOGRAPHS] if isinstance(one.path, Path)]
    return [read(path).pixels for path in paths]


def _is_model(name: Path) -> bool:
    """Whether this is an ONNX file or the name of a model, rather than a checkpoint."""
    return name.suffix == ".onnx" or (not name.suffix and name.name == str(name) and not name.exists())


def _is_known(model: str) -> bool:
    """Whether there is such a model."""
    from srcli.models.catalog import is_path, scales

    try:
        return bool(scales(Path(model) if is_path(model) else model))
    except ModelNotFoundError:
        return False


def check_engines() -> None:
    """Check that engines can be built here, before anything is exported.

    Raises:
        MissingExtraError, BackendUnavailableError: as `tensorrt.build_ahead`.
    """
    from srcli.backends.tensorrt import builder_ahead

    builder_ahead(Settings())


def build_engines(files: "Iterable[tuple[Path, ModelSpec, str]]", folder: Path) -> None:
    """Build the TensorRT engine of each (ONNX file, spec, precision) for this machine's GPU; print its path.

    Raises:
        MissingExtraError, BackendUnavailableError, InferenceError: as `tensorrt.build_ahead`.
    """
    from srcli.backends.tensorrt import build_ahead

    made = [build_ahead(path, spec, Settings(precision=precision), folder) for path, spec, precision in files]
    for path in made:
        product_path(path)
    talk(f"{count(len(made), 'engine')} ready; srcli upscale --backend trt finds them.")


def _build_engines_of(model: str, folder: Path | None, precision: str) -> None:
    """Build the engine of every scale of a model.

    Args:
        model: name or path.
        folder: where to; None: the cache.
        precision: "auto", "fp32" or "fp16".

    Raises:
        ModelNotFoundError: no such model.
        MissingExtraError, BackendUnavailableError, InferenceError: as `tensorrt.build_ahead`.
    """
    from srcli.backends.tensorrt.store import folder_of_engines
    from srcli.models.catalog import is_path, resolve, scales

    name = Path(model) if is_path(model) else model
    files = [resolve(name, scale) for scale in scales(name)]
    build_engines([(file.path, file.spec, precision) for file in files], folder or folder_of_engines())
