"""One image through the Upscaler: tiles, layouts, sizes, alpha, and what it says about itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tiny_networks
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from upscaler_pictures import ROUNDING, Image, picture, to_8bit

from srcli.backends import registry
from srcli.backends.base import EngineInfo
from srcli.errors import InputError, MissingExtraError, ModelNotFoundError, UsageError
from srcli.imaging.resize import imresize
from srcli.models import auto, catalog
from srcli.models.catalog import scales_for
from srcli.models.spec import ModelSpec, TrainingFacts
from srcli.upscaler import Computed, Upscaler

SHIPPED = [
    pytest.param(spec, id=f"{spec.name}-x{spec.scale}") for spec in catalog.list_models(catalog.MODELS_FOLDER)
]


# Promise 1: tiles leave no trace.


@settings(max_examples=12)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from([2, 3, 4]),
    st.integers(17, 60),
    st.integers(0, 99),
)
def test_tiled_equals_untiled(
    tiny_catalog: Path, height: int, width: int, scale: int, tile: int, seed: int
) -> None:
    image = picture(height, width, seed)
    whole = Upscaler("tiny", scale, precision="fp32", tile=90)(image)
    tiled = Upscaler("tiny", scale, precision="fp32", tile=tile)(image)
    assert np.abs(whole - tiled).max() < ROUNDING


def test_the_test_above_can_fail(tiny_catalog: Path) -> None:
    image = picture(60, 60)
    whole = Upscaler("tiny", 2, precision="fp32")(image)
    cut = Upscaler("tiny", 2, precision="fp32", tile=30, halo=0)(image)
    assert np.abs(whole - cut).max() > 100 * ROUNDING


@pytest.mark.parametrize("spec", SHIPPED)
@settings(max_examples=2)
@given(data=st.data())
def test_shipped_networks_leave_no_trace(spec: ModelSpec, data: st.DataObject) -> None:
    """The exact halo up to rounding in fp32; the measured one within one 8-bit step on a photograph."""
    least = 2 * spec.exact_halo + 8
    height, width, tile = (data.draw(st.integers(least, least + 24)) for _ in range(3))
    image, path = photograph(height, width), catalog.resolve(spec.name, spec.scale).path
    whole = Upscaler(path, spec.scale, precision="fp32", tile=2 * least)(image)
    tile = min(tile, max(height, width) - 1)
    exact = Upscaler(path, spec.scale, precision="fp32", tile=tile, halo=spec.exact_halo)(image)
    assert np.abs(whole - exact).max() < ROUNDING
    measured = Upscaler(path, spec.scale, precision="fp32", tile=3 * spec.halo + 8)(image)
    assert np.abs(to_8bit(whole).astype(int) - to_8bit(measured)).max() <= 1


def photograph(height: int, width: int) -> Image:
    """(H, W, 3) float32: a face and what is around it."""
    return np.float32(skimage.data.astronaut()[40 : 40 + height, 150 : 150 + width] / 255)


# Layouts, types and sizes.


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 1), (6, 9, 2), (6, 9, 3), (6, 9, 4)])
def test_layout_and_type_are_kept(tiny_catalog: Path, dtype: str, shape: tuple[int, ...]) -> None:
    image = (np.random.default_rng(0).random(shape) * (255 if dtype[0] == "u" else 1)).astype(dtype)
    large = Upscaler("tiny", 3)(image)
    assert (large.shape, large.dtype) == ((18, 27, *shape[2:]), image.dtype)


@pytest.mark.parametrize(
    ("available", "factor", "wanted"),
    [
        ((2, 3, 4), 1.2, (2,)),
        ((2, 3, 4), 2, (2,)),
        ((2, 3, 4), 2.5, (3,)),
        ((2, 3, 4), 4, (4,)),
        ((2, 3, 4), 5, (2, 3)),
        ((2, 3, 4), 6.1, (2, 4)),
        ((2, 3, 4), 9, (3, 3)),
        ((2, 3, 4), 10, (3, 4)),
        ((2, 3, 4), 16, (4, 4)),
        ((2,), 4, (2, 2)),
        ((2,), 16, (2, 2)),
        ((4,), 3, (4,)),
    ],
)
def test_scales_of_networks_for_a_factor(
    available: tuple[int, ...], factor: float, wanted: tuple[int, ...]
) -> None:
    assert scales_for(available, factor) == wanted


def test_a_network_that_does_not_enlarge() -> None:
    with pytest.raises(ModelNotFoundError):
        scales_for((1,), 2)


@given(st.integers(1, 12), st.integers(1, 12), st.floats(1, 16))
@settings(max_examples=15)
def test_any_scale_gives_the_size_asked_for(
    tiny_catalog: Path, height: int, width: int, scale: float
) -> None:
    large = Upscaler("tiny", scale)(to_8bit(picture(height, width)))
    assert large.shape == (int(height * scale + 0.5), int(width * scale + 0.5), 3)


def test_bicubic_finishes_what_the_network_began(tiny_catalog: Path) -> None:
    image = to_8bit(picture(20, 24))
    by_hand = imresize(Upscaler("tiny", 3)(image), (50, 60))
    assert np.array_equal(Upscaler("tiny", 2.5)(image), by_hand)


def test_two_networks_run_one_after_the_other(tiny_catalog: Path) -> None:
    image = to_8bit(picture(10, 12))
    assert np.array_equal(Upscaler("tiny", 6)(image), Upscaler("tiny", 3)(Upscaler("tiny", 2)(image)))


def test_not_larger_means_only_bicubic(tiny_catalog: Path) -> None:
    image = to_8bit(picture(40, 40))
    up = Upscaler("tiny", 2)
    assert np.array_equal(up(image, size=(30, 40)), imresize(image, (30, 40)))
    assert np.array_equal(up(image, size=(40, 40)), image)


def test_size_overrides_scale_and_may_change_the_aspect(tiny_catalog: Path) -> None:
    assert Upscaler("tiny", 2)(to_8bit(picture(10, 20)), size=(33, 21)).shape == (33, 21, 3)


@pytest.mark.parametrize("scale", [0, 0.99, 16.01, -4, float("nan")])
def test_scales_out_of_range(tiny_catalog: Path, scale: float) -> None:
    with pytest.raises(UsageError, match="range"):
        Upscaler("tiny", scale)


@pytest.mark.parametrize("size", [(0, 10), (170, 10)])
def test_sizes_out_of_range(tiny_catalog: Path, size: tuple[int, int]) -> None:
    with pytest.raises(UsageError):
        Upscaler("tiny", 2)(to_8bit(picture(10, 10)), size=size)


@pytest.mark.parametrize("arguments", [{"tile": 0}, {"tile": 16, "halo": 8}, {"halo": -1}, {"threads": -1}])
def test_bad_arguments_are_refused_at_once(tiny_catalog: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Upscaler("tiny", 2, **arguments)  # type: ignore[arg-type]


def test_no_image(tiny_catalog: Path) -> None:
    with pytest.raises(InputError):
        Upscaler("tiny", 2)(np.zeros((3, 3, 7), np.uint8))


def test_input_is_not_changed(tiny_catalog: Path) -> None:
    image = np.random.default_rng(0).integers(0, 2, (9, 9, 4), np.uint8)
    before = image.copy()
    Upscaler("tiny", 2)(image)
    assert np.array_equal(image, before)


# Alpha.


def disc(side: int) -> Image:
    """(S, S, 4) uint8: an opaque red disc, and nothing but black under alpha 0 around it."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    image = np.zeros((side, side, 4), np.uint8)
    image[np.hypot(x, y) < side / 3] = (255, 0, 0, 255)
    return image


