"""A film through the engines: decode, enlarge and encode at the same time, in closed segments.

Each segment is a job of its own, which any engine does with the same result: its frames are found by their times,
and its encoder begins anew. What the journal says is closed is not done again, so a run that was killed goes on
where it was. The segments are joined at the end.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from srcli import __version__
from srcli.errors import InputError, shown
from srcli.imaging import pixels, yuv
from srcli.imaging.pixels import Pixels
from srcli.io import provenance
from srcli.io.films import encoding, facts, journal, reader, segments, streams
from srcli.io.films.encoding import Encoding
from srcli.io.films.facts import Facts
from srcli.io.films.journal import Journal, Segment, Spooled
from srcli.io.films.reader import Frame
from srcli.io.films.streams import Carried
from srcli.io.provenance import Provenance
from srcli.jobs.folder import lower_priority, make_folder
from srcli.jobs.inputs import Job
from srcli.jobs.plan import Upscale
from srcli.jobs.report import FilmResult, PictureResult, Progress, Status, failure
from srcli.settings import Settings, Size, scaled
from srcli.stream import Computed, Image

SEGMENT = 120
"""Frames of a segment; the last one has up to twice as many. Against one encode, x264's segments of 16 frames
take 61% more bytes, those of 120 take 4%."""
_AHEAD = 2
"""Frames decoded before their turn, and enlarged ones that wait for the encoder."""
_SLOW = 0.25
"""Seconds a frame from which on the finished frames of an open segment are kept on disk."""
_GLANCE = 0.1
"""Seconds that a wait lasts before it looks up whether it is to stop."""
_SAMPLES = 5
"""Frames, spread over the film, that decide what holds for all."""
_END = object()


@dataclass(frozen=True, slots=True)
class FilmPlan:
    """All that is decided about a film before its first frame.

    Attributes:
        facts: of the input.
        size: (height, width) of the enlarged frames.
        encoding: of the output.
        carried: the other streams.
        model: that enlarges every frame.
        two_colors: whether its frames count as of two colours.
        computed: what will compute it.
        record: what decides its frames and their encoding.
    """

    facts: Facts
    size: Size
    encoding: Encoding
    carried: Carried
    model: str | Path
    two_colors: bool
    computed: Computed
    record: Provenance

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return max(1, len(self.facts.times) // SEGMENT)

    def segment_of(self, frame: int) -> int:
        """The segment that a frame belongs to, by its number."""
        return min(frame // SEGMENT, self.segments - 1)

    def last_of(self, segment: int) -> int:
        """The number of a segment's last frame."""
        return len(self.facts.times) - 1 if segment == self.segments - 1 else (segment + 1) * SEGMENT - 1


@dataclass(frozen=True, slots=True)
class _Read:
    """A decoded frame, in RGB(A), and how many of its pixels lay outside the RGB cube."""

    frame: Frame
    rgb: Pixels
    clipped: int


@dataclass(slots=True)
class FilmRun:
    """One film.

    Attributes:
        job: what to read and write.
        upscalers: one a device; each takes segments of its own.
        settings: of the run.
        progress: watches it.
        stop: says whether the run is to end early.
        interrupted: whether it ended early.
    """

    job: Job
    upscalers: Sequence[Upscale]
    settings: Settings
    progress: Progress
    stop: Callable[[], bool] = lambda: False
    interrupted: bool = False
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _done: int = 0
    _enlarged: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> PictureResult:
        """Do it. A failure becomes the result and raises nothing; so does an interrupt."""
        begin, job = perf_counter(), self.job
        try:
            found, film = _foreseen(job, self.upscalers[0], self.settings)
            if film is None:
                return found
            result = self._make(film)
            return replace(
                found, status=Status.WRITTEN, seconds=perf_counter() - begin, computed=film.computed, film=result
            )
        except CancelledError:
            self.interrupted = True
            return PictureResult(job.source, job.target, Status.PENDING)
        except Exception as error:
            return failure(job, error)

    def _make(self, film: FilmPlan) -> FilmResult:
        target = self.job.target
        make_folder(target)
        with journal.opened(target, film.record.text, overwrite=self.settings.overwrite) as work:
            self._close_segments(film, work)
            closed = [segment for _, segment in sorted(work.segments().items())]
            record = replace(film.record, input_sha256=provenance.file_sha256(self.job.source))
            paths = [work.path(segment.number) for segment in closed]
            segments.join(
                paths, target, film.encoding, film.facts, film.carried, tags=_tags(record, self.settings)
            )
            work.finished = True
        lost = tuple(time for segment in closed for time in segment.lost)
        clipped = sum(segment.clipped for segment in closed)
        area = len(film.facts.times) * film.facts.width * film.facts.height
        frames = sum(segment.frames for segment in closed)
        seconds = [float(time * film.facts.time_base) for time in lost]
        verified = segments.verify(target, film.facts, film.encoding, film.carried)
        return FilmResult(frames, tuple(seconds), clipped / area, film.carried.dropped, verified)

    def _close_segments(self, film: FilmPlan, work: Journal) -> None:
        """Close every segment that is not closed yet, on all engines at once."""
        closed = work.segments()
        missing = iter([number for number in range(film.segments) if number not in closed])
        self._done = sum(segment.frames for segment in closed.values())
        self.frames_done(len(film.facts.times), 0, 0)
        errors: list[BaseException] = []

        def take() -> Iterator[int]:
            while True:
                with self._lock:
                    number = next(missing, None)
                if number is None:
                    return
                yield number

        def serve(upscale: Upscale) -> None:
            try:
                _Line(self, film, work, upscale, closed).run(take())
            except BaseException as error:
                errors.append(error)
                self._cancelled.set()

        threads = [threading.Thread(target=serve, args=(upscale,)) for upscale in self.upscalers]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                if self.stop() and not self._cancelled.is_set():
                    self._cancelled.set()
                    self.progress.stopping()
                thread.join(_GLANCE)
        if errors:
            raise next((error for error in errors if not isinstance(error, CancelledError)), errors[0])

    def frames_done(self, total: int, frames: int, enlarged: int) -> None:
        """So many more frames are in a segment, `enlarged` of them new."""
        with self._lock:
            self._done += frames
            self._enlarged += enlarged
            self.progress.frames(self.job, self._done, total, self._enlarged)

    def go_on(self) -> None:
        """Raise CancelledError if the run is to end."""
        if self._cancelled.is_set():
            raise CancelledError


