import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srcli import tiles
from srcli.errors import UsageError

SIDES = st.integers(1, 200)


@st.composite
def plans(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], int]:
    halo = draw(st.integers(0, 20))
    tile = st.integers(2 * halo + 1, 2 * halo + 60)
    return (draw(SIDES), draw(SIDES)), (draw(tile), draw(tile)), halo


@given(plans())
def test_cores_partition_the_image(case: tuple[tuple[int, int], tuple[int, int], int]) -> None:
    size, tile, halo = case
    seen = np.zeros(size, int)
    for part in tiles.plan(size, tile, halo):
        seen[part.core.slices] += 1
    assert (seen == 1).all()


@given(plans())
def test_windows_are_equal_and_inside(case: tuple[tuple[int, int], tuple[int, int], int]) -> None:
    size, tile, halo = case
    for part in tiles.plan(size, tile, halo):
        window = part.window
        assert (window.height, window.width) == (min(tile[0], size[0]), min(tile[1], size[1]))
        assert 0 <= window.top <= size[0] - window.height
        assert 0 <= window.left <= size[1] - window.width


@given(plans())
def test_every_core_has_its_halo(case: tuple[tuple[int, int], tuple[int, int], int]) -> None:
    size, tile, halo = case
    for part in tiles.plan(size, tile, halo):
        core = part.core.within(part.window)
        after = (
            part.window.height - core.top - core.height,
            part.window.width - core.left - core.width,
        )
        assert min(core.height, core.width) >= 1
        assert core.top >= halo or (core.top == 0 and part.window.top == 0)
        assert core.left >= halo or (core.left == 0 and part.window.left == 0)
        assert after[0] >= halo or (after[0] == 0 and part.core.top + core.height == size[0])
        assert after[1] >= halo or (after[1] == 0 and part.core.left + core.width == size[1])


@given(SIDES, SIDES, st.integers(0, 20), st.integers(1, 60))
def test_fit_never_costs_more(height: int, width: int, halo: int, extra: int) -> None:
    tile = 2 * halo + extra
    fitted = tiles.fit((height, width), tile, halo)
    wide, narrow = tiles.plan((height, width), tile, halo), tiles.plan((height, width), fitted, halo)
    assert max(fitted) <= tile
    assert len(narrow) == len(wide)


def test_fit_shares_evenly() -> None:
    """512 in windows of 384 with halo 12: two of 268 instead of two of 384, half the work in 2-D."""
    assert tiles.fit((512, 512), 384, 12) == (268, 268)


def test_one_window_where_it_is_large_enough() -> None:
    (only,) = tiles.plan((3, 5000), 5000, 44)
    assert only.window == only.core == tiles.Box(0, 0, 3, 5000)


def test_scaled_box() -> None:
    assert tiles.Box(1, 2, 3, 4).scaled(4) == tiles.Box(4, 8, 12, 16)


@pytest.mark.parametrize(("tile", "halo"), [(88, 44), (10, 44), (0, 0), (16, -1)])
def test_a_tile_without_core_is_refused(tile: int, halo: int) -> None:
    with pytest.raises(UsageError, match="halo"):
        tiles.plan((300, 300), tile, halo)
