"""Functional execution: the very programs that are timed also compute, on bank contents held in NumPy.

Every command has one meaning, chosen by the `meaning` and `target` that its description gives, never by its
name. A program that no memory could carry out (a closed bank, another row, a burst too many) raises
`FunctionalError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from ml_dtypes import bfloat16

from pimloom.arch.dram import Command
from pimloom.arch.machine import Arch
from pimloom.sim.asic import F4, Approximate, Exact, compute
from pimloom.traces.layout import Index, Place
from pimloom.traces.program import Program, Run
from pimloom.traces.task import AsicTask, Maps, PimTask, Task

Arithmetic = Literal["fp32", "device"]
"""fp32: single precision all through; device: bf16 in banks and on pins, and the ASIC's approximations."""

CLOSED = -1


class FunctionalError(Exception):
    """A program or a task that cannot be carried out; the message names channel, command and bank."""


def rounded(values: F4, arithmetic: Arithmetic) -> F4:
    """Return float32 values as the pins and the banks carry them: themselves, or rounded to bf16."""
    return values if arithmetic == "fp32" else values.astype(bfloat16).astype(np.float32)


class Registers(dict[str, F4]):
    """The ASIC's vectors, float32, by name; a missing one raises FunctionalError."""

    def __missing__(self, name: str) -> F4:
        raise FunctionalError(f"register {name!r} holds nothing yet")


