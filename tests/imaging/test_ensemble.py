import numpy as np
import pytest

from srcli.imaging import pixels
from srcli.imaging.pixels import Batch


def lr_batch() -> Batch:
    return np.random.default_rng(0).random((1, 3, 5, 7), np.float32)


@pytest.mark.parametrize("transform", pixels.TRANSFORMS)
def test_invert_undoes_apply(transform: int) -> None:
    x = lr_batch()
    assert np.array_equal(pixels.restored(pixels.transformed(x, transform), transform), x)


def test_the_eight_are_different() -> None:
    x = np.random.default_rng(1).random((1, 1, 4, 4), np.float32)
    seen = {pixels.transformed(x, transform).tobytes() for transform in pixels.TRANSFORMS}
    assert len(seen) == 8


def test_identity_network() -> None:
    """Eight equal float32 values: their sum and its eighth are exact in binary but for seven additions."""
    x = lr_batch()
    assert np.abs(pixels.run_ensemble(lambda batch: batch, x) - x).max() < 1e-6


def test_result_is_equivariant() -> None:
    """Whatever the network, flipping the input flips the ensemble's output (up to the order of sums)."""
    weights = np.random.default_rng(2).random((5, 7)).astype(np.float32)

    def run(batch: Batch) -> Batch:
        return batch * (weights if batch.shape[2:] == (5, 7) else weights.T)

    x = lr_batch()
    for transform in (1, 2, 3):
        once = pixels.run_ensemble(run, np.ascontiguousarray(pixels.transformed(x, transform)))
        assert np.abs(pixels.restored(once, transform) - pixels.run_ensemble(run, x)).max() < 1e-6


def test_runs_may_reuse_their_buffer() -> None:
    buffer = np.empty((1, 3, 6, 6), np.float32)

    def run(batch: Batch) -> Batch:
        buffer[...] = batch
        return buffer

    x = np.random.default_rng(3).random((1, 3, 6, 6), np.float32)
    assert np.abs(pixels.run_ensemble(run, x) - x).max() < 1e-6
