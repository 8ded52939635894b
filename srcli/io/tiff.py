"""TIFF 6.0 and BigTIFF: first page, metadata as tags, gray + alpha, associated alpha."""

import mmap
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import cv2
import numpy as np

from srcli.io import codec, ifd, pillow
from srcli.io import metadata as meta
from srcli.io.codec import (
    INCOMPLETE,
    DamagedError,
    Data,
    Layout,
    Pixels,
    UnsupportedError,
    by_rows,
)
from srcli.io.metadata import Metadata
from srcli.io.storage import Scratch

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_ORIENTATION, _SAMPLES, _PLANES, _PREDICTOR, _EXTRA, _FORMAT = 274, 277, 284, 317, 338, 339
_STRIPS, _ROWS, _STRIP_SIZES, _INNER, _DNG = 273, 278, 279, 330, 50706
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 322, 323, 324, 325
_XMP, _ICC = 700, 34675
_ACROSS, _DOWN, _UNIT, _INCHES = 282, 283, 296, 2
_UNITS = {_INCHES: 1.0, 3: meta.CENTIMETRES}  # pixels an inch or a centimetre; 1 is no unit
_UNSPECIFIED, _ASSOCIATED, _UNASSOCIATED = 0, 1, 2
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK = 0, 1, 2, 3, 5
_LAB = (8, 9, 10)  # of CIE, ICC and ITU
_COPY = 1 | 4  # of NewSubfileType: a smaller copy of another page, or its mask
_KIND = (_SUBFILE, _COMPRESSION, _PHOTOMETRIC)
_MOST_PAGES, _MOST_INNER = 10_000, 16
_RAW = frozenset((32803, 34892, 34713, 32767, 65000))
"""Kinds of pixels (colour filter array, LinearRaw) and compressions (Nikon, Sony, Kodak) of raw photos."""

CLASSIC = 2_800_000_000
"""Most bytes of pixels in a TIFF with 32-bit offsets: LZW makes noise half as large again."""
_TILE = 512
_BUFFER = 16 << 20
"""Bytes that tifffile reads at a time."""
LARGE_STRIP = 16 << 20
"""Bytes of a strip from which an uncompressed one is not given to OpenCV, which holds it twice."""
_ORDERS: Mapping[int, list[int]] = {1: [], 2: [], 3: [2, 1, 0], 4: [2, 1, 0, 3]}
"""By channels: where each is found in OpenCV's order."""

# Tags of the first directory that describe the photograph and not how its pixels are stored.
_DESCRIPTIVE = frozenset(
    (
        *(269, 270, 271, 272, 274, 282, 283, 285, 296, 305, 306, 315, 316, 18246, 18249, 33432, 33723),
        *(ifd.EXIF_POINTER, ifd.GPS_POINTER, 40091, 40092, 40093, 40094, 40095),
    )
)
_OWN = frozenset((_ORIENTATION, _ACROSS, _DOWN, _UNIT))
"""Those of them that hold for one page only."""


def _chain(data: Data) -> Iterator[tuple[int, dict[int, int]]]:
    """(place, what kind of picture it is, by tag) of each page."""
    form, place = ifd.tiff_header(data)
    seen = set[int]()
    while place and place not in seen and len(seen) < _MOST_PAGES:
        seen.add(place)
        try:
            yield place, _kind(data, place, form)
            (place,) = struct.unpack_from(form.order + form.offset, data, ifd.link(data, place, form))
        except (struct.error, OverflowError):
            return


def _kind(data: Data, place: int, form: ifd.Form) -> dict[int, int]:
    """The first number of the tags that tell what a directory's picture is."""
    found = (entry for entry in ifd.entries(data, place, form) if entry.code in _KIND)
    return {
        e.code: _unpacked(data, form.order + ("H" if e.kind == ifd.SHORT else "I"), e.position) for e in found
    }


def _unpacked(data: Data, layout: str, place: int) -> int:
    return int(struct.unpack_from(layout, data, place)[0])


def _is_copy(kind: dict[int, int]) -> bool:
    return bool(kind.get(_SUBFILE, 0) & _COPY)


