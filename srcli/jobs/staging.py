"""Files behind URLs: inputs come to scratch files before their turn, results go there from such files."""

import logging
import os
import shutil
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

from srcli.errors import InputError, OutputError, shown
from srcli.io import provenance, remote
from srcli.io.films import signatures
from srcli.io.provenance import Provenance
from srcli.io.remote import Remote
from srcli.io.storage import abandoned, cache_folder, has_space, is_full
from srcli.jobs.outputs import Job
from srcli.jobs.preflight import Outlook, Preflight
from srcli.jobs.report import Status, failure
from srcli.settings import Settings

if TYPE_CHECKING:
    from srcli.io.films.journal import Segment

log = logging.getLogger(__name__)

MEANWHILE = "another run has written the same result meanwhile"
_FETCHES = _DELIVERIES = 8
"""Files that come, and that go, at once."""
_PREFIX, _ABANDONED = "srcli-remote-", 86400.0
"""How scratch folders are called, and the seconds after which one without news is left over."""
_RANGED = (".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm")
"""Suffixes of films that have an index as a rule, so that reading a part reads little else."""
_AHEAD = 16
"""Files that are fetched before their turn; fewer where they are as large together as the memory setting."""


class Staging:
    """Fetches the files of a run in the order of its jobs, a few ahead of their turn; jobs without URLs are
    passed over. Nothing begins before the first call of `next`.

    Args:
        jobs: of the run, pictures only.
        settings: of the run.
        preflight: decides about each picture. It is asked in the thread that calls `next`.
        dry: whether pictures are to be looked at, and not fetched where that is enough.

    Attributes:
        deliveries: how many results may be on their way at once; 0 where none goes behind a URL.
        memory: bytes that these take at most.
    """

    def __init__(
        self, jobs: Sequence[Job], settings: Settings, preflight: Preflight, *, dry: bool = False
    ) -> None:
        self._order = deque((number, job) for number, job in enumerate(jobs) if job.remote)
        self._settings, self._preflight = settings, preflight
        self._enough = (Status.SKIPPED, Status.PLANNED) if dry else (Status.SKIPPED,)
        self._dry = dry
        self._coming: deque[tuple[int, Job, Future[Job]]] = deque()
        self.deliveries = _DELIVERIES if any(isinstance(job.target, Remote) for job in jobs) else 0
        self.memory = self.deliveries * remote.UPLOAD_MEMORY
        self._folder: TemporaryDirectory[str] | None = None
        self._fetches: ThreadPoolExecutor | None = None
        self._goes: ThreadPoolExecutor | None = None

    def next(self, wait: Callable[[Future[Job]], None]) -> tuple[Job, Outlook]:
        """The next job, with its scratch files, and what becomes of it; a failed fetch is a failed picture.

        Args:
            wait: returns when the fetch is done, or raises.

        Raises:
            OutputError: the disk for the scratch files is full.
        """
        fetches = self._begun()
        self._fetch_ahead(fetches)
        _, job, fetched = self._coming.popleft()
        try:
            wait(fetched)
            job = fetched.result()
            outlook = self._preflight.look(job)
            if self._looks(job) and outlook.result.status not in self._enough:
                whole = fetches.submit(_brought, job, remote.fetch)  # start and end did not tell
                wait(whole)
                outlook = self._preflight.look(whole.result())
        except (InputError, OutputError) as error:
            if is_full(error):
                raise
            outlook = Outlook(failure(job, error))
        return job, outlook

    def deliver(self, put: Callable[[], None]) -> None:
        """Have a result put where it goes, beside others."""
        if self._goes is None:
            self._goes = ThreadPoolExecutor(_DELIVERIES)
        self._goes.submit(put)

    def close(self) -> None:
        """Wait for results on their way, and remove all scratch files."""
        for pool in (self._fetches, self._goes):
            if pool is not None:
                pool.shutdown(wait=True, cancel_futures=pool is self._fetches)
        if self._folder is not None:
            self._folder.cleanup()

    def _begun(self) -> ThreadPoolExecutor:
        if self._fetches is None:
            self._folder = scratch_folder()
            self._fetches = ThreadPoolExecutor(_FETCHES)
        return self._fetches

    def _fetch_ahead(self, fetches: ThreadPoolExecutor) -> None:
        assert self._folder is not None, "scratch files have a folder"
        while self._order and (not self._coming or self._has_room()):
            number, job = self._order.popleft()
            job = replace(job, scratch=Path(self._folder.name, str(number)))
            bring = remote.look if self._looks(job) else remote.fetch
            if self._settings.trust_names and is_there(job):
                bring = _nothing  # its name is enough
            self._coming.append((_size(job), job, fetches.submit(_brought, job, bring)))

    def _has_room(self) -> bool:
        size = sum(one for one, _, _ in self._coming) + _size(self._order[0][1])
        return len(self._coming) < _AHEAD and size <= self._settings.memory

    def _looks(self, job: Job) -> bool:
        """Whether the start and end of a file may tell enough."""
        return self._dry or (is_there(job) and not self._settings.overwrite)


def scratch_folder() -> "TemporaryDirectory[str]":
    """A new folder for scratch files; those that killed runs of this user have left a day ago are removed."""
    for folder in abandoned(Path(gettempdir()), _PREFIX, _ABANDONED):
        shutil.rmtree(folder, ignore_errors=True)
    return TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True)


