"""EXIF, ICC, XMP, resolution and texts of a picture, and the TIFF directories of EXIF blobs and TIFF files.

Directories are those of TIFF 6.0 (section 2) and BigTIFF.
"""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from mmap import mmap
from pathlib import Path

from srcli.io import xmp
from srcli.settings import Size

EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 34665, 34853, 40965
_POINTERS = (EXIF_POINTER, GPS_POINTER, INTEROP_POINTER)

_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of a value, by its type number."""
_UNITS = _SIZES | {5: 4, 10: 4}  # what is byte-swapped: a rational is two 4-byte numbers
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}

SHORT, LONG, RATIONAL, UNDEFINED, BYTE = 3, 4, 5, 7, 1


Bytes = bytes | memoryview | mmap


@dataclass(frozen=True, slots=True)
class Form:
    """How a file writes its numbers: byte order, and the wider fields of BigTIFF."""

    order: str
    big: bool = False

    @property
    def inline(self) -> int:
        """Bytes of the value field; longer values are stored elsewhere."""
        return 8 if self.big else 4

    @property
    def offset(self) -> str:
        """struct code of file offsets and counts."""
        return "Q" if self.big else "I"

    @property
    def count(self) -> str:
        """struct code of the number of entries."""
        return "Q" if self.big else "H"


@dataclass(frozen=True, slots=True)
class Entry:
    """One directory entry in place: `position` is the file offset of its value field."""

    code: int
    kind: int
    count: int
    position: int


@dataclass(frozen=True, slots=True)
class Tag:
    """One value taken out of its file: little-endian bytes, or the directory it points to."""

    code: int
    kind: int
    data: bytes
    children: "tuple[Tag, ...]" = field(default=())

    @property
    def numbers(self) -> tuple[int, ...]:
        """The value as unsigned integers; empty for other kinds."""
        letter = _INTEGERS.get(self.kind)
        return struct.unpack(f"<{len(self.data) // _SIZES[self.kind]}{letter}", self.data) if letter else ()


def shorts(code: int, *values: int) -> Tag:
    """A tag of unsigned 16-bit numbers."""
    return Tag(code, SHORT, struct.pack(f"<{len(values)}H", *values))


def longs(code: int, *values: int) -> Tag:
    """A tag of unsigned 32-bit numbers."""
    return Tag(code, LONG, struct.pack(f"<{len(values)}I", *values))


def rational(code: int, value: float) -> Tag:
    """A tag of one positive fraction, to four decimal places."""
    return Tag(code, RATIONAL, struct.pack("<II", min(max(1, round(value * 10_000)), 2**32 - 1), 10_000))


def tiff_header(data: Bytes) -> tuple[Form, int]:
    """(form, offset of the first directory). Raises ValueError if this is no TIFF structure."""
    order = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if order is None or len(data) < 8:
        raise ValueError("no TIFF header")
    magic = struct.unpack_from(order + "H", data, 2)[0]
    if magic == 43 and len(data) >= 16:
        return Form(order, big=True), struct.unpack_from(order + "Q", data, 8)[0]
    if magic != 42:
        raise ValueError("no TIFF header")
    return Form(order), struct.unpack_from(order + "I", data, 4)[0]


def entries(data: Bytes, offset: int, form: Form) -> Iterator[Entry]:
    """The entries of one directory. Raises struct.error where the data ends early."""
    (number,) = struct.unpack_from(form.order + form.count, data, offset)
    start = offset + struct.calcsize("<" + form.count)
    layout = form.order + "HH" + form.offset
    step = struct.calcsize(layout) + form.inline
    for position in range(start, start + number * step, step):
        code, kind, count = struct.unpack_from(layout, data, position)
        yield Entry(code, kind, count, position + step - form.inline)


def link(data: Bytes, offset: int, form: Form) -> int:
    """Where the offset of the following directory is stored."""
    (number,) = struct.unpack_from(form.order + form.count, data, offset)
    size = struct.calcsize("<HH" + form.offset) + form.inline
    return offset + struct.calcsize("<" + form.count) + int(number) * size


def directory(data: Bytes, offset: int, form: Form, depth: int = 0) -> tuple[Tag, ...]:
    """The directory with its EXIF, GPS and interoperability directories; unreadable tags are left out."""
    found = (_tag(data, entry, form, depth) for entry in entries(data, offset, form))
    return tuple(tag for tag in found if tag is not None)


def _tag(data: Bytes, entry: Entry, form: Form, depth: int) -> Tag | None:
    size = _SIZES.get(entry.kind, 0) * entry.count
    at = entry.position
    if size > form.inline:
        (at,) = struct.unpack_from(form.order + form.offset, data, at)
    if size == 0 or at + size > len(data):
        return None
    value = _swap(bytes(data[at : at + size]), entry.kind, form.order)
    tag = Tag(entry.code, entry.kind, value)
    if entry.code not in _POINTERS or not tag.numbers or depth > 2:
        return tag
    try:
        return Tag(entry.code, LONG, b"", directory(data, tag.numbers[0], form, depth + 1))
    except struct.error:
        return None


def _swap(value: bytes, kind: int, order: str) -> bytes:
    """Between the file's byte order and little-endian, either way."""
    unit = _UNITS[kind]
    if order == "<" or unit == 1:
        return value
    return b"".join(value[i : i + unit][::-1] for i in range(0, len(value), unit))


