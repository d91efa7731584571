"""Whether a command trace obeys its memory: every rule on every node, buses, rows, refresh, nothing left behind.

Works from the rules as the description words them, and shares nothing with the simulators.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pimloom.arch.dram import Dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate
from pimloom.traces.due import FOREVER, NEVER, Due
from pimloom.traces.io import CommandTrace

CLOSED = -1
HALF_OPEN = -2
"""State of a bank whose row 0 is half open; that of row r is r less."""
PSEUDOCHANNEL, RANK, STACK_ID, BANK = (
    LEVELS.index(level) for level in ("pseudochannel", "rank", "stack_id", "bank")
)
ROW_COMMANDS = frozenset({"activate", "activate_first", "activate_second", "precharge", "refresh"})
SYNCS = {"sync_read": "read", "sync_write": "write"}


@dataclass(frozen=True)
class Violation:
    """One thing that a trace does and must not, or does not and must.

    record: number of the command in the trace, from 1; its line in a CSV file is one more
    rule: name of the constraint, or address, order, command_bus, bank_state, split_activate, wck_sync, refresh,
        left_open
    """

    record: int
    cycle: int
    channel: int
    command: str
    rule: str
    message: str

    def __str__(self) -> str:
        return f"record {self.record}: channel {self.channel}: {self.rule}: {self.message}"


def check(
    dram: Dram,
    symbols: Mapping[str, int],
    trace: CommandTrace,
    partial: bool = False,
    channels: Collection[int] | None = None,
    rows_may_stay_open: bool = False,
) -> list[Violation]:
    """Return everything that is wrong with a trace, in its order.

    symbols: values of the names in the rules, as `Dram.symbols` gives them
    partial: the trace may end anywhere; else no row may be open and no refresh be due at its last command
    channels: those on which nothing may be left at the end; None = all of the memory, idle ones too
    rows_may_stay_open: at the end, as when the requests to an open-page controller have run out

    The trace may begin in mid-run, but with all banks closed and WCK at rest: what came before its first command
    binds nothing, and a refresh that was due at or before that command's cycle may still come and need not.

    Every node that the refresh command addresses has refreshes of its own. One is due at every multiple of the
    interval, which is nREFI or the time in which the policy goes through all banks; where a channel has several such
    nodes, each may be out of step by up to an interval, always the same. Without postponement nothing but
    precharges may come to the node from then on until its refresh does, and no refresh before. With it, up to
    `refresh.postpone` refreshes may be late or early, and when one more is due it is missing, even where nothing
    else happens or a partial trace ends. A refresh that was reported as missing is not missed again, nor one that
    came early.
    """
    tree = _Tree(dram)
    issued = {int(i) for i in np.unique(trace.command)}
    kinds = _kinds(dram, symbols, trace.commands, issued)
    found: list[Violation] = []
    start = int(trace.cycle.min()) if len(trace) else 0
    states = [_Channel(dram, symbols, tree, kinds, c, start, found) for c in range(dram.channels)]
    node, misplaced = _nodes(dram, kinds, trace)
    fields = (trace.cycle, trace.command, trace.channel, node, trace.row)
    columns = (field.tolist() for field in fields)
    for record, (cycle, command, channel, at, row) in enumerate(zip(*columns, strict=True), 1):
        if at < 0:
            name = trace.commands[command]
            texts = misplaced.get(record) or [f"there is no channel {channel}"]
            found += (
                Violation(record, cycle, channel, name, "address", f"{name} at {cycle}: {text}")
                for text in texts
            )
        else:
            states[channel].see(record, cycle, command, at, row)
    if len(trace):
        last = int(trace.cycle.max())
        for c in range(dram.channels) if channels is None else channels:
            states[c].finish(len(trace), last, partial, rows_may_stay_open)
    return sorted(found, key=lambda violation: violation.record)


# --- the memory --------------------------------------------------------------------------------------------


class _Tree:
    """The nodes of one channel, numbered within each level.

    sizes: nodes of each level
    paths: [level][node] the node itself and those above it, the channel first
    """

    def __init__(self, dram: Dram) -> None:
        self.counts = dram.counts
        self.sizes = [prod(self.counts[: i + 1]) for i in range(len(LEVELS))]
        self.paths = [
            [tuple(node // (size // above) for above in self.sizes[: i + 1]) for node in range(size)]
            for i, size in enumerate(self.sizes)
        ]

    def below(self, level: int, node: int, lower: int) -> range:
        """Return the nodes of a lower level, or the same, that lie below a node."""
        each = self.sizes[lower] // self.sizes[level]
        return range(node * each, (node + 1) * each)

    def siblings(self, level: int, node: int) -> list[int]:
        """Return the other nodes under the same parent."""
        first = node - node % self.counts[level]
        return [other for other in range(first, first + self.counts[level]) if other != node]

    def name(self, level: int, node: int) -> str:
        """Return the place of a node within its channel, such as `rank 1, bank 5`; empty for the channel.

        Levels with one node are left out; banks are counted through all bank groups.
        """
        path = self.paths[level][node]
        inner = range(PSEUDOCHANNEL, level + 1) if level < BANK else range(PSEUDOCHANNEL, STACK_ID + 1)
        words = [f"{LEVELS[i]} {path[i] % self.counts[i]}" for i in inner if self.counts[i] > 1]
        if level == BANK:
            words.append(f"bank {node % prod(self.counts[STACK_ID + 1 :])}")
        return ", ".join(words)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A constraint seen from one command that comes after; `before` are ids of issued commands."""

    name: str
    text: str
    level: int
    before: tuple[int, ...]
    minimum: int
    window: int
    siblings: bool


