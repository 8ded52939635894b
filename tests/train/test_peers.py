"""Two processes that share each minibatch end where one process ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import folder_of_pictures

from srcli.errors import UsageError
from srcli_train.checkpoint import load_checkpoint
from srcli_train.peers import Peers


def _train(tmp_path: Path, out: str, launcher: list[str]) -> dict[str, torch.Tensor]:
    options = ["--model", "edsr-baseline", "-s", "2", "--recipe", "fast", "--precision", "fp32"]
    numbers = ["--updates", "3", "--batch", "4", "--patch", "8", "--validate-every", "100"]
    places = ["-o", str(tmp_path / out), "--cache", str(tmp_path / "cache")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*launcher, "train", str(tmp_path / "hr"), *options, *numbers, *places]
    subprocess.run(command, check=True, capture_output=True, env=environment, timeout=300)
    return load_checkpoint(tmp_path / out / "last.pt").weights


def test_two_processes_train_the_same_network_as_one(tmp_path: Path) -> None:
    """Averaging sums in another order: float32 leaves differences of 1e-7 of values around 0.1.

    Muon's Newton-Schulz steps run in bf16 and amplify them, hence the tolerance of 1% of an update's size.
    """
    folder_of_pictures(tmp_path / "hr", 4)
    srcli = str(Path(sys.executable).with_name("srcli"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    one = _train(tmp_path, "one", [srcli])
    two = _train(tmp_path, "two", [*torchrun, "--no-python", srcli])
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=5e-5, msg=name)


def test_shares_are_equal_or_refused() -> None:
    peers = Peers(torch.device("cpu"))
    assert range(4)[peers.share(4)] == range(4)
    peers.rank, peers.size = 1, 2
    assert list(range(4)[peers.share(4)]) == [1, 3]
    with pytest.raises(UsageError, match="2 processes cannot share a minibatch of 5"):
        peers.share(5)
