"""A file of weights -> ONNX files among the user's models, verified before they appear under their names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from srcli.errors import UsageError
from srcli.models.catalog import is_reserved, user_folder
from srcli.models.spec import ModelSpec
from srcli_export import calibration as images
from srcli_export.halo import measure_halo
from srcli_export.importing.foreign import from_spandrel
from srcli_export.importing.own import from_checkpoint, is_own
from srcli_export.importing.paper import from_state
from srcli_export.importing.reading import read_weights, tensors
from srcli_export.importing.request import Request, Source
from srcli_export.runtime import Batch, Runner
from srcli_export.storage import publish, save_spec, staging
from srcli_export.verify import check_parity, probes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SCALE_AND_HASH = re.compile(r"([-_. ]?(x\d+|\d+x)(?=[-_. ]|$)|[-_]best|[-_][0-9a-f]{8}$)", re.IGNORECASE)
_WEIGHTS_FILE = re.compile(r"pytorch_model(_\d+x)?|model|weights|last|best", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """One ONNX file that was written.

    Attributes:
        path: the file; networks of several scales have one weights file beside it.
        spec: what its metadata says.
        max_error: largest absolute difference from PyTorch on 0-1, in float32.
    """

    path: Path
    spec: ModelSpec
    max_error: float


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import made: one file a scale, and what was assumed on the way."""

    files: tuple[ImportedFile, ...]
    notes: tuple[str, ...]


def import_weights(request: Request, folder: Path | None = None) -> Imported:
    """Import every scale of a file as `<name>-x<scale>.onnx`, all of them or none.

    Args:
        request: what to import.
        folder: where the files go, made if missing; default: the user's models, found by `--model NAME`.

    Raises:
        UsageError: no such file, or the name is a shipped model's or already there.
        ModelFileError: the file is damaged, needs code to load, or holds a network srcli cannot run.
        ExportError: the ONNX file does not give what PyTorch gives.
        MissingExtraError: spandrel is needed and missing.
        OutputError: the folder cannot be written to.
    """
    target = folder or user_folder()
    name = _checked_name(request.name or default_name(request.file))
    source = _recognise(request)
    specs = {scale: _described(spec, name, source, request) for scale, spec in source.specs.items()}
    _check_free(target, name, specs)
    with staging(target) as stage:
        files = stage / "files"
        paths = source.write(files, specs)
        errors = {
            scale: check_parity(path, source.network, scale, _probes()) for scale, path in paths.items()
        }
        final = {scale: _measured(specs[scale], path) for scale, path in paths.items()}
        publish(files, target)
    notes = (*source.notes, *_licence_note(request))
    made = (ImportedFile(target / paths[scale].name, final[scale], errors[scale]) for scale in paths)
    return Imported(tuple(made), notes)


def default_name(file: Path) -> str:
    """A model name made from a file's: without its scale and checksum, or its folder's if it says nothing."""
    stem = file.absolute().parent.name if _WEIGHTS_FILE.fullmatch(file.stem) else file.stem
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", _SCALE_AND_HASH.sub("", stem))
    return plain.strip("-_.").lower()


def _recognise(request: Request) -> Source:
    raw = read_weights(request.file)
    if is_own(raw):
        return from_checkpoint(request.file)
    return from_state(request, tensors(raw)) or from_spandrel(request.file, raw)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name.endswith(".onnx") or re.search(r"-x\d+$", name):
        hint = "Use letters, digits, dots, hyphens and underscores, without a scale at the end: --name NAME."
        raise UsageError(f"{name!r} cannot be the name of a model.", hint)
    if is_reserved(name):
        raise UsageError(f"srcli itself has a model {name!r}.", "Choose another name: --name NAME.")
    return name


def _check_free(folder: Path, name: str, specs: Mapping[int, ModelSpec]) -> None:
    """Nothing that is there is replaced."""
    wanted = [f"{name}-x{scale}.onnx" for scale in specs]
    for file in (
        folder / wanted_name for wanted_name in [*wanted, *([f"{name}.weights"] if len(wanted) > 1 else [])]
    ):
        if file.exists():
            raise UsageError(f"{file}: is already there.", "Remove it, or choose another name: --name NAME.")


def _described(spec: ModelSpec, name: str, source: Source, request: Request) -> ModelSpec:
    said = f"imported from {request.file.name} ({source.origin})"
    training = spec.training if spec.training.recipe else replace(spec.training, recipe=said)
    return replace(spec, name=name, license=request.license_name, training=training)


def _measured(spec: ModelSpec, path: Path) -> ModelSpec:
    """The spec with the halo of tiled runs as `srcli export` measures it; also written into the file."""
    lr = [lr for lr, _ in images.pairs(images.charts(), spec.scale)]
    spec = replace(spec, halo=measure_halo(Runner(path), lr, spec.scale, spec.exact_halo))
    save_spec(path, spec)
    return spec


def _probes() -> list[Batch]:
    return probes(images.charts())


def _licence_note(request: Request) -> tuple[str, ...]:
    if request.license_name:
        return ()
    return ("no licence was given (--license): the weights remain under their authors' terms",)
