"""Ramulator 2.1's controller clock by clock in plain Python: the twin of `pimloom.sim.ramulator2`.

Slow and obvious on purpose: every clock looks at everything, a rule is a clock per node and command, and nothing is
shared with the kernel but the description of the memory. Rules: section 4 of the reference data's README; where it
leaves two readings, the source of Ramulator 2.1 decides.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import NamedTuple

from pimloom.arch.dram import Dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate
from pimloom.arch.memory import Memory

MOST_DUE = 1568
PATIENCE = 150_000
"""Clocks after the last arrival that no run of a test needs."""
CLOSED, OPENING, OPEN = "closed", "opening", "open"


class Access(NamedTuple):
    """A request as the trace has it: first clock, whether it writes, and where."""

    cycle: int
    write: int
    bank: int
    row: int
    column: int


Event = tuple[int, str, int, int, int]
"""Clock, command, flat index of what it addresses, row, column; -1 = has none."""


@dataclass
class Outcome:
    """What a run amounts to. `why`: ended, piled (more refreshes are due than may wait) or endless."""

    why: str = "ended"
    cycles: int = 0
    hits: int = 0
    misses: int = 0
    conflicts: int = 0
    forwarded: int = 0
    merged: int = 0
    latencies: Counter[int] = field(default_factory=Counter)
    open_clocks: Counter[int] = field(default_factory=Counter)
    log: list[Event] = field(default_factory=list)


@dataclass(eq=False)
class Request:
    """An access that waits."""

    access: Access
    arrival: int
    seen: bool = False

    @property
    def place(self) -> tuple[int, int, int]:
        return self.access[2:]


class Device:
    """The tree of nodes: from which clock on each command may issue, as far as each node is concerned."""

    def __init__(self, dram: Dram) -> None:
        self.sizes = [prod(dram.counts[: i + 1]) for i in range(len(LEVELS))]
        self.level = {name: LEVELS.index(c.target) for name, c in dram.commands.items()}
        symbols = dram.symbols({})
        self.rules = [
            (LEVELS.index(r.level), r.before, r.after, evaluate(r.minimum, symbols), r.window, r.siblings)
            for r in dram.constraints.values()
        ]
        self.ready: dict[tuple[int, int, str], int] = {}
        self.issues: dict[tuple[int, int, str], list[int]] = {}
        self.nodes = lru_cache(maxsize=None)(self._nodes)

    def _nodes(self, command: str, address: int, level: int) -> range:
        """Nodes of a level that a command addresses: the one on the way there, or all below."""
        own, other = self.sizes[self.level[command]], self.sizes[level]
        if other <= own:
            node = address // (own // other)
            return range(node, node + 1)
        return range(address * (other // own), (address + 1) * (other // own))

    def may_issue(self, command: str, address: int, t: int) -> bool:
        return all(
            self.ready.get((level, node, command), 0) <= t
            for level in range(len(LEVELS))
            for node in self.nodes(command, address, level)
        )

    def issue(self, command: str, address: int, t: int) -> None:
        for level in range(len(LEVELS)):
            for node in self.nodes(command, address, level):
                self.issues.setdefault((level, node, command), []).append(t)
        for level, before, after, minimum, window, siblings in self.rules:
            if command not in before or minimum <= 0:
                continue
            addressed = self.nodes(command, address, level)
            for node in self._brothers(level, addressed) if siblings else addressed:
                issues = [t] if siblings else self.issues[level, node, command]
                if len(issues) >= window:
                    for name in after:
                        key = level, node, name
                        self.ready[key] = max(self.ready.get(key, 0), issues[-window] + minimum)

    def _brothers(self, level: int, nodes: range) -> list[int]:
        """The other nodes below the same parents."""
        share = self.sizes[level] // self.sizes[level - 1] if level else 1
        parents = {node // share for node in nodes}
        return [n for n in range(self.sizes[level]) if n // share in parents and n not in nodes]


class Refreshes:
    """Which refreshes fall due when; addresses are flat indices of the refresh command's level."""

    def __init__(self, dram: Dram) -> None:
        self.dram = dram
        self.policy = dram.refresh.policy
        self.interval = (
            dram.timing["nREFI" if self.policy == "all_bank" else "nREFIpb"] if self.policy != "none" else 0
        )
        self.next = self.interval
        self.turn = 0
        self.banks = dram.bankgroups * dram.banks_per_bankgroup
        self.above = dram.pseudochannels * dram.ranks
        self.allowed = [0] * dram.stack_ids
        self.left_in_set: deque[tuple[int, int]] = deque()

    def due(self, t: int) -> list[int]:
        if self.policy == "none":
            return []
        if self.policy == "per_bank_set":
            return self._of_set(t)
        if t != self.next:
            return []
        self.next += self.interval
        if self.policy == "all_bank":
            level = self.dram.refresh_level
            assert level is not None
            return list(range(self.dram.nodes(level)))
        self.turn += 1
        return [(self.turn - 1) % self.dram.banks]

    def _of_set(self, t: int) -> list[int]:
        if not self.left_in_set:
            if t < self.next:
                return []
            stack_id, bank = divmod(self.turn, self.banks)
            if t < self.allowed[stack_id]:
                # The wait moves all later ones, too.
                self.next = t + 1
                return []
            for upper in range(self.above):
                flat = (upper * self.dram.stack_ids + stack_id) * self.banks + bank
                self.left_in_set.append((flat, stack_id))
            self.turn = (self.turn + 1) % (self.dram.stack_ids * self.banks)
            self.next += self.interval
        flat, stack_id = self.left_in_set.popleft()
        if not self.left_in_set and flat % self.banks == self.banks - 1:
            self.allowed[stack_id] = t + self.dram.timing["nRFCpb"]
        return [flat]


