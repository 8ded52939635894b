"""TIFF 6.0 and BigTIFF: first page, metadata as tags, gray + alpha, associated alpha."""

import struct
from collections.abc import Iterator

import cv2
import numpy as np

from srcli.io import codec, ifd
from srcli.io import metadata as meta
from srcli.io.codec import (
    DamagedError,
    Data,
    EncodeError,
    Layout,
    Parts,
    Pixels,
    UnsupportedError,
    by_rows,
)
from srcli.io.metadata import Metadata

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_ORIENTATION, _SAMPLES, _PLANES, _PREDICTOR, _TILE_WIDTH, _EXTRA, _FORMAT = 274, 277, 284, 317, 322, 338, 339
_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES = 273, 279, 324, 325
_XMP, _ICC = 700, 34675
_ACROSS, _DOWN, _UNIT, _INCHES = 282, 283, 296, 2
_UNITS = {_INCHES: 1.0, 3: meta.CENTIMETRES}  # pixels an inch or a centimetre; 1 is no unit
_ASSOCIATED, _UNASSOCIATED = 1, 2
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _CMYK = 0, 1, 2, 5

# Tags of the first directory that describe the photograph and not how its pixels are stored.
_DESCRIPTIVE = frozenset(
    (
        *(269, 270, 271, 272, 274, 282, 283, 285, 296, 305, 306, 315, 316, 18246, 18249, 33432, 33723),
        *(ifd.EXIF_POINTER, ifd.GPS_POINTER, 40091, 40092, 40093, 40094, 40095),
    )
)


def _first(data: Data | memoryview) -> dict[int, ifd.Tag]:
    """The tags of the first page."""
    try:
        with memoryview(data) as view:
            form, start = ifd.head(view)
            return {tag.code: tag for tag in ifd.tags(view, start, form)}
    except (ValueError, struct.error) as error:
        raise DamagedError("its TIFF directory is missing or damaged") from error


def _number(page: dict[int, ifd.Tag], code: int, default: int) -> int:
    numbers = page[code].numbers if code in page else ()
    return numbers[0] if numbers else default


def layout(data: Data) -> Layout:
    """The first directory; the others are counted."""
    page = _first(data)
    height, width = _number(page, _HEIGHT, 0), _number(page, _WIDTH, 0)
    depth, sample = _number(page, _BITS, 1), _number(page, _FORMAT, 1)
    if not height or not width:
        raise DamagedError("its TIFF directory is missing or damaged")
    if sample != 1 or depth not in (1, 2, 4, 8, 16):
        kind = {2: "signed", 3: "floating-point"}.get(sample, "")
        raise UnsupportedError(
            " ".join(f"its {depth}-bit {kind} samples are not supported, 8 and 16 bits are".split())
        )
    cmyk = _number(page, _PHOTOMETRIC, 1) == _CMYK
    return Layout(height, width, _channels(page), 16 if depth == 16 else 8, _pages(data), cmyk)


def _channels(page: dict[int, ifd.Tag]) -> int:
    colour, samples = _number(page, _PHOTOMETRIC, 1), _number(page, _SAMPLES, 1)
    if colour in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        return min(samples, 2)
    return 4 if colour == _RGB and samples >= 4 else 3


def _pages(data: Data) -> int:
    """Pages that are no smaller copies of another (NewSubfileType bit 0), at least 1."""
    number, seen = 0, set[int]()
    with memoryview(data) as view:
        form, offset = ifd.head(view)
        try:
            while offset and offset not in seen and len(seen) < 10_000:
                seen.add(offset)
                kinds = (e.position for e in ifd.entries(view, offset, form) if e.code == _SUBFILE)
                number += not any(struct.unpack_from(form.order + "I", view, at)[0] & 1 for at in kinds)
                (offset,) = struct.unpack_from(form.order + form.offset, view, ifd.link(view, offset, form))
        except struct.error:
            pass
    return max(1, number)


