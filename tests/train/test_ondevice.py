"""Patches cut on the device, or drawn by threads or processes, are the sampler's, byte by byte."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import FAST, rendered, trainer

from srcli.imaging.resize import downscale, modcrop
from srcli_train import ondevice
from srcli_train.data import Pictures
from srcli_train.ondevice import DevicePatches
from srcli_train.patches import PatchSampler, prefetched


def _pictures() -> Pictures:
    """Of different sizes, none of them square."""
    hr = [np.ascontiguousarray(rendered(n, 120)[: 90 + 7 * n, : 118 - 5 * n]) for n in range(4)]
    lr = {s: [np.asarray(downscale(modcrop(i, s), s), np.uint8) for i in hr] for s in (2, 3, 4)}
    return Pictures(hr, lr)


@pytest.mark.parametrize("changes", [{}, {"flip": False}, {"rotate": False}, {"candidates": 3}], ids=str)
def test_minibatches_equal_the_samplers(changes: dict[str, object]) -> None:
    recipe = replace(FAST, patch=10, batch=8, **changes)
    sampler, pictures = PatchSampler(_pictures(), recipe), _pictures()
    patches = DevicePatches(pictures, sampler, recipe.patch, torch.device("cpu"))
    scales = set()
    for update, minibatch in enumerate(patches(range(12))):
        expected = sampler(update)
        assert minibatch.scale == expected.scale
        np.testing.assert_array_equal(minibatch.lr.numpy(), expected.lr)
        np.testing.assert_array_equal(minibatch.hr.numpy(), expected.hr)
        scales.add(minibatch.scale)
    assert scales == {2, 3, 4}


def test_an_update_takes_them(tmp_path: Path) -> None:
    """The loss of the same update on arrays and on tensors is the same number."""
    one, other = trainer(tmp_path, run="one"), trainer(tmp_path, run="other")
    sampler = one._sampler
    patches = DevicePatches(sampler._pictures, sampler, FAST.patch, torch.device("cpu"))
    assert torch.equal(one._step(sampler(0)), other._step(next(iter(patches(range(1))))))


def _drawing() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("patches")]


@pytest.mark.parametrize("degradation", ["photo", "unknown"])
def test_several_threads_draw_the_same_minibatches_in_order(degradation: str) -> None:
    """Degraded LR draws from generators of its own, so that no thread takes another's numbers."""
    sampler = PatchSampler(_pictures(), replace(FAST, patch=10, degradation=degradation))
    for update, minibatch in enumerate(prefetched(sampler, range(9), workers=3)):
        expected = sampler(update)
        np.testing.assert_array_equal(minibatch.lr, expected.lr)
        np.testing.assert_array_equal(minibatch.hr, expected.hr)
    assert update == 8
    assert not _drawing()


def test_the_slowest_thread_does_not_lose_its_turn() -> None:
    """The first update is drawn last: the others wait for it, all three at once, and not too far ahead."""
    others, started = threading.Barrier(3, timeout=60), list[int]()

    def draw(update: int) -> int:
        started.append(update)
        if update < 3:
            others.wait()  # breaks if three threads are not there
        if update == 0:
            time.sleep(0.2)
        return update

    ahead: Iterator[int] = prefetched(draw, range(100), workers=3)
    assert [next(ahead) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert max(started) <= 4 + 6, "two a thread, and one more asked for with each that was taken"
    ahead.close()  # type: ignore[attr-defined]
    assert not _drawing(), "they end with the iterator"
    assert len(started) <= 11


def test_an_error_comes_in_its_turn_and_ends_the_threads() -> None:
    def draw(update: int) -> int:
        if update >= 2:
            raise ValueError(f"update {update}")
        return update

    ahead = prefetched(draw, range(9), workers=3)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(ValueError, match="update 2"):
        next(ahead)
    assert not _drawing()


def test_threads_that_draw_leave_training_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ondevice, "cores", lambda: 6)
    assert ondevice._workers(torch.device("cpu")) == 1
    assert ondevice._workers(torch.device("cuda")) == 5
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert ondevice._workers(torch.device("cuda")) == 1
    monkeypatch.setattr(ondevice, "cores", lambda: 128)
    assert ondevice._workers(torch.device("cuda")) == 8
