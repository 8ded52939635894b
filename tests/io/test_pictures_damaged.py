"""Bad input: a clear InputError that names the file, never a picture with missing parts."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import media_samples as samples
import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from srcli.errors import InputError, SrcliError
from srcli.io import pictures, png
from srcli.io.pictures import Picture

FORMATS = ["png", "jpeg", "webp", "tiff", "avif", "bmp"]


def good(tmp_path: Path, name: str) -> bytes:
    pictures.write(tmp_path / "good", Picture(samples.photo("rgb"), samples.METADATA), format=name)
    return (tmp_path / "good").read_bytes()


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        pictures.read(path)
    assert path.name in str(caught.value) or repr(str(path)) in str(caught.value)
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.98])
def test_cut_off_files_are_refused(tmp_path: Path, name: str, share: float) -> None:
    blob = good(tmp_path, name)
    path = tmp_path / f"cut.{name}"
    path.write_bytes(blob[: int(len(blob) * share)])
    refusal(path)


@pytest.mark.parametrize("name", ["jpeg", "webp", "bmp"])
def test_one_missing_byte_is_noticed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "cut"
    path.write_bytes(good(tmp_path, name)[:-1])
    assert "cut off" in refusal(path) or name == "bmp"


@pytest.mark.parametrize("name", ["png", "jpeg", "webp"])
def test_bytes_after_the_end_are_tolerated(tmp_path: Path, name: str) -> None:
    path = tmp_path / "long"
    path.write_bytes(good(tmp_path, name) + b"\0" * 100)
    assert pictures.read(path).pixels.shape == (40, 56, 3)


def test_a_thumbnail_does_not_end_a_jpeg(tmp_path: Path) -> None:
    thumbnail = samples.by_pillow(samples.photo("rgb", size=(8, 8)), "JPEG")
    blob = samples.by_pillow(samples.photo("rgb"), "JPEG", exif=b"Exif\0\0" + samples.exif() + thumbnail)
    path = tmp_path / "a.jpg"
    path.write_bytes(blob)
    assert pictures.read(path).pixels.shape == (40, 56, 3)
    path.write_bytes(blob[:-200])
    assert "cut off" in refusal(path)


def test_progressive_jpeg_cut_between_scans(tmp_path: Path) -> None:
    blob = samples.by_pillow(samples.photo("rgb"), "JPEG", progressive=True)
    path = tmp_path / "a.jpg"
    path.write_bytes(blob)
    assert pictures.read(path).pixels.shape == (40, 56, 3)
    path.write_bytes(blob[: blob.rindex(b"\xff\xda")])
    assert "cut off" in refusal(path)


def test_damaged_png_data_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    blob = bytearray(good(tmp_path, "png"))
    blob[len(blob) // 2] ^= 1
    path = tmp_path / "a.png"
    path.write_bytes(blob)
    assert "checksum" in refusal(path)


def test_damaged_jpeg_data(tmp_path: Path) -> None:
    blob = bytearray(good(tmp_path, "jpeg"))
    blob[-600:-590] = b"\xff\xc0" * 5
    path = tmp_path / "a.jpg"
    path.write_bytes(blob)
    assert "JPEG picture data is not valid" in refusal(path)


def coded(mode: str = "RGB", *, progressive: bool = False) -> bytes:
    """A JPEG of a photograph large enough for damage to have room."""
    buffer = io.BytesIO()
    photo = Image.fromarray(skimage.data.astronaut()[:200, :200]).convert(mode)
    photo.save(buffer, "JPEG", quality=90, progressive=progressive)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_whole_jpeg_raises_no_doubt(tmp_path: Path, mode: str, progressive: bool) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(coded(mode, progressive=progressive))
    assert not any("damaged" in note for note in pictures.read(path).notes)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_closed_half_jpeg_is_refused(tmp_path: Path, mode: str, progressive: bool) -> None:
    """Decoders fill the rest up with gray."""
    blob = coded(mode, progressive=progressive)
    path = tmp_path / "a.jpg"
    path.write_bytes(blob[: len(blob) // 2] + b"\xff\xd9")
    assert "it is damaged: premature end" in refusal(path)


def answer_to(path: Path) -> str:
    """How a damaged JPEG is answered."""
    try:
        notes = pictures.read(path).notes
    except InputError as error:
        return "refused" if "it is damaged: " in error.message else error.message
    return "noted" if any("part of the picture may be damaged: " in note for note in notes) else "passed"


def test_holes_in_a_jpeg_are_mostly_noticed(tmp_path: Path) -> None:
    """Zeros are codes, too: data run out, or some are left over; where neither is, no decoder can tell."""
    blob, path, answers = coded(), tmp_path / "a.jpg", Counter[str]()
    for start in range(1000, len(blob) - 1000, 500):
        path.write_bytes(blob[:start] + bytes(100) + blob[start + 100 :])
        answers[answer_to(path)] += 1
    assert set(answers) <= {"refused", "noted", "passed"}
    assert min(answers["refused"], answers["noted"]) > 0
    assert answers["passed"] < sum(answers.values()) / 2, answers


def test_header_and_picture_of_different_sizes(tmp_path: Path) -> None:
    more = [Image.fromarray(255 - samples.photo("rgb"))]
    blob = samples.by_pillow(samples.photo("rgb"), "AVIF", save_all=True, append_images=more)
    at = blob.index(b"ispe") + 8
    path = tmp_path / "a.avif"
    path.write_bytes(blob[:at] + struct.pack(">II", 56, 99) + blob[at + 8 :])
    refusal(path)


def test_empty_text_folder_missing(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("this is not a picture\n" * 20)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "new\nline.png").touch()
    cases = {
        "empty.png": "is empty",
        "text.png": "known format",
        "folder.png": "is a folder",
        "no.png": "not exist",
    }
    for name, words in cases.items():
        assert words in refusal(tmp_path / name)
        with pytest.raises(InputError, match=words):
            pictures.probe(tmp_path / name)
    assert "\n" not in refusal(tmp_path / "new\nline.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "regular file" in refusal(tmp_path / "pipe.png")


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a substitute, because root may read everything."""

    def refuse(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refuse)
    assert "may not be read" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize(("width", "height"), [(40_000, 40_000), (2_000_000, 1), (0, 5)])
