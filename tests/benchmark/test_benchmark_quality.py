"""The chart, HR pictures, quality and the time of each stage."""

import math
from pathlib import Path

import numpy as np
import pytest
from benchmark_fakes import BF16, FP32, Clock

from srcli import Upscaler
from srcli.benchmark import quality, rounds
from srcli.benchmark.rounds import Attempts
from srcli.benchmark.subjects import Case
from srcli.errors import InferenceError, InputError
from srcli.io import pictures

BICUBIC = Case("bicubic", "cpu", "fp32")


def test_the_chart_is_deterministic_and_nowhere_flat() -> None:
    picture = quality.chart(129)
    assert (picture.shape, picture.dtype) == ((129, 129, 3), np.uint8)
    np.testing.assert_array_equal(picture, quality.chart(129))
    for part in (picture[:64, :64], picture[:64, 64:], picture[64:, :64], picture[64:, 64:]):
        assert part.std() > 20  # of 255: a flat quarter has 0


def test_hr_pictures_are_read_as_rgb_uint8(tmp_path: Path) -> None:
    gray = np.array([[0, 257, 65535], [128, 129, 257 * 200]], np.uint16)
    pictures.write(tmp_path / "b.png", pictures.Picture(gray))
    rgba = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    pictures.write(tmp_path / "a.png", pictures.Picture(rgba))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._a.png").write_bytes(b"\x00\x05\x16\x07")  # as macOS leaves them
    first, second = quality.hr_files(tmp_path)
    np.testing.assert_array_equal(quality.read_hr(first), rgba[..., :3])
    expected = np.array([[0, 1, 255], [0, 1, 200]], np.uint8)  # 129/257 rounds up, 128/257 down
    np.testing.assert_array_equal(quality.read_hr(second), np.repeat(expected[..., None], 3, axis=2))


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures"):
        quality.hr_files(tmp_path)
    with pytest.raises(InputError, match="cannot be listed"):
        quality.hr_files(tmp_path / "missing")


class Brighter:
    """Enlarges by repetition and adds so many of 255."""

    def __init__(self, added: float) -> None:
        self.added = added

    def __call__(self, lr: np.ndarray) -> np.ndarray:
        large = lr.repeat(2, axis=0).repeat(2, axis=1)
        return (large + np.float32(self.added / 255)).astype(np.float32)


def test_quality_of_known_errors() -> None:
    flat = np.full((21, 20, 3), 100, np.uint8)  # odd: cropped to 20
    exact = Brighter(0)
    cases = {FP32: exact, BF16: Brighter(2), BICUBIC: Brighter(0)}
    found = quality.measure(cases, exact, [flat, flat], 2, Attempts())  # type: ignore[arg-type]
    luma = 219 / 255  # of Y for 1 of 255 in gray
    expected = 20 * math.log10(255 / (2 * luma))
    assert found[BF16].to_fp32 == pytest.approx(expected, abs=1e-3)  # dB: float32 has 1e-7 of 100
    assert found[BF16].to_hr == pytest.approx(expected, abs=1e-9)
    assert found[FP32] == quality.Quality(None, math.inf)
    assert found[BICUBIC] == quality.Quality(math.inf, math.inf)
    alone = quality.measure({BF16: Brighter(2)}, None, [flat], 2, Attempts())  # type: ignore[dict-item]
    assert alone[BF16].to_fp32 is None


def test_quality_leaves_out_failures_and_what_needs_them() -> None:
    def broken(lr: np.ndarray) -> np.ndarray:
        raise MemoryError("12 bytes")

    flat, attempts = np.full((20, 20, 3), 100, np.uint8), Attempts[Case]()
    cases = {FP32: broken, BF16: Brighter(2)}
    found = quality.measure(cases, broken, [flat, flat], 2, attempts)  # type: ignore[arg-type]
    assert found.keys() == {BF16}
    assert found[BF16].to_fp32 is None
    assert attempts.problems == {FP32: "out of memory (12 bytes)"}


def test_stages_are_medians_of_the_rounds_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    decode = iter([9.0, 5.0, 1.0, 3.0, 2.0])  # the first two warm up; the second is read for what then breaks
    read, write = pictures.read, pictures.write
    monkeypatch.setattr(quality, "perf_counter", rounds.perf_counter)

    def slow_read(path: Path) -> pictures.Picture:
        clock.now += next(decode)
        return read(path)

    def slow_write(path: Path, picture: pictures.Picture, *, quality: int | None = None) -> tuple[str, ...]:
        clock.now += 0.25
        return write(path, picture, quality=quality)

    def upscale(image: np.ndarray) -> np.ndarray:
        clock.now += 4.0
        return image

    monkeypatch.setattr(pictures, "read", slow_read)
    monkeypatch.setattr(pictures, "write", slow_write)

    def broken(image: np.ndarray) -> np.ndarray:
        raise InferenceError("It broke.", "Mend it.")

    attempts = Attempts[Case]()
    both = {FP32: upscale, BF16: broken}
    found = quality.stages(both, 24, 3, attempts)  # type: ignore[arg-type]
    assert attempts.problems == {BF16: "It broke. Mend it."}
    assert found == {FP32: quality.Stages(2.0, 4.0, 0.25)}
    assert found[FP32].seconds == 6.25


def test_stages_of_a_real_upscaler() -> None:
    found = quality.stages({BICUBIC: Upscaler("bicubic", 2)}, 32, 1, Attempts())[BICUBIC]
    assert min(found.decode, found.infer, found.encode) > 0