def _start(data: Data) -> tuple[ifd.Form, int]:
    """(form, place) of the first page that is no smaller copy of another; of the first if there is none."""
    form, first = ifd.tiff_header(data)
    return form, next((place for place, kind in _chain(data) if not _is_copy(kind)), first)


def _first(data: Data) -> dict[int, ifd.Tag]:
    """The tags of that page."""
    try:
        form, start = _start(data)
        return {tag.code: tag for tag in ifd.directory(data, start, form)}
    except (ValueError, struct.error, OverflowError) as error:
        raise DamagedError("its TIFF directory is missing or damaged") from error


def _raw(data: Data) -> str:
    """The name of a camera's raw file, whose finished pictures are mere previews; "" for other files."""
    form, place = ifd.tiff_header(data)
    page = {tag.code: tag for tag in ifd.directory(data, place, form)}
    if _DNG in page:
        return "DNG"
    if data[8:10] == b"CR":
        return "CR2"
    inner = page[_INNER].numbers[:_MOST_INNER] if _INNER in page else ()
    kinds = [kind for _, kind in _chain(data)] + [_kind(data, place, form) for place in inner]
    is_raw = any(kind.get(code) in _RAW for kind in kinds for code in (_PHOTOMETRIC, _COMPRESSION))
    return "of a camera" if is_raw else ""


def _number(page: dict[int, ifd.Tag], code: int, default: int) -> int:
    numbers = page[code].numbers if code in page else ()
    return numbers[0] if numbers else default


def layout(data: Data) -> Layout:
    """The first page that is no smaller copy of another; the others are counted."""
    page = _first(data)
    if raw := _raw(data):
        hint = "Develop it first: open it in a raw converter and store it as TIFF or JPEG."
        raise UnsupportedError(f"it is a raw file ({raw})", hint)
    height, width = _number(page, _HEIGHT, 0), _number(page, _WIDTH, 0)
    depth, sample = _number(page, _BITS, 1), _number(page, _FORMAT, 1)
    if not height or not width:
        raise DamagedError("its TIFF directory is missing or damaged")
    if sample != 1 or depth not in (1, 2, 4, 8, 16):
        kind = {2: "signed", 3: "floating-point"}.get(sample, "")
        raise UnsupportedError(
            " ".join(f"its {depth}-bit {kind} samples are not supported, 8 and 16 bits are".split())
        )
    pages = max(1, sum(not _is_copy(kind) for _, kind in _chain(data)))
    if _is_for_pillow(page):
        cmyk = _number(page, _PHOTOMETRIC, 1) == _CMYK
        lost = ("16-bit depth",) * (depth == 16)
        buffer = width * height * pillow.PIXEL
        return Layout(height, width, _channels(page), 8, pages, cmyk, unkept=lost, buffer=buffer)
    size = 2 if depth == 16 else 1
    found = Layout(height, width, _channels(page), size * 8, pages)
    block = 0 if _has_large_strips(page, found, LARGE_STRIP) else _block(page, height, width, size)
    if found.channels in (2, 4) and _number(page, _EXTRA, _ASSOCIATED) == _UNSPECIFIED:
        coded, more = found.channels, ("extra channel",)  # anything, such as a selection: no alpha
        found = replace(found, channels=coded - 1, coded_channels=coded, unkept=more)
    return replace(found, buffer=block)


def _is_for_pillow(page: dict[int, ifd.Tag]) -> bool:
    """Palettes, CMYK and Lab, which OpenCV makes gray or shifts in colour, and gray of 2 and 4 bits."""
    return _number(page, _PHOTOMETRIC, 1) in (_PALETTE, _CMYK, *_LAB) or _number(page, _BITS, 1) in (2, 4)


def _block(page: dict[int, ifd.Tag], height: int, width: int, size: int) -> int:
    """Bytes of two strips or tiles: OpenCV holds one, libtiff another."""
    rows = min(height, _number(page, _ROWS, height))
    tile = _number(page, _TILE_WIDTH, width), _number(page, _TILE_HEIGHT, rows)
    return 2 * prod(tile) * size * _number(page, _SAMPLES, 1)


