"""Model "auto": clean pictures go through one network; JPEG, noise and hard edges through the other."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_networks
from numpy.typing import NDArray
from skimage import data

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from srcli.backends import registry
from srcli.imaging.resize import downscale
from srcli.io import pictures
from srcli.jobs.plan import for_films
from srcli.models import auto, catalog
from srcli.settings import Settings
from srcli.upscaler import Upscaler
from srcli_train import drawings

Pixels = NDArray[np.uint8]
CASES = Path(__file__).parents[1] / "imaging" / "cases"
CLEAN = np.asarray(downscale(data.astronaut(), 4), np.uint8)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tiny networks at x2 and x3, one of them also at x4, in place of the shipped ones."""
    for scale in (2, 3):
        tiny_networks.write(tmp_path, tiny_networks.tiny_spec(scale, "clean"), seed=1)
        tiny_networks.write(tmp_path, tiny_networks.tiny_spec(scale, "mdsr-photo"), seed=2)
    tiny_networks.write(tmp_path, tiny_networks.tiny_spec(4, "clean"), seed=1)
    monkeypatch.setattr(catalog, "MODELS_FOLDER", tmp_path)
    monkeypatch.setattr(auto, "CLEAN", "clean")
    return tmp_path


def jpeg(image: Pixels) -> Pixels:
    file = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1], np.uint8)


def noisy(image: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    return np.asarray((image + noise).round().clip(0, 255), np.uint8)


def test_each_picture_goes_through_the_network_chosen_for_it(pair: Path) -> None:
    auto = Upscaler("auto", 2)
    hard = drawings.draw("pixel art", 2, np.random.default_rng(1))[0]
    photo = [(image, "mdsr-photo") for image in (jpeg(CLEAN), noisy(CLEAN), hard, hard[:16, :16])]
    for image, name in ((CLEAN, "clean"), *photo):
        result = auto(image)
        assert auto.computed is not None
        assert auto.computed.model == name
        np.testing.assert_array_equal(result, Upscaler(name, 2)(image))


@pytest.mark.parametrize("kind", ["gray", "16 bits", "floats", "alpha"])
def test_any_kind_of_image_is_measured(pair: Path, kind: str) -> None:
    auto = Upscaler("auto", 2)
    for image, name in ((CLEAN, "clean"), (noisy(CLEAN), "mdsr-photo")):
        opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
        kinds = {
            "gray": image[..., 1],
            "16 bits": image.astype(np.uint16) * 257,
            "floats": (image / 255).astype(np.float32),
            "alpha": np.concatenate([image, opaque], 2),
        }
        auto(kinds[kind])
        assert auto.computed is not None
        assert auto.computed.model == name


def test_small_pictures_count_as_clean(pair: Path) -> None:
    auto = Upscaler("auto", 2)
    for image in (noisy(CLEAN)[:31], np.zeros((1, 1), np.uint8), np.zeros((7, 7, 3), np.uint8)):
        auto(image)
        assert auto.computed is not None
        assert auto.computed.model == "clean"


def test_scales_are_those_of_both_networks(pair: Path) -> None:
    assert Upscaler("auto", 2).scales == (2, 3)
    assert Upscaler("clean", 2).scales == (2, 3, 4)


def test_nothing_is_measured_where_nothing_is_enlarged(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto.estimate, "measure", lambda image: pytest.fail("measured"))
    Upscaler("auto", 2)(CLEAN, size=(10, 10))
    Upscaler("clean", 2)(CLEAN)


@pytest.mark.parametrize(("name", "share"), [("pixel-art", 0.005), ("text-screenshot", 0.003)])
def test_flat_areas_of_hard_edged_pictures_stay_flat(name: str, share: float) -> None:
    """At x4 with the shipped networks; mdsr draws ghost strokes on 7% and 0.8% of those pixels."""
    image = pictures.read(CASES / f"{name}.png").pixels
    assert drawings.ghost_share(image, Upscaler("auto", 4)(image)) < share
    assert drawings.ghost_share(image, Upscaler("mdsr", 4)(image)) > share


def test_the_fast_pair_is_chosen_from_in_the_same_way(pair: Path) -> None:
    for seed, name in ((3, "fast"), (4, "fast-photo")):
        tiny_networks.write(pair, tiny_networks.tiny_spec(2, name), seed=seed)
    fast = Upscaler("auto-fast", 2)
    for image, name in ((CLEAN, "fast"), (noisy(CLEAN), "fast-photo")):
        result = fast(image)
        assert fast.computed is not None
        assert fast.computed.model == name
        np.testing.assert_array_equal(result, Upscaler(name, 2)(image))


def test_films_get_the_fast_pair_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    auto_settings = Settings("auto", 2, device="cpu")
    assert for_films(auto_settings).model == "auto-fast"
    for settings in (Settings("mdsr", 2), Settings("auto", 2, backend="bicubic")):
        assert for_films(settings) is settings
    monkeypatch.setattr(registry, "has_gpu", lambda settings: True)
    assert for_films(auto_settings) is auto_settings
