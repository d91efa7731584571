"""A controller that gives the bus to the oldest request whose next command may issue: Ramulator 2.1's behaviour.

The rules are those of the DRAM reference data, README section 4. The kernel looks at a clock only if something may
happen in it: a request arrives, a refresh falls due, or a command that waits may issue. In each queue at most two
requests to a bank can be next, its candidates. Each candidate has a lower bound of the clock of its next command;
whatever changes its bank resets that.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.expression import evaluate
from pimloom.arch.memory import Memory
from pimloom.arch.rules import Rules, compile_rules
from pimloom.sim.controller import ENDED, FULL, MORE, Batch, Outcome, StuckError
from pimloom.sim.jit import inlined, kernel
from pimloom.sim.timing import ready_at, ready_at_node, stamp, stamp_node

I8 = npt.NDArray[np.int64]

NEVER = 1 << 61
MOST_DUE = 1568
"""Refreshes that may wait; Ramulator's."""

STUCK, PILED = 3, 4
"""Why the kernel returns, beside MORE, FULL (also where the list of long latencies is full) and ENDED: nothing can
ever happen, or nothing for PATIENCE clocks but refreshes; more refreshes are due than their queue holds."""
PATIENCE = 1 << 22

READS, WRITES, ACTIVE = range(3)
"""Where a request waits: in one of the queues, or, once its row has been opened for it, at its bank."""

BANK, ROW, COLUMN, KEY, ARRIVAL, WRITE, SEEN, NEXT_OF_BANK = range(8)
"""Fields of a request. KEY: number of its access in the memory; SEEN: a command has issued for it; NEXT_OF_BANK: the
next younger request of the same queue to the same bank, or -1."""

OPEN, HOLDER, FIRST, LAST = 0, 1, 2, 4
"""Fields of a bank: its row, CLOSED or OPENING; the request in ACTIVE that it is open for, or -1; for each queue, its
oldest and its youngest request, or -1."""
CLOSED, OPENING = -1, -2

HIT, OTHER = range(2)
"""Candidates of a bank in each queue: its oldest request to the open row, its oldest one to another row. All
requests to a bank that need the same command may have it at the same clock, so no younger one can go first. The
candidates of all banks stand in rows: hits and others of the reads, those of the writes, then the holders."""

SHARED, ROW_AND_COLUMN, HALF_CLOCK = range(3)
ANY, COLUMNS, ROWS, PRECHARGES = range(4)
"""Commands that a slot takes."""

NO_REFRESH, ALL_BANK, PER_BANK, PER_BANK_SET = range(4)


class Setup(NamedTuple):
    """What does not change in a run."""

    bus: int  # SHARED, ROW_AND_COLUMN or HALF_CLOCK
    row_hit: int  # whether no row is closed that an older request wants
    reads: int  # entries of the read queue
    writes: int  # entries of the write queue
    high: float  # entries of the write queue above which writes take over
    low: float  # entries of the write queue below which they give way
    act: int  # command that opens a row, or its first half
    act2: int  # second half, -1 = an activate is one command
    pre: int
    rd: int
    wr: int
    sync_rd: int  # starts the data clock for a read, -1 = it always runs
    sync_wr: int
    pre_all: int
    ref: int  # all-bank or per-bank refresh, by the policy
    closes: int  # whether reads and writes close their bank
    read_done: int  # clocks from RD to the end of its data
    write_done: int
    split: int  # clocks in which the second half of an activate must follow the first
    linger: int  # clocks that the data clock runs on after data
    refresh: int  # NO_REFRESH, ALL_BANK, PER_BANK or PER_BANK_SET
    interval: int  # clocks from one refresh to the next
    rest: int  # clocks between two rounds of a stack ID of PER_BANK_SET
    scopes: I8  # i8[S]  nodes that all-bank commands address
    pseudochannel_of: I8  # i8[B]  of a bank
    rank_of: I8  # i8[B]  pseudo-channel and rank of a bank, as one number
    sets: I8  # i8[3]  pseudo-channels, stack IDs per pseudo-channel, banks per stack ID


