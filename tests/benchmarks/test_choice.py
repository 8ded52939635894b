"""What `--model auto` is worth, measured with two networks that differ."""

import json
import sys
from pathlib import Path

import pytest
import tiny_networks

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import choice
import pictures
from srcli.models import auto, catalog


def test_the_choice_is_right_when_the_other_network_is_not_better() -> None:
    def case(clean: float, photo: float, chose_photo: bool) -> choice.Case:
        return choice.Case("a.png", 2, "photo", clean, photo, chose_photo)

    assert case(30, 29, chose_photo=False).right
    assert not case(30, 29, chose_photo=True).right
    assert case(30, 29.96, chose_photo=True).right
    assert case(30, 29, chose_photo=True).taken == 29


def test_clean_and_degraded_images_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks, hr = tmp_path / "models", tmp_path / "hr"
    networks.mkdir(), hr.mkdir()
    for seed, name in enumerate(("clean", "mdsr-photo")):
        tiny_networks.write(networks, tiny_networks.tiny_spec(2, name), seed=seed)
    monkeypatch.setattr(catalog, "MODELS_FOLDER", networks)
    monkeypatch.setattr(auto, "CLEAN", "clean")
    pictures.save(pictures.photograph(160, 192), hr / "one.png")
    choice.main([str(hr), "--scales", "2", "--seeds", "2", "--out", str(tmp_path / "photo.json")])
    section = json.loads((tmp_path / "photo.json").read_text())["choice"]
    assert [row[:3] for row in section["tables"][0]["rows"]] == [["bicubic", "x2", "1"], ["photo", "x2", "2"]]
    cases = section["measurements"]["cases"]
    assert [c["degradation"] for c in cases] == ["bicubic", "photo", "photo"]
    assert len({c["photo"] for c in cases}) == 3
    assert cases[0]["clean"] != cases[0]["photo"]
