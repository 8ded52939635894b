"""Animated pictures (GIF, APNG, WebP): how one is written from a film's lossless segments, and what it says.

A GIF has one palette for all frames, so that nothing flickers. The others hold the pixels as they are, WebP
also with loss.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from av import VideoFrame
from av.container import OutputContainer
from av.filter import Graph

from srcli.errors import InputError, UsageError, shown
from srcli.imaging.yuv import Coding
from srcli.io import pictures, pillow, png, provenance, storage, webp, xmp
from srcli.io.films.encoding import HDR, Encoding, processors, square
from srcli.io.films.facts import Facts
from srcli.io.films.reader import pulled
from srcli.io.films.signatures import GIF_HEADER, gif_palette
from srcli.io.films.source import is_png_or_webp
from srcli.io.films.streams import ANIMATED
from srcli.io.metadata import Metadata, resized
from srcli.settings import Size


@dataclass(frozen=True, slots=True)
class _Format:
    """How one is written.

    Attributes:
        encoder: FFmpeg's name.
        opaque, alpha: FFmpeg's pixel formats.
        tick: seconds in which it counts.
        shortest: seconds a frame on average that players show; 0: any.
        side: the longest.
    """

    encoder: str
    opaque: str
    alpha: str
    tick: Fraction
    shortest: Fraction
    side: int


_PNG = _Format("apng", "rgb24", "rgba", Fraction(1, 10_000), Fraction(0), png.MAX_SIDE)
_FORMATS = {
    ".gif": _Format("gif", "pal8", "pal8", Fraction(1, 100), Fraction(2, 100), 65535),
    ".apng": _PNG,
    ".png": _PNG,
    ".webp": _Format("libwebp_anim", "bgra", "bgra", Fraction(1, 1000), Fraction(0), webp.MAX_SIDE),
}


def choose(
    facts: Facts, size: Size, target: Path, *, codec: str | None = None, crf: int | None = None,
    preset: str | None = None, lossless: bool = False, quality: int | None = None,
) -> Encoding:  # fmt: skip
    """Settle how an animated picture is written.

    Args:
        size: height and width of the result in samples, as the film is coded.
        codec, crf, preset: asked for; it has none of them.
        lossless: asked for.
        quality: 0 to 100 of a WebP; None: lossless if the film is, else 95.

    Returns:
        How its segments are written: FFV1, in RGB of 8 bits. `Encoding.final` has the options of its encoder.

    Raises:
        UsageError: it cannot hold the film, or has no such option.
    """
    suffix = target.suffix.lower()
    form, title = _FORMATS[suffix], ANIMATED[suffix].title
    for option, given in (("codec", codec), ("crf", crf), ("preset", preset)):
        if given is not None:
            hint = "--quality is for it." if (option, title) == ("crf", "WebP") else ""
            raise UsageError(f"{shown(target)}: {title} has no --{option}.", hint or "Leave it out.")
    if lossless and title == "GIF":
        raise UsageError(f"{shown(target)}: a GIF has 256 colours.", "Write .apng or .webp without loss.")
    if facts.transfer in HDR:
        raise UsageError(f"{shown(target)}: {title} cannot hold HDR.", "Write .mkv or .mp4.")
    mean = (facts.end - facts.times[0]) * facts.time_base / len(facts.times)
    if mean < form.shortest and facts.codec != "gif":
        raise UsageError(
            f"{shown(target)}: players show at most {1 / form.shortest} frames a second of a {title}, "
            f"and the film has {float(1 / mean):.4g}.",
            "Write .webp or .apng.",
        )
    final = square(facts.sample_aspect, size)
    if max(final) > form.side:
        raise UsageError(
            f"{shown(target)}: a {title} has at most {form.side} pixels a side, not {final[1]}x{final[0]}.",
            "Choose a smaller scale.",
        )
    return Encoding(
        codec="ffv1",
        encoder="ffv1",
        options=(("level", "3"), ("slicecrc", "1"), *((("slices", "1"),) if min(final) < 16 else ())),
        pixel_format="bgra" if facts.alpha else "bgr0",
        coding=Coding(8, 0, True),
        alpha=facts.alpha,
        size=final,
        sample_aspect=Fraction(1),
        container=suffix,
        codec_tag="",
        primaries=facts.primaries,
        transfer=facts.transfer,
        threads=processors(),
        notes=tuple(_notes(facts, size, final, title, quality)),
        final=tuple(_options(facts, title, lossless=lossless, quality=quality).items()),
    )


def _options(facts: Facts, title: str, *, lossless: bool, quality: int | None) -> dict[str, str]:
    """Of the encoder that writes the picture itself."""
    if title != "WebP":
        return {}
    if lossless or (quality is None and _is_lossless(facts)):
        return {"lossless": "1"}
    return {"quality": str(95 if quality is None else quality)}


def _notes(facts: Facts, asked: Size, final: Size, title: str, quality: int | None) -> Iterator[str]:
    if quality is not None and title != "WebP":
        yield f"--quality has no effect on {title}."
    if title == "GIF":
        yield "All frames share 256 colours; .apng and .webp hold all colours."
        if facts.alpha:
            yield "A pixel of a GIF is opaque or transparent; .apng and .webp hold what is between."
    if facts.coding.bits > 8:
        yield f"{facts.coding.bits} bits a sample become 8; .mkv holds them."
    if final != asked:
        yield f"Pixels become square, {final[1]}x{final[0]} of them: a {title} has no others."


def _file(facts: Facts) -> Path:
    assert isinstance(facts.path, Path), "animated pictures are not read by ranges"
    return facts.path


def _is_lossless(facts: Facts) -> bool:
    """Whether a film or picture is stored without loss, but for the palette of a GIF."""
    if is_png_or_webp(facts.path):
        header = pictures.probe(_file(facts))
        return header.format == "png" or header.lossless
    return facts.codec in ("gif", "ffv1")


def plays(path: Path) -> int:
    """How often an animated picture is shown; 0: without end, as what is none."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            found = image.info.get("loop")
            repeats = image.format == "GIF"  # which counts those after the first
    except (Image.DecompressionBombError, *pillow.ERRORS):
        return 0
    if found is None:
        return 1 if repeats else 0
    return int(found) + 1 if repeats and found else int(found)


