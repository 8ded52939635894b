"""Files behind URLs: names without secrets, whole files or none, errors in words."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket

from srcli.errors import InputError, OutputError, SrcliError, UsageError
from srcli.io import remote
from srcli.io.remote import Remote, location

fsspec = pytest.importorskip("fsspec")


def there(text: str) -> Remote:
    found = location(text)
    assert isinstance(found, Remote)
    return found


@pytest.fixture
def memory() -> Iterator[Any]:
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()


def test_paths_stay_paths() -> None:
    assert location("s3/photos") == Path("s3/photos")
    assert location("C:/photos") == Path("C:/photos")
    assert location("file:///tmp/a.png") == Path("/tmp/a.png")
    assert location("what?.png") == Path("what?.png")


def test_a_url_is_taken_apart_and_joined() -> None:
    photos = there("S3://bucket/photos/")
    assert (photos.protocol, photos.path, str(photos)) == ("s3", "bucket/photos", "s3://bucket/photos")
    one = photos / Path("a", "b?.tar.png")
    assert (str(one), one.name, one.suffix) == ("s3://bucket/photos/a/b?.tar.png", "b?.tar.png", ".png")
    assert (one.stem, str(one.parent), one.parent.parent) == ("b?.tar", "s3://bucket/photos/a", photos)
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    "url",
    ["sftp://anna:secret@host/x.png", "sftp://anna:se@cret@host/x.png", "https://host/x.png?token=secret"],
)
def test_users_and_queries_are_no_part_of_its_text(url: str) -> None:
    one = there(url)
    for text in (str(one), repr(one), str(one / "y"), str(one.parent)):
        assert "secret" not in text
        assert "anna" not in text
        assert "cret" not in text


@pytest.mark.parametrize("url", [
    "s3://", "s3:///", "s3://key:secret@bucket/x", "zip://x::s3://bucket/x", "s3://key:secret/secret@bucket/x",
    "sftp://anna:secret/secret@host/x",
])  # fmt: skip
def test_urls_that_are_not_taken_are_refused(url: str) -> None:
    with pytest.raises(UsageError) as raised:
        location(url)
    assert "secret" not in str(raised.value)


def test_unknown_protocols_and_the_web_take_no_output() -> None:
    for url in ("nothing://host/x", "https://host/x/"):
        with pytest.raises(UsageError):
            remote.check_output(there(url))


def test_what_is_put_is_listed_and_fetched(bucket: Bucket, tmp_path: Path) -> None:
    given = tmp_path / "given.bin"
    given.write_bytes(os.urandom(400_000))
    folder = there(f"{bucket.url}/a/")
    assert remote.put(given, folder / "b/c.bin", replaces=False)
    found = remote.listing(folder)
    assert list(found) == ["b/c.bin"]
    assert found["b/c.bin"].size == 400_000
    assert remote.listing(folder, recursive=False) == {}
    remote.fetch(found["b/c.bin"], tmp_path / "fetched" / "c.bin")
    assert (tmp_path / "fetched" / "c.bin").read_bytes() == given.read_bytes()
    assert (tmp_path / "fetched" / "c.bin").stat().st_mtime_ns == found["b/c.bin"].modified > 0


def test_a_look_has_start_end_and_size(bucket: Bucket, tmp_path: Path) -> None:
    content = os.urandom(400_000)
    bucket.put({"large.bin": content, "small.bin": content[:1000]})
    for name, given in remote.listing(there(bucket.url)).items():
        remote.look(given, tmp_path / name)
    assert (tmp_path / "small.bin").read_bytes() == content[:1000]
    found = (tmp_path / "large.bin").read_bytes()
    assert (len(found), found[:65536], found[-16384:]) == (400_000, content[:65536], content[-16384:])
    assert found[70_000:80_000] == bytes(10_000)


def test_ranges_are_read_once_and_kept(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_RANGE", 100)
    content = bytes(range(251)) * 4
    bucket.put({"film": content})
    here = remote.looked_up(location(f"{bucket.url}/film"))  # type: ignore[arg-type]
    fetched: list[int] = []
    real = remote._Ranges._fetch
    monkeypatch.setattr(
        remote._Ranges, "_fetch", lambda self, number: fetched.append(number) or real(self, number)
    )
    with remote.ranged(here) as one, remote.ranged(here) as other:
        assert one.read(3) == content[:3]
        assert one.seek(-30, os.SEEK_END) == len(content) - 30
        assert one.read() == content[-30:]
        assert other.read(250) == content[:250]
        assert other.tell() == 250
        assert other.seek(5000) == 5000
        assert other.read(1) == b""
        assert other.seek(0) == 0
        assert other.read() == content
    assert sorted(set(fetched)) == list(range(11))
    assert len(fetched) == 11


@pytest.mark.parametrize("early", [True, False])
def test_a_file_that_is_replaced_is_not_read_on(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, early: bool
) -> None:
    monkeypatch.setattr(remote, "_RANGE", 100)
    bucket.put({"film": b"a" * 1000})
    here = remote.looked_up(location(f"{bucket.url}/film"))  # type: ignore[arg-type]
    if early:
        bucket.put({"film": b"b" * 1000})
        with pytest.raises(InputError, match="changed while it was read"), remote.ranged(here):
            pass
        return
    with remote.ranged(here) as file:
        assert file.read(10) == b"a" * 10
        bucket.put({"film": b"b" * 1000})
        file.seek(500)
        with pytest.raises(InputError, match="changed while it was read"):
            file.read(10)
        assert file.read(10) == b""  # an error is raised once


def test_the_first_writer_wins(bucket: Bucket, tmp_path: Path) -> None:
    first, second, place = tmp_path / "1", tmp_path / "2", there(f"{bucket.url}/x")
    first.write_bytes(b"first")
    second.write_bytes(b"second")
    assert remote.put(first, place, replaces=False)
    assert not remote.put(second, place, replaces=False)
    assert bucket.contents() == {"x": b"first"}
    assert remote.put(second, place, replaces=True)
    assert bucket.contents() == {"x": b"second"}


def test_large_files_go_in_parts(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PART", 5 << 20)
    large, place = tmp_path / "large", there(f"{bucket.url}/x")
    large.write_bytes(os.urandom(11 << 20))
    assert remote.put(large, place, replaces=False)
    assert bucket.contents() == {"x": large.read_bytes()}
    assert bucket.files.info(f"{bucket.name}/x")["ETag"].strip('"').endswith("-3")
    large.write_bytes(bytes(11 << 20))
    assert not remote.put(large, place, replaces=False)
    remote.fetch(remote.looked_up(place), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == bucket.contents()["x"] != large.read_bytes()


def test_an_upload_that_fails_midway_leaves_nothing(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    large, calls, real = tmp_path / "large", list[str](), s3fs.S3FileSystem._call_s3
    large.write_bytes(bytes(11 << 20))

    async def call(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        calls.append(method)
        if options.get("PartNumber") == 3:
            raise ConnectionResetError
        return await real(self, method, *arguments, **options)

    monkeypatch.setattr(remote, "_PART", 5 << 20)
    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", call)
    with pytest.raises(OutputError, match="the server does not answer"):
        remote.put(large, there(f"{bucket.url}/x"), replaces=False)
    assert calls.count("upload_part") == 3
    assert bucket.files.list_multipart_uploads(bucket.name) == []
    assert bucket.contents() == {}


def test_other_stores_get_whole_files_only(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, place = tmp_path / "given", there("memory://folder/x")
    given.write_bytes(b"whole")
    assert remote.put(given, place, replaces=False)
    assert not remote.put(given, place, replaces=False)

    def fail(local: str, path: str) -> None:
        with memory.open(path, "wb") as file:
            file.write(b"half")
            raise ConnectionResetError

    monkeypatch.setattr(memory, "put_file", fail)
    with pytest.raises(OutputError):
        remote.put(given, place, replaces=True)
    assert {name: memory.cat_file(name) for name in memory.find("/folder")} == {"/folder/x": b"whole"}


def test_a_fetch_that_fails_leaves_nothing(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str, local: str) -> None:
        Path(local).write_bytes(b"half")
        raise TimeoutError

    monkeypatch.setattr(memory, "get_file", fail)
    with pytest.raises(InputError, match="the server does not answer"):
        remote.fetch(there("memory://folder/x"), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_errors_are_told_in_words(bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

    def told(error: Exception | None = None, url: str = f"{bucket.url}/x") -> str:
        import s3fs

        async def call(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
            raise error or AssertionError

        with monkeypatch.context() as patch:
            if error is not None:
                patch.setattr(s3fs.S3FileSystem, "_call_s3", call)
            with pytest.raises(SrcliError) as raised:
                remote.fetch(there(url), tmp_path / "x")
        assert "secret" not in str(raised.value)
        return raised.value.message

    assert told() == f"{bucket.url}/x cannot be read: it does not exist."
    assert "its bucket does not exist" in told(url="s3://no-bucket-of-ours/x")
    denied = ClientError({"Error": {"Code": "AccessDenied", "Message": "secret"}}, "GetObject")
    assert "access is denied" in told(denied)
    assert "no credentials" in told(NoCredentialsError())
    gone = EndpointConnectionError(endpoint_url="https://user:secret@host")
    assert "the server does not answer" in told(gone)
    odd = ClientError({"Error": {"Code": "Teapot", "Message": "secret"}}, "GetObject")
    assert "the store answers Teapot" in told(odd)
    assert "KeyError" in told(KeyError("secret"))
