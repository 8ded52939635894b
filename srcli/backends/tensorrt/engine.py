"""NVIDIA TensorRT, full (10, 11) or for RTX: an engine tuned for the GPU, built on first use and kept.

What runs on the GPU is untested on hardware; building, keeping and choosing engines, and the traffic of
buffers, streams and graphs (with a stand-in of the GPU) are tested.

`Engine.run` promises the network's values as they are, so they cross the bus as float32: the caller looks for
infinities and NaN, averages the self-ensemble and keeps 16-bit pictures deep, and halves would save less time
on the bus than the host takes to widen them. For 8-bit pictures there is `run_levels`, which brings back
finished pixels from the same engine: a quarter on the bus, and nothing left for the host to convert.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import groupby
from math import inf, isqrt
from pathlib import Path
from typing import Protocol

import numpy as np

from srcli.backends import devices
from srcli.backends.base import BackendOptions, Batch, EngineInfo, Levels, in_use, say_nothing
from srcli.backends.libraries import refused, settled
from srcli.backends.tensorrt import flavour as flavours
from srcli.backends.tensorrt import store
from srcli.backends.tensorrt.cuda import Cuda, Device
from srcli.backends.tensorrt.lane import Program, Wanted
from srcli.backends.tensorrt.lanes import Lanes, Outputs
from srcli.backends.tensorrt.workshop import Workshop
from srcli.errors import InferenceError, MissingExtraError, OutputError
from srcli.io.storage import check_takes_files
from srcli.models.spec import ModelSpec

NAME = "tensorrt"
PRECISIONS = ("fp32", "fp16")
SIDES = (96, 192, 384, 768, 1536, 3072)
"""Largest tile sides that engines are built for: each serves every window up to its own, and a tile that
is too large to build an engine for is halved, which leads to the next. See `sides_for`."""

MOST_ELEMENTS = 2**31 - 1
"""In one tensor, whatever memory there is: TensorRT builds no engine for more."""

DEFAULT_SIDE = 384
"""Built when a model is loaded: as large as `srcli.tiled.TILE`."""

LANES = 2
"""Batches at work at once: the GPU computes one while the host fills or empties the other."""


class Programs(Protocol):
    """Where engines come from."""

    def program(self, side: int) -> Program:
        """An engine for tiles up to that side, on the GPU."""


def sides_for(spec: ModelSpec) -> tuple[int, ...]:
    """`SIDES` for a network, ending where its largest tensor would exceed `MOST_ELEMENTS`.

    The largest is at most all features at the output's size, which the last layer reads where upsampler and
    tail are not merged, or the output itself.
    """
    per_pixel = spec.scale**2 * max(spec.features, spec.channels)
    most = isqrt(MOST_ELEMENTS // per_pixel)
    return tuple(dict.fromkeys(min(side, most) for side in SIDES))


class TensorRtEngine:
    """A network on a GPU: for each range of tile sizes an engine, made when it is first needed.

    Args:
        programs: where engines come from.
        device: the GPU.
        info: what runs.
        scale: output size / input size.
        sides: largest tile sides to make engines for, smallest first.
        tell: told once an engine if its work cannot be recorded as CUDA graphs.
    """

    def __init__(
        self,
        programs: Programs,
        device: Device,
        info: EngineInfo,
        scale: int,
        sides: tuple[int, ...] = SIDES,
        tell: Callable[[str], None] = say_nothing,
    ) -> None:
        self.scale, self.info = scale, info
        self._programs, self._device, self._sides, self._tell = programs, device, sides, tell
        self._lanes: dict[int, Lanes] = {}
        self._too_large = inf  # the smallest engine for which memory was too short

    def run(self, lr: Batch) -> Batch:
        """(N, 3, H, W) -> (N, 3, scale*H, scale*W); the result stays valid."""
        results = list(self.run_each(lr[i : i + 1] for i in range(len(lr))))
        return results[0] if len(results) == 1 else np.concatenate(results)

    def run_each(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Run batches (1, 3, H, W) of any sizes, several at once, and give out the results in order.

        Raises:
            MemoryError: the GPU has too little memory for one of them; the results before it are out.
            InferenceError: the GPU failed in another way.
        """
        return (sr for (sr,) in self._run(batches, Wanted.SR))

    def run_levels(self, batches: Iterable[Batch]) -> Iterator[Levels | None]:
        """As `run_each`, but 8-bit pixels (1, scale*H, scale*W, 3), rounded and clipped.

        None stands for a batch in whose result a value was no number.
        """
        return (levels if odd == 0 else None for levels, odd in self._run(batches, Wanted.LEVELS))

    def _run(self, batches: Iterable[Batch], wanted: Wanted) -> Iterator[Outputs]:
        for side, group in groupby(batches, lambda batch: self._side(max(batch.shape[2:]))):
            try:
                yield from self.lanes(side).run(group, wanted)
            except MemoryError:
                self._too_large = min(self._too_large, side)
                raise

    def lanes(self, side: int) -> Lanes:
        """Those of the engine for tiles up to that side; makes the engine if there is none yet."""
        if side not in self._lanes:
            self._device.activate()
            for other in self._lanes.values():
                other.release()
            self._lanes[side] = Lanes(self._device, self._programs.program(side), LANES, self._tell)
        return self._lanes[side]

    def _side(self, size: int) -> int:
        """The smallest engine there is that takes a tile of this size, else the smallest there could be.

        One that ran out of memory takes no smaller tiles, too: it may need as much for them.
        """
        there = sorted(side for side in self._lanes if side < self._too_large)
        for side in (*there, *self._sides):
            if side >= size:
                return side
        raise MemoryError(f"{NAME}: a tile of {size} pixels is too large, {self._sides[-1]} is the most")


