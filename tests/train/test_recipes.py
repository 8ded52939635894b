"""The paper's numbers, each schedule's rate, and what can be changed by name."""

from dataclasses import replace

import pytest

from srcli.errors import UsageError
from srcli_train.job import check_for_ranks, check_recipe, outline
from srcli_train.networks import PRESETS, preset
from srcli_train.recipes import RECIPES, Recipe, with_settings

PAPER = RECIPES["paper"]


def test_the_default_is_the_papers_section_4_2() -> None:
    assert Recipe() == PAPER
    assert (PAPER.batch, PAPER.patch, PAPER.updates, PAPER.loss) == (16, 48, 300_000, "l1")
    assert (PAPER.optimizer, PAPER.lr, PAPER.betas, PAPER.eps) == ("adam", 1e-4, (0.9, 0.999), 1e-8)
    assert (PAPER.flip, PAPER.rotate, PAPER.clip, PAPER.warmup, PAPER.ema) == (True, True, 0, 0, 0)
    assert [PAPER.rate(update, 0.0) for update in (0, 199_999, 200_000)] == [1, 1, 0.5]


def test_a_cosine_runs_on_progress_from_one_to_zero() -> None:
    cosine = replace(PAPER, schedule="cosine")
    assert [cosine.rate(7, progress) for progress in (0, 0.5, 1, 1.5)] == pytest.approx([1, 0.5, 0, 0])


def test_a_trapezoid_is_constant_and_then_falls_to_zero() -> None:
    trapezoid = replace(PAPER, schedule="trapezoid", fall=0.25)
    rates = [trapezoid.rate(7, progress) for progress in (0, 0.5, 0.75, 0.875, 1, 1.5)]
    assert rates == pytest.approx([1, 1, 1, 0.5, 0, 0])


def test_a_warm_up_is_linear_in_every_schedule() -> None:
    for schedule in ("step", "cosine", "trapezoid"):
        recipe = replace(PAPER, schedule=schedule, warmup=4)
        assert [recipe.rate(update, 0.0) for update in range(5)] == [0.25, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"schedule": "line"},
        {"fall": 0.0},
        {"fall": 1.5},
        {"lr": 0.0},
        {"batch": 0},
        {"ema": 1.0},
        {"degradation": "photo", "drawings": 1.1},
    ],
)
def test_impossible_numbers_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(PAPER, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"muon_centred": True}, "goes with muon only"),
        ({"drawings": 0.1}, "goes with the degradations"),
        ({"optimizer": "muon", "muon_modules": ("bodi", "tail")}, "modules bodi"),
    ],
)
def test_contradicting_fields_are_refused(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        replace(PAPER, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("network", "changes", "why"),
    [
        ("edsr-baseline", {"muon_modules": ("pre_process",)}, "Muon would train nothing"),
        ("mdsr-baseline", {"muon_modules": ()}, "Muon would train nothing"),
    ],
)
def test_a_recipe_without_effect_is_refused(network: str, changes: dict[str, object], why: str) -> None:
    recipe = replace(RECIPES["fast"], **changes)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=why):
        check_recipe(outline(preset(network, 2)), recipe)


@pytest.mark.parametrize("network", sorted(PRESETS))
@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_trains_every_network(network: str, recipe: str) -> None:
    check_recipe(outline(preset(network, 2)), RECIPES[recipe])


def test_batch_norm_is_refused_for_several_ranks() -> None:
    check_for_ranks(outline(preset("edsr-baseline", 2)))
    with pytest.raises(UsageError, match="one process"):
        check_for_ranks(outline(preset("srresnet", 2)))


def test_fields_take_values_of_their_own_kind() -> None:
    settings = ["patch=32", "flip=false", "betas=[0.8, 0.9]", "clip=1", "optimizer=muon"]
    recipe = with_settings(Recipe(), settings)
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
        with_settings(Recipe(), [setting])


def test_networks_can_be_changed_too() -> None:
    assert with_settings(preset("edsr", 2), ["residual_scale=1"]).residual_scale == 1.0


@pytest.mark.parametrize(
    "setting", ["family=resnet", "blocks=0", "scales=[5]", "scales=[2,3]", "residual_scale=0"]
)
def test_networks_that_cannot_be_built_are_refused(setting: str) -> None:
    with pytest.raises(UsageError):
        with_settings(preset("edsr", 2), [setting])
