"""The estimate: JPEG, noise, blur and hard edges are found, in photographs and drawings, and only there."""

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from srcli.errors import InputError
from srcli.imaging.estimate import BLOCKS, HARD, NOISE, Estimate, measure
from srcli.imaging.resize import downscale, imresize, modcrop
from srcli.io import pictures
from srcli_train import drawings

Pixels = NDArray[np.uint8]
CASES = Path(__file__).parent / "cases"
HARD_KINDS = ("pixel art", "one-bit text", "one-bit lines", "interface")
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
    file = cv2.imencode(".jpg", framed[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR)[phase:, phase:, ::-1], np.uint8)


def _noisy(image: Pixels, sigma: float, channels: int) -> Pixels:
    noise = np.random.default_rng(0).normal(0, sigma, (*image.shape[:2], channels))
    return np.asarray(np.floor(image + noise + 0.5).clip(0, 255), np.uint8)


def _damaged(image: Pixels) -> Iterator[tuple[str, Pixels]]:
    for number, quality in enumerate((20, 30, 50, 65)):
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
    for number, quality in enumerate((80, 90, 97)):
        yield f"quality {quality}", _jpeg(image, quality, 3 * number)


def test_clean_and_damaged_pictures_are_told_apart() -> None:
    """At least nine of ten of either kind; over 300 cases.

    Degraded are JPEGs of quality 65 and below, not those of 80 and above. Missed are JPEGs of smooth slopes
    (they show nothing) and of black text on pure white (clipping hides it), and gray noise on gravel.
    """
    pictures = [*_photographs(), *_drawings()]
    wrong: dict[bool, list[str]] = {True: [], False: []}
    cases = {True: 0, False: 0}
    for name, image in pictures:
        for damaged, versions in ((True, _damaged(image)), (False, _undamaged(image))):
            for how, version in versions:
                found = measure(version)
                cases[damaged] += 1
                if found.degraded != damaged:
                    wrong[damaged].append(f"{name} {how}: {found}")
    assert sum(cases.values()) > 300
    for damaged in (True, False):
        assert len(wrong[damaged]) <= 0.1 * cases[damaged], wrong[damaged]


@pytest.mark.parametrize("phase", [0, 1, 5, 7])
def test_the_jpeg_grid_is_found_at_any_offset(phase: int) -> None:
    found = measure(_jpeg(_text(30, 220), 70, phase))
    assert found.blocks > BLOCKS
    assert found.grid == (-phase % 8, -phase % 8)


@pytest.mark.parametrize(
    ("quality", "scale"), [(97, 0), (85, 4), (75, 6), (65, 8), (50, 12), (30, 20), (20, 30)]
)
def test_jpeg_quantization_is_measured(quality: int, scale: float) -> None:
    """The median of the standard table's first seven AC entries at that quality, whatever the grid."""
    image = np.asarray(downscale(data.astronaut(), 2), np.uint8)
    for phase in (0, 3):
        found = measure(_jpeg(image, quality, phase)).quantization
        assert found == pytest.approx(scale, abs=1 if quality < 60 else 0)
    assert measure(image).quantization == 0


def test_a_large_pictures_grid_is_counted_from_its_corner() -> None:
    image = np.tile(downscale(data.astronaut(), 2), (5, 5, 1))
    assert measure(_jpeg(image, 60, 3)).grid == (5, 5)


@pytest.mark.parametrize("sigma", [3, 6, 12])
def test_noise_is_measured_on_0_255(sigma: int) -> None:
    """Within a tenth on a slope that hides nothing, gray or in every channel alike."""
    slope = np.repeat(np.linspace(40, 215, 256)[None], 256, 0)[..., None].repeat(3, 2).astype(np.uint8)
    for channels in (1, 3):
        assert measure(_noisy(slope, sigma, channels)).noise == pytest.approx(sigma, rel=0.1)


def test_eight_pixel_patterns_are_no_jpeg_and_flat_is_no_noise() -> None:
    board = (np.indices((24, 24)).sum(0) % 2 * 200 + 20).astype(np.uint8)
    assert measure(board.repeat(8, 0).repeat(8, 1)).blocks == 0
    art = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    assert not measure(art).degraded
    flat = measure(np.full((64, 64, 3), 99, np.uint8))
    assert (flat.blocks, flat.noise, flat.degraded) == (0, 0, False)
    assert NOISE > 0