class Twin:
    """One channel and its controller."""

    def __init__(self, memory: Memory) -> None:
        dram = self.dram = memory.dram
        self.controller = memory.controller
        self.device = Device(dram)
        self.refreshes = Refreshes(dram)

        closed = memory.controller.page == "closed"
        find = dram.find
        self.ref_level = dram.refresh_level if self.refreshes.interval else None
        self.act = find("activate_first", "bank") or find("activate", "bank") or ""
        self.act2 = find("activate_second", "bank") if find("activate_first", "bank") else None
        self.pre = find("precharge", "bank") or ""
        # By their names, not by `Memory.access`: auto-precharge is what ends in A in every shipped standard.
        self.rd, self.wr = (name + "A" * closed for name in ("RD", "WR"))
        self.ref = (self.ref_level and find("refresh", self.ref_level)) or ""
        self.ref_pre = (self.ref_level and find("precharge", self.ref_level)) or ""
        self.columns = {self.rd, self.wr}
        self.rows = {self.act, self.pre, self.ref, self.ref_pre}
        self.latency = evaluate(dram.commands[self.rd].duration, dram.symbols({}))

        self.bank_state = [CLOSED] * dram.banks
        self.bank_row = [-1] * dram.banks
        self.queues: dict[int, list[Request]] = {0: [], 1: []}
        self.active: list[Request] = []
        self.maintenance: deque[int] = deque()
        self.returning: deque[int] = deque()
        self.writing = False
        # LPDDR5
        self.activating: list[tuple[int, Request]] = []
        self.synced: tuple[Request, list[Request]] | None = None
        self.sync_until = 0
        # HBM3: the edge, the command and the bank (or first bank) of the last row command at a rising edge.
        self.edge = (-1, "", -1)

        self.out = Outcome()

    # --- the clock ---

    def run(self, accesses: Sequence[Access]) -> Outcome:
        left = deque(accesses)
        last = max((access.cycle for access in accesses), default=0)
        c = 0
        while True:
            if left and left[0].cycle <= c and self._accept(left[0], c):
                left.popleft()
            t = c + 1
            while self.returning and self.returning[0] <= t:
                self.returning.popleft()
            for address in self.refreshes.due(t):
                if len(self.maintenance) == MOST_DUE:
                    self.out.why, self.out.cycles = "piled", c
                    return self.out
                self.maintenance.append(address)
            self._issue_something(t)
            self._count_open()
            c += 1
            if not (left or any(self.queues.values()) or self.active or self.activating or self.returning):
                break
            if c > last + PATIENCE:
                self.out.why = "endless"
                break
        self.out.cycles = c
        return self.out

    def _accept(self, access: Access, c: int) -> bool:
        request = Request(access, c)
        if any(request.place == other.place for other in self.queues[1]):
            if access.write:
                self.out.merged += 1
            else:
                self.out.forwarded += 1
                self.out.latencies[1] += 1
                self.returning.append(c + 1)
            return True
        queue = self.queues[access.write]
        if len(queue) == (self.controller.write_queue if access.write else self.controller.read_queue):
            return False
        queue.append(request)
        return True

    def _issue_something(self, t: int) -> None:
        if self.act2:
            self._clock_of_split_activates(t)
        elif self.dram.command_bus == "shared":
            self._slot(t, self.columns | self.rows, with_active=True)
        elif self.dram.command_bus == "row_and_column" or t % 2:
            self._slot(t, self.columns, with_active=True)
            command, address = self._slot(t, self.rows, with_active=False)
            if command and self.dram.command_bus == "half_clock":
                first = self.device.nodes(command, address, len(LEVELS) - 1)[0]
                self.edge = t + (3 if command == self.act else 1), command, first
        else:
            self._slot(t, {self.pre, self.ref_pre}, with_active=False)

    def _slot(self, t: int, kind: Collection[str], with_active: bool) -> tuple[str, int]:
        """Choose and issue at most one command of a kind; return it with its address."""
        chosen = self._choose(t, kind, with_active)
        if not chosen:
            return "", -1
        command, address, request, source = chosen
        if request:
            assert source is not None
            self._serve(t, command, request, source)
        else:
            self._refresh(t, command, address)
        return command, address

    def _choose(
        self, t: int, kind: Collection[str], with_active: bool
    ) -> tuple[str, int, Request | None, list[Request] | None] | None:
        if with_active:
            best = self._best(
                self.active, t, lambda r, c: c in kind and not (c == self.act and self.activating)
            )
            if best:
                return best[0], best[1].access.bank, best[1], self.active
        if self.maintenance:
            command, address = self._maintenance_command()
            ok = command in kind and self.device.may_issue(command, address, t)
            if ok and self._is_allowed(command, address, t):
                return command, address, None, None
            return None
        queue = self.queues[self._is_writing()]
        best = self._best(queue, t, lambda r, c: c in kind and self._is_allowed(c, r.access.bank, t))
        return (best[0], best[1].access.bank, best[1], queue) if best else None

    def _best(
        self, entries: list[Request], t: int, allowed: Callable[[Request, str], bool]
    ) -> tuple[str, Request] | None:
        best: tuple[str, Request] | None = None
        for request in entries:
            command = self._needed(request)
            if (
                allowed(request, command)
                and not (command == self.pre and self._is_protected(request, entries))
                and self.device.may_issue(command, request.access.bank, t)
                and (best is None or request.arrival < best[1].arrival)
            ):
                best = command, request
        return best

    def _is_protected(self, request: Request, entries: Iterable[Request]) -> bool:
        """Whether the open row of the bank is wanted by an entry that is not younger."""
        bank = request.access.bank
        return self.controller.scheduler == "fr_fcfs_row_hit" and any(
            other.access.bank == bank
            and other.access.row == self.bank_row[bank]
            and other.arrival <= request.arrival
            for other in entries
        )

    def _is_writing(self) -> int:
        reads, writes = len(self.queues[0]), len(self.queues[1])
        size = self.controller.write_queue
        assert self.controller.write_high is not None and self.controller.write_low is not None
        if not self.writing:
            self.writing = writes > self.controller.write_high * size or reads == 0
        elif writes < self.controller.write_low * size and reads > 0:
            self.writing = False
        return int(self.writing)

    def _needed(self, request: Request) -> str:
        access = request.access
        if self.bank_state[access.bank] == CLOSED:
            return self.act
        if self.bank_state[access.bank] == OPENING:
            assert self.act2
            return self.act2
        if self.bank_row[access.bank] != access.row:
            return self.pre
        return self.wr if access.write else self.rd

    def _is_allowed(self, command: str, address: int, t: int) -> bool:
        """Whether a command from a queue or for a refresh harms nothing that has begun."""
        banks = self.device.nodes(command, address, len(LEVELS) - 1)
        closes = self.dram.commands[command].bank == "close"
        if closes and any(request.access.bank in banks for request in self.active):
            return False
        if command == self.act2:
            return False
        if self.activating:
            if command == self.act:
                return False
            if command not in self.columns and any(r.access.bank in banks for _, r in self.activating):
                return False
        return not (self.dram.command_bus == "half_clock" and t == self.edge[0] and self._is_on_edge(banks))

    def _is_on_edge(self, banks: range) -> bool:
        _, command, bank = self.edge
        share = self.dram.banks // self.dram.pseudochannels
        if banks[0] // share != bank // share:
            return False
        return (
            command in (self.ref, self.ref_pre)
            and command != self._single(command)
            or len(banks) > 1
            or banks[0] == bank
        )

    def _single(self, command: str) -> str:
        """The command itself if it addresses one bank."""
        return command if self.dram.commands[command].target == "bank" else ""

    def _count_open(self) -> None:
        share = self.dram.banks // (self.dram.pseudochannels * self.dram.ranks)
        for rank in {bank // share for bank, state in enumerate(self.bank_state) if state != CLOSED}:
            self.out.open_clocks[rank] += 1

    # --- commands ---

    def _issue(self, t: int, command: str, address: int, row: int = -1, column: int = -1) -> None:
        assert self.device.may_issue(command, address, t), (t, command, address)
        self.device.issue(command, address, t)
        self.out.log.append((t, command, address, row, column))
        effect = self.dram.commands[command].bank
        for bank in self.device.nodes(command, address, len(LEVELS) - 1):
            if effect != "none":
                self.bank_state[bank] = {"begin": OPENING, "open": OPEN, "close": CLOSED}[effect]
            if effect in ("begin", "open"):
                self.bank_row[bank] = row

    def _serve(self, t: int, command: str, request: Request, source: list[Request]) -> None:
        _, write, bank, row, column = request.access
        if not request.seen:
            request.seen = True
            if self.bank_state[bank] == CLOSED:
                self.out.misses += 1
            elif self.bank_row[bank] == row:
                self.out.hits += 1
            else:
                self.out.conflicts += 1
        if command == self.pre:
            self._issue(t, command, bank)
        elif command in self.columns:
            self._issue(t, command, bank, row, column)
            source.remove(request)
            if not write:
                self.returning.append(t + self.latency)
                self.out.latencies[t + self.latency - request.arrival] += 1
        else:
            self._issue(t, command, bank, row)
            source.remove(request)
            if self.act2:
                self.activating.append((t + self.dram.timing["nAAD"], request))
            else:
                self.active.append(request)

    def _maintenance_command(self) -> tuple[str, int]:
        address = self.maintenance[0]
        banks = self.device.nodes(self.ref, address, len(LEVELS) - 1)
        is_closed = all(self.bank_state[bank] == CLOSED for bank in banks)
        return (self.ref if is_closed else self.ref_pre), address

    def _refresh(self, t: int, command: str, address: int) -> None:
        self._issue(t, command, address)
        if command == self.ref:
            self.maintenance.popleft()

    # --- LPDDR5 ---

    def _clock_of_split_activates(self, t: int) -> None:
        if self.synced:
            request, source = self.synced
            command = self.wr if request.access.write else self.rd
            if self.device.may_issue(command, request.access.bank, t):
                self.synced = None
                self._extend_sync(t, command)
                self._serve(t, command, request, source)
            return
        if self._second_half(t, by=t):
            return
        chosen = self._choose(t, self.columns | self.rows, with_active=True)
        if not chosen:
            self._second_half(t)
            return
        command, address, request_or_none, source_or_none = chosen
        if request_or_none is None:
            self._refresh(t, command, address)
            return
        assert source_or_none is not None
        request, source = request_or_none, source_or_none
        if command in self.columns:
            if t >= self.sync_until:
                if any(deadline <= t + 1 for deadline, _ in self.activating):
                    self._second_half(t)
                    return
                meaning = "sync_write" if request.access.write else "sync_read"
                sync = self.dram.find(meaning, "bank")
                assert sync
                if self.device.may_issue(sync, address, t):
                    self._issue(t, sync, address)
                    self.synced = request, source
                return
            self._extend_sync(t, command)
        self._serve(t, command, request, source)

    def _extend_sync(self, t: int, command: str) -> None:
        timing = self.dram.timing
        latency = timing["nCWL" if command == self.wr else "nCL"]
        self.sync_until = max(self.sync_until, t + latency + self.dram.nBL + timing["nWCKPST"])

    def _second_half(self, t: int, by: int | None = None) -> bool:
        """Issue the ACT2 with the earliest deadline, of those whose deadline is no later than `by`."""
        assert self.act2
        ready = [
            (deadline, request.arrival, request)
            for deadline, request in self.activating
            if (by is None or deadline <= by) and self.device.may_issue(self.act2, request.access.bank, t)
        ]
        if not ready:
            return False
        deadline, _, request = min(ready, key=lambda entry: entry[:2])
        self._issue(t, self.act2, request.access.bank, request.access.row)
        self.activating.remove((deadline, request))
        self.active.append(request)
        return True
