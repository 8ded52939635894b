"""Training on a GPU: the same patches, updates from CUDA graphs, and a checkpoint that goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import FAST, TINY_MDSR, Quiet, tiny_pictures, trainer

from srcli_train.checkpoint import load_checkpoint
from srcli_train.loop import Trainer
from srcli_train.patches import DevicePatches, PatchSampler

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def test_patches_cut_on_the_gpu_are_the_samplers(tmp_path: Path) -> None:
    pictures = tiny_pictures(tmp_path, (2, 3, 4))
    sampler = PatchSampler(pictures, FAST)
    for update, cut in enumerate(
        DevicePatches(pictures, sampler, FAST.patch, torch.device("cuda"))(range(6))
    ):
        np.testing.assert_array_equal(cut.lr.cpu().numpy(), sampler(update).lr)
        np.testing.assert_array_equal(cut.hr.cpu().numpy(), sampler(update).hr)


def test_a_run_moves_from_gpu_to_cpu_and_back(tmp_path: Path) -> None:
    job = replace(trainer(tmp_path, network=TINY_MDSR)._job, device="cuda")
    pictures = tiny_pictures(tmp_path, TINY_MDSR.scales)
    run = Trainer(job, pictures, (), Quiet())
    first = float(run._step(PatchSampler(pictures, FAST)(0)).loss)
    assert np.isfinite(first)
    path = run.run(stop_at=10)
    assert load_checkpoint(path).update == 10
    on_cpu = Trainer(replace(job, device="cpu", resume=True), pictures, (), Quiet())
    assert load_checkpoint(on_cpu.run(stop_at=12)).update == 12
    back = Trainer(replace(job, resume=True), pictures, (), Quiet())
    assert load_checkpoint(back.run(stop_at=20)).update == 20


@pytest.mark.parametrize("changes", [{}, {"muon_centred": True}, {"ema": 0.9}], ids=str)
@pytest.mark.parametrize("number", range(torch.cuda.device_count()))
def test_graphs_make_the_updates_that_single_kernels_make(
    tmp_path: Path, number: int, changes: dict[str, object]
) -> None:
    """Three updates of each scale as they are and three replayed, on every GPU, whichever is current.

    Alone, with means that one graph follows and the other reads, and with an EMA of the weights.
    """
    pictures = tiny_pictures(tmp_path, TINY_MDSR.scales)
    first = trainer(tmp_path, network=TINY_MDSR, run="first")
    recipe = replace(FAST, **changes)
    job = replace(first._job, recipe=recipe, init=first.run(stop_at=1), device=f"cuda:{number}")
    graphs = Trainer(replace(job, folder=tmp_path / "graphs"), pictures, (), Quiet())
    single = Trainer(replace(job, folder=tmp_path / "single"), pictures, (), Quiet())
    single._gradients._capture = None
    sampler = PatchSampler(pictures, FAST)
    of_scale = {sampler(update).scale: sampler(update) for update in range(30)}
    before = [p.detach().clone() for p in graphs.network.parameters()]
    for update in range(18):
        for run in (graphs, single):
            run._step(of_scale[2 + update % 3])
    assert set(graphs._gradients._graphs) == set(graphs._optimizer._graphs) == {2, 3, 4}
    pairs = zip(before, graphs.network.parameters(), single.network.parameters(), strict=True)
    for start, one, other in pairs:
        moved = (other - start).norm()
        # atomics in the backward pass add in any order, and bf16 keeps eight bits of what follows
        assert moved > 0
        assert (one - other).norm() < 0.05 * moved
