"""Command programs with loops: what one channel is told to do, without times and without refresh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LOOP, END = -1, -2
"""Codes of the two instructions that are no commands."""
MAX_DEPTH = 4
"""Deepest nesting of loops that a program may have."""

Array = npt.NDArray[np.int32]


class Run(NamedTuple):
    """`times` issues of one command; bank, column and buffer column advance by their strides."""

    command: int
    times: int
    bank: int
    row: int
    column: int
    buffer: int
    d_bank: int
    d_column: int
    d_buffer: int


@dataclass(frozen=True, eq=False)
class Program:
    """Commands of one channel as a struct of arrays, one entry an instruction.

    code: i4[n]      command id of the DRAM description, or LOOP, or END
    times: i4[n]     issues of the command, or iterations of the loop
    bank: i4[n]      flat bank, -1 where the command addresses all banks or none
    row: i4[n]       row relative to the task's base row, -1 = none; LOOP: rows added per iteration
    column: i4[n]    column (access) inside the row, -1 = none; LOOP: columns added per iteration
    buffer: i4[n]    column of the channel's global buffer, -1 = none; LOOP: columns added per iteration
    d_bank, d_column, d_buffer: i4[n]   advance from one of the `times` issues to the next
    """

    commands: tuple[str, ...]
    code: Array
    times: Array
    bank: Array
    row: Array
    column: Array
    buffer: Array
    d_bank: Array
    d_column: Array
    d_buffer: Array

    def runs(self) -> Iterator[Run]:
        """Yield the program in issue order with its loops unrolled, one item per run of a command."""
        columns = [
            a.tolist()
            for a in (
                self.code,
                self.times,
                self.bank,
                self.row,
                self.column,
                self.buffer,
                self.d_bank,
                self.d_column,
                self.d_buffer,
            )
        ]
        pc, stack = 0, list[list[int]]()  # stack entries: [pc of LOOP, iterations done]
        while pc < len(columns[0]):
            code, count, bank, row, column, buffer, d_bank, d_column, d_buffer = (a[pc] for a in columns)
            if code == LOOP:
                stack.append([pc, 0])
            elif code == END:
                stack[-1][1] += 1
                if stack[-1][1] < columns[1][stack[-1][0]]:
                    pc = stack[-1][0]
                else:
                    stack.pop()
            else:
                for start, done in stack:
                    row += done * columns[3][start] if row >= 0 else 0
                    column += done * columns[4][start] if column >= 0 else 0
                    buffer += done * columns[5][start] if buffer >= 0 else 0
                yield Run(code, count, bank, row, column, buffer, d_bank, d_column, d_buffer)
            pc += 1

    def counts(self) -> npt.NDArray[np.int64]:
        """Return i8[commands]: how often each command stands in the unrolled program."""
        total = np.zeros(len(self.commands), np.int64)
        factor = 1
        stack: list[int] = []
        for code, count in zip(self.code.tolist(), self.times.tolist(), strict=True):
            if code == LOOP:
                stack.append(count)
                factor *= count
            elif code == END:
                factor //= stack.pop()
            else:
                total[code] += factor * count
        return total

    def expanded(self) -> Program:
        """Return the same program with every command written out: no loop, every count 1."""
        rows: list[tuple[int, ...]] = []
        for run in self.runs():
            for k in range(run.times):
                rows.append(
                    (
                        run.command,
                        1,
                        run.bank + k * run.d_bank,
                        run.row,
                        run.column + k * run.d_column,
                        run.buffer + k * run.d_buffer,
                        0,
                        0,
                        0,
                    )
                )
        table = np.array(rows, np.int32).reshape(-1, 9)
        return Program(self.commands, *(np.ascontiguousarray(table[:, i]) for i in range(9)))


@dataclass
class Builder:
    """Collects instructions; `build` freezes them into a `Program`.

    `commands` are the command names of the DRAM description, in the order of their ids.
    """

    commands: Sequence[str]
    _rows: list[tuple[int, ...]] = field(default_factory=list)
    _depth: int = 0

    def __post_init__(self) -> None:
        self._id = {name: i for i, name in enumerate(self.commands)}

    def add(
        self,
        command: str,
        count: int = 1,
        *,
        bank: int = -1,
        row: int = -1,
        column: int = -1,
        buffer: int = -1,
        d_bank: int = 0,
        d_column: int = 0,
        d_buffer: int = 0,
    ) -> None:
        """Append `count` issues of `command`. Raises KeyError for a command that the DRAM lacks."""
        if count < 1:
            raise ValueError(f"{command}: count {count} < 1")
        self._rows.append((self._id[command], count, bank, row, column, buffer, d_bank, d_column, d_buffer))

    @contextmanager
    def loop(self, count: int, *, rows: int = 0, columns: int = 0, buffers: int = 0) -> Iterator[None]:
        """Repeat what is added inside `count` times, addresses advancing by the given strides."""
        if count < 1 or self._depth == MAX_DEPTH:
            raise ValueError(f"loop of {count} iterations at depth {self._depth}")
        self._depth += 1
        self._rows.append((LOOP, count, 0, rows, columns, buffers, 0, 0, 0))
        body = len(self._rows)
        yield
        if len(self._rows) == body:
            raise ValueError("a loop without commands")
        self._rows.append((END, 0, 0, 0, 0, 0, 0, 0, 0))
        self._depth -= 1

    def build(self) -> Program:
        """Return the program."""
        table = np.array(self._rows, np.int32).reshape(-1, 9)
        return Program(tuple(self.commands), *(np.ascontiguousarray(table[:, i]) for i in range(9)))
