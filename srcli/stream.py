"""Windows of many planes through their engines as one stream: bounded lookahead, results in order, retries.

An engine is drained only where the next window needs another engine, or the result of a window before it. It
computes in a thread of its own; the thread that reads the results writes the cores meanwhile.
"""

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from queue import Empty, Queue
from time import perf_counter
from typing import Any

from numpy.typing import NDArray

from srcli.backends.base import BICUBIC, Batch, BicubicEngine, Engine, EngineInfo, Releasing
from srcli.errors import InferenceError
from srcli.imaging.pixels import Pixels
from srcli.precision import Network, Pass, UnfitError
from srcli.settings import Size

OnTile = Callable[[int, int, int], None]
"""Called after each tile with the number of its image, tiles done and tiles in all; once for all tiles whose
results are taken from the image before."""

_END = object()
_NOTHING = object()
"""Handed over where a work is begun of which nothing is to be computed: it may be complete at once."""
_AHEAD = 4
"""Such works that may be begun before the one whose results they take is complete."""
_GLANCE = 0.1
"""Seconds after which a wait for the engine's thread looks whether it is there."""


class Wait(Enum):
    """In place of an image: nothing more is ready now, so complete what is at work before asking again."""

    WAIT = "wait"


WAIT = Wait.WAIT


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a stream.

    Attributes:
        pixels: as `srcli.Upscaler` takes them, or a function that gives them when it is their turn.
        size: (height, width) of the result instead of the settings' size.
        model: what `Upscaler.model_for` gave for it; None: it is asked in its turn.
        order: "RGB" or "BGR", the channel order of the result in memory, as its encoder wants it.
        limit: bytes; a larger result lies in a scratch file. None: what the settings leave for pictures.
        folder: where scratch files go; None: the system's folder for temporary files.
        two_colors: whether it counts as of two colours, which int8 may be too coarse for; None: measured.
            Said of a film's frames, so that no two of them are computed differently; their alpha then always
            counts as such.
        still: of a film's frame, the difference of 255 up to which a window counts as that of the image
            before it, whose result is then taken. 0: equal windows, so that the result is the same. None: it
            is not compared, and everything is computed.
    """

    pixels: Pixels | Callable[[], Pixels]
    size: Size | None = None
    model: str | Path | None = None
    order: str = "RGB"
    limit: int | None = None
    folder: Path | None = None
    two_colors: bool | None = None
    still: int | None = None


@dataclass(frozen=True, slots=True)
class Computed:
    """What a result was computed with.

    Attributes:
        model: name of the network; "bicubic" where none ran.
        scales: of the networks, in the order they ran; empty where none ran.
        info: where they ran; a precision such as "bf16, fp32" tells of an overflow in part of the image,
            "int8, fp32" of a plane of two colours, which does without int8.
        precision: that was chosen, before any retry.
        files: that decide the networks, weights included.
    """

    model: str
    scales: tuple[int, ...]
    info: EngineInfo
    precision: str = "fp32"
    files: tuple[Path, ...] = ()

    @classmethod
    def by(cls, networks: Sequence[Network], infos: Sequence[EngineInfo] = ()) -> "Computed":
        """By networks one after the other; `infos` of the engines that ran in the end, if they did."""
        if not networks:
            return cls(BICUBIC, (), BicubicEngine(1).info)
        infos = infos or [network.engine.info for network in networks]
        names = " + ".join(dict.fromkeys(network.file.name for network in networks))
        precision = ", ".join(dict.fromkeys(network.engine.info.precision for network in networks))
        used = replace(infos[0], precision=", ".join(dict.fromkeys(info.precision for info in infos)))
        files = dict.fromkeys(path for network in networks for path in network.file.files)
        return cls(names, tuple(network.scale for network in networks), used, precision, tuple(files))


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one image of a stream: its pixels, or why there are none; and the seconds it took."""

    pixels: Pixels | None
    computed: Computed | None
    error: Exception | None
    seconds: float


