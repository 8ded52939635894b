"""Rare kinds of files that people have: the right pixels, or a refusal that names the kind."""

import io
import struct
import zlib
from pathlib import Path

import media_samples as samples
import numpy as np
import pytest
from PIL import Image

from srcli.errors import InputError
from srcli.io import avif, codec, pictures
from srcli.io.pictures import Header, Picture

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def read_bytes(folder: Path, blob: bytes) -> Picture:
    """Read a file made of these bytes; its header and a read into a scratch file say the same."""
    path = folder / "x.bin"
    path.write_bytes(blob)
    picture = pictures.read(path)
    pixels = picture.pixels
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    assert pictures.probe(path) == Header(*pixels.shape[:2], channels, pixels.itemsize * 8, picture.format)
    large = pictures.read(path, limit=0, folder=folder).pixels
    assert samples.is_mapped(large)
    np.testing.assert_array_equal(large, pixels)
    return picture


def refusal(folder: Path, blob: bytes) -> str:
    path = folder / "x.bin"
    path.write_bytes(blob)
    with pytest.raises(InputError) as caught:
        pictures.read(path)
    return str(caught.value)


def os2(bits: int, colours: list[tuple[int, ...]], rows: bytes, size: tuple[int, int]) -> bytes:
    """A bitmap with the 12-byte header of OS/2 and a palette of three bytes a colour."""
    palette = b"".join(bytes(colour[::-1]) for colour in colours)
    head = struct.pack("<IHHHH", 12, *size, 1, bits) + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(rows), 0, 0, 14 + len(head)) + head + rows


def masked(
    bits: int, masks: tuple[int, ...], words: list[int], *, header: int = 40, packing: int = 3
) -> bytes:
    """A bitmap of one row whose channels have bits of their own; masks are of red, green, blue and alpha."""
    row = b"".join(struct.pack("<I", word)[: bits // 8] for word in words)
    row += bytes(-len(row) % 4)
    fields = struct.pack("<IiiHHIIiiII", header, len(words), 1, 1, bits, packing, len(row), 0, 0, 0, 0)
    head = (fields + b"".join(struct.pack("<I", mask) for mask in masks)).ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(row), 0, 0, 14 + len(head)) + head + row


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_os2_bitmaps_keep_their_colours(tmp_path: Path, bits: int) -> None:
    colours = [RED, BLUE] + [WHITE] * ((1 << bits) - 2)
    row = {1: b"\x40", 4: b"\x01", 8: b"\0\1"}[bits].ljust(4, b"\0")
    pixels = read_bytes(tmp_path, os2(bits, colours, row, (2, 1))).pixels
    assert pixels.tolist() == [[list(RED), list(BLUE)]]


@pytest.mark.parametrize(
    ("bits", "masks", "words", "right"),
    [
        (16, (), [0x7FFF, 0x7C00, 0x0010], [WHITE, RED, (0, 0, 132)]),
        (16, (0xF800, 0x7E0, 0x1F), [0xFFFF, 0xF800, 0x0400], [WHITE, RED, (0, 130, 0)]),
        (32, (0xFF000000, 0xFF0000, 0xFF00, 0), [0xFF804000, 0x0000FF00], [(255, 128, 64), BLUE]),
        (32, (0xFF, 0xFF00, 0xFF0000), [0x000000FF, 0x00FF0000], [RED, BLUE]),
        (32, (0x3FF00000, 0xFFC00, 0x3FF), [0x3FFFFFFF, 0x20000000], [WHITE, (128, 0, 0)]),
    ],
)  # fmt: skip
def test_bit_fields_are_applied_and_reach_white(
    tmp_path: Path, bits: int, masks: tuple[int, ...], words: list[int], right: list[tuple[int, ...]]
) -> None:
    for header in (40, 108) if masks else (40,):
        blob = masked(bits, masks, words, header=header, packing=3 if masks else 0)
        assert read_bytes(tmp_path, blob).pixels.tolist() == [[list(colour) for colour in right]]


@pytest.mark.parametrize(("header", "packing"), [(56, 3), (108, 3), (124, 3), (40, 6)])
def test_bit_fields_with_alpha(tmp_path: Path, header: int, packing: int) -> None:
    four = masked(16, (0xF00, 0xF0, 0xF, 0xF000), [0x8F00, 0xF00F], header=header, packing=packing)
    assert read_bytes(tmp_path, four).pixels.tolist() == [[[255, 0, 0, 136], [0, 0, 255, 255]]]
    wide = masked(32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000), [0x80FF0000], header=header, packing=packing)
    assert read_bytes(tmp_path, wide).pixels.tolist() == [[[255, 0, 0, 128]]]


