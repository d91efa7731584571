"""What the streams of PIM devices compute: bank contents in NumPy, and one meaning for every command.

A command is known by the `meaning` that its description gives, never by its name. Channels of one instruction are
computed at once. An instruction that no memory could carry out raises `FunctionalError`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from pimloom.traces.stream import FIELDS, PSEUDO, Kernel, Maps

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
        wanted = np.zeros(self.at.size, bool)
        wanted[flat.ravel()] = True
        new = np.flatnonzero(wanted & (self.at.ravel() == 0))
        if len(new):
            need = self._used + len(new)
            if need > len(self.cells):
                room = np.zeros((max(need, 2 * self._used), *self.cells.shape[1:]), self.dtype)
                room[: self._used] = self.cells[: self._used]
                self.cells = room
            self.at.ravel()[new] = np.arange(self._used, need)
            self._used = need
        return self.at.ravel()[flat]


EMPTY, SET, DUE, TAKEN = range(4)
"""Of a result register: nothing yet, set from outside, holds a sum that nobody has read, has been read."""


@dataclass
class Access:
    """One instruction on all of its channels.

    channels: i8[C]; banks: i8[B], those that the command addresses; row: -1 = the open one
    columns, operands: i8[times]
    """

    number: int
    name: str
    command: Command
    channels: Index
    banks: Index
    row: int
    columns: Index
    operands: Index

    @property
    def times(self) -> int:
        """Accesses of one channel."""
        return len(self.columns)


@dataclass(eq=False)
class Machine:
    """A device at work on one kernel.

    sent: f4[channels, accesses, values]   what the host sends; got: the same of what it gets
    took, gave: i8[channels]   accesses used up of either
    buffer: f4[channels, buffers, columns, lanes]; filled: bool[channels, buffers, columns]
    results: f4[channels, units, registers]; state: i1 of the same shape
    open: i8[channels, banks]   row opened by an explicit activate, -1 = the controller sees to rows
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
        self.buffer = np.zeros((channels, buffers, unit.buffer_accesses, lanes), np.float32)
        self.filled = np.zeros(self.buffer.shape[:3], bool)
        self.results = np.zeros((channels, units, unit.result_registers), np.float32)
        self.state = np.full(self.results.shape, EMPTY, np.int8)
        self.open = np.full((channels, dram.banks), -1, np.int64)
        self.took, self.gave = np.zeros(channels, np.int64), np.zeros(channels, np.int64)

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

    def columns(self) -> Index:
        """Return the columns of the banks."""
        return self.inside("column", self.access.columns, self.device.dram.columns)

    def buffer_columns(self, columns: Index) -> Index:
        """Return columns of the input buffer."""
        return self.inside("buffer column", columns, self.buffer.shape[2])

    def registers(self) -> Index:
        """Return the result registers."""
        return self.inside("result register", self.access.operands, self.results.shape[2])

    def rows(self) -> Index:
        """Return i8[C, B], the row that each bank works on; raise unless it is the one that was opened."""
        a = self.access
        opened = self.open[a.channels][:, a.banks]
        if a.row >= 0:
            self.inside("row", np.array([a.row]), self.device.dram.rows)
            wrong = (opened >= 0) & (opened != a.row)
            if wrong.any():
                c, b = (int(i) for i in np.argwhere(wrong)[0])
                message = f"row {a.row} is needed, but bank {a.banks[b]} has row {opened[c, b]} open"
                raise self.fail(message, int(a.channels[c]))
            return np.full_like(opened, a.row)
        if (opened < 0).any():
            c, b = (int(i) for i in np.argwhere(opened < 0)[0])
            raise self.fail(f"bank {a.banks[b]} is closed, and no row is named", int(a.channels[c]))
        return opened

    def stored(self, banks: Index, rows: Index) -> F4:
        """Return f4[C, B, times, lanes], what is at the columns of some of the banks, in rows i8[C, B]."""
        at = self.memory.at[self.access.channels[:, None], rows]
        cells = self.memory.cells[at[:, :, None], banks[:, None], self.columns()]
        return cells.astype(np.float32, copy=False)

    def put(self, banks: Index, rows: Index, values: F4) -> None:
        """Write f4[C, B, times, lanes] where `stored` reads."""
        at = self.memory.written(self.access.channels[:, None], rows)
        self.memory.cells[at[:, :, None], banks[:, None], self.columns()] = values

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
        at = channels[:, None, None], buffers[:, None], columns
        if not self.filled[at].all():
            c, _, k = (int(i) for i in np.argwhere(~self.filled[at])[0])
            raise self.fail(f"buffer column {columns[k]} was never filled", int(channels[c]))
        return self.buffer[at]


# --- the meanings ---------------------------------------------------------------------------------------


