"""A film through the engines: decode, enlarge and encode at the same time, in closed segments.

Each segment is a job of its own, which any engine does with the same result: its frames are found by their
times, and its encoder begins anew. What the journal says is closed is not done again, so a run that was
killed goes on where it was. The segments are joined at the end.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from srcli import __version__
from srcli.errors import InputError, OutputError, shown
from srcli.imaging import pixels, yuv
from srcli.imaging.pixels import Pixels
from srcli.io import provenance
from srcli.io.films import encoding, facts, journal, reader, segments, streams
from srcli.io.films.encoding import Encoding
from srcli.io.films.facts import Facts
from srcli.io.films.journal import Journal, Segment, Spooled
from srcli.io.films.reader import Frame
from srcli.io.films.streams import Carried
from srcli.io.films.verify import Verified, verify
from srcli.io.provenance import Provenance
from srcli.jobs.folder import lower_priority, make_folder
from srcli.jobs.inputs import Job
from srcli.jobs.plan import LEFT_ALONE, Upscale, check_made_by, output_exists
from srcli.jobs.report import FilmResult, PictureResult, Progress, Status, failure
from srcli.memory import give_back
from srcli.models import auto
from srcli.settings import Settings, Size
from srcli.stream import Computed, Image

SEGMENT = 120
"""Frames of a segment; the last one has up to twice as many. Against one encode, x264's segments of 16 frames
take 61% more bytes, those of 120 take 4%."""
_AHEAD = 2
"""Frames decoded before their turn, and enlarged ones that wait for the encoder."""
_SLOW = 0.25
"""Seconds a frame from which on the finished frames of an open segment are kept on disk; the first segment's
are in any case."""
_GLANCE = 0.1
"""Seconds that a wait lasts before it looks up whether it is to stop."""
_SAMPLES = 5
"""Frames, spread over the film, that decide what holds for all."""
_TOLERANCE = Fraction(25, 1000)
"""Seconds by which times may differ: containers count milliseconds, or samples of sound."""
_END = object()


@dataclass(frozen=True, slots=True)
class FilmPlan:
    """All that is decided about a film before its first frame.

    Attributes:
        facts: of the input.
        first: number of the first frame that is enlarged.
        count: how many are.
        encoding: of the output.
        carried: the other streams.
        model: that enlarges every frame.
        two_colors: whether its frames count as of two colours.
        computed: what will compute it.
        record: what decides its frames and their encoding.
    """

    facts: Facts
    first: int
    count: int
    encoding: Encoding
    carried: Carried
    model: str | Path
    two_colors: bool
    computed: Computed
    record: Provenance

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return max(1, self.count // SEGMENT)

    def segment_of(self, frame: int) -> int:
        """The segment that a frame belongs to, by its number."""
        return min((frame - self.first) // SEGMENT, self.segments - 1)

    def last_of(self, segment: int) -> int:
        """The number of a segment's last frame."""
        frames = self.count if segment == self.segments - 1 else (segment + 1) * SEGMENT
        return self.first + frames - 1


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
        result = self._run()
        if result.status is not Status.PENDING:
            self.progress.finished(result)
        return result

    def _run(self) -> PictureResult:
        begin, job = perf_counter(), self.job
        try:
            found, film = _foreseen(job, self.upscalers[0], self.settings)
            if film is None:
                return found
            result = self._make(film)
            return replace(
                found,
                status=Status.WRITTEN,
                seconds=perf_counter() - begin,
                computed=film.computed,
                film=result,
            )
        except CancelledError:
            self.interrupted = True
            return PictureResult(job.source, job.target, Status.PENDING)
        except Exception as error:
            return failure(job, error)

    def _make(self, film: FilmPlan) -> FilmResult:
        """Close all segments, join them, and compare the result with the film."""
        job, start, end = self.job, self.settings.film.start, self.settings.film.end
        make_folder(job.target)
        with journal.opened(job.target, film.record.text, overwrite=self.settings.overwrite) as work:
            self._close_segments(film, work)
            closed = [segment for _, segment in sorted(work.segments().items())]
            tags = {}
            if self.settings.provenance:
                record = replace(film.record, input_sha256=provenance.file_sha256(job.source))
                tags = {streams.RECORD: record.text}
            paths = [work.path(segment.number) for segment in closed if segment.frames]
            if not paths:
                raise InputError(f"{shown(job.source)}: no frame could be decoded.", "Is it damaged?")
            segments.join(
                paths, job.target, film.encoding, film.facts, film.carried, tags=tags, start=start, end=end
            )
            lost = _lost(film, closed)
            left_out = set(lost) if self.settings.film.on_error == "skip" else set()
            times = film.facts.times[film.first : film.first + film.count]
            kept = [time for time in times if time not in left_out]
            found = verify(job.target, film.facts, film.carried, kept, start=start, end=end)
            _check(job.target, found, len(kept))
            work.finished = True
        area = film.count * film.facts.width * film.facts.height
        return FilmResult(
            found.frames,
            tuple(float(time * film.facts.time_base) for time in lost),
            sum(segment.clipped for segment in closed) / area,
            (*film.carried.copied, *film.carried.converted),
            film.carried.dropped,
            _checks(found),
        )

    def _close_segments(self, film: FilmPlan, work: Journal) -> None:
        """Close every segment that is not closed yet, on all engines at once."""
        closed = work.segments()
        missing = iter([number for number in range(film.segments) if number not in closed])
        self._done = sum(segment.frames for segment in closed.values())
        self.frames_done(film.count, 0, 0)
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
        try:
            images = self._images(numbers, decoder, store.taken)
            with closing(self.upscale.stream(images, self._tile)) as results:
                for result in results:
                    self.run_.go_on()
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
        film, frames, following = self.film, None, -1
        for number in numbers:
            taken.append(number)
            kept = _kept(self.work, film, number)
            if frames is None or number != following or kept is not None:
                frames = _ahead(decoder, self._decoded(self._before(number, kept)))
            following, last = number + 1, film.last_of(number)
            for read in frames:
                self._pending.append(read)
                yield Image(
                    read.rgb,
                    film.encoding.size,
                    film.model,
                    two_colors=film.two_colors,
                    still=self.run_.settings.film.still,
                )
                if read.frame.number >= last:
                    break

    def _before(self, number: int, kept: Spooled | None) -> tuple[int, bytes] | None:
        """Time and digest of the frame after which a segment goes on; None at the film's start."""
        if kept is not None:
            return kept.time, bytes.fromhex(kept.digest)
        if number == 0:
            return (self.film.facts.times[self.film.first - 1], b"") if self.film.first else None
        if (segment := self.closed.get(number - 1)) is not None:
            return segment.time, bytes.fromhex(segment.digest)
        return self.film.facts.times[self.film.last_of(number - 1)], b""

    def _decoded(self, after: tuple[int, bytes] | None) -> Iterator[_Read]:
        for frame in _frames(self.film.facts, after, self.run_.settings):
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
    _block: AbstractContextManager[segments.SegmentWriter] | None = None
    _open: segments.SegmentWriter | None = None
    _entry: Segment | None = None
    _keeps: bool = True
    _closed: int = 0
    _began: float = field(default_factory=perf_counter)

    def add(self, read: _Read, made: Pixels) -> None:
        """Add an enlarged frame to its segment, which is opened if need be, after closing the one before."""
        frame = read.frame
        number = self.film.segment_of(frame.number)
        if self._entry is None or self._entry.number != number:
            self._close()
            self._begin(number)
        times = self.film.facts.times[frame.number - frame.lost_before : frame.number]
        lost = (*times, frame.time) if frame.repeated else times
        planes, alpha = _to_planes(made, self.film.encoding)
        kept = Spooled(frame.number, frame.time, frame.digest().hex(), read.clipped, lost, planes, alpha)
        self._write(kept)
        self.run.frames_done(self.film.count, 1, 1)
        if frame.number == self.film.last_of(number):
            self._close()
        elif self._keeps:
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
        if self._block is not None:
            error = CancelledError()
            with suppress(CancelledError):
                self._block.__exit__(CancelledError, error, None)
            self._block = self._open = self._entry = None

    def _begin(self, number: int) -> None:
        self._block = segments.writing(self.work.path(number), self.film.encoding, self.film.facts)
        self._open = self._block.__enter__()
        self._entry = Segment(number, 0, 0, 0, "")
        self._keeps = not self._closed or (perf_counter() - self._began) / self._closed > _SLOW * SEGMENT
        for kept in self.work.spooled(number):
            if kept.number != self.film.last_of(number):  # `_kept` does not count on it either
                self._write(kept)
        self.run.frames_done(self.film.count, self._entry.frames, 0)

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
        block, self._block, self._open = self._block, None, None
        block.__exit__(None, None, None)
        give_back()
        self.work.close(self._entry)
        self._entry = None
        self._closed += 1


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


