"""The table of experiments holds together, and what is run and made of the logs is right."""

import csv
import json
import shlex
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from tiny_training import FAST, TINY, folder_of_pictures

import arms
import experiments
import trials
from contenders import flops_per_pixel
from srcli.io import pictures
from srcli.models import catalog
from srcli_train import checkpoint
from srcli_train.checkpoint import Checkpoint, load_checkpoint
from srcli_train.networks import build
from srcli_train.start import load_start

ARMS = [(name, arm) for name, e in arms.EXPERIMENTS.items() for arm in e.arms]


@pytest.mark.parametrize(("name", "arm"), ARMS, ids=[f"{name}: {arm.label}" for name, arm in ARMS])
def test_every_arm_is_a_training_that_can_start(name: str, arm: arms.Arm) -> None:
    assert arm.network.scales
    assert arm.chosen.updates
    if starts := [a for a in arms.EXPERIMENTS[name].arms if a.label == arm.init]:
        start = starts[0]
        assert start.model == arm.model
        assert not start.init
    elif arm.init:  # of a shipped network of the same kind
        assert load_start(Path(arm.init), arm.network).network.family == arm.network.family


@pytest.mark.parametrize("name", arms.EXPERIMENTS)
def test_the_arms_of_an_experiment_are_different_trainings(name: str) -> None:
    names = {trial.name for trial in experiments._trials(name, None)}
    assert len(names) == len(arms.EXPERIMENTS[name].arms)
    assert max(map(len, names)) < 200


@pytest.mark.parametrize("name", arms.EXPERIMENTS)
def test_arms_come_after_their_start(name: str) -> None:
    before: list[str] = []
    for trial in experiments._trials(name, None):
        assert not trial.start or trial.start.name in before
        before.append(trial.name)


def test_equal_arms_share_a_training() -> None:
    alike = {experiments._trials(name, None)[0].name for name in ("chance", "detail", "schedule")}
    assert len(alike) == 1
    assert alike == {experiments._trials("batch", None)[1].name}
    from_it, other = experiments._trials("finish", None)[1:3]
    assert from_it.start == other.start == experiments._trials("finish", None)[0]


def test_a_curve_keeps_each_validation_once() -> None:
    rows = [
        {"update": str(u), "psnr_x2": v} for u, v in ((50, ""), (100, "30.1"), (150, "30.1"), (200, "31.0"))
    ]
    curve = experiments.Curve(arms.Arm("one"), rows)
    assert curve.psnr(2) == [(100, 30.1), (200, 31.0)]
    assert curve.scales == (2,)


def test_the_time_estimate_follows_the_work_of_an_update() -> None:
    usual = experiments._work(arms.Arm("", ("batch=16", "patch=32"), recipe="paper"))
    half = experiments._work(arms.Arm("", ("batch=8", "patch=32"), recipe="paper"))
    assert half == pytest.approx(usual / 2)
    assert experiments._work(arms.Arm("", ("batch=16", "patch=64"), recipe="paper")) == pytest.approx(
        4 * usual
    )
    assert experiments._work(arms.Arm("", ("batch=16", "patch=32"), scale=4, recipe="paper")) > 1.3 * usual


def test_all_experiments_fit_the_six_hours_they_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    experiments.main(["--list"])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(arms.EXPERIMENTS) + 1
    assert 1 < float(said[-1].split()[2]) < 7, said[-1]


def test_one_experiment_is_listed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    experiments.main(["small", "--list", "--updates", "90"])
    [said] = capsys.readouterr().out.splitlines()
    assert said.startswith("small: ")
    assert " 90 updates, about " in said
    assert said.count(" | ") == len(arms.EXPERIMENTS["small"].arms) - 1


def test_small_networks_have_the_work_that_is_said() -> None:
    """In multiply-adds of x2 as trained; single networks are those that `fast` is."""
    trained = experiments._trials("small", 1500)
    single, other_scale, short, equal, larger = (trial.arm.network for trial in trained)
    assert [trial.updates for trial in trained] == [1500, 1500, 500, 1500, 1500]
    fast = catalog.resolve("fast", 2).spec
    assert (single.family, single.blocks, single.features) == (fast.family, fast.blocks, fast.features)
    assert (single.scales, other_scale.scales, short) == ((2,), (4,), single)
    assert equal.scales == larger.scales == (2, 3, 4)
    work, *shares = (flops_per_pixel(build(network), 2) for network in (single, equal, larger))
    assert [share / work for share in shares] == pytest.approx([1.05, 1.52], abs=0.01)
    merged = work / 2 - fast.macs  # what the exported file saves, in all of them
    assert (shares[1] / 2 - merged) / fast.macs == pytest.approx(1.6, abs=0.05)


def test_the_checkpoint_decides_whether_a_run_has_ended(tmp_path: Path) -> None:
    """The log's last row is written before the last save, which a kill can prevent."""
    assert trials.reached(tmp_path) == 0
    (tmp_path / "log.csv").write_text("update,seconds,loss,rate,psnr_x2\n200,1,1,1,30\n")
    assert trials.reached(tmp_path) == 0
    saved = checkpoint.save(tmp_path, Checkpoint(TINY, FAST, {}, update=150))
    assert trials.reached(tmp_path) == 150
    saved.replace(tmp_path / "previous.pt")  # a kill between the two renames of a save
    assert trials.reached(tmp_path) == 150


def _two_updates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line for an experiment of two tiny arms, the second from the first."""
    tiny = ("batch=2", "patch=8", "network.blocks=1", "network.features=8")
    two = (arms.Arm("one", tiny), arms.Arm("from it", (*tiny, "loss=l2", "clip=9"), init="one", share=0.5))
    monkeypatch.setitem(arms.EXPERIMENTS, "tiny", arms.Experiment("Does it run?", two, 2))
    data, valid = folder_of_pictures(folder / "hr"), folder_of_pictures(folder / "valid", 1)
    places = ["--runs", str(folder / "runs"), "--out", str(folder / "results.json")]
    return ["tiny", str(data), "--valid", str(valid), *places]


def test_an_experiment_from_training_to_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command = _two_updates(tmp_path, monkeypatch)
    one, other = (tmp_path / "runs" / trial.name for trial in experiments._trials("tiny", None))
    experiments.main(command)
    said = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("srcli ")]
    assert [line[:2] for line in said] == [["srcli", "train"]] * 2
    assert load_checkpoint(one / "last.pt").update == 2
    assert load_checkpoint(other / "last.pt").update == 1
    assert "Started from" in other.with_name(f"{other.name}.out").read_text()

    section = json.loads((tmp_path / "results.json").read_text())["tiny"]
    assert [row[:2] for row in section["tables"][0]["rows"]] == [["one", "2"], ["from it", "1"]]
    [(update, reached)] = section["measurements"]["psnr"]["one"]["2"]
    assert update == 2
    assert f"{reached:.2f}" == section["tables"][0]["rows"][0][-1]
    with (tmp_path / "results" / "tiny.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["arm"], row["update"]) for row in rows] == [("one", "2"), ("from it", "1")]
    assert pictures.probe(tmp_path / "results" / "tiny.png").width > 400

    experiments.main(command)
    assert "srcli train" not in capsys.readouterr().out, "arms that have ended are not run again"
    (other / "last.pt").write_bytes(b"torn")
    with pytest.raises(SystemExit, match="'from it' failed"):
        experiments.main(command)
    assert "--resume" in capsys.readouterr().out
    assert "holds no checkpoint that can be read" in " ".join(
        other.with_name(f"{other.name}.out").read_text().split()
    )
