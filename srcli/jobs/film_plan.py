"""What is decided about a film before its first frame: its part, its encoding, the network for all frames."""

from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from srcli import __version__
from srcli.errors import InputError, shown
from srcli.imaging import pixels, yuv
from srcli.imaging.pixels import Pixels
from srcli.io import provenance, remote, storage
from srcli.io.films import animation, encoding, facts, journal, pipes, reader, streams
from srcli.io.films.encoding import Encoding
from srcli.io.films.facts import Facts
from srcli.io.films.parts import Part
from srcli.io.films.reader import Frame
from srcli.io.films.streams import Carried
from srcli.io.provenance import Provenance
from srcli.jobs import staging
from srcli.jobs.outputs import Job
from srcli.jobs.plan import LEFT_ALONE, Upscale, by_name, check_made_by, output_exists
from srcli.jobs.report import PictureResult, Status, failure
from srcli.models import auto
from srcli.settings import Settings, Size
from srcli.stream import Computed

SEGMENT = 120
"""Frames of a segment; the last one has up to twice as many. Against one encode, x264's segments of 16 frames
take 61% more bytes, those of 120 take 4%."""
_PIPED = 24
"""The same where each is sent as it closes, and coded without other frames, so that it does not matter."""
_SAMPLES = 5
"""Frames, spread over the film, that decide what holds for all."""


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
        segment: frames of a segment; the last one has up to twice as many.
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
    segment: int

    def part(self, settings: Settings) -> tuple[Fraction | None, Fraction | None]:
        """The start and end asked for, which count from the first frame, in the film's own time."""
        first = self.facts.times[0] * self.facts.time_base
        start, end = settings.film.start, settings.film.end
        return None if start is None else first + start, None if end is None else first + end

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return max(1, self.count // self.segment)

    def segment_of(self, frame: int) -> int:
        """The segment that a frame belongs to, by its number."""
        return min((frame - self.first) // self.segment, self.segments - 1)

    def first_of(self, segment: int) -> int:
        """The number of a segment's first frame."""
        return self.first + segment * self.segment

    def last_of(self, segment: int) -> int:
        """The number of a segment's last frame."""
        frames = self.count if segment == self.segments - 1 else (segment + 1) * self.segment
        return self.first + frames - 1


def foresee(job: Job, upscale: Upscale, settings: Settings) -> PictureResult:
    """What a run would do with a film; a few of its frames are decoded, nothing is written."""
    try:
        with TemporaryDirectory(prefix="srcli-") as scratch:
            job = staging.film(job, settings, Path(scratch), in_part=True)
            result, film = foreseen(job, upscale, settings, places=_SAMPLES)
    except Exception as error:
        return failure(job, error)
    return result if film is None else replace(result, notes=(*_described(film), *result.notes))


def _described(film: FilmPlan) -> list[str]:
    """How many frames, how they are written, and what goes along."""
    rate, chosen = film.facts.rate, film.encoding
    pace = "at a variable rate" if rate is None else f"at {float(rate):.6g} a second"
    options = ", ".join(f"{name} {value}" for name, value in chosen.options if name in ("preset", "crf"))
    written = f"written by {chosen.encoder}{f' ({options})' if options else ''}, {chosen.pixel_format}"
    if chosen.container in streams.ANIMATED:
        written = f"written as {streams.ANIMATED[chosen.container].title}"
        written += "".join(f", {name} {value}" for name, value in chosen.final)
    frames = film.count if film.facts.estimate is None else f"about {film.facts.estimate}"
    return [
        f"{frames} frames {pace}, enlarged by {film.computed.model}",
        written,
        *(f"goes along: {stream}" for stream in (*film.carried.copied, *film.carried.converted)),
    ]


def foreseen(
    job: Job, upscale: Upscale, settings: Settings, found: Facts | None = None, *, places: int = 0
) -> tuple[PictureResult, FilmPlan | None]:
    """What would become of a film, and how it would be made, if it is to be made.

    Args:
        found: the film's facts, if they are known.
        places: as of `facts_of`.
    """
    existing = None
    if settings.trust_names and output_exists(job):
        return by_name(job), None
    storage.check_name(journal.folder_of(job.output))  # its name is the longer one
    if output_exists(job) and not settings.overwrite:
        existing = _record_there(job)
        if existing is None:
            return PictureResult(job.source, job.target, Status.KEPT, notes=(LEFT_ALONE,)), None
    film = plan(job, upscale, settings, found or facts_of(job, settings, places=places))
    if existing is not None:
        check_made_by(job, existing, [film.record])
        return PictureResult(job.source, job.target, Status.SKIPPED), None
    source = film.facts.height, film.facts.width
    dropped = (f"left out: {stream}" for stream in film.carried.dropped)
    notes = (*film.facts.notes, *film.encoding.notes, *dropped)
    return PictureResult(
        job.source, job.target, Status.PLANNED, source, film.encoding.size, notes=notes
    ), film


def _record_there(job: Job) -> Provenance | None:
    """The record of a film that is where the output goes."""
    if isinstance(job.target, Path):
        return streams.record_of(job.target)
    if job.target.suffix.lower() not in streams.ANIMATED:
        with remote.opened(job.target) as file:
            return streams.record_in(file, job.target)
    theirs = job.output.parent / "theirs" / job.output.name
    remote.fetch(job.target, theirs)
    return streams.record_of(theirs)


def facts_of(job: Job, settings: Settings, *, places: int = 0) -> Facts:
    """What the film of a job is. One that is read by ranges is not read beyond what the settings ask for.

    Args:
        places: if it is not to be made: how many places of it are to be known; 0: all its frames are.

    Raises:
        InputError: it cannot be read.
    """
    film = settings.film
    if not job.ranged or not (places or film.start or film.end):
        return facts.probe(job.film_input)
    return facts.probe(job.film_input, Part(film.start or Fraction(0), film.end, places))


def plan(job: Job, upscale: Upscale, settings: Settings, found: Facts) -> FilmPlan:
    """Decide all that can be decided before the first frame.

    Args:
        found: the film's facts.

    Raises:
        InputError, UsageError: the film cannot be read, or what is asked for cannot be had.
    """
    film = settings.film
    first, last = (reader.number_at(found, bound) for bound in (film.start or Fraction(0), film.end))
    if first >= last:
        if first < len(found.times):
            raise InputError(f"{shown(job.source)}: no frame begins in that part.", "Give a later --end.")
        length = float((found.end - found.times[0]) * found.time_base)
        raise InputError(f"{shown(job.source)} ends after {length:.3f} seconds.", "Give an earlier --start.")
    size = _size(found, settings)
    chosen = _encoding(found, size, job.output, settings)
    carried = streams.plan(found, job.output)
    if film.pipe == "y4m":
        pipes.check_y4m(found, chosen, on_error=film.on_error)
        carried = pipes.y4m_carried(carried)
    model, two_colors = _settled(found, range(first, last), upscale, settings)
    models = auto.models(settings.model)
    candidates = upscale.candidates((found.height, found.width), chosen.size)
    computed = candidates[models.index(model) if len(candidates) > 1 and model in models else 0]
    return FilmPlan(
        found,
        first,
        last - first,
        chosen,
        carried,
        model,
        two_colors,
        computed,
        _record(found, computed, settings, chosen, two_colors),
        _PIPED if film.pipe and chosen.codec == "ffv1" else SEGMENT,
    )


def _encoding(found: Facts, size: Size, target: Path, settings: Settings) -> Encoding:
    film = settings.film
    if target.suffix.lower() in streams.ANIMATED:
        return animation.choose(
            found, size, target, codec=film.codec, crf=film.crf, preset=film.preset, lossless=film.lossless,
            quality=settings.quality,
        )  # fmt: skip
    return encoding.choose(
        found, size, target, codec=film.codec, crf=film.crf, preset=film.preset, lossless=film.lossless
    )


def _size(found: Facts, settings: Settings) -> Size:
    """Height and width asked for, as the film is coded; pixels are asked for as it is shown."""
    source = found.height, found.width
    shown_as = source[::-1] if found.turned else source
    settings.factor(shown_as)
    size = settings.output_size(shown_as)
    return size[::-1] if found.turned else size


def _settled(found: Facts, numbers: range, upscale: Upscale, settings: Settings) -> tuple[str | Path, bool]:
    """The model for all frames, and whether they count as of two colours: what most of a few show, which are
    spread over the film.

    Raises:
        InputError: none of them can be decoded.
    """
    votes, two = Counter[str | Path](), 0
    film = settings.film
    places = spread(numbers, _SAMPLES)
    for frame in reader.samples(found, places, on_error=film.on_error, deinterlace=film.deinterlace):
        rgb = to_rgb(frame, found)[0]
        votes[upscale.model_for(rgb)] += 1
        two += pixels.has_two_colors(pixels.color_and_alpha(rgb)[0])
    if not votes:
        raise InputError(f"{shown(found.path)}: no frame can be decoded.", "Is it damaged?")
    return votes.most_common(1)[0][0], 2 * two > votes.total()


def spread(numbers: range, count: int) -> list[int]:
    """So many numbers, or fewer, from the middles of equal parts of a range."""
    places = [numbers[len(numbers) * (2 * n + 1) // (2 * count)] for n in range(count)]
    return list(dict.fromkeys(places))


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
        "model chosen": "auto" if auto.chooses(settings.model) and computed.scales else "by name",
        "encoder": chosen.encoder,
        "options": [f"{name}={value}" for name, value in (*chosen.options, *chosen.final)],
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
    return Provenance(__version__, computed.model, model, resolved, found.size)


def to_rgb(frame: Frame, of: Facts) -> tuple[Pixels, int]:
    """A frame's pixels as networks take them, uint16, and how many lay outside the RGB cube."""
    rgb, clipped = yuv.to_rgb(frame.planes, of.coding)
    if frame.alpha is not None:
        rgb = np.dstack([rgb, yuv.depth(frame.alpha, of.coding.bits, 16)])
    return rgb, clipped


def decoded(of: Facts, after: tuple[int, bytes] | None, settings: Settings) -> Generator[Frame]:
    """The frames of a film after one, up to the end asked for; see `srcli.io.films.reader.frames`."""
    film = settings.film
    yield from reader.frames(
        of, after=after, on_error=film.on_error, deinterlace=film.deinterlace, end=film.end
    )