def test_rows_of_bit_fields_stand_upside_down_and_padded(tmp_path: Path) -> None:
    pixels = samples.photo("rgb", size=(5, 7)) >> 3 << 3
    words = (pixels.astype(np.uint16) >> 3) @ np.array([1024, 32, 1], np.uint16)
    rows = np.zeros((5, 8), "<u2")
    rows[:, :7] = words
    spread = ((pixels >> 3).astype(int) * 255 + 15) // 31
    for height, order in ((5, -1), (-5, 1)):
        head = struct.pack("<IiiHHIIiiII", 40, 7, height, 1, 16, 0, 80, 0, 0, 0, 0)
        blob = b"BM" + struct.pack("<IHHI", 134, 0, 0, 54) + head + rows[::order].tobytes()
        np.testing.assert_array_equal(read_bytes(tmp_path, blob).pixels, spread)
    assert "cut off" in refusal(tmp_path, blob[:-1])


def test_bitmaps_of_other_kinds_are_refused_by_name(tmp_path: Path) -> None:
    assert "this kind of BMP is not supported" in refusal(tmp_path, masked(32, (), [0], packing=5))
    assert "this kind of BMP is not supported" in refusal(tmp_path, masked(2, (), [0] * 16, packing=0))


def placed_gif(screen: tuple[int, int], place: tuple[int, int], **options: int) -> bytes:
    """A GIF of 8x8 blue pixels at (left, top) of a screen of (width, height)."""
    image = Image.new("P", (8, 8), 1)
    image.putpalette([*RED, *BLUE, *WHITE, *WHITE])
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, **options)
    blob = bytearray(buffer.getvalue())
    struct.pack_into("<HH", blob, 6, *screen)
    at = blob.index(b"\x2c\0\0\0\0\x08\0\x08\0")
    struct.pack_into("<HH", blob, at + 1, *place)
    return bytes(blob)


@pytest.mark.parametrize(
    ("screen", "place", "size"),
    [((24, 20), (4, 6), (20, 24)), ((24, 20), (0, 0), (20, 24)), ((10, 10), (5, 0), (10, 13))],
)
def test_what_the_first_frame_of_a_gif_leaves_free_is_transparent(
    tmp_path: Path, screen: tuple[int, int], place: tuple[int, int], size: tuple[int, int]
) -> None:
    right = np.zeros((*size, 4), np.uint8)
    right[place[1] : place[1] + 8, place[0] : place[0] + 8] = (*BLUE, 255)
    np.testing.assert_array_equal(read_bytes(tmp_path, placed_gif(screen, place)).pixels, right)


def test_a_gif_needs_no_more_than_its_first_frame(tmp_path: Path) -> None:
    blob = placed_gif((8, 8), (0, 0))
    right = np.full((8, 8, 3), BLUE, np.uint8)
    np.testing.assert_array_equal(read_bytes(tmp_path, blob).pixels, right)
    np.testing.assert_array_equal(read_bytes(tmp_path, blob[:-1]).pixels, right)  # no trailer
    assert "cannot be decoded" in refusal(tmp_path, blob[:-6])


def test_the_transparent_colour_of_a_gif(tmp_path: Path) -> None:
    pixels = read_bytes(tmp_path, placed_gif((8, 8), (0, 0), transparency=1)).pixels
    assert pixels.shape == (8, 8, 4)
    assert not pixels[..., 3].any()


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_transparent_gray_counts_within_the_depth(tmp_path: Path, depth: int) -> None:
    top = (1 << depth) - 1
    row = bytes((0, top << (8 - depth), 0))[: 3 if depth == 8 else 2]
    key = samples.chunk(b"tRNS", struct.pack(">H", 0xFFFF))
    pixels = read_bytes(tmp_path, samples.raw_png(2, 1, depth, 0, row, key)).pixels
    assert pixels.tolist() == [[[255, 0], [0, 255]]]


def test_a_transparent_colour_counts_within_the_depth(tmp_path: Path) -> None:
    key = samples.chunk(b"tRNS", struct.pack(">3H", 0x1FF, 0x200, 0x300))
    blob = samples.raw_png(2, 1, 8, 2, bytes((0, *RED, *BLUE)), key)
    assert read_bytes(tmp_path, blob).pixels.tolist() == [[[*RED, 0], [*BLUE, 255]]]


PHOTO = samples.photo("rgb")


