"""Rare kinds of files that people have: the right pixels, or a refusal that names the kind."""

import io
import struct
from pathlib import Path

import media_samples as samples
import numpy as np
import pytest
from PIL import Image

from srcli.errors import InputError
from srcli.io import pictures
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
