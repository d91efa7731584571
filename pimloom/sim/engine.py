"""The engine: tasks in, times and counts out.

Time is in picoseconds. PIM channels, the ASIC and the link are SimPy processes; commands never touch SimPy, a
channel issues a whole program at once. A stretch of tasks that no outside event can disturb needs no event per
task either: the chain kernel runs it in one call and SimPy sees its end only. Both ways give the same times.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import simpy

from pimloom.arch.machine import Arch
from pimloom.sim import asic
from pimloom.sim.chain import ASIC, PIM, Clocks, Stretch, new_board, run_chain, separate, settle
from pimloom.sim.channel import (
    CHANGED,
    EXTRA_ANY_OPEN,
    EXTRA_BANK_OPEN,
    EXTRA_STEPPED,
    EXTRA_TAIL,
    EXTRAS,
    I8,
    LAST,
    OPEN_BANKS,
    Code,
    accumulators,
    issue,
    new_scratch,
    new_state,
)
from pimloom.sim.clock import edge_ps, first_edge
from pimloom.sim.naive import NaiveChannel
from pimloom.traces.program import Program
from pimloom.traces.task import AsicTask, Block, Pass, PimTask, Task

EngineName = Literal["fast", "events", "naive"]
"""fast: chain kernel; events: SimPy processes with the channel kernel; naive: the same with plain Python."""

FIELDS = ("code", "times", "bank", "row", "column", "buffer", "d_bank", "d_column", "d_buffer")


class Times(NamedTuple):
    """Start and end of every task of a block: i8[repeat, task] in ps."""

    begin: I8
    end: I8


Observer = Callable[[Pass, list[Times]], None]


class Library:
    """All programs of a run, each stored once, as the arrays that the kernel reads."""

    def __init__(self) -> None:
        self._index: dict[int, int] = {}
        self._programs: list[Program] = []
        self._code: Code | None = None

    def number(self, program: Program | None) -> int:
        """Return the program's number, -1 for None."""
        if program is None:
            return -1
        key = id(program)
        if key not in self._index:
            self._index[key] = len(self._programs)
            self._programs.append(program)
            self._code = None
        return self._index[key]

    def code(self) -> Code:
        """Return the programs one behind the other."""
        if self._code is None:
            lengths = [len(p.code) for p in self._programs]
            start = np.cumsum([0, *lengths]).astype(np.int64)
            empty = np.empty(0, np.int32)
            arrays = (np.concatenate([empty, *(getattr(p, f) for p in self._programs)]) for f in FIELDS)
            self._code = Code(start, *arrays)
        return self._code


class Device(Protocol):
    """The channels of a machine, one program at a time."""

    def issue(self, channel: int, program: Program | None, base_bank: int, base_row: int, start: int) -> int:
        """Issue a program from clock `start` on; return the clock at which its last data is over."""

    def totals(self, clock: int) -> I8:
        """Close the books at `clock`; return i8[channel, accumulators] as `sim.channel` lays them out."""


class KernelDevice:
    """The channel kernel, one call a program; `log` keeps every command issued."""

    def __init__(self, arch: Arch, log_room: int = 0) -> None:
        self.tables = arch.tables()
        channels = arch.dram.channels
        self.state, self.scratch = new_state(self.tables, channels), new_scratch(self.tables)
        self.acc = np.zeros((channels, accumulators(self.tables)), np.int64)
        self.log = np.zeros((channels, log_room, 6), np.int64)
        self.library = Library()

    def issue(self, channel: int, program: Program | None, base_bank: int, base_row: int, start: int) -> int:
        """See `Device`."""
        number = self.library.number(program)
        return issue(
            self.tables,
            self.library.code(),
            number,
            base_bank,
            base_row,
            start,
            self.state,
            channel,
            self.scratch,
            self.acc[channel],
            self.log[channel],
        )

    def totals(self, clock: int) -> I8:
        """See `Device`."""
        for c in range(len(self.acc)):
            self.issue(c, None, 0, 0, clock)
            _close_books(self.state.scalar[c], self.acc[c], clock)
        return self.acc


def _close_books(scalar: I8, acc: I8, clock: int) -> None:
    """Count the clocks since the last change of the open banks."""
    extras = len(acc) - EXTRAS
    acc[extras + EXTRA_BANK_OPEN] += scalar[OPEN_BANKS] * (clock - scalar[CHANGED])
    acc[extras + EXTRA_ANY_OPEN] += (clock - scalar[CHANGED]) if scalar[OPEN_BANKS] else 0
    scalar[CHANGED] = clock


