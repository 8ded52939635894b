"""Models as a start for training: the weights of exported files, put back where they came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from srcli.backends.libraries import load_failed
from srcli.errors import MissingExtraError, ModelNotFoundError, TrainingError, UsageError
from srcli.models.catalog import ModelFile, is_path, resolve, scales
from srcli.models.spec import ModelSpec
from srcli_train.checkpoint import Checkpoint, load_checkpoint
from srcli_train.networks import NetworkSpec
from srcli_train.networks.layers import MEAN_RGB
from srcli_train.recipes import Recipe

HALF = "_fp16"
"""Ends the name of a kernel that is stored in halves."""

MERGED = "merged"
"""Last part of the name of a convolution that stands for others, which the file holds as well."""

_TRAINED = (".weight", ".bias")
_HINT = (
    "Give a checkpoint of srcli train, a model by name (`srcli models`), or an .onnx file of srcli export."
)


def load_start(init: Path, network: NetworkSpec) -> Checkpoint:
    """What `--init` names: a checkpoint, or a model by its name or the path of its ONNX file.

    Args:
        init: path or name.
        network: that is to start from it; residual scaling, which files do not tell, is taken to be its own.

    Raises:
        TrainingError: it cannot be read, or is none of srcli's networks.
        UsageError, ModelNotFoundError, ModelFileError: no such checkpoint or model, or it is damaged.
        MissingExtraError: a model is named, and onnx is not installed.
    """
    files = find_start(init, network)
    return _from_model(files, network) if files else load_checkpoint(init)


def find_start(init: Path, network: NetworkSpec) -> list[ModelFile]:
    """The files of the model that `--init` names; none if it names a checkpoint.

    Raises:
        UsageError, ModelNotFoundError, ModelFileError: as in `load_start`.
    """
    is_name = not (init.is_file() or is_path(str(init)) or init.suffix == ".pt")
    if is_name or init.suffix == ".onnx":
        return _files(init, network)
    if not init.is_file():
        raise UsageError(f"{init}: no such checkpoint.", _HINT)
    return []


def _files(init: Path, network: NetworkSpec) -> list[ModelFile]:
    """The files that make one network: all of an MDSR's, else that of the same scale, or the first."""
    model = init if init.suffix == ".onnx" else str(init)
    try:
        files = [resolve(model, scale) for scale in scales(model)]
    except ModelNotFoundError as error:
        raise ModelNotFoundError(error.message, _HINT) from error
    if all(file.spec.family == "mdsr" for file in files):
        return files
    return [next((file for file in files if file.spec.scale in network.scales), files[0])]


def _from_model(files: list[ModelFile], network: NetworkSpec) -> Checkpoint:
    weights, spec = dict[str, Tensor](), files[0].spec
    for file in files:
        found = _weights_of(file)
        if any(not torch.equal(weights[name], found[name]) for name in weights.keys() & found.keys()):
            names = ", ".join(one.path.name for one in files)
            hint = "Give the path of one of them, or export them again from one checkpoint."
            raise TrainingError(f"{names} are not of one network: what their scales share differs.", hint)
        weights |= found
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
    try:
        stored = {
            tensor.name.removesuffix(HALF): numpy_helper.to_array(tensor)
            for tensor in onnx.load(file.path).graph.initializer
        }
    except Exception as error:  # protobuf, onnx and the file system each raise their own
        raise load_failed("training", file.path, error) from error
    _refuse_other_colour(file.path, stored)
    return {
        name: torch.from_numpy(value.astype(np.float32))
        for name, value in stored.items()
        if name.endswith(_TRAINED) and f".{MERGED}." not in name
    }


def _refuse_other(path: Path, spec: ModelSpec) -> None:
    if spec.family not in ("edsr", "mdsr") or spec.arithmetic != "fp32":
        raise TrainingError(
            f"{path}: training starts from EDSR and MDSR files in fp32 arithmetic only.",
            "Give the checkpoint that it was exported from.",
        )


def _refuse_other_colour(path: Path, stored: Mapping[str, NDArray[Any]]) -> None:
    """Imported networks may take off another mean colour than srcli's do, and have a tail in one part."""
    missing = np.zeros(0)
    mean, tail = stored.get("mean", missing).ravel(), stored.get("tail.bias", missing)
    if tail.shape != (6,) or mean.shape != (3,) or not np.allclose(mean, MEAN_RGB, atol=1e-6):
        raise TrainingError(
            f"{path}: is not as srcli exports networks, or takes off another mean colour than DIV2K's.",
            "Training starts from srcli's own networks.",
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
