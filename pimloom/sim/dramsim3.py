"""The round-robin controller kernel: requests through DRAMsim3's controller, command for command.

Requests enter a queue of reads or one of writes, move one a clock into short command queues (one per bank or
rank), and the command queues take turns; DRAMsim3 at revision 29817593, as section 5 of the reference data's
README describes it. Per clock: one request is offered, refresh comes first, then the command queues are searched
(twice on a bus for rows and columns), then one transaction moves.

The kernel steps only to clocks at which something can happen. As the clocks of `sim.timing` only rise, what a
queue had to wait for when it was last looked at is a lower bound: until then, or until the queue's content or
its bank's state changes, it is passed over.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.memory import Memory
from pimloom.arch.rules import Rules
from pimloom.sim.jit import kernel
from pimloom.sim.timing import ready_at_node, stamp_node

I8 = npt.NDArray[np.int64]

MORE, LOG_FULL, TOO_SMALL, ENDED, STUCK = range(5)
"""Why the kernel returned: it needs the next requests; the log is full; `enlarge` the state; the run is over; no
outstanding request has advanced for `PATIENCE` clocks."""
PATIENCE = 1 << 20
NEVER = 1 << 60
CHANGED = -1
"""Bound of a command queue whose candidates are out of date."""
NONE = -1
"""No row, no entry, no command."""

NOW, HEAD, POINTER, SEARCH, TICK, DUE, RANK, RETRY, DRAINING, QUEUED, MOVE, PENDING, DONE, PROGRESS, FREE, FREE_SHARE, \
    OLDEST, SCALARS = range(18)  # fmt: skip
"""Scalars: clock of the next step; request of the chunk to be offered next; command queue that had the last turn;
clock before which no queue has a command; clock of the next refresh; refreshes due; rank of the first of them;
clock before which it cannot advance; writes still to be drained; entries of all command queues; whether a
transaction may be able to move; reads without data; clock of the last data or acknowledgement; clock of the last
command or acceptance; first free entry; first free share; no read without data was accepted before this clock."""

READS, WRITES, FORWARDED, SHARED, COALESCED, READ_HITS, WRITE_HITS, CONFLICTS, DUAL, STALLS, LAST_ACCEPTED, \
    LAST_COMMAND, CYCLES, COUNTERS = range(14)  # fmt: skip
"""Counters: reads and writes accepted; reads answered by a waiting write, reads that share the data of an earlier
one, writes that coalesced with a waiting one; column commands to a row used before since its activation;
precharges for requests (found: on a double bus one may be dropped); clocks with two commands; clocks in which a
request was refused; clocks of the last acceptance and command; clocks of the run."""

BANK, ROW, COLUMN, WRITE, ACCEPTED, KEY, NEXT, SHARES, FIELDS = range(9)
"""Fields of an entry: its request, clock of acceptance, address as one number, next entry of its hash chain (or
free one), first read that shares its data."""
SIZE, BOUND, CANDIDATES, QUEUE = range(4)
"""Head of a command queue: entries; no command before this clock; candidates. Behind it the entries in order, then
the candidates' entries, then their commands."""
OPEN_ROW, HITS, BANK_FIELDS = range(3)
OPEN_BANKS, SINCE, ACTIVE, RANK_FIELDS = range(4)
"""Fields of a rank: open banks; clock since which there are any; clocks with any before that."""


class Setup(NamedTuple):
    """The controller and the meaning of commands, from `setup`. Commands are ids; -1 = there is none."""

    activate: int
    precharge: int
    read: int  # with auto-precharge where pages are closed
    write: int  # likewise
    refresh: int  # all banks of a rank
    closes: bool  # read and write close their bank
    dual: bool  # one row and one column command a clock
    ranks: int
    rank_banks: int  # banks of a rank
    queue_banks: int  # banks that share a command queue
    entries: int  # of one command queue
    room: int  # entries of the queue of reads, and of that of writes
    unified: bool  # reads and writes share the one queue
    row_hit_cap: int  # column commands after which a row may be closed although it is wanted
    drain_above: int  # writes beyond which they are drained while all command queues are empty
    interval: int  # clocks between refreshes of one rank and the next; 0 = no refresh
    read_delay: int  # clocks from a read command to the end of its data
    tail: int  # clocks after the last data
    banks: int
    columns: int


