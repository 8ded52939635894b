"""Counting the hidden units that fire."""

import sys
from pathlib import Path

import pytest
import torch

from srcli.io.pictures import Picture, write
from srcli_train.checkpoint import Checkpoint, save_checkpoint
from srcli_train.networks import NetworkSpec, build
from srcli_train.recipes import find

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import pictures
import units


def test_units_that_are_off_everywhere_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    spec = NetworkSpec("tiny", "mdsr", blocks=2, features=8, scales=(2, 3))
    network = build(spec)
    with torch.no_grad():
        network.body.blocks[1].conv1.bias[:3] = -1e3
        network.pre_process["2"][0].conv1.bias[:5] = -1e3  # not the body's
    save_checkpoint(tmp_path / "last.pt", Checkpoint(spec, find("fast"), network.state_dict()))
    (tmp_path / "hr").mkdir()
    write(tmp_path / "hr" / "one.png", Picture(pictures.photograph(96, 128)))
    units.main([str(tmp_path / "last.pt"), "--images", str(tmp_path / "hr")])
    cells = capsys.readouterr().out.splitlines()[-1].split(" | ")
    assert cells[1:4] == ["0", "16", "3"]
    assert 20 < float(cells[-1].strip("|% ")) < 80  # the others fire at about half of the pixels