def _activate(m: Machine) -> None:
    """Open a row by an instruction of its own."""
    a = m.access
    m.inside("row", np.array([a.row]), m.device.dram.rows)
    opened = m.open[a.channels][:, a.banks]
    if (opened >= 0).any():
        c, b = (int(i) for i in np.argwhere(opened >= 0)[0])
        raise m.fail(f"row {a.row} while bank {a.banks[b]} has row {opened[c, b]} open", int(a.channels[c]))
    m.open[a.channels[:, None], a.banks] = a.row


def _precharge(m: Machine) -> None:
    """Close banks, open or not."""
    m.open[m.access.channels[:, None], m.access.banks] = -1


def _read(m: Machine) -> None:
    """Bring columns of one bank to the pins."""
    m.give(m.stored(m.access.banks, m.rows())[:, 0])


def _write(m: Machine) -> None:
    """Write columns from the pins, the same ones to all banks that are addressed."""
    values = m.take(m.device.elements_per_access)
    m.put(m.access.banks, m.rows(), values[:, None])


def _write_buffer(m: Machine) -> None:
    """Fill columns `operand` of the input buffers from the pins."""
    a = m.access
    at = a.channels[:, None, None], np.unique(m.buffers(a.banks))[:, None], m.buffer_columns(a.operands)
    m.buffer[at] = m.take(m.device.elements_per_access)[:, None]
    m.filled[at] = True


def _mac(m: Machine) -> None:
    """Multiply a column of every bank by the same column of the buffer, and add to the unit's register `operand`.

    The products of one access are added in a tree, the trees' results one after the other.
    """
    a = m.access
    columns, registers, units = m.buffer_columns(a.columns), m.registers(), m.units()
    sums = _tree(m.stored(a.banks, m.rows()) * m.held(m.buffers(a.banks), columns))
    for register in np.unique(registers).tolist():
        at = a.channels[:, None], units, register
        if m.keeps_results and (m.state[at] == EMPTY).any():
            raise m.fail(f"result register {register} was never set")
        terms = np.concatenate([m.results[at][:, :, None], sums[:, :, registers == register]], 2)
        m.results[at] = np.add.accumulate(terms, axis=2)[:, :, -1]
        m.state[at] = DUE


def _tree(terms: F4) -> F4:
    """Return the sums over the last axis, neighbouring halves added first."""
    while (n := terms.shape[-1]) > 1:
        half = n // 2
        rest = terms[..., 2 * half :]
        terms = terms[..., :half] + terms[..., half : 2 * half]
        terms = np.concatenate([terms, rest], -1) if n % 2 else terms
    return terms[..., 0]


def _write_result(m: Machine) -> None:
    """Set the register `operand` of every unit from the pins, one value a unit."""
    a = m.access
    at = a.channels[:, None, None], m.registers()[:, None], m.units()
    if (m.state.swapaxes(1, 2)[at] == DUE).any():
        raise m.fail(f"result register {a.operands[0]} holds a sum that was not read")
    m.results.swapaxes(1, 2)[at] = m.take(len(a.banks))
    m.state.swapaxes(1, 2)[at] = SET


def _read_result(m: Machine) -> None:
    """Bring the register `operand` of every unit to the pins, one value a unit."""
    a = m.access
    at = a.channels[:, None, None], m.registers()[:, None], m.units()
    if (m.state.swapaxes(1, 2)[at] != DUE).any():
        raise m.fail(f"result register {a.operands[0]} holds nothing that was not read before")
    m.give(m.results.swapaxes(1, 2)[at])
    m.state.swapaxes(1, 2)[at] = TAKEN
    if not m.keeps_results:
        m.results.swapaxes(1, 2)[at] = 0


def _multiply(m: Machine) -> None:
    """Multiply a column of bank 0 of every bank group by that of its bank 1, into its bank 2."""
    rows, place = m.rows(), m.access.banks % m.device.dram.banks_per_bankgroup
    first, second, third = (np.flatnonzero(place == k) for k in range(3))
    factors = (m.stored(m.access.banks[at], rows[:, at]) for at in (first, second))
    m.put(m.access.banks[third], rows[:, third], np.multiply(*factors))


def _copy_to_buffer(m: Machine) -> None:
    """Copy columns of a bank to columns `operand` of its input buffer."""
    a, columns = m.access, m.buffer_columns(m.access.operands)
    at = a.channels[:, None, None], m.own_buffers()[:, None], columns
    m.buffer[at] = m.stored(a.banks, m.rows())
    m.filled[at] = True


def _copy_to_bank(m: Machine) -> None:
    """Copy columns `operand` of the input buffer to columns of its bank."""
    a, columns = m.access, m.buffer_columns(m.access.operands)
    m.put(a.banks, m.rows(), m.held(m.own_buffers(), columns))


