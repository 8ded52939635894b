import struct
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from scenes import X264, Scene, write

from srcli.errors import InputError
from srcli.imaging.yuv import Coding
from srcli.io.films.facts import Facts, probe, refuse_dolby


def facts(tmp_path: Path, name: str = "film.mp4", **scene: Any) -> Facts:
    write(tmp_path / name, Scene(**{"frames": 2, "audio": (), **scene}))
    return probe(tmp_path / name)


@pytest.mark.parametrize(("matrix", "primaries", "transfer"), [(1, 1, 1), (5, 5, 4), (6, 6, 6), (9, 9, 18)])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv444p10le"])
def test_tags_are_read(
    tmp_path: Path, matrix: int, primaries: int, transfer: int, full: bool, pixel_format: str
) -> None:
    found = facts(
        tmp_path,
        matrix=matrix,
        primaries=primaries,
        transfer=transfer,
        full_range=full,
        pixel_format=pixel_format,
    )
    bits, sub = (8, 2) if pixel_format == "yuv420p" else (10, 1)
    assert found.coding == Coding(bits, matrix, full, sub, sub)
    assert (found.matrix, found.primaries, found.transfer) == (matrix, primaries, transfer)
    assert not found.notes


@pytest.mark.parametrize(("height", "matrix"), [(576, 6), (578, 1)])
def test_untagged_matrix_follows_from_lines_and_is_noted(tmp_path: Path, height: int, matrix: int) -> None:
    found = facts(tmp_path, width=32, height=height, matrix=2, primaries=2, transfer=2)
    assert (found.matrix, found.coding.matrix) == (2, matrix)
    assert len(found.notes) == 1


@pytest.mark.parametrize(("number", "siting"), [(0, "left"), (1, "center"), (2, "topleft"), (3, "top")])
def test_siting_is_read(tmp_path: Path, number: int, siting: str) -> None:
    options = {**X264, "x264-params": f"chromaloc={number}"}
    assert facts(tmp_path, options=options).coding.siting == siting


@pytest.mark.parametrize(
    ("codec", "suffix", "siting"),
    [("libx264", "mp4", "left"), ("libvpx-vp9", "webm", "left"), ("mjpeg", "avi", "center")],
)
def test_siting_of_untagged_films_is_that_of_their_codec(
    tmp_path: Path, codec: str, suffix: str, siting: str
) -> None:
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    found = facts(
        tmp_path, f"film.{suffix}", codec=codec, pixel_format=pixel_format, full_range=codec == "mjpeg"
    )
    assert found.coding.siting == siting


@pytest.mark.parametrize(
    ("pixel_format", "sub"),
    [("yuv411p", (4, 1)), ("yuv410p", (4, 4)), ("yuv440p", (1, 2)), ("yuv422p", (2, 1))],
)
def test_subsampling_is_read(tmp_path: Path, pixel_format: str, sub: tuple[int, int]) -> None:
    found = facts(tmp_path, "film.mkv", codec="ffv1", options={}, pixel_format=pixel_format)
    assert (found.coding.sub_x, found.coding.sub_y) == sub


def test_rgb_planes_are_full_range(tmp_path: Path) -> None:
    found = facts(
        tmp_path, "film.mkv", codec="libx264rgb", options=X264 | {"qp": "0"}, pixel_format="rgb24", matrix=0
    )
    assert found.coding == Coding(8, 0, True)
    assert (found.matrix, found.pixel_format) == (0, "gbrp")


def test_gray_is_one_plane(tmp_path: Path) -> None:
    found = facts(tmp_path, "film.mkv", codec="ffv1", options={}, pixel_format="gray10le", matrix=2)
    assert found.gray
    assert found.coding == Coding(10, 6, False)
    assert not found.notes


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_hdr10_metadata_are_read(tmp_path: Path, suffix: str) -> None:
    display = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    options = {
        "preset": "ultrafast",
        "x265-params": f"log-level=none:bframes=0:{display}:max-cll=1000,400",
    }
    found = facts(
        tmp_path, f"film.{suffix}", codec="libx265", options=options, pixel_format="yuv420p10le",
        matrix=9, primaries=9, transfer=16,
    )  # fmt: skip
    assert found.light == (1000, 400)
    assert found.mastering is not None
    fractions = [Fraction(*found.mastering[at : at + 2]) for at in range(0, 20, 2)]
    red, white = (
        (Fraction(34000, 50000), Fraction(16000, 50000)),
        (Fraction(15635, 50000), Fraction(16450, 50000)),
    )
    assert (tuple(fractions[:2]), tuple(fractions[6:8])) == (red, white)
    assert fractions[8:] == [Fraction(1, 10000), 1000]
    assert found.mastering[20:] == (1, 1)


@pytest.mark.parametrize(("matrix", "name"), [(8, "YCgCo"), (10, "constant luminance"), (14, "ICtCp")])
def test_other_matrices_are_refused_by_name(tmp_path: Path, matrix: int, name: str) -> None:
    with pytest.raises(InputError, match=name):
        facts(tmp_path, matrix=matrix)


@pytest.mark.parametrize(("rotation", "flipped"), [(90, False), (180, False), (0, True), (90, True)])
def test_display_matrix_is_read(tmp_path: Path, rotation: int, flipped: bool) -> None:
    found = facts(tmp_path, rotation=rotation, hflip=flipped)
    assert found.display_matrix is not None
    a, b, _, c, d = found.display_matrix[:5]
    assert a * d - b * c == (-1 if flipped else 1) << 32
    assert (a == 0) is (rotation == 90)


def test_upright_film_has_no_display_matrix(tmp_path: Path) -> None:
    assert facts(tmp_path).display_matrix is None


def test_side_data_unknown_to_pyav_hide_nothing(tmp_path: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x112, 3, 1, 6) + bytes(4)
    jpeg = cv2.imencode(".jpg", np.full((96, 128, 3), 90, np.uint8))[1].tobytes()
    jpeg = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as out:
        stream: Any = out.add_mux_stream("mjpeg", rate=25, width=128, height=96)
        packet: Any = av.Packet(jpeg)
        packet.stream, packet.time_base, packet.pts, packet.dts = stream, Fraction(1, 25), 0, 0
        packet.is_keyframe = True
        out.mux(packet)
    assert probe(path).display_matrix == (0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)


def rpu(profile: int, full_range: int) -> bytes:
    """The start of Dolby Vision data of a frame."""
    bits = f"{2:06b}{18:011b}{profile:04b}{0:04b}1000{0:04b}{24:05b}01{full_range}"
    return b"\x19" + int(bits.ljust(80, "0"), 2).to_bytes(10, "big")


class Entry:
    def __init__(self, name: str, data: bytes) -> None:
        self.type, self._data = SimpleNamespace(name=name), data

    def __bytes__(self) -> bytes:
        return self._data


def test_dolby_vision_without_base_layer_is_refused() -> None:
    def frame(data: bytes) -> Any:
        return SimpleNamespace(side_data=[Entry("DOVI_RPU_BUFFER", data)])

    for tag in ("dvh1", "dvhe", "dav1"):
        with pytest.raises(InputError, match="profile 5"):
            refuse_dolby("film", tag)
    with pytest.raises(InputError, match="profile 5"):
        refuse_dolby("film", "hvc1", [frame(rpu(0, 1))])
    refuse_dolby("film", "hvc1", [frame(rpu(1, 0)), frame(rpu(0, 0)), frame(b"\x19")])
