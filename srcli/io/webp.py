"""WebP (RFC 9649): RIFF chunks; EXIF, ICCP and XMP in the extended form (VP8X)."""

import struct
from collections.abc import Iterator

import cv2

from srcli.io import codec
from srcli.io import metadata as meta
from srcli.io.codec import DamagedError, Data, EncodeError, Layout, Parts, Pixels
from srcli.io.metadata import Metadata

MAX_SIDE = 16383
LOSSLESS = 101
"""The quality that stands for VP8L, beyond the lossy scale; colour under alpha 0 may change all the same."""

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


def decode(data: bytes) -> Pixels:
    """BGR or BGRA; of an animation the first frame."""
    return codec.decode(data)


def metadata(data: Data) -> Metadata:
    """The EXIF, ICCP and XMP chunks."""
    found = {
        kind: data[start:end] for kind, start, end in _chunks(data) if kind in (b"EXIF", b"ICCP", b"XMP ")
    }
    return Metadata(
        meta.bare_exif(found.get(b"EXIF", b"")), found.get(b"ICCP") or None, found.get(b"XMP ") or None
    )


def orientation(data: Data, metadata: Metadata) -> int:
    """From EXIF."""
    return meta.orientation(metadata.exif)


def encode(pixels: Pixels, quality: int | None, metadata: Metadata) -> Parts:
    """8-bit gray, BGR or BGRA; quality 0-100, 95 if not given, or LOSSLESS."""
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_SIDE:
        raise EncodeError(f"a WebP can be at most {MAX_SIDE} pixels a side")
    level = 95 if quality is None else quality
    plain = codec.encode(".webp", pixels, (cv2.IMWRITE_WEBP_QUALITY, level))
    extended = metadata.exif or metadata.icc or metadata.xmp
    return _extend(bytes(plain), metadata) if extended else (plain,)


def _extend(plain: bytes, metadata: Metadata) -> Parts:
    """The extended form: VP8X, ICCP, picture, EXIF, XMP, in the order the format asks for."""
    shape = layout(plain)
    picture = {kind: plain[start:end] for kind, start, end in _chunks(plain) if kind != b"VP8X"}
    flags = (
        (_ALPHA if shape.channels == 4 else 0)
        | (_ICC_FLAG if metadata.icc else 0)
        | (_EXIF_FLAG if metadata.exif else 0)
        | (_XMP_FLAG if metadata.xmp else 0)
    )
    sides = struct.pack("<I", shape.width - 1)[:3] + struct.pack("<I", shape.height - 1)[:3]
    before = ((b"VP8X", struct.pack("<I", flags) + sides), (b"ICCP", metadata.icc))
    after = ((b"EXIF", metadata.exif), (b"XMP ", metadata.xmp))
    chunks = b"".join(_chunk(kind, body) for kind, body in (*before, *picture.items(), *after) if body)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP", chunks


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
