"""Engines on disk, each under a key of everything it depends on: found there, or built and kept."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from srcli.backends.base import load_failed
from srcli.backends.devices import Gpu
from srcli.backends.tensorrt.build import BuildProgress, Built, build, duration
from srcli.backends.tensorrt.flavour import NAME, Flavour
from srcli.backends.tensorrt.runtime import CudaEngine, TensorRtCudaEngine
from srcli.errors import InferenceError
from srcli.io import storage
from srcli.io.storage import cache_folder
from srcli.models.spec import ModelSpec

_logger = logging.getLogger(__name__)

BUILD = 3
"""Part of the key: raise it when this code starts to build other engines from the same network."""

_ANY = "any"
_SUFFIXES = (".engine", ".kernels", ".timings")


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
        """All fields as JSON on one line."""
        return json.dumps(asdict(self), sort_keys=True)

    @property
    def for_any_gpu(self) -> "Key":
        """The key of the same engine built without a GPU."""
        return replace(self, gpu=_ANY, capability=_ANY)

    def file(self, folder: Path, model: str) -> Path:
        """The engine's path: model, precision and side to read, 64 bits of the key's hash for all else."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()[:16]
        return folder / f"{model}-{self.precision}-{self.side}-{digest}.engine"


def key_of(path: Path, precision: str, side: int, flavour: str, version: str, gpu: Gpu | None) -> Key:
    """The key of an engine for a model file.

    Raises:
        ModelFileError: the file, or the weights beside it, cannot be read.
    """
    name, capability = (_ANY, _ANY) if gpu is None else (gpu.name, gpu.capability)
    return Key(checksum(path), precision, side, flavour, version, name, capability, _srcli_version())


def _srcli_version() -> str:
    """Of the installed package; "source" where srcli runs uninstalled."""
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
        for name in sorted(_weight_files(onnx.load_from_string(data))):
            digest.update(hashlib.sha256((path.parent / name).read_bytes()).digest())
    except Exception as error:  # protobuf's and the system's
        raise load_failed(NAME, path, error) from error
    return digest.hexdigest()


def _weight_files(model: Any) -> set[str]:
    """Names of the files beside an ONNX file that hold its weights."""
    constants = [attribute.t for node in model.graph.node for attribute in node.attribute]
    entries = [entry for tensor in (*model.graph.initializer, *constants) for entry in tensor.external_data]
    return {entry.value for entry in entries if entry.key == "location"}


def folder_of_engines() -> Path:
    """The cache for engines that are built when they are first needed."""
    return cache_folder(NAME)


def look_up(keys: Sequence[Key], folders: Sequence[Path], model: str) -> bytes | None:
    """The first engine that is present and whole; damaged files are logged and passed over."""
    for folder in folders:
        for key in keys:
            if (found := read(key.file(folder, model), key.text)) is not None:
                return found
    return None


def read(path: Path, key: str) -> bytes | None:
    """A file's content; None if it is missing, or damaged or made for another key, which is logged."""
    try:
        return storage.read_checked(path, key)
    except storage.StaleError as error:
        _logger.warning("%s %s: made again", path.name, error)
        return None


def keep(path: Path, key: str, content: bytes) -> None:
    """Write a file with its key and checksum; a failure is logged, and the content made again next time.

    In the cache, but in no other folder, files that were not read for `storage.UNUSED_DAYS` are deleted.
    """
    try:
        storage.write_checked(path, key, content)
    except OSError as error:
        _logger.warning("%s cannot be written (%s): made again next time", path, error.strerror)
    if path.parent == folder_of_engines():
        storage.forget_unused(path.parent, _SUFFIXES)


@dataclass(frozen=True, slots=True)
class EngineStore:
    """Engines of one model in one precision, for tiles of different sizes: found on disk, or built and kept.

    Attributes:
        flavour: TensorRT.
        path, spec: the model.
        precision: "fp32" or "fp16".
        gpu: the one to build for; None: any (`Flavour.portable` only).
        folders: searched in this order; new engines go into the first.
    """

    flavour: Flavour
    path: Path
    spec: ModelSpec
    precision: str
    gpu: Gpu | None
    folders: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Model and scale, as in file names."""
        return f"{self.spec.name}-x{self.spec.scale}".replace("/", "_")

    def engine(self, side: int) -> CudaEngine:
        """An engine for tiles up to that side, loaded onto the GPU.

        Raises:
            ModelFileError: the model cannot be read or built.
            MemoryError: the GPU has too little memory.
            InferenceError: TensorRT rejects an engine that was just built.
        """
        key = self.key(side)
        found = self.find(key)
        if found is not None:
            try:
                return self._load(key, found)
            except InferenceError as error:
                _logger.warning("%s The engine is built again.", error.message)
        return self._load(key, self.build(key))

    def key(self, side: int) -> Key:
        """The key of an engine for tiles up to that side."""
        flavour = self.flavour
        return key_of(self.path, self.precision, side, flavour.name, flavour.version, self.gpu)

    def find(self, key: Key) -> bytes | None:
        """A kept engine for this GPU, or else for any; serialized."""
        keys = [key, key.for_any_gpu] if self.flavour.portable else [key]
        return look_up(keys, self.folders, self.name)

    def build(self, key: Key) -> bytes:
        """Build an engine and keep it; progress is logged. Returns it serialized."""
        what = f"TensorRT engine for {self.name} {key.precision}, tiles up to {key.side}"
        _logger.info("%s: building it once for %s", what, key.gpu if self.gpu else "any GPU")
        progress = BuildProgress(what)
        timings = self._shared_file(key, ".timings")
        before = read(timings, _shared(key).text) or b""
        built = build(self.flavour, self.path, self.precision, key.side, self.gpu, before, progress)
        file = self._keep(key, built)
        _logger.info("%s: built in %s, kept as %s", what, duration(progress.seconds), file)
        return built.engine

    def _keep(self, key: Key, built: Built) -> Path:
        file = key.file(self.folders[0], self.name)
        keep(file, key.text, built.engine)
        if built.timings:
            keep(self._shared_file(key, ".timings"), _shared(key).text, built.timings)
        return file

    def _load(self, key: Key, engine: bytes) -> CudaEngine:
        file = key.file(self.folders[0], self.name).with_suffix(".kernels")
        kernels = read(file, key.text) or b"" if self.flavour.portable else b""

        def keep_kernels(compiled: bytes) -> None:
            keep(file, key.text, compiled)

        return TensorRtCudaEngine(self.flavour, engine, kernels, keep_kernels)

    def _shared_file(self, key: Key, suffix: str) -> Path:
        """A file that all engines of this GPU and TensorRT share."""
        return _shared(key).file(self.folders[0], "all").with_suffix(suffix)


def _shared(key: Key) -> Key:
    """The part of a key that all engines of one GPU and TensorRT have in common."""
    return replace(key, model="", precision="", side=0, srcli="")
