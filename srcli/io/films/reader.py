"""Frames of a film, as many as its packets say, in order; lost ones are named, and repeated or left out."""

import hashlib
import logging
from bisect import bisect_left
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from av import VideoFrame
from av.container import InputContainer
from av.filter import Graph
from av.video.stream import VideoStream

from srcli.errors import InputError, UsageError, shown
from srcli.io.films.facts import DRAWN_OVER, Facts
from srcli.io.films.packets import Shown
from srcli.io.films.planes import Plane, planes_of
from srcli.io.films.source import codec_name, decoder, only, opened, reason, size_of

log = logging.getLogger(__name__)


class Way(NamedTuple):
    """How a film is decoded.

    Attributes:
        deinterlace: made progressive, a frame for each frame.
        lenient: a film whose decoding ends early is only shorter.
        threads: as of `decoder`.
        by_frame: as of `decoder`.
    """

    deinterlace: bool
    lenient: bool
    threads: int
    by_frame: bool


def where(facts: Facts) -> str:
    """File and stream, for messages."""
    return f"{shown(facts.path)}, stream #{facts.index}"


def images(facts: Facts, place: int | None, way: Way) -> Iterator[VideoFrame]:
    """Frames as they are decoded, from a place on.

    Args:
        place: ticks to seek to; frames from the first key frame on are given. None: from the start.

    Yields:
        Frames of the format and size of `facts`; `pts` in ticks, or without times the place of the frame's
        packet in the order of decoding.

    Raises:
        InputError: the film cannot be read on, has changed, or changes its format.
    """
    with opened(facts.path) as container:
        stream = _stream(container, facts)
        only(container, stream)
        context = decoder(stream, threads=way.threads, by_frame=way.by_frame)
        if place is not None:
            try:
                container.seek(place, stream=stream)
            except av.error.FFmpegError:
                return
        found = _alike(facts, _decoded(facts, container, stream, context, way))
        if place is not None:
            found = _from_key(found)
        if way.deinterlace:
            found = _deinterlaced(facts, found, whole=place is None)
        yield from found


