"""Picture files in and out: any supported format, 8 or 16 bits, gray to RGBA, with its metadata."""

import errno
import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Literal

import cv2

from srcli.errors import InputError, OutputError, UsageError, shown
from srcli.io import avif, bitmaps, fitting, heif, jpeg, png, tiff, webp
from srcli.io.codec import (
    INCOMPLETE,
    MAX_SAMPLES,
    DamagedError,
    Data,
    EncodeError,
    Layout,
    Pixels,
    Reader,
    TooLargeError,
    Writer,
    translated,
)
from srcli.io.metadata import SIDEWAYS, Metadata, resized, upright
from srcli.io.storage import Scratch, has_space, unfinished
from srcli.settings import DEFAULT_MEMORY, Size

__all__ = [
    "READ_ONLY_SUFFIXES", "SUFFIXES", "Header", "Metadata", "Picture", "check_output", "format_of",
    "kind_of", "metadata_of", "probe", "read", "write", "xmp_of",
]  # fmt: skip

SUFFIXES: Mapping[str, str] = {
    ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".webp": "webp",
    ".tif": "tiff", ".tiff": "tiff", ".bmp": "bmp", ".dib": "bmp", ".avif": "avif",
}  # fmt: skip
"""File name suffix (lower case) -> format; all of these are read and written."""

READ_ONLY_SUFFIXES: Mapping[str, str] = {
    ".gif": "gif", ".apng": "png", ".heic": "heif", ".heif": "heif", ".hif": "heif",
}  # fmt: skip

_READERS: Mapping[str, Reader] = {
    "png": png, "jpeg": jpeg, "webp": webp, "tiff": tiff, "bmp": bitmaps.Bmp(), "avif": avif,
    "gif": bitmaps.Gif(), "heif": heif,
}  # fmt: skip
_WRITERS: Mapping[str, Writer] = {
    "png": png, "jpeg": jpeg, "webp": webp, "tiff": tiff, "bmp": bitmaps.Bmp(), "avif": avif,
}  # fmt: skip

_ENDS: Mapping[str, bytes] = {"png": b"IEND\xae\x42\x60\x82", "jpeg": b"\xff\xd9"}
"""Last bytes of formats whose `check` reads the whole file."""

_OURS = b"urn:srcli:provenance:"
"""What packets hold that `srcli.io.provenance` wrote."""
_SEVERAL = {"tiff": ("several pages", "pages"), "heif": ("several pictures", "pictures")}
_NO_METADATA = Metadata()
_MAX_PIXELS = 1 << 30
_MAX_SIDE = 1 << 20
_MAPPED = 32 << 20
"""Bytes; larger files are mapped instead of read."""

_READABLE = "PNG, JPEG, WebP, TIFF, BMP, AVIF, GIF and HEIC can be read."


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: (H, W) gray, (H, W, 2) gray + alpha, (H, W, 3) RGB or (H, W, 4) RGBA; uint8 0-255 or
            uint16 0-65535, upright; alpha is straight, not multiplied into the colour.
        metadata: EXIF (its orientation reset to 1), ICC, XMP, dpi and the texts of a PNG.
        format: the file's real format: "png", "jpeg", "webp", "tiff", "bmp", "avif", "gif" or "heif".
        notes: what the user should know, one sentence each.
        lossless: a WebP without loss; written as WebP it stays that unless a quality is given.
        order: "RGB" or "BGR": channel order of the pixels in memory. `read` gives RGB; encoders take BGR.
        size: height and width of the pixels that the metadata speak of; None: of these.
    """

    pixels: Pixels
    metadata: Metadata = _NO_METADATA
    format: str = "png"
    notes: tuple[str, ...] = ()
    lossless: bool = False
    order: Literal["RGB", "BGR"] = "RGB"
    size: Size | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """What `read` would give, by the file's header.

    Attributes:
        height, width: upright, in pixels.
        channels: 1 to 4.
        bit_depth: 8 or 16.
        format: the file's real one.
        buffer: bytes that the decoder holds because of how the file is coded.
        copied: bytes of the copy that OpenCV makes of pixels in memory.
        lossless: as of `Picture`.
        frames: of an animation, or pages.
    """

    height: int
    width: int
    channels: int
    bit_depth: int
    format: str
    buffer: int = field(default=0, compare=False)
    copied: int = field(default=0, compare=False)
    lossless: bool = field(default=False, compare=False)
    frames: int = field(default=1, compare=False)

    @property
    def decoder_bytes(self) -> int:
        """What the decoder holds beside the pixels, wherever those go."""
        pixel = 9 if self.format == "webp" else 0
        if self.format == "avif":
            pixel = (38 if self.channels == 4 else 22) * (3 if self.bit_depth == 16 else 2) // 2
        return self.buffer + self.height * self.width * pixel


def format_of(path: Path | str) -> str:
    """The format a file name asks for.

    Raises:
        UsageError: no format has this suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise UsageError(
            f"{shown(path)}: no picture format is written as {suffix!r}.", f"Use one of {known}."
        )
    return SUFFIXES[suffix]


