"""Animated pictures: GIF, APNG and WebP in and out, and to and from films."""

from dataclasses import replace
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import scenes
from folder_doubles import TWICE, Watcher, double
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageSequence

from srcli.errors import UsageError
from srcli.io import pictures
from srcli.io.films import animation, reader, streams
from srcli.io.films.facts import probe
from srcli.jobs import film_plan
from srcli.jobs.film import FilmRun
from srcli.jobs.film_plan import foresee
from srcli.jobs.outputs import Job
from srcli.jobs.plan import plan
from srcli.jobs.report import PictureResult, Status
from srcli.settings import FilmSettings, Settings

SUFFIXES = (".gif", ".apng", ".webp")
DURATIONS = (50, 40, 60, 110, 40, 70)
"""Milliseconds of each frame."""
STARTS = [0, *accumulate(DURATIONS)]
RECORDED = replace(TWICE, provenance=True)


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(film_plan, "SEGMENT", 2)
    monkeypatch.chdir(tmp_path)


def drawn(*, clear: bool = True, count: int = len(DURATIONS)) -> list[NDArray[np.uint8]]:
    """Frames of a few colours, RGBA: a square that moves, over a hole if `clear`."""
    made = []
    for number in range(count):
        frame = np.full((24, 32, 4), (20, 90, 200, 255), np.uint8)
        frame[4:10, 3 + 4 * number : 9 + 4 * number] = (250, 40 * number, 10, 255)
        if clear:
            frame[14:20, 8:20] = (0, 0, 0, 0)
        made.append(frame)
    return made


def write(path: Path, frames: list[NDArray[np.uint8]], *, plays: int = 3, **more: Any) -> Path:
    """An animated picture with `DURATIONS`, shown `plays` times; 0: without end."""
    if path.suffix == ".gif" and plays != 1:
        more["loop"] = max(0, plays - 1)
    elif path.suffix != ".gif":
        more["loop"] = plays
    if path.suffix == ".webp":
        more.setdefault("lossless", True)
    if path.suffix == ".gif":
        more["disposal"] = 2
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(
        path, format={".apng": "PNG"}.get(path.suffix), save_all=True, append_images=rest,
        duration=list(DURATIONS[: len(frames)]), **more,
    )  # fmt: skip
    return path


def read(path: Path) -> list[NDArray[np.uint8]]:
    with Image.open(path) as image:
        return [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(image)]


def milliseconds(path: Path) -> list[int]:
    """When each frame begins, counted from the first, and when the last ends."""
    facts = probe(path)
    ticks = [*facts.times, facts.end]
    return [round((tick - ticks[0]) * facts.time_base * 1000) for tick in ticks]


