"""A log of commands as the rows of a CSV trace, byte for byte what `traces.io` writes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pimloom.arch.dram import Dram
from pimloom.sim.jit import kernel
from pimloom.traces.io import from_log

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
        nodes = [dram.nodes(command.target) for command in dram.commands.values()]
        first = np.cumsum([0, *nodes], dtype=np.int64)
        # A command at every node that it can address, in the order of their flat index.
        every = np.zeros((first[-1], 5), np.int64)
        every[:, 1] = np.repeat(np.arange(len(nodes)), nodes)
        every[:, 2] = np.arange(first[-1]) - first[every[:, 1]]
        trace = from_log(dram, channel, every)
        fields = (trace.pseudochannel, trace.rank, trace.bankgroup, trace.bank)
        middles = [
            f",{trace.commands[command]},{channel},{pseudochannel},{rank},{bankgroup},{bank},".encode()
            for command, pseudochannel, rank, bankgroup, bank in zip(trace.command, *fields, strict=True)
        ]
        self._first = first
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
