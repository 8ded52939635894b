"""Windows bitmaps: 8 bits a channel, no metadata but what no reader looks at."""

import struct

from srcli.media.containers import opencv
from srcli.media.containers.base import DamagedError, Data, EncodeError, Layout, Parts, Pixels
from srcli.media.metadata import Metadata

_BITFIELDS = (3, 6)


def layout(data: Data) -> Layout:
    """The file header and any of the information headers."""
    try:
        (size,) = struct.unpack_from("<I", data, 14)
        if size == 12:
            width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
            return Layout(height, width, _palette_channels(data, 26, 3, 1 << bits) if bits <= 8 else 3)
        width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18)
        if bits <= 8:
            used = struct.unpack_from("<I", data, 46)[0] or 1 << bits
            return Layout(abs(height), width, _palette_channels(data, 14 + size, 4, min(used, 1 << bits)))
        alpha = packing in _BITFIELDS and size >= 56 and struct.unpack_from("<I", data, 66)[0]
        return Layout(abs(height), width, 4 if alpha and bits == 32 else 3)
    except struct.error as error:
        raise DamagedError("its BMP header is cut off") from error


def _palette_channels(data: Data, start: int, step: int, colours: int) -> int:
    """1 if the palette holds nothing but grays."""
    table = data[start : start + colours * step]
    return 1 if table[0::step] == table[1::step] == table[2::step] else 3


def check(data: Data) -> str:
    """The decoder notices missing rows by itself."""
    return ""


def decode(data: bytes) -> Pixels:
    """Gray, BGR or BGRA."""
    return opencv.decode(data)


def metadata(data: Data) -> Metadata:
    """None."""
    return Metadata()


def orientation(data: Data, metadata: Metadata) -> int:
    """Always upright."""
    return 1


def encode(pixels: Pixels, quality: int | None, metadata: Metadata) -> Parts:
    """Uncompressed."""
    if pixels.nbytes + pixels.shape[0] * 3 + 1024 > 0xFFFFFFFF:
        raise EncodeError("a BMP can be at most 4 GB")
    return (opencv.encode(".bmp", pixels),)
