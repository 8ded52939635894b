"""A film opened for reading: its container, its main video stream and a decoder for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from srcli.errors import InputError, shown
from srcli.io import pillow, remote
from srcli.io.films.signatures import Extent, extent, extent_of, is_film
from srcli.io.remote import Location, Remote

_CONTAINERS = (
    "apng,asf,avi,dv,flv,gif,gxf,h264,hevc,ivf,m4v,matroska,mov,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,vc1,"
    "webm,wtv,yuv4mpegpipe"
)
"""FFmpeg's demuxers that may open a film. Playlists, which open other files, are not among them."""
_NO_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_WITHOUT_LIST = ("mpegts", "mpeg")
"""Containers whose streams are found without a list of them: those of a damaged film may be missing."""
_PATIENT = {"probesize": str(256 << 20), "analyzeduration": str(120_000_000)}
"""Bytes and microseconds that FFmpeg may read to see what streams are; by default 5 MB and 5 s."""
_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""Codecs whose alpha FFmpeg's own decoder leaves out -> the one that has it."""

_BUFFER = 1 << 16
"""Bytes that FFmpeg asks a stream for at once."""
_STAND_IN = "animation.mov"
_NO_DURATION = 100
"""Milliseconds for which players show a frame that says 0."""


@contextmanager
def opened(path: Location) -> Iterator[InputContainer]:
    """A film's container; closed at the end. Nothing of it may be used after that.

    Behind a URL it is read by ranges; what reading raises comes through whatever is done with the container.

    Raises:
        InputError: no file that can be read, or no film.
    """
    if isinstance(path, Remote):
        with remote.ranged(path) as file, _opened(path, file) as container:
            yield container
        return
    if path.is_dir():
        raise InputError(f"{shown(path)} is a folder, not a film.", "Name the films in it.")
    try:
        file_name = f"file:{_playable(path)}"
    except (OSError, ValueError) as error:
        raise _refused(path, error) from error
    with _opened(path, file_name) as container:
        yield container


@contextmanager
def opened_file(file: BinaryIO, name: object) -> Iterator[InputContainer]:
    """The same of a stream that can seek; `name` is for messages.

    Raises:
        InputError: it is no film.
    """
    with _opened(name, file) as container:
        yield container


@contextmanager
def _opened(name: object, file: str | BinaryIO) -> Iterator[InputContainer]:
    """A container; opened once more with patience where a video stream begins late."""
    options = {"format_whitelist": _CONTAINERS}
    if isinstance(file, str):
        options["protocol_whitelist"] = "file"
    try:
        container = _open(file, options)
        if not all(stream.codec_context is None or stream.width for stream in container.streams.video):
            container.close()
            container = _open(file, options | _PATIENT)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _refused(name, error) from error
    with container:
        yield container


def _open(file: str | BinaryIO, options: dict[str, str]) -> InputContainer:
    if not isinstance(file, str):
        file.seek(0)
    return av.open(file, "r", options=options, metadata_errors="replace", buffer_size=_BUFFER)


def _refused(name: object, error: Exception) -> InputError:
    """Why a film cannot be opened, in words."""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{shown(name)} does not exist.", "Check the spelling of the path.")
    if isinstance(error, PermissionError):
        return InputError(f"{shown(name)} may not be read.", "Check the permissions of the file.")
    if isinstance(name, Path) and not _indexed(name):
        return InputError(
            f"{shown(name)} has no index (moov): it is cut off, or its recording was never ended.",
            "Take a whole copy, or repair it with a tool for that.",
        )
    return InputError(
        f"{shown(name)} cannot be opened as a film ({reason(error)}).",
        "It may be cut off or damaged, or no film at all; does a player show it?",
    )


def _playable(path: Path) -> Path:
    """The film that FFmpeg reads in place of a file: that itself, but for some animated pictures."""
    if not is_png_or_webp(path):
        return path
    facts = path.stat()
    return Path(_stand_in(path.absolute(), facts.st_size, facts.st_mtime_ns).name, _STAND_IN)


def extent_at(path: Location) -> Extent:
    """As `extent`, also behind a URL.

    Raises:
        OSError, InputError: it cannot be read.
    """
    if isinstance(path, Path):
        return extent(path)
    with remote.ranged(path) as file:
        return extent_of(file)


def size_of(path: Location) -> int:
    """Bytes of a film."""
    return path.stat().st_size if isinstance(path, Path) else path.size or 0


def is_png_or_webp(path: Location) -> bool:
    """Whether a file is one of the two by its first bytes; what is read by ranges is none."""
    if isinstance(path, Remote):
        return False
    with path.open("rb") as file:
        start = file.read(12)
    return start[:8] == b"\x89PNG\r\n\x1a\n" or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


