"""Contenders make the same picture from the same weights, so their speeds may be compared."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_exported import exported

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import contenders
import side_by_side
from srcli.models.catalog import resolve


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny EDSR with random weights, stored as fp16."""
    return exported(tmp_path_factory.mktemp("contenders"), "edsr", 2, weights="fp16")


@pytest.mark.parametrize("name", contenders.CONTENDERS)
def test_contenders_agree_on_pictures_of_different_sizes(network: Path, tmp_path: Path, name: str) -> None:
    if name not in contenders.available():
        pytest.skip(f"{name} is not installed")
    file = resolve(network, 2)
    plain = contenders.from_onnx(file)
    draw = np.random.default_rng(0)
    pictures = [draw.integers(0, 256, (*size, 3), np.uint8) for size in ((24, 31), (16, 16), (24, 31))]
    made = contenders.CONTENDERS[name].make(file, plain, contenders.Place(tmp_path))(pictures)
    exact = contenders.pytorch(file, plain, contenders.Place(tmp_path))(pictures)
    for one, other in zip(made, exact, strict=True):
        assert one.shape == other.shape
        assert np.abs(one.astype(int) - other).max() <= 1  # bf16 and the order of sums move a rounding


def test_other_contenders_get_unfused_layers(network: Path, tmp_path: Path) -> None:
    """As it would come out of PyTorch: what srcli merges is srcli's own."""
    file = resolve(network, 2)
    model = onnx.load(contenders._plain(file, contenders.from_onnx(file), tmp_path))
    names = [node.name for node in model.graph.node if node.op_type == "Conv"]
    blocks = [f"body.blocks.{block}.conv{one}" for block in range(file.spec.blocks) for one in (1, 2)]
    assert names == ["head", *blocks, "body.last", "upsampler.0", "tail"]
    assert {t.data_type for t in model.graph.initializer if len(t.dims) == 4} == {onnx.TensorProto.FLOAT}
    assert not [node for node in model.graph.node if node.op_type in ("Slice", "Concat")]


def test_the_script_measures_publishes_and_draws(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*what: object) -> contenders.Contender:
        raise RuntimeError("it does not start")

    monkeypatch.setitem(contenders.CONTENDERS, "ONNX Runtime", contenders.Entry(broken))
    names = ["srcli", "PyTorch eager", "ONNX Runtime"]
    sizes = ["--smallest", "0.0003", "--largest", "0.0006", "--pictures", "2", "--repetitions", "1"]
    out = tmp_path / "side-by-side.json"
    side_by_side.main(
        ["--model", str(network), "--scale", "2", "--contenders", *names, *sizes, "--out", str(out)]
    )
    section = json.loads(out.read_text())["side-by-side"]
    rows = {row["name"]: row for row in section["measurements"]["rows"]}
    assert rows.keys() == {"srcli", "PyTorch eager"}
    assert "left out: ONNX Runtime (RuntimeError: it does not start)" in capsys.readouterr().out
    assert rows["srcli"]["slower"]["median"] == 1
    assert rows["PyTorch eager"]["differing"] == 0
    assert rows["srcli"]["megapixels"] > 0
    assert out.with_suffix(".png").stat().st_size > 1000
    assert "/tmp" not in section["command"]
