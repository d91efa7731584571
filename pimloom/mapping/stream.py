"""Programs of a near-bank GEMV device: streams of MACs through packed rows, row reads and writes.

PIM-GPT's data flow (arXiv 2310.09385, methods): the input goes to the channel's global buffer, all banks open a
row, one MAC per column step until the row is used up, then the next row; a result is read out after each dot
product or part of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from math import lcm

from pimloom.traces.layout import Chunk, Tiled
from pimloom.traces.program import Builder

Piece = tuple[int, int, int, bool]
"""Column in the row, column of the buffer, columns, whether a result is complete after them."""


def load(builder: Builder, columns: int) -> None:
    """Fill `columns` columns of the global buffer from the pins."""
    builder.add("WR_GB", columns, buffer=0, d_buffer=1)


def _pieces(
    chunk: Chunk, slots: range, parts: Sequence[int], columns: int
) -> Iterable[tuple[int, list[Piece]]]:
    """Yield (row, pieces) for the slots one after the other, cut where a DRAM row ends."""
    cut: list[tuple[int, Piece]] = []
    for slot in slots:
        at, buffer = slot * chunk.width, 0
        for part, (_, whole) in zip(parts, chunk.parts, strict=True):
            done = 0
            while done < part:
                column = (at + done) % columns
                n = min(part - done, columns - column)
                cut.append(((at + done) // columns, (column, buffer + done, n, done + n == part)))
                done += n
            at += whole
            buffer += whole
    for row, group in groupby(cut, key=lambda item: item[0]):
        yield row, [piece for _, piece in group]


def _visit(builder: Builder, row: int, pieces: list[Piece]) -> None:
    """Open a row in all banks, do its pieces, close it; equal neighbours become a loop."""
    builder.add("ACT_AB", row=row)
    i = 0
    while i < len(pieces):
        column, buffer, n, ends = pieces[i]
        same = 1
        while i + same < len(pieces) and pieces[i + same] == (column + same * n, buffer + same * n, n, ends):
            same += 1
        if ends and same > 1:
            with builder.loop(same, columns=n, buffers=n):
                builder.add("MAC_AB", n, row=row, column=column, buffer=buffer, d_column=1, d_buffer=1)
                builder.add("RD_MAC")
            i += same
        else:
            builder.add("MAC_AB", n, row=row, column=column, buffer=buffer, d_column=1, d_buffer=1)
            if ends:
                builder.add("RD_MAC")
            i += 1
    builder.add("PREA")


def stream(builder: Builder, layout: Tiled, chunk: Chunk, slots: range, used: int | None = None) -> None:
    """Multiply the buffer with one chunk of the tiles in `slots`, reading a result out after every part.

    used: columns of the chunk's only part that are wanted (a V cache that is not full yet); None = all
    """
    columns = layout.grid.columns
    parts = [n if used is None else min(n, used) for _, n in chunk.parts]
    period = lcm(chunk.width, columns)
    slots_per, rows_per = period // chunk.width, period // columns
    times = len(slots) // slots_per if slots.start % slots_per == 0 else 0
    done = 0
    if times > 1:
        head = range(slots.start, slots.start + slots_per)
        with builder.loop(times, rows=rows_per):
            for row, pieces in _pieces(chunk, head, parts, columns):
                _visit(builder, chunk.base_row + row, pieces)
        done = times * slots_per
    for row, pieces in _pieces(chunk, slots[done:], parts, columns):
        _visit(builder, chunk.base_row + row, pieces)


def access_row(builder: Builder, layout: Tiled, slot: int, command: str) -> None:
    """Read or write all columns of one matrix row, which lies in one bank (bank 0: the task's base bank)."""
    columns = layout.grid.columns
    for chunk in layout.chunks:
        at, left = slot * chunk.width, chunk.width
        while left:
            n = min(left, columns - at % columns)
            row = chunk.base_row + at // columns
            builder.add("ACT", bank=0, row=row)
            builder.add(command, n, bank=0, row=row, column=at % columns, d_column=1)
            builder.add("PRE", bank=0)
            at += n
            left -= n


def scatter_column(builder: Builder, layout: Tiled, column: int, filled: Sequence[int], bursts: int) -> None:
    """Write one column of every tile of a channel, `bursts` masked bursts a bank.

    column: column within the dot product; filled: valid banks of each slot
    """
    columns, banks = layout.grid.columns, layout.grid.banks
    chunk = next(c for c in reversed(layout.chunks) if c.first <= column)
    inside = column - chunk.first
    if chunk.width == columns and len(filled) > 1 and set(filled) == {banks}:
        with builder.loop(len(filled), rows=1):
            _scatter(builder, chunk.base_row, [(inside, banks)], bursts)
        return
    at = [(slot * chunk.width + inside, n) for slot, n in enumerate(filled)]
    for row, group in groupby(at, key=lambda item: item[0] // columns):
        _scatter(builder, chunk.base_row + row, [(place % columns, n) for place, n in group], bursts)


def _scatter(builder: Builder, row: int, writes: list[tuple[int, int]], bursts: int) -> None:
    builder.add("ACT_AB", row=row)
    for column, n in writes:
        for _ in range(bursts):
            builder.add("WR", n, bank=0, row=row, column=column, d_bank=1)
    builder.add("PREA")


def read_stripe(builder: Builder, bursts: int, columns: int, banks: int) -> None:
    """Read the first `bursts` columns of a channel's stripe; the rows of several banks open ahead."""
    rows = [(k, min(columns, bursts - k * columns)) for k in range(-(-bursts // columns))]
    for first in range(0, len(rows), banks):
        group = rows[first : first + banks]
        for k, _ in group:
            builder.add("ACT", bank=k % banks, row=k // banks)
        for k, n in group:
            builder.add("RD", n, bank=k % banks, row=k // banks, column=0, d_column=1)
        builder.add("PREA")
