"""Streams: what a PIM device is told to do, one instruction after the other, for all of its channels.

An instruction stands for `times` accesses on each of its channels. A stream holds no clocks, no refresh and, unless a
device wants it so, no activates: a controller opens rows as instructions need them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.traces.layout import Index, Place

I4 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint64]

BARRIER, SYNC, END, REGISTER = -1, -2, -3, -4
"""Instructions that are no commands of the DRAM.

BARRIER: later instructions of a channel wait until the earlier ones have left its queue
SYNC, END: wait until all that was sent to any channel is done; END is the last instruction of a run
REGISTER: work in the front end's own registers, which occupies it for one clock
"""
PSEUDO = {"BARRIER": BARRIER, "SYNC": SYNC, "END": END, "REGISTER": REGISTER}

FIELDS = ("command", "times", "node", "row", "column", "d_column", "operand", "d_operand")


@dataclass(frozen=True, eq=False)
class Stream:
    """Instructions as a struct of arrays.

    commands: names by id, as in the DRAM description
    command: i4[n]    id of the command that completes each access, or one of `PSEUDO`
    times: i4[n]      accesses, > 0
    channels: u8[n]   bit c: for channel c
    node: i4[n]       flat node, within the channel, of the level that the command addresses
    row, column: i4[n]   -1 = none
    d_column: i4[n]   advance of the column from one access to the next
    operand: i4[n]    what else the access works with: a column of an input buffer, a register, ...; -1 = none
    d_operand: i4[n]  advance of the operand
    """

    commands: tuple[str, ...]
    channels: U8
    command: I4
    times: I4
    node: I4
    row: I4
    column: I4
    d_column: I4
    operand: I4
    d_operand: I4

    def __len__(self) -> int:
        return len(self.command)

    def moved(self, rows: int, within: int) -> Stream:
        """Return this stream with operands, which take the rows below `within`, so many rows further on.

        All other rows are the device's own, such as those of its registers, and stay.
        """
        is_moved = (self.row >= 0) & (self.row < within)
        return replace(self, row=np.where(is_moved, self.row + np.int32(rows), self.row))

    def __add__(self, other: Stream) -> Stream:
        """Return this stream and then another one of the same device."""
        if self.commands != other.commands:
            raise ValueError("streams of different devices")
        return Stream(
            self.commands,
            *(np.concatenate([getattr(s, f) for s in (self, other)]) for f in ("channels", *FIELDS)),
        )


@dataclass
class StreamBuilder:
    """Collects instructions; `build` freezes them into a `Stream`."""

    commands: Sequence[str]
    _rows: list[tuple[int, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._id = {**{name: i for i, name in enumerate(self.commands)}, **PSEUDO}

    def add(
        self,
        command: str,
        channels: int,
        times: int = 1,
        *,
        node: int = 0,
        row: int = -1,
        column: int = -1,
        d_column: int = 1,
        operand: int = -1,
        d_operand: int = 1,
    ) -> None:
        """Append one instruction; `channels` is a mask. Raises KeyError for a command that the device lacks."""
        if times < 1:
            raise ValueError(f"{command}: {times} accesses")
        self._rows.append(
            (channels, self._id[command], times, node, row, column, d_column, operand, d_operand)
        )

    def build(self) -> Stream:
        """Return the stream."""
        channels = np.array([row[0] for row in self._rows], np.uint64)
        table = np.array([row[1:] for row in self._rows], np.int32).reshape(-1, len(FIELDS))
        return Stream(
            tuple(self.commands), channels, *(np.ascontiguousarray(table[:, i]) for i in range(len(FIELDS)))
        )


class Gemv(NamedTuple):
    """y[batch, outputs] = x[batch, inputs] · matrix[outputs, inputs]ᵀ, as operands `matrix` and `vector`."""

    outputs: int
    inputs: int
    batch: int = 1


class Elementwise(NamedTuple):
    """y[n] = a + b, a * b or max(a, 0) of operands `a` and `b`; kind: add, mul or relu."""

    kind: str
    elements: int


class Attention(NamedTuple):
    """One token's attention over `tokens` cached ones; query head h uses key-value head h // (heads / kv_heads).

    kind score: y[heads, tokens] = q[heads, d_head] · keys[kv_heads, tokens, d_head]ᵀ, operands `keys` and `vector`
    kind context: y[heads, d_head] = p[heads, tokens] · values[kv_heads, tokens, d_head], `values` and `vector`
    kind attention: the context of the softmax of the score; whoever scales it scales q. All three operands
    """

    kind: str
    heads: int
    kv_heads: int
    d_head: int
    tokens: int


Work = Gemv | Elementwise | Attention
Maps = Sequence[Index]
"""Per channel i8[accesses, values]: position in a flat vector of every value that crosses the pins, -1 = none."""


class Site(NamedTuple):
    """Where on a device a kernel's operands lie: how many channels, and from which row on."""

    channels: int
    row: int = 0


@dataclass(frozen=True, eq=False)
class Kernel:
    """A piece of work lowered to one device: what it issues, and what its data are.

    stream: the instructions
    rows: rows from the site's on that its operands take in every bank
    stored: operand name -> places of its elements, arrays of the operand's shape (int64)
    feed: of every access that brings data, in the order in which a channel issues them: positions in the flat operand
        `vector`, -1 = zero
    drain: of every access that takes data away: positions in the flat result, to which the value is added,
        -1 = nobody's
    left: places of the result's elements where it stays in the banks instead; None = it is drained
    size: values of the result
    The last four are called only by functional execution.
    """

    stream: Stream
    rows: int
    size: int
    stored: Callable[[], dict[str, Place]]
    feed: Callable[[], Maps]
    drain: Callable[[], Maps]
    left: Callable[[], Place] | None = None

    @property
    def reserved(self) -> int:
        """First row that is used and the device's own, where the operands begin at row 0; 2**31 - 1 = none."""
        rows = self.stream.row
        return int(rows[rows >= self.rows].min(initial=np.iinfo(np.int32).max))

    def moved(self, rows: int) -> Kernel:
        """Return this kernel, whose operands begin at row 0, with operands that lie so many rows further on."""

        def places() -> dict[str, Place]:
            return {name: place._replace(row=place.row + rows) for name, place in self.stored().items()}

        left = self.left
        return replace(
            self,
            stream=self.stream.moved(rows, self.rows),
            stored=places,
            left=None if left is None else lambda: left()._replace(row=left().row + rows),
        )
