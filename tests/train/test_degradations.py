"""Degradations: the same for the same seed, aligned with HR, and what they say they are."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_training import FAST, tiny_pictures, trainer

from srcli.errors import UsageError
from srcli.imaging.estimate import BLOCKS, measure
from srcli.imaging.metrics import to_y
from srcli.imaging.resize import downscale, imresize
from srcli_train.checkpoint import load_checkpoint
from srcli_train.degradations import (
    DEGRADATIONS,
    MARGIN,
    Degradation,
    Film,
    Photo,
    Unknown,
    degrade,
    degrade_with,
    degraded_patch,
    image_generator,
    patch_generator,
)
from srcli_train.degradations.film import compressed
from srcli_train.degradations.kernels import FILTERS, disc, gaussian, resample
from srcli_train.degradations.photo import Noise, add_noise, jpeg
from srcli_train.patches import PatchSampler
from srcli_train.recipes import RECIPES

MILD = Photo(
    clean_share=0, sigma=(0.1, 0.5), radius=(0.1, 0.4), noise=(0.5, 1.5), quality=(80, 98), aliased_share=0
)
MILD_FILM = Film(clean_share=0, film_share=1, photo=MILD, crf=(2, 6), grain_share=0)


def busy(side: int = 144, detail: float = 2.5) -> NDArray[np.uint8]:
    """Smooth random colour everywhere, nothing flat; the side is a multiple of 2, 3 and 4."""
    noise = np.random.default_rng(0).normal(0, 1, (side, side, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), detail)
    return np.asarray((smooth / smooth.std() * 45 + 128).clip(0, 255), np.uint8)


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_film_of_the_same_frames_is_always_the_same(codec: str) -> None:
    frames = [busy()[number : number + 35, number : number + 35] for number in (0, 3, 6)]
    films = set()
    for number in range(150):
        degrade("photo", busy(64), 2, number)  # memory is elsewhere, and holds other things
        made = compressed(frames, codec, 27, (14, 14))
        films.add(b"".join(frame.tobytes() for frame in made))
    assert len(films) == 1


def _draws(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    return patch_generator(seed, 0, 0), image_generator(seed, 0)


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_same_arguments_give_the_same_pixels(name: str, scale: int) -> None:
    hr = busy()[:143, :142]  # no multiple of the scale
    lr = degrade(name, hr, scale, 7)
    assert (lr.shape, lr.dtype) == ((143 // scale, 142 // scale, 3), np.uint8)
    np.testing.assert_array_equal(lr, degrade(name, hr, scale, 7))
    np.testing.assert_array_equal(lr, degrade_with(name, 7)(hr, scale))
    others = [degrade(name, hr, scale, seed) for seed in range(4)]
    assert all((lr != other).any() for other in others) == (name != "bicubic")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("degradation", [MILD, Unknown(), MILD_FILM], ids=["photo", "unknown", "film"])
def test_lr_stays_where_hr_is(degradation: Degradation, scale: int) -> None:
    """Upscaled again, LR's luma fits HR's best unmoved; the peak is less than a tenth of an HR pixel away.

    Half an HR pixel is the error of plain decimation at an even scale. Chroma at half size is too coarse.
    """
    hr = busy(detail=1.25 * scale)  # what LR can hold
    for seed in range(12):
        lr = degradation(hr, scale, *_draws(seed))
        again = to_y(imresize(lr, hr.shape[:2]))
        for axis in (0, 1):
            before, here, after = (_fit(np.roll(again, step, axis), to_y(hr)) for step in (-1, 0, 1))
            assert here > max(before, after)
            assert abs((before - after) / (2 * (before - 2 * here + after))) < 0.1


def _fit(sr: NDArray[np.float64], hr: NDArray[np.float64]) -> float:
    inner = (slice(12, -12), slice(12, -12))
    return float(np.corrcoef(sr[inner].ravel(), hr[inner].ravel())[0, 1])


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_clean_patches_equal_the_cached_ones(scale: int) -> None:
    hr = busy()[: 141 // scale * scale + 1, :140]
    full = downscale(hr[: len(hr) // scale * scale, : 140 // scale * scale], scale)
    bottom, right = full.shape[0] - 16, full.shape[1] - 16
    for y, x in [(0, 0), (0, right), (bottom, 0), (bottom, right), (5, 3), (MARGIN, MARGIN)]:
        patch = degraded_patch(Photo(clean_share=1), hr, scale, (y, x), 16, *_draws(1))
        np.testing.assert_array_equal(patch, full[y : y + 16, x : x + 16])


def test_as_many_pictures_stay_clean_as_asked() -> None:
    hr = busy(side=48)
    clean = downscale(hr, 2)
    count = sum(np.array_equal(Photo(clean_share=0.3)(hr, 2, *_draws(seed)), clean) for seed in range(300))
    assert 60 < count < 120  # 90 ± 3.8 standard deviations


@pytest.mark.parametrize("name", ["photo", "film"])
def test_measuring_leaves_no_picture_clean(name: str) -> None:
    hr = busy(side=48)
    clean = downscale(hr, 2)
    assert all((degrade(name, hr, 2, seed) != clean).any() for seed in range(60))


def test_photo_covers_a_wide_range_of_damage() -> None:
    """From hardly visible to severe, by PSNR against bicubic LR; never an invalid or a black picture."""
    hr = busy()
    clean = downscale(hr, 2).astype(np.float64)
    lows = [Photo(clean_share=0)(hr, 2, *_draws(seed)) for seed in range(60)]
    scores = sorted(10 * np.log10(255**2 / np.mean((low - clean) ** 2)) for low in lows)
    assert scores[0] < 27
    assert scores[-1] > 36
    assert all(abs(float(low.mean()) - clean.mean()) < 2 for low in lows)  # brightness stays


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_codec_loses_more_at_a_higher_crf_and_keeps_the_order(codec: str) -> None:
    """Frames of any size, odd ones too, come back as many, in order and in place."""
    frames = [np.ascontiguousarray(busy()[n : n + 63, 5:72]) for n in (0, 9, 18)]
    errors = []
    for crf in (10, 24, 38):
        decoded = compressed(frames, codec, crf, (3, 6))
        assert [frame.shape for frame in decoded] == [(63, 67, 3)] * 3
        distances = np.array([[np.abs(a.astype(int) - b).mean() for b in frames] for a in decoded])
        assert (distances.argmin(1) == [0, 1, 2]).all()
        errors.append(distances.diagonal().mean())
    assert errors == sorted(errors)
    assert errors[0] < 0.6 * errors[-1]


def test_films_are_as_often_clean_photographs_and_compressed_as_asked() -> None:
    hr = busy(side=48)
    clean, seeds = downscale(hr, 2), range(120)
    lows = [Film(clean_share=0.5)(hr, 2, *_draws(seed)) for seed in seeds]
    assert 41 < sum(np.array_equal(low, clean) for low in lows) < 79  # 60 ± 3.5 standard deviations
    still = Film(clean_share=0, film_share=0, photo=Photo(clean_share=1))
    assert all(np.array_equal(still(hr, 2, *_draws(seed)), clean) for seed in range(5))


@pytest.mark.parametrize("share", [0, 1])
def test_jpeg_comes_last_and_as_often_as_asked(share: int) -> None:
    """The 8×8 grid is seen in every picture or in none."""
    noise = np.random.default_rng(0).normal(128, 40, (288, 288, 3))
    hr = np.asarray(cv2.GaussianBlur(noise, (0, 0), 1.2).clip(0, 255), np.uint8)
    photo = Photo(clean_share=0, noise_share=0, jpeg_share=share, quality=(30, 85), sigma=(0.1, 0.4))
    found = [measure(photo(hr, 2, *_draws(seed))).blocks > BLOCKS for seed in range(12)]
    assert sum(found) == share * len(found)


def test_an_image_has_one_kernel_and_another_image_another() -> None:
    unknown = Unknown()
    first, again, other = (unknown.kernel(4, image_generator(1, number)) for number in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or np.abs(first - other).max() > 1e-3
    impulse = np.zeros((192, 192, 3), np.uint8)
    impulse[94:98, 94:98] = 255
    low = [unknown(impulse, 4, patch_generator(1, update, 0), image_generator(1, 3)) for update in range(2)]
    np.testing.assert_array_equal(*low)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_kernels_are_centred_normalised_and_as_wide_as_given(scale: int) -> None:
    kernel = gaussian((2.0, 4.0), 0.0, 31 + scale % 2).astype(np.float64)
    place = np.arange(len(kernel)) - (len(kernel) - 1) / 2
    across, down = kernel.sum(0), kernel.sum(1)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert (across * place).sum() == pytest.approx(0, abs=1e-5)
    assert np.sqrt((across * place**2).sum()) == pytest.approx(2, rel=0.01)
    assert np.sqrt((down * place**2).sum()) == pytest.approx(4, rel=0.01)
    assert disc(1.5, 5).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("size", [(31, 45), (60, 60), (97, 70)])
def test_a_displaced_grid_is_put_back(name: str, size: tuple[int, int]) -> None:
    """A slope of 2 levels a pixel comes back within a quarter of a pixel anywhere, and unmoved on the whole.

    Only where they are not widened do filters keep a slope exactly; the grid is displaced by 0.4 pixels.
    """
    y, x = np.mgrid[:60, :60].astype(np.float32)
    slope = np.stack([2 * y, 2 * x, y + x], -1)
    phase = (0.4, -0.3)
    there = resample(slope, size, name, phase=phase)
    back = resample(there, (60, 60), name, offset=phase)
    inner = (slice(12, -12), slice(12, -12))
    assert np.abs(back - slope)[inner].max() < 0.5
    assert np.abs(np.mean((back - slope)[inner])) < 0.05  # none of them moves it


def test_noise_has_the_given_strength_correlation_and_signal() -> None:
    def field(level: float, noise: Noise) -> NDArray[np.float64]:
        image = np.full((200, 200, 3), level, np.float32)
        return (add_noise(image, noise, np.random.default_rng(0)) - image).astype(np.float64)

    plain = field(128, Noise(5, 0.5, 0.25, 0))
    assert plain.std() == pytest.approx(5, rel=0.02)  # 120,000 draws: 0.2% of standard error
    assert np.corrcoef(plain[..., 0].ravel(), plain[..., 1].ravel())[0, 1] == pytest.approx(0.25, abs=0.03)
    assert field(32, Noise(5, 1, 0, 0)).std() == pytest.approx(2.5, rel=0.02)  # sqrt(32 / 128)
    assert field(128, Noise(5, 0, 0, 0.6)).std() == pytest.approx(5, rel=0.02)  # grain keeps the variance
    gray = field(128, Noise(5, 0, 1, 0))
    np.testing.assert_array_equal(gray[..., 0], gray[..., 2])


@pytest.mark.parametrize("phase", [(0, 0), (3, 6)])
def test_jpeg_blocks_lie_where_they_should(phase: tuple[int, int]) -> None:
    """The highest frequency is quantised away in the blocks of the grid, and only there."""
    sharp = np.asarray(np.random.default_rng(0).normal(128, 25, (144, 144, 3)).clip(0, 255), np.uint8)
    done = jpeg(sharp, 30, "4:4:4", phase).astype(np.float32) @ np.float32([0.299, 0.587, 0.114])

    def highest(top: int, left: int) -> float:
        blocks = [done[y : y + 8, x : x + 8] for y in range(top, 128, 8) for x in range(left, 128, 8)]
        return float(np.mean([abs(cv2.dct(np.ascontiguousarray(b))[6:, 6:]).mean() for b in blocks]))

    there = highest(-phase[0] % 8, -phase[1] % 8)
    assert there < 0.5  # what rounding RGB leaves
    assert there < 0.6 * highest((4 - phase[0]) % 8, (4 - phase[1]) % 8)


def test_chroma_at_half_size_loses_colour_detail() -> None:
    image = busy()
    lost = {s: np.abs(jpeg(image, 95, s).astype(int) - image).mean() for s in ("4:2:0", "4:4:4")}
    assert lost["4:2:0"] > lost["4:4:4"]
    assert lost["4:4:4"] < 2


@pytest.mark.parametrize("degradation", ["unknown", "photo"])
def test_degraded_patches_depend_on_the_update_alone(tmp_path: Path, degradation: str) -> None:
    pictures = tiny_pictures(tmp_path, (2, 3, 4))
    many = replace(FAST, batch=16)  # of a few, all may be left clean
    plain = PatchSampler(pictures, many)
    one, two = (PatchSampler(pictures, replace(many, degradation=degradation)) for _ in range(2))
    for update in (4, 3):
        batch = one(update)
        np.testing.assert_array_equal(batch.hr, plain(update).hr)
        np.testing.assert_array_equal(batch.lr, two(update).lr)
        assert (batch.lr != plain(update).lr).any()
        moved = np.abs(batch.lr.astype(int) - plain(update).lr).mean()
        assert moved < 20  # still the same places, flips and turns


def test_a_degradation_nobody_knows_is_refused() -> None:
    with pytest.raises(UsageError, match="'blurry' is not known"):
        replace(FAST, degradation="blurry")


def test_a_degraded_run_resumes_and_old_checkpoints_are_bicubic(tmp_path: Path) -> None:
    photo = replace(FAST, degradation="photo", updates=4)
    trainer(tmp_path, recipe=photo).run(stop_at=2)
    again = load_checkpoint(trainer(tmp_path, recipe=photo, resume=True).run())
    assert (again.recipe.degradation, again.update) == ("photo", 4)
    assert RECIPES["photo"].degradation == "photo"
    assert RECIPES["fast"].degradation == "bicubic"  # as in every checkpoint that does not say
