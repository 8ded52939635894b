"""Fresh processes, the chart, quality and stages."""

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_fakes import BF16, F32, Clock

from srcli import Upscaler
from srcli.benchmark import chart, child, quality, rounds, stages, startup
from srcli.benchmark.attempts import Attempts
from srcli.benchmark.child import Job
from srcli.benchmark.plan import Case
from srcli.errors import InferenceError, InputError
from srcli.io import pictures

BICUBIC = Case("bicubic", "cpu", "fp32")


def job(model: str, backend: str) -> Job:
    return Job(model, 2, backend, "cpu", "fp32", size=16, threads=1, began=0.0)


def test_a_fresh_process_reports_start_and_peak() -> None:
    found = startup.start(job("bicubic", "bicubic"))
    assert (
        0.02 < found.seconds < 120
    )  # Python alone takes longer than the one, a busy machine less than the other
    assert found.host_memory is not None
    assert (
        15e6 < found.host_memory < 1e9
    )  # Python with numpy and OpenCV is above the one; nothing else is loaded
    assert found.device_memory is None


class FakeDriver:
    """The few calls of the NVIDIA driver that a question for memory takes."""

    def __init__(self, free: int, error: int = 0) -> None:
        self.free, self.error = free, error
        self.asked = list[object]()

    def __getattr__(self, name: str) -> object:
        return lambda *arguments: 0

    def cuDeviceGet(self, device: Any, number: Any) -> int:  # noqa: N802
        self.asked.append(number.value)
        return 0

    def cuMemGetInfo_v2(self, free: Any, total: Any) -> int:  # noqa: N802
        free._obj.value, total._obj.value = self.free, 1 << 40
        return self.error


def test_free_memory_is_the_drivers_of_that_gpu() -> None:
    library = FakeDriver(5 << 32)  # more than fits into 32 bits
    assert child.free_on_device("cuda:3", library) == 5 << 32
    assert child.free_on_device("cuda", library) == 5 << 32
    assert library.asked == [3, 0]
    for device in ("cpu", "coreml", "cuda:0,1"):
        assert child.free_on_device(device, library) is None
    assert child.free_on_device("cuda", FakeDriver(1, error=999)) is None


@pytest.mark.parametrize(("left", "taken"), [(300, 700), (1200, 0)])  # another program may give some back
def test_what_a_tile_took_of_the_gpu(left: int, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    free = iter([1000, left])
    monkeypatch.setattr(child, "free_on_device", lambda device: next(free))
    assert child.work(replace(job("bicubic", "bicubic"), began=time.time())).device_memory == taken


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(InferenceError, match=r"nowhere\.onnx: does not exist"):
        startup.start(job("nowhere.onnx", "onnxruntime"))


def test_the_peak_of_this_process_is_what_it_used() -> None:
    before = child.peak_resident()
    held = np.ones(64 << 20, np.uint8)
    after = child.peak_resident()
    assert before is not None
    assert after is not None
    assert after >= max(before, held.nbytes)


def test_the_chart_is_the_same_every_time_and_has_no_empty_part() -> None:
    picture = chart.render(129)
    assert (picture.shape, picture.dtype) == ((129, 129, 3), np.uint8)
    np.testing.assert_array_equal(picture, chart.render(129))
    for part in (picture[:64, :64], picture[:64, 64:], picture[64:, :64], picture[64:, 64:]):
        assert part.std() > 20  # levels: a flat quarter has 0


def test_pictures_come_as_rgb_of_8_bits(tmp_path: Path) -> None:
    gray = np.array([[0, 257, 65535], [128, 129, 257 * 200]], np.uint16)
    pictures.write(tmp_path / "b.png", pictures.Picture(gray))
    rgba = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    pictures.write(tmp_path / "a.png", pictures.Picture(rgba))
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "._a.png").write_bytes(b"\x00\x05\x16\x07")  # as macOS leaves them
    first, second = chart.pictures(tmp_path)
    np.testing.assert_array_equal(chart.read(first), rgba[..., :3])
    expected = np.array([[0, 1, 255], [0, 1, 200]], np.uint8)  # 129/257 rounds up, 128/257 down
    np.testing.assert_array_equal(chart.read(second), np.repeat(expected[..., None], 3, axis=2))


def test_a_folder_without_pictures_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pictures"):
        chart.pictures(tmp_path)
    with pytest.raises(InputError, match="cannot be listed"):
        chart.pictures(tmp_path / "missing")


class Brighter:
    """Enlarges by repetition and adds so many levels."""

    def __init__(self, levels: float) -> None:
        self.levels = levels

    def __call__(self, lr: np.ndarray) -> np.ndarray:
        large = lr.repeat(2, axis=0).repeat(2, axis=1)
        return (large + np.float32(self.levels / 255)).astype(np.float32)


def test_quality_of_known_errors() -> None:
    flat = np.full((21, 20, 3), 100, np.uint8)  # odd: cropped to 20
    exact = Brighter(0)
    cases = {F32: exact, BF16: Brighter(2), BICUBIC: Brighter(0)}
    found = quality.measure(cases, exact, [flat, flat], 2, Attempts())  # type: ignore[arg-type]
    luma = 219 / 255  # levels of Y for one level of gray
    expected = 20 * math.log10(255 / (2 * luma))
    assert found[BF16].to_f32 == pytest.approx(expected, abs=1e-3)  # dB: float32 has 1e-7 of 100 levels
    assert found[BF16].to_hr == pytest.approx(expected, abs=1e-9)
    assert found[F32] == quality.Quality(None, math.inf)
    assert found[BICUBIC] == quality.Quality(math.inf, math.inf)
    alone = quality.measure({BF16: Brighter(2)}, None, [flat], 2, Attempts())  # type: ignore[dict-item]
    assert alone[BF16].to_f32 is None


def test_quality_of_what_fails_is_left_out_and_so_is_what_needs_it() -> None:
    def broken(lr: np.ndarray) -> np.ndarray:
        raise MemoryError("12 bytes")

    flat, attempts = np.full((20, 20, 3), 100, np.uint8), Attempts[Case]()
    cases = {F32: broken, BF16: Brighter(2)}
    found = quality.measure(cases, broken, [flat, flat], 2, attempts)  # type: ignore[arg-type]
    assert found.keys() == {BF16}
    assert found[BF16].to_f32 is None
    assert attempts.problems == {F32: "out of memory (12 bytes)"}


def test_stages_are_medians_of_the_rounds_that_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    decode = iter([9.0, 5.0, 1.0, 3.0, 2.0])  # the first two warm up; the second is read for what then breaks
    read, write = pictures.read, pictures.write
    monkeypatch.setattr(stages, "perf_counter", rounds.perf_counter)

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
    both = {F32: upscale, BF16: broken}
    found = stages.measure(both, 24, 3, attempts)  # type: ignore[arg-type]
    assert attempts.problems == {BF16: "It broke. Mend it."}
    assert found == {F32: stages.Stages(2.0, 4.0, 0.25)}
    assert found[F32].total == 6.25


def test_stages_of_a_real_upscaler() -> None:
    found = stages.measure({BICUBIC: Upscaler("bicubic", 2)}, 32, 1, Attempts())[BICUBIC]
    assert min(found.decode, found.infer, found.encode) > 0
