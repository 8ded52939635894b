"""How a film is written: codec, options, pixel format, size and container, settled before the first frame."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from srcli.errors import UsageError, shown
from srcli.imaging.yuv import Coding
from srcli.io.films import codecs
from srcli.io.films.codecs import ALL_SITINGS, CODECS, HARDWARE, Codec
from srcli.io.films.facts import Facts
from srcli.io.films.source import reason
from srcli.io.films.streams import CONTAINERS, container_of

Size = tuple[int, int]
"""Height and width."""

HDR = (16, 18)
"""Transfers PQ and HLG."""
_4K = 3840 * 2160
_BLOCKS, _BLOCKS_A_SECOND = 36864, 2073600
"""Macroblocks of 16x16 pixels that level 5.2 of H.264 allows, the highest to expect of players."""
_THREADS = 16
"""More threads cost memory and bring little."""
_SUBSAMPLINGS = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411", (4, 4): "410"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How a film is written. Plain values only, so that it can stand in a journal.

    Attributes:
        codec: FFmpeg's canonical name.
        encoder: FFmpeg's name.
        options: of the encoder.
        pixel_format: FFmpeg's name of what the encoder takes.
        coding: what the planes given to it are.
        alpha: whether an alpha plane is given to it too.
        size: height and width of the planes; may differ from what was asked for.
        sample_aspect: of what is written.
        container: suffix, a key of `streams.CONTAINERS`.
        codec_tag: of the stream in the container; empty: the usual one.
        primaries, transfer: AVCOL_PRI_* and AVCOL_TRC_*.
        threads: of the encoder, pinned.
        notes: what is chosen for a reason, changed or left out, one sentence each.
        final: options of the encoder of an animated picture, which is made of FFV1 at the end.
    """

    codec: str
    encoder: str
    options: tuple[tuple[str, str], ...]
    pixel_format: str
    coding: Coding
    alpha: bool
    size: Size
    sample_aspect: Fraction
    container: str
    codec_tag: str
    primaries: int
    transfer: int
    threads: int
    notes: tuple[str, ...] = ()
    final: tuple[tuple[str, str], ...] = ()


def choose(
    facts: Facts,
    size: Size,
    target: Path,
    *,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    lossless: bool = False,
    container: str | None = None,
    threads: int | None = None,
) -> Encoding:
    """Settle how a film is written.

    Args:
        size: height and width of the result in samples, as the film is coded (not turned, not stretched).
        codec: a name of `CODECS`, or FFmpeg's name of a hardware encoder; None: what plays everywhere.
        crf, preset: quality and speed; None: the codec's defaults.
        lossless: FFV1.
        container: "mkv", "mp4" ...; None: by the target's suffix.
        threads: None: as many as there are processors, up to 16.

    Raises:
        UsageError: that is impossible; its hint has the nearest that is possible.
    """
    suffix = f".{container.lower().lstrip('.')}" if container else target.suffix.lower()
    holds = container_of(target.with_suffix(suffix))
    if lossless and codec not in (None, "ffv1"):
        raise UsageError(
            f"{shown(target)}: --lossless writes FFV1, not {codec}.", "Leave out one of the two."
        )
    named = "ffv1" if lossless else codec
    chosen = _named(named) if named else _usual(facts, size, suffix)
    if chosen.canonical not in holds.pictures:
        raise UsageError(f"{shown(target)}: {suffix} cannot hold {chosen.title}.", _instead(chosen, suffix))
    alpha = facts.alpha and chosen.canonical in holds.alpha
    coding, pixel_format = _pixels(facts, chosen, suffix, alpha=alpha)
    final, aspect = _shape(facts, size, chosen, coding, suffix)
    if not chosen.fits(*final):
        raise UsageError(
            f"{shown(target)}: {chosen.title} cannot hold {final[1]}x{final[0]} pixels.",
            _fitting(facts, size, suffix),
        )
    number = threads or processors()
    encoding = Encoding(
        codec=chosen.canonical,
        encoder=chosen.encoder,
        options=tuple(
            codecs.options(
                chosen, coding, final, preset=_preset(chosen, preset), crf=_crf(chosen, crf), alpha=alpha,
                threads=number, library=codecs.hdr10(facts, chosen.encoder),
            ).items()
        ),
        pixel_format=pixel_format,
        coding=coding,
        alpha=alpha,
        size=final,
        sample_aspect=aspect,
        container=suffix,
        codec_tag=_tag(chosen, coding, suffix),
        primaries=facts.primaries,
        transfer=facts.transfer,
        threads=number,
    )  # fmt: skip
    if chosen.encoder.rpartition("_")[2] in HARDWARE:
        _check_opens(encoding, nominal_rate(facts))
    return replace(encoding, notes=tuple(_notes(facts, size, encoding, chosen.title, usual=named is None)))


