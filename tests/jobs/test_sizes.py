"""Output sizes: which request gives which pixels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.errors import InputError, UsageError
from srcli.jobs.sizes import SizeRequest

SIDES = st.integers(1, 20_000)


@pytest.mark.parametrize(
    ("request_", "size", "expected"),
    [
        (SizeRequest(), (10, 20), (40, 80)),
        (SizeRequest(2.5), (3, 5), (8, 13)),  # 7.5 and 12.5 round half up
        (SizeRequest(width=100), (30, 40), (75, 100)),
        (SizeRequest(height=75), (30, 40), (75, 100)),
        (SizeRequest(width=100, height=20), (30, 40), (20, 100)),
        (SizeRequest(long_edge=100), (30, 40), (75, 100)),
        (SizeRequest(long_edge=100), (40, 30), (100, 75)),
        (SizeRequest(width=1), (3, 5000), (1, 1)),  # never less than a pixel
    ],
)
def test_output_size(request_: SizeRequest, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert request_.output(size) == expected


@given(SIDES, SIDES, st.integers(1, 40_000))
def test_one_side_given_keeps_the_aspect_ratio_to_half_a_pixel(height: int, width: int, wanted: int) -> None:
    new_height, new_width = SizeRequest(width=wanted).output((height, width))
    assert new_width == wanted
    assert new_height == 1 or abs(new_height - height * wanted / width) <= 0.5


@given(SIDES, SIDES, st.integers(1, 40_000))
def test_the_long_edge_is_the_longest(height: int, width: int, edge: int) -> None:
    output = SizeRequest(long_edge=edge).output((height, width))
    assert max(output) == edge
    assert output[height < width] == edge


def test_more_than_sixteen_times_is_refused_with_both_sizes() -> None:
    with pytest.raises(InputError, match=r"10×10 to 161×161 is 16\.1 times"):
        SizeRequest(width=161).factor((10, 10))
    assert SizeRequest(width=160).factor((10, 10)) == 16


@pytest.mark.parametrize("scale", [0.5, 0, -2, 16.1, float("nan"), float("inf")])
def test_scales_out_of_range_are_usage_errors(scale: float) -> None:
    with pytest.raises(UsageError):
        SizeRequest(scale)


def test_long_edge_excludes_width_and_height() -> None:
    with pytest.raises(UsageError, match="--long-edge"):
        SizeRequest(width=10, long_edge=10)
