"""NVIDIA TensorRT, full (10, 11) or for RTX: an engine tuned for the GPU, built on first use and kept.

Tested without a GPU: choosing, building and keeping engines, and with a stand-in of the GPU buffers, streams
and CUDA graphs. Untested on hardware: what runs on the GPU.

`run` and `run_each` copy float32 to the host: the caller needs the exact values to find infinities and NaN,
to average the self-ensemble and for 16-bit pictures, and copying fp16 would save less time than converting it
costs. For 8-bit pictures `run_uint8` copies finished uint8 from the same engine: a quarter of the bytes, no
conversion.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from math import inf, isqrt
from pathlib import Path
from typing import Protocol

import numpy as np

from srcli.backends import devices
from srcli.backends.base import (
    Batch,
    EngineInfo,
    Uint8Batch,
    choose_precision,
    refused,
    reported_precision,
)
from srcli.backends.tensorrt import flavour as flavours
from srcli.backends.tensorrt import store
from srcli.backends.tensorrt.flavour import NAME
from srcli.backends.tensorrt.runtime import Cuda, CudaEngine, Device
from srcli.backends.tensorrt.streams import Outputs, Streams, Wanted
from srcli.errors import InferenceError, MissingExtraError, OutputError
from srcli.io.storage import check_takes_files
from srcli.models.spec import ModelSpec
from srcli.settings import Settings

PRECISIONS = ("fp32", "fp16")
SIDES = (96, 192, 384, 768, 1536, 3072)
"""Tile sides, LR pixels, that engines are built for; each engine takes all smaller tiles. A caller that
halves a tile after running out of memory reaches the next smaller one. See `sides_for`."""

MAX_ELEMENTS = 2**31 - 1
"""Of one tensor: TensorRT builds no engine for more, whatever the memory."""

DEFAULT_SIDE = 384
"""Built when a model is loaded: as large as the default tile on a GPU."""

STREAMS = 2
"""CUDA streams in use: the GPU computes one batch while the host copies to or from the other."""


class EngineSource(Protocol):
    """Builds or finds engines."""

    def engine(self, side: int) -> CudaEngine:
        """An engine for tiles up to that side, loaded onto the GPU."""


def sides_for(spec: ModelSpec) -> tuple[int, ...]:
    """`SIDES` for a network, as far as its largest tensor stays within `MAX_ELEMENTS`.

    That tensor has at most all features at the output's size, which the last layer reads where upsampler and
    tail are not merged, or is the output.
    """
    per_pixel = spec.scale**2 * max(spec.features, spec.channels)
    most = isqrt(MAX_ELEMENTS // per_pixel)
    return tuple(dict.fromkeys(min(side, most) for side in SIDES))


class TensorRtEngine:
    """A network on a GPU, with one TensorRT engine for each range of tile sizes, loaded when first needed.

    Args:
        source: builds or finds engines.
        device: the GPU.
        info: backend, device and precision.
        scale: output size / input size.
        sides: tile sides to have engines for, ascending.
    """

    def __init__(
        self,
        source: EngineSource,
        device: Device,
        info: EngineInfo,
        scale: int,
        sides: tuple[int, ...] = SIDES,
    ) -> None:
        self.scale, self.info = scale, info
        self._source, self._device, self._sides = source, device, sides
        self._streams: dict[int, Streams] = {}
        self._too_large = inf  # the smallest side that ran out of memory

    def run(self, lr: Batch) -> Batch:
        """(N, 3, H, W) -> (N, 3, scale*H, scale*W); the result stays valid."""
        results = list(self.run_each(lr[i : i + 1] for i in range(len(lr))))
        return results[0] if len(results) == 1 else np.concatenate(results)

    def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Run batches (1, 3, H, W) of any sizes, several at once, and yield the results in order.

        Raises:
            MemoryError: the GPU has too little memory for one of them; earlier results were yielded.
            InferenceError: the GPU failed in another way.
        """
        return (sr for (sr,) in self._run(batches, Wanted.FLOAT32))

    def run_uint8(self, batches: Iterable[Batch]) -> Iterator[Uint8Batch | None]:
        """As `run_each`, but uint8 (1, scale*H, scale*W, 3), rounded and clipped to 0-255.

        Yields None for a result that holds infinities or NaN.
        """
        return (sr if non_finite == 0 else None for sr, non_finite in self._run(batches, Wanted.UINT8))

    def _run(self, batches: Iterable[Batch], wanted: Wanted) -> Iterator[Outputs]:
        for side, group in groupby(batches, lambda batch: self._side(max(batch.shape[2:]))):
            try:
                yield from self.streams(side).run(group, wanted)
            except MemoryError:
                self._too_large = min(self._too_large, side)
                raise

    def streams(self, side: int) -> Streams:
        """The streams of the engine for tiles up to that side, which is loaded if it is not yet."""
        if side not in self._streams:
            self._device.make_current()
            for other in self._streams.values():
                other.release()
            self._streams[side] = Streams(self._device, self._source.engine(side), STREAMS)
        return self._streams[side]

    def _side(self, size: int) -> int:
        """The smallest loaded engine that takes a tile of this size, else the smallest to load.

        An engine that ran out of memory is not used for smaller tiles: it may need as much for them.
        """
        loaded = sorted(side for side in self._streams if side < self._too_large)
        for side in (*loaded, *self._sides):
            if side >= size:
                return side
        raise MemoryError(
            f"{NAME}: a tile of {size} pixels is too large; at most {self._sides[-1]} is possible"
        )


