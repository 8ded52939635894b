"""JPEG (ITU-T T.81): dpi in JFIF's APP0, EXIF and XMP in APP1, ICC in APP2, Photoshop's data in APP13."""

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2

from srcli.io import codec, pillow, storage
from srcli.io import metadata as meta
from srcli.io.codec import (
    INCOMPLETE,
    DamagedError,
    Data,
    Layout,
    Pixels,
    UnsupportedError,
)
from srcli.io.metadata import Metadata
from srcli.io.storage import Scratch

MAGIC = b"\xff\xd8\xff"
MAX_SIDE = 65500
"""libjpeg's limit; the format's own is 65535."""

_EXIF, _XMP, _ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_JFIF = b"JFIF\0"
_UNITS = {1: 1.0, 2: meta.CENTIMETRES}  # JFIF: pixels an inch or a centimetre; 0 is no unit
_APP0, _APP1, _APP2, _APP13, _COM, _SOS, _EOI = 0xE0, 0xE1, 0xE2, 0xED, 0xFE, 0xDA, 0xD9
_MORE_XMP, _PHOTOSHOP, _MPF = b"http://ns.adobe.com/xmp/extension/\0", b"Photoshop 3.0\0", b"MPF\0"
_ABOUT_FILE = frozenset((0x03ED, 0x0408, 0x0409, 0x040C, 0x041A, 0x0432))
"""Photoshop's resources of the file's own size: resolution, guides, thumbnails, slices, measurement."""
_OTHERS = {
    b"hdrgm:Version": "gain map (Ultra HDR)",
    b"HDRGainMap:HDRGainMapVersion": "gain map (HDR)",
    b':MotionPhoto="1"': "film (motion photo)",
    b":MotionPhoto>1<": "film (motion photo)",
    b':MicroVideo="1"': "film (motion photo)",
    b"GDepth:Format": "depth map",
}
"""What XMP names -> what else is in the file."""
_HAS_MORE = re.compile(
    rb"""\s*xmpNote:HasExtendedXMP\s*=\s*("[^"]*"|'[^']*')"""
    rb"|<xmpNote:HasExtendedXMP>[^<]*</xmpNote:HasExtendedXMP>"
)
_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF markers
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_IN_SCANS = {0xC4, 0xDB, 0xDC, 0xDD, 0xFE, _SOS} | set(range(0xE0, 0xF0))
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # of a segment: the others stand alone
_NEXT = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # a marker inside coded data that is no stuffing or restart
SEGMENT = 65533
"""Most bytes a segment holds beside its length."""

_DAMAGE = (
    "premature end",
    "Premature end",
    "bad Huffman code",
    "bad arithmetic code",
    "found marker",
    "Bogus",
)
_JFIF_END = 20
"""Where the first segment ends in the files that OpenCV writes."""
_ENDING = b"\xff\xd9"
_CUT_OFF = "it is cut off: the end of the JPEG is missing"