def header_options(encoding: Encoding, facts: Facts, last: Fraction) -> dict[str, str]:
    """Options for the muxer: how often it plays, and for how many seconds its last frame is shown."""
    times = plays(_file(facts))
    if encoding.container == ".gif":  # FFmpeg counts the plays after the first; -1: there are none
        return {"loop": str(times - 1 or -1) if times else "0", "final_delay": str(round(last * 100))}
    if encoding.container == ".webp":
        return {"loop": str(times)}
    return {"plays": str(times), "final_delay": f"{round(last * 10_000)}/10000"}


def fill(
    out: OutputContainer,
    frames: Callable[[], Iterator[tuple[int, VideoFrame]]],
    encoding: Encoding,
    facts: Facts,
) -> None:
    """Write all frames.

    Args:
        out: opened with `header_options`.
        frames: gives them anew at each call, with their times in the film's time base.
    """
    form = _FORMATS[encoding.container]
    height, width = encoding.size[::-1] if facts.turned else encoding.size
    stream: Any = out.add_stream(
        form.encoder, rate=25, options=dict(encoding.final), width=width, height=height
    )
    stream.pix_fmt = form.alpha if encoding.alpha else form.opaque
    stream.codec_context.time_base = stream.time_base = form.tick

    def timed() -> Iterator[VideoFrame]:
        first: Fraction | None = None
        last = -1
        for tick, frame in frames():
            number = facts.number(tick)
            moment = tick * facts.time_base if number is None else facts.seconds(number)
            first = moment if first is None else first
            frame = _upright(frame, facts, encoding)
            frame.pts = last = max(last + 1, round((moment - first) / form.tick))
            frame.time_base = form.tick
            yield frame

    for frame in _with_palette(timed, alpha=encoding.alpha) if form.encoder == "gif" else timed():
        shown_as = frame if frame.format.name == stream.pix_fmt else frame.reformat(format=stream.pix_fmt)
        shown_as.pts, shown_as.time_base = frame.pts, form.tick
        out.mux(stream.encode(shown_as))
    out.mux(stream.encode(None))


