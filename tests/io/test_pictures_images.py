"""Pixels in and out: every format, depth and layout, checked against other readers and writers."""

import io
import struct
from pathlib import Path
from typing import Any
from unittest.mock import patch

import media_samples as samples
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from srcli.errors import InputError, UsageError
from srcli.io import codec, pictures, tiff
from srcli.io.codec import narrow, widen
from srcli.io.pictures import Header, Picture

KINDS = ("gray", "gray+alpha", "rgb", "rgba")
LAYOUTS = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(
    lambda size: st.sampled_from([size, (*size, 2), (*size, 3), (*size, 4)])
)
PIXELS = st.sampled_from([np.uint8, np.uint16]).flatmap(lambda dtype: hnp.arrays(dtype, LAYOUTS))


def read_bytes(folder: Path, blob: bytes, name: str = "x.bin") -> Picture:
    """Read a file made of these bytes, and check that the header says the same as the pixels."""
    path = folder / name
    path.write_bytes(blob)
    picture = pictures.read(path)
    pixels = picture.pixels
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    header = Header(*pixels.shape[:2], channels, pixels.itemsize * 8, picture.format)
    assert pictures.probe(path) == header
    assert pixels.flags.c_contiguous
    with patch.object(pictures.Header, "decoder_bytes", 0):
        large = pictures.read(path, limit=pixels.nbytes - 1, folder=folder)
    assert samples.is_mapped(large.pixels)
    assert large.pixels.flags.c_contiguous
    assert large.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(large.pixels, pixels)
    assert list(folder.glob(".srcli-*")) == []
    return picture


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pixels=PIXELS)
def test_lossless_formats_return_every_pixel(tmp_path: Path, suffix: str, pixels: Any) -> None:
    path = tmp_path / f"a{suffix}"
    assert pictures.write(path, Picture(pixels)) == ()
    back = read_bytes(tmp_path, path.read_bytes())
    assert back.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(back.pixels, pixels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [8, 16])
def test_tiff_and_png_are_understood_by_other_readers(tmp_path: Path, kind: str, depth: int) -> None:
    pixels = samples.photo(kind, depth)
    pictures.write(tmp_path / "a.tif", Picture(pixels))
    page = tifffile.TiffFile(tmp_path / "a.tif").pages[0]
    assert (page.shape, page.dtype) == (pixels.shape, pixels.dtype)
    assert tuple(page.extrasamples) == ((2,) if kind in ("gray+alpha", "rgba") else ())  # straight alpha
    pictures.write(tmp_path / "a.png", Picture(pixels))
    opened = Image.open(tmp_path / "a.png")
    modes = {"gray": ("L", "I;16"), "gray+alpha": ("LA", "RGBA"), "rgb": ("RGB",) * 2, "rgba": ("RGBA",) * 2}
    assert opened.mode == modes[kind][depth == 16]
    if depth == 8:
        np.testing.assert_array_equal(np.asarray(opened), pixels)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.tif")), pixels)


# Largest difference at default quality on this picture is 12 (JPEG, no chroma subsampling) and 29 (WebP,
# AVIF: colour at half resolution); the mean is what says that channels and size are right.
@pytest.mark.parametrize(
    ("suffix", "kind", "largest"),
    [
        *((".jpg", "gray", 6), (".jpg", "rgb", 20), (".webp", "rgb", 40), (".webp", "rgba", 40)),
        *((".avif", "gray", 10), (".avif", "rgb", 40), (".avif", "rgba", 40)),
    ],
)
def test_lossy_formats_stay_close(tmp_path: Path, suffix: str, kind: str, largest: int) -> None:
    pixels = samples.photo(kind)
    assert pictures.write(tmp_path / f"a{suffix}", Picture(pixels)) == ()
    back = read_bytes(tmp_path, (tmp_path / f"a{suffix}").read_bytes()).pixels
    error = np.abs(back.astype(int) - pixels)
    assert back.shape == pixels.shape
    assert error.max() <= largest
    assert error.mean() < 3


@pytest.mark.parametrize("kind", ["gray", "rgb"])
def test_bmp_is_exact(tmp_path: Path, kind: str) -> None:
    pixels = samples.photo(kind)
    pictures.write(tmp_path / "a.bmp", Picture(pixels))
    np.testing.assert_array_equal(read_bytes(tmp_path, (tmp_path / "a.bmp").read_bytes()).pixels, pixels)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.bmp")), pixels)


