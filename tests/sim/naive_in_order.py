"""`pimloom.sim.in_order` clock by clock in plain Python, from the words of the AiM reference data.

No jumps, no groups of channels, no arrays: a command's distance to earlier ones is looked up in the description's rules.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from pimloom.arch.device import Device
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate
from pimloom.traces.stream import BARRIER, END, REGISTER, SYNC, Stream

LAST = (SYNC, END)


@dataclass
class Request:
    """One access, or SYNC or BARRIER."""

    command: str | int
    node: int = 0
    row: int = -1
    column: int = -1
    operand: int = -1
    arrival: int = -1
    blocks: bool = False


@dataclass
class Channel:
    """One channel with its controller."""

    device: Device
    oldest_first: list[Request] = field(default_factory=list)
    reads: list[Request] = field(default_factory=list)
    writes: list[Request] = field(default_factory=list)
    active: list[Request] = field(default_factory=list)
    waiting: list[Request] = field(default_factory=list)
    pending_reads: list[tuple[int, Request]] = field(default_factory=list)
    pending_writes: list[int] = field(default_factory=list)
    finished: int = 0
    other_mode: bool = False
    drains: bool = False
    refreshes: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.dram = self.device.dram
        self.symbols = self.dram.symbols({})
        self.rows: list[int | None] = [None] * self.dram.banks
        self.due = self.dram.timing.get("nREFI", 0)
        self.issues: dict[tuple[str, str, int], list[int]] = defaultdict(list)
        self.log: list[tuple[int, ...]] = []
        self.counts: Counter[str] = Counter()
        self.active_clocks = 0

    # --- the memory ---

    def banks(self, command: str, node: int) -> range:
        """Banks that a command addresses."""
        size = self.dram.banks // self.dram.nodes(self.dram.commands[command].target)
        return range(node * size, (node + 1) * size)

    def ready(self, command: str, node: int, clock: int) -> bool:
        """Tell whether all rules allow a command."""
        bank, target = self.banks(command, node)[0], self.dram.commands[command].target
        for rule in self.dram.constraints.values():
            if command not in rule.after:
                continue
            minimum = evaluate(rule.minimum, self.symbols)
            for before in rule.before:
                shared = (rule.level, target, self.dram.commands[before].target)
                level = min(shared, key=LEVELS.index)
                mine = bank // (self.dram.banks // self.dram.nodes(level))
                clocks = self.issues[before, level, mine]
                if len(clocks) >= rule.window and clock < clocks[-rule.window] + minimum:
                    return False
        return True

    def issue(
        self, clock: int, command: str, node: int, row: int = -1, column: int = -1, operand: int = -1
    ) -> None:
        """Issue a command."""
        banks, target = self.banks(command, node), LEVELS.index(self.dram.commands[command].target)
        for level in LEVELS[: target + 1]:
            mine = banks[0] // (self.dram.banks // self.dram.nodes(level))
            self.issues[command, level, mine].append(clock)
        effect = self.dram.commands[command].bank
        for bank in banks:
            if effect != "none":
                self.rows[bank] = row if effect == "open" else None
        self.counts[command] += 1
        self.log.append((clock, self.dram.command_names.index(command), node, row, column, operand))

    def row_command(self, command: str, meaning: str, bank: int) -> tuple[str, int]:
        """Command of a meaning that changes the row of a bank, and what it addresses."""
        for level in LEVELS[LEVELS.index(self.dram.commands[command].target) :]:
            if name := self.dram.find(meaning, level):
                return name, bank // (self.dram.banks // self.dram.nodes(level))
        raise AssertionError(command)

    def next_command(self, request: Request) -> tuple[str, int]:
        """What a request needs next."""
        command = str(request.command)
        if self.dram.commands[command].needs != "open" or request.row < 0:
            return command, request.node
        banks = self.banks(command, request.node)
        for bank in banks:
            if self.rows[bank] not in (None, request.row):
                return self.row_command(command, "precharge", bank)
        for bank in banks:
            if self.rows[bank] is None:
                return self.row_command(command, "activate", bank)
        return command, request.node

    # --- the controller ---

    def queue_of(self, request: Request) -> list[Request] | None:
        """The queue of a plain read or write."""
        if not isinstance(request.command, str) or self.device.controller.reordering is None:
            return None
        c = self.dram.commands[request.command]
        if c.target != "bank":
            return None
        return {"read": self.reads, "write": self.writes}.get(c.meaning)

    def send(self, request: Request, clock: int) -> bool:
        """Take a request, if there is room and no request of the other kind waits."""
        controller, queue = self.device.controller, self.queue_of(request)
        if queue is None:
            if self.reads or self.writes or len(self.oldest_first) >= controller.queue:
                return False
            self.oldest_first.append(request)
        else:
            assert controller.reordering
            places = (
                controller.reordering.read_queue if queue is self.reads else controller.reordering.write_queue
            )
            if self.oldest_first or len(queue) >= places:
                return False
            queue.append(request)
        request.arrival = clock
        return True

    def wants_switch(self, request: Request) -> bool:
        """Tell whether the mode must change first."""
        modes = self.device.controller.modes
        return modes is not None and (request.command in modes.other) != self.other_mode

    def can(self, request: Request, clock: int) -> bool:
        """Tell whether a request's next command, or the change of mode in its place, may issue."""
        command, node = self.next_command(request)
        modes = self.device.controller.modes
        if self.wants_switch(request) and not (modes and self.ready(modes.switch, 0, clock)):
            return False
        return self.ready(command, node, clock)

    def tick(self, clock: int) -> Request | None:
        """Simulate one clock; return the blocking request that is complete in it."""
        done = None
        if self.pending_reads and self.pending_reads[0][0] <= clock:
            request = self.pending_reads[0][1]
            if not (request.command == SYNC and self.pending_writes):
                self.pending_reads.pop(0)
                done = request if request.blocks else None
        self.pending_writes = [end for end in self.pending_writes if end > clock]
        self.schedule(clock)
        self.active_clocks += any(row is not None for row in self.rows)
        return done

    def schedule(self, clock: int) -> None:
        """Issue at most one command."""
        dram = self.dram
        if dram.refresh.policy == "all_bank":
            level = dram.refresh_level
            assert level
            if clock >= self.due and not self.refreshes:
                self.refreshes = set(range(dram.nodes(level)))
                self.due += dram.timing["nREFI"]
            if self.refreshes:
                self.refresh(clock, level)
                return
        able = [request for request in self.active if self.can(request, clock)]
        if able:
            request = min(able, key=lambda r: r.arrival)
            if self.serve(request, clock) == "done":
                self.active.remove(request)
            return
        while self.oldest_first and self.oldest_first[0].command == BARRIER:
            if self.active or clock < self.finished:
                return
            self.oldest_first.pop(0)
        if self.oldest_first:
            request = self.oldest_first[0]
            if request.command == SYNC:
                self.pending_reads.append((clock, self.oldest_first.pop(0)))
            elif self.can(request, clock) and not self.is_held(request):
                if self.serve(request, clock) == "done":
                    self.oldest_first.pop(0)
            return
        self.plain(clock)

    def plain(self, clock: int) -> None:
        """Serve the first plain request that can go."""
        reordering = self.device.controller.reordering
        if reordering is None:
            return
        if not self.drains:
            self.drains = len(self.writes) >= reordering.drain_from or not self.reads
        elif len(self.writes) <= reordering.drain_to and self.reads:
            self.drains = False
        queue = self.writes if self.drains else self.reads
        request = next((r for r in queue if self.can(r, clock)), None)
        if request is None or self.is_held(request):
            return
        what = self.serve(request, clock)
        if what in ("done", "opened"):
            queue.remove(request)
        if what == "opened":
            self.active.append(request)

    def is_held(self, request: Request) -> bool:
        """Tell whether a request would close the bank of an active one."""
        command, node = self.next_command(request)
        return self.dram.commands[command].bank == "close" and any(
            self.row_command(str(r.command), "precharge", self.banks(str(r.command), r.node)[0])
            == (command, node)
            for r in self.active
        )

    def serve(self, request: Request, clock: int) -> str:
        """Issue a request's next command."""
        if self.wants_switch(request):
            assert self.device.controller.modes
            self.other_mode = not self.other_mode
            self.issue(clock, self.device.controller.modes.switch, 0)
            return "switched"
        command, node = self.next_command(request)
        if command != request.command:
            self.issue(clock, command, node, request.row)
            return "opened" if self.dram.commands[command].bank == "open" else "closed"
        self.issue(clock, command, node, request.row, request.column, request.operand)
        end = clock + evaluate(self.dram.commands[command].duration, self.symbols)
        self.finished = max(self.finished, end)
        if request.blocks or self.queue_of(request) is self.reads:
            self.pending_reads.append((end, request))
        else:
            self.pending_writes.append(end)
        return "done"

    def refresh(self, clock: int, level: str) -> None:
        """Close and refresh nodes, the first that can go."""
        dram = self.dram
        refresh = dram.find("refresh", level)
        assert refresh
        for node in sorted(self.refreshes):
            command, at = refresh, node
            for bank in self.banks(refresh, node):
                if self.rows[bank] is not None:
                    command = dram.find("precharge", level) or dram.find("precharge", "bank") or ""
                    at = bank // (dram.banks // dram.nodes(dram.commands[command].target))
                    break
            if self.ready(command, at, clock):
                self.issue(clock, command, at)
                if command == refresh:
                    self.refreshes.remove(node)
                return