@dataclass(slots=True)
class _Line:
    """One engine with a decoder before it and an encoder after it."""

    run_: FilmRun
    film: FilmPlan
    work: Journal
    upscale: Upscale
    closed: dict[int, Segment]
    _pending: deque[_Read] = field(default_factory=deque)

    def run(self, numbers: Iterator[int]) -> None:
        """Close segments by their numbers. An error leaves the one at work to be made again."""
        stored: deque[Future[None]] = deque()
        decoder, encoder = (ThreadPoolExecutor(1, initializer=lower_priority) for _ in range(2))
        store = _Store(self.run_, self.film, self.work)
        begin = perf_counter()
        try:
            images = self._images(numbers, decoder, store.taken)
            with closing(self.upscale.stream(images, self._tile)) as results:
                for result in results:
                    self.run_.go_on()
                    read = self._pending.popleft()
                    if result.error is not None or result.pixels is None:
                        raise result.error or CancelledError
                    seconds, begin = perf_counter() - begin, perf_counter()
                    stored.append(encoder.submit(store.add, read, result.pixels, seconds > _SLOW))
                    while len(stored) > _AHEAD or (stored and stored[0].done()):
                        stored.popleft().result()
            for one in stored:
                one.result()
            encoder.submit(store.finish).result()
        finally:
            decoder.shutdown(cancel_futures=True)
            encoder.submit(store.abandon).result()
            encoder.shutdown()

    def _images(self, numbers: Iterator[int], decoder: ThreadPoolExecutor, taken: list[int]) -> Iterator[Image]:
        """Frames of the segments, decoded ahead."""
        film, frames, following = self.film, None, -1
        for number in numbers:
            taken.append(number)
            kept = _kept(self.work, film, number)
            if frames is None or number != following or kept is not None:
                frames = _ahead(decoder, self._decoded(self._before(number, kept)))
            following, last = number + 1, film.last_of(number)
            for read in frames:
                self._pending.append(read)
                yield Image(read.rgb, film.size, film.model, two_colors=film.two_colors)
                if read.frame.number >= last:
                    break

    def _before(self, number: int, kept: Spooled | None) -> tuple[int, bytes | None] | None:
        """Time and digest of the frame after which a segment goes on; None at the film's start."""
        if kept is not None:
            return kept.time, bytes.fromhex(kept.digest)
        if number == 0:
            return None
        if (segment := self.closed.get(number - 1)) is not None:
            return segment.time, bytes.fromhex(segment.digest)
        return self.film.facts.times[self.film.last_of(number - 1)], None

    def _decoded(self, after: tuple[int, bytes | None] | None) -> Iterator[_Read]:
        film = self.run_.settings.film
        for frame in reader.frames(
            self.film.facts, after=after, on_error=film.on_error, deinterlace=film.deinterlace
        ):
            yield _Read(frame, *_to_rgb(frame, self.film.facts))

    def _tile(self, number: int, done: int, total: int) -> None:
        if done < total:
            self.run_.go_on()


