"""Progress of a build: the share that is done, and log messages."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.backends.tensorrt.build import BuildProgress, duration, monitor


class Clock:
    """Seconds that the test sets; raises KeyboardInterrupt once `interrupted`."""

    def __init__(self) -> None:
        self.now, self.interrupted = 100.0, False

    def __call__(self) -> float:
        if self.interrupted:
            raise KeyboardInterrupt
        return self.now


def test_nested_phases_count_as_part_of_a_step() -> None:
    progress = BuildProgress("engine")
    progress.start("all", None, 4)
    progress.step("all", 0)
    assert progress.fraction == 1 / 4
    progress.start("kernels", "all", 10)
    progress.step("kernels", 4)
    assert progress.fraction == (1 + 5 / 10) / 4
    progress.finish("kernels")
    progress.step("all", 1)
    assert progress.fraction == 2 / 4
    progress.finish("all")
    assert progress.fraction == 1


def test_time_left_is_logged_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    progress = BuildProgress("engine", clock)
    progress.start("all", None, 100)
    for step in range(50):
        clock.now += 1
        progress.step("all", step)
    assert len(caplog.messages) == 10
    assert caplog.messages[0] == "engine: 5%, about 95 s left".replace("95 s", duration(95))
    assert caplog.messages[-1] == "engine: 50%, about 50 s left"


def test_no_time_left_is_guessed_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    progress = BuildProgress("engine", clock)
    progress.start("all", None, 1000)
    clock.now += 6
    progress.step("all", 0)
    assert caplog.messages == ["engine: 0%"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["start", "step", "finish"]), st.integers(0, 5)),
        max_size=30,
    )
)
def test_fraction_never_falls_in_any_call_order(calls: list[tuple[str, str, int]]) -> None:
    progress, before = BuildProgress("engine"), 0.0
    parents = {"a": None, "b": "a", "c": "b"}
    for name, what, number in calls:
        if what == "start":
            progress.start(name, parents[name], number)
        elif what == "step":
            assert progress.step(name, number)
        else:
            progress.finish(name)
        assert before <= progress.fraction <= 1
        before = progress.fraction


class Api:
    """A stand-in of TensorRT's module."""

    class IProgressMonitor:
        """Its base class."""


def test_ctrl_c_in_a_callback_stops_the_build() -> None:
    clock = Clock()
    progress = BuildProgress("engine", clock)
    seen = monitor(Api, progress)
    seen.phase_start("all", None, 10)
    assert seen.step_complete("all", 0)
    clock.interrupted = True
    assert not seen.step_complete("all", 1)
    assert progress.cancelled
    seen.phase_finish("all")