@dataclass(frozen=True, slots=True)
class _Kind:
    """A command with its rules; `level` is that of its target."""

    name: str
    level: int
    meaning: str
    effect: str
    needs: str
    row: bool
    column: bool
    rules: tuple[_Rule, ...]


def _kinds(
    dram: Dram, symbols: Mapping[str, int], commands: tuple[str, ...], issued: Collection[int]
) -> list[_Kind]:
    ids = {name: i for i, name in enumerate(commands) if i in issued}
    minima = {name: evaluate(rule.minimum, symbols) for name, rule in dram.constraints.items()}

    def rules(after: str) -> Iterator[_Rule]:
        for name, rule in dram.constraints.items():
            before = tuple(ids[b] for b in rule.before if b in ids)
            if before and after in rule.after and minima[name] > 0:
                level = LEVELS.index(rule.level)
                yield _Rule(name, rule.minimum, level, before, minima[name], rule.window, rule.siblings)

    return [
        _Kind(
            name, LEVELS.index(c.target), c.meaning, c.bank, c.needs, c.row, c.column, tuple(rules(name))
        )
        for name, c in ((name, dram.commands[name]) for name in commands)
    ]  # fmt: skip


def _nodes(
    dram: Dram, kinds: Sequence[_Kind], trace: CommandTrace
) -> tuple[npt.NDArray[np.int64], dict[int, list[str]]]:
    """Return the node that each command addresses, or -1, and what is wrong with an address by record.

    An address is there as far as the command needs it, and no further.
    """
    _, pseudochannels, ranks, stack_ids, bankgroups, banks = dram.counts
    # The rank column is that of all stack IDs for the only rank; of several, any stack ID of its own names a rank.
    rank_level = RANK if ranks > 1 or stack_ids == 1 else STACK_ID
    fields = (
        ("pseudochannel", pseudochannels, [kind.level >= PSEUDOCHANNEL for kind in kinds]),
        ("rank", ranks * stack_ids, [kind.level >= rank_level for kind in kinds]),
        ("bankgroup", bankgroups, [kind.level >= BANK - 1 for kind in kinds]),
        ("bank", banks, [kind.level >= BANK for kind in kinds]),
        ("row", dram.rows, [kind.row for kind in kinds]),
        ("column", dram.columns, [kind.column for kind in kinds]),
    )
    there = (trace.channel >= 0) & (trace.channel < dram.channels)
    good = there.copy()
    bad: dict[int, list[str]] = {}
    for name, size, has in fields:
        values, needed = getattr(trace, name), np.array(has, bool)[trace.command]
        optional = size == 1 and name in ("pseudochannel", "rank")
        low = np.where(needed & (not optional), 0, -1)
        high = np.where(needed | optional, size - 1, -1)
        outside = ((values < low) | (values > high)) & there
        good &= ~outside
        for i in np.flatnonzero(outside):
            should = f"should be 0 to {size - 1}" if high[i] >= 0 else "does not apply and should be -1"
            bad.setdefault(int(i) + 1, []).append(f"{name} {should}, not {values[i]}")
    path = np.zeros(len(trace), np.int64)
    paths = [path]
    rank = np.maximum(trace.rank, 0)
    parts = (
        np.maximum(trace.pseudochannel, 0),
        rank // stack_ids,
        rank % stack_ids,
        trace.bankgroup,
        trace.bank,
    )
    for count, part in zip(dram.counts[1:], parts, strict=True):
        path = path * count + part
        paths.append(path)
    levels = np.array([kind.level for kind in kinds], np.int64)[trace.command]
    return np.where(good, np.choose(levels, paths), -1), bad