def test_quality_changes_size_and_chroma_is_full(tmp_path: Path) -> None:
    picture = Picture(samples.photo("rgb"))
    for name in ("jpeg", "webp", "avif"):
        for quality in (40, 90):
            pictures.write(tmp_path / f"{quality}", picture, format=name, quality=quality)
        assert (tmp_path / "40").stat().st_size < (tmp_path / "90").stat().st_size
    pictures.write(tmp_path / "a.jpg", picture)
    assert {layer[1:3] for layer in Image.open(tmp_path / "a.jpg").layer} == {(1, 1)}  # 4:4:4


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_gray_of_few_bits_becomes_8_bits(tmp_path: Path, depth: int) -> None:
    top = (1 << depth) - 1
    row = sum(value << (8 - depth * (i + 1)) for i, value in enumerate([0, top][: 8 // depth]))
    pixels = read_bytes(tmp_path, samples.raw_png(2, 1, depth, 0, bytes((0, row)))).pixels
    np.testing.assert_array_equal(pixels, np.array([[0, 255]], np.uint8))


def test_palette_becomes_rgb_or_rgba(tmp_path: Path) -> None:
    image = Image.fromarray(samples.photo("rgb")).quantize(16)
    for options, mode in (({}, "RGB"), ({"transparency": 3}, "RGBA")):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", **options)
        expected = np.asarray(Image.open(buffer).convert(mode))
        np.testing.assert_array_equal(read_bytes(tmp_path, buffer.getvalue()).pixels, expected)


@pytest.mark.parametrize(("depth", "top"), [(4, 255), (8, 255), (16, 65535)])
def test_transparent_gray_becomes_alpha(tmp_path: Path, depth: int, top: int) -> None:
    rows = {4: b"\0\x35", 8: b"\0\x03\x05", 16: b"\0\0\3\0\5"}[depth]
    blob = samples.raw_png(2, 1, depth, 0, rows, samples.chunk(b"tRNS", struct.pack(">H", 3)))
    pixels = read_bytes(tmp_path, blob).pixels
    assert pixels.shape == (1, 2, 2)
    assert pixels[0, :, 1].tolist() == [0, top]
    assert pixels[0, 0, 0] == (51 if depth == 4 else 3)


def test_transparent_colour_becomes_alpha(tmp_path: Path) -> None:
    rows = b"\0" + struct.pack(">6H", 1, 2, 3, 500, 600, 700)
    blob = samples.raw_png(2, 1, 16, 2, rows, samples.chunk(b"tRNS", struct.pack(">3H", 1, 2, 3)))
    pixels = read_bytes(tmp_path, blob).pixels
    assert pixels.tolist() == [[[1, 2, 3, 0], [500, 600, 700, 65535]]]


def test_dark_16_bit_is_still_16_bit(tmp_path: Path) -> None:
    dark = samples.photo("rgb").astype(np.uint16)  # no value over 255
    for name in ("a.png", "a.tif"):
        pictures.write(tmp_path / name, Picture(dark))
        back = pictures.read(tmp_path / name).pixels
        assert back.dtype == np.uint16
        np.testing.assert_array_equal(back, dark)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gray", {"photometric": "minisblack", "compression": "zlib", "predictor": 2}),
        ("gray+alpha", {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
        ("gray+alpha", {"extrasamples": ["unassalpha"], "compression": "zlib", "predictor": 2}),
        ("rgb", {"photometric": "rgb", "rowsperstrip": 7}),
        ("rgb", {"photometric": "rgb", "bigtiff": True}),
        ("rgb", {"photometric": "rgb", "tile": (32, 32)}),
        ("rgb", {"photometric": "rgb", "planarconfig": "separate"}),
        ("rgba", {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    ],
)
def test_tiff_kinds(tmp_path: Path, order: str, depth: int, kind: str, options: dict[str, Any]) -> None:
    pixels = samples.photo(kind, depth)
    stored = np.moveaxis(pixels, 2, 0) if "planarconfig" in options else pixels
    tifffile.imwrite(tmp_path / "a.tif", stored, byteorder=order, **options)
    back = read_bytes(tmp_path, (tmp_path / "a.tif").read_bytes()).pixels
    np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("kind", ["gray", "gray+alpha"])
def test_tiff_where_white_is_zero(tmp_path: Path, kind: str, depth: int) -> None:
    pixels = samples.photo(kind, depth)
    extra = ["unassalpha"] if kind == "gray+alpha" else None
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite", extrasamples=extra)
    back = pictures.read(tmp_path / "a.tif").pixels
    colour = (..., 0) if kind == "gray+alpha" else ...
    np.testing.assert_array_equal(back[colour], np.iinfo(pixels.dtype).max - pixels[colour])


def test_tiff_premultiplied_alpha_is_divided_out(tmp_path: Path) -> None:
    stored = np.array([[[50, 25, 0, 100], [255, 0, 7, 255], [0, 0, 0, 0]]], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"])
    expected = [[[128, 64, 0, 100], [255, 0, 7, 255], [0, 0, 0, 0]]]  # 50 * 255 / 100 = 127.5
    assert pictures.read(tmp_path / "a.tif").pixels.tolist() == expected


def test_a_profile_of_another_colour_model_is_dropped(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    lab = Image.fromarray(samples.photo("rgb")).convert("LAB")
    lab.save(buffer, "TIFF", icc_profile=samples.icc(b"Lab "))
    (tmp_path / "a.tif").write_bytes(buffer.getvalue())
    picture = pictures.read(tmp_path / "a.tif")
    assert picture.metadata.icc is None
    assert "its Lab profile is dropped: the pixels are RGB now" in picture.notes


def test_cmyk_jpeg_becomes_rgb_and_says_so(tmp_path: Path) -> None:
    rgb = samples.photo("rgb")
    buffer = io.BytesIO()
    profile = samples.icc(b"CMYK")
    Image.fromarray(rgb).convert("CMYK").save(buffer, "JPEG", quality=100, icc_profile=profile)
    picture = read_bytes(tmp_path, buffer.getvalue())
    assert np.abs(picture.pixels.astype(int) - rgb).max() <= 4  # rounding of JPEG at quality 100, and of CMYK
    assert picture.metadata.icc is None
    assert any("its profile cannot be used" in note for note in picture.notes)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_only_the_first_frame_is_read_with_note(tmp_path: Path, file_format: str) -> None:
    first = samples.photo("rgb")
    more = [Image.fromarray(255 - first), Image.fromarray(first[::-1])]
    options = {} if file_format == "TIFF" else {"duration": 50}
    blob = samples.by_pillow(first, file_format, save_all=True, append_images=more, **options)
    picture = read_bytes(tmp_path, blob)
    assert (
        np.abs(picture.pixels.astype(int) - first).mean() < 8
    )  # 256 colours of GIF: 5; another frame: over 60
    assert [note for note in picture.notes if "only the first of 3" in note]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_once(tmp_path: Path, file_format: str, orientation: int) -> None:
    stored = samples.photo("rgb", size=(24, 40))
    tags = Image.Exif()
    tags[274] = orientation
    upright = np.asarray(
        ImageOps.exif_transpose(Image.open(io.BytesIO(samples.by_pillow(stored, "PNG", exif=tags))))
    )
    options = {"tiffinfo": {274: orientation}} if file_format == "TIFF" else {"exif": tags.tobytes()}
    quality = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    blob = samples.by_pillow(stored, file_format, **options, **quality.get(file_format, {}))
    picture = read_bytes(tmp_path, blob)
    lossless = file_format in ("PNG", "WEBP", "TIFF")
    assert np.abs(picture.pixels.astype(int) - upright).max() <= (
        0 if lossless else 10
    )  # turned wrongly: over 150
    pictures.write(tmp_path / "again.png", picture)
    np.testing.assert_array_equal(pictures.read(tmp_path / "again.png").pixels, picture.pixels)
    assert Image.open(tmp_path / "again.png").getexif().get(274, 1) == 1


def test_16_bit_orientation_and_alpha(tmp_path: Path) -> None:
    pixels = samples.photo("rgba", 16)
    tag = [(274, "H", 1, 6, True)]
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"], extratags=tag
    )
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.tif").pixels, np.rot90(pixels, -1))


@pytest.mark.parametrize("bits", [10, 12])
def test_10_and_12_bits_survive_in_16(bits: int) -> None:
    every = np.arange(1 << bits, dtype=np.uint16)
    wide = widen(every.copy(), bits)
    assert (wide[0], wide[-1]) == (0, 65535)
    np.testing.assert_array_equal(narrow(wide, bits), every)


def test_avif_of_16_bits(tmp_path: Path) -> None:
    pixels = samples.photo("gray", 16)
    notes = pictures.write(tmp_path / "a.avif", Picture(pixels))
    assert "12 bits" in notes[0]
    back = read_bytes(tmp_path, (tmp_path / "a.avif").read_bytes()).pixels
    assert back.dtype == np.uint16
    assert np.abs(back.astype(int) - pixels).mean() < 2 * 257  # two 8-bit steps: quality 90


def test_format_by_content_not_by_name(tmp_path: Path) -> None:
    picture = read_bytes(tmp_path, samples.by_pillow(samples.photo("rgb"), "JPEG"), "photo.png")
    assert picture.format == "jpeg"
    assert picture.notes == ("named .png but really JPEG; read as that",)


def test_format_of() -> None:
    assert [pictures.format_of(name) for name in ("a.PNG", Path("b.jpeg"), "c.tif")] == [
        "png",
        "jpeg",
        "tiff",
    ]
    for name in ("a.gif", "a", "a.doc"):
        with pytest.raises(UsageError, match="picture format"):
            pictures.format_of(name)


@pytest.mark.parametrize(
    "name", ["with space.png", "quo'te\".png", "new\nline.png", "emoji 🦜.png", "-dash.png"]
)
def test_any_file_name(tmp_path: Path, name: str) -> None:
    pixels = samples.photo("rgb")
    pictures.write(tmp_path / name, Picture(pixels))
    np.testing.assert_array_equal(pictures.read(tmp_path / name).pixels, pixels)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5000), (5000, 3, 3), (1, 1, 2), (1, 7, 4)])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".avif"])
def test_odd_shapes(tmp_path: Path, shape: tuple[int, ...], suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    pictures.write(path, Picture(np.full(shape, 200, np.uint8)))
    pixels = pictures.read(path).pixels
    assert pixels.shape[:2] == shape[:2]
    assert abs(int(pixels.flat[0]) - 200) <= 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("rows", [40, 7])
def test_uncompressed_strips_too_large_for_opencv_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, depth: int, order: Any, rows: int
) -> None:
    pixels = samples.photo(kind, depth)
    extra = ("unassalpha",) if kind in ("gray+alpha", "rgba") else None
    photometric = "minisblack" if kind.startswith("gray") else "rgb"
    planes = "contig" if pixels.ndim == 3 else None
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric=photometric, planarconfig=planes, extrasamples=extra,
        byteorder=order, rowsperstrip=rows,
    )  # fmt: skip
    monkeypatch.setattr(tiff, "LARGE_STRIP", 0)
    assert pictures.probe(tmp_path / "a.tif").buffer == 0
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.tif", limit=0).pixels, pixels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("depth", [8, 16])
def test_a_bigtiff_beyond_what_opencv_decodes_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, depth: int
) -> None:
    pixels = samples.photo(kind, depth)
    monkeypatch.setattr(tiff, "CLASSIC", 0)
    pictures.write(tmp_path / "a.tif", Picture(pixels))
    for module in (codec, pictures):
        monkeypatch.setattr(module, "MAX_SAMPLES", 1000)
    with patch.object(pictures.Header, "decoder_bytes", 0):
        back = pictures.read(tmp_path / "a.tif", limit=0).pixels
    np.testing.assert_array_equal(back, pixels)
    assert samples.is_mapped(back)
    pictures.write(tmp_path / "a.png", Picture(pixels))
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.png").pixels, pixels)
    with pytest.raises(InputError, match=r"a\.png") as caught:
        pictures.read(tmp_path / "a.png", memory=1000)
    assert "--memory" in caught.value.hint


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": 2}, {"tile": (16, 16)}])
def test_a_tiff_beyond_what_opencv_decodes_is_read_in_either_byte_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Any, options: dict[str, Any]
) -> None:
    pixels = samples.photo("rgb", 16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=order, photometric="rgb", **options)
    monkeypatch.setattr(codec, "MAX_SAMPLES", 1000)
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.tif", limit=0).pixels, pixels)
