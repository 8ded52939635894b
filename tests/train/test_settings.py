"""Settings: what can be changed from outside, and what is refused."""

import pytest

from srcli.errors import UsageError
from srcli_train.networks import preset
from srcli_train.recipes import Recipe
from srcli_train.settings import changed


def test_fields_take_values_of_their_own_kind() -> None:
    settings = ["patch=32", "flip=false", "betas=[0.8, 0.9]", "clip=1", "optimizer=muon"]
    recipe = changed(Recipe(), settings)
    assert (recipe.patch, recipe.flip, recipe.betas) == (32, False, (0.8, 0.9))
    assert isinstance(recipe.clip, float)
    assert recipe.optimizer == "muon"
    assert recipe.lr == Recipe().lr


@pytest.mark.parametrize(
    "setting",
    ["depth=3", "patch=a", "patch=3.5", "flip=1", "patch", "__init__=1", "lr=-1", "warmup=-5", "betas=[0.9]"],
)
def test_other_settings_are_refused(setting: str) -> None:
    with pytest.raises(UsageError):
        changed(Recipe(), [setting])


def test_networks_can_be_changed_too() -> None:
    assert changed(preset("edsr", 2), ["residual_scale=1"]).residual_scale == 1.0


@pytest.mark.parametrize(
    "setting", ["family=resnet", "blocks=0", "scales=[5]", "scales=[2,3]", "residual_scale=0"]
)
def test_networks_that_cannot_be_built_are_refused(setting: str) -> None:
    with pytest.raises(UsageError):
        changed(preset("edsr", 2), [setting])
