"""What is said to take memory, against what takes it."""

import tracemalloc

import numpy as np
import pytest

from srcli import Upscaler, memory
from srcli.imaging import pixels
from srcli.io.pictures import Header
from srcli.models import catalog
from srcli.settings import Settings

USUAL = (2, 3, 4)
ANY = 1 << 40
"""A limit that no array exceeds."""


@pytest.fixture(autouse=True)
def codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codecs that take 1,000 bytes for decoding and 2,000 for encoding."""
    monkeypatch.setattr(memory, "decode_bytes", lambda header, limit: 1000)
    monkeypatch.setattr(memory, "encode_bytes", lambda *facts, lossless: 2000)


def test_bytes_are_those_of_the_stage_that_takes_most() -> None:
    rgb, rgba16 = Header(10, 20, 3, 8, "png"), Header(10, 20, 4, 16, "png")
    assert memory.of_picture(rgb, Settings(scale=2), USUAL, "png", ANY) == 3 * 800 + 2000  # encoding
    large = Header(100, 200, 3, 8, "png")
    assert memory.of_picture(large, Settings(width=4), USUAL, "png", ANY) == 3 * 20_000 + 1000  # decoding
    taken = memory.of_picture(rgba16, Settings(scale=2), USUAL, "png", ANY)
    assert taken == max(8 * 1000 + 6 * 200 + 13 * 200 // 3, 8 * 800 + 2000)  # enlarging


@pytest.mark.parametrize(
    ("scale", "scales", "between"),
    [
        (1.5, (8,), 64 * 200),  # x8, then bicubic
        (1.5, (), 0),  # bicubic alone
        (8, (8,), 0),
    ],
)
def test_what_networks_make_on_the_way_counts(scale: float, scales: tuple[int, ...], between: int) -> None:
    output = int(200 * scale * scale)
    header = Header(10, 20, 3, 8, "png")
    taken = memory.of_picture(header, Settings(scale=scale), scales, "png", ANY)
    assert taken == max(3 * (200 + between + output), 3 * output + 2000)


def test_two_networks_hold_both_results_where_bicubic_finishes() -> None:
    """x4 and x4 for x5: sixteen and two hundred and fifty-six times the input beside a small output."""
    taken = memory.of_picture(Header(10, 20, 3, 8, "png"), Settings(scale=5), (4,), "png", ANY)
    assert taken == 3 * (200 + (16 + 256) * 200 + 25 * 200)


def test_arrays_beyond_the_limit_take_disk_instead() -> None:
    header, settings = Header(10, 20, 3, 8, "png"), Settings(scale=5)
    limit = 3 * 25 * 200
    assert memory.of_picture(header, settings, (4,), "png", limit) == 3 * (200 + 16 * 200 + 25 * 200)
    assert memory.of_scratch(header, settings, (4,), limit) == 3 * 256 * 200
    assert memory.of_scratch(header, settings, (4,), ANY) == 0


def test_pictures_get_what_process_and_networks_leave() -> None:
    assert memory.for_pictures(Settings(memory=4 << 30), 1 << 30) == (3 << 30) - memory.PROCESS
    assert memory.for_pictures(Settings(memory=8 << 20), 1 << 30) == memory.LEAST


def test_a_network_takes_more_with_larger_windows_and_more_features() -> None:
    spec = catalog.resolve("mdsr-baseline", 4).spec
    sizes = [memory.of_network(spec, side, side) for side in (128, 256, 512)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert 0.3e9 < sizes[2] < 0.8e9


@pytest.mark.parametrize("size", [(200, 300), (1000, 1500)])
def test_shrinking_with_alpha_takes_no_more_than_it_is_said_to(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a fifth of the sides, and to the same size. Beside pixels there are bands: less than 100 bytes
    for each pixel of the one in `bleed`, and some megabytes for sums in double precision."""
    image = np.random.default_rng(0).integers(0, 256, (1000, 1500, 4), np.uint8)
    image[100:600, 100:900, 3] = 0
    monkeypatch.setattr(pixels, "_BAND", 1 << 13)
    upscale = Upscaler("bicubic", 2)
    tracemalloc.start()
    upscale(image, size=size)
    taken = tracemalloc.get_traced_memory()[1] + image.nbytes
    tracemalloc.stop()
    asked = Settings(width=size[1], height=size[0])
    counted = memory.of_picture(Header(1000, 1500, 4, 8, "png"), asked, (), "png", ANY)
    assert taken < counted + 100 * (1 << 13) + 4e6