@pytest.mark.parametrize("missing", [1, 4, 8, 11, 12])
@pytest.mark.parametrize("extra", [b"", samples.chunk(b"tEXt", b"Title\0x")])
def test_a_png_whose_picture_is_whole_needs_no_end(tmp_path: Path, missing: int, extra: bytes) -> None:
    blob = samples.by_pillow(PHOTO, "PNG")
    blob = blob[:-12] + extra + blob[-12:]
    picture = read_bytes(tmp_path, blob[:-missing])
    np.testing.assert_array_equal(picture.pixels, PHOTO)
    assert picture.notes == ("its end is missing, but no pixel",)


@pytest.mark.parametrize("missing", [13, 17, 30])
def test_a_png_that_misses_pixels_is_refused(tmp_path: Path, missing: int) -> None:
    blob = samples.by_pillow(PHOTO, "PNG")
    assert "cut off" in refusal(tmp_path, blob[:-missing])
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in PHOTO))[:-missing]
    head = samples.chunk(b"IHDR", struct.pack(">IIBBBBB", 56, 40, 8, 2, 0, 0, 0))
    assert "cut off" in refusal(tmp_path, b"\x89PNG\r\n\x1a\n" + head + samples.chunk(b"IDAT", body))


@pytest.mark.parametrize("kind", [b"tEXt", b"iCCP", b"eXIf", b"tRNS", b"PLTE"])
def test_a_wrong_checksum_matters_where_it_is_about_pixels(tmp_path: Path, kind: bytes) -> None:
    wrong = samples.chunk(kind, b"Title\0\0" + zlib.compress(samples.icc()))[:-1] + b"\0"
    blob = samples.by_pillow(PHOTO, "PNG")
    blob = blob[:33] + wrong + samples.chunk(b"tEXt", b"Author\0me") + blob[33:]
    if kind in (b"tRNS", b"PLTE"):
        assert f"the checksum of its {kind.decode()} data is wrong" in refusal(tmp_path, blob)
        return
    picture = read_bytes(tmp_path, blob)
    np.testing.assert_array_equal(picture.pixels, PHOTO)
    assert picture.notes == (f"the checksum of its {kind.decode()} data is wrong: left out",)
    assert picture.metadata == pictures.Metadata(texts=(b"tEXtAuthor\0me",))


def test_a_png_for_iphones_is_refused_by_name(tmp_path: Path) -> None:
    blob = samples.by_pillow(PHOTO, "PNG")
    message = refusal(tmp_path, blob[:8] + samples.chunk(b"CgBI", b"\x50\0\x20\2") + blob[8:])
    assert "made for iPhones (CgBI)" in message
    assert "fresh copy" not in message


@pytest.mark.parametrize("junk", [b"\0", b"\x12\x34" * 20, b"ab\xff\0cd\xff\xff"])
def test_junk_between_the_segments_of_a_jpeg_is_skipped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], junk: bytes
) -> None:
    blob = samples.by_pillow(PHOTO, "JPEG", exif=samples.exif())
    right = read_bytes(tmp_path, blob)
    table = blob.index(b"\xff\xdb")
    picture = read_bytes(tmp_path, blob[:table] + junk + blob[table:])
    np.testing.assert_array_equal(picture.pixels, right.pixels)
    assert picture.metadata == right.metadata
    assert "between its segments" in picture.notes[0]
    assert capfd.readouterr().err == ""
    half = blob[:table] + junk + blob[table : (len(blob) + blob.index(b"\xff\xda")) // 2] + b"\xff\xd9"
    assert "premature end" in refusal(tmp_path, half)


def test_bytes_that_fill_between_segments_are_no_junk(tmp_path: Path) -> None:
    blob = samples.by_pillow(PHOTO, "JPEG")
    table = blob.index(b"\xff\xdb")
    assert read_bytes(tmp_path, blob[:table] + b"\xff" * 5 + blob[table:]).notes == ()


def test_gray_is_no_answer_where_the_header_says_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "decode", lambda *_: PHOTO[..., 0])
    assert "colours cannot be decoded" in refusal(tmp_path, samples.by_pillow(PHOTO, "PNG"))


@pytest.mark.parametrize("form", ["full", "limited"])
def test_a_gray_avif_reaches_black_and_white(tmp_path: Path, form: str) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (32, 1))
    blob = samples.by_pillow(ramp, "AVIF", quality=100, range=form, subsampling="4:0:0", speed=9)
    pixels = read_bytes(tmp_path, blob).pixels
    assert np.abs(pixels.astype(int) - ramp).max() <= 2


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("limited", [False, True])
def test_gray_of_10_and_12_bits_is_spread_from_the_range_it_is_coded_in(bits: int, limited: bool) -> None:
    """No encoder at hand writes them with a limited range."""
    shift, top = bits - 8, (1 << bits) - 1
    low, high = (16 << shift, 235 << shift) if limited else (0, top)
    coded = np.linspace(low, high, 50).round().astype(np.uint16).reshape(5, 10)
    exact = (coded.astype(float) - low) / (high - low)
    spread = avif._gray(coded.copy(), bits, np.round(exact * 255).astype(np.uint8))
    assert np.abs(spread - exact * 65535).max() <= 0.5


