"""What a run that was killed left behind, and what is nobody else's to remove."""

import os
import time
from pathlib import Path

import pytest

from srcli.io.storage import sweep, write_whole


def killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file as it lies there where nothing came after its first bytes."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(OSError):  # noqa: PT011 - the one from above
            write_whole(folder / "a.png", [b"begun"])
    (left,) = folder.iterdir()
    return left


def test_what_was_left_an_hour_ago_goes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, hour = killed(tmp_path, monkeypatch), time.time() - 3700
    sweep(tmp_path)
    assert left.exists()
    others = [tmp_path / name for name in ("a.part", ".srcli-notes", "a.png")]
    for path in (left, *others):
        path.write_bytes(b"")
        os.utime(path, (hour, hour))
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_folder_that_is_not_there_needs_no_sweeping(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
    assert not (tmp_path / "none").exists()
