"""Planes and RGB against the equations of ITU-T H.273 in float64."""

import itertools
import pickle
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from srcli.errors import InputError
from srcli.imaging import yuv
from srcli.imaging.pixels import Pixels
from srcli.imaging.yuv import Coding, depth, from_rgb, to_rgb

WEIGHTS = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
RANGES = pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
MATRICES = pytest.mark.parametrize("matrix", WEIGHTS)
SITINGS = pytest.mark.parametrize("siting", ["left", "center", "topleft", "top"])
SAMPLINGS = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (4, 4)]

Values = NDArray[np.float64]


def levels(coding: Coding) -> tuple[float, float, float, float]:
    """Black, codes of luma, neutral, codes of chroma."""
    if coding.full_range:
        return 0, 2**coding.bits - 1, 2 ** (coding.bits - 1), 2**coding.bits - 1
    unit = 2 ** (coding.bits - 8)
    return 16 * unit, 219 * unit, 128 * unit, 224 * unit


def exact_rgb(planes: list[Pixels], coding: Coding) -> list[Values]:
    """R, G, B of Y, Cb, Cr, 0-65535."""
    black, luma, neutral, chroma = levels(coding)
    red, blue = WEIGHTS[coding.matrix]
    y = (planes[0].astype(float) - black) / luma
    cb, cr = ((plane.astype(float) - neutral) / chroma for plane in planes[1:])
    r, b = y + 2 * (1 - red) * cr, y + 2 * (1 - blue) * cb
    return [65535 * part for part in (r, (y - red * r - blue * b) / (1 - red - blue), b)]