@lru_cache(maxsize=4)
def _stand_in(path: Path, size: int, modified: int) -> "TemporaryDirectory[str]":
    """A temporary film, PNG in QuickTime, of an animated PNG or WebP.

    FFmpeg 8.1 cannot read such WebP files, and draws some PNG files wrongly.

    Args:
        path, size, modified: of the file; another one under the same name gets a film of its own.

    Returns:
        The folder of the film, which is there as long as this object is.

    Raises:
        OSError, ValueError: the picture is damaged.
    """
    from PIL import Image, ImageSequence

    folder = TemporaryDirectory(prefix="srcli-", ignore_cleanup_errors=True)
    film, tick = str(Path(folder.name, _STAND_IN)), Fraction(1, 10_000)
    try:
        with Image.open(path, formats=["PNG", "WEBP"]) as image, av.open(film, "w", format="mov") as out:
            options, (width, height) = {"compression_level": "1"}, image.size
            stream: Any = out.add_stream("png", rate=25, options=options, width=width, height=height)
            stream.pix_fmt, stream.codec_context.time_base = "rgba", tick
            time = 0.0
            frames = ImageSequence.Iterator(image)
            for picture in islice(frames, int(image.info.get("default_image", False)), None):
                frame = av.VideoFrame.from_ndarray(np.asarray(picture.convert("RGBA")), format="rgba")
                frame.pts, frame.time_base = round(time), tick
                time += (image.info.get("duration") or _NO_DURATION) * 10
                for packet in stream.encode(frame):
                    packet.duration = round(time) - frame.pts
                    out.mux(packet)
            out.mux(stream.encode(None))
    except OSError:
        raise
    except (Image.DecompressionBombError, *pillow.ERRORS) as error:
        raise ValueError(str(error)) from error
    return folder


def _indexed(path: Path) -> bool:
    try:
        return extent(path).indexed
    except OSError:
        return True


def reason(error: BaseException) -> str:
    """What FFmpeg says of an error, in lower case."""
    text = getattr(error, "strerror", None) or str(error)
    return f"{text[:1].lower()}{text[1:]}"


def main_stream(container: InputContainer, path: Location) -> VideoStream:
    """The video stream of a film: of those that are no covers or thumbnails, the default or else largest one.

    Raises:
        InputError: there is none, or none that can be decoded.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & _NO_PICTURES]
    if not streams:
        raise InputError(f"{shown(path)} has no video stream, only {_others(container)}.", "Name a film.")
    able = [stream for stream in streams if stream.codec_context is not None and stream.width]
    if not able:
        raise InputError(
            f"{shown(path)}, stream #{streams[0].index}: its codec is not known, or it has no picture.",
            "Convert the film to another codec first.",
        )
    return max(
        able,
        key=lambda stream: (bool(stream.disposition & Disposition.default), stream.width * stream.height),
    )


def _others(container: InputContainer) -> str:
    kinds = sorted({"a cover" if stream.type == "video" else stream.type for stream in container.streams})
    return " and ".join(kinds) or "nothing"


def is_sound(path: Path) -> bool:
    """Whether a file has sound, perhaps a cover, and no picture. One that cannot be opened is none."""
    try:
        with opened(path) as container:
            kinds = {stream.type for stream in container.streams if not stream.disposition & _NO_PICTURES}
            listed = container.format.name not in _WITHOUT_LIST or is_film(path)
    except InputError:
        return False
    return listed and "audio" in kinds and "video" not in kinds


def only(container: InputContainer, stream: VideoStream) -> None:
    """Let the container pass over all other streams."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all


def alpha_beside(stream: VideoStream) -> bool:
    """Whether the stream has its alpha beside the picture, as VP8 and VP9 do in WebM."""
    return stream.metadata.get("alpha_mode") == "1" and codec_name(stream) in _WITH_ALPHA


def codec_name(stream: VideoStream) -> str:
    """FFmpeg's name of the codec, whatever the decoder is called."""
    return stream.codec_context.codec.canonical_name


def decoder(stream: VideoStream, *, threads: int = 0, by_frame: bool = False) -> VideoCodecContext:
    """A decoder for a stream.

    Args:
        threads: 0: as many as there are processors.
        by_frame: several frames at a time: faster, and some frames later.
    """
    context: Any = stream.codec_context
    if alpha_beside(stream):
        beside: Any = av.CodecContext.create(_WITH_ALPHA[codec_name(stream)], "r")
        beside.extradata = context.extradata
        context = beside
    context.thread_type = "AUTO" if by_frame else "SLICE"
    context.thread_count = threads
    decoding: VideoCodecContext = context
    return decoding
