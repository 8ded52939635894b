"""The path of everything that is enlarged: pixels -> windows -> engine -> cores -> pixels."""

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from math import prod
from pathlib import Path

import numpy as np

from srcli import memory
from srcli.backends import registry
from srcli.backends.base import BICUBIC, BicubicEngine, EngineInfo, bicubic_spec
from srcli.imaging import pixels
from srcli.imaging.pixels import Pixels, bleed
from srcli.imaging.resize import imresize
from srcli.io.storage import allocate
from srcli.models import auto, catalog
from srcli.models.spec import ModelSpec
from srcli.precision import Network, Pass, choose_file, tiles_of
from srcli.settings import DEFAULT_MEMORY, Settings, Size, factor_between, scaled
from srcli.stream import Computed, Image, Result, Stream, Wait, Work

__all__ = ["Computed", "Image", "Result", "Upscaler"]

log = logging.getLogger(__name__)


class Upscaler:
    """Enlarges images with one model. Not thread-safe: one stream or call at a time.

    Args: see `srcli.settings.Settings`; `from_settings` takes one whole.

    Attributes:
        settings: all of them.
        info: backend, device and precision in use, as the engine reports them.
        spec: the network in use (the first, where two run).
        reason: one line: what runs and why it was chosen.
        computed: what the last call computed its result with; None before the first.
        scales: of the networks that the model has, ascending; empty where bicubic does everything.

    Raises:
        UsageError, BackendUnavailableError, ModelFileError: what is asked for cannot be had, or is damaged.
    """

    info: EngineInfo
    spec: ModelSpec
    reason: str
    computed: Computed | None

    def __init__(
        self,
        model: str | Path = auto.AUTO,
        scale: float = 4,
        *,
        backend: str = "auto",
        precision: str = "auto",
        device: str = "auto",
        tile: int | None = None,
        halo: int | str | None = None,
        ensemble: bool = False,
        threads: int = 0,
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        self._open(Settings(
            model, scale, backend=backend, precision=precision, device=device, tile=tile, halo=halo,
            ensemble=ensemble, threads=threads, memory=memory,
        ))  # fmt: skip

    @classmethod
    def from_settings(cls, settings: Settings) -> "Upscaler":
        """An upscaler whose `settings.scale` names the network that is loaded at once."""
        self = cls.__new__(cls)
        self._open(settings)
        return self

    def _open(self, settings: Settings) -> None:
        """Load the network of the scale, so that problems show before any image is read."""
        self.settings, self.computed, self._lock = settings, None, threading.Lock()
        self._networks, self._passes = dict[tuple[str | Path, int], Network](), list[list[Pass]]()
        by_name = BICUBIC if str(settings.model) == BICUBIC else settings.backend
        self._choice = registry.choose(by_name, settings)
        self.bicubic = self._choice.name == BICUBIC
        self.scales = () if self.bicubic else catalog.common_scales(auto.models(settings.model))
        (model, run), choice = self._first(settings.scale, same=settings.scale == 1), self._choice
        if run:
            network = self._network(model, run[0])
            engine, self.spec = network.engine, network.file.spec
            if run != (settings.scale,):
                names = " and ".join(f"x{scale}" for scale in run)
                then = "" if prod(run) == settings.scale else ", then bicubic to the size"
                log.info("x%g: the network runs at %s%s", settings.scale, names, then)
        else:
            engine, self.spec = BicubicEngine(1), bicubic_spec(1)
            choice = choice if self.bicubic else registry.Choice(BICUBIC, "nothing to enlarge")
        self.info, self.reason = engine.info, registry.describe(engine, choice)

    def __call__(
        self, image: Pixels, *, size: Size | None = None, progress: Callable[[int, int], None] | None = None
    ) -> Pixels:
        """Enlarge one image: a stream of one. The result has its dtype and layout.

        Args:
            image: (H, W) or (H, W, 1) gray, (H, W, 2) gray + alpha, (H, W, 3) RGB, (H, W, 4) RGBA;
                uint8, uint16, or float32 / float64 0-1.
            size: (height, width) of the result instead of the scale; if neither side is larger than the
                image's, only bicubic runs; at the image's own size a network that removes damage does, and
                others change nothing. The aspect ratio is the caller's to keep.
            progress: called after each tile with (done, total).

        Raises:
            InputError, UsageError: the array is no image, or the size is out of range.
            InferenceError, OutputError: no memory or disk space, or non-finite output in fp32.
        """
        on_tile = None if progress is None else lambda number, done, total: progress(done, total)
        with closing(self.stream([Image(image, size)], on_tile)) as results:
            result = next(results)
        if result.error is not None:
            raise result.error
        self.computed = result.computed
        assert result.pixels is not None, "a result has pixels or an error"
        return result.pixels

    def stream(
        self,
        images: Iterable[Image | Pixels | Wait],
        on_tile: Callable[[int, int, int], None] | None = None,
    ) -> Generator[Result]:
        """Enlarge images one after the other, lazily and in order; the engine goes on from one to the next.

        An image that fails has its error as its result, and the others go on. Closing ends the work.

        Args:
            images: taken one at a time, from another thread. `stream.WAIT` says that nothing more is ready:
                what is at work is completed before the next one is asked for.
            on_tile: called after each tile with the image's number, its tiles done and its tiles in all.
        """
        with closing(Stream(self._works(images), on_tile).run()) as works:
            for work in works:
                yield work.outcome()

    def model_for(self, image: Pixels) -> str | Path:
        """The model that an image is enlarged with: one of two for "auto", else the one asked for."""
        return self.settings.model if self.bicubic else auto.choose(self.settings.model, image)

    def candidates(self, source: Size, target: Size) -> list[Computed]:
        """What may compute an image of that size, by what is known before its pixels are: two for "auto"."""
        if not self._first(factor_between(source, target), same=source == target)[1]:
            return [Computed.by([])]
        return [
            Computed.by([self._network(model, scale) for scale in self._run(source, target, model)])
            for model in auto.models(self.settings.model)
        ]

    def leaves(self, source: Size, target: Size, model: str | Path) -> bool:
        """Whether there is nothing to do: the size is the image's own, and the model only enlarges."""
        return not self.bicubic and source == target and not self._run(source, target, model)

    def network_memory(self, source: Size, target: Size) -> int:
        """Bytes that process and network take with an image of that size, whatever its pixels take."""
        taken = [0]
        model, run = self._first(factor_between(source, target), same=source == target)
        for scale in run if self._in_ram else ():
            network = self._network(model, scale)
            window = network.plan(source)[0].window
            taken.append(memory.of_network(network.file.spec, window.height, window.width))
            source = scaled(source, scale)
        return memory.PROCESS + max(taken)

    @property
    def picture_memory(self) -> int:
        """Bytes that the settings leave for pictures beside the process and the networks."""
        loaded = [memory.of_network(n.file.spec, n.tile, n.tile) for n in list(self._networks.values())]
        return memory.for_pictures(self.settings, max(loaded, default=0) if self._in_ram else 0)

    @property
    def _in_ram(self) -> bool:
        return self.info.device == "cpu" and not self.bicubic

    def _works(self, images: Iterable[Image | Pixels | Wait]) -> Iterator[Work | None]:
        number = 0
        for image in images:
            if isinstance(image, Wait):
                yield None
                continue
            work, number = Work(number), number + 1
            try:
                self._prepare(work, image if isinstance(image, Image) else Image(image))
            except Exception as error:  # an image's failure is its own
                work.fail(error)
            del image  # its pixels may be large
            yield work

    def _prepare(self, work: Work, image: Image) -> None:
        """Plan an image: a chain of passes for its colour, and one for its alpha."""
        given = image.pixels() if callable(image.pixels) else image.pixels
        pixels.check(given)
        source = (given.shape[0], given.shape[1])
        target = image.size or self.settings.output_size(source)
        factor = factor_between(source, target)
        decides = self._first(factor, same=source == target)[1]
        model = image.model or (self.model_for(given) if decides else self.settings.model)
        run = self._run(source, target, model)
        networks = [self._network(model, scale) for scale in run]
        limit = self.picture_memory // 3 if image.limit is None else image.limit
        work.result = allocate((*target, *given.shape[2:]), given.dtype, limit=limit, folder=image.folder)
        color, alpha = pixels.color_and_alpha(given)
        out, alpha_out = pixels.color_and_alpha(work.result)
        out = out[..., ::-1] if image.order == "BGR" and out.ndim == 3 else out
        planes = [(color if alpha is None else bleed(color, alpha), out)]
        if alpha is not None and alpha_out is not None:
            if alpha.min() == alpha.max():
                alpha_out[...] = alpha.flat[0]
            else:
                planes.append((alpha, alpha_out))
        before = self._passes if image.still is not None else []
        self._passes = [list[Pass]() for _ in planes]
        for index, (plane, place) in enumerate(planes):
            two_colors = image.two_colors if index == 0 or image.two_colors is None else True
            chain = [network.for_plane(plane, two_colors) for network in networks]
            known = before[index] if index < len(before) else []
            work.chains.append(self._chain(plane, place, chain, limit, image, known, self._passes[index]))
            work.total += tiles_of(chain, source)
        work.networks, work.chained = networks, len(networks) > 1

    def _chain(
        self, plane: Pixels, out: Pixels, networks: list[Network], limit: int, image: Image,
        before: list[Pass], made: list[Pass],
    ) -> Iterator[Pass]:  # fmt: skip
        """The networks one after the other over a plane; bicubic finishes where they do not meet the size."""
        for number, network in enumerate(networks):
            size = scaled((plane.shape[0], plane.shape[1]), network.scale)
            larger = out
            if size != out.shape[:2]:
                larger = allocate((*size, *plane.shape[2:]), plane.dtype, limit=limit, folder=image.folder)
            known, ensemble = before[number] if number < len(before) else None, self.settings.ensemble
            made.append(Pass(network, plane, larger, ensemble=ensemble, before=known, still=image.still or 0))
            yield made[-1]
            plane = larger
        if plane is not out:
            imresize(plane, (out.shape[0], out.shape[1]), out=out)
            if out.dtype.kind == "f":
                np.clip(out, 0, 1, out=out)

    def _first(self, factor: float, *, same: bool) -> tuple[str | Path, tuple[int, ...]]:
        """The first model that runs networks, and their scales; none where no model does.

        Args:
            factor: to enlarge by.
            same: whether the size asked for is the image's own.
        """
        models = auto.models(self.settings.model)
        runs = [(model, self._steps(factor, model, same=same)) for model in models]
        return next((found for found in runs if found[1]), runs[0])

    def _run(self, source: Size, target: Size, model: str | Path) -> tuple[int, ...]:
        return self._steps(factor_between(source, target), model, same=source == target)

    def _steps(self, factor: float, model: str | Path, *, same: bool) -> tuple[int, ...]:
        """Scales of the networks to run one after the other; none where bicubic does it alone.

        At an image's own size, a network that removes damage runs at its lowest scale, and bicubic goes back.
        """
        if self.bicubic:
            return (int(factor),) if factor > 1 and factor == int(factor) else ()
        if same and auto.cleans(catalog.resolve(model, self.scales[0]).spec):
            return self.scales[:1]
        return catalog.scales_for(self.scales, factor) if factor > 1 else ()

    def _network(self, model: str | Path, scale: int) -> Network:
        """The network of that scale, loaded on first use, which may be that of another thread's question."""
        with self._lock:
            if (model, scale) not in self._networks:
                file = catalog.ModelFile(Path(), bicubic_spec(scale))
                if not self.bicubic:
                    file = choose_file(catalog.resolve(model, scale), self._choice.name, self.settings)
                self._networks[model, scale] = Network(file, self._choice.name, self.settings)
                if file.note:
                    log.info(file.note)
            return self._networks[model, scale]
