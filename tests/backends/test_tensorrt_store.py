"""Engines on disk: found only under an equal key, and only if they are whole."""

import os
import time
from dataclasses import fields, replace
from pathlib import Path

import onnx
import pytest
import tiny_networks

from srcli.backends.devices import Gpu
from srcli.backends.tensorrt import store
from srcli.errors import ModelFileError
from srcli.io import storage

GPU = Gpu("NVIDIA GeForce RTX 4090", "8.9", 24 << 30)
KEY = store.Key("abc", "fp16", 384, "tensorrt_rtx", "1.7.1", GPU.name, GPU.capability, "0.1.0")


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.engine"
    storage.write_checked(path, "key", b"\x00engine\n\xff" * 1000)
    assert storage.read_checked(path, "key") == b"\x00engine\n\xff" * 1000
    assert [p.name for p in path.parent.iterdir()] == ["a.engine"], "a temporary file stayed"
    assert storage.read_checked(tmp_path / "none", "key") is None


def test_flipped_or_cut_file_is_stale(tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    storage.write_checked(path, "key", b"engine")
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position])
        assert _refused(path), f"cut at {position}"
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        assert _refused(path), f"bit at {position}"


def _refused(path: Path) -> bool:
    try:
        storage.read_checked(path, "key")
    except storage.StaleError:
        return True
    return False


@pytest.mark.parametrize(
    "content", [b"", b"x", b"srcli sealed 1\n", b"srcli sealed 1\n[]\nabc", b"\x00" * 99]
)
def test_foreign_file_is_stale(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.engine"
    path.write_bytes(content)
    with pytest.raises(storage.StaleError):
        storage.read_checked(path, "key")


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.engine"
    storage.write_checked(path, "key", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        storage.write_checked(path, "key", b"new")
    assert storage.read_checked(path, "key") == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("field", [f.name for f in fields(store.Key)])
def test_any_key_difference_is_another_engine(field: str, tmp_path: Path) -> None:
    old = getattr(KEY, field)
    other = replace(KEY, **{field: old + (1 if isinstance(old, int) else "x")})
    assert other.text != KEY.text
    assert other.file(tmp_path, "m") != KEY.file(tmp_path, "m")
    storage.write_checked(KEY.file(tmp_path, "m"), KEY.text, b"engine")
    assert store.look_up([KEY], [tmp_path], "m") == b"engine"
    assert store.look_up([other], [tmp_path], "m") is None


def test_file_with_another_key_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage.write_checked(KEY.file(tmp_path, "m"), replace(KEY, gpu="another").text, b"engine")
    assert store.look_up([KEY], [tmp_path], "m") is None
    assert "made for something else" in caplog.messages[0]


def test_damaged_engine_is_logged_and_next_folder_searched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, beside = tmp_path / "cache", tmp_path / "models"
    for folder in (cache, beside):
        storage.write_checked(KEY.file(folder, "m"), KEY.text, b"engine")
    damaged = KEY.file(cache, "m")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert store.look_up([KEY], [cache, beside], "m") == b"engine"
    assert "is damaged" in caplog.messages[0]


def test_unwritable_folder_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    store.keep(tmp_path / "file" / "a.engine", "key", b"engine")
    assert "cannot be written" in caplog.messages[0]


def test_checksum_covers_weights_beside_the_model(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    model = tiny_networks.build(tiny_networks.tiny_spec(2))
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=64)
    before = store.checksum(path)
    assert store.checksum(path) == before
    weights = tmp_path / "w.bin"
    data = bytearray(weights.read_bytes())
    data[100] ^= 1
    weights.write_bytes(data)
    assert store.checksum(path) != before
    weights.unlink()
    with pytest.raises(ModelFileError, match=r"tiny\.onnx"):
        store.checksum(path)


def test_key_holds_model_gpu_and_version(tiny_models: Path) -> None:
    path = tiny_models / "tiny-x2.onnx"
    key = store.key_of(path, "fp16", 384, "tensorrt_rtx", "1.7.1", GPU)
    assert (key.gpu, key.capability, key.model) == (GPU.name, "8.9", store.checksum(path))
    assert store.key_of(path, "fp16", 384, "tensorrt_rtx", "1.7.1", None) == key.for_any_gpu
    assert store.key_of(tiny_models / "tiny-x3.onnx", "fp16", 384, "tensorrt_rtx", "1.7.1", GPU) != key


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SRCLI_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.folder_of_engines() == tmp_path / "xdg" / "srcli" / "tensorrt"
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "own"))
    assert store.folder_of_engines() == tmp_path / "own" / "tensorrt"


def _age(path: Path, days: float) -> None:
    then = time.time() - days * 24 * 3600
    os.utime(path, (then, then))


def test_unused_files_are_deleted_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))
    cache = store.folder_of_engines()
    old, used, other = cache / "old.engine", cache / "used.engine", cache / "notes.txt"
    for path in (old, used, other):
        storage.write_checked(path, "key", b"engine")
        _age(path, storage.UNUSED_DAYS + 1)
    assert store.read(used, "key") == b"engine"
    store.keep(cache / "new.engine", "key", b"engine")
    assert sorted(p.name for p in cache.iterdir()) == ["new.engine", "notes.txt", "used.engine"]


def test_unused_engines_outside_the_cache_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    storage.write_checked(tmp_path / "old.engine", "key", b"engine")
    _age(tmp_path / "old.engine", storage.UNUSED_DAYS + 1)
    store.keep(tmp_path / "new.engine", "key", b"engine")
    assert (tmp_path / "old.engine").exists()