class NaiveDevice:
    """Plain Python channels."""

    def __init__(self, arch: Arch, keep_log: bool = False) -> None:
        self.names = list(arch.dram.command_names)
        symbols = arch.symbols
        self.channels = [NaiveChannel(arch.dram, symbols, keep_log) for _ in range(arch.dram.channels)]

    def issue(self, channel: int, program: Program | None, base_bank: int, base_row: int, start: int) -> int:
        """See `Device`."""
        return self.channels[channel].issue(program, base_bank, base_row, start)

    def totals(self, clock: int) -> I8:
        """See `Device`."""
        n = len(self.names)
        acc = np.zeros((len(self.channels), 2 * n + EXTRAS), np.int64)
        for c, channel in enumerate(self.channels):
            channel.issue(None, 0, 0, clock)
            channel._account(clock)
            acc[c, :n] = [channel.counts[name] for name in self.names]
            acc[c, n : 2 * n] = [channel.clocks[name] for name in self.names]
            acc[c, 2 * n + EXTRA_BANK_OPEN] = channel.bank_open
            acc[c, 2 * n + EXTRA_ANY_OPEN] = channel.any_open
            acc[c, 2 * n + EXTRA_TAIL] = channel.tail
            acc[c, 2 * n + EXTRA_STEPPED] = acc[c, :n].sum()
        return acc


@dataclass
class Outcome:
    """What a run leaves behind: its end in ps, i8[channel, accumulators], the ASIC's busy time in ps."""

    end_ps: int
    totals: I8
    asic_busy_ps: int


def run(
    arch: Arch,
    passes: Iterable[Pass],
    observe: Observer,
    engine: EngineName = "fast",
    device: Device | None = None,
) -> Outcome:
    """Run passes one after the other; `observe` gets each pass with the times of its blocks' tasks.

    device: channels to run on, for the engines other than "fast"; None = new ones
    """
    if engine == "fast":
        return _Fast(arch, _clocks(arch)).run(passes, observe)
    if device is None:
        device = NaiveDevice(arch) if engine == "naive" else KernelDevice(arch)
    return _Events(arch, _clocks(arch), device).run(passes, observe)


def run_logged(arch: Arch, passes: Callable[[], Iterable[Pass]], first: int, stop: int) -> list[I8]:
    """Return, per channel, i8[n, 6] (clock, command, bank, row, column, buffer) of passes first .. stop - 1.

    The run begins with pass 0 and ends with pass stop - 1; `passes` makes them anew, since it is run twice: once to
    learn how many commands there will be, refreshes included, once to log them.
    """
    window = range(first, stop)

    def until_stop() -> Iterable[Pass]:
        return itertools.islice(passes(), stop)

    counting = _Fast(arch, _clocks(arch), window)
    counting.run(until_stop(), lambda item, times: None)
    logging = _Fast(arch, _clocks(arch), window, int(counting.logged.max()) + 1)
    logging.run(until_stop(), lambda item, times: None)
    # Refreshes of a channel that idled before the window are issued with its first program: they are no part of it.
    refresh = int(logging.device.tables.refresh[2])
    begin = min(int(log[log[:, 1] != refresh, 0].min(initial=1 << 62)) for log in logging.logs)
    return [log[log[:, 0] >= begin] for log in logging.logs]


def _clocks(arch: Arch) -> Clocks:
    return Clocks(
        arch.dram.clock_Hz,
        arch.asic.clock_Hz,
        round(arch.link.latency_ns * 1000),
        arch.mapping.barrier == "instruction",
    )


def _cycles(arch: Arch, task: AsicTask) -> int:
    return asic.cycles(arch.asic, task.function, task.size, task.count, len(task.inputs))


