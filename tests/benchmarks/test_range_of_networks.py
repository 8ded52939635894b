"""The table of networks holds what was measured: work, rates, ratios and sides of tiles."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_networks
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import networks
from contenders import flops_per_pixel
from srcli.upscaler import Upscaler

FEW = ["--frames", "2", "--megapixels", "0.0036", "--repetitions", "2", "--scales", "2"]  # 80×45
PIXELS = 2 * 4 * 80 * 45  # of output


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> networks.Subject:
    """The compact network at x2 in OpenVINO; its export takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "find_spec", lambda name: None)  # no ncnn
        return networks._compact(2, tmp_path_factory.mktemp("compact"))[0]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU with nothing but fp32."""
    monkeypatch.setattr(networks, "has_bf16", lambda core: False)
    monkeypatch.setattr(networks, "has_fast_int8", lambda: False)


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything runs once; two rounds count, of which the first network takes 0.2 and 0.4 s, the second
    0.1 and 0.1 s, the third 0.3 and 0.3 s."""

    def interleave(runs: Mapping[int, Callable[[], float]], repetitions: int) -> dict[int, list[float]]:
        assert repetitions == 2
        assert all(run() > 0 for run in runs.values())
        return dict(zip(runs, ([0.2, 0.4], [0.1, 0.1], [0.3, 0.3]), strict=False))

    monkeypatch.setattr(networks, "interleave", interleave)


def network(folder: Path, name: str, **facts: Any) -> str:
    """The path of a tiny network at x2 with 36,000 multiply-adds an LR pixel."""
    spec = replace(tiny_networks.tiny_spec(2, name), macs=36_000, **facts)
    return str(tiny_networks.write(folder, spec))


def measured(out: Path, only: str, *more: str) -> dict[str, Any]:
    networks.main(["--only", only, *FEW, *more, "--out", str(out / "networks.json")])
    section: dict[str, Any] = json.loads((out / "networks.json").read_text())[only]
    return section


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_compact_is_sixteen_convolutions_of_64(scale: int) -> None:
    compact = networks.Compact(scale)
    products = 9 * (3 * 64 + 16 * 64 * 64 + 64 * 3 * scale**2)
    assert flops_per_pixel(compact, scale) == 2 * products
    for weights in compact.parameters():
        torch.nn.init.zeros_(weights)
    lr = torch.rand(1, 3, 5, 7)
    nearest = lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    assert torch.equal(compact(lr, scale), nearest)


@pytest.mark.usefixtures("rounds")
def test_rates_and_ratios_come_from_the_same_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compact: networks.Subject
) -> None:
    monkeypatch.setattr(networks, "_compact", lambda scale, scratch: [compact])
    reference = network(tmp_path, "edsr-baseline")
    fast = network(tmp_path, "fast", quality={"Set5": 37.5, "Set14": 33.1, "valid": 35.0})
    section = measured(tmp_path, "range", "--networks", reference, fast)
    rows = section["measurements"]["rows"]
    assert [(row["name"], row["scale"], row["work"]) for row in rows] == [
        ("edsr-baseline", 2, 9000),
        ("fast", 2, 9000),
        ("compact", 2, 149_616),
    ]
    seconds = (0.3, 0.1, 0.3)
    assert [row["megapixels"] for row in rows] == pytest.approx([PIXELS / 1e6 / one for one in seconds])
    faster = [(row["faster"]["lowest"], row["faster"]["highest"]) for row in rows]
    assert faster == [(1, 1), (2, 4), (pytest.approx(2 / 3), pytest.approx(4 / 3))]
    table = section["tables"][0]
    cells = [dict(zip(table["header"], row, strict=True)) for row in table["rows"]]
    assert [row["multiply-adds a pixel of output"] for row in cells] == ["9 k", "9 k", "150 k"]
    assert [row["to edsr-baseline"] for row in cells][1] == "3.00× (2.00 – 4.00)"
    assert [row["Set5 / Set14, dB"] for row in cells] == ["–", "37.50 / 33.10", "–"]
    info = Upscaler(fast, 2).info
    assert [row["runs in"] for row in cells][1:] == [f"srcli, {info.backend} {info.precision}", "OpenVINO"]
    assert [row["for"] for row in cells] == [networks.FOR["edsr-baseline"], networks.FOR["fast"], "–"]
    assert section["method"].startswith("2 frames of 80×45")


@pytest.mark.usefixtures("rounds")
def test_without_edsr_baseline_nothing_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compact: networks.Subject
) -> None:
    monkeypatch.setattr(networks, "_compact", lambda scale, scratch: [compact])
    section = measured(tmp_path, "range", "--networks", network(tmp_path, "own"))
    assert [row["faster"] for row in section["measurements"]["rows"]] == [None, None]
    assert [(row[0], row[5], row[7]) for row in section["tables"][0]["rows"]] == [
        ("own", "–", "–"),
        ("compact", "–", "–"),
    ]


def test_compact_runs_in_openvino_at_any_size(compact: networks.Subject) -> None:
    images = [np.full((h, w, 3), 90, np.uint8) for h, w in ((16, 24), (31, 17))]
    assert [made.shape for made in compact.run(images)] == [(32, 48, 3), (62, 34, 3)]


@pytest.mark.usefixtures("rounds")
def test_every_side_is_a_column_of_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int | None] = []

    def upscaler(model: str, scale: int, *, precision: str, tile: int) -> Upscaler:
        one = Upscaler(model, scale, precision=precision, tile=tile)
        made.append(one.settings.tile)
        return one

    monkeypatch.setattr(networks, "Upscaler", upscaler)
    monkeypatch.setattr(networks, "_PICTURE", 0.0064)  # 80×80
    path = network(tmp_path, "own")
    table = measured(tmp_path, "tiles", "--networks", path, "--tiles", "48", "64")["tables"][0]
    assert table["header"] == ["network", "precision", "48", "64"]
    assert table["rows"] == [[path, "fp32", "0.09", "0.26"]]  # 0.0256 MP in 0.3 and in 0.1 s
    assert made == [48, 64]


@pytest.mark.parametrize(
    ("int8", "bf16", "expected"),
    [
        (True, True, ("int8", "bf16", "fp32")),
        (False, True, ("bf16", "fp32")),
        (True, False, ("int8", "fp32")),
    ],
)
def test_precisions_are_those_of_cpu_and_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, int8: bool, bf16: bool, expected: tuple[str, ...]
) -> None:
    monkeypatch.setattr(networks, "has_bf16", lambda core: bf16)
    monkeypatch.setattr(networks, "has_fast_int8", lambda: int8)
    assert networks._precisions("mdsr-baseline") == expected
    assert "int8" not in networks._precisions(network(tmp_path, "own")), "it has no int8 file"