def is_there(job: Job) -> bool:
    """Whether something is where the output goes, by the listing or the local file system."""
    return job.target.size is not None if isinstance(job.target, Remote) else os.path.lexists(job.target)


def _size(job: Job) -> int:
    return (job.source.size or 0) if isinstance(job.source, Remote) else 0


def _nothing(here: Remote, file: Path) -> None:
    """Bring nothing, where `remote.look` brings start and end of a file, and `remote.fetch` all of it."""


def _brought(job: Job, bring: Callable[[Remote, Path], None]) -> Job:
    """The job, after its input and what lies where its output goes were brought to its scratch files."""
    if isinstance(job.source, Remote):
        bring(job.source, job.input)
    if isinstance(job.target, Remote) and job.target.size is not None:
        bring(job.target, job.output)
    return job


def film(job: Job, settings: Settings, scratch: Path | None = None, *, in_part: bool = False) -> Job:
    """A film's job with its input fetched to a scratch folder; or read by ranges, where only a part of it is
    wanted, or there is no room.

    Args:
        scratch: the folder; None: one that is the same in the next run, which goes on with the work in it.
        in_part: whether not all of the film is wanted, beside what the settings say.

    Raises:
        InputError, OutputError: it cannot be read, or not be written to the scratch folder.
    """
    if not job.remote or job.scratch is not None or (settings.trust_names and is_there(job)):
        return job
    digest = sha256(f"{job.source}\0{job.target}".encode("utf-8", "surrogateescape")).hexdigest()
    job = replace(job, scratch=scratch or cache_folder("films") / digest[:16])
    if isinstance(job.source, Remote) and not _is_same(job.source, job.input):
        if _can_be_ranged(job.source, job):
            if in_part or settings.film.start or settings.film.end:
                return replace(job, ranged=True)
            if not _fits(job.source, job.input.parent):
                log.info("%s does not fit into %s, and is read by ranges.", shown(job.source), job.scratch)
                return replace(job, ranged=True)
        remote.fetch(job.source, job.input)
    return job


def segments_beside(target: Remote) -> Remote:
    """The folder behind a URL where segments of a film lie that other machines have closed."""
    return target.parent / f"{target.name}.unfinished"


def put_segment(segment: "Segment", folder: Path, there: Remote) -> None:
    """Move a closed segment from the folder of the work to one behind a URL."""
    if segment.frames:
        file = _segment_file(segment, folder)
        remote.put(file, there / file.name, replaces=True)
        file.unlink()


def fetch_segment(segment: "Segment", there: Remote, folder: Path) -> None:
    """Move it from there to the folder of the work of another machine."""
    if segment.frames:
        file = _segment_file(segment, folder)
        remote.fetch(there / file.name, file)
        remote.remove(there / file.name)


def _segment_file(segment: "Segment", folder: Path) -> Path:
    from srcli.io.films.journal import Journal

    return Journal(folder).path(segment.number)


def _can_be_ranged(source: Remote, job: Job) -> bool:
    """Whether a film may be read by ranges: not from the web, and not for an animated picture."""
    return bool(
        source.size
        and remote.reads_ranges(source)
        and source.suffix.lower() in _RANGED
        and job.target.suffix.lower() not in signatures.ANIMATED
    )


def _fits(source: Remote, folder: Path) -> bool:
    """Whether there is room for a film, and a result that is as large."""
    return has_space(folder, 2 * (source.size or 0))


def _is_same(there: Remote, file: Path) -> bool:
    """Whether a fetched file is still that."""
    try:
        facts = file.stat()
    except OSError:
        return False
    return facts.st_size == there.size and facts.st_mtime_ns == there.modified


def release(job: Job) -> None:
    """Remove the scratch files of a job."""
    if job.scratch is not None:
        shutil.rmtree(job.scratch, ignore_errors=True)


def deliver(job: Job, *, replaces: bool, made_by: Callable[[Path], Provenance | None]) -> bool:
    """Put a finished result where it goes, if that is behind a URL.

    Args:
        job: with its scratch files.
        replaces: whether what is there goes.
        made_by: reads the record of a file.

    Returns:
        False: another run was first, with the same result.

    Raises:
        OutputError: it cannot be put there, or another run was first with another result.
    """
    if isinstance(job.target, Path) or remote.put(job.output, job.target, replaces=replaces):
        return True
    theirs = job.output.parent / "theirs" / job.output.name
    remote.fetch(remote.looked_up(job.target), theirs)
    if not _are_equal(job.output, theirs, made_by):
        raise OutputError(
            f"{shown(job.target)} is there already: another run has written it meanwhile, otherwise.",
            "--overwrite replaces it; or choose another folder with -o.",
        )
    return False


def _are_equal(ours: Path, theirs: Path, made_by: Callable[[Path], Provenance | None]) -> bool:
    """Whether two results have the same bytes, or were made in the same way."""
    if provenance.file_sha256(ours) == provenance.file_sha256(theirs):
        return True
    try:
        records = made_by(ours), made_by(theirs)
    except InputError:
        return False
    return None not in records and not provenance.differences(*(one for one in records if one))