def directory_bytes(tags: Iterable[Tag], at: int, form: Form) -> bytes:
    """The bytes of a directory and its values, to stand at file offset `at`; no further directory."""
    ordered = sorted(tags, key=lambda tag: tag.code)
    layout = form.order + "HH" + form.offset
    step = struct.calcsize(layout) + form.inline
    table = struct.pack(form.order + form.count, len(ordered))
    values, free = b"", at + len(table) + step * len(ordered) + form.inline
    for tag in ordered:
        data, kind, count, extra = _placed(tag, free, form)
        table += struct.pack(layout, tag.code, kind, count) + data.ljust(form.inline, b"\0")
        extra += b"\0" * (len(extra) % 2)
        values, free = values + extra, free + len(extra)
    return table + b"\0" * form.inline + values


def _placed(tag: Tag, free: int, form: Form) -> tuple[bytes, int, int, bytes]:
    """(value field, kind, count, bytes to store at `free`)."""
    pointer = struct.pack(form.order + form.offset, free)
    if tag.children:
        return pointer, 16 if form.big else LONG, 1, directory_bytes(tag.children, free, form)
    value = _swap(tag.data, tag.kind, form.order)
    count = len(value) // _SIZES[tag.kind]
    return (value, tag.kind, count, b"") if len(value) <= form.inline else (pointer, tag.kind, count, value)


def append_directory(file: Path, tags: Iterable[Tag]) -> None:
    """Give a TIFF file this first directory, written at its end; the old one stays as unused bytes."""
    with file.open("rb+") as stream:
        form, _ = tiff_header(stream.read(16))
        end = stream.seek(0, 2)
        end += stream.write(b"\0" * (end % 2))
        stream.write(directory_bytes(tags, end, form))
        stream.seek(8 if form.big else 4)
        stream.write(struct.pack(form.order + form.offset, end))


def edit_directory(data: mmap, offset: int, form: Form, changes: Mapping[int, Tag | None]) -> None:
    """Change tags of a directory in place.

    Args:
        data: the file.
        offset: of the directory.
        form: of the file.
        changes: by code; None takes a tag out. A value must fit where the old one is.

    Raises:
        ValueError: there is no room for a value or a further tag.
    """
    found = {entry.code: entry for entry in entries(data, offset, form)}
    layout = form.order + "HH" + form.offset
    head = struct.calcsize(layout)
    rows = {e.code: data[e.position - head : e.position + form.inline] for e in found.values()}
    after = link(data, offset, form)
    following = data[after : after + struct.calcsize(form.order + form.offset)]
    for code, tag in changes.items():
        rows.pop(code, None)
        if tag is not None:
            rows[code] = _edited(data, tag, found.get(code), form)
    if len(rows) > len(found):
        raise ValueError("no room for a further tag")
    table = struct.pack(form.order + form.count, len(rows)) + b"".join(rows[code] for code in sorted(rows))
    data[offset : offset + len(table) + len(following)] = table + following


