"""A film decoded from a place on, packet by packet: what cannot be decoded is passed over."""

import logging
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import av
from av import VideoFrame
from av.container import InputContainer
from av.filter import Graph
from av.video.stream import VideoStream

from srcli.errors import InputError, shown
from srcli.io.films.facts import Facts
from srcli.io.films.packets import Shown
from srcli.io.films.source import codec_name, decoder, only, opened, reason

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
    if stream is None or facts.path.stat().st_size != facts.size or codec_name(stream) != facts.codec:
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
        for out in _pulled(graph):
            if not first:
                assert out.pts is not None
                assert out.time_base is not None
                out.pts = round(out.pts * out.time_base / facts.time_base)
                yield out
            first = False


def _pulled(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (BlockingIOError, EOFError):
            return