def _segments(data: Data) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment before the first scan, that one included.

    Bytes between segments, which some cameras leave there, are skipped as decoders do.
    """
    position = 2
    while found := _MARKER.search(data, position):
        position, marker = found.end() - 2, data[found.end() - 1]
        if position + 4 > len(data):
            break
        end = position + 2 + struct.unpack_from(">H", data, position + 2)[0]
        if end > len(data):
            break
        yield marker, position + 4, end
        if marker == _SOS:
            return
        position = end
    raise DamagedError(_CUT_OFF)


def layout(data: Data) -> Layout:
    """The frame header (SOF)."""
    for marker, start, end in _segments(data):
        if marker in _SIZES and end - start >= 6:
            depth, height, width, components = struct.unpack_from(">BHHB", data, start)
            if depth != 8:
                raise UnsupportedError(f"its {depth}-bit JPEG coding is not supported")
            return Layout(
                height,
                width,
                1 if components == 1 else 3,
                cmyk=components == 4,
                unkept=_unkept(data),
                buffer=_coefficients(data, marker, start) + (components == 4) * height * width * pillow.PIXEL,
            )
    raise DamagedError("its JPEG header is damaged")


def _coefficients(data: Data, marker: int, start: int) -> int:
    """Bytes of the coefficients, two each, that a decoder gathers where one scan does not hold them all."""
    height, width, components = struct.unpack_from(">HHB", data, start + 1)
    first = next((data[at] for kind, at, _ in _segments(data) if kind == _SOS), components)
    if marker not in _PROGRESSIVE and first >= components:
        return 0
    factors = [data[start + 7 + 3 * i] for i in range(components) if start + 7 + 3 * i < len(data)]
    shares = [(factor >> 4) * (factor & 15) for factor in factors]
    across = max((factor >> 4 for factor in factors), default=1) or 1
    down = max((factor & 15 for factor in factors), default=1) or 1
    return int(2 * (height + 15) * (width + 15) * sum(shares) // (across * down))


def _unkept(data: Data) -> tuple[str, ...]:
    """Names of the metadata that `metadata` leaves."""
    found = dict[str, None]()
    for marker, start, end in _segments(data):
        if marker == _APP1 and data[start : start + len(_MORE_XMP)] == _MORE_XMP:
            found["extended XMP"] = None
        if marker == _APP1 and data[start : start + len(_XMP)] == _XMP:
            found |= {what: None for name, what in _OTHERS.items() if name in data[start:end]}
        if marker == _APP2 and data[start : start + len(_MPF)] == _MPF and not found:
            found["further pictures (MPF)"] = None
    return tuple(found)


def check(data: Data) -> str:
    """The scans end with EOI, and what is coded in them can be decoded. Bytes after EOI are allowed."""
    _check_markers(data)
    clean, skipped = _without_junk(data)
    said = _decoder_says(clean)
    if any(phrase in said for phrase in _DAMAGE):
        raise DamagedError(f"it is damaged: {said}")
    if "extraneous bytes" in said:
        return f"part of the picture may be damaged: {said}"
    return f"{skipped} bytes between its segments belong to nothing and were skipped" if skipped else ""


def _without_junk(data: Data) -> tuple[Data | bytes, int]:
    """The file without the bytes between its segments, and their number; fill bytes are none."""
    places, last, skipped = [slice(0, 2)], 2, 0
    for _, start, end in _segments(data):
        skipped += len(data[last : start - 4].strip(b"\xff"))
        places.append(slice(start - 4, end))
        last = end
    return (b"".join(data[place] for place in [*places, slice(last, None)]) if skipped else data), skipped


def _decoder_says(data: Data | bytes) -> str:
    """The decoder's first warning. OpenCV's decoder reports none and fills the rest with gray."""
    import simplejpeg

    try:
        space = simplejpeg.decode_jpeg_header(data)[2]
        space = "CMYK" if space in ("CMYK", "YCCK") else "RGB"
        simplejpeg.decode_jpeg(data, space, min_height=1, min_width=1, min_factor=8, strict=True)
    except ValueError as error:  # also what it knows nothing of, and OpenCV may
        return str(error).removeprefix("Corrupt JPEG data: ")
    return ""


def _check_markers(data: Data) -> None:
    """The scans hold no marker that cannot stand there, and end."""
    position = next(end for marker, _, end in _segments(data) if marker == _SOS)
    while found := _NEXT.search(data, position):
        marker = data[found.end() - 1]
        if marker == _EOI:
            return
        if marker not in _IN_SCANS:
            raise DamagedError("it is damaged: its JPEG picture data is not valid")
        if found.end() + 2 > len(data):
            break
        position = found.end() + struct.unpack_from(">H", data, found.end())[0]
    raise DamagedError(_CUT_OFF)


def decode(data: Data, layout: Layout, scratch: Scratch) -> Pixels:
    """Gray, or BGR; CMYK and YCCK come back as BGR, through their profile if there is one."""
    if layout.cmyk:
        with pillow.opened("Jpeg", bytes(_without_junk(data)[0])) as image:
            return pillow.pixels(image, layout, scratch, metadata(data).icc)
    return codec.decode(_without_junk(data)[0], layout.coded_shape, layout.dtype, scratch)


def metadata(data: Data) -> Metadata:
    """EXIF, XMP without its extension, ICC profile, Photoshop's resources, comments, JFIF's resolution."""
    exif = xmp = dpi = None
    profile: dict[int, bytes] = {}
    comments, photoshop = list[bytes](), b""
    for marker, start, end in _segments(data):
        content = data[start:end] if marker in (_APP0, _APP1, _APP2, _APP13, _COM) else b""
        if marker == _COM:
            comments.append(content)
        elif marker == _APP13 and content.startswith(_PHOTOSHOP):
            photoshop += content[len(_PHOTOSHOP) :]
        elif content.startswith(_JFIF) and len(content) >= len(_JFIF) + 7:
            unit, across, down = struct.unpack_from(">BHH", content, len(_JFIF) + 2)
            dpi = meta.resolution(across, down, _UNITS.get(unit))
        elif content.startswith(_EXIF):
            exif = exif or meta.bare_exif(content)
        elif content.startswith(_XMP):
            xmp = xmp or _HAS_MORE.sub(b"", content[len(_XMP) :])
        elif content.startswith(_ICC) and len(content) > len(_ICC) + 2:
            profile[content[len(_ICC)]] = content[len(_ICC) + 2 :]
    icc = b"".join(profile[i] for i in sorted(profile)) or None
    kept = b"".join(_resources(photoshop)) or None
    return Metadata(exif, icc, xmp, dpi, comments=tuple(comments), photoshop=kept)


def _resources(block: bytes) -> Iterator[bytes]:
    """Photoshop's resources, those about the file left out (Photoshop file formats, image resources)."""
    position = 0
    while position + 12 <= len(block):
        (code,) = struct.unpack_from(">H", block, position + 4)
        size_at = position + 6 + (block[position + 6] + 2) // 2 * 2
        if size_at + 4 > len(block):
            return
        (size,) = struct.unpack_from(">I", block, size_at)
        end = size_at + 4 + size + size % 2
        if code not in _ABOUT_FILE and end <= len(block) + size % 2:
            yield block[position:end]
        position = end


