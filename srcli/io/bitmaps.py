"""Windows bitmaps (8 bits a channel, no metadata but the resolution) and GIF 89a, which is only read."""

import struct
from pathlib import Path

from srcli.io import codec, storage
from srcli.io import metadata as meta
from srcli.io.codec import INCOMPLETE, DamagedError, Data, Layout, Pixels
from srcli.io.metadata import Metadata
from srcli.io.storage import Scratch

_BITFIELDS = (3, 6)
_RESOLUTION = 38
"""Where the pixels a metre are, across and down, in headers of 40 bytes and more."""
_CUT_OFF = "it is cut off: the end of the GIF is missing"


class Bmp:
    """Reads and writes Windows bitmaps."""

    def layout(self, data: Data) -> Layout:
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

    def check(self, data: Data) -> str:
        """The decoder notices missing rows by itself."""
        return ""

    def decode(self, data: Data, layout: Layout, scratch: Scratch) -> Pixels:
        """Gray, BGR or BGRA."""
        return codec.decode(data, layout.coded_shape, layout.dtype, scratch)

    def metadata(self, data: Data) -> Metadata:
        """The resolution, if there is one."""
        if len(data) < _RESOLUTION + 8 or struct.unpack_from("<I", data, 14)[0] < 40:
            return Metadata()
        across, down = struct.unpack_from("<ii", data, _RESOLUTION)
        return Metadata(dpi=meta.resolution(across, down, meta.INCH) if min(across, down) > 0 else None)

    def orientation(self, data: Data, metadata: Metadata) -> int:
        """Always upright."""
        return 1

    def encode(self, file: Path, pixels: Pixels, quality: int | None, metadata: Metadata) -> None:
        """Uncompressed."""
        codec.encode(file, pixels)
        with file.open("rb") as stream:
            start = stream.read(6)
        if file.stat().st_size != struct.unpack_from("<I", start, 2)[0]:
            raise OSError(INCOMPLETE)
        if metadata.dpi:
            storage.overwrite(file, _RESOLUTION, struct.pack("<ii", *meta.per_metre(metadata.dpi)))


def _palette_channels(data: Data, start: int, step: int, colours: int) -> int:
    """1 if the palette holds nothing but grays."""
    table = data[start : start + colours * step]
    return 1 if table[0::step] == table[1::step] == table[2::step] else 3


class Gif:
    """Reads GIF."""

    def layout(self, data: Data) -> Layout:
        """Logical screen; alpha if the first frame has a transparent colour."""
        try:
            width, height = struct.unpack_from("<HH", data, 6)
            frames, transparent = _walk(data)
        except (IndexError, struct.error) as error:
            raise DamagedError(_CUT_OFF) from error
        return Layout(height, width, 4 if transparent else 3, frames=max(1, frames))

    def check(self, data: Data) -> str:
        """`layout` has followed the blocks to the end."""
        return ""

    def decode(self, data: Data, layout: Layout, scratch: Scratch) -> Pixels:
        """The first frame, BGR or BGRA."""
        return codec.decode(data, layout.coded_shape, layout.dtype, scratch)

    def metadata(self, data: Data) -> Metadata:
        """None."""
        return Metadata()

    def orientation(self, data: Data, metadata: Metadata) -> int:
        """Always upright."""
        return 1


def _walk(data: Data) -> tuple[int, bool]:
    """(frames, transparency of the first), following the blocks to the trailer."""
    position, frames, transparent = 13 + _table(data[10]), 0, False
    while (kind := data[position]) != 0x3B:
        if kind == 0x2C:
            frames += 1
            position = _skip(data, position + 11 + _table(data[position + 9]))
        else:
            if data[position + 1] == 0xF9 and frames == 0:
                transparent = bool(data[position + 3] & 1)
            position = _skip(data, position + 2)
    return frames, transparent


def _table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip(data: Data, position: int) -> int:
    """Past a chain of sub-blocks."""
    while length := data[position]:
        position += length + 1
    return position + 1
