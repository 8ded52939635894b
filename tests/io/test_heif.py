"""HEIC, as phones write it."""

import io
from pathlib import Path
from typing import Any

import media_samples as samples
import numpy as np
import pillow_heif
import pytest
from PIL import Image

from srcli.errors import InputError
from srcli.imaging.metrics import decibels
from srcli.io import heif, pictures
from srcli.jobs.inputs import discover

pillow_heif.register_heif_opener()


def heic(path: Path, pixels: samples.Pixels | None = None, **more: Any) -> Path:
    Image.fromarray(samples.photo("rgb") if pixels is None else pixels).save(
        path, format="HEIF", quality=95, **more
    )
    return path


def psnr(one: samples.Pixels, other: samples.Pixels, peak: float = 255.0) -> float:
    return decibels(float(np.mean((one.astype(float) - other) ** 2)) / peak**2)


@pytest.mark.parametrize("kind", ["rgb", "rgba", "gray"])
def test_a_heic_is_read_as_its_library_reads_it(tmp_path: Path, kind: str) -> None:
    path = heic(tmp_path / "a.heic", samples.photo(kind))
    picture = pictures.read(path)
    assert (picture.format, picture.notes) == ("heif", ())
    header = pictures.probe(path)
    assert (header.height, header.width, header.bit_depth) == (40, 56, 8)
    with Image.open(path) as image:
        wanted = np.asarray(image)
    np.testing.assert_array_equal(picture.pixels.reshape(wanted.shape), wanted)
    assert psnr(picture.pixels.reshape(wanted.shape), samples.photo(kind).reshape(wanted.shape)) > 30


@pytest.mark.parametrize("bits", [10, 12])
def test_more_bits_take_the_full_range_of_16(
    tmp_path: Path, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pillow_heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    white = np.full((32, 48, 3), 65535, np.uint16)
    white[:16] = 0
    file = pillow_heif.from_bytes(mode="RGB;16", size=(48, 32), data=white.tobytes())
    file.save(tmp_path / "a.heic", quality=-1)
    pixels = pictures.read(tmp_path / "a.heic").pixels
    assert pixels.dtype == np.uint16
    assert pixels[2:12].max() < 200
    assert pixels[20:].min() > 65535 - 200


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_turned_heic_is_turned_once(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = heic(tmp_path / "a.heic", exif=exif.tobytes())
    picture = pictures.read(path)
    with Image.open(path) as image:
        wanted = np.asarray(image)
    np.testing.assert_array_equal(picture.pixels, wanted)
    assert (pictures.probe(path).height, pictures.probe(path).width) == picture.pixels.shape[:2]
    pictures.write(tmp_path / "a.jpg", picture)
    assert Image.open(tmp_path / "a.jpg").getexif().get(0x0112, 1) == 1


def test_exif_profile_and_xmp_are_kept(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "maker"
    path = heic(tmp_path / "a.heic", exif=exif.tobytes(), icc_profile=samples.icc(), xmp=samples.XMP)
    kept = pictures.read(path).metadata
    assert kept.icc == samples.icc()
    assert kept.xmp is not None
    assert kept.exif is not None
    assert b"maker" in kept.exif


@pytest.mark.parametrize("cut", [40, 200, 0.5, 0.9])
def test_a_cut_heic_is_damaged(tmp_path: Path, cut: float) -> None:
    path = heic(tmp_path / "a.heic")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut if cut > 1 else cut * len(whole))])
    with pytest.raises(InputError, match=r"a\.heic"):
        pictures.read(path)


def test_colours_that_are_not_kept_are_said(tmp_path: Path) -> None:
    file = pillow_heif.from_pillow(Image.fromarray(samples.photo("rgb")))
    file.save(tmp_path / "a.heic", color_primaries=12, transfer_characteristics=13, save_nclx_profile=True)
    assert any("primaries 12" in note for note in pictures.read(tmp_path / "a.heic").notes)


def test_without_its_library_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = heic(tmp_path / "in.heic")
    monkeypatch.setattr(heif, "installed", lambda: False)
    with pytest.raises(InputError) as caught:
        pictures.read(path)
    assert "srcli[heif]" in caught.value.hint


def test_folders_leave_out_heic_without_its_library_but_no_other_kinds_so_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heic(tmp_path / "phone.heic")
    buffer = io.BytesIO()
    Image.fromarray(samples.photo("rgb")).save(buffer, "JPEG")
    (tmp_path / "jpeg.heic").write_bytes(buffer.getvalue())
    found = discover([str(tmp_path)], tmp_path / "out", recursive=False)
    assert [one.path.name for one in found.pictures] == ["jpeg.heic", "phone.heic"]
    monkeypatch.setattr(heif, "installed", lambda: False)
    found = discover([str(tmp_path)], tmp_path / "out", recursive=False)
    assert [one.path.name for one in found.pictures] == ["jpeg.heic"]
    assert found.unread == {".heic": 1}
    picture = pictures.read(tmp_path / "jpeg.heic")
    assert picture.format == "jpeg"
    assert "really JPEG" in picture.notes[0]