def over_white(image: Image) -> NDArray[np.float64]:
    alpha = image[..., 3:] / 255
    return np.asarray(image[..., :3] * alpha + 255 * (1 - alpha))


@pytest.mark.parametrize("scale", [2, 4, 2.6])
def test_no_dark_fringe_around_a_disc(scale: float) -> None:
    """Red over white has red 255 everywhere; without bleeding the edge falls below 200. One step of
    rounding each in colour, alpha and finish is allowed."""
    large = over_white(Upscaler("bicubic", scale)(disc(24)))
    assert large[..., 0].min() >= 252
    naive = np.dstack([Upscaler("bicubic", scale)(disc(24)[..., i]) for i in range(4)])
    assert over_white(naive)[..., 0].min() < 220


def test_no_dark_fringe_when_shrinking() -> None:
    assert over_white(Upscaler("bicubic", 2)(disc(60), size=(40, 40)))[..., 0].min() >= 252


def test_constant_alpha_stays_constant(tiny_catalog: Path) -> None:
    image = np.dstack([to_8bit(picture(8, 8)), np.full((8, 8), 77, np.uint8)])
    large = Upscaler("tiny", 4)(image)
    assert (large[..., 3] == 77).all()
    assert np.array_equal(large[..., :3], Upscaler("tiny", 4)(image[..., :3]))


def test_alpha_runs_through_the_network_as_gray(tiny_catalog: Path) -> None:
    image = np.random.default_rng(0).integers(1, 256, (8, 9, 2), np.uint8)
    large = Upscaler("tiny", 2)(image)
    assert np.array_equal(large[..., 1], Upscaler("tiny", 2)(image[..., 1]))


# What it says about itself.


def test_progress_counts_every_tile(tiny_catalog: Path) -> None:
    calls: list[tuple[int, int]] = []
    image = np.random.default_rng(0).integers(1, 256, (50, 40, 4), np.uint8)
    Upscaler("tiny", 6, tile=32)(image, progress=lambda done, total: calls.append((done, total)))
    total = calls[0][1]
    assert calls == [(done, total) for done in range(1, total + 1)]


def test_the_reason_names_what_runs(tiny_catalog: Path) -> None:
    up = Upscaler("tiny", 2, backend="onnxruntime")
    assert up.info == EngineInfo("onnxruntime", "cpu", "fp32")
    assert up.reason == "onnxruntime fp32 on cpu (as asked for)"


