"""Blends of patches: half or more of a patch is its own, and LR stays the LR of HR."""

from dataclasses import replace

import numpy as np
import skimage.data

from srcli.resize import downscale
from srcli_train.degradations import of_image, of_patch
from srcli_train.mixing import blended, of_blend
from srcli_train.patches import Minibatch
from srcli_train.recipes import RECIPES

RECIPE = replace(RECIPES["fast"], mixup=1.0)


def minibatch() -> Minibatch:
    photo = skimage.data.astronaut() // 2 + 64  # no overshoot of the bicubic is clipped, which is not linear
    hr = np.stack([photo[top : top + 48, 100:148] for top in (0, 60, 120, 180)])
    return Minibatch(2, np.stack([downscale(patch, 2) for patch in hr]), hr)


def test_lr_of_a_blend_is_the_blend_of_lr() -> None:
    mixed = blended(minibatch(), RECIPE, 3)
    for lr, hr in zip(mixed.lr.numpy(), mixed.hr.numpy(), strict=True):
        # HR is rounded once and its bicubic twice, the blend of LR once after two more: 2 levels at most
        assert np.abs(downscale(hr, 2).astype(int) - lr).max() <= 2


def test_a_patch_is_mostly_itself_and_partly_the_one_before() -> None:
    before, after = minibatch(), blended(minibatch(), RECIPE, 3)
    for number, patch in enumerate(after.hr.numpy().astype(float)):
        own, other = before.hr[number].astype(float), before.hr[number - 1].astype(float)
        apart = ((patch - other) * (own - other)).sum() / ((own - other) ** 2).sum()
        assert 0.5 <= round(apart, 3) <= 1
        np.testing.assert_allclose(patch, other + apart * (own - other), atol=0.6)


def test_blends_draw_from_a_stream_of_their_own() -> None:
    own = of_blend(1, 3).random(8)
    others = [of_patch(1, 3, patch) for patch in range(4)]
    others += [of_image(1, 3), np.random.default_rng((1, 3))]
    assert all((own != other.random(8)).all() for other in others)


def test_the_share_says_how_many_and_the_update_which() -> None:
    untouched = blended(minibatch(), replace(RECIPE, mixup=0.0), 3)
    np.testing.assert_array_equal(untouched.hr.numpy(), minibatch().hr)
    same, again, later = (blended(minibatch(), RECIPE, update).hr.numpy() for update in (3, 3, 4))
    np.testing.assert_array_equal(same, again)
    assert (same != later).any()
    half = replace(RECIPE, mixup=0.5)
    changed = [
        (blended(minibatch(), half, update).hr.numpy() != minibatch().hr).any(axis=(1, 2, 3)).mean()
        for update in range(50)
    ]
    assert 0.35 < np.mean(changed) < 0.65, "200 draws: four deviations are 0.14"
