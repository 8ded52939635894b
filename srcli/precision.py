"""A network over a plane, and the only place that decides its precision: choice, check of a device, retry."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli import tiles
from srcli.backends import registry
from srcli.backends.base import Batch, Engine, Uint8Engine, results
from srcli.backends.devices import Several, processor
from srcli.errors import BackendUnavailableError, InferenceError, MissingExtraError, ModelFileError
from srcli.imaging import pixels
from srcli.imaging.metrics import decibels
from srcli.imaging.pixels import Pixels, ensembles
from srcli.models.catalog import ModelFile
from srcli.models.spec import ModelSpec
from srcli.settings import Settings, Size, scaled

LEAST_PSNR = 35.0
"""dB on 0-1 that a device must reach against the CPU: fp16 and bf16 reach 50, a wrong kernel under 20."""
_CHECKED_SIDE = 128  # LR pixels: enough of a picture, and quick on a CPU with the largest network

log = logging.getLogger(__name__)


class UnfitError(Exception):
    """A tile came out wrong in this precision on this device; the text says how."""


def halo_of(spec: ModelSpec, settings: Settings) -> int:
    """LR pixels of context around each tile: as asked for, else the model's measured one."""
    if isinstance(settings.halo, str):
        return spec.exact_halo
    return spec.halo if settings.halo is None else settings.halo


def prefers_int8(name: str, settings: Settings) -> bool:
    """Whether a backend should run a network's int8 file, where there is one.

    It should where int8 is asked for, and for "auto" with openvino on CPUs with fast int8.
    """
    if settings.precision != "auto":
        return settings.precision == "int8"
    if registry.canonical(name) != "openvino" or settings.device not in ("auto", "cpu"):
        return False
    from srcli.backends.openvino import has_fast_int8

    return has_fast_int8()


def choose_file(file: ModelFile, backend: str, settings: Settings) -> ModelFile:
    """The int8 file of a network where the backend prefers it and the tile leaves room for its halo."""
    int8 = file.at("int8")
    halo = halo_of(int8.spec, settings)
    tile = settings.tile or _default_tile(int8.spec, 0, "cpu", "int8")
    fits = settings.halo is not None or tile >= tiles.smallest_tile(halo) or settings.precision == "int8"
    return int8 if fits and prefers_int8(backend, settings) else file


def _default_tile(spec: ModelSpec, halo: int, device: str, precision: str) -> int:
    extensions = processor().features if device == "cpu" else ()
    return tiles.default_side(spec.family, spec.features, halo, device, precision, extensions)


