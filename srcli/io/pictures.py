"""Picture files in and out: any supported format, 8 or 16 bits, gray to RGBA, with its metadata."""

import mmap
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2

from srcli.errors import InputError, OutputError, UsageError
from srcli.io import avif, bmp, fitting, gif, jpeg, png, tiff, webp
from srcli.io.codec import DamagedError, Data, EncodeError, Layout, Parts, Pixels, Reader, Writer
from srcli.io.metadata import SIDEWAYS, Metadata, resized, upright
from srcli.io.storage import write_whole

__all__ = [
    "READ_ONLY_SUFFIXES", "SUFFIXES", "Header", "Metadata", "Picture", "format_of", "probe", "read",
    "use_up", "write",
]  # fmt: skip

SUFFIXES: Mapping[str, str] = {
    ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".jpe": "jpeg", ".jfif": "jpeg", ".webp": "webp",
    ".tif": "tiff", ".tiff": "tiff", ".bmp": "bmp", ".dib": "bmp", ".avif": "avif",
}  # fmt: skip
"""File name suffix (lower case) -> format; all of these are read and written."""

READ_ONLY_SUFFIXES: Mapping[str, str] = {".gif": "gif", ".apng": "png"}

_READERS: Mapping[str, Reader] = {
    "png": png, "jpeg": jpeg, "webp": webp, "tiff": tiff, "bmp": bmp, "avif": avif, "gif": gif,
}  # fmt: skip
_WRITERS: Mapping[str, Writer] = {
    "png": png, "jpeg": jpeg, "webp": webp, "tiff": tiff, "bmp": bmp, "avif": avif,
}  # fmt: skip

_NO_METADATA = Metadata()
_MAX_PIXELS = 1 << 30
_MAX_SIDE = 1 << 20
_READABLE = "PNG, JPEG, WebP, TIFF, BMP, AVIF and GIF can be read."


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: (H, W) gray, (H, W, 2) gray + alpha, (H, W, 3) RGB or (H, W, 4) RGBA; uint8 0-255 or
            uint16 0-65535, upright; alpha is straight, not multiplied into the colour.
        metadata: EXIF (its orientation reset to 1), ICC, XMP, dpi and the texts of a PNG.
        format: the file's real format: "png", "jpeg", "webp", "tiff", "bmp", "avif" or "gif".
        notes: what the user should know, one sentence each.
        lossless: a WebP without loss; written as WebP it stays that unless a quality is given.
    """

    pixels: Pixels
    metadata: Metadata = _NO_METADATA
    format: str = "png"
    notes: tuple[str, ...] = ()
    lossless: bool = False


@dataclass(frozen=True, slots=True)
class Header:
    """What `read` would give: upright size in pixels, channels 1-4, bit depth 8 or 16, real format."""

    height: int
    width: int
    channels: int
    bit_depth: int
    format: str


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


def shown(path: Path | str) -> str:
    """A path for messages: as it is, or quoted and escaped if it holds line breaks and the like."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def probe(path: Path | str) -> Header:
    """Read only the header; the picture data may still turn out to be damaged.

    Raises:
        InputError: missing, unreadable, empty, no picture, or the header is damaged.
    """
    with _translated(path):
        _refuse_unfit(path)
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            name, reader = _reader(path, data)
            layout = _layout(reader, data)
            turned = reader.orientation(data, reader.metadata(data)) >= SIDEWAYS
    size = (layout.width, layout.height) if turned else (layout.height, layout.width)
    return Header(*size, layout.channels, layout.bit_depth, name)


def read(path: Path | str) -> Picture:
    """Decode a file of any supported format, whatever its name says. Of several frames the first.

    Raises:
        InputError: missing, unreadable, empty, no picture, cut off, damaged, too large or of a kind
            that cannot be decoded; the message says which.
    """
    with _translated(path):
        _refuse_unfit(path)
        data = Path(path).read_bytes()
        name, reader = _reader(path, data)
        layout = _layout(reader, data)
        doubt = reader.check(data)
        pixels = fitting.to_rgb(fitting.matching(reader.decode(data), layout))
        metadata = reader.metadata(data)
        pixels = fitting.turned(pixels, reader.orientation(data, metadata))
    kept, dropped = fitting.profile_of_pixels(upright(metadata), layout)
    notes = (*_reading_notes(path, name, layout, doubt), *dropped)
    return Picture(pixels, kept, name, notes, lossless=layout.lossless)


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
        kind = "several pages" if name == "tiff" else "animation"
        unit = "pages" if name == "tiff" else "frames"
        yield f"{kind}: only the first of {layout.frames} {unit} is used"