class State(NamedTuple):
    """State of one channel and its controller; arrays of int64, times in clocks."""

    ready: I8  # i8[N, C]            of sim.timing
    past: I8  # i8[W, N, size + 1]  of sim.timing
    scalars: I8  # i8[SCALARS]
    counters: I8  # i8[COUNTERS]
    issued: I8  # i8[C]               commands by id
    banks: I8  # i8[B, BANK_FIELDS]
    ranks: I8  # i8[ranks, RANK_FIELDS]
    entry: I8  # i8[E, FIELDS]       requests that wait for their column command
    chains: I8  # i8[H]               first entry by hash of the address; H is a power of two
    share: I8  # i8[M, 2]            accepted, next: reads that share the data of an earlier one
    waiting: I8  # i8[2, 2 + room]     transactions of reads and writes: how many, how many first ones found no room
    #                                  in their command queue, the entries in order
    queue: I8  # i8[Q, QUEUE + 3 * entries]
    latencies: I8  # i8[longest + 1]     reads by clocks from acceptance to the end of data


def setup(memory: Memory) -> Setup:
    """Return what the kernel must know of a memory whose controller's scheduler is `round_robin`."""
    dram, controller = memory.dram, memory.controller
    assert controller.queue_per is not None and controller.command_queue is not None
    assert controller.row_hit_cap is not None and controller.drain_above is not None
    assert controller.tail is not None
    names = dram.command_names
    closes = controller.page == "closed"

    def access(meaning: str) -> int:
        effect = "close" if closes else "none"
        return next(
            i for i, c in enumerate(dram.commands.values()) if (c.meaning, c.bank) == (meaning, effect)
        )

    def other(meaning: str, target: str) -> int:
        name = dram.find(meaning, target)
        return NONE if name is None else names.index(name)

    ranks = dram.nodes("rank")
    on = dram.refresh.policy == "all_bank"
    return Setup(
        activate=other("activate", "bank"),
        precharge=other("precharge", "bank"),
        read=access("read"),
        write=access("write"),
        refresh=other("refresh", dram.refresh_level or "rank") if on else NONE,
        closes=closes,
        dual=dram.command_bus == "row_and_column",
        ranks=ranks,
        rank_banks=dram.banks // ranks,
        queue_banks=1 if controller.queue_per == "bank" else dram.banks // ranks,
        entries=controller.command_queue,
        room=controller.read_queue,
        unified=bool(controller.unified),
        row_hit_cap=controller.row_hit_cap,
        drain_above=controller.drain_above,
        interval=dram.timing["nREFI"] // ranks if on else 0,
        read_delay=dram.timing["nRL"] + dram.nBL,
        tail=controller.tail,
        banks=dram.banks,
        columns=dram.columns,
    )


def new_state(rules: Rules, about: Setup, longest: int = 1 << 14, shares: int = 1 << 10) -> State:
    """Return the state at clock 0: all banks closed, nothing waiting.

    longest, shares: latency, and reads sharing data, that there is room for at first
    """
    ready, past = rules.state
    queues = about.banks // about.queue_banks
    entries = 2 * about.room + queues * about.entries
    scalars = np.zeros(SCALARS, np.int64)
    scalars[TICK] = about.interval or NEVER
    scalars[DONE] = -1
    counters = np.zeros(COUNTERS, np.int64)
    counters[LAST_ACCEPTED] = counters[LAST_COMMAND] = -1
    banks = np.zeros((about.banks, BANK_FIELDS), np.int64)
    banks[:, OPEN_ROW] = NONE
    entry = np.full((entries, FIELDS), NONE, np.int64)
    entry[:-1, NEXT] = np.arange(1, entries)
    share = np.full((shares, 2), NONE, np.int64)
    share[:-1, 1] = np.arange(1, shares)
    queue = np.zeros((queues, QUEUE + 3 * about.entries), np.int64)
    queue[:, BOUND] = NEVER
    return State(
        ready, past, scalars, counters,
        np.zeros(len(rules.place), np.int64), banks, np.zeros((about.ranks, RANK_FIELDS), np.int64),
        entry, np.full(1 << (4 * entries).bit_length(), NONE, np.int64), share,
        np.zeros((2, 2 + about.room), np.int64), queue, np.zeros(longest, np.int64),
    )  # fmt: skip


