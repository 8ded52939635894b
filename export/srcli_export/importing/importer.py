"""A file of weights -> ONNX files among the user's models, verified before they appear under their names."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from srcli.errors import ExportError, ModelFileError, UsageError
from srcli.models.catalog import is_reserved, user_folder
from srcli.models.spec import ModelSpec
from srcli_export import calibration as images
from srcli_export.exporter import Exported
from srcli_export.files import file_name, publish, save_spec, staging
from srcli_export.fuse import describe, load_fused
from srcli_export.importing.edsr import from_state
from srcli_export.importing.source import FusedSource, Request, Source
from srcli_export.importing.spandrel import from_spandrel
from srcli_export.importing.state_dict import read_weights, tensors
from srcli_export.runtime import Runner
from srcli_export.verify import check_parity, measure_halo, probes
from srcli_train.networks import MEAN_RGB

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SCALE_AND_HASH = re.compile(r"([-_. ]?(x\d+|\d+x)(?=[-_. ]|$)|[-_]best|[-_][0-9a-f]{8}$)", re.IGNORECASE)
_WEIGHTS_FILE = re.compile(r"pytorch_model(_\d+x)?|model|weights|last|best", re.IGNORECASE)
_CHECKPOINT_KEYS = {"format", "network", "recipe", "weights"}

_log = logging.getLogger(__name__)


def import_weights(request: Request, folder: Path | None = None) -> list[Exported]:
    """Import every scale of a file as `<name>-x<scale>.onnx`, all of them or none.

    What the file does not say and is assumed is logged.

    Args:
        request: what to import.
        folder: where the files go, made if missing; default: the user's models, found by `--model NAME`.

    Returns:
        The files, by increasing scale.

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
    batches = probes(images.charts())
    with staging(target) as stage:
        files, made = stage / "files", []
        for scale, path in source.write(files, specs).items():
            error = check_parity(path, source.network, scale, batches)
            made.append(Exported(target / path.name, _with_halo(specs[scale], path), error))
        publish(files, target)
    if not request.license_name:
        _log.info("No licence was given (--license): the weights remain under their authors' terms.")
    return made


def default_name(file: Path) -> str:
    """A model name from a file's, without scale and checksum; the folder's where the file's is generic."""
    stem = file.absolute().parent.name if _WEIGHTS_FILE.fullmatch(file.stem) else file.stem
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", _SCALE_AND_HASH.sub("", stem))
    return plain.strip("-_.").lower()


def _recognise(request: Request) -> Source:
    raw = read_weights(request.file)
    if raw.keys() >= _CHECKPOINT_KEYS:
        return _from_checkpoint(request.file)
    return from_state(request, tensors(raw)) or from_spandrel(request.file, raw)


def _from_checkpoint(path: Path) -> FusedSource:
    """The network of a checkpoint of srcli train.

    Raises:
        TrainingError: the checkpoint is damaged or of another version.
        ModelFileError: its weights are not those of the network it describes.
    """
    try:
        fused = load_fused(path)
    except ExportError as error:
        raise ModelFileError(error.message, error.hint) from error
    specs = {scale: describe(fused.checkpoint, scale, layers) for scale, layers in fused.layers.items()}
    return FusedSource("srcli checkpoint", fused.network, specs, fused.layers, MEAN_RGB)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name.endswith(".onnx") or re.search(r"-x\d+$", name):
        hint = "Use letters, digits, dots, hyphens and underscores, without a scale at the end: --name NAME."
        raise UsageError(f"{name!r} cannot be the name of a model.", hint)
    if is_reserved(name):
        raise UsageError(f"srcli itself has a model {name!r}.", "Choose another name: --name NAME.")
    return name


def _check_free(folder: Path, name: str, specs: Mapping[int, ModelSpec]) -> None:
    """Refuse to replace files."""
    wanted = [file_name(name, scale, "fp32") for scale in specs]
    for file in [*wanted, *([f"{name}.weights"] if len(wanted) > 1 else [])]:
        if (folder / file).exists():
            hint = "Remove it, or choose another name: --name NAME."
            raise UsageError(f"{folder / file}: is already there.", hint)


def _described(spec: ModelSpec, name: str, source: Source, request: Request) -> ModelSpec:
    recipe = spec.training.recipe or f"imported from {request.file.name} ({source.origin})"
    training = replace(spec.training, recipe=recipe)
    return replace(spec, name=name, license=request.license_name, training=training)


def _with_halo(spec: ModelSpec, path: Path) -> ModelSpec:
    """The spec with the halo measured as by `srcli export`; also written into the file."""
    lr = [lr for lr, _ in images.pairs(images.charts(), spec.scale)]
    spec = replace(spec, halo=measure_halo(Runner(path), lr, spec.scale, spec.exact_halo))
    save_spec(path, spec)
    return spec
