"""The timing rules of a memory as integer arrays over the tree of its nodes, for the controller kernels."""

from collections.abc import Collection
from math import prod
from typing import NamedTuple

import numpy as np

from pimloom.arch.dram import Array, Dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate


class Rules(NamedTuple):
    """One channel. C commands, N nodes, B banks, L levels, R rules, W windowed rules; all int64.

    A level with one node below each node of the level above is the same as that, so of the six levels only
    those count that branch, beside the channel and the bank. Nodes are numbered level by level, the banks last.
    """

    path: Array  # i8[B, L]   nodes on the way to a bank, the channel first, its own node last
    place: Array  # i8[C]      level that a command addresses
    first: Array  # i8[L]      first node of each level
    under: Array  # i8[N, 2]   first bank below a node, and the one behind the last
    kin: Array  # i8[N, 2]   first node of a node's level below the same parent, and the one behind the last
    row_start: Array  # i8[C+1]    rules with command c before are rows[row_start[c]:row_start[c+1]]
    rows: Array  # i8[R, 4]   level, command after, minimum in clocks (> 0), whether it binds the kin instead
    window_start: Array  # i8[C+1]    the same for windowed rules
    windows: Array  # i8[W, 4]   level, command after, minimum in clocks, how many issues back

    @property
    def state(self) -> tuple[Array, Array]:
        """Fresh state of a channel.

        ready i8[N, C]: clock from which on a command may issue, as far as the node is concerned;
        past i8[W, N, size + 1]: number of issues that a windowed rule has seen, and its ring of their clocks.
        """
        deepest = int(self.windows[:, 3].max(initial=0))
        nodes, commands = len(self.under), len(self.place)
        return (
            np.zeros((nodes, commands), np.int64),
            np.zeros((len(self.windows), nodes, deepest + 1), np.int64),
        )


def compile_rules(dram: Dram, issued: Collection[str] | None = None, lifted: bool = False) -> Rules:
    """Return the rules of a memory for its own timings, as far as they bind the commands that are issued (None = all).

    Rules with the same commands and nodes are one, with the larger minimum. Rules with a minimum of zero or
    less bind nothing, nor do rules between siblings where a node has none.

    lifted: rules stand on the level min(rule, before, after), which means the same, since a command that addresses a
    node stamps everything below it. Then the path to any bank below the addressed node is all that is stamped and read.
    """
    counts = dram.counts
    symbols = dram.symbols({})
    # The merged level of each of the six.
    branches = [False, *(n > 1 for n in counts[1:-1]), True]
    merged = {level: sum(branches[: i + 1]) for i, level in enumerate(LEVELS)}
    kept = [0, *(i for i, branch in enumerate(branches) if branch)]
    sizes = [prod(counts[: i + 1]) for i in kept]
    first = np.cumsum([0, *sizes])
    banks = np.arange(sizes[-1])
    path = np.stack(
        [start + banks // (sizes[-1] // n) for start, n in zip(first[:-1], sizes, strict=True)], axis=1
    )
    under, kin = [], []
    for level, (start, n) in enumerate(zip(first[:-1], sizes, strict=True)):
        share, brothers = sizes[-1] // n, n // sizes[level - 1] if level else 1
        for i in range(n):
            under.append((i * share, (i + 1) * share))
            eldest = start + i // brothers * brothers
            kin.append((eldest, eldest + brothers))

    ids = {name: i for i, name in enumerate(dram.commands)}
    rows: dict[tuple[int, int, int, bool], int] = {}
    windows: dict[tuple[int, int, int, int], int] = {}
    for rule in dram.constraints.values():
        minimum = evaluate(rule.minimum, symbols)
        if minimum <= 0 or (rule.siblings and counts[LEVELS.index(rule.level)] == 1):
            continue
        for before, after in (
            (b, a) for b in rule.before for a in rule.after if issued is None or a in issued
        ):
            level = merged[rule.level]
            if lifted:
                level = min(level, *(merged[dram.commands[name].target] for name in (before, after)))
            if rule.window > 1:
                window = (ids[before], level, ids[after], rule.window)
                windows[window] = max(minimum, windows.get(window, 0))
            else:
                key = (ids[before], level, ids[after], rule.siblings)
                rows[key] = max(minimum, rows.get(key, 0))

    flat = [(before, level, after, n, kin) for (before, level, after, kin), n in sorted(rows.items())]
    wide = [(before, level, after, n, size) for (before, level, after, size), n in sorted(windows.items())]
    return Rules(
        path=_frozen(path),
        place=_frozen([merged[c.target] for c in dram.commands.values()]),
        first=_frozen(first[:-1]),
        under=_frozen(under),
        kin=_frozen(kin),
        row_start=_frozen(np.searchsorted([row[0] for row in flat], range(len(ids) + 1))),
        rows=_frozen([row[1:] for row in flat] or np.empty((0, 4))),
        window_start=_frozen(np.searchsorted([row[0] for row in wide], range(len(ids) + 1))),
        windows=_frozen([row[1:] for row in wide] or np.empty((0, 4))),
    )


def _frozen(values: object) -> Array:
    array: Array = np.array(values, dtype=np.int64)
    array.flags.writeable = False
    return array
