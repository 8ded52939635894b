"""Processes that draw: the sampler's minibatches in order, and whatever ends them loses nothing.

Run by test_prefetch.py in a Python of their own: PyTorch answers the end of every child from then on, and a
signal in a process that has loaded as much as the whole suite may find too small a stack, as pytest's
faulthandler gives it one.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_patches_device import pictures_of_sizes
from tiny_training import FAST

from srcli.errors import Interrupt, TrainingError
from srcli_train import prefetch
from srcli_train.checkpoint import load_checkpoint
from srcli_train.patches import PatchSampler
from srcli_train.prefetch import drawn_by_processes

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="the system does not fork"
)


@pytest.mark.parametrize("degradation", ["bicubic", "photo"])
def test_several_processes_draw_the_same_minibatches_in_order(degradation: str) -> None:
    sampler = PatchSampler(pictures_of_sizes(), replace(FAST, patch=10, degradation=degradation))
    before = torch.get_rng_state()
    ahead = drawn_by_processes(sampler, range(3, 14), workers=3)
    for update in range(3, 12):
        expected, minibatch = sampler(update), next(ahead)
        assert minibatch.scale == expected.scale
        np.testing.assert_array_equal(minibatch.lr, expected.lr)
        np.testing.assert_array_equal(minibatch.hr, expected.hr)
    assert len(multiprocessing.active_children()) == 3
    ahead.close()
    assert not multiprocessing.active_children(), "they end with the iterator"
    assert torch.equal(torch.get_rng_state(), before)


def test_an_error_in_a_process_ends_all_in_turn() -> None:
    def draw(update: int) -> int:
        if update >= 2:
            raise ValueError(f"update {update}")
        return update

    ahead = drawn_by_processes(draw, range(9), workers=3)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="update 2"):
        next(ahead)
    assert not multiprocessing.active_children()


def test_processes_that_draw_ignore_ctrl_c() -> None:
    """A terminal sends it to all; those that draw go on until the one that trains has saved."""

    def handlers(update: int) -> tuple[object, object]:
        return signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    with Interrupt():
        assert next(drawn_by_processes(handlers, range(1), workers=1)) == (signal.SIG_IGN, signal.SIG_DFL)


def test_an_error_in_a_process_keeps_its_words() -> None:
    """PyTorch would put its own before them, and drop the hint."""

    def draw(update: int) -> int:
        raise TrainingError("a.png: damaged.", "Remove it.")

    with pytest.raises(TrainingError) as raised:
        next(drawn_by_processes(draw, range(2), workers=1))
    assert (raised.value.message, raised.value.hint) == ("a.png: damaged.", "Remove it.")


def test_a_process_that_is_killed_is_said() -> None:
    def draw(update: int) -> int:
        if update == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return update

    with pytest.raises(TrainingError, match="A process that draws patches is gone") as raised:
        list(drawn_by_processes(draw, range(9), workers=2))
    assert "--resume" in raised.value.hint
    assert not multiprocessing.active_children()


def test_opencv_keeps_its_threads_in_the_parent() -> None:
    before = cv2.getNumThreads()
    coming = drawn_by_processes(lambda update: cv2.getNumThreads(), range(1), workers=1)
    assert next(coming) == 1
    coming.close()
    assert cv2.getNumThreads() == before


ENDLESS = """
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from tiny_training import FAST, trainer
from srcli_train.prefetch import drawn_by_processes

run = trainer(Path(sys.argv[1]), recipe=replace(FAST, updates=10**7))
run._minibatches = partial(drawn_by_processes, run._sampler, workers=2)
run._watcher.status = lambda status: print("trains", flush=True)
try:
    run.run()
except KeyboardInterrupt:
    print("saved")
"""


def test_ending_the_whole_group_saves(tmp_path: Path) -> None:
    """As `timeout` and launchers end a run: those that draw get the signal as well."""
    here = Path(__file__).parent
    paths = [str(here), *(str(here.parents[1] / part) for part in ("", "train", "export"))]
    run = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "trains\n"
    os.killpg(run.pid, signal.SIGTERM)
    said, wrong = run.communicate(timeout=600)
    assert (run.returncode, said.splitlines()[-1]) == (0, "saved"), wrong
    assert "Traceback" not in wrong
    assert load_checkpoint(tmp_path / "run" / "last.pt").update > 0


def test_processes_draw_for_a_gpu_where_forking_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "cores", lambda: 4)
    drawn = prefetch.prefetch(lambda update: os.getpid(), torch.device("cuda"))(range(12))
    assert os.getpid() not in set(drawn)
    assert set(prefetch.prefetch(lambda update: os.getpid(), torch.device("cpu"))(range(3))) == {os.getpid()}
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    assert set(prefetch.prefetch(lambda update: os.getpid(), torch.device("cuda"))(range(3))) == {os.getpid()}
