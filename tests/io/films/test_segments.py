"""Segments and their join: frames, times, streams, tags and geometry of the film that results."""

import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import copies
import numpy as np
import pytest
import scenes
from av.stream import Disposition
from scenes import B_FRAMES, Audio, Scene

from srcli.errors import InputError, OutputError
from srcli.io.films import segments, streams
from srcli.io.films.facts import probe
from srcli.io.films.timeline import Timeline
from srcli.io.films.verify import verify

NTSC = Fraction(24000, 1001)
VARIABLE = [0, 1001, 3003, 3103, 9000, 9001, 20000, 20010, 20020, 33333]
MS = Fraction(1, 1000)


def made(path: Path, **scene: Any) -> Path:
    scenes.write(path, Scene(**{"options": B_FRAMES, **scene}))
    return path


# -- frames and times --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".webm"])
@pytest.mark.parametrize("every", [1000, 10])
def test_all_frames_are_there_in_order(tmp_path: Path, suffix: str, every: int) -> None:
    out = tmp_path / f"out{suffix}"
    done = copies.copy(made(tmp_path / "a.mp4", frames=33), out, every=every)
    assert len(done.segments) == (4 if every == 10 else 1)
    assert copies.numbers(out) == list(range(33))


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
@pytest.mark.parametrize(
    "scene",
    [
        {"rate": NTSC},
        {"rate": Fraction(60000, 1001), "start": Fraction(1001, 30000)},
        {"times": VARIABLE, "time_base": Fraction(1, 30000)},
        {"times": VARIABLE, "time_base": Fraction(1, 90000), "start": Fraction(5, 3)},
    ],
    ids=["23.976", "59.94 that starts late", "variable", "variable that starts late"],
)
def test_times_are_exact_in_mp4_and_mov(tmp_path: Path, suffix: str, scene: dict[str, Any]) -> None:
    source, out = made(tmp_path / "a.mp4", **scene), tmp_path / f"out{suffix}"
    done = copies.copy(source, out, every=7)
    assert copies.times(out) == copies.times(source)
    end = max(time + length for time, length, _ in copies.packets(out, "video"))
    assert end == done.facts.end * done.facts.time_base


