"""The channel in plain Python: every command one by one, every rule on every node, nothing skipped.

An independent twin of the kernel in `sim.channel`, written from the YAML's rules and not from its tables: a
command stamps every node that it concerns, and looks at every node that it concerns. Slow; `--engine naive`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator

from pimloom.arch.dram import Dram
from pimloom.arch.expression import evaluate
from pimloom.traces.program import Program

Node = tuple[str, int]
Issue = tuple[str, int, int, int, int]
"""Command name, bank, row, column, buffer column; -1 = none or all."""


class NaiveChannel:
    """One channel: its commands so far, its open rows, its next refresh.

    counts, clocks: command name -> issues, clocks spent waiting for it; bank_open, any_open, tail: clocks
    log: (clock, command name, bank, row, column, buffer) of every command, if `keep_log`
    """

    def __init__(self, dram: Dram, symbols: dict[str, int], keep_log: bool = False) -> None:
        self.dram = dram
        self.duration = {name: evaluate(c.duration, symbols) for name, c in dram.commands.items()}
        rules = [(r, evaluate(r.minimum, symbols)) for r in dram.constraints.values()]
        self.rules = {
            after: [(r.level, r.before, n, r.window) for r, n in rules if after in r.after and n > 0]
            for after in dram.commands
        }
        banks = range(-1, dram.banks)
        self.nodes = {(name, bank): self._nodes(name, bank) for name in dram.commands for bank in banks}
        deepest = max((r.window for r, _ in rules), default=1)
        self.issued: dict[tuple[Node, str], deque[int]] = defaultdict(lambda: deque(maxlen=deepest))
        self.interval = dram.timing["nREFI"] if dram.refresh.policy == "all_bank" else 0
        self.due = self.interval
        self.refresh = dram.find("refresh", "channel") or ""
        self.refreshed = -(1 << 40)  # end of the last refresh
        self.open: dict[int, int] = {}  # bank -> row
        self.together = False  # the open rows were opened by one all-bank command
        self.last = -(1 << 40)
        self.changed = 0
        self.cursor = 0
        self.counts: dict[str, int] = defaultdict(int)
        self.clocks: dict[str, int] = defaultdict(int)
        self.bank_open = self.any_open = self.tail = 0
        self.log: list[tuple[int, str, int, int, int, int]] | None = [] if keep_log else None

    def issue(self, program: Program | None, base_bank: int, base_row: int, start: int) -> int:
        """Issue a program from clock `start` on; return the clock at which its last data is over."""
        end, self.cursor = start, max(start, self.last)
        if program is None:
            while self.interval and self.due <= start:
                self._refresh(held_up=False)
            return end
        self._book(self.refresh, self.refreshed)
        for command, bank, row, column, buffer in self._written_out(program, base_bank, base_row):
            t = self.earliest(command, bank, max(start, self.last + 1))
            while self.interval and t >= self.due:
                self._refresh(held_up=True)
                t = self.earliest(command, bank, max(start, self.last + 1))
            self._put(t, (command, bank, row, column, buffer))
            end = max(end, t + self.duration[command])
        self.tail += max(0, end - self.cursor)
        return end

    def earliest(self, command: str, bank: int, floor: int) -> int:
        """Return the first clock at or after `floor` at which no rule forbids the command."""
        t = floor
        nodes = self.nodes[command, bank]
        for level, before, minimum, window in self.rules[command]:
            for node in nodes:
                if node[0] == level:
                    for name in before:
                        times = self.issued[node, name]
                        if len(times) >= window:
                            t = max(t, times[-window] + minimum)
        return t

    def _account(self, clock: int) -> None:
        """Bring the clocks with open banks up to `clock`."""
        self.bank_open += len(self.open) * (clock - self.changed)
        self.any_open += (clock - self.changed) if self.open else 0
        self.changed = clock

    def _written_out(self, program: Program, base_bank: int, base_row: int) -> Iterator[Issue]:
        """Yield every single command of a program with its absolute address."""
        for run in program.runs():
            command = program.commands[run.command]
            for k in range(run.times):
                bank = run.bank + k * run.d_bank
                if self.dram.commands[command].target == "bank":
                    bank = (bank + base_bank) % self.dram.banks
                row = run.row + base_row if run.row >= 0 else -1
                column = run.column + k * run.d_column if run.column >= 0 else -1
                buffer = run.buffer + k * run.d_buffer if run.buffer >= 0 else -1
                yield command, bank, row, column, buffer

    def _banks(self, command: str, bank: int) -> list[int]:
        return [bank] if self.dram.commands[command].target == "bank" else list(range(self.dram.banks))

    def _nodes(self, command: str, bank: int) -> list[Node]:
        """Return the nodes on the command's path and below its target."""
        banks = self._banks(command, bank)
        groups = sorted({b // self.dram.banks_per_bankgroup for b in banks})
        return [("channel", 0)] + [("bankgroup", g) for g in groups] + [("bank", b) for b in banks]

    def _refresh(self, held_up: bool) -> None:
        """Close what is open, refresh, open it again: PREA, REFab, then ACT_AB or one ACT a bank.

        held_up: a program waits for it, so the clocks of the refresh are booked now
        """
        opened, together = dict(self.open), self.together
        if opened:
            self._soon("precharge", "channel", self.due)
        self._soon("refresh", "channel", self.due)
        self.refreshed = self.last + self.duration[self.refresh]
        if held_up:
            self._book(self.refresh, self.refreshed)
        self.due += self.interval
        if together:
            self._soon("activate", "channel", 0, row=opened[0])
        else:
            for bank in sorted(opened):
                self._soon("activate", "bank", 0, bank, opened[bank])

    def _soon(self, meaning: str, target: str, floor: int, bank: int = -1, row: int = -1) -> None:
        """Issue the command of this meaning and target at its first legal clock from `floor` on."""
        command = self.dram.find(meaning, target)
        assert command, f"{self.dram.name} has no {meaning} of a {target}"
        t = self.earliest(command, bank, max(floor, self.last + 1))
        self._put(t, (command, bank, row, -1, -1))

    def _book(self, command: str, clock: int) -> None:
        """Count the clocks since the last event as spent on `command`."""
        self.clocks[command] += max(0, clock - self.cursor)
        self.cursor = max(self.cursor, clock)

    def _put(self, t: int, issue: Issue) -> None:
        """Stamp the nodes, change the banks, keep the books."""
        command, bank, row, _, _ = issue
        for node in self.nodes[command, bank]:
            self.issued[node, command].append(t)
        kind = self.dram.commands[command]
        if kind.bank != "none":
            self._account(t)
            for b in self._banks(command, bank):
                if kind.bank == "open":
                    self.open[b] = row
                else:
                    self.open.pop(b, None)
            self.together = kind.bank == "open" and kind.target == "channel"
        self.counts[command] += 1
        self._book(command, t)
        self.last = t
        if self.log is not None:
            self.log.append((t, *issue))
