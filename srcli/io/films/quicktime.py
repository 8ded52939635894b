"""Flags in MP4 and MOV files that FFmpeg's muxer sets by a rule of its own."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from srcli.io import storage

_ENABLED = 1
"""Bit of a track's flags: players show it without being asked."""


def disable_subtitles(file: Path) -> None:
    """Let players show no subtitles unasked; FFmpeg enables the first track of a kind where none is default.

    Args:
        file: complete; its index (moov) lies anywhere.
    """
    with file.open("rb") as stream:
        headers = [
            (at, header)
            for moov in _boxes(stream, b"moov", 0, file.stat().st_size)
            for track in _boxes(stream, b"trak", *moov)
            for media in _boxes(stream, b"mdia", *track)
            for at, _ in _boxes(stream, b"hdlr", *media)
            if _read(stream, at + 8, 4) in (b"sbtl", b"text", b"subt", b"subp")
            for header, _ in _boxes(stream, b"tkhd", *track)
        ]
        flags = [(header, _read(stream, header, 4)) for _, header in headers]
    for header, (version, *high, low) in flags:
        storage.overwrite(file, header, bytes([version, *high, low & ~_ENABLED]))


def _boxes(stream: BinaryIO, kind: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Begin and end of what the boxes of a kind hold, among those between two places."""
    while begin + 8 <= end:
        size, name = struct.unpack(">I4s", _read(stream, begin, 8))
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", _read(stream, begin + 8, 8))[0], 16
        size = size or end - begin
        if name == kind:
            yield begin + head, begin + size
        begin += max(size, head)


def _read(stream: BinaryIO, at: int, count: int) -> bytes:
    stream.seek(at)
    return stream.read(count)
