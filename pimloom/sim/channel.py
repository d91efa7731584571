"""The channel kernel: issue a command program at the earliest legal clocks, refresh included.

Semantics (JEDEC-style, as in `docs/design.md`): a command stamps the nodes on its path and all nodes
below its target; it may issue when every constraint row on those nodes is met. Because stamps never
decrease, "the latest stamp on any node below" is the stamp of the common node, so `arch.dram` has
already lifted every row to the level min(row, before, after) and one look-up per row is enough.

Refresh: due at k x nREFI in absolute clocks. From then on no program command issues; PREA (if a bank
is open) and REFab issue at their first legal clocks, then the rows that were open are activated again.

Exact fast-forward: a run of one command on one node repeats at a fixed gap, since only its own stamp
moves; and once the state relative to the current clock repeats from one loop iteration to a later one,
all iterations up to the next refresh repeat too (max-plus periodicity). Both are switched off while
commands are logged.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.dram import Tables
from pimloom.sim.jit import kernel
from pimloom.traces.program import END, LOOP, MAX_DEPTH

I8 = npt.NDArray[np.int64]
I4 = npt.NDArray[np.int32]

NEVER = -(1 << 40)
"""Stamp of a command that was never issued, in clocks."""
ALL_ROW, OPEN_BANKS, LAST, DUE, CHANGED, SCALARS = range(6)
"""Scalars of a channel: row open in all banks (CLOSED, or SPLIT where banks differ); open banks; clock of
the last command; clock of the next refresh; clock at which the number of open banks last changed."""
CLOSED, SPLIT = -1, -2
OPENS, CLOSES = 1, 2
"""Values of `Tables.effect`."""
FEW, PAYS = 2, 24
"""Iterations, and instructions, still to come in a loop beyond which looking for a period pays (measured)."""
IDLE, CLOSE, RENEW, REOPEN = range(4)
"""Phases of a refresh: none under way, close the banks, refresh, open their rows again."""
EXTRA_BANK_OPEN, EXTRA_ANY_OPEN, EXTRA_TAIL, EXTRA_STEPPED, EXTRAS = range(5)
"""Accumulators behind the two per-command blocks: bank-clocks open, clocks with a bank open, clocks from
the last command to the end of its data, commands stepped one by one (the others were skipped)."""


class State(NamedTuple):
    """State of every channel at a moment; all times in clocks.

    stamp: i8[channel, node, command]           last issue
    window: i8[channel, rule, node, size]       last issues for windowed rules, newest first
    row: i8[channel, bank]                      open row, CLOSED if none; valid while ALL_ROW is SPLIT
    scalar: i8[channel, SCALARS]
    """

    stamp: I8
    window: I8
    row: I8
    scalar: I8


class Code(NamedTuple):
    """Programs one behind the other, struct of arrays as `traces.program.Program`; `start` i8[programs + 1]."""

    start: I8
    code: I4
    times: I4
    bank: I4
    row: I4
    column: I4
    buffer: I4
    d_bank: I4
    d_column: I4
    d_buffer: I4


class Scratch(NamedTuple):
    """Working memory of the kernel, owned by the caller: one snapshot of the state per loop depth.

    stamp: i8[depth, node, command]; window: i8[depth, rule, node, size]; row: i8[depth, bank];
    scalar: i8[depth, SCALARS + 1] (the last is the end of data); acc: i8[depth, accumulators]
    loop: i8[4, depth]  place of the loop, iterations done, iteration of the snapshot, wait for the next one
    """

    stamp: I8
    window: I8
    row: I8
    scalar: I8
    acc: I8
    loop: I8


def new_state(tables: Tables, channels: int) -> State:
    """Return the state at clock 0: all banks closed, nothing issued, first refresh due at nREFI."""
    groups, per_group = int(tables.shape[0]), int(tables.shape[1])
    nodes, commands = 1 + groups + groups * per_group, len(tables.target)
    size = max([1, *tables.win_size.tolist()])
    scalar = np.zeros((channels, SCALARS), np.int64)
    scalar[:, ALL_ROW] = CLOSED
    scalar[:, LAST] = NEVER
    scalar[:, DUE] = tables.refresh[0] if tables.refresh[0] > 0 else np.iinfo(np.int64).max
    return State(
        np.full((channels, nodes, commands), NEVER, np.int64),
        np.full((channels, len(tables.win_size), nodes, size), NEVER, np.int64),
        np.full((channels, groups * per_group), CLOSED, np.int64),
        scalar,
    )


def new_scratch(tables: Tables) -> Scratch:
    """Return working memory for `issue`."""
    one = new_state(tables, MAX_DEPTH)
    return Scratch(
        one.stamp,
        one.window,
        one.row,
        np.zeros((MAX_DEPTH, SCALARS + 1), np.int64),
        np.zeros((MAX_DEPTH, accumulators(tables)), np.int64),
        np.zeros((4, MAX_DEPTH), np.int64),
    )


def accumulators(tables: Tables) -> int:
    """Return the length of an accumulator row: issues and clocks per command, then the extras."""
    return 2 * len(tables.target) + EXTRAS


@kernel
def write(log: I8, clock: int, command: int, bank: int, row: int) -> None:
    """Append a command without column and buffer column to a log; one that is full only counts on."""
    at = log[0, 0] + 1
    log[0, 0] = at
    if at < len(log):
        log[at, 0], log[at, 1], log[at, 2], log[at, 3], log[at, 4], log[at, 5] = (
            clock,
            command,
            bank,
            row,
            -1,
            -1,
        )


@kernel
def place(log: I8, code: Code, pc: int, k: int, plus_row: int, plus_column: int, plus_buffer: int) -> None:
    """Complete the last entry of a log with the row and the columns of issue k of instruction pc."""
    at = log[0, 0]
    if at >= len(log):
        return
    if code.row[pc] >= 0:
        log[at, 3] = code.row[pc] + plus_row
    if code.column[pc] >= 0:
        log[at, 4] = code.column[pc] + plus_column + k * code.d_column[pc]
    if code.buffer[pc] >= 0:
        log[at, 5] = code.buffer[pc] + plus_buffer + k * code.d_buffer[pc]


@kernel
def issue(
    tables: Tables,
    code: Code,
    program: int,
    base_bank: int,
    base_row: int,
    start: int,
    state: State,
    channel: int,
    scratch: Scratch,
    acc: I8,
    log: I8,
) -> int:
    """Issue one program on one channel from clock `start` on; return the clock at which its last data is over.

    program: index into `code`, or -1 for no commands (refreshes due up to `start` are still issued)
    acc: i8[accumulators]  added to; log: i8[n, 6]  clock, command, bank, row, column, buffer of every command
    issued, filled from row log[0, 0] on (which counts the entries); empty = no log.
    """
    target, effect, duration = tables.target, tables.effect, tables.duration
    row_start, row_before, row_level, row_min = (
        tables.row_start,
        tables.row_before,
        tables.row_level,
        tables.row_min,
    )
    win_after, win_before, win_level = tables.win_after, tables.win_before, tables.win_level
    win_min, win_size, reach, gap = tables.win_min, tables.win_size, tables.reach, tables.gap
    groups, per_group = tables.shape[0], tables.shape[1]
    interval, id_prea, id_ref, id_open_all, id_open = (
        tables.refresh[0],
        tables.refresh[1],
        tables.refresh[2],
        tables.refresh[3],
        tables.refresh[4],
    )
    op, count, bank_of, row_of, column_of, buffer_of = (
        code.code,
        code.times,
        code.bank,
        code.row,
        code.column,
        code.buffer,
    )
    d_bank = code.d_bank
    stamp, window, open_row, scalar = (
        state.stamp[channel],
        state.window[channel],
        state.row[channel],
        state.scalar[channel],
    )
    old_stamp, old_window, old_row, old_scalar, old_acc = (
        scratch.stamp,
        scratch.window,
        scratch.row,
        scratch.scalar,
        scratch.acc,
    )
    commands, banks, windows = len(target), groups * per_group, len(win_after)
    extras = 2 * commands
    logging = len(log) > 0

    all_row, open_banks, last, due, changed = (
        scalar[ALL_ROW],
        scalar[OPEN_BANKS],
        scalar[LAST],
        scalar[DUE],
        scalar[CHANGED],
    )
    end, cursor = start, max(start, last)
    if program >= 0:
        # A refresh under way holds the program up: its clocks are its own, not those of the command behind it.
        over = stamp[0, id_ref] + duration[id_ref] if interval > 0 else cursor
        if over > cursor:
            acc[commands + id_ref] += over - cursor
            cursor = over
    pc = code.start[program] if program >= 0 else 0
    stop = code.start[program + 1] if program >= 0 else 0
    loop_pc, loop_done = scratch.loop[0], scratch.loop[1]
    seen_at, power = scratch.loop[2], scratch.loop[3]  # iteration of the snapshot (-1 = none); Brent's power
    depth = 0
    plus_row = plus_column = plus_buffer = 0
    k = 0  # issues done of the current instruction
    stepped = 0
    previous, previous_bank = -1, -1  # last command, if it was one of the program
    phase = IDLE  # of a refresh
    restore, restore_bank = CLOSED, 0

    while True:
        # What comes next: a step of a refresh under way, else the program.
        if phase == IDLE:
            if pc == stop:
                if program >= 0 or due > start:
                    break
                phase = CLOSE
                continue
            c = op[pc]
            if c == LOOP:
                loop_pc[depth], loop_done[depth], seen_at[depth], power[depth] = pc, 0, -1, 1
                depth += 1
                pc += 1
                continue
            if c == END:
                d = depth - 1
                head = loop_pc[d]
                loop_done[d] += 1
                plus_row += row_of[head]
                plus_column += column_of[head]
                plus_buffer += buffer_of[head]
                left = count[head] - loop_done[d]
                if left > FEW and left * (pc - head) > PAYS and not logging:
                    same = seen_at[d] >= 0
                    if same:
                        then = old_scalar[d, LAST]
                        period = last - then
                        same = (
                            old_scalar[d, OPEN_BANKS] == open_banks
                            and (old_scalar[d, ALL_ROW] < 0) == (all_row < 0)
                            and (all_row >= 0 or old_scalar[d, ALL_ROW] == all_row)
                            and old_scalar[d, DUE] == due
                            and old_scalar[d, SCALARS] + period == end
                            and (
                                old_scalar[d, CHANGED] + period == changed
                                or old_scalar[d, CHANGED] == changed
                            )
                        )
                        if same:
                            for node in range(len(stamp)):
                                for b in range(commands):
                                    if stamp[node, b] - old_stamp[d, node, b] != period and (
                                        stamp[node, b] + reach[b] > then
                                        or stamp[node, b] != old_stamp[d, node, b]
                                    ):
                                        same = False
                        if same:
                            for w in range(windows):
                                for node in range(window.shape[1]):
                                    for i in range(win_size[w]):
                                        moved = window[w, node, i] - old_window[d, w, node, i]
                                        if moved != period and (
                                            window[w, node, i] + win_min[w] > then or moved != 0
                                        ):
                                            same = False
                        if same and all_row == SPLIT:
                            for b in range(banks):
                                if (open_row[b] < 0) != (old_row[d, b] < 0):
                                    same = False
                    if same:
                        ago = loop_done[d] - seen_at[d]
                        times = min(left // ago, (due - 1 - last) // period)
                        if times > 0:
                            jump = times * period
                            for node in range(len(stamp)):
                                for b in range(commands):
                                    if stamp[node, b] != old_stamp[d, node, b]:
                                        stamp[node, b] += jump
                            for w in range(windows):
                                for node in range(window.shape[1]):
                                    for i in range(win_size[w]):
                                        if window[w, node, i] != old_window[d, w, node, i]:
                                            window[w, node, i] += jump
                            if all_row == SPLIT:
                                for b in range(banks):
                                    open_row[b] += times * (open_row[b] - old_row[d, b])
                            elif all_row >= 0:
                                all_row += times * (all_row - old_scalar[d, ALL_ROW])
                            if changed != old_scalar[d, CHANGED]:
                                changed += jump
                            for i in range(len(acc)):
                                acc[i] += times * (acc[i] - old_acc[d, i])
                            last += jump
                            end += jump
                            cursor += jump
                            loop_done[d] += times * ago
                            plus_row += times * ago * row_of[head]
                            plus_column += times * ago * column_of[head]
                            plus_buffer += times * ago * buffer_of[head]
                        seen_at[d] = -1
                        power[d] = 1
                    elif seen_at[d] < 0 or old_scalar[d, DUE] != due or loop_done[d] - seen_at[d] >= power[d]:
                        power[d] = 1 if seen_at[d] < 0 or old_scalar[d, DUE] != due else 2 * power[d]
                        seen_at[d] = loop_done[d]
                        # Loops: an array assignment takes Numba seconds to compile.
                        for node in range(len(stamp)):
                            for b in range(commands):
                                old_stamp[d, node, b] = stamp[node, b]
                        for w in range(windows):
                            for node in range(window.shape[1]):
                                for i in range(win_size[w]):
                                    old_window[d, w, node, i] = window[w, node, i]
                        for b in range(banks):
                            old_row[d, b] = open_row[b]
                        for i in range(len(acc)):
                            old_acc[d, i] = acc[i]
                        old_scalar[d, ALL_ROW], old_scalar[d, OPEN_BANKS] = all_row, open_banks
                        old_scalar[d, LAST], old_scalar[d, DUE] = last, due
                        old_scalar[d, CHANGED], old_scalar[d, SCALARS] = changed, end
                if loop_done[d] < count[head]:
                    pc = head + 1
                else:
                    depth = d
                    plus_row -= count[head] * row_of[head]
                    plus_column -= count[head] * column_of[head]
                    plus_buffer -= count[head] * buffer_of[head]
                    pc += 1
                continue
            bank = bank_of[pc] + k * d_bank[pc]
            if target[c] > 0:
                bank = (bank + base_bank) % banks
            row = row_of[pc]
            row = row + plus_row + base_row if row >= 0 else -1
            floor = max(start, last + 1)
            if c == previous and bank == previous_bank and gap[c] > 0:
                # Only its own stamp has moved since the last issue, so the gap is the whole rule.
                step, before, same_bank = gap[c], last, bank_of[pc] + k * d_bank[pc]
                while True:
                    if k == 0 and not logging:
                        fit, n = (due - 1 - last) // step, 0
                        while (
                            pc < stop
                            and op[pc] == c
                            and bank_of[pc] == same_bank
                            and d_bank[pc] == 0
                            and n + count[pc] <= fit
                        ):
                            n += count[pc]
                            pc += 1
                        last += n * step
                        if pc == stop or op[pc] != c or bank_of[pc] != same_bank:
                            break
                    n = count[pc] - k if d_bank[pc] == 0 else 1
                    if last + n * step >= due:
                        n = (due - 1 - last) // step
                    if logging:
                        for i in range(k, k + n):
                            write(log, last + (i - k + 1) * step, c, bank, row)
                            place(log, code, pc, i, base_row + plus_row, plus_column, plus_buffer)
                    last += n * step
                    k += n
                    if k < count[pc]:
                        break
                    k = 0
                    pc += 1
                    if pc == stop or op[pc] != c or bank_of[pc] != same_bank:
                        break
                if last > before:
                    stamp[0, c] = last
                    if target[c] > 0:
                        stamp[1 + bank // per_group, c] = last
                        stamp[1 + groups + bank, c] = last
                    acc[c] += (last - before) // step
                    acc[commands + c] += last - cursor
                    stepped += 1
                    cursor = last
                    end = max(end, last + duration[c])
                    continue
        else:
            bank, row, floor = -1, -1, last + 1
            if phase == CLOSE:
                restore = all_row if open_banks > 0 else CLOSED
                restore_bank = 0
                if open_banks == 0:
                    phase = RENEW
                c = id_prea if phase == CLOSE else id_ref
                floor = max(floor, due)
            elif phase == RENEW:
                c = id_ref
                floor = max(floor, due)
            elif restore >= 0:
                c, row = id_open_all, restore
            else:
                while restore_bank < banks and (restore != SPLIT or open_row[restore_bank] < 0):
                    restore_bank += 1
                if restore == CLOSED or restore_bank == banks:
                    phase = IDLE
                    continue
                c, bank, row = id_open, restore_bank, open_row[restore_bank]

        # The earliest legal clock.
        t = floor
        group_node = 1 + bank // per_group
        bank_node = 1 + groups + bank
        for r in range(row_start[c], row_start[c + 1]):
            level = row_level[r]
            node = 0 if level == 0 else (group_node if level == 1 else bank_node)
            t = max(t, stamp[node, row_before[r]] + row_min[r])
        for w in range(windows):
            if win_after[w] == c:
                node = 0 if win_level[w] == 0 else (group_node if win_level[w] == 1 else bank_node)
                t = max(t, window[w, node, win_size[w] - 1] + win_min[w])
        if phase == IDLE and t >= due:
            phase = CLOSE
            previous = -1
            continue

        # Issue.
        if logging:
            write(log, t, c, bank, row)
            if phase == IDLE:
                place(log, code, pc, k, base_row + plus_row, plus_column, plus_buffer)
        stamp[0, c] = t
        if target[c] > 0:
            stamp[group_node, c] = t
            stamp[bank_node, c] = t
        for w in range(windows):
            if win_before[w] == c:
                node = 0 if win_level[w] == 0 else (group_node if win_level[w] == 1 else bank_node)
                for i in range(win_size[w] - 1, 0, -1):
                    window[w, node, i] = window[w, node, i - 1]
                window[w, node, 0] = t
        if effect[c] > 0:
            acc[extras + EXTRA_BANK_OPEN] += open_banks * (t - changed)
            if open_banks > 0:
                acc[extras + EXTRA_ANY_OPEN] += t - changed
            changed = t
            if target[c] == 0:
                if effect[c] == OPENS:
                    all_row, open_banks = row, banks
                else:
                    # A refresh opens the same rows again, so it leaves `open_row` as its memory.
                    all_row, open_banks = CLOSED, 0
            else:
                if all_row != SPLIT and not (phase == REOPEN and restore == SPLIT):
                    for b in range(banks):
                        open_row[b] = all_row
                all_row = SPLIT
                if effect[c] == OPENS:
                    open_row[bank] = row
                    open_banks += 1
                elif open_row[bank] != CLOSED:
                    open_row[bank] = CLOSED
                    open_banks -= 1
                if open_banks == 0:
                    all_row = CLOSED
        acc[c] += 1
        acc[commands + c] += max(t, cursor) - cursor
        stepped += 1
        cursor = max(t, cursor)
        last = t
        if c == id_ref and program >= 0:
            over = t + duration[c]
            acc[commands + c] += max(over, cursor) - cursor
            cursor = max(over, cursor)
        if phase == IDLE:
            end = max(end, t + duration[c])
            previous, previous_bank = c, bank
            k += 1
            if k == count[pc]:
                k = 0
                pc += 1
        elif phase == REOPEN:
            if restore >= 0:
                phase = IDLE
            else:
                restore_bank += 1
        else:
            phase += 1
            if phase == REOPEN:
                due += interval

    if program >= 0:
        acc[extras + EXTRA_TAIL] += max(0, end - cursor)
    acc[extras + EXTRA_STEPPED] += stepped
    scalar[ALL_ROW], scalar[OPEN_BANKS], scalar[LAST], scalar[DUE], scalar[CHANGED] = (
        all_row,
        open_banks,
        last,
        due,
        changed,
    )
    return int(end)