class TooLargeError(DamagedError):
    """More pixels than can be decoded."""

    hint = "Cut it into parts, or store it smaller."


@contextmanager
def _translated(path: Path | str) -> Iterator[None]:
    """Errors of the file system and the decoders as InputError."""
    try:
        yield
    except IsADirectoryError as error:
        raise InputError(f"{shown(path)} is a folder, not a picture.", "Name the files in it.") from error
    except FileNotFoundError as error:
        raise InputError(f"{shown(path)} does not exist.", "Check the spelling of the path.") from error
    except PermissionError as error:
        raise InputError(f"{shown(path)} may not be read.", "Check the permissions of the file.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{shown(path)} cannot be read ({error}).") from error
    except MemoryError as error:
        raise InputError(f"{shown(path)} does not fit into memory.", "Use a smaller picture.") from error
    except DamagedError as error:
        raise InputError(f"{shown(path)} cannot be used: {error}.", error.hint) from error


def _refuse_unfit(path: Path | str) -> None:
    """Devices and pipes could be read for ever; an empty file cannot be mapped."""
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
    return "avif" if start[4:8] == b"ftyp" and (b"avif" in start or b"avis" in start) else None


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
) -> tuple[str, ...]:
    """Encode and store a picture: the whole file appears under its name, or nothing does.

    Args:
        path: where to; an existing file is replaced.
        picture: pixels as in `Picture`; its own format and notes are not looked at.
        format: a value of SUFFIXES; None takes it from the suffix.
        quality: 0-100 for JPEG (default 95, 4:4:4), WebP (95, or lossless as the picture was) and
            AVIF (90); the others are lossless.

    Returns:
        What the format could not hold, one sentence each.

    Raises:
        UsageError: no such format or quality.
        OutputError: too large for the format, or the file cannot be written.
    """
    return _write(path, picture, format, quality, fitting.to_bgr)


def use_up(
    path: Path | str,
    picture: Picture,
    *,
    format: str | None = None,  # noqa: A002
    quality: int | None = None,
) -> tuple[str, ...]:
    """As `write`, for pixels that nobody needs any more: their own memory is what the encoder reads.

    It saves the copy in the encoder's channel order, a gigabyte for 384 megapixels.
    """
    return _write(path, picture, format, quality, fitting.turn_to_bgr)


def _write(
    path: Path | str,
    picture: Picture,
    format: str | None,  # noqa: A002
    quality: int | None,
    to_bgr: Callable[[Pixels], Pixels],
) -> tuple[str, ...]:
    name = format or format_of(path)
    if name not in _WRITERS:
        raise UsageError(f"No format {name!r} can be written.", f"Use one of {', '.join(_WRITERS)}.")
    if quality is not None and not 0 <= quality <= 100:
        raise UsageError(f"Quality {quality} is not possible.", "Use 0 to 100.")
    level = webp.LOSSLESS if quality is None and picture.lossless and name == "webp" else quality
    pixels, changes = fitting.storable(picture.pixels, name)
    metadata, dropped = fitting.holdable(picture.metadata, name, pixels)
    metadata = resized(metadata, *pixels.shape[:2])
    try:
        parts = _WRITERS[name].encode(to_bgr(pixels), level, metadata)
    except (EncodeError, MemoryError, cv2.error) as error:
        size = f"{pixels.shape[1]}x{pixels.shape[0]} pixels"
        reason = str(error) or "not enough memory"
        hint = "Use another format (PNG or TIFF hold the largest pictures) or a smaller scale."
        raise OutputError(f"{shown(path)}: cannot store {size} as {name.upper()}: {reason}.", hint) from error
    _commit(Path(path), parts)
    return (*changes, *dropped)


def _commit(path: Path, parts: Parts) -> None:
    """Store a file, whole or not at all."""
    try:
        write_whole(path, parts)
    except (OSError, ValueError) as error:
        hint = "Check that the folder exists, is writable and has space, or choose another with -o."
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise OutputError(f"{shown(path)} cannot be written: {reason}.", hint) from error
