"""Rare kinds of files that people have: the right pixels, or a refusal that names the kind."""

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import media_samples as samples
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from srcli.errors import InputError, SrcliError
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


def test_a_palette_may_have_more_colours_than_a_pixel_can_name(tmp_path: Path) -> None:
    palette = b"".join(bytes((i, 255 - i, 7, 0)) for i in range(256)) + b"\1\2\3\0" * 44
    fields = struct.pack("<IiiHHIIiiII", 40, 4, 1, 1, 8, 0, 4, 0, 0, 300, 0) + palette
    blob = (
        b"BM"
        + struct.pack("<IHHI", 18 + len(fields), 0, 0, 14 + len(fields))
        + fields
        + bytes((0, 1, 254, 255))
    )
    right = [[[7, 255 - i, i] for i in (0, 1, 254, 255)]]
    assert read_bytes(tmp_path, blob).pixels.tolist() == right
    damaged = bytearray(blob)
    struct.pack_into("<I", damaged, 46, 301)  # the last one would lie among the pixels
    assert "cannot be decoded" in refusal(tmp_path, bytes(damaged))


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


def test_the_last_box_of_an_avif_may_reach_to_the_end(tmp_path: Path) -> None:
    coded, code = coded_avif(tmp_path, PHOTO)
    size, depth = box(b"ispe", struct.pack(">III", 0, 56, 40)), box(b"pixi", b"\0\0\0\0\3\x08\x08\x08")
    blob = avif_file([(b"av01", coded, [1, 2, 3])], [size, depth, code])
    last = blob.index(b"mdat") - 4
    picture = read_bytes(tmp_path, blob[:last] + bytes(4) + blob[last + 4 :])
    np.testing.assert_array_equal(picture.pixels, read_bytes(tmp_path, blob).pixels)


def few_bits(values: samples.Pixels, bits: int) -> bytes:
    """Rows of samples of 1, 2 or 4 bits, each row padded to a byte."""
    spread = (values[..., None] >> np.arange(bits)[::-1]) & 1
    return np.packbits(spread.reshape(len(values), -1), axis=1).tobytes()


