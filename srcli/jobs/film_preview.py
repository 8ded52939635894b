"""A contact sheet of a film: parts of some frames, enlarged by bicubic and, beside it, by the network."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.imaging.pixels import Pixels, as_rgb8
from srcli.imaging.resize import imresize
from srcli.io import pictures, provenance, remote
from srcli.io.films.facts import Facts
from srcli.io.metadata import Metadata
from srcli.io.pictures import Picture
from srcli.io.remote import Location, Remote
from srcli.io.storage import beside
from srcli.jobs import staging
from srcli.jobs.film_plan import FilmPlan, decoded, facts_of, plan, spread, to_rgb
from srcli.jobs.folder import make_folder
from srcli.jobs.outputs import Job
from srcli.jobs.plan import LEFT_ALONE, Upscale
from srcli.jobs.report import PictureResult, Status, failure
from srcli.settings import Settings, Size
from srcli.stream import Image

_CELL = 480, 640
"""Height and width of the largest part of a frame that is shown, in output pixels."""
_MARGIN = 32
"""Input pixels around a part that the network sees too, so that it comes out as in the film."""
_GAP, _STRIP = 8, 24
"""Pixels between two parts, and of the line above them."""

_Sheet = NDArray[np.uint8]


class _Part(NamedTuple):
    """A part of every frame along one axis.

    Attributes:
        taken: of the input, with margins.
        size: pixels that this becomes.
        shown: of those, without margins.
    """

    taken: slice
    size: int
    shown: slice


def sheet_of(target: Location) -> Location:
    """Where the contact sheet of a film goes that would be written to `target`."""
    if isinstance(target, Remote):
        return target.parent / f"{target.stem}.preview.png"
    return beside(target.with_suffix(""), ".preview.png")


def preview(
    job: Job, place: Location, upscale: Upscale, settings: Settings, stop: Callable[[], bool]
) -> PictureResult:
    """Make the contact sheet of a film, and nothing else. A failure becomes the result, and so does `stop`.

    Args:
        job: the film, and where it would be written.
        place: of the sheet. An older sheet is replaced; any other file only with `settings.overwrite`.
    """
    begin, scratch = perf_counter(), TemporaryDirectory(prefix="srcli-", ignore_cleanup_errors=True)
    try:
        file = place if isinstance(place, Path) else Path(scratch.name, "sheet", place.name)
        if not settings.overwrite and _is_other(place, file):
            return PictureResult(job.source, place, Status.KEPT, notes=(LEFT_ALONE,))
        job = staging.film(job, settings, Path(scratch.name), in_part=True)
        film = plan(job, upscale, settings, facts_of(job, settings, places=settings.film.preview))
        sheet = np.concatenate(list(_rows(film, upscale, settings, stop)))
        metadata = Metadata()
        if settings.provenance:
            metadata, _ = provenance.add_to(metadata, "png", film.record)
        make_folder(file)
        pictures.write(file, Picture(sheet, metadata))
        if isinstance(place, Remote):
            remote.put(file, place, replaces=True)
    except CancelledError:
        return PictureResult(job.source, place, Status.PENDING)
    except Exception as error:
        return failure(job, error)
    finally:
        scratch.cleanup()
    return PictureResult(
        job.source,
        place,
        Status.WRITTEN,
        (film.facts.height, film.facts.width),
        (sheet.shape[0], sheet.shape[1]),
        perf_counter() - begin,
        computed=film.computed,
    )


def _is_other(place: Location, file: Path) -> bool:
    """Whether a file is there that is no sheet of an earlier run.

    Args:
        file: its place on this machine.
    """
    if isinstance(place, Remote):
        if not remote.exists(place):
            return False
        remote.fetch(place, file)
    return os.path.lexists(file) and provenance.read(file) is None


def _rows(film: FilmPlan, upscale: Upscale, settings: Settings, stop: Callable[[], bool]) -> Iterator[_Sheet]:
    """A row for each frame: a line of text, bicubic at the left, the network at the right."""
    source = film.facts.height, film.facts.width
    across = [_part(*sides) for sides in zip(source, film.encoding.size, _CELL, strict=True)]
    rows, columns = across
    size: Size = rows.size, columns.size
    numbers = spread(range(film.first, film.first + film.count), settings.film.preview)
    parts: list[Pixels] = []

    def images() -> Iterator[Image]:
        for number in numbers:
            if stop():
                return
            parts.append(_pixels(film, number, settings)[rows.taken, columns.taken])
            yield Image(parts[-1], size, film.model, two_colors=film.two_colors)

    with closing(upscale.stream(images(), lambda *_: None)) as results:
        for number in numbers:
            result = next(results, None)
            if result is None:
                raise CancelledError
            if result.error is not None or result.pixels is None:
                raise result.error or CancelledError
            pair = [
                _turned(as_rgb8(made)[rows.shown, columns.shown], film.facts)
                for made in (imresize(parts.pop(0), size), result.pixels)
            ]
            moment = (film.facts.times[number] - film.facts.times[0]) * film.facts.time_base
            name = film.computed.model if result.computed is None else result.computed.model
            yield _row(pair, f"{_clock(moment)}   bicubic | {name}")


def _part(source: int, target: int, cell: int) -> _Part:
    """The middle of an axis.

    Args:
        source, target: its length in the film and in the output.
        cell: the most output pixels that are shown.
    """
    factor = Fraction(target, source)
    length = min(source, max(1, int(cell / factor)))
    begin = (source - length) // 2
    taken = slice(max(0, begin - _MARGIN), min(source, begin + length + _MARGIN))
    first = round((begin - taken.start) * factor)
    size = max(1, round((taken.stop - taken.start) * factor))
    return _Part(taken, size, slice(first, min(size, first + max(1, round(length * factor)))))


def _pixels(film: FilmPlan, number: int, settings: Settings) -> Pixels:
    after = None if number == 0 else (film.facts.times[number - 1], b"")
    with closing(decoded(film.facts, after, settings)) as frames:
        return to_rgb(next(frames), film.facts)[0]


def _turned(part: _Sheet, facts: Facts) -> _Sheet:
    """As the film is shown: turned by quarters and mirrored."""
    matrix = facts.display_matrix
    if matrix is None:
        return part
    across, down = (matrix[3], matrix[1]) if facts.turned else (matrix[0], matrix[4])
    upright = part.transpose(1, 0, 2) if facts.turned else part
    return upright[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]


def _row(pair: list[_Sheet], text: str) -> _Sheet:
    height, width = pair[0].shape[:2]
    row = np.zeros((_STRIP + height + _GAP, 2 * width + _GAP, 3), np.uint8)
    row[_STRIP : _STRIP + height, :width] = pair[0]
    row[_STRIP : _STRIP + height, width + _GAP :] = pair[1]
    color, thickness = (220, 220, 220), 1
    cv2.putText(row, text, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, color, thickness, cv2.LINE_AA)
    return row


def _clock(seconds: Fraction) -> str:
    """ "1:02.480"."""
    minutes, rest = divmod(round(seconds * 1000), 60000)
    return f"{minutes}:{rest / 1000:06.3f}"
