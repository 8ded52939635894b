"""MixUp for super-resolution: a patch blended with another of its minibatch, LR and HR alike.

Downscaling is linear, so the blend of two LR patches is the LR of the blended HR, but for rounding.
(CutBlur, which pastes HR into an upscaled input, needs input of the output's size; these networks take LR.)
"""

import numpy as np
import torch
from torch import Tensor

from srcli_train.ondevice import DeviceMinibatch
from srcli_train.patches import Minibatch
from srcli_train.recipes import Recipe


def blended(minibatch: Minibatch | DeviceMinibatch, recipe: Recipe, update: int) -> DeviceMinibatch:
    """The minibatch with the recipe's share of patches blended, each with the one before it.

    A blended patch is at least half its own. The same update is blended in the same way every time.
    """
    draw = of_blend(recipe.seed, update)
    count = len(minibatch.lr)
    own = np.where(draw.random(count) < recipe.mixup, draw.uniform(0.5, 1, count), 1.0)
    lr, hr = torch.as_tensor(minibatch.lr), torch.as_tensor(minibatch.hr)
    weights = torch.from_numpy(own.astype(np.float32)).to(lr.device)[:, None, None, None]
    return DeviceMinibatch(minibatch.scale, _blend(lr, weights), _blend(hr, weights))


def of_blend(seed: int, update: int) -> np.random.Generator:
    """Apart from the generators of the patches' places and of their degradations, whose keys differ."""
    return np.random.default_rng((seed, update, 0, 2))


def _blend(patches: Tensor, own: Tensor) -> Tensor:
    """(N, H, W, 3) uint8, and how much of each is its own, (N, 1, 1, 1) 0-1."""
    values = patches.float()
    return values.roll(1, 0).lerp(values, own).round_().to(torch.uint8)
