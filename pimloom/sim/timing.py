"""The timing core of the request-level controllers: when a command may issue, and what its issue forbids.

A node keeps for every command the clock from which on it may issue. These clocks only ever rise, so one that a
controller remembers can be too early, never too late.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pimloom.arch.rules import Rules
from pimloom.sim.jit import inlined, kernel

I8 = npt.NDArray[np.int64]


@inlined
def ready_at(rules: Rules, ready: I8, command: int, bank: int) -> int:
    """Return the first clock at which a command may issue to a bank."""
    clock = 0
    for level in range(rules.path.shape[1]):
        clock = max(clock, ready[rules.path[bank, level], command])
    return clock


@kernel
def ready_at_node(rules: Rules, ready: I8, command: int, node: int) -> int:
    """Return the first clock at which a command may issue to all that is below a node."""
    clock = 0
    for bank in range(rules.under[node, 0], rules.under[node, 1]):
        for level in range(rules.path.shape[1]):
            clock = max(clock, ready[rules.path[bank, level], command])
    return clock


@inlined
def stamp(rules: Rules, ready: I8, past: I8, command: int, bank: int, clock: int) -> None:
    """Note that a command issues to a bank."""
    for r in range(rules.row_start[command], rules.row_start[command + 1]):
        node = rules.path[bank, rules.rows[r, 0]]
        _bind(rules, ready, r, node, clock)
    for w in range(rules.window_start[command], rules.window_start[command + 1]):
        _count(rules, ready, past, w, rules.path[bank, rules.windows[w, 0]], clock)


@kernel
def stamp_node(rules: Rules, ready: I8, past: I8, command: int, node: int, clock: int) -> None:
    """Note that a command issues to all that is below a node."""
    begin, end = rules.under[node, 0], rules.under[node, 1]
    for r in range(rules.row_start[command], rules.row_start[command + 1]):
        last = -1
        for bank in range(begin, end):
            other = rules.path[bank, rules.rows[r, 0]]
            if other != last:
                _bind(rules, ready, r, other, clock)
            last = other
    for w in range(rules.window_start[command], rules.window_start[command + 1]):
        # A window is never deeper than the commands that it counts.
        _count(rules, ready, past, w, rules.path[begin, rules.windows[w, 0]], clock)


@inlined
def _bind(rules: Rules, ready: I8, r: int, node: int, clock: int) -> None:
    after, until = rules.rows[r, 1], clock + rules.rows[r, 2]
    if rules.rows[r, 3] == 0:
        ready[node, after] = max(ready[node, after], until)
        return
    for other in range(rules.kin[node, 0], rules.kin[node, 1]):
        if other != node:
            ready[other, after] = max(ready[other, after], until)


@inlined
def _count(rules: Rules, ready: I8, past: I8, w: int, node: int, clock: int) -> None:
    after, minimum, size = rules.windows[w, 1], rules.windows[w, 2], rules.windows[w, 3]
    issues = past[w, node, 0]
    past[w, node, 1 + issues % size] = clock
    issues += 1
    past[w, node, 0] = issues
    if issues >= size:
        # The ring is as long as the window, so the oldest entry is the one that counts.
        oldest = past[w, node, 1 + issues % size]
        ready[node, after] = max(ready[node, after], oldest + minimum)
