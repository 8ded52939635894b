"""ModelSpec: everything the upscaler needs to know about a network, carried inside its ONNX file."""

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, BinaryIO

from srcli.errors import ModelFileError

METADATA_KEY = "srcli.spec"
"""Key of the JSON spec in the ONNX file's metadata_props."""
WEIGHTS_FILE_KEY = "srcli.weights_file"
WEIGHTS_SHA256_KEY = "srcli.weights_sha256"
"""Keys of a weights file that several graphs share: its name beside the graph, and its SHA-256 (hex)."""

_METADATA_FIELD = 14  # ModelProto.metadata_props
_LENGTH_DELIMITED = 2


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """Where the weights come from. Empty strings and zeros mean "not known".

    Updates and hours are those of all runs, where one started from another's weights.
    """

    data: str = ""
    recipe: str = ""
    updates: int = 0
    hours: float = 0.0
    machine: str = ""
    command: str = ""


@dataclass(frozen=True, slots=True)
class Feed:
    """How a network of others wants pictures.

    Attributes:
        white: value of full white in its input.
        out_white: the same in its output.
        multiple: height and width must be multiples of this.
    """

    white: float = 1.0
    out_white: float = 1.0
    multiple: int = 1


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One network at one scale.

    Attributes:
        name: preset or file name, e.g. "mdsr-baseline".
        family: "edsr", "mdsr", "srresnet" or "other".
        scale: output size / input size, 2, 3 or 4 for the shipped networks.
        channels: colour channels of input and output (3: RGB).
        blocks: residual blocks of the body; 0 if not known.
        features: channels of the body; 0 if not known.
        parameters: number of parameters this scale uses; 0 if not known.
        macs: multiply-adds of all convolutions for one LR pixel, without those that a file repeats for the
            sake of precision or at the border; 0 if not known.
        exact_halo: receptive-field radius in LR pixels; tiles with it equal a whole-image run.
        halo: the measured smaller halo at which no 8-bit output pixel of the calibration set
            changes by more than 1; the default of tiled runs.
        precision: "fp32" or "fp16": how the weights are stored.
        arithmetic: what the graph itself asks for. "fp32": the backend may compute in less. "fp16": tensors
            are halves; a backend without half arithmetic widens them. "int8": convolutions that bear it take
            8-bit integers, whatever the backend's precision.
        io: what the graph takes and gives. "float32": RGB 0-1, as srcli feeds it. "float16" (0-1) and "uint8"
            (0-255, rounded and clipped) are for other programs.
        license: SPDX name of the licence of the weights.
        training: where the weights come from.
        quality: PSNR in dB (Y, shave = scale, no ensemble) by test set, e.g. {"Set5": 37.6}.
        verified: how the file compared with the fp32 checkpoint at export, by what was measured; empty for
            files that were not exported from one. See `srcli_export.verify.Accuracy`.
        feed: how it wants pictures; what `from_json` reads takes them as srcli gives them.
    """

    name: str
    family: str
    scale: int
    channels: int = 3
    blocks: int = 0
    features: int = 0
    parameters: int = 0
    macs: int = 0
    exact_halo: int = 0
    halo: int = 0
    precision: str = "fp32"
    arithmetic: str = "fp32"
    io: str = "float32"
    license: str = ""
    training: TrainingFacts = field(default_factory=TrainingFacts)
    quality: Mapping[str, float] = field(default_factory=dict)
    verified: Mapping[str, float] = field(default_factory=dict)
    feed: Feed = field(default_factory=Feed)

    def __post_init__(self) -> None:
        if not 1 <= self.scale <= 16:
            raise ModelFileError(f"Model {self.name!r} says scale {self.scale}; 1 to 16 is possible.")
        if not 0 <= self.halo <= self.exact_halo:
            raise ModelFileError(
                f"Model {self.name!r} has halo {self.halo}, outside 0..{self.exact_halo} (its exact halo)."
            )

    def check_io(self, path: Path) -> None:
        """Refuse a file that is meant for other programs.

        Raises:
            ModelFileError: it does not take float32.
        """
        if self.io != "float32":
            hint = f"Give it {path.name.replace(f'.{self.io}', '')}."
            raise ModelFileError(f"{path}: takes {self.io}, for other programs; srcli feeds float32.", hint)

    def to_json(self) -> str:
        """The spec as one line of JSON, keys sorted."""
        described = asdict(self)
        del described["feed"]
        return json.dumps(described, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelSpec":
        """Read what `to_json` wrote; unknown keys of newer versions are ignored.

        Raises:
            ModelFileError: the text is not a spec.
        """
        try:
            raw = json.loads(text)
            training = TrainingFacts(**_known(TrainingFacts, raw.pop("training", {})))
            raw.pop("feed", None)
            return cls(training=training, **_known(cls, raw))
        except (ValueError, TypeError, AttributeError) as error:
            raise ModelFileError(f"The model's description cannot be read ({error}).") from error


def _known(cls: type, raw: dict[str, Any]) -> dict[str, Any]:
    names = {f.name for f in fields(cls)}
    return {key: value for key, value in raw.items() if key in names}


def read_spec(path: Path) -> ModelSpec | None:
    """The spec inside an ONNX file, or None if the file carries none.

    Raises:
        ModelFileError: the file is not an ONNX file, or its spec is damaged.
    """
    text = read_metadata(path).get(METADATA_KEY)
    return None if text is None else ModelSpec.from_json(text)


def weights_of(path: Path) -> Path | None:
    """The weights file that lies beside an ONNX file, or None if the network carries its weights.

    Raises:
        ModelFileError: the file is not an ONNX file.
    """
    name = read_metadata(path).get(WEIGHTS_FILE_KEY)
    return None if name is None else path.parent / name


def check_weights(path: Path) -> None:
    """Compare the weights file that lies beside an ONNX file, if it has one, with its checksum.

    Raises:
        ModelFileError: it is missing, or not the one the network was exported with.
    """
    metadata, weights = read_metadata(path), weights_of(path)
    if weights is None:
        return
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    except OSError as error:
        hint = f"Copy {weights.name} beside it: the network's weights are in there."
        raise ModelFileError(f"{weights}: cannot be read, but {path.name} needs it.", hint) from error
    if digest != metadata.get(WEIGHTS_SHA256_KEY):
        hint = "Export the model again, or install srcli again."
        raise ModelFileError(f"{weights}: damaged, or not the weights of {path.name}.", hint)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata_props of an ONNX file.

    Walks the top-level protobuf fields and skips the graph, so no ONNX library and no more than a
    few kilobytes of reading are needed.

    Raises:
        ModelFileError: the file is not an ONNX file.
    """
    try:
        with path.open("rb") as file:
            payloads = list(_metadata_entries(file, path.stat().st_size))
        entries = [dict(_strings(payload)) for payload in payloads]
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror}).") from error
    except (EOFError, UnicodeDecodeError) as error:
        hint = "Give the path of an .onnx file, or a shipped model's name."
        raise ModelFileError(f"{path}: not an ONNX file, or damaged.", hint) from error
    return {entry.get(1, ""): entry.get(2, "") for entry in entries}


def _metadata_entries(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The payload of each metadata_props field; everything else is skipped."""
    if size == 0:
        raise EOFError
    while file.tell() < size:
        key = _varint(file)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise EOFError
        if wire == _LENGTH_DELIMITED:
            length = _varint(file)
            if file.tell() + length > size:
                raise EOFError
            if number == _METADATA_FIELD:
                yield file.read(length)
            else:
                file.seek(length, 1)
        elif wire == 0:
            _varint(file)
        elif wire in (1, 5):
            file.seek(8 if wire == 1 else 4, 1)
        else:
            raise EOFError


def _strings(payload: bytes) -> Iterator[tuple[int, str]]:
    """The string fields of one StringStringEntryProto (1: key, 2: value)."""
    stream = io.BytesIO(payload)
    while stream.tell() < len(payload):
        number = _varint(stream) >> 3
        yield number, stream.read(_varint(stream)).decode("utf-8")


def _varint(file: BinaryIO) -> int:
    """One base-128 integer of the protobuf wire format."""
    result = shift = 0
    while True:
        byte = file.read(1)
        if not byte or shift > 63:
            raise EOFError
        result |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return result
        shift += 7