def _alike(facts: Facts, found: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """Refuses a film whose frames change their size or format; tells if some are interlaced after all."""
    told = facts.interlaced
    for image in found:
        if image.interlaced_frame and not told:
            log.warning("%s has interlaced frames among others; they are taken as they are.", where(facts))
            told = True
        if (image.format.name, image.width, image.height) != (facts.pixel_format, facts.width, facts.height):
            raise InputError(
                f"{where(facts)} changes from {facts.width}×{facts.height} {facts.pixel_format} to "
                f"{image.width}×{image.height} {image.format.name}.",
                "Cut it into films of one kind first.",
            )
        yield image


def _stream(container: InputContainer, facts: Facts) -> VideoStream:
    stream = next((stream for stream in container.streams.video if stream.index == facts.index), None)
    if stream is None or size_of(facts.path) != facts.size or codec_name(stream) != facts.codec:
        raise InputError(f"{where(facts)} has changed since it was first read.", "Start again.")
    return stream


def _decoded(
    facts: Facts, container: InputContainer, stream: VideoStream, context: Any, way: Way
) -> Iterator[VideoFrame]:
    """What the decoder gives, to its last frame; packets that it cannot decode are passed over."""
    shows = Shown(facts.codec, stream.codec_context.extradata)
    packets = container.demux(stream)
    place = -1
    while True:
        try:
            packet = next(packets, None)
        except av.error.FFmpegError as error:
            if not way.lenient:
                raise InputError(f"{where(facts)} cannot be read on ({reason(error)}).", "") from error
            packet = None
        if packet is None:
            break
        if not packet.size:  # would end decoding
            continue
        if not facts.timed:
            place += shows(packet) and not packet.is_discard
            packet.pts = place
        yield from _attempt(context, packet)
    yield from _attempt(context, None)


def _attempt(context: Any, packet: Any) -> list[VideoFrame]:
    try:
        found: list[VideoFrame] = context.decode(packet)
    except av.error.FFmpegError:
        return []
    return found


def _from_key(found: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    for image in found:
        if image.key_frame:
            yield image
            break
    yield from found


def _deinterlaced(facts: Facts, found: Iterator[VideoFrame], *, whole: bool) -> Iterator[VideoFrame]:
    """Progressive frames with the times of the interlaced ones.

    Args:
        whole: the first frame is the film's first; else it lacks the one before, and is left out.
    """
    graph = Graph()
    form = av.VideoFormat(facts.pixel_format)
    source: Any = graph.add_buffer(
        width=facts.width, height=facts.height, format=form, time_base=facts.time_base
    )
    fields = "interlaced" if facts.flagged else "all"
    graph.link_nodes(
        source,
        graph.add("bwdif", f"mode=send_frame:deint={fields}"),
        graph.add("format", f"pix_fmts={facts.pixel_format}"),
        graph.add("buffersink"),
    ).configure()
    first = not whole
    for image in chain(found, (None,)):
        if image is not None:
            image.time_base = facts.time_base
        graph.push(image)
        for out in pulled(graph):
            if not first:
                assert out.pts is not None
                assert out.time_base is not None
                out.pts = round(out.pts * out.time_base / facts.time_base)
                yield out
            first = False


def pulled(graph: Graph) -> Iterator[VideoFrame]:
    """The frames that a filter graph has ready."""
    while True:
        try:
            yield graph.vpull()
        except (BlockingIOError, EOFError):
            return


OnError = Literal["repeat", "skip", "stop"]
"""What becomes of a lost frame: the one before is shown again (the one after, where there is none); it is
left out; or the film ends with an error."""

_BACK = (0, 3, 30)
"""Seconds before a frame from which decoding is tried until it comes out as it was; then from the start."""
_DEAD = 250
"""Frames lost at the end of a film from which the decoder is taken to have failed."""
_REORDERED = {"h264": 16, "hevc": 16}
"""Most frames that come out before one that was decoded earlier; 1 for other codecs without times."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of a film.

    Attributes:
        number: its place in `Facts.times`.
        time: when it is shown, `Facts.times[number]`.
        planes: as of `planes_of`: Y; Y, Cb, Cr; or G, B, R; (H, W) uint8 or uint16, read-only.
        alpha: (H, W), full range, or None.
        repeated: the frame is lost, and these are the samples of another one.
    """

    number: int
    time: int
    planes: list[Plane]
    alpha: Plane | None
    repeated: bool = False

    @property
    def samples(self) -> list[Plane]:
        """All planes, alpha last."""
        return self.planes if self.alpha is None else [*self.planes, self.alpha]

    def shows(self, other: "Frame") -> bool:
        """Whether its samples are those of another frame."""
        mine, its = self.samples, other.samples
        return len(mine) == len(its) and all(map(np.array_equal, mine, its))

    def digest(self) -> bytes:
        """16 bytes that stand for all samples (BLAKE2b)."""
        digest = hashlib.blake2b(digest_size=16)
        for plane in self.samples:
            digest.update(np.ascontiguousarray(plane).data)
        return digest.digest()


class _OtherFilmError(InputError):
    """A frame did not come out again as it was."""


def frames(
    facts: Facts,
    *,
    after: tuple[int, bytes] | None = None,
    on_error: OnError = "repeat",
    deinterlace: bool = False,
    start: Fraction | None = None,
    end: Fraction | None = None,
    threads: int = 0,
) -> Iterator[Frame]:
    """Decode a film, a frame at a time.

    Args:
        facts: of the film, by `probe`.
        after: time and digest of a frame; those after it are given, exactly as in an undisturbed run.
        on_error: as of `OnError`. A film that is cut off is read with "skip" only.
        deinterlace: make interlaced frames progressive (FFmpeg's bwdif); others stay as they are.
        start, end: seconds after the first frame; frames shown from `start` on and before `end` are given.
        threads: of the decoder; 0: as many as there are processors.

    Raises:
        InputError: at once or while reading: interlaced and not deinterlaced; cut off; not the film that
            `facts` are of; a lost frame, where that ends the film; a decoder that fails for good.
        UsageError: nothing lies between start and end.
    """
    _check(facts, on_error, deinterlace=deinterlace)
    first, last = (number_at(facts, bound) for bound in (start or Fraction(0), end))
    if first >= last:
        length = float((facts.end - facts.times[0]) * facts.time_base)
        raise UsageError(
            f"{where(facts)}: no frame lies between start and end.", f"It has {length:.3f} seconds."
        )
    if after is None and first:
        after = facts.times[first - 1], b""
    way = Way(deinterlace and facts.interlaced, on_error == "skip", threads, by_frame=True)
    found = _sequence(facts, None, way) if after is None else _after(facts, *after, way)
    return _selected(facts, found, last, on_error)


def _check(facts: Facts, on_error: OnError, *, deinterlace: bool) -> None:
    if facts.interlaced and not deinterlace:
        raise InputError(f"{where(facts)} is interlaced.", "Add --deinterlace, or deinterlace it first.")
    if facts.cut and on_error != "skip":
        hint = "Add --on-error skip to take what is there."
        raise InputError(f"{where(facts)} is cut off: {facts.cut}.", hint)


def samples(
    facts: Facts, numbers: Iterable[int], *, on_error: OnError = "repeat", deinterlace: bool = False
) -> Iterator[Frame]:
    """A frame near each of these: the first one that a seek there gives, that of the key frame before.

    Little is decoded for each. A film in which nothing can be sought gives its first frame each time; GIF and
    APNG, which are drawn one over the other, the frames themselves.

    Raises:
        InputError: as of `frames`, at the first one.
    """
    _check(facts, on_error, deinterlace=deinterlace)
    way = Way(deinterlace and facts.interlaced, lenient=True, threads=1, by_frame=False)
    if facts.codec in DRAWN_OVER:
        wanted = set(numbers)
        yield from (frame for frame in _sequence(facts, None, way) if frame.number in wanted)
        return
    for number in numbers:
        for place in _places(facts, facts.times[number]):
            with closing(_sequence(facts, place, way)) as found:
                frame = next(found, None)
            if frame is not None:
                yield frame
                break


def _places(facts: Facts, time: int) -> list[int | None]:
    """Where to seek for a frame, one after the other; None: the start."""
    seekable = facts.timed and facts.codec not in DRAWN_OVER
    places = [time - int(back / facts.time_base) for back in _BACK if seekable]
    return [*(place for place in places if place > facts.times[0]), None]


def number_at(facts: Facts, seconds: Fraction | None) -> int:
    """The first frame shown at this many seconds after the first one, or later; None: the end."""
    if seconds is None:
        return len(facts.times)
    return bisect_left(facts.times, facts.times[0] + seconds / facts.time_base)


def _selected(facts: Facts, found: Iterator[Frame], last: int, on_error: OnError) -> Iterator[Frame]:
    """The frames before number `last`, lost ones treated as asked for."""
    for frame in found:
        if frame.number >= last:
            return
        if not frame.repeated or on_error == "repeat":
            yield frame
        elif on_error == "stop":
            seconds = float(frame.time * facts.time_base)
            raise InputError(
                f"{where(facts)}: frame {frame.number} (at {seconds:.3f} s) is damaged.",
                "Add --on-error repeat or --on-error skip.",
            )


def _after(facts: Facts, time: int, digest: bytes, way: Way) -> Iterator[Frame]:
    """The frames after the one at `time`, which must have this digest (empty: not asked).

    What decodes after a seek is not always what it was: leading frames of open groups of pictures lack their
    references, and MPEG-TS and -PS are entered anywhere. So the digest decides, and decoding begins farther
    back until it agrees.
    """
    for place in _places(facts, time):
        with closing(_sequence(facts, place, way)) as found:
            frame = next((frame for frame in found if frame.time >= time), None)
            if frame is not None and frame.time == time and (not digest or frame.digest() == digest):
                yield from found
                return
    raise _OtherFilmError(f"{where(facts)} has changed since its first frames were read.", "Start again.")


def _sequence(facts: Facts, place: int | None, way: Way) -> Generator[Frame]:
    """All frames from the first that a seek to `place` gives (None: from the start), lost ones repeated."""
    last: Frame | None = None
    early: list[int] = []
    for number, image in _numbered(facts, place, way):
        if image is None and last is None:
            early.append(number)
        elif image is None and last is not None:
            yield _again(facts, last, number)
        elif image is not None:
            last = Frame(number, facts.times[number], *planes_of(image, alpha=facts.alpha))
            yield from (_again(facts, last, lost) for lost in early)
            early.clear()
            yield last
    if last is None:
        if place is None:
            raise InputError(f"{where(facts)}: no frame can be decoded.", "Is it damaged?")
        return
    rest = range(last.number + 1, len(facts.times))
    if rest and way.by_frame:
        # PyAV gives up on the frames still in the decoder when one of them fails; read alone, only it does.
        try:
            yield from _after(facts, last.time, last.digest(), way._replace(by_frame=False, threads=1))
            return
        except _OtherFilmError:  # damaged frames may come out otherwise; then they are lost
            pass
    if len(rest) > _DEAD and not way.lenient:
        raise InputError(
            f"{where(facts)}: decoding fails for good at frame {rest[0]} of {len(facts.times)}.",
            "Add --on-error skip to take what is there.",
        )
    yield from (_again(facts, last, number) for number in rest)


def _again(facts: Facts, frame: Frame, number: int) -> Frame:
    return replace(frame, number=number, time=facts.times[number], repeated=True)


def _numbered(facts: Facts, place: int | None, way: Way) -> Iterator[tuple[int, VideoFrame | None]]:
    """Decoded frames with their numbers, without gaps but for the end of the film. None: a lost frame."""
    found = images(facts, place, way)
    if facts.timed:
        return _by_time(facts, found, 0 if place is None else None)
    return _by_order(facts, found)


def _by_time(
    facts: Facts, decoded: Iterator[VideoFrame], expected: int | None
) -> Iterator[tuple[int, VideoFrame | None]]:
    for image in decoded:
        number = None if image.pts is None else facts.number(image.pts)
        if number is None or (expected is not None and number < expected):
            continue  # damage can bring out frames that are none
        yield from ((lost, None) for lost in range(number if expected is None else expected, number))
        yield number, image
        expected = number + 1


def _by_order(facts: Facts, decoded: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame | None]]:
    """For films without times: `pts` is the place of the frame's packet in the order of decoding.

    A frame is lost if a key frame comes, or too many others, whose packets are later.
    """
    deepest = _REORDERED.get(facts.codec, 1)
    waiting: list[int] = []  # packets whose frames have not come, though one of a later packet has
    number, latest = 0, -1
    for image in decoded:
        packet = image.pts if image.pts is not None else latest + 1
        waiting += range(latest + 1, packet)
        if packet in waiting:
            waiting.remove(packet)
        elif packet <= latest and waiting:  # damage can bring a frame with the place of another
            del waiting[0]
        latest = max(latest, packet)
        before_key = sum(other < packet for other in waiting) if image.key_frame else 0
        for _ in range(max(before_key, len(waiting) - deepest)):
            del waiting[0]
            yield number, None
            number += 1
        if number == len(facts.times):
            return
        yield number, image
        number += 1
