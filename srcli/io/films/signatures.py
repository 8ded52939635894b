"""What a film is by its first bytes, and whether its end is there. Needs no PyAV."""

import mmap
from pathlib import Path
from typing import BinaryIO, NamedTuple

SUFFIXES = frozenset({
    ".mkv", ".webm", ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".avi", ".divx", ".ts", ".m2ts", ".mts",
    ".mpg", ".mpeg", ".m2v", ".vob", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".mxf", ".nut", ".y4m", ".ivf",
    ".h264", ".264", ".hevc", ".265", ".obu", ".dv", ".rm", ".rmvb", ".wtv",
})  # fmt: skip
"""Suffixes (lower case) of films."""

WRITTEN = (".mkv", ".mp4", ".m4v", ".mov", ".webm")
"""Suffixes of the containers that films are written to."""

ANIMATED = (".gif", ".apng", ".png", ".webp")
"""Suffixes of pictures that may be animated, which films are written to, too."""
SOURCES = (".ts", ".mts", ".nut")
"""Those of them that source code has too: TypeScript, Squirrel."""
_BINARY = frozenset((*range(9), *range(14, 27), *range(28, 32)))
"""Bytes that are in no text."""

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"moof", b"sidx", b"uuid")
_NO_FILM_BRANDS = (
    b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"crx ",
    b"M4A ", b"M4B ", b"M4P ",
)  # fmt: skip
"""Pictures and sound in the container of MP4."""
_STARTS = (
    (b"\x1a\x45\xdf\xa3", "matroska"), (b"\0\0\1\xba", "mpeg"), (b"\0\0\1\xb3", "mpeg"),
    (b"FLV\1", "flv"), (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"), (b"YUV4MPEG2 ", "y4m"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02", "mxf"), (b"nut/multimedia container\0", "nut"),
    (b"DKIF\0\0", "ivf"), (b".RMF", "rm"), (b"\xb7\xd8\0\x20\x37\x49\xda\x11", "wtv"),
    (b"\x1f\x07\0\x3f", "dv"), (b"\x1f\x07\0\xbf", "dv"), (b"\x12\0\x0a", "obu"),
)  # fmt: skip
_RAW = (b"\x67", b"\x09", b"\x27", b"\x40\1", b"\x42\1", b"\x46\1")
"""After a start code: parameter sets and delimiters of H.264 and HEVC."""
_OGG_VIDEO = (b"\x80theora", b"\1video\0\0\0", b"BBCD\0", b"OVP80")
_HEAD = 4096


class Extent(NamedTuple):
    """How far a container says that it reaches.

    Attributes:
        declared: bytes; None where it does not say.
        size: bytes of the file.
        fragmented: an MP4 whose index is spread over the file.
        indexed: False only for an MP4 that has no index at all.
    """

    declared: int | None
    size: int
    fragmented: bool = False
    indexed: bool = True

    @property
    def short(self) -> bool:
        """Whether the file ends before it says it does."""
        return self.declared is not None and self.declared > self.size


def kind_of(head: bytes) -> str | None:
    """The kind of container that starts with these bytes (some thousand); None: no film."""
    if head[4:8] in _BOXES:
        return None if head[4:8] == b"ftyp" and head[8:12] in _NO_FILM_BRANDS else "mp4"
    if head[:4] == b"RIFF" and head[8:11] == b"AVI":
        return "avi"
    if head[:4] == b"OggS":
        return "ogg" if any(mark in head for mark in _OGG_VIDEO) else None
    for step, at in ((188, 0), (192, 4)):
        if len(head) > at + 4 * step and all(head[at + step * number] == 0x47 for number in range(5)):
            return "mpegts"
    for start in (b"\0\0\0\1", b"\0\0\1"):
        if head.startswith(start) and head[len(start) :].startswith(_RAW):
            return "raw"
    return next((kind for start, kind in _STARTS if head.startswith(start)), None)


def is_film(path: Path) -> bool:
    """Whether a file is a film by its first bytes. One that has only sound may be called a film.

    Animated pictures (GIF, APNG, WebP, AVIF) are none here. A file that cannot be read is none.
    """
    try:
        with path.open("rb") as file:
            return kind_of(file.read(_HEAD)) is not None
    except OSError:
        return False


def is_source(path: Path) -> bool:
    """Whether a file with a film's suffix is text, and that a suffix of source code. An empty one is not."""
    if path.suffix.lower() not in SOURCES:
        return False
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return head != b"" and _BINARY.isdisjoint(head) and kind_of(head) is None


GIF_HEADER = 13
"""Bytes of a GIF before its palette."""


def gif_palette(flags: int) -> int:
    """Bytes of the palette that a GIF's header, or the head of a picture in it, tells of in this byte."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def gif_ends(data: mmap.mmap) -> str:
    """How a GIF ends, by its blocks: "" as it should, "trailer" without that, "cut" within a block."""
    try:
        at = GIF_HEADER + gif_palette(data[10])
        while at < len(data) and data[at] != 0x3B:
            if data[at] == 0x2C:
                at += 11 + gif_palette(data[at + 9])
            elif data[at] == 0x21:
                at += 2
            else:  # what FFmpeg passes over
                at += 1
                continue
            while data[at]:
                at += 1 + data[at]
            at += 1
    except IndexError:
        return "cut"
    return "" if at < len(data) else "trailer" if at == len(data) else "cut"


def extent(path: Path) -> Extent:
    """How far an MP4, Matroska or AVI file says that it reaches, by its outermost structure alone.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        return extent_of(file)


def extent_of(file: BinaryIO) -> Extent:
    """The same of a stream that can seek."""
    kind = kind_of(file.read(_HEAD))
    size = file.seek(0, 2)
    if kind == "mp4":
        return _boxes(file, size)
    declared = _segment(file) if kind == "matroska" else _riffs(file, size) if kind == "avi" else None
    return Extent(declared, size)


def _boxes(file: BinaryIO, size: int) -> Extent:
    at, seen = 0, set()
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if not name.isalnum() or 0 < length < 8:  # something else was appended
            break
        seen.add(name)
        at = at + length if length else size
    return Extent(at, size, b"moof" in seen, bool(seen & {b"moov", b"moof"}))


def _segment(file: BinaryIO) -> int | None:
    """End of the first segment of a Matroska file."""
    at = 0
    for _ in range(8):  # header, segment, perhaps padding between
        file.seek(at)
        head = file.read(16)
        if not head or not head[0]:
            return None
        wide = 9 - head[0].bit_length()
        length, used = _ebml_size(head[wide:])
        if length is None:
            return None
        at += wide + used + length
        if head[:wide] == b"\x18\x53\x80\x67":
            return at
    return None


def _ebml_size(data: bytes) -> tuple[int | None, int]:
    """A size and how many bytes it takes; None: unknown, as in what was sent live."""
    if not data or not data[0]:
        return None, 0
    used = 9 - data[0].bit_length()
    ones = (1 << 7 * used) - 1
    value = int.from_bytes(data[:used], "big") & ones
    return (None if value == ones else value), used


def _riffs(file: BinaryIO, size: int) -> int | None:
    """End of the last RIFF part of an AVI file."""
    at = 0
    while at + 12 <= size:
        file.seek(at)
        head = file.read(12)
        if head[:4] != b"RIFF":
            break
        length = int.from_bytes(head[4:8], "little")
        if not length:  # never finished, the size unknown
            return None
        at += 8 + length + (length & 1)
    return at - 1 if at == size + 1 else at  # the padding of the last part may be missing
