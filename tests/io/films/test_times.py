from fractions import Fraction

import pytest

from srcli.io.films.scan import ascending, constant_rate, last_duration

MILLISECOND = Fraction(1, 1000)
NTSC_FILM, NTSC, NTSC_DOUBLE = Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)


def rounded(rate: Fraction, base: Fraction, count: int, start: int = 0, *, down: bool = False) -> list[int]:
    return [start + (int if down else round)(number / rate / base) for number in range(count)]


@pytest.mark.parametrize(
    "rate",
    [
        NTSC_FILM,
        Fraction(24),
        Fraction(25),
        NTSC,
        Fraction(30),
        Fraction(50),
        NTSC_DOUBLE,
        Fraction(60),
        Fraction(12),
        Fraction(25, 2),
    ],
)
@pytest.mark.parametrize("base", [MILLISECOND, Fraction(1, 90000), Fraction(1, 600), Fraction(1, 15360)])
@pytest.mark.parametrize("down", [False, True])
def test_rate_behind_coarse_clock_is_exact(rate: Fraction, base: Fraction, down: bool) -> None:
    times = rounded(rate, base, 2000, 77, down=down)
    assert constant_rate(times, base) == rate


def test_rate_of_40000_frames_does_not_drift() -> None:
    times = rounded(NTSC_FILM, MILLISECOND, 40_000)
    rate = constant_rate(times, MILLISECOND, [Fraction(24), Fraction(23976, 1000)])
    assert rate == NTSC_FILM
    worst = max(abs(time - number / rate * 1000) for number, time in enumerate(times))
    assert worst <= Fraction(1, 2)


def test_hint_decides_between_rates_that_fit() -> None:
    times = rounded(NTSC, MILLISECOND, 12)
    assert constant_rate(times, MILLISECOND, [Fraction(1000), Fraction(30)]) == 30
    assert constant_rate(times, MILLISECOND, [None, Fraction(0), NTSC]) == NTSC


def test_unusual_rate_counts_if_named_or_exact() -> None:
    assert constant_rate(
        rounded(Fraction(1200, 7), MILLISECOND, 600), MILLISECOND, [Fraction(1200, 7)]
    ) == Fraction(1200, 7)
    assert constant_rate([1000 + 7 * number for number in range(500)], Fraction(1, 1200)) == Fraction(1200, 7)


def test_variable_times_have_no_rate() -> None:
    times = rounded(Fraction(25), MILLISECOND, 100)
    assert constant_rate([*times[:50], *times[51:]], MILLISECOND, [Fraction(25)]) is None
    assert constant_rate([0, 40, 80, 122, 160], MILLISECOND, [Fraction(25)]) is None


def test_single_frame_takes_named_rate() -> None:
    assert constant_rate([5], MILLISECOND, [None, Fraction(25)]) == 25
    assert constant_rate([5], MILLISECOND) is None


def test_equal_times_are_moved_apart() -> None:
    assert ascending([0, 5, 3, 3, 3, 9]) == ([0, 3, 4, 5, 6, 9], 3)


@pytest.mark.parametrize(
    ("durations", "stored", "rate", "expected"),
    [
        ([40, 40, 55], True, Fraction(25), 55),
        ([40, 40, 55], False, Fraction(25), 40),
        ([40, 40, 55], False, None, 55),
        ([1, 1, 1], False, None, 40),
        ([0, 0, 0], True, None, 40),
    ],
)
def test_last_duration_is_stored_or_follows_from_steps(
    durations: list[int], stored: bool, rate: Fraction | None, expected: int
) -> None:
    assert last_duration([0, 40, 80], durations, MILLISECOND, rate, stored=stored) == expected
