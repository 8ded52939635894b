"""What leaves the cache of decoded images, and what never does."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_training import folder_of_pictures, rendered

from srcli_train.data import UNUSED_DAYS, Pictures, decoding, load_pictures
from srcli_train.folders import find_source

locks = pytest.mark.skipif(sys.platform == "win32", reason="folders cannot be locked there")


def _load(tmp_path: Path, name: str) -> Pictures:
    """Two pictures in a folder of that name; each folder is another data set."""
    source = find_source(folder_of_pictures(tmp_path / name, 2, 24))
    return load_pictures(source, (2,), tmp_path / "cache", lambda done, total: None)


def _homes(tmp_path: Path) -> set[Path]:
    return set((tmp_path / "cache").iterdir())


def _unused(home: Path, days: float) -> None:
    then = time.time() - days * 24 * 3600
    os.utime(home, (then, then))


@pytest.mark.skipif(sys.platform == "win32", reason="a mapped file cannot be deleted there")
def test_a_data_set_unused_for_a_month_is_deleted(tmp_path: Path) -> None:
    mapped = _load(tmp_path, "old")
    (old,) = _homes(tmp_path)
    _unused(old, UNUSED_DAYS + 1)
    _load(tmp_path, "new")
    assert len(_homes(tmp_path) - {old}) == 1
    assert not old.exists()
    np.testing.assert_array_equal(mapped.hr[1], rendered(1, 24))


def test_a_data_set_that_was_used_stays(tmp_path: Path) -> None:
    _load(tmp_path, "lately")
    (lately,) = _homes(tmp_path)
    _load(tmp_path, "again")
    (again,) = _homes(tmp_path) - {lately}
    _unused(lately, UNUSED_DAYS - 1)
    _unused(again, UNUSED_DAYS + 1)
    source = find_source(tmp_path / "again")
    load_pictures(source, (2,), tmp_path / "cache", lambda done, total: pytest.fail("decoded again"))
    _load(tmp_path, "new")
    assert {lately, again} < _homes(tmp_path)
    assert all((home / "x1.u8").is_file() for home in _homes(tmp_path))


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """A user may name any folder with --cache."""
    _load(tmp_path, "one")
    theirs = [tmp_path / "cache" / name for name in ("0123456789abcdef", "photographs")]
    for home, name in zip(theirs, ("thesis.txt", "x1.u8"), strict=True):
        home.mkdir()
        (home / name).write_text("mine")
        _unused(home, UNUSED_DAYS * 10)
    _load(tmp_path, "two")
    assert [[file.name for file in home.iterdir()] for home in theirs] == [["thesis.txt"], ["x1.u8"]]


@locks
def test_leftovers_of_killed_decodings_are_deleted(tmp_path: Path) -> None:
    _load(tmp_path, "one")
    (home,) = _homes(tmp_path)
    partial = home / "x3.u8.4711"
    partial.write_bytes(b"half a picture")
    with decoding(home):
        _load(tmp_path, "two")
        assert partial.is_file()
    _load(tmp_path, "three")
    assert not partial.exists()
    assert (home / "x2.u8").is_file()


@locks
def test_two_data_sets_are_decoded_at_once(tmp_path: Path) -> None:
    source = find_source(folder_of_pictures(tmp_path / "first", 2, 24))

    def meanwhile(done: int, total: int) -> None:
        _load(tmp_path, f"second-{done}")

    first = load_pictures(source, (2,), tmp_path / "cache", meanwhile)
    np.testing.assert_array_equal(first.hr[1], rendered(1, 24))


@locks
def test_a_restarted_decoding_deletes_its_own_leftovers(tmp_path: Path) -> None:
    """Killed while decoding another scale of the same data set."""
    _load(tmp_path, "one")
    (home,) = _homes(tmp_path)
    (home / "x3.u8.4711").write_bytes(b"half a picture")
    load_pictures(find_source(tmp_path / "one"), (2, 3), tmp_path / "cache", lambda done, total: None)
    assert {file.name for file in home.iterdir()} == {
        f"x{s}.{kind}" for s in (1, 2, 3) for kind in ("json", "u8")
    }
