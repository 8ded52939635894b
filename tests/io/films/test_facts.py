import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from scenes import B_FRAMES, OPEN_GOP, Audio, Scene, clicks, cut, write

from srcli.errors import InputError
from srcli.io.films.facts import Facts, probe

VARIABLE = [0, 3, 4, 9, 10, 20, 21, 22, 23, 30, 40, 41]
HEVC = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:keyint=12"}


def facts(tmp_path: Path, name: str = "film.mp4", **scene: Any) -> Facts:
    write(tmp_path / name, Scene(**{"options": B_FRAMES, "audio": (), **scene}))
    return probe(tmp_path / name)


def seconds(found: Facts) -> list[Fraction]:
    return [time * found.time_base for time in found.times]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "nut", "flv"])
@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(25), Fraction(60000, 1001)])
def test_constant_rate_is_exact(tmp_path: Path, suffix: str, rate: Fraction) -> None:
    found = facts(tmp_path, f"film.{suffix}", rate=rate, frames=30)
    assert len(found.times) == 30
    assert found.rate == rate
    assert found.seconds(29) - found.seconds(0) == 29 / rate
    assert abs(found.end * found.time_base - found.seconds(29) - 1 / rate) <= Fraction(1, 1000)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_variable_times_are_kept(tmp_path: Path, suffix: str) -> None:
    found = facts(tmp_path, f"film.{suffix}", times=VARIABLE, time_base=Fraction(1, 50))
    first = found.times[0]
    assert [(time - first) * found.time_base for time in found.times] == [
        Fraction(time, 50) for time in VARIABLE
    ]
    assert found.rate is None
    assert [found.duration(number) * found.time_base for number in (0, 3)] == [
        Fraction(3, 50),
        Fraction(1, 50),
    ]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_start_is_kept_against_sound(tmp_path: Path, suffix: str) -> None:
    found = facts(tmp_path, f"film.{suffix}", start=Fraction(3, 2), audio=[Audio(seconds=3)])
    assert Fraction(3, 2) <= seconds(found)[0] < Fraction(152, 100)
    assert abs(seconds(found)[0] - clicks(found.path)[0]) < Fraction(3, 1000)


def test_video_that_begins_late_is_found(tmp_path: Path) -> None:
    found = facts(tmp_path, "film.ts", start=Fraction(12), frames=4, audio=[Audio(seconds=13)])
    assert (found.width, len(found.times)) == (128, 4)


def test_discarded_packets_are_no_frames(tmp_path: Path) -> None:
    """An edit list that begins between two frames: the ones before it are decoded and not shown."""
    path, copy = tmp_path / "film.mp4", tmp_path / "edited.mp4"
    write(path, Scene(options=B_FRAMES, audio=()))
    with av.open(str(path)) as source, av.open(str(copy), "w") as out:
        stream = source.streams.video[0]
        target: Any = out.add_stream_from_template(stream, opaque=True)
        for packet in source.demux(stream):
            if packet.size:
                assert packet.pts is not None
                assert packet.dts is not None
                packet.pts, packet.dts = packet.pts - 5 * 512, packet.dts - 5 * 512
                packet.stream = target
                out.mux(packet)
    found = probe(copy)
    assert [time / 512 for time in found.times] == list(range(19))


def test_main_video_is_the_default_one_and_not_a_cover(tmp_path: Path) -> None:
    found = facts(
        tmp_path, audio=[Audio(), Audio()], audio_first=True, cover=True, subtitles=True, chapters=True
    )
    assert (found.index, found.codec, found.width) == (2, "h264", 128)
    found = facts(tmp_path, "film.mkv", audio=[Audio()], audio_first=True, cover=True, attachment=True)
    assert (found.index, found.codec, found.width) == (1, "h264", 128)


