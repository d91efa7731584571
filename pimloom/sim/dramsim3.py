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

from pimloom.arch.expression import evaluate
from pimloom.arch.memory import Memory
from pimloom.arch.rules import Rules, compile_rules
from pimloom.sim.controller import ENDED, FULL, MORE, Batch, Outcome, StuckError
from pimloom.sim.jit import inlined, kernel
from pimloom.sim.timing import ready_at, ready_at_node, stamp, stamp_node

I8 = npt.NDArray[np.int64]

TOO_SMALL, STUCK = range(3, 5)
"""Why the kernel returns, beside the reasons of `sim.controller`: it needs an `enlarge`d state; for `PATIENCE` clocks
nothing but refreshes has happened although requests wait (README 5.7)."""
PATIENCE = 1 << 22
LONGEST = 1 << 24
"""Latency in clocks that is still counted."""
NEVER = 1 << 60
CHANGED = -1
"""Bound of a command queue whose candidates are out of date."""
NONE, SEVERAL = -1, -2
"""No row, entry, command or command queue; more than one command queue."""

(NOW, NEXT, LOGGED, POINTER, SEARCH, TICK, DUE, RANK, RETRY, DRAINING, QUEUED, MOVE, PENDING, DONE, PROGRESS,
 OLDEST, FREE, FREE_SHARE, SCALARS) = range(19)  # fmt: skip
"""Scalars of the state.

NOW: clock of the next step; NEXT: next request of the batch; LOGGED: rows of the log that are taken; POINTER: command
queue that had the last turn; SEARCH: clock before which no command queue has a command; TICK: clock of the next
refresh; DUE: refreshes due, RANK: of the first one, RETRY: clock before which it cannot advance; DRAINING: writes still
to be drained; QUEUED: entries of all command queues; MOVE: whether a transaction may be able to move; PENDING: reads
without data; DONE: clock of the last data or acknowledgement; PROGRESS: clock of the last acceptance or command for a
request; OLDEST: no read without data was accepted before; FREE, FREE_SHARE: first free entry and share."""

(READS, WRITES, FORWARDED, SHARED, MERGED, READ_HITS, WRITE_HITS, CONFLICTS, DUAL, STALLS, LAST_ACCEPTED,
 LAST_COMMAND, CYCLES, COUNTERS) = range(14)  # fmt: skip
"""Counters of the state.

READS, WRITES: accepted; FORWARDED: reads answered by a waiting write; SHARED: reads that share the data of an earlier
one; MERGED: writes merged into a waiting one; READ_HITS, WRITE_HITS: column commands to a row that had one since its
activation; CONFLICTS: precharges found for requests (on a double bus one may be dropped); DUAL: clocks with two
commands; STALLS: clocks in which a request was refused; LAST_ACCEPTED, LAST_COMMAND: clocks, -1 = none yet; CYCLES:
clocks of the run, at its end."""

BANK, ROW, COLUMN, WRITE, ACCEPTED, KEY, LINK, SHARES, FIELDS = range(9)
"""Fields of an entry: its request, clock of acceptance, number of its access in the memory, next entry of its hash
chain (or next free one), first read that shares its data. A free entry has no bank."""
HELD, BLOCKED, FREED, WAITING = range(4)
"""Head of the transactions: how many wait; how many of the first ones found their command queue full; the one
command queue that has had room since (or SEVERAL). The entries follow in order."""
SIZE, FOUND, QUEUE = range(3)
"""Head of a command queue: entries; candidates. The entries follow in order, then the candidates' places among
them, then the candidates' commands."""
OPEN_ROW, HITS, BANK_FIELDS = range(3)
"""Fields of a bank: its open row; column commands since its activation."""
OPEN_BANKS, SINCE, ACTIVE, RANK_FIELDS = range(4)
"""Fields of a rank: open banks; clock since which there are any; clocks with any before that."""


class Setup(NamedTuple):
    """The controller and the meaning of commands: what does not change in a run. Commands are ids."""

    act: int
    pre: int
    rd: int  # with auto-precharge where pages are closed
    wr: int  # likewise
    ref: int  # all banks of a rank; -1 = there is none
    closes: bool  # whether reads and writes close their bank
    dual: bool  # one row and one column command a clock
    ranks: int
    first_rank: int  # node of rank 0 in the rules
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