@dataclass(slots=True)
class _Store:
    """The open segment of one engine; all but `taken` is used in the encoder's thread alone.

    Attributes:
        taken: numbers of the segments that the engine has begun.
    """

    run: FilmRun
    film: FilmPlan
    work: Journal
    taken: list[int] = field(default_factory=list)
    _open: segments.SegmentWriter | None = None
    _entry: Segment | None = None

    def add(self, read: _Read, made: Pixels, slow: bool) -> None:
        """Add an enlarged frame to its segment, which is opened if need be, after closing the one before."""
        frame = read.frame
        number = self.film.segment_of(frame.number)
        if self._entry is None or self._entry.number != number:
            self._close()
            self._begin(number)
        planes = _to_planes(made, self.film.encoding)
        kept = Spooled(frame.number, frame.time, frame.digest.hex(), read.clipped, frame.lost, planes)
        self._write(kept)
        self.run.frames_done(len(self.film.facts.times), 1, 1)
        if frame.number == self.film.last_of(number):
            self._close()
        elif slow:
            self.work.spool(number, kept)

    def finish(self) -> None:
        """Close what is open, and what lost its last frames to damage."""
        self._close()
        closed = self.work.segments()
        for number in self.taken:
            if number not in closed:
                self._begin(number)
                self._close()

    def abandon(self) -> None:
        """Leave the open segment, if there is one, to be made again."""
        if self._open is not None:
            self._open.abandon()
            self._open = None

    def _begin(self, number: int) -> None:
        self._open = segments.SegmentWriter(self.work.path(number), self.film.encoding, self.film.facts)
        self._entry = Segment(number, 0, 0, 0, "")
        for kept in self.work.spooled(number):
            if kept.number != self.film.last_of(number):  # `_kept` does not count on it either
                self._write(kept)
        self.run.frames_done(len(self.film.facts.times), self._entry.frames, 0)

    def _write(self, kept: Spooled) -> None:
        assert self._open is not None
        assert self._entry is not None
        self._open.add(kept.time, kept.planes)
        entry = self._entry
        lost = (*entry.lost, kept.time) if kept.lost else entry.lost
        self._entry = Segment(
            entry.number,
            entry.frames + 1,
            kept.number,
            kept.time,
            kept.digest,
            entry.clipped + kept.clipped,
            lost,
        )

    def _close(self) -> None:
        if self._open is None or self._entry is None:
            return
        self._open.close()
        self.work.close(self._entry)
        self._open = self._entry = None


def _kept(work: Journal, film: FilmPlan, number: int) -> Spooled | None:
    """The last finished frame of a segment that is to be continued."""
    kept = None
    for one in work.spooled(number):
        if one.number != film.last_of(number):
            kept = replace(one, planes=[])
    return kept


def _ahead(pool: ThreadPoolExecutor, items: Iterator[_Read]) -> Iterator[_Read]:
    """The same items, computed by the pool's one thread, a few before their turn."""
    waiting: deque[Future[Any]] = deque(pool.submit(next, items, _END) for _ in range(_AHEAD))
    while (item := waiting.popleft().result()) is not _END:
        waiting.append(pool.submit(next, items, _END))
        yield item


def _to_rgb(frame: Frame, of: Facts) -> tuple[Pixels, int]:
    """A frame's pixels as networks take them, uint16, and how many lay outside the RGB cube."""
    rgb, clipped = yuv.to_rgb(frame.planes, of.coding)
    if frame.alpha is not None:
        rgb = np.dstack([rgb, yuv.depth(frame.alpha, of.coding.bits, 16)])
    return rgb, clipped


def _to_planes(made: Pixels, given: Encoding) -> list[Pixels]:
    """The planes that the encoder takes."""
    color, alpha = pixels.color_and_alpha(made)
    planes = yuv.from_rgb(color, given.coding)
    if given.gray:
        planes = planes[:1]
    if given.alpha and alpha is not None:
        planes.append(yuv.depth(alpha, 16, given.coding.bits))
    return planes


def _tags(record: Provenance, settings: Settings) -> dict[str, str]:
    return {streams.RECORD_TAG: record.text} if settings.provenance else {}


def foresee(job: Job, upscale: Upscale, settings: Settings) -> PictureResult:
    """What a run would do with a film; a few of its frames are decoded, nothing is written."""
    try:
        return _foreseen(job, upscale, settings)[0]
    except Exception as error:
        return failure(job, error)


def _foreseen(job: Job, upscale: Upscale, settings: Settings) -> tuple[PictureResult, FilmPlan | None]:
    """What would become of a film, and how it would be made, if it is to be made."""
    ...


def plan(job: Job, upscale: Upscale, settings: Settings) -> FilmPlan:
    """Decide all that can be decided before the first frame.

    Raises:
        InputError, UsageError, OutputError: the film cannot be read, or what is asked for cannot be had.
    """
    found = facts.probe(job.source)
    if found.interlaced and not settings.film.deinterlace:
        raise InputError(
            f"{shown(job.source)} is interlaced: a network would enlarge its combs.",
            "--deinterlace weaves its fields into whole frames.",
        )
    source = found.height, found.width
    settings.factor(source)
    size = settings.output_size(source)
    ...
