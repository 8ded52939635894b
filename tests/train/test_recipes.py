"""The paper's numbers, and how each schedule's rate runs."""

from dataclasses import replace

import pytest

from srcli.errors import UsageError
from srcli_train.recipes import RECIPES, Recipe

PAPER = RECIPES["paper"]


def test_the_default_is_the_papers_section_4_2() -> None:
    assert Recipe() == PAPER
    assert (PAPER.batch, PAPER.patch, PAPER.updates, PAPER.loss) == (16, 48, 300_000, "l1")
    assert (PAPER.optimizer, PAPER.lr, PAPER.betas, PAPER.eps) == ("adam", 1e-4, (0.9, 0.999), 1e-8)
    assert (PAPER.flip, PAPER.rotate, PAPER.clip, PAPER.warmup, PAPER.average) == (True, True, 0, 0, 0)
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
    "wrong", [{"schedule": "line"}, {"fall": 0.0}, {"fall": 1.5}, {"lr": 0.0}, {"batch": 0}, {"average": 1.0}]
)
def test_impossible_numbers_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        replace(PAPER, **wrong)  # type: ignore[arg-type]