def test_larger_of_two_videos_is_the_main_one(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as out:
        streams: list[Any] = [out.add_stream("ffv1", rate=25) for _ in range(2)]
        for stream, width in zip(streams, (32, 64), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 32, "yuv420p"
        for stream in streams:
            out.mux(stream.encode(av.VideoFrame(stream.width, 32, "yuv420p")))
            out.mux(stream.encode(None))
    assert (probe(path).index, probe(path).width) == (1, 64)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("film.ts", "libx264", OPEN_GOP), ("film.mpg", "mpeg2video", {"bf": "2"}),
        ("film.mpg", "libx264", OPEN_GOP), ("film.avi", "mpeg4", {"bf": "2"}),
        ("film.avi", "libx264", B_FRAMES), ("film.h264", "libx264", B_FRAMES),
        ("film.hevc", "libx265", HEVC), ("film.webm", "libvpx", {}),
        ("film.obu", "libsvtav1", {"preset": "12"}), ("film.gif", "gif", {}), ("film.apng", "apng", {}),
        ("film.y4m", "wrapped_avframe", {}),
    ],
)  # fmt: skip
def test_frames_are_counted_where_nothing_says_how_many(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    pixel_format = {"gif": "bgr8", "apng": "rgba"}.get(codec, "yuv420p")
    found = facts(tmp_path, name, codec=codec, options=options, pixel_format=pixel_format)
    assert (len(found.times), found.rate) == (24, 25)
    assert found.duration(23) * found.time_base == Fraction(1, 25)


def test_film_without_times_notes_its_rate(tmp_path: Path) -> None:
    found = facts(tmp_path, "film.h264", matrix=1)
    assert not found.timed
    assert found.times[0] == 0
    assert any("25" in note for note in found.notes)


def test_recording_begins_with_its_first_whole_group(tmp_path: Path) -> None:
    path = tmp_path / "film.ts"
    scene = write(path, Scene(options=OPEN_GOP, frames=48, audio=()))
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    at = packets[5].pos
    assert at is not None
    path.write_bytes(path.read_bytes()[at:])
    found = probe(path)
    assert len(found.times) == 36
    assert seconds(found)[0] - 12 / scene.rate == packets[0].pts * packets[0].time_base
    assert any("key frame" in note for note in found.notes)


def test_one_frame_has_times_and_duration(tmp_path: Path) -> None:
    found = facts(tmp_path, frames=1)
    assert (len(found.times), found.rate) == (1, 25)
    assert found.duration(0) > 0


def test_geometry_is_as_coded(tmp_path: Path) -> None:
    found = facts(tmp_path, "film.mkv", codec="ffv1", options={}, width=127, height=95)
    assert (found.width, found.height, found.sample_aspect) == (127, 95, 1)
    assert facts(tmp_path, sar=Fraction(16, 11)).sample_aspect == Fraction(16, 11)


@pytest.mark.parametrize(
    ("name", "codec", "options", "flagged"),
    [
        ("film.mp4", "libx264", B_FRAMES, True), ("film.mpg", "mpeg2video", {}, True),
        ("film.mov", "prores_ks", {}, True), ("film.mkv", "ffv1", {}, False),
    ],
)  # fmt: skip
def test_interlaced_film_is_known(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], flagged: bool
) -> None:
    pixel_format = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    found = facts(tmp_path, name, codec=codec, options=options, interlaced=True, pixel_format=pixel_format)
    assert (found.interlaced, found.flagged) == (True, flagged)
    progressive = facts(tmp_path, name, codec=codec, options=options, pixel_format=pixel_format)
    assert (progressive.interlaced, progressive.flagged) == (False, False)


def test_fields_of_hevc_are_refused(tmp_path: Path) -> None:
    options = {"preset": "ultrafast", "x265-params": "log-level=none:interlace=tff"}
    with pytest.raises(InputError, match="fields"):
        facts(tmp_path, "film.mkv", codec="libx265", options=options)


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
def test_alpha_beside_the_picture_is_known(tmp_path: Path, codec: str) -> None:
    options = {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"}
    found = facts(tmp_path, "film.webm", codec=codec, options=options, pixel_format="yuva420p")
    assert found.alpha
    assert not facts(tmp_path, "film.webm", codec=codec, options=options).alpha


def test_facts_travel_between_processes(tmp_path: Path) -> None:
    found = facts(tmp_path)
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm", "ts", "mov"])
def test_sound_alone_is_no_film(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match="no video"):
        facts(tmp_path, f"film.{suffix}", codec=None, audio=[Audio(seconds=1)])


def test_cover_alone_is_no_film(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no video"):
        facts(tmp_path, codec=None, audio=[Audio(seconds=1)], cover=True)


def test_encrypted_film_is_refused(tmp_path: Path) -> None:
    key = "00112233445566778899aabbccddeeff"
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    with pytest.raises(InputError, match="encrypted"):
        facts(tmp_path, container_options=options)


def test_unsupported_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rgb555"):
        facts(tmp_path, "film.mov", codec="qtrle", options={}, pixel_format="rgb555be")


@pytest.mark.parametrize(
    "data", [b"", b"no film at all" * 100, b"\x1a\x45\xdf\xa3" + bytes(500), b"#EXTM3U\nx.ts\n"]
)
def test_other_files_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "film.mkv"
    path.write_bytes(data)
    with pytest.raises(InputError):
        probe(path)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        probe(tmp_path / "missing.mkv")
    with pytest.raises(InputError, match="folder"):
        probe(tmp_path)


def test_any_path_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "http:%03d é\n?*.mp4"
    write(tmp_path / "film.mp4", Scene(frames=2))
    (tmp_path / "film.mp4").rename(path)
    assert len(probe(path).times) == 2


@pytest.mark.parametrize("suffix", ["mkv", "avi", "webm"])
def test_cut_film_says_what_is_missing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film.{suffix}"
    write(path, Scene(codec="libvpx-vp9" if suffix == "webm" else "libx264", frames=48))
    assert probe(path).cut == ""
    cut(path, 0.6)
    assert "bytes" in probe(path).cut


@pytest.mark.parametrize(("flags", "word"), [("faststart", "frames"), ("frag_keyframe+empty_moov", "bytes")])
def test_cut_mp4_says_what_is_missing(tmp_path: Path, flags: str, word: str) -> None:
    path = tmp_path / "film.mp4"
    write(path, Scene(options=B_FRAMES, frames=48, container_options={"movflags": flags}))
    assert probe(path).cut == ""
    cut(path, 0.6)
    found = probe(path)
    assert word in found.cut
    assert len(found.times) < 48


def test_mp4_without_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write(path, Scene())
    cut(path, 0.6)
    with pytest.raises(InputError, match="moov"):
        probe(path)


def test_missing_end_without_frames_is_a_note(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write(path, Scene(audio=(), container_options={"movflags": "faststart"}))
    data = bytearray(path.read_bytes())
    at = data.find(b"mdat") - 4
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 1000).to_bytes(4, "big")
    path.write_bytes(data)
    found = probe(path)
    assert found.cut == ""
    assert len(found.times) == 24
    assert any("shorter" in note for note in found.notes)