class Memory:
    """What the channels of a machine hold.

    cells: float32 or bfloat16 [channels, banks, rows, lanes, columns], zero at first; the columns are last
        so that NumPy adds the lanes of many columns at once
    buffer: f4[channels, lanes, columns]   input buffer of each channel
    sums: f4[channels, banks]   accumulators of the MAC units
    open_row: i8[channels, banks]   CLOSED, or the row that is open
    """

    def __init__(self, arch: Arch, rows: int, arithmetic: Arithmetic) -> None:
        dram, lanes = arch.dram, arch.elements_per_access
        dtype = np.float32 if arithmetic == "fp32" else bfloat16
        # Untouched pages of zeros take no memory: caches cost what is used of them.
        self.cells = np.zeros((dram.channels, dram.banks, rows, lanes, dram.columns), dtype)
        self.buffer = np.zeros((dram.channels, lanes, arch.pim.buffer_B // dram.access_B), np.float32)
        self.sums = np.zeros((dram.channels, dram.banks), np.float32)
        self.open_row = np.full((dram.channels, dram.banks), CLOSED, np.int64)

    def store(self, place: Place, values: F4) -> None:
        """Put whole columns, f4[..., lanes], where `place` (whose lane does not count) says."""
        self.cells[place.channel, place.bank, place.row, :, place.column] = values

    def load(self, place: Place) -> F4:
        """Return the elements at `place` as float32."""
        stored: F4 = self.cells[place.channel, place.bank, place.row, place.lane, place.column]
        return stored.astype(np.float32)


@dataclass(eq=False)
class _Job:
    """A program at work on neighbouring channels at once, which all run it.

    sent: f4[channels, bursts, lanes]; kept: bool of the same shape, False where a write leaves the cell alone
    got: what came out, f4[channels, bursts, values] in parts; taken: bursts used up so far
    """

    memory: Memory
    mac_lanes: int
    first: int
    last: int
    base_bank: int
    base_row: int
    sent: F4
    kept: npt.NDArray[np.bool_]
    command: str = ""
    taken: int = 0
    got: list[F4] = field(default_factory=list)

    @property
    def channels(self) -> slice:
        return slice(self.first, self.last)

    def fail(self, message: str, channel: int = 0) -> FunctionalError:
        return FunctionalError(f"channel {self.first + channel}: {self.command}: {message}")

    def inside(self, what: str, numbers: Index, limit: int) -> Index:
        """Return the numbers; raise where one is not in [0, limit)."""
        wrong = numbers[(numbers < 0) | (numbers >= limit)]
        if len(wrong):
            raise self.fail(f"{what} {wrong[0]} is not in 0..{limit - 1}")
        return numbers

    def banks(self, run: Run, command: Command) -> Index:
        """Return the banks that the issues of a run address, one after the other."""
        count = self.memory.open_row.shape[1]
        if command.target == "channel":
            return np.arange(count)
        return self.inside("bank", self.base_bank + _steps(run.bank, run.d_bank, run.times), count)

    def columns(self, run: Run) -> Index:
        return self.inside("column", _steps(run.column, run.d_column, run.times), self.memory.cells.shape[4])

    def buffers(self, run: Run) -> Index:
        steps = _steps(run.buffer, run.d_buffer, run.times)
        return self.inside("buffer column", steps, self.memory.buffer.shape[2])

    def row_open_in(self, banks: Index, run: Run) -> int:
        """Return the row of a run; raise unless it is the one that is open in all the banks."""
        row = self.base_row + run.row
        found = self.memory.open_row[self.channels][:, banks]
        if (found != row).any():
            c, k = (int(i) for i in np.argwhere(found != row)[0])
            state = "is closed" if found[c, k] == CLOSED else f"has row {found[c, k]} open"
            raise self.fail(f"row {row} is needed, but bank {banks[k]} {state}", c)
        return row

    def take(self, count: int) -> slice:
        """Return the next bursts of `sent`."""
        self.taken += count
        return slice(self.taken - count, self.taken)


def _steps(start: int, step: int, count: int) -> Index:
    return start + step * np.arange(count)


# --- the meanings -------------------------------------------------------------------------------------------


def _activate(job: _Job, run: Run, command: Command) -> None:
    """Open a row of the banks."""
    banks = job.banks(run, command)
    row = int(job.inside("row", np.array([job.base_row + run.row]), job.memory.cells.shape[2])[0])
    found = job.memory.open_row[job.channels][:, banks]
    if (found != CLOSED).any():
        c, k = (int(i) for i in np.argwhere(found != CLOSED)[0])
        raise job.fail(f"row {row} of bank {banks[k]} while row {found[c, k]} is open", c)
    if run.times > 1 and (command.target == "channel" or run.d_bank == 0):
        raise job.fail(f"row {row} of bank {banks[0]} is opened {run.times} times")
    job.memory.open_row[job.channels, banks] = row


def _precharge(job: _Job, run: Run, command: Command) -> None:
    """Close the banks, open or not."""
    job.memory.open_row[job.channels, job.banks(run, command)] = CLOSED


def _mac(job: _Job, run: Run, command: Command) -> None:
    """Multiply a column of every bank by a column of the buffer and add the products to the banks' sums.

    The products of the `mac_lanes` multipliers go through a tree of adders, the tree's results are added up
    one after the other; all in float32, where a product of two bf16 numbers is exact.
    """
    memory = job.memory
    row = job.row_open_in(job.banks(run, command), run)
    stored = memory.cells[job.channels, :, row][..., _span(job.columns(run))].astype(np.float32, copy=False)
    products = stored * memory.buffer[job.channels, None, :, _span(job.buffers(run))]
    parts = [_tree(products[:, :, k : k + job.mac_lanes]) for k in range(0, products.shape[2], job.mac_lanes)]
    terms = parts[0] if len(parts) == 1 else np.stack(parts, -1).reshape(*parts[0].shape[:2], -1)
    terms[:, :, 0] += memory.sums[job.channels]
    memory.sums[job.channels] = np.add.accumulate(terms, axis=-1)[:, :, -1]


def _tree(terms: F4) -> F4:
    """Return the sums over the lanes of f4[channels, banks, lanes, columns], added in halves."""
    while terms.shape[2] > 1:
        half = terms.shape[2] // 2
        rest = terms[:, :, 2 * half :]
        terms = terms[:, :, :half] + terms[:, :, half : 2 * half]
        terms = np.concatenate([terms, rest], 2) if rest.shape[2] else terms
    return terms[:, :, 0]


def _span(numbers: Index) -> slice | Index:
    """Return the numbers as a slice where they follow one another, which NumPy reads without a copy."""
    first, count = int(numbers[0]), len(numbers)
    return slice(first, first + count) if count == 1 or numbers[1] - first == 1 else numbers


def _read(job: _Job, run: Run, command: Command) -> None:
    """Bring columns to the pins."""
    banks = job.banks(run, command)
    row = job.row_open_in(banks, run)
    got = job.memory.cells[job.channels][:, banks, row, :, job.columns(run)].astype(np.float32)
    job.got.append(np.moveaxis(got, 1, 0))


def _write(job: _Job, run: Run, command: Command) -> None:
    """Write columns from the pins; masked values leave their cells alone."""
    banks, columns = job.banks(run, command), job.columns(run)
    row = job.row_open_in(banks, run)
    bursts = job.take(run.times)
    channel, issue, lane = np.nonzero(job.kept[:, bursts])
    # In order of issue, so that of two writes to one cell the later one stays.
    cells = job.memory.cells[job.channels]
    cells[channel, banks[issue], row, lane, columns[issue]] = job.sent[:, bursts][channel, issue, lane]


def _write_buffer(job: _Job, run: Run, command: Command) -> None:
    """Fill columns of the input buffer from the pins."""
    sent = np.moveaxis(job.sent[:, job.take(run.times)], 1, 2)
    job.memory.buffer[job.channels, :, _span(job.buffers(run))] = sent


def _read_result(job: _Job, run: Run, command: Command) -> None:
    """Bring the banks' sums to the pins and clear them."""
    sums = job.memory.sums[job.channels]
    got = np.zeros((len(sums), run.times, sums.shape[1]), np.float32)
    got[:, 0] = sums.astype(job.memory.cells.dtype)
    job.got.append(got)
    sums[:] = 0


Meaning = Callable[[_Job, Run, Command], None]
MEANINGS: dict[tuple[str, str], Meaning] = {
    ("activate", "bank"): _activate,
    ("activate", "channel"): _activate,
    ("precharge", "bank"): _precharge,
    ("precharge", "channel"): _precharge,
    ("mac", "channel"): _mac,
    ("read", "bank"): _read,
    ("write", "bank"): _write,
    ("write_buffer", "channel"): _write_buffer,
    ("read_result", "channel"): _read_result,
}
"""(meaning, target) of a command -> what it does."""


# --- tasks --------------------------------------------------------------------------------------------------


class Executor:
    """Executes tasks on a memory; a task puts a new vector into `registers`, never changes one."""

    def __init__(self, arch: Arch, memory: Memory, arithmetic: Arithmetic) -> None:
        self.arch, self.memory, self.arithmetic = arch, memory, arithmetic
        self.registers = Registers()
        self._maths = Exact() if arithmetic == "fp32" else Approximate(arch.asic)
        self._maps: WeakKeyDictionary[PimTask, tuple[Maps, Maps]] = WeakKeyDictionary()

    def run(self, task: Task, turn: int = 0, row_stride: int = 0) -> None:
        """Execute a task of a block in the given turn. Raises FunctionalError."""
        if isinstance(task, PimTask):
            self._run_pim(task, task.base_row + turn * row_stride)
        else:
            self._run_asic(task, turn)

    def _run_asic(self, task: AsicTask, turn: int) -> None:
        inputs = []
        for ref in task.inputs:
            register = self.registers[ref.register]
            if not 0 <= ref.start < ref.stop <= len(register):
                part = f"{ref.start}:{ref.stop} of register {ref.register!r}"
                raise FunctionalError(f"{part}, which holds {len(register)} values")
            inputs.append(register[ref.start : ref.stop])
        scalar = task.scalar / (1 + turn) if task.by_turn else task.scalar
        self.registers[task.output] = compute(
            task.function, self._maths, task.size, task.count, inputs, scalar
        )

    def _run_pim(self, task: PimTask, base_row: int) -> None:
        if task not in self._maps:
            self._maps[task] = self._checked_maps(task)
        feed, drain = self._maps[task]
        source = np.empty(0, np.float32)
        if task.source:
            source = rounded(self.registers[task.source], self.arithmetic)
        highest = max((int(m.max()) for m in feed if m.size), default=-1)
        if highest >= len(source):
            raise FunctionalError(f"value {highest} of register {task.source!r}, which holds {len(source)}")
        sink = np.empty(task.sink_size, np.float32)
        for first, last, program in _groups(task.programs):
            at = np.stack(feed[first:last])
            sent = np.where(at >= 0, source[at], np.float32(0)) if at.size else np.empty(at.shape, np.float32)
            job = _Job(self.memory, self.arch.pim.lanes, first, last, task.base_bank, base_row, sent, at >= 0)
            self._execute(job, program)
            if job.got:
                to, got = np.stack(drain[first:last]), np.concatenate(job.got, 1)
                sink[to[to >= 0]] = got[to >= 0]
        if task.sink:
            self.registers[task.sink] = sink

    def _execute(self, job: _Job, program: Program) -> None:
        commands = [self.arch.dram.commands[name] for name in program.commands]
        for run in program.runs():
            command = commands[run.command]
            job.command = program.commands[run.command]
            meaning = MEANINGS.get((command.meaning, command.target))
            if meaning is None:
                raise job.fail(f"{command.meaning} of a {command.target} means nothing in a program")
            meaning(job, run, command)

    def _checked_maps(self, task: PimTask) -> tuple[Maps, Maps]:
        """Return (feed, drain); raise unless they have one entry a burst and fill the sink exactly once."""
        channels = len(task.programs)
        nothing: Maps = [np.empty((0, 0), np.int64)] * channels
        feed = task.feed() if task.feed else nothing
        drain = task.drain() if task.drain else nothing
        for c, program in enumerate(task.programs):
            for way, maps in (("write", feed), ("read", drain)):
                bursts = self._bursts(program, way)
                if len(maps[c]) != bursts:
                    raise FunctionalError(
                        f"channel {c}: the program has {bursts} bursts to {way}, its map {len(maps[c])}"
                    )
        written = np.concatenate([m[m >= 0] for m in drain])
        times = np.bincount(written, minlength=task.sink_size)
        wrong = np.flatnonzero(times != (np.arange(len(times)) < task.sink_size))
        if len(wrong):
            what = f"value {wrong[0]} is read {times[wrong[0]]} times"
            raise FunctionalError(f"register {task.sink!r} of {task.sink_size} values: {what}")
        return feed, drain

    def _bursts(self, program: Program | None, way: str) -> int:
        if program is None:
            return 0
        commands = [self.arch.dram.commands[name] for name in program.commands]
        counts = program.counts().tolist()
        return sum(n for n, command in zip(counts, commands, strict=True) if command.data == way)


def _groups(programs: tuple[Program | None, ...]) -> Iterator[tuple[int, int, Program]]:
    """Yield (first channel, one past the last, program) for neighbouring channels with the same program."""
    for _, group in groupby(range(len(programs)), key=lambda c: id(programs[c])):
        members = list(group)
        program = programs[members[0]]
        if program is not None:
            yield members[0], members[-1] + 1, program
