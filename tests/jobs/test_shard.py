"""Shards: by paths alone, told by schedulers, and names that cannot meet."""

from pathlib import Path

import pytest
from PIL import Image

from srcli.errors import UsageError
from srcli.jobs.inputs import Found
from srcli.jobs.outputs import name_alone
from srcli.jobs.plan import plan
from srcli.jobs.shard import Shard, parse


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_each_path_belongs_to_one_shard_and_shares_are_even() -> None:
    paths = [Path(f"folder/{number}.jpg") for number in range(4000)]
    shards = [Shard(index, 8) for index in range(8)]
    assert all(sum(shard.holds(path) for shard in shards) == 1 for path in paths)
    sizes = [sum(map(shard.holds, paths)) for shard in shards]
    assert min(sizes) > 420
    assert max(sizes) < 580


def test_a_path_stays_in_its_shard_in_every_version() -> None:
    found = [
        next(str(shard) for shard in (Shard(index, 16) for index in range(16)) if shard.holds(Path(path)))
        for path in ("a.png", "a/b.jpg", "é.png", "\udcff.png")
    ]
    assert found == ["1/16", "6/16", "6/16", "12/16"]


@pytest.mark.parametrize(
    ("text", "environ", "shard"),
    [
        ("3/16", {}, "3/16"),
        ("1/1", {"SLURM_ARRAY_TASK_ID": "9"}, "1/1"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "4"}, "1/4"),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "1"},
            "4/4",
        ),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "20",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "10",
                "SLURM_ARRAY_TASK_STEP": "5",
                "SLURM_PROCID": "1",
                "SLURM_STEP_NUM_TASKS": "2",
            },
            "3/3",
        ),
        ("auto", {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2", "JOB_COMPLETION_INDEX": "5"}, "2/2"),
        ("auto/8", {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "JOB_COMPLETION_INDEX": "5"}, "6/8"),
        ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "2", "AWS_BATCH_JOB_ARRAY_SIZE": "10"}, "3/10"),
        (
            "auto",
            {
                "SKYPILOT_JOB_RANK": "1",
                "SKYPILOT_NUM_JOBS": "5",
                "SKYPILOT_NODE_RANK": "0",
                "SKYPILOT_NUM_NODES": "1",
            },
            "2/5",
        ),
        ("auto", {"SKYPILOT_NODE_RANK": "3", "SKYPILOT_NUM_NODES": "4"}, "4/4"),
        ("auto/4", {"SKYPILOT_NODE_RANK": "3", "SKYPILOT_NUM_NODES": "4"}, "4/4"),
    ],
)
def test_a_shard_is_what_the_text_or_the_scheduler_says(
    text: str, environ: dict[str, str], shard: str
) -> None:
    assert str(parse(text, environ)) == shard


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("0/4", {}, "no shard 0 of 4"),
        ("5/4", {}, "no shard 5 of 4"),
        ("1/0", {}, "no shard 1 of 0"),
        ("3", {}, "no share"),
        ("a/b", {}, "no share"),
        ("auto", {}, "SLURM_ARRAY_TASK_ID, .*JOB_COMPLETION_INDEX"),
        ("auto", {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, "no scheduler"),
        ("auto", {"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "no scheduler"),
        ("auto", {"JOB_COMPLETION_INDEX": "5"}, "not how many"),
        ("auto/4", {"JOB_COMPLETION_INDEX": "5"}, "no shard 6 of 4"),
        (
            "auto/8",
            {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "1"},
            "SLURM_ARRAY_TASK_COUNT says 1",
        ),
        ("auto", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "3"}, "no shard 8 of 3"),
        (
            "auto",
            {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_STEP": "2"},
            "STEP",
        ),
        ("auto/8", {"JOB_COMPLETION_INDEX": "first"}, "'first', no number"),
    ],
)
def test_what_is_no_shard_is_refused_in_words(text: str, environ: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(text, environ)


@pytest.mark.parametrize(
    ("relative", "film", "format", "container", "name"),
    [
        ("d/a.jpg", False, None, None, "d/a.jpg"),
        ("a.JPEG", False, "jpeg", None, "a.JPEG"),
        ("a.jpg", False, "png", None, "a.jpg.png"),
        ("a.tif", False, "jpeg", None, "a.tif.jpg"),
        ("a.gif", False, None, None, "a.gif.png"),
        ("a.gif", True, None, None, "a.gif"),
        ("a.gif", True, None, "mkv", "a.gif.mkv"),
        ("a.avi", True, None, None, "a.avi.mkv"),
        ("a.MKV", True, None, "mkv", "a.MKV"),
    ],
)
def test_names_depend_on_one_path_alone(
    relative: str,
    film: bool,
    format: str | None,  # noqa: A002
    container: str | None,
    name: str,
) -> None:
    found = Found(Path("in", relative), Path(relative), film)
    assert name_alone(found, Path("out"), format, container).target == Path("out", name)


def test_shards_of_a_plan_are_all_of_it_once(tmp_path: Path) -> None:
    for number in range(20):
        touch(tmp_path / "in" / str(number % 3) / f"{number}.jpg")
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    touch(tmp_path / "in" / "a.psd")
    source, out = str(tmp_path / "in"), tmp_path / "out"
    plans = [plan([source], out, recursive=True, format="png", shard=Shard(index, 4)) for index in range(4)]
    whole = plan([source], out, recursive=True, format="png", shard=Shard(0, 1))
    jobs = [job for part in plans for job in part.jobs]
    assert len(jobs) == 20
    assert set(jobs) == set(whole.jobs)
    assert all(len(part.jobs) + part.elsewhere == 20 for part in plans)
    assert [len(part.passed_by) for part in plans] == [1, 0, 0, 0]
    assert sum(many for part in plans for _, many in part.unread) == 1


@pytest.mark.parametrize("index", range(3))
def test_outputs_that_would_meet_are_refused_by_all_shards(tmp_path: Path, index: int) -> None:
    for name in ("a.bmp", "A.bmp.png", "b.bmp"):
        touch(tmp_path / "in" / name)
    with pytest.raises(UsageError, match=r"A\.bmp\.png and a\.bmp would both become a\.bmp\.png"):
        plan([str(tmp_path / "in")], tmp_path / "out", format="png", shard=Shard(index, 3))
    assert len(plan([str(tmp_path / "in")], tmp_path / "out", shard=Shard(0, 1)).jobs) == 3


@pytest.mark.parametrize("frames", [1, 2])
def test_names_that_may_meet_are_looked_at(tmp_path: Path, frames: int) -> None:
    pytest.importorskip("av")
    images = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")][:frames]
    touch(tmp_path / "in" / "a.gif.png")
    images[0].save(tmp_path / "in" / "a.gif", save_all=True, append_images=images[1:])
    shards = [Shard(index, 2) for index in range(2)]
    if frames == 1:
        for shard in shards:
            with pytest.raises(UsageError, match="would both become"):
                plan([str(tmp_path / "in")], tmp_path / "out", shard=shard)
    else:
        plans = [plan([str(tmp_path / "in")], tmp_path / "out", shard=shard) for shard in shards]
        names = sorted(job.target.name for one in plans for job in one.jobs)
        assert names == ["a.gif", "a.gif.png"]


def test_shards_are_of_one_folder(tmp_path: Path) -> None:
    file, folder, out = touch(tmp_path / "in" / "a.png"), str(tmp_path / "in"), tmp_path / "out"
    for inputs in ([str(file)], [folder, folder], [f"{folder}/*"], [str(tmp_path / "none")]):
        with pytest.raises(UsageError, match="one folder"):
            plan(inputs, out, shard=Shard(0, 2))
    with pytest.raises(UsageError, match="one file's name"):
        plan([folder], tmp_path / "out.png", shard=Shard(0, 2))


def test_a_folder_without_pictures_is_said_by_every_shard(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    found = plan([str(tmp_path / "in")], tmp_path / "out", shard=Shard(1, 2))
    assert ["no pictures" in one.error.message for one in found.problems] == [True]