class _Fast:
    """SimPy with one event a pass; the chain kernel in between.

    window, log_room: passes whose commands are logged, room for them a channel (0: they are only counted)
    """

    def __init__(self, arch: Arch, clocks: Clocks, window: range = range(-1, -1), log_room: int = 0) -> None:
        self.arch, self.clocks, self.window, self.log_room = arch, clocks, window, log_room
        self.device = KernelDevice(arch)
        self.registers: dict[str, int] = {}
        self.board = new_board(0, arch.dram.channels)
        self.rows: dict[int, tuple[Task, tuple[Any, ...]]] = {}
        self.asic_busy = 0

    def run(self, passes: Iterable[Pass], observe: Observer) -> Outcome:
        env = simpy.Environment()
        env.process(self._controller(env, passes, observe))
        env.run()
        end_ps = int(self.board.free[0])
        separate(self.device.state, self.board.leader)
        totals = self.device.totals(int(first_edge(end_ps, self.clocks.dram_Hz)))
        return Outcome(end_ps, totals, self.asic_busy)

    def _controller(
        self, env: simpy.Environment, passes: Iterable[Pass], observe: Observer
    ) -> Generator[simpy.Event, Any, None]:
        d = self.device
        one = np.zeros(d.acc.shape[1], np.int64)
        for number, item in enumerate(passes):
            self._open_log(number)
            stretches = [self._stretch(block) for block in item.blocks]
            code = d.library.code()
            times = []
            for block, stretch in zip(item.blocks, stretches, strict=True):
                shape = (block.repeat, len(block.tasks))
                begin, end = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
                run_chain(
                    d.tables,
                    code,
                    stretch,
                    block.repeat,
                    block.row_stride,
                    self.clocks,
                    d.state,
                    self.board,
                    d.scratch,
                    one,
                    d.acc,
                    begin,
                    end,
                    d.log,
                )
                times.append(Times(begin, end))
                on_asic = stretch.unit == ASIC
                self.asic_busy += int((end - begin)[:, on_asic].sum())
            yield env.timeout(int(self.board.free[0]) - env.now)
            observe(item, times)
        self._open_log(number + 1)

    def _open_log(self, number: int) -> None:
        """Log the passes of the window: at its start provide room, at its end keep what was logged."""
        d, first, stop = self.device, self.window.start, self.window.stop
        if number == first:
            d.log = np.zeros((len(d.acc), self.log_room, 6), np.int64)
            self.before = d.acc.copy()
        elif number == stop:
            # A channel that was done early owes the refreshes up to the last command of all.
            clock, commands = int(d.state.scalar[:, LAST].max()), len(d.tables.target)
            settle(d.tables, d.library.code(), clock, d.state, self.board, d.scratch, d.acc, d.log)
            if d.log.size and d.log[:, 0, 0].max() >= d.log.shape[1]:
                raise RuntimeError(f"{int(d.log[:, 0, 0].max())} commands, but room for {d.log.shape[1] - 1}")
            self.logged = (d.acc - self.before)[:, :commands].sum(1)
            self.logs = [log[1 : 1 + log[0, 0]] for log in d.log] if self.log_room else []
            d.log = np.zeros((len(d.acc), 0, 6), np.int64)

    def _register(self, names: Iterable[str], width: int) -> list[int]:
        numbers = [self.registers.setdefault(name, len(self.registers)) for name in names]
        return numbers + [-1] * (width - len(numbers))

    def _row(self, task: Task) -> tuple[Any, ...]:
        """Return the task as numbers; tasks that come again are encoded once."""
        if id(task) not in self.rows:
            channels = self.arch.dram.channels
            reads, writes = self._register(task.reads, 4), self._register(task.writes, 2)
            if isinstance(task, PimTask):
                programs = [self.device.library.number(p) for p in task.programs]
                row = (PIM, programs, task.base_bank, task.base_row, 0, reads, writes)
            else:
                row = (ASIC, [-1] * channels, 0, 0, _cycles(self.arch, task), reads, writes)
            self.rows[id(task)] = (task, row)  # the task is kept, so its id stays its own
        return self.rows[id(task)][1]

    def _stretch(self, block: Block) -> Stretch:
        rows = [self._row(task) for task in block.tasks]
        missing = len(self.registers) - len(self.board.written)
        if missing > 0:
            more = np.zeros(missing, np.int64)
            b = self.board
            self.board = b._replace(
                written=np.concatenate([b.written, more]), read=np.concatenate([b.read, more])
            )
        return Stretch(*(np.array(column, np.int64) for column in zip(*rows, strict=True)))


@dataclass(eq=False)
class _Job:
    """A task under way: what it waits for, how many channels are still to go, when its inputs were there."""

    task: Task
    base_row: int
    ready: simpy.Event
    done: simpy.Event
    left: int
    over: int = 0
    begin: int = 0
    end: int = 0


