"""What becomes of a film's streams beside the picture: sound, subtitles, chapters, covers, fonts, tags.

Packets are copied, never encoded anew; only text subtitles become the container's own kind where it has but
one. `CONTAINERS` says what each container holds, found by muxing each codec and reading it again. FFmpeg's
answer (avformat_query_codec) is wrong for data, for Opus and covers in MOV and for attachments in MP4:
going by it, writing the header fails, or they are not there afterwards.
"""

import io
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import av
from av.container import InputContainer
from av.stream import Disposition

from srcli.errors import InputError, UsageError, shown
from srcli.io import pictures, provenance, xmp
from srcli.io.films.facts import Facts
from srcli.io.films.signatures import GIF_HEADER, gif_palette
from srcli.io.films.source import opened, opened_file
from srcli.io.provenance import Provenance

log = logging.getLogger(__name__)

Stream: TypeAlias = Any
"""Any stream of PyAV: its types do not say which attributes streams of unknown kind have."""

_PCM = {f"pcm_{kind}" for kind in ("s16be", "s16le", "s24be", "s24le", "s32be", "s32le", "f32le", "f64le")}


@dataclass(frozen=True, slots=True)
class Container:
    """What a container holds. Codecs have FFmpeg's canonical names.

    Attributes:
        muxer: FFmpeg's name.
        pictures: codecs for the film's picture.
        aspects: those of them whose pixels need not be square there.
        alpha: those of them that keep alpha there.
        video, audio, subtitles: codecs of further streams.
        text: the codec that text subtitles of other codecs become.
        covers: codecs of cover pictures.
        attachments: fonts and other files.
        title: of an animated picture, whose frames come from FFV1 (`srcli.io.films.animation`).
    """

    muxer: str
    pictures: frozenset[str]
    aspects: frozenset[str]
    alpha: frozenset[str]
    video: frozenset[str]
    audio: frozenset[str]
    subtitles: frozenset[str]
    text: str
    covers: frozenset[str] = frozenset()
    attachments: bool = False
    title: str = ""


_MP4 = Container(
    muxer="mp4",
    pictures=frozenset({"h264", "hevc", "av1", "vp9"}),
    aspects=frozenset({"h264", "hevc", "av1", "vp9"}),
    alpha=frozenset(),
    video=frozenset({"h264", "hevc", "av1", "vp9", "mpeg4", "mpeg2video", "mjpeg", "png", "jpeg2000"}),
    audio=frozenset({"aac", "ac3", "alac", "dts", "eac3", "flac", "mp2", "mp3", "mp4als", "opus", "vorbis"})
    | {"pcm_f32be", "pcm_f64be", *_PCM},
    subtitles=frozenset({"mov_text", "dvd_subtitle"}),
    text="mov_text",
    covers=frozenset({"mjpeg", "png", "bmp"}),
)

CONTAINERS: dict[str, Container] = {
    ".mkv": Container(
        muxer="matroska",
        pictures=frozenset({"h264", "hevc", "av1", "vp9", "ffv1", "prores"}),
        aspects=frozenset({"h264", "hevc"}),
        alpha=frozenset({"vp9", "ffv1", "prores"}),
        video=frozenset({"h264", "hevc", "av1", "vp9", "vp8", "mpeg4", "mpeg2video", "mpeg1video"})
        | {"mjpeg", "jpeg2000", "prores", "ffv1", "theora", "msmpeg4v3", "snow"},
        audio=frozenset({"aac", "ac3", "alac", "atrac3", "cook", "dts", "eac3", "flac", "mlp", "mp1", "mp2"})
        | {"mp3", "opus", "pcm_u8", "ra_144", "ra_288", "sipr", "truehd", "tta", "vorbis", "wavpack", *_PCM},
        subtitles=frozenset({"ass", "subrip", "text", "webvtt"})
        | {"hdmv_pgs_subtitle", "dvb_subtitle", "dvd_subtitle"},
        text="subrip",
        covers=frozenset({"mjpeg", "png", "gif", "tiff"}),
        attachments=True,
    ),
    ".mp4": _MP4,
    ".m4v": _MP4,
    ".mov": Container(
        muxer="mov",
        pictures=frozenset({"h264", "hevc", "prores"}),
        aspects=frozenset({"h264", "hevc", "prores"}),
        alpha=frozenset({"prores"}),
        video=frozenset({"h264", "hevc", "mpeg4", "mpeg2video", "mjpeg", "png", "jpeg2000", "prores", "h263"})
        | {"cfhd", "cinepak", "dnxhd", "dvvideo", "gif", "magicyuv", "msmpeg4v3", "qtrle", "rawvideo"}
        | {"rpza", "svq1", "svq3", "targa", "tiff", "v210"},
        audio=frozenset({"aac", "ac3", "adpcm_ima_qt", "alac", "amr_nb", "amr_wb", "dts", "eac3", "gsm"})
        | {"ilbc", "mace3", "mace6", "mp1", "mp2", "mp3", "pcm_alaw", "pcm_mulaw", "pcm_s8", "pcm_u8"}
        | {"pcm_f32be", "pcm_f64be", "qcelp", "qdm2", *_PCM},
        subtitles=frozenset({"mov_text", "eia_608"}),
        text="mov_text",
    ),
    ".webm": Container(
        muxer="webm",
        pictures=frozenset({"av1", "vp9"}),
        aspects=frozenset(),
        alpha=frozenset({"vp9"}),
        video=frozenset({"av1", "vp9", "vp8"}),
        audio=frozenset({"opus", "vorbis"}),
        subtitles=frozenset({"webvtt"}),
        text="webvtt",
    ),
}  # fmt: skip
"""By suffix. All hold chapters and tags."""