def _edited(data: mmap, tag: Tag, old: Entry | None, form: Form) -> bytes:
    """The directory entry of a tag, whose value may go where the old one is stored."""
    value = _swap(tag.data, tag.kind, form.order)
    head = struct.pack(form.order + "HH" + form.offset, tag.code, tag.kind, len(value) // _SIZES[tag.kind])
    if len(value) <= form.inline:
        return head + value.ljust(form.inline, b"\0")
    if old is None or _SIZES.get(old.kind, 0) * old.count < len(value):
        raise ValueError("no room for a longer value")
    field = data[old.position : old.position + form.inline]
    (at,) = struct.unpack(form.order + form.offset, field)
    data[at : at + len(value)] = value
    return head + field


_ORIENTATION, _PIXEL_WIDTH, _PIXEL_HEIGHT, _ACROSS, _DOWN = 0x0112, 0xA002, 0xA003, 0x011A, 0x011B
SIDEWAYS = 5
"""EXIF orientations from here on exchange rows and columns."""
CENTIMETRES = 2.54
"""An inch."""
INCH = CENTIMETRES / 100
"""In metres."""

_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_PANORAMA, _CAMERA = "http://ns.google.com/photos/1.0/panorama/", "http://ns.google.com/photos/1.0/camera/"
_XMP_ORIENTATION = xmp.Property(_TIFF, "tiff", "Orientation")
_XMP_SIDES = {
    f"{_EXIF} PixelXDimension": 1, f"{_EXIF} PixelYDimension": 0, f"{_TIFF} ImageWidth": 1,
    f"{_TIFF} ImageLength": 0, f"{_PANORAMA} CroppedAreaImageWidthPixels": 1,
    f"{_PANORAMA} CroppedAreaImageHeightPixels": 0, f"{_PANORAMA} FullPanoWidthPixels": 1,
    f"{_PANORAMA} FullPanoHeightPixels": 0, f"{_PANORAMA} CroppedAreaLeftPixels": 1,
    f"{_PANORAMA} CroppedAreaTopPixels": 0,
}  # fmt: skip
"""XMP properties in pixels -> the axis of the picture that they lie on."""
_XMP_DPI = {f"{_TIFF} XResolution": 1, f"{_TIFF} YResolution": 0}
_OF_BYTES = (
    "http://ns.google.com/photos/1.0/container/", "http://ns.adobe.com/hdr-gain-map/1.0/",
    "http://ns.apple.com/HDRGainMap/1.0/", "http://ns.google.com/photos/1.0/image/",
    "http://ns.google.com/photos/1.0/depthmap/", "http://ns.google.com/photos/1.0/audio/",
    "http://ns.google.com/photos/dd/1.0/", f"{_CAMERA} MotionPhoto", f"{_CAMERA} MicroVideo",
)  # fmt: skip
"""Beginnings of XMP properties that speak of other pictures, sound or films in the same file."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """The metadata of a picture.

    Attributes:
        exif: a TIFF structure, beginning with "II" or "MM" (no "Exif" prefix).
        icc: an ICC profile.
        xmp: an XMP packet, UTF-8 XML.
        dpi: pixels an inch, across and down, as the file itself says beside its EXIF.
        texts: PNG text chunks, type and content: title, author, how the picture was made.
        colour: PNG chunks, type and content, that say how colours are meant: cICP, cHRM, gAMA, sRGB.
        comments: of a JPEG.
        photoshop: Photoshop's resources of a JPEG: IPTC data, paths, copyright; not those about the file.
    """

    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[bytes, ...] = ()
    colour: tuple[bytes, ...] = ()
    comments: tuple[bytes, ...] = ()
    photoshop: bytes | None = None


def resolution(across: float, down: float, factor: float | None) -> tuple[float, float] | None:
    """`Metadata.dpi` from pixels a unit, of which an inch holds `factor`.

    None where either is zero, or the factor is: without a unit the numbers are only an aspect ratio.
    """
    return (across * factor, down * factor) if factor and across and down else None


def per_metre(dpi: tuple[float, float]) -> tuple[int, int]:
    """Whole pixels a metre, across and down, as 31 bits hold them."""
    across, down = (min(max(1, round(value / INCH)), 2**31 - 1) for value in dpi)
    return across, down


def bare_exif(blob: bytes) -> bytes | None:
    """The TIFF structure of an EXIF blob, with or without the "Exif" prefix; None if it is neither."""
    blob = blob.removeprefix(b"Exif\0\0")
    return blob if blob[:4] in (b"II*\0", b"MM\0*") else None


def is_exif(exif: bytes) -> bool:
    """Whether readers can find a directory in it."""
    try:
        form, start = tiff_header(exif)
        return any(True for _ in entries(exif, start, form))
    except (ValueError, struct.error):
        return False


def orientation(metadata: Metadata) -> int:
    """The Orientation, 1 to 8: of EXIF, else of XMP; 1 where there is none or it cannot be read."""
    found = _number(metadata.exif, _ORIENTATION) if metadata.exif else None
    if found is None and metadata.xmp:
        with suppress(ValueError):
            found = int(xmp.value(metadata.xmp, _XMP_ORIENTATION) or 1)
    return found if found is not None and 1 <= found <= 8 else 1


def _number(exif: bytes, code: int) -> int | None:
    """A SHORT of the first directory."""
    try:
        form, start = tiff_header(exif)
        for entry in entries(exif, start, form):
            if entry.code == code and entry.kind == SHORT:
                (value,) = struct.unpack_from(form.order + "H", exif, entry.position)
                return int(value)
    except (ValueError, struct.error):
        pass
    return None


def upright(metadata: Metadata) -> Metadata:
    """The same after the pixels have been turned: Orientation is 1, and the unturned thumbnail unlinked."""
    dpi = metadata.dpi[::-1] if metadata.dpi and orientation(metadata) >= SIDEWAYS else metadata.dpi

    def edit(name: str, text: str) -> str | None:
        return "1" if name == _XMP_ORIENTATION.name else text

    return replace(
        metadata, exif=metadata.exif and _turned(metadata.exif), xmp=_edited_xmp(metadata, edit), dpi=dpi
    )


def resized(metadata: Metadata, old: Size, new: Size, *, keep_dpi: bool = False) -> Metadata:
    """The same for a picture of another size: what it says of its pixels follows.

    EXIF's and XMP's sides, XMP's places in a panorama, and the resolution, so that it prints as large.
    What XMP says of other pictures or films in the same file goes, as they are not in the new one.

    Args:
        old, new: height and width.
        keep_dpi: leave the resolution as it is.
    """
    ratio = Fraction(new[0], old[0]), Fraction(new[1], old[1])
    finer = (Fraction(1), Fraction(1)) if keep_dpi else ratio

    def edit(name: str, text: str) -> str | None:
        if name.startswith(_OF_BYTES):
            return None
        try:
            if name in _XMP_SIDES:
                return str(round(int(text) * ratio[_XMP_SIDES[name]]))
            if name in _XMP_DPI and not keep_dpi:
                value = Fraction(text) * finer[_XMP_DPI[name]]
                return f"{value.numerator}/{value.denominator}"
        except (ValueError, ZeroDivisionError):
            return None
        return text

    dpi = metadata.dpi and (float(metadata.dpi[0] * finer[1]), float(metadata.dpi[1] * finer[0]))
    exif = metadata.exif and _resized(metadata.exif, new, finer)
    return replace(metadata, exif=exif, xmp=_edited_xmp(metadata, edit), dpi=dpi)


def _edited_xmp(metadata: Metadata, edit: Callable[[str, str], str | None]) -> bytes | None:
    if not metadata.xmp:
        return metadata.xmp
    try:
        return xmp.edited(metadata.xmp, edit)
    except xmp.DamagedError:  # who writes it says so
        return metadata.xmp


def _turned(exif: bytes) -> bytes:
    """EXIF with Orientation 1, and without a thumbnail."""
    blob = bytearray(exif)
    try:
        form, start = tiff_header(exif)
        _set(blob, start, form, _ORIENTATION, 1)
        struct.pack_into(form.order + "I", blob, link(exif, start, form), 0)
    except (ValueError, struct.error):
        return exif
    return bytes(blob)


def _resized(exif: bytes, size: Size, finer: tuple[Fraction, Fraction]) -> bytes:
    """EXIF with its sides and resolution changed in place, so that offsets inside maker notes stay right."""
    blob = bytearray(exif)
    try:
        form, start = tiff_header(exif)
        for entry in entries(exif, start, form):
            if entry.code == EXIF_POINTER:
                (inner,) = struct.unpack_from(form.order + "I", exif, entry.position)
                _set(blob, inner, form, _PIXEL_HEIGHT, size[0])
                _set(blob, inner, form, _PIXEL_WIDTH, size[1])
            if (entry.code, entry.kind, entry.count) in ((_ACROSS, RATIONAL, 1), (_DOWN, RATIONAL, 1)):
                _finer(blob, entry, form, finer[entry.code == _ACROSS])
    except (ValueError, struct.error):
        return exif
    return bytes(blob)


def _finer(blob: bytearray, entry: Entry, form: Form, ratio: Fraction) -> None:
    """Multiply one fraction."""
    (at,) = struct.unpack_from(form.order + "I", blob, entry.position)
    above, below = struct.unpack_from(form.order + "II", blob, at)
    if below and ratio != 1:
        value = (Fraction(above, below) * ratio).limit_denominator(10_000)
        if value.numerator < 2**32:
            struct.pack_into(form.order + "II", blob, at, value.numerator, value.denominator)


def _set(blob: bytearray, start: int, form: Form, code: int, value: int) -> None:
    """Change one SHORT or LONG; both fit the value field, so a SHORT grows to a LONG if it must."""
    for entry in entries(bytes(blob), start, form):
        if entry.code == code and entry.kind in (SHORT, LONG) and entry.count == 1:
            kind = LONG if value > 0xFFFF else entry.kind
            struct.pack_into(form.order + "H", blob, entry.position - 6, kind)
            number = struct.pack(form.order + ("H" if kind == SHORT else "I"), value).ljust(4, b"\0")
            blob[entry.position : entry.position + 4] = number


def profile_space(icc: bytes) -> str:
    """The colour space an ICC profile is for: "RGB", "GRAY", "CMYK", ... (ICC.1, table 19)."""
    return icc[16:20].decode("ascii", "replace").strip()
