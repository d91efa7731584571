"""The channel in plain Python: every command one by one, every rule on every node, nothing skipped.

An independent twin of the kernel in `sim.channel`, written from the YAML's rules and not from its tables: nodes
and stamps are dictionaries, and a command stamps each node that it concerns. Slow; `--engine naive`.
"""

from __future__ import annotations

from collections import defaultdict

from pimloom.arch.dram import Dram
from pimloom.arch.expression import evaluate
from pimloom.traces.program import Program

Node = tuple[str, int]


class NaiveChannel:
    """One channel: its commands so far, its open rows, its next refresh.

    counts, clocks: command name -> issues, clocks spent waiting for it; bank_open, any_open, tail: clocks
    log: (clock, command name, bank, row, column, buffer) of every command, if `keep_log`
    """

    def __init__(self, dram: Dram, symbols: dict[str, int], keep_log: bool = False) -> None:
        self.dram = dram
        self.duration = {name: evaluate(c.duration, symbols) for name, c in dram.commands.items()}
        self.rules = [
            (r.level, frozenset(r.before), frozenset(r.after), evaluate(r.minimum, symbols), r.window)
            for r in dram.constraints.values()
        ]
        self.interval = dram.timing["nREFI"] if dram.refresh.policy == "all_bank" else 0
        self.due = self.interval
        self.issued: dict[Node, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.open: dict[int, int] = {}
        self.last = -(1 << 40)
        self.changed = 0
        self.counts: dict[str, int] = defaultdict(int)
        self.clocks: dict[str, int] = defaultdict(int)
        self.bank_open = self.any_open = self.tail = 0
        self.log: list[tuple[int, str, int, int, int, int]] | None = [] if keep_log else None
        self._deepest = max((r[4] for r in self.rules), default=1)

    def _nodes(self, command: str, bank: int) -> list[Node]:
        """Return the nodes on the command's path and below its target."""
        dram = self.dram
        banks = [bank] if dram.commands[command].target == "bank" else list(range(dram.banks))
        groups = sorted({b // dram.banks_per_bankgroup for b in banks})
        return [("channel", 0)] + [("bankgroup", g) for g in groups] + [("bank", b) for b in banks]

    def earliest(self, command: str, bank: int, floor: int) -> int:
        """Return the first clock at or after `floor` at which no rule forbids the command."""
        t = floor
        nodes = self._nodes(command, bank)
        for level, before, after, minimum, window in self.rules:
            if command not in after or minimum <= 0:
                continue
            for node in nodes:
                if node[0] != level:
                    continue
                for name in before:
                    times = self.issued[node].get(name, [])
                    if len(times) >= window:
                        t = max(t, times[-window] + minimum)
        return t

    def _put(self, command: str, t: int, bank: int, row: int, column: int, buffer: int) -> None:
        kind = self.dram.commands[command]
        for node in self._nodes(command, bank):
            self.issued[node][command] = [*self.issued[node][command][-self._deepest + 1 :], t][-self._deepest :]
        if kind.bank != "none":
            self._account(t)
            for b in [bank] if kind.target == "bank" else range(self.dram.banks):
                if kind.bank == "open":
                    self.open[b] = row
                else:
                    self.open.pop(b, None)
        self.counts[command] += 1
        self.last = t
        if self.log is not None:
            self.log.append((t, command, bank, row, column, buffer))

    def _account(self, t: int) -> None:
        self.bank_open += len(self.open) * (t - self.changed)
        self.any_open += (t - self.changed) if self.open else 0
        self.changed = t

    def _refresh(self) -> None:
        """Close what is open, refresh, open it again: PREA, REFab, then ACT_AB or one ACT a bank."""
        close, refresh = self.dram.find("precharge", "channel"), self.dram.find("refresh", "channel")
        assert close and refresh
        opened = dict(self.open)
        for command in [close, refresh] if opened else [refresh]:
            self._step(command, self.earliest(command, -1, max(self.due, self.last + 1)), -1, -1)
        self.due += self.interval
        rows = set(opened.values())
        if len(opened) == self.dram.banks and self._together and len(rows) == 1:
            command = self.dram.find("activate", "channel")
            assert command
            self._step(command, self.earliest(command, -1, self.last + 1), -1, rows.pop())
        else:
            single = self.dram.find("activate", "bank")
            for bank in sorted(opened):
                assert single
                self._step(single, self.earliest(single, bank, self.last + 1), bank, opened[bank])

    def _step(self, command: str, t: int, bank: int, row: int) -> None:
        together = self._together
        self._wait(command, t)
        self._put(command, t, bank, row, -1, -1)
        if self.dram.commands[command].bank == "close":
            self._together = together  # what a refresh closes it opens the same way

    def _wait(self, command: str, t: int) -> None:
        self.clocks[command] += max(0, t - self._cursor)
        self._cursor = max(self._cursor, t)

    _cursor = 0
    _together = False
    """Whether the open rows were opened by one all-bank command."""

    def issue(self, program: Program | None, base_bank: int, base_row: int, start: int) -> int:
        """Issue a program from clock `start` on; return the clock at which its last data is over."""
        end = self._cursor = max(start, self.last)
        if program is None:
            while self.interval and self.due <= start:
                self._refresh()
            return end
        for run in program.runs():
            command = program.commands[run.command]
            kind = self.dram.commands[command]
            for k in range(run.count):
                bank = run.bank + k * run.d_bank
                if kind.target == "bank":
                    bank = (bank + base_bank) % self.dram.banks
                row = run.row + base_row if run.row >= 0 else -1
                column = run.column + k * run.d_column if run.column >= 0 else -1
                buffer = run.buffer + k * run.d_buffer if run.buffer >= 0 else -1
                t = self.earliest(command, bank, max(start, self.last + 1))
                while self.interval and t >= self.due:
                    self._refresh()
                    t = self.earliest(command, bank, max(start, self.last + 1))
                self._wait(command, t)
                self._put(command, t, bank, row, column, buffer)
                if kind.bank != "none":
                    self._together = kind.target == "channel" and kind.bank == "open"
                end = max(end, t + self.duration[command])
        self.tail += end - self._cursor
        return end
