"""Windows bitmaps: 8 bits a channel, no metadata but the resolution."""

import struct

from srcli.io import codec
from srcli.io import metadata as meta
from srcli.io.codec import DamagedError, Data, EncodeError, Layout, Parts, Pixels
from srcli.io.metadata import Metadata

_BITFIELDS = (3, 6)
_RESOLUTION = 38
"""Where the pixels a metre stand, across and down, in headers of 40 bytes and more."""


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
    return codec.decode(data)


def metadata(data: Data) -> Metadata:
    """The resolution, if there is one."""
    if len(data) < _RESOLUTION + 8 or struct.unpack_from("<I", data, 14)[0] < 40:
        return Metadata()
    across, down = struct.unpack_from("<ii", data, _RESOLUTION)
    return Metadata(dpi=meta.resolution(across, down, meta.INCH) if min(across, down) > 0 else None)


def orientation(data: Data, metadata: Metadata) -> int:
    """Always upright."""
    return 1


def encode(pixels: Pixels, quality: int | None, metadata: Metadata) -> Parts:
    """Uncompressed."""
    if pixels.nbytes + pixels.shape[0] * 3 + 1024 > 0xFFFFFFFF:
        raise EncodeError("a BMP can be at most 4 GB")
    plain = codec.encode(".bmp", pixels)
    if not metadata.dpi:
        return (plain,)
    resolution = struct.pack("<ii", *meta.per_metre(metadata.dpi))
    return plain[:_RESOLUTION], resolution, plain[_RESOLUTION + len(resolution) :]
