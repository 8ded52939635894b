"""Checkpoint -> ONNX files, verified before they appear under their names."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srcli.errors import ExportError, UsageError
from srcli.models.spec import ModelSpec
from srcli_export import calibration as images
from srcli_export.files import publish, save_spec, staging, weights_file, write_onnx
from srcli_export.fp16 import check_io, write_fp16, write_io_variant
from srcli_export.fuse import FusedNetwork, describe, load_fused
from srcli_export.int8 import Stopwatch, check_gain, measure_timings, write_int8
from srcli_export.runtime import Pixels, runner_for
from srcli_export.verify import (
    Accuracy,
    Reference,
    check_cost,
    check_loss,
    check_parity,
    measure_halo,
    measure_quality,
    probes,
)

PRECISIONS = ("fp32", "fp16", "int8")
"""Arithmetics a file can be exported in."""
STORED = ("fp32", "fp16")
"""How fp32 and int8 files can store their weights."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Exported:
    """One ONNX file that was written.

    Attributes:
        path: the file; networks of several scales have one weights file beside it.
        spec: what its metadata says.
        max_error: largest absolute difference from PyTorch on 0-1, of the file in fp32 throughout.
        psnr_cost: dB lost to what is not fp32: to fp16 weights on the calibration images, or to an
            arithmetic on the validation images; 0 for fp32 throughout.
    """

    path: Path
    spec: ModelSpec
    max_error: float
    psnr_cost: float = 0.0


@dataclass(frozen=True, slots=True)
class _Job:
    """One export: a fused network, how its files are made, and what they are measured on.

    Attributes:
        calibration: HR images for the halo and the cost of fp16 weights.
        photographs: HR images to calibrate int8 on.
        validation: HR images on which the cost of an arithmetic is measured.
        io: I/O dtypes of further variants of the fp16 files.
    """

    source: FusedNetwork
    weights: str
    io: Sequence[str]
    license_name: str
    calibration: Sequence[Pixels]
    photographs: Sequence[Pixels]
    validation: Sequence[Pixels]
    test_sets: Sequence[Path]
    stopwatch: Stopwatch

    def spec(self, scale: int, arithmetic: str = "fp32") -> ModelSpec:
        """The spec of one scale, with the exact halo."""
        spec = describe(self.source.checkpoint, scale, self.source.layers[scale])
        stored = "fp16" if arithmetic == "fp16" else self.weights
        return replace(spec, precision=stored, arithmetic=arithmetic, license=self.license_name)

    def specs(self, arithmetic: str = "fp32") -> dict[int, ModelSpec]:
        """The specs of all scales."""
        return {scale: self.spec(scale, arithmetic) for scale in self.source.layers}

    def lr(self, scale: int) -> list[Pixels]:
        """LR images of the calibration images."""
        return [lr for lr, _ in images.pairs(self.calibration, scale)]


def export_checkpoint(
    checkpoint: Path,
    folder: Path,
    *,
    precisions: Sequence[str] = ("fp32",),
    io: Sequence[str] = (),
    weights: str = "fp32",
    calibration: Sequence[Pixels] | None = None,
    photographs: Sequence[Pixels] = (),
    validation: Sequence[Pixels] = (),
    license_name: str = "",
    test_sets: Sequence[Path] = (),
    stopwatch: Stopwatch = measure_timings,
) -> list[Exported]:
    """Export every scale of a checkpoint in every precision asked for, all files or none.

    fp32 is `<name>-x<scale>.onnx`, which every backend runs in the precision it is asked for; fp16 and int8
    are `<name>-x<scale>.fp16.onnx` and `.int8.onnx`, whose graphs fix it. A network of one scale has its
    weights inside, or shares `<name>-x<scale>.weights` with its int8 file; the graphs of MDSR share
    `<name>.weights`, or `<name>.fp16.weights`, beside them.

    Args:
        checkpoint: what training wrote.
        folder: where the files go; made if missing. Files of the same names are replaced.
        precisions: of the arithmetic: "fp32", "fp16", "int8". int8 is written only if it loses at most 0.1 dB
            and is the fastest way to run the network on this machine; the fp32 files come with it, since both
            share their weights.
        io: "uint8" or "float16": fp16 also as `<name>-x<scale>.fp16.uint8.onnx` and so on, whose input and
            output have that dtype, for other programs; their weights are inside.
        weights: how fp32 and int8 files store theirs: "fp32", or "fp16" (widened to fp32 at load).
        calibration: (H, W, 3) uint8 RGB images to measure the halo and the cost of fp16 weights on; their
            centres are used. Default: photographs or, where there are none, validation, and rendered charts.
        photographs: the same kind, to calibrate int8 on.
        validation: HR images, the same kind, on which each file is compared with the checkpoint. Default:
            photographs or, where there are none, calibration.
        license_name: SPDX name of the licence of the weights, for the spec.
        test_sets: folders of HR images; the PSNR reached on each goes into the spec under its name.
        stopwatch: measures how fast an int8 file is beside the others.

    Raises:
        TrainingError: the checkpoint is missing or damaged.
        ExportError: the export does not match the checkpoint, fp16 weights cost 0.001 dB or more, fp16
            loses more than 0.01 dB, or int8 loses more than 0.1 dB or is not the fastest.
        ModelFileError: a weight is too large for fp16.
        OutputError: the folder cannot be written to.
        UsageError: a precision or I/O dtype is not known, an image cannot be used, or int8 lacks photographs.
    """
    _check_request(precisions, weights, photographs)
    check_io(io, precisions)
    alone = calibration is None and not photographs and not validation
    if calibration is None:
        calibration = [*(photographs or validation), *images.charts()]
    job = _Job(
        _load(checkpoint),
        weights,
        io,
        license_name,
        calibration=images.checked(calibration),
        photographs=images.checked(photographs) if photographs else [],
        validation=images.checked(validation or photographs or calibration),
        test_sets=test_sets,
        stopwatch=stopwatch,
    )
    if alone:
        _log.info("Checked on noise and rendered charts alone; with photographs: --calibration FOLDER.")
    wanted = {*precisions, "fp32"} if "int8" in precisions else {*precisions}
    return _export(job, [one for one in PRECISIONS if one in wanted], folder)