def tiff(tags: dict[int, tuple[str, tuple[int, ...]]], data: bytes, *, order: str = "<") -> bytes:
    """A TIFF of one strip, from tags as (struct codes, values); where the strip is and its size are added."""
    tags = tags | {273: ("I", (8,)), 279: ("I", (len(data),))}
    start = 8 + len(data) + len(data) % 2
    free, table, more = start + 6 + 12 * len(tags), b"", b""
    for code, (kind, values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{kind}", *values)
        place = struct.pack(order + "I", free + len(more)) if len(value) > 4 else value.ljust(4, b"\0")
        more += value if len(value) > 4 else b""
        table += struct.pack(order + "HHI", code, {"H": 3, "I": 4, "Q": 16}[kind], len(values)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    body = head + data + bytes(len(data) % 2)
    return body + struct.pack(order + "H", len(tags)) + table + bytes(4) + more


def tags_of(
    size: tuple[int, int], bits: tuple[int, ...], photometric: int
) -> dict[int, tuple[str, tuple[int, ...]]]:
    shorts = {256: size[1], 257: size[0], 259: 1, 262: photometric, 277: len(bits), 278: size[0]}
    return {code: ("H", (value,)) for code, value in shorts.items()} | {258: ("H", bits)}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes_of_tiffs_keep_their_colours(tmp_path: Path, bits: int, order: str) -> None:
    values = (np.arange(15).reshape(3, 5) % (1 << bits)).astype(np.uint8)
    palette = np.random.default_rng(1).integers(0, 256, (1 << bits, 3), np.uint8)
    colours = ("H", tuple(int(v) * 257 for v in palette.T.ravel()))
    blob = tiff(tags_of((3, 5), (bits,), 3) | {320: colours}, few_bits(values, bits), order=order)
    np.testing.assert_array_equal(read_bytes(tmp_path, blob).pixels, palette[values])


@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [2, 4])
def test_gray_of_2_and_4_bits_becomes_8(tmp_path: Path, bits: int, white_is_zero: bool) -> None:
    values = np.arange(15, dtype=np.uint8).reshape(3, 5) % (1 << bits)
    blob = tiff(tags_of((3, 5), (bits,), 0 if white_is_zero else 1), few_bits(values, bits))
    right = values * (255 // ((1 << bits) - 1))
    np.testing.assert_array_equal(read_bytes(tmp_path, blob).pixels, 255 - right if white_is_zero else right)


def cmyk_profile() -> bytes:
    """A small ICC profile of a printer: Lab of the 16 corners of CMYK, in between mixed."""
    inks = np.indices((2, 2, 2, 2)).reshape(4, -1).T
    lab = np.stack(
        [255 - inks @ [60, 70, 15, 150], 128 + inks @ [-35, 70, -5, 0], 128 + inks @ [-45, -5, 85, 0]], 1
    )
    table = np.clip(lab, 0, 255).astype(np.uint8).tobytes()
    same = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    parts = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061),
        b"A2B0": b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + matrix + same * 4 + table + same * 3,
    }
    body, directory = b"", struct.pack(">I", len(parts))
    for name, part in parts.items():
        directory += struct.pack(">4sII", name, 132 + 12 * len(parts) + len(body), len(part))
        body += part + bytes(-len(part) % 4)
    size = 128 + len(directory) + len(body)
    head = struct.pack(
        ">I4sI4s4s4s12s4s", size, b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ", bytes(12), b"acsp"
    )
    return (head + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)).ljust(128, b"\0") + directory + body


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("with_profile", [True, False])
def test_cmyk_goes_through_its_profile(tmp_path: Path, depth: int, with_profile: bool) -> None:
    image = Image.fromarray(samples.photo("rgba"), "CMYK")
    stored, profile = np.asarray(image), cmyk_profile()
    samples_of = stored if depth == 8 else stored.astype("<u2") * 257
    tags = tags_of((40, 56), (depth,) * 4, 5)
    if with_profile:
        tags[34675] = ("I", struct.unpack(f"<{len(profile) // 4}I", profile))
    picture = read_bytes(tmp_path, tiff(tags, samples_of.tobytes()))
    plain = np.asarray(image.convert("RGB")).astype(int)
    managed = ImageCms.profileToProfile(
        image, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    right = np.asarray(managed) if with_profile else plain
    assert np.abs(picture.pixels - right.astype(int)).max() <= 1
    assert np.abs(plain - np.asarray(managed)).max() > 20
    assert picture.metadata.icc is None
    note = "converted to sRGB through its profile" if with_profile else "without colour management"
    assert note in picture.notes[-1]
    assert ("its 16-bit depth is not kept" in picture.notes) == (depth == 16)


def test_lab_goes_through_colour_management(tmp_path: Path) -> None:
    """CIE Lab is stored with signed a and b; grays of L* 0, 50 and 100 are neutral in sRGB."""
    lab = np.array([[[0, 0, 0], [128, 0, 0], [255, 0, 0], [138, 81, 70]]], np.uint8)
    picture = read_bytes(tmp_path, tiff(tags_of((1, 4), (8, 8, 8), 8), lab.tobytes()))
    right = [[0, 0, 0], [119, 119, 119], [255, 255, 255], [254, 0, 0]]  # the last one is red
    assert np.abs(picture.pixels[0].astype(int) - right).max() <= 5  # a step of 8-bit Lab is as large


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour", [1, 2])
def test_an_extra_channel_of_no_meaning_is_no_alpha(tmp_path: Path, depth: int, colour: int) -> None:
    kind = "gray+alpha" if colour == 1 else "rgba"
    pixels = samples.photo(kind, depth)
    tags = tags_of((40, 56), (depth,) * pixels.shape[2], colour)
    stored = pixels.astype("<u2") if depth == 16 else pixels
    picture = read_bytes(tmp_path, tiff(tags | {338: ("H", (0,))}, stored.tobytes()))
    np.testing.assert_array_equal(picture.pixels, pixels[..., 0] if colour == 1 else pixels[..., :3])
    assert picture.notes == ("its extra channel is not kept",)
    whole = read_bytes(tmp_path, tiff(tags | {338: ("H", (2,))}, stored.tobytes()))
    np.testing.assert_array_equal(whole.pixels, pixels)


@pytest.mark.parametrize("depth", [8, 16])
def test_gray_and_alpha_in_planes(tmp_path: Path, depth: int) -> None:
    pixels = samples.photo("gray+alpha", depth)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        planes = np.moveaxis(pixels, 2, 0)
        file.write(planes, photometric="minisblack", planarconfig="separate", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_bytes(tmp_path, (tmp_path / "a.tif").read_bytes()).pixels, pixels)


def test_a_jpeg_of_cmyk_goes_through_its_profile(tmp_path: Path) -> None:
    profile, buffer = cmyk_profile(), io.BytesIO()
    Image.fromarray(samples.photo("rgba"), "CMYK").save(buffer, "JPEG", quality=95, icc_profile=profile)
    image, target = Image.open(buffer), ImageCms.createProfile("sRGB")
    right = np.asarray(ImageCms.profileToProfile(image, io.BytesIO(profile), target, outputMode="RGB"))
    picture = read_bytes(tmp_path, buffer.getvalue())
    assert np.abs(picture.pixels - right.astype(int)).max() <= 1
    assert picture.notes == ("stored as CMYK: converted to sRGB through its profile",)


def test_the_full_page_of_a_tiff_is_read_where_a_smaller_copy_stands_first(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(PHOTO[::4, ::4], photometric="rgb", subfiletype=1, software="me")
        file.write(
            PHOTO, photometric="rgb", subfiletype=0, software=False, extratags=[(274, "H", 1, 6, True)]
        )
        file.write(255 - PHOTO, photometric="rgb")
    picture = read_bytes(tmp_path, (tmp_path / "a.tif").read_bytes())
    np.testing.assert_array_equal(picture.pixels, np.rot90(PHOTO, -1))
    assert picture.notes == ("several pages: only the first of 2 pages is used",)
    assert b"me\0" in (picture.metadata.exif or b"")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ({"photometric": "cfa"}, "of a camera"),
        ({"photometric": 34892}, "of a camera"),
        ({"dng": True}, "DNG"),
    ],
)
def test_raw_photos_are_refused_by_name(tmp_path: Path, kind: dict[str, Any], name: str) -> None:
    dng = [(50706, "B", 4, b"\1\4\0\0", True)] if kind.pop("dng", False) else []
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(PHOTO[::4, ::4], photometric="rgb", subfiletype=1, subifds=1, extratags=dng)
        linear = kind.get("photometric") == 34892
        file.write(samples.photo("rgb" if linear else "gray", 16), **({"photometric": "minisblack"} | kind))
    message = refusal(tmp_path, (tmp_path / "a.tif").read_bytes())
    assert f"raw file ({name})" in message
    assert "Develop it first" in message
    with pytest.raises(InputError, match="raw file"):
        pictures.probe(tmp_path / "x.bin")


