"""`srcli upscale --cluster`: what it refuses before any work, and a run as the command line sees it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from cli_runs import Command, picture

from srcli.jobs import cluster
from srcli.jobs.cluster_run import ClusterRun
from srcli.jobs.report import PictureResult, Status


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--cluster", "everywhere"), "'everywhere' is not known"),
        (("--cluster", "local", "--shard", "1/2"), "both share out the work"),
        (("--cluster", "local", "--device", "cuda:1"), "each process has its own"),
        (("--cluster", "local", "--preview", "2"), "not for --preview"),
        (("--cluster", "local", "-o", "-"), "not for - in a pipe"),
        (
            ("--cluster", "local", "-o", "sftp://anna:hunter2@host/out"),
            "sftp://host/out: with --cluster, a URL",
        ),
        (("--cluster", "local", "https://host/a.png?token=hunter2"), "https://host/a.png: with --cluster, a"),
    ],
)
def test_what_no_cluster_does_is_refused(srcli: Command, arguments: tuple[str, ...], words: str) -> None:
    picture("in/a.png")
    run = srcli("upscale", "in", *arguments)
    assert (run.code, words in run.err, "hunter2" in run.err) == (2, True, False)


def test_without_ray_the_extra_is_named(srcli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", lambda name: None if name == "ray" else util.find_spec(name))
    picture("in/a.png")
    run = srcli("upscale", "in", "--cluster", "local")
    assert (run.code, 'pip install "srcli[cluster]"' in run.err) == (2, True)


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have cluster runs end at once, the last picture first, with all well but b.png."""

    @contextmanager
    def connected(where: str) -> Iterator[None]:
        assert where == "auto"
        yield

    def run(self: ClusterRun) -> Any:
        for job in reversed(self.jobs):
            status = Status.FAILED if job.source.name == "b.png" else Status.WRITTEN
            self.results.append(PictureResult(job.source, job.target, status))
            self.progress.finished(self.results[-1])
        return self

    monkeypatch.setattr(cluster, "connected", connected)
    monkeypatch.setattr(ClusterRun, "run", run)


def test_results_are_reported_in_order_and_failures_set_the_exit_code(
    srcli: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    for name in "abc":
        picture(f"in/{name}.png")
    made = srcli("upscale", "in", "--model", "bicubic", "--cluster", "auto", "--report", "r.jsonl")
    assert (made.code, made.out.split()) == (1, ["upscaled/c.png", "upscaled/a.png"])
    head, *lines = [json.loads(line) for line in Path("r.jsonl").read_text().splitlines()]
    assert (head["counts"]["written"], head["counts"]["failed"]) == (2, 1)
    assert [one["input"] for one in lines] == ["in/a.png", "in/b.png", "in/c.png"]
