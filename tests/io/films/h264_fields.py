"""H.264 whose frames are coded as two fields each (PAFF), which no free encoder writes. Samples are PCM."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray


class _Bits:
    def __init__(self) -> None:
        self._bits = ""

    def u(self, count: int, value: int) -> "_Bits":
        self._bits += f"{value:0{count}b}" if count else ""
        return self

    def ue(self, *values: int) -> "_Bits":
        for value in values:
            digits = f"{value + 1:b}"
            self._bits += "0" * (len(digits) - 1) + digits
        return self

    def align(self) -> "_Bits":
        self._bits += "0" * (-len(self._bits) % 8)
        return self

    def samples(self, data: bytes) -> "_Bits":
        self._bits += "".join(f"{byte:08b}" for byte in data)
        return self

    def unit(self, kind: int, reference: int = 3) -> bytes:
        """A NAL unit of this kind, with its start code."""
        self._bits += "1"
        self.align()
        data = int(self._bits, 2).to_bytes(len(self._bits) // 8, "big")
        escaped, zeros = bytearray(), 0
        for byte in data:
            if zeros >= 2 and byte <= 3:
                escaped.append(3)
                zeros = 0
            escaped.append(byte)
            zeros = 0 if byte else zeros + 1
        return b"\0\0\0\1" + bytes([reference << 5 | kind]) + bytes(escaped)


def _parameters(width: int, height: int) -> bytes:
    sequence = _Bits().u(8, 77).u(8, 0).u(8, 30).ue(0, 0, 2, 1).u(1, 0).ue(width // 16 - 1, height // 32 - 1)
    sequence.u(1, 0).u(1, 0).u(1, 1).u(1, 0).u(1, 1).u(4, 0)  # fields allowed; VUI with only the timing
    sequence.u(1, 1).u(32, 1).u(32, 50).u(1, 1).u(4, 0)
    picture = _Bits().ue(0, 0).u(2, 0).ue(0, 0, 0).u(3, 0).ue(0, 0, 0).u(1, 1).u(2, 0)
    return sequence.unit(7) + picture.unit(8)


def _field(luma: NDArray[Any], *, bottom: bool, identity: int) -> bytes:
    """An intra slice of a field; top fields begin a group of pictures."""
    bits = _Bits().ue(0, 7, 0).u(4, 0).u(1, 1).u(1, int(bottom))
    if bottom:
        bits.u(1, 0)
    else:
        bits.ue(identity).u(2, 0)
    bits.ue(0, 1)  # no change of the quantizer, no deblocking
    for y in range(0, luma.shape[0], 16):
        for x in range(0, luma.shape[1], 16):
            block = luma[y : y + 16, x : x + 16].clip(1, 255).astype(np.uint8).tobytes()
            bits.ue(25).align().samples(block + b"\x80" * 128)
    return bits.unit(1 if bottom else 5)


def write(path: Path, pictures: Sequence[NDArray[Any]], *, together: bool) -> None:
    """Write luma pictures, (H, W) uint8 with H a multiple of 32, 25 frames a second.

    Args:
        together: both fields of a frame in one packet; else each in its own, with its own time.
    """
    height, width = pictures[0].shape
    with av.open(str(path), "w") as out:
        stream: Any = out.add_mux_stream("h264", rate=25, width=width, height=height)
        for number, picture in enumerate(pictures):
            begin = _Bits().u(3, 0).unit(9, 0)
            top = (
                begin + _parameters(width, height) + _field(picture[0::2], bottom=False, identity=number % 2)
            )
            bottom = _field(picture[1::2], bottom=True, identity=0)
            for half, data in enumerate((top + bottom,) if together else (top, begin + bottom)):
                packet: Any = av.Packet(data)
                packet.stream, packet.time_base = stream, Fraction(1, 50)
                packet.pts = packet.dts = 2 * number + half
                packet.is_keyframe = half == 0
                out.mux(packet)
