"""One engine at work on a film: a decoder before it and an encoder after it, each in a thread of its own.

It closes segments one after the other. Each is done in the same way by any engine, since its frames are found
by their times and its encoder begins anew.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from time import perf_counter
from typing import Any

from srcli.imaging import pixels, yuv
from srcli.imaging.pixels import Pixels
from srcli.io.films import segments
from srcli.io.films.encoding import Encoding
from srcli.io.films.journal import Journal, Segment, Spooled
from srcli.io.films.reader import Frame
from srcli.io.fitting import over_white
from srcli.jobs.film_plan import FilmPlan, decoded, to_rgb
from srcli.jobs.folder import lower_priority
from srcli.jobs.plan import Upscale
from srcli.memory import give_back
from srcli.settings import Settings
from srcli.stream import Image

_AHEAD = 2
"""Frames decoded before their turn, and enlarged ones that wait for the encoder."""
_SLOW = 0.25
"""Seconds a frame from which on the finished frames of an open segment are kept on disk; the first segment's
are in any case."""
_END = object()


@dataclass(slots=True)
class Shared:
    """What the engines at work on a film share.

    Attributes:
        film: what is made.
        work: where its segments go.
        settings: of the run.
        watch: told of frames: how many are in segments, and how many of them this run made.
        closed: the closed segments, by number.
        cancelled: the run is to end.
    """

    film: FilmPlan
    work: Journal
    settings: Settings
    watch: Callable[[int, int], None]
    closed: dict[int, Segment]
    cancelled: threading.Event = field(default_factory=threading.Event)
    _done: int = 0
    _made: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def frames_done(self, frames: int, made: int) -> None:
        """So many more frames are in a segment, `made` of them new."""
        with self._lock:
            self._done += frames
            self._made += made
            self.watch(self._done, self._made)

    def go_on(self) -> None:
        """Raise CancelledError if the run is to end."""
        if self.cancelled.is_set():
            raise CancelledError


@dataclass(frozen=True, slots=True)
class _Read:
    """A decoded frame.

    Attributes:
        frame: its samples.
        rgb: the same in RGB(A).
        clipped: how many of its pixels lay outside the RGB cube.
        again: whether it has the samples of the frame before, whose pixels it shares.
    """

    frame: Frame
    rgb: Pixels
    clipped: int
    again: bool = False


@dataclass(slots=True)
class FilmWorker:
    """One engine with a decoder before it and an encoder after it."""

    shared: Shared
    upscale: Upscale
    _pending: deque[_Read] = field(default_factory=deque)

    def run(self, numbers: Iterator[int]) -> None:
        """Close segments by their numbers. An error leaves the one at work to be made again."""
        stored: deque[Future[None]] = deque()
        decoder, encoder = (ThreadPoolExecutor(1, initializer=lower_priority) for _ in range(2))
        store = _Store(self.shared)
        try:
            images = self._images(numbers, decoder, store.taken)
            with closing(self.upscale.stream(images, self._tile)) as results:
                for result in results:
                    self.shared.go_on()
                    read = self._pending.popleft()
                    if result.error is not None or result.pixels is None:
                        raise result.error or CancelledError
                    stored.append(encoder.submit(store.add, read, result.pixels))
                    while len(stored) > _AHEAD or (stored and stored[0].done()):
                        stored.popleft().result()
            for one in stored:
                one.result()
            encoder.submit(store.finish).result()
        finally:
            decoder.shutdown(cancel_futures=True)
            encoder.submit(store.abandon).result()
            encoder.shutdown()

    def _images(
        self, numbers: Iterator[int], decoder: ThreadPoolExecutor, taken: list[int]
    ) -> Iterator[Image]:
        """Frames of the segments, decoded ahead."""
        film, found, following = self.shared.film, None, -1
        for number in numbers:
            taken.append(number)
            kept = _kept(self.shared.work, film, number)
            if found is None or number != following or kept is not None:
                found = _ahead(decoder, self._decoded(self._before(number, kept)))
            following, last = number + 1, film.last_of(number)
            for read in found:
                if read.frame.number > last:  # the rest of this segment is lost and left out
                    found = chain((read,), found)
                    break
                self._pending.append(read)
                yield Image(
                    read.rgb,
                    film.encoding.size,
                    film.model,
                    two_colors=film.two_colors,
                    still=self.shared.settings.film.still,
                )
                if read.frame.number >= last:
                    break

    def _before(self, number: int, kept: Spooled | None) -> tuple[int, bytes] | None:
        """Time and digest of the frame after which a segment goes on; None at the film's start."""
        if kept is not None:
            return kept.time, bytes.fromhex(kept.digest)
        film, times = self.shared.film, self.shared.film.facts.times
        if number == 0:
            return (times[film.first - 1], b"") if film.first else None
        segment = self.shared.closed.get(number - 1)
        if segment is not None and segment.frames:
            return segment.time, bytes.fromhex(segment.digest)
        return times[film.last_of(number - 1)], b""

    def _decoded(self, after: tuple[int, bytes] | None) -> Iterator[_Read]:
        last: _Read | None = None
        for frame in decoded(self.shared.film.facts, after, self.shared.settings):
            if last is not None and frame.shows(last.frame):
                last = replace(last, frame=frame, again=True)
            else:
                last = _Read(frame, *to_rgb(frame, self.shared.film.facts))
            yield last

    def _tile(self, number: int, done: int, total: int) -> None:
        if done < total:
            self.shared.go_on()


