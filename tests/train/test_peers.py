"""Two processes that share each minibatch end where one process ends, and fail or stop together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_training import folder_of_pictures

from srcli.errors import ExitCode, UsageError
from srcli_train.checkpoint import load_checkpoint
from srcli_train.peers import Peers

SRCLI = (sys.executable, "-m", "srcli")


def _command(tmp_path: Path, out: str, *more: str) -> list[str]:
    options = ["--model", "edsr-baseline", "-s", "2", "--recipe", "fast", "--precision", "fp32"]
    numbers = ["--batch", "4", "--patch", "8", "--validate-every", "100000"]
    places = ["-o", str(tmp_path / out), "--cache", str(tmp_path / "cache")]
    return [*SRCLI, "train", str(tmp_path / "hr"), *options, *numbers, *places, *more]


def _run(command: list[str], code: int = 0) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


def _weights(tmp_path: Path, out: str) -> dict[str, torch.Tensor]:
    return load_checkpoint(tmp_path / out / "last.pt").weights


def test_processes_train_the_same_network_as_one_and_take_over_from_each_other(tmp_path: Path) -> None:
    """Averaging sums in another order: float32 leaves differences of 1e-7 of values around 0.1.

    Muon's Newton-Schulz steps run in bf16 and amplify them, hence the tolerance of 1% of an update's size.
    """
    folder_of_pictures(tmp_path / "hr", 4)
    run = ("--set", "updates=3", "--minutes", "0")
    _run(_command(tmp_path, "one", *run))
    talk = _run(_command(tmp_path, "two", *run, "--gpus", "2"))
    assert talk.count("Trained.") == 1
    two = _weights(tmp_path, "two")
    for name, weight in _weights(tmp_path, "one").items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=5e-5, msg=name)


def test_a_wrong_request_is_refused_once_and_starts_no_process(tmp_path: Path) -> None:
    talk = _run(_command(tmp_path, "none", "--gpus", "2"), code=ExitCode.FAILED)
    assert talk.count("error:") == 1
    assert str(tmp_path / "hr") in talk


def _started(tmp_path: Path, out: str) -> subprocess.Popen[str]:
    """A run of two processes that lasts, once it has written its first log line."""
    command = _command(tmp_path, out, "--set", "updates=100000", "--gpus", "2")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    log, end = tmp_path / out / "log.csv", time.monotonic() + 200
    while not (log.is_file() and len(log.read_text().splitlines()) > 1):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.2)
    return process


def _members(tmp_path: Path, out: str) -> list[int]:
    """Process numbers of the two that train, by command line and the launcher's mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text()
            launched = "TORCHELASTIC_RUN_ID" in (folder / "environ").read_text(errors="replace")
        except OSError:  # it has gone, or is not ours
            continue
        if str(tmp_path / out) in command and launched:
            found.append(int(folder.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_stop_ends_all_at_the_same_update_and_one_process_goes_on(tmp_path: Path) -> None:
    folder_of_pictures(tmp_path / "hr", 4)
    process = _started(tmp_path, "run")
    process.send_signal(signal.SIGINT)
    talk = process.communicate(timeout=200)[1]
    assert process.returncode == ExitCode.INTERRUPTED, talk
    assert talk.count("go on with the same command and --resume") == 1
    assert "Traceback" not in talk
    left = load_checkpoint(tmp_path / "run" / "last.pt")
    assert left.update >= 50  # updates between log lines
    # The recipe is the same, its end 6 ms of training away; so the next run stops after its first update.
    minutes = str(left.seconds / 60 + 1e-4)
    _run(_command(tmp_path, "run", "--set", "updates=100000", "--minutes", minutes, "--resume"))
    assert load_checkpoint(tmp_path / "run" / "last.pt").update == left.update + 1


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_process_that_dies_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    folder_of_pictures(tmp_path / "hr", 4)
    process = _started(tmp_path, "run")
    members = _members(tmp_path, "run")
    assert len(members) == 2
    os.kill(members[1], signal.SIGKILL)
    talk = process.communicate(timeout=200)[1]
    assert process.returncode == ExitCode.FAILED, talk
    assert "killed by signal 9" in talk or "lost another one" in talk
    assert "Traceback" not in talk


def test_shares_are_equal_or_refused() -> None:
    peers = Peers(torch.device("cpu"))
    assert range(4)[peers.share(4)] == range(4)
    peers.rank, peers.size = 1, 2
    assert list(range(4)[peers.share(4)]) == [1, 3]
    with pytest.raises(UsageError, match="2 processes cannot share a minibatch of 5"):
        peers.share(5)