def test_sound_keeps_its_place_and_its_packets(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mp4", rate=NTSC, audio=(Audio(start=Fraction(1, 3)), Audio(language="ger")))
    for suffix in (".mp4", ".mov"):
        out = tmp_path / f"out{suffix}"
        copies.copy(source, out)
        for number in (0, 1):
            assert copies.packets(out, "audio", number) == copies.packets(source, "audio", number)
    out = tmp_path / "out.mkv"
    copies.copy(source, out)
    shift = copies.times(out)[0] - copies.times(source)[0]
    for number in (0, 1):
        before, after = (copies.packets(path, "audio", number) for path in (source, out))
        assert [data for _, _, data in after] == [data for _, _, data in before]
        assert max(abs(new[0] - old[0] - shift) for new, old in zip(after, before, strict=True)) < MS


@pytest.mark.parametrize("rate", [NTSC, Fraction(30), Fraction(60000, 1001)])
def test_constant_rates_behind_milliseconds_become_exact_again(tmp_path: Path, rate: Fraction) -> None:
    source = made(tmp_path / "a.mkv", rate=rate, frames=50, start=Fraction(67, 1000))
    out = tmp_path / "out.mp4"
    copies.copy(source, out, every=20)
    start = copies.times(source)[0]
    assert copies.times(out) == [start + number / rate for number in range(50)]
    copies.copy(source, tmp_path / "out.mkv")
    assert copies.times(tmp_path / "out.mkv") == copies.times(source)
    rates = set()
    for path in (source, tmp_path / "out.mkv"):
        with av.open(str(path)) as container:
            rates.add((container.streams.video[0].average_rate, container.streams.video[0].base_rate))
    assert len(rates) == 1
    assert probe(tmp_path / "out.mkv").rate == rate


def test_variable_rates_survive_matroska(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mp4", times=VARIABLE, time_base=Fraction(1, 30000))
    copies.copy(source, tmp_path / "out.mkv", every=4)
    pairs = zip(copies.times(source), copies.times(tmp_path / "out.mkv"), strict=True)
    gaps = [after - before for before, after in pairs]
    assert max(gaps) - min(gaps) <= MS


def test_streams_without_a_beginning_of_their_own_start_at_zero(tmp_path: Path) -> None:
    scene = Scene(audio=(Audio("aac"),), start=Fraction(3, 2), container_options={"mpegts_copyts": "1"})
    scenes.write(tmp_path / "a.ts", scene)
    copies.copy(tmp_path / "a.ts", tmp_path / "out.mp4")
    before, after = copies.times(tmp_path / "a.ts"), copies.times(tmp_path / "out.mp4")
    shift = after[0] - before[0]
    assert [time - shift for time in after] == before
    sound = [copies.packets(tmp_path / name, "audio")[0][0] for name in ("a.ts", "out.mp4")]
    assert min(sound[1], after[0]) == 0
    assert abs(sound[1] - sound[0] - shift) <= Fraction(1, 48000)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_nothing_drifts_over_40000_frames(tmp_path: Path, suffix: str) -> None:
    scene = made(tmp_path / "a.mkv", frames=3, rate=NTSC)
    ticks = [round(number / NTSC * 1000) for number in range(40000)]
    facts = replace(probe(scene), times=tuple(ticks), rate=NTSC, last_duration=42)
    with av.open(str(scene)) as film:
        timeline = Timeline(facts, ticks, streams.CONTAINERS[suffix], film, {}, None)
    shown = [timeline.shown(tick) for tick in ticks]
    error = max(abs(at * timeline.base - number / NTSC) for number, (at, _) in enumerate(shown))
    assert error <= (0 if suffix == ".mp4" else MS / 2)
    assert all(begin + length == following for (begin, length), (following, _) in pairwise(shown))
    assert list(timeline.decoding_times()) == [at for at, _ in shown]


def test_decoding_times_ascend_and_never_follow_presentation(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mp4", times=VARIABLE, time_base=Fraction(1, 30000), audio=())
    copies.copy(source, tmp_path / "out.mp4", every=5)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stamps = [(packet.dts, packet.pts) for packet in container.demux(video=0) if packet.size]
    assert all(a < b for (a, _), (b, _) in pairwise(stamps))
    assert all(dts <= pts for dts, pts in stamps)


@pytest.mark.parametrize("codec", ["h264", "av1", "prores"])
def test_times_may_begin_below_zero(tmp_path: Path, codec: str) -> None:
    facts = probe(made(tmp_path / "a.mp4", frames=6, audio=()))
    early = replace(facts, times=tuple(time - 1000 for time in facts.times))
    out = tmp_path / "out.mov" if codec == "prores" else tmp_path / "out.mp4"
    encoding = copies.settled(early, out, codec=codec)
    frames = [
        (frame[0] - 1000, *frame[1:])
        for frame in (copies.recoded(f, facts, encoding) for f in copies.decoded(facts))
    ]
    copies.write_segment(tmp_path / "0", frames, encoding, early)
    segments.join([tmp_path / "0"], out, encoding, early, streams.plan(early, out), tags={})
    found = copies.times(out)
    assert [time - found[0] for time in found] == [number * Fraction(1, 25) for number in range(6)]
    assert found[0] >= 0


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_packets_at_the_same_time_do_not_end_the_join(tmp_path: Path, suffix: str) -> None:
    with (
        av.open(str(made(tmp_path / "a.mkv", audio=(Audio("aac"),)))) as film,
        av.open(str(tmp_path / "b.mkv"), "w") as out,
    ):
        pairs = {each.index: out.add_stream_from_template(each) for each in film.streams}
        for packet in film.demux():
            if packet.size:
                if packet.stream.type == "audio":
                    packet.pts = packet.dts = (packet.pts or 0) // 100 * 100
                packet.stream = pairs[packet.stream.index]
                out.mux(packet)
    copies.copy(tmp_path / "b.mkv", tmp_path / f"out{suffix}")
    before, after = (copies.packets(tmp_path / name, "audio") for name in ("b.mkv", f"out{suffix}"))
    assert [data for *_, data in after] == [data for *_, data in before]
    assert max(abs(new[0] - old[0]) for new, old in zip(after, before, strict=True)) < Fraction(1, 10)


def test_streams_without_packets_do_no_harm(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mkv", audio=(Audio("aac"), Audio("flac")))
    with av.open(str(source)) as film, av.open(str(tmp_path / "b.mkv"), "w") as out:
        pairs = {each.index: out.add_stream_from_template(each) for each in film.streams}
        for packet in film.demux():
            if packet.size and packet.stream.index != 1:
                packet.stream = pairs[packet.stream.index]
                out.mux(packet)
    for suffix in (".mp4", ".mkv"):
        done = copies.copy(tmp_path / "b.mkv", tmp_path / f"out{suffix}")
        found = verify(tmp_path / f"out{suffix}", done.facts, done.carried)
        assert (found.frames, found.changed) == (24, ())
        assert found.packets == len(copies.packets(source, "audio", 1))


def test_one_frame_is_a_film(tmp_path: Path) -> None:
    for suffix in (".mp4", ".mkv"):
        copies.copy(made(tmp_path / "a.mp4", frames=1, audio=()), tmp_path / f"out{suffix}")
        assert len(copies.times(tmp_path / f"out{suffix}")) == 1


def test_sound_longer_than_the_picture_is_carried_to_its_end(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mp4", frames=5, audio=(Audio(seconds=3),))
    copies.copy(source, tmp_path / "out.mkv")
    assert len(copies.packets(tmp_path / "out.mkv", "audio")) == len(copies.packets(source, "audio"))


# -- streams -----------------------------------------------------------------------------------------------


def test_everything_comes_back_in_matroska(tmp_path: Path) -> None:
    sound = (Audio("aac"), Audio("flac", language="ger"))
    source = made(tmp_path / "a.mkv", subtitles=True, chapters=True, cover=True, attachment=True, audio=sound)
    out = tmp_path / "out.mkv"
    copies.copy(source, out, tags={"encoding_tool": "a test"})
    with av.open(str(source)) as film, av.open(str(out)) as written:
        assert [each.type for each in written.streams] == [each.type for each in film.streams]
        assert [each.language for each in written.streams] == [each.language for each in film.streams]
        assert [each.disposition for each in written.streams] == [each.disposition for each in film.streams]
        assert written.chapters() == film.chapters()
        assert written.streams.attachments[0].data == film.streams.attachments[0].data
        assert written.streams.attachments[0].name == "font.ttf"
        assert written.metadata["title"] == "A scene"
        assert written.metadata["UPSCALED_BY"] == "a test"
    for kind, number in (("audio", 0), ("audio", 1), ("subtitle", 0), ("video", 1)):
        assert copies.packets(out, kind, number) == copies.packets(source, kind, number)


def test_everything_mp4_holds_comes_from_matroska(tmp_path: Path) -> None:
    sound = (Audio("aac"), Audio("pcm_s16le", language="ger"))
    source = made(tmp_path / "a.mkv", subtitles=True, chapters=True, cover=True, attachment=True, audio=sound)
    out = tmp_path / "out.mp4"
    copies.copy(source, out, tags={"encoding_tool": "a test"})
    with av.open(str(out)) as written:
        kinds = [each.type for each in written.streams]
        assert kinds == ["video", "audio", "audio", "subtitle", "data", "video"]
        assert [each.language for each in list(written.streams)[:4]] == ["und", "eng", "ger", "ger"]
        assert written.streams[5].disposition == Disposition.attached_pic
        assert not written.streams[3].disposition & Disposition.default
        assert [chapter["metadata"]["title"] for chapter in written.chapters()] == ["One", "Two"]
        assert (written.metadata["title"], written.metadata["encoder"]) == ("A scene", "a test")
    assert copies.texts(out) == [
        (Fraction(1, 10), Fraction(2, 5), "First line"),
        (Fraction(1, 2), Fraction(4, 5), "Second line"),
    ]
    assert copies.packets(out, "video", 1)[0][2] == scenes.png()
    starts = [time for time, _, _ in copies.packets(out, "audio", 0)]
    assert {b - a for a, b in pairwise(starts)} == {Fraction(1024, 48000)}


def test_cover_and_subtitles_go_from_mp4_to_matroska(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mp4", subtitles=True, chapters=True, cover=True)
    out = tmp_path / "out.mkv"
    copies.copy(source, out)
    with av.open(str(out)) as written:
        assert [each.type for each in written.streams] == ["video", "audio", "subtitle", "video"]
        assert written.streams[3].metadata["mimetype"] == "image/png"
        chapters = [chapter["start"] * (chapter["time_base"] or 0) for chapter in written.chapters()]
    assert copies.packets(out, "video", 1)[0][2] == scenes.png()
    shift = copies.times(out)[0]
    assert copies.texts(out)[0] == (Fraction(1, 10) + shift, Fraction(2, 5) + shift, "First line")
    assert chapters == [shift, Fraction(12, 25) + shift]


def test_text_of_mp4_stays_as_it_is_in_mp4(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mp4", subtitles=True)
    copies.copy(source, tmp_path / "out.mp4")
    assert copies.packets(tmp_path / "out.mp4", "subtitle") == copies.packets(source, "subtitle")


def test_webm_takes_subtitles_as_webvtt(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mkv", subtitles=True, audio=(Audio("libopus"),))
    copies.copy(source, tmp_path / "out.webm")
    with av.open(str(tmp_path / "out.webm")) as written:
        names = [streams.codec_of(stream) for stream in written.streams]
    assert names == ["av1", "opus", "webvtt"]
    assert [text for _, _, text in copies.texts(tmp_path / "out.webm")] == ["First line", "Second line"]
    assert copies.packets(tmp_path / "out.webm", "audio") == copies.packets(source, "audio")


def test_the_picture_keeps_its_place_among_the_streams(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mkv", audio_first=True)
    copies.copy(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as written:
        assert [stream.type for stream in written.streams] == ["audio", "video"]


def test_tags_of_phones_survive_mp4_and_mov(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mkv")
    film = tmp_path / "b.mp4"
    wanted = {
        "com.android.version": "14",
        "location": "+40.6892-074.0445/",
        "creation_time": "2024-02-12T19:16:55",
    }
    copies.copy(source, film, tags=wanted)
    for suffix in (".mp4", ".mov", ".mkv"):
        copies.copy(film, tmp_path / f"out{suffix}")
        with av.open(str(tmp_path / f"out{suffix}")) as written:
            found = {key.lower(): value for key, value in written.metadata.items()}
        assert found["com.android.version"] == "14"
        assert found["creation_time"].startswith("2024-02-12T19:16:55")
        assert found["location"].startswith("+40.6892-074.0445")


def test_a_timecode_comes_back(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mov", rate=Fraction(25), chapters=True)
    with av.open(str(source)) as film, av.open(str(tmp_path / "b.mov"), "w") as out:
        pairs = {
            each.index: out.add_stream_from_template(each) for each in film.streams if each.type != "data"
        }
        pairs[0].metadata["timecode"] = "10:00:00:00"
        for packet in film.demux([film.streams[index] for index in pairs]):
            if packet.size:
                packet.stream = pairs[packet.stream.index]
                out.mux(packet)
    done = copies.copy(tmp_path / "b.mov", tmp_path / "out.mp4")
    assert done.carried.dropped == ()
    with av.open(str(tmp_path / "out.mp4")) as written:
        assert written.streams.video[0].metadata["timecode"] == "10:00:00:00"


def test_only_the_part_asked_for_is_carried(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mkv", frames=100, chapters=True, subtitles=True, audio=(Audio("aac"),))
    facts = probe(source)
    for suffix in (".mp4", ".mkv"):
        out = tmp_path / f"out{suffix}"
        carried, encoding = streams.plan(facts, out), copies.settled(facts, out)
        part = [frame for frame in copies.decoded(facts) if 500 <= frame[0] < 2500]
        copies.write_segment(tmp_path / "0", part, encoding, facts)
        span = Fraction(1, 2), Fraction(5, 2)
        segments.join([tmp_path / "0"], out, encoding, facts, carried, tags={}, start=span[0], end=span[1])
        shift = copies.times(out)[0] - (Fraction(13, 25) - span[0])
        sound = copies.packets(out, "audio")
        assert 0 <= shift < Fraction(1, 40)
        assert abs(sound[0][0] - shift) < Fraction(1, 40)
        assert abs(sound[-1][0] - shift - 2) < Fraction(1, 20)
        assert len(copies.times(out)) == len(part) == 50
        assert copies.texts(out)[-1][:2] == (shift, Fraction(3, 10) + shift)
        with av.open(str(out)) as written:
            starts = [chapter["start"] * (chapter["time_base"] or 0) for chapter in written.chapters()]
        assert starts == [0, Fraction(3, 2) + shift]


# -- picture -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize(("rotation", "hflip"), [(90, False), (180, False), (270, True)])
def test_films_stay_turned(tmp_path: Path, suffix: str, rotation: int, hflip: bool) -> None:
    source = made(tmp_path / "a.mp4", frames=3, rotation=rotation, hflip=hflip)
    copies.copy(source, tmp_path / f"out{suffix}")
    before, after = (probe(path).display_matrix for path in (source, tmp_path / f"out{suffix}"))
    assert before is not None
    assert after is not None
    assert after[:6] == before[:6]


def test_what_a_display_matrix_moves_by_grows_with_the_picture(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mp4", frames=2, rotation=90)
    facts = replace(probe(source), display_matrix=(0, 65536, 0, -65536, 0, 0, 96 << 16, 0, 1 << 30))
    out = tmp_path / "out.mp4"
    carried, encoding = streams.plan(facts, out), copies.settled(facts, out, size=(192, 256))
    frames = [(0, [np.zeros((192, 256), np.uint8), *[np.full((96, 128), 128, np.uint8)] * 2], None)]
    copies.write_segment(tmp_path / "0", frames, encoding, facts)
    segments.join([tmp_path / "0"], out, encoding, facts, carried, tags={})
    assert probe(out).display_matrix == (0, 65536, 0, -65536, 0, 0, 192 << 16, 0, 1 << 30)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".webm"])
def test_anamorphic_films_keep_their_shape(tmp_path: Path, suffix: str) -> None:
    source = made(tmp_path / "a.mp4", frames=2, sar=Fraction(64, 45))
    facts = probe(source)
    encoding = copies.settled(facts, tmp_path / f"out{suffix}")
    height, width = encoding.size
    shape = Fraction(width, height) * encoding.sample_aspect
    assert abs(shape / (Fraction(128, 96) * Fraction(64, 45)) - 1) < Fraction(1, 100)
    frames = [(time, _stretched(planes, height, width), None) for time, planes, _ in copies.decoded(facts)]
    copies.write_segment(tmp_path / "0", frames, encoding, facts)
    out = tmp_path / f"out{suffix}"
    segments.join([tmp_path / "0"], out, encoding, facts, streams.plan(facts, out), tags={})
    found = probe(out)
    assert (found.width, found.height, found.sample_aspect) == (width, height, encoding.sample_aspect)


def _stretched(planes: list[Any], height: int, width: int) -> list[Any]:
    sizes = [(height, width), *[(-(-height // 2), -(-width // 2))] * 2]
    return [np.resize(plane, size) for plane, size in zip(planes, sizes, strict=True)]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".webm"])
def test_colour_tags_survive(tmp_path: Path, suffix: str) -> None:
    scene = {"matrix": 9, "primaries": 9, "transfer": 18, "full_range": True, "pixel_format": "yuv420p10le"}
    source = made(tmp_path / "a.mkv", frames=3, options=scenes.X264, **scene)
    done = copies.copy(source, tmp_path / f"out{suffix}")
    found = probe(tmp_path / f"out{suffix}")
    assert found.coding == done.facts.coding == done.encoding.coding
    assert (found.matrix, found.primaries, found.transfer) == (9, 9, 18)
    assert found.pixel_format == "yuv420p10le"


# -- repeatable, and when something fails ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [("h264", ".mp4"), ("h265", ".mp4"), ("av1", ".mkv"), ("vp9", ".webm"), ("ffv1", ".mkv")],
)
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, codec: str, suffix: str) -> None:
    source = made(tmp_path / "a.mkv", frames=20)
    digests = set()
    for name in ("one", "two"):
        out = tmp_path / f"{name}{suffix}"
        done = copies.copy(source, out, every=8, codec=codec)
        parts = [path.read_bytes() for path in done.segments]
        digests.add(hashlib.sha256(b"".join([*parts, out.read_bytes()])).digest())
    assert len(digests) == 1


def test_segments_of_other_settings_are_not_joined(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mkv", frames=6)
    facts = probe(source)
    out = tmp_path / "out.mkv"
    encodings = [copies.settled(facts, out, preset=preset) for preset in ("ultrafast", "medium")]
    paths = [copies.segments_of(facts, each, tmp_path / str(n), 6)[0] for n, each in enumerate(encodings)]
    with pytest.raises(InputError, match="other settings"):
        segments.join(paths, out, encodings[0], facts, streams.plan(facts, out), tags={})
    assert not out.exists()


def test_a_damaged_segment_is_named(tmp_path: Path) -> None:
    source = made(tmp_path / "a.mkv", frames=6)
    facts, out = probe(source), tmp_path / "out.mkv"
    encoding = copies.settled(facts, out)
    (path,) = copies.segments_of(facts, encoding, tmp_path / "s", 6)
    path.write_bytes(b"no film")
    with pytest.raises(InputError, match="000000"):
        segments.join([path], out, encoding, facts, streams.plan(facts, out), tags={})
    assert not out.exists()


def test_a_frame_that_fails_leaves_no_segment(tmp_path: Path) -> None:
    facts = probe(made(tmp_path / "a.mkv", frames=6))

    def frames() -> Iterator[copies.Frame]:
        yield from list(copies.decoded(facts))[:3]
        raise RuntimeError("the network")

    with pytest.raises(RuntimeError, match="the network"):
        copies.write_segment(tmp_path / "s", frames(), copies.settled(facts, tmp_path / "b.mkv"), facts)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mkv"]


def test_sound_that_cannot_be_read_on_does_not_cost_the_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made(tmp_path / "a.mkv", frames=50)
    facts, out = probe(source), tmp_path / "out.mkv"
    carried, encoding = streams.plan(facts, out), copies.settled(facts, out)
    paths = copies.segments_of(facts, encoding, tmp_path / "s", 50)
    scenes.cut(source, 0.6)
    with caplog.at_level(logging.WARNING, "srcli"):
        segments.join(paths, out, encoding, facts, carried, tags={})
    assert len(copies.times(out)) == 50


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from srcli.errors import OutputError
from srcli.io.films import segments, streams
from srcli.io.films.encoding import choose
from srcli.io.films.facts import probe

source, out, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
facts = probe(source)
encoding = choose(facts, (facts.height, facts.width), out, lossless=True, threads=1)
noise = np.random.default_rng(0)
shapes = [(96, 128), (48, 64), (48, 64)]
planes = lambda: [noise.integers(16, 235, shape, np.uint8) for shape in shapes]
segment = out.parent / "segment"

def write():
    with segments.writing(segment, encoding, facts) as writer:
        for time in facts.times:
            writer.add(time, planes())

if sys.argv[4] == "join":
    write()
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    if sys.argv[4] == "join":
        segments.join([segment], out, encoding, facts, streams.plan(facts, out), tags={})
    else:
        write()
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(os.name == "nt", reason="no limit on the size of files there")
@pytest.mark.parametrize("what", ["segment", "join"])
def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, what: str) -> None:
    source = made(tmp_path / "a.mkv", frames=24, audio=())
    arguments = [sys.executable, "-c", FULL, str(source), str(tmp_path / "out.mkv"), "200000", what]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert "full" in done.stdout
    assert "Traceback" not in done.stderr
    left = {path.name for path in tmp_path.iterdir()} - {"a.mkv"}
    assert left == ({"segment"} if what == "join" else set())


def test_an_encoder_that_fails_is_named(tmp_path: Path) -> None:
    facts = probe(made(tmp_path / "a.mkv", frames=3))
    wrong = replace(copies.settled(facts, tmp_path / "b.mkv"), options=(("preset", "none"),))
    with pytest.raises(OutputError, match="libx264 fails"):
        copies.write_segment(tmp_path / "s", copies.decoded(facts), wrong, facts)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("flagged", [(), (0, 1), (1,)])
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_of_several_videos_the_enlarged_one_is_shown(
    tmp_path: Path, suffix: str, flagged: tuple[int, ...]
) -> None:
    small = made(tmp_path / "small.mkv", frames=12, width=64, height=48, audio=())
    large = made(tmp_path / "large.mkv", frames=12, audio=())
    source, out = tmp_path / "both.mkv", tmp_path / f"out{suffix}"
    with ExitStack() as opened:
        films = [opened.enter_context(av.open(str(path))) for path in (small, large)]
        both = opened.enter_context(
            av.open(str(source), "w", container_options={"default_mode": "passthrough"})
        )
        for number, film in enumerate(films):
            added = both.add_stream_from_template(film.streams[0])
            added.disposition = Disposition.default if number in flagged else Disposition(0)
        for packet in (packet for film in films for packet in film.demux() if packet.size):
            packet.stream = both.streams[films.index(packet.stream.container)]
            both.mux(packet)
    done = copies.copy(source, out)
    assert (done.facts.index, done.facts.width) == (1, 128)
    with av.open(str(out)) as written:
        found = [(each.width, bool(each.disposition & Disposition.default)) for each in written.streams.video]
    assert found == [(64, False), (128, True)]


def test_errors_of_writing_name_the_file(tmp_path: Path) -> None:
    facts = probe(made(tmp_path / "a.mkv", frames=3))
    with pytest.raises(OutputError, match="missing"):
        copies.write_segment(
            tmp_path / "missing" / "s",
            copies.decoded(facts),
            copies.settled(facts, tmp_path / "b.mkv"),
            facts,
        )


def test_films_from_avi_keep_their_sound_and_order(tmp_path: Path) -> None:
    scenes.write(
        tmp_path / "a.avi", Scene(codec="mpeg4", options={}, frames=30, rate=NTSC, audio=(Audio("mp2"),))
    )
    for suffix in (".mp4", ".mkv"):
        out = tmp_path / f"out{suffix}"
        done = copies.copy(tmp_path / "a.avi", out, every=11)
        found = verify(out, done.facts, done.carried)
        assert (found.frames, found.changed) == (30, ())
        assert found.packets > 30
        assert found.deviation <= (0 if suffix == ".mp4" else MS)
        assert copies.numbers(out) == list(range(30))
