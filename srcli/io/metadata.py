"""EXIF, ICC, XMP, resolution and texts of a picture, and how they follow its pixels."""

import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction

from srcli.io import xmp
from srcli.io.ifd import (
    EXIF_POINTER,
    LONG,
    RATIONAL,
    SHORT,
    Entry,
    Form,
    entries,
    link,
    tiff_header,
)
from srcli.settings import Size

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
        if 0 < value.numerator < 2**32:
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