class State(NamedTuple):
    """What changes in a run. B banks; P places for requests."""

    scalars: I8  # i8[SCALARS]
    slots: I8  # i8[P, 8]   requests; NEXT_OF_BANK links the free places, too
    banks: I8  # i8[B, 6]
    who: I8  # i8[5 * B]  candidates, -1 = none
    when: I8  # i8[5 * B]  clock before which the command of a live candidate cannot issue
    soonest: I8  # i8[5]      the same for all candidates of a row
    live: I8  # i8[5, B]   banks whose candidate may have its command before its bank changes, oldest first
    live_count: I8  # i8[5]
    age: I8  # i8[5 * B]  arrival of a candidate that is live, -1 = it is not
    due: I8  # i8[D]      ring of due refreshes: nodes or banks
    rounds: I8  # i8[S]      clock at which the last bank of each stack ID was due
    ready: I8  # see Rules.state
    past: I8
    open_banks: I8  # i8[ranks, 3]  open banks, clock of the first opening, clocks with an open bank so far
    counts: I8  # i8[C]      commands issued
    latencies: I8  # i8[X]      reads by latency in clocks
    late: I8  # i8[Y]      latencies beyond that


(CLOCK, NEXT, DRAINING, LAST_DATA, FREE, DUE_FIRST, DUE_COUNT, TICK, BASE, TURN, STAGE, N_READS, N_WRITES,
 EDGE, EDGE_BANK, EDGE_ALL, SYNCED, SYNC_UNTIL, HALF, DEADLINE, LATE, LOGGED, LAST_COMMAND,
 HITS, MISSES, CONFLICTS, FORWARDED, MERGED, ACCEPTED, READ, PROGRESS, WAKE, SCALARS) = range(33)  # fmt: skip
"""Scalars of the state.

CLOCK: loop iteration, whose commands carry this + 1; NEXT: next request of the batch; DRAINING: writes have the
bus; LAST_DATA: end of the last data of a read; FREE: first of the free places; DUE_...: of the ring of
refreshes; TICK: clock of the next refresh, BASE: the multiple of the interval that it belongs to, TURN: bank or
set that it is for, STAGE: pseudo-channels of the set that have theirs; N_...: lengths of the queues; EDGE...: the
half clock at which a precharge may not follow the last row command, and where; SYNCED: request whose data clock
was started, or -1; SYNC_UNTIL: clock at which the data clock stops; HALF: request whose row is half open, or -1,
and its DEADLINE; PROGRESS: clock of the last command for a request, or its acceptance; WAKE: earliest clock at
which something that waits may happen."""


@kernel
def run(rules: Rules, setup: Setup, state: State, batch: Batch, is_last: bool, log: I8) -> int:
    """Go on with a run until it ends or needs something, and return why (MORE ...).

    batch: of which scalars[NEXT] requests have been taken; is_last: no batch follows; log: i8[m, 5]  gets clock,
    command, flat bank or node of its level, row, column of the commands from scalars[LOGGED] on.
    """
    s = state.scalars
    cycle, write, key, bank, row, column = batch
    n = len(cycle)
    while True:
        if s[LOGGED] + 2 > len(log) or s[LATE] + 2 > len(state.late):
            return FULL
        c = s[CLOCK]
        t = c + 1
        i = s[NEXT]
        waiting = s[N_READS] + s[N_WRITES] + state.live_count[2 * ACTIVE]
        is_idle = waiting == 0 and s[HALF] < 0
        if i == n:
            if not is_last:
                return MORE
            if is_idle and c > 0 and c >= s[LAST_DATA]:
                return ENDED
        if not is_idle and t - s[PROGRESS] > PATIENCE:
            return STUCK
        happened = False
        wake = NEVER
        if i < n:
            if cycle[i] > c:
                wake = cycle[i] + 1
            elif _accept(setup, state, c, write[i], key[i], bank[i], row[i], column[i]):
                s[NEXT] = i + 1
                s[PROGRESS] = t
                happened = True
        if setup.refresh != NO_REFRESH and t >= s[TICK]:
            if not _fall_due(setup, state, t):
                return PILED
            happened = True

        rises = setup.bus != HALF_CLOCK or t & 1
        for turn in range(1 if setup.bus == SHARED else 2):
            kind = ANY
            if setup.bus != SHARED:
                kind = COLUMNS if turn == 0 else ROWS if rises else PRECHARGES
                if kind == COLUMNS and not rises:
                    # All but precharges waits for the rising edge.
                    wake = t + 1
                    continue
            s[WAKE] = wake
            issued = False
            if (s[SYNCED] >= 0 or s[HALF] >= 0) and _go_on(setup, rules, state, log, t):
                happened |= s[LAST_COMMAND] == t
                wake = s[WAKE]
                continue
            which, chosen = ACTIVE, -1
            # The holders first, but a slot for row commands has nothing for them.
            for source in range(turn, 2):
                if source == 1:
                    if s[DUE_COUNT] > 0:
                        issued = _refresh(setup, rules, state, log, kind, t)
                        break
                    which = _queue(setup, s)
                first = 2 * which
                last = first + 1 if which == ACTIVE or kind == COLUMNS else first + 2
                if which != ACTIVE and kind >= ROWS:
                    first += 1
                chosen = _choose(rules, setup, state, first, last, kind, t)
                if chosen >= 0:
                    break
            if chosen >= 0:
                if setup.sync_rd < 0 or _is_synced(setup, state, chosen, t):
                    _serve(setup, rules, state, log, which == ACTIVE, chosen, t)
                    issued = True
                else:
                    issued = _sync(setup, rules, state, log, chosen, t)
            elif s[HALF] >= 0 and not issued:
                issued = _open_now(setup, rules, state, log, t)
            happened |= issued
            wake = s[WAKE]

        if happened:
            s[CLOCK] = t
            continue
        if is_idle and i == n:
            wake = min(wake, max(t + 1, s[LAST_DATA]))
        if setup.refresh != NO_REFRESH:
            # A request that nothing will ever serve does not wait for refreshes alone.
            if wake == NEVER and s[DUE_COUNT] == 0:
                return STUCK
            wake = min(wake, s[TICK])
        if wake == NEVER:
            return STUCK
        s[CLOCK] = max(wake - 1, t)


