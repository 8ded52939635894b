"""Quality on degraded input, beside the same on bicubic input."""

import json
import sys
from pathlib import Path

from tiny_exported import exported

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import pictures
import quality


def test_degraded_input_has_own_rows_and_lower_psnr(tmp_path: Path) -> None:
    hr, out = tmp_path / "Set5", tmp_path / "photo.json"
    hr.mkdir()
    pictures.save(pictures.photograph(96, 128), hr / "one.png")
    options = ["--models", str(exported(tmp_path, "edsr", 2)), "--scales", "2", "--precisions", "fp32"]
    quality.main([str(hr), *options, "--degradations", "bicubic", "photo", "--out", str(out)])
    section = json.loads(out.read_text())["quality"]
    rows = {(r["set"], r["model"]): r["psnr_y"] for r in section["measurements"]["rows"]}
    assert {name for name, model in rows if model == "tiny"} == {"Set5", "Set5, photo"}
    assert ("Set5, photo", "EDSR, published") not in rows
    assert rows["Set5, photo", "bicubic"] < rows["Set5", "bicubic"] - 1  # dB: noise and JPEG are no trifle
    assert "photo" in section["method"]
