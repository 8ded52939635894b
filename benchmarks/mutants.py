"""Small whole pictures of every format, made by code, and what becomes of them by chance."""

import io
import random
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from srcli.io import pictures
from srcli.io.pictures import Metadata, Picture

__all__ = ["ANIMATED", "mutant", "seeds"]

ANIMATED = {"gif": ".gif", "apng": ".apng", "webp, animated": ".webp"}
"""Formats that are read as films, too, frame by frame."""
_EXTREME = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
_FIELDS = {
    "jpeg": rb"\xff[\xc0-\xfe]",
    "png": rb"[A-Za-z]{4}",
    "iso": rb"[a-z]{3}[a-z1-9C]",
    "riff": rb"[A-Z8]{3}[A-Z8 ]",
}
"""What stands beside lengths."""


def _scene() -> np.ndarray[Any, Any]:
    """(24, 32, 4) uint8: a gradient with noise and alpha."""
    draw = np.random.default_rng(1)
    ramp = np.add.outer(np.arange(24) * 4, np.arange(32) * 4)[..., None] + [0, 20, 40, 60]
    return np.clip(ramp + draw.integers(0, 16, (24, 32, 4)), 0, 255).astype(np.uint8)


def _by_pillow(mode: str, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(_scene()).convert("RGB" if mode in ("P", "CMYK", "1") else mode).convert(mode).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def _by_srcli(kind: str, channels: int, depth: int) -> bytes:
    with TemporaryDirectory() as folder:
        path, exif = Path(folder, f"x.{kind}"), Image.Exif()
        exif[274], exif[271] = 6, "maker"
        pixels = _scene()[..., :channels] if channels > 1 else _scene()[..., 0]
        pixels = pixels.astype(np.uint16) * 257 if depth == 16 else pixels
        blob = exif.tobytes().removeprefix(b"Exif\0\0")
        xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"></x:xmpmeta>'
        pictures.write(path, Picture(np.ascontiguousarray(pixels), Metadata(blob, None, xmp)))
        return path.read_bytes()


def _heif() -> bytes:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(_scene()[..., :3])).save(buffer, quality=80)
    return buffer.getvalue()


def _animated(kind: str) -> bytes:
    frames = [Image.fromarray(np.roll(_scene(), 5 * i, 1)) for i in range(3)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:], duration=50)
    return buffer.getvalue()


def _bitmap(bits: int, masks: tuple[int, ...], header: int = 40) -> bytes:
    """With bit fields, which Pillow does not write."""
    rows = _scene().view("<u4" if bits == 32 else "<u2")[..., 0].tobytes()
    height, width = 24, len(rows) // 24 * 8 // bits
    fields = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, 3, len(rows), 0, 0, 0, 0)
    head = (fields + struct.pack(f"<{len(masks)}I", *masks)).ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(rows), 0, 0, 14 + len(head)) + head + rows


def seeds() -> Mapping[str, tuple[str, Sequence[Callable[[], bytes]]]]:
    """By format: what its lengths stand beside, and whole files of several kinds."""
    p, s = _by_pillow, _by_srcli
    return {
        "png": ("png", [
            lambda: s("png", 4, 8), lambda: s("png", 3, 16), lambda: p("P", "PNG", transparency=3),
            lambda: p("1", "PNG"),
        ]),
        "jpeg": ("jpeg", [
            lambda: s("jpg", 3, 8), lambda: p("RGB", "JPEG", progressive=True), lambda: p("CMYK", "JPEG"),
            lambda: p("L", "JPEG", comment=b"hello"),
        ]),
        "webp": ("riff", [
            lambda: s("webp", 4, 8), lambda: p("RGB", "WEBP", lossless=True), lambda: p("RGB", "WEBP"),
        ]),
        "tiff": ("", [
            lambda: s("tif", 4, 16), lambda: s("tif", 3, 8), lambda: p("P", "TIFF"), lambda: p("RGB", "TIFF"),
            lambda: p("CMYK", "TIFF", compression="tiff_lzw"), lambda: p("1", "TIFF", compression="group4"),
            lambda: p("RGB", "TIFF", big_tiff=True, compression="jpeg"), lambda: p("LA", "TIFF"),
        ]),
        "bmp": ("", [
            lambda: p("RGB", "BMP"), lambda: p("P", "BMP"), lambda: _bitmap(16, (0xF800, 0x7E0, 0x1F)),
            lambda: _bitmap(32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000), 56),
        ]),
        "avif": ("iso", [lambda: s("avif", 4, 8), lambda: s("avif", 3, 16), lambda: s("avif", 1, 8)]),
        "gif": ("", [lambda: p("P", "GIF"), lambda: _animated("GIF"), lambda: p("P", "GIF", transparency=1)]),
        "heic": ("iso", [_heif]),
        "apng": ("png", [lambda: _animated("PNG")]),
        "webp, animated": ("riff", [lambda: _animated("WEBP")]),
    }  # fmt: skip


def mutant(blob: bytes, fields: str, chance: random.Random) -> bytes:
    """Up to three changes: bits, runs of bytes, lengths, pieces twice or missing, an end cut off."""
    data = bytearray(blob)
    for _ in range(chance.randint(1, 3)):
        if len(data) < 16:
            break
        places = [found.start() for found in re.finditer(_FIELDS[fields], data)] if fields else []
        places = places or list(range(0, len(data) - 8, 2))
        chance.choice((_bits, _run, _length, _length, _twice, _without, _cut))(data, places, chance)
    if fields == "png" and chance.random() < 0.7:
        _mend_checksums(data)
    return bytes(data)


def _bits(data: bytearray, places: list[int], chance: random.Random) -> None:
    for _ in range(chance.randint(1, 16)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _run(data: bytearray, places: list[int], chance: random.Random) -> None:
    start, size = chance.randrange(len(data)), chance.randint(1, 64)
    byte = chance.choice((b"\0", b"\xff", b""))
    end = min(len(data), start + size)
    data[start:end] = byte * (end - start) or chance.randbytes(end - start)


def _length(data: bytearray, places: list[int], chance: random.Random) -> None:
    """A number beside a mark, or anywhere, becomes an extreme one."""
    size = chance.choice((1, 2, 4, 4, 8))
    place = chance.choice(places) + chance.choice((-4, 0, 2, 4, 8)) if chance.random() < 0.8 else -1
    place = place if 0 <= place <= len(data) - size else chance.randrange(max(1, len(data) - size))
    number = chance.choice(_EXTREME) & (1 << 8 * size) - 1
    data[place : place + size] = number.to_bytes(size, chance.choice(("big", "little")))


def _twice(data: bytearray, places: list[int], chance: random.Random) -> None:
    """A piece from mark to mark, put in again elsewhere."""
    start, end = sorted(max(0, chance.choice(places) - 4) for _ in range(2))
    where = max(0, chance.choice(places) - 4)
    data[where:where] = data[start:end]


def _without(data: bytearray, places: list[int], chance: random.Random) -> None:
    start, end = sorted(max(0, chance.choice(places) - 4) for _ in range(2))
    del data[start : min(end, start + 200)]


def _cut(data: bytearray, places: list[int], chance: random.Random) -> None:
    del data[chance.randint(1, len(data)) :]


def _mend_checksums(data: bytearray) -> None:
    """Of the chunks of a PNG, so that more than their checksums is looked at."""
    at = 8
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        if at + 12 + size > len(data):
            return
        struct.pack_into(">I", data, at + 8 + size, zlib.crc32(data[at + 4 : at + 8 + size]))
        at += 12 + size
