"""The chain kernel: a stretch of tasks without an outside event, in one call.

It does what the SimPy processes of `sim.engine` do one event at a time: a PIM task starts on every channel
once its inputs are there and the link has carried it, an ASIC task starts when its inputs are there and the
ASIC is free. Channels with equal programs and equal state form a class and are computed once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pimloom.arch.dram import Tables
from pimloom.sim.channel import (
    ALL_ROW,
    CHANGED,
    DUE,
    EXTRA_STEPPED,
    EXTRAS,
    I8,
    LAST,
    NEVER,
    OPEN_BANKS,
    SPLIT,
    Code,
    Scratch,
    State,
    issue,
)
from pimloom.sim.clock import edge_ps, first_edge
from pimloom.sim.jit import kernel

PIM, ASIC = 0, 1
"""Units of a task."""


class Stretch(NamedTuple):
    """Tasks in issue order, struct of arrays.

    unit: i8[n]  PIM or ASIC; program: i8[n, channel]  index into `Code`, -1 = idle
    base_bank, base_row: i8[n]  added to every bank and row address; cycles: i8[n]  ASIC clocks
    reads: i8[n, r], writes: i8[n, w]  register numbers, -1 = none
    """

    unit: I8
    program: I8
    base_bank: I8
    base_row: I8
    cycles: I8
    reads: I8
    writes: I8


class Clocks(NamedTuple):
    """Clock rates in Hz, the link's latency in ps, and whether every task waits for the one before."""

    dram_Hz: int
    asic_Hz: int
    link_ps: int
    barrier: bool


class Board(NamedTuple):
    """What the tasks wait for, in ps, and the channel classes.

    written, read: i8[register]  when last written, when last read
    free: i8[2]  when the last task of all ended, when the ASIC is free
    leader: i8[channel]  first channel of its class
    """

    written: I8
    read: I8
    free: I8
    leader: I8


@kernel
def ready_ps(stretch: Stretch, i: int, clocks: Clocks, board: Board) -> int:
    """Return when task i may start: after its inputs are written and its outputs no longer read."""
    if clocks.barrier:
        return int(board.free[0])
    t = 0
    for r in stretch.reads[i]:
        if r >= 0:
            t = max(t, board.written[r])
    for r in stretch.writes[i]:
        if r >= 0:
            t = max(t, board.written[r], board.read[r])
    return int(t)


@kernel
def alike(tables: Tables, state: State, a: int, b: int, start: int) -> bool:
    """Tell whether channels a and b will do the same from clock `start` on, given the same programs."""
    if state.scalar[a, DUE] != state.scalar[b, DUE] or state.scalar[a, ALL_ROW] != state.scalar[b, ALL_ROW]:
        return False
    if max(state.scalar[a, LAST], start - 1) != max(state.scalar[b, LAST], start - 1):
        return False
    if state.scalar[a, OPEN_BANKS] > 0 and state.scalar[a, CHANGED] != state.scalar[b, CHANGED]:
        return False
    if state.scalar[a, ALL_ROW] == SPLIT:
        for k in range(state.row.shape[1]):
            if state.row[a, k] != state.row[b, k]:
                return False
    for node in range(state.stamp.shape[1]):
        for c in range(state.stamp.shape[2]):
            x, y = state.stamp[a, node, c], state.stamp[b, node, c]
            if x != y and max(x, y) + tables.reach[c] > start:
                return False
    for w in range(state.window.shape[1]):
        for node in range(state.window.shape[2]):
            for k in range(tables.win_size[w]):
                x, y = state.window[a, w, node, k], state.window[b, w, node, k]
                if x != y and max(x, y) + tables.win_min[w] > start:
                    return False
    return True


@kernel
def copy_channel(state: State, a: int, b: int) -> None:
    """Give channel b the state of channel a. (Loops: an array assignment takes Numba seconds to compile.)"""
    for node in range(state.stamp.shape[1]):
        for c in range(state.stamp.shape[2]):
            state.stamp[b, node, c] = state.stamp[a, node, c]
    for w in range(state.window.shape[1]):
        for node in range(state.window.shape[2]):
            for k in range(state.window.shape[3]):
                state.window[b, w, node, k] = state.window[a, w, node, k]
    for k in range(state.row.shape[1]):
        state.row[b, k] = state.row[a, k]
    for k in range(state.scalar.shape[1]):
        state.scalar[b, k] = state.scalar[a, k]


@kernel
def separate(state: State, leader: I8) -> None:
    """Make every channel a class of its own."""
    for c in range(len(leader)):
        if leader[c] != c:
            copy_channel(state, leader[c], c)
            leader[c] = c