def _animated(muxer: str, title: str) -> Container:
    none, ffv1 = frozenset[str](), frozenset({"ffv1"})
    return Container(muxer, ffv1, none, ffv1, none, none, none, "", title=title)


ANIMATED: dict[str, Container] = {
    ".gif": _animated("gif", "GIF"),
    ".apng": _animated("apng", "APNG"),
    ".png": _animated("apng", "APNG"),
    ".webp": _animated("webp", "WebP"),
}
"""Animated pictures, by suffix. They hold the picture alone."""

_NOT_CARRIED = {
    "encoder", "encoding_tool", "major_brand", "minor_version", "compatible_brands",
    "duration", "bps", "number_of_frames", "number_of_bytes", "vendor_id", "upscaled_by",
}  # fmt: skip
"""Tags that speak of the file they are in. Matroska's statistics also come with a language: "BPS-eng"."""

_ITUNES_TAGS = {
    "title", "artist", "album_artist", "composer", "album", "date", "encoding_tool", "comment", "genre",
    "copyright", "grouping", "lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords",
    "season_number", "episode_sort", "hd_video", "gapless_playback", "media_type", "track", "disc",
    "compilation", "creation_time", "location", "location-eng", "timecode", "sort_name", "sort_artist",
    "sort_album", "sort_composer", "sort_show",
}  # fmt: skip
"""Tags that MP4 holds where players look for them. Any others need another list of tags, without covers."""

RECORD = "encoding_tool"
"""The tag for what made a film."""
PARTIAL = "srcli, not finished"
"""Its content where not all of a film is there."""
_RECORD_NAMES = (RECORD, "encoder", "upscaled_by")
"""What it is called in MOV, MP4, and Matroska."""

How: TypeAlias = Literal["picture", "copy", "convert", "cover", "attachment"]


@dataclass(frozen=True, slots=True)
class Step:
    """What becomes of a stream of the input that is not dropped.

    Attributes:
        index: of the stream in the input.
        how: "picture" is the stream that is enlarged; a "cover" becomes an attachment.
    """

    index: int
    how: How


@dataclass(frozen=True, slots=True)
class Carried:
    """What a container takes of a film, in words and, for the join, stream by stream.

    Attributes:
        copied: e.g. "audio 1 (aac, ger)".
        converted: e.g. "subtitle 2 (ass, eng) to mov_text".
        dropped: e.g. "subtitle 3 (hdmv_pgs_subtitle): .mp4 cannot hold it, .mkv can".
        steps: the streams kept, in the order of the input.
    """

    copied: tuple[str, ...]
    converted: tuple[str, ...]
    dropped: tuple[str, ...]
    steps: tuple[Step, ...]


def container_of(target: Path) -> Container:
    """The container that a path's suffix names.

    Raises:
        UsageError: no film can be written there.
    """
    suffix = target.suffix.lower()
    try:
        return CONTAINERS.get(suffix) or ANIMATED[suffix]
    except KeyError:
        raise UsageError(
            f"{shown(target)}: no film can be written as {target.suffix or 'a file without suffix'}.",
            f"Choose one of {', '.join((*CONTAINERS, *ANIMATED))}.",
        ) from None


