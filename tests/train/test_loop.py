"""The loop learns, resumes to the bit, and leaves MDSR's other scales alone."""

import csv
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import FAST, TINY, TINY_MDSR, Quiet, tiny_pictures, trainer

from srcli.errors import TrainingError, UsageError
from srcli_train.checkpoint import load_checkpoint, save_checkpoint
from srcli_train.data import Pictures
from srcli_train.degradations import DEGRADATIONS
from srcli_train.log import Status
from srcli_train.loop import Trainer
from srcli_train.recipes import RECIPES

PAPER = replace(RECIPES["paper"], updates=20, batch=4, patch=8, lr=1e-3)


def _flat(state: object) -> list[torch.Tensor]:
    """Every tensor in nested state, in order."""
    if isinstance(state, torch.Tensor):
        return [state]
    if isinstance(state, dict):
        return [t for key in state for t in _flat(state[key])]
    return [t for item in state for t in _flat(item)] if isinstance(state, list | tuple) else []


CENTRED = replace(FAST, muon_centred=True)


@pytest.mark.parametrize(
    "recipe", [FAST, CENTRED, PAPER, replace(FAST, ema=0.9)], ids=["muon", "centred", "adam", "ema"]
)
def test_ten_and_ten_updates_equal_twenty_to_the_bit(tmp_path: Path, recipe: object) -> None:
    straight = load_checkpoint(trainer(tmp_path, recipe=recipe, run="straight").run())
    trainer(tmp_path, recipe=recipe, run="halves").run(stop_at=10)
    halves = load_checkpoint(trainer(tmp_path, recipe=recipe, run="halves", resume=True).run())
    assert (straight.update, halves.update) == (20, 20)
    for name, weight in straight.weights.items():
        assert torch.equal(weight, halves.weights[name]), name
    for ours, theirs in zip(_flat(straight.optimizer), _flat(halves.optimizer), strict=True):
        assert torch.equal(ours, theirs)


def test_training_lowers_the_loss_and_validates(tmp_path: Path) -> None:
    watcher = Quiet()
    trainer(tmp_path, recipe=replace(FAST, updates=150), watcher=watcher).run()
    first, last = watcher.statuses[0], watcher.statuses[-1]
    assert last.loss < 0.5 * first.loss
    assert last.psnr[2] > watcher.statuses[1].psnr[2] + 3
    assert watcher.pictures[0].shape == (48, 3 * 48, 3)


def test_log_is_cut_back_to_the_checkpoint_on_resume(tmp_path: Path) -> None:
    trainer(tmp_path).run(stop_at=10)
    log = tmp_path / "run" / "log.csv"
    with log.open("a") as file:
        file.write("15,1.0,9.9,1.0,\n")  # an update that was logged but never saved
    trainer(tmp_path, resume=True).run()
    updates = [int(row["update"]) for row in csv.DictReader(log.open())]
    assert updates == [5, 10, 15, 20]
    assert "9.9" not in log.read_text()


def test_mdsr_updates_one_scale_and_leaves_the_others(tmp_path: Path) -> None:
    run = trainer(tmp_path, network=TINY_MDSR, recipe=replace(FAST, updates=40))
    run.run(stop_at=30)  # by then every scale was drawn, so every optimizer state exists
    before = _branches(run)
    drawn = run._sampler(30).scale
    run.run(stop_at=31)
    after = _branches(run)
    changed = {name for name in before if any(map(_differ, before[name], after[name]))}
    scales = {name.split(".")[1] for name in changed if name.startswith(("pre_process", "upsampler"))}
    assert scales == {str(drawn)}
    assert any(name.startswith("body") for name in changed)


def _differ(a: torch.Tensor, b: torch.Tensor) -> bool:
    return not torch.equal(a, b)


def _branches(run: object) -> dict[str, list[torch.Tensor]]:
    """By parameter name: the weight and its optimizer state, copied."""
    network, optimizer = run.network, run._optimizer
    muon = optimizer._muon
    buffers = {id(c.weight): b for c, b in zip(muon._convs, muon.buffers, strict=True)}
    states: dict[str, list[torch.Tensor]] = {}
    for name, p in network.named_parameters():
        in_muon = id(p) in buffers
        state = {"momentum": buffers[id(p)]} if in_muon else optimizer._adam.state[p]
        assert state, f"{name} has no optimizer state yet"
        states[name] = [p.detach().clone(), *(t.clone() for t in _flat(dict(state)))]
    return states


