"""Two ranks that share each minibatch end where one process ends, and fail or stop together."""

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny_training import folder_of_pictures
from torch import nn

from srcli.cli.app import main
from srcli.errors import ExitCode, TrainingError, UsageError
from srcli_train.checkpoint import Checkpoint, load_checkpoint
from srcli_train.ranks import Ranks

SRCLI = (sys.executable, "-m", "srcli")
CPU = torch.device("cpu")
HANGS = 3000.0
"""Seconds after which a process must be hanging, on however busy a machine."""


EDSR = ("--model", "edsr-baseline", "-s", "2")


def _arguments(tmp_path: Path, out: str, *more: str) -> list[str]:
    options = ["--device", "cpu", "--recipe", "fast", "--precision", "fp32", "--validate-every", "100000"]
    tiny = ["--batch", "4", "--patch", "8", "--set", "network.blocks=2", "--set", "network.features=8"]
    places = ["-o", str(tmp_path / out), "--cache", str(tmp_path / "cache")]
    return ["train", str(tmp_path / "hr"), *options, *tiny, *places, *more]


def _start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    return subprocess.Popen([*SRCLI, *arguments], stderr=subprocess.PIPE, text=True, env=environment)


def _end(process: subprocess.Popen[str], code: int) -> str:
    """What it has said, once it has ended as it should."""
    output = process.communicate(timeout=HANGS)[1]
    assert process.returncode == code, output
    assert "Traceback" not in output
    return output


def _last(tmp_path: Path, out: str) -> Checkpoint:
    return load_checkpoint(tmp_path / out / "last.pt")


def _assert_same(one: Checkpoint, two: Checkpoint, start: dict[str, torch.Tensor]) -> None:
    """Averaging sums in another order, which leaves differences of 1e-7 of gradients and weights.

    Muon's Newton-Schulz steps run in bf16 and amplify them: 1% of the way that each weight has gone.
    """
    assert one.update == two.update
    for weights, others in ((one.weights, two.weights), (one.trained, two.trained)):
        assert weights.keys() == others.keys()
        for name, weight in weights.items():
            apart, moved = (others[name] - weight).norm(), (weight - start[name]).norm()
            assert apart <= 0.01 * moved, f"{name}: {apart} apart after {moved}"


def test_ranks_train_the_same_network_as_one_process(tmp_path: Path) -> None:
    folder_of_pictures(tmp_path / "hr", 4)
    numbers = (*EDSR, "--set", "updates=3")
    assert main(_arguments(tmp_path, "start", *numbers, "--minutes", "1e-6")) == 0
    assert main(_arguments(tmp_path, "one", *numbers)) == 0
    output = _end(_start(_arguments(tmp_path, "two", *numbers, "--gpus", "2")), ExitCode.OK)
    assert output.count("Trained.") == 1
    _assert_same(_last(tmp_path, "one"), _last(tmp_path, "two"), _last(tmp_path, "start").weights)


def _on_two_machines(tmp_path: Path, *more: str) -> None:
    """As torchrun starts them on machines that share no folder: `first` and `second` are theirs."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        where = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    folders = ("first", "second")
    machines = [
        _start(_arguments(tmp_path, out, *more), RANK=str(rank), **where) for rank, out in enumerate(folders)
    ]
    for machine in machines:
        _end(machine, ExitCode.OK)


def test_two_machines_resume_from_the_first_ones_checkpoint(tmp_path: Path) -> None:
    """MDSR, centred Muon's mean inputs and an EMA of the weights, which only the first machine holds."""
    folder_of_pictures(tmp_path / "hr", 4)
    assert main(_arguments(tmp_path, "zero", "--model", "mdsr-baseline", "--minutes", "1e-6")) == 0
    settings = (
        "updates=4",
        "muon_centred=true",
        "ema=0.9",
        "warmup=0",
    )
    options = ["--model", "mdsr-baseline", *(text for s in settings for text in ("--set", s))]
    init = ("--init", str(tmp_path / "zero" / "last.pt"))
    assert main(_arguments(tmp_path, "first", *options, *init, "--minutes", "1e-6")) == 0
    start = _last(tmp_path, "first")
    assert start.update == 1
    shutil.copytree(tmp_path / "first", tmp_path / "one")
    go_on = (*options, "--minutes", "0", "--resume")
    assert main(_arguments(tmp_path, "one", *go_on)) == 0
    _on_two_machines(tmp_path, *go_on)
    _assert_same(_last(tmp_path, "one"), _last(tmp_path, "first"), start.trained)
    assert not list((tmp_path / "second").glob("*")), "only the first rank writes"


