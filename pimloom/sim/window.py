"""The controller that looks ahead: requests through AttAcc's controllers, command for command.

One front end hands requests over strictly in the order of the stream, over all channels, as many as fit; a channel
issues up to two commands a clock, one to rows and one to columns, and prepares rows across barriers. AttAcc's
simulator at revision c600051, as the README of the reference data describes it.

The kernel steps only to clocks at which something can happen. Channels next to each other that are told the same and
are in the same state are one run of channels and are stepped once: the front end serves them one after the other, so
either all of them have room for an access or none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.device import Device
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.rules import Rules, compile_rules
from pimloom.sim.bench import I8, Issued
from pimloom.sim.jit import inlined, kernel
from pimloom.sim.timing import ready_at, stamp
from pimloom.traces.stream import BARRIER, FIELDS, I4, Stream

NEVER = 1 << 60
CLOSED = -1
ENDED, FULL = range(2)
"""Why the kernel returns: all is done; the log has no room for another clock."""
ROW, COLUMN, ALONE = 0, 1, 2
"""What a command occupies: the bus of rows or of columns, or both."""
OPENS, CLOSES = 1, 2
NOW, START, INSTRUCTION, ACCESS, RUN, SERIAL, SCALARS = range(7)
"""Scalars of the state.

NOW: clock of the next step; START: clock from which on requests are handed over; INSTRUCTION, ACCESS, RUN: next
request of the stream; SERIAL: of the last look through a buffer."""
(WAKE, SIZE, DUE, PENDING, SERVED, OPEN, SINCE, LAST, AFTER, ACTIVE, LOGGED, FIELDS_OF_CHANNEL) = range(12)
"""Fields of a channel.

WAKE: clock before which it can do nothing; SIZE: requests in its buffer; DUE: clock of the next refresh; PENDING:
refreshes that wait, SERVED: that have been; OPEN: banks with an open row, SINCE: clock up to which ACTIVE counts the
clocks with any; LAST: clock of the last command; AFTER: whether it was a refresh; LOGGED: rows of its log."""


class Setup(NamedTuple):
    """The controller and the meaning of commands: what does not change. C commands, by id; -1 = there is none."""

    needs_row: I8  # i8[C]  whether it works on an open row
    activate: I8  # i8[C]  command that opens the row for it
    precharge: I8  # i8[C]  command that closes another row for it
    effect: I8  # i8[C]  OPENS, CLOSES or 0
    bus: I8  # i8[C]  ROW, COLUMN or ALONE
    refresh: int
    close: int  # what a refresh that finds an open bank issues
    refreshed: int  # nodes that are refreshed one after the other
    interval: int  # clocks between refreshes; 0 = no refresh


class Program(NamedTuple):
    """A stream, and who takes part in it: n instructions, R runs of channels; see `Stream`."""

    command: I4
    times: I4
    node: I4
    row: I4
    column: I4
    d_column: I4
    operand: I4
    d_operand: I4
    member: npt.NDArray[np.uint8]  # u1[n, R]
    first: I8  # i8[R]  first channel of each run, which stands for the others


class State(NamedTuple):
    """All channels; times in clocks. H channels, B banks, N nodes, C commands, Q requests of a buffer."""

    ready: I8  # i8[H, N, C]      see `Rules.state`
    past: I8  # i8[H, W, N, size + 1]
    row: I8  # i8[H, B]         open row of the first bank that a command addresses
    channel: I8  # i8[H, FIELDS_OF_CHANNEL]
    counts: I8  # i8[H, C]
    waited: I8  # i8[H, C]
    buffer: I8  # i8[H, Q, 2]      instruction and access of each request
    marks: I8  # i8[B]            SERIAL of the last look that found a hit of the bank
    scalars: I8  # i8[SCALARS]


class Window:
    """The channels of a device whose controller's order is `window`; see `bench.Channels`."""

    def __init__(self, device: Device) -> None:
        dram = device.dram
        self.device, self.rules, self.setup = device, compile_rules(dram, lifted=True), _setup(device)
        ready, past = self.rules.state
        shape, banks = (dram.channels, len(dram.commands)), len(self.rules.path)
        channel = np.zeros((dram.channels, FIELDS_OF_CHANNEL), np.int64)
        channel[:, DUE] = self.setup.interval - 1 if self.setup.interval else NEVER
        self.state = State(
            np.tile(ready, (dram.channels, 1, 1)),
            np.tile(past, (dram.channels, 1, 1, 1)),
            np.full((dram.channels, banks), CLOSED, np.int64),
            channel,
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
            np.zeros((dram.channels, device.controller.queue, 2), np.int64),
            np.zeros(banks, np.int64),
            np.zeros(SCALARS, np.int64),
        )
        self._same = np.arange(dram.channels) > 0

    def run(self, stream: Stream, start: int, log: bool) -> Issued:
        """Issue a stream; see `bench.Channels`. Refreshes since the stream before belong to the counts of this one.

        Raises ValueError for a start before the end of the last stream, and for instructions of other front ends.
        """
        state, scalars = self.state, self.state.scalars
        if start < scalars[NOW]:
            raise ValueError(f"a stream from clock {start} on, but the one before ends at {scalars[NOW]}")
        if len(stream) and (stream.command.min() < BARRIER or int(stream.channels.max()) >> len(state.row)):
            raise ValueError("a stream with instructions or channels that this controller does not have")
        program, self._same = _program(stream, self._same)
        scalars[START] = start
        scalars[INSTRUCTION] = scalars[ACCESS] = scalars[RUN] = 0
        begin = int(scalars[NOW])
        state.counts[:] = state.waited[:] = 0
        state.channel[:, [AFTER, ACTIVE, LOGGED]] = 0
        state.channel[:, [SINCE, LAST]] = np.array([begin, start])
        state.channel[:, WAKE] = begin
        room = 2 * int(stream.times.sum()) + 64 if log else 0
        rows = np.empty((len(program.first), room, 6), np.int64)
        while advance(self.rules, self.setup, program, state, rows) == FULL:
            rows = np.concatenate([rows, np.empty_like(rows)], axis=1)
        self._share(program.first)
        end = int(scalars[NOW])
        open_until = np.where(state.channel[:, OPEN] > 0, end - state.channel[:, SINCE], 0)
        logs = None
        if log:
            run_of = np.searchsorted(program.first, np.arange(len(state.row)), side="right") - 1
            kept = [rows[r, : state.channel[c, LOGGED]] for r, c in enumerate(program.first)]
            logs = [kept[r] for r in run_of]
        return Issued(
            start,
            end,
            state.counts.copy(),
            state.waited.copy(),
            state.channel[:, ACTIVE] + open_until,
            logs,
        )

    def _share(self, first: I8) -> None:
        """Give all channels of a run the state of its first one."""
        ends = [*first[1:], len(self.state.row)]
        for whole in self.state[: State._fields.index("buffer")]:
            for a, b in zip(first, ends, strict=True):
                whole[a + 1 : b] = whole[a]