class NaiveInOrder:
    """All channels of a device behind its front end."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.channels = [Channel(device) for _ in range(device.dram.channels)]
        self.clock = 0

    def run(self, stream: Stream, start: int) -> int:
        """Run a stream from a clock on; return the clock at which END is done. Logs and counts are the channels'."""
        for channel in self.channels:
            channel.log, channel.active_clocks = [], 0
            channel.counts.clear()
        while self.clock < start:
            self.clock += 1
            for channel in self.channels:
                channel.tick(self.clock)
        is_paced = self.device.controller.front_end == "instructions"
        at, stalled, is_last = 0, 0, False
        while True:
            self.clock += 1
            waited = any(channel.waiting for channel in self.channels)
            self.flush()
            if not stalled and not is_last:
                if not is_paced:
                    while at < len(stream) and not stalled:
                        stalled = self.expand(stream, at)
                        is_last = stream.command[at] == END and at + 1 == len(stream)
                        at += 1
                    self.flush()
                elif not waited and at < len(stream):
                    stalled = self.expand(stream, at)
                    is_last = at + 1 == len(stream)
                    at += 1
                    self.flush()
            for channel in self.channels:
                if channel.tick(self.clock):
                    stalled -= 1
            if is_last and not stalled:
                return self.clock

    def flush(self) -> None:
        """Send what waits, in order."""
        for channel in self.channels:
            while channel.waiting and channel.send(channel.waiting[0], self.clock):
                channel.waiting.pop(0)

    def expand(self, stream: Stream, at: int) -> int:
        """Put the requests of an instruction into the waiting lists; return how many hold up the front end."""
        command = int(stream.command[at])
        if command == REGISTER:
            return 0
        if command in LAST:
            for channel in self.channels:
                channel.waiting.append(Request(SYNC, blocks=True))
            return len(self.channels)
        name = stream.commands[command] if command >= 0 else command
        blocks = name in self.device.controller.blocking
        stalled = 0
        for k in range(int(stream.times[at])):
            for number, channel in enumerate(self.channels):
                if int(stream.channels[at]) >> number & 1:
                    column, operand = int(stream.column[at]), int(stream.operand[at])
                    channel.waiting.append(
                        Request(
                            name,
                            int(stream.node[at]),
                            int(stream.row[at]),
                            column + k * int(stream.d_column[at]) if column >= 0 else column,
                            operand + k * int(stream.d_operand[at]) if operand >= 0 else operand,
                            blocks=blocks,
                        )
                    )
                    stalled += blocks
        return stalled