def _upright(frame: VideoFrame, facts: Facts, encoding: Encoding) -> VideoFrame:
    """The frame as it is shown, where it is coded turned or mirrored."""
    if facts.display_matrix is None:
        return frame
    form = "bgra" if encoding.alpha else "bgr24"
    pixels: Any = frame.to_ndarray(format=form)
    across, down = facts.display_matrix[0], facts.display_matrix[4]
    if facts.turned:
        pixels = pixels.swapaxes(0, 1)
        across, down = facts.display_matrix[3], facts.display_matrix[1]
    pixels = pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1]
    return VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=form)


def _with_palette(frames: Callable[[], Iterator[VideoFrame]], *, alpha: bool) -> Iterator[VideoFrame]:
    """Frames in 256 colours, the same for all of them, one of which is transparent where it is needed."""
    first = next(frames())
    graph = Graph()
    source: Any = _buffer(graph, first)
    made = graph.add("palettegen", f"reserve_transparent={int(alpha)}")
    graph.link_nodes(source, made, graph.add("buffersink")).configure()
    for frame in frames():
        graph.push(frame)
    graph.push(None)
    palette = graph.vpull()
    palette.pts = 0

    graph = Graph()
    source, colours = _buffer(graph, first), _buffer(graph, palette)
    used: Any = graph.add("paletteuse", "alpha_threshold=128:diff_mode=rectangle")
    source.link_to(used, 0, 0)
    colours.link_to(used, 0, 1)
    used.link_to(graph.add("buffersink"))
    graph.configure()
    colours.push(palette)
    colours.push(None)
    for given in chain(frames(), (None,)):
        source.push(given)
        yield from pulled(graph)


def _buffer(graph: Graph, frame: VideoFrame) -> Any:
    return graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )


def finish(path: Path, encoding: Encoding, facts: Facts, text: str, last: Fraction) -> None:
    """Add what FFmpeg does not write: the last frame's time of a WebP, the metadata of the picture that it is
    of, and what made it.

    Args:
        path: written by `fill`.
        text: what made it; empty: nothing.
        last: seconds for which its last frame is shown.
    """
    suffix = encoding.container
    if suffix == ".gif":
        _add_comments(path, [text.encode(), _comment(_file(facts))])
        return
    metadata = provenance.remove_from(_metadata(facts, encoding))
    if text:
        try:
            packet = xmp.with_value(metadata.xmp or xmp.EMPTY, provenance.RECORD, text)
        except xmp.DamagedError:
            packet = xmp.with_value(xmp.EMPTY, provenance.RECORD, text)
        metadata = replace(metadata, xmp=packet)
    if suffix == ".webp":
        webp.set_last_duration(path, round(last * 1000))
        webp.embed(path, replace(metadata, texts=()))
    else:
        png.embed(path, metadata)


def _metadata(facts: Facts, encoding: Encoding) -> Metadata:
    """Of the picture that a film is; nothing where it is none."""
    try:
        found = pictures.metadata_of(_file(facts))
    except InputError:
        return Metadata()
    return resized(found, (facts.height, facts.width), encoding.size)


def _comment(path: Path) -> bytes:
    """The comment of a GIF, but for what srcli wrote."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            found = bytes(image.info.get("comment", b"")) if image.format == "GIF" else b""
    except (UnidentifiedImageError, OSError, ValueError):
        return b""
    return b"" if provenance.parse_text(found.decode("utf-8", "replace").partition("\n")[0]) else found


def _add_comments(path: Path, texts: Sequence[bytes]) -> None:
    """Before the first frame of a GIF."""
    blocks = b""
    for text in filter(None, texts):
        parts = (text[at : at + 255] for at in range(0, len(text), 255))
        blocks += b"\x21\xfe" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
    with path.open("rb") as file:
        flags = file.read(GIF_HEADER)[10]
    storage.insert(path, GIF_HEADER + gif_palette(flags), blocks)
