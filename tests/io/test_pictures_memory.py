"""What reading and writing a picture is said to take, against what it takes in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from srcli import memory
from srcli.errors import InputError
from srcli.io import pictures
from srcli.io.pictures import Header, Picture

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there /proc tells what is in memory")

SIDE = 1200
MEASURE = r"""
import json, re, sys, threading, time
from pathlib import Path
import numpy as np
from srcli.io import pictures
from srcli.io.pictures import Picture
from srcli.io.storage import allocate

def taken():
    status = Path("/proc/self/status").read_text()
    return 1024 * sum(int(re.search(name + r":\s*(\d+)", status)[1]) for name in ("RssAnon", "RssShmem"))

def peak(work):
    # Work is done again while the watcher saw too little of it, as on a machine that is busy.
    before, found = taken(), [0]
    def watch(done):
        while not done.is_set():
            found.append(taken() - before)
            time.sleep(0.001)
    for _ in range(20):
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(done,))
        watcher.start()
        kept = work()
        done.set()
        watcher.join()
        del kept
        if len(found) > 30:
            break
    return max(found)
"""

READ = r"""
folder, found = Path(sys.argv[1]), {}
pictures._refuse_hungry = lambda *_: None
for name in sys.argv[2:]:
    for limit in (0, 1 << 40):
        pictures.read(folder / f"small-{name}", limit=limit)
        found[f"{name} {limit}"] = peak(lambda: pictures.read(folder / name, limit=limit))
