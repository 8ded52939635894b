"""What the tests of the benchmark share: a clock set by hand, engines that take known times, a report."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from srcli.backends.base import Batch, EngineInfo
from srcli.benchmark import rounds, subjects
from srcli.benchmark.quality import Quality, Stages
from srcli.benchmark.report import Machine, Report, Row
from srcli.benchmark.rounds import Spread
from srcli.benchmark.speed import Speed
from srcli.benchmark.subjects import Case, Trial

BF16, FP32 = Case("openvino", "cpu", "bf16"), Case("openvino", "cpu", "fp32")


class Clock:
    """A clock that `passing` alone advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(rounds, "perf_counter", lambda: self.now)
        monkeypatch.setattr(rounds, "sleep", lambda seconds: None)

    def passing(self, seconds: float) -> Callable[[], None]:
        def work() -> None:
            self.now += seconds

        return work


@dataclass
class FakeEngine:
    """Takes what `work` takes and gives zeros."""

    info: EngineInfo
    scale: int
    work: Callable[[], None]

    def run(self, lr: Batch) -> Batch:
        self.work()
        height, width = lr.shape[2:]
        return np.zeros((1, 3, height * self.scale, width * self.scale), np.float32)


def fake_trials(monkeypatch: pytest.MonkeyPatch, *working: tuple[str, str]) -> None:
    """Only these backends and precisions work, and only on the CPU."""

    def trial(backend: str, device: str, precision: str) -> Trial:
        if device == "cpu" and (backend, precision) in working:
            return Trial(backend, device, precision, True, 0.1, 0.1)
        return Trial(backend, device, precision, False, reason=f"No {precision} there.", fix="Buy one.")

    monkeypatch.setattr(subjects, "trial", trial)


def spread(seconds: float) -> Spread:
    return Spread.of([seconds, seconds * 1.1, seconds * 0.9])


def row(precision: str, size: int, seconds: float, to_fp32: float | None) -> Row:
    info = EngineInfo("openvino", "cpu", precision)
    return Row(
        model="tiny <b>",
        scale=4,
        size=size,
        tile=size,
        info=info,
        start=spread(0.75),
        host_memory=123_000_000,
        device_memory=None,
        speed=Speed(info, spread(seconds), 1, 1.25 / seconds, 0.5, 0.625),
        stages=Stages(0.011, 0.222, 0.033),
        quality=Quality(to_fp32, 28.125),
    )


def report() -> Report:
    """Four rows: two precisions at two sizes."""
    rows = (
        row("bf16", 64, 0.2, 51.5),
        row("fp32", 64, 0.4, None),
        row("bf16", 256, 3, 51.5),
        row("fp32", 256, 6, None),
    )
    machine = Machine("A CPU", 2, ("avx2",), (), 8 << 30, "Linux", 0.25)
    command, date = "srcli benchmark --quick", "2030-01-01"
    return Report(rows, machine, {"python": "3.11"}, command, date, 3, 1, 96, "a chart")


def failed(row: Row) -> Row:
    """The same of which nothing could be measured."""
    return replace(
        row,
        start=None,
        host_memory=None,
        speed=None,
        stages=None,
        quality=None,
        problem="speed: out of memory",
    )


def model_file(folder: Path, scale: int) -> str:
    return str(folder / f"tiny-x{scale}.onnx")
