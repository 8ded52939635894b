"""Artifacts: clean pictures are told from JPEGs and noisy ones, photographs and drawings alike."""

from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from srcli.errors import InputError, UsageError
from srcli.imaging.estimate import BLOCKS, NOISE, measure
from srcli.imaging.resize import downscale, imresize, modcrop

Pixels = NDArray[np.uint8]
PHOTOS = (
    "astronaut",
    "coffee",
    "chelsea",
    "rocket",
    "camera",
    "coins",
    "brick",
    "gravel",
    "immunohistochemistry",
)


def _photographs() -> Iterator[tuple[str, Pixels]]:
    """Downscaled, as clean LR is, so that the files' own JPEG and noise are gone."""
    for name in PHOTOS:
        image = getattr(data, name)()
        rgb = image if image.ndim == 3 else np.repeat(image[..., None], 3, 2)
        for scale in (2, 3):
            yield f"{name}/{scale}", np.asarray(downscale(modcrop(rgb, scale), scale), np.uint8)


def _drawings() -> Iterator[tuple[str, Pixels]]:
    y, x = np.mgrid[:192, :192]
    yield "slope", np.stack([x, y, 128 + (x - y) // 2], -1).astype(np.uint8)
    waves = [120 + 80 * np.sin((x + (c + 1) * y) * (x + 40) / 1500) for c in range(3)]
    yield "waves", np.stack(waves, -1).astype(np.uint8)
    yield "text", _text(255, 20)
    yield "night", _text(30, 220)
    yield "menu", _text(240, 40, 24)
    yield "list", _text(60, 200, 16)
    yield "lines", _perspective()
    yield (
        "disc",
        np.where(np.hypot(y - 90, x - 99)[..., None] < 70, (200, 90, 40), (60, 120, 180)).astype(np.uint8),
    )


def _text(paper: int, ink: int, pitch: int = 20) -> Pixels:
    """Lines of text; 16 and 24 pixels apart they lie on an 8-pixel grid of their own."""
    page = np.full((192, 256, 3), paper, np.uint8)
    for line in range(192 // pitch):
        words, place = f"line {line} of the page", (6, pitch - 2 + pitch * line)
        cv2.putText(page, words, place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (ink,) * 3, 1, cv2.LINE_AA)
    return page


def _perspective() -> Pixels:
    page = np.full((192, 256, 3), (90, 130, 160), np.uint8)
    for end in range(-200, 460, 24):
        cv2.line(page, (128, -40), (end, 192), (230, 220, 200), 1, cv2.LINE_AA)
    return page


def _jpeg(image: Pixels, quality: int, phase: int = 0) -> Pixels:
    """With the first `phase` rows and columns cropped away after coding."""
    framed = cv2.copyMakeBorder(image, phase, 0, phase, 0, cv2.BORDER_REFLECT)
    file = cv2.imencode(".jpg", framed, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR)[phase:, phase:], np.uint8)


def _noisy(image: Pixels, sigma: float, channels: int) -> Pixels:
    noise = np.random.default_rng(0).normal(0, sigma, (*image.shape[:2], channels))
    return np.asarray(np.floor(image + noise + 0.5).clip(0, 255), np.uint8)


def _damaged(image: Pixels) -> Iterator[tuple[str, Pixels]]:
    for number, quality in enumerate((30, 50, 75, 90)):
        yield f"quality {quality}", _jpeg(image, quality, 3 * number)
    for sigma in (3, 5, 10):
        yield f"noise {sigma}", _noisy(image, sigma, 3)
    yield "gray noise 5", _noisy(image, 5, 1)


def _undamaged(image: Pixels) -> Iterator[tuple[str, Pixels]]:
    yield "as it is", image
    yield "cropped", image[5:-3, 3:-5]
    yield "turned", np.rot90(image)
    yield "gray", np.repeat(image[..., 1:2], 3, 2)
    half = imresize(image, (image.shape[0] // 2, image.shape[1] // 2))
    yield "half", np.asarray(half, np.uint8)


def test_clean_and_damaged_pictures_are_told_apart() -> None:
    """At least 95 of 100 of either kind; over 300 cases.

    Missed are JPEGs of smooth slopes (they show nothing), black text on pure white (clipping hides it)
    and gray noise on gravel.
    """
    pictures = [*_photographs(), *_drawings()]
    wrong: dict[bool, list[str]] = {True: [], False: []}
    cases = {True: 0, False: 0}
    for name, image in pictures:
        for damaged, versions in ((True, _damaged(image)), (False, _undamaged(image))):
            for how, version in versions:
                found = measure(version)
                cases[damaged] += 1
                if found.suits_photo != damaged:
                    wrong[damaged].append(f"{name} {how}: {found}")
    assert sum(cases.values()) > 300
    for damaged in (True, False):
        assert len(wrong[damaged]) <= 0.05 * cases[damaged], wrong[damaged]


@pytest.mark.parametrize("phase", [0, 1, 5, 7])
def test_the_grid_is_found_wherever_it_lies(phase: int) -> None:
    found = measure(_jpeg(_text(30, 220), 70, phase))
    assert found.blocks > BLOCKS
    assert found.grid == (-phase % 8, -phase % 8)


def test_the_grid_of_a_large_picture_is_counted_from_its_corner() -> None:
    image = np.tile(downscale(data.astronaut(), 2), (5, 5, 1))
    assert measure(_jpeg(image, 60, 3)).grid == (5, 5)


@pytest.mark.parametrize("sigma", [3, 6, 12])
def test_noise_is_measured_in_levels(sigma: int) -> None:
    """Within a tenth on a slope that hides nothing, gray or in every channel alike."""
    slope = np.repeat(np.linspace(40, 215, 256)[None], 256, 0)[..., None].repeat(3, 2).astype(np.uint8)
    for channels in (1, 3):
        assert measure(_noisy(slope, sigma, channels)).noise == pytest.approx(sigma, rel=0.1)


def test_a_pattern_of_eight_pixels_is_no_jpeg_and_nothing_is_no_noise() -> None:
    board = (np.indices((24, 24)).sum(0) % 2 * 200 + 20).astype(np.uint8)
    assert measure(board.repeat(8, 0).repeat(8, 1)).blocks == 0
    art = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    assert not measure(art).suits_photo
    flat = measure(np.full((64, 64, 3), 99, np.uint8))
    assert (flat.blocks, flat.noise, flat.suits_photo) == (0, 0, False)
    assert NOISE > 0


def test_blur_shows_in_what_is_sharpest() -> None:
    """Nearly every photograph blurred by 0.6 to 1.2 pixels, and none that is only half out of focus."""
    for sigma, least in ((0.6, 12), (0.8, 17), (1.2, 17)):
        blurred, half = 0, 0
        for _, image in _photographs():
            soft = cv2.GaussianBlur(image, (0, 0), sigma)
            assert measure(soft).sharpness < measure(image).sharpness
            blurred += measure(soft).suits_photo
            left = np.where(np.arange(image.shape[1])[None, :, None] < image.shape[1] // 2, image, soft)
            half += measure(left).suits_photo and not measure(image).suits_photo
        assert (blurred >= least, half) == (True, 0), f"{sigma} pixels: {blurred} of 18, {half} halves"


def test_noise_too_weak_to_count_does_not_hide_blur() -> None:
    """Noise has as much of the finest detail as of the next octave; counted as detail it hid three of 17."""
    soft = [cv2.GaussianBlur(image, (0, 0), 0.7) for _, image in _photographs()]
    assert sum(measure(_noisy(image, 1.5, 1)).suits_photo for image in soft) >= 17


def test_what_is_far_too_soft_counts_for_the_bicubic_network() -> None:
    """Nobody knows whether it was blurred, and mdsr-photo has not learnt such blur."""
    soft = [cv2.GaussianBlur(image, (0, 0), 2.5) for _, image in _photographs()]
    assert not any(measure(image).suits_photo for image in soft)


def test_a_picture_without_edges_is_not_blurred() -> None:
    y, x = np.mgrid[:192, :192]
    sky = np.stack([100 + x // 4, 120 + y // 5, 200 + 0 * x], -1).astype(np.uint8)
    assert measure(sky).sharpness == 1.0
    assert not measure(sky).suits_photo


def test_what_is_too_small_or_no_image_is_refused() -> None:
    with pytest.raises(UsageError, match="from 32 pixels a side on"):
        measure(np.zeros((31, 64, 3), np.uint8))
    with pytest.raises(InputError, match="int32"):
        measure(np.zeros((64, 64), np.int32))