@inlined
def _accept(
    setup: Setup, state: State, c: int, write: int, key: int, bank: int, row: int, column: int
) -> bool:
    """Take a request in, if there is room or need not be."""
    s, slots, banks = state.scalars, state.slots, state.banks
    slot = banks[bank, FIRST + WRITES]
    while slot >= 0 and slots[slot, KEY] != key:
        slot = slots[slot, NEXT_OF_BANK]
    count = s[N_READS + write]
    taken = True
    if slot >= 0 and write:
        s[MERGED] += 1
    elif slot >= 0:
        s[FORWARDED] += 1
        s[LAST_DATA] = max(s[LAST_DATA], c + 1)
        _note_latency(state, 1)
    elif count == (setup.writes if write else setup.reads):
        taken = False
    else:
        slot = s[FREE]
        s[FREE] = slots[slot, NEXT_OF_BANK]
        slots[slot, BANK] = bank
        slots[slot, ROW] = row
        slots[slot, COLUMN] = column
        slots[slot, KEY] = key
        slots[slot, ARRIVAL] = c
        slots[slot, WRITE] = write
        slots[slot, SEEN] = 0
        slots[slot, NEXT_OF_BANK] = -1
        s[N_READS + write] = count + 1
        if banks[bank, FIRST + write] < 0:
            banks[bank, FIRST + write] = slot
        else:
            slots[banks[bank, LAST + write], NEXT_OF_BANK] = slot
        banks[bank, LAST + write] = slot
        place = (2 * write + (OTHER if row != banks[bank, OPEN] else HIT)) * len(banks) + bank
        if state.who[place] < 0:
            state.who[place] = slot
            _wait(setup, state, write, bank)
    if taken:
        s[ACCEPTED] += 1
    return taken


@inlined
def _note_latency(state: State, latency: int) -> None:
    s = state.scalars
    s[READ] += 1
    if latency < len(state.latencies):
        state.latencies[latency] += 1
    else:
        state.late[s[LATE]] = latency
        s[LATE] += 1


@inlined
def _wait(setup: Setup, state: State, queue: int, bank: int) -> None:
    """Say from when on the candidates of a queue for a bank are worth a look: now, or not before it changes."""
    who = state.who
    hit = 2 * queue * len(state.banks) + bank
    other = hit + len(state.banks)
    # A row that its first access closes is for the request that it was opened for.
    _expect(state, 2 * queue + HIT, bank, who[hit] >= 0 and not setup.closes)
    row = state.banks[bank, OPEN]
    is_possible = False
    if who[other] >= 0:
        if row == CLOSED:
            is_possible = True
        elif row != OPENING and state.banks[bank, HOLDER] < 0:
            older = state.slots[who[other], ARRIVAL]
            if not setup.row_hit or who[hit] < 0 or state.slots[who[hit], ARRIVAL] > older:
                is_possible = True
    _expect(state, 2 * queue + OTHER, bank, is_possible)


