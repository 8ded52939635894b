"""What each container holds, and what is said of a film's streams before any work."""

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
import scenes
from scenes import Audio, Scene

from srcli.errors import UsageError
from srcli.io.films.facts import Facts, probe
from srcli.io.films.streams import CONTAINERS, Carried, plan

SOUND = ["aac", "ac3", "alac", "eac3", "flac", "mp2", "libmp3lame", "libopus", "pcm_s16le", "pcm_s24be"]
SOUND += ["pcm_f32le", "pcm_mulaw", "pcm_u8", "adpcm_ima_qt", "vorbis", "wavpack", "tta", "wmav2", "adpcm_ms"]
NAMES = {"libmp3lame": "mp3", "libopus": "opus"}


def sound(codec: str) -> io.BytesIO | None:
    """A second of silence in the first container that takes the codec."""
    for muxer in ("matroska", "mov", "avi", "asf"):
        file = io.BytesIO()
        try:
            with av.open(file, "w", format=muxer) as out:
                stream: Any = out.add_stream(codec, rate=48000, options={"strict": "-2"})
                stream.codec_context.layout = "stereo"
                stream.codec_context.bit_rate = 128000
                stream.codec_context.open()
                form, size = stream.codec_context.format, stream.codec_context.frame_size or 1024
                frame = av.AudioFrame(form, "stereo", 48000)
                for plane in frame.planes:
                    plane.update(bytes(plane.buffer_size))
                frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
                resampler = av.AudioResampler(form, "stereo", 48000, frame_size=size)
                for part in (*resampler.resample(frame), *resampler.resample(None), None):
                    out.mux(stream.encode(part))
            return file
        except (ValueError, av.error.FFmpegError):
            continue
    return None


def is_held(file: io.BytesIO, muxer: str) -> bool:
    """Whether a muxer takes all packets, and they can be read again."""
    file.seek(0)
    copy = io.BytesIO()
    try:
        with av.open(file) as source, av.open(copy, "w", format=muxer) as out:
            stream: Any = source.streams[0]
            target: Any = out.add_stream_from_template(stream, opaque=True)
            if stream.codec_context.layout.name == "2 channels":
                target.codec_context.layout = "stereo"
            count = 0
            for packet in source.demux(stream):
                if packet.size:
                    packet.stream = target
                    packet.duration = packet.duration or 1
                    out.mux(packet)
                    count += 1
    except (ValueError, av.error.FFmpegError):
        return False
    copy.seek(0)
    with av.open(copy) as again:
        return sum(1 for packet in again.demux(again.streams[0]) if packet.size) == count


@pytest.mark.parametrize("codec", SOUND)
def test_the_table_says_which_sound_each_container_holds(codec: str) -> None:
    file = sound(codec)
    assert file is not None
    held = {suffix for suffix, holds in CONTAINERS.items() if is_held(file, holds.muxer)}
    assert held == {suffix for suffix, holds in CONTAINERS.items() if NAMES.get(codec, codec) in holds.audio}


def film(path: Path, **scene: Any) -> Facts:
    scenes.write(path, Scene(frames=3, **scene))
    return probe(path)


def words(carried: Carried) -> tuple[list[str], list[str], list[str]]:
    return list(carried.copied), list(carried.converted), list(carried.dropped)


def test_matroska_takes_everything(tmp_path: Path) -> None:
    facts = film(tmp_path / "a.mkv", subtitles=True, chapters=True, cover=True, attachment=True)
    kept = [
        "audio 1 (pcm_s16le, eng)",
        "subtitle 2 (subrip, ger)",
        "attachment 3 (font.ttf)",
        "cover 4 (png)",
    ]
    assert words(plan(facts, tmp_path / "b.mkv")) == ([*kept, "2 chapters"], [], [])


def test_what_mp4_cannot_hold_is_named_with_what_can(tmp_path: Path) -> None:
    facts = film(tmp_path / "a.mkv", subtitles=True, cover=True, attachment=True, audio=(Audio("tta"),))
    assert words(plan(facts, tmp_path / "b.MP4")) == (
        ["cover 4 (png)"],
        ["subtitle 2 (subrip, ger) to mov_text"],
        [
            "audio 1 (tta, eng): .mp4 cannot hold it, .mkv can",
            "attachment 3 (font.ttf): .mp4 cannot hold it, .mkv can",
        ],
    )