def kind_of(path: Path | str) -> str | None:
    """The format by a file's first bytes, as of `Picture`; None where it is no picture or cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return _sniffed(file.read(64))
    except OSError:
        return None


def probe(path: Path | str) -> Header:
    """Read only the header; the picture data may still turn out to be damaged.

    Raises:
        InputError: missing, unreadable, empty, no picture, or the header is damaged.
    """
    with _mapped(path) as (name, reader, data):
        layout = _layout(reader, data)
        turned = reader.orientation(data, reader.metadata(data)) >= SIDEWAYS
    return _header(name, layout, turned=turned)


def _header(name: str, layout: Layout, *, turned: bool) -> Header:
    size = (layout.width, layout.height) if turned else (layout.height, layout.width)
    samples, item = prod(layout.coded_shape), layout.dtype.itemsize
    copied = max(samples, 2 * samples - layout.height * layout.width * layout.channels) * item
    in_memory = samples > MAX_SAMPLES and name != "tiff"
    return Header(
        *size,
        layout.channels,
        layout.bit_depth,
        name,
        buffer=layout.buffer + (copied if in_memory else 0),
        copied=0 if in_memory else copied,
        lossless=layout.lossless,
        frames=layout.frames,
    )


def metadata_of(path: Path | str) -> Metadata:
    """The metadata alone, as the file has it, its orientation included.

    Raises:
        InputError: missing, unreadable, empty, no picture, or the header is damaged.
    """
    with _mapped(path) as (_, reader, data):
        return reader.metadata(data)


def xmp_of(path: Path | str) -> bytes | None:
    """The XMP packet by a read of the file's start and end: of a PNG the one before the picture data.

    Returns:
        None where there is none.

    Raises:
        InputError: missing, unreadable, empty, no picture, cut off or damaged, as far as start and end tell.
    """
    with _mapped(path) as (name, _, data):
        return _xmp(name, data)


@contextmanager
def _mapped(path: Path | str) -> Iterator[tuple[str, Reader, mmap.mmap]]:
    """A file that is only looked at: its format, who reads it, and its bytes; errors as InputError."""
    with translated(path):
        _refuse_unfit(path)
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield (*_reader(path, data), data)


def _xmp(name: str, data: mmap.mmap) -> bytes | None:
    if name not in _ENDS:
        _READERS[name].check(data)
        return _READERS[name].metadata(data).xmp
    packet = _READERS[name].metadata(png.without_pixels(data) if name == "png" else data).xmp
    # Others may append something; what srcli writes ends here, so it is cut off if it does not.
    if packet and _OURS in packet and not data[-16:].endswith(_ENDS[name]):
        raise DamagedError(f"it is cut off: the end of the {name.upper()} is missing")
    return packet


def read(
    path: Path | str, *, limit: int = DEFAULT_MEMORY, memory: int = DEFAULT_MEMORY, folder: Path | None = None
) -> Picture:
    """Decode a file of any supported format, whatever its name says. Of several frames the first.

    Args:
        path: of the file.
        limit: bytes; larger pixels are decoded into a scratch file.
        memory: bytes that the decoder may take beside them.
        folder: for scratch files; None: the system's temporary folder.

    Raises:
        InputError: missing, unreadable, empty, no picture, cut off, damaged, too large or of a kind
            that cannot be decoded; the message says which. Also where the decoder itself needs more than
            `memory`.
        OutputError: no room for a scratch file.
    """
    scratch = Scratch(limit, folder)
    with translated(path):
        data = _loaded(path)
        name, reader = _reader(path, data)
        layout = _layout(reader, data)
        _refuse_hungry(path, _header(name, layout, turned=False), memory)
        doubt = reader.check(data)
        metadata = reader.metadata(data)
        orientation = reader.orientation(data, metadata)
        pixels = fitting.matching(reader.decode(data, layout, scratch), layout, scratch)
        pixels = fitting.turned(fitting.to_rgb(pixels), orientation, scratch)
    kept, dropped = fitting.profile_of_pixels(upright(metadata), layout)
    notes = (*_reading_notes(path, name, layout, doubt), *dropped)
    size = (pixels.shape[0], pixels.shape[1])
    return Picture(pixels, kept, name, notes, lossless=layout.lossless, size=size)


def _loaded(path: Path | str) -> Data:
    """The file as private memory: copied, or mapped if it is large.

    A mapped file that another process truncates ends this one, so small files are not mapped.
    """
    _refuse_unfit(path)
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MAPPED:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        data = mmap.mmap(-1, size)
        with memoryview(data) as view:
            file.readinto(view)
        return data


def _refuse_hungry(path: Path | str, header: Header, limit: int) -> None:
    needed = header.decoder_bytes
    if needed > limit:
        raise InputError(
            f"{shown(path)}: decoding {header.width}x{header.height} pixels of {header.format.upper()} takes "
            f"{needed / 1e9:.1f} GB of memory.",
            f"Give --memory {-(-2 * needed // (1 << 30))}G or more, or store it as TIFF.",
        )


def _reading_notes(path: Path | str, name: str, layout: Layout, doubt: str) -> Iterator[str]:
    if doubt:
        yield doubt
    suffix = Path(path).suffix.lower()
    expected = SUFFIXES.get(suffix) or READ_ONLY_SUFFIXES.get(suffix)
    if expected not in (None, name):
        yield f"named {suffix} but really {name.upper()}; read as that"
    if layout.colour:
        yield f"its colour description ({layout.colour}) is not kept: colours may look different"
    for what in layout.unkept:
        yield f"its {what} is not kept"
    if layout.frames > 1:
        kind, unit = _SEVERAL.get(name, ("animation", "frames"))
        yield f"{kind}: only the first of {layout.frames} {unit} is used"


def _refuse_unfit(path: Path | str) -> None:
    """Refuse what is no regular file, which may have no end, and empty files, which cannot be mapped."""
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{shown(path)} is not a regular file.", "Store the picture in a file first.")
    if status.st_size == 0:
        raise InputError(f"{shown(path)} is empty.", "Get a fresh copy of the file.")


def _reader(path: Path | str, data: Data) -> tuple[str, Reader]:
    """(format, module) by the file's first bytes."""
    name = _sniffed(data[:64])
    if name is None:
        raise InputError(f"{shown(path)} is not a picture of a known format.", _READABLE)
    return name, _READERS[name]