def plan(facts: Facts, target: Path) -> Carried:
    """What becomes of each stream of a film if it is written to `target`. Nothing is written.

    Raises:
        UsageError: no film can be written to `target`.
        InputError: the film cannot be opened.
    """
    container = container_of(target)
    suffix = target.suffix.lower()
    copied, converted, dropped, steps = [], [], [], []
    with opened(facts.path) as film:
        for stream in film.streams:
            how = "picture" if stream.index == facts.index else decide(stream, container)
            if how is None:
                if not _is_made_anew(stream, bool(film.chapters())):
                    dropped.append(f"{described(stream)}: {_who_can(stream, suffix)}")
                continue
            steps.append(Step(stream.index, how))
            if how == "convert":
                converted.append(f"{described(stream)} to {container.text}")
            elif how != "picture":
                copied.append(described(stream))
        lost = _beyond_itunes(tags(film.metadata))
        if lost and container.muxer == "mp4" and any(is_cover(film.streams[step.index]) for step in steps):
            dropped.append(f"tags ({', '.join(lost)}): {suffix} cannot hold them beside a cover, .mkv can")
        if chapters := len(film.chapters()):
            (dropped if container.title else copied).append(f"{chapters} chapters")
    return Carried(tuple(copied), tuple(converted), tuple(dropped), tuple(steps))


def decide(stream: Stream, container: Container) -> How | None:
    """How a container takes a stream that is not the picture; None: not at all."""
    codec = codec_of(stream)
    if stream.disposition & Disposition.timed_thumbnails:
        return None
    if is_cover(stream):
        if codec not in container.covers:
            return None
        return "cover" if container.attachments else "copy"
    if stream.type == "attachment":
        return "attachment" if container.attachments else None
    if stream.codec_context is None or not _has_parameters(stream):
        return None
    held = {"video": container.video, "audio": container.audio, "subtitle": container.subtitles}
    if codec in held.get(stream.type, ()):
        return "copy" if _writes_header(stream, container) else None
    is_text = stream.type == "subtitle" and stream.codec_context.codec.text_sub and codec != "eia_608"
    return "convert" if is_text and container.text else None


def codec_of(stream: Stream) -> str:
    """FFmpeg's canonical name of a stream's codec, "unknown" if there is no decoder for it."""
    if stream.codec_context:
        return str(stream.codec_context.codec.canonical_name)
    return getattr(stream, "name", None) or "unknown"


def is_cover(stream: Stream) -> bool:
    """Whether a stream is a picture that stands for the film. Thumbnails of chapters are none."""
    kind = stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    return bool(stream.type == "video" and kind == Disposition.attached_pic)


def described(stream: Stream) -> str:
    """A stream in words: "audio 1 (aac, ger)"."""
    name = stream.metadata.get("filename") if stream.type == "attachment" else codec_of(stream)
    language = stream.metadata.get("language", "und")
    kind = "cover" if is_cover(stream) else stream.type
    return f"{kind} {stream.index} ({name}{'' if language == 'und' else f', {language}'})"


def tags(metadata: dict[str, str]) -> dict[str, str]:
    """The tags to carry: all but those that speak of the file they were in."""
    return {
        key: value
        for key, value in metadata.items()
        if key.lower().partition("-")[0] not in _NOT_CARRIED and not key.startswith("_STATISTICS")
    }


def named(found: dict[str, str], holds: Container) -> dict[str, str]:
    """Tags by the names that a container takes. Into Matroska, FFmpeg writes no tool but itself."""
    if holds.muxer in ("mp4", "mov"):
        return found
    return {"UPSCALED_BY" if key == "encoding_tool" else key: value for key, value in found.items()}


def header_options(
    holds: Container, found: dict[str, str], carried: Carried, film: InputContainer
) -> dict[str, str]:
    """Options for the muxer of MP4 and MOV: the index in front, so that films play while loading; any tags.

    Without sound, a timecode would hide the chapters: a stream refers to one of them only, and players take
    chapters to which none refers for subtitles.
    """
    if holds.muxer not in ("mp4", "mov"):
        return {}
    covers = any(step.how == "copy" and is_cover(film.streams[step.index]) for step in carried.steps)
    plain = holds.muxer == "mp4" and (covers or not _beyond_itunes(found))
    alone = len(carried.steps) == 1 and film.chapters()
    return {
        "movflags": "+faststart" if plain else "+faststart+use_metadata_tags",
        **({"write_tmcd": "0"} if alone else {}),
    }