def test_blurred_pictures_are_degraded_and_half_blurred_ones_are_not() -> None:
    """Nearly every photograph blurred by 0.6 to 1.2 pixels, and none that is only half out of focus."""
    for sigma, least in ((0.6, 12), (0.8, 17), (1.2, 17)):
        blurred, half = 0, 0
        for _, image in _photographs():
            soft = cv2.GaussianBlur(image, (0, 0), sigma)
            assert measure(soft).sharpness < measure(image).sharpness
            blurred += measure(soft).degraded
            left = np.where(np.arange(image.shape[1])[None, :, None] < image.shape[1] // 2, image, soft)
            half += measure(left).degraded and not measure(image).degraded
        assert (blurred >= least, half) == (True, 0), f"{sigma} pixels: {blurred} of 18, {half} halves"


def test_blur_is_found_under_weak_noise() -> None:
    """Noise has as much of the finest detail as of the next octave; counted as detail it hid three of 17."""
    soft = [cv2.GaussianBlur(image, (0, 0), 0.7) for _, image in _photographs()]
    assert sum(measure(_noisy(image, 1.5, 1)).degraded for image in soft) >= 17


def test_strong_blur_does_not_count_as_degraded() -> None:
    """It may have been drawn so, and mdsr-photo was not trained on such blur."""
    soft = [cv2.GaussianBlur(image, (0, 0), 2.5) for _, image in _photographs()]
    assert not any(measure(image).degraded for image in soft)


def test_a_picture_without_edges_is_not_blurred() -> None:
    y, x = np.mgrid[:192, :192]
    sky = np.stack([100 + x // 4, 120 + y // 5, 200 + 0 * x], -1).astype(np.uint8)
    assert measure(sky).sharpness == 1.0
    assert not measure(sky).degraded


@pytest.mark.parametrize("kind", HARD_KINDS)
def test_hard_edges_are_found_in_drawings(kind: str) -> None:
    for seed in range(10):
        assert measure(drawings.draw(kind, 2, np.random.default_rng(seed))[0]).hard_edged, seed


@pytest.mark.parametrize("kind", ["smooth text", "smooth lines"])
def test_smooth_drawings_have_few_hard_edges(kind: str) -> None:
    """Where they happen to fall on whole pixels; downscaled by bicubic, they have none."""
    found = [measure(drawings.draw(kind, 2, np.random.default_rng(seed))[0]) for seed in range(10)]
    assert sum(estimate.hard_edged for estimate in found) <= 2
    for seed in range(10):
        lr = np.asarray(downscale(drawings.draw(kind, 4, np.random.default_rng(seed))[1], 4), np.uint8)
        assert measure(lr).hard_edges < HARD / 3


@pytest.mark.parametrize("name", ["pixel-art", "text-screenshot"])
def test_the_cases_are_hard_edged(name: str) -> None:
    """At three times the limit or more."""
    assert measure(pictures.read(CASES / f"{name}.png").pixels).hard_edges > 3 * HARD


def test_photographs_have_no_hard_edges() -> None:
    for name, image in _photographs():
        assert measure(image).hard_edges < HARD / 3, name
        assert not measure(np.asarray(downscale(modcrop(image, 2), 2), np.uint8)).hard_edged, name


def test_photographs_in_eight_grays_are_hard_edged() -> None:
    for name, image in _photographs():
        assert measure(image[..., 1] // 32 * 36).hard_edged, name


@pytest.mark.parametrize("side", [8, 12, 16, 24, 31])
def test_hard_edges_are_found_in_small_pictures(side: int) -> None:
    y, x = np.mgrid[:side, :side]
    head = np.where((y > 1) & (y < side - 2) & (x > 1) & (x < side - 2), 200, 40).astype(np.uint8)
    assert measure(head) == Estimate(hard_edges=pytest.approx(measure(head).hard_edges))
    assert measure(head).hard_edged
    disc = (255 / (1 + np.exp(1.5 * (np.hypot(y - side / 2, x - side / 2) - side / 3)))).astype(np.uint8)
    assert not measure(disc).hard_edged


def test_pictures_below_eight_pixels_count_as_clean() -> None:
    for shape in ((1, 1), (1, 9), (7, 7), (7, 400), (3, 3, 4)):
        checks = (np.indices(shape).sum(0) // 2 % 2 * 255).astype(np.uint8)
        assert measure(checks) == Estimate()


def test_hard_edges_count_as_alpha_shows_them() -> None:
    """Colours that alpha hides do not count; a shape cut out by one-bit alpha does."""
    y, x = np.mgrid[:48, :48]
    distance = np.hypot(y - 24, x - 24) - 15
    color = np.where(distance[..., None] < 2, (250, 180, 60), (0, 0, 0)).astype(np.uint8)
    soft = (255 * (0.5 - distance / 3).clip(0, 1)).astype(np.uint8)
    cut = np.where(distance < 0, 255, 0).astype(np.uint8)
    assert measure(color).hard_edged
    assert not measure(np.dstack([color, soft])).hard_edged
    assert measure(np.dstack([np.full_like(color, 250), cut])).hard_edged


def test_very_long_pictures_are_measured() -> None:
    stripe = np.tile(_jpeg(_text(30, 220), 70)[:32], (1, 400, 1))
    for image in (stripe, np.rot90(stripe)):
        assert measure(image).blocks > BLOCKS


def test_arrays_that_are_no_image_are_refused() -> None:
    with pytest.raises(InputError, match="int32"):
        measure(np.zeros((64, 64), np.int32))