def twice(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return frame.repeat(2, 0).repeat(2, 1)


def run(source: Path, target: str, settings: Settings = RECORDED) -> PictureResult:
    return FilmRun(Job(source, Path(target), film=True), (double,), settings, Watcher()).run()


def visible(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour under alpha 0 does not count."""
    return np.where(frame[..., 3:] == 0, 0, frame).astype(np.uint8)


@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("source", SUFFIXES)
def test_frames_times_alpha_and_plays_stay(source: str, target: str) -> None:
    given = write(Path(f"a{source}"), drawn())
    result = run(given, f"out/a{target}")
    assert (result.status, result.error) == (Status.WRITTEN, "")
    out = Path(f"out/a{target}")
    assert milliseconds(out) == STARTS
    assert animation.plays(out) == 3
    for got, frame in zip(read(out), drawn(), strict=True):
        np.testing.assert_array_equal(visible(got), visible(twice(frame)))


@pytest.mark.parametrize("plays", [0, 1, 2])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_number_of_plays_is_kept(suffix: str, plays: int) -> None:
    given = write(Path(f"a{suffix}"), drawn(), plays=plays)
    assert animation.plays(given) == plays
    run(given, f"out/a{suffix}")
    assert animation.plays(Path(f"out/a{suffix}")) == plays


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_opaque_animation_has_no_alpha(suffix: str) -> None:
    given = write(Path(f"a{suffix}"), drawn(clear=False))
    assert not probe(given).alpha
    run(given, f"out/a{suffix}")
    assert not probe(Path(f"out/a{suffix}")).alpha
    np.testing.assert_array_equal(read(Path(f"out/a{suffix}"))[5], twice(drawn(clear=False)[5]))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_animation_becomes_a_film_and_back(suffix: str) -> None:
    given = write(Path(f"a{suffix}"), drawn())
    assert run(given, "film.mkv", replace(TWICE, film=FilmSettings(lossless=True))).error == ""
    assert milliseconds(Path("film.mkv"))[:-1] == STARTS[:-1]
    assert probe(Path("film.mkv")).alpha
    assert run(Path("film.mkv"), f"back{suffix}").error == ""
    assert milliseconds(Path(f"back{suffix}"))[:-1] == STARTS[:-1]
    for got, frame in zip(read(Path(f"back{suffix}")), drawn(), strict=True):
        np.testing.assert_array_equal(visible(got), visible(twice(twice(frame))))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_film_becomes_an_animation(suffix: str) -> None:
    """24000/1001 frames a second: times are rounded one by one, so that nothing drifts."""
    rate = Fraction(24000, 1001)
    scenes.write(Path("film.mkv"), scenes.Scene(frames=20, rate=rate, audio=(scenes.Audio(),)))
    result = run(Path("film.mkv"), f"film{suffix}")
    assert result.error == ""
    wanted = [1000 * number / rate for number in range(20)]
    found = milliseconds(Path(f"film{suffix}"))[:-1]
    assert max(abs(one - other) for one, other in zip(found, wanted, strict=True)) <= (
        5 if suffix == ".gif" else 1
    )
    assert [scenes.read_number(frame) for frame in read(Path(f"film{suffix}"))] == list(range(20))
    assert animation.plays(Path(f"film{suffix}")) == 0
    assert result.film is not None
    assert any("audio" in stream for stream in result.film.dropped)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_turned_film_becomes_an_upright_animation(suffix: str) -> None:
    scene = scenes.Scene(frames=3, width=64, height=48, rotation=90)
    scenes.write(Path("film.mp4"), scene)
    assert run(Path("film.mp4"), f"film{suffix}").error == ""
    coded = reader.frames(probe(Path("film.mp4")))
    luma = next(coded).planes[0].astype(int)
    got = read(Path(f"film{suffix}"))[0]
    assert got.shape[:2] == (128, 96)
    shown_as = np.rot90(luma).repeat(2, 0).repeat(2, 1)
    assert np.corrcoef(got[..., 1].ravel(), shown_as.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_continued_animation_has_the_same_bytes(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = write(Path(f"a{suffix}"), drawn())
    run(given, f"whole/a{suffix}")
    left = iter(range(3))

    class Failing:
        def __getattr__(self, name: str) -> Any:
            return getattr(double, name)

        def stream(self, images: Any, on_tile: Any) -> Any:
            for result in double.stream(images, on_tile):
                next(left)  # raises after three frames
                yield result

    one = Job(given, Path(f"out/a{suffix}"), film=True)
    assert FilmRun(one, (Failing(),), RECORDED, Watcher()).run().status is Status.FAILED  # type: ignore[arg-type]
    assert not one.target.exists()
    assert run(given, f"out/a{suffix}").status is Status.WRITTEN
    assert one.target.read_bytes() == Path(f"whole/a{suffix}").read_bytes()


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".png"])
def test_an_animation_says_what_made_it(suffix: str) -> None:
    given = write(Path("a.gif"), drawn())
    run(given, f"out/a{suffix}")
    record = streams.record_of(Path(f"out/a{suffix}"))
    assert record is not None
    assert record.input_size == given.stat().st_size
    assert run(given, f"out/a{suffix}").status is Status.SKIPPED
    other = replace(RECORDED, ensemble=True)
    assert run(given, f"out/a{suffix}", other).status is Status.FAILED
    assert run(given, f"no/a{suffix}", TWICE).status is Status.WRITTEN
    assert streams.record_of(Path(f"no/a{suffix}")) is None


@pytest.mark.parametrize("target", [".apng", ".webp"])
@pytest.mark.parametrize("source", [".apng", ".webp"])
def test_profile_and_xmp_of_an_animation_are_kept(source: str, target: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'
    more: dict[str, Any] = {"icc_profile": profile}
    if source == ".webp":
        more["xmp"] = packet
    given = write(Path(f"a{source}"), drawn(), **more)
    run(given, f"out/a{target}")
    kept = pictures.metadata_of(Path(f"out/a{target}"))
    assert kept.icc == profile
    assert kept.xmp is not None
    assert b"urn:srcli:provenance" in kept.xmp
    for got, frame in zip(read(Path(f"out/a{target}")), drawn(), strict=True):
        np.testing.assert_array_equal(visible(got), visible(twice(frame)))


def test_equal_frames_of_a_webp_may_become_one() -> None:
    frames = drawn(clear=False)
    scene = [frames[0], frames[0], frames[1], frames[1], frames[1], frames[2]]
    made = write(Path("a.gif"), frames)
    with Image.open(made) as image:
        assert image.n_frames == 6
    held = write(Path("held.apng"), frames)
    run(held, "held.mkv", replace(TWICE, film=FilmSettings(lossless=True)))
    assert run(write(Path("b.apng"), scene), "b.webp").error == ""
    assert milliseconds(Path("b.webp"))[-1] == STARTS[-1]


def test_a_lossy_webp_stays_lossy_and_a_quality_makes_one() -> None:
    rng = np.random.default_rng(0)
    frames = [
        rng.integers(0, 256, (24, 32, 4), dtype=np.uint8) | np.uint8(255) * (np.arange(4) == 3)
        for _ in range(3)
    ]
    lossy = write(Path("lossy.webp"), frames, lossless=False, quality=80)
    run(lossy, "out/lossy.webp")
    assert not pictures.probe(Path("out/lossy.webp")).lossless
    whole = write(Path("whole.webp"), frames)
    run(whole, "out/whole.webp")
    assert pictures.probe(Path("out/whole.webp")).lossless
    run(whole, "out/small.webp", replace(TWICE, quality=50))
    assert Path("out/small.webp").stat().st_size < Path("out/whole.webp").stat().st_size


@pytest.mark.parametrize(
    ("target", "given", "words"),
    [
        ("a.gif", {"codec": "h264"}, "--codec"),
        ("a.webp", {"crf": 20}, "--quality"),
        ("a.apng", {"preset": "fast"}, "--preset"),
        ("a.gif", {"lossless": True}, "256 colours"),
    ],
)
def test_options_that_an_animation_has_not_are_refused(
    target: str, given: dict[str, Any], words: str
) -> None:
    facts = probe(write(Path("given.gif"), drawn()))
    with pytest.raises(UsageError) as caught:
        animation.choose(facts, (48, 64), Path(target), **given)
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_what_an_animation_cannot_hold_is_refused() -> None:
    facts = probe(write(Path("given.gif"), drawn()))
    fast = replace(facts, codec="h264", times=tuple(range(6)), last_duration=1)
    with pytest.raises(UsageError, match="50 frames a second"):
        animation.choose(fast, (48, 64), Path("a.gif"))
    animation.choose(fast, (48, 64), Path("a.webp"))
    with pytest.raises(UsageError, match="HDR"):
        animation.choose(replace(facts, transfer=16), (48, 64), Path("a.webp"))
    with pytest.raises(UsageError, match="16383"):
        animation.choose(facts, (48, 16384), Path("a.webp"))
    animation.choose(facts, (48, 16384), Path("a.apng"))


def test_frames_that_decide_are_spread_over_an_animation() -> None:
    facts = probe(write(Path("a.gif"), drawn()))
    assert [frame.number for frame in reader.samples(facts, [0, 2, 5])] == [0, 2, 5]


def test_a_still_picture_before_an_apng_is_no_frame() -> None:
    given = write(Path("a.apng"), drawn(), default_image=True)
    assert probe(given).times == probe(write(Path("b.apng"), drawn()[1:])).times
    np.testing.assert_array_equal(next(reader.frames(probe(given))).planes[2], drawn()[1][..., 0])


def test_a_frame_of_no_duration_is_shown_as_players_show_it() -> None:
    frames = drawn(count=2)
    for suffix in SUFFIXES:
        first, second = (Image.fromarray(frame) for frame in frames)
        first.save(
            f"a{suffix}",
            format={".apng": "PNG"}.get(suffix),
            save_all=True,
            append_images=[second],
            duration=0,
        )
        assert milliseconds(Path(f"a{suffix}")) == [0, 100, 200]


def test_the_stand_in_of_a_webp_follows_the_file() -> None:
    path = write(Path("a.webp"), drawn())
    assert len(probe(path).times) == 6
    write(path, drawn(count=3))
    assert len(probe(path).times) == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("start", "end"), [(None, 170), (60, 200), (100, 1000)])
def test_part_of_an_animation(suffix: str, start: int | None, end: int) -> None:
    """The last frame is shown until the end that was asked for, or as long as before."""
    given = write(Path(f"a{suffix}"), drawn())
    part = FilmSettings(start=None if start is None else Fraction(start, 1000), end=Fraction(end, 1000))
    assert run(given, f"out/a{suffix}", replace(RECORDED, film=part)).error == ""
    kept = [time for time in STARTS[:-1] if (start or 0) <= time < end]
    until = min(end, STARTS[STARTS.index(kept[-1]) + 1])
    assert milliseconds(Path(f"out/a{suffix}")) == [time - kept[0] for time in [*kept, until]]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_transparency_is_laid_over_white_in_a_film_without_alpha(suffix: str) -> None:
    given = write(Path(f"a{suffix}"), drawn())
    result = run(given, "out/a.mp4", replace(RECORDED, film=FilmSettings(crf=1)))
    assert any("over white" in note for note in result.notes)
    facts = probe(Path("out/a.mp4"))
    frame = film_plan.to_rgb(next(reader.frames(facts)), facts)[0] >> 8
    assert frame[32:36, 20:36].min() > 245
    assert abs(frame[44, 60].astype(int) - (20, 90, 200)).max() < 12


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_the_last_frame_of_a_film_is_shown_as_long_as_that_of_the_animation(name: str) -> None:
    given = write(Path("a.apng"), drawn(clear=False))
    assert run(given, name, replace(RECORDED, film=FilmSettings(codec="h264"))).error == ""
    with av.open(name) as film:
        stream = film.streams.video[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        assert round(stream.duration * stream.time_base * 1000) == STARTS[-1]


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.97])
def test_a_cut_gif_is_an_error(cut: float) -> None:
    whole = write(Path("a.gif"), drawn()).read_bytes()
    Path("cut.gif").write_bytes(whole[: int(cut * len(whole))])
    result = run(Path("cut.gif"), "out/cut.gif")
    assert result.status is Status.FAILED
    assert "cut" in result.error


def test_a_gif_without_its_end_is_read_with_a_note() -> None:
    whole = write(Path("a.gif"), drawn()).read_bytes()
    Path("open.gif").write_bytes(whole[:-1])
    result = run(Path("open.gif"), "out/open.gif")
    assert result.status is Status.WRITTEN
    assert any("end is missing" in note for note in result.notes)
    assert len(read(Path("out/open.gif"))) == 6


def test_the_comment_of_a_gif_stays() -> None:
    given = write(Path("a.gif"), drawn(), comment=b"by hand")
    run(given, "out/a.gif")
    assert b"by hand" in Path("out/a.gif").read_bytes()
    assert streams.record_of(Path("out/a.gif")) is not None
    run(Path("out/a.gif"), "again/a.gif")
    assert Path("again/a.gif").read_bytes().count(b"model_sha256") == 1


def test_an_animation_without_a_suffix_is_told_by_its_content() -> None:
    write(Path("a.gif"), drawn()).rename("stdin")
    assert jobs("stdin") == [("out/stdin.gif", True)]
    assert jobs("stdin", out="b.webp") == [("b.webp", True)]


def test_a_gif_of_very_short_frames_stays_one() -> None:
    first, *rest = [Image.fromarray(frame) for frame in drawn()]
    first.save("a.gif", save_all=True, append_images=rest, duration=10)
    assert run(Path("a.gif"), "out/a.gif").error == ""


def test_a_damaged_webp_is_an_error_in_words() -> None:
    given = write(Path("a.webp"), drawn())
    given.write_bytes(given.read_bytes()[:200])
    result = run(given, "out/a.webp")
    assert result.status is Status.FAILED
    assert "a.webp" in result.error
    assert not Path("out/a.webp").exists()


def test_a_quality_that_a_format_has_not_is_said() -> None:
    facts = probe(write(Path("a.gif"), drawn()))
    for suffix, said in ((".gif", True), (".apng", True), (".webp", False)):
        notes = animation.choose(facts, (48, 64), Path(f"b{suffix}"), quality=50).notes
        assert any("--quality" in note for note in notes) == said


def test_dry_run_tells_of_an_animation() -> None:
    given = write(Path("a.gif"), drawn())
    result = foresee(Job(given, Path("out/a.gif"), film=True), double, RECORDED)
    assert result.status is Status.PLANNED
    assert any("6 frames" in note for note in result.notes)
    assert any("written as GIF" in note for note in result.notes)


def jobs(*given: str, out: str = "out", **more: Any) -> list[tuple[str, bool]]:
    return [(job.target.as_posix(), job.film) for job in plan(given, Path(out), **more).jobs]


def test_animated_pictures_stay_what_they_are_and_stills_too() -> None:
    Path("in").mkdir()
    for suffix in SUFFIXES:
        write(Path(f"in/moving{suffix}"), drawn())
        write(Path(f"in/still{suffix}"), drawn(count=1))
    write(Path("moving.apng"), drawn()).rename("in/moving.png")
    assert sorted(jobs("in")) == [
        ("out/moving.apng", True),
        ("out/moving.gif", True),
        ("out/moving.png", True),
        ("out/moving.webp", True),
        ("out/still-apng.png", False),
        ("out/still-gif.png", False),
        ("out/still.webp", False),
    ]


@pytest.mark.parametrize(
    ("asked", "made", "film"),
    [
        ({}, "out/a.gif", True),
        ({"format": "png"}, "out/a.png", True),
        ({"format": "webp"}, "out/a.webp", True),
        ({"format": "jpeg"}, "out/a.jpg", False),
        ({"container": "mp4"}, "out/a.mp4", True),
        ({"container": "apng"}, "out/a.apng", True),
    ],
)
def test_format_and_container_of_an_animation(asked: dict[str, str], made: str, film: bool) -> None:
    write(Path("a.gif"), drawn())
    assert jobs("a.gif", **asked) == [(made, film)]


@pytest.mark.parametrize(
    ("name", "film"),
    [("b.gif", True), ("b.apng", True), ("b.png", True), ("b.webp", True), ("b.mp4", True), ("b.jpg", False)],
)
def test_an_output_name_says_what_becomes_of_an_animation(name: str, film: bool) -> None:
    write(Path("a.gif"), drawn())
    assert jobs("a.gif", out=name) == [(name, film)]


def test_a_still_picture_gets_no_film_name() -> None:
    write(Path("a.apng"), drawn(count=1)).rename("a.png")
    assert jobs("a.png", out="b.webp") == [("b.webp", False)]
    with pytest.raises(UsageError, match="picture"):
        plan(["a.png"], Path("b.gif"))
