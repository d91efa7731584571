"""A PIM device whose channels serve the oldest request only: instruction front end, row opening, modes, refresh.

The rules are those of the AiM reference data. All of a device's particularities are in its description: blocking
commands, modes, and whether plain reads and writes wait in queues of their own.

A clock has two halves: first the front end hands out requests, then every channel may issue one command. A channel is
simulated only as far as it must be known when a place in its queue is free; runs of one command are jumped. Channels
whose states are equal are one group with a leader, which alone is simulated, until an instruction is not for all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.device import Device
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate
from pimloom.arch.rules import Rules, compile_rules
from pimloom.arch.tree import InputError
from pimloom.sim.bench import Issued
from pimloom.sim.jit import inlined, kernel
from pimloom.sim.timing import ready_at, stamp
from pimloom.traces.stream import BARRIER, END, REGISTER, SYNC, Stream

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint64]

NEVER = 1 << 61
CLOSED = -1
OPENING, CLOSING = 1, 2
"""Effects of a command on the banks that it addresses; 0 = none."""

IN_ORDER, READ, WRITE = -1, 0, 1
"""Queue that a request waits in. ACTIVE is the list of plain requests for which a row has been opened."""
ACTIVE = 2

(EFFECT, OPENS, ROW_ACTIVATE, ROW_PRECHARGE, OTHER_MODE, QUEUE, IS_READ, BLOCKS, DURATION, GAP, KIND) = range(
    11
)
"""What is known of a command.

EFFECT: see above; OPENS: its row must be open; ROW_ACTIVATE, ROW_PRECHARGE:
commands that change rows for it; OTHER_MODE: wants the second mode; QUEUE: see above; IS_READ: someone waits for its
data; BLOCKS: so does the front end; GAP: clocks between two of it on one node, 0 = that depends on more"""

COMMAND, LEFT, NODE, ROW, COLUMN, D_COLUMN, OPERAND, D_OPERAND, ARRIVAL, ENTRY = range(10)
"""Fields of what waits: accesses still to be issued, and the address of the next one."""

(CLOCK, DUE, TURN, REFRESHES, MODE, IN_FIFO, FIFO_FIRST, FIFO_COUNT, N_READ, N_WRITE, N_ACTIVE, DRAINS, GONE, LAST_GONE,
 LAST_READ, READS, LAST_WRITE, FINISH, SYNCED, SYNCED_READ, SYNCED_READS, OPEN_BANKS, OPEN_SINCE, LAST_COMMAND,
 AFTER_REFRESH, LOGGED, SCALARS) = range(27)  # fmt: skip
"""Scalars of a channel.