def check(data: Data) -> str:
    """All values, strips and tiles of the first page lie inside the file."""
    page = _first(data)
    with memoryview(data) as view:
        form, start = ifd.head(view)
        if any(entry.code not in page for entry in ifd.entries(view, start, form) if entry.count):
            raise DamagedError("it is cut off: part of the TIFF directory is missing")
    for offsets, counts in ((_STRIPS, _STRIP_SIZES), (_TILES, _TILE_SIZES)):
        if offsets in page and counts in page:
            pairs = zip(page[offsets].numbers, page[counts].numbers, strict=False)
            if any(start + size > len(data) for start, size in pairs):
                raise DamagedError("it is cut off: part of the TIFF picture data is missing")
    return ""


def decode(data: bytes) -> Pixels:
    """The first page as stored; premultiplied alpha is divided out."""
    page = _first(data)
    associated = _number(page, _EXTRA, 0) == _ASSOCIATED
    page.pop(_ORIENTATION, None)  # OpenCV would turn some kinds of TIFF and not others
    if _EXTRA in page and _number(page, _SAMPLES, 1) == 4:  # and multiply straight alpha into 8-bit colour
        page[_EXTRA] = ifd.shorts(_EXTRA, _ASSOCIATED)
    kind = layout(data)
    pixels = _decoded(data, page, kind)
    if kind.bit_depth == 16 and pixels.dtype != np.uint16:
        raise UnsupportedError("this kind of 16-bit TIFF cannot be decoded without losing depth")
    if kind.bit_depth == 16 and _number(page, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        pixels = _inverted(pixels)
    if kind.channels in (2, 4) and associated:
        pixels = by_rows(_unassociated, pixels, pixels.copy())
    return pixels


def _decoded(data: bytes, page: dict[int, ifd.Tag], kind: Layout) -> Pixels:
    """OpenCV misreads 16-bit planes and drops the alpha of gray: these two go another way."""
    if kind.bit_depth == 16 and kind.channels > 1 and _number(page, _PLANES, 1) == 2:
        return _planes(data, page)
    if kind.channels == 2:
        return _gray_alpha(data, page)
    return codec.decode(ifd.replaced(data, page.values()))


def _planes(data: bytes, page: dict[int, ifd.Tag]) -> Pixels:
    """One gray picture a plane (PlanarConfiguration 2), joined in OpenCV's order."""
    samples = _number(page, _SAMPLES, 1)
    if samples not in (2, 3, 4) or _number(page, _PHOTOMETRIC, 1) > _RGB:
        raise UnsupportedError("this kind of 16-bit TIFF in planes is not supported")
    fixed = (ifd.shorts(_BITS, 16), ifd.shorts(_SAMPLES, 1), ifd.shorts(_PLANES, 1), ifd.shorts(_FORMAT, 1))
    gray = {t.code: t for t in (*page.values(), *fixed, ifd.shorts(_PHOTOMETRIC, _BLACK_IS_ZERO))}
    gray.pop(_EXTRA, None)
    planes = []
    for plane in (2, 1, 0, 3)[:samples] if samples > 2 else (0, 1):
        for code in (_STRIPS, _STRIP_SIZES, _TILES, _TILE_SIZES):
            if code in page:
                own = len(page[code].numbers) // samples
                gray[code] = ifd.longs(code, *page[code].numbers[plane * own : (plane + 1) * own])
        planes.append(codec.decode(ifd.replaced(data, gray.values())))
    return np.stack(planes, axis=2)


def _inverted(pixels: Pixels) -> Pixels:
    """White is zero: the colour inverted, alpha kept (OpenCV does this for 8 bits only)."""
    result = pixels.copy()
    colour = result[..., 0] if result.ndim == 3 else result
    np.subtract(np.iinfo(pixels.dtype).max, colour, out=colour)
    return result


def _unassociated(pixels: Pixels) -> Pixels:
    """Colour divided by alpha, rounded."""
    top = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.uint32)
    colour = (pixels[..., :-1].astype(np.uint32) * top + alpha // 2) // np.maximum(alpha, 1)
    return np.concatenate([np.minimum(colour, top).astype(pixels.dtype), pixels[..., -1:]], axis=2)


def _gray_alpha(data: bytes, page: dict[int, ifd.Tag]) -> Pixels:
    """OpenCV drops the alpha of gray TIFFs: read the samples as a gray picture twice as wide instead."""
    width, predictor = _number(page, _WIDTH, 0), _number(page, _PREDICTOR, 1)
    plain = _number(page, _SAMPLES, 1) == 2 and _number(page, _PLANES, 1) == 1 and predictor in (1, 2)
    if not plain or _TILE_WIDTH in page or _number(page, _BITS, 1) < 8:
        raise UnsupportedError("this kind of gray TIFF with alpha is not supported")
    wide = page | {
        t.code: t for t in (ifd.longs(_WIDTH, width * 2), ifd.shorts(_BITS, _number(page, _BITS, 8)))
    }
    wide |= {t.code: t for t in (ifd.shorts(_SAMPLES, 1), ifd.shorts(_PREDICTOR, 1), ifd.shorts(_FORMAT, 1))}
    wide[_PHOTOMETRIC] = ifd.shorts(_PHOTOMETRIC, _BLACK_IS_ZERO)
    wide.pop(_EXTRA, None)
    flat = codec.decode(ifd.replaced(data, wide.values()))
    pixels = flat.reshape(flat.shape[0], width, 2)
    if predictor == 2:  # differences between neighbours, modulo the depth
        pixels = np.cumsum(pixels, axis=1, dtype=pixels.dtype)
    if pixels.dtype == np.uint8 and _number(page, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        pixels = _inverted(pixels)
    return pixels


def metadata(data: Data) -> Metadata:
    """ICC and XMP tags, resolution; the descriptive tags and EXIF and GPS directories as one EXIF block."""
    page = _first(data)
    kept = [tag for tag in page.values() if tag.code in _DESCRIPTIVE]
    exif = b"II*\0\x08\0\0\0" + ifd.write(kept, 8, ifd.Form("<")) if kept else None
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
    return meta.orientation(metadata.exif)


def encode(pixels: Pixels, quality: int | None, metadata: Metadata) -> Parts:
    """Lossless (LZW with predictor) whatever the quality; alpha is unassociated."""
    if pixels.nbytes > 3_900_000_000:
        raise EncodeError("a TIFF can be at most 4 GB")
    height, width = pixels.shape[:2]
    double = pixels.ndim == 3 and pixels.shape[2] == 2
    flat = np.ascontiguousarray(pixels).reshape(height, width * 2) if double else pixels
    predictor = cv2.IMWRITE_TIFF_PREDICTOR_NONE if double else cv2.IMWRITE_TIFF_PREDICTOR_HORIZONTAL
    compression = (cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_LZW)
    plain = codec.encode(".tiff", flat, (*compression, cv2.IMWRITE_TIFF_PREDICTOR, predictor))
    page = _first(plain) | {tag.code: tag for tag in _tags_of(metadata)}
    if double:
        pair = (
            ifd.longs(_WIDTH, width),
            ifd.shorts(_BITS, *[pixels.itemsize * 8] * 2),
            ifd.shorts(_FORMAT, 1, 1),
        )
        page |= {tag.code: tag for tag in (*pair, ifd.shorts(_SAMPLES, 2))}
    if double or (pixels.ndim == 3 and pixels.shape[2] == 4):
        page[_EXTRA] = ifd.shorts(_EXTRA, _UNASSOCIATED)
    return ifd.pieces(plain, page.values())


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
        form, start = ifd.head(metadata.exif or b"")
        yield from (tag for tag in ifd.tags(metadata.exif or b"", start, form) if tag.code in _DESCRIPTIVE)
    except (ValueError, struct.error):
        return
