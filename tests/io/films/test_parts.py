"""Frames of a part of a film are those that a reading of all of it tells."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from scenes import B_FRAMES, OPEN_GOP, Scene, write

from srcli.io.films import facts, parts
from srcli.io.films.facts import probe
from srcli.io.films.parts import Part, UnknownError
from srcli.io.films.reader import frames, number_at, samples

X265 = {"preset": "ultrafast", "x265-params": "log-level=none:bframes=3:keyint=12:open-gop=1"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "12"}
FILMS = {
    "b.mp4": ("libx264", B_FRAMES), "open.mp4": ("libx264", OPEN_GOP), "open.mkv": ("libx264", OPEN_GOP),
    "open.mov": ("libx265", X265), "x265.mkv": ("libx265", X265), "vp9.webm": ("libvpx-vp9", VP9),
    "vp8.webm": ("libvpx", VP9), "prores.mov": ("prores_ks", {}),
}  # fmt: skip
NTSC = Fraction(24000, 1001)


def film(path: Path, **more: Any) -> Path:
    codec, options = FILMS.get(path.name, ("libx264", B_FRAMES))
    pixels = "yuv422p10le" if codec == "prores_ks" else "yuv420p"
    given = {"codec": codec, "options": options, "pixel_format": pixels, "frames": 240, "rate": NTSC}
    write(path, Scene(**{"audio": (), "width": 64, "height": 48, **given, **more}))
    return path


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize(("start", "end"), [(0, 1), (2, 3), (5, 7.5), (9, None)])
def test_a_part_has_the_frames_of_the_whole(
    tmp_path: Path, name: str, start: float, end: float | None
) -> None:
    path = film(tmp_path / name)
    begin, until = Fraction(start), None if end is None else Fraction(end)
    whole, part = probe(path), probe(path, Part(begin, until))
    first, last = number_at(whole, begin), number_at(whole, until)
    assert (number_at(part, begin), number_at(part, until)) == (first, last)
    around = slice(max(0, first - 1), last + 1)
    assert part.times[around] == whole.times[around]
    assert (part.times[0], part.rate, part.end if end is None else 0) == (
        whole.times[0], whole.rate, whole.end if end is None else 0
    )  # fmt: skip
    for field in ("coding", "pixel_format", "time_base", "sample_aspect", "interlaced", "cut", "size"):
        assert getattr(part, field) == getattr(whole, field)
    ours, theirs = (
        [(one.number, one.digest()) for one in frames(of, start=begin, end=until)] for of in (part, whole)
    )
    assert ours == theirs


@pytest.mark.parametrize("name", ["b.mp4", "open.mkv"])
def test_a_variable_rate_has_no_frames_between(tmp_path: Path, name: str) -> None:
    times = [7 * number + (number * number) % 5 for number in range(240)]
    path = film(tmp_path / name, times=times, time_base=Fraction(1, 200))
    whole, part = probe(path), probe(path, Part(Fraction(4), Fraction(5)))
    assert (part.rate, whole.rate) == (None, None)
    assert len(part.times) < 120
    assert set(part.times) < set(whole.times)
    kept = [time for time in whole.times if 4 <= (time - whole.times[0]) * whole.time_base < 5]
    found = list(frames(part, start=Fraction(4), end=Fraction(5)))
    assert [one.time for one in found] == kept
    digests = [one.digest() for one in frames(whole, start=Fraction(4), end=Fraction(5))]
    assert [one.digest() for one in found] == digests


@pytest.mark.parametrize("name", ["b.mp4", "open.mkv", "vp9.webm"])
def test_a_few_places_are_spread_over_the_film(tmp_path: Path, name: str) -> None:
    path = film(tmp_path / name, frames=960)
    found = probe(path, Part(Fraction(0), None, places=2))
    assert found.estimate == pytest.approx(960, abs=2)
    assert found.rate == NTSC
    assert len(found.times) < 400
    assert found.times[-1] > 0.8 * float(960 / NTSC / found.time_base)
    numbers = [len(found.times) * part // 8 for part in (1, 3, 5, 7)]
    seen = [one.number for one in samples(found, numbers)]
    assert len(set(seen)) == 4


def test_little_is_read_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = film(tmp_path / "b.mp4", frames=960), []
    real = parts._read

    def read(*given: Any) -> Any:
        seen.append(len(found := real(*given)))
        return found

    monkeypatch.setattr(parts, "_read", read)
    probe(path, Part(Fraction(20), Fraction(21)))
    assert len(seen) == 1
    assert 24 <= seen[0] < 96


@pytest.mark.parametrize("name", ["b.avi", "open.ts"])
def test_other_containers_are_read_whole(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / name)
    assert probe(path, Part(Fraction(2), Fraction(3))) == probe(path)

    def unknown(*_: Any) -> Any:
        raise UnknownError

    monkeypatch.setattr(facts, "known", unknown)
    path = film(tmp_path / "b.mp4")
    assert probe(path, Part(Fraction(2), Fraction(3))) == probe(path)
