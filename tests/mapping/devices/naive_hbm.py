"""HBM-PIM's channel in plain Python: one command after the other, each at the first clock that the YAML's rules allow.

It shares nothing with the simulator but the description of the memory. It has no queue, since HBM-PIM's host hands
over requests faster than they are served.
"""

from __future__ import annotations

from collections import deque
from math import prod

from pimloom.arch.dram import Dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate
from pimloom.traces.stream import Stream

Event = tuple[int, int, int, int, int, int]
"""Clock, command, node, row, column, operand."""


class Twin:
    """One channel from clock 1 on."""

    def __init__(self, dram: Dram) -> None:
        self.dram, self.names = dram, list(dram.commands)
        rules = [(r, evaluate(r.minimum, dram.symbols({}))) for r in dram.constraints.values()]
        self.rules = {name: [r for r in rules if name in r[0].after] for name in self.names}
        self.sizes = {level: prod(dram.counts[i + 1 :]) for i, level in enumerate(LEVELS)}
        # What lies further back than a refresh and some tens of commands binds nothing.
        self.past: deque[tuple[int, str, range]] = deque(maxlen=60)
        self.open: dict[int, int] = {}
        self.clock, self.end = 1, 0
        self.refreshes = 0
        self.events: list[Event] = []

    def banks(self, name: str, node: int) -> range:
        size = self.sizes[self.dram.commands[name].target]
        return range(node * size, (node + 1) * size)

    def nodes(self, level: str, banks: range) -> range:
        """The nodes of a level that contain some of the banks."""
        return range(banks[0] // self.sizes[level], banks[-1] // self.sizes[level] + 1)

    def ready(self, name: str, node: int) -> int:
        """The first clock for a command."""
        clock, banks = self.clock, self.banks(name, node)
        for rule, minimum in self.rules[name]:
            for where in self.nodes(rule.level, banks):
                left = rule.window
                for at, other, theirs in reversed(self.past):
                    if other in rule.before and (where in self.nodes(rule.level, theirs)) != rule.siblings:
                        left -= 1
                        if left == 0:
                            clock = max(clock, at + minimum)
                            break
        return clock

    def due(self) -> int:
        if self.dram.refresh.policy == "none":
            return 10**12
        turns = self.dram.nodes("rank")
        done, turn = divmod(self.refreshes, turns)
        return done * self.dram.timing["nREFI"] + (turn + 1) * self.dram.timing["nREFI"] // turns

    def issue(self, name: str, node: int, row: int = -1, column: int = -1, operand: int = -1) -> None:
        at, command = self.ready(name, node), self.dram.commands[name]
        banks = self.banks(name, node)
        self.past.append((at, name, banks))
        self.events.append((at, self.names.index(name), node, row, column, operand))
        self.clock = at + 1
        self.end = max(self.end, at + evaluate(command.duration, self.dram.symbols({})))
        for bank in banks if command.bank != "none" else ():
            self.open.pop(bank, None)
            if command.bank == "open":
                self.open[bank] = row

    def refresh(self) -> None:
        rank = self.refreshes % self.dram.nodes("rank")
        self.clock = max(self.clock, self.due())
        self.refreshes += 1
        if self.open.keys() & set(self.banks("PREab", rank)):
            self.issue("PREab", rank)
        self.issue("REFab", rank)

    def access(self, name: str, node: int, row: int, column: int, operand: int) -> None:
        while True:
            command, at = name, (row, column, operand)
            if self.dram.commands[name].needs == "open" and self.open.get(node) != row:
                kind = "PRE" if node in self.open else "ACT"
                command = kind + "_AB" * self.dram.commands[name].lockstep
                at = (row, -1, -1)
            if self.ready(command, node) >= self.due():
                self.refresh()
                continue
            self.issue(command, node, *at)
            if command == name:
                return

    def run(self, stream: Stream) -> list[Event]:
        for i in range(len(stream) - 1):
            if stream.command[i] < 0:
                raise NotImplementedError("fences")
            for k in range(stream.times[i]):
                column, operand = (
                    int(n[i]) + k if n[i] >= 0 else -1 for n in (stream.column, stream.operand)
                )
                name = self.names[stream.command[i]]
                self.access(name, int(stream.node[i]), int(stream.row[i]), column, operand)
        return self.events
