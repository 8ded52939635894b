"""ONNX files: names, weights that several scales share, and files that appear complete or not at all."""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from srcli.errors import OutputError
from srcli.models.spec import METADATA_KEY, WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY, ModelSpec
from srcli_export.graph import QuantScales, Stored, build_model, embedded, stored_weights
from srcli_export.layers import Chain
from srcli_train.networks import MEAN_RGB

_ALIGNMENT = 64


def file_name(name: str, scale: int, arithmetic: str) -> str:
    """`<name>-x<scale>.onnx` for fp32, else `<name>-x<scale>.<arithmetic>.onnx`."""
    return f"{name}-x{scale}.onnx" if arithmetic == "fp32" else f"{name}-x{scale}.{arithmetic}.onnx"


def weights_file(name: str, scales: Sequence[int], precisions: Sequence[str] = ()) -> str:
    """The file of the weights that several ONNX files share; empty where one file has them to itself."""
    if len(scales) > 1:
        return f"{name}.weights"
    return f"{name}-x{scales[0]}.weights" if "int8" in precisions else ""


def write_onnx(
    layers: Mapping[int, Chain],
    specs: Mapping[int, ModelSpec],
    folder: Path,
    weights: str = "fp32",
    mean: Sequence[float] = MEAN_RGB,
    int8: Mapping[int, Mapping[str, QuantScales]] | None = None,
    location: str = "",
) -> dict[int, Path]:
    """Write the fp32 or int8 files of a network.

    Args:
        layers: the fused network by scale.
        specs: of the files to write, by scale; stored in them.
        folder: a staging folder.
        weights: how weights are stored: "fp32" or "fp16".
        mean: the colour that is subtracted before and added after the network, on 0-1.
        int8: quantization scales of the convolutions that compute in int8, by scale and name.
        location: the file beside them that holds their weights; empty: each has its own inside.

    Returns:
        The files by scale.

    Raises:
        OutputError: a file cannot be written.
    """
    stored = {scale: stored_weights(layers[scale], weights) for scale in specs}
    together = {key: values for tensors in stored.values() for key, values in tensors.items()}
    shared = share(location, together) if location else None
    if shared:
        save(folder / shared.location, shared.content)
    paths = {scale: folder / file_name(spec.name, scale, spec.arithmetic) for scale, spec in specs.items()}
    for scale, path in paths.items():
        tensors = shared.initializers(stored[scale]) if shared else embedded(stored[scale])
        metadata = shared.metadata if shared else fingerprint(stored[scale])
        model = build_model(layers[scale], tensors, specs[scale], metadata, mean, (int8 or {}).get(scale))
        save(path, model.SerializeToString())
    return paths


@dataclass(frozen=True, slots=True)
class Span:
    """Where a tensor lies in the file, in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class SharedWeights:
    """One file of weights beside the ONNX files of several scales (ONNX "external data").

    Attributes:
        location: file name, relative to the graphs.
        content: little-endian values, each tensor starting at a multiple of 64 bytes.
        spans: where each tensor lies.
    """

    location: str
    content: bytes
    spans: Mapping[str, Span]

    @property
    def metadata(self) -> dict[str, str]:
        """Name and checksum of the file, for the metadata of each graph."""
        return {
            WEIGHTS_FILE_KEY: self.location,
            WEIGHTS_SHA256_KEY: hashlib.sha256(self.content).hexdigest(),
        }

    def initializers(self, weights: Mapping[str, Stored]) -> list[TensorProto]:
        """Initialisers of one graph that refer to the file."""
        return [_reference(name, values, self.location, self.spans[name]) for name, values in weights.items()]


def fingerprint(weights: Mapping[str, Stored]) -> dict[str, str]:
    """Checksum of weights inside an ONNX file, for its metadata: equal for files of the same weights."""
    return {WEIGHTS_SHA256_KEY: share("", weights).metadata[WEIGHTS_SHA256_KEY]}


def share(location: str, weights: Mapping[str, Stored]) -> SharedWeights:
    """Tensors as one file."""
    content, spans = bytearray(), {}
    for name, values in weights.items():
        content.extend(bytes(-len(content) % _ALIGNMENT))
        data = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes()
        spans[name] = Span(len(content), len(data))
        content.extend(data)
    return SharedWeights(location, bytes(content), spans)


def _reference(name: str, values: Stored, location: str, span: Span) -> TensorProto:
    data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
    tensor = TensorProto(name=name, data_type=data_type, dims=values.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", span.offset), ("length", span.length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A hidden folder inside `folder`, which is on the same disk; removed at the end in every case.

    Raises:
        OutputError: `folder` cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = tempfile.TemporaryDirectory(prefix=".srcli-export-", dir=folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror}).") from error
    with stage as path:
        yield Path(path)


def save(path: Path, content: bytes) -> None:
    """Write a file of a staging folder and flush it to the disk.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be written to ({error.strerror}).") from error


def save_spec(path: Path, spec: ModelSpec) -> None:
    """Replace the spec in an ONNX file of a staging folder.

    Raises:
        OutputError: it cannot be written.
    """
    model = onnx.load(path, load_external_data=False)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, metadata | {METADATA_KEY: spec.to_json()})
    save(path, model.SerializeToString())


def publish(stage: Path, folder: Path) -> None:
    """Rename all files of `stage` into `folder`: shared weights first, then the graphs that need them.

    Raises:
        OutputError: a file cannot be put in its place.
    """
    for path in sorted(stage.iterdir(), key=lambda path: (path.suffix == ".onnx", path.name)):
        try:
            path.replace(folder / path.name)
        except OSError as error:
            raise OutputError(f"{folder / path.name}: cannot be replaced ({error.strerror}).") from error