class State(NamedTuple):
    """What changes in a run of one channel; times in clocks. B banks, C commands, Q command queues."""

    ready: I8  # see Rules.state
    past: I8
    scalars: I8  # i8[SCALARS]
    counters: I8  # i8[COUNTERS]
    counts: I8  # i8[C]      commands issued
    banks: I8  # i8[B, BANK_FIELDS]
    ranks: I8  # i8[ranks, RANK_FIELDS]
    entry: I8  # i8[E, FIELDS]  requests that wait for their column command
    chains: I8  # i8[H]      first entry by hash of the key; H is a power of two
    share: I8  # i8[M, 2]   accepted, next: reads that share the data of an earlier one
    waiting: I8  # i8[2, WAITING + room]  transactions of reads (or all), and of writes
    queue: I8  # i8[Q, QUEUE + 3 * entries]
    bounds: I8  # i8[Q]      clock before which a command queue has no command, or CHANGED
    latencies: I8  # i8[X]      reads by clocks from acceptance to the end of data


class Dramsim3:
    """A channel behind a controller whose scheduler is `round_robin`; see `controller.Controller`."""

    def __init__(self, memory: Memory, longest: int = 1 << 14, shares: int = 1 << 10) -> None:
        self.rules, self.setup, self.state = begin(memory, longest, shares)

    def feed(self, batch: Batch, is_last: bool, log: I8) -> tuple[int, int]:
        """See `Controller.feed`; a log without rows gets none."""
        self.state.scalars[LOGGED] = 0
        while True:
            reason = run(self.rules, self.setup, self.state, batch, is_last, log)
            if reason != TOO_SMALL:
                break
            if len(self.state.latencies) >= LONGEST:
                raise StuckError(
                    f"at clock {self.state.scalars[NOW]}: a read takes longer than {LONGEST} clocks"
                )
            self.state = enlarge(self.state)
        s = self.state.scalars
        if reason == STUCK:
            raise StuckError(
                f"at clock {s[NOW]}: nothing but refreshes since clock {s[PROGRESS]} although requests wait; such as a "
                "write that may not pass a read of its address while the full queue of writes holds up the reads"
            )
        if reason == MORE:
            s[NEXT] = 0
        return int(reason), int(s[LOGGED])

    def outcome(self) -> Outcome:
        """See `Controller.outcome`; row hits and conflicts are counters of the state, misses the other accesses."""
        state, c = self.state, self.state.counters
        latency = np.flatnonzero(state.latencies)
        hits, conflicts = int(c[READ_HITS] + c[WRITE_HITS]), int(c[CONFLICTS])
        accesses = int(state.counts[self.setup.rd] + state.counts[self.setup.wr])
        return Outcome(
            cycles=int(c[CYCLES]),
            busy_cycles=int(state.scalars[DONE] + 1),
            commands=state.counts,
            reads=int(c[READS]),
            writes=int(c[WRITES]),
            forwarded=int(c[FORWARDED]),
            coalesced=int(c[MERGED]),
            shared=int(c[SHARED]),
            row_hits=hits,
            row_misses=max(0, accesses - hits - conflicts),
            row_conflicts=conflicts,
            latency=latency,
            latency_count=state.latencies[latency],
            active_cycles=state.ranks[:, ACTIVE],
        )


