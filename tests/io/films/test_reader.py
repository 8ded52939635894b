import gc
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import h264_fields
import numpy as np
import pytest
from scenes import B_FRAMES, OPEN_GOP, X264, Scene, is_flash, picture, read_number, write

from srcli.errors import InputError, UsageError
from srcli.io.films.facts import Facts, probe
from srcli.io.films.reader import Frame, frames, samples

X265 = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:keyint=12:open-gop=1"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "12"}
FILMS = {
    "b.mp4": ("libx264", B_FRAMES), "open.mp4": ("libx264", OPEN_GOP), "open.mkv": ("libx264", OPEN_GOP),
    "open.ts": ("libx264", OPEN_GOP), "open.mpg": ("libx264", OPEN_GOP), "b.avi": ("libx264", B_FRAMES),
    "b.h264": ("libx264", B_FRAMES), "b.flv": ("libx264", B_FRAMES), "open.mov": ("libx265", X265),
    "x265.ts": ("libx265", X265), "vp9.webm": ("libvpx-vp9", VP9), "vp8.webm": ("libvpx", VP9),
    "av1.mp4": ("libsvtav1", {"preset": "12", "svtav1-params": "keyint=12"}), "ffv1.mkv": ("ffv1", {}),
    "mpeg4.avi": ("mpeg4", {"bf": "2"}), "mpeg2.mpg": ("mpeg2video", {"bf": "2"}), "x.gif": ("gif", {}),
    "mpeg2.ts": ("mpeg2video", {"bf": "2"}), "x.apng": ("apng", {}), "prores.mov": ("prores_ks", {}),
}  # fmt: skip
PIXELS = {"gif": "bgr8", "apng": "rgba", "prores_ks": "yuv422p10le"}


def film(tmp_path: Path, name: str, **scene: Any) -> Facts:
    codec, options = FILMS.get(name, ("libx264", B_FRAMES))
    made = {"codec": codec, "options": options, "frames": 30, "audio": ()}
    made["pixel_format"] = PIXELS.get(codec, "yuv420p")
    write(tmp_path / name, Scene(**{**made, **scene}))
    return probe(tmp_path / name)


def numbers(found: Sequence[Frame]) -> list[int]:
    """What the frames show."""
    return [read_number(frame.planes) for frame in found]


@pytest.mark.parametrize("name", FILMS)
def test_all_frames_come_in_order_with_their_times(tmp_path: Path, name: str) -> None:
    facts = film(tmp_path, name)
    found = list(frames(facts))
    assert numbers(found) == list(range(30))
    assert [frame.number for frame in found] == list(range(30))
    assert tuple(frame.time for frame in found) == facts.times
    assert [is_flash(frame.planes) for frame in found] == [number % 8 == 0 for number in range(30)]
    assert not any(frame.repeated for frame in found)


@pytest.mark.parametrize("name", FILMS)
def test_continuation_is_exact_after_any_frame(tmp_path: Path, name: str) -> None:
    facts = film(tmp_path, name)
    whole = [(frame.time, frame.digest()) for frame in frames(facts)]
    for number in (0, 5, 10, 11, 12, 13, 21, 24, 28):
        rest = [(frame.time, frame.digest()) for frame in frames(facts, after=whole[number])]
        assert rest == whole[number + 1 :]
    assert list(frames(facts, after=whole[-1])) == []


def test_continuation_far_into_a_film_seeks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = film(tmp_path, "b.mp4", frames=300)
    after = next((frame.time, frame.digest()) for frame in frames(facts) if frame.number == 250)
    made = 0
    digest = Frame.digest

    def counted(frame: Frame) -> bytes:
        nonlocal made
        made += 1
        return digest(frame)

    monkeypatch.setattr(Frame, "digest", counted)
    first = next(frames(facts, after=after))
    assert (first.number, made) == (251, 1)


@pytest.mark.parametrize("name", ["b.mp4", "b.h264"])
def test_changed_film_is_not_continued(tmp_path: Path, name: str) -> None:
    facts = film(tmp_path, name)
    time, digest = next((frame.time, frame.digest()) for frame in frames(facts))
    with pytest.raises(InputError, match="changed"):
        next(frames(facts, after=(time, bytes(16))))
    with pytest.raises(InputError, match="changed"):
        next(frames(facts, after=(time + 1, digest)))
    film(tmp_path, name, frames=4)
    with pytest.raises(InputError, match="changed"):
        list(frames(facts, after=(time, digest)))


def test_start_and_end_select_by_time(tmp_path: Path) -> None:
    facts = film(tmp_path, "open.ts", frames=60)
    found = list(frames(facts, start=Fraction(1), end=Fraction(3, 2)))
    assert numbers(found) == list(range(25, 38))
    assert [frame.number for frame in found] == list(range(25, 38))
    after = found[5].time, found[5].digest()
    assert numbers(list(frames(facts, after=after, end=Fraction(3, 2)))) == list(range(31, 38))
    assert numbers(list(frames(facts, start=Fraction(58, 25)))) == [58, 59]
    with pytest.raises(UsageError):
        frames(facts, start=Fraction(3))


