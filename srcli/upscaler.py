"""One image in, one larger image out: model, sizes, layouts and alpha. How a network runs: srcli.tiled."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import floor, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli import tiles
from srcli.backends import bicubic, registry
from srcli.backends.base import BackendOptions, EngineInfo, say_nothing
from srcli.errors import InferenceError, ModelNotFoundError, UsageError
from srcli.imaging import pixels
from srcli.imaging.alpha import bleed
from srcli.imaging.resize import imresize
from srcli.models import auto, catalog
from srcli.models.catalog import ModelFile
from srcli.models.spec import ModelSpec
from srcli.tiled import Counter, OnTile, TiledNetwork, default_tile

Pixels = NDArray[Any]
Size = tuple[int, int]

MAX_SCALE = 16
_ANY_TILE = 2**31


@dataclass(frozen=True, slots=True)
class Made:
    """What one image was made with.

    Attributes:
        model: name of the network; "bicubic" where none ran.
        scales: of the networks, in the order they ran; empty where none ran.
        info: where they ran; a precision such as "bf16, fp32" tells of an overflow in part of the
            image, "int8, fp32" of a plane of two colours, which does without int8.
    """

    model: str
    scales: tuple[int, ...]
    info: EngineInfo


class Upscaler:
    """Enlarges images with one model. Not thread-safe: one call at a time.

    Args:
        model: a shipped model, a family ("mdsr", "edsr"), "auto" (mdsr or mdsr-photo, by the JPEG blocks,
            noise and blur of each image), the path of an .onnx file (that network alone is used, whatever
            lies beside it), or "bicubic".
        scale: any real number from 1 to 16. Where the model has no network for it, the next larger one
            runs (twice where one is not enough) and bicubic finishes.
        backend: "auto" (the fastest installed), or one of `srcli.backends.registry.BACKENDS`.
        precision: "auto", "fp32", "bf16", "fp16", "int8". Anything but "auto" is used or refused.
        device: "auto", "cpu", "cuda", "cuda:1", several as "cuda:0,1", or "all" GPUs, which share an
            image's tiles. Anything but "auto" is used or refused.
        tile: largest window side fed to the network, LR pixels; None: 512 or 384,
            see `srcli.tiled.default_tile`.
        halo: LR pixels of context around each tile; None: the model's measured one. With the model's
            exact_halo, tiled equals whole up to the rounding of the kernels.
        ensemble: mean over eight flips and rotations: eight times the work, a little more quality.
        threads: CPU threads; 0: all.
        tell: hears, in lines for people, of work that takes long before anything runs (an engine being
            built); any thread may call it.

    Attributes:
        info: backend, device and precision in use, as the engine reports them.
        spec: the network in use (the first, where two run).
        reason: one line: what runs and why it was chosen.
        notes: what the user should know, each said once: model choice, memory, precision retries.
        made: what the last call really made its result with; None before the first.
        scales: of the networks that the model has, ascending; empty where bicubic does everything.

    Raises:
        UsageError: an argument is out of range, or names something that does not exist.
        BackendUnavailableError: what was asked for cannot be had here.
        ModelFileError: the model's file is damaged.
    """

    info: EngineInfo
    spec: ModelSpec
    reason: str
    made: Made | None
    scales: tuple[int, ...]

    def __init__(
        self,
        model: str | Path = "mdsr",
        scale: float = 4,
        *,
        backend: str = "auto",
        precision: str = "auto",
        device: str = "auto",
        tile: int | None = None,
        halo: int | None = None,
        ensemble: bool = False,
        threads: int = 0,
        tell: Callable[[str], None] = say_nothing,
    ) -> None:
        if not 1 <= scale <= MAX_SCALE:
            raise UsageError(f"Scale {scale} is out of range.", f"Give a number from 1 to {MAX_SCALE}.")
        tiles.check(_ANY_TILE if tile is None else tile, halo or 0)
        self.model, self.scale, self.ensemble = model, scale, ensemble
        self.notes: list[str] = []
        self.made = None
        self._tile, self._halo = tile, halo
        self._options = BackendOptions(precision, device, threads, tell)
        self._choice = registry.choose(bicubic.NAME if str(model) == bicubic.NAME else backend, self._options)
        self.scales = () if self._choice.name == bicubic.NAME else _common_scales(auto.models(model))
        self._networks: dict[tuple[str | Path, int], TiledNetwork] = {}
        self._in_full: dict[Path, TiledNetwork] = {}
        self._introduce()

    def __call__(self, image: Pixels, *, size: Size | None = None, progress: OnTile | None = None) -> Pixels:
        """Enlarge one image; the result has its dtype and layout.

        Args:
            image: (H, W) or (H, W, 1) gray, (H, W, 2) gray + alpha, (H, W, 3) RGB, (H, W, 4) RGBA;
                uint8, uint16, or float32 / float64 0-1.
            size: (height, width) of the result instead of the scale; if neither side is larger than the
                image's, only bicubic runs. The aspect ratio is the caller's to keep.
            progress: called after each tile with (done, total).

        Raises:
            InputError: the array is no image.
            UsageError: the size is out of range.
            InferenceError: out of memory with the smallest tile, or non-finite output in fp32.
            BackendUnavailableError, ModelFileError: a network that only this image needs does not load.
        """
        pixels.check(image)
        source = (image.shape[0], image.shape[1])
        target = size or _scaled(source, self.scale)
        networks = self._networks_for(image, self._steps(_factor(source, target)))
        result = _allocate((*target, *image.shape[2:]), image.dtype)
        color, alpha = pixels.color_and_alpha(image)
        planes = [(color if alpha is None else bleed(color, alpha), pixels.color_and_alpha(result)[0])]
        if alpha is not None:
            planes += self._alpha(alpha, pixels.color_and_alpha(result)[1])
        work = [(plane, out, self._suited(plane, networks)) for plane, out in planes]
        counter = Counter(progress or _ignore, sum(_tiles_of(theirs, source) for _, _, theirs in work))
        runs = [info for plane, out, theirs in work for info in self._enlarge(plane, out, theirs, counter)]
        self.made = _made(networks, runs)
        return result

    def _introduce(self) -> None:
        """Load the network of `scale` now, so that problems show before any image is read."""
        scales, choice = self._steps(self.scale), self._choice
        if scales:
            network = self._network(auto.models(self.model)[0], scales[0])
            engine, self.spec = network.engine, network.file.spec
            if scales != (self.scale,):
                run = " and ".join(f"x{scale}" for scale in scales)
                then = "" if prod(scales) == self.scale else ", then bicubic to the size"
                self._note(f"x{self.scale:g}: the network runs at {run}{then}")
        else:
            engine, self.spec = bicubic.BicubicEngine(1), bicubic.spec(1)
            if self._choice.name != bicubic.NAME:
                choice = registry.Choice(bicubic.NAME, "nothing to enlarge")
        self.info, self.reason = engine.info, registry.describe(engine, choice)

    def _steps(self, factor: float) -> tuple[int, ...]:
        """Scales of the networks to run one after the other; none where bicubic does it alone."""
        if self._choice.name == bicubic.NAME:
            return (int(factor),) if factor > 1 and factor == int(factor) else ()
        return steps(self.scales, factor) if factor > 1 else ()

    def _networks_for(self, image: Pixels, scales: tuple[int, ...]) -> list[TiledNetwork]:
        """What runs on an image, in that order."""
        model = auto.model_for(self.model, image) if scales else self.model
        return [self._network(model, scale) for scale in scales]

    def _network(self, model: str | Path, scale: int) -> TiledNetwork:
        """The network of that scale, loaded on first use."""
        if (model, scale) not in self._networks:
            file = self._resolve(model, scale)
            self._networks[model, scale] = self._load(file)
            self._note(file.note)
        return self._networks[model, scale]

    def _resolve(self, model: str | Path, scale: int) -> ModelFile:
        if self._choice.name == bicubic.NAME:
            return ModelFile(Path(), bicubic.spec(scale))
        file = catalog.resolve(model, scale)
        eight, asked = file.at("int8"), self._options.precision == "int8"
        tile = self._tile or default_tile(eight.spec, "cpu", 0)
        fits = self._halo is not None or tile >= tiles.smallest_tile(eight.spec.halo)
        prefers = registry.prefers_int8(self._choice.name, self._options)
        return eight if prefers and (fits or asked) else file

    def _load(self, file: ModelFile) -> TiledNetwork:
        return TiledNetwork(
            file,
            self._choice.name,
            self._options,
            tile=self._tile,
            halo=self._halo_of(file),
            ensemble=self.ensemble,
            note=self._note,
        )

    def _halo_of(self, file: ModelFile) -> int:
        return file.spec.halo if self._halo is None else self._halo

    def _suited(self, plane: Pixels, networks: list[TiledNetwork]) -> list[TiledNetwork]:
        """For a plane of two colours, the networks without the int8 that nobody asked for.

        Nothing softens the edges of pages scanned with one bit and of the alpha of what was cut out: they
        drive a network's tensors farther than int8 reaches.
        """
        chosen = all(network.file.full is None for network in networks) or self._options.precision == "int8"
        if chosen or not pixels.has_two_colors(plane):
            return networks
        full = [self._full(network) for network in networks]
        precisions = ", ".join(dict.fromkeys(network.engine.info.precision for network in full))
        self._note(f"two colours alone may be too hard for int8: computed in {precisions}")
        return full

    def _full(self, network: TiledNetwork) -> TiledNetwork:
        """The same network without int8, loaded on first use; itself if the tile asked for is too small."""
        file = network.file.full
        if file is None or (self._tile is not None and self._tile <= 2 * self._halo_of(file)):
            return network
        if file.path not in self._in_full:
            self._in_full[file.path] = self._load(file)
        return self._in_full[file.path]

    def _alpha(self, alpha: Pixels, out: Pixels | None) -> list[tuple[Pixels, Pixels]]:
        """Alpha goes through the network as a gray image, unless it is the same everywhere."""
        assert out is not None
        if alpha.min() == alpha.max():
            out[...] = alpha.flat[0]
            return []
        return [(alpha, out)]

    def _enlarge(
        self, plane: Pixels, out: Pixels, networks: list[TiledNetwork], counter: Counter
    ) -> list[EngineInfo]:
        """Run the networks one after the other; bicubic finishes where they do not meet the size."""
        runs = []
        for network in networks:
            size = _scaled((plane.shape[0], plane.shape[1]), network.scale)
            larger = out if size == out.shape[:2] else _allocate((*size, *plane.shape[2:]), plane.dtype)
            runs.append(network.run(plane, larger, counter))
            plane = larger
        if plane is not out:
            imresize(plane, (out.shape[0], out.shape[1]), out=out)
            if out.dtype.kind == "f":
                np.clip(out, 0, 1, out=out)
        return runs

    def _note(self, text: str) -> None:
        if text and text not in self.notes:
            self.notes.append(text)


def steps(available: tuple[int, ...], factor: float) -> tuple[int, ...]:
    """The one or two networks whose product is the smallest that reaches `factor`, else the largest.

    The smaller of two runs first: that is less work, since the second sees fewer pixels.

    Raises:
        ModelNotFoundError: no network enlarges.
    """
    enlarging = sorted({scale for scale in available if scale > 1})
    if not enlarging:
        raise ModelNotFoundError("This model does not enlarge: it has only x1.", "Choose another one.")
    candidates = [(scale,) for scale in enlarging] + list(combinations_with_replacement(enlarging, 2))
    enough = [candidate for candidate in candidates if prod(candidate) >= factor]
    if enough:
        return min(enough, key=lambda candidate: (prod(candidate), len(candidate)))
    return max(candidates, key=prod)


def _common_scales(models: tuple[str | Path, ...]) -> tuple[int, ...]:
    """Those that all of them have, ascending."""
    return tuple(sorted(set.intersection(*(set(catalog.scales(model)) for model in models))))


def _made(networks: list[TiledNetwork], runs: list[EngineInfo]) -> Made:
    """The names and engines behind one result, each told once."""
    if not networks:
        return Made(bicubic.NAME, (), bicubic.BicubicEngine(1).info)
    names = dict.fromkeys(network.file.name for network in networks)
    precisions = dict.fromkeys(info.precision for info in runs)
    info = replace(runs[0], precision=", ".join(precisions))
    return Made(" + ".join(names), tuple(network.scale for network in networks), info)


def _scaled(size: Size, scale: float) -> Size:
    """(height, width) times scale, rounded half up, at least 1."""
    return max(1, floor(size[0] * scale + 0.5)), max(1, floor(size[1] * scale + 0.5))


def _factor(source: Size, target: Size) -> float:
    if min(target) < 1:
        raise UsageError(f"A size of {target[0]}x{target[1]} is no picture.", "Give 1 pixel or more a side.")
    factor = max(target[0] / source[0], target[1] / source[1])
    if factor > MAX_SCALE:
        hint = f"At most {MAX_SCALE} times the input is possible."
        raise UsageError(f"{target[0]}x{target[1]} is {factor:.4g} times {source[0]}x{source[1]}.", hint)
    return factor


def _tiles_of(networks: list[TiledNetwork], size: Size) -> int:
    """How many tiles one plane takes through all networks."""
    total = 0
    for network in networks:
        total += len(network.plan(size))
        size = _scaled(size, network.scale)
    return total


def _allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Pixels:
    try:
        return np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        gigabytes = prod(shape) * dtype.itemsize / 1e9
        raise InferenceError(
            f"A result of {shape[0]}x{shape[1]} needs {gigabytes:.1f} GB of memory."
        ) from error


def _ignore(done: int, total: int) -> None:
    """Progress that nobody wants to know."""
