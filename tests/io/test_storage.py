"""Scratch arrays, files written whole, their remains after a kill, and disks without room."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import media_samples as samples
import numpy as np
import pytest

from srcli.errors import InferenceError, OutputError, UsageError
from srcli.io import storage
from srcli.io.storage import (
    allocate,
    beside,
    check_name,
    has_space,
    insert,
    overwrite,
    sweep,
    unfinished,
    write_whole,
)

POSIX = pytest.mark.skipif(os.name == "nt", reason="there, files are deleted when they are closed")


def is_mapped_anywhere(folder: Path) -> bool:
    return str(folder) in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("limit", [1 << 20, 0])
def test_scratch_arrays_behave_as_any_array(tmp_path: Path, limit: int) -> None:
    shape = (50, 40, 3)
    array = allocate(shape, np.uint16, limit=limit, folder=tmp_path)
    assert samples.is_mapped(array) == (limit == 0)
    assert type(array) is np.ndarray
    assert (array.shape, array.dtype) == (shape, np.uint16)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    values = np.random.default_rng(0).integers(0, 65536, shape).astype(np.uint16)
    array[...] = values
    array[10:20, ::2] += 1
    values[10:20, ::2] += 1
    np.testing.assert_array_equal(array, values)
    np.testing.assert_array_equal(array[::-1, 5:9, 0], values[::-1, 5:9, 0])


def test_the_limit_itself_is_still_in_memory(tmp_path: Path) -> None:
    assert not samples.is_mapped(allocate((100,), np.uint8, limit=100, folder=tmp_path))
    assert samples.is_mapped(allocate((101,), np.uint8, limit=100, folder=tmp_path))


@POSIX
def test_scratch_files_have_no_name(tmp_path: Path) -> None:
    array = allocate((1000, 1000), np.uint8, limit=0, folder=tmp_path)
    view = array[10:]
    assert list(tmp_path.iterdir()) == []
    del array
    view[...] = 7
    if sys.platform == "linux":
        assert is_mapped_anywhere(tmp_path)
        del view
        assert not is_mapped_anywhere(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_scratch_files_go_after_an_exception(tmp_path: Path) -> None:
    def fail() -> None:
        array = allocate((1000, 1000), np.uint8, limit=0, folder=tmp_path)
        raise ValueError(array.shape)

    with pytest.raises(ValueError, match="1000"):
        fail()
    assert list(tmp_path.iterdir()) == []
    assert not is_mapped_anywhere(tmp_path)


@POSIX
def test_nothing_is_left_of_a_killed_process(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from srcli.io.storage import allocate\n"
        "array = allocate((1000, 1000), 'uint8', limit=0, folder=Path(sys.argv[1])); array[...] = 1\n"
        "print('ready', flush=True); time.sleep(600)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="it is what fails")
def test_a_full_disk_refuses_a_scratch_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=str(tmp_path)) as caught:
        allocate((1000, 1000), np.uint8, limit=0, folder=tmp_path)
    assert "--memory" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_refuses_a_scratch_array(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="missing"):
        allocate((10,), np.uint8, limit=0, folder=tmp_path / "missing")


@pytest.mark.parametrize("missing", [True, False])
def test_file_systems_without_allocation_are_written_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    def unsupported(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    if missing:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    monkeypatch.setattr(storage, "_BLOCK", 1000)
    array = allocate((4321,), np.uint8, limit=0, folder=tmp_path)
    assert array.shape == (4321,)
    assert not array.any()


def test_arrays_beyond_all_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InferenceError, match="GB"):
        allocate((1 << 30, 1 << 30), np.uint16, limit=1 << 62, folder=tmp_path)


def test_room_on_the_disk_of_a_folder_to_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, 5_000_000_000))
    assert has_space(tmp_path / "new" / "folder", 5_000_000_000)
    assert not has_space(tmp_path / "new" / "folder", 5_000_000_001)


@pytest.mark.skipif(os.name == "nt", reason="there, other names are refused")
@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("x" * 251 + ".png", True),
        ("x" * 252 + ".png", False),
        ("ü" * 125 + ".png", True),  # two bytes each
        ("ü" * 126 + ".png", False),
        ("new/" + "x" * 255 + "/a.png", True),
        ("new/" + "x" * 256 + "/a.png", False),
        ("/".join(["x" * 200] * 25) + "/a.png", False),  # 4,096 bytes in all
        ("a\0.png", False),
    ],
)
def test_names_are_checked_in_bytes_before_their_folders_exist(tmp_path: Path, name: str, fits: bool) -> None:
    if fits:
        check_name(tmp_path / name)
        return
    with pytest.raises(UsageError, match="no file can have this name"):
        check_name(tmp_path / name)


@pytest.mark.skipif(os.name == "nt", reason="there, other names are refused")
def test_the_unfinished_file_needs_a_name_too(tmp_path: Path) -> None:
    folder = tmp_path
    while len(os.fsencode(folder)) < 4096 - 230:
        folder /= "x" * 200
    folder /= "x" * (4096 - 20 - len(os.fsencode(folder)))
    with pytest.raises(UsageError, match="no file can have this name"):
        check_name(folder / "a.png")


@pytest.mark.parametrize("length", [0, 1, 999, 1000, 1001, 2500])
@pytest.mark.parametrize("at", [0, 1, 7])
def test_insert_moves_what_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, at: int
) -> None:
    monkeypatch.setattr(storage, "_BLOCK", 1000)
    before = np.random.default_rng(0).bytes(at + length)
    path = tmp_path / "a"
    for content in (b"", b"abc", bytes(3000)):
        path.write_bytes(before)
        insert(path, at, content)
        assert path.read_bytes() == before[:at] + content + before[at:]
    overwrite(path, 2, b"xyz")
    assert path.read_bytes()[2:5] == b"xyz"


@pytest.mark.parametrize("stem", ["film", "x" * 244, "x" * 245, "x" * 251, "é" * 122, "日" * 83])
def test_names_beside_a_file_are_its_own_as_long_as_possible(tmp_path: Path, stem: str) -> None:
    given = [tmp_path / f"{stem}{number}.mkv" for number in range(3)]
    found = [beside(path, ".unfinished") for path in given]
    assert len(set(found)) == 3
    for path, other in zip(given, found, strict=True):
        if len(path.name.encode()) <= 244:
            assert other.name == f"{path.name}.unfinished"
        assert 244 <= len(other.name.encode()) <= 255 or stem == "film"
        other.touch()


def test_an_unfinished_file_appears_only_when_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), unfinished(target, ".png") as file:
        file.write_bytes(bytes(1 // 0))
    assert target.read_bytes() == b"old"
    with unfinished(target, ".png") as file:
        file.write_bytes(b"new")
        assert file.suffix == ".png-part"
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An unfinished file, as of a process that was killed."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(OSError):  # noqa: PT011 - the one from above
            write_whole(folder / "a.png", [b"begun"])
    (left,) = folder.iterdir()
    return left


def test_unfinished_files_an_hour_old_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, hour = killed(tmp_path, monkeypatch), time.time() - 3700
    sweep(tmp_path)
    assert left.exists()
    others = [tmp_path / name for name in ("a.part", ".srcli-notes", "a.png")]
    encoded = tmp_path / ".srcli-0123.png-part"
    for path in (left, encoded, *others):
        path.write_bytes(b"")
        os.utime(path, (hour, hour))
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(others)


@POSIX
def test_a_clock_that_is_ahead_removes_nothing_that_is_in_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, ahead = killed(tmp_path, monkeypatch), time.time() + 7200
    monkeypatch.setattr(time, "time", lambda: ahead)
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == [left]


def test_sweep_ignores_a_missing_folder(tmp_path: Path) -> None:
    sweep(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes with names")
def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE)
    write_whole(pipe, [b"one", b"two"])
    assert reader.communicate()[0] == b"onetwo"
    assert pipe.is_fifo()
