"""Writing: complete or not at all, and what a format cannot hold is said."""

import os
import shutil
import sys
from pathlib import Path
from tempfile import gettempdir
from typing import Any
from unittest.mock import patch

import cv2
import media_samples as samples
import numpy as np
import pytest
import tifffile
from PIL import Image

from srcli import memory
from srcli.errors import OutputError, UsageError
from srcli.io import avif, codec, pictures, tiff
from srcli.io.codec import INCOMPLETE
from srcli.io.pictures import Picture
from srcli.io.storage import Scratch, is_full


@pytest.mark.parametrize("suffix", [".jpg", ".bmp"])
@pytest.mark.parametrize("kind", ["gray+alpha", "rgba"])
def test_alpha_is_laid_over_white_and_said(tmp_path: Path, suffix: str, kind: str) -> None:
    pixels = np.full((8, 8, 4 if kind == "rgba" else 2), 100, np.uint8)
    pixels[..., -1] = 51  # a fifth
    notes = pictures.write(tmp_path / f"a{suffix}", Picture(pixels))
    assert "no transparency: laid over white" in notes[0]
    back = pictures.read(tmp_path / f"a{suffix}").pixels
    assert back.shape == ((8, 8, 3) if kind == "rgba" else (8, 8))
    assert np.abs(back.astype(int) - 224).max() <= 1  # 100 / 5 + 255 * 4 / 5; JPEG may round by one


def test_full_alpha_is_dropped_silently(tmp_path: Path) -> None:
    pixels = np.dstack([samples.photo("rgb"), np.full((40, 56), 255, np.uint8)])
    assert pictures.write(tmp_path / "a.bmp", Picture(pixels)) == ()
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.bmp").pixels, pixels[..., :3])


@pytest.mark.parametrize("name", ["jpeg", "webp", "bmp"])
def test_16_bits_are_rounded_and_said(tmp_path: Path, name: str) -> None:
    values = np.array([0, 128, 129, 65406, 65407, 65535], np.uint16)
    expected = np.round(values / 257).astype(np.uint8)
    pixels = np.repeat(np.repeat(values[None, :, None], 8, 0), 3, 2)
    notes = pictures.write(tmp_path / "a", Picture(pixels), format=name)
    assert "8 bits a channel: rounded from 16" in notes[0]
    if name == "bmp":
        assert pictures.read(tmp_path / "a").pixels[0, :, 0].tolist() == expected.tolist()


def test_alpha_and_16_bits_together(tmp_path: Path) -> None:
    assert len(pictures.write(tmp_path / "a.jpg", Picture(samples.photo("rgba", 16)))) == 2


@pytest.mark.parametrize(
    ("name", "shape"),
    [("jpeg", (2, 65501)), ("webp", (16384, 2)), ("avif", (2, 32769)), ("png", (1, 1_000_001))],
)
def test_too_large_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, shape: tuple[int, int]
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"earlier result")
    with pytest.raises(OutputError, match=f"{shape[1]}x{shape[0]} pixels as {name.upper()}"):
        pictures.write(path, Picture(np.zeros(shape, np.uint8)), format=name)
    assert path.read_bytes() == b"earlier result"
    assert os.listdir(tmp_path) == ["a"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("name", "shape"), [("jpeg", (1, 65500)), ("webp", (16383, 1)), ("avif", (1, 32768))]
)
def test_the_largest_side_can_be_written_and_read(tmp_path: Path, name: str, shape: tuple[int, int]) -> None:
    pictures.write(tmp_path / "a", Picture(np.zeros(shape, np.uint8)), format=name)
    assert pictures.read(tmp_path / "a").pixels.shape[:2] == shape


def test_a_failure_leaves_only_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"earlier result")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left") as caught:
        pictures.write(path, Picture(samples.photo("rgb")))
    assert caught.value.hint
    assert path.read_bytes() == b"earlier result"
    assert [found.name for found in tmp_path.iterdir()] == ["a.png"]