def _nothing(m: Machine) -> None:
    """Change no data."""


MEANINGS: dict[str, Callable[[Machine], None]] = {
    "activate": _activate,
    "precharge": _precharge,
    "read": _read,
    "write": _write,
    "write_buffer": _write_buffer,
    "mac": _mac,
    "write_result": _write_result,
    "read_result": _read_result,
    "multiply": _multiply,
    "copy_to_buffer": _copy_to_buffer,
    "copy_to_bank": _copy_to_bank,
    "refresh": _nothing,
    "mode": _nothing,
}
"""Meaning of a command -> what it does."""


# --- kernels --------------------------------------------------------------------------------------------


def execute(device: Device, kernel: Kernel, memory: Memory, vector: npt.ArrayLike = ()) -> F4:
    """Return the result of a kernel, f4[size], whose other operands are in memory already.

    What reaches the host is added up in the order of channels and, of each, of accesses.

    Raises FunctionalError for what no memory could carry out, and for maps that do not fit the stream.
    """
    source = memory.rounded(np.append(np.asarray(vector, np.float32).ravel(), np.float32(0)))
    feed, sends = _stacked(kernel.feed(), device, len(source) - 1, "sent")
    drain, gets = _stacked(kernel.drain(), device, kernel.size, "read")
    m = Machine(device, memory, source[feed], np.zeros(drain.shape, np.float32), sends, gets)
    _run(m, kernel)
    for what, used, limit in (("sent", m.took, sends), ("read", m.gave, gets)):
        if (used != limit).any():
            c = int(np.flatnonzero(used != limit)[0])
            raise FunctionalError(f"channel {c}: {used[c]} accesses are {what}, its map has {limit[c]}")
    if (m.state == DUE).any():
        c, unit, register = (int(i) for i in np.argwhere(m.state == DUE)[0])
        raise FunctionalError(f"channel {c}: result register {register} of unit {unit} is never read")
    if kernel.left is not None:
        return memory.load(kernel.left()).ravel()
    result, wanted = np.zeros(kernel.size, np.float32), drain >= 0
    missing = np.flatnonzero(np.bincount(drain[wanted], minlength=kernel.size) == 0)
    if len(missing):
        raise FunctionalError(f"value {missing[0]} of the result is never read")
    np.add.at(result, drain[wanted], m.got[wanted])
    return result


def _stacked(maps: Maps, device: Device, values: int, what: str) -> tuple[Index, Index]:
    """Return the maps as i8[channels, most accesses, values], filled up with -1, and the accesses of each channel."""
    width = max((m.shape[1] for m in maps if len(m)), default=0)
    most = max((len(m) for m in maps), default=0)
    stacked = np.full((device.dram.channels, most, width), -1, np.int64)
    counts = np.zeros(device.dram.channels, np.int64)
    for c, m in enumerate(maps):
        if len(m):
            stacked[c, : len(m)], counts[c] = m, len(m)
    if stacked.size and not -1 <= stacked.min() <= stacked.max() < values:
        c, k, _ = (int(i) for i in np.argwhere((stacked < -1) | (stacked >= values))[0])
        raise FunctionalError(
            f"channel {c}: access {k} is {what} with a value outside the {values} there are"
        )
    return stacked, counts


def _run(m: Machine, kernel: Kernel) -> None:
    """Carry out a stream."""
    stream, dram = kernel.stream, m.device.dram
    commands = [dram.commands[name] for name in stream.commands]
    steps = np.arange(int(stream.times.max(initial=1)))
    masks: dict[int, Index] = {}
    columns: Sequence[list[int]] = [getattr(stream, name).tolist() for name in FIELDS]
    pseudo = frozenset(PSEUDO.values())
    for number, (mask, command, times, node, row, column, d_column, operand, d_operand) in enumerate(
        zip(stream.channels.tolist(), *columns, strict=True)
    ):
        if command in pseudo:
            continue
        if mask not in masks:
            masks[mask] = np.flatnonzero([mask >> c & 1 for c in range(64)])
        c = commands[command]
        nodes = dram.nodes(c.target)
        each = dram.banks // nodes
        m.access = Access(
            number, stream.commands[command], c, masks[mask], np.arange(node * each, (node + 1) * each), row,
            column + d_column * steps[:times], operand + d_operand * steps[:times],
        )  # fmt: skip
        m.inside("node", np.array([node]), nodes)
        m.inside("channel", masks[mask], dram.channels)
        meaning = MEANINGS.get(c.meaning)
        if meaning is None:
            raise m.fail(f"{c.meaning} means nothing in a stream")
        meaning(m)
