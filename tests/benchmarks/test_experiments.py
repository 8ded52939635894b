"""The table of experiments holds together, and what is made of the logs is right."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import arms
import experiments
from srcli_train.networks import preset
from srcli_train.recipes import find
from srcli_train.settings import changed

ARMS = [(name, arm) for name, e in arms.EXPERIMENTS.items() for arm in e.arms]


@pytest.mark.parametrize(("name", "arm"), ARMS, ids=[f"{name}: {arm.label}" for name, arm in ARMS])
def test_every_arm_is_a_training_that_can_start(name: str, arm: arms.Arm) -> None:
    network = [s.removeprefix("network.") for s in arm.settings if s.startswith("network.")]
    changed(preset(arm.model, arm.scale), network)
    changed(find(arm.recipe), [s for s in arm.settings if not s.startswith("network.")])
    if arm.init:
        start = next(a for a in arms.EXPERIMENTS[name].arms if a.label == arm.init)
        assert start.model == arm.model
        assert not start.init


def test_labels_and_folders_are_told_apart() -> None:
    options = experiments._parse(["detail", "data"])
    folders = {experiments._folder(options, arm, 9) for arm in arms.EXPERIMENTS["detail"].arms}
    assert len(folders) == len(arms.EXPERIMENTS["detail"].arms)


def test_a_curve_keeps_each_validation_once() -> None:
    rows = [
        {"update": str(u), "psnr_x2": v} for u, v in ((50, ""), (100, "30.1"), (150, "30.1"), (200, "31.0"))
    ]
    curve = experiments.Curve(arms.Arm("one"), rows)
    assert curve.psnr(2) == [(100, 30.1), (200, 31.0)]
    assert curve.scales == (2,)