def test_x4_starts_from_x2(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x2 = trainer(tmp_path, run="x2").run(stop_at=5)
    x4 = trainer(tmp_path, network=replace(TINY, scales=(4,)), run="x4", init=x2)
    trained = load_checkpoint(x2).weights
    assert torch.equal(x4.network.state_dict()["body.last.weight"], trained["body.last.weight"])
    assert "upsampler.2.weight" in caplog.messages[0]  # x4's second stage is not in x2


def test_mdsr_starts_from_edsr_and_gives_the_same_picture(tmp_path: Path) -> None:
    x2 = trainer(tmp_path, run="x2")
    path = x2.run(stop_at=10)
    mdsr = trainer(tmp_path, network=TINY_MDSR, run="mdsr", init=path)
    image = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(mdsr.network(image, 2), x2.network(image, 2))


@pytest.mark.parametrize("blocks", [3, 5, 8])
def test_a_deeper_network_begins_as_good_as_what_it_grows_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, blocks: int
) -> None:
    small = trainer(tmp_path, network=TINY_MDSR, run="small")
    path = small.run(stop_at=10)
    caplog.clear()
    large = trainer(tmp_path, network=replace(TINY_MDSR, blocks=blocks), run="large", init=path)
    image = torch.rand(1, 3, 12, 12)
    with torch.no_grad():
        for scale in (2, 3, 4):
            torch.testing.assert_close(large.network(image, scale), small.network(image, scale))
    filled = [float(block.conv2.weight.abs().sum()) > 0 for block in large.network.body.blocks]
    assert sum(filled) == 2
    assert filled[0]
    assert filled[blocks // 2]
    assert not any("body" in message for message in caplog.messages)


def test_a_checkpoint_of_another_kind_is_refused_as_start(tmp_path: Path) -> None:
    path = trainer(tmp_path, run="x2").run(stop_at=1)
    with pytest.raises(TrainingError, match="no block fits"):
        trainer(tmp_path, network=replace(TINY, features=16), run="wide", init=path)


def test_resume_with_another_recipe_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).run(stop_at=1)
    with pytest.raises(UsageError, match=r"another network or recipe: lr was 0\.001, now 1\.0\."):
        trainer(tmp_path, recipe=replace(FAST, lr=1.0), resume=True)
    with pytest.raises(
        UsageError, match="blocks was 2, now 3; features was 8, now 9; updates was 20, now 30"
    ):
        trainer(
            tmp_path,
            network=replace(TINY, blocks=3, features=9),
            recipe=replace(FAST, updates=30),
            resume=True,
        )


def test_a_trapezoid_saves_weights_before_its_rate_falls(tmp_path: Path) -> None:
    recipe = replace(FAST, schedule="trapezoid", fall=0.5)
    trainer(tmp_path, recipe=recipe).run(stop_at=9)
    before_fall = tmp_path / "run" / "before-fall.pt"
    assert not before_fall.exists()
    trainer(tmp_path, recipe=recipe, resume=True).run(stop_at=15)
    kept = before_fall.read_bytes()
    assert load_checkpoint(before_fall).update == 11  # at 10 of 20 the rate is still whole
    assert load_checkpoint(before_fall).optimizer == {}  # no run is resumed from it
    assert recipe.rate(10, 10 / 20) == 1 > recipe.rate(11, 11 / 20)
    trainer(tmp_path, recipe=recipe, resume=True).run()
    assert before_fall.read_bytes() == kept
    trainer(tmp_path, run="plateau", recipe=replace(recipe, fall=0.1)).run(stop_at=11)
    plateau = load_checkpoint(tmp_path / "plateau" / "last.pt")  # no update of it was at a fallen rate
    for name, weight in load_checkpoint(before_fall).weights.items():
        assert torch.equal(weight, plateau.weights[name]), name
    longer = trainer(tmp_path, run="longer", recipe=replace(recipe, updates=40), init=before_fall)
    assert torch.equal(longer.network.state_dict()["tail.bias"], plateau.weights["tail.bias"])


def test_resume_with_other_pictures_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = trainer(tmp_path)
    run.run(stop_at=1)
    pictures, job = tiny_pictures(tmp_path), replace(run._job, resume=True)
    turned = Pictures(pictures.hr[::-1], {2: pictures.lr[2][::-1]})
    Trainer(job, pictures, (), Quiet())
    assert caplog.messages == []
    Trainer(job, turned, (), Quiet())
    assert caplog.messages == ["These are not the training pictures that the run began with."]


