"""Contact sheets: which frames and parts they show, on which side, and what they leave alone."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scenes
from folder_doubles import TWICE, Double

from srcli.imaging.pixels import Pixels, as_rgb8
from srcli.imaging.resize import imresize
from srcli.io import pictures
from srcli.io.films.facts import probe
from srcli.jobs import film_preview
from srcli.jobs.film_plan import decoded, to_rgb
from srcli.jobs.film_preview import preview, sheet_of
from srcli.jobs.outputs import Job
from srcli.jobs.report import PictureResult, Status
from srcli.settings import FilmSettings, Settings

STRIP, GAP = film_preview._STRIP, film_preview._GAP
FOUR = replace(TWICE, provenance=True, film=FilmSettings(preview=4))


class Counting(Double):
    """Remembers the sizes of what it enlarges."""

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def enlarge(self, image: Pixels, on_tile: object) -> Pixels:
        self.sizes.append(image.shape)
        return np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def sheet(
    settings: Settings = FOUR,
    scene: scenes.Scene | None = None,
    name: str = "film.mkv",
    *,
    stop: bool = False,
) -> tuple[PictureResult, Counting]:
    scenes.write(Path(name), scene or scenes.Scene(frames=40))
    one, counting = Job(Path(name), Path("out", name), film=True), Counting()
    return preview(one, sheet_of(one.target), counting, settings, lambda: stop), counting


def cells(result: PictureResult, height: int, width: int) -> list[tuple[Pixels, Pixels]]:
    """Left and right of each row."""
    assert result.output is not None
    made = pictures.read(result.output).pixels
    rows = made.reshape(-1, STRIP + height + GAP, *made.shape[1:])[:, STRIP : STRIP + height]
    return [(row[:, :width], row[:, width + GAP :]) for row in rows]


def test_frames_spread_over_the_film_bicubic_left_network_right() -> None:
    result, _ = sheet()
    assert (result.status, result.output) == (Status.WRITTEN, Path("out/film.preview.png"))
    pairs = cells(result, 192, 256)
    assert [scenes.read_number(left) for left, _ in pairs] == [5, 15, 25, 35]
    assert [scenes.read_number(right) for _, right in pairs] == [5, 15, 25, 35]
    facts = probe(Path("film.mkv"))
    frames = [to_rgb(frame, facts)[0] for frame in decoded(facts, None, FOUR)]
    for number, (left, right) in zip((5, 15, 25, 35), pairs, strict=True):
        assert np.array_equal(left, as_rgb8(imresize(frames[number], (192, 256))))
        assert np.array_equal(right, as_rgb8(np.repeat(np.repeat(frames[number], 2, 0), 2, 1)))
    assert [path.name for path in Path("out").iterdir()] == ["film.preview.png"]


def test_only_the_middle_goes_through_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(film_preview, "_CELL", (60, 80))
    monkeypatch.setattr(film_preview, "_MARGIN", 8)
    result, counting = sheet()
    assert set(counting.sizes) == {(30 + 16, 40 + 16, 3)}
    facts = probe(Path("film.mkv"))
    frames = [to_rgb(frame, facts)[0] for frame in decoded(facts, None, FOUR)]
    whole = as_rgb8(imresize(frames[5], (192, 256)))
    assert np.array_equal(cells(result, 60, 80)[0][0], whole[66:126, 88:168])


def test_a_part_of_the_film_alone_is_shown() -> None:
    part = FilmSettings(preview=2, start=Fraction("0.4"), end=Fraction("0.8"))
    result, _ = sheet(replace(FOUR, film=part))
    assert [scenes.read_number(left) for left, _ in cells(result, 192, 256)] == [12, 17]


@pytest.mark.parametrize("frames", [1, 3])
def test_a_short_film_shows_every_frame_once(frames: int) -> None:
    result, _ = sheet(scene=scenes.Scene(frames=frames))
    assert [scenes.read_number(left) for left, _ in cells(result, 192, 256)] == list(range(frames))


@pytest.mark.parametrize(
    ("rotation", "hflip"), [(90, False), (180, False), (270, False), (0, True), (90, True)]
)
def test_parts_are_shown_as_the_film_is(rotation: int, hflip: bool) -> None:
    settings = replace(FOUR, film=FilmSettings(preview=1, codec="h264"))
    result, _ = sheet(settings, scenes.Scene(frames=3, rotation=rotation, hflip=hflip), "film.mp4")
    height, width = (256, 192) if rotation in (90, 270) else (192, 256)
    left, _ = cells(result, height, width)[0]
    turned = left[:, ::-1] if hflip else left  # FFmpeg turns counter-clockwise, then mirrors
    assert scenes.read_number(np.rot90(turned, -rotation // 90)) == 1


def test_a_sheet_is_replaced_and_other_files_are_left_alone() -> None:
    first, _ = sheet()
    second, _ = sheet(replace(FOUR, film=FilmSettings(preview=2)))
    assert (first.status, second.status) == (Status.WRITTEN, Status.WRITTEN)
    place = Path("out/film.preview.png")
    pictures.write(place, pictures.Picture(np.zeros((4, 4, 3), np.uint8)))
    before = place.read_bytes()
    assert sheet()[0].status is Status.KEPT
    assert place.read_bytes() == before
    assert sheet(replace(FOUR, overwrite=True))[0].status is Status.WRITTEN


def test_a_film_that_cannot_be_read_fails_and_an_interrupt_makes_nothing() -> None:
    result, _ = sheet(scene=scenes.Scene(codec=None, frames=25))
    assert result.status is Status.FAILED
    assert "film.mkv" in result.error
    assert sheet(stop=True)[0].status is Status.PENDING
    assert not Path("out").exists()
