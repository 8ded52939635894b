"""Rendered training pictures: repeatable, varied, and drawn as often as the recipe says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny_training import FAST, tiny_pictures

from srcli.resize import downscale
from srcli_train.data import Pictures, with_rendered
from srcli_train.patches import PatchSampler
from srcli_train.rendered import SIDE, render


def test_a_number_gives_the_same_picture_and_another_one_another() -> None:
    one, other = render(3), render(4)
    assert one.shape == (SIDE, SIDE, 3)
    assert one.dtype == np.uint8
    np.testing.assert_array_equal(one, render(3))
    assert np.abs(one.astype(int) - other).mean() > 5
    assert not np.array_equal(one, render(3, seed=1))


def test_edges_are_antialiased() -> None:
    """Shrunk by four, a step spreads over two pixels at least: nothing jumps over the whole range alone."""
    columns = [np.diff(render(n)[..., 1].astype(int), axis=1) for n in range(4)]
    steps = np.concatenate([c.ravel() for c in columns])
    assert (np.abs(steps) > 40).any()
    assert np.abs(steps[np.abs(steps) > 40]).mean() < 120


def test_rendered_pictures_follow_with_their_own_lr(tmp_path: Path) -> None:
    pictures = with_rendered(tiny_pictures(tmp_path, (2, 3)), 2, seed=0)
    assert (len(pictures.hr), pictures.rendered) == (6, 2)
    np.testing.assert_array_equal(pictures.lr[3][-1], downscale(render(1), 3))


def test_the_recipe_decides_how_often_they_are_drawn() -> None:
    """Photographs are black here, so that a patch tells where it is from: 50 of 200, ± 6 by chance."""
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    photographs = Pictures([black] * 9, {2: [downscale(black, 2)] * 9})
    pictures = with_rendered(photographs, 1, seed=0)

    def drawn(share: float) -> int:
        sampler = PatchSampler(pictures, replace(FAST, batch=200, patch=16, rendered=share))
        return int((sampler(0).lr.reshape(200, -1).max(1) > 0).sum())

    assert drawn(0.0) == 0
    assert 30 < drawn(0.25) < 70
    assert drawn(1.0) == 200
