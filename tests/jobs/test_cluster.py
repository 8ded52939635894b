"""Three nodes of Ray on this machine: a local run's files, whatever dies or hangs; and who may connect."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scenes
from buckets import SECRETS, Bucket
from cluster_doubles import Nodes, three_nodes
from folder_doubles import Watcher

from srcli.errors import UsageError
from srcli.io import pictures
from srcli.io.remote import Location, location
from srcli.jobs import cluster, film_plan
from srcli.jobs.cluster_run import ClusterRun
from srcli.jobs.film import FilmRun
from srcli.jobs.folder import FolderRun
from srcli.jobs.plan import plan
from srcli.jobs.queue import Queue
from srcli.jobs.report import PictureResult, Status
from srcli.settings import FilmSettings, Settings
from srcli.upscaler import Upscaler

TWICE = Settings("bicubic", 2, threads=2)
LOSSLESS = replace(TWICE, film=FilmSettings(lossless=True))


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in which nodes look for credentials and the store."""
    return tmp_path_factory.mktemp("aws") / "config"


@pytest.fixture(scope="module")
def nodes(aws: Path) -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("AWS_CONFIG_FILE", str(aws))
        with three_nodes() as found:
            yield found


@pytest.fixture(scope="module", autouse=True)
def intruder(
    nodes: Nodes, tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[tuple[subprocess.Popen[str], Path]]":
    """A command with a wrong token, and that token; Ray tries for 20 s, meanwhile the other tests run."""
    work = tmp_path_factory.mktemp("intruder")
    (work / "in").mkdir()
    pictures.write(work / "in/a.png", pictures.Picture(np.zeros((9, 9, 3), np.uint8)))
    token = work / "token"
    token.write_text("0" * 64)
    token.chmod(0o644)
    environ = os.environ | {"RAY_ADDRESS": nodes.address, "RAY_AUTH_TOKEN_PATH": str(token)}
    run = subprocess.Popen(command(), env=environ, cwd=work, stderr=subprocess.PIPE, text=True)
    yield run, token
    run.kill()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """24 pictures in `in`, and the current folder."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for number in range(24):
        path = Path(f"in/{number % 3}/slow{number}.{('png', 'jpg', 'tif')[number % 3]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (30 + number, 40, 3), dtype=np.uint8)
        pictures.write(path, pictures.Picture(pixels))
    return tmp_path


def contents(folder: str) -> dict[str, bytes]:
    """What lies in a folder, without what the runs in it need for themselves."""
    files = (path for path in Path(folder).rglob("[!.]*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def in_order(settings: Settings = TWICE) -> list[PictureResult]:
    """A local run into `one`."""
    jobs, upscalers = plan(["in"], Path("one"), recursive=True).jobs, [Upscaler.from_settings(settings)]
    run = FolderRun([job for job in jobs if not job.film], upscalers, settings, Watcher()).run()
    return run.results + [FilmRun(job, upscalers, settings, Watcher()).run() for job in jobs if job.film]


def cluster_run(
    nodes: Nodes,
    settings: Settings = TWICE,
    watcher: Watcher | None = None,
    source: str = "in",
    target: Location = Path("out"),
) -> ClusterRun:
    """A run on the nodes."""
    jobs, upscaler = plan([source], target, recursive=True).jobs, Upscaler.from_settings(settings)
    found, queue = [job for job in jobs if not job.film], Queue(quiet=6.0)
    run = ClusterRun(nodes.cluster, found, upscaler, settings, watcher or Watcher(), queue=queue)
    close = run.close_segments
    run.films = [
        FilmRun(job, [upscaler], settings, run.progress, elsewhere=close) for job in jobs if job.film
    ]
    return run.run()


def test_the_files_and_results_are_those_of_a_local_run(
    nodes: Nodes, folder: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film_plan, "SEGMENT", 8)
    scenes.write(Path("in/film.mkv"), scenes.Scene(frames=30))
    Path("in/damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    settings = Settings(tiny_models / "tiny-x2.onnx", 2, threads=2, film=FilmSettings(lossless=True))
    local, run = in_order(settings), cluster_run(nodes, settings)
    assert contents("out") == contents("one")
    assert [(one.input, one.status, one.output_size, one.error, one.computed) for one in run.results] == [
        (one.input, one.status, one.output_size, one.error, one.computed) for one in local
    ]
    assert len(run.done) == 3  # nodes
    assert sum(run.done.values()) in (24 + 3, 25 + 3)  # pictures and segments; the damaged one needs no node


def test_killed_and_hanging_processes_cost_no_picture(nodes: Nodes, folder: Path) -> None:
    for fault in ("kill", "hang"):
        Path(f"in/{fault}").touch()
        pictures.write(Path(f"in/{fault}.png"), pictures.Picture(np.zeros((90, 90, 3), np.uint8)))
    run = cluster_run(nodes)
    assert {one.status for one in run.results} <= {Status.WRITTEN, Status.SKIPPED}  # or just before a death
    assert not Path("in/kill").exists()
    assert not Path("in/hang").exists()
    in_order()
    assert contents("out") == contents("one")


def test_a_picture_that_kills_its_process_fails_alone(nodes: Nodes, folder: Path) -> None:
    pictures.write(Path("in/poison.png"), pictures.Picture(np.zeros((90, 90, 3), np.uint8)))
    run = cluster_run(nodes)
    failed = [one for one in run.results if one.status is Status.FAILED]
    assert [one.input.name for one in failed] == ["poison.png"]
    assert "poison.png: every process that worked on it alone was lost" in failed[0].error
    assert len(contents("out")) == 24


def test_a_killed_node_loses_nothing_and_another_joins(nodes: Nodes, folder: Path) -> None:
    victim = nodes.add()

    class Killer(Watcher):
        def finished(self, result: PictureResult) -> None:
            super().finished(result)
            if len(self.seen) == 4:
                nodes.kill(victim)

    run = cluster_run(nodes, watcher=Killer())
    assert {one.status for one in run.results} <= {Status.WRITTEN, Status.SKIPPED}  # or just before a death
    in_order()
    assert contents("out") == contents("one")


def command(*arguments: str) -> list[str]:
    upscale = ("upscale", "in", "-r", "-s", "2", "--model", "bicubic", "--threads", "2", "-o", "out")
    return [sys.executable, "-m", "srcli", *upscale, "--cluster", "auto", *arguments]


def test_the_same_command_goes_on_after_the_driver_is_killed(nodes: Nodes, folder: Path) -> None:
    environ = os.environ | {"RAY_ADDRESS": nodes.address}
    for number in range(200):
        Path(f"in/{number}.png").symlink_to("0/slow0.png")
    killed = subprocess.Popen(command(), env=environ, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(contents("out")) < 12:
        assert time.monotonic() < deadline
        assert killed.poll() is None
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    done = subprocess.run(command("--json"), env=environ, capture_output=True, text=True)
    counts = json.loads(done.stdout)["counts"]
    assert (done.returncode, counts["written"] + counts["skipped"]) == (0, 224)
    assert counts["skipped"] >= 5
    in_order()
    assert contents("out") == contents("one")


def test_a_run_in_a_bucket_survives_a_kill_and_goes_on_by_one_listing(
    nodes: Nodes, bucket: Bucket, s3_server: str, aws: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    of_nodes = {"aws_access_key_id": "keyofthenodes", "aws_secret_access_key": "secretofthenodes"}
    of_nodes |= {"endpoint_url": s3_server, "region": "us-east-1"}
    aws.write_text("[default]\n" + "".join(f"{name} = {value}\n" for name, value in of_nodes.items()))
    Path("in").mkdir()
    for number in range(6):
        pixels = np.full((30 + number, 40, 3), 40 * number, np.uint8)
        pictures.write(Path(f"in/{('kill' if number == 4 else number)}.png"), pictures.Picture(pixels))
    scenes.write(Path("in/film.mkv"), scenes.Scene(frames=5))
    bucket.put({f"in/{path.name}": path.read_bytes() for path in Path("in").iterdir()})
    in_order(LOSSLESS)
    Path("in/kill").touch()
    run = cluster_run(nodes, LOSSLESS, source=f"{bucket.url}/in", target=location(f"{bucket.url}/out"))
    assert {one.status for one in run.results} <= {Status.WRITTEN, Status.SKIPPED}, run.results
    assert not Path("in/kill").exists()
    assert bucket.contents("out") == contents("one")

    caplog.set_level("INFO", "werkzeug")
    caplog.clear()
    told = command("--json", "--lossless")
    again = [f"{bucket.url}/{one}" if one in ("in", "out") else one for one in told]
    done = subprocess.run(
        again, env=os.environ | {"RAY_ADDRESS": nodes.address}, capture_output=True, text=True
    )
    assert json.loads(done.stdout)["counts"]["skipped"] == 7
    listings = [one for one in caplog.messages if "list-type" in one]
    assert len(listings) <= 3  # of outputs, of inputs, and what the input's name is
    said = done.stdout + done.stderr
    assert not [secret for secret in (*SECRETS, "keyofthenodes", "secretofthenodes") if secret in said]


def test_nothing_listens_beyond_loopback(nodes: Nodes) -> None:
    inodes = {}
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                inodes[f"socket:[{fields[9]}]"] = fields[1].rpartition(":")[0]
    found = [inodes[link] for link in sockets() if link in inodes]
    assert len(found) > 5
    assert set(found) <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


def sockets() -> Iterator[str]:
    """The sockets of this process and of all that it started."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[stat.parent.name] = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
    for pid in parents:
        above = pid
        while above in parents and above != str(os.getpid()):
            above = parents[above]
        if above == str(os.getpid()):
            for link in Path(f"/proc/{pid}/fd").glob("*"):
                try:
                    yield str(link.readlink())
                except OSError:
                    continue


def test_a_wrong_token_is_refused_in_words(intruder: "tuple[subprocess.Popen[str], Path]") -> None:
    said, token = intruder[0].communicate(timeout=90)[1], intruder[1]
    assert (intruder[0].returncode, "refuses the token" in said, "Traceback" in said) == (2, True, False)
    assert token.stat().st_mode & 0o777 == 0o600


def test_the_token_of_a_local_cluster_is_its_owners_alone(nodes: Nodes) -> None:
    token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert token.stat().st_mode & 0o777 == 0o600
    assert token.parent.stat().st_mode & 0o777 == 0o700
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RAY_AUTH_TOKEN_PATH": "missing"}, "There is no token"),
        ({"RAY_AUTH_TOKEN": "00", "RAY_ADDRESS": "127.0.0.1:1"}, "cannot be reached"),
        ({"RAY_AUTH_TOKEN": "00", "RAY_ADDRESS": "ray://127.0.0.1:10001"}, "is no address"),
    ],
)
def test_what_is_not_there_is_said(
    environ: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words), cluster.connected("auto"):
        pass
