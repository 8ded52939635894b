"""Conversions on the way in and out, against plain formulas on whole arrays; colour notes; threads."""

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import media_samples as samples
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from srcli.io import fitting, pictures
from srcli.io.pictures import Picture
from srcli.io.storage import Scratch

RAM = Scratch(1 << 30)
ALPHA = st.sampled_from([np.uint8, np.uint16]).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([2, 4])),
        elements=_extremes(dtype),
    )
)


def _extremes(dtype: Any) -> st.SearchStrategy[int]:
    top = int(np.iinfo(dtype).max)
    return st.one_of(st.sampled_from([0, 1, top // 2, top - 1, top]), st.integers(0, top))


def over_white(pixels: Any) -> Any:
    top = float(np.iinfo(pixels.dtype).max)
    share = pixels[..., -1:] / top
    mixed = np.floor(pixels[..., :-1] * share + top * (1 - share) + 0.5)
    return mixed[..., 0] if pixels.shape[2] == 2 else mixed


@given(pixels=ALPHA)
def test_alpha_over_white(pixels: Any) -> None:
    flat, notes = fitting.storable(pixels, "RGB", "bmp" if pixels.dtype == np.uint8 else "jpeg", RAM)
    flat = flat[..., ::-1] if flat.ndim == 3 else flat
    opaque = pixels[..., -1].min() == np.iinfo(pixels.dtype).max
    expected = over_white(pixels)
    if pixels.dtype == np.uint16:
        expected = np.floor(expected / 257 + 0.5)
    assert flat.dtype == np.uint8
    assert np.abs(flat - expected).max() <= (0 if pixels.dtype == np.uint8 else 1)  # two roundings
    assert any("over white" in note for note in notes) != opaque


@pytest.mark.parametrize("shape", [(300, 5000, 4), (70_000, 1, 4), (2, 400_000, 4)])
def test_large_pictures_are_converted_in_bands(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    eight, _ = fitting.storable(pixels, "BGR", "webp", RAM)
    np.testing.assert_array_equal(eight, np.floor(pixels / 257 + 0.5))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_pillow_does(orientation: int) -> None:
    stored = samples.photo("rgb", size=(5, 9))
    image = Image.fromarray(stored)
    image.getexif()[274] = orientation
    np.testing.assert_array_equal(
        fitting.turned(stored, orientation, RAM), np.asarray(ImageOps.exif_transpose(image))
    )


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (samples.chunk(b"gAMA", struct.pack(">I", 100_000)), "gamma 1.00"),
        (samples.chunk(b"gAMA", struct.pack(">I", 45_455)), ""),
        (samples.chunk(b"sRGB", b"\0") + samples.chunk(b"gAMA", struct.pack(">I", 100_000)), ""),
        (
            samples.chunk(b"gAMA", struct.pack(">I", 100_000))
            + samples.chunk(
                b"cHRM", struct.pack(">8I", *[31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000])
            ),
            "gamma 1.00, cHRM",
        ),
        (samples.chunk(b"cICP", bytes((9, 16, 0, 1))), "cICP"),
        (samples.chunk(b"cICP", bytes((1, 13, 0, 1))), ""),
        (
            samples.chunk(
                b"cHRM", struct.pack(">8I", *[31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000])
            ),
            "cHRM",
        ),
        (
            samples.chunk(
                b"cHRM", struct.pack(">8I", *[31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000])
            ),
            "",
        ),
    ],
)
def test_colour_descriptions_stay_in_a_png_and_are_said_elsewhere(
    tmp_path: Path, extra: bytes, said: str
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(samples.raw_png(2, 1, 8, 0, b"\0\1\2", extra))
    picture = pictures.read(path)
    assert picture.notes == ()
    assert pictures.write(tmp_path / "b.png", picture) == ()
    assert extra in (tmp_path / "b.png").read_bytes()
    notes = pictures.write(tmp_path / "b.webp", picture)
    assert (said in notes[0]) if said else notes == ()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".avif", ".bmp"])
def test_ordinary_files_come_without_notes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    pictures.write(path, Picture(samples.photo("rgb")))
    assert pictures.read(path).notes == ()
    Image.fromarray(samples.photo("rgb")).save(path)
    assert pictures.read(path).notes == ()


def test_many_threads_read_and_write_the_same(tmp_path: Path) -> None:
    picture = Picture(samples.photo("rgba", 16), samples.METADATA)

    def round_trip(number: int) -> Any:
        path = tmp_path / f"{number}.{'png' if number % 2 else 'tif'}"
        pictures.write(path, picture)
        return pictures.read(path).pixels

    with ThreadPoolExecutor(8) as pool:
        for pixels in pool.map(round_trip, range(32)):
            np.testing.assert_array_equal(pixels, picture.pixels)
    assert len(list(tmp_path.iterdir())) == 32
