"""Where a tensor's elements are: pure index maps, shared by lowering, functional execution and error reports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]


class Grid(NamedTuple):
    """The memory that layouts fill: channels, banks of a channel, columns of a row, values of a column.

    buffer: columns that the channel's global buffer holds
    """

    channels: int
    banks: int
    columns: int
    lanes: int
    buffer: int

    @property
    def row_values(self) -> int:
        """Values in one row of a bank."""
        return self.columns * self.lanes


class Place(NamedTuple):
    """Address of elements, all fields of one shape: channel, flat bank, row, column in the row, lane."""

    channel: Index
    bank: Index
    row: Index
    column: Index
    lane: Index


class Chunk(NamedTuple):
    """A part of the dot products that fits the global buffer.

    first: its first column within the whole dot product; width: its columns
    parts: (segment, columns) in order: a result is read out after each
    base_row: first row of the chunk's area, relative to the tensor's base row
    """

    first: int
    width: int
    parts: tuple[tuple[int, int], ...]
    base_row: int


@dataclass(frozen=True)
class Tiled:
    """A matrix whose rows are dot products, one row a bank, `banks` consecutive rows making a tile.

    A row holds `segments` independent dot products of `length` values, each padded to whole columns. Rows wider
    than the global buffer are cut into chunks; inside a chunk the rows of a bank follow each other without a
    gap, so that DRAM rows are full. Tiles go to the channels in turn, or, with `contiguous`, in runs.

    Weight: outputs x inputs, one segment. K cache: tokens x (heads segments of d_head).
    V cache: (head, dimension) x tokens, contiguous, so that a head stays in as few channels as possible.
    """

    grid: Grid
    outputs: int
    length: int
    segments: int = 1
    contiguous: bool = False

    @property
    def segment_columns(self) -> int:
        """Columns of one padded segment."""
        return -(-self.length // self.grid.lanes)

    @property
    def tiles(self) -> int:
        """Tiles of `banks` rows."""
        return -(-self.outputs // self.grid.banks)

    @property
    def slots(self) -> int:
        """Most tiles that a channel holds."""
        return -(-self.tiles // self.grid.channels)

    @cached_property
    def chunks(self) -> tuple[Chunk, ...]:
        """The chunks in order: whole segments where they fit the buffer, else pieces of one segment."""
        size, limit = self.segment_columns, self.grid.buffer
        if size <= limit:
            per = limit // size
            cuts = [
                tuple((s, size) for s in range(k, min(k + per, self.segments)))
                for k in range(0, self.segments, per)
            ]
        else:
            cuts = [((s, min(limit, size - k)),) for s in range(self.segments) for k in range(0, size, limit)]
        chunks, first, row = [], 0, 0
        for parts in cuts:
            width = sum(columns for _, columns in parts)
            chunks.append(Chunk(first, width, parts, row))
            first += width
            row += -(-self.slots * width // self.grid.columns)
        return tuple(chunks)

    @property
    def rows(self) -> int:
        """DRAM rows that the tensor takes in every bank."""
        last = self.chunks[-1]
        return last.base_row + -(-self.slots * last.width // self.grid.columns)

    @property
    def wasted_values(self) -> int:
        """Values of the occupied rows that hold no element."""
        room = self.rows * self.grid.row_values * self.grid.banks * self.grid.channels
        return room - self.outputs * self.length * self.segments

    def channel_slot(self, tile: npt.ArrayLike) -> tuple[Index, Index]:
        """Return channel and slot of tiles."""
        t = np.asarray(tile, np.int64)
        if self.contiguous:
            return t // self.slots, t % self.slots
        return t % self.grid.channels, t // self.grid.channels

    def tiles_of(self, channel: int) -> list[int]:
        """Return the tiles of a channel in slot order."""
        if self.contiguous:
            return list(range(channel * self.slots, min((channel + 1) * self.slots, self.tiles)))
        return list(range(channel, self.tiles, self.grid.channels))

    def place(self, output: npt.ArrayLike, segment: npt.ArrayLike, position: npt.ArrayLike) -> Place:
        """Return where elements (output row, segment, position in the segment) are; arguments broadcast."""
        o, s, p = np.broadcast_arrays(*(np.asarray(a, np.int64) for a in (output, segment, position)))
        channel, slot = self.channel_slot(o // self.grid.banks)
        column = s * self.segment_columns + p // self.grid.lanes
        firsts = np.array([c.first for c in self.chunks], np.int64)
        which = np.searchsorted(firsts, column, side="right") - 1
        widths = np.array([c.width for c in self.chunks], np.int64)[which]
        base = np.array([c.base_row for c in self.chunks], np.int64)[which]
        at = slot * widths + column - firsts[which]
        return Place(
            channel,
            o % self.grid.banks,
            base + at // self.grid.columns,
            at % self.grid.columns,
            p % self.grid.lanes,
        )


@dataclass(frozen=True)
class Striped:
    """A vector in bursts of one column: burst k is on channel k mod channels, row after row, bank after bank."""

    grid: Grid
    length: int

    @property
    def bursts(self) -> int:
        """Columns that the vector takes in all."""
        return -(-self.length // self.grid.lanes)

    @property
    def rows(self) -> int:
        """DRAM rows that the vector takes in every bank (counted over all banks)."""
        return -(-self.bursts // (self.grid.channels * self.grid.columns * self.grid.banks))

    @property
    def wasted_values(self) -> int:
        """Values of the occupied rows that hold no element."""
        return self.rows * self.grid.row_values * self.grid.banks * self.grid.channels - self.length

    def place(self, position: npt.ArrayLike) -> Place:
        """Return where the elements at the given positions are."""
        p = np.asarray(position, np.int64)
        burst = p // self.grid.lanes
        k = burst // self.grid.channels
        row = k // self.grid.columns
        return Place(
            burst % self.grid.channels,
            row % self.grid.banks,
            row // self.grid.banks,
            k % self.grid.columns,
            p % self.grid.lanes,
        )