@pytest.mark.parametrize(
    ("options", "pictures", "code", "why"),
    [
        (EDSR, 0, ExitCode.FAILED, "hr"),
        (("--model", "srresnet", "-s", "2"), 4, ExitCode.USAGE, "batch norm"),
        ((*EDSR, "--batch", "3"), 4, ExitCode.USAGE, "cannot share a minibatch of 3"),
        ((*EDSR, "--device", "cuda"), 4, ExitCode.USAGE, "2 processes need a GPU each, and there are 1"),
        ((*EDSR, "--device", "cuda:0"), 4, ExitCode.USAGE, "cannot share cuda:0"),
    ],
)
def test_a_wrong_job_starts_no_process(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    pictures: int,
    code: int,
    why: str,
) -> None:
    folder_of_pictures(tmp_path / "hr", pictures)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("srcli_train.ranks.launch", lambda *arguments: pytest.fail("processes were started"))
    assert main(_arguments(tmp_path, "none", *options, "--gpus", "2")) == code
    output = capsys.readouterr().err
    assert output.count("error:") == 1
    assert why in output


def _updates(log: Path) -> list[int]:
    if not log.is_file():
        return []
    with log.open(newline="") as file:
        return [int(row["update"]) for row in csv.DictReader(file)]


def _started(tmp_path: Path, out: str, *more: str, after: int = 0) -> subprocess.Popen[str]:
    """A run of two ranks that lasts, once it has logged an update later than `after`."""
    process = _start(_arguments(tmp_path, out, *LONG, *more, "--gpus", "2"))
    end = time.monotonic() + HANGS
    while max(_updates(tmp_path / out / "log.csv"), default=0) <= after:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.1)
    return process


LONG = (*EDSR, "--set", "updates=10000000")


def _members(tmp_path: Path, out: str) -> list[int]:
    """Process numbers of the two ranks, by command line and the launcher's mark."""
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
def test_a_stop_saves_and_a_kill_loses_nothing_saved(tmp_path: Path) -> None:
    """Stopped, gone on, killed, and gone on by one process."""
    folder_of_pictures(tmp_path / "hr", 4)
    process = _started(tmp_path, "run")
    process.send_signal(signal.SIGINT)
    output = _end(process, ExitCode.INTERRUPTED)
    assert output.count("go on with the same command and --resume") == 1
    left = _last(tmp_path, "run")
    assert left.update >= 50  # updates between log lines

    process = _started(tmp_path, "run", "--resume", after=left.update)
    members = _members(tmp_path, "run")
    assert len(members) == 2
    os.kill(members[1], signal.SIGKILL)
    output = _end(process, ExitCode.FAILED)
    assert "killed by signal 9" in output or "does not reach the others" in output

    # The same recipe with 6 ms of training left: one update is begun, and no more than fit.
    minutes = str(left.seconds / 60 + 1e-4)
    assert main(_arguments(tmp_path, "run", *LONG, "--minutes", minutes, "--resume")) == 0
    assert left.update < _last(tmp_path, "run").update < left.update + 50


def _gone(*arguments: object) -> None:
    raise RuntimeError("Connection closed by peer [127.0.0.1]:29500")


@pytest.fixture
def pair() -> Ranks:
    """The first of two ranks, without the other."""
    ranks = Ranks(CPU)
    ranks.size = 2
    return ranks


def test_a_loss_does_not_keep_the_gradients_alive(pair: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses wait for the next log line, dozens of updates later."""
    monkeypatch.setattr(dist, "all_reduce", lambda flat: flat[:-2].mul_(2))
    weight = nn.Parameter(torch.ones(1000))
    weight.grad = torch.full((1000,), 3.0)
    agreed = pair.average([weight], torch.tensor(5.0), 0.25, stop=True)
    assert (float(agreed.loss), agreed.progress, agreed.stop) == (5.0, 0.25, True)
    assert (weight.grad == 3).all()
    assert agreed.loss.untyped_storage().nbytes() == 4


def test_a_lost_rank_is_an_error_in_every_exchange(pair: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("all_reduce", "broadcast_object_list"):
        monkeypatch.setattr(dist, name, _gone)
    loss = torch.tensor(1.0)
    for exchange in (
        lambda: pair.average([], loss, 0.5, stop=False),
        lambda: pair.from_first(lambda: 1),
    ):
        with pytest.raises(TrainingError, match=r"does not reach the others \(Connection closed by peer"):
            exchange()


def test_ranks_without_an_address_of_the_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(TrainingError, match=r"Process 1 of 2 does not reach the others .*MASTER_ADDR"):
        Ranks(CPU)


def test_an_error_in_the_first_rank_reaches_all(pair: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[object] = []
    monkeypatch.setattr(dist, "broadcast_object_list", lambda said, source: sent.extend(said))

    def refuse() -> int:
        raise TrainingError("No checkpoint.", "Start anew.")

    with pytest.raises(TrainingError, match="No checkpoint"):
        pair.from_first(refuse)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(dist, "broadcast_object_list", lambda said, source: said.__setitem__(0, sent[0]))
    with pytest.raises(TrainingError, match="No checkpoint") as caught:
        pair.from_first(lambda: pytest.fail("only the first rank works"))
    assert caught.value.hint == "Start anew."


def test_shares_are_equal_or_refused() -> None:
    ranks = Ranks(CPU)
    assert range(4)[ranks.share(4)] == range(4)
    ranks.rank, ranks.size = 1, 2
    assert list(range(4)[ranks.share(4)]) == [1, 3]
    with pytest.raises(UsageError, match="2 processes cannot share a minibatch of 5"):
        ranks.share(5)
