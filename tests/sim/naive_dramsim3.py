"""DRAMsim3's controller cycle by cycle in plain Python: the twin of `pimloom.sim.dramsim3`.

Slow and obvious on purpose: every rule is a clock per bank and command, every cycle looks at everything, and
nothing is shared with the package. Rules: section 5 of the reference data's README.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

Request = tuple[int, int, int, int, int]
"""Arrival cycle, 1 for a write, flat bank, row, column."""
Address = tuple[int, int, int]


def table(t: dict[str, int], standard: str) -> dict[str, dict[tuple[str, str], int]]:
    """Minimum clocks between two commands: for the same bank, bank group, rank, and for other ranks."""
    RL, WL = t["AL"] + t["nCL"], t["AL"] + t["nCWL"]
    rd, wd = RL + t["nBL"], WL + t["nBL"]
    split = standard.startswith(("GDDR", "HBM"))
    to_read, to_write = (t["nRCDRD"], t["nRCDWR"]) if split else (t["nRCD"] - t["AL"],) * 2
    bank: dict[tuple[str, str], int] = {
        ("RD", "PRE"): t["AL"] + t["nRTP"],
        ("WR", "PRE"): WL + t["nBL"] + t["nWR"],
        ("PRE", "ACT"): t["nRP"],
        ("PRE", "REFab"): t["nRP"],
        ("ACT", "ACT"): t["nRC"],
        ("ACT", "PRE"): t["nRAS"],
        ("RDA", "ACT"): t["AL"] + t["nBL"] + t["nRTP"] + t["nRP"],
        ("RDA", "REFab"): t["AL"] + t["nRTP"] + t["nRP"],
        ("WRA", "ACT"): WL + t["nBL"] + t["nWR"] + t["nRP"],
        ("WRA", "REFab"): WL + t["nBL"] + t["nWR"] + t["nRP"],
    }
    group: dict[tuple[str, str], int] = {("ACT", "ACT"): t["nRRD_L"]}
    rank: dict[tuple[str, str], int] = {("ACT", "ACT"): t["nRRD_S"]}
    other: dict[tuple[str, str], int] = {}
    for a in ("", "A"):
        bank["ACT", "RD" + a], bank["ACT", "WR" + a] = to_read, to_write
        for b in ("", "A"):
            for where, end in ((group, "_L"), (rank, "_S")):
                where["RD" + a, "RD" + b] = where["WR" + a, "WR" + b] = max(t["nBL"], t["nCCD" + end])
                where["RD" + a, "WR" + b] = RL + t["nBL"] - WL + t["nRTRS"]
                where["WR" + a, "RD" + b] = wd + t["nWTR" + end]
            other["RD" + a, "RD" + b] = t["nBL"] + t["nRTRS"]
            other["RD" + a, "WR" + b] = rd + t["nBL"] + t["nRTRS"] - wd
            other["WR" + a, "RD" + b] = wd + t["nBL"] + t["nRTRS"] - rd
            other["WR" + a, "WR" + b] = t["nBL"]
    if "nPPD" in t:
        group["PRE", "PRE"] = rank["PRE", "PRE"] = t["nPPD"]
    return {"bank": bank, "group": group, "rank": rank, "other": other}


class Bank:
    """One bank: its open row (None = closed), column commands since the ACT, earliest clock of every command."""

    def __init__(self) -> None:
        self.row: int | None = None
        self.hits = 0
        self.ready: Counter[str] = Counter()


class Naive:
    """One channel with its controller and front end; `config` is a reference config.yaml as a dict."""

    def __init__(self, config: dict[str, Any], requests: Iterable[Request]) -> None:
        t: dict[str, int] = config["timing_cycles"]
        organisation, controller = config["organisation"], config["controller"]
        self.t = t
        self.table = table(t, config["standard"])
        self.windows = [(4, t["nFAW"])] + ([(32, t["n32AW"])] if "n32AW" in t else [])
        self.ranks: int = organisation["ranks"]
        self.group_banks: int = organisation["banks_per_bankgroup"]
        self.rank_banks: int = organisation["bankgroups"] * self.group_banks
        self.banks = [Bank() for _ in range(self.ranks * self.rank_banks)]
        self.acts: list[list[list[int]]] = [[[] for _ in self.windows] for _ in range(self.ranks)]
        self.read_delay = t["AL"] + t["nCL"] + t["nBL"]
        self.queue_banks = 1 if controller["queue_structure"] == "PER_BANK" else self.rank_banks
        self.queues: list[list[tuple[bool, Address]]] = [
            [] for _ in range(len(self.banks) // self.queue_banks)
        ]
        self.room: int = controller["command_queue_entries"]
        self.entries: int = controller["transaction_queue_entries"]
        self.unified: bool = controller["unified_transaction_queue"]
        self.dual: bool = controller["dual_command_issue"]
        self.cap: int = controller["row_hit_cap"]
        self.tail: int = config["frontend"]["tail_cycles"]
        self.auto = "A" if controller["row_policy"].startswith("close_page") else ""
        on = config["refresh"]["mode"] != "none"
        self.interval = t["nREFI"] // self.ranks if on else 0
        self.requests = list(requests)
        self.reading: list[tuple[bool, Address]] = []
        self.writing: list[tuple[bool, Address]] = []
        self.pending_reads: dict[Address, list[int]] = {}
        self.pending_writes: set[Address] = set()
        self.draining = 0
        self.pointer = 0
        self.refreshes: list[int] = []
        self.clock = 0
        self.log: list[tuple[int, str, int, int, int]] = []
        self.latencies: Counter[int] = Counter()
        self.counts: Counter[str] = Counter()
        self.active = [0] * self.ranks
        self.last_done = -1
        self.last_progress = 0
        self.end: int | None = None

    # ---- device

    def needs(self, is_write: bool, address: Address) -> str:
        """The command that an access needs now."""
        bank = self.banks[address[0]]
        if bank.row is None:
            return "ACT"
        return ("WR" if is_write else "RD") + self.auto if bank.row == address[1] else "PRE"

    def is_ready(self, command: str, b: int) -> bool:
        """Tell whether the bank's clocks, and the activation windows of its rank, allow the command now."""
        if self.clock < self.banks[b].ready[command]:
            return False
        recent = self.acts[b // self.rank_banks]
        return command != "ACT" or all(
            len(times) < size or self.clock >= times[0] + minimum
            for times, (size, minimum) in zip(recent, self.windows, strict=True)
        )

    def issue(self, command: str, b: int, row: int = -1, column: int = -1) -> None:
        """Let a command to one bank take effect."""
        self.log.append((self.clock, command, b, row, column))
        self.counts[command] += 1
        rank = b // self.rank_banks
        for other, bank in enumerate(self.banks):
            if other == b:
                self._wait(bank, command, "bank")
                # Once its row is closed, the bank waits for the activate.
                if command not in ("PRE", "RDA", "WRA"):
                    self._wait(bank, command, "group")
            elif other // self.rank_banks != rank:
                self._wait(bank, command, "other")
            elif other // self.group_banks == b // self.group_banks:
                self._wait(bank, command, "group")
            else:
                self._wait(bank, command, "rank")
        bank = self.banks[b]
        if command == "ACT":
            bank.row, bank.hits = row, 0
            for times, (size, _) in zip(self.acts[rank], self.windows, strict=True):
                times.append(self.clock)
                del times[:-size]
        elif command == "PRE":
            bank.row = None
        else:
            self.counts["hits " + command[:2]] += bank.hits > 0
            bank.hits += 1
            if self.auto:
                bank.row = None

    def _wait(self, bank: Bank, command: str, where: str) -> None:
        for (before, after), minimum in self.table[where].items():
            if before == command:
                bank.ready[after] = max(bank.ready[after], self.clock + minimum)

    # ---- front end and transactions

    def offer(self, request: Request) -> bool:
        """Take the request if its queue has room; tell whether it was taken."""
        is_write, address = bool(request[1]), request[2:]
        queue = self.writing if is_write and not self.unified else self.reading
        if len(queue) >= self.entries:
            self.counts["stalls"] += 1
            return False
        self.counts["writes" if is_write else "reads"] += 1
        if is_write:
            self.counts["merged"] += address in self.pending_writes
            if address not in self.pending_writes:
                self.pending_writes.add(address)
                queue.append((True, address))
        elif address in self.pending_writes:
            self.counts["forwarded"] += 1
            self.latencies[1] += 1
        else:
            self.counts["shared"] += address in self.pending_reads
            self.pending_reads.setdefault(address, []).append(self.clock)
            if len(self.pending_reads[address]) == 1:
                queue.append((False, address))
        self.last_done = max(self.last_done, self.clock + 1)
        self.last_progress = self.clock
        return True

    def move(self) -> None:
        """Move at most one transaction into a command queue."""
        if self.draining == 0 and not self.unified:
            size = len(self.writing)
            if size >= self.entries or (size > 8 and not any(self.queues)):
                self.draining = size
        transactions = self.writing if self.draining > 0 else self.reading
        for i, (is_write, address) in enumerate(transactions):
            queue = self.queues[address[0] // self.queue_banks]
            if len(queue) < self.room:
                if is_write and not self.unified:
                    if address in self.pending_reads:
                        self.draining = 0
                        return
                    self.draining -= 1
                queue.append(transactions.pop(i))
                return

    # ---- commands

    def refresh(self) -> str | None:
        """Advance the oldest refresh, if that is possible now; return the command issued."""
        rank = self.refreshes[0]
        banks = range(rank * self.rank_banks, (rank + 1) * self.rank_banks)
        for b in banks:
            if self.banks[b].row is not None and self.is_ready("PRE", b):
                self.issue("PRE", b)
                return "PRE"
        if any(self.banks[b].row is not None or not self.is_ready("REFab", b) for b in banks):
            return None
        self.log.append((self.clock, "REFab", rank, -1, -1))
        self.counts["REFab"] += 1
        for b in banks:
            for after in ("ACT", "REFab"):
                ready = self.banks[b].ready
                ready[after] = max(ready[after], self.clock + self.t["nRFC"])
        self.refreshes.pop(0)
        return "REFab"

    def may(self, queue: list[tuple[bool, Address]], i: int, command: str) -> bool:
        """Tell whether the order inside a queue lets this entry have its command."""
        is_write, address = queue[i]
        if command == "PRE":
            bank = self.banks[address[0]]
            if any(a[0] == address[0] for _, a in queue[:i]):
                return False
            wanted = any(a[:2] == (address[0], bank.row) for _, a in queue[i:])
            if wanted and bank.hits < self.cap:
                return False
            self.counts["ondemand"] += 1
        elif is_write and command != "ACT":
            return (False, address) not in queue[:i]
        return True

    def search(self, skipped: int | None, only: bool | None = None) -> str | None:
        """Issue the first command that a queue offers; with `only`, drop it unless its kind (column?) is this."""
        for _ in self.queues:
            self.pointer = (self.pointer + 1) % len(self.queues)
            if self.pointer * self.queue_banks // self.rank_banks == skipped:
                continue
            queue = self.queues[self.pointer]
            for i, (is_write, address) in enumerate(queue):
                command = self.needs(is_write, address)
                if not self.is_ready(command, address[0]) or not self.may(queue, i, command):
                    continue
                is_column = command[:2] in ("RD", "WR")
                if only is not None and is_column != only:
                    return None
                if is_column:
                    del queue[i]
                    self.finish(is_write, address)
                row, column = address[1:] if is_column else (address[1], -1) if command == "ACT" else (-1, -1)
                self.issue(command, address[0], row, column)
                self.last_progress = self.clock
                return command
        return None

    def finish(self, is_write: bool, address: Address) -> None:
        """The column command of an access issues now."""
        if is_write:
            self.pending_writes.remove(address)
        else:
            done = self.clock + self.read_delay
            for accepted in self.pending_reads.pop(address):
                self.latencies[done - accepted] += 1
            self.last_done = max(self.last_done, done)

    def cycle(self) -> None:
        """One cycle of the controller."""
        if self.interval and self.clock > 0 and self.clock % self.interval == 0:
            self.refreshes.append((self.clock // self.interval - 1) % self.ranks)
        skipped = self.refreshes[0] if self.refreshes else None
        command = self.refresh() if self.refreshes else None
        if command == "REFab":
            skipped = None
        command = command or self.search(skipped)
        if command and self.dual:
            self.counts["dual"] += self.search(skipped, only=command[:2] not in ("RD", "WR")) is not None
        for rank in range(self.ranks):
            banks = self.banks[rank * self.rank_banks : (rank + 1) * self.rank_banks]
            self.active[rank] += any(bank.row is not None for bank in banks)
        self.move()
        self.clock += 1

    def run(self, rows: float = float("inf"), cycles: float = float("inf")) -> None:
        """Run to the end, or until so many commands have been issued or cycles have passed."""
        head = 0
        while self.end is None or self.clock < self.end:
            if head < len(self.requests) and self.requests[head][0] <= self.clock:
                head += self.offer(self.requests[head])
            self.cycle()
            if len(self.log) >= rows or self.clock >= cycles:
                return
            if self.end is None and head == len(self.requests) and not self.pending_reads:
                self.end = self.last_done + 1 + self.tail