def enlarge(state: State) -> State:
    """Return the state with twice the room for latencies and for reads that share data (reason TOO_SMALL)."""
    share = np.full((2 * len(state.share), 2), NONE, np.int64)
    old = len(state.share)
    share[:old] = state.share
    share[old:-1, 1] = np.arange(old + 1, len(share))
    share[-1, 1] = state.scalars[FREE_SHARE]
    scalars = state.scalars.copy()
    scalars[FREE_SHARE] = old
    latencies = np.concatenate([state.latencies, np.zeros_like(state.latencies)])
    return state._replace(scalars=scalars, share=share, latencies=latencies)


@kernel
def _clock(path: I8, ready: I8, command: int, bank: int) -> int:
    """Return the first clock at which a command may issue to a bank (`timing.ready_at` with fewer arrays)."""
    clock = 0
    for level in range(path.shape[1]):
        clock = max(clock, ready[path[bank, level], command])
    return clock


@kernel
def _hash(key: int, mask: int) -> int:
    return (key ^ (key >> 11)) & mask


@kernel
def _find(entry: I8, first: int, key: int, write: int) -> int:
    """Return the entry of an address in the chain that begins at `first`, or NONE."""
    at = first
    while at != NONE and (entry[at, KEY] != key or entry[at, WRITE] != write):
        at = entry[at, NEXT]
    return at


@kernel
def _choose(
    queue: I8, q: int, entry: I8, banks: I8, entries: int, shared: bool, activate: int, precharge: int,
    read: int, write: int, row_hit_cap: int,
) -> None:  # fmt: skip
    """List the entries of a command queue whose next command the order within the queue allows.

    Of several with the same command to the same bank only the first is listed: both become ready at once.
    shared: the queue holds entries of several banks
    """
    size, found = queue[q, SIZE], 0
    for i in range(size):
        at = queue[q, QUEUE + i]
        bank = entry[at, BANK]
        open_row = banks[bank, OPEN_ROW]
        if open_row == entry[at, ROW]:
            command = write if entry[at, WRITE] else read
            allowed = True
            for k in range(found):
                allowed &= (
                    queue[q, QUEUE + entries + entries + k] != command
                    or entry[queue[q, QUEUE + entries + k], BANK] != bank
                )
            if allowed and command == write:
                for j in range(i):
                    before = queue[q, QUEUE + j]
                    allowed &= entry[before, KEY] != entry[at, KEY] or entry[before, WRITE] == 1
        else:
            command = activate if open_row == NONE else precharge
            allowed = i == 0
            if shared:
                allowed = True
                for j in range(i):
                    allowed &= entry[queue[q, QUEUE + j], BANK] != bank
            if allowed and command == precharge and banks[bank, HITS] < row_hit_cap:
                for j in range(i + 1, size):
                    later = queue[q, QUEUE + j]
                    allowed &= entry[later, ROW] != open_row or entry[later, BANK] != bank
        if allowed:
            queue[q, QUEUE + entries + found] = at
            queue[q, QUEUE + entries + entries + found] = command
            found += 1
        if open_row == NONE and not shared:
            break
    queue[q, CANDIDATES] = found