def _program(stream: Stream, same: npt.NDArray[np.bool_]) -> tuple[Program, npt.NDArray[np.bool_]]:
    """The stream for runs of channels; `same`: whether a channel is in the same state as the one before it."""
    masks, which = np.unique(stream.channels, return_inverse=True)
    bits = (masks[:, None] >> np.arange(len(same), dtype=np.uint64)).astype(np.uint8) & 1
    same = same.copy()
    same[1:] &= (bits[:, 1:] == bits[:, :-1]).all(axis=0)
    first = np.flatnonzero(~same)
    fields = {field: getattr(stream, field) for field in FIELDS}
    return Program(**fields, member=np.ascontiguousarray(bits[:, first])[which], first=first), same


def _setup(device: Device) -> Setup:
    dram = device.dram
    commands = dram.commands
    ids = {name: i for i, name in enumerate(commands)}

    def find(meaning: str, level: str) -> int:
        """The command of a meaning for a node: of its level, else of the nearest one above."""
        above = LEVELS[LEVELS.index(level) :: -1]
        names = (dram.find(meaning, at) for at in above)
        return ids.get(next((name for name in names if name), ""), -1)

    refreshes = dram.refresh.policy == "all_bank"
    level = (dram.refresh_level if refreshes else None) or "channel"
    effects = {"open": OPENS, "close": CLOSES}
    of_rows = ("activate", "precharge", "refresh")
    return Setup(
        needs_row=_i8(c.needs == "open" for c in commands.values()),
        activate=_i8(find("activate", c.target) for c in commands.values()),
        precharge=_i8(find("precharge", c.target) for c in commands.values()),
        effect=_i8(effects.get(c.bank, 0) for c in commands.values()),
        bus=_i8(
            ALONE if name in device.controller.alone else ROW if c.meaning in of_rows else COLUMN
            for name, c in commands.items()
        ),
        refresh=find("refresh", level),
        close=find("precharge", "channel"),
        refreshed=dram.nodes(level),
        interval=dram.timing["nREFI"] if refreshes else 0,
    )


def _i8(values: object) -> I8:
    return np.array([*values], np.int64)  # type: ignore[misc]