def _named(name: str) -> Codec:
    """The codec of a name of --codec.

    Raises:
        UsageError: there is none, or it is a hardware encoder that is not in this FFmpeg.
    """
    if name in CODECS:
        return CODECS[name]
    family, _, maker = name.partition("_")
    usual = {"h264": "h264", "hevc": "h265", "av1": "av1", "vp9": "vp9"}.get(family)
    if usual is None or maker not in HARDWARE:
        raise UsageError(
            f"There is no codec {name}.",
            f"Choose one of {', '.join(CODECS)}, or a hardware encoder, e.g. h264_nvenc, hevc_qsv, av1_amf.",
        )
    try:
        formats = {form.name for form in av.Codec(name, "w").video_formats or ()}
    except av.codec.codec.UnknownCodecError as error:
        raise UsageError(f"The encoder {name} is not in this FFmpeg.", f"Use --codec {usual}.") from error
    deep = bool(formats & {"p010le", "yuv420p10le"})
    soft = CODECS[usual]
    return replace(soft, encoder=name, depths=(8, 10) if deep else (8,), preset="", presets=(), even=True)


def _usual(facts: Facts, size: Size, suffix: str) -> Codec:
    """The codec for what plays everywhere: H.264 up to 4K, else H.265; AV1 for more than 8 bits."""
    holds, order = CONTAINERS[suffix], ["h264", "av1", "h265", "vp9"]
    if _is_deep(facts):
        order = ["av1", "h265", "vp9"]
    elif _is_large(facts, size):
        order = ["h265", "av1", "vp9"]
    if facts.alpha and holds.alpha:
        order = ["prores" if suffix == ".mov" else "vp9", *order]
    able = [CODECS[name] for name in order if CODECS[name].canonical in holds.pictures]
    return next((codec for codec in able if codec.fits(*_square(facts, size, codec, suffix))), able[0])


def _check_opens(encoding: Encoding, rate: Fraction) -> None:
    """Refuse an encoder for which there is no hardware here, or not for this picture."""
    try:
        context: Any = av.CodecContext.create(encoding.encoder, "w")
        context.height, context.width = encoding.size
        context.pix_fmt, context.framerate, context.time_base = encoding.pixel_format, rate, 1 / rate
        context.options = dict(encoding.options)
        context.open()
    except (av.error.FFmpegError, ValueError) as error:
        usual = next(name for name, codec in CODECS.items() if codec.canonical == encoding.codec)
        raise UsageError(
            f"The encoder {encoding.encoder} does not open here ({reason(error)}).", f"Use --codec {usual}."
        ) from error


