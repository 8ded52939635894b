"""EXIF, ICC, XMP, dpi and texts as they are kept, and the few EXIF fields that must follow the pixels."""

import re
import struct
from dataclasses import dataclass, replace

from srcli.io import ifd

_ORIENTATION, _PIXEL_WIDTH, _PIXEL_HEIGHT = 0x0112, 0xA002, 0xA003
SIDEWAYS = 5
"""EXIF orientations from here on exchange rows and columns."""
CENTIMETRES = 2.54
"""An inch."""
INCH = CENTIMETRES / 100
"""In metres."""
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>))([1-8])")


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a picture file says beside its pixels.

    Attributes:
        exif: a TIFF structure, beginning with "II" or "MM" (no "Exif" prefix).
        icc: an ICC profile.
        xmp: an XMP packet, UTF-8 XML.
        dpi: pixels an inch, across and down, as the file itself says beside its EXIF.
        texts: chunks of a PNG, type and content, that tell of the picture: title, author, how it was made.
    """

    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[bytes, ...] = ()


def resolution(across: float, down: float, factor: float | None) -> tuple[float, float] | None:
    """`Metadata.dpi` from pixels a unit, of which an inch holds `factor`.

    None where either is zero, or the factor is: without a unit the numbers tell the shape of pixels only.
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
        form, start = ifd.head(exif)
        return any(True for _ in ifd.entries(exif, start, form))
    except (ValueError, struct.error):
        return False


def orientation(exif: bytes | None) -> int:
    """The EXIF Orientation, 1 to 8; 1 where there is none or it cannot be read."""
    if exif is None:
        return 1
    try:
        form, start = ifd.head(exif)
        for entry in ifd.entries(exif, start, form):
            if entry.code == _ORIENTATION and entry.kind == ifd.SHORT:
                (value,) = struct.unpack_from(form.order + "H", exif, entry.position)
                return int(value) if 1 <= value <= 8 else 1
    except (ValueError, struct.error):
        pass
    return 1


def upright(metadata: Metadata) -> Metadata:
    """The same after the pixels have been turned: Orientation is 1, and the unturned thumbnail unlinked."""
    dpi = metadata.dpi[::-1] if metadata.dpi and orientation(metadata.exif) >= SIDEWAYS else metadata.dpi
    xmp = metadata.xmp and _XMP_ORIENTATION.sub(rb"\g<1>1", metadata.xmp)
    return replace(metadata, exif=metadata.exif and _patched(metadata.exif, None), xmp=xmp, dpi=dpi)


def resized(metadata: Metadata, height: int, width: int) -> Metadata:
    """The same with EXIF's PixelXDimension and PixelYDimension set, where they are present."""
    return replace(metadata, exif=metadata.exif and _patched(metadata.exif, (height, width)))


def _patched(exif: bytes, size: tuple[int, int] | None) -> bytes:
    """EXIF with single numbers changed in place, so that offsets inside maker notes stay right."""
    blob = bytearray(exif)
    try:
        form, start = ifd.head(exif)
        if size is None:
            _set(blob, start, form, _ORIENTATION, 1)
            struct.pack_into(form.order + "I", blob, ifd.link(exif, start, form), 0)
        for entry in ifd.entries(exif, start, form) if size else ():
            if entry.code == ifd.EXIF_POINTER:
                (inner,) = struct.unpack_from(form.order + "I", exif, entry.position)
                _set(blob, inner, form, _PIXEL_HEIGHT, size[0] if size else 0)
                _set(blob, inner, form, _PIXEL_WIDTH, size[1] if size else 0)
    except (ValueError, struct.error):
        return exif
    return bytes(blob)


def _set(blob: bytearray, start: int, form: ifd.Form, code: int, value: int) -> None:
    """Change one SHORT or LONG; both fit the value field, so a SHORT grows to a LONG if it must."""
    for entry in ifd.entries(bytes(blob), start, form):
        if entry.code == code and entry.kind in (ifd.SHORT, ifd.LONG) and entry.count == 1:
            kind = ifd.LONG if value > 0xFFFF else entry.kind
            struct.pack_into(form.order + "H", blob, entry.position - 6, kind)
            number = struct.pack(form.order + ("H" if kind == ifd.SHORT else "I"), value).ljust(4, b"\0")
            blob[entry.position : entry.position + 4] = number


def profile_space(icc: bytes) -> str:
    """The colour space an ICC profile is for: "RGB", "GRAY", "CMYK", ... (ICC.1, table 19)."""
    return icc[16:20].decode("ascii", "replace").strip()