def _beyond_itunes(found: dict[str, str]) -> list[str]:
    """The tags for which MP4's usual list has no place."""
    return [key for key in found if key.lower() not in _ITUNES_TAGS]


def layout_of(stream: Stream) -> str | None:
    """The layout to assume for sound of which only the number of channels is known; MP4 needs one for PCM."""
    if stream.type == "audio" and stream.codec_context.layout.name.endswith("channels"):
        return {1: "mono", 2: "stereo"}.get(stream.codec_context.channels)
    return None


def _has_parameters(stream: Stream) -> bool:
    """Whether enough was found in the file to describe the stream in another one."""
    context = stream.codec_context
    needed = {"audio": ("sample_rate", "channels"), "video": ("width", "height")}.get(stream.type, ())
    return all(getattr(context, name) for name in needed)


def _writes_header(stream: Stream, container: Container) -> bool:
    """Whether the muxer writes a header for the stream, tried in memory."""
    try:
        with av.open(io.BytesIO(), "w", format=container.muxer) as out:
            added: Stream = out.add_stream_from_template(stream, opaque=True)
            if layout := layout_of(stream):
                added.codec_context.layout = layout
            out.start_encoding()
    except (av.error.FFmpegError, ValueError) as error:
        log.debug("%s in %s: %s", described(stream), container.muxer, error)
        return False
    return True


def _is_made_anew(stream: Stream, chapters: bool) -> bool:
    """Whether a data stream of MP4 or MOV only repeats the chapters or the timecode, which are carried."""
    return stream.type == "data" and (
        "timecode" in stream.metadata or (chapters and codec_of(stream) == "bin_data")
    )


def _who_can(stream: Stream, suffix: str) -> str:
    able = [other for other in CONTAINERS if decide(stream, CONTAINERS[other])]
    return (
        f"{suffix} cannot hold it, {able[0]} can" if able else "no container that is written here can hold it"
    )


def record_of(path: Path) -> Provenance | None:
    """What made a film, by its tag; None where it says nothing of srcli.

    Raises:
        InputError: it cannot be opened.
    """
    return _first_record(_made_by(path))


def record_in(file: BinaryIO, name: object) -> Provenance | None:
    """The same of a stream that can seek, which holds no animated picture; `name` is for messages.

    Raises:
        InputError: it is no film.
    """
    with opened_file(file, name) as film:
        return _first_record(_tags(film))


def _first_record(texts: Sequence[str]) -> Provenance | None:
    return next((record for text in texts if (record := provenance.parse_text(text)) is not None), None)


def is_partial(path: Path) -> bool:
    """Whether a film is one that srcli began.

    Raises:
        InputError: it cannot be opened.
    """
    return PARTIAL in _made_by(path)


def _made_by(path: Path) -> list[str]:
    if path.suffix.lower() in ANIMATED:
        return [_picture_made_by(path)]
    with opened(path) as film:
        return _tags(film)


def _tags(film: InputContainer) -> list[str]:
    found = {key.lower(): value for key, value in film.metadata.items()}
    return [found[name] for name in _RECORD_NAMES if name in found]


def _picture_made_by(path: Path) -> str:
    """The record in an animated picture: in its XMP, or in the first comment of a GIF; empty: none."""
    if path.suffix.lower() != ".gif":
        packet = pictures.xmp_of(path)
        with suppress(ValueError):
            return xmp.value(packet, provenance.RECORD) or "" if packet else ""
        return ""
    with path.open("rb") as file:
        head = file.read(GIF_HEADER)
        if head[:4] != b"GIF8" or len(head) < GIF_HEADER:
            raise InputError(f"{shown(path)} cannot be read as a GIF.", "Is it damaged?")
        file.seek(gif_palette(head[10]), 1)
        if file.read(2) != b"\x21\xfe":
            return ""
        text = b""
        while (size := file.read(1)) and size[0]:
            text += file.read(size[0])
    return text.decode("utf-8", "replace")
