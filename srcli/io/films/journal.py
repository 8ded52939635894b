"""The work on a film that is not finished: closed segments, a journal of them, and frames of the open one.

All lies in a folder beside the output, "film.mkv.unfinished". A journal's first line says what the work is
made with, and last what becomes of damaged frames, which matters only to segments that lost some; each other
line is a closed segment, written after the segment has its name. What a kill or a power cut leaves
half-written is recognized and made again.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout

from srcli.errors import OutputError, shown
from srcli.imaging.pixels import Pixels
from srcli.io.provenance import file_sha256
from srcli.io.storage import beside, unfinished

_SUFFIX = ".unfinished"
_JOURNAL, _LOCK = "journal.jsonl", "lock"
_PLANE = "plane{}"


@dataclass(frozen=True, slots=True)
class Segment:
    """A closed segment.

    Attributes:
        number: of the segment, from 0.
        frames: in it.
        last: number of the last input frame that went into it.
        time: of that frame, in the film's time base.
        digest: of that frame, in hex.
        clipped: pixels of its input that lay outside the RGB cube.
        lost: times of input frames that were damaged.
        sha256: of its file, in hex; "" where there is none, since all its frames are lost.
    """

    number: int
    frames: int
    last: int
    time: int
    digest: str
    clipped: int = 0
    lost: tuple[int, ...] = ()
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A finished frame of the open segment.

    Attributes:
        number, time, digest: of the input frame, the digest in hex.
        clipped: its pixels that lay outside the RGB cube.
        lost: times of damaged frames that it stands for, or that were left out before it.
        planes: of the output.
        alpha: of the output.
    """

    number: int
    time: int
    digest: str
    clipped: int
    lost: tuple[int, ...]
    planes: list[Pixels]
    alpha: Pixels | None


def discard(target: Path) -> None:
    """Remove the work on an output that is there whole, unless another run is at it."""
    folder = folder_of(target)
    with suppress(Timeout, OSError):
        if folder.is_dir():
            with FileLock(folder / _LOCK).acquire(blocking=False):
                pass
            shutil.rmtree(folder, ignore_errors=True)


def folder_of(target: Path) -> Path:
    """Where the work on an output lies."""
    return beside(target, _SUFFIX)


@contextmanager
def opened(target: Path, record: str, on_error: str, *, overwrite: bool = False) -> Iterator["Journal"]:
    """The journal of an output, begun or continued; its folder stays behind unless `Journal.finished` is set.

    Args:
        target: the output.
        record: what decides its frames and their encoding, on one line.
        on_error: what becomes of damaged frames, in one word. What was done under another one and lost no
            frame counts; the rest is made again.
        overwrite: begin anew where the work was begun with another record.

    Raises:
        OutputError: it was begun with other settings, another run is at work on it, or the folder cannot be
            written.
    """
    folder = folder_of(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, thread_local=False)  # another thread may join the film
        with lock.acquire(blocking=False):
            journal = Journal(folder)
            journal.sweep()
            found, _, before = (journal.record() or "").rpartition(" ")
            if found and found != record:
                if not overwrite:
                    raise OutputError(
                        f"{shown(target)} was begun with other settings or another input, and not finished.",
                        f"Use those again, or --overwrite to begin anew; {shown(folder)} holds what is done.",
                    )
                journal.clear()
                found = ""
            if not found:
                journal.begin(f"{record} {on_error}")
            elif before != on_error:
                journal.forget_losses(f"{record} {on_error}")
            journal.check()
            yield journal
        if journal.finished:
            shutil.rmtree(folder, ignore_errors=True)
    except Timeout as error:
        raise OutputError(
            f"{shown(target)} is being made by another run.", "Wait for it, or choose another output with -o."
        ) from error
    except OSError as error:
        raise OutputError(
            f"{shown(folder)} cannot be written ({error.strerror}).",
            "Choose another place with -o, or mend this one; what is done there stays.",
        ) from error