def load(path: Path, spec: ModelSpec, options: BackendOptions) -> TensorRtEngine:
    """Find or build the engine of a model, on the first GPU or the one asked for; "auto" is fp16.

    Building takes from a second (TensorRT for RTX) to minutes; `options.tell` hears how far it is.

    Raises:
        MissingExtraError: TensorRT is not installed.
        BackendUnavailableError: no NVIDIA GPU or driver, an old driver, or another device or precision.
        ModelFileError: the file cannot be loaded.
        InferenceError: the GPU failed.
    """
    number, gpu = _gpu(options.device)
    precision = _precision(options.precision, spec)
    flavour = flavours.find(flavours.fitting(devices.ask()))
    folders = (store.folder_of_engines(), path.parent)
    workshop = Workshop(flavour, path, spec, precision, gpu, folders, options.tell)
    info = EngineInfo(NAME, f"cuda:{number}", in_use(spec, precision))
    try:
        device, sides = Cuda(number), sides_for(spec)
    except MemoryError as error:
        raise InferenceError(f"GPU {number} has no memory left.", "Close other programs.") from error
    engine = TensorRtEngine(workshop, device, info, spec.scale, sides, options.tell)
    with suppress(MemoryError):  # a smaller tile may do: the first one that runs shows it
        engine.lanes(min(DEFAULT_SIDE, sides[-1]))
    return engine


def build_ahead(path: Path, spec: ModelSpec, options: BackendOptions, folder: Path) -> Path:
    """Build a model's engine into a folder; beside the model, or in the cache, `load` finds it.

    TensorRT for RTX builds on a machine without a GPU, too: then for any GPU.

    Args:
        path: ONNX file.
        options: precision ("auto" is fp16) and device; `tell` hears how far it is.
        folder: made if it is missing.

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
    workshop = _ahead(path, spec, options, folder)
    key = workshop.key(min(DEFAULT_SIDE, sides_for(spec)[-1]))
    file = key.file(folder, workshop.name)
    if store.read(file, key.text, options.tell) is None:
        try:
            workshop.make(key)
        except MemoryError as error:
            raise InferenceError(f"{path}: too little memory to build its engine ({error}).") from error
    if store.read(file, key.text, options.tell) is None:
        raise OutputError(f"{file}: cannot be written.", "Is the disk full?")
    return file


def _ahead(path: Path, spec: ModelSpec, options: BackendOptions, folder: Path) -> Workshop:
    """The workshop for building ahead: for a GPU where there is one."""
    precision = _precision(options.precision, spec)
    flavour, gpu = found_ahead(options)
    return Workshop(flavour, path, spec, precision, gpu, (folder,), options.tell)


def found_ahead(options: BackendOptions) -> tuple[flavours.Flavour, devices.Gpu | None]:
    """What builds engines ahead here, and the GPU that they are for; none: any.

    Raises:
        MissingExtraError: TensorRT is not installed.
        BackendUnavailableError: no GPU and a TensorRT that needs one, or another device.
    """
    without = bool(devices.ask().problem) and _portable()
    number, gpu = (0, None) if without else _gpu(options.device)
    if gpu is not None:
        Cuda(number)
    names = flavours.installed() if gpu is None else flavours.fitting(devices.ask())
    return flavours.find(names), gpu


def _portable() -> bool:
    """Whether the TensorRT that would be taken builds without a GPU; nothing is imported."""
    return flavours.installed()[:1] == ("tensorrt_rtx",)


def _gpu(asked: str) -> tuple[int, devices.Gpu]:
    """The GPU asked for and its number, if it is there and TensorRT can run on it."""
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
    """As asked for; "auto" is fp16, and fp32 around a quantised body, as its file says."""
    around = asked == "auto" and spec.arithmetic == "int8"
    return settled(NAME, asked, PRECISIONS[:1] if around else PRECISIONS)
