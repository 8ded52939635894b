"""AVIF (ISO/IEC 23000-22 over ISO/IEC 14496-12 boxes and HEIF items)."""

import mmap
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from srcli.io import codec, pillow
from srcli.io import metadata as meta
from srcli.io.codec import INCOMPLETE, DamagedError, Data, Layout, Pixels, by_rows, widen
from srcli.io.metadata import Metadata
from srcli.io.storage import Scratch

MAX_SIDE = 32768
MAX_PIXELS = 1 << 28
"""What AVIF readers accept by default."""

_DEFAULT_QUALITY = 90
_SPEED = 9  # 55 ms a megapixel on one core; 8 takes 175 ms for 6% smaller files
_MONOCHROME, _TWELVE, _HIGH = 0x10, 0x20, 0x40
"""Flags of av1C: gray; 12 bits rather than 10; more than 8."""
_UNKNOWN = b"skIp"  # a type of item that no reader knows
DEPTH = 12
"""Bits a channel of what is written from 16."""
# EXIF orientation of (quarter turns anticlockwise, mirror axis or None), turned first, then mirrored.
_TURNS = {
    (0, None): 1, (1, None): 8, (2, None): 3, (3, None): 6,
    (0, 0): 4, (1, 0): 5, (2, 0): 2, (3, 0): 7,
    (0, 1): 2, (1, 1): 7, (2, 1): 4, (3, 1): 5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Box:
    kind: bytes
    start: int
    end: int


def _boxes(data: Data, start: int, end: int) -> Iterator[_Box]:
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        body = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        stop = end if size == 0 else start + size
        if stop > end or stop < body:
            raise DamagedError("it is cut off: part of the AVIF is missing")
        yield _Box(kind, body, stop)
        start = stop


def _inside(data: Data, box: _Box, *path: bytes, skip: int = 0) -> _Box | None:
    """The first box at a path of types below `box`."""
    for child in _boxes(data, box.start + skip, box.end):
        if child.kind == path[0]:
            deeper = path[1:]
            return _inside(data, child, *deeper) if deeper else child
    return None


def _meta(data: Data) -> dict[bytes, _Box]:
    """The boxes inside the file's meta box."""
    box = _inside(data, _Box(b"", 0, len(data)), b"meta")
    if box is None:
        raise DamagedError("its AVIF header is missing")
    return {child.kind: child for child in _boxes(data, box.start + 4, box.end)}


def _properties(data: Data, parts: dict[bytes, _Box]) -> list[_Box]:
    """The properties of the primary picture, in order; all there are where it lists none."""
    every = _inside(data, parts[b"iprp"], b"ipco")
    table = _inside(data, parts[b"iprp"], b"ipma")
    if every is None or table is None:
        raise DamagedError("its AVIF header is damaged")
    boxes = list(_boxes(data, every.start, every.end))
    primary = int.from_bytes(data[parts[b"pitm"].start + 4 : parts[b"pitm"].end], "big")
    chosen = dict(_associations(data, table)).get(primary, ())
    return [boxes[i - 1] for i in chosen if 0 < i <= len(boxes)] or boxes


def _associations(data: Data, table: _Box) -> Iterator[tuple[int, list[int]]]:
    """(item, its property numbers from 1) of an ipma box."""
    version, flags, number = struct.unpack_from(">B2xBI", data, table.start)
    position = table.start + 8
    key, index = (">IB" if version else ">HB"), (">H" if flags & 1 else ">B")
    width = struct.calcsize(index)
    for _ in range(number):
        item, count = struct.unpack_from(key, data, position)
        position += struct.calcsize(key)
        raw = (struct.unpack_from(index, data, position + i * width)[0] for i in range(count))
        yield item, [value & (0x7FFF if flags & 1 else 0x7F) for value in raw]
        position += count * width


def _name(data: Data, box: _Box) -> bytes:
    """The type; an ICC profile, which shares its box type with coded colour numbers, is called "prof"."""
    is_profile = box.kind == b"colr" and data[box.start : box.start + 4] in (b"prof", b"rICC")
    return b"prof" if is_profile else box.kind


def _parsed(data: Data) -> tuple[dict[bytes, _Box], dict[bytes, _Box]]:
    """(boxes of meta, properties of the primary picture by type)."""
    try:
        parts = _meta(data)
        return parts, {_name(data, box): box for box in _properties(data, parts)}
    except (KeyError, struct.error) as error:
        raise DamagedError("its AVIF header is damaged or cut off") from error


def layout(data: Data) -> Layout:
    """Size, depth and channels of the primary picture; frames of the first track."""
    parts, own = _parsed(data)
    if b"ispe" not in own:
        raise DamagedError("its AVIF header is damaged")
    width, height = struct.unpack_from(">II", data, own[b"ispe"].start + 4)
    alpha = any(box.kind == b"auxC" and b"alpha" in data[box.start : box.end] for box in _every(data, parts))
    flags = _flags(data, parts, own)
    colour = 1 if flags & _MONOCHROME else 3
    return Layout(
        height,
        width,
        colour + alpha,
        16 if flags & _HIGH else 8,
        _frames(data),
        colour=_colour(data, own),
        buffer=width * height * pillow.PIXEL if colour + alpha == 1 else 0,
    )


def _every(data: Data, parts: dict[bytes, _Box]) -> list[_Box]:
    """The properties of all items."""
    box = _inside(data, parts[b"iprp"], b"ipco")
    return list(_boxes(data, box.start, box.end)) if box else []


def _flags(data: Data, parts: dict[bytes, _Box], own: dict[bytes, _Box]) -> int:
    """How the primary picture is coded (av1C); of a grid, which is not coded itself, as its first part is."""
    code = own.get(b"av1C") or next((box for box in _every(data, parts) if box.kind == b"av1C"), None)
    if code is None or code.end - code.start < 3:
        raise DamagedError("its AVIF header is damaged")
    return data[code.start + 2]


def _colour(data: Data, own: dict[bytes, _Box]) -> str:
    """Colour primaries and transfer curve, if they are neither sRGB's nor left to an ICC profile."""
    if b"prof" in own or b"colr" not in own:
        return ""
    kind, primaries, transfer = struct.unpack_from(">4sHH", data, own[b"colr"].start)
    plain = kind != b"nclx" or (primaries in (1, 2, 5, 6) and transfer in (1, 2, 6, 13, 14, 15))
    return "" if plain else f"primaries {primaries}, transfer {transfer}"


def _frames(data: Data) -> int:
    sizes = _inside(data, _Box(b"", 0, len(data)), b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz")
    return max(1, struct.unpack_from(">I", data, sizes.start + 8)[0]) if sizes else 1


def check(data: Data) -> str:
    """The boxes fill the file; the decoder notices missing picture data by itself."""
    for _ in _boxes(data, 0, len(data)):
        pass
    return ""


def decode(data: Data, layout: Layout, scratch: Scratch) -> Pixels:
    """10 and 12 bits are spread over 16."""
    parts, own = _parsed(data)
    with suppress(KeyError, struct.error):  # OpenCV refuses files where these lie behind the pixels
        for _, _, place in list(_others(data, parts)):
            data[place : place + 4] = _UNKNOWN
    gray = layout.channels == 1
    if gray and layout.bit_depth == 8:
        return _by_pillow(data, layout, scratch)
    try:
        pixels = codec.decode(data, layout.coded_shape, layout.dtype, scratch)
    except DamagedError:
        if layout.bit_depth != 8 or layout.channels == 2:
            raise
        return _by_pillow(data, layout, scratch)  # it knows boxes that reach to the end of the file
    if pixels.dtype == np.uint8:
        return pixels
    bits = 12 if _flags(data, parts, own) & _TWELVE else 10
    if not gray or pixels.shape != layout.coded_shape:
        return widen(pixels, bits)
    return _gray(pixels, bits, _by_pillow(data, replace(layout, bit_depth=8), scratch))


def _by_pillow(data: Data, layout: Layout, scratch: Scratch) -> Pixels:
    """In 8 bits over the full range: OpenCV leaves gray in the range that it is coded in."""
    with pillow.opened("Avif", data) as image:
        return pillow.pixels(image, layout, scratch)


def _gray(pixels: Pixels, bits: int, full: Pixels) -> Pixels:
    """Gray of 10 or 12 bits spread over 16.

    Args:
        pixels: as coded; changed in place.
        bits: their depth.
        full: the same in 8 bits over the full range; it differs where `pixels` is limited to 16 ... 235.
    """
    shift = bits - 8
    rows = zip(pixels, full, strict=True)
    if all(np.abs((row >> shift).astype(np.int32) - right).max() <= 1 for row, right in rows):
        return widen(pixels, bits)
    low, top = 16 << shift, 219 << shift

    def spread(rows: Pixels) -> Pixels:
        return ((np.clip(rows, low, low + top).astype(np.uint32) - low) * 65535 + top // 2) // top

    return by_rows(spread, pixels, pixels)


def metadata(data: Data) -> Metadata:
    """The Exif and XMP items, and the ICC profile among the properties."""
    parts, own = _parsed(data)
    profile = own.get(b"prof")
    icc = data[profile.start + 4 : profile.end] if profile else None
    try:
        items = dict(_items(data, parts))
    except (KeyError, struct.error):
        items = {}
    exif, xmp = items.get(b"Exif", b""), items.get(b"application/rdf+xml")
    after = 4 + int.from_bytes(exif[:4], "big")
    return Metadata(meta.bare_exif(exif[after:]), icc, xmp or None)


def _items(data: Data, parts: dict[bytes, _Box]) -> Iterator[tuple[bytes, bytes]]:
    """(kind or MIME type, content) of the items that are no pictures."""
    places = dict(_places(data, parts))
    for item, kind, _ in _others(data, parts):
        yield kind, b"".join(data[start : start + size] for start, size in places.get(item, ()))


def _others(data: Data, parts: dict[bytes, _Box]) -> Iterator[tuple[int, bytes, int]]:
    """(item, kind or MIME type, where its type stands) of EXIF and XMP."""
    table = parts[b"iinf"]
    skip = 6 if data[table.start] == 0 else 8
    for box in _boxes(data, table.start + skip, table.end):
        version = data[box.start]
        item, kind = struct.unpack_from(">H2x4s" if version == 2 else ">I2x4s", data, box.start + 4)
        place = box.start + (8 if version == 2 else 10)
        names = data[place + 4 : box.end].split(b"\0")
        mime = names[1] if kind == b"mime" and len(names) > 1 else kind
        if mime in (b"Exif", b"application/rdf+xml"):
            yield item, mime, place


def _places(data: Data, parts: dict[bytes, _Box]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """(item, its pieces as (file offset, length)) of the iloc box."""
    cursor = _Cursor(data, parts[b"iloc"].start)
    version, sizes = cursor.take(1), (cursor.take(3), cursor.take(2))[1]
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    for _ in range(cursor.take(4 if version == 2 else 2)):
        item = cursor.take(4 if version == 2 else 2)
        in_idat = version > 0 and cursor.take(2) & 15 == 1
        cursor.take(2)
        base = cursor.take(base_size) + (parts[b"idat"].start if in_idat else 0)
        pieces = []
        for _ in range(cursor.take(2)):
            cursor.take(index_size if version > 0 else 0)
            start = base + cursor.take(offset_size)
            pieces.append((start, cursor.take(length_size)))
        yield item, pieces


class _Cursor:
    """Big-endian integers one after the other."""

    def __init__(self, data: Data, position: int) -> None:
        self._data, self._position = data, position

    def take(self, size: int) -> int:
        """The next integer of `size` bytes; 0 for size 0. Raises struct.error where the data ends early."""
        self._position += size
        if self._position > len(self._data):
            raise struct.error
        return int.from_bytes(self._data[self._position - size : self._position], "big")


def orientation(data: Data, metadata: Metadata) -> int:
    """From the rotation and mirror properties, which alone count in AVIF; EXIF repeats them."""
    _, own = _parsed(data)
    turns = data[own[b"irot"].start] & 3 if b"irot" in own else 0
    axis = data[own[b"imir"].start] & 1 if b"imir" in own else None
    return _TURNS[turns, axis]


def encode(file: Path, pixels: Pixels, quality: int | None, metadata: Metadata) -> None:
    """8 or 12 bits a channel; quality 0-100, 90 if not given (colour at half resolution below 100)."""
    level = _DEFAULT_QUALITY if quality is None else quality
    depth = 8 if pixels.dtype == np.uint8 else DEPTH
    choice = (cv2.IMWRITE_AVIF_QUALITY, level, cv2.IMWRITE_AVIF_DEPTH, depth, cv2.IMWRITE_AVIF_SPEED, _SPEED)
    codec.encode(file, pixels, choice, metadata)
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            check(data)
        except DamagedError as error:
            raise OSError(INCOMPLETE) from error