def _check_request(precisions: Sequence[str], weights: str, photographs: Sequence[Pixels]) -> None:
    if weights not in STORED:
        raise UsageError(f"Weights cannot be stored as {weights!r}.", "Choose fp32 or fp16.")
    for precision in precisions or [""]:
        if precision not in PRECISIONS:
            raise UsageError(f"No precision {precision!r}.", f"Choose from {', '.join(PRECISIONS)}.")
    if "int8" in precisions and not photographs:
        raise UsageError("int8 needs photographs to be calibrated on.", "Give some: --calibration FOLDER.")


def _load(path: Path) -> FusedNetwork:
    source = load_fused(path)
    name = source.checkpoint.network.name
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ExportError(f"{path}: its network is called {name!r}, which cannot be a file name.")
    return source


def _export(job: _Job, precisions: Sequence[str], folder: Path) -> list[Exported]:
    """Write everything into a staging folder, check it, then move it into place."""
    source, batches = job.source, probes(job.calibration)
    location = weights_file(source.checkpoint.network.name, tuple(source.layers), precisions)
    with staging(folder) as stage:
        fp32 = write_onnx(source.layers, job.specs(), stage / "fp32")
        errors = {s: check_parity(path, source.network, s, batches) for s, path in fp32.items()}
        references = {s: Reference(source.network, s, images.pairs(job.validation, s)) for s in fp32}
        made = []
        for arithmetic in precisions:
            for scale, path in _write(job, arithmetic, fp32, stage / "new", location).items():
                spec, cost = _finish(job, arithmetic, fp32[scale], path, references[scale])
                made.append(Exported(folder / path.name, spec, errors[scale], cost))
                for dtype in job.io if arithmetic == "fp16" else ():
                    about = replace(spec, io=dtype)
                    variant = write_io_variant(path, about, job.lr(scale))
                    made.append(Exported(folder / variant.name, about, errors[scale], cost))
        publish(stage / "new", folder)
    return made


def _write(
    job: _Job, arithmetic: str, fp32: Mapping[int, Path], folder: Path, location: str
) -> dict[int, Path]:
    """The files of all scales in one arithmetic; those that share weights read them from `location`."""
    if arithmetic == "fp32":
        return write_onnx(job.source.layers, job.specs(), folder, job.weights, location=location)
    if arithmetic == "fp16":
        return write_fp16(job.source.checkpoint.network.name, fp32, folder)
    photographs = {scale: [lr for lr, _ in images.pairs(job.photographs, scale)] for scale in fp32}
    return write_int8(job.source.layers, job.specs("int8"), fp32, folder, job.weights, photographs, location)


def _finish(
    job: _Job, arithmetic: str, fp32: Path, path: Path, reference: Reference
) -> tuple[ModelSpec, float]:
    """Check a file, measure its halo and quality, and write all of it into its spec.

    Returns:
        The spec, and the PSNR in dB that the file costs.
    """
    spec, run = job.spec(reference.scale, arithmetic), runner_for(path, arithmetic)
    accuracy = reference.compare(run)
    figures, cost = _check(job, spec, fp32, path, accuracy)
    spec = replace(
        spec,
        halo=measure_halo(run, job.lr(spec.scale), spec.scale, spec.exact_halo),
        quality={**spec.quality, **measure_quality(run, job.test_sets, spec.scale)},
        verified=accuracy.figures() | figures,
    )
    save_spec(path, spec)
    return spec, cost


def _check(
    job: _Job, spec: ModelSpec, fp32: Path, path: Path, accuracy: Accuracy
) -> tuple[dict[str, float], float]:
    """Refuse a file that is not good enough; else further figures for its spec, and its cost in dB."""
    if spec.arithmetic == "int8":
        share = check_gain(path.name, accuracy.psnr_lost, job.stopwatch(fp32, path, spec))
        return {"time_share": round(share, 4)}, accuracy.psnr_lost
    cost = 0.0
    if spec.arithmetic == "fp16":
        cost = accuracy.psnr_lost
    elif spec.precision == "fp16":
        cost = check_cost(fp32, path, images.pairs(job.calibration, spec.scale), spec.scale)
    check_loss(path.name, accuracy, spec.arithmetic)
    return {}, cost
