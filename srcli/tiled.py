"""One network over one plane of pixels, tile by tile, as far as memory and precision carry."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli import tiles
from srcli.backends import registry
from srcli.backends.base import BackendOptions, Batch, Engine, EngineInfo, Finishing, Levels, results
from srcli.backends.several import Several
from srcli.errors import InferenceError, ModelFileError
from srcli.imaging import pixels
from srcli.imaging.ensemble import ensembles
from srcli.models.catalog import ModelFile
from srcli.models.spec import ModelSpec
from srcli.trust import LEAST, psnr_to_cpu

Pixels = NDArray[Any]
Size = tuple[int, int]
TILE, LARGE_TILE = 384, 512
"""Largest window sides in LR pixels, unless the caller names one: see `default_tile`."""
_LARGE_FAMILIES, _LARGE_FEATURES = ("edsr", "mdsr"), 64
"""Families with all features at LR (their upsampler is merged with the tail), and the most of them."""
OnTile = Callable[[int, int], None]


@dataclass(slots=True)
class Counter:
    """Tiles done of tiles planned, told to the caller after each."""

    tell: OnTile
    total: int
    done: int = 0

    def step(self) -> None:
        """One tile more is done."""
        self.done += 1
        self.tell(self.done, self.total)


class _UnfitError(Exception):
    """A tile came out wrong in this precision on this device; the text says how."""


class TiledNetwork:
    """A loaded network that enlarges planes of any size in bounded memory.

    Args:
        file: the network.
        backend: name of the backend that runs it.
        options: precision, device and threads.
        tile: largest window side, LR pixels; None: `default_tile`. Halved for good when memory runs out.
        halo: LR pixels of context around each tile.
        ensemble: mean over eight flips and rotations.
        note: told what the user should know.

    Raises:
        UsageError: the tile leaves no core between its halos.
        BackendUnavailableError, ModelFileError: as the backend says.
    """

    def __init__(
        self,
        file: ModelFile,
        backend: str,
        options: BackendOptions,
        *,
        tile: int | None,
        halo: int,
        ensemble: bool,
        note: Callable[[str], None],
    ) -> None:
        if tile is not None:
            tiles.check(tile, halo)
        self.file, self.halo = file, halo
        self._backend, self._options, self._ensemble, self._note = backend, options, ensemble, note
        self.engine = self._load()
        self.tile = tile or default_tile(self.file.spec, self.engine.info.device, halo)
        self._exact: Engine | None = None
        self._verdicts: dict[int, str] = {}  # by an engine's id: what is wrong with it; empty: nothing

    def _load(self) -> Engine:
        """The engine; where an int8 file that nobody asked for cannot be loaded, of the one it belongs to."""
        file, options = self.file, self._options
        try:
            return registry.load(self._backend, file.path, file.spec, options)
        except ModelFileError as error:
            if file.full is None or options.precision != "auto":
                raise
            self._note(f"left out: {error.message}")
            self.file = file.full
            return registry.load(self._backend, file.full.path, file.full.spec, options)

    @property
    def scale(self) -> int:
        """Output size / input size."""
        return self.engine.scale

    def plan(self, size: Size) -> list[tiles.Tile]:
        """The tiles of a plane of that size."""
        return tiles.plan(size, tiles.fit(size, self.tile, self.halo), self.halo)

    def run(self, plane: Pixels, out: Pixels, counter: Counter) -> EngineInfo:
        """Enlarge (H, W) or (H, W, 3) into `out`, which has scale times its size and the same dtype.

        A plane is always computed whole in one precision: if a tile comes out wrong, all of them run again
        in fp32, so that the result depends on the plane alone and not on what was run before.

        Returns:
            Where, and in which precision, the plane was computed in the end.

        Raises:
            InferenceError: out of memory with the smallest tile, or wrong output in fp32.
        """
        engine, size = self.engine, (plane.shape[0], plane.shape[1])
        while True:
            tiles, before = self.plan(size), counter.done
            try:
                self._compare(engine, plane[tiles[0].window.slices])
                self._run_tiles(engine, tiles, plane, out, counter)
                return engine.info
            except MemoryError as error:
                self._halve(max(tiles[0].window.height, tiles[0].window.width), error)
                reason = ""
            except _UnfitError as error:
                reason = str(error)  # without its traceback, which holds on to the device's memory
            if reason:
                engine = self._in_f32(engine, reason)
            counter.total += len(self.plan(size)) - (len(tiles) - (counter.done - before))

    def _run_tiles(
        self, engine: Engine, tiles: list[tiles.Tile], plane: Pixels, out: Pixels, counter: Counter
    ) -> None:
        batches = (pixels.to_network(plane[tile.window.slices]) for tile in tiles)
        if out.dtype == np.uint8 and out.ndim == 3 and not self._ensemble and isinstance(engine, Finishing):
            cores = _finished_there(engine.run_levels(batches), tiles, engine.scale)
        else:
            run_each = partial(results, engine)
            made = ensembles(run_each, batches) if self._ensemble else run_each(batches)
            cores = _finished_here(made, tiles, engine.scale, out)
        for tile, core in zip(tiles, cores, strict=True):
            if core is None:
                raise _UnfitError("gave infinities or NaN")
            out[tile.core.scaled(engine.scale).slices] = core
            counter.step()

    def _halve(self, window: int, error: MemoryError) -> None:
        """Use half the tile from now on.

        Raises:
            InferenceError: that would leave too little between the halos.
        """
        if window // 2 < tiles.smallest_tile(self.halo):
            hint = "Close other programs, or use a smaller model or another device."
            raise InferenceError(
                f"Out of memory with tiles of only {window} pixels ({error}).", hint
            ) from error
        self.tile = window // 2
        self._note(f"out of memory with tiles of {window} pixels: going on with {self.tile}")

    def _compare(self, engine: Engine, window: Pixels) -> None:
        """Hold the first tile that another device than the CPU computes against the CPU's, once a device."""
        for one in engine.engines if isinstance(engine, Several) else (engine,):
            if one.info.device != "cpu" and id(one) not in self._verdicts:
                self._verdicts[id(one)] = self._verdict(one, pixels.to_network(window))
            if verdict := self._verdicts.get(id(one)):
                raise _UnfitError(verdict)

    def _verdict(self, engine: Engine, lr: Batch) -> str:
        psnr = psnr_to_cpu(engine, lr, self.file)
        if psnr is None:
            self._note(f"no CPU backend is installed to check {engine.info.device} against")
        elif not psnr >= LEAST:  # not a number is no trust either
            return f"is far from what the CPU computes ({psnr:.0f} dB on {engine.info.device})"
        return ""

    def _in_f32(self, engine: Engine, reason: str) -> Engine:
        """The same network in fp32, for a plane that came out wrong in a lower precision.

        Raises:
            InferenceError: it was fp32 already, or the file is quantised and has no other precision.
        """
        info, name = engine.info, self.file.path.name
        file = self.file.full or self.file
        if info.precision == "fp32" or file.spec.arithmetic == "int8":
            hint = "The model file is damaged." if info.device == "cpu" else "Try --device cpu."
            raise InferenceError(f"{name} {reason} in {info.precision} on {info.device}.", hint)
        if self._exact is None:
            options = replace(self._options, precision="fp32")
            self._exact = registry.load(self._backend, file.path, file.spec, options)
        self._note(f"{info.precision} on {info.device} {reason}: computed again in fp32")
        return self._exact