def test_resume_after_the_degradation_changed_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint names its chain and keeps its numbers; one from before they were kept says nothing."""
    recipe = replace(FAST, degradation="photo")
    run = trainer(tmp_path, recipe=recipe)
    last = run.run(stop_at=1)
    milder = replace(DEGRADATIONS["photo"], noise=(0.5, 10.0), clean_share=0.2)
    monkeypatch.setitem(DEGRADATIONS, "photo", milder)
    job, pictures = replace(run._job, resume=True), tiny_pictures(tmp_path)
    caplog.clear()
    Trainer(job, pictures, (), Quiet())
    assert caplog.messages == [
        "LR is no longer made as when the run began: clean_share was 0.3, now 0.2; "
        "noise was (1.0, 25.0), now (0.5, 10.0)."
    ]
    save_checkpoint(last, replace(load_checkpoint(last), degradation=None))
    caplog.clear()
    Trainer(job, pictures, (), Quiet())
    assert caplog.messages == []


def test_muon_makes_orthogonal_updates(tmp_path: Path) -> None:
    """One step with rate r moves a square-ish matrix by r times something with singular values near 1."""
    run = trainer(tmp_path, recipe=replace(FAST, warmup=0, clip=0.0))
    weight = run.network.body.blocks[0].conv1.weight
    before = weight.detach().clone()
    run.run(stop_at=1)
    step = (before - weight.detach()).permute(0, 2, 3, 1).reshape(8, -1) / FAST.muon_lr
    singular = torch.linalg.svdvals(step)
    assert (
        0.5 < float(singular.min()) < float(singular.max()) < 1.3
    )  # five Newton-Schulz steps: about 0.7-1.2


def test_ctrl_c_saves_and_resuming_is_exact(tmp_path: Path) -> None:
    class Impatient(Quiet):
        def status(self, status: Status) -> None:
            if status.update == 10:
                # As Python calls it. A real signal would run on faulthandler's stack, too small for AVX-512.
                signal.getsignal(signal.SIGINT)(signal.SIGINT, None)

    straight = load_checkpoint(trainer(tmp_path, run="straight").run())
    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, run="stopped", watcher=Impatient()).run()
    assert load_checkpoint(tmp_path / "stopped" / "last.pt").update == 11  # all processes agree in an update
    resumed = load_checkpoint(trainer(tmp_path, run="stopped", resume=True).run())
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in straight.weights.items())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_degraded_training_is_validated_on_both_kinds_of_lr(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The psnr columns stay those of clean bicubic, so that all runs can be compared."""
    watcher = Quiet()
    run = trainer(tmp_path, recipe=replace(FAST, degradation="unknown", patch=16), watcher=watcher)
    run.run(stop_at=10)
    logged = [message for message in caplog.messages if "unknown validation x2" in message]
    assert len(logged) == 1
    assert f"{watcher.statuses[-1].psnr[2]:.2f} dB" not in logged[0]


def test_the_ema_is_saved_beside_the_trained_weights(tmp_path: Path) -> None:
    """After one update the EMA is its weights; after two, 0.75 of them and 0.25 of the second's."""
    recipe = replace(FAST, ema=0.75)
    one = load_checkpoint(trainer(tmp_path, recipe=recipe).run(stop_at=1))
    two = load_checkpoint(trainer(tmp_path, recipe=recipe, resume=True).run(stop_at=2))
    plain = load_checkpoint(trainer(tmp_path, run="plain").run(stop_at=2))
    for name, weight in two.weights.items():
        assert torch.equal(two.trained[name], plain.weights[name])
        expected = 0.75 * one.trained[name] + 0.25 * two.trained[name]
        torch.testing.assert_close(weight, expected, rtol=0, atol=1e-6)
    assert plain.trained == {}


def test_updates_of_the_starting_weights_are_counted(tmp_path: Path) -> None:
    first = trainer(tmp_path, run="first").run(stop_at=3)
    trainer(tmp_path, run="second", init=first).run(stop_at=2)
    second = trainer(tmp_path, run="second", resume=True).run(stop_at=4)
    facts = load_checkpoint(second).facts
    assert facts.updates == 3 + 4
    assert facts.hours >= load_checkpoint(first).facts.hours


def test_every_machine_that_trained_the_weights_is_named_once(tmp_path: Path) -> None:
    start: Path | None = None
    for number, machine in enumerate(("two cores", "a GPU", "two cores")):
        run = trainer(tmp_path, run=str(number), init=start)
        run._facts = replace(run._facts, machine=machine)
        start = run.run(stop_at=2)
    assert start is not None
    assert load_checkpoint(start).facts.machine == "two cores, then a GPU"