# --- one channel -------------------------------------------------------------------------------------------


class _Stamps(NamedTuple):
    """Clocks by which a command binds others, by node of a level: of its last issue, or the window-th last.

    past: by node the clocks of the latest issues, oldest first; empty for a window of 1
    others: by node those to stamp in its stead; empty where a command stamps its own node
    """

    level: int
    at: list[int]
    past: list[deque[int]]
    others: list[list[int]]


class _Channel:
    """What is known of one channel after the commands seen so far.

    stamps: by command
    near: by command, what to compare on its own path: stamps, their level, minimum
    far: by command, the same on nodes below its own
    state: by bank CLOSED, the row that is open, or HALF_OPEN - row
    changed: by bank record, clock and name of the command that did it
    halves: clock of the activate that opened a row by half, by bank
    """

    def __init__(
        self,
        dram: Dram,
        symbols: Mapping[str, int],
        tree: _Tree,
        kinds: list[_Kind],
        number: int,
        start: int,
        found: list[Violation],
    ) -> None:
        self.dram, self.tree, self.kinds, self.number, self.found = dram, tree, kinds, number, found
        self._lay_out_rules()
        self.state = [CLOSED] * dram.banks
        self.changed = [(0, 0, "")] * dram.banks
        self.halves: dict[int, int] = {}
        self.half_clocks = symbols["nAAD"] if any(k.meaning == "activate_second" for k in kinds) else 0
        self.cycle = NEVER
        split = dram.command_bus != "shared"
        self.buses = [int(split and kind.meaning not in ROW_COMMANDS) for kind in kinds]
        self.taken = [NEVER, NEVER]
        self.half_clock = dram.command_bus == "half_clock"
        self.edge = (NEVER, -1, -1)  # clock, pseudo-channel, and bank; -1 = all
        self.wck = _Wck(symbols) if any(kind.meaning in SYNCS for kind in kinds) else None
        self.refresh = _Refreshes(dram, tree, start) if dram.refresh.policy != "none" else None

    def _lay_out_rules(self) -> None:
        table: dict[tuple[int, int, int, bool], _Stamps] = {}
        self.stamps: list[list[_Stamps]] = [[] for _ in self.kinds]
        self.near: list[list[tuple[list[int], int, int]]] = [[] for _ in self.kinds]
        self.far: list[list[tuple[list[int], int, int]]] = [[] for _ in self.kinds]
        self.lookups: list[list[list[tuple[int, _Stamps]]]] = [[] for _ in self.kinds]
        for after, kind in enumerate(self.kinds):
            for rule in kind.rules:
                lookups = []
                for b in rule.before:
                    if rule.siblings and self.kinds[b].level < rule.level:
                        continue  # it addresses all of the siblings itself
                    level = min(rule.level, self.kinds[b].level)
                    key = (b, level, rule.window, rule.siblings)
                    if key not in table:
                        table[key] = self._new_stamps(level, rule.window, rule.siblings)
                        self.stamps[b].append(table[key])
                    lookups.append((b, table[key]))
                    where = self.near if level <= kind.level else self.far
                    where[after].append((table[key].at, level, rule.minimum))
                self.lookups[after].append(lookups)

    def _new_stamps(self, level: int, window: int, siblings: bool) -> _Stamps:
        nodes = range(self.tree.sizes[level])
        past = [deque[int](maxlen=window) for _ in nodes] if window > 1 else []
        others = [self.tree.siblings(level, node) for node in nodes] if siblings else []
        return _Stamps(level, [NEVER] * len(nodes), past, others)

    def see(self, record: int, cycle: int, command: int, node: int, row: int) -> None:
        """Check one command against the past and make it part of that."""
        kind = self.kinds[command]
        if cycle < self.cycle:
            text = f"{kind.name} at {cycle} stands behind a command at {self.cycle}"
            self._add(record, cycle, kind.name, "order", text)
            return
        path = self.tree.paths[kind.level][node]
        bus = self.buses[command]
        if cycle == self.taken[bus] or self.half_clock:
            self._bus(record, cycle, kind, path, bus)
        self.cycle = self.taken[bus] = cycle
        if self._comes_early(cycle, command, path):
            self._rules(record, cycle, command, path)
        if self.refresh and kind.meaning != "precharge":
            for text in self.refresh.see(cycle, kind, path):
                self._add(record, cycle, kind.name, "refresh", text)
        if self.wck:
            for text in self.wck.see(cycle, kind, path):
                self._add(record, cycle, kind.name, "wck_sync", text)
        if self.halves:
            self._halves(record, cycle, kind)
        self._rows(record, cycle, kind, node, row)
        self._stamp(cycle, command, path)

    def _comes_early(self, cycle: int, command: int, path: tuple[int, ...]) -> bool:
        for at, level, minimum in self.near[command]:
            if cycle - at[path[level]] < minimum:
                return True
        for at, level, minimum in self.far[command]:
            nodes = self.tree.below(len(path) - 1, path[-1], level)
            if cycle - max(at[nodes.start : nodes.stop]) < minimum:
                return True
        return False

    def _stamp(self, cycle: int, command: int, path: tuple[int, ...]) -> None:
        for level, at, past, others in self.stamps[command]:
            own = path[level]
            if past:
                issues = past[own]
                issues.append(cycle)
                if len(issues) == issues.maxlen:
                    at[own] = issues[0]
            elif others:
                for other in others[own]:
                    at[other] = cycle
            else:
                at[own] = cycle

    def _add(self, record: int, cycle: int, command: str, rule: str, message: str) -> None:
        self.found.append(Violation(record, cycle, self.number, command, rule, message))

    def _bus(self, record: int, cycle: int, kind: _Kind, path: tuple[int, ...], bus: int) -> None:
        """Check that the bus is free, and clocks of half a CK: who may use them and what an edge rules out."""
        if cycle == self.taken[bus]:
            which = "" if self.dram.command_bus == "shared" else ("row ", "column ")[bus]
            text = f"{kind.name} at {cycle} comes 0 clocks after the {which}command before, 1 needed"
            self._add(record, cycle, kind.name, "command_bus", text)
        if not self.half_clock:
            return
        rising, closes = cycle % 2 == 1, kind.meaning == "precharge"
        if not rising and not closes:
            text = f"{kind.name} at {cycle} is on an even clock, where only precharges may be"
            self._add(record, cycle, kind.name, "command_bus", text)
        here = (
            path[PSEUDOCHANNEL] if kind.level >= PSEUDOCHANNEL else -1,
            path[-1] if kind.level == BANK else -1,
        )
        edge, *there = self.edge
        if (
            closes
            and cycle == edge
            and all(-1 in pair or pair[0] == pair[1] for pair in zip(here, there, strict=True))
        ):
            text = f"{kind.name} at {cycle} is on the edge at which the row command at {self.taken[0]} still goes on"
            self._add(record, cycle, kind.name, "command_bus", text)
        if rising and not bus:
            self.edge = (cycle + (3 if kind.meaning == "activate" else 1), *here)

    def _rules(self, record: int, cycle: int, command: int, path: tuple[int, ...]) -> None:
        """Name all rules that a command breaks on its node of their level, or on any node of it below its own."""
        kind = self.kinds[command]
        for rule, lookups in zip(kind.rules, self.lookups[command], strict=True):
            latest, before, where = NEVER, -1, (0, 0)
            for b, stamps in lookups:
                own = min(stamps.level, kind.level)
                for node in self.tree.below(own, path[own], stamps.level):
                    if stamps.at[node] > latest:
                        level = max(stamps.level, min(rule.level, kind.level))
                        latest, before = stamps.at[node], b
                        where = (level, node if level == stamps.level else path[level])
            if cycle - latest >= rule.minimum:
                continue
            place = self.tree.name(*where)
            text = (
                f"{rule.text}: {kind.name} at {cycle} comes {cycle - latest} clocks after "
                f"{self.kinds[before].name} at {latest}"
                f"{'' if rule.window == 1 else f', the last but {rule.window - 1}'}, {rule.minimum} needed"
                f"{place and f' in {place}'}{f' after another {LEVELS[rule.level]}' if rule.siblings else ''}"
            )
            self._add(record, cycle, kind.name, rule.name, text)

    def _halves(self, record: int, cycle: int, kind: _Kind) -> None:
        """Miss second halves of activates that should have come before this clock."""
        for bank, begun in list(self.halves.items()):
            if cycle > begun + self.half_clocks:
                del self.halves[bank]
                text = (
                    f"{self.changed[bank][2]} at {begun} in {self.tree.name(BANK, bank)} had no second half by "
                    f"{begun + self.half_clocks}, nAAD = {self.half_clocks} clocks later"
                )
                self._add(record, cycle, kind.name, "split_activate", text)

    def _rows(self, record: int, cycle: int, kind: _Kind, node: int, row: int) -> None:
        """Check the rows of the banks that the command addresses, then open or close them."""
        banks = self.tree.below(kind.level, node, BANK)
        states = self.state[banks.start : banks.stop]
        low, high, wanted = _wanted(kind, row)
        if min(states) < low or max(states) > high:
            bank = next(bank for bank in banks if not low <= self.state[bank] <= high)
            now = self.state[bank]
            is_now = "none is" if now == CLOSED else f"row {now} is"
            if now <= HALF_OPEN:
                is_now = f"row {HALF_OPEN - now} is half open"
            text = f"{kind.name} at {cycle} needs {wanted} in {self.tree.name(BANK, bank)}, where {is_now}"
            self._add(record, cycle, kind.name, "bank_state", text)
        if kind.effect == "none":
            return
        after = {"open": row, "begin": HALF_OPEN - row, "close": CLOSED}[kind.effect]
        self.state[banks.start : banks.stop] = [after] * len(banks)
        self.changed[banks.start : banks.stop] = [(record, cycle, kind.name)] * len(banks)
        if kind.effect == "begin":
            self.halves |= dict.fromkeys(banks, cycle)
        elif self.halves:
            for bank in banks:
                self.halves.pop(bank, None)

    def finish(self, record: int, cycle: int, partial: bool, rows_may_stay_open: bool) -> None:
        """Check that nothing is left when the whole trace, on any channel, has ended at `cycle`."""
        for bank, row in enumerate(self.state) if not partial else ():
            by, at, name = self.changed[bank]
            place = self.tree.name(BANK, bank)
            if row <= HALF_OPEN:
                text = f"{name} at {at} in {place} had no second half by the end, {cycle}"
                self._add(by, at, name, "split_activate", text)
            elif row != CLOSED and not rows_may_stay_open:
                text = f"row {row} of {place}, opened by {name} at {at}, is open at the end, {cycle}"
                self._add(by, at, name, "left_open", text)
        # Where refreshes may be late, one that is too late is missing wherever the trace ends.
        seen = self.dram.refresh.postpone > 0 and self.cycle > NEVER
        if self.refresh and (seen or not partial):
            for text in self.refresh.finish(cycle):
                self._add(record, cycle, self.refresh.command, "refresh", text)