def _sniffed(start: bytes) -> str | None:
    for magic, name in ((png.MAGIC, "png"), (jpeg.MAGIC, "jpeg"), (b"GIF8", "gif"), (b"BM", "bmp")):
        if start.startswith(magic):
            return name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if start[4:8] != b"ftyp":
        return None
    brands = [start[at : at + 4] for at in range(8, len(start), 4)]
    if b"avif" in brands or b"avis" in brands:
        return "avif"
    return "heif" if any(brand in brands for brand in heif.BRANDS) else None


def _layout(reader: Reader, data: Data) -> Layout:
    """The header, refused if it declares no pixels or more than the decoder takes."""
    layout = reader.layout(data)
    height, width = layout.height, layout.width
    if height <= 0 or width <= 0:
        raise DamagedError(f"its header says {width}x{height} pixels")
    if max(height, width) > _MAX_SIDE or height * width > _MAX_PIXELS:
        limit = f"at most {_MAX_SIDE} a side and {_MAX_PIXELS // 1_000_000} megapixels can be read"
        raise TooLargeError(f"it is too large: {width}x{height} pixels, {limit}")
    return layout


def write(
    path: Path | str,
    picture: Picture,
    *,
    format: str | None = None,  # noqa: A002
    quality: int | None = None,
    keep_dpi: bool = False,
    memory: int = DEFAULT_MEMORY,
    folder: Path | None = None,
) -> tuple[str, ...]:
    """Encode and store a picture: the whole file appears under its name, or nothing does.

    Args:
        path: where to; an existing file is replaced.
        picture: pixels as in `Picture`; its own format and notes are not looked at. Contiguous BGR(A) pixels
            that the format can hold are encoded without any copy.
        format: a value of SUFFIXES; None takes it from the suffix.
        quality: 0-100 for JPEG (default 95, 4:4:4), WebP (95, or lossless as the picture was) and
            AVIF (90); the others are lossless.
        keep_dpi: leave the resolution as it is; else it follows the size, so that prints stay as large.
        memory: bytes that a converted copy of the pixels may take; a larger one goes to a scratch file.
        folder: for the scratch file; None: that of the output.

    Returns:
        What the format could not hold, one sentence each.

    Raises:
        UsageError: no such format or quality.
        OutputError: too large for the format, or the file cannot be written.
    """
    path = Path(path)
    name = format or format_of(path)
    if quality is not None and not 0 <= quality <= 100:
        raise UsageError(f"Quality {quality} is not possible.", "Use 0 to 100.")
    pixels = picture.pixels
    size = (pixels.shape[0], pixels.shape[1])
    check_output(path, size, fitting.channels_of(pixels), pixels.itemsize * 8, format=name)
    scratch = Scratch(memory, folder or path.parent)
    with _written(path, name, size), unfinished(path, f".{name}") as file:
        pixels, changes = fitting.storable(pixels, picture.order, name, scratch)
        metadata, dropped = fitting.holdable(picture.metadata, name, pixels)
        level = webp.LOSSLESS if quality is None and picture.lossless and name == "webp" else quality
        _WRITERS[name].encode(
            file, pixels, level, resized(metadata, picture.size or size, size, keep_dpi=keep_dpi)
        )
    return (*changes, *dropped)