def box(kind: bytes, *content: bytes) -> bytes:
    """An ISO base media box."""
    body = b"".join(content)
    return struct.pack(">I4s", len(body) + 8, kind) + body


def avif_file(
    items: list[tuple[bytes, bytes, list[int]]], properties: list[bytes], links: bytes = b""
) -> bytes:
    """An AVIF of items (type, content, numbers of properties from 1), of which the first is the picture."""
    count = struct.pack(">H", len(items))
    infos = [
        box(b"infe", struct.pack(">IHH4sx", 2 << 24, i, 0, kind)) for i, (kind, _, _) in enumerate(items, 1)
    ]
    owns = [struct.pack(">HB", i, len(own)) + bytes(own) for i, (_, _, own) in enumerate(items, 1)]

    def head(places: list[int]) -> bytes:
        spots = [
            struct.pack(">HHHII", i, 0, 1, place, len(content))
            for i, (place, (_, content, _)) in enumerate(zip(places, items, strict=True), 1)
        ]
        parts = (
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", struct.pack(">IH", 0, 1)),
            box(b"iloc", b"\0\0\0\0\x44\0", count, *spots),
            box(b"iinf", bytes(4), count, *infos),
            box(b"iref", bytes(4), links),
            box(b"iprp", box(b"ipco", *properties), box(b"ipma", struct.pack(">II", 0, len(items)), *owns)),
        )
        return box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf") + box(b"meta", bytes(4), *parts)

    start = len(head([0] * len(items))) + 8
    places = [start + sum(len(content) for _, content, _ in items[:i]) for i in range(len(items))]
    return head(places) + box(b"mdat", *(content for _, content, _ in items))


def coded_avif(folder: Path, pixels: samples.Pixels) -> tuple[bytes, bytes]:
    """(coded picture, its av1C box) of an AVIF that srcli wrote."""
    pictures.write(folder / "part.avif", Picture(pixels), quality=100)
    blob = (folder / "part.avif").read_bytes()
    code, data = blob.index(b"av1C") - 4, blob.index(b"mdat") + 4
    return blob[data:], blob[code : code + struct.unpack_from(">I", blob, code)[0]]


def test_a_grid_of_12_bits_is_spread_from_12(tmp_path: Path) -> None:
    parts = [np.full((64, 64, 3), value, np.uint16) for value in (65535, 20000)]
    (left, code), (right, _) = (coded_avif(tmp_path, part) for part in parts)
    sizes = [box(b"ispe", struct.pack(">III", 0, width, 64)) for width in (128, 64)]
    depth = box(b"pixi", b"\0\0\0\0\3\x0c\x0c\x0c")
    grid = struct.pack(">BBBBHH", 0, 0, 0, 1, 128, 64)
    links = box(b"dimg", struct.pack(">HHHH", 1, 2, 2, 3))
    items = [(b"grid", grid, [1, 3]), (b"av01", left, [2, 3, 4]), (b"av01", right, [2, 3, 4])]
    pixels = read_bytes(tmp_path, avif_file(items, [*sizes, depth, code], links)).pixels
    assert pixels.shape == (64, 128, 3)
    assert np.abs(pixels[:, :64].astype(int) - 65535).max() <= 64
    assert np.abs(pixels[:, 64:].astype(int) - 20000).max() <= 64


def test_exif_behind_the_pixels_of_an_avif(tmp_path: Path) -> None:
    coded, code = coded_avif(tmp_path, PHOTO)
    size = box(b"ispe", struct.pack(">III", 0, 56, 40))
    depth = box(b"pixi", b"\0\0\0\0\3\x08\x08\x08")
    items = [(b"av01", coded, [1, 2, 3]), (b"Exif", bytes(4) + samples.exif(), [])]
    links = box(b"cdsc", struct.pack(">HHH", 2, 1, 1))
    picture = read_bytes(tmp_path, avif_file(items, [size, depth, code], links))
    assert np.abs(picture.pixels.astype(int) - PHOTO).mean() < 2
    assert picture.metadata.exif == samples.exif()
