"""The fast networks are compared on films of the codecs and qualities that the table names."""

import json
import sys
from argparse import Namespace
from pathlib import Path

import av
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import clips
import film_choice
import pictures

CODECS = {"libx264": "h264", "libx265": "hevc", "libsvtav1": "av1"}
TINY = ["--frames", "3", "--size", "64", "96"]


def photographs(folder: Path, *sizes: tuple[int, int]) -> Path:
    for number, size in enumerate(sizes):
        pictures.save(pictures.photograph(*size, number), folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("encoder", film_choice.ENCODERS.values())
def test_each_codec_keeps_order_and_colour(tmp_path: Path, encoder: str) -> None:
    colours = ((200, 60, 40), (40, 180, 80), (30, 70, 210))
    frames = [np.full((64, 96, 3), colour, np.uint8) for colour in colours]
    clips.write(path := tmp_path / "film.mkv", frames, crf=10, rate=25, encoder=encoder)
    with av.open(str(path)) as film:
        assert film.streams.video[0].codec.canonical_name == CODECS[encoder]
        assert film.streams.video[0].average_rate == 25
    assert 0 < clips.bits(path) < 8 * path.stat().st_size
    for number, colour in enumerate(colours):
        found = film_choice._frame(path, number)
        assert (found.shape, found.dtype) == ((64, 96, 3), np.uint16)
        assert np.abs(found.mean((0, 1)) / 257 - colour).max() < 4


def test_better_quality_costs_bits_and_gains_decibels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_choice, "QUALITIES", {"H.264": (10, 45)})
    (tmp_path / "hr").mkdir()
    folder, out = photographs(tmp_path / "hr", (64, 102), (80, 120)), tmp_path / "choice.json"
    film_choice.main([str(folder), "--codecs", "H.264", *TINY, "--out", str(out)])
    section = json.loads(out.read_text())["film-choice"]
    films, rows = section["measurements"]["films"], section["tables"][0]["rows"]
    assert [(film["codec"], film["crf"]) for film in films] == [("H.264", 10), ("H.264", 45)] * 2
    assert [row[:2] for row in rows] == [["H.264", "10"], ["H.264", "45"]]
    for good, bad in (films[:2], films[2:]):
        assert good["bits"] > bad["bits"] + 0.3  # both hold what x264 writes of its settings
        assert good["fast"] > bad["fast"] + 1
        assert good["photo"] > bad["photo"] + 1
    for row, group in zip(rows, (films[::2], films[1::2]), strict=True):
        fast, photo = (sum(film[name] for film in group) / 2 for name in ("fast", "photo"))
        assert row[3:6] == [f"{fast:.2f}", f"{photo:.2f}", f"{photo - fast:+.2f}"]
        assert row[6] == f"{sum(film['photo'] > film['fast'] for film in group)} of 2"


def test_photographs_smaller_than_the_pan_are_refused(tmp_path: Path) -> None:
    folder = photographs(tmp_path, (64, 101))
    with pytest.raises(SystemExit, match="102×64"):
        film_choice.main([str(folder), *TINY, "--out", str(tmp_path / "choice.json")])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_frames_move_on_and_have_even_lr(tmp_path: Path, scale: int) -> None:
    options = Namespace(size=(64, 96), frames=3, scale=scale)
    path = next(photographs(tmp_path, (64, 102)).iterdir())
    first, second, third = film_choice._pan(path, options)
    assert first.shape[0] % (2 * scale) == first.shape[1] % (2 * scale) == 0
    np.testing.assert_array_equal(first[:, 3:], second[:, :-3])
    np.testing.assert_array_equal(first[:, 6:], third[:, :-6])
