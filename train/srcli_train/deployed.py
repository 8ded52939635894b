"""Models as a start for training: the weights of exported files, put back where they came from."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from srcli.errors import MissingExtraError, TrainingError
from srcli.models.catalog import ModelFile, is_path, resolve, scales
from srcli.spec import ModelSpec
from srcli_train.checkpoint import Checkpoint, load_checkpoint
from srcli_train.networks import NetworkSpec
from srcli_train.recipes import Recipe

_HALF = "_fp16"  # ends the name of a kernel that is stored in halves


def load_start(init: Path, network: NetworkSpec) -> Checkpoint:
    """What `--init` names: a checkpoint, or a model by its name or the path of its ONNX file.

    Args:
        init: path or name.
        network: that is to start from it; residual scaling, which files do not tell, is taken to be its own.

    Raises:
        TrainingError: it cannot be read, or is none of srcli's networks.
        ModelNotFoundError, ModelFileError: no such model, or it is damaged.
        MissingExtraError: a model is named, and onnx is not installed.
    """
    if init.is_file() and init.suffix != ".onnx":
        return load_checkpoint(init)
    if init.suffix == ".onnx" or not (is_path(str(init)) or init.suffix == ".pt"):
        return _from_model(_files(init, network), network)
    return load_checkpoint(init)  # which says that there is none


def _files(init: Path, network: NetworkSpec) -> list[ModelFile]:
    """The files that make one network: all of an MDSR's, else that of the same scale, or the first."""
    model = init if init.suffix == ".onnx" else str(init)
    files = [resolve(model, scale) for scale in scales(model)]
    if all(file.spec.family == "mdsr" for file in files):
        return files
    return [next((file for file in files if file.spec.scale in network.scales), files[0])]


def _from_model(files: list[ModelFile], network: NetworkSpec) -> Checkpoint:
    weights, spec = dict[str, Tensor](), files[0].spec
    for file in files:
        weights |= _weights_of(file)
    known = NetworkSpec(
        name=spec.name,
        family=spec.family,
        blocks=spec.blocks,
        features=spec.features,
        residual_scale=network.residual_scale,
        scales=tuple(file.spec.scale for file in files),
        pixel_range=network.pixel_range,
    )
    return Checkpoint(known, Recipe(), _as_trained(weights, known), facts=spec.training)


def _weights_of(file: ModelFile) -> dict[str, Tensor]:
    """Kernels and biases of a file by their names in training."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError("Training from a model", "export") from error
    _refuse_other(file.path, file.spec)
    stored = {
        tensor.name.removesuffix(_HALF): torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in onnx.load(file.path).graph.initializer
    }
    return {name: value for name, value in stored.items() if name.endswith((".weight", ".bias"))}


def _refuse_other(path: Path, spec: ModelSpec) -> None:
    if spec.family not in ("edsr", "mdsr") or spec.arithmetic != "fp32":
        raise TrainingError(
            f"{path}: training starts from EDSR and MDSR files in fp32 arithmetic only.",
            "Give the checkpoint that it was exported from.",
        )


def _as_trained(weights: Mapping[str, Tensor], network: NetworkSpec) -> dict[str, Tensor]:
    """The inverse of what the export does: biases for 0-1 pixels, scaled residuals, a tail in two parts."""
    trained = {}
    for name, stored in weights.items():
        value = stored * network.pixel_range if name.endswith(".bias") else stored
        if name.startswith("tail."):
            value = value[:3] + value[3:]
        if name.startswith("body.blocks.") and ".conv2." in name:
            value = value / network.residual_scale
        trained[name] = value
    return trained
