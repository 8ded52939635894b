"""Judging and damaging of pictures: the scripts run, and a share of their mutants is tried each time."""

import os
import random
import struct
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))
pytest.importorskip("resource", reason="no such limits on this system")

import fuzz_pictures  # noqa: E402
import mutants  # noqa: E402
import readers  # noqa: E402
import reliability  # noqa: E402
from isolated import Ended, Worker  # noqa: E402
from srcli.errors import InputError  # noqa: E402
from srcli.io import pictures  # noqa: E402
from srcli.io.pictures import Picture  # noqa: E402


@pytest.mark.parametrize("name", mutants.seeds())
def test_mutants_are_read_or_refused_in_words(tmp_path: Path, name: str) -> None:
    fields, kinds = mutants.seeds()[name]
    wholes = [kind() for kind in kinds]
    path = tmp_path / f"x{mutants.ANIMATED.get(name, '.bin')}"
    for number in range(20):
        path.write_bytes(
            mutants.mutant(wholes[number % len(wholes)], fields, random.Random(f"{name} {number}"))
        )
        assert fuzz_pictures.attempt(path) in ("read", "refused"), number


@pytest.mark.parametrize("name", mutants.seeds())
def test_the_files_that_mutants_are_made_of_are_read(tmp_path: Path, name: str) -> None:
    for kind in mutants.seeds()[name][1]:
        path = tmp_path / f"x{mutants.ANIMATED.get(name, '.bin')}"
        path.write_bytes(kind())
        assert fuzz_pictures.attempt(path) == "read"


@pytest.mark.parametrize("name", ["apng", "webp, animated", "gif"])
def test_an_animation_that_says_it_is_huge_is_refused(tmp_path: Path, name: str) -> None:
    from srcli.io.films import animation, facts

    blob, path = bytearray(mutants.seeds()[name][1][-1]()), tmp_path / f"x{mutants.ANIMATED[name]}"
    if name == "apng":
        struct.pack_into(">II", blob, 16, 1 << 20, 1 << 20)
        struct.pack_into(">I", blob, 29, zlib.crc32(blob[12:29]))
    elif name == "gif":
        struct.pack_into("<HH", blob, 6, 65535, 65535)
    else:
        blob[24:30] = b"\xff" * 6
    path.write_bytes(blob)
    assert animation.plays(path) == 0
    with pytest.raises(InputError):
        facts.probe(path)


def test_frames_that_are_too_large_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    from srcli.io.films import facts

    blob, path = bytearray(mutants.seeds()["gif"][1][1]()), tmp_path / "x.gif"
    struct.pack_into("<HH", blob, 6, 12000, 12000)
    path.write_bytes(blob)
    with pytest.raises(InputError, match="12000x12000 pixels are too large"):
        facts.probe(path)


def _act(path: Path) -> str:
    if path.name == "crash":
        os.abort()
    if path.name == "hang":
        time.sleep(60)
    return str(len(b"x" * (100 << 20))) if path.name == "grow" else path.name


def test_a_worker_outlives_crashes_and_hangs_and_measures_memory() -> None:
    worker = Worker(_act, 1.0, 1 << 30)
    try:
        assert worker(Path("a")) == ("a", pytest.approx(0, abs=4 << 20))
        with pytest.raises(Ended, match="crash"):
            worker(Path("crash"))
        with pytest.raises(Ended, match="hang"):
            worker(Path("hang"))
        assert worker(Path("b"))[0] == "b"
        assert worker(Path("grow"))[1] >= 90 << 20
    finally:
        worker.close()


def test_collections_are_counted_by_what_other_readers_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "collections" / "mine"
    folder.mkdir(parents=True)
    draw = np.random.default_rng(1)
    deep = Picture(draw.integers(0, 65536, (9, 7, 3)).astype(np.uint16))
    for name in ("deep.png", "deep.tif"):
        pictures.write(folder / name, deep)
    (folder / "not.png").write_bytes(b"text")
    (folder / "text.txt").write_bytes(b"text")
    pictures.write(folder / "wrong.png", deep)
    real = readers.READERS["Pillow"]
    monkeypatch.setattr(
        readers,
        "READERS",
        {"Pillow": lambda path: (real(path)[0] // 2, 16) if path.stem == "wrong" else real(path)},
    )
    verdicts = {path.name: reliability.judge(path).verdict for path in reliability.files(folder, 1)}
    assert verdicts == {
        "deep.png": reliability.RIGHT,
        "deep.tif": reliability.RIGHT,
        "not.png": reliability.REFUSED,
        "wrong.png": reliability.WRONG,
    }


def test_pictures_differ_as_far_as_they_are_seen() -> None:
    clear, white = np.zeros((2, 2, 4), np.uint16), np.full((2, 2, 4), 65535, np.uint16)
    hidden = white.copy()
    hidden[..., 3] = 0
    assert not reliability.difference((clear, 8), (hidden, 8))
    assert "255 levels" in reliability.difference((clear, 8), (white, 8))
    assert "8 bits, not 16" in reliability.difference((white, 8), (white, 16))
    darker = white.copy()
    darker[..., :3] -= 256
    assert reliability.difference((white, 16), (darker, 8)) == ""
    assert reliability.difference((white, 16), (darker, 16)) != ""


def test_the_table_adds_up(tmp_path: Path) -> None:
    right, wrong = reliability.Verdict(reliability.RIGHT), reliability.Verdict(reliability.WRONG, "x")
    found = {"a": reliability.summary([("1", right), ("2", wrong)]), "b": reliability.summary([("3", right)])}
    rows = reliability.section(found).tables[0].rows
    assert [row[:3] for row in rows] == [("a", "2", "1"), ("b", "1", "1"), ("**all**", "3", "2")]
    assert list(found["a"]["files"]) == ["2"]