@inlined
def _expect(state: State, row: int, bank: int, is_possible: bool) -> None:
    """Give the candidate of a bank its place in a row, the older before the younger, or take it out."""
    live, age = state.live[row], state.age
    first = row * len(state.banks)
    k = first + bank
    arrival = state.slots[state.who[k], ARRIVAL] if is_possible else -1
    if is_possible:
        state.when[k] = state.soonest[row] = 0
    if age[k] == arrival:
        return
    count = state.live_count[row]
    if age[k] >= 0:
        count -= 1
        i = 0
        while live[i] != bank:
            i += 1
        for j in range(i, count):
            live[j] = live[j + 1]
    age[k] = arrival
    if is_possible:
        i = count
        while i > 0 and age[first + live[i - 1]] > arrival:
            live[i] = live[i - 1]
            i -= 1
        live[i] = bank
        count += 1
    state.live_count[row] = count


@inlined
def _rank(setup: Setup, state: State, queue: int, bank: int) -> None:
    """Find the candidates of a queue for a bank."""
    row = state.banks[bank, OPEN]
    hit = other = -1
    slot = state.banks[bank, FIRST + queue]
    while slot >= 0 and (hit < 0 or other < 0):
        if state.slots[slot, ROW] == row:
            if hit < 0:
                hit = slot
        elif other < 0:
            other = slot
        slot = state.slots[slot, NEXT_OF_BANK]
    place = 2 * queue * len(state.banks) + bank
    state.who[place] = hit
    state.who[place + len(state.banks)] = other
    _wait(setup, state, queue, bank)


@kernel
def _fall_due(setup: Setup, state: State, t: int) -> bool:
    """Put the refreshes that fall due into their queue; tell whether it has room."""
    s = state.scalars
    capacity = len(state.due)
    if s[DUE_COUNT] + len(setup.scopes) > capacity:
        return False
    if setup.refresh == ALL_BANK:
        for node in setup.scopes:
            state.due[(s[DUE_FIRST] + s[DUE_COUNT]) % capacity] = node
            s[DUE_COUNT] += 1
        s[TICK] += setup.interval
        return True
    at = (s[DUE_FIRST] + s[DUE_COUNT]) % capacity
    if setup.refresh == PER_BANK:
        state.due[at] = s[TURN]
        s[DUE_COUNT] += 1
        s[TURN] = (s[TURN] + 1) % len(setup.rank_of)
        s[TICK] += setup.interval
        return True
    channels, stacks, banks = setup.sets[0], setup.sets[1], setup.sets[2]
    stack, bank = s[TURN] // banks, s[TURN] % banks
    rested = state.rounds[stack] + setup.rest
    if bank == 0 and s[STAGE] == 0 and t < rested:
        s[TICK] = s[BASE] = rested
        return True
    state.due[at] = (s[STAGE] * stacks + stack) * banks + bank
    s[DUE_COUNT] += 1
    if bank == banks - 1 and s[STAGE] == channels - 1:
        state.rounds[stack] = t
    s[STAGE] += 1
    s[TICK] = t + 1
    if s[STAGE] == channels:
        s[STAGE] = 0
        s[TURN] = (s[TURN] + 1) % (stacks * banks)
        s[BASE] += setup.interval
        s[TICK] = max(s[BASE], t + 1)
    return True


@inlined
def _queue(setup: Setup, s: I8) -> int:
    """Return the queue that has the bus, after looking whether it should change."""
    if s[DRAINING] == 0:
        s[DRAINING] = s[N_WRITES] > setup.high or s[N_READS] == 0
    elif s[N_WRITES] < setup.low and s[N_READS] != 0:
        s[DRAINING] = 0
    return WRITES if s[DRAINING] else READS