@pytest.mark.parametrize("place", [2**63 + 5, 2**64 - 1, 10**6])
def test_places_beyond_any_file_are_damage(tmp_path: Path, place: int) -> None:
    assert "damaged" in refusal(tmp_path, b"II+\0\x08\0\0\0" + struct.pack("<Q", place) + bytes(64))


def test_pillows_limit_of_pixels_does_not_count_for_tiffs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    values = (np.arange(60).reshape(6, 10) % 4).astype(np.uint8)
    blob = tiff(tags_of((6, 10), (2,), 1), few_bits(values, 2))
    np.testing.assert_array_equal(read_bytes(tmp_path, blob).pixels, values * 85)
    assert Image.MAX_IMAGE_PIXELS == 10


def cmyk_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(samples.photo("rgba"), "CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


RARE = {
    "gray AVIF": samples.by_pillow(PHOTO[..., 0], "AVIF", subsampling="4:0:0", speed=9),
    "GIF": placed_gif((24, 20), (4, 6)),
    "OS/2": os2(4, [RED, BLUE], bytes(4), (2, 1)),
    "palette": tiff(tags_of((3, 5), (1,), 3) | {320: ("H", (65535, 0, 0, 0, 0, 65535))}, bytes(3)),
    "CMYK": cmyk_jpeg(),
}


@pytest.mark.parametrize("blob", RARE.values(), ids=RARE)
def test_damage_of_rare_kinds_gives_a_picture_or_our_error(tmp_path: Path, blob: bytes) -> None:
    for place in range(0, min(len(blob), 700), 3):
        for value in (0, 127, 255):
            (tmp_path / "x").write_bytes(blob[:place] + bytes((value,)) + blob[place + 1 :])
            with contextlib.suppress(SrcliError):
                pixels, header = pictures.read(tmp_path / "x").pixels, pictures.probe(tmp_path / "x")
                assert pixels.shape[:2] == (header.height, header.width)
