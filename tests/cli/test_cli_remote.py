"""Buckets on the command line, against a server of S3 on this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import SECRETS, Bucket
from cli_runs import Command, Run, picture
from PIL import Image

from srcli.io import remote
from srcli.io.remote import Remote

pytest.importorskip("s3fs")

BICUBIC = ("-r", "-s", "2", "--backend", "bicubic", "--model", "bicubic")
MANY = 200


@pytest.fixture
def large(srcli: Command, bucket: Bucket) -> Callable[..., Run]:
    """Runs `srcli upscale` on a folder of the bucket, into another one."""

    def run(*arguments: str, given: str = "in", out: str = "out") -> Run:
        return srcli("upscale", f"{bucket.url}/{given}", *BICUBIC, "-o", f"{bucket.url}/{out}/", *arguments)

    return run


def contents(folder: str) -> dict[str, bytes]:
    root = Path(folder)
    return {
        path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def fill(bucket: Bucket, number: int) -> None:
    """Pictures in the bucket, and the same in the folder "in"."""
    objects = {}
    for one in range(number):
        suffix = ("png", "jpg", "tif", "webp")[one % 4]
        file = picture(f"in/{one % 3}/{one:03}.{suffix}", 8 + one % 5, 12)
        objects[f"in/{one % 3}/{file.name}"] = file.read_bytes()
    bucket.put(objects)


@contextmanager
def uploads_that_fail(suffix: str = "") -> Iterator[None]:
    """In here, the server is gone for objects whose names end so."""
    import s3fs

    real = s3fs.S3FileSystem._call_s3

    async def call(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        if method == "put_object" and options["Key"].endswith(suffix):
            raise ConnectionResetError(f"https://{SECRETS[1]}@host")
        return await real(self, method, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s3fs.S3FileSystem, "_call_s3", call)
        yield


def requests_of(caplog: pytest.LogCaptureFixture, method: str) -> int:
    """How many requests the server has got."""
    return sum(f"{method} /" in record.getMessage() for record in caplog.records if record.name == "werkzeug")


def test_a_bucket_gives_what_a_folder_gives(
    srcli: Command, large: Callable[..., Run], bucket: Bucket
) -> None:
    fill(bucket, 12)
    bucket.put({"in/broken.png": b"no picture"})
    bucket.put({"in/odd %2F + name?.png": picture("odd.png").read_bytes()})
    bucket.put({"in/raw.cr2": b"raw"})
    run = large("--report", "report.json")
    assert (run.code, "13 pictures are in" in run.err, "1 picture of other kinds" in run.err) == (
        1,
        True,
        True,
    )
    assert f"{bucket.url}/in/broken.png is not a picture" in run.err
    assert sorted(run.out.split("\n"))[1] == f"{bucket.url}/out/0/000.png"
    assert srcli("upscale", "in", *BICUBIC, "-o", "here").code == 0
    made = bucket.contents("out")
    assert made.pop("odd %2F + name?.png")
    assert made == contents("here")
    report = json.loads(Path("report.json").read_text())
    assert report["counts"]["written"] == 13
    assert report["pictures"][0]["input"] == f"{bucket.url}/in/0/000.png"

    again = large()
    assert (again.code, "13 pictures are in" in again.err, "already" in again.err) == (1, True, True)
    other = large("--ensemble", "--format", "png")
    assert "is there already: made with ensemble off, now on" in other.err
    assert f"error: {bucket.url}/out/0/000.png" in other.err


def test_what_is_done_costs_one_listing_and_first_bytes(
    large: Callable[..., Run], bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    content = BytesIO()
    noise = np.random.default_rng(1).integers(0, 256, (400, 400, 3), np.uint8)
    Image.fromarray(noise).save(content, "png")
    for number in range(3):
        bucket.put({f"in/{number}.png": content.getvalue()})
    time.sleep(1.1)  # a store counts seconds, and what is as old as its input is read whole
    assert large().code == 0
    caplog.set_level("INFO", "werkzeug")
    caplog.clear()
    run = large()
    assert (run.code, "3 pictures are in" in run.err, "already" in run.err) == (0, True, True)
    ranges = 2 * 2 * 3  # of inputs and outputs, start and end
    listings = 3  # of outputs, of inputs, and what the input's name is
    assert ranges < requests_of(caplog, "GET") <= ranges + listings
    caplog.clear()
    run = large("--trust-names", "--quality", "3")
    assert (run.code, "already, by name, unopened" in run.err) == (0, True)
    assert requests_of(caplog, "GET") <= listings


def test_trusted_names_are_skipped_here_too(srcli: Command) -> None:
    picture("in/a.png")
    picture("out/a.png")
    run = srcli("upscale", "in", *BICUBIC, "-o", "out", "--trust-names", "--json")
    assert json.loads(run.out)["counts"]["skipped"] == 1
    assert srcli("upscale", "in", "--trust-names", "--overwrite").code == 2


def test_either_end_may_be_here(srcli: Command, bucket: Bucket) -> None:
    fill(bucket, 4)
    assert srcli("upscale", "in", *BICUBIC, "-o", "here").code == 0
    up = srcli("upscale", "in", *BICUBIC, "-o", f"{bucket.url}/up")
    down = srcli("upscale", f"{bucket.url}/in", *BICUBIC, "-o", "down")
    assert (up.code, down.code) == (0, 0)
    assert bucket.contents("up") == contents("here") == contents("down")
    for run in (
        srcli("upscale", "in", *BICUBIC, "-o", f"{bucket.url}/up"),
        srcli("upscale", f"{bucket.url}/in", *BICUBIC, "-o", "down"),
    ):
        assert (run.code, "4 pictures are in" in run.err, "already" in run.err) == (0, True, True)


def test_single_pictures_and_patterns(srcli: Command, bucket: Bucket) -> None:
    fill(bucket, 8)
    one = srcli("upscale", f"{bucket.url}/in/0/000.png", *BICUBIC[1:], "-o", f"{bucket.url}/named.webp")
    assert (one.code, one.out) == (0, f"{bucket.url}/named.webp\n")
    assert bucket.contents("named.webp") != {} or f"{bucket.name}/named.webp" in bucket.files.find(
        bucket.name
    )
    some = srcli("upscale", f"{bucket.url}/in/*/*.png", *BICUBIC[1:], "-o", "some")
    assert (some.code, sorted(contents("some"))) == (0, ["000.png", "004.png"])
    flat = srcli("upscale", f"{bucket.url}/in/0", *BICUBIC[1:], "-o", "flat")
    assert (flat.code, sorted(contents("flat"))) == (0, ["000.png", "003.webp", "006.tif"])
    none = srcli("upscale", f"{bucket.url}/in/*.bmp", *BICUBIC[1:], "-o", "none")
    assert (none.code, "No file matches" in none.err) == (1, True)
    same = srcli("upscale", f"{bucket.url}/in/0/000.png", *BICUBIC[1:], "-o", f"{bucket.url}/in/0/")
    assert (same.code, "would overwrite an input" in same.err) == (2, True)


def test_an_output_folder_in_the_input_folder_is_no_input(large: Callable[..., Run], bucket: Bucket) -> None:
    fill(bucket, 2)
    runs = [large(out="in/large") for _ in range(2)]
    assert [run.code for run in runs] == [0, 0]
    assert "is the output folder; the pictures in it are no inputs" in runs[1].err
    assert sorted(bucket.contents("in/large")) == ["0/000.png", "1/001.jpg"]
    assert large(out="in").code == 2


def test_a_dry_run_writes_nothing(large: Callable[..., Run], bucket: Bucket) -> None:
    fill(bucket, 4)
    run = large("--dry-run")
    assert (run.code, run.out.count("\n"), bucket.contents("out")) == (0, 4, {})
    assert f"{bucket.url}/in/0/000.png 12×8 -> {bucket.url}/out/0/000.png 24×16" in run.out


def test_keys_that_leave_the_folder_are_refused(srcli: Command, bucket: Bucket, work: Path) -> None:
    content = picture("a.png").read_bytes()
    for key in ("in/../../up.png", "in/b//c.png", "in/fine.png"):
        bucket.put({key: content})
    run = srcli("upscale", f"{bucket.url}/in/", *BICUBIC, "-o", "deep/down")
    assert (run.code, sorted(contents("."))) == (1, ["a.png", "deep/down/fine.png"])
    assert run.err.count("no file can have this name") == 2


def test_shards_of_a_bucket_make_what_one_run_makes(
    srcli: Command, large: Callable[..., Run], bucket: Bucket
) -> None:
    fill(bucket, 12)
    runs = [
        large("--shard", f"{number}/3", "--report", f"{bucket.url}/reports/{number}.json", "--format", "png")
        for number in (1, 2, 3)
    ]
    assert [run.code for run in runs] == [0, 0, 0]
    assert json.loads(bucket.contents("reports")["3.json"])["shard"] == "3/3"
    joined = srcli("report", "merge", f"{bucket.url}/reports/*.json", "-o", f"{bucket.url}/all.jsonl")
    assert (joined.code, f"3 reports joined in {bucket.url}/all.jsonl: 12 written" in joined.err) == (0, True)
    assert len(bucket.contents()["all.jsonl"].splitlines()) == 13
    assert large("--shard", "1/1", "--format", "png", out="one").code == 0
    made = bucket.contents("out")
    assert (len(made), made) == (12, bucket.contents("one"))


def test_a_result_written_meanwhile_stays(
    srcli: Command, large: Callable[..., Run], bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bucket, 1)
    assert srcli("upscale", "in", *BICUBIC, "-o", "here").code == 0
    same, real = contents("here")["0/000.png"], remote.put
    for theirs, code, text in ((same, 0, "written the same result meanwhile"), (b"other", 1, "otherwise")):

        def put(file: Path, here: Remote, *, replaces: bool, theirs: bytes = theirs) -> bool:
            bucket.put({"out/0/000.png": theirs})
            return real(file, here, replaces=replaces)

        monkeypatch.setattr(remote, "put", put)
        run = large()
        assert (run.code, text in run.err) == (code, True), run.err
        assert bucket.contents("out") == {"0/000.png": theirs}
        bucket.files.rm_file(f"{bucket.name}/out/0/000.png")


def test_a_failed_upload_is_one_failed_picture(large: Callable[..., Run], bucket: Bucket) -> None:
    fill(bucket, 6)
    with uploads_that_fail("002.tif"):
        run = large()
    assert (run.code, len(bucket.contents("out"))) == (1, 5)
    assert f"{bucket.url}/out/2/002.tif cannot be written: the server does not answer." in run.err
    again = large()
    assert (again.code, len(bucket.contents("out")), "1 picture is in" in again.err) == (0, 6, True)


def test_missing_places_are_told_in_words(srcli: Command, bucket: Bucket) -> None:
    fill(bucket, 1)
    for given, out, text in (
        (f"{bucket.url}/nothing/", "out", "it does not exist"),
        ("s3://no-bucket-of-ours/in/", "out", "its bucket does not exist"),
        (f"{bucket.url}/in/", "s3://no-bucket-of-ours/out/", "its bucket does not exist"),
        (f"{bucket.url}/in/", "https://host/out/", "the web can be read, not written"),
        ("in", "nothing://host/out/", "nothing:// is not known"),
    ):
        run = srcli("upscale", given, *BICUBIC, "-o", out)
        assert (run.code in (1, 2), text in run.err) == (True, True), run.err


def test_the_extra_is_named_where_it_is_missing(srcli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    run = srcli("upscale", "s3://bucket/in/", "-o", "out")
    assert (run.code, 'pip install "srcli[cloud]"' in run.err) == (2, True)


def test_credentials_are_told_nowhere(
    large: Callable[..., Run], srcli: Command, bucket: Bucket, caplog: pytest.LogCaptureFixture
) -> None:
    fill(bucket, 3)
    caplog.set_level("DEBUG", "srcli")
    picture("one.png")
    runs = [
        large("--report", "report.json"),
        large("--json"),
        srcli("upscale", "sftp://anna:hunter2@127.0.0.1:9/x.png?token=hunter2", "--report", "failed.json"),
        srcli("upscale", "http://anna:hunter2@127.0.0.1:9/x.png?token=hunter2", "--report", "web.json"),
        srcli("upscale", "one.png", "-o", "nothing://anna:hunter2@host/out?token=hunter2"),
        srcli("upscale", f"s3://anna:hunter2@{bucket.name}/in/"),
    ]
    logged = "\n".join(one.getMessage() for one in caplog.records if one.name.startswith("srcli"))
    reports = [Path(name).read_text() for name in ("report.json", "web.json") if Path(name).exists()]
    made = [content.decode("latin-1") for content in bucket.contents("out").values()]
    assert len(made) == 3
    assert reports
    for text in (*(one.out + one.err for one in runs), logged, *reports, *made):
        assert not [secret for secret in (*SECRETS, "hunter2", "anna") if secret in text]


def test_films_of_a_bucket(
    srcli: Command, large: Callable[..., Run], bucket: Bucket, own_cache: Path
) -> None:
    pytest.importorskip("av")
    import scenes

    scenes.write(Path("film.mkv"), scenes.Scene(frames=12))
    frames = [Image.fromarray(np.full((8, 8), shade, np.uint8)) for shade in (0, 90, 255)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:], duration=100)
    bucket.put({f"in/{name}": Path(name).read_bytes() for name in ("film.mkv", "moving.gif")})
    bucket.put({"in/code.ts": b"export const answer = 42;\n"})
    assert srcli("upscale", "film.mkv", "moving.gif", *BICUBIC, "--lossless", "-o", "here").code == 0
    with uploads_that_fail():
        failed = large("--lossless")
    assert (failed.code, bucket.contents("out")) == (1, {})
    assert f"{bucket.url}/out/film.mkv cannot be written: the server does not answer." in failed.err
    run = large("--lossless")
    assert (run.code, bucket.contents("out")) == (0, contents("here")), run.err
    assert list(Path(os.environ["SRCLI_CACHE"], "films").iterdir()) == []
    again = large("--lossless")
    assert (again.code, "2 films are in" in again.err, "already" in again.err) == (0, True, True)
    other = large("--codec", "h264")
    assert (other.code, f"error: {bucket.url}/out/film.mkv is there already: made" in other.err) == (1, True)
    piped = srcli("upscale", f"{bucket.url}/in/film.mkv", *BICUBIC[1:], "--lossless", "-o", "down.mkv")
    assert (piped.code, Path("down.mkv").read_bytes()) == (0, contents("here")["film.mkv"])


def test_the_same_command_goes_on_after_kills(
    srcli: Command, large: Callable[..., Run], bucket: Bucket, work: Path
) -> None:
    fill(bucket, MANY)
    command = [sys.executable, "-m", "srcli", "upscale", f"{bucket.url}/in", *BICUBIC, "-q"]
    command += ["-o", f"{bucket.url}/out/"]
    workers = [
        subprocess.Popen(
            [*command, "--shard", f"{number}/2"],
            stdout=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(work)},
        )
        for number in (1, 2)
    ]
    deadline = time.monotonic() + 120
    while bucket.count("out") < 30:
        assert [worker.poll() for worker in workers] == [None, None]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for worker in workers:
        worker.send_signal(signal.SIGKILL)
    assert [worker.wait() for worker in workers] == [-signal.SIGKILL] * 2
    before = bucket.contents("out")
    assert 30 <= len(before) < MANY
    run = large()
    assert (run.code, f"{len(before)} pictures are in {bucket.url}/out already" in run.err) == (0, True)
    assert srcli("upscale", "in", *BICUBIC, "-o", "here").code == 0
    made = bucket.contents("out")
    assert (len(made), made) == (MANY, contents("here"))
    assert all(made[name] == content for name, content in before.items())
