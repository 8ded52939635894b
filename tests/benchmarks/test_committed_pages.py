"""Cards and pages of results are what the scripts write from the committed figures."""

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import common
import model_cards
import report
from srcli.models.catalog import MODELS_FOLDER, list_models
from srcli.models.spec import ModelSpec

CARDS = {path.stem: (path, text) for path, text in model_cards.cards().items()}
PAGES = [file for file in sorted(common.RESULTS.glob("*.json")) if file.with_suffix(".md").is_file()]


@pytest.mark.parametrize("name", CARDS)
def test_cards_are_written_from_the_models(name: str) -> None:
    path, text = CARDS[name]
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("spec", list_models(MODELS_FOLDER), ids=lambda spec: f"{spec.name} x{spec.scale}")
def test_cards_count_work_by_pixels_of_output(spec: ModelSpec) -> None:
    file = rf"`{spec.name}-x{spec.scale}(?:\.int8)?\.onnx` \| [\d,]+ \| ([\d,]+) k \|"
    shown = re.findall(file, CARDS[spec.name][1])
    int8 = (MODELS_FOLDER / f"{spec.name}-x{spec.scale}.int8.onnx").exists()
    assert len(shown) == 1 + int8
    thousands = spec.macs / spec.scale**2 / 1000
    assert all(abs(float(work.replace(",", "")) - thousands) <= 0.5 for work in shown)


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.stem)
def test_pages_are_written_from_the_figures(file: Path) -> None:
    text = "\n\n".join(common.markdown(entry) for entry in json.loads(file.read_text()).values())
    assert file.with_suffix(".md").read_text(encoding="utf-8") == f"# {file.stem}\n\n{text}\n"


def test_all_results_are_on_the_page_of_all_results() -> None:
    parts = [report._INTRODUCTION, *report._sections(common.RESULTS), *report._plots(common.RESULTS)]
    assert (common.RESULTS / "README.md").read_text(encoding="utf-8") == "\n\n".join(parts) + "\n"
