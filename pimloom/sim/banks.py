"""What a PIM device holds, in NumPy, and how an instruction gets at it: bank contents, input buffers, registers.

All channels of an instruction are worked on at once. What no memory could carry out raises `FunctionalError`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
from ml_dtypes import bfloat16

from pimloom.arch.device import Device
from pimloom.arch.dram import Command
from pimloom.sim.asic import F4
from pimloom.sim.functional import Arithmetic, FunctionalError
from pimloom.traces.layout import Index, Place

NUMBERS = {"bf16": bfloat16, "fp16": np.float16}
"""`Unit.arithmetic` -> type of what is in banks and crosses the pins; sums are float32 in any case."""


class Memory:
    """What the banks of a device hold: rows that were never written are zeros and take no room.

    cells: [written rows, banks, columns, lanes] of the numbers that the device stores, or of float32
    at: i4[channels, rows]   where in `cells` a row of a channel is; 0 = a row of zeros
    """

    def __init__(self, device: Device, arithmetic: Arithmetic) -> None:
        dram = device.dram
        if arithmetic == "device" and device.unit.arithmetic not in NUMBERS:
            raise FunctionalError(f"{device.name}: {device.unit.arithmetic} is executed as fp32 only")
        self.dtype = np.dtype(np.float32 if arithmetic == "fp32" else NUMBERS[device.unit.arithmetic])
        self.at = np.zeros((dram.channels, dram.rows), np.int32)
        self.cells = np.zeros((1, dram.banks, dram.columns, device.elements_per_access), self.dtype)
        self._used = 1

    def store(self, place: Place, values: npt.ArrayLike) -> None:
        """Put elements where `place` says, rounded to what the banks hold."""
        at = self.written(place.channel, place.row)
        self.cells[at, place.bank, place.column, place.lane] = np.asarray(values, np.float32)

    def load(self, place: Place) -> F4:
        """Return the elements at `place` as float32."""
        at = self.at[place.channel, place.row]
        loaded: F4 = self.cells[at, place.bank, place.column, place.lane].astype(np.float32)
        return loaded

    def rounded(self, values: F4) -> F4:
        """Return float32 values as the pins carry them."""
        return values.astype(self.dtype).astype(np.float32)

    def written(self, channel: npt.ArrayLike, row: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Return where in `cells` rows are, after making room for those that hold nothing yet."""
        rows = self.at.shape[1]
        flat = np.asarray(channel, np.int64) * rows + np.asarray(row, np.int64)
        at = self.at.ravel()
        new = flat[at[flat] == 0]
        if new.size:
            new = np.flatnonzero(np.bincount(new.ravel(), minlength=1))
            need = self._used + len(new)
            if need > len(self.cells):
                room = np.zeros((max(need, 2 * self._used), *self.cells.shape[1:]), self.dtype)
                room[: self._used] = self.cells[: self._used]
                self.cells = room
            at[new] = np.arange(self._used, need)
            self._used = need
        return at[flat]


EMPTY, SET, DUE, TAKEN = range(4)
"""Of a result register: nothing yet, set from outside, holds a sum that nobody has read, has been read."""


@dataclass
class Access:
    """One instruction on all of its channels.

    channels: i8[C]; banks: i8[B], those that the command addresses; row: -1 = the open one
    columns, operands: i8[times]
    rows: i8[C, B]   row that each bank works on, of commands that need an open one
    """

    number: int
    name: str
    command: Command
    channels: Index
    banks: Index
    row: int
    columns: Index
    operands: Index
    rows: Index = field(init=False)

    @property
    def times(self) -> int:
        """Accesses of one channel."""
        return len(self.columns)