@dataclass(slots=True, eq=False)
class Work:
    """One image on its way: chains of passes, each of which begins when the one before it is complete.

    Attributes:
        number: place in the stream.
        result: array that the chains fill.
        networks: that were chosen, in the order they run.
        chains: iterators of passes, independent of each other; what stands behind their last pass runs, too.
        chained: whether a chain has more than one pass.
        total, done: tiles.
        error: why it failed; None while it has not.
        infos: of the engines of passes that are complete.
        seconds: from its beginning to its end.
    """

    number: int = 0
    result: Pixels | None = None
    networks: list[Network] = field(default_factory=list)
    chains: list[Iterator[Pass]] = field(default_factory=list)
    chained: bool = False
    total: int = 0
    done: int = 0
    error: Exception | None = None
    infos: list[EngineInfo] = field(default_factory=list)
    seconds: float = 0.0
    _active: dict[int, Pass] = field(default_factory=dict)

    @property
    def active(self) -> list[Pass]:
        """Passes that are not complete."""
        return [] if self.error else list(self._active.values())

    def begin(self) -> None:
        """Start every chain."""
        self.seconds = -perf_counter()
        for number in range(len(self.chains)):
            self._advance(number)

    def advance(self, complete: Pass) -> None:
        """Go on behind a pass that is complete."""
        self.infos.append(complete.engine.info)
        self._advance(next(number for number, one in self._active.items() if one is complete))

    def _advance(self, number: int) -> None:
        try:
            self._active.pop(number, None)
            for one in self.chains[number]:
                self._active[number] = one
                break
        except Exception as error:  # an image's failure is its own
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Nothing more of it is computed."""
        self.error = self.error or error

    def outcome(self) -> Result:
        """What became of the image, once its last tile is written or it failed; the pixels are let go of."""
        pixels, self.result = self.result, None
        if self.error is not None:
            return Result(None, None, self.error, self.seconds)
        return Result(pixels, Computed.by(self.networks, self.infos), None, self.seconds)


@dataclass(slots=True)
class _Run:
    """An engine at work until it is drained: what it was given and has not given back, and its error."""

    fed: deque[tuple[Work, Pass]] = field(default_factory=deque)
    stopped: bool = False
    error: BaseException | None = None


class Stream:
    """Works in, complete works out, in order.

    Args:
        works: taken one by one as the engine needs windows, in the engine's thread. None among them says that
            nothing more is ready: what is at work is completed before the next one is asked for.
        on_tile: see `OnTile`.
    """

    def __init__(self, works: Iterator[Work | None], on_tile: OnTile | None = None) -> None:
        self._works, self._on_tile = works, on_tile
        self._queue: deque[Work] = deque()
        self._lock = threading.Lock()
        self._exhausted = False
        self._source_error: Exception | None = None
        self._engine: Engine | None = None  # that ran last
        self._alone: Work | None = None  # up to this one, one at a time: several were in flight at an error

    def run(self) -> Generator[Work]:
        """Complete works; an error of `works` itself is raised at the end."""
        while True:
            yield from self._completed()
            following = self._following()
            if following is not None and following[1].tiles:
                yield from self._drain(*following)
            elif self._exhausted and not self._queue:
                break
        if self._source_error is not None:
            raise self._source_error

    def _completed(self) -> Iterator[Work]:
        """Complete works in order. Passes end in the first one only, so that the ones they take from have."""
        while self._queue:
            work = self._queue[0]
            while ready := [one for one in work.active if one.computed]:
                for one in ready:
                    self._end(work, one)
            if work.active:
                return
            with self._lock:
                self._queue.popleft()
            work.seconds += perf_counter()
            if work is self._alone:
                self._alone = None
            yield work

    def _end(self, work: Work, one: Pass) -> None:
        """Take over what a pass left out, and go on behind it; or compute that, if it cannot be taken."""
        left = one.left
        if one.take_over():
            if left:
                self._count(work, left)
            work.advance(one)

    def _count(self, work: Work, tiles: int) -> None:
        """So many more tiles are done."""
        work.done += tiles
        if self._on_tile is not None:
            self._on_tile(work.number, work.done, work.total)

    def _following(self) -> tuple[Work, Pass] | None:
        """The next pass with windows to feed, or of a new work; None where one must be completed first, or
        nothing is left."""
        with self._lock:
            waiting = list(self._queue)
        for work in waiting:
            for one in work.active:
                if one.fed < len(one.tiles):
                    return work, one
            if work.active and (work.chained or self._alone is not None):
                return None
        if sum(not any(one.tiles for one in work.active) for work in waiting) > _AHEAD:
            return None
        while (new := self._taken()) is not None:
            if new.active:
                return new, new.active[0]
        return None

    def _taken(self) -> Work | None:
        """One more work, begun; None where none is ready or left."""
        try:
            work = None if self._exhausted else next(self._works, _END)
        except Exception as error:
            self._source_error, work = error, _END
        if work is _END:
            self._exhausted = True
            return None
        if not isinstance(work, Work):
            return None
        work.begin()
        with self._lock:
            self._queue.append(work)
        return work

    def _drain(self, work: Work, first: Pass) -> Iterator[Work]:
        """Run the engine of a pass until a window needs another one; gives out works that become complete."""
        run, handoff = _Run(), Queue[Any](maxsize=1)
        if self._engine is not first.engine and isinstance(self._engine, Releasing):
            self._engine.release()  # memory is that of one network
        self._engine = first.engine
        try:
            first.network.check(first.engine, first.plane[first.tiles[0].window.slices])
        except UnfitError as error:
            first.unfit = str(error)
        except Exception as error:
            run.error = error
        if first.unfit or run.error:
            run.fed.append((work, first))
            self._recover(run, work, first)
            return
        thread = threading.Thread(target=self._compute, args=(run, work, first, handoff), daemon=True)
        result: Any = None
        try:
            thread.start()
            while (result := handoff.get()) is not _END:
                if result is not _NOTHING:
                    self._write(run, *run.fed.popleft(), result)
                yield from self._completed()
            if run.fed and run.error is None and not run.stopped:
                run.error = InferenceError("The engine gave fewer results than windows.")
        finally:
            run.stopped = True
            while result is not _END and thread.is_alive():  # an interrupt may come before it starts
                with suppress(Empty):
                    result = handoff.get(timeout=_GLANCE)
            if thread.ident is not None:
                thread.join()
        self._recover(run, work, first)

    def _compute(self, run: _Run, work: Work, first: Pass, handoff: "Queue[Any]") -> None:
        """The engine's thread."""
        try:
            for result in first.compute(self._windows(run, work, first, handoff)):
                handoff.put(result)
        except BaseException as error:  # `_recover` says whose it is
            run.error = error
        finally:
            handoff.put(_END)

    def _windows(self, run: _Run, work: Work, first: Pass, handoff: "Queue[Any]") -> Iterator[Batch]:
        """Windows of a pass and of those behind it, as long as they are of its kind."""
        following: tuple[Work, Pass] | None = (work, first)
        while following is not None:
            if not following[1].tiles:
                handoff.put(_NOTHING)
            elif following[1].kind != first.kind:
                return
            while following[1].fed < len(following[1].tiles) and not run.stopped:
                run.fed.append(following)
                yield following[1].feed()
            following = None if run.stopped else self._following()

    def _write(self, run: _Run, work: Work, one: Pass, result: NDArray[Any] | None) -> None:
        if work.error is not None or one.unfit:
            return
        try:
            one.write(result)
        except InferenceError as error:
            work.fail(error)
        if work.error is not None or one.unfit:
            run.stopped = True
            return
        self._count(work, 1)

    def _recover(self, run: _Run, work: Work, first: Pass) -> None:
        """After the engine is drained: what has to be computed again, and what has failed."""
        for other in self._queue:
            for one in other.active:
                one.fed = one.written
                if one.unfit:
                    self._in_fp32(other, one)
        if run.error is None:
            return
        if not isinstance(run.error, Exception):
            raise run.error
        culprits = list(dict.fromkeys(other for other, _ in run.fed if other.active)) or [work]
        if isinstance(run.error, MemoryError):
            self._with_smaller_tiles(culprits[0], run.fed[0][1] if run.fed else first, run.error)
        elif len(culprits) == 1:
            culprits[0].fail(run.error)
        else:
            self._alone = culprits[-1]

    def _in_fp32(self, work: Work, one: Pass) -> None:
        left = one.left
        try:
            work.total += one.restart(one.network.in_fp32(one.engine, one.unfit)) - left
        except Exception as error:
            work.fail(error)

    def _with_smaller_tiles(self, culprit: Work, one: Pass, error: MemoryError) -> None:
        network = one.network
        try:
            network.halve_tile(one.window, error)
        except InferenceError as reason:
            culprit.fail(reason)
        for work in self._queue:
            for other in work.active:
                if other.network is network and other.window > network.tile:
                    work.total -= other.left
                    work.total += other.restart(other.engine)
