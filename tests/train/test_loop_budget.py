"""A run's time budget is its own: kept when it is resumed, changed only when another one is asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import FAST, Quiet, trainer

from srcli_train.checkpoint import LAST, load_checkpoint, save_checkpoint

LONG = replace(FAST, updates=40)
NO_TIME = 1e-6  # minutes: 60 microseconds, over before the first update is


def test_a_run_out_of_time_stays_unchanged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    last = trainer(tmp_path, recipe=LONG, minutes=NO_TIME).run()
    before = last.read_bytes()
    assert load_checkpoint(last).update == 1
    assert trainer(tmp_path, recipe=LONG, resume=True).run() == last
    assert [message.partition(":")[0] for message in caplog.messages] == ["This run is finished"]
    assert last.read_bytes() == before
    assert not last.with_name("previous.pt").exists()


def test_a_finished_run_is_found_after_a_cut_save(tmp_path: Path) -> None:
    """Between the renames of a save; the checkpoint that is named must be one that is there."""
    last = trainer(tmp_path, recipe=LONG, minutes=NO_TIME).run()
    new = last.replace(last.with_name("new.pt"))
    assert trainer(tmp_path, recipe=LONG, resume=True).run() == new


@pytest.mark.parametrize(
    ("asked", "goes_on_with", "messages"),
    [
        (None, 1000, []),
        (1000, 1000, []),
        (2000, 2000, ["The time budget is now 2000 minutes; before it was 1000 minutes."]),
        (0, 0, ["The time budget is now none; before it was 1000 minutes."]),
    ],
)
def test_the_budget_is_kept_unless_another_is_given(
    tmp_path: Path,
    asked: float | None,
    goes_on_with: float,
    messages: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    trainer(tmp_path, minutes=1000).run(stop_at=1)
    run = trainer(tmp_path, minutes=asked, resume=True)
    assert run._clock.progress_at(run.update, 60 * 500) == max(
        500 / goes_on_with if goes_on_with else 0, 1 / FAST.updates
    )
    assert load_checkpoint(run.run(stop_at=2)).minutes == goes_on_with
    assert caplog.messages == messages


def test_a_resumed_run_estimates_time_by_its_own_speed(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("asked", "logged"), [(None, True), (50.0, False)])
def test_a_checkpoint_from_before_budgets_were_kept_goes_on(
    tmp_path: Path, asked: float | None, logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = trainer(tmp_path, minutes=50).run(stop_at=1)
    raw = torch.load(path, weights_only=True)
    del raw["minutes"]
    torch.save(raw, tmp_path / "run" / LAST)
    assert load_checkpoint(path).minutes is None
    run = trainer(tmp_path, minutes=asked, resume=True)
    assert any("does not say whether" in message for message in caplog.messages) == logged
    assert load_checkpoint(run.run(stop_at=2)).minutes == (asked or 0)