def default_tile(spec: ModelSpec, device: str, halo: int) -> int:
    """The largest window side in LR pixels where nobody names one; more than usual where the halo needs it.

    Large tiles spend less on halos and borders. They are for CPUs, and for networks that take little memory a
    pixel: few features, all of them at LR. GPUs were measured with the others, which TensorRT builds first.
    """
    is_light = spec.family in _LARGE_FAMILIES and spec.features <= _LARGE_FEATURES
    return max(LARGE_TILE if device == "cpu" and is_light else TILE, tiles.smallest_tile(halo))


def _finished_here(
    made: Iterator[Batch], tiles: list[tiles.Tile], scale: int, out: Pixels
) -> Iterator[Pixels | None]:
    """The pixels over each tile's core, of `out`'s type and layout; None where a value is no number."""
    for tile, sr in zip(tiles, made, strict=True):
        core = kept(sr, tile, scale)
        finite = pixels.is_finite(core)
        yield pixels.from_network(core, out.dtype, 1 if out.ndim == 2 else 3) if finite else None


def _finished_there(
    made: Iterator[Levels | None], tiles: list[tiles.Tile], scale: int
) -> Iterator[Pixels | None]:
    """The same, of pixels that the device has finished."""
    for tile, levels in zip(tiles, made, strict=True):
        if levels is None:
            yield None
        else:
            yield kept(levels.transpose(0, 3, 1, 2), tile, scale)[0].transpose(1, 2, 0)


def kept(sr: NDArray[Any], tile: tiles.Tile, scale: int) -> NDArray[Any]:
    """The part of a tile's output that lies over its core; a view.

    Raises:
        InferenceError: the network did not enlarge by what its spec says.
    """
    expected = (1, 3, tile.window.height * scale, tile.window.width * scale)
    if sr.shape != expected:
        raise InferenceError(f"The network gave {sr.shape} instead of {expected}.", "Its spec is wrong.")
    rows, columns = tile.core.within(tile.window).scaled(scale).slices
    return sr[:, :, rows, columns]