class Network:
    """One network at one scale: its engine, and the engines that take over where it computes wrong.

    Args:
        file: the network, as `choose_file` gave it.
        backend: name of the backend that runs it.
        settings: precision, device, threads, tile and halo.

    Attributes:
        file: what was loaded.
        engine: what it runs on.
        halo: LR pixels of context around each tile.
        tile: largest window side, LR pixels; halved for good when memory runs out.

    Raises:
        UsageError: the tile leaves no core between its halos.
        BackendUnavailableError, ModelFileError: as the backend says.
    """

    def __init__(self, file: ModelFile, backend: str, settings: Settings) -> None:
        self.file, self._backend, self._settings = file, backend, settings
        if settings.tile is not None:
            tiles.check(settings.tile, halo_of(file.spec, settings))
        self.engine = self._load()
        spec = self.file.spec
        self.halo = halo_of(spec, settings)
        info = self.engine.info
        self.tile = settings.tile or _default_tile(spec, self.halo, info.device, info.precision)
        self._without_int8: Network | None = None
        self._fp32: Engine | None = None
        self._verdicts: dict[int, str] = {}  # by an engine's id: what is wrong with it; empty: nothing

    def _load(self) -> Engine:
        """The engine; where an int8 file that nobody asked for cannot be loaded, of the one it belongs to."""
        file, settings = self.file, self._settings
        try:
            return registry.load(self._backend, file.path, file.spec, settings)
        except ModelFileError as error:
            if file.full is None or settings.precision != "auto":
                raise
            log.warning("left out: %s", error.message)
            self.file = file.full
            return registry.load(self._backend, file.full.path, file.full.spec, settings)

    @property
    def scale(self) -> int:
        """Output size / input size."""
        return self.engine.scale

    def plan(self, size: Size) -> list[tiles.Tile]:
        """The tiles of a plane of that size."""
        return tiles.plan(size, tiles.fit(size, self.tile, self.halo), self.halo)

    def for_plane(self, plane: Pixels, two_colors: bool | None = None) -> "Network":
        """For a plane of two colours, the network without the int8 that nobody asked for; else itself.

        Pages scanned with one bit and the alpha of cut-outs have edges that drive a network's tensors farther
        than int8 reaches.

        Args:
            plane: (H, W) or (H, W, 3).
            two_colors: whether it counts as such; None: measured.
        """
        full = self.file.full
        if full is None or self._settings.precision == "int8":
            return self
        if not (pixels.has_two_colors(plane) if two_colors is None else two_colors):
            return self
        if self._settings.tile is not None and self._settings.tile <= 2 * halo_of(full.spec, self._settings):
            return self
        if self._without_int8 is None:
            self._without_int8 = Network(full, self._backend, self._settings)
            precision = self._without_int8.engine.info.precision
            log.info("two colours alone may be too hard for int8: computed in %s", precision)
        return self._without_int8

    def check(self, engine: Engine, window: Pixels) -> None:
        """Compare the first window that another device than the CPU computes with the CPU, once a device.

        Raises:
            UnfitError: they differ by more than rounding.
        """
        for one in engine.engines if isinstance(engine, Several) else (engine,):
            if one.info.device == "cpu":
                continue
            if id(one) not in self._verdicts:
                self._verdicts[id(one)] = self._verdict(one, pixels.to_network(window))
            if verdict := self._verdicts[id(one)]:
                raise UnfitError(verdict)

    def _verdict(self, engine: Engine, lr: Batch) -> str:
        psnr = psnr_to_cpu(engine, lr, self.file)
        if psnr is None:
            log.warning("no CPU backend is installed to check %s against", engine.info.device)
        elif not psnr >= LEAST_PSNR:  # NaN is wrong, too
            return f"is far from what the CPU computes ({psnr:.0f} dB on {engine.info.device})"
        return ""

    def in_fp32(self, engine: Engine, reason: str) -> Engine:
        """The same network in fp32, for a plane that came out wrong in a lower precision.

        Raises:
            InferenceError: it was fp32 already, or the file is quantized and has no other precision.
        """
        info, name = engine.info, self.file.path.name
        file = self.file.full or self.file
        if info.precision == "fp32" or file.spec.arithmetic == "int8":
            hint = "The model file is damaged." if info.device == "cpu" else "Try --device cpu."
            raise InferenceError(f"{name} {reason} in {info.precision} on {info.device}.", hint)
        if self._fp32 is None:
            exact = replace(self._settings, precision="fp32")
            self._fp32 = registry.load(self._backend, file.path, file.spec, exact)
        log.warning("%s on %s %s: computed again in fp32", info.precision, info.device, reason)
        return self._fp32

    def halve_tile(self, window: int, error: MemoryError) -> None:
        """Use half the tile from now on.

        Args:
            window: largest side of those that ran out of memory.
            error: what the engine said.

        Raises:
            InferenceError: that would leave too little between the halos.
        """
        if window // 2 < tiles.smallest_tile(self.halo):
            hint = "Close other programs, or use a smaller model or another device."
            raise InferenceError(
                f"Out of memory with tiles of only {window} pixels ({error}).", hint
            ) from error
        self.tile = window // 2
        log.warning("out of memory with tiles of %d pixels: going on with %d", window, self.tile)


