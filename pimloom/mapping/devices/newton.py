"""Newton: matrices in rows across all banks, one row's worth of the input in the buffer of every channel.

All that the device can do is one product, y[m, s, v, o] = x[m, s, v, :] · A[m, o, s, :], where both vectors are flat in
the order of their indices:

    work      matrices m   outputs o   segments s   length     vectors v of a segment
    gemv      1            outputs     1            inputs     batch
    score     1            tokens      kv_heads     d_head     heads / kv_heads
    context   kv_heads     d_head      1            tokens     heads / kv_heads
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pimloom.arch.device import Device
from pimloom.mapping.devices import Table
from pimloom.traces.layout import Index, Place
from pimloom.traces.stream import Attention, Gemv, Kernel, Site, StreamBuilder


class Piece(NamedTuple):
    """Part of a segment that lies in one row: its first value, its first column and their number."""

    segment: int
    first: int
    column: int
    columns: int


class Step(NamedTuple):
    """All tiles of a round and one chunk of one vector; `row` is that of slot 0."""

    round: int
    vector: int
    chunk: list[Piece]
    row: int


@dataclass(frozen=True)
class Product:
    """The product above on the channels of a site.

    A tile has one output in each bank. The tiles of a matrix are dealt out to `parts` channels, where they take one
    slot after the other; matrices that find no channel wait for the next round. A chunk is what shares a row, and
    fills the buffer: segments side by side, or a part of one that is longer than a row.
    """

    device: Device
    site: Site
    matrices: int
    outputs: int
    segments: int
    length: int
    vectors: int

    @property
    def tiles(self) -> int:
        """Tiles of a matrix."""
        return -(-self.outputs // self.device.dram.banks)

    @property
    def parts(self) -> int:
        """Channels of a matrix."""
        return max(1, min(self.tiles, self.site.channels // self.matrices))

    @property
    def slots(self) -> int:
        """Most tiles of a matrix that one channel has."""
        return -(-self.tiles // self.parts)

    @property
    def rounds(self) -> int:
        """How often channels are given matrices."""
        return -(-self.matrices * self.parts // self.site.channels)

    @property
    def segment_columns(self) -> int:
        """Columns of a segment, whose last one is filled up."""
        return -(-self.length // self.device.elements_per_access)

    def chunks(self) -> list[list[Piece]]:
        """Return the chunks in the order of their rows."""
        width, row = self.segment_columns, self.device.dram.columns
        if width > row:
            values = row * self.device.elements_per_access
            cuts = range(0, width, row)
            return [
                [Piece(s, k * values, 0, min(row, width - cut))]
                for s in range(self.segments)
                for k, cut in enumerate(cuts)
            ]
        fit = row // width
        return [
            [Piece(s, 0, s % fit * width, width) for s in range(first, min(first + fit, self.segments))]
            for first in range(0, self.segments, fit)
        ]

    @property
    def rows(self) -> int:
        """Rows that the matrices take in every bank."""
        return self.rounds * len(self.chunks()) * self.slots

    def steps(self) -> Iterator[Step]:
        """Yield what is done, in order."""
        chunks = self.chunks()
        for r in range(self.rounds):
            for k, chunk in enumerate(chunks):
                row = self.site.row + (r * len(chunks) + k) * self.slots
                yield from (Step(r, v, chunk, row) for v in range(self.vectors))

    def tile(self, round: int, channel: int, slot: int) -> tuple[int, int] | None:
        """Return matrix and tile in a slot of a channel, or None."""
        matrix, part = divmod(round * self.site.channels + channel, self.parts)
        tile = slot * self.parts + part
        return (matrix, tile) if matrix < self.matrices and tile < self.tiles else None

    def kernel(self, operand: str, form: Callable[[Index], Index]) -> Kernel:
        """Return the kernel; `form` makes i8[matrices, outputs, segments, length] an array of the operand's form."""
        channels = range(self.site.channels)
        masks = [
            [sum(1 << c for c in channels if self.tile(r, c, slot)) for slot in range(self.slots)]
            for r in range(self.rounds)
        ]
        b = StreamBuilder(self.device.dram.command_names)
        for step in self.steps():
            b.add("GWRITE", masks[step.round][0], sum(p.columns for p in step.chunk), operand=0)
            for slot, mask in enumerate(masks[step.round]):
                for _, _, column, columns in step.chunk:
                    b.add("COMP", mask, columns, row=step.row + slot, column=column, operand=0, d_operand=0)
                    b.add("READRES", mask, operand=0)
        b.add("END", masks[0][0])
        return Kernel(
            stream=b.build(),
            rows=self.rows,
            size=self.matrices * self.segments * self.vectors * self.outputs,
            stored=lambda: {operand: Place(*map(form, self.place()))},
            feed=lambda: [self.fed(c) for c in channels],
            drain=lambda: [self.drained(c) for c in channels],
        )

    def place(self) -> Place:
        """Return where the elements A[matrix, output, segment, value] lie."""
        dram, lanes = self.device.dram, self.device.elements_per_access
        m, o, s, p = np.ogrid[: self.matrices, : self.outputs, : self.segments, : self.length]
        slot, part = np.divmod(o // dram.banks, self.parts)
        round, channel = np.divmod(m * self.parts + part, self.site.channels)
        chunks, width, at = self.chunks(), self.segment_columns, p // lanes
        if width > dram.columns:
            chunk, column = s * (len(chunks) // self.segments) + at // dram.columns, at % dram.columns
        else:
            chunk, column = s // len(chunks[0]), s % len(chunks[0]) * width + at
        row = self.site.row + (round * len(chunks) + chunk) * self.slots + slot
        return Place(*np.broadcast_arrays(channel, o % dram.banks, row, column, p % lanes))

    def fed(self, channel: int) -> Index:
        """Return which value of x every lane of the buffer's columns gets, i8[accesses, lanes]."""
        lanes = np.arange(self.device.elements_per_access)
        maps = [np.empty((0, len(lanes)), np.int64)]
        for step in self.steps():
            if held := self.tile(step.round, channel, 0):
                for segment, first, _, columns in step.chunk:
                    p = first + np.arange(columns)[:, None] * len(lanes) + lanes
                    vector = (held[0] * self.segments + segment) * self.vectors + step.vector
                    maps.append(np.where(p < self.length, vector * self.length + p, -1))
        return np.concatenate(maps)

    def drained(self, channel: int) -> Index:
        """Return which value of y every bank's result is a part of, i8[accesses, banks]."""
        banks = np.arange(self.device.dram.banks)
        maps = [np.empty((0, len(banks)), np.int64)]
        for step in self.steps():
            for held in filter(None, (self.tile(step.round, channel, slot) for slot in range(self.slots))):
                for piece in step.chunk:
                    o = held[1] * len(banks) + banks
                    vector = (held[0] * self.segments + piece.segment) * self.vectors + step.vector
                    maps.append(np.where(o < self.outputs, vector * self.outputs + o, -1)[None])
        return np.concatenate(maps)


def gemv(device: Device, work: Gemv, site: Site) -> Kernel:
    """Multiply a matrix by vectors, one after the other."""
    product = Product(device, site, 1, work.outputs, 1, work.inputs, work.batch)
    return product.kernel("matrix", lambda field: field[0, :, 0])


def score(device: Device, work: Attention, site: Site) -> Kernel:
    """Multiply the cached keys by the queries: a token is an output, a head a segment."""
    shared = work.heads // work.kv_heads
    product = Product(device, site, 1, work.tokens, work.kv_heads, work.d_head, shared)
    return product.kernel("keys", lambda field: field[0].swapaxes(0, 1))


def context(device: Device, work: Attention, site: Site) -> Kernel:
    """Multiply the cached values by the probabilities: a head is a matrix, whose outputs are its dimensions."""
    shared = work.heads // work.kv_heads
    product = Product(device, site, work.kv_heads, work.d_head, 1, work.tokens, shared)
    return product.kernel("values", lambda field: field[:, :, 0].swapaxes(1, 2))


LOWERINGS: Table = {"gemv": gemv, "score": score, "context": context}
