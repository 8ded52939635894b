"""Settings: which size gives which pixels, and what contradicts itself."""

import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli.errors import InputError, UsageError
from srcli.settings import Settings

SIDES = st.integers(1, 20_000)


@pytest.mark.parametrize(
    ("asked", "size", "expected"),
    [
        (Settings(), (10, 20), (40, 80)),
        (Settings(scale=2.5), (3, 5), (8, 13)),  # 7.5 and 12.5 round half up
        (Settings(width=100), (30, 40), (75, 100)),
        (Settings(height=75), (30, 40), (75, 100)),
        (Settings(width=100, height=20), (30, 40), (20, 100)),
        (Settings(long_edge=100), (30, 40), (75, 100)),
        (Settings(long_edge=100), (40, 30), (100, 75)),
        (Settings(width=1), (3, 5000), (1, 1)),  # never less than a pixel
    ],
)
def test_output_size(asked: Settings, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert asked.output_size(size) == expected


@given(SIDES, SIDES, st.integers(1, 40_000))
def test_one_side_given_keeps_the_aspect_ratio_to_half_a_pixel(height: int, width: int, wanted: int) -> None:
    new_height, new_width = Settings(width=wanted).output_size((height, width))
    assert new_width == wanted
    assert new_height == 1 or abs(new_height - height * wanted / width) <= 0.5


@given(SIDES, SIDES, st.integers(1, 40_000))
def test_the_long_edge_is_the_longest(height: int, width: int, edge: int) -> None:
    output = Settings(long_edge=edge).output_size((height, width))
    assert max(output) == edge
    assert output[height < width] == edge


def test_more_than_sixteen_times_is_refused_with_both_sizes() -> None:
    with pytest.raises(InputError, match=r"10×10 to 161×161 is 16\.1 times"):
        Settings(width=161).factor((10, 10))
    assert Settings(width=160).factor((10, 10)) == 16


@pytest.mark.parametrize("scale", [0.5, 0, -2, 16.1, float("nan"), float("inf")])
def test_scales_out_of_range_are_usage_errors(scale: float) -> None:
    with pytest.raises(UsageError):
        Settings(scale=scale)


def test_long_edge_excludes_width_and_height() -> None:
    with pytest.raises(UsageError, match="--long-edge"):
        Settings(width=10, long_edge=10)


@pytest.mark.parametrize(
    "fields",
    [
        {"precision": "fp64"},
        {"threads": -1},
        {"tile": 0},
        {"halo": -1},
        {"halo": "wide"},
        {"quality": 101},
        {"memory": 0},
        {"workers": 0},
        {"width": 0},
    ],
)
def test_values_out_of_range_are_usage_errors(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**fields)


def test_older_names_of_precisions_are_accepted() -> None:
    assert [Settings(precision=name).precision for name in ("f32", "f16", "bf16")] == ["fp32", "fp16", "bf16"]


def test_settings_travel_to_other_processes_unchanged() -> None:
    settings = Settings("mdsr", width=300, halo="exact")
    assert pickle.loads(pickle.dumps(settings)) == settings
    with pytest.raises(FrozenInstanceError):
        settings.scale = 3  # type: ignore[misc]