@kernel
def advance(rules: Rules, setup: Setup, program: Program, state: State, log: I8) -> int:
    """Step until the stream is used up and nothing waits; `log` i8[R, n, 6] as in `Issued`, n = 0 for none.

    Returns ENDED or FULL, after which it goes on where it stopped. NOW is then the clock behind the last step, but not
    before START.
    """
    s, runs = state.scalars, len(program.first)
    while True:
        clock = s[NOW]
        waiting = s[INSTRUCTION] < len(program.command)
        for r in range(runs):
            channel = state.channel[program.first[r]]
            waiting |= channel[SIZE] > 0 or channel[PENDING] > 0
            if 0 < log.shape[1] < channel[LOGGED] + 2:
                return FULL
        if clock >= s[START]:
            if not waiting:
                return ENDED
            _hand_over(program, state, clock)
        upcoming, busy = NEVER, s[INSTRUCTION] < len(program.command)
        for r in range(runs):
            channel = state.channel[program.first[r]]
            if channel[WAKE] <= clock:
                _step(rules, setup, program, state, r, clock, log)
            upcoming = min(upcoming, channel[WAKE])
            busy |= channel[SIZE] > 0 or channel[PENDING] > 0
        if clock < s[START]:
            upcoming = min(upcoming, s[START])
        s[NOW] = upcoming if busy or clock < s[START] else clock + 1


@inlined
def _hand_over(program: Program, state: State, clock: int) -> None:
    """Give the channels the next requests of the stream until one does not fit."""
    s, runs = state.scalars, len(program.first)
    while s[INSTRUCTION] < len(program.command):
        i = s[INSTRUCTION]
        while s[ACCESS] < program.times[i]:
            while s[RUN] < runs:
                if program.member[i, s[RUN]]:
                    c = program.first[s[RUN]]
                    channel = state.channel[c]
                    if channel[SIZE] >= state.buffer.shape[1]:
                        return
                    state.buffer[c, channel[SIZE], 0] = i
                    state.buffer[c, channel[SIZE], 1] = s[ACCESS]
                    channel[SIZE] += 1
                    channel[WAKE] = clock
                s[RUN] += 1
            s[RUN] = 0
            s[ACCESS] += 1
        s[ACCESS] = 0
        s[INSTRUCTION] += 1


@kernel
def _step(rules: Rules, setup: Setup, program: Program, state: State, r: int, clock: int, log: I8) -> None:
    """One clock of a run of channels: refreshes that are due, then up to two commands."""
    c = program.first[r]
    channel = state.channel[c]
    if clock == channel[DUE]:
        channel[DUE] += setup.interval
        channel[PENDING] += setup.refreshed
    changed, soon, first, look = False, NEVER, ALONE, True
    if channel[PENDING] > 0:
        node, command = 0, setup.close
        if channel[OPEN] == 0:
            node, command = channel[SERVED] % setup.refreshed, setup.refresh
        bank = rules.under[rules.first[rules.place[command]] + node, 0]
        soon = ready_at(rules, state.ready[c], command, bank)
        # A refresh that waits keeps other commands from the first place, so from its bus.
        first = setup.bus[command]
        if soon <= clock:
            _issue(rules, setup, program, state, r, command, bank, clock, -1, log)
            changed = True
            if command == setup.refresh:
                channel[PENDING] -= 1
                channel[SERVED] += 1
    else:
        size = channel[SIZE]
        entry, command, bank, at = _choose(rules, setup, program, state, r, clock)
        changed = channel[SIZE] < size
        if entry >= 0 and command == BARRIER:
            _remove(state, c, entry)
            changed = True
        elif entry >= 0 and at <= clock:
            first = setup.bus[command]
            _issue(rules, setup, program, state, r, command, bank, clock, entry, log)
            changed = True
        else:
            # What was chosen although it cannot issue would be chosen again.
            look, soon = False, at
    if look:
        size = channel[SIZE]
        entry, command, bank, at = _choose(rules, setup, program, state, r, clock)
        changed |= channel[SIZE] < size
        if at > clock:
            soon = min(soon, at)
        else:
            # One that finds its bus taken may give way to an older one at the next clock.
            changed = True
            if command != BARRIER and first + setup.bus[command] == ROW + COLUMN:
                _issue(rules, setup, program, state, r, command, bank, clock, entry, log)
    channel[WAKE] = clock + 1 if changed else min(soon, channel[DUE])


