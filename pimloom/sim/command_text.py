"""A log of commands as the rows of a CSV trace, byte for byte what `traces.io` writes, and as columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.dram import Dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.sim.jit import kernel
from pimloom.traces.io import CommandTrace

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
U1 = npt.NDArray[np.uint8]

MAX_DIGITS = 20
"""Of an int64, with its sign."""


class CommandText:
    """Turns pieces of the log of one channel into text.

    The log is i8[n, 5]: clock, command id, address, row, column. An address is the flat index of the node of
    the level that the command addresses; a row or a column is -1 where the command has none.
    """

    def __init__(self, dram: Dram, channel: int = 0) -> None:
        places = _places(dram)
        names = np.repeat(dram.command_names, np.diff(places.first))
        middles = [
            f",{name},{channel},{','.join(map(str, node))},".encode()
            for name, node in zip(names.tolist(), places.nodes.tolist(), strict=True)
        ]
        self._first = places.first
        self._start = np.cumsum([0, *map(len, middles)], dtype=np.int64)
        self._middle = np.frombuffer(b"".join(middles), np.uint8)
        self._row_B = max(map(len, middles)) + 3 * MAX_DIGITS + len(",\n")
        self._out = np.empty(0, np.uint8)

    def bytes(self, log: I8, n: int) -> memoryview:
        """Return the rows of the first `n` commands of a log; they are overwritten by the next call."""
        if len(self._out) < n * self._row_B:
            self._out = np.empty(n * self._row_B, np.uint8)
        size = _write_rows(log, n, self._first, self._start, self._middle, self._out)
        return self._out[:size].data


def columns(dram: Dram, log: I8, channel: int = 0) -> CommandTrace:
    """Return the log of one channel, i8[n, 5] as of `CommandText`, as a trace."""
    places = _places(dram)
    pseudochannel, rank, bankgroup, bank = places.nodes[places.first[log[:, 1]] + log[:, 2]].T.copy()
    return CommandTrace(
        tuple(dram.commands),
        log[:, 0].copy(),
        log[:, 1].astype(np.int32),
        np.full(len(log), channel, np.int32),
        pseudochannel,
        rank,
        bankgroup,
        bank,
        log[:, 3].astype(np.int32),
        log[:, 4].astype(np.int32),
    )


class _Places(NamedTuple):
    """What the address columns of every command say at every node that it can address.

    first: i8[C+1]  nodes of command c: first[c] .. first[c+1], in the order of their flat index
    nodes: i4[n, 4] pseudo-channel, rank, bank group, bank
    """

    first: I8
    nodes: I4


def _places(dram: Dram) -> _Places:
    nodes = [_nodes(dram, LEVELS.index(command.target)) for command in dram.commands.values()]
    return _Places(np.cumsum([0, *map(len, nodes)], dtype=np.int64), np.concatenate(nodes))


def _nodes(dram: Dram, depth: int) -> I4:
    """Return what a trace says of each node of a level: -1 for all of several; of banks, for all of any."""
    shape = dram.counts[: depth + 1]
    at = dict(zip(LEVELS, np.unravel_index(np.arange(np.prod(shape)), shape), strict=False))
    pseudochannel, rank, stack_id = (
        at.get(level, -1 if count > 1 else 0)
        for level, count in zip(LEVELS[1:4], dram.counts[1:4], strict=True)
    )
    # Stack IDs have no column of their own; they count on below the rank.
    rank = np.where(np.minimum(rank, stack_id) < 0, -1, rank * dram.stack_ids + stack_id)
    given = (pseudochannel, rank, at.get("bankgroup", -1), at.get("bank", -1))
    return np.stack(np.broadcast_arrays(*given, at["channel"])[:4], axis=1).astype(np.int32)


@kernel
def _write_rows(log: I8, n: int, first: I8, start: I8, middle: U1, out: U1) -> int:
    """Write the rows of `n` commands to `out`; return their bytes.

    start: i8[nodes+1], middle: u1[...]  text from the clock to the row of each node: start[i] .. start[i+1]
    """
    at = 0
    for i in range(n):
        at = _write_number(out, at, log[i, 0])
        node = first[log[i, 1]] + log[i, 2]
        for k in range(start[node], start[node + 1]):
            out[at] = middle[k]
            at += 1
        at = _write_number(out, at, log[i, 3])
        out[at] = 44  # comma
        at = _write_number(out, at + 1, log[i, 4])
        out[at] = 10  # end of line
        at += 1
    return at


@kernel
def _write_number(out: U1, at: int, value: int) -> int:
    """Write a number above -10**18 and below 10**18 in decimal; return where it ends."""
    if value < 0:
        out[at] = 45  # minus
        at += 1
        value = -value
    end = at + 1
    limit = 10
    while value >= limit:
        end += 1
        limit *= 10
    k = end
    while k > at:
        k -= 1
        rest = value // 10
        out[k] = 48 + value - 10 * rest
        value = rest
    return end
