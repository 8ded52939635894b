"""WebP (RFC 9649): RIFF chunks; EXIF, ICCP and XMP in the extended form (VP8X)."""

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import cv2

from srcli.io import codec, storage
from srcli.io import metadata as meta
from srcli.io.codec import INCOMPLETE, DamagedError, Data, Layout, Pixels
from srcli.io.metadata import Metadata
from srcli.io.storage import Scratch

MAX_SIDE = 16383
LOSSLESS = 101
"""The quality that stands for VP8L, beyond the lossy scale; colour under alpha 0 may change all the same."""

_EXTENDED_END = 12 + 8 + 10
"""Where VP8X ends, which stands first."""
_ALPHA, _EXIF_FLAG, _XMP_FLAG, _ICC_FLAG = 0x10, 0x08, 0x04, 0x20


def _chunks(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk the RIFF header counts."""
    stop = 8 + struct.unpack_from("<I", data, 4)[0]
    position = 12
    while position + 8 <= min(stop, len(data)):
        kind, length = struct.unpack_from("<4sI", data, position)
        yield kind, position + 8, position + 8 + length
        position += 8 + length + length % 2


def layout(data: Data) -> Layout:
    """VP8X, VP8L or VP8, whichever comes first."""
    kind, start, _ = next(_chunks(data), (b"", 0, 0))
    try:
        if kind == b"VP8X":
            return _extended(data, start)
        if kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, start + 1)
            sides = (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
            return Layout(*sides, 4 if bits >> 28 & 1 else 3, lossless=True)
        if kind == b"VP8 " and data[start + 3 : start + 6] == b"\x9d\x01\x2a":
            width, height = struct.unpack_from("<HH", data, start + 6)
            return Layout(height & 0x3FFF, width & 0x3FFF, 3)
    except struct.error:
        pass
    raise DamagedError("its WebP header is damaged or cut off")


def _extended(data: Data, start: int) -> Layout:
    flags, *sides = struct.unpack_from("<BxxxHBHB", data, start)
    width, height = sides[0] + (sides[1] << 16) + 1, sides[2] + (sides[3] << 16) + 1
    frames = sum(kind == b"ANMF" for kind, _, _ in _chunks(data))
    return Layout(
        height, width, 4 if flags & _ALPHA else 3, frames=max(1, frames), lossless=_is_lossless(data)
    )


def _is_lossless(data: Data) -> bool:
    """Whether the first picture is stored as VP8L, by itself or as the first frame."""
    for kind, start, _ in _chunks(data):
        inner = data[start + 16 : start + 20] if kind == b"ANMF" else kind
        if inner in (b"VP8L", b"VP8 ", b"ALPH"):
            return inner == b"VP8L"
    return False


def check(data: Data) -> str:
    """As long as its header says. Bytes after that are allowed."""
    if len(data) < 12 or len(data) < 8 + struct.unpack_from("<I", data, 4)[0]:
        raise DamagedError("it is cut off: the end of the WebP is missing")
    return ""


def decode(data: Data, layout: Layout, scratch: Scratch) -> Pixels:
    """BGR or BGRA; of an animation the first frame."""
    return codec.decode(data, layout.coded_shape, layout.dtype, scratch)


def metadata(data: Data) -> Metadata:
    """The EXIF, ICCP and XMP chunks."""
    found = {
        kind: data[start:end] for kind, start, end in _chunks(data) if kind in (b"EXIF", b"ICCP", b"XMP ")
    }
    return Metadata(
        meta.bare_exif(found.get(b"EXIF", b"")), found.get(b"ICCP") or None, found.get(b"XMP ") or None
    )


def orientation(data: Data, metadata: Metadata) -> int:
    """From EXIF, else XMP."""
    return meta.orientation(metadata)


def encode(file: Path, pixels: Pixels, quality: int | None, metadata: Metadata) -> None:
    """8-bit gray, BGR or BGRA; quality 0-100, 95 if not given, or LOSSLESS."""
    codec.encode(file, pixels, (cv2.IMWRITE_WEBP_QUALITY, 95 if quality is None else quality))
    with file.open("rb") as stream:
        start = stream.read(_EXTENDED_END)
    if file.stat().st_size != 8 + struct.unpack_from("<I", start, 4)[0]:
        raise OSError(INCOMPLETE)
    embed(file, metadata)


def embed(file: Path, metadata: Metadata) -> None:
    """Put EXIF, ICCP and XMP into a file that has none of them, in the order the format asks for."""
    if not (metadata.exif or metadata.icc or metadata.xmp):
        return
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start, shape = data[:_EXTENDED_END], layout(data)
    height, width = shape.height, shape.width
    flags = (
        (_ICC_FLAG if metadata.icc else 0)
        | (_EXIF_FLAG if metadata.exif else 0)
        | (_XMP_FLAG if metadata.xmp else 0)
        | (start[20] if start[12:16] == b"VP8X" else _has_alpha(start))
    )
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    head = _chunk(b"VP8X", struct.pack("<I", flags) + sides)
    profile = _chunk(b"ICCP", metadata.icc or b"")
    if start[12:16] == b"VP8X":
        storage.overwrite(file, 12, head)
        storage.insert(file, _EXTENDED_END, profile)
    else:
        storage.insert(file, 12, head + profile)
    storage.overwrite(
        file,
        file.stat().st_size,
        _chunk(b"EXIF", metadata.exif or b"") + _chunk(b"XMP ", metadata.xmp or b""),
    )
    storage.overwrite(file, 4, struct.pack("<I", file.stat().st_size - 8))


def set_last_duration(file: Path, milliseconds: int) -> None:
    """Say how long the last frame of an animation is shown."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        frames = [start for kind, start, _ in _chunks(data) if kind == b"ANMF"]
    if frames:
        storage.overwrite(file, frames[-1] + 12, struct.pack("<I", milliseconds)[:3])


def _has_alpha(start: bytes) -> int:
    """The flag for alpha of a lossless picture without the extended form."""
    return _ALPHA if start[12:16] == b"VP8L" and start[24] >> 4 & 1 else 0


def _chunk(kind: bytes, body: bytes) -> bytes:
    """A RIFF chunk, padded to an even length; nothing for an empty body."""
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2) if body else b""
