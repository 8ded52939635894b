"""Films of buckets on the command line: fetched, or read by ranges."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from buckets import SECRETS, Bucket
from cli_runs import Command

from srcli.io import remote
from srcli.jobs import staging

pytest.importorskip("s3fs")
pytest.importorskip("av")

import scenes

from srcli.io.films import remux

OPTIONS = ("-s", "2", "--backend", "bicubic", "--model", "bicubic", "--lossless", "--no-provenance")
CLIP = ("--start", "12", "--end", "13.5")


@dataclass(slots=True)
class Traffic:
    """What objects of a bucket cost.

    Attributes:
        bytes: read of objects below "in/".
        fails: says of the number of a reading whether it fails.
    """

    bytes: int = 0
    reads: int = 0
    fails: Callable[[int], bool] = field(default=lambda _: False)


@contextmanager
def watched() -> Iterator[Traffic]:
    """Counts what is read in here."""
    import s3fs

    real, traffic = s3fs.S3FileSystem._call_s3, Traffic()

    async def call(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        found = await real(self, method, *arguments, **options)
        if method == "get_object" and options["Key"].startswith("in/"):
            traffic.reads += 1
            if traffic.fails(traffic.reads):
                raise ConnectionResetError(f"https://{SECRETS[1]}@host")
            traffic.bytes += found["ContentLength"]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_call_s3", call)
        yield traffic


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ranges, and what is read around a clip, as small as these films; a cache of its own for each test."""
    monkeypatch.setattr(remote, "_RANGE", 32 << 10)
    monkeypatch.setattr(remote, "_RANGES_KEPT", 24)
    monkeypatch.setattr(remux, "_APART", 2)
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))


def film(bucket: Bucket, name: str, **scene: Any) -> Path:
    """A film with sound and subtitles, here and in the bucket."""
    given = {
        "width": 48,
        "height": 32,
        "options": scenes.B_FRAMES,
        "subtitles": name.endswith("mkv"),
        **scene,
    }
    scenes.write(Path(name), scenes.Scene(**given))
    bucket.put({f"in/{name}": Path(name).read_bytes()})
    return Path(name)


def only(folder: str) -> bytes:
    """The one file in a folder."""
    (path,) = Path(folder).iterdir()
    return path.read_bytes()


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4", "film.mov"])
def test_a_clip_is_that_of_a_local_film(srcli: Command, bucket: Bucket, name: str, tmp_path: Path) -> None:
    path = film(bucket, name, frames=1200 if name == "film.mkv" else 400, rate=Fraction(24000, 1001))
    assert srcli("upscale", str(path), *OPTIONS, *CLIP, "-o", "here/").code == 0
    with watched() as traffic:
        run = srcli("upscale", f"{bucket.url}/in/{name}", *OPTIONS, *CLIP, "-o", f"{bucket.url}/out/")
    assert run.code == 0, run.err
    assert list(bucket.contents("out").values()) == [only("here")]
    assert name != "film.mkv" or traffic.bytes < 0.6 * path.stat().st_size
    assert not list(tmp_path.glob(f"cache/films/*/in/{name}"))


