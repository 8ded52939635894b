"""The benchmark of films still runs, on tiny films and a tiny network, and its figures mean what they say."""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tiny_exported import exported

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import clips  # noqa: E402
import films  # noqa: E402
import kills  # noqa: E402
import usual  # noqa: E402

SMALL = [
    *("--size", "48", "64", "--frames", "2", "--rounds", "1", "--long", "9"),
    *("--still-size", "48", "64", "--still-frames", "6", "--still-tile", "48"),
    *("--usual-size", "48", "64", "--usual-frames", "2"),
]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny MDSR with random weights, exported for x2."""
    return exported(tmp_path_factory.mktemp("network"), "mdsr", 2)


def measured(out: Path, network: Path, only: str, *more: str) -> Any:
    models = ["--models", str(network), "--still-model", str(network)]
    films.main(["--only", only, *SMALL, *models, "--out", str(out / "films.json"), *more])
    sections = json.loads((out / "films.json").read_text())
    return next(section["measurements"] for name, section in sections.items() if name.startswith(only))


def test_the_command_is_compared_with_the_network(tmp_path: Path, network: Path) -> None:
    found = measured(tmp_path, network, "pipeline")[str(network)]
    assert {name: len(seconds) for name, seconds in found["seconds"].items()} == {"command": 1, "network": 1}
    calls = {name: stage["calls"] for name, stage in found["stages"].items()}
    assert (calls["network"], calls["encode"], calls["join"], calls["read again"]) == (2, 2, 1, 1)


def test_memory_and_start_are_of_processes_of_their_own(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(films, "MARKS", (4,))
    monkeypatch.setattr(films, "BEGIN", 1)
    monkeypatch.setattr(films, "MINUTES", 1)
    sizes = measured(tmp_path, network, "memory")["bytes"]
    assert all(set(one) == {"4", "9"} and min(one.values()) > 2e7 for one in sizes.values())
    starts = measured(tmp_path, network, "start", "--size", "32", "32")["seconds"]
    assert all(0.1 < seconds[0] < 60 for seconds in starts.values())


def test_killed_films_are_finished_and_compared(tmp_path: Path) -> None:
    out = tmp_path / "kills.json"
    kills.main(["--kills", "3", "--frames", "30", "--only", "ffv1", "h264", "--out", str(out)])
    found = json.loads(out.read_text())["kills"]["measurements"]
    assert {name: (sum(one["kills"].values()), one["wrong"]) for name, one in found.items()} == {
        "ffv1": (2, 0),
        "h264": (1, 0),
    }
    assert all(one["films"] >= 1 for one in found.values())


def test_films_that_differ_are_counted(tmp_path: Path) -> None:
    whole, target = tmp_path / "whole", tmp_path / "out" / "film"
    target.parent.mkdir()
    whole.write_bytes(b"a"), target.write_bytes(b"b")
    kills._compare(kills.CASES["av1"], whole, target, found := kills.Found(1.0))
    assert (found.films, found.wrong, target.parent.exists()) == (1, 1, False)


def test_equal_windows_give_equal_pixels_in_less_time(tmp_path: Path, network: Path) -> None:
    found = measured(tmp_path, network, "still", "--clips", "slides", "grain", "whole")
    assert all(one["psnr"] is None and one["gain"] > 0 for one in found.values())


def test_the_usual_way_loses_what_it_is_said_to(tmp_path: Path, network: Path) -> None:
    kept = measured(tmp_path, network, "usual")["kept"]
    assert kept["frames"] == ["48 of 48", "48 of 48"]
    assert kept["sound tracks"] == ["0 of 2", "2 of 2"]
    assert kept["colour tags, 10 bits"] == ["lost", "kept"]
    assert kept["pixels, 10 bits"] == ["yuv420p", "yuv420p10le"]
    assert kept["times, variable rate"][1] == "up to 0 ms off"


def test_clips_are_what_their_names_say(tmp_path: Path) -> None:
    slides = list(clips.slides(48, 64, 2 * clips.RATE + 1))
    assert all(np.array_equal(slides[0], slide) for slide in slides[: 2 * clips.RATE])
    assert not np.array_equal(slides[0], slides[-1])
    drawn = list(clips.drawings(48, 64, 4))
    assert [np.array_equal(a, b) for a, b in pairwise(drawn)] == [True, False, True]
    clips.write(path := tmp_path / "screen.mkv", clips.screen(48, 64, 3), crf=23)
    with av.open(str(path)) as film:
        assert [frame.pts for frame in film.decode(video=0)] == [0, 67, 133]
        assert film.streams.video[0].codec_context.colorspace == 1


def test_luma_is_compared_in_codes_of_eight_bits(tmp_path: Path) -> None:
    flat = [np.full((32, 32, 3), value, np.uint8) for value in (100, 110)]
    paths = [tmp_path / f"{index}.mkv" for index in range(2)]
    for path, frame in zip(paths, flat, strict=True):
        clips.write(path, [frame], crf=0)
    mean, most = usual.luma_error(*paths)
    assert most == round(mean)
    assert most == pytest.approx(10 * 219 / 255, abs=0.6)
    assert usual.luma_psnr(paths[0], paths[0]) is None