class Pass:
    """One network over one plane.

    Args:
        network: computes it.
        plane: (H, W) or (H, W, 3).
        out: filled with the result; scale times the plane's size, its dtype.
        ensemble: mean over eight flips and rotations.
        before: the same pass over the image before, whose results are taken where a window is as it was, halo
            included; None: everything is computed.
        still: difference of 255 up to which a window counts as it was. 0: the result is as if it were
            computed.

    Attributes:
        engine: computes it now; another one after a retry.
        tiles: of the plane that are computed; none where all of it is as before.
        fed: how many of them were given to the engine; written: how many came back.
        unfit: why it has to be computed again in fp32; empty if it has not.
    """

    def __init__(
        self,
        network: Network,
        plane: Pixels,
        out: Pixels,
        *,
        ensemble: bool,
        before: "Pass | None" = None,
        still: int = 0,
    ) -> None:
        self.network, self.plane, self.out, self._ensemble = network, plane, out, ensemble
        self._bgr = out.ndim == 3 and out.strides[2] < 0  # RGB is a view of what lies in memory as BGR
        self.restart(network.engine)
        like = before is not None and (before.out.shape, before.out.dtype) == (out.shape, out.dtype)
        if before is not None and like and before.network is network:
            self._leave_out(before, still)

    def restart(self, engine: Engine) -> int:
        """Compute everything again, on this engine and with the network's tiles; returns their number.

        A plane is always computed whole in one precision, so that the result depends on the plane alone.
        """
        size: Size = (self.plane.shape[0], self.plane.shape[1])
        self.engine, self.tiles, self.unfit = engine, self.network.plan(size), ""
        self.fed = self.written = 0
        self._side = self.network.tile
        self._before: Pass | None = None
        self._same: list[tiles.Tile] = []
        self._inputs: dict[tiles.Box, Pixels] = {}
        return len(self.tiles)

    def _leave_out(self, before: "Pass", still: int) -> None:
        """Leave out the tiles whose windows are as they were.

        With `still`, windows are compared with those that their results were computed from, so that many
        small changes add up to one.
        """
        changed: list[tiles.Tile] = []
        for tile in self.tiles:
            window = self.plane[tile.window.slices]
            kept = before._inputs.get(tile.window)
            known = before.plane[tile.window.slices] if kept is None else kept
            if not _alike(window, known, still):
                changed.append(tile)
                continue
            self._same.append(tile)
            if still:
                self._inputs[tile.window] = known.copy() if kept is None else kept
        self.tiles, self._before = changed, before

    def take_over(self) -> bool:
        """Take the results left out from the pass before, which is complete or has failed.

        Returns:
            False where that one failed or was computed otherwise: what was left out is among `tiles` then.
        """
        before, same, self._before, self._same = self._before, self._same, None, []
        if before is None:
            return True
        if not self.tiles:  # the same plane needs the same precision
            self.engine = before.engine
        if before.engine is not self.engine or before._side != self._side or not before.complete:
            self._inputs.clear()
            self.tiles = [*self.tiles, *same]
            return False
        for tile in same:
            place = tile.core.scaled(self.engine.scale).slices
            self.out[place] = before.out[place]
        return True

    @property
    def computed(self) -> bool:
        """Whether all of `tiles` is written, and only what was left out may be missing."""
        return self.written == len(self.tiles)

    @property
    def complete(self) -> bool:
        """Whether all of `out` is written."""
        return self.left == 0

    @property
    def left(self) -> int:
        """How many tiles are not yet written or taken over."""
        return len(self.tiles) - self.written + len(self._same)

    @property
    def window(self) -> int:
        """Largest side of the windows."""
        first = (self.tiles or self._same)[0].window
        return max(first.height, first.width)

    @property
    def kind(self) -> tuple[int, bool]:
        """What passes have in common that share a stream: the engine, and whether it finishes the pixels."""
        rgb8 = self.out.dtype == np.uint8 and self.out.ndim == 3
        return id(self.engine), rgb8 and not self._ensemble and isinstance(self.engine, Uint8Engine)

    def compute(self, batches: Iterator[Batch]) -> Iterator[NDArray[Any] | None]:
        """Results of windows of passes of this kind, in order."""
        if isinstance(self.engine, Uint8Engine) and self.kind[1]:
            return self.engine.run_uint8(batches)
        run: Callable[[Iterable[Batch]], Iterator[Batch]] = partial(results, self.engine)
        return ensembles(run, batches) if self._ensemble else run(batches)

    def feed(self) -> Batch:
        """The next window."""
        self.fed += 1
        return pixels.to_network(self.plane[self.tiles[self.fed - 1].window.slices])

    def write(self, result: NDArray[Any] | None) -> None:
        """Put the core of the next result where it belongs, or set `unfit` if a value is no number.

        Raises:
            InferenceError: the network did not enlarge by what its spec says.
        """
        tile, scale = self.tiles[self.written], self.engine.scale
        if result is None:
            core = None
        elif self.kind[1]:
            core = core_of(result.transpose(0, 3, 1, 2), tile, scale)[0].transpose(1, 2, 0)
            core = core[..., ::-1] if self._bgr else core
        else:
            core = self._finished(core_of(result, tile, scale))
        if core is None:
            self.unfit = "gave infinities or NaN"
            return
        out = self.out[..., ::-1] if self._bgr else self.out
        out[tile.core.scaled(scale).slices] = core
        self.written += 1

    def _finished(self, core: Batch) -> Pixels | None:
        """Pixels of `out`'s type, layout and order in memory; None where a value is no number."""
        if not pixels.is_finite(core):
            return None
        core = core[:, ::-1] if self._bgr else core
        return pixels.from_network(core, self.out.dtype, 1 if self.out.ndim == 2 else 3)