def _to_planes(made: Pixels, given: Encoding) -> tuple[list[Pixels], Pixels | None]:
    """The planes that the encoder takes, and its alpha."""
    color, alpha = pixels.color_and_alpha(made)
    if not given.alpha or alpha is None:
        return yuv.from_rgb(color, given.coding), None
    return yuv.from_rgb(color, given.coding), yuv.depth(alpha, 16, given.coding.bits)


def _frames(of: Facts, after: tuple[int, bytes] | None, settings: Settings) -> Generator[Frame]:
    film = settings.film
    yield from reader.frames(
        of, after=after, on_error=film.on_error, deinterlace=film.deinterlace, end=film.end
    )


def _lost(film: FilmPlan, closed: Sequence[Segment]) -> list[int]:
    """Times of the frames that damage cost, those after the last one that was decoded included."""
    times = film.facts.times
    last = max((segment.last for segment in closed if segment.frames), default=film.first - 1)
    return [time for segment in closed for time in segment.lost] + list(
        times[last + 1 : film.first + film.count]
    )


def _check(target: Path, found: Verified, frames: int) -> None:
    """Refuse a file that does not hold what was written into it.

    Raises:
        OutputError: saying what differs.
    """
    wrong = []
    if found.frames != frames:
        wrong.append(f"{found.frames} of {frames} frames")
    if found.deviation > _TOLERANCE or found.apart > _TOLERANCE:
        wrong.append(f"times off by {float(max(found.deviation, found.apart)):.4f} s")
    if found.changed:
        wrong.append(f"other packets of {', '.join(found.changed)}")
    if wrong:
        raise OutputError(
            f"{shown(target)} does not hold what was written into it: {'; '.join(wrong)}.",
            "This is a bug in srcli: please report it. The segments are kept.",
        )