def orientation(data: Data, metadata: Metadata) -> int:
    """From EXIF, else XMP."""
    return meta.orientation(metadata)


def encode(file: Path, pixels: Pixels, quality: int | None, metadata: Metadata) -> None:
    """8-bit gray or BGR; full chroma resolution (4:4:4); quality 0-100, 95 if not given."""
    level = (cv2.IMWRITE_JPEG_QUALITY, 95 if quality is None else quality)
    full = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    codec.encode(file, pixels, level + full)
    end = file.stat().st_size - len(_ENDING)
    with file.open("rb") as stream:
        start = stream.read(_JFIF_END)
        stream.seek(end)
        if stream.read() != _ENDING:
            raise OSError(INCOMPLETE)
    if metadata.dpi and start[6:].startswith(_JFIF):
        across, down = (min(max(1, round(value)), 0xFFFF) for value in metadata.dpi)
        storage.overwrite(file, 6 + len(_JFIF) + 2, struct.pack(">BHH", 1, across, down))
    storage.insert(file, _JFIF_END, b"".join(_segments_of(metadata)))


def _segments_of(metadata: Metadata) -> Iterator[bytes]:
    if metadata.exif:
        yield _segment(_APP1, _EXIF + metadata.exif)
    if metadata.xmp:
        yield _segment(_APP1, _XMP + metadata.xmp)
    block = metadata.photoshop or b""
    for at in range(0, len(block), SEGMENT - len(_PHOTOSHOP)):
        yield _segment(_APP13, _PHOTOSHOP + block[at : at + SEGMENT - len(_PHOTOSHOP)])
    for comment in metadata.comments:
        yield _segment(_COM, comment)
    if metadata.icc:
        step = SEGMENT - len(_ICC) - 2
        pieces = [metadata.icc[i : i + step] for i in range(0, len(metadata.icc), step)]
        for number, piece in enumerate(pieces, 1):
            yield _segment(_APP2, _ICC + bytes((number, len(pieces))) + piece)


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def fits(metadata: Metadata) -> tuple[Metadata, tuple[str, ...]]:
    """The metadata a JPEG's segments can hold, and the names of what is too large for them."""
    exif = metadata.exif if len(_EXIF + (metadata.exif or b"")) <= SEGMENT else None
    xmp = metadata.xmp if len(_XMP + (metadata.xmp or b"")) <= SEGMENT else None
    icc = metadata.icc if len(metadata.icc or b"") <= 255 * (SEGMENT - len(_ICC) - 2) else None
    kept = replace(metadata, exif=exif, icc=icc, xmp=xmp)
    pairs = (("EXIF", metadata.exif, exif), ("ICC profile", metadata.icc, icc), ("XMP", metadata.xmp, xmp))
    return kept, tuple(name for name, had, has in pairs if had and not has)