CLOCK: first clock whose command is not known yet; DUE: of the next refresh, TURN: its node; REFRESHES: nodes that wait
for theirs; MODE: 1 = the second; IN_FIFO: requests in order; FIFO_FIRST, FIFO_COUNT: the ring of their instructions;
DRAINS: writes go before reads; GONE: requests that have left a queue so far, LAST_GONE: the clock of the last;
LAST_READ: clock at which the last data was taken, READS: how often; LAST_WRITE: clock at which the last other request
was finished; FINISH: clock by which all requests have had their duration; SYNCED: clock at which SYNC left the queue,
with what then held of LAST_READ and READS; OPEN_...: banks, and since when; LAST_COMMAND: its clock; AFTER_REFRESH:
whether it was a refresh; LOGGED: rows of the log"""


class Setup(NamedTuple):
    """What does not change. C commands, R nodes that are refreshed."""

    commands: I8  # i8[C, KIND]
    switch: int  # command that changes the mode, -1 = there are no modes
    queue: int
    queues: I8  # i8[2]  places for plain reads and writes
    drain_from: int
    drain_to: int
    interval: int  # clocks between refreshes of a node, 0 = none
    refresh: int
    precharge: int  # of a node that is refreshed, or of a bank
    refreshed: I8  # i8[R]  nodes
    is_paced: int  # the front end takes one instruction a clock


class State(NamedTuple):
    """What changes, of one channel; in `InOrder`, of all. B banks, C commands, N nodes, R refreshed nodes."""

    scalars: I8  # i8[SCALARS]
    rows: I8  # i8[B]  open row or CLOSED
    ready: I8  # see Rules.state
    past: I8
    waits: I8  # i8[R]  whether a refresh is due
    fifo: I8  # i8[F, ENTRY]  ring of instructions
    lists: I8  # i8[3, Q, ENTRY]  READ, WRITE, ACTIVE, oldest first
    tally: I8  # i8[2 C + 1]  commands issued; clocks waited for them; clocks with an open bank


@inlined
def _copy(entry: I8, to: I8) -> None:
    for field in range(len(entry)):
        to[field] = entry[field]


@inlined
def _first_bank(rules: Rules, command: int, node: int) -> int:
    bank: int = rules.under[rules.first[rules.place[command]] + node, 0]
    return bank


@inlined
def _ready(rules: Rules, state: State, command: int, node: int) -> int:
    return ready_at(rules, state.ready, command, _first_bank(rules, command, node))


@kernel
def _issue(
    rules: Rules, setup: Setup, state: State, log: I8,
    command: int, node: int, row: int, column: int, operand: int, clock: int,
) -> None:  # fmt: skip
    """Note that a command issues."""
    s = state.scalars
    where = rules.first[rules.place[command]] + node
    begin, end = rules.under[where, 0], rules.under[where, 1]
    stamp(rules, state.ready, state.past, command, begin, clock)
    kinds = len(setup.commands)
    state.tally[command] += 1
    # What follows a refresh waits for it.
    state.tally[kinds + (setup.refresh if s[AFTER_REFRESH] else command)] += clock - s[LAST_COMMAND]
    s[LAST_COMMAND] = clock
    s[AFTER_REFRESH] = command == setup.refresh
    effect = setup.commands[command, EFFECT]
    if effect:
        before = s[OPEN_BANKS]
        for bank in range(begin, end):
            s[OPEN_BANKS] -= state.rows[bank] != CLOSED
            state.rows[bank] = row if effect == OPENING else CLOSED
            s[OPEN_BANKS] += effect == OPENING
        if before == 0 and s[OPEN_BANKS] > 0:
            s[OPEN_SINCE] = clock
        elif before > 0 and s[OPEN_BANKS] == 0:
            state.tally[-1] += clock - s[OPEN_SINCE]
    _write_log(s, log, command, node, row, column, operand, clock)


@inlined
def _write_log(
    s: I8, log: I8, command: int, node: int, row: int, column: int, operand: int, clock: int
) -> None:
    at = s[LOGGED]
    if at < len(log):
        log[at, 0] = clock
        log[at, 1] = command
        log[at, 2] = node
        log[at, 3] = row
        log[at, 4] = column
        log[at, 5] = operand
        s[LOGGED] = at + 1


@inlined
def _finish(setup: Setup, s: I8, command: int, clock: int, accesses: int) -> None:
    """Note when the last of some requests that issued one clock or more apart is done."""
    done = clock + setup.commands[command, DURATION]
    s[FINISH] = max(s[FINISH], done)
    if setup.commands[command, IS_READ]:
        # Data is taken one a clock, in order.
        done = max(done, s[LAST_READ] + accesses)
        s[LAST_READ] = done
        s[READS] += accesses
    else:
        s[LAST_WRITE] = max(s[LAST_WRITE], done)


@inlined
def _next_command(rules: Rules, setup: Setup, state: State, entry: I8) -> tuple[int, int]:
    """Return what a request needs next, and the node of the level that this command addresses."""
    command, node, row = entry[COMMAND], entry[NODE], entry[ROW]
    if setup.commands[command, OPENS] == 0 or row < 0:
        return command, node
    where = rules.first[rules.place[command]] + node
    closed = wrong = -1
    for bank in range(rules.under[where, 0], rules.under[where, 1]):
        if state.rows[bank] == CLOSED:
            if closed < 0:
                closed = bank
        elif state.rows[bank] != row:
            wrong = bank
            break
    if wrong >= 0:
        command, bank = setup.commands[command, ROW_PRECHARGE], wrong
    elif closed >= 0:
        command, bank = setup.commands[command, ROW_ACTIVATE], closed
    else:
        return command, node
    level = rules.place[command]
    return command, rules.path[bank, level] - rules.first[level]


@inlined
def _other_mode(setup: Setup, state: State, command: int) -> bool:
    return setup.switch >= 0 and setup.commands[command, OTHER_MODE] != state.scalars[MODE]


@inlined
def _ready_for(rules: Rules, setup: Setup, state: State, final: int, command: int, node: int) -> int:
    """Return when a command for a request may issue, or the change of mode that goes in its place."""
    clock = _ready(rules, state, command, node)
    if _other_mode(setup, state, final):
        clock = max(clock, _ready(rules, state, setup.switch, 0))
    return clock


@inlined
def _serve(
    rules: Rules, setup: Setup, state: State, log: I8, entry: I8, command: int, node: int, clock: int
) -> bool:
    """Issue a command for a request, or change the mode instead; tell whether that was all that it needed."""
    final = entry[COMMAND]
    if _other_mode(setup, state, final):
        state.scalars[MODE] = 1 - state.scalars[MODE]
        _issue(rules, setup, state, log, setup.switch, 0, -1, -1, -1, clock)
        return False
    if command != final:
        _issue(rules, setup, state, log, command, node, entry[ROW], -1, -1, clock)
        return False
    _issue(rules, setup, state, log, command, node, entry[ROW], entry[COLUMN], entry[OPERAND], clock)
    _finish(setup, state.scalars, command, clock, 1)
    return True


# --- plain requests that need not keep their order ---------------------------------------------------------


@kernel
def _remove(items: I8, count: int, at: int) -> None:
    for i in range(at, count - 1):
        _copy(items[i + 1], items[i])


@kernel
def _is_held(state: State, setup: Setup, command: int, node: int) -> bool:
    """Tell whether a precharge would close a bank that was opened for a request of the active list."""
    if setup.commands[command, EFFECT] != CLOSING:
        return False
    for i in range(state.scalars[N_ACTIVE]):
        entry = state.lists[ACTIVE, i]
        if setup.commands[entry[COMMAND], ROW_PRECHARGE] == command and entry[NODE] == node:
            return True
    return False


@kernel
def _serve_active(rules: Rules, setup: Setup, state: State, log: I8, clock: int) -> int:
    """Serve the request of the active list that arrived first of those whose command may issue.

    Returns `clock` if there was one, else the first clock at which there may be.
    """
    s = state.scalars
    wake, chosen = NEVER, -1
    for i in range(s[N_ACTIVE]):
        entry = state.lists[ACTIVE, i]
        command, node = _next_command(rules, setup, state, entry)
        at = _ready_for(rules, setup, state, entry[COMMAND], command, node)
        if at > clock:
            wake = min(wake, at)
        elif chosen < 0 or entry[ARRIVAL] < state.lists[ACTIVE, chosen, ARRIVAL]:
            chosen = i
    if chosen < 0:
        return wake
    entry = state.lists[ACTIVE, chosen]
    command, node = _next_command(rules, setup, state, entry)
    if _serve(rules, setup, state, log, entry, command, node, clock):
        _remove(state.lists[ACTIVE], s[N_ACTIVE], chosen)
        s[N_ACTIVE] -= 1
    return clock


@kernel
def _serve_plain(rules: Rules, setup: Setup, state: State, log: I8, clock: int) -> int:
    """Serve the oldest plain request whose command may issue; see `_serve_active`."""
    s = state.scalars
    reads, writes = s[N_READ], s[N_WRITE]
    if s[DRAINS] == 0:
        s[DRAINS] = writes >= setup.drain_from or reads == 0
    elif writes <= setup.drain_to and reads > 0:
        s[DRAINS] = 0
    queue = WRITE if s[DRAINS] else READ
    waiting = state.lists[queue]
    wake = NEVER
    for i in range(s[N_READ + queue]):
        command, node = _next_command(rules, setup, state, waiting[i])
        at = _ready_for(rules, setup, state, waiting[i, COMMAND], command, node)
        if at > clock:
            wake = min(wake, at)
            continue
        if _is_held(state, setup, command, node):
            # Nothing younger goes in its stead.
            return wake
        is_switch = _other_mode(setup, state, waiting[i, COMMAND])
        is_done = _serve(rules, setup, state, log, waiting[i], command, node, clock)
        is_opened = not is_switch and not is_done and setup.commands[command, EFFECT] == OPENING
        if is_opened:
            _copy(waiting[i], state.lists[ACTIVE, s[N_ACTIVE]])
            s[N_ACTIVE] += 1
        if is_done or is_opened:
            _remove(waiting, s[N_READ + queue], i)
            s[N_READ + queue] -= 1
            s[GONE] += 1
            s[LAST_GONE] = clock
        return clock
    return wake


# --- one channel -------------------------------------------------------------------------------------------


@inlined
def _fall_due(setup: Setup, state: State) -> None:
    """Let the refresh of the next node wait: they take turns, evenly spread, so that their currents do not add up."""
    s = state.scalars
    nodes = len(state.waits)
    state.waits[s[TURN]] = 1
    s[REFRESHES] += 1
    s[TURN] = (s[TURN] + 1) % nodes
    s[DUE] += (s[TURN] + 1) * setup.interval // nodes - s[TURN] * setup.interval // nodes


@kernel
def _refresh(rules: Rules, setup: Setup, state: State, log: I8, limit: int) -> None:
    """Bring the refresh that is due one command further, if that issues before a clock."""
    s = state.scalars
    first, best, what, where = NEVER, -1, -1, -1
    for i in range(len(setup.refreshed)):
        if state.waits[i] == 0:
            continue
        node = setup.refreshed[i]
        command, at = setup.refresh, node
        base = rules.first[rules.place[setup.refresh]]
        for bank in range(rules.under[base + node, 0], rules.under[base + node, 1]):
            if state.rows[bank] != CLOSED:
                command = setup.precharge
                level = rules.place[command]
                at = rules.path[bank, level] - rules.first[level]
                break
        clock = max(s[CLOCK], _ready(rules, state, command, at))
        if clock < first:
            first, best, what, where = clock, i, command, at
    if first >= limit:
        s[CLOCK] = limit
        return
    _issue(rules, setup, state, log, what, where, -1, -1, -1, first)
    s[CLOCK] = first + 1
    if what == setup.refresh:
        state.waits[best] = 0
        s[REFRESHES] -= 1


@kernel
def _serve_oldest(
    rules: Rules, setup: Setup, state: State, log: I8, wake: int, limit: int, target: int
) -> None:
    """Go on with the oldest request that keeps its order, up to a clock that is no later than `limit`.

    wake: clock at which the active list goes first; target: requests gone (GONE) of which the last is waited for.
    """
    s = state.scalars
    head = s[FIFO_FIRST]
    entry = state.fifo[head]
    clock, final = s[CLOCK], entry[COMMAND]
    if final == BARRIER:
        if s[N_ACTIVE] > 0 or clock < s[FINISH]:
            s[CLOCK] = min(limit, wake if s[N_ACTIVE] > 0 else s[FINISH])
            return
        _leave(state, 1, clock)
        return
    if final == SYNC:
        _leave(state, 1, clock)
        s[SYNCED] = clock
        s[SYNCED_READ] = s[LAST_READ]
        s[SYNCED_READS] = s[READS]
        s[CLOCK] = clock + 1
        return
    command, node = _next_command(rules, setup, state, entry)
    at = max(clock, _ready_for(rules, setup, state, final, command, node))
    if at >= min(wake, limit) or _is_held(state, setup, command, node):
        s[CLOCK] = min(wake, limit)
        return
    s[CLOCK] = at + 1
    if not _serve(rules, setup, state, log, entry, command, node, at):
        return
    gap = setup.commands[final, GAP]
    more = 0
    if gap > 0 and s[N_ACTIVE] == 0:
        # Nothing but its own stamp binds the next one, since nothing else issues in between.
        more = min(entry[LEFT] - 1, (limit - 1 - at) // gap, target - s[GONE] - 1)
    if more > 0:
        column = entry[D_COLUMN] if entry[COLUMN] >= 0 else 0
        operand = entry[D_OPERAND] if entry[OPERAND] >= 0 else 0
        for i in range(1, more + 1 if s[LOGGED] < len(log) else 0):
            _write_log(
                s, log, final, node, entry[ROW], entry[COLUMN] + i * column, entry[OPERAND] + i * operand,
                at + i * gap,
            )  # fmt: skip
        at += more * gap
        stamp(rules, state.ready, state.past, final, _first_bank(rules, final, node), at)
        state.tally[final] += more
        state.tally[len(setup.commands) + final] += more * gap
        s[LAST_COMMAND] = at
        s[CLOCK] = at + 1
        _finish(setup, s, final, at, more)
    _leave(state, 1 + more, at)


@inlined
def _leave(state: State, accesses: int, clock: int) -> None:
    """Take accesses of the oldest instruction out of the queue."""
    s = state.scalars
    entry = state.fifo[s[FIFO_FIRST]]
    entry[LEFT] -= accesses
    if entry[COLUMN] >= 0:
        entry[COLUMN] += accesses * entry[D_COLUMN]
    if entry[OPERAND] >= 0:
        entry[OPERAND] += accesses * entry[D_OPERAND]
    s[IN_FIFO] -= accesses
    s[GONE] += accesses
    s[LAST_GONE] = clock
    if entry[LEFT] == 0:
        s[FIFO_FIRST] = (s[FIFO_FIRST] + 1) % len(state.fifo)
        s[FIFO_COUNT] -= 1


@kernel
def _advance(rules: Rules, setup: Setup, state: State, log: I8, until: int, target: int) -> None:
    """Simulate a channel up to a clock, without its command, or until so many requests have left its queues."""
    s = state.scalars
    while s[CLOCK] < until and s[GONE] < target:
        limit = until
        if setup.interval > 0:
            if s[REFRESHES] == 0 and s[CLOCK] >= s[DUE]:
                _fall_due(setup, state)
            if s[REFRESHES] > 0:
                _refresh(rules, setup, state, log, until)
                continue
            limit = min(limit, s[DUE])
        wake = NEVER
        if s[N_ACTIVE] > 0:
            wake = _serve_active(rules, setup, state, log, s[CLOCK])
            if wake == s[CLOCK]:
                s[CLOCK] += 1
                continue
        if s[IN_FIFO] > 0:
            _serve_oldest(rules, setup, state, log, wake, limit, target)
            continue
        at = _serve_plain(rules, setup, state, log, s[CLOCK])
        s[CLOCK] = s[CLOCK] + 1 if at == s[CLOCK] else min(at, wake, limit)


@kernel
def _deliver(rules: Rules, setup: Setup, state: State, log: I8, entry: I8, clock: int) -> int:
    """Hand the requests of an instruction to a channel from a clock on; return the clock at which it has the last."""
    s = state.scalars
    _advance(rules, setup, state, log, clock, NEVER)
    command = entry[COMMAND]
    queue = setup.commands[command, QUEUE] if command >= 0 else IN_ORDER
    if queue == IN_ORDER:
        plain = s[N_READ] + s[N_WRITE]
        if plain > 0:
            _advance(rules, setup, state, log, NEVER, s[GONE] + plain)
        arrival: int = max(clock, s[CLOCK])
        _advance(rules, setup, state, log, arrival, NEVER)
        at = (s[FIFO_FIRST] + s[FIFO_COUNT]) % len(state.fifo)
        _copy(entry, state.fifo[at])
        s[FIFO_COUNT] += 1
        s[IN_FIFO] += entry[LEFT]
        if s[IN_FIFO] > setup.queue:
            # Of requests that keep their order the last never waits for more than a place.
            _advance(rules, setup, state, log, NEVER, s[GONE] + s[IN_FIFO] - setup.queue)
            arrival = max(arrival, s[LAST_GONE] + 1)
        return arrival
    for _ in range(entry[LEFT]):
        if s[IN_FIFO] > 0:
            _advance(rules, setup, state, log, NEVER, s[GONE] + s[IN_FIFO])
            _advance(rules, setup, state, log, s[LAST_GONE] + 1, NEVER)
        while s[N_READ + queue] >= setup.queues[queue]:
            _advance(rules, setup, state, log, NEVER, s[GONE] + 1)
        count = s[N_READ + queue]
        entry[ARRIVAL] = s[CLOCK]
        _copy(entry, state.lists[queue, count])
        s[N_READ + queue] = count + 1
        if entry[COLUMN] >= 0:
            entry[COLUMN] += entry[D_COLUMN]
        if entry[OPERAND] >= 0:
            entry[OPERAND] += entry[D_OPERAND]
    arrival = s[CLOCK]
    return arrival


@kernel
def _synchronise(rules: Rules, setup: Setup, state: State, log: I8) -> int:
    """Simulate a channel until the SYNC in its queue is done, and return that clock."""
    s = state.scalars
    _advance(rules, setup, state, log, NEVER, s[GONE] + s[IN_FIFO])
    done = 0
    while True:
        # It counts as data that is taken, and any later than all that is not.
        later = max(s[SYNCED] + 1, s[SYNCED_READ] + 1, s[LAST_WRITE] + 1)
        if later <= done:
            break
        done = later
        _advance(rules, setup, state, log, done, NEVER)
    s[LAST_READ] = max(s[LAST_READ], done + s[READS] - s[SYNCED_READS])
    return done


# --- all channels ------------------------------------------------------------------------------------------


@inlined
def _channel(states: State, k: int) -> State:
    return State(
        states.scalars[k], states.rows[k], states.ready[k], states.past[k], states.waits[k], states.fifo[k],
        states.lists[k], states.tally[k],
    )  # fmt: skip


@kernel
def _copy_channel(states: State, logs: I8, k: int, to: int) -> None:
    """Copy all of a channel but its tally."""
    a, b = _channel(states, k), _channel(states, to)
    _copy(a.scalars, b.scalars)
    _copy(a.rows, b.rows)
    _copy(a.waits, b.waits)
    for i in range(len(a.ready)):
        _copy(a.ready[i], b.ready[i])
    for i in range(len(a.past)):
        for node in range(a.past.shape[1]):
            _copy(a.past[i, node], b.past[i, node])
    for i in range(len(a.fifo)):
        _copy(a.fifo[i], b.fifo[i])
    for i in range(len(a.lists)):
        for at in range(a.lists.shape[1]):
            _copy(a.lists[i, at], b.lists[i, at])
    for i in range(a.scalars[LOGGED]):
        _copy(logs[k, i], logs[to, i])


@inlined
def _add(tally: I8, other: I8, sign: int) -> None:
    for i in range(len(tally)):
        tally[i] += sign * other[i]


@kernel
def _split(states: State, logs: I8, groups: I8, leader: int, mask: int) -> None:
    """Part the channels of a group that a mask has from those that it has not."""
    leaves = groups[leader] & ~mask
    if leaves & (1 << leader):
        leaves = groups[leader] & mask
    new = -1
    for k in range(len(groups)):
        if leaves & (1 << k) == 0:
            continue
        if new < 0:
            new = k
            _copy_channel(states, logs, leader, new)
        else:
            _add(states.tally[k], states.tally[new], -1)
    _add(states.tally[new], states.tally[leader], 1)
    groups[leader] &= ~leaves
    groups[new] = leaves


@kernel
def _settle(state: State, clock: int) -> None:
    """Forget what can no longer matter to an idle channel of which all clocks before this one are known."""
    s = state.scalars
    for node in range(len(state.ready)):
        for command in range(state.ready.shape[1]):
            state.ready[node, command] = max(state.ready[node, command], clock)
    for field in (LAST_READ, LAST_WRITE, FINISH):
        s[field] = max(s[field], clock - 1)
    for field in (FIFO_FIRST, GONE, LAST_GONE, READS, SYNCED, SYNCED_READ, SYNCED_READS):
        s[field] = 0
    if s[OPEN_BANKS] > 0:
        state.tally[-1] += clock - s[OPEN_SINCE]
    s[OPEN_SINCE] = clock


@inlined
def _is_idle(s: I8) -> bool:
    return bool(s[IN_FIFO] + s[N_READ] + s[N_WRITE] + s[N_ACTIVE] == 0)


@inlined
def _equal(a: I8, b: I8) -> bool:
    i = 0
    while i < len(a) and a[i] == b[i]:
        i += 1
    return i == len(a)


@kernel
def _same(a: State, b: State) -> bool:
    """Tell whether two idle and settled channels cannot be told apart."""
    if not (_equal(a.scalars, b.scalars) and _equal(a.rows, b.rows) and _equal(a.waits, b.waits)):
        return False
    for i in range(len(a.ready)):
        if not _equal(a.ready[i], b.ready[i]):
            return False
    for i in range(len(a.past)):
        for node in range(a.past.shape[1]):
            if not _equal(a.past[i, node], b.past[i, node]):
                return False
    return True


@kernel
def _merge(rules: Rules, setup: Setup, states: State, logs: I8, groups: I8, clock: int) -> None:
    """Make one group of those that can no longer be told apart at a clock before which nothing more comes."""
    for k in range(len(groups)):
        state = _channel(states, k)
        if groups[k] == 0:
            continue
        _advance(rules, setup, state, logs[k], clock, NEVER)
        if not _is_idle(state.scalars):
            continue
        _settle(state, clock)
        for j in range(k):
            other = _channel(states, j)
            if groups[j] == 0 or not _is_idle(other.scalars) or not _same(state, other):
                continue
            _add(state.tally, other.tally, -1)
            for i in range(k + 1, len(groups)):
                if groups[k] & (1 << i):
                    _add(states.tally[i], state.tally, 1)
            groups[j] |= groups[k]
            groups[k] = 0
            break


@kernel
def run(
    rules: Rules, setup: Setup, states: State, groups: I8, logs: I8, entry: I8, channels: I8,
    command: I4, times: I4, node: I4, row: I4, column: I4, d_column: I4, operand: I4, d_operand: I4,
    start: int,
) -> int:  # fmt: skip
    """Run a stream from a clock on, and return the clock at which its last SYNC is done.

    groups: i8[channels]  mask of the channels that a channel leads. The tally of one that does not lead is what it has
    more than its leader; entry: i8[ENTRY] to work with; logs: i8[channels, n, 6]; channels ... d_operand: the fields
    of `Stream`
    """
    clock = start + 1
    for k in range(len(groups)):
        if groups[k]:
            state = _channel(states, k)
            _advance(rules, setup, state, logs[k], clock, NEVER)
            state.scalars[AFTER_REFRESH] *= state.scalars[LAST_COMMAND] >= start
            state.scalars[LAST_COMMAND] = max(state.scalars[LAST_COMMAND], start)
            # Nobody waited for what refresh did between the runs.
            kinds = len(setup.commands)
            state.tally[kinds : 2 * kinds] = 0
    for i in range(len(command)):
        what = command[i]
        if what == REGISTER:
            clock += setup.is_paced
            continue
        is_sync = what in (SYNC, END)
        waits = is_sync or (what >= 0 and setup.commands[what, BLOCKS] != 0)
        mask = -1 if is_sync else channels[i]
        latest = 0
        for k in range(len(groups)):
            if groups[k] & mask == 0:
                continue
            if groups[k] & ~mask:
                # The new group's leader comes later.
                _split(states, logs, groups, k, mask)
                if groups[k] & mask == 0:
                    continue
            entry[COMMAND] = SYNC if is_sync else what
            entry[LEFT] = times[i]
            entry[NODE] = node[i]
            entry[ROW] = row[i]
            entry[COLUMN] = column[i]
            entry[D_COLUMN] = d_column[i]
            entry[OPERAND] = operand[i]
            entry[D_OPERAND] = d_operand[i]
            latest = max(latest, _deliver(rules, setup, _channel(states, k), logs[k], entry, clock))
        if waits:
            for k in range(len(groups)):
                if groups[k] & mask == 0:
                    continue
                state = _channel(states, k)
                if is_sync:
                    latest = max(latest, _synchronise(rules, setup, state, logs[k]))
                else:
                    _advance(
                        rules, setup, state, logs[k], NEVER, state.scalars[GONE] + state.scalars[IN_FIFO]
                    )
                    latest = max(latest, state.scalars[LAST_READ])
        if waits or setup.is_paced:
            clock = latest + 1
        if waits and logs.shape[1] == 0:
            _merge(rules, setup, states, logs, groups, clock)
    for k in range(len(groups)):
        if groups[k]:
            state = _channel(states, k)
            _advance(rules, setup, state, logs[k], clock, NEVER)
            _settle(state, clock)
    return clock - 1


class InOrder:
    """The channels of a device; see `bench.Channels`.

    The first clock of a run is start + 1: the front end's first instruction, and a command in the same clock.
    """

    def __init__(self, device: Device) -> None:
        """Idle channels with all banks closed. Raises InputError for a row that the controller could not open."""
        dram = device.dram
        self.commands = tuple(dram.commands)
        self.channels = dram.channels
        self.rules = compile_rules(dram, lifted=True)
        self.setup = _setup(device, self.rules)
        self._states = _fresh(self.rules, self.setup, self.channels)
        self._groups = np.zeros(self.channels, np.int64)
        self._groups[0] = np.uint64((1 << self.channels) - 1).astype(np.int64)
        self._clock = 0

    def run(self, stream: Stream, start: int, log: bool) -> Issued:
        """See `bench.Channels`. Counts include what refresh has done since the run before.

        Raises ValueError for a stream that is not this device's, has no END, or begins before the last one ends.
        """
        if stream.commands != self.commands or not len(stream) or stream.command[-1] != END:
            raise ValueError("a stream must be of the same device and end with END")
        if int(stream.channels.max()) >> self.channels:
            raise ValueError(f"a stream addresses channels beyond the device's {self.channels}")
        if start < self._clock:
            raise ValueError(f"a run cannot start at {start}: the last one ended at {self._clock}")
        states, groups = self._states, self._groups
        states.tally[:] = 0
        states.scalars[:, LOGGED] = 0
        logs = np.empty((self.channels, 0, 6), np.int64)
        if log:
            # Once for how long the log will be.
            trial, parted = State(*(field.copy() for field in states)), groups.copy()
            self._run(trial, parted, logs, stream, start)
            issued = _totals(trial.tally, _leaders(parted))[:, : len(self.commands)]
            longest = int(issued.sum(axis=1).max())
            logs = np.empty((self.channels, longest, 6), np.int64)
        end = self._run(states, groups, logs, stream, start)
        self._clock = end
        kinds, leaders = len(self.commands), _leaders(groups)
        tally = _totals(states.tally, leaders)
        logged = [logs[k, : states.scalars[k, LOGGED]] for k in leaders] if log else None
        return Issued(start, end, tally[:, :kinds], tally[:, kinds:-1], tally[:, -1], logged)

    def _run(self, states: State, groups: I8, logs: I8, stream: Stream, start: int) -> int:
        return int(
            run(
                self.rules, self.setup, states, groups, logs, np.zeros(ENTRY, np.int64),
                stream.channels.view(np.int64), stream.command, stream.times, stream.node, stream.row,
                stream.column, stream.d_column, stream.operand, stream.d_operand, start,
            )
        )  # fmt: skip


def _leaders(groups: I8) -> I8:
    """Return the leader of each channel."""
    members = groups[:, None] >> np.arange(len(groups)) & 1
    leaders: I8 = members.argmax(axis=0)
    return leaders


def _totals(tally: I8, leaders: I8) -> I8:
    """Return the tallies of all channels."""
    own = leaders == np.arange(len(leaders))
    return np.where(own[:, None], tally, tally + tally[leaders])


def _setup(device: Device, rules: Rules) -> Setup:
    dram, controller = device.dram, device.controller
    ids = {name: i for i, name in enumerate(dram.commands)}
    symbols = dram.symbols({})
    plain = {"read": READ, "write": WRITE} if controller.reordering else {}
    commands = np.zeros((len(ids), KIND), np.int64)
    for name, c in dram.commands.items():
        row = commands[ids[name]]
        row[EFFECT] = {"open": OPENING, "close": CLOSING}.get(c.bank, 0)
        row[OPENS] = c.needs == "open"
        row[ROW_ACTIVATE], row[ROW_PRECHARGE] = (
            _row_command(device, name, meaning) if c.needs == "open" else -1
            for meaning in ("activate", "precharge")
        )
        row[OTHER_MODE] = controller.modes is not None and name in controller.modes.other
        row[QUEUE] = plain.get(c.meaning, IN_ORDER) if c.target == "bank" else IN_ORDER
        row[BLOCKS] = name in controller.blocking
        row[IS_READ] = row[BLOCKS] or row[QUEUE] == READ
        row[DURATION] = evaluate(c.duration, symbols)
        row[GAP] = _gap(rules, ids[name]) if c.bank == "none" else 0
    scope = dram.refresh_level or "channel"
    is_refreshed = dram.refresh.policy == "all_bank"
    reordering = controller.reordering
    return Setup(
        commands=commands,
        switch=ids[controller.modes.switch] if controller.modes else -1,
        queue=controller.queue,
        queues=np.array([reordering.read_queue, reordering.write_queue] if reordering else [0, 0]),
        drain_from=reordering.drain_from if reordering else 0,
        drain_to=reordering.drain_to if reordering else 0,
        interval=dram.timing["nREFI"] if is_refreshed else 0,
        refresh=ids[dram.find("refresh", scope) or ""] if is_refreshed else -1,
        precharge=ids[dram.find("precharge", scope) or dram.find("precharge", "bank") or ""]
        if is_refreshed
        else -1,
        refreshed=np.arange(dram.nodes(scope)),
        is_paced=int(controller.front_end == "instructions"),
    )


def _row_command(device: Device, name: str, meaning: str) -> int:
    """Return the id of the command that changes rows for another: of the same level or the next below that has one.

    Where banks can follow in lock step, it is one that they follow just as they do the other.
    """
    dram = device.dram
    wanted = dram.commands[name]
    for target in LEVELS[LEVELS.index(wanted.target) :]:
        for i, c in enumerate(dram.commands.values()):
            if (c.meaning, c.target, c.lockstep) == (meaning, target, wanted.lockstep):
                return i
    raise InputError(
        f"{device.name}: dram.commands.{name}: needs an open row, but no command of the meaning {meaning!r} "
        f"addresses a {dram.commands[name].target} or what is below it"
    )


def _gap(rules: Rules, command: int) -> int:
    """Return the clocks between two of a command on one node, 0 if more than the last one counts."""
    if (rules.windows[rules.window_start[command] : rules.window_start[command + 1], 1] == command).any():
        return 0
    rows = rules.rows[rules.row_start[command] : rules.row_start[command + 1]]
    return max(1, int(rows[(rows[:, 1] == command) & (rows[:, 3] == 0), 2].max(initial=1)))


def _fresh(rules: Rules, setup: Setup, channels: int) -> State:
    """Return the state of idle channels with all banks closed."""
    ready, past = rules.state
    places = max(1, *setup.queues, len(rules.path))
    state = State(
        scalars=np.zeros((channels, SCALARS), np.int64),
        rows=np.full((channels, len(rules.path)), CLOSED, np.int64),
        ready=np.zeros((channels, *ready.shape), np.int64),
        past=np.zeros((channels, *past.shape), np.int64),
        waits=np.zeros((channels, len(setup.refreshed)), np.int64),
        fifo=np.zeros((channels, setup.queue + 2, ENTRY), np.int64),
        lists=np.zeros((channels, 3, places, ENTRY), np.int64),
        tally=np.zeros((channels, 2 * len(setup.commands) + 1), np.int64),
    )
    state.scalars[:, DUE] = setup.interval // max(1, len(setup.refreshed))
    state.scalars[:, CLOCK] = 1
    return state