def test_opus_is_not_put_into_mov(tmp_path: Path) -> None:
    facts = film(tmp_path / "a.mkv", audio=(Audio("libopus"), Audio("aac")))
    carried = plan(facts, tmp_path / "b.mov")
    assert words(carried) == (
        ["audio 2 (aac, eng)"],
        [],
        ["audio 1 (opus, eng): .mov cannot hold it, .mkv can"],
    )
    assert [(step.index, step.how) for step in carried.steps] == [(0, "picture"), (2, "copy")]


@pytest.mark.parametrize(
    ("codec", "able"), [("hdmv_pgs_subtitle", ".mkv"), ("dvb_subtitle", ".mkv"), ("dvd_subtitle", None)]
)
def test_subtitles_that_are_pictures_stay_out_of_mp4(tmp_path: Path, codec: str, able: str | None) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        video: Any = out.add_stream("libx264", rate=25, width=64, height=64)
        subtitle: Any = out.add_mux_stream(codec)
        for number in range(3):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        packet = av.Packet(b"\x16" + bytes(30))
        packet.stream, packet.time_base, packet.pts, packet.dts = subtitle, Fraction(1, 1000), 40, 40
        out.mux(packet)
    facts = probe(tmp_path / "a.mkv")
    assert plan(facts, tmp_path / "b.mkv").copied == (f"subtitle 1 ({codec})",)
    dropped = plan(facts, tmp_path / "b.mp4").dropped
    assert dropped == ((f"subtitle 1 ({codec}): .mp4 cannot hold it, {able} can",) if able else ())
    assert plan(facts, tmp_path / "b.mov").dropped == (
        f"subtitle 1 ({codec}): .mov cannot hold it, .mkv can",
    )


def test_chapter_and_timecode_tracks_are_not_called_lost(tmp_path: Path) -> None:
    scenes.write(tmp_path / "a.mov", Scene(frames=3, chapters=True))
    facts = probe(tmp_path / "a.mov")
    with av.open(str(tmp_path / "a.mov")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio", "data"]
    assert words(plan(facts, tmp_path / "b.mp4")) == (["audio 1 (pcm_s16le, eng)", "2 chapters"], [], [])


def test_the_picture_need_not_be_the_first_stream(tmp_path: Path) -> None:
    facts = film(tmp_path / "a.mkv", audio_first=True)
    carried = plan(facts, tmp_path / "b.mkv")
    assert [(step.index, step.how) for step in carried.steps] == [(0, "copy"), (1, "picture")]


def test_tags_without_place_beside_a_cover_are_named(tmp_path: Path) -> None:
    facts = film(tmp_path / "a.mkv", cover=True)
    with av.open(str(tmp_path / "a.mkv")) as source, av.open(str(tmp_path / "b.mkv"), "w") as out:
        out.metadata["MOOD"] = "calm"
        target = out.add_stream_from_template(source.streams.video[0])
        out.add_attachment("cover.png", "image/png", scenes.png())
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = target
                out.mux(packet)
    facts = probe(tmp_path / "b.mkv")
    assert plan(facts, tmp_path / "c.mp4").dropped == (
        "tags (MOOD): .mp4 cannot hold them beside a cover, .mkv can",
    )
    assert plan(facts, tmp_path / "c.mkv").dropped == ()


@pytest.mark.parametrize("name", ["a.avi", "a.ts", "a"])
def test_other_containers_are_refused(tmp_path: Path, name: str) -> None:
    facts = film(tmp_path / "a.mkv", audio=())
    with pytest.raises(UsageError, match=r"\.mkv, \.mp4"):
        plan(facts, tmp_path / "b" / name)


def test_planning_reads_only_the_start_of_a_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = film(tmp_path / "a.mkv", subtitles=True)
    (tmp_path / "a.mkv").write_bytes((tmp_path / "a.mkv").read_bytes()[:-200])
    assert len(plan(facts, tmp_path / "b.mp4").steps) == 3
    assert not (tmp_path / "b.mp4").exists()