def _checks(found: Verified) -> tuple[str, ...]:
    return (
        f"{found.frames} frames read again, their times within {float(found.deviation) * 1000:.1f} ms",
        f"{found.packets} packets of other streams equal, in step within {float(found.apart) * 1000:.1f} ms",
    )


def foresee(job: Job, upscale: Upscale, settings: Settings) -> PictureResult:
    """What a run would do with a film; a few of its frames are decoded, nothing is written."""
    try:
        return _foreseen(job, upscale, settings)[0]
    except Exception as error:
        return failure(job, error)


def _foreseen(job: Job, upscale: Upscale, settings: Settings) -> tuple[PictureResult, FilmPlan | None]:
    """What would become of a film, and how it would be made, if it is to be made."""
    existing = None
    if output_exists(job) and not settings.overwrite:
        existing = streams.record_of(job.target)
        if existing is None:
            return PictureResult(job.source, job.target, Status.KEPT, notes=(LEFT_ALONE,)), None
    film = plan(job, upscale, settings)
    if existing is not None:
        check_made_by(job, existing, [film.record])
        return PictureResult(job.source, job.target, Status.SKIPPED), None
    source = film.facts.height, film.facts.width
    notes = (*film.facts.notes, *film.encoding.notes, *film.carried.dropped)
    return PictureResult(
        job.source, job.target, Status.PLANNED, source, film.encoding.size, notes=notes
    ), film


