"""PNG (W3C PNG, third edition): chunks, transparency keys, gray + alpha."""

import mmap
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from srcli.io import codec, storage
from srcli.io import metadata as meta
from srcli.io.codec import INCOMPLETE, DamagedError, Data, Layout, Pixels, UnsupportedError, by_rows
from srcli.io.metadata import Metadata
from srcli.io.storage import Scratch

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_SIDE = 1_000_000
"""What readers accept."""
_PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
"""Chunks that decide about pixels."""
_BLOCK = 1 << 20
"""Bytes unpacked at a time."""
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_COPIES = {
    b"Raw profile type exif": "exif",
    b"Raw profile type APP1": "exif",
    b"Raw profile type xmp": "xmp",
    b"Raw profile type icc": "icc",
    b"Raw profile type icm": "icc",
}
"""Keywords of what ImageMagick writes as digits, beside or instead of a chunk, and what the chunk holds."""
_XMP_KEYWORD = b"XML:com.adobe.xmp"
_LONGEST_KEYWORD = 79
_TRIVIAL = (_XMP_KEYWORD, b"Software")
_MOST_NAMED = 6
_MAX_METADATA = 64 << 20  # a few kilobytes can unpack to gigabytes; no real profile is this large
_METRE = 1  # pHYs: its unit; 0 is none
_APPLE = b"CgBI"
"""What stands before the header of files for iPhones, whose pixels are coded otherwise."""
_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_CODED = _CHANNELS | {4: 4}  # what OpenCV gives
_PALETTE, _GRAY_ALPHA = 3, 4  # colour types
_COLOUR = (b"cICP", b"mDCV", b"cLLI", b"cHRM", b"gAMA", b"sRGB")
_LIKE_SRGB = (b"\x01\x0d", b"\x01\x01")
"""cICP: the colours of BT.709 with the curve of sRGB or BT.709."""
_SRGB_PLACES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
"""cHRM: where sRGB has white, red, green and blue, in 1/100,000."""
_ENDING = b"\0\0\0\0IEND\xaeB`\x82"
_HEADER_END = len(MAGIC) + 25
_SKIPPED = b"skIp"  # a private, ancillary chunk that no reader knows

# Measured on two photographs upscaled to 1 MP, one busy core, ms and MB a megapixel:
#   Huffman only + Paeth  35, 1.22-1.40    (this choice)
#   run lengths + Paeth   42-48, 1.16-1.40     level 1 + Sub (a common default)  40-46, 1.52-1.65
#   level 4 + Paeth       70-76, 1.27-1.48     level 6 + Paeth  265-335, 1.19-1.43
# Photographs hold no long matches, so looking for them costs time and wins nothing.
_FAST = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_HUFFMAN_ONLY)
_PHOTO = (*_FAST, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH)
_ROWS = (*_FAST, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)


