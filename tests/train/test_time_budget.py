"""A run's time budget is its own: kept when it is resumed, changed only when another one is asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import FAST, Quiet, trainer

from srcli_train.checkpoint import load_checkpoint, save_checkpoint
from srcli_train.runfolder import LAST

LONG = replace(FAST, updates=40)
NO_TIME = 1e-6  # minutes: 60 microseconds, over before the first update is


def test_a_run_whose_time_is_up_stays_as_it_is(tmp_path: Path) -> None:
    last = trainer(tmp_path, recipe=LONG, minutes=NO_TIME).run()
    before = last.read_bytes()
    assert load_checkpoint(last).update == 1
    watcher = Quiet()
    assert trainer(tmp_path, recipe=LONG, resume=True, watcher=watcher).run() == last
    assert [note.partition(":")[0] for note in watcher.notes] == ["This run is finished"]
    assert last.read_bytes() == before
    assert not last.with_name("previous.pt").exists()


def test_a_finished_run_whose_last_save_was_cut_off_is_found(tmp_path: Path) -> None:
    """Between the renames of a save; the checkpoint that is named must be one that is there."""
    last = trainer(tmp_path, recipe=LONG, minutes=NO_TIME).run()
    new = last.replace(last.with_name("new.pt"))
    assert trainer(tmp_path, recipe=LONG, resume=True).run() == new


@pytest.mark.parametrize(
    ("asked", "goes_on_with", "notes"),
    [
        (None, 1000, []),
        (1000, 1000, []),
        (2000, 2000, ["The time budget is now 2000 minutes; before it was 1000 minutes."]),
        (0, 0, ["The time budget is now none; before it was 1000 minutes."]),
    ],
)
def test_the_budget_is_kept_unless_another_one_is_asked_for(
    tmp_path: Path, asked: float | None, goes_on_with: float, notes: list[str]
) -> None:
    trainer(tmp_path, minutes=1000).run(stop_at=1)
    watcher = Quiet()
    run = trainer(tmp_path, minutes=asked, resume=True, watcher=watcher)
    assert run._share(60 * 500) == max(500 / goes_on_with if goes_on_with else 0, 1 / FAST.updates)
    assert load_checkpoint(run.run(stop_at=2)).minutes == goes_on_with
    assert watcher.notes == notes


def test_the_time_left_is_by_the_speed_of_the_machine_that_goes_on(tmp_path: Path) -> None:
    path = trainer(tmp_path, recipe=LONG).run(stop_at=1)
    save_checkpoint(path, replace(load_checkpoint(path), seconds=1e6))
    watcher = Quiet()
    trainer(tmp_path, recipe=LONG, resume=True, watcher=watcher).run(stop_at=11)
    assert 0 < watcher.statuses[-1].seconds_left < 1000, "29 updates of a tiny network"
    save_checkpoint(path, replace(load_checkpoint(path), seconds=1e6))
    watcher = Quiet()
    trainer(tmp_path, recipe=LONG, resume=True, minutes=(1e6 + 50) / 60, watcher=watcher).run(stop_at=12)
    assert [0 <= status.seconds_left <= 50 for status in watcher.statuses] == [True]


def test_a_finished_run_goes_on_with_a_larger_budget(tmp_path: Path) -> None:
    trainer(tmp_path, recipe=LONG, minutes=NO_TIME).run()
    path = trainer(tmp_path, recipe=LONG, minutes=1000, resume=True).run(stop_at=3)
    assert load_checkpoint(path).update == 3


@pytest.mark.parametrize(("asked", "told"), [(None, True), (50.0, False)])
def test_a_checkpoint_from_before_budgets_were_kept_goes_on(
    tmp_path: Path, asked: float | None, told: bool
) -> None:
    path = trainer(tmp_path, minutes=50).run(stop_at=1)
    raw = torch.load(path, weights_only=True)
    del raw["minutes"]
    torch.save(raw, tmp_path / "run" / LAST)
    assert load_checkpoint(path).minutes is None
    watcher = Quiet()
    run = trainer(tmp_path, minutes=asked, resume=True, watcher=watcher)
    assert any("does not say whether" in note for note in watcher.notes) == told
    assert load_checkpoint(run.run(stop_at=2)).minutes == (asked or 0)
