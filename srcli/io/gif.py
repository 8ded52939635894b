"""GIF 89a, read only."""

import struct

import numpy as np

from srcli.io import codec
from srcli.io.codec import DamagedError, Data, Layout, Pixels
from srcli.io.metadata import Metadata

_CUT_OFF = "it is cut off: the end of the GIF is missing"


def layout(data: Data) -> Layout:
    """Logical screen; alpha if the first frame has a transparent colour."""
    try:
        width, height = struct.unpack_from("<HH", data, 6)
        frames, transparent = _walk(data)
    except (IndexError, struct.error) as error:
        raise DamagedError(_CUT_OFF) from error
    return Layout(height, width, 4 if transparent else 3, frames=max(1, frames))


def _walk(data: Data) -> tuple[int, bool]:
    """(frames, transparency of the first), following the blocks to the trailer."""
    position, frames, transparent = 13 + _table(data[10]), 0, False
    while (kind := data[position]) != 0x3B:
        if kind == 0x2C:
            frames += 1
            position = _skip(data, position + 11 + _table(data[position + 9]))
        else:
            if data[position + 1] == 0xF9 and frames == 0:
                transparent = bool(data[position + 3] & 1)
            position = _skip(data, position + 2)
    return frames, transparent


def _table(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _skip(data: Data, position: int) -> int:
    """Past a chain of sub-blocks."""
    while length := data[position]:
        position += length + 1
    return position + 1


def check(data: Data) -> str:
    """`layout` has followed the blocks to the end."""
    return ""


def decode(data: bytes) -> Pixels:
    """The first frame, BGR or BGRA."""
    return np.ascontiguousarray(codec.decode(data))


def metadata(data: Data) -> Metadata:
    """None."""
    return Metadata()


def orientation(data: Data, metadata: Metadata) -> int:
    """Always upright."""
    return 1
