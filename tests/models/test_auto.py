"""Model "auto": clean images go through one network, JPEG and noise through the other, and it says which."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny_networks
from numpy.typing import NDArray
from skimage import data

from srcli.imaging.resize import downscale
from srcli.models import auto, catalog
from srcli.upscaler import Upscaler

Pixels = NDArray[np.uint8]
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
    file = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR), np.uint8)


def noisy(image: Pixels) -> Pixels:
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    return np.asarray((image + noise).round().clip(0, 255), np.uint8)


def test_each_image_gets_the_network_that_suits_it(pair: Path) -> None:
    auto = Upscaler("auto", 2)
    for image, name in ((CLEAN, "clean"), (jpeg(CLEAN), "mdsr-photo"), (noisy(CLEAN), "mdsr-photo")):
        result = auto(image)
        assert auto.made is not None
        assert auto.made.model == name
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
        assert auto.made is not None
        assert auto.made.model == name


def test_what_is_too_small_to_measure_counts_as_clean(pair: Path) -> None:
    auto = Upscaler("auto", 2)
    auto(noisy(CLEAN)[:31])
    assert auto.made is not None
    assert auto.made.model == "clean"


def test_the_scales_are_those_that_both_have(pair: Path) -> None:
    assert Upscaler("auto", 2).scales == (2, 3)
    assert Upscaler("clean", 2).scales == (2, 3, 4)


def test_nothing_is_measured_where_nothing_is_enlarged(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto.estimate, "measure", lambda image: pytest.fail("measured"))
    Upscaler("auto", 2)(CLEAN, size=(10, 10))
    Upscaler("clean", 2)(CLEAN)