def test_variable_times_belong_to_their_frames(tmp_path: Path) -> None:
    times = [0, 3, 4, 9, 10, 20, 21, 22, 23, 30, 40, 41]
    facts = film(tmp_path, "b.mkv", times=times, time_base=Fraction(1, 50), start=Fraction(1))
    found = list(frames(facts))
    assert numbers(found) == list(range(12))
    assert [frame.time * facts.time_base for frame in found] == [1 + Fraction(time, 50) for time in times]


def test_film_of_one_frame_is_read(tmp_path: Path) -> None:
    assert numbers(list(frames(film(tmp_path, "b.mp4", frames=1)))) == [0]


def test_main_video_is_read_where_it_is_not_first(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write(path, Scene(audio_first=True, cover=True))
    assert numbers(list(frames(probe(path)))) == list(range(24))


def test_hidden_frames_are_not_given(tmp_path: Path) -> None:
    """Key frames that are stored hidden, each shown by a packet that only says so."""
    path, hidden = tmp_path / "film.webm", tmp_path / "hidden.webm"
    write(path, Scene(codec="libvpx-vp9", options={**VP9, "g": "1"}, audio=()))
    with av.open(str(path)) as source, av.open(str(hidden), "w") as out:
        stream = source.streams.video[0]
        target: Any = out.add_stream_from_template(stream, opaque=True)
        for number, packet in enumerate(packet for packet in source.demux(stream) if packet.size):
            data = [bytes(packet)]
            if number % 3 == 1:
                data = [bytes([data[0][0] & ~2]) + data[0][1:], b"\x88"]
            for index, part in enumerate(data):
                piece: Any = av.Packet(part)
                piece.stream, piece.time_base, piece.pts, piece.dts = (
                    target,
                    packet.time_base,
                    packet.pts,
                    packet.dts,
                )
                piece.is_keyframe = index == 0
                out.mux(piece)
    found = list(frames(probe(hidden)))
    assert numbers(found) == list(range(24))
    assert not any(frame.repeated for frame in found)


@pytest.mark.parametrize("name", ["film.ts", "film.mkv", "film.h264"])
@pytest.mark.parametrize("together", [False, True])
def test_fields_in_packets_of_their_own_are_one_frame(tmp_path: Path, name: str, together: bool) -> None:
    pictures = [picture(Scene(width=64, height=64), number, 8, None)[0] for number in range(9)]
    h264_fields.write(tmp_path / name, pictures, together=together)
    facts = probe(tmp_path / name)
    assert (facts.interlaced, facts.rate) == (True, 25)
    found = list(frames(facts, deinterlace=True))
    assert numbers(found) == list(range(9))
    assert not any(frame.repeated for frame in found)


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("film.mkv", "ffv1", "yuv444p12le"), ("film.mkv", "ffv1", "yuv420p9le"),
        ("film.mkv", "ffv1", "yuv422p14le"), ("film.mkv", "ffv1", "yuv444p16le"),
        ("film.mkv", "ffv1", "gray10le"), ("film.mkv", "ffv1", "bgr0"), ("film.mkv", "ffv1", "gbrp10le"),
        ("film.mkv", "rawvideo", "nv12"), ("film.avi", "rawvideo", "bgr24"), ("film.mov", "qtrle", "argb"),
        ("film.avi", "rawvideo", "yuyv422"), ("film.avi", "rawvideo", "yuv410p"),
        ("film.mov", "png", "rgb48be"),
    ],
)  # fmt: skip
def test_codes_come_as_they_were_stored(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    scene = {
        "codec": codec,
        "options": {},
        "pixel_format": pixel_format,
        "width": 124,
        "full_range": True,
        "frames": 3,
    }
    facts = film(tmp_path, name, **scene)
    found = list(frames(facts))
    assert numbers(found) == [0, 1, 2]
    expected = picture(Scene(**scene), 2, facts.coding.bits, found[2].planes[-1].shape)  # type: ignore[arg-type]
    pairs = zip(found[2].planes, [expected[0]] * 3 if facts.coding.matrix == 0 else expected, strict=False)
    assert all((ours == theirs).all() for ours, theirs in pairs)


@pytest.mark.parametrize(("name", "codec", "pixel_format"), [
    ("film.webm", "libvpx-vp9", "yuva420p"), ("film.webm", "libvpx", "yuva420p"),
    ("film.mov", "prores_ks", "yuva444p10le"), ("film.mov", "qtrle", "argb"), ("film.apng", "apng", "rgba"),
])  # fmt: skip
def test_alpha_is_given(tmp_path: Path, name: str, codec: str, pixel_format: str) -> None:
    options = {**VP9, "auto-alt-ref": "0"} if name.endswith("webm") else {}
    facts = film(tmp_path, name, codec=codec, pixel_format=pixel_format, options=options, frames=10)
    found = list(frames(facts))
    assert numbers(found) == list(range(10))
    expected = np.linspace(1, 0, 128)
    for frame in found:
        assert frame.alpha is not None
        assert np.abs(frame.alpha / facts.coding.top - expected).max() < 0.05


def test_interlaced_film_needs_deinterlacing(tmp_path: Path) -> None:
    facts = film(tmp_path, "b.mp4", interlaced=True)
    with pytest.raises(InputError, match="interlaced"):
        frames(facts)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("film.mp4", "libx264", B_FRAMES), ("film.ts", "mpeg2video", {"bf": "2"}), ("film.mkv", "ffv1", {})],
)
def test_deinterlaced_frames_keep_number_and_time(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    facts = film(tmp_path, name, codec=codec, options=options, interlaced=True)
    found = [(frame.time, frame.digest()) for frame in frames(facts, deinterlace=True)]
    assert numbers(list(frames(facts, deinterlace=True))) == list(range(30))
    assert tuple(time for time, _ in found) == facts.times
    for number in (0, 11, 12, 20):
        rest = frames(facts, deinterlace=True, after=found[number])
        assert [(frame.time, frame.digest()) for frame in rest] == found[number + 1 :]


def test_deinterlacing_changes_the_fields(tmp_path: Path) -> None:
    """A picture that grows brighter from field to field becomes frames without stripes."""
    rows = np.arange(64)[:, None] % 2
    pictures = [np.broadcast_to(40 * number + 20 * rows, (64, 64)).astype(np.uint8) for number in range(6)]
    h264_fields.write(tmp_path / "film.mp4", pictures, together=True)
    found = list(frames(probe(tmp_path / "film.mp4"), deinterlace=True))
    assert len(found) == 6
    assert np.abs(np.diff(found[3].planes[0].astype(int), axis=0)).max() < 4


def test_progressive_film_is_not_changed_by_deinterlacing(tmp_path: Path) -> None:
    facts = film(tmp_path, "b.mp4")
    plain = [frame.digest() for frame in frames(facts)]
    assert [frame.digest() for frame in frames(facts, deinterlace=True)] == plain


def test_interlaced_frames_that_were_not_foreseen_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    facts = replace(film(tmp_path, "b.mp4", interlaced=True), interlaced=False, flagged=False)
    assert len(list(frames(facts))) == 30
    assert len(caplog.records) == 1


def test_joined_recordings_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.ts", Scene(audio=()))
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() * 2)
    with pytest.raises(InputError, match="anew at frame 24"):
        probe(tmp_path / "both.ts")