def processors() -> int:
    """Threads that an encoder gets: as many as this process has processors, 16 at most."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_THREADS, found)


def _is_deep(facts: Facts) -> bool:
    return facts.coding.bits > 8 or facts.transfer in HDR


def _is_large(facts: Facts, size: Size) -> bool:
    """Whether a picture is beyond 4K or beyond the level of H.264 that players have."""
    blocks = -(-size[0] // 16) * -(-size[1] // 16)
    return size[0] * size[1] > _4K or blocks > _BLOCKS or blocks * nominal_rate(facts) > _BLOCKS_A_SECOND


def nominal_rate(facts: Facts) -> Fraction:
    """Frames a second to tell an encoder: the mean of a variable rate, and 1 to 240, as encoders want it."""
    span = (facts.times[-1] - facts.times[0]) * facts.time_base
    mean = Fraction(len(facts.times) - 1) / span if span else Fraction(25)
    rate = facts.rate or mean.limit_denominator(1001)
    return min(max(rate, Fraction(1)), Fraction(240))


def _pixels(facts: Facts, codec: Codec, suffix: str, *, alpha: bool) -> tuple[Coding, str]:
    """What planes are made for an encoder, and its pixel format for them."""
    film, bits = facts.coding, max(facts.coding.bits, 10 if facts.transfer in HDR else 8)
    if codec.encoder == "ffv1":
        return _unchanged(facts, alpha=alpha)
    depth = next((depth for depth in codec.depths if depth >= bits), codec.depths[-1])
    sub = (2, 2)
    if codec.canonical == "prores":
        sub = (1, 1) if alpha or (not facts.gray and (film.sub_x, film.sub_y) == (1, 1)) else (2, 1)
    told = ALL_SITINGS if CONTAINERS[suffix].muxer in ("matroska", "webm") else codec.sitings
    siting = film.siting if sub == (2, 2) and film.sub_y == 2 and film.siting in told else "left"
    full = film.full_range and film.matrix != 0 and codec.full_range
    coding = Coding(depth, film.matrix or 1, full, *sub, siting)
    return coding, _packed(codec, f"yuv{'a' if alpha else ''}{_SUBSAMPLINGS[sub]}p{_depth(depth)}")


def _unchanged(facts: Facts, *, alpha: bool) -> tuple[Coding, str]:
    """The film's own pixels for FFV1, of the next depth that it has for their kind."""
    film = facts.coding
    formats = {form.name for form in av.Codec("ffv1", "w").video_formats or ()}
    for sub in ((film.sub_x, film.sub_y), (1, 1)):
        for bits in (depth for depth in CODECS["ffv1"].depths if depth >= film.bits):
            name = f"yuv{'a' if alpha else ''}{_SUBSAMPLINGS[sub]}p{_depth(bits)}"
            if film.matrix == 0 and bits == 8:
                name = "bgra" if alpha else "bgr0"
            elif film.matrix == 0:
                name = f"gbr{'a' if alpha else ''}p{_depth(bits)}"
            elif facts.gray and not alpha:
                name = f"gray{_depth(bits)}"
            if name in formats:
                return Coding(bits, film.matrix, film.full_range, *sub, film.siting), name
    raise UsageError(f"FFV1 cannot hold pixels as {facts.pixel_format}.", "Leave out --lossless.")


def _depth(bits: int) -> str:
    return "" if bits == 8 else f"{bits}le"


def _packed(codec: Codec, name: str) -> str:
    """The pixel format, or the one with paired chroma that most hardware encoders take instead."""
    formats = {form.name for form in av.Codec(codec.encoder, "w").video_formats or ()}
    return name if name in formats else {"yuv420p": "nv12", "yuv420p10le": "p010le"}.get(name, name)


def _shape(facts: Facts, size: Size, codec: Codec, coding: Coding, suffix: str) -> tuple[Size, Fraction]:
    """Height and width, and the aspect ratio of a sample."""
    height, width = _square(facts, size, codec, suffix)
    if codec.even and coding.sub_x == 2:
        width = max(2, width - width % 2)
    if codec.even and coding.sub_y == 2:
        height = max(2, height - height % 2)
    kept = codec.canonical in CONTAINERS[suffix].aspects
    return (height, width), facts.sample_aspect if kept else Fraction(1)


def _square(facts: Facts, size: Size, codec: Codec, suffix: str) -> Size:
    """Height and width, with the shorter side of a pixel stretched where only square ones can be told."""
    return size if codec.canonical in CONTAINERS[suffix].aspects else square(facts.sample_aspect, size)


def square(aspect: Fraction, size: Size) -> Size:
    """Height and width, with the shorter side of a pixel stretched."""
    height, width = size
    return (height, round(width * aspect)) if aspect > 1 else (round(height / aspect), width)


