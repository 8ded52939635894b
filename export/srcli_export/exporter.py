"""Checkpoint -> ONNX files, verified before they appear under their names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from srcli.errors import ExportError, UsageError
from srcli.models.spec import ModelSpec
from srcli_export import calibration as images
from srcli_export.artefacts import judged, write_halves, write_int8
from srcli_export.collapse import collapsed
from srcli_export.ends import check_ends, write_ends
from srcli_export.fuse import fuse
from srcli_export.gain import Stopwatch, check_gain, measure_timings
from srcli_export.halo import measure_halo
from srcli_export.layers import Chain, multiply_adds, parameter_count
from srcli_export.quality import measure_quality
from srcli_export.runtime import Pixels
from srcli_export.storage import publish, save_spec, staging
from srcli_export.verify import Judge, Verdict, check_cost, check_loss, check_parity, probes
from srcli_export.writing import write_chains
from srcli_train.checkpoint import Checkpoint, load_checkpoint
from srcli_train.networks import build, exact_halo

PRECISIONS = ("fp32", "fp16", "int8")
"""Arithmetics a file can be exported in."""
STORED = ("fp32", "fp16")
"""How files that compute in fp32 can store their weights."""


@dataclass(frozen=True, slots=True)
class Exported:
    """One ONNX file that was written.

    Attributes:
        path: the file; networks of several scales have one weights file beside it.
        spec: what its metadata says.
        max_error: largest absolute difference from the checkpoint on 0-1, of the file in fp32 throughout.
        psnr_cost: dB lost to what is not fp32: to fp16 weights on the calibration images, or to an
            arithmetic on the HR images it was judged on; 0 for fp32 throughout.
    """

    path: Path
    spec: ModelSpec
    max_error: float
    psnr_cost: float


@dataclass(frozen=True, slots=True)
class _Job:
    """One export under way: a trained network, its layers by scale, and what to measure it on.

    Attributes:
        images: HR images for the halo and the cost of fp16 weights.
        photographs: HR images to calibrate int8 on.
        validation: HR images that decide what an arithmetic costs.
        ends: kinds of input and output that fp16 files are also written with.
    """

    checkpoint: Checkpoint
    network: nn.Module
    layers: Mapping[int, Chain]
    images: Sequence[Pixels]
    photographs: Sequence[Pixels]
    validation: Sequence[Pixels]
    license_name: str
    weights: str
    test_sets: Sequence[Path]
    stopwatch: Stopwatch
    ends: Sequence[str]

    @property
    def name(self) -> str:
        return self.checkpoint.network.name

    def spec(self, scale: int, arithmetic: str = "fp32") -> ModelSpec:
        """The spec of one scale, with the exact halo until a smaller one is measured."""
        spec = describe(self.checkpoint, scale, self.layers[scale])
        stored = "fp16" if arithmetic == "fp16" else self.weights
        return replace(spec, precision=stored, arithmetic=arithmetic, license=self.license_name)


def describe(checkpoint: Checkpoint, scale: int, layers: Chain) -> ModelSpec:
    """What a checkpoint says about its network at one scale, with the exact halo as the halo."""
    network, halo = checkpoint.network, exact_halo(checkpoint.network, scale)
    return ModelSpec(
        name=network.name,
        family=network.family,
        scale=scale,
        blocks=network.blocks,
        features=network.features,
        parameters=parameter_count(layers),
        macs=multiply_adds(layers),
        exact_halo=halo,
        halo=halo,
        training=checkpoint.facts,
        quality=checkpoint.quality.get(str(scale), {}),
    )


def export_checkpoint(
    checkpoint: Path,
    folder: Path,
    *,
    precisions: Sequence[str] = ("fp32",),
    ends: Sequence[str] = (),
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
    are `<name>-x<scale>.fp16.onnx` and `.int8.onnx`, whose graphs say so themselves. A network of one scale
    carries its weights; the graphs of MDSR share `<name>.weights`, or `<name>.fp16.weights`, beside them.

    Args:
        checkpoint: what training wrote.
        folder: where the files go; made if missing. Files of the same names are replaced.
        precisions: of the arithmetic: "fp32", "fp16", "int8". int8 is offered only where it loses at most
            0.1 dB and is the fastest way to run the network on this machine; the fp32 files come with it,
            whose weights it reads.
        ends: "uint8" or "float16": fp16 also as `<name>-x<scale>.fp16.uint8.onnx` and so on, whose input and
            output are of that type, for other programs; each carries its weights.
        weights: how fp32 and int8 files store theirs, "fp32" or "fp16" (widened to float32 at load).
        calibration: (H, W, 3) uint8 RGB photographs to measure the halo and the cost of fp16 weights on;
            their centres are used. Default: charts rendered by code.
        photographs: the same kind, to find the ranges of int8 on.
        validation: HR images, the same kind, on which each file is compared with the checkpoint. Default:
            the photographs, or the calibration images where there are none.
        license_name: SPDX name of the licence of the weights, for the spec.
        test_sets: folders of HR images; the PSNR reached on each goes into the spec under its name.
        stopwatch: measures how fast an int8 file is beside the others.

    Raises:
        TrainingError: the checkpoint is missing or damaged.
        ExportError: the export does not match the checkpoint, fp16 weights cost 0.001 dB or more, fp16
            loses more than 0.01 dB, or int8 is not worth it.
        ModelFileError: a weight is too large for fp16.
        OutputError: the folder cannot be written to.
        UsageError: a precision is not known, an image cannot be used, or int8 has no photographs.
    """
    _check_request(precisions, weights, photographs)
    check_ends(ends, precisions)
    measured = images.charts() if calibration is None else images.checked(calibration)
    proof = validation or photographs or measured
    checked, network, layers = _prepare(checkpoint)
    job = _Job(
        checked,
        network,
        layers,
        images=measured,
        photographs=images.checked(photographs) if photographs else [],
        validation=images.checked(proof),
        license_name=license_name,
        weights=weights,
        test_sets=test_sets,
        stopwatch=stopwatch,
        ends=ends,
    )
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


