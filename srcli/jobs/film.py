"""A film through the engines, in closed segments that are joined at the end.

What the journal says is closed is not done again, so a run that was killed goes on where it was.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import takewhile, zip_longest
from pathlib import Path
from time import perf_counter, sleep
from typing import BinaryIO

from srcli.errors import InputError, OutputError, SrcliError, shown
from srcli.io import provenance, remote, storage
from srcli.io.films import journal, pipes, segments, streams
from srcli.io.films.facts import Facts
from srcli.io.films.journal import Journal, Segment
from srcli.io.films.verify import Verified, verify
from srcli.io.remote import Location, Remote
from srcli.jobs import staging
from srcli.jobs.film_plan import FilmPlan, facts_of, foreseen
from srcli.jobs.film_worker import FilmWorker, Shared
from srcli.jobs.folder import lower_priority, make_folder
from srcli.jobs.outputs import Job
from srcli.jobs.plan import Upscale
from srcli.jobs.report import FilmResult, PictureResult, Progress, Status, failure, pending
from srcli.settings import Settings

log = logging.getLogger(__name__)

_GLANCE = 0.1
"""Seconds that a wait lasts before it looks up whether it is to stop."""
_WAITING = 3
"""Segments that wait for a pipe's reader, beside those that the engines are at."""
_TOLERANCE = Fraction(25, 1000)
"""Seconds by which times may differ: containers count milliseconds, or samples of sound."""


Elsewhere = Callable[[Job, FilmPlan, Path, Sequence[int]], Iterator[Segment]]
"""Closes segments on other machines, and gives them as they close; see `FilmRun`."""