class Journal:
    """See `opened`.

    Attributes:
        folder: where all lies.
        finished: whether the film is in its place, so that the work can go.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.finished = folder, False
        self._damaged = set[int]()
        self._path = folder / _JOURNAL

    @property
    def changed(self) -> float:
        """When a segment was closed last, as `os.stat_result.st_mtime`."""
        return self._path.stat().st_mtime

    def record(self) -> str | None:
        """The first line; None where there is none."""
        lines = self._lines()
        return lines[0] if lines else None

    def begin(self, record: str, closed: Iterable[Segment] = ()) -> None:
        """Write the first line, and those of segments that are closed already."""
        with unfinished(self._path) as part:
            part.write_text("\n".join([record, *map(_line, closed), ""]), encoding="ascii")

    def forget_losses(self, record: str) -> None:
        """Let go of what lost frames; the rest goes on under another first line."""
        for path in self.folder.glob("*.frames/*.npz"):
            frame = _spooled(path)
            if frame is None or frame.lost:
                path.unlink()
        self.begin(record, [segment for segment in self.segments().values() if not segment.lost])

    def sweep(self) -> None:
        """Remove what killed runs left half-written, the end of a torn last line included."""
        if self._path.exists():
            whole = sum(len(line) + 1 for line in self._lines())
            if whole < self._path.stat().st_size:  # else `changed` stays
                os.truncate(self._path, whole)
        for path in (*self.folder.glob(".*part"), *self.folder.glob("*/*.part")):
            path.unlink()

    def clear(self) -> None:
        """Remove all work, not the folder."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()

    def path(self, number: int) -> Path:
        """The file of a segment."""
        return self.folder / f"{number:06d}.nut"

    def segments(self) -> dict[int, Segment]:
        """The closed segments, by number. A torn last line ends the journal."""
        found: dict[int, Segment] = {}
        for line in self._lines()[1:]:
            try:
                entry = json.loads(line)
                segment = Segment(**{**entry, "lost": tuple(entry["lost"])})
            except (ValueError, TypeError, KeyError):
                break
            if segment.number not in self._damaged:
                found[segment.number] = segment
        return found

    def check(self) -> None:
        """Forget the closed segments whose files are gone or are not as they were written."""
        for number, segment in self.segments().items():
            path = self.path(number)
            if segment.frames and not (path.exists() and file_sha256(path) == segment.sha256):
                self._damaged.add(number)

    def close(self, segment: Segment) -> None:
        """Add a closed segment, whose file has its name, and let go of its spooled frames."""
        if segment.frames:
            segment = replace(segment, sha256=file_sha256(self.path(segment.number)))
        self.note(segment)
        self.unspool(segment.number)

    def note(self, segment: Segment) -> None:
        """Add a closed segment, whose file has its name and checksum."""
        self._damaged.discard(segment.number)
        with self._path.open("a", encoding="ascii") as file:
            file.write(_line(segment) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def spool(self, number: int, frame: Spooled) -> None:
        """Keep a finished frame of an open segment until that is closed."""
        path = self._spooled(number) / f"{frame.number:09d}.npz"
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            arrays = {_PLANE.format(index): plane for index, plane in enumerate(frame.planes)}
            arrays["facts"] = np.array([frame.number, frame.time, frame.clipped, *frame.lost], np.int64)
            arrays["digest"] = np.frombuffer(bytes.fromhex(frame.digest), np.uint8)
            if frame.alpha is not None:
                arrays["alpha"] = frame.alpha
            np.savez(file, allow_pickle=False, **arrays)
        part.replace(path)

    def spooled(self, number: int, first: int) -> Iterator[Spooled]:
        """The finished frames of an open segment, in order, up to the first that is damaged or not there.

        A ZIP file's checksums tell whether one is whole.

        Args:
            number: of the segment.
            first: number of its first frame.
        """
        for path in sorted(self._spooled(number).glob("*.npz")):
            frame = _spooled(path)
            if frame is None:
                return
            left_out = len(frame.lost) - (frame.time in frame.lost)  # before it, beside one that it repeats
            if frame.number != first + left_out:
                return
            first = frame.number + 1
            yield frame

    def unspool(self, number: int) -> None:
        """Remove the spooled frames of a segment."""
        shutil.rmtree(self._spooled(number), ignore_errors=True)

    def _spooled(self, number: int) -> Path:
        return self.folder / f"{number:06d}.frames"

    def _lines(self) -> Sequence[str]:
        try:
            text = self._path.read_bytes().decode("latin-1")  # a byte for a character, whatever is in it
        except FileNotFoundError:
            return []
        return text.split("\n")[:-1]  # a line without its end was not written whole


class Elsewhere(Journal):
    """The same work seen by another process, which closes segments and leaves the journal to its owner.

    Attributes:
        noted: what its owner is to note.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.noted: dict[int, Segment] = {}

    def note(self, segment: Segment) -> None:
        """Keep it for the owner."""
        self.noted[segment.number] = segment


def _line(segment: Segment) -> str:
    """A closed segment in the journal, without the end of its line."""
    return json.dumps(asdict(segment), separators=(",", ":"))


def _spooled(path: Path) -> Spooled | None:
    """A finished frame; None where its file is damaged."""
    try:
        with np.load(path) as file:
            number, time, clipped, *lost = (int(value) for value in file["facts"])
            names = sorted(name for name in file.files if name.startswith("plane"))
            planes, digest = [file[name] for name in names], file["digest"].tobytes().hex()
            alpha = file["alpha"] if "alpha" in file.files else None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return Spooled(number, time, digest, clipped, tuple(lost), planes, alpha)