def _wanted(kind: _Kind, row: int) -> tuple[int, int, str]:
    """Return the lowest and the highest state of a bank that lets a command issue, and their name."""
    if kind.needs == "closed":
        return CLOSED, CLOSED, "no row open"
    if kind.needs == "opening":
        return HALF_OPEN - row, HALF_OPEN - row, f"row {row} half open"
    if kind.needs == "open":
        return (row, row, f"row {row} open") if kind.row else (0, FOREVER, "a row open")
    return (CLOSED if kind.effect == "close" else NEVER), FOREVER, "no row half open"


class _Wck:
    """Where data move by a clock of their own, WCK: how long it runs, and who has started it.

    sync: name and clock of the latest command if that started WCK, and the meaning and the bank it did so for
    """

    def __init__(self, symbols: Mapping[str, int]) -> None:
        self.until = NEVER
        after = symbols.get("nBL_min", symbols["nBL"]) + symbols["nWCKPST"]
        self.runs = {"read": symbols["nCL"] + after, "write": symbols["nCWL"] + after}
        self.sync: tuple[str, int, str, int] | None = None

    def see(self, cycle: int, kind: _Kind, path: tuple[int, ...]) -> Iterator[str]:
        """Yield what is wrong with a command: one between a sync and its access, or an access while WCK rests."""
        sync, self.sync = self.sync, None
        synced = sync is not None and sync[2:] == (kind.meaning, path[-1])
        if sync and not synced:
            yield f"{kind.name} at {cycle} comes between {sync[0]} at {sync[1]} and the {sync[2]} that it is for"
        if kind.meaning in SYNCS:
            self.sync = (kind.name, cycle, SYNCS[kind.meaning], path[-1])
        elif kind.meaning in self.runs:
            until = self.until
            if cycle >= until and not synced:
                rests = "has not run so far" if until == NEVER else f"stopped at {until}"
                yield f"{kind.name} at {cycle} needs WCK to run, which {rests}"
            self.until = max(until, cycle + self.runs[kind.meaning])