@kernel
def refresh(
    tables: Tables, code: Code, start: int, state: State, channel: int, scratch: Scratch, acc: I8, log: I8
) -> None:
    """Issue the refreshes of a channel that are due at clock `start`.

    The zero is read from an array, since Numba would compile `issue` once more for literal arguments.
    """
    zero = code.start[0]
    issue(tables, code, zero - 1, zero, zero, start, state, channel, scratch, acc, log)


@kernel
def clear(one: I8) -> None:
    """Set a row of books to zero."""
    for k in range(len(one)):
        one[k] = 0


@kernel
def share(leader: I8, c: int, one: I8, acc: I8) -> None:
    """Add what class c did to the books of all its channels; the steps of the kernel were done once."""
    steps = len(one) - EXTRAS + EXTRA_STEPPED
    for m in range(c, len(leader)):
        if leader[m] == c:
            for k in range(len(one)):
                if m == c or k != steps:
                    acc[m, k] += one[k]


@kernel
def run_chain(
    tables: Tables,
    code: Code,
    stretch: Stretch,
    repeat: int,
    row_stride: int,
    clocks: Clocks,
    state: State,
    board: Board,
    scratch: Scratch,
    one: I8,
    acc: I8,
    begin: I8,
    end: I8,
    logs: I8,
) -> None:
    """Run the stretch `repeat` times, base rows advancing by `row_stride`.

    one: i8[accumulators]  working memory; acc: i8[channel, accumulators]  added to
    begin, end: i8[repeat, n]  start and end of every task in ps, filled
    logs: i8[channel, room, 6]  log of every channel as `issue` fills it; room 0 = none. With logs every channel
    is computed by itself.
    """
    leader, free = board.leader, board.free
    channels = len(leader)
    logging = logs.shape[1] > 0
    if logging:
        separate(state, leader)
    for turn in range(repeat):
        for i in range(len(stretch.unit)):
            t = ready_ps(stretch, i, clocks, board)
            if stretch.unit[i] == ASIC:
                n = first_edge(max(t, free[1]), clocks.asic_Hz)
                begin[turn, i] = edge_ps(n, clocks.asic_Hz)
                done = edge_ps(n + stretch.cycles[i], clocks.asic_Hz)
                free[1] = done
            else:
                start = first_edge(t + clocks.link_ps, clocks.dram_Hz)
                begin[turn, i] = t
                classes = 0
                for c in range(channels - 1, -1, -1):
                    old = leader[c]
                    if old != c and stretch.program[i, c] != stretch.program[i, old]:
                        copy_channel(state, old, c)
                        leader[c] = c
                    classes += leader[c] == c
                if classes > 1 and not logging:
                    # Idle channels stay as they are: without barrier their next program may start earlier.
                    for c in range(channels):
                        if leader[c] == c and stretch.program[i, c] >= 0 and state.scalar[c, DUE] <= start:
                            clear(one)
                            refresh(tables, code, start, state, c, scratch, one, logs[c])
                            share(leader, c, one, acc)
                    for c in range(1, channels):
                        a, since = code.start[0], start if stretch.program[i, c] >= 0 else 2 * NEVER
                        while leader[c] == c and a < c:
                            if (
                                leader[a] == a
                                and stretch.program[i, a] == stretch.program[i, c]
                                and alike(tables, state, a, c, since)
                            ):
                                for m in range(c, channels):
                                    if leader[m] == c:
                                        leader[m] = a
                            a += 1
                last = start
                for c in range(channels):
                    if leader[c] == c and stretch.program[i, c] >= 0:
                        clear(one)
                        over = issue(
                            tables,
                            code,
                            stretch.program[i, c],
                            stretch.base_bank[i],
                            stretch.base_row[i] + turn * row_stride,
                            start,
                            state,
                            c,
                            scratch,
                            one,
                            logs[c],
                        )
                        last = max(last, over)
                        share(leader, c, one, acc)
                done = edge_ps(last, clocks.dram_Hz) + clocks.link_ps
            end[turn, i] = done
            free[0] = max(free[0], done)
            for r in stretch.reads[i]:
                if r >= 0:
                    board.read[r] = max(board.read[r], done)
            for r in stretch.writes[i]:
                if r >= 0:
                    board.written[r] = max(board.written[r], done)


@kernel
def settle(
    tables: Tables, code: Code, clock: int, state: State, board: Board, scratch: Scratch, acc: I8, logs: I8
) -> None:
    """Bring every channel to a clock at which all programs are over: the refreshes that fell due."""
    separate(state, board.leader)
    for c in range(len(board.leader)):
        refresh(tables, code, clock, state, c, scratch, acc[c], logs[c])


def new_board(registers: int, channels: int) -> Board:
    """Return the board at time 0: nothing written, one class of channels."""
    return Board(*(np.zeros(n, np.int64) for n in (registers, registers, 2, channels)))