@inlined
def _choose(
    rules: Rules, setup: Setup, program: Program, state: State, r: int, clock: int
) -> tuple[int, int, int, int]:
    """Return place in the buffer (-1 = it is empty), command, bank, and the clock from which on there is one to issue.

    The oldest request, or if it cannot issue, the first one that can: behind a barrier only commands to rows, and
    before a row has had its last hit nothing that is addressed to its bank but the hits. A barrier that is the oldest
    is dropped first; one that then is the oldest stands for itself.
    """
    c, s = program.first[r], state.scalars
    size = state.channel[c, SIZE]
    if size > 0 and program.command[state.buffer[c, 0, 0]] == BARRIER:
        _remove(state, c, 0)
        size -= 1
    if size == 0:
        return -1, BARRIER, 0, NEVER
    oldest = program.command[state.buffer[c, 0, 0]]
    if oldest == BARRIER:
        return 0, BARRIER, 0, clock
    bank, wanted = _wanted(rules, setup, program, state, c, 0)
    soon = ready_at(rules, state.ready[c], wanted, bank)
    if soon <= clock:
        return 0, wanted, bank, soon
    s[SERIAL] += 1
    for e in range(size):
        command = program.command[state.buffer[c, e, 0]]
        if command != BARRIER and setup.needs_row[command]:
            other, need = _wanted(rules, setup, program, state, c, e)
            if need == command:
                state.marks[other] = s[SERIAL]
    behind, known_bank, known, at = False, -1, -1, NEVER
    for e in range(1, size):
        command = program.command[state.buffer[c, e, 0]]
        if command == BARRIER:
            behind = True
            continue
        other, need = _wanted(rules, setup, program, state, c, e)
        if behind and setup.effect[need] == 0:
            continue
        if need != known or other != known_bank:
            known, known_bank = need, other
            at = ready_at(rules, state.ready[c], need, other)
        if at > clock:
            soon = min(soon, at)
        elif (need == command and setup.needs_row[command]) or state.marks[other] != s[SERIAL]:
            return e, need, other, at
    return 0, wanted, bank, soon


@inlined
def _wanted(
    rules: Rules, setup: Setup, program: Program, state: State, c: int, entry: int
) -> tuple[int, int]:
    """Return the bank that a request is addressed to, and the command that it needs next."""
    i = state.buffer[c, entry, 0]
    command = program.command[i]
    bank = rules.under[rules.first[rules.place[command]] + program.node[i], 0]
    if setup.needs_row[command]:
        row = state.row[c, bank]
        if row == CLOSED:
            command = setup.activate[command]
        elif row != program.row[i]:
            command = setup.precharge[command]
    return bank, command


@kernel
def _issue(
    rules: Rules,
    setup: Setup,
    program: Program,
    state: State,
    r: int,
    command: int,
    bank: int,
    clock: int,
    entry: int,
    log: I8,
) -> None:
    """Issue a command for a request (entry, -1 = a refresh), which leaves the buffer if it is its own."""
    c = program.first[r]
    channel = state.channel[c]
    stamp(rules, state.ready[c], state.past[c], command, bank, clock)
    node = rules.path[bank, rules.place[command]]
    row, column, operand = -1, -1, -1
    if entry >= 0:
        i, access = state.buffer[c, entry, 0], state.buffer[c, entry, 1]
        row = program.row[i]
        if program.command[i] == command:
            if program.column[i] >= 0:
                column = program.column[i] + access * program.d_column[i]
            if program.operand[i] >= 0:
                operand = program.operand[i] + access * program.d_operand[i]
            _remove(state, c, entry)
    if setup.effect[command] == OPENS:
        if channel[OPEN] == 0:
            channel[SINCE] = clock
        channel[OPEN] += 1
        state.row[c, bank] = row
    elif setup.effect[command] == CLOSES:
        row = -1
        for other in range(rules.under[node, 0], rules.under[node, 1]):
            if state.row[c, other] != CLOSED:
                state.row[c, other] = CLOSED
                channel[OPEN] -= 1
        if channel[OPEN] == 0:
            channel[ACTIVE] += clock - channel[SINCE]
    state.counts[c, command] += 1
    # Refreshes before the stream begins are nobody's wait.
    # What follows a refresh waits for it.
    state.waited[c, setup.refresh if channel[AFTER] else command] += max(0, clock - channel[LAST])
    channel[AFTER] = command == setup.refresh and clock >= channel[LAST]
    channel[LAST] = max(clock, channel[LAST])
    if log.shape[1] > 0:
        at = channel[LOGGED]
        log[r, at, 0] = clock
        log[r, at, 1] = command
        log[r, at, 2] = node - rules.first[rules.place[command]]
        log[r, at, 3] = row
        log[r, at, 4] = column
        log[r, at, 5] = operand
        channel[LOGGED] += 1


@inlined
def _remove(state: State, c: int, entry: int) -> None:
    channel = state.channel[c]
    channel[SIZE] -= 1
    for e in range(entry, channel[SIZE]):
        state.buffer[c, e, 0] = state.buffer[c, e + 1, 0]
        state.buffer[c, e, 1] = state.buffer[c, e + 1, 1]
