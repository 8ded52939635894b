"""Pictures, metadata blobs and files for the media tests, all made by code."""

import io
import mmap
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from srcli.io.pictures import Metadata

Pixels = NDArray[Any]

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" title="\xc3\xa4"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def icc(space: bytes = b"RGB ", size: int = 300) -> bytes:
    """A blob with the header of an ICC profile; nothing here looks past the header."""
    head = struct.pack(
        ">I4sI4s4s4s12s4s", size, b"none", 0x04300000, b"mntr", space, b"XYZ ", b"\0" * 12, b"acsp"
    )
    return head + bytes(i * 7 % 251 for i in range(size - len(head)))


def exif(orientation: int = 1, order: str = "<", size: tuple[int, int] = (24, 40)) -> bytes:
    """Make, Orientation, pixel dimensions (height, width) in the Exif directory, and an unlinked rest."""
    ifd0 = struct.pack(order + "H", 3)
    ifd0 += struct.pack(order + "HHI4s", 271, 2, 4, b"abc\0")
    ifd0 += struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    ifd0 += struct.pack(order + "HHII", 34665, 4, 1, 50) + struct.pack(order + "I", 0)
    inner = struct.pack(order + "H", 2) + struct.pack(order + "HHIHH", 0xA002, 3, 1, size[1], 0)
    inner += struct.pack(order + "HHII", 0xA003, 4, 1, size[0]) + struct.pack(order + "I", 0)
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", 8) + ifd0 + inner


METADATA = Metadata(exif(), icc(), XMP.replace(b'"6"', b'"1"'))


def photo(kind: str, depth: int = 8, size: tuple[int, int] = (40, 56)) -> Pixels:
    """A piece of a photograph: kind "gray", "gray+alpha", "rgb" or "rgba"; 16-bit values use all bits."""
    rgb = data.astronaut()[100 : 100 + size[0], 180 : 180 + size[1]]
    gray = data.camera()[100 : 100 + size[0], 180 : 180 + size[1]]
    pixels = {
        "gray": gray,
        "gray+alpha": np.dstack([gray, rgb[..., 0]]),
        "rgb": rgb,
        "rgba": np.dstack([rgb, gray]),
    }[kind]
    if depth == 8:
        return np.ascontiguousarray(pixels)
    noise = np.random.default_rng(7).integers(0, 256, pixels.shape)
    return pixels.astype(np.uint16) * 256 + noise.astype(np.uint16)


def by_pillow(pixels: Pixels, file_format: str, **options: Any) -> bytes:
    """A file written by a library other than ours."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG from its unfiltered scan lines (each with a leading 0) and further chunks."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + extra + body


def is_mapped(pixels: Pixels) -> bool:
    """Whether the pixels are in a scratch file."""
    base: Any = pixels
    while base is not None and not isinstance(base, mmap.mmap):
        base = base.base if isinstance(base, np.ndarray) else None
    return base is not None