def plan(job: Job, upscale: Upscale, settings: Settings) -> FilmPlan:
    """Decide all that can be decided before the first frame.

    Raises:
        InputError, UsageError: the film cannot be read, or what is asked for cannot be had.
    """
    found, film = facts.probe(job.source), settings.film
    first, last = (reader.number_at(found, bound) for bound in (film.start or Fraction(0), film.end))
    if first >= last:
        length = float((found.end - found.times[0]) * found.time_base)
        raise InputError(f"{shown(job.source)} ends after {length:.3f} seconds.", "Give an earlier --start.")
    size = _size(found, settings)
    chosen = encoding.choose(
        found, size, job.target, codec=film.codec, crf=film.crf, preset=film.preset, lossless=film.lossless
    )
    model, two_colors = _settled(found, range(first, last), upscale, settings)
    models = auto.models(settings.model)
    candidates = upscale.candidates((found.height, found.width), chosen.size)
    computed = candidates[models.index(model) if len(candidates) > 1 and model in models else 0]
    return FilmPlan(
        found,
        first,
        last - first,
        chosen,
        streams.plan(found, job.target),
        model,
        two_colors,
        computed,
        _record(found, computed, settings, chosen, two_colors),
    )


def _size(found: Facts, settings: Settings) -> Size:
    """Height and width asked for, as the film is coded; pixels are asked for as it is shown."""
    source = found.height, found.width
    matrix = found.display_matrix
    turned = matrix is not None and matrix[0] == 0 and matrix[4] == 0
    shown_as = source[::-1] if turned else source
    settings.factor(shown_as)
    size = settings.output_size(shown_as)
    return size[::-1] if turned else size


def _settled(found: Facts, numbers: range, upscale: Upscale, settings: Settings) -> tuple[str | Path, bool]:
    """The model for all frames, and whether they count as of two colours: what most of a few show, which are
    spread over the film."""
    votes, two = Counter[str | Path](), 0
    places = [numbers[len(numbers) * (2 * n + 1) // (2 * _SAMPLES)] for n in range(_SAMPLES)]
    for number in dict.fromkeys(places):
        after = None if number == 0 else (found.times[number - 1], b"")
        with closing(_frames(found, after, settings)) as frames:
            rgb = _to_rgb(next(frames), found)[0]
        votes[upscale.model_for(rgb)] += 1
        two += pixels.has_two_colors(pixels.color_and_alpha(rgb)[0])
    return votes.most_common(1)[0][0], 2 * two > votes.total()


def _record(
    found: Facts, computed: Computed, settings: Settings, chosen: Encoding, two_colors: bool
) -> Provenance:
    """What makes the film, its input's checksum left out."""
    film = settings.film
    resolved: dict[str, provenance.Setting] = {
        "size": chosen.size[::-1],
        "scales": computed.scales,
        "precision": computed.precision,
        "two_colors": two_colors,
        "ensemble": settings.ensemble,
        "halo": "measured" if settings.halo is None else settings.halo,
        "model chosen": "auto" if settings.model == auto.AUTO and computed.scales else "by name",
        "encoder": chosen.encoder,
        "options": [f"{name}={value}" for name, value in chosen.options],
        "threads": chosen.threads,
        "pixel_format": chosen.pixel_format,
        "container": chosen.container,
        "on_error": film.on_error,
        "still": film.still,
        "deinterlace": film.deinterlace and found.interlaced,
        "start": None if film.start is None else str(film.start),
        "end": None if film.end is None else str(film.end),
    }
    model = provenance.model_sha256(computed.files) if computed.files else ""
    return Provenance(__version__, computed.model, model, resolved, found.path.stat().st_size)