@dataclass(eq=False)
class _Events:
    """Every channel, the ASIC and the link as processes; a task is handed to its units in order."""

    arch: Arch
    clocks: Clocks
    device: Device
    env: simpy.Environment = field(default_factory=simpy.Environment)
    asic_busy: int = 0

    def run(self, passes: Iterable[Pass], observe: Observer) -> Outcome:
        channels = range(self.arch.dram.channels)
        self.queues = [simpy.Store(self.env) for _ in channels]  # programs to send, by channel
        self.inboxes = [simpy.Store(self.env) for _ in channels]  # programs that have arrived
        self.asic_queue = simpy.Store(self.env)
        for c in channels:
            self.env.process(self._link(c))
            self.env.process(self._channel(c))
        self.env.process(self._asic())
        self.env.process(self._sequencer(passes, observe))
        self.env.run()
        end = int(self.env.now)
        totals = self.device.totals(int(first_edge(end, self.clocks.dram_Hz)))
        return Outcome(end, totals, self.asic_busy)

    def _sequencer(self, passes: Iterable[Pass], observe: Observer) -> Generator[simpy.Event, Any, None]:
        """Hand out tasks in order: each after the last one's end, or, without barrier, with what it waits for."""
        writer: dict[str, simpy.Event] = {}
        readers: dict[str, list[simpy.Event]] = {}
        for item in passes:
            blocks = []
            for block in item.blocks:
                jobs = []
                for turn in range(block.repeat):
                    for task in block.tasks:
                        job = self._job(task, turn * block.row_stride, writer, readers)
                        jobs.append(job)
                        if self.clocks.barrier:
                            yield job.done
                blocks.append(jobs)
            self.env.process(self._report(item, blocks, observe))

    def _report(
        self, item: Pass, blocks: list[list[_Job]], observe: Observer
    ) -> Generator[simpy.Event, Any, None]:
        """Wait until a pass is over and show its times."""
        yield self.env.all_of([job.done for jobs in blocks for job in jobs])
        times = []
        for block, jobs in zip(item.blocks, blocks, strict=True):
            shape = (block.repeat, len(block.tasks))
            begin = np.array([job.begin for job in jobs], np.int64).reshape(shape)
            times.append(Times(begin, np.array([job.end for job in jobs], np.int64).reshape(shape)))
        observe(item, times)

    def _job(
        self, task: Task, stride: int, writer: dict[str, simpy.Event], readers: dict[str, list[simpy.Event]]
    ) -> _Job:
        before = [writer[name] for name in (*task.reads, *task.writes) if name in writer]
        before += [event for name in task.writes for event in readers.get(name, [])]
        ready, done = self.env.all_of(before), self.env.event()
        if isinstance(task, PimTask):
            busy = [c for c, program in enumerate(task.programs) if program is not None]
            job = _Job(task, task.base_row + stride, ready, done, len(busy))
            ready.callbacks.append(lambda event: setattr(job, "begin", int(self.env.now)))
            for c in busy:
                self.queues[c].put(job)
        else:
            job = _Job(task, 0, ready, done, 0)
            self.asic_queue.put(job)
        for name in task.reads:
            readers.setdefault(name, []).append(done)
        for name in task.writes:
            writer[name], readers[name] = done, []
        return job

    def _link(self, c: int) -> Generator[simpy.Event, Any, None]:
        """Send programs to a channel in order, each when its inputs are there, one behind the other."""
        while True:
            job = yield self.queues[c].get()
            yield job.ready
            self.env.process(self._arrive(c, job))

    def _arrive(self, c: int, job: _Job) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(self.clocks.link_ps)
        yield self.inboxes[c].put(job)

    def _channel(self, c: int) -> Generator[simpy.Event, Any, None]:
        while True:
            job = yield self.inboxes[c].get()
            task: PimTask = job.task
            start = int(first_edge(int(self.env.now), self.clocks.dram_Hz))
            over = self.device.issue(c, task.programs[c], task.base_bank, job.base_row, start)
            job.over, job.left = max(job.over, int(over)), job.left - 1
            if job.left == 0:
                self.env.process(self._answer(job))

    def _answer(self, job: _Job) -> Generator[simpy.Event, Any, None]:
        """Bring the last result back over the link."""
        over = int(edge_ps(job.over, self.clocks.dram_Hz)) + self.clocks.link_ps
        yield self.env.timeout(max(0, over - self.env.now))
        job.end = int(self.env.now)
        job.done.succeed()

    def _asic(self) -> Generator[simpy.Event, Any, None]:
        f = self.clocks.asic_Hz
        while True:
            job = yield self.asic_queue.get()
            yield job.ready
            edge = int(first_edge(int(self.env.now), f))
            job.begin = int(edge_ps(edge, f))
            job.end = int(edge_ps(edge + _cycles(self.arch, job.task), f))
            self.asic_busy += job.end - job.begin
            yield self.env.timeout(job.end - self.env.now)
            job.done.succeed()