def load(path: Path, spec: ModelSpec, settings: Settings) -> TensorRtEngine:
    """Find or build the engine of a model, for the first GPU or the one asked for; "auto" is fp16.

    Building takes a second (TensorRT for RTX) to minutes; its progress is logged.

    Raises:
        MissingExtraError: TensorRT is not installed.
        BackendUnavailableError: no NVIDIA GPU or driver, an old driver, or another device or precision.
        ModelFileError: the file cannot be loaded.
        InferenceError: the GPU failed.
    """
    number, gpu = _gpu(settings.device)
    precision = _precision(settings.precision, spec)
    flavour = flavours.find(flavours.fitting(devices.ask()))
    folders = (store.folder_of_engines(), path.parent)
    engines = store.EngineStore(flavour, path, spec, precision, gpu, folders)
    info = EngineInfo(NAME, f"cuda:{number}", reported_precision(spec, precision))
    try:
        device, sides = Cuda(number), sides_for(spec)
    except MemoryError as error:
        raise InferenceError(f"GPU {number} has no memory left.", "Close other programs.") from error
    engine = TensorRtEngine(engines, device, info, spec.scale, sides)
    with suppress(MemoryError):  # a smaller tile may fit: the first one that runs shows it
        engine.streams(min(DEFAULT_SIDE, sides[-1]))
    return engine


def build_ahead(path: Path, spec: ModelSpec, settings: Settings, folder: Path) -> Path:
    """Build a model's engine into a folder. `load` finds it in the cache or beside the model.

    TensorRT for RTX also builds without a GPU, then for any GPU.

    Args:
        path: ONNX file.
        settings: precision ("auto" is fp16) and device.
        folder: created if it is missing.

    Returns:
        The engine's file.

    Raises:
        MissingExtraError: TensorRT is not installed.
        BackendUnavailableError: no GPU and a TensorRT that needs one; another device or precision.
        ModelFileError: the file cannot be loaded.
        InferenceError: the GPU has too little memory.
        OutputError: nothing can be written to the folder.
    """
    check_takes_files(folder, folder)
    engines = _engines_ahead(path, spec, settings, folder)
    key = engines.key(min(DEFAULT_SIDE, sides_for(spec)[-1]))
    file = key.file(folder, engines.name)
    if store.read(file, key.text) is None:
        try:
            engines.build(key)
        except MemoryError as error:
            raise InferenceError(f"{path}: too little memory to build its engine ({error}).") from error
    if store.read(file, key.text) is None:
        raise OutputError(f"{file}: cannot be written.", "Is the disk full?")
    return file


def _engines_ahead(path: Path, spec: ModelSpec, settings: Settings, folder: Path) -> store.EngineStore:
    """Builds engines ahead, for a GPU where there is one."""
    precision = _precision(settings.precision, spec)
    flavour, gpu = builder_ahead(settings)
    return store.EngineStore(flavour, path, spec, precision, gpu, (folder,))


def builder_ahead(settings: Settings) -> tuple[flavours.Flavour, devices.Gpu | None]:
    """The TensorRT that builds engines ahead here, and the GPU that they are for; None: any.

    Raises:
        MissingExtraError: TensorRT is not installed.
        BackendUnavailableError: no GPU and a TensorRT that needs one, or another device.
    """
    without_gpu = bool(devices.ask().problem) and _portable()
    number, gpu = (0, None) if without_gpu else _gpu(settings.device)
    if gpu is not None:
        Cuda(number)
    names = flavours.installed() if gpu is None else flavours.fitting(devices.ask())
    return flavours.find(names), gpu


def _portable() -> bool:
    """Whether the TensorRT that would be used builds without a GPU; nothing is imported."""
    return flavours.installed()[:1] == ("tensorrt_rtx",)


def _gpu(asked: str) -> tuple[int, devices.Gpu]:
    """Number and properties of the GPU asked for, if it is present and TensorRT can run on it."""
    found = devices.ask()
    if not flavours.installed():
        raise MissingExtraError(flavours.WHAT, flavours.extra(found))
    names = tuple(f"cuda:{number}" for number in range(len(found.gpus)))
    if asked not in ("auto", "cuda", *names) and (found.gpus or not asked.startswith("cuda")):
        raise refused(NAME, "device", asked, names or ("cuda",))
    flavours.check_driver(found)
    number = int(asked.partition(":")[2] or 0)
    return number, found.gpus[number]


def _precision(asked: str, spec: ModelSpec) -> str:
    """As asked for; "auto" is fp16, but fp32 for the rest of a quantised network, as in its file."""
    quantised = asked == "auto" and spec.arithmetic == "int8"
    return choose_precision(NAME, asked, PRECISIONS[:1] if quantised else PRECISIONS)