@dataclass(eq=False)
class Machine:
    """A device at work on one kernel.

    sent: f4[channels, accesses, values]   what the host sends; got: the same of what it gets
    took, gave: i8[channels]   accesses used up of either
    buffer: f4[channels, buffers, columns, lanes]; filled: bool[channels, buffers, columns]. Where a register has as
        many values as an access (datapath lanes), result registers are numbered behind those of the input
    results: f4[channels, units, sums]; state: i1 of the same shape
    activations: f4[channels, units]   of a sum; activated: i1, their state
    beside: f4[channels, groups, elements]   buffer of the softmax unit (datapath mixed), as long as an input buffer
    open: i8[channels, banks]   open row, -1 = closed
    """

    device: Device
    memory: Memory
    sent: F4
    got: F4
    sends: Index
    gets: Index
    access: Access = field(init=False)

    def __post_init__(self) -> None:
        dram, unit = self.device.dram, self.device.unit
        lanes, channels, units = self.device.elements_per_access, dram.channels, self.device.units
        scope = unit.buffer_scope
        buffers = units if scope == "unit" else dram.nodes(scope)
        registers = unit.result_registers
        columns = unit.buffer_accesses + (registers if unit.datapath == "lanes" else 0)
        sums = registers * (lanes if unit.datapath == "mixed" else 1)
        self.buffer = np.zeros((channels, buffers, columns, lanes), np.float32)
        self.filled = np.zeros(self.buffer.shape[:3], bool)
        self.results = np.zeros((channels, units, sums), np.float32)
        self.state = np.full(self.results.shape, EMPTY, np.int8)
        self.activations = np.zeros((channels, units), np.float32)
        self.activated = np.full(self.activations.shape, EMPTY, np.int8)
        self.beside = np.zeros((channels, self.groups, unit.buffer_accesses * lanes), np.float32)
        self.open = np.full((channels, dram.banks), -1, np.int64)
        self.took, self.gave = np.zeros(channels, np.int64), np.zeros(channels, np.int64)

    @property
    def units_of_group(self) -> int:
        """Units that share a dot product: those of a bank group (datapath mixed)."""
        return max(1, self.device.dram.banks_per_bankgroup // self.device.unit.banks_per_unit)

    @property
    def groups(self) -> int:
        """Groups of units of a channel."""
        return self.device.units // self.units_of_group

    @cached_property
    def keeps_results(self) -> bool:
        """Tell whether a register keeps its sum when it is read, as it is set by a command of its own."""
        return any(c.meaning == "write_result" for c in self.device.dram.commands.values())

    # --- what an access addresses, checked --------------------------------------------------------------

    def fail(self, message: str, channel: int | None = None) -> FunctionalError:
        """Return the error of the present instruction, in a channel or in its first one."""
        a = self.access
        c = int(a.channels[0]) if channel is None else channel
        return FunctionalError(f"channel {c}: instruction {a.number}: {a.name}: {message}")

    def inside(self, what: str, numbers: Index, limit: int) -> Index:
        """Return numbers; raise where one is not in [0, limit)."""
        wrong = numbers[(numbers < 0) | (numbers >= limit)]
        if len(wrong):
            raise self.fail(f"{what} {wrong[0]} is not in 0..{limit - 1}")
        return numbers

    def fill(self, buffers: Index, columns: Index, values: F4) -> None:
        """Put f4[C, B or 1, times, lanes] into columns of input buffers."""
        at = self.access.channels[:, None, None], buffers[:, None], self.buffer_columns(columns)
        self.buffer[at], self.filled[at] = self.memory.rounded(values), True

    def buffer_columns(self, columns: Index) -> Index:
        """Return columns of the input buffer."""
        return self.inside("buffer column", columns, self.buffer.shape[2])

    def registers(self) -> Index:
        """Return the result registers."""
        return self.inside("result register", self.access.operands, self.results.shape[2])

    def open_rows(self) -> Index:
        """Return i8[C, B], the row that each bank works on: the one named, which the controller opens, or the open one.

        Raises where no row is named and none is open.
        """
        a = self.access
        at = a.channels[:, None], a.banks
        if a.row >= 0:
            self.inside("row", np.array([a.row]), self.device.dram.rows)
            self.open[at] = a.row
        opened: Index = self.open[at]
        if (opened < 0).any():
            c, b = (int(i) for i in np.argwhere(opened < 0)[0])
            raise self.fail(f"bank {a.banks[b]} is closed, and no row is named", int(a.channels[c]))
        return opened

    def stored(self, part: slice | Index = slice(None)) -> F4:
        """Return f4[C, B, times, lanes], what is at the columns of the banks, or of a part of them."""
        cells: F4 = self.memory.cells[self._at(part)].astype(np.float32, copy=False)
        return cells

    def put(self, values: F4, part: slice | Index = slice(None)) -> None:
        """Write f4[C, B, times, lanes] where `stored` reads."""
        self.memory.written(self.access.channels[:, None], self.access.rows[:, part])
        self.memory.cells[self._at(part)] = values

    def _at(self, part: slice | Index) -> tuple[npt.NDArray[np.integer], Index, Index]:
        a = self.access
        row = self.memory.at[a.channels[:, None], a.rows[:, part]]
        return (
            row[:, :, None],
            a.banks[part, None],
            self.inside("column", a.columns, self.device.dram.columns),
        )

    def take(self, values: int) -> F4:
        """Return f4[C, times, values], the next accesses that the host sends."""
        at = self._next(self.took, self.sends, "sent", self.sent.shape[2], values)
        return self.sent[self.access.channels[:, None], at]

    def give(self, values: F4) -> None:
        """Bring f4[C, times, values] to the host."""
        at = self._next(self.gave, self.gets, "read", self.got.shape[2], values.shape[2])
        self.got[self.access.channels[:, None], at] = self.memory.rounded(values)

    def _next(self, used: Index, limit: Index, what: str, width: int, values: int) -> Index:
        a = self.access
        at = used[a.channels][:, None] + np.arange(a.times)
        used[a.channels] += a.times
        short = a.channels[used[a.channels] > limit[a.channels]]
        if len(short):
            raise self.fail(f"more is {what} than the map's {limit[short[0]]} accesses", int(short[0]))
        if values != width:
            raise self.fail(f"{values} values are {what}, but an access of the map has {width}")
        return at

    def units(self) -> Index:
        """Return the units of the addressed banks; raise if two banks share one."""
        units = self.access.banks // self.device.unit.banks_per_unit
        if len(np.unique(units)) < len(units):
            raise self.fail("addresses two banks of one unit")
        return units

    def buffers(self, banks: Index) -> Index:
        """Return the input buffers that serve banks."""
        return banks * self.buffer.shape[1] // self.device.dram.banks

    def own_buffers(self) -> Index:
        """Return the input buffers of the addressed banks; raise if two banks share one."""
        buffers = self.buffers(self.access.banks)
        if len(np.unique(buffers)) < len(buffers):
            raise self.fail("addresses two banks of one input buffer")
        return buffers

    def held(self, buffers: Index, columns: Index) -> F4:
        """Return f4[C, B, times, lanes], columns of input buffers; raise where one holds nothing."""
        channels = self.access.channels
        at = channels[:, None, None], buffers[:, None], self.buffer_columns(columns)
        if not self.filled[at].all():
            c, _, k = (int(i) for i in np.argwhere(~self.filled[at])[0])
            raise self.fail(f"buffer column {columns[k]} was never filled", int(channels[c]))
        return self.buffer[at]