def begin(memory: Memory, longest: int = 1 << 14, shares: int = 1 << 10) -> tuple[Rules, Setup, State]:
    """Return what `run` needs at the beginning of a run.

    longest, shares: latencies, and reads that share data, that there is room for at first
    """
    dram, controller = memory.dram, memory.controller
    assert controller.queue_per is not None and controller.command_queue is not None
    assert controller.row_hit_cap is not None and controller.drain_above is not None
    assert controller.tail is not None
    closes = controller.page == "closed"
    on = dram.refresh.policy == "all_bank"
    names = [dram.find("activate", "bank"), dram.find("precharge", "bank")]
    names += [memory.access("read"), memory.access("write")]
    if on:
        names.append(dram.find("refresh", dram.refresh_level or "rank"))
    issued = [name for name in names if name is not None]
    rules = compile_rules(dram, issued)
    ids = [dram.command_names.index(name) for name in issued]
    ref = ids[4] if on else NONE
    ranks = dram.nodes("rank")
    rank_banks = dram.banks // ranks
    setup = Setup(
        act=ids[0],
        pre=ids[1],
        rd=ids[2],
        wr=ids[3],
        ref=ref,
        closes=closes,
        dual=dram.command_bus == "row_and_column",
        ranks=ranks,
        first_rank=int(rules.first[rules.place[ref]]) if on else 0,
        rank_banks=rank_banks,
        queue_banks=1 if controller.queue_per == "bank" else rank_banks,
        entries=controller.command_queue,
        room=controller.read_queue,
        unified=bool(controller.unified),
        row_hit_cap=controller.row_hit_cap,
        drain_above=controller.drain_above,
        interval=max(1, dram.timing["nREFI"] // ranks) if on else 0,
        read_delay=evaluate(dram.commands[issued[2]].duration, dram.symbols({})),
        tail=controller.tail,
    )
    return rules, setup, _fresh(rules, setup, longest, shares)


def _fresh(rules: Rules, setup: Setup, longest: int, shares: int) -> State:
    ready, past = rules.state
    banks = np.zeros((len(rules.path), BANK_FIELDS), np.int64)
    banks[:, OPEN_ROW] = NONE
    queues = len(banks) // setup.queue_banks
    entries = 2 * setup.room + queues * setup.entries
    scalars = np.zeros(SCALARS, np.int64)
    scalars[TICK] = setup.interval or NEVER
    scalars[DONE] = -1
    counters = np.zeros(COUNTERS, np.int64)
    counters[LAST_ACCEPTED] = counters[LAST_COMMAND] = -1
    entry = np.full((entries, FIELDS), NONE, np.int64)
    entry[:-1, LINK] = np.arange(1, entries)
    share = np.full((shares, 2), NONE, np.int64)
    share[:-1, 1] = np.arange(1, shares)
    waiting = np.zeros((2, WAITING + setup.room), np.int64)
    waiting[:, FREED] = NONE
    return State(
        ready=ready,
        past=past,
        scalars=scalars,
        counters=counters,
        counts=np.zeros(len(rules.place), np.int64),
        banks=banks,
        ranks=np.zeros((setup.ranks, RANK_FIELDS), np.int64),
        entry=entry,
        chains=np.full(1 << (4 * entries).bit_length(), NONE, np.int64),
        share=share,
        waiting=waiting,
        queue=np.zeros((queues, QUEUE + 3 * setup.entries), np.int64),
        bounds=np.full(queues, NEVER, np.int64),
        latencies=np.zeros(longest, np.int64),
    )


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


@inlined
def _hash(key: int, mask: int) -> int:
    return (key ^ (key >> 11)) & mask


@inlined
def _find(state: State, key: int, write: int) -> int:
    """Return the entry of a key, or NONE."""
    entry = state.entry
    at: int = state.chains[_hash(key, len(state.chains) - 1)]
    while at != NONE and (entry[at, KEY] != key or entry[at, WRITE] != write):
        at = entry[at, LINK]
    return at


@inlined
def _follows_read(queue: I8, q: int, entry: I8, place: int) -> bool:
    """Tell whether an earlier read of the same address waits in the same command queue."""
    at = queue[q, QUEUE + place]
    found = False
    for i in range(place):
        before = queue[q, QUEUE + i]
        found |= entry[before, KEY] == entry[at, KEY] and entry[before, WRITE] == 0
    return found


@kernel
def _free_write(queue: I8, q: int, entry: I8, place: int, row: int) -> int:
    """Return the place of the first write to a row, from a place on, that follows no read of its address."""
    while place < queue[q, SIZE]:
        at = queue[q, QUEUE + place]
        if entry[at, ROW] == row and entry[at, WRITE] and not _follows_read(queue, q, entry, place):
            break
        place += 1
    return place


@kernel
def run(rules: Rules, setup: Setup, state: State, batch: Batch, is_last: bool, log: I8) -> int:
    """Go on with a run until it ends or needs something, and return why (MORE ...).

    batch: of which scalars[NEXT] requests have been taken; is_last: no batch follows; log: i8[m, 5]  gets clock,
    command, flat bank (of a refresh: rank), row, column of the commands from scalars[LOGGED] on; m = 0: no log.
    """
    cycle, write, key, bank, row, column = batch
    s, n = state.scalars, len(cycle)
    while True:
        now, i = s[NOW], s[NEXT]
        if i == n:
            if not is_last:
                return MORE
            if s[PENDING] == 0 and now > s[DONE] + setup.tail:
                _end(setup, state)
                return ENDED
        if len(log) > 0 and s[LOGGED] + 2 > len(log):
            return FULL
        if s[FREE_SHARE] == NONE or (
            now + setup.read_delay - s[OLDEST] >= len(state.latencies) and not _has_room(setup, state, now)
        ):
            return TOO_SMALL
        if now - s[PROGRESS] > PATIENCE and (
            s[PENDING] > 0 or (i < n and cycle[i] <= now and not _accepts(setup, state, write[i]))
        ):
            return STUCK

        if i < n and cycle[i] <= now and _accepts(setup, state, write[i]):
            _accept(setup, state, now, write[i], key[i], bank[i], row[i], column[i])
            state.counters[STALLS] += now - max(cycle[i], state.counters[LAST_ACCEPTED] + 1)
            state.counters[LAST_ACCEPTED] = now
            i += 1
            s[NEXT] = i
        if now == s[TICK]:
            s[DUE] += 1
            s[TICK] += setup.interval
        _issue_all(rules, setup, state, log, now)
        if s[MOVE]:
            s[MOVE] = _move(setup, state, now)

        step = min(s[TICK], s[SEARCH])
        if s[DUE] > 0:
            step = min(step, s[RETRY])
        if i == n:
            step = step if is_last else now
        elif cycle[i] > now:
            step = min(step, cycle[i])
        elif _accepts(setup, state, write[i]):
            step = now
        s[NOW] = now + 1 if s[MOVE] else max(now + 1, step)


@kernel
def _end(setup: Setup, state: State) -> None:
    """Complete the counters."""
    ranks = state.ranks
    end = state.scalars[DONE] + 1 + setup.tail
    state.counters[CYCLES] = end
    for r in range(setup.ranks):
        if ranks[r, OPEN_BANKS] > 0:
            ranks[r, ACTIVE] += end - ranks[r, SINCE]
            ranks[r, SINCE] = end


@kernel
def _has_room(setup: Setup, state: State, now: int) -> bool:
    """Tell whether there is a counter for the latency of every read that could end in this clock."""
    entry = state.entry
    oldest = now
    for at in range(len(entry)):
        if entry[at, BANK] != NONE and entry[at, WRITE] == 0:
            oldest = min(oldest, entry[at, ACCEPTED])
    state.scalars[OLDEST] = oldest
    return now + setup.read_delay - int(oldest) < len(state.latencies)


@inlined
def _accepts(setup: Setup, state: State, write: int) -> bool:
    """Tell whether the queue of a request has room; that comes before any merging."""
    held: int = state.waiting[0 if setup.unified else write, HELD]
    return held < setup.room


@inlined
def _accept(
    setup: Setup, state: State, now: int, write: int, key: int, bank: int, row: int, column: int
) -> None:
    """Take a request in."""
    s, counters, entry = state.scalars, state.counters, state.entry
    share, waiting = state.share, state.waiting
    s[PROGRESS] = now
    s[DONE] = max(s[DONE], now + 1)
    at = _find(state, key, 1)
    if write:
        counters[WRITES] += 1
        counters[MERGED] += at != NONE
    else:
        counters[READS] += 1
        if at != NONE:
            counters[FORWARDED] += 1
            state.latencies[1] += 1
        else:
            s[PENDING] += 1
            at = _find(state, key, 0)
            if at != NONE:
                counters[SHARED] += 1
                i = s[FREE_SHARE]
                s[FREE_SHARE] = share[i, 1]
                share[i, 0] = now
                share[i, 1] = entry[at, SHARES]
                entry[at, SHARES] = i
    if at == NONE:
        at = s[FREE]
        s[FREE] = entry[at, LINK]
        h = _hash(key, len(state.chains) - 1)
        entry[at, BANK] = bank
        entry[at, ROW] = row
        entry[at, COLUMN] = column
        entry[at, WRITE] = write
        entry[at, ACCEPTED] = now
        entry[at, KEY] = key
        entry[at, LINK] = state.chains[h]
        entry[at, SHARES] = NONE
        state.chains[h] = at
        side = 0 if setup.unified else write
        waiting[side, WAITING + waiting[side, HELD]] = at
        waiting[side, HELD] += 1
        s[MOVE] = 1


@inlined
def _issue_all(rules: Rules, setup: Setup, state: State, log: I8, now: int) -> None:
    """Issue the commands of a clock: one, or on a double bus one row and one column command."""
    s = state.scalars
    skipped = s[RANK] if s[DUE] > 0 else NONE
    first = NONE
    for turn in range(2 if setup.dual else 1):
        command = q = place = at = NONE
        target = s[RANK]
        if turn == 0 and skipped != NONE and s[RETRY] <= now:
            command, target = _refresh(rules, setup, state, now)
        if command == NONE and s[SEARCH] <= now:
            command, q, place = _search(rules, setup, state, skipped, now)
            if command != NONE:
                at = state.queue[q, QUEUE + place]
                target = state.entry[at, BANK]
                state.counters[CONFLICTS] += command == setup.pre
        if command == NONE:
            break
        is_column = command in (setup.rd, setup.wr)
        if turn == 1:
            # A second command of the same kind is dropped; the queues have had their turn all the same.
            if is_column == (first in (setup.rd, setup.wr)):
                break
            state.counters[DUAL] += 1
        first = command

        state.counters[LAST_COMMAND] = now
        state.counts[command] += 1
        if len(log) > 0:
            i = s[LOGGED]
            s[LOGGED] = i + 1
            log[i, 0] = now
            log[i, 1] = command
            log[i, 2] = target
            log[i, 3] = state.entry[at, ROW] if is_column or command == setup.act else NONE
            log[i, 4] = state.entry[at, COLUMN] if is_column else NONE
        if command == setup.ref:
            stamp_node(rules, state.ready, state.past, command, setup.first_rank + target, now)
            s[DUE] -= 1
            s[RANK] = (target + 1) % setup.ranks
            s[RETRY] = 0
            s[SEARCH] = now
            skipped = NONE
        else:
            stamp(rules, state.ready, state.past, command, target, now)
            state.bounds[target // setup.queue_banks] = CHANGED
            if at != NONE:
                s[PROGRESS] = now
            if is_column:
                _serve(setup, state, q, place, now)
            if command == setup.act:
                _open(setup, state, target, state.entry[at, ROW], now)
            elif setup.closes or not is_column:
                _close(setup, state, target, now)


@inlined
def _refresh(rules: Rules, setup: Setup, state: State, now: int) -> tuple[int, int]:
    """Return the command that advances the first refresh due, and its bank or rank, if there is one now."""
    s = state.scalars
    command, target = NONE, s[RANK]
    retry = NEVER
    for b in range(target * setup.rank_banks, (target + 1) * setup.rank_banks):
        if state.banks[b, OPEN_ROW] != NONE:
            clock = ready_at(rules, state.ready, setup.pre, b)
            retry = min(retry, clock)
            if clock <= now:
                command, target = setup.pre, b
                break
    if retry == NEVER:
        retry = ready_at_node(rules, state.ready, setup.ref, setup.first_rank + target)
        if retry <= now:
            command = setup.ref
    s[RETRY] = retry
    return command, target


@inlined
def _search(rules: Rules, setup: Setup, state: State, skipped: int, now: int) -> tuple[int, int, int]:
    """Return the command that a queue has now, the queue, and the place in it; the queues take turns.

    skipped: rank whose queues are passed over
    """
    s, queue, entry, bounds = state.scalars, state.queue, state.entry, state.bounds
    places, commands = QUEUE + setup.entries, QUEUE + 2 * setup.entries
    rank_queues = setup.rank_banks // setup.queue_banks
    skip_from, skip_to = skipped * rank_queues, (skipped + 1) * rank_queues
    soonest = NEVER
    command = place = NONE
    q = s[POINTER]
    for _ in range(len(bounds)):
        q += 1
        if q == len(bounds):
            q = 0
        if skip_from <= q < skip_to:
            continue
        if bounds[q] <= now:
            if bounds[q] == CHANGED:
                if setup.queue_banks == 1:
                    queue[q, FOUND] = _choose_of_bank(setup, state, q)
                else:
                    queue[q, FOUND] = _choose_of_rank(setup, state, q)
            bound = NEVER
            for k in range(queue[q, FOUND]):
                candidate = queue[q, QUEUE + queue[q, places + k]]
                clock = ready_at(rules, state.ready, queue[q, commands + k], entry[candidate, BANK])
                if clock <= now:
                    command, place = queue[q, commands + k], queue[q, places + k]
                    break
                bound = min(bound, clock)
            if command != NONE:
                s[POINTER] = q
                soonest = now
                break
            bounds[q] = bound
        soonest = min(soonest, bounds[q])
    s[SEARCH] = soonest
    return command, q, place


@inlined
def _choose_of_bank(setup: Setup, state: State, q: int) -> int:
    """List the candidates of the command queue of one bank, as `_choose_of_rank` does; return how many."""
    queue, entry = state.queue, state.entry
    places, commands = QUEUE + setup.entries, QUEUE + 2 * setup.entries
    size, open_row, found = queue[q, SIZE], state.banks[q, OPEN_ROW], 0
    reads = writes = size
    queue[q, places] = 0
    if open_row == NONE:
        queue[q, commands] = setup.act
        return 1 if size > 0 else 0
    for j in range(size):
        i = size - 1 - j
        if entry[queue[q, QUEUE + i], ROW] == open_row:
            if entry[queue[q, QUEUE + i], WRITE]:
                writes = i
            else:
                reads = i
    if min(reads, writes) > 0 and (reads == writes or state.banks[q, HITS] >= setup.row_hit_cap):
        queue[q, commands] = setup.pre
        found = 1
    # With separate queues of reads and writes, no write gets here while a read of its address waits.
    if setup.unified and reads < writes:
        writes = _free_write(queue, q, entry, writes, open_row)
    if reads < writes:
        queue[q, places + found] = reads
        queue[q, commands + found] = setup.rd
        found += 1
    if writes < size:
        queue[q, places + found] = writes
        queue[q, commands + found] = setup.wr
        found += 1
    if writes < reads < size:
        queue[q, places + found] = reads
        queue[q, commands + found] = setup.rd
        found += 1
    return found


@kernel
def _choose_of_rank(setup: Setup, state: State, q: int) -> int:
    """List the entries of a command queue whose next command the order within the queue allows; return how many.

    Of several with the same command to the same bank only the first is listed: all become ready at once.
    """
    queue, entry, banks = state.queue, state.entry, state.banks
    places, commands = QUEUE + setup.entries, QUEUE + 2 * setup.entries
    size, found = queue[q, SIZE], 0
    for i in range(size):
        at = queue[q, QUEUE + i]
        bank = entry[at, BANK]
        open_row = banks[bank, OPEN_ROW]
        if open_row == entry[at, ROW]:
            command = setup.wr if entry[at, WRITE] else setup.rd
            allowed = command == setup.rd or not _follows_read(queue, q, entry, i)
            for k in range(found):
                other = queue[q, QUEUE + queue[q, places + k]]
                allowed &= queue[q, commands + k] != command or entry[other, BANK] != bank
        else:
            command = setup.act if open_row == NONE else setup.pre
            allowed = True
            for j in range(i):
                allowed &= entry[queue[q, QUEUE + j], BANK] != bank
            if command == setup.pre and banks[bank, HITS] < setup.row_hit_cap:
                for j in range(i + 1, size):
                    later = queue[q, QUEUE + j]
                    allowed &= entry[later, ROW] != open_row or entry[later, BANK] != bank
        if allowed:
            queue[q, places + found], queue[q, commands + found] = i, command
            found += 1
    return found


@inlined
def _open(setup: Setup, state: State, bank: int, row: int, now: int) -> None:
    """Open a row."""
    ranks, r = state.ranks, bank // setup.rank_banks
    state.banks[bank, OPEN_ROW] = row
    state.banks[bank, HITS] = 0
    if ranks[r, OPEN_BANKS] == 0:
        ranks[r, SINCE] = now
    ranks[r, OPEN_BANKS] += 1


@inlined
def _close(setup: Setup, state: State, bank: int, now: int) -> None:
    """Close the row of a bank."""
    ranks, r = state.ranks, bank // setup.rank_banks
    state.banks[bank, OPEN_ROW] = NONE
    ranks[r, OPEN_BANKS] -= 1
    if ranks[r, OPEN_BANKS] == 0:
        ranks[r, ACTIVE] += now - ranks[r, SINCE]


@inlined
def _serve(setup: Setup, state: State, q: int, place: int, now: int) -> None:
    """Take the entry whose column command issues out of its command queue, and answer its reads."""
    s, queue, entry = state.scalars, state.queue, state.entry
    share, waiting = state.share, state.waiting
    at = queue[q, QUEUE + place]
    if queue[q, SIZE] == setup.entries:
        for side in range(2):
            waiting[side, FREED] = q if waiting[side, FREED] in (NONE, q) else SEVERAL
    queue[q, SIZE] -= 1
    for i in range(QUEUE + place, QUEUE + queue[q, SIZE]):
        queue[q, i] = queue[q, i + 1]
    s[QUEUED] -= 1
    s[MOVE] = 1
    used = state.banks[entry[at, BANK], HITS] > 0
    state.banks[entry[at, BANK], HITS] += 1
    if entry[at, WRITE]:
        state.counters[WRITE_HITS] += used
    else:
        state.counters[READ_HITS] += used
        done = now + setup.read_delay
        s[DONE] = max(s[DONE], done)
        state.latencies[done - entry[at, ACCEPTED]] += 1
        s[PENDING] -= 1
        i = entry[at, SHARES]
        while i != NONE:
            state.latencies[done - share[i, 0]] += 1
            s[PENDING] -= 1
            after = share[i, 1]
            share[i, 1] = s[FREE_SHARE]
            s[FREE_SHARE] = i
            i = after
    _forget(state, at)


@inlined
def _forget(state: State, at: int) -> None:
    """Free an entry."""
    entry, chains = state.entry, state.chains
    h = _hash(entry[at, KEY], len(chains) - 1)
    if chains[h] == at:
        chains[h] = entry[at, LINK]
    else:
        before = chains[h]
        while entry[before, LINK] != at:
            before = entry[before, LINK]
        entry[before, LINK] = entry[at, LINK]
    entry[at, BANK] = NONE
    entry[at, LINK] = state.scalars[FREE]
    state.scalars[FREE] = at


@inlined
def _move(setup: Setup, state: State, now: int) -> bool:
    """Move one transaction into its command queue; tell whether more may be possible in the next clock."""
    s, waiting, queue, entry = state.scalars, state.waiting, state.queue, state.entry
    if s[DRAINING] == 0 and not setup.unified:
        held = waiting[1, HELD]
        if held == setup.room or (held > setup.drain_above and s[QUEUED] == 0):
            s[DRAINING] = held
    side = 1 if s[DRAINING] > 0 else 0
    place = _first_movable(setup, state, side)
    if place == waiting[side, HELD]:
        return False
    at = waiting[side, WAITING + place]
    if side == 1 and _find(state, entry[at, KEY], 0) != NONE:
        s[DRAINING] = 0
        return True
    s[DRAINING] -= side
    waiting[side, HELD] -= 1
    for i in range(WAITING + place, WAITING + waiting[side, HELD]):
        waiting[side, i] = waiting[side, i + 1]
    q = entry[at, BANK] // setup.queue_banks
    queue[q, QUEUE + queue[q, SIZE]] = at
    queue[q, SIZE] += 1
    s[QUEUED] += 1
    if place < waiting[side, BLOCKED]:
        waiting[side, BLOCKED] -= 1
        if queue[q, SIZE] == setup.entries:
            waiting[side, FREED] = NONE
    state.bounds[q] = CHANGED
    s[SEARCH] = min(s[SEARCH], now + 1)
    return True


@inlined
def _first_movable(setup: Setup, state: State, side: int) -> int:
    """Return the place of the first transaction whose command queue has room, or how many there are.

    Those known to be blocked are passed over, but for those of the one command queue that has had room since.
    """
    waiting, queue, entry = state.waiting, state.queue, state.entry
    held, blocked, freed = waiting[side, HELD], waiting[side, BLOCKED], waiting[side, FREED]
    place: int = blocked if freed == NONE else 0
    if freed >= 0:
        while place < blocked and entry[waiting[side, WAITING + place], BANK] // setup.queue_banks != freed:
            place += 1
    while place < held:
        q = entry[waiting[side, WAITING + place], BANK] // setup.queue_banks
        if queue[q, SIZE] < setup.entries:
            break
        place += 1
    if place >= blocked or freed < 0:
        waiting[side, BLOCKED] = place
        waiting[side, FREED] = NONE
    return place
