"""What `--model auto` is worth, measured with two networks that differ."""

import json
import sys
from pathlib import Path

import pytest
import tiny_networks

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import numpy as np

import choice
import pictures
from srcli.models import auto, catalog
from srcli_train import drawings


def test_a_choice_is_right_unless_the_other_is_better() -> None:
    def case(clean: float, photo: float, chose_photo: bool) -> choice.Case:
        return choice.Case("a.png", 2, "photo", clean, photo, chose_photo)

    assert case(30, 29, chose_photo=False).right
    assert not case(30, 29, chose_photo=True).right
    assert case(30, 29.96, chose_photo=True).right
    assert case(30, 29, chose_photo=True).taken == 29
    ghosts = [choice.Case("0", 2, "pixel art", 30, 31, photo, 0.07, 0.01).ghosts for photo in (False, True)]
    assert ghosts == [0.07, 0.01]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_drawings_are_reproducible_and_match_their_hr(scale: int) -> None:
    for kind in drawings.KINDS:
        lr, hr = drawings.draw(kind, scale, np.random.default_rng(3))
        assert (lr.shape, hr.shape) == ((80, 128, 3), (80 * scale, 128 * scale, 3))
        assert all(
            np.array_equal(a, b)
            for a, b in zip((lr, hr), drawings.draw(kind, scale, np.random.default_rng(3)), strict=True)
        )
        if kind == "pixel art":
            np.testing.assert_array_equal(hr, lr.repeat(scale, 0).repeat(scale, 1))
        if kind.startswith("smooth") or kind == "interface":
            mean = hr.reshape(80, scale, 128, scale, 3).mean((1, 3))
            assert np.abs(mean - lr).max() <= 1


def test_ghost_share_counts_flat_pixels_alone() -> None:
    lr = np.zeros((6, 6), np.uint8)
    lr[:, 3:] = 200
    result = lr.repeat(2, 0).repeat(2, 1)
    assert drawings.ghost_share(lr, result) == 0
    result[:, 4:8] = 90  # beside the edge, where nothing is flat
    assert drawings.ghost_share(lr, result) == 0
    result[:6, 0] = 17
    assert drawings.ghost_share(lr, result) == 6 / (12 * 8)
    assert np.isnan(drawings.ghost_share(lr[:2, 2:4], result[:4, 4:8]))


def test_clean_and_degraded_images_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks, hr = tmp_path / "models", tmp_path / "hr"
    networks.mkdir(), hr.mkdir()
    for seed, name in enumerate(("clean", "mdsr-photo")):
        tiny_networks.write(networks, tiny_networks.tiny_spec(2, name), seed=seed)
    monkeypatch.setattr(catalog, "MODELS_FOLDER", networks)
    monkeypatch.setattr(auto, "CLEAN", "clean")
    pictures.save(pictures.photograph(160, 192), hr / "one.png")
    out = tmp_path / "photo.json"
    choice.main([str(hr), "--scales", "2", "--seeds", "2", "--drawings", "1", "--out", str(out)])
    section = json.loads(out.read_text())["choice"]
    jpegs = [[f"JPEG {quality}", "x2", "1"] for quality in choice.QUALITIES]
    expected = [["bicubic", "x2", "1"], *jpegs, ["photo", "x2", "2"]]
    assert [row[:3] for row in section["tables"][0]["rows"]] == expected
    rows = section["tables"][1]["rows"]
    assert [(row[0], len(row)) for row in rows] == [(kind, 10) for kind in drawings.KINDS]
    cases = section["measurements"]["cases"][: len(jpegs) + 3]
    kinds = [row[0] for row in expected]
    assert [c["kind"] for c in cases] == [*kinds, "photo"]
    assert len({c["photo"] for c in cases}) == len(cases)
    assert cases[0]["clean"] != cases[0]["photo"]
