"""The files of the other arithmetics, made from the float32 files of an export."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from srcli.backends.rewrite import to_half
from srcli.models.spec import ModelSpec
from srcli_export.emulate import with_rounding
from srcli_export.external import SharedWeights, share
from srcli_export.graph import Stored, stored_weights
from srcli_export.layers import Chain
from srcli_export.quantize import quantized
from srcli_export.runtime import Pixels, Runner
from srcli_export.storage import save
from srcli_export.writing import file_name, write_chains


def judged(path: Path, arithmetic: str) -> Runner:
    """A file as its arithmetic's own hardware would run it; fp16 with every tensor rounded."""
    return Runner(path, with_rounding(onnx.load(path))) if arithmetic == "fp16" else Runner(path)


def write_halves(name: str, full: Mapping[int, Path], folder: Path) -> dict[int, Path]:
    """Files that compute in fp16, by scale; those of several scales share `<name>.fp16.weights`.

    Raises:
        ModelFileError: a weight exceeds what a half can hold.
        OutputError: the folder cannot be written to.
    """
    models = {scale: to_half(onnx.load(path)) for scale, path in full.items()}
    if len(models) > 1:
        together = {key: values for model in models.values() for key, values in _kernels(model).items()}
        shared = share(f"{name}.fp16.weights", together)
        save(folder / shared.location, shared.content)
        for model in models.values():
            _refer(model, shared)
    paths = {scale: folder / file_name(name, scale, "fp16") for scale in models}
    for scale, path in paths.items():
        save(path, models[scale].SerializeToString())
    return paths


def write_int8(
    layers: Mapping[int, Chain],
    specs: Mapping[int, ModelSpec],
    full: Mapping[int, Path],
    folder: Path,
    weights: str,
    images: Mapping[int, Sequence[Pixels]],
) -> dict[int, Path]:
    """Files that compute in int8 where they bear it, by scale, with the weights of the fp32 files.

    Args:
        layers: the network of each scale.
        specs: of the int8 files.
        full: the same in float32.
        folder: where the files go; those of several scales share `<name>.weights`, as the fp32 files do.
        weights: how those store them.
        images: LR photographs to find the tensors' ranges and the noise on.

    Raises:
        ExportError: no convolution of a network bears eight bits.
        OutputError: the folder cannot be written to.
    """
    steps = {
        s: quantized(full[s], layers[s], stored_weights(layers[s], weights), specs[s], images[s])
        for s in specs
    }
    return write_chains(layers, specs, folder, weights, int8=steps)


def _kernels(model: onnx.ModelProto) -> dict[str, Stored]:
    """The convolution kernels of a model in halves."""
    return {
        tensor.name: np.asarray(numpy_helper.to_array(tensor), np.float16)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT16 and len(tensor.dims) == 4
    }


def _refer(model: onnx.ModelProto, shared: SharedWeights) -> None:
    """Let a model find its kernels in the shared file."""
    kernels = _kernels(model)
    rest = [tensor for tensor in model.graph.initializer if tensor.name not in kernels]
    references = shared.initializers(kernels)
    del model.graph.initializer[:]
    model.graph.initializer.extend([*rest, *references])
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, metadata | dict(shared.metadata))