@contextmanager
def _written(path: Path, name: str, size: tuple[int, int]) -> Iterator[None]:
    """Errors of the file system and the encoders as OutputError."""
    try:
        yield
    except (EncodeError, MemoryError, cv2.error) as error:
        raise _refused(path, name, size, str(error) or "not enough memory") from error
    except (OSError, ValueError) as error:
        if error.args == (INCOMPLETE,) and not has_space(path.parent, 8 * prod(size)):
            error = OSError(errno.ENOSPC, INCOMPLETE)  # encoders pass no error numbers on
        hint = "Check that the folder exists, is writable and has space, or choose another with -o."
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise OutputError(f"{shown(path)} cannot be written: {reason}.", hint) from error


def _refused(path: Path | str, name: str, size: tuple[int, int], reason: str) -> OutputError:
    return OutputError(
        f"{shown(path)}: cannot store {size[1]}x{size[0]} pixels as {name.upper()}: {reason}.",
        "Use another format (PNG or TIFF hold the largest pictures) or a smaller scale.",
    )


def check_output(
    path: Path | str,
    size: tuple[int, int],
    channels: int,
    bit_depth: int,
    *,
    format: str | None = None,  # noqa: A002
) -> None:
    """Refuse a picture that its format cannot hold, from its size alone.

    Args:
        path: of the output; its suffix names the format.
        size: (height, width) in pixels.
        channels: 1 to 4.
        bit_depth: 8 or 16.
        format: a value of SUFFIXES instead of that of the suffix.

    Raises:
        UsageError: no such format can be written.
        OutputError: too large; the hint names formats that hold it.
    """
    name = format or format_of(path)
    if name not in _WRITERS:
        raise UsageError(f"No format {name!r} can be written.", f"Use one of {', '.join(_WRITERS)}.")
    limit = fitting.too_large(name, size, channels)
    if limit:
        raise _refused(path, name, size, limit)
