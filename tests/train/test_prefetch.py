"""Results drawn ahead come in order, by threads and by processes, and end with their iterator."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_patches_device import pictures_of_sizes
from tiny_training import FAST

from srcli_train import prefetch
from srcli_train.patches import PatchSampler
from srcli_train.prefetch import drawn_by_threads

CASES = Path(__file__).with_name("prefetch_cases.py")


def test_processes_that_draw() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:faulthandler", "-p", "no:cacheprovider", str(CASES)]
    run = subprocess.run(command, cwd=CASES.parents[2], capture_output=True, text=True, timeout=3000)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("patches")]


@pytest.mark.parametrize("degradation", ["photo", "unknown"])
def test_several_threads_draw_the_same_minibatches_in_order(degradation: str) -> None:
    """Degraded LR draws from generators of its own, so that no thread takes another's numbers."""
    sampler = PatchSampler(pictures_of_sizes(), replace(FAST, patch=10, degradation=degradation))
    for update, minibatch in enumerate(drawn_by_threads(sampler, range(9), workers=3)):
        expected = sampler(update)
        np.testing.assert_array_equal(minibatch.lr, expected.lr)
        np.testing.assert_array_equal(minibatch.hr, expected.hr)
    assert update == 8
    assert not _threads()


def test_results_come_in_order_after_a_slow_thread() -> None:
    """The first update is drawn last: the others wait for it, all three at once, and not too far ahead."""
    others, started = threading.Barrier(3, timeout=600), list[int]()
    fourth = threading.Event()

    def draw(update: int) -> int:
        started.append(update)
        if update < 3:
            others.wait()  # breaks if three threads are not there
        if update == 0:
            assert fourth.wait(600)
        if update == 3:
            fourth.set()
        return update

    ahead: Iterator[int] = drawn_by_threads(draw, range(100), workers=3)
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert max(started) <= 4 + 6, "two a thread, and one more asked for with each that was taken"
    ahead.close()  # type: ignore[attr-defined]
    assert not _threads(), "they end with the iterator"
    assert len(started) <= 11


def test_an_error_in_a_thread_ends_all_in_turn() -> None:
    def draw(update: int) -> int:
        if update >= 2:
            raise ValueError(f"update {update}")
        return update

    ahead = drawn_by_threads(draw, range(9), workers=3)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="update 2"):
        next(ahead)
    assert not _threads()


def test_workers_leave_a_core_to_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "cores", lambda: 6)
    assert prefetch._workers(torch.device("cpu")) == 1
    assert prefetch._workers(torch.device("cuda")) == 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert prefetch._workers(torch.device("cuda")) == 1
    monkeypatch.setattr(prefetch, "cores", lambda: 128)
    assert prefetch._workers(torch.device("cuda")) == 8