def _alike(window: Pixels, known: Pixels, still: int) -> bool:
    """Whether no value differs by more than `still` of 255."""
    if not still:
        return np.array_equal(window, known)
    return float(cv2.absdiff(window, known).max()) <= still * pixels.white(window.dtype) / 255


def tiles_of(networks: Sequence[Network], size: Size) -> int:
    """How many tiles a plane of that size takes through networks one after the other."""
    total = 0
    for network in networks:
        total, size = total + len(network.plan(size)), scaled(size, network.scale)
    return total


def core_of(sr: NDArray[Any], tile: tiles.Tile, scale: int) -> NDArray[Any]:
    """The part of a window's output that lies over its core; a view.

    Raises:
        InferenceError: the network did not enlarge by what its spec says.
    """
    expected = (1, 3, tile.window.height * scale, tile.window.width * scale)
    if sr.shape != expected:
        raise InferenceError(f"The network gave {sr.shape} instead of {expected}.", "Its spec is wrong.")
    rows, columns = tile.core.within(tile.window).scaled(scale).slices
    return sr[:, :, rows, columns]


def psnr_to_cpu(engine: Engine, lr: Batch, file: ModelFile) -> float | None:
    """How close a device comes to the CPU in fp32 on the middle of a tile; None without a CPU backend.

    Args:
        engine: on the device; NaN counts as no PSNR at all.
        lr: (1, 3, H, W), the tile.
        file: the network; one that is quantized is compared with itself on the CPU.
    """
    quantized = file.spec.arithmetic == "int8"
    settings = Settings(precision="auto" if quantized else "fp32", device="cpu")
    try:
        backend = registry.choose("auto", settings).name
        reference = registry.load(backend, file.path, file.spec, settings)
    except (MissingExtraError, BackendUnavailableError):
        return None
    middle = np.ascontiguousarray(lr[:, :, _middle(lr.shape[2]), _middle(lr.shape[3])])
    error = np.square(engine.run(middle) - reference.run(middle), dtype=np.float64).mean()
    return decibels(float(error), peak=1.0)


def _middle(length: int) -> slice:
    start = max(0, (length - _CHECKED_SIDE) // 2)
    return slice(start, start + min(length, _CHECKED_SIDE))
