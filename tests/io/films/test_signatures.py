from pathlib import Path

import pytest
from scenes import Scene, cut, png, write

from srcli.io.films.signatures import SUFFIXES, extent, is_film, is_source, kind_of

CODECS = {".webm": "libvpx-vp9", ".y4m": "wrapped_avframe", ".ivf": "libvpx-vp9", ".mpg": "mpeg2video"}


@pytest.mark.parametrize(
    "suffix",
    [
        ".mp4",
        ".mov",
        ".mkv",
        ".webm",
        ".avi",
        ".ts",
        ".mpg",
        ".flv",
        ".nut",
        ".y4m",
        ".ivf",
        ".h264",
        ".m2ts",
        ".wmv",
    ],
)
def test_films_are_known_by_content(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    write(path, Scene(codec=CODECS.get(suffix, "libx264"), frames=3, audio=()))
    path = path.rename(tmp_path / "film")
    assert is_film(path)
    assert suffix in SUFFIXES


@pytest.mark.parametrize(
    "data",
    [
        png(), b"GIF89a" + bytes(60), b"\xff\xd8\xff\xe0" + bytes(60), b"II*\0" + bytes(60), b"",
        b"RIFF\0\0\0\0WEBPVP8 " + bytes(60), b"RIFF\0\0\0\0WAVEfmt " + bytes(60), b"#EXTM3U\n",
        b"\0\0\0\x20ftypavif" + bytes(60), b"\0\0\0\x20ftypM4A " + bytes(60), b"\0" * 5000,
        b"OggS" + bytes(24) + b"OpusHead",
    ],
)  # fmt: skip
def test_pictures_and_sound_are_no_films(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(data)
    assert not is_film(path)


def test_what_cannot_be_read_is_no_film(tmp_path: Path) -> None:
    assert not is_film(tmp_path)
    assert not is_film(tmp_path / "missing.mkv")


@pytest.mark.parametrize(
    ("name", "data", "source"),
    [
        ("index.ts", "export const größe = 1;\r\n\t// \f\n".encode() * 900, True),
        ("index.TS", b"export {}", True),
        ("types.mts", b"export type A = string;\n", True),
        ("de.ts", b'<?xml version="1.0" encoding="utf-8"?>\n<TS version="2.1">', True),
        ("game.nut", b"local a = 1\n", True),
        ("film.ts", (b"G@\0\x10" + bytes(184)) * 30, False),
        ("film.ts", bytes(5000), False),
        ("film.ts", b"", False),
        ("film.nut", b"nut/multimedia container\0" + bytes(60), False),
        ("film.mkv", b"<html><h1>404 Not Found</h1></html>", False),
    ],
)
def test_source_code_with_the_suffix_of_films(tmp_path: Path, name: str, data: bytes, source: bool) -> None:
    (tmp_path / name).write_bytes(data)
    assert is_source(tmp_path / name) is source


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_whole_files_reach_their_end(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    write(path, Scene(frames=3))
    reach = extent(path)
    assert reach.declared == reach.size == path.stat().st_size
    assert not reach.short
    cut(path, 0.9)
    assert extent(path).short


def test_recording_that_never_ended_has_no_index(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write(path, Scene(frames=3))
    assert extent(path).indexed
    cut(path, 0.5)
    assert not extent(path).indexed


def test_live_matroska_declares_no_end(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    write(path, Scene(frames=3, container_options={"live": "1"}))
    assert extent(path).declared is None


def test_kind_needs_several_sync_bytes_for_mpegts() -> None:
    assert kind_of((b"G" + bytes(187)) * 8) == "mpegts"
    assert kind_of((bytes(4) + b"G" + bytes(187)) * 8) == "mpegts"
    assert kind_of(b"G" + bytes(1500)) is None
