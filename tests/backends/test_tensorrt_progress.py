"""The share of a build that is done, and the lines people are told."""

from hypothesis import given
from hypothesis import strategies as st

from srcli.backends.tensorrt.progress import Watch, duration, monitor


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_phases_within_phases_count_as_part_of_a_step() -> None:
    watch = Watch(lambda text: None, "engine")
    watch.start("all", None, 4)
    watch.step("all", 0)
    assert watch.fraction == 1 / 4
    watch.start("kernels", "all", 10)
    watch.step("kernels", 4)
    assert watch.fraction == (1 + 5 / 10) / 4
    watch.finish("kernels")
    watch.step("all", 1)
    assert watch.fraction == 2 / 4
    watch.finish("all")
    assert watch.fraction == 1


def test_the_time_left_is_told_every_few_seconds() -> None:
    told: list[str] = []
    clock = Clock()
    watch = Watch(told.append, "engine", clock)
    watch.start("all", None, 100)
    for step in range(50):
        clock.now += 1
        watch.step("all", step)
    assert len(told) == 10
    assert told[0] == "engine: 5%, about 95 s left".replace("95 s", duration(95))
    assert told[-1] == "engine: 50%, about 50 s left"


def test_nothing_is_guessed_from_nothing() -> None:
    told: list[str] = []
    clock = Clock()
    watch = Watch(told.append, "engine", clock)
    watch.start("all", None, 1000)
    clock.now += 6
    watch.step("all", 0)
    assert told == ["engine: 0%"]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["start", "step", "finish"]), st.integers(0, 5)),
        max_size=30,
    )
)
def test_no_order_of_calls_breaks_it_and_it_never_goes_back(calls: list[tuple[str, str, int]]) -> None:
    watch, before = Watch(lambda text: None, "engine"), 0.0
    parents = {"a": None, "b": "a", "c": "b"}
    for name, what, number in calls:
        if what == "start":
            watch.start(name, parents[name], number)
        elif what == "step":
            assert watch.step(name, number)
        else:
            watch.finish(name)
        assert before <= watch.fraction <= 1
        before = watch.fraction


class Api:
    """Stands in for the module."""

    class IProgressMonitor:
        """Its base class."""


def test_ctrl_c_in_a_callback_asks_the_builder_to_stop() -> None:
    def interrupted(text: str) -> None:
        raise KeyboardInterrupt

    clock = Clock()
    watch = Watch(interrupted, "engine", clock)
    seen = monitor(Api, watch)
    seen.phase_start("all", None, 10)
    assert seen.step_complete("all", 0)
    clock.now += 60
    assert not seen.step_complete("all", 1)
    assert watch.cancelled
    seen.phase_finish("all")
