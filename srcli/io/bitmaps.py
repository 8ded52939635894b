"""Bitmaps of Windows and OS/2 (no metadata but the resolution), and GIF, which is only read."""

import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from srcli.io import codec, pillow, storage
from srcli.io import metadata as meta
from srcli.io.codec import INCOMPLETE, DamagedError, Data, Layout, Pixels, by_rows
from srcli.io.metadata import Metadata
from srcli.io.storage import Scratch

_OS2 = (12, 16, 64)
"""Bytes of the headers of OS/2."""
_PLAIN, _BIT_FIELDS = (0, 1, 2), (3, 6)
"""Kinds of packing: none, run lengths of 8 bits, of 4; masks, masks with alpha."""
_RESOLUTION = 38
"""Where the pixels a metre are, across and down, in headers of 40 bytes and more."""


class Bmp:
    """Reads and writes Windows bitmaps."""

    def layout(self, data: Data) -> Layout:
        """The file header and any of the information headers."""
        try:
            if _is_rare(data):
                with pillow.opened("Bmp", data) as image:
                    return pillow.layout(image)
            size, width, height, _, bits = struct.unpack_from("<IiiHH", data, 14)
            if bits > 8:
                return Layout(abs(height), width, 4 if len(_masks(data)) == 4 else 3)
            used = struct.unpack_from("<I", data, 46)[0] or 1 << bits
            return Layout(abs(height), width, _palette_channels(data, 14 + size, min(used, 1 << bits)))
        except struct.error as error:
            raise DamagedError("its BMP header is cut off") from error

    def check(self, data: Data) -> str:
        """The decoders notice missing rows by themselves."""
        return ""

    def decode(self, data: Data, layout: Layout, scratch: Scratch) -> Pixels:
        """Gray, BGR or BGRA."""
        if masks := _masks(data):
            return _by_masks(data, masks, layout, scratch)
        if not _is_rare(data):
            _drop_unused_colours(data)
            return codec.decode(data, layout.coded_shape, layout.dtype, scratch)
        with pillow.opened("Bmp", data) as image:
            return pillow.pixels(image, layout, scratch)

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


def _is_rare(data: Data) -> bool:
    """Whether OpenCV reads it wrongly or not at all: headers of OS/2, and packings but run lengths."""
    size, _, _, _, bits, packing = struct.unpack_from("<IiiHHI", data, 14)
    return not _masks(data) and (size in _OS2 or bits not in (1, 4, 8, 24, 32) or packing not in _PLAIN)


def _drop_unused_colours(data: Data) -> None:
    """Declare no more colours than a pixel can name, which OpenCV refuses, if all of them are there."""
    start, size, bits, used = (*struct.unpack_from("<II", data, 10), *struct.unpack_from("<H16xI", data, 28))
    if bits <= 8 and 1 << bits < used <= (start - 14 - size) // 4:
        struct.pack_into("<I", data, 46, 1 << bits)


def _masks(data: Data) -> tuple[int, ...]:
    """The bits of a pixel that are blue, green, red and perhaps alpha; empty where no masks tell."""
    size, _, _, _, bits, packing = struct.unpack_from("<IiiHHI", data, 14)
    if size in _OS2 or bits not in (16, 32) or packing not in (0, *_BIT_FIELDS):
        return ()
    if packing == 0:
        return (0x1F, 0x3E0, 0x7C00) if bits == 16 else ()
    red, green, blue = struct.unpack_from("<III", data, 54)
    alpha = struct.unpack_from("<I", data, 66)[0] if size >= 56 or packing == _BIT_FIELDS[1] else 0
    return (blue, green, red, alpha) if alpha else (blue, green, red)


def _by_masks(data: Data, masks: tuple[int, ...], layout: Layout, scratch: Scratch) -> Pixels:
    """Pixels of 16 or 32 bits, in which each channel has bits of its own: spread or rounded to 8."""
    (start,), (height, bits) = struct.unpack_from("<I", data, 10), struct.unpack_from("<i2xH", data, 22)
    step = (layout.width * bits // 8 + 3) // 4 * 4
    if start + step * layout.height > len(data):
        raise DamagedError("it is cut off: part of the BMP picture data is missing")
    rows = np.frombuffer(data, np.uint8, step * layout.height, start).reshape(layout.height, step)
    words = rows.view(f"<u{bits // 8}")[:: 1 if height < 0 else -1, : layout.width]
    out = scratch.empty(layout.coded_shape, np.uint8)
    for channel, mask in enumerate(masks):
        by_rows(partial(_spread, mask), words, out[..., channel])
    return out


def _spread(mask: int, words: Pixels) -> Pixels:
    """The bits of a mask as 8-bit samples over the full range; a channel without bits is 0."""
    low = max(0, (mask & -mask).bit_length() - 1)
    top = max(1, mask >> low)
    return (((words & mask) >> low).astype(np.uint64) * 255 + top // 2) // top


def _palette_channels(data: Data, start: int, colours: int) -> int:
    """1 if the palette holds nothing but grays."""
    table = data[start : start + colours * 4]
    return 1 if table[0::4] == table[1::4] == table[2::4] else 3


class Gif:
    """Reads GIF."""

    def layout(self, data: Data) -> Layout:
        """The logical screen, enlarged to the first frame; alpha if that does not cover it with colours."""
        with pillow.opened("Gif", data) as image:
            clear = "transparency" in image.info or _frame(image) != (0, 0, *image.size)
            return pillow.layout(image, channels=4 if clear else 3, frames=getattr(image, "n_frames", 1))

    def check(self, data: Data) -> str:
        """The decoder notices missing rows by itself; what comes after the first frame is not needed."""
        return ""

    def decode(self, data: Data, layout: Layout, scratch: Scratch) -> Pixels:
        """The first frame, BGR or BGRA; what it leaves free is transparent."""
        with pillow.opened("Gif", data) as image:
            left, top, right, bottom = _frame(image)
            image.load()
            out = scratch.empty(layout.coded_shape, np.uint8)
            out[...] = 0
            pillow.fill(out[top:bottom, left:right], image.crop((left, top, right, bottom)))
            return out

    def metadata(self, data: Data) -> Metadata:
        """None."""
        return Metadata()

    def orientation(self, data: Data, metadata: Metadata) -> int:
        """Always upright."""
        return 1


def _frame(image: Any) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the first frame on the screen; before its pixels are decoded."""
    left, top, right, bottom = image.tile[0].extents
    return left, top, right, bottom