print(json.dumps(found))
"""

WRITE = r"""
folder, found = Path(sys.argv[1]), {}
for case in sys.argv[2:]:
    path, side, channels, dtype, form = case.split()
    path, side, channels = folder / path, int(side), int(channels)
    pixels = allocate((side, side, channels), dtype, limit=0, folder=folder)
    noise = np.random.default_rng(0).integers(0, 40, (100, side, channels)).astype(dtype)
    for top in range(0, side, 100):
        rows = pixels[top : top + 100]
        rows[...] = noise[: len(rows)] + (np.arange(side) // 8 % 200).astype(dtype)[:, None]
        rows *= np.iinfo(dtype).max // 255
    lossless = form == "lossless"
    small = Picture(pixels[:64, :64], order="BGR", lossless=lossless)
    pictures.write(folder / f"small{path.suffix}", small, memory=0)
    large = Picture(pixels, order="BGR", lossless=lossless)
    found[case] = peak(lambda: pictures.write(path, large, memory=0))
print(json.dumps(found))
"""


def measured(code: str, *arguments: object) -> dict[str, int]:
    """Peaks by case, in one process that gives freed memory back at once."""
    command = [sys.executable, "-c", MEASURE + code, *map(str, arguments)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "100000"}
    ran = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    found: dict[str, int] = json.loads(ran.stdout)
    return found


def beside_fixed(number: int) -> int:
    """A tenth and 10 MB for the allocator and what is converted at a time, instead of the fixed part."""
    return int(1.1 * (number - memory._codec_bytes(SIDE * SIDE))) + 10_000_000


def example(channels: int, side: int = SIDE) -> Any:
    rows, columns = np.mgrid[0:side, 0:side]
    noise = np.random.default_rng(0).integers(0, 8, (side, side))
    planes = (rows + noise, columns + noise, rows ^ columns, rows // 8)
    return np.stack(planes[:channels], axis=2).astype(np.uint8)


READ_KINDS = [
    *("2.png", "4.png", "2.tif", "3.tif", "3.webp", "4.webp", "3.jpg", "3.avif", "4.avif", "3.bmp"),
    *("progressive.jpg", "strip.tif", "frame.gif"),
]


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, int]]:
    """(folder of the files, peaks by file and limit)."""
    folder = tmp_path_factory.mktemp("reading")
    options = {"progressive.jpg": {"progressive": True}, "strip.tif": {"tiffinfo": {278: SIDE}}}
    for name in READ_KINDS:
        pixels = example(int(name[0])) if name[0].isdigit() else example(3)
        for path, part in ((folder / f"small-{name}", pixels[:64, :64]), (folder / name, pixels)):
            if name[0].isdigit():
                pictures.write(path, Picture(part))
            else:
                Image.fromarray(part).save(path, **options.get(name, {}))
    return folder, measured(READ, folder, *READ_KINDS)


@pytest.mark.parametrize("name", READ_KINDS)
def test_decoding_stays_within_decode_bytes(reading: tuple[Path, dict[str, int]], name: str) -> None:
    folder, peaks = reading
    header, file = pictures.probe(folder / name), (folder / name).stat().st_size
    size = header.height * header.width * header.channels
    assert peaks[f"{name} 0"] < beside_fixed(memory.decode_bytes(header, limit=0)) + file
    assert peaks[f"{name} {1 << 40}"] < beside_fixed(memory.decode_bytes(header) + size) + file


def test_peaks_hold_the_pixels(reading: tuple[Path, dict[str, int]]) -> None:
    """Of a third of all kinds at least: a system that reclaims memory meanwhile hides peaks."""
    folder, peaks = reading
    headers = {name: pictures.probe(folder / name) for name in READ_KINDS}
    held = [
        peaks[f"{name} {1 << 40}"] > header.height * header.width * header.channels
        for name, header in headers.items()
    ]
    assert 3 * sum(held) >= len(held)


WRITE_KINDS = [
    *(f"a.webp {SIDE} {channels} uint8 lossy" for channels in (1, 3, 4)),
    f"a.webp {SIDE} 4 uint8 lossless",
    *(f"a.avif {SIDE} {channels} {dtype} lossy" for channels in (1, 3, 4) for dtype in ("uint8", "uint16")),
]
FROM_SCRATCH = [f"a.{kind} uint8 -" for kind in ("png 3000 3", "tif 3000 3", "jpg 3000 4", "bmp 3000 3")]


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Peaks by case."""
    return measured(WRITE, tmp_path_factory.mktemp("writing"), *WRITE_KINDS, *FROM_SCRATCH)


@pytest.mark.parametrize("case", WRITE_KINDS)
def test_encoding_stays_within_encode_bytes(writing: dict[str, int], case: str) -> None:
    name, side, channels, dtype, form = case.split()
    size, depth = (int(side), int(side)), np.dtype(dtype).itemsize * 8
    said = memory.encode_bytes(name[2:], size, int(channels), depth, lossless=form == "lossless")
    assert SIDE * SIDE < writing[case] < beside_fixed(said)


@pytest.mark.parametrize("case", FROM_SCRATCH)
def test_encoding_from_scratch_takes_under_16_mb(writing: dict[str, int], case: str) -> None:
    """27 to 36 MB of pixels; where alpha is laid over white, the copy is in a scratch file as well."""
    assert writing[case] < 16_000_000


def test_bytes_by_format_and_kind() -> None:
    size, fixed = (1000, 2000), memory._codec_bytes(2_000_000)
    for name in ("png", "jpeg", "tiff", "bmp"):
        assert memory.encode_bytes(name, size, 3, 8) == fixed
    assert memory.encode_bytes("webp", size, 3, 8) == fixed + 20_000_000
    assert memory.encode_bytes("webp", size, 3, 8, lossless=True) == fixed + 76_000_000
    assert memory.encode_bytes("avif", size, 4, 16) == fixed + 114_000_000
    header = Header(1000, 2000, 3, 8, "webp", copied=6_000_000)
    assert memory.decode_bytes(header) == fixed + 24_000_000
    assert memory.decode_bytes(header, limit=5_999_999) == fixed + 18_000_000


@pytest.mark.parametrize("name", ["a.webp", "a.avif", "progressive.jpg"])
def test_decoders_needing_more_than_limit_are_refused(tmp_path: Path, name: str) -> None:
    options = {"progressive": True} if name == "progressive.jpg" else {}
    Image.fromarray(example(3, 200)).save(tmp_path / name, **options)
    header = pictures.probe(tmp_path / name)
    needed = memory.decode_bytes(header, limit=0) - memory._codec_bytes(200 * 200)
    assert needed > 200 * 200
    pictures.read(tmp_path / name, memory=needed)
    with pytest.raises(InputError, match=name) as caught:
        pictures.read(tmp_path / name, memory=needed - 1)
    assert "--memory 1G" in caught.value.hint