def test_an_interrupt_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pictures.write(tmp_path / "a.png", Picture(samples.photo("rgb")))
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_fails_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imwriteWithMetadata", lambda *_: False)
    with pytest.raises(OutputError, match=r"a\.png: cannot store 56x40 pixels as PNG"):
        pictures.write(tmp_path / "a.png", Picture(samples.photo("rgb")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["missing/a.png", "folder.png", "x" * 300 + ".png", "nul\0.png"])
def test_places_that_cannot_be_written(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="cannot be written") as caught:
        pictures.write(tmp_path / path, Picture(samples.photo("rgb")))
    assert "folder" in caught.value.hint
    assert [found.name for found in tmp_path.iterdir()] == ["folder.png"]


def test_a_replaced_file_has_usual_permissions(tmp_path: Path) -> None:
    pictures.write(tmp_path / "a.png", Picture(samples.photo("gray")))
    pictures.write(tmp_path / "a.png", Picture(samples.photo("rgb")))
    assert pictures.read(tmp_path / "a.png").pixels.ndim == 3
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    picture = Picture(samples.photo("rgb"))
    with pytest.raises(UsageError, match="Quality 101"):
        pictures.write(tmp_path / "a.jpg", picture, quality=101)
    with pytest.raises(UsageError, match="'gif'"):
        pictures.write(tmp_path / "a.png", picture, format="gif")
    with pytest.raises(UsageError, match=r"'\.xyz'"):
        pictures.write(tmp_path / "a.xyz", picture)


def test_the_callers_pixels_stay_as_they_are(tmp_path: Path) -> None:
    pixels = samples.photo("rgba")
    before = pixels.copy()
    for suffix in set(pictures.SUFFIXES):
        pictures.write(tmp_path / f"a{suffix}", Picture(pixels, samples.METADATA))
    np.testing.assert_array_equal(pixels, before)


def test_opencvs_log_level_is_left_as_it_was(tmp_path: Path) -> None:
    before = cv2.utils.logging.getLogLevel()
    pictures.write(tmp_path / "a.png", Picture(samples.photo("rgb")))
    pictures.read(tmp_path / "a.png")
    assert cv2.utils.logging.getLogLevel() == before


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".avif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_order_and_scratch_do_not_change_the_file(
    tmp_path: Path, suffix: str, channels: int, dtype: type[np.generic]
) -> None:
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(3).integers(0, top, (40, 50, channels), dtype)
    before = pixels.copy()
    turned = np.ascontiguousarray(pixels[..., [2, 1, 0, 3][:channels]]) if channels > 2 else pixels
    notes = pictures.write(tmp_path / f"a{suffix}", Picture(pixels, samples.METADATA))
    assert notes == pictures.write(
        tmp_path / f"b{suffix}", Picture(turned, samples.METADATA, order="BGR"), memory=0
    )
    assert notes == pictures.write(
        tmp_path / f"c{suffix}", Picture(pixels, samples.METADATA), memory=0, folder=Path(gettempdir())
    )
    np.testing.assert_array_equal(pixels, before)
    written = (tmp_path / f"a{suffix}").read_bytes()
    assert written == (tmp_path / f"b{suffix}").read_bytes() == (tmp_path / f"c{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp", ".avif"])
def test_pixels_in_the_encoders_order_are_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(Scratch, "empty", lambda *_: pytest.fail("an array was made"))
    picture = Picture(samples.photo("rgb"), order="BGR")
    pictures.write(tmp_path / f"a{suffix}", picture)
    assert pictures.probe(tmp_path / f"a{suffix}").channels == 3


def test_pixels_that_are_read_only_can_be_written(tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (9, 8, 3), np.uint8)
    pixels.flags.writeable = False
    pictures.write(tmp_path / "a.png", Picture(pixels))
    np.testing.assert_array_equal(pictures.read(tmp_path / "a.png").pixels, pixels)


