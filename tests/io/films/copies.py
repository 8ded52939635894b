"""Films copied at scale 1 by all that writes them: decoded naively, encoded in segments, joined."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import scenes

from srcli.imaging import yuv
from srcli.imaging.pixels import Pixels
from srcli.io.films import streams
from srcli.io.films.encoding import Encoding, choose
from srcli.io.films.facts import Facts, probe
from srcli.io.films.planes import planes_of
from srcli.io.films.segments import join, writing
from srcli.io.films.streams import Carried

Frame = tuple[int, list[Pixels], Pixels | None]

FASTEST = {"h264": "ultrafast", "h265": "ultrafast", "hevc": "ultrafast", "av1": "10", "vp9": "8"}


class Copy(NamedTuple):
    """What a copy was made by."""

    facts: Facts
    encoding: Encoding
    carried: Carried
    segments: list[Path]


def copy(
    source: Path, out: Path, *, every: int = 1000, tags: dict[str, str] | None = None, **choice: Any
) -> Copy:
    """Write `source` again as `out`, in segments of `every` frames."""
    facts = probe(source)
    carried = streams.plan(facts, out)
    encoding = settled(facts, out, **choice)
    segments = segments_of(facts, encoding, out.parent / f"{out.name}.segments", every)
    join(segments, out, encoding, facts, carried, tags=tags or {})
    return Copy(facts, encoding, carried, segments)


def settled(facts: Facts, out: Path, **choice: Any) -> Encoding:
    """The encoding of a copy; the fastest preset where none is named."""
    size = choice.pop("size", (facts.height, facts.width))
    encoding = choose(facts, size, out, threads=2, **choice)
    if "preset" not in choice and encoding.codec in FASTEST:
        encoding = choose(facts, size, out, threads=2, preset=FASTEST[encoding.codec], **choice)
    return encoding


def segments_of(facts: Facts, encoding: Encoding, folder: Path, every: int) -> list[Path]:
    """The segments of a copy."""
    folder.mkdir(exist_ok=True)
    frames = decoded(facts)
    segments: list[Path] = []
    while part := list(islice(frames, every)):
        segments.append(folder / f"{len(segments):06d}")
        write_segment(segments[-1], (recoded(frame, facts, encoding) for frame in part), encoding, facts)
    return segments


def write_segment(path: Path, frames: Iterable[Frame], encoding: Encoding, facts: Facts) -> None:
    """Encode frames to a segment."""
    with writing(path, encoding, facts) as segment:
        for frame in frames:
            segment.add(*frame)


def decoded(facts: Facts) -> Iterator[Frame]:
    """Time, planes and alpha of each frame."""
    with av.open(str(facts.path)) as container:
        stream: Any = container.streams[facts.index]
        decoder: Any = stream.codec_context
        if stream.metadata.get("alpha_mode") == "1":
            decoder = av.CodecContext.create("libvpx-vp9", "r")
        frames = (frame for packet in container.demux(stream) for frame in decoder.decode(packet))
        for time, frame in zip(facts.times, frames, strict=True):
            yield time, *planes_of(frame)


def recoded(frame: Frame, facts: Facts, encoding: Encoding) -> Frame:
    """A frame as an encoder takes it, cut to its size."""
    time, planes, alpha = frame
    if encoding.coding != facts.coding or planes[0].shape != encoding.size:
        height, width = encoding.size
        rgb, _ = yuv.to_rgb(planes, facts.coding)
        rgb = rgb[:height, :width] if rgb.ndim == 3 else rgb[:height, :width, None].repeat(3, 2)
        planes = yuv.from_rgb(rgb, encoding.coding)
    if alpha is not None:
        alpha = yuv.depth(alpha, facts.coding.bits, encoding.coding.bits)[
            : encoding.size[0], : encoding.size[1]
        ]
    return time, planes, alpha


def video_of(container: av.container.InputContainer) -> Any:
    """The picture's stream, which is no cover."""
    return next(stream for stream in container.streams.video if not streams.is_cover(stream))


def times(path: Path) -> list[Fraction]:
    """When the frames of a film are shown, in seconds, by its packets."""
    with av.open(str(path)) as container:
        stream = video_of(container)
        stamps = [packet.pts for packet in container.demux(stream) if packet.size]
        return sorted(stamp * stream.time_base for stamp in stamps)


def packets(path: Path, kind: str, number: int = 0) -> list[tuple[Fraction, Fraction, bytes]]:
    """Time, duration and content of the packets of a stream, by kind and number among its kind."""
    with av.open(str(path)) as container:
        stream: Any = [each for each in container.streams if each.type == kind][number]
        base = stream.time_base
        return [
            ((packet.pts or 0) * base, (packet.duration or 0) * base, bytes(packet))
            for packet in container.demux(stream)
            if packet.size
        ]


def texts(path: Path, number: int = 0) -> list[tuple[Fraction, Fraction, str]]:
    """Begin, end and text of the subtitles of a track."""
    with av.open(str(path)) as container:
        stream: Any = container.streams.subtitles[number]
        found = []
        for packet in container.demux(stream):
            for text in stream.decode(packet) if packet.size else ():
                begin = packet.pts * stream.time_base
                found.append((begin, begin + packet.duration * stream.time_base, text.dialogue.decode()))
    return [each for each in found if each[2]]


def numbers(path: Path) -> list[int]:
    """The numbers that the frames show."""
    with av.open(str(path)) as container:
        return [scenes.read_number(planes_of(frame)[0]) for frame in container.decode(video_of(container))]
