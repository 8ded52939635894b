"""`srcli models` with models of the user's, and `srcli models import`."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_networks
import torch
from cli_runs import Command, picture
from test_cli_app import HEAVY, PROGRAM

from srcli.io import pictures
from srcli.models import catalog
from srcli.models.spec import TrainingFacts
from srcli_export.calibration import charts


@pytest.fixture
def weights(work: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state dict of a tiny EDSR as EDSR-PyTorch saves it, to be measured on a picture that is quick."""
    monkeypatch.setattr("srcli_export.calibration.charts", lambda side=96: [charts(side)[0]])
    torch.manual_seed(0)
    shapes = {"head.0": (6, 3), "body.0.body.0": (6, 6), "body.0.body.2": (6, 6), "body.1": (6, 6)}
    state = {}
    for key, (outputs, inputs) in (shapes | {"tail.0.0": (24, 6), "tail.1": (3, 6)}).items():
        state |= {
            f"{key}.weight": torch.randn(outputs, inputs, 3, 3) * 0.1,
            f"{key}.bias": torch.zeros(outputs),
        }
    torch.save(state, work / "theirs_x2.pt")
    return work / "theirs_x2.pt"


def test_import_list_and_use(srcli: Command, weights: Path, tiny_catalog: Path, user_models: Path) -> None:
    run = srcli("models", "import", str(weights), "--license", "MIT")
    path = user_models / "theirs-x2.onnx"
    assert (run.code, run.out) == (0, f"{path}\n")
    assert "Residual scaling 1 is assumed" in run.err
    assert "--model theirs" in run.err
    lines = [line.split() for line in srcli("models").out.splitlines()]
    assert [(line[0], line[-1]) for line in lines[1:]] == [("theirs", "yours"), *[("tiny", "srcli")] * 3]
    facts = json.loads(srcli("models", "--json").out)
    assert (facts[0]["name"], facts[0]["yours"], facts[0]["license"]) == ("theirs", True, "MIT")
    picture("a.png")
    assert srcli("upscale", "a.png", "-s", "2", "--model", "theirs", "--quiet").code == 0
    assert pictures.read(Path("upscaled/a.png")).pixels.shape == (12, 18, 3)


def test_the_list_names_the_pictures_a_network_is_for(
    srcli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, recipe in (("any", ""), ("clean", "fast"), ("real", "photo")):
        spec = replace(tiny_networks.tiny_spec(2, name), training=TrainingFacts(recipe=recipe))
        tiny_networks.write(tmp_path, spec)
    monkeypatch.setattr(catalog, "MODELS_FOLDER", tmp_path)
    lines = srcli("models").out.splitlines()
    said = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[1:]]
    assert [(cells[0], cells[2]) for cells in said] == [
        ("any", "–"),
        ("clean", "clean pictures"),
        ("real", "JPEG, noise, blur"),
    ]


@pytest.mark.parametrize(("scale", "work"), [(2, "9 k"), (3, "4 k"), (4, "2 k")])
def test_the_list_counts_work_by_pixels_of_output(
    srcli: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: int, work: str
) -> None:
    tiny_networks.write(tmp_path, replace(tiny_networks.tiny_spec(scale), macs=36_000))
    monkeypatch.setattr(catalog, "MODELS_FOLDER", tmp_path)
    header, row = (
        [cell.strip() for cell in re.split(" {2,}", line)] for line in srcli("models").out.splitlines()
    )
    assert row[header.index("multiply-adds a pixel of output")] == work


def test_import_elsewhere(srcli: Command, weights: Path, user_models: Path) -> None:
    run = srcli("models", "import", str(weights), "--name", "net", "-o", "out", "--residual-scale", "0.1")
    assert (run.code, run.out) == (0, "out/net-x2.onnx\n")
    assert "--model out/net-x2.onnx" in run.err
    assert not user_models.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["missing.pt"], 2, "does not exist"),
        (["bad.pt", "--name", "a"], 1, "bad.pt: damaged"),
        (["theirs_x2.pt", "--name", "tiny"], 2, "itself has a model 'tiny'"),
        (["theirs_x2.pt", "--convention", "caffe"], 2, "edsr-pytorch"),
        (["theirs_x2.pt", "--residual-scale", "7"], 2, "residual scale"),
        ([], 2, "Missing argument"),
    ],
)
def test_impossible_imports_are_refused(
    srcli: Command, weights: Path, tiny_catalog: Path, arguments: list[str], code: int, said: str
) -> None:
    Path("bad.pt").write_bytes(b"nothing")
    run = srcli("models", "import", *arguments)
    assert (run.code, run.out) == (code, "")
    assert said in run.err


def test_a_damaged_user_model_is_a_note(srcli: Command, tiny_catalog: Path, user_models: Path) -> None:
    user_models.mkdir()
    (user_models / "broken-x2.onnx").write_bytes(b"nothing")
    tiny_networks.write(user_models, tiny_networks.tiny_spec(2, "mine"))
    run = srcli("models")
    assert (run.code, len(run.out.splitlines())) == (0, 5)
    assert run.err.startswith("note: ")
    assert "broken-x2.onnx" in run.err


def test_an_unknown_sub_command_is_wrong_usage(srcli: Command) -> None:
    run = srcli("models", "improt")
    assert run.code == 2
    assert "improt" in run.err


@pytest.mark.parametrize("arguments", [["models", "--help"], ["models", "import", "--help"]])
def test_help_imports_nothing_heavy_for_models(arguments: list[str]) -> None:
    report = f"print([m for m in sys.modules if m.partition('.')[0] in {HEAVY}])"
    command = [sys.executable, "-c", PROGRAM + report, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_shared_weights_are_listed_apart(srcli: Command) -> None:
    weights = (catalog.MODELS_FOLDER / "mdsr-baseline.weights").stat().st_size
    own = (catalog.MODELS_FOLDER / "mdsr-baseline-x2.onnx").stat().st_size
    facts = {(m["name"], m["scale"]): m for m in json.loads(srcli("models", "--json").out)}
    mdsr, edsr = facts["mdsr-baseline", 2], facts["edsr-baseline", 2]
    assert (mdsr["bytes"], mdsr["shared_bytes"]) == (own + weights, weights)
    assert edsr["shared_bytes"] == (catalog.MODELS_FOLDER / "edsr-baseline-x2.weights").stat().st_size
    assert f"{own / 1e6:.2f} + {weights / 1e6:.2f} shared" in srcli("models").out