def webp_kind(path: Path) -> bytes:
    """VP8L (lossless) or VP8, with or without the extended form around it."""
    data = path.read_bytes()
    return b"VP8L" if b"VP8L" in data[:4000] else data[data.index(b"VP8 ") :][:4]


@pytest.mark.parametrize("kind", ["rgb", "rgba"])
@pytest.mark.parametrize("extra", [{}, {"exif": samples.exif()}])
def test_a_lossless_webp_stays_lossless_as_webp(tmp_path: Path, kind: str, extra: dict[str, bytes]) -> None:
    pixels = samples.photo(kind)
    if kind == "rgba":
        pixels[..., 3] |= 1  # what lies under alpha 0 may change
    (tmp_path / "a.webp").write_bytes(samples.by_pillow(pixels, "WEBP", lossless=True, **extra))
    picture = pictures.read(tmp_path / "a.webp")
    assert picture.lossless
    assert pictures.write(tmp_path / "b.webp", picture) == ()
    assert webp_kind(tmp_path / "b.webp") == b"VP8L"
    np.testing.assert_array_equal(pictures.read(tmp_path / "b.webp").pixels, pixels)
    pictures.write(tmp_path / "c.webp", picture, quality=95)
    assert webp_kind(tmp_path / "c.webp") == b"VP8 "
    pictures.write(tmp_path / "d.jpg", picture)
    pictures.write(tmp_path / "e.jpg", picture, quality=95)
    assert (tmp_path / "d.jpg").read_bytes() == (tmp_path / "e.jpg").read_bytes()


def test_a_lossy_webp_stays_lossy(tmp_path: Path) -> None:
    (tmp_path / "a.webp").write_bytes(samples.by_pillow(samples.photo("rgb"), "WEBP"))
    picture = pictures.read(tmp_path / "a.webp")
    assert not picture.lossless
    pictures.write(tmp_path / "b.webp", picture)
    assert webp_kind(tmp_path / "b.webp") == b"VP8 "


@pytest.mark.parametrize("lossless", [True, False])
def test_the_first_frame_decides_lossless(tmp_path: Path, lossless: bool) -> None:
    frames = [Image.fromarray(samples.photo(kind)) for kind in ("rgb", "gray")]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=lossless)
    assert pictures.read(tmp_path / "a.webp").lossless == lossless


@pytest.mark.parametrize("kind", ["gray", "gray+alpha", "rgb", "rgba"])
@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("size", [(40, 56), (600, 530)])
def test_a_tiff_beyond_4_gb_is_bigtiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, depth: int, size: tuple[int, int]
) -> None:
    pixels = samples.photo(kind, depth, (400, 300))
    pixels = np.ascontiguousarray(np.concatenate([pixels] * 2, axis=1))[: size[0], : size[1]]
    classic = Picture(pixels, samples.METADATA)
    pictures.write(tmp_path / "a.tif", classic)
    monkeypatch.setattr(tiff, "CLASSIC", 0)
    pictures.write(tmp_path / "b.tif", classic)
    assert (tmp_path / "a.tif").read_bytes()[:4] == b"II*\0"
    assert (tmp_path / "b.tif").read_bytes()[:4] == b"II+\0"
    back, expected = pictures.read(tmp_path / "b.tif"), pictures.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(back.pixels, pixels)
    assert back.metadata == expected.metadata
    page = tifffile.TiffFile(tmp_path / "b.tif").pages[0]
    np.testing.assert_array_equal(page.asarray(), pixels)
    assert tuple(page.extrasamples) == ((2,) if "a" in kind[3:] and kind != "gray" else ())


