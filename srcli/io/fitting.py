"""What a format can hold, and conversion of pixels and metadata to that; channel order and orientation."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from srcli.io import avif, jpeg, pillow, png, webp
from srcli.io.codec import DamagedError, Layout, Pixels, UnsupportedError, by_rows, narrow
from srcli.io.metadata import Metadata, is_exif, profile_space
from srcli.io.storage import Scratch
from srcli.settings import Size

_NO_ALPHA = frozenset(("jpeg", "bmp"))
_ONLY_8_BITS = frozenset(("jpeg", "webp", "bmp"))
_NO_GRAY_ALPHA = frozenset(("webp", "avif"))
_NO_METADATA = frozenset(("bmp",))
_NAMES = {"jpeg": "JPEG", "webp": "WebP", "bmp": "BMP", "avif": "AVIF", "png": "PNG", "tiff": "TIFF"}


def too_large(name: str, size: Size, channels: int) -> str:
    """Why a format cannot hold pixels of that (height, width) and 1 to 4 channels; empty if it can."""
    height, width = size
    if name == "jpeg" and max(size) > jpeg.MAX_SIDE:
        return f"a JPEG can be at most {jpeg.MAX_SIDE} pixels a side"
    if name == "webp" and max(size) > webp.MAX_SIDE:
        return f"a WebP can be at most {webp.MAX_SIDE} pixels a side"
    if name == "avif" and (max(size) > avif.MAX_SIDE or height * width > avif.MAX_PIXELS):
        return f"an AVIF can be at most {avif.MAX_SIDE} pixels a side and 268 megapixels"
    if name == "png" and (max(size) > png.MAX_SIDE or (channels == 2 and 2 * width > png.MAX_SIDE)):
        return f"PNG readers accept at most {png.MAX_SIDE} pixels a side"
    if name == "bmp" and height * (width * (3 if channels > 2 else 1) + 3) + 2048 > 0xFFFFFFFF:
        return "a BMP can be at most 4 GB"
    return ""


def channels_of(pixels: Pixels) -> int:
    """1 to 4."""
    return 1 if pixels.ndim == 2 else int(pixels.shape[2])


def matching(pixels: Pixels, layout: Layout, scratch: Scratch) -> Pixels:
    """The decoder's pixels with as many channels as the file declares.

    Raises:
        DamagedError: the decoder gave another size or depth than the header promised.
        UnsupportedError: or gray where the header promised colours.
    """
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UnsupportedError(f"its samples ({pixels.dtype}) are not supported")
    declared = (layout.height, layout.width, layout.bit_depth)
    if (*pixels.shape[:2], pixels.itemsize * 8) != declared:
        raise DamagedError("it is damaged: its header and its picture data disagree")
    if channels_of(pixels) < 3 <= layout.channels:
        raise UnsupportedError("this kind of file is not supported: its colours cannot be decoded")
    return _with_channels(pixels, layout.channels, scratch)


def _with_channels(pixels: Pixels, channels: int, scratch: Scratch) -> Pixels:
    has = channels_of(pixels)
    if has == channels:
        return pixels if pixels.ndim == 2 or has > 1 else pixels[..., 0]
    size = pixels.shape[:2]
    shape = size if channels == 1 else (*size, channels)
    result = scratch.empty(shape, pixels.dtype)
    return by_rows(lambda rows: _rows_with_channels(rows, channels), pixels.reshape(*size, has), result)


def _rows_with_channels(rows: Pixels, channels: int) -> Pixels:
    """Colour and alpha dropped, or an opaque alpha added."""
    has = rows.shape[2]
    if channels == 1:
        return rows[..., 0]
    if channels == 2:
        return rows[..., 2:] if has == 4 else _opaque(rows[..., :1])
    return rows[..., :3] if channels == 3 else _opaque(rows)


def _opaque(planes: Pixels) -> Pixels:
    """A full alpha channel added."""
    alpha = np.full_like(planes[..., :1], np.iinfo(planes.dtype).max)
    return np.concatenate([planes, alpha], axis=2)


def swapped(rows: Pixels) -> Pixels:
    """BGR(A) to RGB(A), and back; gray stays."""
    if channels_of(rows) < 3:
        return rows
    code = cv2.COLOR_BGR2RGB if rows.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(np.ascontiguousarray(rows), code)


def to_rgb(pixels: Pixels) -> Pixels:
    """BGR(A) to RGB(A) in place; gray stays."""
    return by_rows(swapped, pixels, pixels) if channels_of(pixels) >= 3 else pixels


def turned(pixels: Pixels, orientation: int, scratch: Scratch) -> Pixels:
    """Stored pixels turned upright by an EXIF orientation 1 to 8 (EXIF 3.0, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return contiguous(pixels, scratch)


def contiguous(pixels: Pixels, scratch: Scratch) -> Pixels:
    """The pixels themselves, or a copy, if their rows do not follow one another in memory."""
    if pixels.flags.c_contiguous:
        return pixels
    return by_rows(lambda rows: rows, pixels, scratch.empty(pixels.shape, pixels.dtype))


def profile_of_pixels(metadata: Metadata, layout: Layout) -> tuple[Metadata, tuple[str, ...]]:
    """Without the ICC profile of the CMYK or Lab values that were stored; the pixels are RGB now."""
    space = profile_space(metadata.icc) if metadata.icc else "RGB"
    if layout.cmyk and metadata.icc and pillow.to_srgb(metadata.icc):
        note = "stored as CMYK: converted to sRGB through its profile"
    elif layout.cmyk:
        profile = ", its profile cannot be used" if metadata.icc else ""
        note = f"stored as CMYK: converted to RGB without colour management{profile}"
    elif space not in ("RGB", "GRAY"):
        note = f"its {space} profile is dropped: the pixels are RGB now"
    else:
        return metadata, ()
    return replace(metadata, icc=None), (note,)


def storable(pixels: Pixels, order: str, name: str, scratch: Scratch) -> tuple[Pixels, tuple[str, ...]]:
    """Pixels as the format's encoder takes them, and what is lost on the way.

    All changes are made in one pass into one array from `scratch`; where nothing changes, there is no copy.

    Args:
        pixels: as of `Picture`.
        order: "RGB" or "BGR".
        name: of the format.
        scratch: where the result goes.
    """
    notes: list[str] = []
    steps: list[Callable[[Pixels], Pixels]] = []
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    channels = channels_of(pixels)
    if channels in (2, 4) and name in _NO_ALPHA:
        opaque = pixels[..., -1].min(initial=np.iinfo(pixels.dtype).max) == np.iinfo(pixels.dtype).max
        steps.append(_without_alpha if opaque else over_white)
        notes += [f"{_NAMES[name]} holds no transparency: laid over white (PNG, WebP or TIFF keep it)"] * (
            not opaque
        )
    if channels == 2 and name in _NO_GRAY_ALPHA:
        steps.append(lambda rows: rows[..., [0, 0, 0, 1]])
    if channels > 2 and order == "RGB":
        steps.append(swapped)
    if pixels.dtype == np.uint16 and name in _ONLY_8_BITS:
        steps.append(lambda rows: ((rows.astype(np.uint32) + 128) // 257).astype(np.uint8))
        notes.append(f"{_NAMES[name]} holds 8 bits a channel: rounded from 16 (PNG or TIFF keep 16)")
    if pixels.dtype == np.uint16 and name == "avif":
        steps.append(lambda rows: narrow(rows, avif.DEPTH))
        notes.append("AVIF holds 12 bits a channel: rounded from 16 (PNG or TIFF keep 16)")
    return _converted(pixels, steps, scratch), tuple(notes)


def _converted(pixels: Pixels, steps: Sequence[Callable[[Pixels], Pixels]], scratch: Scratch) -> Pixels:
    """All steps applied, a few rows at a time."""
    if not steps:
        return contiguous(pixels, scratch)

    def convert(rows: Pixels) -> Pixels:
        for step in steps:
            rows = step(rows)
        return rows

    sample = convert(pixels[:1])
    return by_rows(convert, pixels, scratch.empty((pixels.shape[0], *sample.shape[1:]), sample.dtype))


def _without_alpha(rows: Pixels) -> Pixels:
    return rows[..., 0] if rows.shape[2] == 2 else rows[..., :3]


def over_white(rows: Pixels) -> Pixels:
    """Colour times alpha plus white times the rest; 65535 squared just fits 32 bits."""
    top = np.uint32(np.iinfo(rows.dtype).max)
    colour, alpha = rows[..., :-1].astype(np.uint32), rows[..., -1:].astype(np.uint32)
    mixed = ((colour * alpha + top * (top - alpha) + top // 2) // top).astype(rows.dtype)
    return mixed[..., 0] if rows.shape[2] == 2 else mixed


def holdable(metadata: Metadata, name: str, pixels: Pixels) -> tuple[Metadata, tuple[str, ...]]:
    """Metadata as the format can hold it, and what is left out."""
    texts = f"text ({png.subjects(metadata.texts)})"
    names = (
        ("EXIF", metadata.exif),
        ("ICC profile", metadata.icc),
        ("XMP", metadata.xmp),
        (texts, metadata.texts),
        ("a comment", metadata.comments),
        ("IPTC and Photoshop data", metadata.photoshop),
    )
    present = [label for label, blob in names if blob]
    if name in _NO_METADATA and present:
        return Metadata(dpi=metadata.dpi), (
            f"{_NAMES[name]} holds no metadata: {', '.join(present)} left out",
        )
    metadata, notes = _matching_profile(metadata, name, pixels)
    if metadata.exif and not is_exif(metadata.exif):
        metadata, notes = replace(metadata, exif=None), (*notes, "the EXIF data is damaged: left out")
    if metadata.texts and name != "png":
        metadata, notes = replace(metadata, texts=()), (*notes, f"its {texts} is left out: only PNG holds it")
    if metadata.colour and name != "png":
        if meant := png.colour_of(metadata.colour, profile=bool(metadata.icc)):
            notes += (f"its colour description ({meant}) is left out: colours may look different",)
        metadata = replace(metadata, colour=())
    if name != "jpeg":
        if metadata.comments:
            notes += ("its comment is left out: only JPEG holds one",)
        if metadata.photoshop:
            notes += ("its IPTC and Photoshop data are left out: only JPEG holds them",)
        metadata = replace(metadata, comments=(), photoshop=None)
    if name == "jpeg":
        metadata, large = jpeg.fits(metadata)
        notes += tuple(f"{label} is too large for a JPEG: left out" for label in large)
    return metadata, notes


def _matching_profile(metadata: Metadata, name: str, pixels: Pixels) -> tuple[Metadata, tuple[str, ...]]:
    """Without an ICC profile of another colour space than the stored pixels: readers refuse those."""
    space = profile_space(metadata.icc) if metadata.icc else ""
    gray = channels_of(pixels) < 3 and name != "webp"
    if (space == "GRAY" and not gray) or (space == "RGB" and gray and name == "png"):
        kind = "gray" if gray else "RGB"
        return replace(metadata, icc=None), (
            f"the ICC profile is for {space} and the picture is {kind}: left out",
        )
    return metadata, ()
