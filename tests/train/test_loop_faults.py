"""What a run does when the disk, a checkpoint or the numbers fail."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import FAST, Quiet, trainer

from srcli.errors import OutputError, TrainingError, UsageError
from srcli.io.pictures import read
from srcli_train import checkpoint
from srcli_train.checkpoint import LAST, holds_run, load_checkpoint
from srcli_train.command import memory_errors_explained
from srcli_train.device import find_device

PREVIOUS = "previous.pt"
resource = pytest.importorskip("resource", reason="limits file sizes to act like a full disk")


@contextmanager
def full_disk(bytes_left: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk that has no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path).run(stop_at=5)
    trainer(tmp_path, resume=True).run(stop_at=10)
    last = tmp_path / "run" / LAST
    last.write_bytes(last.read_bytes()[:2000])
    run = trainer(tmp_path, resume=True)
    assert run.update == 5
    assert "last.pt: damaged" in caplog.messages[0]
    assert load_checkpoint(run.run(stop_at=6)).update == 6


def test_a_save_cut_off_between_its_renames_loses_nothing(tmp_path: Path) -> None:
    trainer(tmp_path).run(stop_at=5)
    last = tmp_path / "run" / LAST
    last.replace(last.with_name("new.pt"))
    assert holds_run(tmp_path / "run")
    assert trainer(tmp_path, resume=True).update == 5


def test_without_a_readable_checkpoint_resuming_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).run(stop_at=1)
    trainer(tmp_path, resume=True).run(stop_at=2)
    for name in (LAST, PREVIOUS):
        (tmp_path / "run" / name).write_bytes(b"")
    with pytest.raises(TrainingError, match="no checkpoint that can be read"):
        trainer(tmp_path, resume=True)


def test_a_long_update_does_not_put_off_saving(tmp_path: Path) -> None:
    """Updates between log lines may take minutes; what counts is the clock."""
    run = trainer(tmp_path)
    run._job = replace(run._job, save_minutes=0.0, log_every=1000)
    saved, save = [], run._save

    def counted() -> Path:
        saved.append(run.update)
        return save()

    run._save = counted
    run.run(stop_at=3)
    assert saved == [1, 2, 3, 3]


def test_a_full_disk_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A save in the middle waits; that at the end fails with its reason, and old files stay."""
    monkeypatch.setattr(checkpoint, "PATIENCE_SECONDS", 0.0)
    trainer(tmp_path).run(stop_at=5)
    watcher = Quiet()
    run = trainer(tmp_path, resume=True, watcher=watcher)
    run._job = replace(run._job, save_minutes=0.0)
    with full_disk(20_000), pytest.raises(OutputError, match="cannot be written"):
        run.run()
    assert run.update == FAST.updates
    assert sum("Training goes on" in message for message in caplog.messages) == 1
    assert [status.update for status in watcher.statuses] == [6, 10, 15, 20]  # a save was due at 6 alone
    assert load_checkpoint(tmp_path / "run" / LAST).update == 5
    assert not list((tmp_path / "run").glob(".*"))


def test_the_last_save_waits_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Room is made when the message asks for it."""
    monkeypatch.setattr(checkpoint, "RETRY_SECONDS", 0.01)
    made = ExitStack()

    class Helpful(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "Make room" in record.getMessage():
                made.close()

    monkeypatch.setattr(checkpoint._log, "handlers", [Helpful()])
    run = trainer(tmp_path)
    with made:
        made.enter_context(full_disk(20_000))
        path = run.run()
    assert load_checkpoint(path).update == FAST.updates
    assert sum("Make room" in message for message in caplog.messages) == 1


def test_each_full_disk_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Saves every 5 minutes; between two of them the disk is full for a minute."""
    clock, tried = [0.0], list[float]()
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: clock[0])
    schedule = checkpoint.SaveSchedule(5.0)

    def save() -> Path:
        tried.append(clock[0])
        if 300 <= clock[0] < 360 or clock[0] > 600:
            raise OutputError("Full.")
        return Path()

    for second in range(700):
        clock[0] = float(second)
        if schedule.due():
            schedule.attempt(save)
    assert tried == [301, 332, 363, 664, 695]
    assert [message.split()[0] for message in caplog.messages] == ["Full.", "Full."]


def test_out_of_memory_names_what_to_lower() -> None:
    with pytest.raises(TrainingError, match="Memory ran out") as caught, memory_errors_explained(FAST):
        torch.empty(1 << 60, dtype=torch.uint8)
    assert "--batch (now 4) or --patch (now 8)" in caught.value.hint
    with pytest.raises(TrainingError, match="Memory ran out"), memory_errors_explained(FAST):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    with pytest.raises(RuntimeError, match="shapes differ"), memory_errors_explained(FAST):
        raise RuntimeError("shapes differ")


def test_more_processes_than_gpus_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(UsageError, match="no device cuda:3 here") as caught:
        find_device("cuda")
    assert "--gpus 1" in caught.value.hint


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_that_cannot_be_written_costs_no_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.csv").symlink_to("/dev/full")
    assert load_checkpoint(trainer(tmp_path).run()).update == FAST.updates
    assert len(caplog.messages) == 1
    assert "No space left on device" in caplog.messages[0]


def test_a_nonfinite_loss_names_update_and_saves_patches(tmp_path: Path) -> None:
    good = trainer(tmp_path).run(stop_at=5)
    run = trainer(tmp_path, resume=True)
    run.run(stop_at=7)
    with torch.no_grad():
        run.network.tail.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"loss is not finite at update 8 \(x2\)"):
        run.run()
    assert load_checkpoint(good).update == 7
    patches = read(tmp_path / "run" / "update-8.png").pixels
    assert patches.shape == (FAST.patch, FAST.batch * FAST.patch, 3)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """The loss of an update is that of the weights before it: the last one can break them unseen."""
    run = trainer(tmp_path)
    run.run(stop_at=5)
    step = run._optimizer.step

    def break_weights(rate: float, graph: int | None) -> None:
        step(rate, graph)
        with torch.no_grad():
            run.network.tail.bias.fill_(float("inf"))

    run._optimizer.step = break_weights
    with pytest.raises(TrainingError, match="network is not finite at update 6"):
        run.run(stop_at=6)
    assert load_checkpoint(tmp_path / "run" / LAST).update == 5


def test_a_damaged_log_is_mended(tmp_path: Path) -> None:
    trainer(tmp_path).run(stop_at=10)
    log = tmp_path / "run" / "log.csv"
    before = log.read_text().splitlines()
    log.write_bytes(log.read_bytes() + b"\n\x00\x00\x00")
    trainer(tmp_path, resume=True).run(stop_at=15)
    after = log.read_text().splitlines()
    assert after[: len(before)] == before
    assert after[len(before)].startswith("15,")
    log.write_text("")
    trainer(tmp_path, resume=True).run(stop_at=20)
    assert log.read_text().startswith("update,seconds,")