@dataclass(slots=True)
class _Store:
    """The open segment of one engine; all but `taken` is used in the encoder's thread alone.

    Attributes:
        taken: numbers of the segments that the engine has begun.
    """

    shared: Shared
    taken: list[int] = field(default_factory=list)
    _block: AbstractContextManager[segments.SegmentWriter] | None = None
    _open: segments.SegmentWriter | None = None
    _entry: Segment | None = None
    _planes: tuple[list[Pixels], Pixels | None] = ([], None)
    _keeps: bool = True
    _closed: int = 0
    _began: float = field(default_factory=perf_counter)

    def add(self, read: _Read, made: Pixels) -> None:
        """Add an enlarged frame to its segment, which is opened if need be, after closing the one before."""
        frame, film = read.frame, self.shared.film
        number = film.segment_of(frame.number)
        if self._entry is None or self._entry.number != number:
            self._end(number)
            self._begin(number)
        times = self._missing(frame.number)
        lost = (*times, frame.time) if frame.repeated else times
        if not read.again:
            self._planes = _to_planes(made, film.encoding)
        kept = Spooled(frame.number, frame.time, frame.digest().hex(), read.clipped, lost, *self._planes)
        self._write(kept)
        self.shared.frames_done(1, 1)
        if frame.number == film.last_of(number):
            self._close()
        elif self._keeps:
            self.shared.work.spool(number, kept)

    def finish(self) -> None:
        """Close what is open."""
        self._end(self.shared.film.segments)

    def _end(self, following: int) -> None:
        """Close what is open, and of the segments before one those that lost their last frames to damage."""
        self._close()
        for number in list(self.taken):
            if number < following and number not in self.shared.closed:
                self._begin(number)
                self._close()

    def abandon(self) -> None:
        """Leave the open segment, if there is one, to be made again."""
        if self._block is not None:
            error = CancelledError()
            with suppress(CancelledError):
                self._block.__exit__(CancelledError, error, None)
            self._block = self._open = self._entry = None

    def _begin(self, number: int) -> None:
        film, work = self.shared.film, self.shared.work
        self._block = segments.writing(work.path(number), film.encoding, film.facts)
        self._open = self._block.__enter__()
        self._entry = Segment(number, 0, 0, 0, "")
        slow = perf_counter() - self._began > _SLOW * film.segment * self._closed
        self._keeps = not self._closed or slow
        for kept in work.spooled(number, film.first_of(number)):
            if kept.number != film.last_of(number):  # `_kept` does not count on it either
                self._write(kept)
        self.shared.frames_done(self._entry.frames, 0)

    def _missing(self, number: int) -> tuple[int, ...]:
        """Times of the frames of the open segment before this one that did not come: lost, and left out."""
        assert self._entry is not None
        entry, film = self._entry, self.shared.film
        following = entry.last + 1 if entry.frames else film.first_of(entry.number)
        return film.facts.times[following:number]

    def _write(self, kept: Spooled) -> None:
        assert self._open is not None
        assert self._entry is not None
        self._open.add(kept.time, kept.planes, kept.alpha)
        entry = self._entry
        self._entry = Segment(
            entry.number,
            entry.frames + 1,
            kept.number,
            kept.time,
            kept.digest,
            entry.clipped + kept.clipped,
            (*entry.lost, *kept.lost),
        )

    def _close(self) -> None:
        if self._block is None or self._entry is None:
            return
        tail = self._missing(self.shared.film.last_of(self._entry.number) + 1)
        self._entry = replace(self._entry, lost=(*self._entry.lost, *tail))
        block, self._block, self._open = self._block, None, None
        block.__exit__(None, None, None)
        give_back()
        self.shared.work.close(self._entry)
        self.shared.closed[self._entry.number] = self._entry
        self._entry = None
        self._closed += 1


def _kept(work: Journal, film: FilmPlan, number: int) -> Spooled | None:
    """The last finished frame of a segment that is to be continued."""
    kept = None
    for one in work.spooled(number, film.first_of(number)):
        if one.number != film.last_of(number):
            kept = replace(one, planes=[])
    return kept


def _ahead(pool: ThreadPoolExecutor, items: Iterator[_Read]) -> Iterator[_Read]:
    """The same items, computed by the pool's one thread, a few before their turn."""
    waiting: deque[Future[Any]] = deque(pool.submit(next, items, _END) for _ in range(_AHEAD))
    while (item := waiting.popleft().result()) is not _END:
        waiting.append(pool.submit(next, items, _END))
        yield item


def _to_planes(made: Pixels, given: Encoding) -> tuple[list[Pixels], Pixels | None]:
    """The planes that the encoder takes, and its alpha."""
    color, alpha = pixels.color_and_alpha(made)
    if alpha is None:
        return yuv.from_rgb(color, given.coding), None
    if not given.alpha:
        return yuv.from_rgb(over_white(made), given.coding), None
    return yuv.from_rgb(color, given.coding), yuv.depth(alpha, 16, given.coding.bits)