def test_film_that_changes_its_size_is_refused(tmp_path: Path) -> None:
    for name, width in (("a.ts", 96), ("b.ts", 128)):
        write(tmp_path / name, Scene(width=width, audio=(), start=Fraction(width)))
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    facts = probe(tmp_path / "both.ts")
    with pytest.raises(InputError, match="changes"):
        list(frames(facts))


@pytest.mark.parametrize("threads", [1, 3])
def test_thread_count_changes_nothing(tmp_path: Path, threads: int) -> None:
    facts = film(tmp_path, "b.mp4")
    assert [f.digest() for f in frames(facts, threads=threads)] == [f.digest() for f in frames(facts)]


def test_frames_are_decoded_as_they_are_asked_for(tmp_path: Path) -> None:
    """A film that is left early, or whose frames are all kept, costs no more than those."""
    facts = film(tmp_path, "ffv1.mkv", width=640, height=480, frames=200, options=X264, codec="libx264")
    found = frames(facts)
    first = next(found)
    found.close()  # type: ignore[attr-defined]
    gc.collect()
    assert read_number(first.planes) == 0
    assert not first.planes[0].flags.writeable


@pytest.mark.parametrize("name", ["b.mp4", "open.mkv", "open.mov"])
def test_samples_are_key_frames_near_their_places(tmp_path: Path, name: str) -> None:
    places = (0, 29, 59)
    found = list(samples(film(tmp_path, name, frames=60), places))
    assert [frame.number for frame in found] == [read_number(frame.planes) for frame in found]
    assert max(abs(frame.number - place) for frame, place in zip(found, places, strict=True)) < 20


def test_samples_of_films_without_seeking_are_their_first_frame(tmp_path: Path) -> None:
    assert numbers(list(samples(film(tmp_path, "b.h264"), [0, 20]))) == [0, 0]


def test_samples_of_an_animation_are_the_frames_themselves(tmp_path: Path) -> None:
    assert numbers(list(samples(film(tmp_path, "x.gif"), [0, 20]))) == [0, 20]
