"""Planes of a film's frame <-> 16-bit RGB, exact: at full chroma every code inside the RGB cube returns.

Equations, ranges and sitings are those of ITU-T H.273. The work is done in float32, a band of rows at a time,
by additions and multiplications of whole arrays. IEEE 754 fixes the result of each, and NumPy never fuses two
of them: every CPU gives the same codes, exact halves included, wherever the bands lie. From a code to RGB and
back, rounding moves a code of 12 bits by at most 0.033, where 0.5 would change it. (Of 16 bits, full range,
one in many millions changes, by one.)

Subsampled chroma is interpolated and averaged by pairs of filters (biorthogonal wavelets, by lifting). The
second undoes the first, so chroma returns too, but where a pixel was clipped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError
from srcli.imaging.pixels import Pixels, white

_Values = NDArray[np.float32]

_BAND = 1 << 17  # pixels in work at a time, so that the arrays stay in the caches
_STEP = 4  # bands start at multiples of it: no row of chroma lies in two
_HALO = 4  # rows of chroma beside a band on which the band depends
_WHITE = 65535.0
_WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}  # of red and blue in luma, by H.273 MatrixCoefficients
_SITINGS = ("left", "center", "topleft", "top")


@dataclass(frozen=True, slots=True)
class Coding:
    """What the numbers of a frame mean.

    Attributes:
        bits: of a code, 8 to 16.
        matrix: H.273 MatrixCoefficients (AVCOL_SPC_* of FFmpeg): 1 BT.709, 4 FCC, 5 and 6 BT.601,
            7 SMPTE 240M, 9 BT.2020 with non-constant luminance; 0: the planes are G, B and R.
        full_range: codes use all of `bits`; else black is 16, white 235, chroma 16 to 240 in 8 bits.
        sub_x, sub_y: luma samples to a chroma sample, across and down: 1, 2 or 4.
        siting: which of its luma samples a chroma sample lies at: the "left" ones, the "topleft" one, the
            "top" ones, or in the "center" of all.

    Raises:
        InputError: a coding other than these.
    """

    bits: int
    matrix: int
    full_range: bool
    sub_x: int = 1
    sub_y: int = 1
    siting: str = "left"

    def __post_init__(self) -> None:
        if self.matrix != 0 and self.matrix not in _WEIGHTS:
            known = "BT.601, BT.709, BT.2020 (non-constant luminance), FCC, SMPTE 240M and RGB"
            raise InputError(
                f"The colour matrix {self.matrix} (of ITU-T H.273) is not supported.",
                f"Convert the film to one of {known}.",
            )
        rgb_subsampled = self.matrix == 0 and (self.sub_x, self.sub_y) != (1, 1)
        if not 8 <= self.bits <= 16 or not {self.sub_x, self.sub_y} <= {1, 2, 4} or rgb_subsampled:
            kind = f"{self.bits} bits, chroma of {self.sub_x}×{self.sub_y} pixels, matrix {self.matrix}"
            raise InputError(f"Frames of {kind} are not supported.", "Convert the film to 4:2:0 or 4:4:4.")
        if self.siting not in _SITINGS:
            raise InputError(f"The chroma siting {self.siting!r} is none of {', '.join(_SITINGS)}.")

    @property
    def top(self) -> int:
        """The largest code."""
        return (1 << self.bits) - 1

    @property
    def black(self) -> int:
        """The code of black."""
        return 0 if self.full_range else 16 << (self.bits - 8)

    @property
    def neutral(self) -> int:
        """The code of chroma without colour."""
        return 1 << (self.bits - 1)

    @property
    def luma_codes(self) -> int:
        """Codes from black to white."""
        return self.top if self.full_range else 219 << (self.bits - 8)

    @property
    def chroma_codes(self) -> int:
        """Codes from the least chroma to the most."""
        return self.top if self.full_range else 224 << (self.bits - 8)

    @property
    def cosited(self) -> tuple[bool, bool]:
        """Down and across: whether a chroma sample lies at the first of its luma samples, else amid them."""
        return self.siting.startswith("top"), self.siting.endswith("left")


def to_rgb(planes: Sequence[Pixels], coding: Coding) -> tuple[NDArray[np.uint16], int]:
    """RGB of a frame's planes, and how many of its pixels lay outside the RGB cube and were clipped.

    Args:
        planes: gray, or Y, Cb, Cr, or G, B, R: (H, W) uint8 for 8 bits, else uint16 with the code in the low
            bits; chroma (ceil(H / sub_y), ceil(W / sub_x)). Rows may have gaps.

    Returns:
        (H, W) for one plane, else (H, W, 3), uint16 0-65535, rounded to the nearest. A pixel is counted if a
        rounded channel is outside.
    """
    height, width = planes[0].shape
    rgb = np.empty((height, width) if len(planes) == 1 else (height, width, 3), np.uint16)
    clipped = 0
    for band in _bands(height, width):
        channels = _channels(planes, coding, band)
        clipped += _outside(channels)
        rounded = [_rounded(channel, 16) for channel in channels]
        if len(rounded) == 1:
            rgb[band] = rounded[0]
        else:
            cv2.merge(rounded, dst=rgb[band])
    return rgb, clipped


def from_rgb(rgb: Pixels, coding: Coding) -> list[Pixels]:
    """The three planes of a frame. A format with one plane takes the first, which is the luma.

    Args:
        rgb: (H, W) gray or (H, W, 3), uint8 or uint16.

    Returns:
        Y, Cb, Cr, or G, B, R: (H, W) uint8 for 8 bits, else uint16 with the code in the low bits, rounded to
        the nearest; chroma (ceil(H / sub_y), ceil(W / sub_x)), neutral for gray.
    """
    height, width = rgb.shape[:2]
    small = -(-height // coding.sub_y), -(-width // coding.sub_x)
    planes: list[Pixels] = [np.empty(size, _kind(coding.bits)) for size in ((height, width), small, small)]
    for band in _bands(height, width):
        rows = slice(band.start // coding.sub_y, -(-band.stop // coding.sub_y))
        for plane, part, codes in zip(planes, (band, rows, rows), _codes(rgb, coding, band), strict=True):
            plane[part] = codes
    return planes


def depth(plane: Pixels, bits: int, target: int) -> Pixels:
    """A full-range plane (alpha) of `bits` as one of `target` bits, 8 to 16 each; up and back is exact.

    uint8 for 8 bits, else uint16 with the code in the low bits. Rounded to the nearest.
    """
    if bits == target:
        return plane
    ratio = np.float32(((1 << target) - 1) / ((1 << bits) - 1))
    return _rounded(np.multiply(plane, ratio, dtype=np.float32), target)


def _kind(bits: int) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if bits == 8 else np.uint16


def _bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows that hold about _BAND pixels."""
    rows = max(_STEP, _BAND // width // _STEP * _STEP)
    for top in range(0, height, rows):
        yield slice(top, min(top + rows, height))


def _scaled(plane: Pixels, zero: int, scale: float) -> _Values:
    values = np.subtract(plane, np.float32(zero), dtype=np.float32)
    return np.multiply(values, np.float32(scale), out=values)


def _rounded(values: _Values, bits: int, zero: int = 0) -> Pixels:
    """Values above `zero` as codes, clipped to `bits`, halves to even. The values are overwritten."""
    if zero:
        values += np.float32(zero)
    np.clip(values, np.float32(0), np.float32((1 << bits) - 1), out=values)
    return np.rint(values, out=values).astype(_kind(bits))


def _outside(channels: list[_Values]) -> int:
    """How many pixels have a channel that does not round into 0-65535."""
    high = low = channels[0]
    for channel in channels[1:]:
        high, low = np.maximum(high, channel), np.minimum(low, channel)
    return int(np.count_nonzero((high >= _WHITE + 0.5) | (low < -0.5)))


def _channels(planes: Sequence[Pixels], coding: Coding, band: slice) -> list[_Values]:
    """Gray, or R, G, B of a band, 0-65535, neither rounded nor clipped."""
    if len(planes) == 1 or coding.matrix == 0:
        scaled = [_scaled(plane[band], coding.black, _WHITE / coding.luma_codes) for plane in planes]
        return scaled if len(planes) == 1 else [scaled[2], scaled[0], scaled[1]]
    luma = _scaled(planes[0][band], coding.black, _WHITE / coding.luma_codes)
    blues, reds = (_upsampled(plane, coding, band)[:, : luma.shape[1]] for plane in planes[1:])
    red, blue = _WEIGHTS[coding.matrix]
    reds *= np.float32(2 * (1 - red) * _WHITE / coding.chroma_codes)  # R - Y
    blues *= np.float32(2 * (1 - blue) * _WHITE / coding.chroma_codes)  # B - Y
    greens = reds * np.float32(-red / (1 - red - blue))
    greens += blues * np.float32(-blue / (1 - red - blue))  # G - Y
    return [np.add(difference, luma, out=difference) for difference in (reds, greens, blues)]


def _codes(rgb: Pixels, coding: Coding, band: slice) -> list[Pixels]:
    """The three planes of a band.

    Y = G + red (R - G) + blue (B - G): so chroma follows from R - G and B - G alone. These are exact, zero in
    gray, and what is averaged.
    """
    scale = coding.luma_codes / white(rgb.dtype)
    if rgb.ndim == 2:
        luma = _rounded(_scaled(rgb[band], 0, scale), coding.bits, coding.black)
        rows = -(-len(luma) // coding.sub_y), -(-luma.shape[1] // coding.sub_x)
        chroma = luma if coding.matrix == 0 else np.full(rows, coding.neutral, luma.dtype)
        return [luma, chroma, chroma]
    halo = _HALO * coding.sub_y if coding.cosited[0] and coding.sub_y > 1 else 0
    start = max(0, band.start - halo)
    r, g, b = cv2.split(rgb[start : band.stop + halo])
    if coding.matrix == 0:
        return [_rounded(_scaled(plane, 0, scale), coding.bits, coding.black) for plane in (g, b, r)]
    red, blue = _WEIGHTS[coding.matrix]
    reds, blues = (np.subtract(plane, g, dtype=np.float32) for plane in (r, b))
    inner = slice(band.start - start, band.stop - start)
    luma = _scaled(g[inner], 0, scale)
    luma += reds[inner] * np.float32(red * scale)
    luma += blues[inner] * np.float32(blue * scale)
    reds, blues = (_downsampled(plane, coding, inner) for plane in (reds, blues))
    lumas = reds * np.float32(red)
    lumas += blues * np.float32(blue)  # Y - G
    reds -= lumas
    blues -= lumas
    for chroma, weight in ((reds, red), (blues, blue)):
        chroma *= np.float32(coding.chroma_codes / (2 * (1 - weight) * white(rgb.dtype)))
    return [
        _rounded(luma, coding.bits, coding.black),
        *(_rounded(chroma, coding.bits, coding.neutral) for chroma in (blues, reds)),
    ]


def _upsampled(plane: Pixels, coding: Coding, band: slice) -> _Values:
    """Chroma for a band of luma rows, 0 if neutral; as wide as all its samples, which may exceed the luma."""
    start = max(0, band.start // coding.sub_y - _HALO)
    stop = -(-band.stop // coding.sub_y) + _HALO
    values = np.subtract(plane[start:stop], np.float32(coding.neutral), dtype=np.float32)
    down, across = coding.cosited
    for _ in range(coding.sub_y // 2):
        values = _doubled(values, 0, down)
    first = band.start - start * coding.sub_y
    values = values[first : first + band.stop - band.start]
    for _ in range(coding.sub_x // 2):
        values = _doubled(values, 1, across)
    return values


def _downsampled(values: _Values, coding: Coding, band: slice) -> _Values:
    """Chroma of a band of luma rows. `values` has the band and, where needed, rows beside it."""
    down, across = coding.cosited
    for _ in range(coding.sub_y // 2):
        values = _halved(values, 0, down)
    values = values[band.start // coding.sub_y : -(-band.stop // coding.sub_y)]
    for _ in range(coding.sub_x // 2):
        values = _halved(values, 1, across)
    return values


def _part(values: _Values, axis: int, part: slice) -> _Values:
    return values[part] if axis == 0 else values[:, part]


def _taps(values: _Values, axis: int, before: int, after: int, border: int) -> list[_Values]:
    """For each place along an axis: what lies `before` places back, ..., there, ..., `after` places ahead."""
    edges = (before, after, 0, 0) if axis == 0 else (0, 0, before, after)
    wide: Any = cv2.copyMakeBorder(values, *edges, border)
    size = values.shape[axis]
    return [_part(wide, axis, slice(k, k + size)) for k in range(before + after + 1)]


def _between(values: _Values, axis: int) -> _Values:
    """Values half a place ahead: the cubic (-1, 9, 9, -1) / 16."""
    a, b, c, d = _taps(values, axis, 1, 2, cv2.BORDER_REPLICATE)
    middle = b + c
    middle *= np.float32(9)
    middle -= a
    middle -= d
    middle *= np.float32(1 / 16)
    return middle


def _doubled(values: _Values, axis: int, cosited: bool) -> _Values:
    """Twice the samples along an axis: those given and those between them, or two about each.

    The mean of the two is the one given; they follow the parabola through it and its neighbours as means. The
    mirrored border makes the outermost two equal, so that one of them, at an odd size, is the one given.
    """
    if cosited:
        first, second = values, _between(values, axis)
    else:
        before, _, after = _taps(values, axis, 1, 1, cv2.BORDER_REFLECT_101)
        slope = before - after
        slope *= np.float32(1 / 8)
        first, second = values + slope, values - slope
    height, width = values.shape
    if axis == 0:
        return np.stack([first, second], axis=1).reshape(2 * height, width)
    return np.asarray(cv2.merge([first, second]), np.float32).reshape(height, 2 * width)


def _halved(values: _Values, axis: int, cosited: bool) -> _Values:
    """Half the samples along an axis; undoes `_doubled`.

    Two become their mean. Cosited ones get a quarter of what interpolation between them misses on either
    side: in all the low-pass (1, 0, -8, 16, 46, 16, -8, 0, 1) / 64 of the 9/7-M wavelet.
    """
    even = _part(values, axis, slice(0, None, 2)).copy()
    odd = _part(values, axis, slice(1, None, 2))
    pairs = slice(0, odd.shape[axis])
    first = _part(even, axis, pairs)
    if cosited:
        missed = odd - _part(_between(even, axis), axis, pairs)
        missed *= np.float32(1 / 4)
        first += missed
        after = _part(even, axis, slice(1, None))
        after += _part(missed, axis, slice(0, after.shape[axis]))
    else:
        first += odd
        first *= np.float32(1 / 2)
    return even