@dataclass(slots=True)
class FilmRun:
    """One film in three steps. `probe` and `finish` need no engine, so they may run beside another film.

    Attributes:
        job: what to read and write.
        upscalers: one a device; each takes segments of its own.
        settings: of the run.
        progress: watches it.
        stop: says whether the run is to end early.
        elsewhere: closes segments, by their numbers, in the folder of the work; None: `upscalers` do.
        sink: where the film goes, with `settings.film.pipe`; the work on it still lies beside `job.target`.
        interrupted: whether it ended early.
        full: whether it ended early as the disk was full.
    """

    job: Job
    upscalers: Sequence[Upscale]
    settings: Settings
    progress: Progress
    stop: Callable[[], bool] = lambda: False
    sink: BinaryIO | None = None
    elsewhere: Elsewhere | None = None
    interrupted: bool = False
    full: bool = False
    _facts: Facts | None = None
    _film: FilmPlan | None = None
    _work: Journal | None = None
    _closed: dict[int, Segment] = field(default_factory=dict)
    _sent: int = 0
    _opened: ExitStack = field(default_factory=ExitStack)
    _result: PictureResult | None = None
    _seconds: float = 0.0
    _input: tuple[int | str, ...] = ()

    def run(self) -> PictureResult:
        """All three steps. A failure becomes the result and raises nothing; so does an interrupt."""
        self.probe()
        self.compute()
        return self.finish()

    def probe(self) -> None:
        """Read what the film is. A failure shows in the next step, which tries again."""
        if self.stop():
            return
        if self.settings.overwrite or not staging.is_there(self.job):
            with suppress(Exception):
                self.job = staging.film(self.job, self.settings)
                self._facts = facts_of(self.job, self.settings)

    def compute(self) -> None:
        """Close all segments."""
        with self._step(), ExitStack() as opened:
            self.job = staging.film(self.job, self.settings)
            self._result, film = foreseen(self.job, self.upscalers[0], self.settings, self._facts)
            if film is None:
                if self._result.status is Status.SKIPPED:  # a kill may have come before the work was removed
                    self._discard()
                return
            self._input = _identity(self.job.source)
            with self._disk(film):
                make_folder(self.job.output)
                self._work = work = opened.enter_context(self._begun(film))
                self._keep_partial(film, work)
                try:
                    self._close_segments(film, work)
                except Exception:
                    self._keep_partial(film, work)
                    raise
            self._film, self._opened = film, opened.pop_all()

    def finish(self) -> PictureResult:
        """Join the segments, and compare the result with the film."""
        with self._step(), self._opened:
            if self._film is not None and self._work is not None and self._result is not None:
                with self._disk(self._film):
                    film = self._join(self._film, self._work)
                notes = (*self._result.notes, *_damage(film.lost, self.settings.film.on_error))
                self._result = replace(
                    self._result,
                    status=Status.WRITTEN,
                    computed=self._film.computed,
                    film=film,
                    notes=notes,
                )
        result = self._result or pending(self.job)
        if result.status is Status.WRITTEN:
            result = replace(result, seconds=self._seconds)
        if self.sink is not None:
            result = replace(result, output=Path("-"))
        if result.status not in (Status.PENDING, Status.FAILED):  # else the same command goes on with them
            staging.release(self.job)
        if result.status is not Status.PENDING:
            self.progress.finished(result)
        return result

    def _discard(self) -> None:
        """Remove the work on an output that is there."""
        if isinstance(self.job.target, Path):
            journal.discard(self.job.target)

    @contextmanager
    def _step(self) -> Iterator[None]:
        """An error in here becomes the result."""
        begin, job = perf_counter(), self.job
        try:
            yield
        except CancelledError:
            self.interrupted = True
            self._result = pending(job)
        except Exception as error:
            self.full = self.sink is None and storage.is_full(error)
            self._result = failure(job, error)
        self._seconds += perf_counter() - begin

    def _begun(self, film: FilmPlan) -> AbstractContextManager[Journal]:
        """The journal of this film's work."""
        settings = dict(film.record.settings)
        on_error = str(settings.pop("on_error"))
        made_with = replace(film.record, settings=settings).text
        return journal.opened(
            self.job.output,
            f"{made_with} {self._input[-1]}",  # a file of the same size is not the same film
            on_error,
            overwrite=self.settings.overwrite,
        )

    def _close_segments(self, film: FilmPlan, work: Journal) -> None:
        """Close every segment that is not closed yet, on all engines at once."""
        closed = self._closed = work.segments()
        if self.elsewhere is not None:
            self._close_elsewhere(film, work, self.elsewhere)
            return
        missing = iter([number for number in range(film.segments) if number not in closed])
        ahead = _WAITING + len(self.upscalers)
        lock, errors = threading.Lock(), list[BaseException]()

        def watch(done: int, made: int) -> None:
            self.progress.frames(self.job, done, film.count, made)

        def take() -> Iterator[int]:
            while True:
                with lock:
                    number = next(missing, None)
                if number is None:
                    return
                while self.sink is not None and number > self._sent + ahead:
                    shared.go_on()
                    sleep(_GLANCE)
                yield number

        def serve(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:
                errors.append(error)
                shared.cancelled.set()

        shared = Shared(film, work, self.settings, watch, closed)
        shared.frames_done(sum(segment.frames for segment in closed.values()), 0)
        tasks = [partial(FilmWorker(shared, upscale).run, take()) for upscale in self.upscalers]
        if self.sink is not None:
            tasks.append(partial(self._send, shared, self.sink))
        threads = [threading.Thread(target=serve, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                if self.stop() and not shared.cancelled.is_set():
                    shared.cancelled.set()
                    self.progress.stopping()
                thread.join(_GLANCE)
        if errors:
            raise next((error for error in errors if not isinstance(error, CancelledError)), errors[0])

    def _close_elsewhere(self, film: FilmPlan, work: Journal, elsewhere: Elsewhere) -> None:
        """The same on other machines."""
        closed, made = self._closed, 0
        done = sum(segment.frames for segment in closed.values())
        missing = [number for number in range(film.segments) if number not in closed]
        for segment in elsewhere(self.job, film, work.folder, missing):
            work.note(segment)
            closed[segment.number] = segment
            made += segment.frames
            self.progress.frames(self.job, done + made, film.count, made)

    def _send(self, shared: Shared, sink: BinaryIO) -> None:
        """Send segments to a pipe as they close, in order, and remove them.

        Raises:
            OutputError: its reader is gone.
        """
        film, given = shared.film, self.settings.film
        start, end = film.part(self.settings)

        def ordered() -> Iterator[Path]:
            for number in range(film.segments):
                while number not in shared.closed:
                    shared.go_on()
                    sleep(_GLANCE)
                path = shared.work.path(number)
                if shared.closed[number].frames:
                    yield path
                with suppress(OSError):
                    path.unlink()
                self._sent = number + 1

        try:
            if given.pipe == "y4m":
                pipes.send_y4m(ordered(), sink, film.encoding, film.facts)
            else:
                times = film.facts.times[film.first : film.first + film.count]
                pipes.send(
                    ordered(), sink, film.encoding, film.facts, film.carried, times, tags=self._tags(film),
                    start=start, end=end,
                )  # fmt: skip
        except OutputError as error:
            if not isinstance(error.__cause__, BrokenPipeError):
                raise
            sent = min(film.count, self._sent * film.segment)
            raise OutputError(
                f"{shown(self.job.source)}: the program that reads the film ended after {sent} or more of "
                f"{film.count} frames."
            ) from error

    def _tags(self, film: FilmPlan) -> dict[str, str]:
        """What made the film."""
        if not self.settings.provenance:
            return {}
        record = film.record
        if not self.job.ranged:  # nothing but a reading of the whole film tells it
            record = replace(record, input_sha256=provenance.file_sha256(self.job.input))
        return {streams.RECORD: record.text}

    def _keep_partial(self, film: FilmPlan, work: Journal) -> None:
        """Join the segments closed so far, up to the first that is not, under a name of its own.

        Where no segment was closed since that was done, nothing is. Failing does not end the run.
        """
        place, closed = partial_of(self.job.output), work.segments()
        first = list(takewhile(closed.__contains__, range(film.segments)))
        paths = [work.path(number) for number in first if closed[number].frames]
        if not self.settings.film.keep_partial or not paths or self.sink is not None:
            return
        if place.exists() and place.stat().st_mtime >= work.changed:
            return
        following, times = film.last_of(first[-1]) + 1, film.facts.times
        end = times[following] if following < len(times) else film.facts.end
        try:
            if place.exists() and not streams.is_partial(place):
                raise OutputError(f"{shown(place)} is in the way.", "Move it away.")
            segments.join(
                paths, place, film.encoding, film.facts, film.carried, tags={streams.RECORD: streams.PARTIAL},
                start=film.part(self.settings)[0], end=end * film.facts.time_base,
            )  # fmt: skip
        except SrcliError as error:
            log.warning("What is done of %s could not be joined: %s", shown(self.job.source), error)
            return
        frames = sum(closed[number].frames for number in first)
        log.info("%s has the first %d of %d frames.", shown(place), frames, film.count)

    @contextmanager
    def _disk(self, film: FilmPlan) -> Iterator[None]:
        """Where the disk is full, the error says what is kept and how to go on."""
        try:
            yield
        except Exception as error:
            if self.sink is not None or not storage.is_full(error):
                raise
            closed = {} if self._work is None else self._work.segments()
            done = sum(segment.frames for segment in closed.values())
            raise OutputError(
                f"{shown(self.job.target)}: the disk is full, after {done} of {film.count} frames.",
                f"What is done is kept in {shown(journal.folder_of(self.job.output))}. Free some space, and "
                "the same command goes on; with --keep-partial it first joins that to a film that plays.",
            ) from error

    def _join(self, film: FilmPlan, work: Journal) -> FilmResult:
        """Join all segments where they are not sent already, and say what became of the film."""
        closed = [segment for _, segment in sorted(self._closed.items())]
        frames, lost = sum(segment.frames for segment in closed), _lost(closed)
        if not frames:
            raise InputError(f"{shown(self.job.source)}: no frame could be decoded.", "Is it damaged?")
        checks: tuple[str, ...] = ("sent to a pipe, and not read again",)
        if self.sink is None:
            checks = self._write(film, work, [work.path(one.number) for one in closed if one.frames], lost)
        work.finished = True
        if (begun := partial_of(self.job.output)).exists() and streams.is_partial(begun):
            begun.unlink()
        return FilmResult(
            frames,
            tuple(float(time * film.facts.time_base) for time in lost),
            sum(segment.clipped for segment in closed) / (film.count * film.facts.width * film.facts.height),
            (*film.carried.copied, *film.carried.converted),
            film.carried.dropped,
            checks,
        )

    def _write(
        self, film: FilmPlan, work: Journal, paths: Sequence[Path], lost: Sequence[int]
    ) -> tuple[str, ...]:
        """Join segments, compare the result with the film, and only then put it in its place.

        Returns:
            What was found, in words.

        Raises:
            OutputError: it differs.
        """
        target, (start, end) = work.folder / f"whole{self.job.target.suffix}", film.part(self.settings)
        tags = self._tags(film)
        segments.join(paths, target, film.encoding, film.facts, film.carried, tags=tags, start=start, end=end)
        left_out = set(lost) if self.settings.film.on_error == "skip" else set()
        times = film.facts.times[film.first : film.first + film.count]
        kept = [time for time in times if time not in left_out]
        found = verify(target, film.facts, film.carried, kept, start=start, end=end)
        _check(self.job.target, found, len(kept))
        self._check_input()
        target.replace(self.job.output)
        if self.settings.keep_times:
            if self.job.ranged and isinstance(self.job.source, Remote):
                remote.date(self.job.source, self.job.output)
            else:
                storage.copy_times(self.job.input, self.job.output)
        if staging.deliver(self.job, replaces=self.settings.overwrite, made_by=streams.record_of):
            return _checks(found)
        return (*_checks(found), staging.MEANWHILE)

    def _check_input(self) -> None:
        """Refuse an input that another program changed or replaced since the run began.

        Raises:
            InputError: it did.
        """
        if _identity(self.job.source) != self._input:
            raise InputError(
                f"{shown(self.job.source)} changed while it was enlarged.", "Run again when it is complete."
            )


def run_films(runs: Sequence[FilmRun]) -> list[PictureResult]:
    """Run films one after the other on the same engines, which do not wait for what needs none.

    While a film is computed, the next is probed; while it is joined and compared, the next is computed.
    Once a film's run is to stop, or has found the disk full, those after it stay pending.
    """
    finishing: list[Future[PictureResult]] = []
    with ThreadPoolExecutor(1) as before, ThreadPoolExecutor(1, initializer=lower_priority) as after:
        probes = [before.submit(run.probe) for run in runs[:1]]
        for run, following in zip_longest(runs, runs[1:]):
            probes.pop().result()
            if following is not None:
                probes.append(before.submit(following.probe))
            if not (run.stop() or any(one.full for one in runs)):
                run.compute()
            if following is not None:
                finishing.append(after.submit(run.finish))
        results = [one.result() for one in finishing]
        return [*results, *(run.finish() for run in runs[-1:])]  # in this thread, where an interrupt ends it


def partial_of(target: Path) -> Path:
    """Where --keep-partial puts what is done of an output."""
    return storage.beside(target.with_suffix(""), f".partial{target.suffix}")


def _identity(path: Location) -> tuple[int | str, ...]:
    """What changes with a file: which one it is, its size, and last its time or version."""
    if isinstance(path, Remote):
        now = remote.looked_up(path)
        return now.size or 0, f"{now.modified} {now.tag}"
    facts = path.stat()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _damage(lost: Sequence[float], on_error: str) -> list[str]:
    """Frames that damage cost, in words."""
    if not lost:
        return []
    became = "left out" if on_error == "skip" else "those before are shown in their place"
    return [f"{len(lost)} damaged frames from {lost[0]:.2f} to {lost[-1]:.2f} s: {became}"]


def _lost(closed: Sequence[Segment]) -> list[int]:
    """Times of the frames that damage cost."""
    return [time for segment in closed for time in segment.lost]


def _check(target: Location, found: Verified, frames: int) -> None:
    """Refuse a file that does not hold what was written into it.

    Raises:
        OutputError: saying what differs.
    """
    wrong = []
    if found.frames + found.merged != frames:
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