# --- refresh -----------------------------------------------------------------------------------------------


class _Refreshes:
    """The refreshes of all nodes of one channel that the policy's command addresses."""

    def __init__(self, dram: Dram, tree: _Tree, start: int) -> None:
        self.tree = tree
        level = dram.refresh_level or "channel"
        self.level, self.command = LEVELS.index(level), dram.find("refresh", level) or ""
        nodes = tree.sizes[self.level]
        if dram.refresh.policy == "all_bank":
            interval = dram.timing["nREFI"]
        else:
            at_once = dram.pseudochannels if dram.refresh.policy == "per_bank_set" else 1
            interval = dram.timing["nREFIpb"] * nodes // at_once
        self.nodes = [
            Due(tree.name(self.level, node), interval, dram.refresh.postpone, nodes == 1, start)
            for node in range(nodes)
        ]

    def see(self, cycle: int, kind: _Kind, path: tuple[int, ...]) -> list[str]:
        """Return what is wrong with a command that is no precharge."""
        renews = kind.meaning == "refresh" and kind.level <= self.level
        if kind.level >= self.level and not renews:
            node = self.nodes[path[self.level]]
            if cycle < node.limit:
                node.worked = cycle
                return []
        own = min(kind.level, self.level)
        nodes = [self.nodes[i] for i in self.tree.below(own, path[own], self.level)]
        return [text for n in nodes for text in (n.refresh if renews else n.work)(cycle, kind.name)]

    def finish(self, cycle: int) -> list[str]:
        """Return which refreshes should have come by the end."""
        return [
            f"{node.miss()} and has not come by the end, {cycle}"
            for node in self.nodes
            if cycle >= node.limit
        ]