def _export(job: _Job, precisions: Sequence[str], folder: Path) -> list[Exported]:
    """Everything into a staging folder, then into place."""
    with staging(folder) as stage:
        full = _write(job, stage / "full", "fp32")
        errors = _check_parity(job, full)
        judges = {s: Judge(job.network, s, images.pairs(job.validation, s)) for s in full}
        made = []
        for arithmetic in precisions:
            for scale, path in _make(job, arithmetic, full, stage / "new").items():
                spec, cost = _finish(job, arithmetic, full[scale], path, judges[scale])
                made.append(Exported(folder / path.name, spec, errors[scale], cost))
                for kind in job.ends if arithmetic == "fp16" else ():
                    facts = replace(spec, io=kind)
                    other = write_ends(path, facts, [lr for lr, _ in images.pairs(job.images, scale)])
                    made.append(Exported(folder / other.name, facts, errors[scale], cost))
        publish(stage / "new", folder)
    return made


def _make(job: _Job, arithmetic: str, full: Mapping[int, Path], folder: Path) -> dict[int, Path]:
    """The files of all scales in one arithmetic."""
    if arithmetic == "fp32":
        return _write(job, folder, job.weights)
    if arithmetic == "fp16":
        return write_halves(job.name, full, folder)
    specs = {scale: job.spec(scale, "int8") for scale in full}
    photographs = {scale: [lr for lr, _ in images.pairs(job.photographs, scale)] for scale in full}
    return write_int8(job.layers, specs, full, folder, job.weights, photographs)


def _prepare(path: Path) -> tuple[Checkpoint, nn.Module, dict[int, Chain]]:
    """A checkpoint, its network in evaluation mode, and the deployment layers by scale."""
    checkpoint = load_checkpoint(path)
    spec = checkpoint.network
    if not re.fullmatch(r"\w[\w.-]*", spec.name):
        raise ExportError(f"{path}: its network is called {spec.name!r}, which cannot be a file name.")
    try:
        network = build(spec)
        network.load_state_dict(checkpoint.weights)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ExportError(f"{path}: the weights do not fit the network {spec.name!r} ({error}).") from error
    network.float().eval()
    return checkpoint, network, {scale: collapsed(fuse(network, spec, scale)) for scale in spec.scales}


def _write(job: _Job, folder: Path, weights: str) -> dict[int, Path]:
    """The fp32 files of all scales, by scale."""
    return write_chains(job.layers, {scale: job.spec(scale) for scale in job.layers}, folder, weights)


def _check_parity(job: _Job, paths: Mapping[int, Path]) -> dict[int, float]:
    batches = probes(job.images)
    return {scale: check_parity(path, job.network, scale, batches) for scale, path in paths.items()}


def _finish(job: _Job, arithmetic: str, full: Path, path: Path, judge: Judge) -> tuple[ModelSpec, float]:
    """Judge a file, measure its halo and quality, and write all of it into its spec.

    Returns:
        The spec, and the PSNR that the file costs.
    """
    spec = job.spec(judge.scale, arithmetic)
    run, lr = judged(path, arithmetic), [lr for lr, _ in images.pairs(job.images, spec.scale)]
    verdict = judge(run)
    figures, cost = _accept(job, spec, full, path, verdict)
    spec = replace(
        spec,
        halo=measure_halo(run, lr, spec.scale, spec.exact_halo),
        quality={**spec.quality, **measure_quality(run, job.test_sets, spec.scale)},
        verified=verdict.figures() | figures,
    )
    save_spec(path, spec)
    return spec, cost


def _accept(
    job: _Job, spec: ModelSpec, full: Path, path: Path, verdict: Verdict
) -> tuple[dict[str, float], float]:
    """Refuse a file that is not good enough; else further figures for its spec, and what it costs."""
    if spec.arithmetic == "int8":
        share = check_gain(path.name, verdict.psnr_lost, job.stopwatch(full, path, spec))
        return {"time_share": round(share, 4)}, verdict.psnr_lost
    cost = 0.0
    if spec.arithmetic == "fp16":
        cost = verdict.psnr_lost
    elif spec.precision == "fp16":
        cost = check_cost(full, path, images.pairs(job.images, spec.scale), spec.scale)
    check_loss(path.name, verdict, spec.arithmetic)
    return {}, cost
