"""Whether a command trace obeys its memory: every rule on every node, rows, refresh, nothing left behind.

Works from the rules as the description words them, and shares nothing with the simulator.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from pimloom.arch.dram import Dram
from pimloom.arch.expression import evaluate
from pimloom.traces.io import CommandTrace

NEVER = -(1 << 62)
CLOSED = -1
_SIZES = ("channel", "bankgroup", "bank")


@dataclass(frozen=True)
class Violation:
    """One thing that a trace does and must not, or does not and must.

    record: number of the command in the trace, from 1; its line in a CSV file is one more
    rule: name of the constraint, or address, order, command_bus, bank_state, refresh, left_open
    """

    record: int
    cycle: int
    channel: int
    command: str
    rule: str
    message: str

    def __str__(self) -> str:
        return f"record {self.record}: channel {self.channel}: {self.rule}: {self.message}"


@dataclass(frozen=True, slots=True)
class _Rule:
    """A constraint seen from one command that comes after; `before` are ids."""

    name: str
    text: str
    level: int
    before: tuple[int, ...]
    minimum: int
    window: int


@dataclass(frozen=True, slots=True)
class _Kind:
    """A command with its rules."""

    name: str
    one_bank: bool
    meaning: str
    effect: str
    needs: str
    row: bool
    column: bool
    rules: tuple[_Rule, ...]


def check(
    dram: Dram,
    symbols: Mapping[str, int],
    trace: CommandTrace,
    partial: bool = False,
    channels: Collection[int] | None = None,
) -> list[Violation]:
    """Return everything that is wrong with a trace, in its order.

    symbols: values of the names in the rules, as `Dram.symbols` gives them
    partial: the trace may end anywhere; else no row may be open and no refresh be due at its last command
    channels: those on which nothing may be left at the end; None = all of the memory, idle ones too

    The trace may begin in mid-run, but with all banks closed: what came before its first command binds
    nothing, and a refresh that was due at or before that command's cycle may still come and need not.
    A refresh is due at every multiple of nREFI; from then on its channel takes nothing but precharges until
    it comes. A refresh that was reported as missing is not missed again, nor one that came early.
    """
    kinds = _kinds(dram, symbols, trace.commands)
    found: list[Violation] = []
    start = int(trace.cycle.min()) if len(trace) else 0
    states = [_Channel(dram, kinds, c, start, found) for c in range(dram.channels)]
    fields = ("cycle", "command", "channel", "bankgroup", "bank", "row", "column")
    rows = zip(*(getattr(trace, field).tolist() for field in fields), strict=True)
    for record, (cycle, command, channel, bankgroup, bank, row, column) in enumerate(rows, 1):
        if 0 <= channel < dram.channels:
            states[channel].see(record, cycle, command, bankgroup, bank, row, column)
        else:
            message = f"{trace.commands[command]} at {cycle}: there is no channel {channel}"
            found.append(Violation(record, cycle, channel, trace.commands[command], "address", message))
    if not partial and len(trace):
        last = int(trace.cycle.max())
        for c in range(dram.channels) if channels is None else channels:
            states[c].finish(len(trace), last)
    return sorted(found, key=lambda violation: violation.record)


def _kinds(dram: Dram, symbols: Mapping[str, int], commands: tuple[str, ...]) -> list[_Kind]:
    ids = {name: i for i, name in enumerate(commands)}
    minima = {name: evaluate(rule.minimum, symbols) for name, rule in dram.constraints.items()}

    def rules(after: str) -> Iterator[_Rule]:
        for name, rule in dram.constraints.items():
            before = tuple(ids[b] for b in rule.before if b in ids)
            if after in rule.after and minima[name] > 0:
                level = _SIZES.index(rule.level)
                yield _Rule(name, rule.minimum, level, before, minima[name], rule.window)

    return [
        _Kind(
            name, c.target == "bank", c.meaning, c.bank, c.needs, c.row, c.column, tuple(rules(name))
        )
        for name, c in ((name, dram.commands[name]) for name in commands)
    ]  # fmt: skip


class _Channel:
    """What is known of one channel after the commands seen so far.

    last: [level][command][node] clock of the last issue that concerned the node
    past: [level, command][node] clocks of the latest issues, oldest first, for commands that windows count
    """

    def __init__(
        self, dram: Dram, kinds: list[_Kind], number: int, start: int, found: list[Violation]
    ) -> None:
        self.dram, self.kinds, self.number, self.found = dram, kinds, number, found
        self.sizes = (1, dram.bankgroups, dram.banks)
        self.last = [[[NEVER] * size for _ in kinds] for size in self.sizes]
        depth: dict[tuple[int, int], int] = {}
        for rule in (rule for kind in kinds for rule in kind.rules if rule.window > 1):
            for b in rule.before:
                depth[rule.level, b] = max(rule.window, depth.get((rule.level, b), 0))
        self.past = {
            (level, b): [deque[int](maxlen=size) for _ in range(self.sizes[level])]
            for (level, b), size in depth.items()
        }
        self.open = [CLOSED] * dram.banks
        self.opened = [(0, 0, "")] * dram.banks  # record, clock and name of the command that did it
        self.cycle = NEVER
        self.interval = dram.timing["nREFI"] if dram.refresh.policy == "all_bank" else 0
        self.served = start // self.interval if self.interval else 0  # refreshes done, or not asked for
        self.spare = self.served > 0  # whether the last of them may still come
        self.reported = 0  # the refresh that was last reported as missing

    def see(
        self, record: int, cycle: int, command: int, bankgroup: int, bank: int, row: int, column: int
    ) -> None:
        """Check one command against the past and make it part of that."""
        kind = self.kinds[command]
        if not self._placed(record, cycle, kind, (bankgroup, bank, row, column)):
            return
        if cycle < self.cycle:
            text = f"{kind.name} at {cycle} stands behind a command at {self.cycle}"
            self._add(record, cycle, kind.name, "order", text)
            return
        if cycle == self.cycle:
            text = f"{kind.name} at {cycle} comes 0 clocks after the command before, 1 needed"
            self._add(record, cycle, kind.name, "command_bus", text)
        self.cycle = cycle
        flat = bankgroup * self.dram.banks_per_bankgroup + bank if kind.one_bank else -1
        path = (0, bankgroup, flat)
        for rule in kind.rules:
            self._rule(record, cycle, kind, rule, path)
        if self.interval:
            self._refresh(record, cycle, kind)
        self._rows(record, cycle, kind, flat, row)
        for level, size in enumerate(self.sizes):
            if kind.one_bank:
                self.last[level][command][path[level]] = cycle
            else:
                self.last[level][command] = [cycle] * size
            if (level, command) in self.past:
                past = self.past[level, command]
                for node in [path[level]] if kind.one_bank else range(size):
                    past[node].append(cycle)

    def _add(self, record: int, cycle: int, command: str, rule: str, message: str) -> None:
        self.found.append(Violation(record, cycle, self.number, command, rule, message))

    def _placed(self, record: int, cycle: int, kind: _Kind, address: tuple[int, int, int, int]) -> bool:
        """Check that the address is there as far as the command needs it, and no further."""
        dram = self.dram
        wanted = (
            ("bankgroup", kind.one_bank, dram.bankgroups),
            ("bank", kind.one_bank, dram.banks_per_bankgroup),
            ("row", kind.row, dram.rows),
            ("column", kind.column, dram.columns),
        )
        good = True
        for (field, has, size), value in zip(wanted, address, strict=True):
            if (has and 0 <= value < size) or (not has and value == -1):
                continue
            should = f"should be 0 to {size - 1}" if has else "does not apply and should be -1"
            text = f"{kind.name} at {cycle}: {field} {should}, not {value}"
            self._add(record, cycle, kind.name, "address", text)
            good = False
        return good

    def _rule(self, record: int, cycle: int, kind: _Kind, rule: _Rule, path: tuple[int, int, int]) -> None:
        """Check one rule on the command's node of its level, or on all nodes of it if it concerns all."""
        latest, before, level = NEVER, -1, rule.level
        for b in rule.before:
            if rule.window == 1:
                stamps = self.last[level][b]
            else:
                past = self.past[level, b]
                stamps = [p[-rule.window] if len(p) >= rule.window else NEVER for p in past]
            stamp = stamps[path[level]] if kind.one_bank else max(stamps)
            if stamp > latest:
                latest, before = stamp, b
        if cycle - latest >= rule.minimum:
            return
        which = "" if rule.window == 1 else f", the last but {rule.window - 1}"
        text = (
            f"{rule.text}: {kind.name} at {cycle} comes {cycle - latest} clocks after "
            f"{self.kinds[before].name} at {latest}{which}, {rule.minimum} needed"
        )
        self._add(record, cycle, kind.name, rule.name, text)

    def _refresh(self, record: int, cycle: int, kind: _Kind) -> None:
        """Check refreshes against their due times, and other commands against refreshes that are due."""
        number = self.served + 1
        due = number * self.interval
        if kind.meaning == "refresh" and not kind.one_bank:
            if cycle >= due:
                self.served = max(number, cycle // self.interval if self.reported == number else 0)
            elif not self.spare:
                text = f"{kind.name} at {cycle} comes {due - cycle} clocks before it is due at {due}"
                self._add(record, cycle, kind.name, "refresh", text)
                # Only one that is nearer to this due time than to the one before stands for it.
                self.served += 2 * (due - cycle) < self.interval
            self.spare = False
        elif kind.meaning != "precharge" and cycle >= due and self.reported != number:
            self.reported = number
            text = f"{kind.name} at {cycle}, but refresh {number} is due since {due} and has not come"
            self._add(record, cycle, kind.name, "refresh", text)

    def _rows(self, record: int, cycle: int, kind: _Kind, flat: int, row: int) -> None:
        """Check the rows of the banks that the command addresses, then open or close them."""
        banks = (flat,) if kind.one_bank else range(self.dram.banks)
        for bank in banks if kind.needs != "any" else ():
            now = self.open[bank]
            if kind.needs == "closed":
                good, wanted = now == CLOSED, "no row"
            elif kind.row:
                good, wanted = now == row, f"row {row}"
            else:
                good, wanted = now != CLOSED, "a row"
            if not good:
                is_open = "none" if now == CLOSED else f"row {now}"
                text = f"{kind.name} at {cycle} needs {wanted} open in bank {bank}, where {is_open} is"
                self._add(record, cycle, kind.name, "bank_state", text)
                break
        if kind.effect != "none":
            for bank in banks:
                self.open[bank] = row if kind.effect == "open" else CLOSED
                self.opened[bank] = (record, cycle, kind.name)

    def finish(self, record: int, cycle: int) -> None:
        """Check that nothing is left when the whole trace, on any channel, has ended at `cycle`."""
        for bank, row in enumerate(self.open):
            if row != CLOSED:
                by, at, name = self.opened[bank]
                text = f"row {row} of bank {bank}, opened by {name} at {at}, is open at the end, {cycle}"
                self._add(by, at, name, "left_open", text)
        number = self.served + 1
        due = number * self.interval
        if self.interval and due <= cycle and self.reported != number:
            name = self.dram.find("refresh", "channel") or ""
            text = f"refresh {number} is due since {due} and has not come by the end, {cycle}"
            self._add(record, cycle, name, "refresh", text)
