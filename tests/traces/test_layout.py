"""Layouts place every element in a cell of its own, inside the rows that they claim."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimloom.traces.layout import Grid, Place, Striped, Tiled

SIZES = st.sampled_from([1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 127, 128, 129])
GRIDS = st.builds(
    Grid,
    channels=st.sampled_from([1, 2, 3, 8]),
    banks=st.sampled_from([1, 2, 3, 16]),
    columns=st.sampled_from([1, 2, 3, 8, 64]),
    lanes=st.sampled_from([1, 5, 16]),
    buffer=st.sampled_from([1, 2, 3, 8, 64]),
)


def cells(place: Place, grid: Grid, rows: int) -> np.ndarray:
    """The number of each element's cell; raises for an element outside the memory or the rows."""
    shape = (grid.channels, grid.banks, rows, grid.columns, grid.lanes)
    return np.ravel_multi_index(tuple(np.ravel(part) for part in place), shape)


@given(grid=GRIDS, outputs=SIZES, length=SIZES, segments=st.integers(1, 5), contiguous=st.booleans())
def test_tiled_is_injective_and_stays_inside_its_rows(
    grid: Grid, outputs: int, length: int, segments: int, contiguous: bool
) -> None:
    layout = Tiled(grid, outputs, length, segments, contiguous)
    index = np.meshgrid(np.arange(outputs), np.arange(segments), np.arange(length), indexing="ij")
    place = layout.place(*index)
    used = cells(place, grid, layout.rows)
    assert len(np.unique(used)) == outputs * length * segments
    assert layout.wasted_values == grid.channels * grid.banks * layout.rows * grid.row_values - len(used)
    # Columns are whole: the lane follows the position, everything else is common to a column's lanes.
    np.testing.assert_array_equal(place.lane, index[2] % grid.lanes)
    first = layout.place(index[0], index[1], index[2] // grid.lanes * grid.lanes)
    for part, of_first in zip(place[:-1], first[:-1], strict=True):
        np.testing.assert_array_equal(part, of_first)
    # A dot product runs in one bank, output o in bank o mod banks.
    np.testing.assert_array_equal(place.bank, index[0] % grid.banks)


@pytest.mark.parametrize("outputs", [1, 15, 16, 17, 127, 128, 129])
@pytest.mark.parametrize("length", [1, 1009, 1023, 1024, 1025, 2049])
def test_tiled_on_the_published_grid(outputs: int, length: int) -> None:
    grid = Grid(8, 16, 64, 16, 64)
    layout = Tiled(grid, outputs, length)
    place = layout.place(np.arange(outputs)[:, None], 0, np.arange(length))
    assert np.bincount(cells(place, grid, layout.rows)).max() == 1
    assert len(layout.chunks) == -(-length // 1024)


@given(grid=GRIDS, outputs=SIZES, length=SIZES, segments=st.integers(1, 5), contiguous=st.booleans())
def test_chunks_cover_the_dot_products_and_fit_the_buffer(
    grid: Grid, outputs: int, length: int, segments: int, contiguous: bool
) -> None:
    layout = Tiled(grid, outputs, length, segments, contiguous)
    at, covered = 0, [0] * segments
    for chunk in layout.chunks:
        assert chunk.first == at
        assert chunk.width == sum(columns for _, columns in chunk.parts) <= grid.buffer
        for segment, columns in chunk.parts:
            covered[segment] += columns
        at += chunk.width
    assert covered == [layout.segment_columns] * segments


@given(grid=GRIDS, outputs=SIZES, contiguous=st.booleans())
def test_tiles_of_the_channels_are_all_tiles_once(grid: Grid, outputs: int, contiguous: bool) -> None:
    layout = Tiled(grid, outputs, 1, contiguous=contiguous)
    owned = [layout.tiles_of(c) for c in range(grid.channels)]
    assert sorted(tile for tiles in owned for tile in tiles) == list(range(layout.tiles))
    for c, tiles in enumerate(owned):
        for slot, tile in enumerate(tiles):
            assert layout.channel_slot(tile) == (c, slot)
        assert len(tiles) <= layout.slots


@given(grid=GRIDS, length=st.integers(1, 3000))
def test_striped_is_injective_and_stays_inside_its_rows(grid: Grid, length: int) -> None:
    layout = Striped(grid, length)
    place = layout.place(np.arange(length))
    used = cells(place, grid, layout.rows)
    assert len(np.unique(used)) == length
    assert layout.wasted_values == grid.channels * grid.banks * layout.rows * grid.row_values - length
    np.testing.assert_array_equal(place.lane, np.arange(length) % grid.lanes)
    np.testing.assert_array_equal(place.channel, np.arange(length) // grid.lanes % grid.channels)