def _preset(codec: Codec, asked: str | None) -> str:
    if asked is None or (codec.presets and asked in codec.presets) or codec.preset == "":
        return asked if asked is not None else codec.preset or ""
    if codec.preset is None:
        raise UsageError(f"{codec.title} has no presets.", "Leave out --preset.")
    raise UsageError(
        f"{codec.title} by {codec.encoder} has no preset {asked}.", f"Choose {', '.join(codec.presets)}."
    )


def _crf(codec: Codec, asked: int | None) -> int:
    if asked is None:
        return codec.crf or 0
    if codec.crf is None:
        raise UsageError(f"{codec.title} has no constant quality.", "Leave out --crf.")
    best, worst = codec.crfs
    if not best <= asked <= worst:
        nearest = min(max(asked, best), worst)
        raise UsageError(
            f"{codec.title} has no quality {asked}.", f"Choose {best} to {worst}, e.g. --crf {nearest}."
        )
    return asked


def _tag(codec: Codec, coding: Coding, suffix: str) -> str:
    if codec.canonical == "prores":
        return "ap4h" if coding.sub_x == 1 else "apch"
    return "hvc1" if codec.canonical == "hevc" and suffix != ".mkv" else ""  # others do not play on Apple's


def _either(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _instead(codec: Codec, suffix: str) -> str:
    others = [other for other, holds in CONTAINERS.items() if codec.canonical in holds.pictures]
    usable = [name for name, other in CODECS.items() if other.canonical in CONTAINERS[suffix].pictures]
    return f"Write {_either(others)}, or choose --codec {_either(usable)}."


def _fitting(facts: Facts, size: Size, suffix: str) -> str:
    """What to do where a picture is too large, or too small, for a codec."""
    for name, codec in CODECS.items():
        if codec.canonical in CONTAINERS[suffix].pictures and codec.fits(
            *_square(facts, size, codec, suffix)
        ):
            return f"Choose --codec {name}{', or a smaller scale' if min(size) > 16 else ''}."
    return "Choose a smaller scale, or --lossless into .mkv."


def _notes(facts: Facts, asked: Size, encoding: Encoding, title: str, *, usual: bool) -> Iterator[str]:
    """What an encoding changes of a film, and why a codec other than H.264 was chosen."""
    film, coding, suffix = facts.coding, encoding.coding, encoding.container
    if usual and encoding.codec in ("av1", "hevc") and "h264" in CONTAINERS[suffix].pictures:
        deep = "the film has more than 8 bits a sample"
        why = deep if _is_deep(facts) else "few players show H.264 this large"
        others = [
            name for name in ("h265", "av1", "h264") if CODECS[name].canonical in CONTAINERS[suffix].pictures
        ]
        other = next(name for name in others if CODECS[name].canonical != encoding.codec)
        yield f"{title} is written, since {why}; --codec {other} is the other choice."
    if facts.alpha and not encoding.alpha:
        able = [name for name, holds in CONTAINERS.items() if holds.alpha]
        yield f"Transparency is laid over white: {title} in {suffix} has none. {_either(able)} can hold it."
    if coding.bits < film.bits:
        yield f"{film.bits} bits a sample become {coding.bits}; --lossless keeps them."
    if film.matrix == 0 and coding.matrix:
        yield "RGB becomes YUV 4:2:0; --lossless keeps it."
    elif not facts.gray and (film.sub_x * film.sub_y < coding.sub_x * coding.sub_y):
        yield f"Colour becomes {':'.join(_SUBSAMPLINGS[coding.sub_x, coding.sub_y])}; --lossless keeps it."
    if film.full_range and not coding.full_range and film.matrix:
        yield f"Full range becomes limited range: {title} has no other."
    if (facts.mastering or facts.light) and not codecs.hdr10(facts, encoding.encoder):
        yield f"The metadata of HDR10 is left out: {encoding.encoder} has none; --codec av1 and h265 have."
    if encoding.sample_aspect != facts.sample_aspect:
        size = f"{encoding.size[1]}x{encoding.size[0]}"
        yield f"Pixels become square, {size} of them: {title} in {suffix} cannot tell of others."
    elif encoding.size != asked:
        yield f"The size is rounded to {encoding.size[1]}x{encoding.size[0]}: {title} needs even sides."
