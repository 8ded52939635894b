"""What a picture is said to take, against what it takes."""

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from folder_doubles import Disk, Double, Listener, finish

from srcli import Upscaler
from srcli.imaging import alpha as bleeding
from srcli.io import pictures
from srcli.io.pictures import Header, Picture
from srcli.jobs import folder
from srcli.jobs.folder import FolderOptions, FolderRun
from srcli.jobs.memory import picture_bytes
from srcli.jobs.report import Status
from srcli.jobs.sizes import SizeRequest

USUAL = (2, 3, 4)


def test_bytes_are_those_of_the_stage_that_takes_most() -> None:
    rgb, rgba16 = Header(10, 20, 3, 8, "png"), Header(10, 20, 4, 16, "png")
    assert picture_bytes(rgb, SizeRequest(2), USUAL, "png") == 4 * 3 * 800  # encoding
    assert picture_bytes(rgb, SizeRequest(2), USUAL, "webp") == 10 * 3 * 800
    assert picture_bytes(rgba16, SizeRequest(width=4), USUAL, "png") == 4 * 8 * 200  # decoding
    assert picture_bytes(Header(10, 20, 3, 8, "avif"), SizeRequest(1), (), "png") == 6 * 3 * 200


@pytest.mark.parametrize(
    ("scale", "scales", "between"),
    [
        (1.5, (8,), 64 * 200),  # x8, then bicubic
        (1.5, (), 0),  # bicubic alone
        (8, (8,), 0),
    ],
)
def test_what_the_models_own_networks_make_on_the_way_counts(
    scale: float, scales: tuple[int, ...], between: int
) -> None:
    output = int(200 * scale * scale)
    enlarging = 3 * (200 + between + output)
    header = Header(10, 20, 3, 8, "png")
    assert picture_bytes(header, SizeRequest(scale), scales, "png") == max(enlarging, 4 * 3 * output)


def test_two_networks_hold_the_first_ones_result_and_the_seconds_where_bicubic_finishes() -> None:
    """x4 and x4 for x5: sixteen and two hundred and fifty-six times the input beside a small output."""
    taken = picture_bytes(Header(10, 20, 3, 8, "png"), SizeRequest(5), (4,), "png")
    assert taken == 3 * (200 + (16 + 256) * 200 + 25 * 200)


def test_a_run_counts_with_its_models_scales_and_its_outputs_format(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, tiny_catalog: Path
) -> None:
    class Eight(Double):
        scales: tuple[int, ...] = (8,)

    seen: list[tuple[object, ...]] = []

    def count(*facts: object) -> int:
        seen.append(facts[2:])
        return 1

    monkeypatch.setattr(folder, "picture_bytes", count)
    finish(FolderRun(disk.jobs((4, 4)), Eight(), FolderOptions(SizeRequest(2)), Listener()))
    assert seen == [((8,), "png")]
    assert Upscaler("tiny", 2, backend="onnxruntime").scales == USUAL
    assert Upscaler("bicubic", 2).scales == ()


def test_a_model_that_cannot_enlarge_fails_the_picture_and_not_the_run(disk: Disk) -> None:
    class Flat(Double):
        scales: tuple[int, ...] = (1,)

    run = finish(FolderRun(disk.jobs((4, 4)), Flat(), FolderOptions(SizeRequest(2)), Listener()))
    assert [result.status for result in run.results] == [Status.FAILED]


@pytest.mark.parametrize("size", [(200, 300), (1000, 1500)])
def test_enlarging_or_shrinking_with_alpha_takes_no_more_than_it_is_said_to(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a fifth of the sides, and to the same size. Beside pixels there are bands: less than 100 bytes
    for each pixel of the one in `bleed`, and some megabytes for sums in double precision."""
    image = np.random.default_rng(0).integers(0, 256, (1000, 1500, 4), np.uint8)
    image[100:600, 100:900, 3] = 0
    monkeypatch.setattr(bleeding, "_BAND", 1 << 13)
    upscale = Upscaler("bicubic", 2)
    tracemalloc.start()
    upscale(image, size=size)
    taken = tracemalloc.get_traced_memory()[1] + image.nbytes
    tracemalloc.stop()
    asked = SizeRequest(width=size[1], height=size[0])
    assert taken < picture_bytes(Header(1000, 1500, 4, 8, "png"), asked, (), "png") + 100 * (1 << 13) + 4e6


READ = r"""
import re, sys
from pathlib import Path
from srcli.io import pictures
def peak(): return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
pictures.read(sys.argv[1])
before = peak()
pictures.read(sys.argv[2])
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there /proc tells the peak")
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp", "a.jpg"])
def test_decoding_takes_no_more_than_it_is_said_to(tmp_path: Path, name: str) -> None:
    """In a process of its own, since the peak of this one is long past; what the first, tiny picture took
    is not counted. A tenth for the allocator."""
    small, large = tmp_path / f"small-{name}", tmp_path / name
    rows, columns = np.mgrid[0:1500, 0:2000]
    noise = np.random.default_rng(0).integers(0, 8, (1500, 2000))
    pixels = np.stack([rows + noise, columns + noise, rows ^ columns], axis=2).astype(np.uint8)
    pictures.write(small, Picture(pixels[:4, :4]))
    pictures.write(large, Picture(pixels))
    ran = subprocess.run([sys.executable, "-c", READ, small, large], capture_output=True, check=True)
    counted = picture_bytes(pictures.probe(large), SizeRequest(long_edge=400), USUAL, "png")
    assert pixels.nbytes < int(ran.stdout) < 1.1 * counted