@inlined
def _choose(rules: Rules, setup: Setup, state: State, first: int, last: int, kind: int, t: int) -> int:
    """Return the oldest of the candidates in some rows whose command may issue now, or -1."""
    s, slots, when = state.scalars, state.slots, state.when
    best, oldest = -1, NEVER
    wake = s[WAKE]
    for r in range(first, last):
        if state.soonest[r] > t:
            wake = min(wake, state.soonest[r])
            continue
        soonest = NEVER
        for j in range(state.live_count[r]):
            bank = state.live[r, j]
            k = r * len(state.banks) + bank
            if state.age[k] > oldest:
                soonest = 0
                break
            clock = when[k]
            if clock <= t:
                slot = state.who[k]
                row = state.banks[bank, OPEN]
                command = setup.wr if slots[slot, WRITE] else setup.rd
                if row == CLOSED:
                    command = setup.act
                elif row != slots[slot, ROW]:
                    command = setup.pre
                clock = ready_at(rules, state.ready, command, bank)
                is_late = kind == PRECHARGES and command != setup.pre
                if command == setup.pre and t == s[EDGE] and _is_on_edge(setup, s, bank, False):
                    is_late = True
                if clock <= t and is_late:
                    clock = t + 1
                when[k] = clock
                # Only one row at a time can be half open.
                if clock <= t and (s[HALF] < 0 or command != setup.act):
                    best, oldest = slot, state.age[k]
                    soonest = 0
                    break
            soonest = min(soonest, clock)
        state.soonest[r] = soonest
        if soonest > t:
            wake = min(wake, soonest)
    s[WAKE] = wake
    return best


@kernel
def _is_on_edge(setup: Setup, s: I8, bank: int, is_all: bool) -> bool:
    """Tell whether the row command before forbids a precharge at this half clock."""
    if setup.pseudochannel_of[bank] != setup.pseudochannel_of[s[EDGE_BANK]]:
        return False
    return is_all or s[EDGE_ALL] == 1 or s[EDGE_BANK] == bank


@inlined
def _write_log(state: State, log: I8, t: int, command: int, address: int, row: int, column: int) -> None:
    s = state.scalars
    at = s[LOGGED]
    log[at, 0] = t
    log[at, 1] = command
    log[at, 2] = address
    log[at, 3] = row
    log[at, 4] = column
    s[LOGGED] = at + 1
    s[LAST_COMMAND] = t
    state.counts[command] += 1


@inlined
def _serve(setup: Setup, rules: Rules, state: State, log: I8, is_held: bool, slot: int, t: int) -> None:
    """Issue the command that a request needs; is_held: its row has been opened for it."""
    s, slots, banks = state.scalars, state.slots, state.banks
    bank, row = slots[slot, BANK], slots[slot, ROW]
    is_open = banks[bank, OPEN]
    queue = slots[slot, WRITE]
    s[PROGRESS] = t
    column = -1
    if is_open == row:
        command, place = (setup.wr if queue else setup.rd), HITS
        column = slots[slot, COLUMN]
    elif is_open == CLOSED:
        command, place = setup.act, MISSES
    else:
        command, place = setup.pre, CONFLICTS
    if slots[slot, SEEN] == 0:
        slots[slot, SEEN] = 1
        s[place] += 1
    stamp(rules, state.ready, state.past, command, bank, t)
    _write_log(state, log, t, command, bank, -1 if command == setup.pre else row, column)

    if is_open not in (row, CLOSED):
        _close(setup, state, bank, t)
    else:
        if not is_held:
            _leave(state, queue, slot)
        if is_open == row:
            _finish(setup, state, slot, t)
        else:
            _open(setup, state, slot, t)
    _rank(setup, state, READS, bank)
    _rank(setup, state, WRITES, bank)
    if setup.bus == HALF_CLOCK and is_open != row:
        _note_edge(s, t + 3 if is_open == CLOSED else t + 1, bank, False, t)


@kernel
def _note_edge(s: I8, edge: int, bank: int, is_all: bool, t: int) -> None:
    """Remember a row command, if it was one of the rising edge."""
    if t & 1:
        s[EDGE] = edge
        s[EDGE_BANK] = bank
        s[EDGE_ALL] = is_all


@inlined
def _leave(state: State, queue: int, slot: int) -> None:
    """Take a request out of its queue."""
    slots, banks = state.slots, state.banks
    bank = slots[slot, BANK]
    after = slots[slot, NEXT_OF_BANK]
    before = banks[bank, FIRST + queue]
    if before == slot:
        banks[bank, FIRST + queue] = after
        before = -1
    else:
        while slots[before, NEXT_OF_BANK] != slot:
            before = slots[before, NEXT_OF_BANK]
        slots[before, NEXT_OF_BANK] = after
    if after < 0:
        banks[bank, LAST + queue] = before
    state.scalars[N_READS + queue] -= 1


