"""Shards on the command line: several at once in one folder, and their reports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runs import Command, picture

BICUBIC = ("-r", "-s", "2", "--backend", "bicubic", "--model", "bicubic", "--format", "png")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shards_at_once_make_what_one_run_makes(srcli: Command, work: Path) -> None:
    for number in range(24):
        picture(f"in/{number % 4}/{number}.{('png', 'jpg', 'tif')[number % 3]}", 6 + number)
    shards = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "srcli", "upscale", "in", *BICUBIC, "-o", "out", "-q"),
                *("--shard", f"{number}/3", "--report", f"part{number}.json"),
            ],
            stdout=subprocess.DEVNULL,
        )
        for number in (1, 2, 3)
    ]
    assert [shard.wait(120) for shard in shards] == [0, 0, 0]
    assert srcli("upscale", "in", *BICUBIC, "-o", "one", "--shard", "1/1", "--report", "one.json").code == 0
    assert len(contents(work / "one")) == 24
    assert contents(work / "out") == contents(work / "one")

    joined = srcli("report", "merge", "part3.json", "part1.json", "part2.json", "-o", "all.json")
    assert (joined.code, "24 written" in joined.err) == (0, True)
    reports = [json.loads(Path(name).read_text()) for name in ("one.json", "all.json")]
    inputs, counts = ([report[name] for report in reports] for name in ("pictures", "counts"))
    assert [one["input"] for one in inputs[0]] == [one["input"] for one in inputs[1]]
    assert counts[0] == counts[1]
    assert [report["shard"] for report in reports] == ["1/1", None]

    missing = srcli("report", "merge", "part1.json", "part2.json", "-o", "all.json")
    assert (missing.code, "1 shard is missing: 3/3" in missing.err) == (1, True)


def test_an_empty_shard_is_no_error(srcli: Command) -> None:
    picture("in/a.png")
    runs = [
        srcli("upscale", "in", *BICUBIC, "--shard", f"{number}/2", "--report", f"{number}.json")
        for number in (1, 2)
    ]
    assert [run.code for run in runs] == [0, 0]
    assert sum("holds none of the 1 file: nothing to do" in run.err for run in runs) == 1
    assert srcli("report", "merge", "1.json", "2.json", "-o", "all.json").code == 0


def test_auto_asks_the_scheduler(srcli: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    picture("in/a.png")
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "AWS_BATCH_JOB_ARRAY_INDEX", "SKYPILOT_JOB_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    run = srcli("upscale", "in", *BICUBIC, "--shard", "auto/1", "--json")
    assert (run.code, json.loads(run.out)["shard"]) == (0, "1/1")
    run = srcli("upscale", "in", *BICUBIC, "--shard", "auto")
    assert (run.code, "auto/N" in run.err) == (2, True)


@pytest.mark.parametrize(
    "arguments", [("-", "-o", "out"), ("in", "-o", "-"), ("in", "--preview", "2"), ("in/a.png",)]
)
def test_what_is_no_folder_has_no_shards(srcli: Command, arguments: tuple[str, ...]) -> None:
    picture("in/a.png")
    run = srcli("upscale", *arguments, "--shard", "1/2")
    assert (run.code, "--shard" in run.err) == (2, True)
