"""Checkpoint -> ONNX files, verified before they appear under their names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from torch import nn

from srcli.errors import ExportError, UsageError
from srcli.spec import METADATA_KEY, ModelSpec
from srcli_export import calibration as images
from srcli_export.external import share
from srcli_export.fuse import fuse
from srcli_export.graph import build_model, embedded, stored_weights
from srcli_export.halo import measure_halo
from srcli_export.layers import Chain, multiply_adds, parameter_count
from srcli_export.quality import measure_quality
from srcli_export.runtime import Pixels, Runner
from srcli_export.storage import publish, save, staging
from srcli_export.verify import check_cost, check_parity, probes
from srcli_train.checkpoint import Checkpoint, load_checkpoint
from srcli_train.networks import build, exact_halo

PRECISIONS = ("fp32", "fp16")


@dataclass(frozen=True, slots=True)
class Exported:
    """One ONNX file that was written.

    Attributes:
        path: the file; networks of several scales have one weights file beside it.
        spec: what its metadata says.
        max_error: largest absolute difference from the checkpoint on 0-1, weights in fp32.
        psnr_cost: dB lost to fp16 weights on the calibration images; 0 for fp32 weights.
    """

    path: Path
    spec: ModelSpec
    max_error: float
    psnr_cost: float


@dataclass(frozen=True, slots=True)
class _Job:
    """One export under way: a trained network, its layers by scale, and what to measure it on."""

    checkpoint: Checkpoint
    network: nn.Module
    layers: Mapping[int, Chain]
    images: Sequence[Pixels]
    license_name: str
    test_sets: Sequence[Path] = ()

    @property
    def name(self) -> str:
        return self.checkpoint.network.name

    def spec(self, scale: int, precision: str) -> ModelSpec:
        """The spec of one scale, with the exact halo until a smaller one is measured."""
        spec = describe(self.checkpoint, scale, self.layers[scale])
        return replace(spec, precision=precision, license=self.license_name)


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
    weights: str = "fp32",
    calibration: Sequence[Pixels] | None = None,
    license_name: str = "",
    test_sets: Sequence[Path] = (),
) -> list[Exported]:
    """Export every scale of a checkpoint as `<name>-x<scale>.onnx`, all of them or none.

    A network of one scale carries its weights; the graphs of MDSR share `<name>.weights` beside them.

    Args:
        checkpoint: what training wrote.
        folder: where the files go; made if missing. Files of the same names are replaced.
        weights: how they are stored, "fp32" or "fp16" (widened to float32 at load).
        calibration: (H, W, 3) uint8 RGB photographs to measure the halo and the cost of fp16 on; their
            centres are used. Default: charts rendered by code.
        license_name: SPDX name of the licence of the weights, for the spec.
        test_sets: folders of HR images; the PSNR reached on each goes into the spec under its name.

    Raises:
        TrainingError: the checkpoint is missing or damaged.
        ExportError: the export does not match the checkpoint, or fp16 costs 0.001 dB or more.
        OutputError: the folder cannot be written to.
        UsageError: `weights` is not known, or a calibration image cannot be used.
    """
    if weights not in PRECISIONS:
        raise UsageError(f"Weights cannot be stored as {weights!r}.", "Choose fp32 or fp16.")
    photographs = images.charts() if calibration is None else images.checked(calibration)
    job = replace(_prepare(checkpoint, photographs, license_name), test_sets=test_sets)
    with staging(folder) as stage:
        full = _write(job, stage / "fp32", "fp32")
        errors = _check_parity(job, full)
        final = full if weights == "fp32" else _write(job, stage / weights, weights)
        costs = {scale: _cost(job, scale, full[scale], final[scale]) for scale in final}
        specs = {scale: _finish(job, scale, final[scale], weights) for scale in final}
        publish(stage / weights, folder)
    return [Exported(folder / final[s].name, specs[s], errors[s], costs[s]) for s in final]


def _prepare(path: Path, photographs: Sequence[Pixels], license_name: str) -> _Job:
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
    layers = {scale: fuse(network, spec, scale) for scale in spec.scales}
    return _Job(checkpoint, network, layers, photographs, license_name)


def _write(job: _Job, folder: Path, precision: str) -> dict[int, Path]:
    """The files of all scales, by scale; more than one scale share a weights file."""
    stored = {scale: stored_weights(layers, precision) for scale, layers in job.layers.items()}
    together = {name: values for tensors in stored.values() for name, values in tensors.items()}
    shared = share(f"{job.name}.weights", together) if len(stored) > 1 else None
    if shared:
        save(folder / shared.location, shared.content)
    paths = {scale: folder / f"{job.name}-x{scale}.onnx" for scale in stored}
    for scale, path in paths.items():
        tensors = shared.initializers(stored[scale]) if shared else embedded(stored[scale])
        metadata = shared.metadata if shared else {}
        model = build_model(job.layers[scale], tensors, job.spec(scale, precision), metadata)
        save(path, model.SerializeToString())
    return paths


def _check_parity(job: _Job, paths: Mapping[int, Path]) -> dict[int, float]:
    batches = probes(job.images)
    return {scale: check_parity(path, job.network, scale, batches) for scale, path in paths.items()}


def _cost(job: _Job, scale: int, full: Path, final: Path) -> float:
    if final == full:
        return 0.0
    return check_cost(full, final, images.pairs(job.images, scale), scale)


def _finish(job: _Job, scale: int, path: Path, precision: str) -> ModelSpec:
    """Measure the default halo and the quality, and write both into the file's spec."""
    spec, run = job.spec(scale, precision), Runner(path)
    lr = [lr for lr, _ in images.pairs(job.images, scale)]
    spec = replace(
        spec,
        halo=measure_halo(run, lr, scale, spec.exact_halo),
        quality={**spec.quality, **measure_quality(run, job.test_sets, scale)},
    )
    model = onnx.load(path, load_external_data=False)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, metadata | {METADATA_KEY: spec.to_json()})
    save(path, model.SerializeToString())
    return spec