def _channels(page: dict[int, ifd.Tag]) -> int:
    colour, samples = _number(page, _PHOTOMETRIC, 1), _number(page, _SAMPLES, 1)
    if colour in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        return min(samples, 2)
    if colour == _PALETTE:
        return 4 if samples == 2 and _number(page, _EXTRA, 0) == _UNASSOCIATED else 3
    return 4 if colour == _RGB and samples >= 4 else 3


def check(data: Data) -> str:
    """All values, strips and tiles of the first page lie inside the file."""
    page, (form, start) = _first(data), _start(data)
    if any(entry.code not in page for entry in ifd.entries(data, start, form) if entry.count):
        raise DamagedError("it is cut off: part of the TIFF directory is missing")
    for offsets, counts in ((_STRIPS, _STRIP_SIZES), (_TILES, _TILE_SIZES)):
        if offsets in page and counts in page:
            pairs = zip(page[offsets].numbers, page[counts].numbers, strict=False)
            if any(start + size > len(data) for start, size in pairs):
                raise DamagedError("it is cut off: part of the TIFF picture data is missing")
    return ""


def decode(data: Data, layout: Layout, scratch: Scratch) -> Pixels:
    """That page as stored, an extra channel as alpha; premultiplied alpha is divided out."""
    layout = replace(layout, channels=layout.coded_channels or layout.channels)
    page, (form, start) = _first(data), _start(data)
    struct.pack_into(form.order + form.offset, data, 8 if form.big else 4, start)  # now it is the first
    samples, associated = _number(page, _SAMPLES, 1), _number(page, _EXTRA, 0) == _ASSOCIATED
    changes: dict[int, ifd.Tag | None] = {_ORIENTATION: None}  # OpenCV would turn some TIFFs and not others
    if _EXTRA in page and samples == 4:  # and multiply straight alpha into 8-bit colour
        changes[_EXTRA] = ifd.shorts(_EXTRA, _ASSOCIATED)
    if _is_for_pillow(page):
        return _by_pillow(data, page, layout, scratch)
    large = codec.MAX_SAMPLES < prod(layout.coded_shape) > scratch.limit // layout.dtype.itemsize
    if _has_large_strips(page, layout, 0 if large else LARGE_STRIP):
        pixels = _copied(data, page, layout, scratch)
    elif large:
        pixels = _by_tifffile(data, page, layout, scratch)
    elif _number(page, _PLANES, 1) == 2 and (
        layout.channels == 2 or layout.channels > 1 < layout.dtype.itemsize
    ):
        pixels = _planes(data, page, layout, scratch)  # OpenCV garbles these
    elif layout.channels == 2:
        pixels = _gray_alpha(data, page, layout, scratch)
    else:
        try:
            pixels = _decoded(data, changes, layout.coded_shape, layout.dtype, scratch)
        except DamagedError:
            if layout.bit_depth != 8 or layout.channels == 4:
                raise
            pixels = _by_pillow(data, page, layout, scratch)  # it knows older kinds of JPEG coding
    if layout.bit_depth == 16 and pixels.dtype != np.uint16:
        raise UnsupportedError("this kind of 16-bit TIFF cannot be decoded without losing depth")
    if layout.bit_depth == 16 and _number(page, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        _invert(pixels)
    if layout.channels in (2, 4) and associated:
        by_rows(_unassociated, pixels, pixels)
    return pixels


def _has_large_strips(page: dict[int, ifd.Tag], layout: Layout, least: int) -> bool:
    """Whether pixels lie in the file as they are, in strips of more than `least` bytes."""
    plain = _number(page, _COMPRESSION, 1) == 1 and _PREDICTOR not in page and _STRIPS in page
    known = _number(page, _PHOTOMETRIC, 1) in (_BLACK_IS_ZERO, _RGB) and _number(page, _PLANES, 1) == 1
    samples, bits = _number(page, _SAMPLES, 1), _number(page, _BITS, 1)
    strip = min(layout.height, _number(page, _ROWS, layout.height)) * layout.width * samples * bits // 8
    return plain and known and bits >= 8 and samples == layout.channels and strip > least


def _copied(data: Data, page: dict[int, ifd.Tag], layout: Layout, scratch: Scratch) -> Pixels:
    """Uncompressed strips, in OpenCV's order."""
    form, _ = ifd.tiff_header(data)
    shape, order = layout.coded_shape, _ORDERS[layout.channels]
    pixels, step = scratch.empty(shape, layout.dtype), min(layout.height, _number(page, _ROWS, layout.height))
    for strip, top in zip(page[_STRIPS].numbers, range(0, layout.height, step), strict=True):
        size = (min(step, layout.height - top), *shape[1:])
        stored = np.frombuffer(
            data, np.dtype(f"{form.order}u{layout.dtype.itemsize}"), prod(size), strip
        ).reshape(size)
        by_rows(lambda rows: rows[..., order] if order else rows, stored, pixels[top : top + step])
    return pixels


def _by_tifffile(data: Data, page: dict[int, ifd.Tag], layout: Layout, scratch: Scratch) -> Pixels:
    """More samples than OpenCV decodes into a scratch file. LZW and JPEG need the package imagecodecs."""
    from tifffile import TiffFile

    if _number(page, _PHOTOMETRIC, 1) not in (_BLACK_IS_ZERO, _RGB) or _number(page, _PLANES, 1) != 1:
        raise UnsupportedError("this kind of TIFF is not supported at this size")
    pixels, order = scratch.empty(layout.coded_shape, layout.dtype), _ORDERS[layout.channels]
    try:
        data.seek(0)
        with TiffFile(cast(IO[bytes], data)) as file:
            file.pages.first.asarray(out=pixels, maxworkers=1, buffersize=_BUFFER)
    except (ValueError, RuntimeError, ImportError, zlib.error, struct.error) as error:
        raise UnsupportedError(f"this kind of TIFF is not supported at this size ({error})") from error
    return by_rows(lambda rows: rows[..., order], pixels, pixels) if order else pixels


def _by_pillow(data: Data, page: dict[int, ifd.Tag], layout: Layout, scratch: Scratch) -> Pixels:
    """In 8 bits; CMYK through its profile, if it has one."""
    ifd.edit_directory(data, ifd.tiff_header(data)[1], ifd.tiff_header(data)[0], {_ORIENTATION: None})
    with pillow.opened("Tiff", data) as image:
        return pillow.pixels(image, layout, scratch, page[_ICC].data if _ICC in page else None)


def _decoded(
    data: Data,
    changes: Mapping[int, ifd.Tag | None],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    scratch: Scratch,
) -> Pixels:
    """As OpenCV decodes the first page where these tags are changed."""
    form, start = ifd.tiff_header(data)
    try:
        ifd.edit_directory(data, start, form, changes)
    except ValueError as error:
        raise UnsupportedError("its TIFF directory is of an unusual kind that is not supported") from error
    return codec.decode(data, shape, dtype, scratch)


def _planes(data: Data, page: dict[int, ifd.Tag], layout: Layout, scratch: Scratch) -> Pixels:
    """One gray picture a plane (PlanarConfiguration 2), joined in OpenCV's order."""
    samples = _number(page, _SAMPLES, 1)
    if samples not in (2, 3, 4) or _number(page, _PHOTOMETRIC, 1) > _RGB:
        raise UnsupportedError("this kind of TIFF in planes is not supported")
    fixed = {_BITS: layout.bit_depth, _SAMPLES: 1, _PLANES: 1, _PHOTOMETRIC: _BLACK_IS_ZERO}
    gray: dict[int, ifd.Tag | None] = {code: ifd.shorts(code, value) for code, value in fixed.items()}
    gray |= {_FORMAT: None, _EXTRA: None, _ORIENTATION: None}
    size = (layout.height, layout.width)
    joined = scratch.empty((*size, samples), layout.dtype)
    for place, plane in enumerate((2, 1, 0, 3)[:samples] if samples > 2 else (0, 1)):
        for code in (_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES):
            if code in page:
                own = len(page[code].data) // samples
                gray[code] = ifd.Tag(code, page[code].kind, page[code].data[plane * own : (plane + 1) * own])
        decoded = _decoded(data, gray, size, layout.dtype, scratch)
        if decoded.shape != size or decoded.dtype != layout.dtype:
            raise DamagedError("it is damaged: its header and its picture data disagree")
        by_rows(lambda rows: rows, decoded, joined[..., place])
    return joined


def _invert(pixels: Pixels) -> None:
    """White is zero: the colour inverted in place, alpha kept (OpenCV does this for 8 bits only)."""
    colour = pixels[..., 0] if pixels.ndim == 3 else pixels
    np.subtract(np.iinfo(pixels.dtype).max, colour, out=colour)


def _unassociated(pixels: Pixels) -> Pixels:
    """Colour divided by alpha, rounded."""
    top = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.uint32)
    colour = (pixels[..., :-1].astype(np.uint32) * top + alpha // 2) // np.maximum(alpha, 1)
    return np.concatenate([np.minimum(colour, top).astype(pixels.dtype), pixels[..., -1:]], axis=2)


def _gray_alpha(data: Data, page: dict[int, ifd.Tag], layout: Layout, scratch: Scratch) -> Pixels:
    """OpenCV drops the alpha of gray TIFFs: read the samples as a gray picture twice as wide instead."""
    height, width, predictor = layout.height, layout.width, _number(page, _PREDICTOR, 1)
    plain = _number(page, _SAMPLES, 1) == 2 and _number(page, _PLANES, 1) == 1 and predictor in (1, 2)
    if not plain or _number(page, _BITS, 1) < 8:
        raise UnsupportedError("this kind of gray TIFF with alpha is not supported")
    wide: dict[int, ifd.Tag | None] = {
        _WIDTH: ifd.longs(_WIDTH, width * 2),
        _BITS: ifd.shorts(_BITS, _number(page, _BITS, 8)),
        _PHOTOMETRIC: ifd.shorts(_PHOTOMETRIC, _BLACK_IS_ZERO),
        _SAMPLES: ifd.shorts(_SAMPLES, 1),
        **dict.fromkeys((_PREDICTOR, _FORMAT, _EXTRA, _ORIENTATION)),
    }
    tile = _number(page, _TILE_WIDTH, width)
    if _TILE_WIDTH in page:
        wide[_TILE_WIDTH] = ifd.longs(_TILE_WIDTH, tile * 2)
    flat = _decoded(data, wide, (height, width * 2), layout.dtype, scratch)
    if flat.shape != (height, width * 2):
        raise DamagedError("it is damaged: its header and its picture data disagree")
    pixels = flat.reshape(height, width, 2)
    for left in range(0, width if predictor == 2 else 0, tile):  # differences of neighbours, modulo the depth
        columns = pixels[:, left : left + tile]
        by_rows(lambda rows: np.cumsum(rows, axis=1, dtype=rows.dtype), columns, columns)
    if pixels.dtype == np.uint8 and _number(page, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        _invert(pixels)
    return pixels


def metadata(data: Data) -> Metadata:
    """ICC and XMP tags, resolution; the descriptive tags and EXIF and GPS directories as one EXIF block.

    What only the file's first page says counts for the page that is read, too.
    """
    page, (form, start) = _first(data), ifd.tiff_header(data)
    others = {t.code: t for t in ifd.directory(data, start, form) if t.code in _DESCRIPTIVE - _OWN}
    kept = [tag for tag in (others | page).values() if tag.code in _DESCRIPTIVE]
    exif = b"II*\0\x08\0\0\0" + ifd.directory_bytes(kept, 8, ifd.Form("<")) if kept else None
    icc, xmp = (page[code].data if code in page else None for code in (_ICC, _XMP))
    return Metadata(exif, icc or None, xmp or None, _dpi(page))


def _dpi(page: dict[int, ifd.Tag]) -> tuple[float, float] | None:
    """From pixels a unit."""
    across, down = (_fraction(page.get(code)) for code in (_ACROSS, _DOWN))
    return meta.resolution(across, down, _UNITS.get(_number(page, _UNIT, _INCHES)))


def _fraction(tag: ifd.Tag | None) -> float:
    """The value of a rational tag; 0 where it is missing or of another kind."""
    if tag is None or tag.kind != ifd.RATIONAL or len(tag.data) != 8:
        return 0.0
    above, below = struct.unpack("<II", tag.data)
    return above / below if below else 0.0


def orientation(data: Data, metadata: Metadata) -> int:
    """From the first directory, which is also EXIF's."""
    return meta.orientation(metadata)


def encode(file: Path, pixels: Pixels, quality: int | None, metadata: Metadata) -> None:
    """Lossless whatever the quality: LZW with predictor; beyond `CLASSIC` bytes a BigTIFF with Deflate.

    Alpha is unassociated.
    """
    if pixels.nbytes <= CLASSIC:
        _encode_classic(file, pixels)
    else:
        _encode_big(file, pixels)
    page = _checked(file) | {tag.code: tag for tag in _tags_of(metadata)}
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        page[_WIDTH] = ifd.longs(_WIDTH, pixels.shape[1])
        page[_BITS] = ifd.shorts(_BITS, *[pixels.itemsize * 8] * 2)
        page[_FORMAT] = ifd.shorts(_FORMAT, 1, 1)
        page[_SAMPLES] = ifd.shorts(_SAMPLES, 2)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        page[_EXTRA] = ifd.shorts(_EXTRA, _UNASSOCIATED)
    ifd.append_directory(file, page.values())


def _checked(file: Path) -> dict[int, ifd.Tag]:
    """The tags of a file that was written whole, without a resolution of the encoder's own."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            check(data)
        except DamagedError as error:
            raise OSError(INCOMPLETE) from error
        return {code: tag for code, tag in _first(data).items() if code not in (_ACROSS, _DOWN, _UNIT)}


def _encode_classic(file: Path, pixels: Pixels) -> None:
    """Gray + alpha, which OpenCV does not write, as a gray picture twice as wide, without predictor."""
    compression = (cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_LZW)
    predictor = cv2.IMWRITE_TIFF_PREDICTOR_HORIZONTAL
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        pixels, predictor = pixels.reshape(pixels.shape[0], -1), cv2.IMWRITE_TIFF_PREDICTOR_NONE
    codec.encode(file, pixels, (*compression, cv2.IMWRITE_TIFF_PREDICTOR, predictor))


def _encode_big(file: Path, pixels: Pixels) -> None:
    """OpenCV writes no BigTIFF."""
    from tifffile import imwrite

    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    imwrite(
        file,
        _tiles(pixels, _ORDERS[channels]),
        shape=pixels.shape,
        dtype=pixels.dtype,
        bigtiff=True,
        tile=(_TILE, _TILE),
        photometric="rgb" if channels > 2 else "minisblack",
        planarconfig="contig" if channels > 1 else None,
        extrasamples=("unassalpha",) if channels in (2, 4) else None,
        compression="zlib",
        compressionargs={"level": 1},
        predictor=True,
        metadata=None,
        software=False,
    )


def _tiles(pixels: Pixels, order: list[int]) -> Iterator[Pixels]:
    """Tiles in RGB(A) of BGR(A) pixels, row by row."""
    for top in range(0, pixels.shape[0], _TILE):
        for left in range(0, pixels.shape[1], _TILE):
            tile = pixels[top : top + _TILE, left : left + _TILE]
            yield tile[..., order] if order else np.ascontiguousarray(tile)


def _tags_of(metadata: Metadata) -> Iterator[ifd.Tag]:
    if metadata.icc:
        yield ifd.Tag(_ICC, ifd.UNDEFINED, metadata.icc)
    if metadata.xmp:
        yield ifd.Tag(_XMP, ifd.BYTE, metadata.xmp)
    if metadata.dpi:
        yield ifd.rational(_ACROSS, metadata.dpi[0])
        yield ifd.rational(_DOWN, metadata.dpi[1])
        yield ifd.shorts(_UNIT, _INCHES)
    try:
        form, start = ifd.tiff_header(metadata.exif or b"")
        yield from (
            tag for tag in ifd.directory(metadata.exif or b"", start, form) if tag.code in _DESCRIPTIVE
        )
    except (ValueError, struct.error):
        return