@inlined
def _open(setup: Setup, state: State, slot: int, t: int) -> None:
    """Open the row of a request, or begin to."""
    s = state.scalars
    bank = state.slots[slot, BANK]
    rank = setup.rank_of[bank]
    if state.open_banks[rank, 0] == 0:
        state.open_banks[rank, 1] = t
    state.open_banks[rank, 0] += 1
    if setup.act2 < 0:
        _hold(state, slot)
    else:
        state.banks[bank, OPEN] = OPENING
        s[HALF] = slot
        s[DEADLINE] = t + setup.split


@inlined
def _hold(state: State, slot: int) -> None:
    """Keep a row open until the request that it was opened for has been served."""
    bank = state.slots[slot, BANK]
    state.banks[bank, OPEN] = state.slots[slot, ROW]
    state.banks[bank, HOLDER] = slot
    state.who[2 * ACTIVE * len(state.banks) + bank] = slot
    _expect(state, 2 * ACTIVE, bank, True)


@inlined
def _close(setup: Setup, state: State, bank: int, t: int) -> None:
    state.banks[bank, OPEN] = CLOSED
    rank = setup.rank_of[bank]
    state.open_banks[rank, 0] -= 1
    if state.open_banks[rank, 0] == 0:
        state.open_banks[rank, 2] += t - state.open_banks[rank, 1]


@inlined
def _finish(setup: Setup, state: State, slot: int, t: int) -> None:
    """Be done with a request whose access issues."""
    s, slots = state.scalars, state.slots
    bank = slots[slot, BANK]
    done = t + (setup.write_done if slots[slot, WRITE] else setup.read_done)
    if not slots[slot, WRITE]:
        s[LAST_DATA] = max(s[LAST_DATA], done)
        _note_latency(state, done - slots[slot, ARRIVAL])
    s[SYNC_UNTIL] = max(s[SYNC_UNTIL], done + setup.linger)
    slots[slot, NEXT_OF_BANK] = s[FREE]
    s[FREE] = slot
    if state.banks[bank, HOLDER] == slot:
        state.banks[bank, HOLDER] = -1
        state.who[2 * ACTIVE * len(state.banks) + bank] = -1
        _expect(state, 2 * ACTIVE, bank, False)
    if setup.closes:
        _close(setup, state, bank, t)


@kernel
def _refresh(setup: Setup, rules: Rules, state: State, log: I8, kind: int, t: int) -> bool:
    """Bring the refresh that is due first one command further, if it may go there now."""
    s = state.scalars
    if kind == COLUMNS:
        return False
    at = s[DUE_FIRST]
    target = state.due[at]
    is_all = setup.refresh == ALL_BANK
    begin, end = target, target + 1
    if is_all:
        begin, end = rules.under[target, 0], rules.under[target, 1]
    is_open = False
    for bank in range(begin, end):
        is_open |= state.banks[bank, OPEN] != CLOSED
        if state.banks[bank, HOLDER] >= 0 or state.banks[bank, OPEN] == OPENING:
            return False
    command = (setup.pre_all if is_all else setup.pre) if is_open else setup.ref
    if is_all:
        clock = ready_at_node(rules, state.ready, command, target)
    else:
        clock = ready_at(rules, state.ready, command, target)
    is_late = kind == PRECHARGES and not is_open
    if clock <= t and (is_late or (is_open and t == s[EDGE] and _is_on_edge(setup, s, begin, is_all))):
        clock = t + 1
    if clock > t:
        s[WAKE] = min(s[WAKE], clock)
        return False
    if is_all:
        stamp_node(rules, state.ready, state.past, command, target, t)
        _write_log(state, log, t, command, target - rules.first[rules.place[command]], -1, -1)
    else:
        stamp(rules, state.ready, state.past, command, target, t)
        _write_log(state, log, t, command, target, -1, -1)
    if setup.bus == HALF_CLOCK:
        _note_edge(s, t + 1, begin, is_all, t)
    if is_open:
        for bank in range(begin, end):
            if state.banks[bank, OPEN] != CLOSED:
                _close(setup, state, bank, t)
                _rank(setup, state, READS, bank)
                _rank(setup, state, WRITES, bank)
    else:
        s[DUE_FIRST] = (at + 1) % len(state.due)
        s[DUE_COUNT] -= 1
    return True


# --- split activates and a data clock that must be started ------------------------------------------------