def test_impossible_sizes_are_refused_from_the_header(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(samples.raw_png(width, height, 8, 2, b"\0" * 1000))
    assert f"{width}x{height}" in refusal(path)
    with pytest.raises(InputError):
        pictures.probe(path)


def test_what_to_do_depends_on_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a"
    cases: list[tuple[bytes, str]] = [(good(tmp_path, "png")[:-40], "Try a fresh copy.")]
    floats = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(floats, "TIFF")
    cases.append((floats.getvalue(), "Store it as another kind first: 8 or 16 bits a channel, RGB or gray."))
    cases.append(
        (samples.raw_png(60_000, 60_000, 8, 2, b"\0" * 1000), "Cut it into parts, or store it smaller.")
    )
    for blob, hint in cases:
        path.write_bytes(blob)
        with pytest.raises(InputError) as caught:
            pictures.read(path)
        assert caught.value.hint == hint


def test_missing_rows_inside_whole_chunks(tmp_path: Path) -> None:
    path = tmp_path / "short.png"
    path.write_bytes(samples.raw_png(20, 20, 8, 2, (b"\0" + bytes(60)) * 5))
    refusal(path)


@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_random_damage_gives_a_picture_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    """Whatever one byte changes to, nothing but SrcliError comes out, and sizes agree."""
    folder = tmp_path_factory.mktemp("damage")
    blob = bytearray(good(folder, name))
    place = data.draw(st.one_of(st.integers(0, 200), st.integers(0, len(blob) - 1)))
    blob[place] = data.draw(st.integers(0, 255))
    path = folder / "a"
    path.write_bytes(blob)
    try:
        picture = pictures.read(path)
        header = pictures.probe(path)
    except SrcliError:
        return
    assert picture.pixels.shape[:2] == (header.height, header.width)
    assert picture.pixels.dtype in (np.uint8, np.uint16)


def test_the_decoders_talk_stays_off_stderr(tmp_path: Path) -> None:
    """libpng warns about this profile and OpenCV logs the cut-off TIFF; users see only our message."""
    profile = b"p\0\0" + zlib.compress(b"no profile at all")
    extra = samples.chunk(b"iCCP", profile) + samples.chunk(b"gAMA", struct.pack(">I", 0))
    (tmp_path / "a.png").write_bytes(samples.raw_png(2, 1, 8, 0, b"\0\1\2", extra))
    (tmp_path / "b.tif").write_bytes(b"II*\0\x08\0\0\0" + good(tmp_path, "tiff")[8:60])
    code = (
        "import sys; from srcli.io import pictures; from srcli.errors import InputError\n"
        "for name in sys.argv[1:]:\n"
        "    try: pictures.read(name)\n"
        "    except InputError: pass\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "a.png"), str(tmp_path / "b.tif")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_a_profile_that_unpacks_endlessly_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(png, "_MAX_METADATA", 1000)
    assert png._inflated(zlib.compress(bytes(1000))) == bytes(1000)
    assert png._inflated(zlib.compress(bytes(1001))) is None
    assert png._inflated(b"no zlib") is None


def test_avif_items_beyond_the_end_are_not_counted(tmp_path: Path) -> None:
    """The item table, moved behind the others, names four thousand million items; zeros follow it."""
    blob = good(tmp_path, "avif")
    at = blob.index(b"iloc") - 4
    (size,) = struct.unpack_from(">I", blob, at)
    table = struct.pack(">I4sIHI", size, b"iloc", 2 << 24, 0, 2**32 - 1).ljust(size, b"\0")
    start = blob.index(b"meta") - 4
    end = start + struct.unpack_from(">I", blob, start)[0]
    (tmp_path / "a.avif").write_bytes(blob[:at] + blob[at + size : end] + table + bytes(100))
    header = pictures.probe(tmp_path / "a.avif")
    assert (header.height, header.width) == (40, 56)