def test_x1_says_that_nothing_is_enlarged_and_keeps_the_network_for_sizes(tiny_catalog: Path) -> None:
    up = Upscaler("tiny", 1)
    assert up.reason == "bicubic fp32 on cpu (nothing to enlarge)"
    up(np.zeros((8, 8, 3), np.uint8), size=(16, 16))
    assert up.computed is not None
    assert up.computed.scales == (2,)


def test_auto_says_why(tiny_catalog: Path, caplog: pytest.LogCaptureFixture) -> None:
    up = Upscaler("edsr", 2)
    assert up.info.backend == "openvino"
    assert "fastest installed" in up.reason
    assert caplog.messages == ["edsr: tiny is the best shipped network of the family"]


@pytest.mark.parametrize(
    ("scale", "messages"),
    [
        (2.5, ["x2.5: the network runs at x3, then bicubic to the size"]),
        (6, ["x6: the network runs at x2 and x3"]),
        (4, []),
    ],
)
def test_a_scale_without_network_is_said(
    tiny_catalog: Path, scale: float, messages: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    Upscaler("tiny", scale)
    assert caplog.messages == messages


def test_what_computed_an_image_is_known(tiny_catalog: Path) -> None:
    up = Upscaler("tiny", 2, backend="onnxruntime")
    info = EngineInfo("onnxruntime", "cpu", "fp32")
    files = {scale: catalog.resolve("tiny", scale).path for scale in (2, 3)}
    assert up.computed is None
    up(picture(6, 6))
    assert up.computed == Computed("tiny", (2,), info, "fp32", (files[2],))
    up(picture(6, 6), size=(33, 33))
    assert up.computed == Computed("tiny", (2, 3), info, "fp32", (files[2], files[3]))
    up(picture(6, 6), size=(6, 3))
    assert up.computed == Computed("bicubic", (), EngineInfo("bicubic", "cpu", "fp32"))


def test_nothing_installed(tiny_catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"srcli\[cpu\]"):
        Upscaler("tiny", 2)
    with pytest.raises(MissingExtraError, match=r"srcli\[cpu\]"):
        Upscaler("tiny", 2, backend="onnxruntime")
    assert Upscaler("tiny", 2, backend="bicubic").info.backend == "bicubic"


def test_ensemble_is_symmetric(tiny_catalog: Path) -> None:
    """Flipping the input flips the output: only the order of eight sums differs."""
    image = picture(20, 24)
    up = Upscaler("tiny", 2, precision="fp32", ensemble=True)
    assert np.abs(up(image)[:, ::-1] - up(np.ascontiguousarray(image[:, ::-1]))).max() < ROUNDING
    assert np.abs(up(image) - Upscaler("tiny", 2, precision="fp32")(image)).max() > 100 * ROUNDING


def photo_catalog(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network for damaged pictures beside the clean ones, and both behind "auto"."""
    for scale in (2, 3):
        spec = replace(tiny_networks.tiny_spec(scale, "mend"), training=TrainingFacts(recipe="photo"))
        tiny_networks.write(folder, spec, seed=1)
    monkeypatch.setattr(auto, "CLEAN", "tiny")
    monkeypatch.setattr(auto, "PHOTO", "mend")


@pytest.mark.parametrize("shape", [(24, 31), (24, 31, 3), (24, 31, 4)])
def test_x1_with_a_photo_network_is_x2_and_bicubic_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(catalog, "MODELS_FOLDER", tmp_path)
    photo_catalog(tmp_path, monkeypatch)
    image = np.random.default_rng(3).integers(0, 256, shape, np.uint8)
    up = Upscaler("mend", 1, backend="onnxruntime")
    cleaned = up(image)
    assert up.computed is not None
    assert (up.computed.model, up.computed.scales) == ("mend", (2,))
    assert cleaned.shape == image.shape
    assert not np.array_equal(cleaned, image)
    np.testing.assert_array_equal(up(image, size=shape[:2]), cleaned)
    if image.ndim == 2 or shape[2] == 3:
        twice = Upscaler("mend", 2, backend="onnxruntime")(image)
        np.testing.assert_array_equal(cleaned, imresize(twice, shape[:2]))


def test_x1_with_a_clean_network_changes_nothing(tiny_catalog: Path) -> None:
    image = np.random.default_rng(3).integers(0, 256, (9, 14, 3), np.uint8)
    up = Upscaler("tiny", 1)
    np.testing.assert_array_equal(up(image), image)
    assert up.leaves((9, 14), (9, 14), "tiny")
    assert not up.leaves((9, 14), (9, 15), "tiny")
    assert not Upscaler("bicubic", 1).leaves((9, 14), (9, 14), "bicubic")


def test_x1_with_auto_cleans_what_is_degraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for scale in (2, 3):
        tiny_networks.write(tmp_path, tiny_networks.tiny_spec(scale))
    monkeypatch.setattr(catalog, "MODELS_FOLDER", tmp_path)
    photo_catalog(tmp_path, monkeypatch)
    up = Upscaler("auto", 1, backend="onnxruntime")
    image = np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8)
    for chosen, scales in (("mend", (2,)), ("tiny", ())):
        monkeypatch.setattr(auto, "choose", lambda model, image, chosen=chosen: chosen)
        up(image)
        assert up.computed is not None
        assert up.computed.scales == scales
