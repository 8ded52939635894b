"""ONNX files that compute in fp16, and variants of them whose I/O dtype is uint8 or float16."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from srcli.backends import rewrite
from srcli.backends.rewrite import to_fp16
from srcli.errors import ExportError, UsageError
from srcli.models.spec import ModelSpec
from srcli_export.files import SharedWeights, file_name, save, save_spec, share
from srcli_export.graph import Stored
from srcli_export.runtime import Pixels, Runner, to_batch, to_uint8

IO_DTYPES = tuple(dtype for dtype in rewrite.IO_DTYPES if dtype != "float32")
"""I/O dtypes for other programs: "float16" (RGB 0-1) and "uint8" (RGB 0-255, rounded and clipped)."""

_UINT8_SHARE = 1e-4
"""Largest share of uint8 values that may differ, by 1; two in a million do, where x.5 is rounded."""
_FP16_ERROR = 2.0**-11
"""Largest rounding error of fp16 from 1 to 2; pixels are on 0-1, and a little outside."""


def write_fp16(name: str, fp32: Mapping[int, Path], folder: Path) -> dict[int, Path]:
    """Write the fp16 files of a network, by scale; several scales share `<name>.fp16.weights`.

    Args:
        name: of the network.
        fp32: its fp32 files by scale.
        folder: a staging folder.

    Raises:
        ModelFileError: a weight exceeds 65504, fp16's largest value.
        OutputError: a file cannot be written.
    """
    models = {scale: to_fp16(onnx.load(path)) for scale, path in fp32.items()}
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


def check_io(dtypes: Sequence[str], precisions: Sequence[str]) -> None:
    """Check the I/O dtypes that are asked for.

    Raises:
        UsageError: one of them is not among `IO_DTYPES`, or no fp16 file is made.
    """
    for dtype in dtypes:
        if dtype not in IO_DTYPES:
            raise UsageError(f"I/O dtype {dtype!r} is not known.", f"Choose from {', '.join(IO_DTYPES)}.")
    if dtypes and "fp16" not in precisions:
        raise UsageError("Only fp16 files are made with another I/O dtype.", "Add fp16 to --precision.")


def write_io_variant(path: Path, spec: ModelSpec, images: Sequence[Pixels]) -> Path:
    """Write `<name>-x<scale>.fp16.<dtype>.onnx` beside an fp16 file, and check that it gives the same pixels.

    Args:
        path: a finished fp16 file, whose I/O dtype is float32.
        spec: of the new file; its `io` is one of `IO_DTYPES`.
        images: (H, W, 3) uint8 LR images to compare the two on.

    Returns:
        The new file, with its weights inside.

    Raises:
        ExportError: it gives other pixels, or ONNX Runtime cannot run it.
        OutputError: it cannot be written.
    """
    target = path.with_name(f"{path.stem}.{spec.io}.onnx")
    save(target, to_fp16(onnx.load(path), spec.io).SerializeToString())
    save_spec(target, spec)
    compare = {"uint8": _uint8_difference, "float16": _float16_difference}[spec.io]
    plain, new = Runner(path), Runner(target)
    for difference in filter(None, (compare(plain, new, image) for image in images)):
        raise ExportError(f"{target.name}: {difference} from the file whose I/O dtype is float32.")
    return target


def _uint8_difference(plain: Runner, new: Runner, image: Pixels) -> str:
    """How far a uint8 file is from the plain one, in words; empty if the difference is allowed."""
    result = new.raw(np.ascontiguousarray(image.transpose(2, 0, 1)[np.newaxis]))[0].transpose(1, 2, 0)
    difference = np.abs(result.astype(np.int16) - to_uint8(plain(to_batch(image))))
    share, most = float((difference > 0).mean()), int(difference.max())
    return f"{share:.4%} of its values differ by up to {most}" if share > _UINT8_SHARE or most > 1 else ""


def _float16_difference(plain: Runner, new: Runner, image: Pixels) -> str:
    """The same of a float16 file; both get the image rounded to fp16."""
    given = to_batch(image).astype(np.float16)
    most = np.abs(new.raw(given).astype(np.float32) - plain(given.astype(np.float32))).max()
    return f"its pixels differ by up to {most:.2g}" if most > _FP16_ERROR else ""


def _kernels(model: onnx.ModelProto) -> dict[str, Stored]:
    """The fp16 convolution kernels of a model."""
    return {
        tensor.name: np.asarray(numpy_helper.to_array(tensor), np.float16)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT16 and len(tensor.dims) == 4
    }


def _refer(model: onnx.ModelProto, shared: SharedWeights) -> None:
    """Replace a model's kernels by references to the shared file."""
    kernels = _kernels(model)
    rest = [tensor for tensor in model.graph.initializer if tensor.name not in kernels]
    references = shared.initializers(kernels)
    del model.graph.initializer[:]
    model.graph.initializer.extend([*rest, *references])
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    helper.set_model_props(model, metadata | dict(shared.metadata))
