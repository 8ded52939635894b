"""One file of raw weights that several ONNX graphs share (ONNX "external data")."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper

from srcli.models.spec import WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY
from srcli_export.graph import Stored

_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Span:
    """Where a tensor lies in the file, in bytes."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class SharedWeights:
    """The file to write beside the graphs.

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
        """What a graph says about its weights file."""
        return {
            WEIGHTS_FILE_KEY: self.location,
            WEIGHTS_SHA256_KEY: hashlib.sha256(self.content).hexdigest(),
        }

    def initializers(self, weights: Mapping[str, Stored]) -> list[TensorProto]:
        """Initialisers of one graph; every one of them is in the file."""
        return [_reference(name, values, self.location, self.spans[name]) for name, values in weights.items()]


def fingerprint(weights: Mapping[str, Stored]) -> dict[str, str]:
    """What a graph that carries its weights says about them: two files with the same are the same network."""
    return {WEIGHTS_SHA256_KEY: share("", weights).metadata[WEIGHTS_SHA256_KEY]}


def share(location: str, weights: Mapping[str, Stored]) -> SharedWeights:
    """Lay tensors one after another."""
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
