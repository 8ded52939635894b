"""Pixels and metadata made to fit: channel order, orientation, and what a format can hold."""

from dataclasses import replace

import cv2
import numpy as np

from srcli.io import jpeg, png
from srcli.io.codec import DamagedError, Layout, Pixels, UnsupportedError, by_rows
from srcli.io.metadata import Metadata, is_exif, profile_space

_NO_ALPHA = frozenset(("jpeg", "bmp"))
_ONLY_8_BITS = frozenset(("jpeg", "webp", "bmp"))
_NO_GRAY_ALPHA = frozenset(("webp", "avif"))
_NO_METADATA = frozenset(("bmp",))
_NAMES = {"jpeg": "JPEG", "webp": "WebP", "bmp": "BMP", "avif": "AVIF", "png": "PNG", "tiff": "TIFF"}


def channels_of(pixels: Pixels) -> int:
    """1 to 4."""
    return 1 if pixels.ndim == 2 else int(pixels.shape[2])


def matching(pixels: Pixels, layout: Layout) -> Pixels:
    """The decoder's pixels with as many channels as the file declares.

    Raises:
        DamagedError: the decoder gave another size or depth than the header promised.
    """
    if pixels.dtype not in (np.uint8, np.uint16):
        raise UnsupportedError(f"its samples ({pixels.dtype}) are not supported")
    declared = (layout.height, layout.width, layout.bit_depth)
    if (*pixels.shape[:2], pixels.itemsize * 8) != declared:
        raise DamagedError("it is damaged: its header and its picture data disagree")
    return _with_channels(pixels, layout.channels)


def _with_channels(pixels: Pixels, channels: int) -> Pixels:
    has = channels_of(pixels)
    if has == channels:
        return pixels if pixels.ndim == 2 or has > 1 else pixels[..., 0]
    planes = pixels.reshape(*pixels.shape[:2], has)
    if has == 1:
        planes = np.repeat(planes, 3, axis=2) if channels >= 3 else planes
        return planes if channels == 3 else _opaque(planes)
    if channels == 1:
        return np.ascontiguousarray(planes[..., 0])
    if channels == 2:
        return np.ascontiguousarray(planes[..., 2:]) if has == 4 else _opaque(planes[..., :1])
    return np.ascontiguousarray(planes[..., :3]) if channels == 3 else _opaque(planes)


def _opaque(planes: Pixels) -> Pixels:
    """A full alpha channel added."""
    alpha = np.full_like(planes[..., :1], np.iinfo(planes.dtype).max)
    return np.concatenate([planes, alpha], axis=2)


def to_rgb(pixels: Pixels) -> Pixels:
    """BGR(A) to RGB(A), and back; gray stays. Always contiguous."""
    if channels_of(pixels) < 3:
        return np.ascontiguousarray(pixels)
    code = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
    return cv2.cvtColor(np.ascontiguousarray(pixels), code)


to_bgr = to_rgb


def turn_to_bgr(pixels: Pixels) -> Pixels:
    """As `to_bgr`, in the same memory where that can be written."""
    own = pixels.flags.c_contiguous and pixels.flags.writeable
    return by_rows(to_bgr, pixels, pixels) if own else to_bgr(pixels)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Stored pixels turned upright by an EXIF orientation 1 to 8 (EXIF 3.0, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def profile_of_pixels(metadata: Metadata, layout: Layout) -> tuple[Metadata, tuple[str, ...]]:
    """Without the ICC profile of the CMYK or Lab values that were stored; the pixels are RGB now."""
    space = profile_space(metadata.icc) if metadata.icc else "RGB"
    if layout.cmyk:
        profile = ", its CMYK profile is dropped" if metadata.icc else ""
        note = f"stored as CMYK: converted to RGB without colour management{profile}"
    elif space not in ("RGB", "GRAY"):
        note = f"its {space} profile is dropped: the pixels are RGB now"
    else:
        return metadata, ()
    return replace(metadata, icc=None), (note,)


def storable(pixels: Pixels, name: str) -> tuple[Pixels, tuple[str, ...]]:
    """Pixels as the format can hold them, and what was lost on the way."""
    notes: list[str] = []
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    if channels_of(pixels) in (2, 4) and name in _NO_ALPHA:
        pixels, changed = _flattened(pixels)
        notes += [
            f"{_NAMES[name]} holds no transparency: laid over white (PNG, WebP or TIFF keep it)"
        ] * changed
    if channels_of(pixels) == 2 and name in _NO_GRAY_ALPHA:
        pixels = pixels[..., [0, 0, 0, 1]]
    if pixels.dtype == np.uint16 and name in _ONLY_8_BITS:
        eight = np.empty(pixels.shape, np.uint8)
        pixels = by_rows(lambda rows: (rows.astype(np.uint32) + 128) // 257, pixels, eight)
        notes.append(f"{_NAMES[name]} holds 8 bits a channel: rounded from 16 (PNG or TIFF keep 16)")
    if pixels.dtype == np.uint16 and name == "avif":
        notes.append("AVIF holds 12 bits a channel: rounded from 16 (PNG or TIFF keep 16)")
    return pixels, tuple(notes)


def _flattened(pixels: Pixels) -> tuple[Pixels, bool]:
    """(colour laid over white, whether any pixel was not opaque)."""
    top = int(np.iinfo(pixels.dtype).max)
    colour = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
    alpha = pixels[..., -1] if colour.ndim == 2 else pixels[..., -1:]
    if alpha.min(initial=top) == top:
        return np.ascontiguousarray(colour), False
    return by_rows(_over_white, pixels, np.empty(colour.shape, colour.dtype)), True


def _over_white(rows: Pixels) -> Pixels:
    """Colour times alpha plus white times the rest; 65535 squared just fits 32 bits."""
    top = np.uint32(np.iinfo(rows.dtype).max)
    colour, alpha = rows[..., :-1].astype(np.uint32), rows[..., -1:].astype(np.uint32)
    mixed = (colour * alpha + top * (top - alpha) + top // 2) // top
    return mixed[..., 0] if rows.shape[2] == 2 else mixed


def holdable(metadata: Metadata, name: str, pixels: Pixels) -> tuple[Metadata, tuple[str, ...]]:
    """Metadata as the format can hold it, and what is left out."""
    texts = f"text ({png.subjects(metadata.texts)})"
    names = (
        ("EXIF", metadata.exif),
        ("ICC profile", metadata.icc),
        ("XMP", metadata.xmp),
        (texts, metadata.texts),
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
