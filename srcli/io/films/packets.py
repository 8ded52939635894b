"""Which packets of a stream hold a frame that is shown, by their headers alone.

Most hold one. Hidden reference frames of VP8 and VP9 are never shown. H.264 may store the two fields of a
frame in two packets.
"""

from collections.abc import Iterator
from typing import Any

from srcli.io.films.signatures import GIF_HEADER, gif_palette

_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_FIELDS_KEPT = 64
"""Bytes of a slice that its header is looked for in."""


class Shown:
    """Tells of the packets of one stream, given in decoding order, whether each begins a frame that is shown.

    Args:
        codec: FFmpeg's name of it.
        extradata: of the stream.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._codec = codec
        self._h264 = _Fields(extradata or b"") if codec == "h264" else None

    def __call__(self, packet: Any) -> bool:
        """`packet` is an av.Packet, or bytes."""
        if self._codec == "vp9":
            return _vp9_shown(memoryview(packet))
        if self._codec == "vp8":
            return bool(memoryview(packet)[0] & 0x10)
        if self._codec == "gif":
            return _gif_shown(memoryview(packet))
        return self._h264 is None or not self._h264.second(packet)


def _vp9_shown(data: memoryview) -> bool:
    last = data[-1]
    if last & 0xE0 == 0xC0:  # a superframe: frames, then their sizes between two equal bytes
        frames, wide = (last & 7) + 1, (last >> 3 & 3) + 1
        index = 2 + frames * wide
        if len(data) >= index and data[-index] == last:
            sizes = bytes(data[-index + 1 : -1])
            at = 0
            for number in range(frames):
                if at < len(data) and _vp9_frame_shown(data[at]):
                    return True
                at += int.from_bytes(sizes[number * wide : (number + 1) * wide], "little")
            return False
    return _vp9_frame_shown(data[0])


def _vp9_frame_shown(first: int) -> bool:
    """By the first byte: marker, profile (and a reserved bit in profile 3), show existing, type, show."""
    bits = f"{first:08b}"
    if bits[:2] != "10":
        return True  # damaged; the decoder will say
    at = 5 if bits[2:4] == "11" else 4
    return bits[at] == "1" or bits[at + 2] == "1"


def _gif_shown(data: memoryview) -> bool:
    """Whether a picture follows the extensions; behind the last there may be comments alone."""
    at = 0
    try:
        if bytes(data[:4]) == b"GIF8":
            at = GIF_HEADER + gif_palette(data[10])
        while data[at] == 0x21:
            at += 2
            while data[at]:
                at += 1 + data[at]
            at += 1
        return data[at] == 0x2C
    except IndexError:
        return False


class Bits:
    """Reads the bits of a NAL unit's payload."""

    def __init__(self, data: bytes) -> None:
        clean = data.replace(b"\0\0\3", b"\0\0")  # emulation prevention
        self._bits = int.from_bytes(clean, "big")
        self._left = 8 * len(clean)

    def read(self, count: int) -> int:
        """An unsigned number; EOFError where there are too few bits."""
        if count > self._left:
            raise EOFError
        self._left -= count
        return self._bits >> self._left & (1 << count) - 1

    def exp_golomb(self) -> int:
        """An unsigned Exp-Golomb number."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def signed(self) -> int:
        """A signed Exp-Golomb number."""
        value = self.exp_golomb()
        return value + 1 >> 1 if value & 1 else -(value >> 1)


class _Fields:
    """Finds the packets of an H.264 stream that hold the second field of a frame.

    What it needs of ITU-T H.264: sequence parameters (7.3.2.1.1) and the start of slice headers (7.3.3).
    """

    def __init__(self, extradata: bytes) -> None:
        self._prefix = 0
        """Bytes of the length before each NAL unit; 0: start codes."""
        self._number_bits: int | None = None
        """Of frame_num; None: no fields in this stream."""
        self._planes = False
        self._open: tuple[int, int] | None = None
        """frame_num and parity of a first field whose second has not come."""
        if extradata[:1] == b"\1" and len(extradata) > 8:
            self._prefix = (extradata[4] & 3) + 1
            length = int.from_bytes(extradata[6:8], "big")
            self._sequence(extradata[8 : 8 + length])
        else:
            for unit in self._units(extradata):
                self._sequence(unit)

    def _units(self, data: bytes) -> Iterator[bytes]:
        """NAL units; of long ones maybe more than they are."""
        at = 0
        if self._prefix:
            while at + self._prefix < len(data):
                length = int.from_bytes(data[at : at + self._prefix], "big")
                at += self._prefix
                yield data[at : at + min(length, 1024)]
                at += length
        else:
            while (at := data.find(b"\0\0\1", at)) >= 0:
                at += 3
                yield data[at : at + 1024]

    def _sequence(self, unit: bytes) -> None:
        """Take a sequence parameter set; others are passed over."""
        if not unit or unit[0] & 31 != 7:
            return
        bits = Bits(unit[1:])
        self._number_bits, self._planes = None, False
        try:
            profile = bits.read(8)
            bits.read(16)
            bits.exp_golomb()
            if profile in _HIGH_PROFILES:
                self._skip_high(bits)
            number_bits = bits.exp_golomb() + 4
            order = bits.exp_golomb()
            if order == 0:
                bits.exp_golomb()
            elif order == 1:
                bits.read(1)
                bits.signed()
                bits.signed()
                for _ in range(bits.exp_golomb()):
                    bits.signed()
            bits.exp_golomb()
            bits.read(1)
            bits.exp_golomb()
            bits.exp_golomb()
            if not bits.read(1):  # frame_mbs_only_flag
                self._number_bits = number_bits
        except EOFError:
            return

    def _skip_high(self, bits: Bits) -> None:
        chroma = bits.exp_golomb()
        if chroma == 3:
            self._planes = bool(bits.read(1))
        bits.exp_golomb()
        bits.exp_golomb()
        bits.read(1)
        if bits.read(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.read(1):
                    last = following = 8
                    for _ in range(16 if index < 6 else 64):
                        if following:
                            following = (last + bits.signed()) % 256
                        last = following or last

    def second(self, packet: Any) -> bool:
        """Whether a packet holds the second field of the frame that the packet before began."""
        if self._number_bits is None and self._prefix:
            return False  # a container with its own parameters, and they exclude fields
        fields: list[tuple[int, int]] = []
        whole = False
        for unit in self._units(bytes(packet)):
            if unit and unit[0] & 31 == 7:
                self._sequence(unit)
            elif unit and unit[0] & 31 in (1, 5):
                if self._number_bits is None:
                    return False
                field = self._field(unit)
                if field is None:
                    whole = True
                    break
                if field not in fields:
                    fields.append(field)
        opened, self._open = self._open, None
        if whole or not fields:
            return False
        number, parity = fields[0]
        if len(fields) == 1 and opened == (number, 1 - parity):
            return True
        if len(fields) == 1:
            self._open = number, parity
        return False

    def _field(self, unit: bytes) -> tuple[int, int] | None:
        """frame_num and parity (1: bottom) of a slice of a field; None: of a frame, or unreadable."""
        bits = Bits(unit[1:_FIELDS_KEPT])
        try:
            for _ in range(3):
                bits.exp_golomb()
            if self._planes:
                bits.read(2)
            number = bits.read(self._number_bits or 0)
            return (number, bits.read(1)) if bits.read(1) else None
        except EOFError:
            return None