@pytest.mark.parametrize("name", ["film.mkv", "film.mp4"])
def test_a_film_larger_than_the_disk_is_read_by_ranges(
    srcli: Command, bucket: Bucket, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(bucket, name, frames=100)
    assert srcli("upscale", str(path), *OPTIONS, "-o", "here/").code == 0
    monkeypatch.setattr(staging, "has_space", lambda *_: False)
    monkeypatch.setattr(remote, "fetch", None)
    run = srcli("upscale", f"{bucket.url}/in/{name}", *OPTIONS, "-o", "there/")
    assert run.code == 0, run.err
    assert only("there") == only("here")
    (made,) = Path("there").iterdir()
    there = remote.looked_up(remote.location(f"{bucket.url}/in/{name}"))  # type: ignore[arg-type]
    assert made.stat().st_mtime_ns == there.modified


def test_a_store_that_goes_away_is_told_and_the_same_command_goes_on(
    srcli: Command, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = film(bucket, "film.mkv", frames=400)
    assert srcli("upscale", str(path), *OPTIONS, "-o", "here/").code == 0
    monkeypatch.setattr(staging, "has_space", lambda *_: False)
    arguments = ("upscale", f"{bucket.url}/in/film.mkv", *OPTIONS, "-o", "there/")
    with watched() as traffic:
        assert srcli(*arguments, "-o", "counted/").code == 0
        whole = traffic.reads
    for share in (0.2, 0.5):
        with watched() as traffic:
            last = int(whole * share)
            traffic.fails = lambda number, last=last: number > last  # type: ignore[misc]
            run = srcli(*arguments)
            assert (run.code, Path("there/film.mkv").exists()) == (1, False)
            assert f"{bucket.url}/in/film.mkv cannot be read: the server does not answer." in run.err
            assert SECRETS[1] not in run.err + caplog.text
    run = srcli(*arguments)
    assert (run.code, Path("there/film.mkv").read_bytes()) == (0, Path("here/film.mkv").read_bytes())


def test_a_film_that_is_replaced_meanwhile_is_refused(
    srcli: Command, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(bucket, "film.mkv", frames=200)
    monkeypatch.setattr(staging, "has_space", lambda *_: False)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    with watched() as traffic:
        real = remote._Ranges._fetch

        def fetch(self: Any, number: int) -> bytes:
            if traffic.reads == 12:
                bucket.put({"in/film.mkv": bytes(content)})
            return real(self, number)

        monkeypatch.setattr(remote._Ranges, "_fetch", fetch)
        run = srcli("upscale", f"{bucket.url}/in/film.mkv", *OPTIONS, "-o", "there/")
    assert (run.code, Path("there/film.mkv").exists()) == (1, False)
    assert re.search("film.mkv (cannot be read: it )?changed while it was read", run.err)


def test_previews_and_dry_runs_read_little(srcli: Command, bucket: Bucket) -> None:
    name = "film.mkv"
    path = film(bucket, name, frames=1200)
    with watched() as traffic:
        run = srcli("upscale", f"{bucket.url}/in/{name}", *OPTIONS, "--dry-run")
    assert (run.code, re.search(r"about (\d+) frames at 25 a second", run.err + run.out) is not None) == (
        0,
        True,
    )
    assert traffic.bytes < 0.6 * path.stat().st_size
    with watched() as traffic:
        run = srcli("upscale", f"{bucket.url}/in/{name}", *OPTIONS, "--preview", "3")
    assert run.code == 0, run.err
    assert traffic.bytes < 0.6 * path.stat().st_size
    sheet = Path("upscaled", "film.preview.png")
    assert (sheet.exists(), str(sheet) in run.out) == (True, True)


def test_previews_go_where_films_would_go(srcli: Command, bucket: Bucket) -> None:
    film(bucket, "film.mkv", audio=())
    arguments = ("upscale", f"{bucket.url}/in/film.mkv", *OPTIONS[:-1], "--preview", "2")
    assert srcli(*arguments, "-o", "here/").code == 0
    runs = [
        srcli(*arguments, "-o", f"{bucket.url}/out/"),
        srcli(*arguments, "-o", f"{bucket.url}/out/"),
        srcli(*arguments, "-o", f"{bucket.url}/out/film.mkv"),
        srcli(*arguments, "-o", f"{bucket.url}/out/sheet.png"),
    ]
    sheet = Path("here/film.preview.png").read_bytes()
    assert [run.code for run in runs] == [0, 0, 0, 0], runs
    assert runs[0].out == f"{bucket.url}/out/film.preview.png\n"
    assert bucket.contents("out") == {"film.preview.png": sheet, "sheet.png": sheet}
    bucket.put({"out/sheet.png": scenes.png()})
    kept = srcli(*arguments, "-o", f"{bucket.url}/out/sheet.png")
    assert (kept.code, bucket.contents("out")["sheet.png"]) == (0, scenes.png())
    assert srcli(*arguments, "-o", f"{bucket.url}/out/sheet.png", "--overwrite").code == 0
    assert bucket.contents("out")["sheet.png"] == sheet