def exact_yuv(rgb: Pixels, coding: Coding) -> list[Values]:
    """Y, Cb, Cr at full chroma, not rounded."""
    black, luma, neutral, chroma = levels(coding)
    red, blue = WEIGHTS[coding.matrix]
    r, g, b = np.moveaxis(rgb.astype(float) / np.iinfo(rgb.dtype).max, 2, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    return [black + luma * y, neutral + chroma * cb, neutral + chroma * cr]


def psnr(one: Pixels, other: Pixels, top: int) -> float:
    error = np.mean((one.astype(float) - other) ** 2)
    return float(10 * np.log10(top**2 / error)) if error else float("inf")


def dtype(bits: int) -> type[np.generic]:
    return np.uint8 if bits == 8 else np.uint16


def noise(shape: tuple[int, int], coding: Coding, spread: float = 1.0) -> list[Pixels]:
    """Planes of a (H, W) frame with random codes, `spread` of all, about the middle one."""
    middle = 2 ** (coding.bits - 1)
    low, high = middle - int(spread * middle), middle + int(spread * middle)
    random = np.random.default_rng(0)
    small = -(-shape[0] // coding.sub_y), -(-shape[1] // coding.sub_x)
    return [random.integers(low, high, size).astype(dtype(coding.bits)) for size in (shape, small, small)]


def check_codes_inside_return(planes: list[Pixels], coding: Coding) -> int:
    """RGB is the nearest; codes inside the cube return, the others are counted. How many were inside."""
    rgb, clipped = to_rgb(planes, coding)
    exact = exact_rgb(planes, coding)
    high, low = np.maximum.reduce(exact), np.minimum.reduce(exact)
    inside = (low > -0.5) & (high < 65535.5)
    assert abs(clipped - np.count_nonzero(~inside)) <= 1  # where float32 and float64 see a half otherwise
    for channel, want in enumerate(exact):
        assert np.abs(rgb[..., channel] - want.clip(0, 65535)).max() < 0.51
    for plane, back in zip(planes, from_rgb(rgb, coding), strict=True):
        assert back.dtype == plane.dtype
        np.testing.assert_array_equal(back[inside], plane[inside])
    return int(np.count_nonzero(inside))


@RANGES
@MATRICES
def test_every_8_bit_code_inside_returns(matrix: int, full_range: bool) -> None:
    """All 16.7 million of them, with none but the codes compared."""
    coding = Coding(8, matrix, full_range)
    cb, cr = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    terms = exact_rgb([np.full_like(cb, levels(coding)[0]), cb, cr], coding)  # of black: what luma adds to
    high, low = np.maximum.reduce(terms), np.minimum.reduce(terms)
    for first in range(0, 256, 8):
        codes = np.arange(first, first + 8, dtype=np.uint8)[:, None, None]
        luma = (codes.astype(float) - levels(coding)[0]) * 65535 / levels(coding)[1]
        inside = ((luma + low > -0.5) & (luma + high < 65535.5)).reshape(-1, 256)
        planes = [np.broadcast_to(p, (8, 256, 256)).reshape(-1, 256) for p in (codes, cb, cr)]
        for plane, back in zip(planes, from_rgb(to_rgb(planes, coding)[0], coding), strict=True):
            assert not ((plane != back) & inside).any()


@RANGES
@MATRICES
def test_8_bit_codes_inside_return(matrix: int, full_range: bool) -> None:
    """Every fifth code and both ends, in all combinations."""
    codes = np.unique([*range(0, 256, 5), 1, 15, 16, 17, 127, 128, 129, 234, 235, 236, 240, 241, 254, 255])
    planes = [part.reshape(len(codes), -1) for part in np.meshgrid(*[codes.astype(np.uint8)] * 3)]
    assert check_codes_inside_return(planes, Coding(8, matrix, full_range)) > 0.12 * planes[0].size


@RANGES
@MATRICES
@pytest.mark.parametrize("bits", [10, 12])
def test_deep_codes_inside_return(bits: int, matrix: int, full_range: bool) -> None:
    """Random ones, and the combinations of those about black, the middle, white and both ends."""
    coding = Coding(bits, matrix, full_range)
    black, luma, neutral, chroma = (int(level) for level in levels(coding))
    ends = (0, black, neutral, black + luma, neutral + chroma // 2, neutral - chroma // 2, coding.top)
    near = np.unique([end + step for end in ends for step in (-2, -1, 0, 1, 2)]).clip(0, coding.top)
    edges = [part.reshape(len(near), -1).astype(np.uint16) for part in np.meshgrid(near, near, near)]
    check_codes_inside_return(edges, coding)
    assert check_codes_inside_return(noise((300, 400), coding), coding) > 0.14 * 300 * 400


@RANGES
@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
def test_gray_returns(bits: int, full_range: bool) -> None:
    coding = Coding(bits, 1, full_range)
    black, luma, neutral, _ = (int(level) for level in levels(coding))
    plane = np.arange(black, black + luma + 1).astype(dtype(bits))[None]
    gray, clipped = to_rgb([plane], coding)
    assert clipped == 0
    assert (gray[0, 0], gray[0, -1]) == (0, 65535)
    assert np.abs(gray[0] - np.arange(luma + 1) * 65535 / luma).max() < 0.51
    back = from_rgb(gray, coding)
    np.testing.assert_array_equal(back[0], plane)
    assert {int(code) for chroma in back[1:] for code in chroma.flat} == {neutral}


def test_white_and_black_are_exact() -> None:
    white, black, middle = (np.array([[code]], np.uint8) for code in (235, 16, 128))
    for matrix in WEIGHTS:
        assert to_rgb([white, middle, middle], Coding(8, matrix, False))[0].tolist() == [[[65535] * 3]]
        assert to_rgb([black, middle, middle], Coding(8, matrix, False))[0].tolist() == [[[0] * 3]]


@RANGES
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_rgb_planes_return(bits: int, full_range: bool) -> None:
    coding = Coding(bits, 0, full_range)
    black, luma, *_ = (int(level) for level in levels(coding))
    codes = np.arange(black, black + luma + 1).astype(dtype(bits))
    g, b, r = codes[None], codes[None, ::-1].copy(), np.roll(codes, 7)[None]
    rgb, clipped = to_rgb([g, b, r], coding)
    assert clipped == 0
    assert rgb[0, 0].tolist() == [round((int(r[0, 0]) - black) * 65535 / luma), 0, 65535]
    for plane, back in zip((g, b, r), from_rgb(rgb, coding), strict=True):
        np.testing.assert_array_equal(back, plane)


@RANGES
@MATRICES
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("bits", [8, 10, 16])
def test_codes_are_the_nearest(kind: type[Any], bits: int, matrix: int, full_range: bool) -> None:
    rgb = np.random.default_rng(bits).integers(0, np.iinfo(kind).max + 1, (40, 50, 3)).astype(kind)
    rgb[0, :8] = np.array(list(itertools.product((0, np.iinfo(kind).max), repeat=3)))
    coding = Coding(bits, matrix, full_range)
    tolerance = 0.5 + 2.0 ** (bits - 22)  # of float32
    for codes, exact in zip(from_rgb(rgb, coding), exact_yuv(rgb, coding), strict=True):
        assert np.abs(codes - exact.clip(0, coding.top)).max() <= tolerance


def test_full_range_chroma_beyond_the_last_code_is_clipped() -> None:
    """Pure blue lies at 128 + 127.5, half a code beyond 8 bits."""
    blue = np.array([[[0, 0, 65535]]], np.uint16)
    assert [int(p[0, 0]) for p in from_rgb(blue, Coding(8, 1, True))] == [18, 255, 116]
    assert int(from_rgb(blue, Coding(10, 1, True))[1][0, 0]) == 1023


@SITINGS
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("sub", [(2, 1), (2, 2)], ids=["4:2:2", "4:2:0"])
def test_photograph_returns(sub: tuple[int, int], bits: int, siting: str) -> None:
    """Luma to the code wherever nothing was clipped; chroma, made 4:2:0 elsewhere, within 58 dB."""
    photograph: Any = data  # without types
    full = from_rgb(photograph.astronaut(), Coding(bits, 1, False))
    size = 512 // sub[0], 512 // sub[1]
    planes = [full[0], *(cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in full[1:])]
    coding = Coding(bits, 1, False, *sub, siting)
    rgb, _ = to_rgb(planes, coding)
    luma, *chroma = from_rgb(rgb, coding)
    inside = ((rgb > 0) & (rgb < 65535)).all(axis=2)
    assert inside.mean() > 0.85
    np.testing.assert_array_equal(luma[inside], planes[0][inside])
    assert min(psnr(back, p, coding.top) for back, p in zip(chroma, planes[1:], strict=True)) > 58


@SITINGS
@pytest.mark.parametrize("sub", SAMPLINGS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 3), (5, 2), (9, 7), (16, 24), (33, 31)])
def test_chroma_returns_where_nothing_is_clipped(
    shape: tuple[int, int], sub: tuple[int, int], siting: str
) -> None:
    """Exactly, noise too, at any size; the long forgotten 4:1:0 at multiples of four."""
    if sub == (4, 4):
        shape = shape[0] * 4, shape[1] * 4
    for bits in (8, 10, 12):
        coding = Coding(bits, 9, False, *sub, siting)
        planes = noise(shape, coding, spread=0.12)
        rgb, clipped = to_rgb(planes, coding)
        assert (rgb.shape, clipped) == ((*shape, 3), 0)
        for plane, back in zip(planes, from_rgb(rgb, coding), strict=True):
            np.testing.assert_array_equal(back, plane)


def place(sub: int, index: int, cosited: bool) -> float:
    """Of a chroma sample, in luma samples."""
    return sub * index + (0 if cosited else (sub - 1) / 2)


@SITINGS
@pytest.mark.parametrize("sub", SAMPLINGS)
def test_chroma_lies_where_it_should(sub: tuple[int, int], siting: str) -> None:
    """The centre of an impulse's colour, and ramps sampled."""
    down, across = siting.startswith("top"), siting.endswith("left")
    coding = Coding(10, 1, False, *sub, siting)
    y, cb, cr = (np.full_like(plane, 512) for plane in noise((64, 64), coding))
    cr[5, 7] = 700
    red = to_rgb([y, cb, cr], coding)[0][..., 0].astype(float)
    red -= red[-1, -1]
    assert (red * np.arange(64)[:, None]).sum() / red.sum() == pytest.approx(place(sub[1], 5, down), abs=0.01)
    assert (red * np.arange(64)).sum() / red.sum() == pytest.approx(place(sub[0], 7, across), abs=0.01)

    rows, columns = np.mgrid[:64, :64]
    for ramp, which, step, first in ((rows, (5, 7), sub[1], down), (columns, (7, 5), sub[0], across)):
        rgb = np.full((64, 64, 3), 20000, np.uint16)
        rgb[..., 2] += (500 * ramp).astype(np.uint16)
        blue = from_rgb(rgb, Coding(16, 1, False, *sub, siting))[1][which]
        codes = 500 * (1 - 0.0722) * (224 * 256 / 65535) / (2 * (1 - 0.0722))  # for each luma sample
        assert (int(blue) - 32768) / codes == pytest.approx(place(step, 5, first), abs=0.01)


def test_clipped_pixels_are_counted() -> None:
    coding = Coding(8, 1, False)
    gray = np.array([[0, 15, 16, 17, 128, 234, 235, 236, 255]], np.uint8)
    assert to_rgb([gray], coding)[1] == 4
    inside = [(16, 128, 128), (235, 128, 128), (126, 140, 120)]
    outside = [(236, 128, 128), (16, 128, 129), (126, 128, 40), (126, 200, 128), (126, 240, 240)]
    planes = [np.array([part] * 500, np.uint8) for part in zip(*inside, *outside, strict=True)]
    rgb, clipped = to_rgb(planes, coding)
    assert clipped == 500 * len(outside)
    assert rgb[0, 3].tolist() == [65535, 65535, 65535]
    assert rgb[0, 4].tolist() == [461, 0, 0]  # 65535 * 2 (1 - 0.2126) / 224, and green below black
    assert to_rgb(planes, Coding(8, 0, False))[1] == 500 * 2  # 236 and 240 are above white


def test_clipped_pixels_are_counted_by_luma_samples() -> None:
    luma = np.array([[236, 128], [128, 15]], np.uint8)
    middle = np.array([[128]], np.uint8)
    assert to_rgb([luma, middle, middle], Coding(8, 1, False, 2, 2))[1] == 2


def test_gray_in_three_planes_has_neutral_chroma() -> None:
    gray = np.arange(0, 65536, 13, dtype=np.uint16)[:5005].reshape(65, 77)
    y, cb, cr = from_rgb(gray, Coding(10, 9, False, 2, 2))
    assert y.shape == (65, 77)
    assert cb.shape == cr.shape == (33, 39)
    assert (cb == 512).all()
    assert (cr == 512).all()
    np.testing.assert_array_equal(from_rgb(np.dstack([gray] * 3), Coding(10, 9, False, 2, 2))[0], y)
    assert all(np.array_equal(y, plane) for plane in from_rgb(gray, Coding(10, 0, False)))


@pytest.mark.parametrize("bits", [8, 10])
def test_planes_with_gaps_are_read_and_left_alone(bits: int) -> None:
    coding = Coding(bits, 6, False, 2, 2)
    planes = noise((37, 41), coding)
    padded = [np.pad(plane, ((0, 0), (0, 23)), constant_values=77) for plane in planes]
    for plane in (*planes, *padded):
        plane.flags.writeable = False
    rgb, clipped = to_rgb([wide[:, : p.shape[1]] for wide, p in zip(padded, planes, strict=True)], coding)
    want, count = to_rgb(planes, coding)
    np.testing.assert_array_equal(rgb, want)
    assert clipped == count
    assert all((wide[:, -23:] == 77).all() for wide in padded)


def test_rgb_views_are_read_and_left_alone() -> None:
    coding = Coding(8, 1, False, 2, 2)
    rgb = np.random.default_rng(2).integers(0, 65536, (50, 60, 3), np.uint16)
    rgb.flags.writeable = False
    for view in (rgb, rgb[3:-4, 5:-6], rgb[::-1], rgb[:, ::2], rgb[..., ::-1]):
        for one, other in zip(from_rgb(view, coding), from_rgb(view.copy(), coding), strict=True):
            np.testing.assert_array_equal(one, other)


@SITINGS
@pytest.mark.parametrize("sub", SAMPLINGS)
def test_bands_leave_no_trace(sub: tuple[int, int], siting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    coding = Coding(12, 1, False, *sub, siting)
    planes = noise((75, 50), coding)
    rgb = np.random.default_rng(1).integers(0, 65536, (75, 50, 3), np.uint16)
    whole, codes = to_rgb(planes, coding), from_rgb(rgb, coding)
    monkeypatch.setattr(yuv, "_BAND", 400)
    banded = to_rgb(planes, coding)
    assert banded[1] == whole[1]
    np.testing.assert_array_equal(banded[0], whole[0])
    for one, other in zip(from_rgb(rgb, coding), codes, strict=True):
        np.testing.assert_array_equal(one, other)


def scattered(shape: tuple[int, ...], top: int) -> Pixels:
    """Codes up to `top` that no release of NumPy changes."""
    count = np.arange(np.prod(shape), dtype=np.uint64) * 2654435761 >> 9
    return (count % (top + 1)).astype(np.uint8 if top == 255 else np.uint16).reshape(shape)


def test_every_cpu_gives_the_same_codes() -> None:
    """Checksums, exact halves included: what AVX-512, AVX2 and SSE4.2 gave."""
    into = back = 0
    for bits, sub, siting in itertools.product((8, 10, 16), SAMPLINGS, ("left", "center", "topleft")):
        coding = Coding(bits, 1, False, *sub, siting)
        planes = [scattered(plane.shape, coding.top) for plane in noise((61, 83), coding)]
        rgb, clipped = to_rgb(planes, coding)
        into = zlib.crc32(rgb.astype("<u2").tobytes(), into) ^ clipped
        for plane in from_rgb(scattered((61, 83, 3), 65535), coding):
            back = zlib.crc32(plane.astype("<u2").tobytes(), back)
    assert (hex(into), hex(back)) == ("0xb4e636a5", "0x7764749b")


@pytest.mark.parametrize("bits", range(8, 17))
def test_alpha_returns(bits: int) -> None:
    plane = np.arange(2**bits).astype(dtype(bits)).reshape(16, -1)
    deep = depth(plane, bits, 16)
    assert deep.dtype == np.uint16
    assert (deep[0, 0], deep[-1, -1]) == (0, 65535)
    assert np.abs(deep - plane * (65535 / (2**bits - 1))).max() < 0.51
    back = depth(deep, 16, bits)
    assert back.dtype == plane.dtype
    np.testing.assert_array_equal(back, plane)


@pytest.mark.parametrize(
    "wrong",
    [
        {"matrix": 2},
        {"matrix": 8},
        {"matrix": 10},
        {"matrix": 0, "sub_x": 2},
        {"bits": 7},
        {"bits": 32},
        {"sub_y": 3},
        {"siting": "bottom"},
    ],
)
def test_other_codings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Coding(**{"bits": 8, "matrix": 1, "full_range": False, **wrong})


def test_coding_goes_to_other_processes() -> None:
    coding = Coding(10, 9, False, 2, 2, "topleft")
    assert pickle.loads(pickle.dumps(coding)) == coding
