"""AttAcc's controllers clock by clock in plain Python: the twin of `pimloom.sim.window`.

Slow and obvious on purpose: every channel on its own, every clock looks at everything, and every rule is held against
the whole history. Rules: "Controller" in the README of the reference data, and the description of the device.
"""

from __future__ import annotations

from pimloom.arch.device import Device
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate
from pimloom.traces.stream import Stream

Request = tuple[str, int, int, int, int]
"""Command, node, row, column, operand."""
ROWS = ("activate", "precharge", "refresh")


class Channel:
    """One channel: its buffer, open rows, and everything that it has issued."""

    def __init__(self, device: Device) -> None:
        self.device, self.dram = device, device.dram
        symbols = self.dram.symbols({})
        self.rules = [(rule, evaluate(rule.minimum, symbols)) for rule in self.dram.constraints.values()]
        self.buffer: list[Request] = []
        self.priority: list[int] = []
        self.open: dict[int, int] = {}
        self.issued: list[tuple[int, str, int]] = []
        self.log: list[tuple[int, str, int, int, int, int]] = []

    def nodes(self, command: str, node: int) -> dict[str, int]:
        """The nodes on the way to what a command addresses, by level."""
        target = LEVELS.index(self.dram.commands[command].target)
        found = {}
        for level in LEVELS[: target + 1]:
            below = self.dram.nodes(self.dram.commands[command].target) // self.dram.nodes(level)
            found[level] = node // below
        return found

    def ready(self, command: str, node: int, clock: int) -> bool:
        here = self.nodes(command, node)
        for rule, minimum in self.rules:
            if command not in rule.after:
                continue
            for then, before, other in self.issued:
                if before in rule.before and clock < then + minimum:
                    there = self.nodes(before, other)
                    shared = [level for level in LEVELS if level in here and level in there]
                    level = min(rule.level, shared[-1], key=LEVELS.index)
                    if here[level] == there[level]:
                        return False
        return True

    def find(self, meaning: str, level: str) -> str:
        for at in reversed(LEVELS[: LEVELS.index(level) + 1]):
            name = self.dram.find(meaning, at)
            if name:
                return name
        raise KeyError(meaning)

    def wanted(self, request: Request) -> str:
        command, node, row = request[:3]
        described = None if command == "BARRIER" else self.dram.commands[command]
        if described is None or described.needs != "open" or self.open.get(node) == row:
            return command
        return self.find("precharge" if node in self.open else "activate", described.target)

    def kind(self, command: str) -> str:
        if command == "BARRIER" or command in self.device.controller.alone:
            return "alone"
        return "row" if self.dram.commands[command].meaning in ROWS else "column"

    def issue(self, command: str, node: int, request: Request | None, clock: int) -> None:
        row = column = operand = -1
        own = request is not None and request[0] == command
        if request is not None:
            row = request[2]
        if own and request is not None:
            column, operand = request[3:]
            self.leave(request)
        described = self.dram.commands[command]
        if described.bank == "open":
            self.open[node] = row
        elif described.bank == "close":
            row = -1
            share = self.dram.banks // self.dram.nodes(described.target)
            for bank in [*self.open]:
                if bank // share == node:
                    del self.open[bank]
        self.issued = [x for x in self.issued if x[0] > clock - 1000] + [(clock, command, node)]
        self.log.append((clock, command, node, row, column, operand))

    def leave(self, request: Request) -> None:
        """Take a request out of the buffer: this very one, not one that is equal to it."""
        self.buffer = [other for other in self.buffer if other is not request]

    def choose(self, clock: int) -> Request | None:
        if self.buffer and self.buffer[0][0] == "BARRIER":
            self.buffer.pop(0)
        if not self.buffer:
            return None
        best = self.buffer[0]
        if best[0] == "BARRIER":
            return best
        hits = {r[1] for r in self.buffer if self.hits(r)}
        behind = False
        for request in self.buffer[1:]:
            if self.ready(self.wanted(best), best[1], clock):
                break
            if request[0] == "BARRIER":
                behind = True
                continue
            command = self.wanted(request)
            if behind and self.dram.commands[command].bank == "none":
                continue
            if self.ready(command, request[1], clock) and (self.hits(request) or request[1] not in hits):
                best = request
        return best

    def hits(self, request: Request) -> bool:
        command = request[0]
        return (
            command != "BARRIER"
            and self.dram.commands[command].needs == "open"
            and self.wanted(request) == command
        )

    def tick(self, clock: int) -> None:
        policy, interval = self.dram.refresh.policy, self.dram.timing["nREFI"]
        level = self.dram.refresh_level or "channel"
        if policy == "all_bank" and (clock + 1) % interval == 0:
            self.priority += range(self.dram.nodes(level))
        if self.priority:
            node, command = self.priority[0], self.find("refresh", level)
            if self.open:
                node, command = 0, self.find("precharge", "channel")
            first = self.kind(command)
            if self.ready(command, node, clock):
                if not self.open:
                    self.priority.pop(0)
                self.issue(command, node, None, clock)
        else:
            request = self.choose(clock)
            if request is None:
                return
            command = self.wanted(request)
            first = self.kind(command)
            if command == "BARRIER":
                self.leave(request)
            elif self.ready(command, request[1], clock):
                self.issue(command, request[1], request, clock)
        request = self.choose(clock)
        if request is None or request[0] == "BARRIER":
            return
        command = self.wanted(request)
        if {first, self.kind(command)} == {"row", "column"} and self.ready(command, request[1], clock):
            self.issue(command, request[1], request, clock)


class Memory:
    """All channels behind one front end."""

    def __init__(self, device: Device) -> None:
        self.device, self.clock = device, 0
        self.channels = [Channel(device) for _ in range(device.dram.channels)]

    def run(self, stream: Stream, start: int) -> tuple[int, list[list[tuple[int, str, int, int, int, int]]]]:
        """The end of a stream, and what each channel issued since the stream before."""
        requests = []
        for i in range(len(stream)):
            name = "BARRIER" if stream.command[i] < 0 else stream.commands[stream.command[i]]
            for k in range(stream.times[i]):
                column, operand = int(stream.column[i]), int(stream.operand[i])
                request = (
                    name,
                    int(stream.node[i]),
                    int(stream.row[i]),
                    column + k * int(stream.d_column[i]) if column >= 0 else -1,
                    operand + k * int(stream.d_operand[i]) if operand >= 0 else -1,
                )
                for c in range(len(self.channels)):
                    if int(stream.channels[i]) >> c & 1:
                        requests.append((c, request))
        for channel in self.channels:
            channel.log = []
        while self.clock < start or requests or any(c.buffer or c.priority for c in self.channels):
            while self.clock >= start and requests:
                c, request = requests[0]
                if len(self.channels[c].buffer) >= self.device.controller.queue:
                    break
                self.channels[c].buffer.append(request)
                requests.pop(0)
            for channel in self.channels:
                channel.tick(self.clock)
            self.clock += 1
        return self.clock, [channel.log for channel in self.channels]