@kernel
def run(
    rules: Rules, about: Setup, state: State, cycle: I8, write: I8, bank: I8, row: I8, column: I8,
    last_chunk: bool, log: I8,
) -> tuple[int, int]:  # fmt: skip
    """Run until more requests, a longer log or more room are needed, or to the end; return the reason and rows.

    cycle, write, bank, row, column: i8[n] the next requests: earliest clock, 1 for a write, flat bank, row, column.
    They are wanted again until MORE is returned; then come the next ones, which may be none.
    last_chunk: no requests follow these
    log: i8[rows, 5] clock, command, bank (of a refresh: rank), row, column from the first row on; 0 rows = no log
    """
    path, row_start, rows, kin = rules.path, rules.row_start, rules.rows, rules.kin
    window_start, windows = rules.window_start, rules.windows
    ready, past, scalars, counters, issued = (
        state.ready,
        state.past,
        state.scalars,
        state.counters,
        state.issued,
    )
    banks, ranks, entry, chains, share = state.banks, state.ranks, state.entry, state.chains, state.share
    waiting, queue, latencies = state.waiting, state.queue, state.latencies
    entries, unified, read_delay, rank_banks = (
        about.entries,
        about.unified,
        about.read_delay,
        about.rank_banks,
    )
    queue_banks = about.queue_banks
    rank_queues = rank_banks // queue_banks
    queues, n, logged = len(queue), len(cycle), 0
    logging = len(log) > 0
    mask = len(chains) - 1
    now, head, pointer, search = scalars[NOW], scalars[HEAD], scalars[POINTER], scalars[SEARCH]
    tick, due, rank, retry = scalars[TICK], scalars[DUE], scalars[RANK], scalars[RETRY]
    draining, queued, move, pending = scalars[DRAINING], scalars[QUEUED], scalars[MOVE] == 1, scalars[PENDING]
    done, progress, free, free_share = scalars[DONE], scalars[PROGRESS], scalars[FREE], scalars[FREE_SHARE]
    oldest = scalars[OLDEST]
    while True:
        # Whether the step can be taken at all.
        if head == n:
            if not last_chunk:
                reason, head = MORE, 0
                break
            if pending == 0 and now > done + about.tail:
                reason = ENDED
                break
        if logging and logged + 2 > len(log):
            reason = LOG_FULL
            break
        if now + read_delay - oldest >= len(latencies):
            oldest = now
            for at in range(len(entry)):
                if entry[at, BANK] != NONE and entry[at, WRITE] == 0:
                    oldest = min(oldest, entry[at, ACCEPTED])
            if now + read_delay - oldest >= len(latencies):
                reason = TOO_SMALL
                break
        if free_share == NONE:
            reason = TOO_SMALL
            break
        if now - progress > PATIENCE and (
            pending > 0
            or (head < n and cycle[head] <= now and waiting[write[head] * (not unified), 0] == about.room)
        ):
            reason = STUCK
            break

        # The front end offers one request.
        if head < n and cycle[head] <= now:
            is_write = write[head]
            side = 0 if unified else is_write
            if waiting[side, 0] < about.room:
                key = (row[head] * about.columns + column[head]) * about.banks + bank[head]
                h = _hash(key, mask)
                at = _find(entry, chains[h], key, 1)
                if is_write:
                    counters[WRITES] += 1
                    counters[COALESCED] += at != NONE
                else:
                    counters[READS] += 1
                    if at != NONE:
                        counters[FORWARDED] += 1
                        latencies[1] += 1
                    else:
                        pending += 1
                        at = _find(entry, chains[h], key, 0)
                        if at != NONE:
                            counters[SHARED] += 1
                            s = free_share
                            free_share = share[s, 1]
                            share[s, 0] = now
                            share[s, 1] = entry[at, SHARES]
                            entry[at, SHARES] = s
                if at == NONE:
                    at = free
                    free = entry[at, NEXT]
                    entry[at, BANK] = bank[head]
                    entry[at, ROW] = row[head]
                    entry[at, COLUMN] = column[head]
                    entry[at, WRITE] = is_write
                    entry[at, ACCEPTED] = now
                    entry[at, KEY] = key
                    entry[at, NEXT] = chains[h]
                    entry[at, SHARES] = NONE
                    chains[h] = at
                    waiting[side, 2 + waiting[side, 0]] = at
                    waiting[side, 0] += 1
                    move = True
                done = max(done, now + 1)
                counters[STALLS] += now - max(cycle[head], counters[LAST_ACCEPTED] + 1)
                counters[LAST_ACCEPTED] = now
                progress = now
                head += 1

        # Refresh.
        if now == tick:
            if due == 0:
                retry = 0
            due += 1
            tick += about.interval
        skip_from = skip_to = NONE
        if due > 0:
            skip_from = rank * rank_queues
            skip_to = skip_from + rank_queues

        first = NONE
        for turn in range(2):
            command = at = NONE
            target = rank
            if turn == 0 and due > 0 and retry <= now:
                retry = NEVER
                for b in range(rank * rank_banks, (rank + 1) * rank_banks):
                    if banks[b, OPEN_ROW] != NONE:
                        clock = _clock(path, ready, about.precharge, b)
                        retry = min(retry, clock)
                        if clock <= now:
                            command, target = about.precharge, b
                            break
                if retry == NEVER:
                    retry = ready_at_node(
                        rules, ready, about.refresh, rules.first[rules.place[about.refresh]] + rank
                    )
                    if retry <= now:
                        command = about.refresh
            if command == NONE and search <= now:
                # Command queues in turn.
                search = NEVER
                q = pointer
                for _ in range(queues):
                    q += 1
                    if q == queues:
                        q = 0
                    if skip_from <= q < skip_to:
                        continue
                    if queue[q, BOUND] <= now:
                        if queue[q, BOUND] == CHANGED:
                            _choose(
                                queue,
                                q,
                                entry,
                                banks,
                                entries,
                                queue_banks > 1,
                                about.activate,
                                about.precharge,
                                about.read,
                                about.write,
                                about.row_hit_cap,
                            )
                        bound = NEVER
                        for k in range(queue[q, CANDIDATES]):
                            candidate = queue[q, QUEUE + entries + k]
                            c = queue[q, QUEUE + entries + entries + k]
                            clock = _clock(path, ready, c, entry[candidate, BANK])
                            if clock <= now:
                                command, at = c, candidate
                                break
                            bound = min(bound, clock)
                        if command != NONE:
                            break
                        queue[q, BOUND] = bound
                    search = min(search, queue[q, BOUND])
                if command != NONE:
                    pointer = q
                    search = now
                    target = entry[at, BANK]
                    counters[CONFLICTS] += command == about.precharge
                    progress = now
            if command == NONE:
                break
            is_column = command == about.read or command == about.write
            if turn == 1:
                if is_column == (first == about.read or first == about.write):
                    break
                counters[DUAL] += 1
            first = command

            # Issue.
            counters[LAST_COMMAND] = now
            issued[command] += 1
            if logging:
                log[logged, 0] = now
                log[logged, 1] = command
                log[logged, 2] = target
                log[logged, 3] = entry[at, ROW] if is_column or command == about.activate else -1
                log[logged, 4] = entry[at, COLUMN] if is_column else -1
                logged += 1
            if command == about.refresh:
                stamp_node(rules, ready, past, command, rules.first[rules.place[command]] + rank, now)
                due -= 1
                rank = (rank + 1) % about.ranks
                retry = 0
                skip_from = skip_to = NONE
                search = now
            else:
                for r in range(row_start[command], row_start[command + 1]):
                    node, after, until = path[target, rows[r, 0]], rows[r, 1], now + rows[r, 2]
                    if rows[r, 3] == 0:
                        if ready[node, after] < until:
                            ready[node, after] = until
                    else:
                        for other in range(kin[node, 0], kin[node, 1]):
                            if other != node and ready[other, after] < until:
                                ready[other, after] = until
                for w in range(window_start[command], window_start[command + 1]):
                    node, size = path[target, windows[w, 0]], windows[w, 3]
                    count = past[w, node, 0]
                    past[w, node, 1 + count % size] = now
                    past[w, node, 0] = count + 1
                    if count + 1 >= size:
                        until = past[w, node, 1 + (count + 1) % size] + windows[w, 2]
                        ready[node, windows[w, 1]] = max(ready[node, windows[w, 1]], until)
                q = target // queue_banks
                queue[q, BOUND] = CHANGED
                of = target // rank_banks
                if is_column:
                    if queue[q, SIZE] == entries:
                        waiting[0, 1] = waiting[1, 1] = 0
                    i = QUEUE
                    while queue[q, i] != at:
                        i += 1
                    queue[q, SIZE] -= 1
                    for j in range(i, QUEUE + queue[q, SIZE]):
                        queue[q, j] = queue[q, j + 1]
                    queued -= 1
                    move = True
                    if queue[q, SIZE] == 0:
                        queue[q, BOUND] = NEVER
                    used = banks[target, HITS] != 0
                    banks[target, HITS] += 1
                    if entry[at, WRITE]:
                        counters[WRITE_HITS] += used
                    else:
                        counters[READ_HITS] += used
                        done = max(done, now + read_delay)
                        latencies[now + read_delay - entry[at, ACCEPTED]] += 1
                        pending -= 1
                        s = entry[at, SHARES]
                        while s != NONE:
                            latencies[now + read_delay - share[s, 0]] += 1
                            pending -= 1
                            after = share[s, 1]
                            share[s, 1] = free_share
                            free_share = s
                            s = after
                    key = entry[at, KEY]
                    h = _hash(key, mask)
                    if chains[h] == at:
                        chains[h] = entry[at, NEXT]
                    else:
                        before = chains[h]
                        while entry[before, NEXT] != at:
                            before = entry[before, NEXT]
                        entry[before, NEXT] = entry[at, NEXT]
                    entry[at, BANK] = NONE
                    entry[at, NEXT] = free
                    free = at
                if command == about.activate:
                    banks[target, OPEN_ROW] = entry[at, ROW]
                    banks[target, HITS] = 0
                    if ranks[of, OPEN_BANKS] == 0:
                        ranks[of, SINCE] = now
                    ranks[of, OPEN_BANKS] += 1
                elif about.closes or command == about.precharge:
                    banks[target, OPEN_ROW] = NONE
                    ranks[of, OPEN_BANKS] -= 1
                    if ranks[of, OPEN_BANKS] == 0:
                        ranks[of, ACTIVE] += now - ranks[of, SINCE]
            if not about.dual:
                break

        # One transaction moves.
        again = False
        if move:
            if draining == 0 and not unified:
                size = waiting[1, 0]
                if size == about.room or (size > about.drain_above and queued == 0):
                    draining = size
            side = 1 if draining > 0 else 0
            size = waiting[side, 0]
            i = waiting[side, 1]
            while i < size:
                at = waiting[side, 2 + i]
                q = entry[at, BANK] // queue_banks
                if queue[q, SIZE] < entries:
                    again = True
                    break
                i += 1
            waiting[side, 1] = i
            if (
                again
                and side == 1
                and _find(entry, chains[_hash(entry[at, KEY], mask)], entry[at, KEY], 0) != NONE
            ):
                draining = 0
            elif again:
                draining -= side
                waiting[side, 0] = size - 1
                for j in range(2 + i, 1 + size):
                    waiting[side, j] = waiting[side, j + 1]
                queue[q, QUEUE + queue[q, SIZE]] = at
                queue[q, SIZE] += 1
                queue[q, BOUND] = CHANGED
                queued += 1
                search = min(search, now + 1)
        move = again

        # The next clock at which something can happen.
        step = min(tick, search)
        if due > 0:
            step = min(step, retry)
        if head == n:
            if not last_chunk:
                step = now
        elif cycle[head] > now:
            step = min(step, cycle[head])
        elif waiting[0 if unified else write[head], 0] < about.room:
            step = now
        now = now + 1 if again else max(now + 1, step)

    if reason == ENDED:
        counters[CYCLES] = done + 1 + about.tail
        for r in range(about.ranks):
            if ranks[r, OPEN_BANKS] > 0:
                ranks[r, ACTIVE] += counters[CYCLES] - ranks[r, SINCE]
                ranks[r, SINCE] = counters[CYCLES]
    scalars[NOW], scalars[HEAD], scalars[POINTER], scalars[SEARCH] = now, head, pointer, search
    scalars[TICK], scalars[DUE], scalars[RANK], scalars[RETRY] = tick, due, rank, retry
    scalars[DRAINING], scalars[QUEUED], scalars[MOVE], scalars[PENDING] = draining, queued, move, pending
    scalars[DONE], scalars[PROGRESS], scalars[FREE], scalars[FREE_SHARE] = done, progress, free, free_share
    scalars[OLDEST] = oldest
    return reason, logged
