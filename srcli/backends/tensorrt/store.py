"""Built engines on disk, each under a key of everything that matters to it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from srcli.backends.devices import Gpu
from srcli.backends.libraries import load_failed
from srcli.backends.tensorrt.build import NAME
from srcli.io import storage
from srcli.io.storage import cache_folder

BUILD = 2
"""Raised whenever this code builds other engines from the same network."""

_ANY = "any"
_KINDS = (".engine", ".kernels", ".timings")


@dataclass(frozen=True, slots=True)
class Key:
    """What an engine was built from and for; any difference means another engine.

    Attributes:
        model: SHA-256 of the ONNX file and of the weights beside it.
        precision: "fp32" or "fp16".
        side: largest height and width, LR pixels.
        flavour, version: TensorRT's.
        gpu, capability: name and compute capability; "any" for an engine that runs on every GPU.
        srcli: version of this package.
        build: `BUILD`.
    """

    model: str
    precision: str
    side: int
    flavour: str
    version: str
    gpu: str
    capability: str
    srcli: str
    build: int = BUILD

    @property
    def text(self) -> str:
        """All of it, one line."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def for_any_gpu(self) -> "Key":
        """The key of the same engine built without a GPU."""
        return replace(self, gpu=_ANY, capability=_ANY)

    def file(self, folder: Path, model: str) -> Path:
        """Where it lies; the name says for people what it is, and for the rest a part of the key's hash."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:16]
        return folder / f"{model}-{self.precision}-{self.side}-{digest}.engine"


def key_of(path: Path, precision: str, side: int, flavour: str, version: str, gpu: Gpu | None) -> Key:
    """The key of an engine for a model file.

    Raises:
        ModelFileError: the file, or the weights beside it, cannot be read.
    """
    name, capability = (_ANY, _ANY) if gpu is None else (gpu.name, gpu.capability)
    return Key(checksum(path), precision, side, flavour, version, name, capability, _own_version())


def _own_version() -> str:
    """Of this package; run from its source, uninstalled, it has none."""
    try:
        return metadata.version("srcli")
    except metadata.PackageNotFoundError:
        return "source"


def checksum(path: Path) -> str:
    """SHA-256 (hex) of an ONNX file and of all files beside it that hold its weights.

    Raises:
        ModelFileError: one of them cannot be read.
    """
    import onnx

    digest = hashlib.sha256()
    try:
        data = path.read_bytes()
        digest.update(hashlib.sha256(data).digest())
        for name in sorted(_beside(onnx.load_from_string(data))):
            digest.update(hashlib.sha256((path.parent / name).read_bytes()).digest())
    except Exception as error:  # protobuf's and the system's
        raise load_failed(NAME, path, error) from error
    return digest.hexdigest()


def _beside(model: Any) -> set[str]:
    """Names of the files that hold weights of this network."""
    constants = [attribute.t for node in model.graph.node for attribute in node.attribute]
    entries = [entry for tensor in (*model.graph.initializer, *constants) for entry in tensor.external_data]
    return {entry.value for entry in entries if entry.key == "location"}


def folder_of_engines() -> Path:
    """Where engines are kept, unless they are built ahead."""
    return cache_folder(NAME)


def look_up(
    keys: Sequence[Key], folders: Sequence[Path], model: str, tell: Callable[[str], None]
) -> bytes | None:
    """The first engine that is there and whole; what is damaged is told and passed over."""
    for folder in folders:
        for key in keys:
            if (found := read(key.file(folder, model), key.text, tell)) is not None:
                return found
    return None


def read(path: Path, key: str, tell: Callable[[str], None]) -> bytes | None:
    """A sealed file's content; None if it is not there or, which is told, of no use."""
    try:
        return storage.read(path, key)
    except storage.StaleError as error:
        tell(f"{path.name} {error}: made again")
        return None


def keep(path: Path, key: str, content: bytes, tell: Callable[[str], None]) -> None:
    """Write a sealed file; what cannot be kept is told, and made again next time.

    Files that no run has read for long leave the cache. Other folders are their owner's.
    """
    try:
        storage.write(path, key, content)
    except OSError as error:
        tell(f"{path} cannot be written ({error.strerror}): made again next time")
    if path.parent == folder_of_engines():
        storage.forget_unused(path.parent, _KINDS)