def _chunks(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each whole chunk's content, up to and with IEND, if it is there."""
    position, kind = len(MAGIC), b""
    while kind != b"IEND" and position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        start, position = position + 8, position + 12 + length
        if position <= len(data):
            yield kind, start, start + length


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _before_pixels(data: Data) -> dict[bytes, bytes]:
    """The first chunk of each type before the picture data."""
    found: dict[bytes, bytes] = {}
    for kind, start, end in _chunks(data):
        if kind == b"IDAT":
            break
        found.setdefault(kind, data[start:end])
    return found


def layout(data: Data) -> Layout:
    """IHDR, with tRNS counted as alpha and acTL as frames."""
    found = _before_pixels(data)
    if data[12:16] == _APPLE:
        raise UnsupportedError(
            "it is a PNG made for iPhones (CgBI)",
            "Convert it first: `pngcrush -revert-iphone-optimizations` does it.",
        )
    if data[12:16] != b"IHDR":
        raise DamagedError("its PNG header is damaged")
    try:
        width, height, depth, colour = struct.unpack(">IIBB", found[b"IHDR"][:10])
        channels = _CHANNELS[colour] + (b"tRNS" in found and colour in (0, 2, 3))
    except (KeyError, struct.error) as error:
        raise DamagedError("its PNG header is damaged") from error
    frames = struct.unpack(">I", found.get(b"acTL", b"\0\0\0\1")[:4])[0]
    return Layout(
        height,
        width,
        channels,
        16 if depth == 16 else 8,
        max(1, frames),
        coded_channels=_CODED[colour] + (colour == _PALETTE and b"tRNS" in found),
    )


def subjects(texts: Sequence[bytes]) -> str:
    """What `Metadata.texts` are about: their keywords, each once, and not more than a line of them."""
    names = [*dict.fromkeys(_keyword(text[4:]).decode("latin-1") for text in texts)]
    return ", ".join(names[:_MOST_NAMED] + ["…"] * (len(names) > _MOST_NAMED))


def _keyword(chunk: bytes) -> bytes:
    return chunk[:_LONGEST_KEYWORD].partition(b"\0")[0]


def _is_about_picture(kind: bytes, chunk: bytes) -> bool:
    """Whether a text chunk is valid and about the picture, not about the software or dates of the file."""
    keyword = _keyword(chunk)
    ended = 0 < len(keyword) < len(chunk) and chunk[len(keyword)] == 0
    method = {b"tEXt": 0, b"zTXt": 1, b"iTXt": 2}[kind]  # so many bytes further, 0 is the only one there is
    readable = ended and len(chunk) > len(keyword) + method and chunk[len(keyword) + method] == 0
    return readable and keyword not in _TRIVIAL and not keyword.startswith(b"date:")


def _is_copy(text: bytes, metadata: Metadata) -> bool:
    """Whether a text repeats EXIF, XMP or ICC that the file also has as a chunk: the text would go stale."""
    field = _COPIES.get(_keyword(text[4:]))
    return field is not None and bool(getattr(metadata, field))


def colour_of(chunks: Sequence[bytes], *, profile: bool) -> str:
    """What `Metadata.colour` says of how the colours are meant, in a few words; empty where that is sRGB.

    Args:
        profile: there is an ICC profile too, which goes before all but cICP.
    """
    found = {chunk[:4]: chunk[4:] for chunk in chunks}
    if b"cICP" in found:
        return "" if found[b"cICP"][:2] in _LIKE_SRGB else "cICP"
    gamma = int.from_bytes(found.get(b"gAMA", b"")[:4], "big")
    if profile or b"sRGB" in found:
        return ""
    said = [f"gamma {gamma / 100_000:.2f}"] if gamma and abs(gamma - 45455) >= 1000 else []
    places = struct.unpack(">8I", found[b"cHRM"]) if len(found.get(b"cHRM", b"")) == 32 else _SRGB_PLACES
    near = all(abs(one - other) < 1000 for one, other in zip(places, _SRGB_PLACES, strict=True))
    return ", ".join([*said, *([] if near else ["cHRM"])])


def check(data: Data) -> str:
    """The checksums of all that makes the picture are right, and it is whole even if the file is not."""
    kind, wrong = b"", list[str]()
    for kind, start, end in _chunks(data):
        if not _is_right(data, start, end):
            wrong.append(kind.decode("latin-1"))
            if kind in _PICTURE:
                raise DamagedError(f"it is damaged: the checksum of its {wrong[-1]} data is wrong")
    if kind != b"IEND" and not _is_whole(data):
        raise DamagedError("it is cut off: the end of the PNG is missing")
    notes = [f"the checksum of its {', '.join(wrong)} data is wrong: left out"] * bool(wrong)
    return "; ".join(notes + ["its end is missing, but no pixel"] * (kind != b"IEND"))


def _is_right(data: Data, start: int, end: int) -> bool:
    """Whether a chunk's checksum fits its type and content."""
    return zlib.crc32(memoryview(data)[start - 4 : end]) == int.from_bytes(data[end : end + 4], "big")


def _is_whole(data: Data) -> bool:
    """Whether the picture data has an end."""
    unpacker = zlib.decompressobj()
    try:
        for _, start, end in (chunk for chunk in _chunks(data) if chunk[0] == b"IDAT"):
            unpacker.decompress(data[start:end], _BLOCK)
            while unpacker.unconsumed_tail:
                unpacker.decompress(unpacker.unconsumed_tail, _BLOCK)
    except zlib.error as error:
        raise DamagedError("its picture data cannot be decoded") from error
    return unpacker.eof


def decode(data: Data, layout: Layout, scratch: Scratch) -> Pixels:
    """Only the picture's own chunks reach the decoder: no animation, no colour management."""
    colour, depth = data[25], data[24]
    key = _before_pixels(data).get(b"tRNS") if colour in (0, 2) else None
    kind, end = b"", 0
    for kind, start, end in list(_chunks(data)):
        if kind not in _PICTURE or (kind == b"tRNS" and colour != _PALETTE):
            data[start - 4 : start] = _SKIPPED
            data[end : end + 4] = struct.pack(">I", zlib.crc32(memoryview(data)[start - 4 : end]))
    whole = data if kind == b"IEND" else memoryview(data[: end + 4] + _ENDING)
    pixels = codec.decode(whole, layout.coded_shape, layout.dtype, scratch)
    if key is not None:
        return _with_key(pixels, key, depth, scratch)
    if colour != _GRAY_ALPHA:
        return pixels
    return by_rows(lambda rows: rows[..., 2:], pixels, scratch.empty((*pixels.shape[:2], 2), pixels.dtype))


def _with_key(pixels: Pixels, key: bytes, depth: int, scratch: Scratch) -> Pixels:
    """Alpha from the one transparent colour that tRNS names; gray of 1, 2, 4 bits is spread to 8."""
    names = np.frombuffer(key[: len(key) // 2 * 2], ">u2").astype(np.uint32)
    planes = pixels.reshape(*pixels.shape[:2], -1)
    if len(names) != planes.shape[2]:
        raise DamagedError("its transparent colour (tRNS) is damaged")
    names &= (1 << depth) - 1  # further bits mean nothing
    if depth < 8:
        names = names * 255 // ((1 << depth) - 1)

    def with_alpha(rows: Pixels) -> Pixels:
        clear = (rows == names[::-1]).all(axis=2, keepdims=True)
        alpha = np.where(clear, 0, np.iinfo(rows.dtype).max).astype(rows.dtype)
        return np.concatenate([rows, alpha], axis=2)

    shape = (*planes.shape[:2], planes.shape[2] + 1)
    return by_rows(with_alpha, planes, scratch.empty(shape, pixels.dtype))


def metadata(data: Data) -> Metadata:
    """eXIf, iCCP, colours, pHYs, the XMP iTXt chunk and other texts, wherever they stand."""
    exif = icc = xmp = dpi = None
    texts, colour, room = list[bytes](), list[bytes](), _MAX_METADATA
    for kind, start, end in _chunks(data):
        if kind in _PICTURE or not _is_right(data, start, end):
            continue
        if kind == b"eXIf":
            exif = meta.bare_exif(data[start:end])
        elif kind == b"iCCP":
            icc = _inflated(data[start:end].partition(b"\0")[2][1:])
        elif kind == b"iTXt" and data[start:end].startswith(_XMP_KEYWORD + b"\0"):
            xmp = _text(data[start:end])
        elif kind in _COLOUR:
            colour.append(kind + data[start:end])
        elif kind in _TEXTS and end - start <= room and _is_about_picture(kind, content := data[start:end]):
            texts.append(kind + content)
            room -= end - start
        elif kind == b"pHYs" and end - start == 9:
            across, down, unit = struct.unpack_from(">IIB", data, start)
            dpi = meta.resolution(across, down, meta.INCH if unit == _METRE else None)
    exif = exif or next(filter(None, map(_exif_in_text, texts)), None)
    found = Metadata(exif, icc, xmp, dpi, colour=tuple(colour))
    return replace(found, texts=tuple(text for text in texts if not _is_copy(text, found)))


def without_pixels(data: Data) -> Data:
    """What stands before the picture data, and an end: a small PNG with the same header."""
    for kind, start, _ in _chunks(data):
        if kind == b"IDAT":
            short = data[: start - 8] + _chunk(b"IEND", b"")
            whole = mmap.mmap(-1, len(short))
            whole[:] = short
            return whole
    raise DamagedError("it is damaged: it holds no picture data")


def _inflated(packed: bytes) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, _MAX_METADATA)
    except zlib.error:
        return None
    return data if data and unpacker.eof else None


def _text(chunk: bytes) -> bytes | None:
    """The text of an iTXt chunk: keyword, flags, language, translated keyword, text."""
    packed, rest = chunk[len(_XMP_KEYWORD) + 1 : len(_XMP_KEYWORD) + 2], chunk[len(_XMP_KEYWORD) + 3 :]
    text = rest.partition(b"\0")[2].partition(b"\0")[2]
    return _inflated(text) if packed == b"\1" else text or None


def _exif_in_text(text: bytes) -> bytes | None:
    """EXIF as ImageMagick wrote it before there was a chunk for it: a name, a length and digits."""
    keyword = _keyword(text[4:])
    if _COPIES.get(keyword) != "exif":
        return None
    body = text[5 + len(keyword) :]
    words = (body if text.startswith(b"tEXt") else _inflated(body[1:]) or b"").split(None, 2)
    try:
        return meta.bare_exif(bytes.fromhex(words[2].decode("ascii")))
    except (ValueError, IndexError):
        return None


def orientation(data: Data, metadata: Metadata) -> int:
    """From EXIF, else XMP."""
    return meta.orientation(metadata)


def encode(file: Path, pixels: Pixels, quality: int | None, metadata: Metadata) -> None:
    """Lossless whatever the quality."""
    if pixels.ndim == 3 and pixels.shape[2] == 2:
        _encode_gray_alpha(file, pixels)
    else:
        codec.encode(file, pixels, _PHOTO)
    with file.open("rb") as stream:
        stream.seek(-len(_ENDING), 2)
        if stream.read() != _ENDING:
            raise OSError(INCOMPLETE)
    embed(file, metadata)


def embed(file: Path, metadata: Metadata) -> None:
    """Put metadata into a file that has none."""
    storage.insert(file, _HEADER_END, b"".join(_chunks_of(metadata)))


def _encode_gray_alpha(file: Path, pixels: Pixels) -> None:
    """OpenCV writes no gray + alpha. Its rows are those of a gray picture twice as wide, filter Up
    compares whole rows only, so a changed header (width, colour type 4) makes one of the other."""
    height, width = pixels.shape[:2]
    codec.encode(file, pixels.reshape(height, width * 2), _ROWS)
    header = struct.pack(">IIBBBBB", width, height, pixels.itemsize * 8, _GRAY_ALPHA, 0, 0, 0)
    storage.overwrite(file, len(MAGIC), _chunk(b"IHDR", header))


def _chunks_of(metadata: Metadata) -> Iterator[bytes]:
    for chunk in metadata.colour:
        yield _chunk(chunk[:4], chunk[4:])
    if metadata.icc:
        yield _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc))
    if metadata.dpi:
        yield _chunk(b"pHYs", struct.pack(">IIB", *meta.per_metre(metadata.dpi), _METRE))
    if metadata.exif:
        yield _chunk(b"eXIf", metadata.exif)
    if metadata.xmp:
        yield _chunk(b"iTXt", _XMP_KEYWORD + b"\0\0\0\0\0" + metadata.xmp)
    for text in metadata.texts:
        yield _chunk(text[:4], text[4:])
