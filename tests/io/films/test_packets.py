from pathlib import Path

import av
import h264_fields
import pytest
from scenes import OPEN_GOP, X264, Scene, picture, write

from srcli.io.films.packets import Bits, Shown


def shown(path: Path) -> list[bool]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        tells = Shown(context.codec.canonical_name, context.extradata)
        return [tells(packet) for packet in container.demux(stream) if packet.size]


def test_superframe_is_shown_if_one_of_its_frames_is() -> None:
    hidden, visible, marker = b"\x84" + bytes(9), b"\x86" + bytes(4), b"\xc9"
    sizes = (10).to_bytes(2, "little") + (5).to_bytes(2, "little")
    assert Shown("vp9", None)(hidden + visible + marker + sizes + marker)
    sizes = (10).to_bytes(2, "little") + (10).to_bytes(2, "little")
    assert not Shown("vp9", None)(hidden + hidden + marker + sizes + marker)


@pytest.mark.parametrize(
    ("data", "visible"),
    [
        (b"\x86\0", True), (b"\x84\0", False), (b"\x88\0", True), (b"\xa6\0", True), (b"\xb3\0", True),
        (b"\xb2\0", False), (b"\xb4\0", True), (b"\x00\0", True),
    ],
)  # fmt: skip
def test_vp9_header_says_whether_frame_is_shown(data: bytes, visible: bool) -> None:
    assert Shown("vp9", None)(data) is visible


@pytest.mark.parametrize(("first", "visible"), [(0x10, True), (0x11, True), (0x00, False), (0x01, False)])
def test_vp8_header_says_whether_frame_is_shown(first: int, visible: bool) -> None:
    assert Shown("vp8", None)(bytes([first, 0, 0])) is visible


@pytest.mark.parametrize("suffix", [".ts", ".mkv", ".mp4"])
@pytest.mark.parametrize("together", [False, True])
def test_two_fields_are_one_frame(tmp_path: Path, suffix: str, together: bool) -> None:
    path = tmp_path / f"film{suffix}"
    pictures = [picture(Scene(width=64, height=64), number, 8, None)[0] for number in range(5)]
    h264_fields.write(path, pictures, together=together)
    assert sum(shown(path)) == 5


@pytest.mark.parametrize("suffix", [".ts", ".mkv"])
@pytest.mark.parametrize("options", [OPEN_GOP, {**X264, "x264-params": "slices=4"}])
@pytest.mark.parametrize("interlaced", [False, True])
def test_whole_h264_frames_are_all_shown(
    tmp_path: Path, suffix: str, options: dict[str, str], interlaced: bool
) -> None:
    path = tmp_path / f"film{suffix}"
    write(path, Scene(options=options, interlaced=interlaced))
    assert shown(path) == [True] * 24


def test_bits_end_with_an_error() -> None:
    bits = Bits(b"\x00\x00\x03\x01")
    assert bits.read(23) == 0
    assert bits.exp_golomb() == 0
    with pytest.raises(EOFError):
        bits.read(1)


def test_comments_behind_the_last_picture_of_a_gif_are_no_frame() -> None:
    tells = Shown("gif", None)
    control, comment, picture = b"\x21\xf9\4\0\5\0\0\0", b"\x21\xfe\3abc\0", b"\x2c" + bytes(9)
    header = b"GIF89a\1\0\1\0\x80\0\0" + bytes(6)
    assert tells(header + control + picture)
    assert tells(comment + picture)
    assert not tells(comment + b"\x3b")
    assert not tells(comment)