@kernel
def _go_on(setup: Setup, rules: Rules, state: State, log: I8, t: int) -> bool:
    """Do what has been begun and comes before all else; tell whether that takes the clock."""
    s = state.scalars
    if s[SYNCED] < 0:
        return s[HALF] >= 0 and s[DEADLINE] <= t and _open_now(setup, rules, state, log, t)
    slot = s[SYNCED]
    command = setup.wr if state.slots[slot, WRITE] else setup.rd
    bank = state.slots[slot, BANK]
    clock = ready_at(rules, state.ready, command, bank)
    if clock > t:
        s[WAKE] = min(s[WAKE], clock)
        return True
    s[SYNCED] = -1
    _serve(setup, rules, state, log, state.banks[bank, HOLDER] == slot, slot, t)
    return True


@kernel
def _is_synced(setup: Setup, state: State, slot: int, t: int) -> bool:
    """Tell whether the command of a request needs no data clock, or that runs."""
    bank = state.slots[slot, BANK]
    return bool(state.banks[bank, OPEN] != state.slots[slot, ROW] or t < state.scalars[SYNC_UNTIL])


@kernel
def _sync(setup: Setup, rules: Rules, state: State, log: I8, slot: int, t: int) -> bool:
    """Start the data clock for a request, unless half an activate is more urgent; tell whether a command issued."""
    s = state.scalars
    if s[HALF] >= 0 and s[DEADLINE] <= t + 1 and _open_now(setup, rules, state, log, t):
        return True
    bank = state.slots[slot, BANK]
    command = setup.sync_wr if state.slots[slot, WRITE] else setup.sync_rd
    if ready_at(rules, state.ready, command, bank) > t:
        # Nothing else may go before it, but at the next clock another request may be the one to choose.
        s[WAKE] = t + 1
        return False
    stamp(rules, state.ready, state.past, command, bank, t)
    _write_log(state, log, t, command, bank, -1, -1)
    s[SYNCED] = slot
    return True


@kernel
def _open_now(setup: Setup, rules: Rules, state: State, log: I8, t: int) -> bool:
    """Issue the second half of an activate if it may."""
    s = state.scalars
    clock = ready_at(rules, state.ready, setup.act2, state.slots[s[HALF], BANK])
    if clock > t:
        s[WAKE] = min(s[WAKE], clock)
        return False
    slot = s[HALF]
    bank = state.slots[slot, BANK]
    stamp(rules, state.ready, state.past, setup.act2, bank, t)
    _write_log(state, log, t, setup.act2, bank, state.slots[slot, ROW], -1)
    s[HALF] = -1
    _hold(state, slot)
    _rank(setup, state, READS, bank)
    _rank(setup, state, WRITES, bank)
    return True


# --- the beginning ------------------------------------------------------------------------------------------


class Ramulator2:
    """A channel behind a controller whose scheduler is `fr_fcfs` or `fr_fcfs_row_hit`; see `controller.Controller`."""

    def __init__(self, memory: Memory) -> None:
        self.rules, self.setup, self.state = begin(memory)
        self._late: list[I8] = []

    def feed(self, batch: Batch, is_last: bool, log: I8) -> tuple[int, int]:
        """See `Controller.feed`."""
        s = self.state.scalars
        s[LOGGED] = 0
        reason = run(self.rules, self.setup, self.state, batch, is_last, log)
        self._late.append(self.state.late[: s[LATE]].copy())
        s[LATE] = 0
        clock = s[CLOCK] + 1
        if reason == PILED:
            raise StuckError(
                f"at clock {clock}: more than {MOST_DUE} refreshes are due; they come faster than they end"
            )
        if reason == STUCK:
            raise StuckError(f"at clock {clock}: requests wait for commands that never issue")
        if reason == MORE:
            s[NEXT] = 0
        return int(reason), int(s[LOGGED])

    def outcome(self) -> Outcome:
        """See `Controller.outcome`."""
        state, s = self.state, self.state.scalars
        late, late_count = np.unique(np.concatenate([np.empty(0, np.int64), *self._late]), return_counts=True)
        early = np.flatnonzero(state.latencies)
        active = state.open_banks[:, 2] + np.where(
            state.open_banks[:, 0], s[CLOCK] + 1 - state.open_banks[:, 1], 0
        )
        return Outcome(
            cycles=int(s[CLOCK]),
            busy_cycles=int(s[CLOCK]),
            commands=state.counts,
            reads=int(s[READ]),
            writes=int(s[ACCEPTED] - s[READ]),
            forwarded=int(s[FORWARDED]),
            coalesced=int(s[MERGED]),
            shared=0,
            row_hits=int(s[HITS]),
            row_misses=int(s[MISSES]),
            row_conflicts=int(s[CONFLICTS]),
            latency=np.concatenate([early, late]),
            latency_count=np.concatenate([state.latencies[early], late_count]),
            active_cycles=active,
        )


