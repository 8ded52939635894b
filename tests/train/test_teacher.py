"""Learning from the starting network's self-ensemble."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_gradients import Recorder, batch, gradients_of
from tiny_training import FAST, TINY, TINY_MDSR, rendered, trainer
from torch.utils._python_dispatch import TorchDispatchMode

from srcli.errors import UsageError
from srcli.imaging.ensemble import TRANSFORMS, run_ensemble
from srcli_train.checkpoint import load_checkpoint
from srcli_train.gradients import WARM_UP, Gradients
from srcli_train.misfits import refuse_blank
from srcli_train.networks import build
from srcli_train.teacher import Teacher
from srcli_train.validation import batch_of

CPU = torch.device("cpu")
TAUGHT = replace(FAST, distill=0.2)


class Reads(TorchDispatchMode):
    """Counts how often a tensor's number is read on the host."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def sides(lr: torch.Tensor, scale: int) -> list[torch.Tensor]:
    """A teacher's answers from all eight sides."""
    torch.manual_seed(3)
    teacher = Teacher(build(TINY_MDSR), CPU, "fp32")
    return [teacher(lr, scale, torch.tensor([number])) for number in TRANSFORMS]


@pytest.mark.parametrize("scale", [2, 3])
def test_the_mean_of_a_teachers_answers_is_the_self_ensemble(scale: int) -> None:
    """Its turns and those of `upscale --ensemble` are the same ones; sums of eight differ by rounding."""
    lr = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
    answers = sides(lr, scale)
    torch.manual_seed(3)
    network = build(TINY_MDSR).eval()
    with torch.no_grad():
        ensemble = run_ensemble(lambda b: network(torch.from_numpy(b), scale).numpy(), lr.numpy())
        np.testing.assert_allclose(answers[0].numpy(), network(lr, scale).numpy(), atol=1e-6)
    np.testing.assert_allclose(torch.stack(answers).mean(0).numpy(), ensemble, atol=1e-6)
    assert max(float((a - answers[0]).abs().max()) for a in answers) > 1e-3  # else this compares nothing


def test_its_part_of_the_loss_is_the_squared_distance_in_levels() -> None:
    lr, hr, scale = batch(0, 2)
    torch.manual_seed(3)
    network, recipe = build(TINY_MDSR), replace(FAST, distill=0.25, precision="fp32")
    other = Teacher(build(TINY_MDSR), CPU, "fp32")
    plain = float(Gradients(network, recipe, CPU)(lr, hr, scale))
    taught = float(Gradients(network, recipe, CPU, other)(lr, hr, scale, side=5))
    image = lr.permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        distance = (network(image, scale) - other(image, scale, torch.tensor([5]))) * 255
    assert taught - plain == pytest.approx(0.25 * float(distance.square().mean()), rel=1e-4)


def test_replays_see_the_side_of_their_own_update() -> None:
    torch.manual_seed(3)
    network, recipe = build(TINY_MDSR), replace(FAST, distill=0.25, precision="fp32")
    teacher, recorder = Teacher(build(TINY_MDSR), CPU, "fp32"), Recorder(network)
    plain = Gradients(network, recipe, CPU, teacher)
    recorded = Gradients(network, recipe, CPU, teacher, record=recorder)
    for number in range(WARM_UP + 4):
        expected_loss = plain(*batch(number, 2), side=number)
        expected = gradients_of(network)
        assert torch.equal(recorded(*batch(number, 2), side=number), expected_loss)
        for got, wanted in zip(gradients_of(network), expected, strict=True):
            assert (got is None) == (wanted is None)
            assert got is None or wanted is None or torch.equal(got, wanted)
    assert recorder.replayed == 4


def test_no_number_is_read_from_the_device() -> None:
    """Which a recording of a CUDA graph does not allow."""
    network, recipe = build(TINY_MDSR), replace(FAST, distill=0.25, precision="fp32")
    work = Gradients(network, recipe, CPU, Teacher(build(TINY_MDSR), CPU, "fp32"))
    lr, hr, scale = batch(0, 2)
    work(lr, hr, scale, side=3)  # the tables of turns are made
    with Reads() as reads:
        work(lr, hr, scale, side=4)
        assert reads.count == 0
        float(lr.float().mean())
        assert reads.count == 1


def spread(path: Path) -> float:
    """How far a checkpoint's answers for one picture differ between sides, in levels."""
    network = build(TINY)
    network.load_state_dict(load_checkpoint(path).weights)
    teacher = Teacher(network, CPU, "fp32")
    lr = batch_of(rendered(1, 32)[None], CPU)
    return 255 * float(torch.stack([teacher(lr, 2, torch.tensor([n])) for n in TRANSFORMS]).std(0).mean())


def test_a_student_comes_to_differ_less_between_sides(tmp_path: Path) -> None:
    """Than the same network after as many updates without a teacher."""
    start = trainer(tmp_path, run="start").run()
    alone = trainer(tmp_path, recipe=replace(FAST, updates=80), run="alone", init=start).run()
    taught = replace(FAST, updates=80, distill=1.0)
    student = trainer(tmp_path, recipe=taught, run="student", init=start).run()
    assert spread(start) > 1
    assert spread(student) < 0.7 * spread(alone)


def test_a_resumed_run_learns_from_the_same_teacher_to_the_bit(tmp_path: Path) -> None:
    start = trainer(tmp_path, run="start").run()
    whole = load_checkpoint(trainer(tmp_path, recipe=TAUGHT, run="whole", init=start).run())
    trainer(tmp_path, recipe=TAUGHT, run="parts", init=start).run(stop_at=9)
    parts = load_checkpoint(trainer(tmp_path, recipe=TAUGHT, run="parts", resume=True).run())
    first = load_checkpoint(start)
    for name, weight in whole.weights.items():
        assert torch.equal(parts.weights[name], weight)
        assert torch.equal(parts.teacher[name], first.weights[name])
        assert not name.endswith("weight") or not torch.equal(weight, first.weights[name])


def test_a_network_that_its_start_did_not_fill_is_no_teacher(tmp_path: Path) -> None:
    """x4 has a second upsampling stage, which x2 does not have."""
    x2 = trainer(tmp_path, run="x2").run(stop_at=1)
    with pytest.raises(UsageError, match=r"of that is new: upsampler\.2\.bias, upsampler\.2\.weight"):
        trainer(tmp_path, network=replace(TINY, scales=(4,)), recipe=TAUGHT, run="x4", init=x2)
    with pytest.raises(UsageError, match="nothing in a new one"):
        trainer(tmp_path, recipe=TAUGHT, run="new")


def test_it_goes_with_a_mean_of_the_weights(tmp_path: Path) -> None:
    start = trainer(tmp_path, run="start").run()
    recipe = replace(TAUGHT, average=0.9)
    kept = load_checkpoint(trainer(tmp_path, recipe=recipe, run="run", init=start).run())
    assert all(torch.equal(kept.teacher[k], w) for k, w in load_checkpoint(start).weights.items())
    assert kept.trained


def test_there_is_nothing_to_learn_from_a_new_network() -> None:
    refuse_blank(replace(FAST, distill=0.2), begun=True)
    refuse_blank(FAST, begun=False)
    with pytest.raises(UsageError, match="nothing in a new one"):
        refuse_blank(replace(FAST, distill=0.2), begun=False)
    with pytest.raises(UsageError, match="0 or more"):
        replace(FAST, distill=-0.1)