@pytest.mark.parametrize(
    ("name", "size", "channels", "depth"),
    [
        ("a.jpg", (65501, 1), 3, 8),
        ("a.webp", (1, 16384), 3, 8),
        ("a.avif", (16385, 16385), 3, 8),
        ("a.png", (1, 1_000_001), 3, 8),
        ("a.png", (1, 500_001), 2, 8),
        ("a.bmp", (40_000, 40_000), 3, 16),
    ],
)
def test_sizes_a_format_cannot_hold_are_refused(
    name: str, size: tuple[int, int], channels: int, depth: int
) -> None:
    with pytest.raises(OutputError, match=f"{size[1]}x{size[0]}") as caught:
        pictures.check_output(name, size, channels, depth)
    assert "TIFF" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "size", "channels", "depth"),
    [
        ("a.jpg", (65500, 65500), 3, 16),
        ("a.webp", (16383, 16383), 4, 8),
        ("a.avif", (16384, 16384), 3, 8),
        ("a.png", (1_000_000, 1_000_000), 3, 8),
        ("a.png", (1_000_000, 500_000), 2, 8),
        ("a.bmp", (37_000, 37_000), 3, 8),
        ("a.tif", (200_000, 200_000), 4, 16),
    ],
)
def test_sizes_a_format_can_hold_pass(name: str, size: tuple[int, int], channels: int, depth: int) -> None:
    pictures.check_output(name, size, channels, depth)


def test_the_widest_gray_alpha_png_is_written(tmp_path: Path) -> None:
    pixels = np.zeros((1, 500_000, 2), np.uint8)
    pictures.write(tmp_path / "a.png", Picture(pixels))
    assert pictures.read(tmp_path / "a.png").pixels.shape == pixels.shape


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "tiff", "avif", "bmp"])
def test_a_file_cut_by_full_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The last block may be lost where a file is closed, of which the encoders say nothing."""
    encode = codec.encode

    def cut(file: Path, *others: Any) -> None:
        encode(file, *others)
        os.truncate(file, file.stat().st_size - 3)

    monkeypatch.setattr(codec, "encode", cut)
    with pytest.raises(OutputError):
        pictures.write(tmp_path / "a", Picture(samples.photo("rgb"), samples.METADATA), format=name)
    assert list(tmp_path.iterdir()) == []


def test_file_estimates_hold_a_photograph(tmp_path: Path) -> None:
    for suffix in (".png", ".tif", ".bmp", ".jpg", ".webp", ".avif"):
        picture = Picture(samples.photo("rgb", size=(300, 300)))
        pictures.write(tmp_path / f"a{suffix}", picture)
        said = memory.file_bytes(pictures.SUFFIXES[suffix], (300, 300), 3, 8)
        assert 0.5 * said < 300 * 300 * 3 <= 2 * said
        assert (tmp_path / f"a{suffix}").stat().st_size < 1.01 * said


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take no such names")
def test_folders_with_names_beyond_utf8_work(tmp_path: Path) -> None:
    """OpenCV's module crashes on such a path as text."""
    folder = tmp_path / os.fsdecode(b"\xff\xc3\xa4")
    folder.mkdir()
    picture = Picture(samples.photo("rgb"))
    for suffix in (".png", ".tif", ".bmp", ".jpg", ".webp", ".avif"):
        pictures.write(folder / f"a{suffix}", picture)
        found = pictures.read(folder / f"a{suffix}")
        with patch.object(pictures.Header, "decoder_bytes", 0):
            large = pictures.read(folder / f"a{suffix}", limit=0, folder=folder)
        np.testing.assert_array_equal(large.pixels, found.pixels)


@pytest.mark.parametrize(("free", "full"), [(100, True), (1 << 40, False)])
def test_a_file_cut_short_by_a_full_disk_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, full: bool
) -> None:
    """Encoders pass no error numbers on."""

    def cut(*_: object) -> None:
        raise OSError(INCOMPLETE)

    monkeypatch.setattr(avif, "encode", cut)
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError) as caught:
        pictures.write(tmp_path / "a.avif", pictures.Picture(np.zeros((9, 9, 3), np.uint8)))
    assert is_full(caught.value) is full