def begin(memory: Memory) -> tuple[Rules, Setup, State]:
    """Return what `run` needs at the beginning of a run."""
    dram, controller = memory.dram, memory.controller
    symbols = dram.symbols({})
    names = list(dram.commands)

    def find(meaning: str, target: str = "bank") -> int:
        name = dram.find(meaning, target)
        return -1 if name is None else names.index(name)

    def done(command: int) -> int:
        return evaluate(dram.commands[names[command]].duration, symbols)

    policy = ("none", "all_bank", "per_bank", "per_bank_set").index(dram.refresh.policy)
    scope = dram.refresh_level or "bank"
    read, write = (names.index(memory.access(meaning) or "") for meaning in ("read", "write"))
    interval = dram.timing["nREFI" if policy == ALL_BANK else "nREFIpb"] if policy else NEVER
    banks = np.arange(dram.banks)
    act = find("activate_first")
    assert controller.write_high is not None and controller.write_low is not None
    setup = Setup(
        bus=("shared", "row_and_column", "half_clock").index(dram.command_bus),
        row_hit=int(controller.scheduler == "fr_fcfs_row_hit"),
        reads=controller.read_queue,
        writes=controller.write_queue,
        high=controller.write_high * controller.write_queue,
        low=controller.write_low * controller.write_queue,
        act=act if act >= 0 else find("activate"),
        act2=find("activate_second"),
        pre=find("precharge"),
        rd=read,
        wr=write,
        sync_rd=find("sync_read"),
        sync_wr=find("sync_write"),
        pre_all=find("precharge", scope),
        ref=find("refresh", scope),
        closes=int(controller.page == "closed"),
        read_done=done(read),
        write_done=done(write),
        split=dram.timing.get("nAAD", 0),
        linger=dram.timing.get("nWCKPST", 0),
        refresh=policy,
        interval=interval,
        rest=dram.timing.get("nRFCpb", 0),
        scopes=np.arange(dram.nodes(scope) if policy == ALL_BANK else 1),
        pseudochannel_of=banks // (dram.banks // dram.pseudochannels),
        rank_of=banks // (dram.banks // (dram.pseudochannels * dram.ranks)),
        sets=np.array(
            [dram.pseudochannels * dram.ranks, dram.stack_ids, dram.bankgroups * dram.banks_per_bankgroup]
        ),
    )
    fields = (
        setup.act,
        setup.act2,
        setup.pre,
        read,
        write,
        setup.sync_rd,
        setup.sync_wr,
        setup.pre_all,
        setup.ref,
    )
    rules = compile_rules(dram, {names[command] for command in fields if command >= 0})
    if policy == ALL_BANK:
        setup = setup._replace(scopes=setup.scopes + rules.first[rules.place[setup.ref]])
    places = controller.read_queue + controller.write_queue + dram.banks
    scalars = np.zeros(SCALARS, np.int64)
    scalars[[TICK, BASE, EDGE, SYNCED, HALF]] = interval, interval, -1, -1, -1
    slots = np.zeros((places, 8), np.int64)
    slots[:, NEXT_OF_BANK] = np.arange(places) + 1
    ready, past = rules.state
    state = State(
        scalars=scalars,
        slots=slots,
        banks=np.full((dram.banks, 6), -1, np.int64),
        who=np.full(5 * dram.banks, -1, np.int64),
        when=np.full(5 * dram.banks, NEVER, np.int64),
        soonest=np.full(5, NEVER, np.int64),
        live=np.zeros((5, dram.banks), np.int64),
        live_count=np.zeros(5, np.int64),
        age=np.full(5 * dram.banks, -1, np.int64),
        due=np.zeros(MOST_DUE, np.int64),
        rounds=np.full(dram.stack_ids, -NEVER, np.int64),
        ready=ready,
        past=past,
        open_banks=np.zeros((dram.pseudochannels * dram.ranks, 3), np.int64),
        counts=np.zeros(len(names), np.int64),
        latencies=np.zeros(1 << 16, np.int64),
        late=np.zeros(1 << 12, np.int64),
    )
    return rules, setup, state
