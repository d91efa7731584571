"""One channel under test, kernel and naive twin alike: probe, issue, assert_earliest_ready_at.

`Device.probe` asks whether a command issues at a given clock without changing anything, `issue` makes it
do so. What must come out is computed by `bounds`, which goes over pairs of commands: no nodes, no stamps.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from pimloom.arch.dram import Dram, Tables, load_dram
from pimloom.arch.expression import evaluate
from pimloom.arch.machine import Arch
from pimloom.sim.channel import ALL_ROW, CLOSED, DUE, EXTRA_STEPPED, EXTRAS, SPLIT
from pimloom.sim.engine import KernelDevice, NaiveDevice
from pimloom.traces.program import Builder, Program

DEVICES = ["gddr6_pim_gpt", "gddr6_aim"]
Twin = TypeVar("Twin", KernelDevice, NaiveDevice)
FAR = 1 << 50
"""A clock that no test reaches."""


class Event(NamedTuple):
    """A command issued: clock, name, flat bank (-1 = all), row, column, buffer column."""

    clock: int
    command: str
    bank: int
    row: int
    column: int
    buffer: int


class Step(NamedTuple):
    """A program handed to the channel at a clock; None = nothing to do but refreshes."""

    program: Program | None
    start: int
    base_bank: int = 0
    base_row: int = 0


@dataclass(frozen=True)
class Memory:
    """As much of an `Arch` as the devices need: a DRAM and the MAC unit's clocks a command."""

    dram: Dram
    nMAC: int = 1

    def tables(self) -> Tables:
        return self.dram.tables({"nMAC": self.nMAC})

    @property
    def symbols(self) -> dict[str, int]:
        return self.dram.symbols({"nMAC": self.nMAC})

    def builder(self) -> Builder:
        return Builder(self.dram.command_names)


def memory(name: str = "gddr6_pim_gpt", nMAC: int = 1, refresh: bool = True, **timing: int) -> Memory:
    """A shipped DRAM with one channel; timings by name."""
    overrides = [f"timing.{key}={value}" for key, value in timing.items()]
    if not refresh:
        overrides.append("refresh.policy=none")
    dram, _ = load_dram(name, ["channels=1", *overrides])
    return Memory(dram, nMAC)


def variant(changes: dict[str, Any], name: str = "gddr6_pim_gpt", nMAC: int = 1) -> Memory:
    """A shipped DRAM with one channel and whole sections replaced or, where they are mappings, extended."""
    document = load_dram(name)[0].model_dump() | {"channels": 1}
    for key, value in changes.items():
        document[key] = document[key] | value if isinstance(value, dict) else value
    sizes = (document[k] for k in ("bankgroups", "banks_per_bankgroup", "rows", "columns", "access_B"))
    document["channel_capacity_B"] = int(np.prod([*sizes]))
    return Memory(Dram.model_validate(document), nMAC)


def shortest_interval(m: Memory) -> int:
    """The smallest nREFI that the physical checks accept."""
    timing = m.dram.timing | {"nREFI": 1}
    policy = m.dram.refresh.model_copy(update={"policy": "all_bank"})
    asked = m.dram.model_copy(update={"timing": timing, "refresh": policy})
    (text,) = [text for path, text in asked.findings({"nMAC": m.nMAC}) if path[-1] == "nREFI"]
    return int(text.split(" make ")[1].split()[0]) + 1


def with_interval(m: Memory, nREFI: int) -> Memory:
    """The same memory, refreshed every nREFI clocks; 0 = never. This checks nothing."""
    policy = m.dram.refresh.model_copy(update={"policy": "all_bank" if nREFI else "none"})
    timing = m.dram.timing | {"nREFI": max(1, nREFI)}
    return Memory(m.dram.model_copy(update={"timing": timing, "refresh": policy}), m.nMAC)


# --- running programs -----------------------------------------------------------------------------


class Outcome(NamedTuple):
    """What a sequence of programs leaves behind: end clocks, accumulators, commands issued (if logged)."""

    ends: list[int]
    totals: list[int]
    log: list[Event] | None
    stepped: int
    device: KernelDevice | NaiveDevice


def clone(device: Twin, log_room: int = 0) -> Twin:
    """A device in the same state; a kernel's log, which may be large, is not taken along."""
    if isinstance(device, NaiveDevice):
        return copy.deepcopy(device)
    other = copy.copy(device)
    other.state = type(device.state)(*(array.copy() for array in device.state))
    other.acc, other.library = device.acc.copy(), copy.deepcopy(device.library)
    other.log = np.zeros((1, log_room, 6), np.int64)
    return other


def _finish(device: KernelDevice | NaiveDevice, ends: list[int], log: list[Event] | None) -> Outcome:
    books = clone(device).totals(max([0, *ends]))[0]
    stepped = len(books) - EXTRAS + EXTRA_STEPPED
    return Outcome(ends, np.delete(books, stepped).tolist(), log, int(books[stepped]), device)


def run_kernel(
    m: Memory, steps: Iterable[Step], log_room: int = 0, kind: type[KernelDevice] = KernelDevice
) -> Outcome:
    """Run on the compiled kernel; with room for a log it skips nothing."""
    device = kind(cast(Arch, m), log_room + 1 if log_room else 0)
    ends = [int(device.issue(0, s.program, s.base_bank, s.base_row, s.start)) for s in steps]
    return _finish(device, ends, kernel_log(m, device) if log_room else None)


def kernel_log(m: Memory, device: KernelDevice) -> list[Event]:
    names = m.dram.command_names
    assert device.log[0, 0, 0] < device.log.shape[1], "the log was too small"
    filled = device.log[0, 1 : device.log[0, 0, 0] + 1].tolist()
    return [Event(clock, names[c], *address) for clock, c, *address in filled]


def run_naive(m: Memory, steps: Iterable[Step], keep_log: bool = True) -> Outcome:
    """Run on the naive twin."""
    device = NaiveDevice(cast(Arch, m), keep_log)
    ends = [device.issue(0, s.program, s.base_bank, s.base_row, s.start) for s in steps]
    log = device.channels[0].log
    return _finish(device, ends, None if log is None else [Event(*e) for e in log])


def room(m: Memory, steps: Sequence[Step]) -> int:
    """Log entries that steps need, refreshes included: counted by a run without a log; one at least."""
    return 1 + sum(run_kernel(m, steps).totals[: len(m.dram.command_names)])


def horizon(m: Memory, device: KernelDevice | NaiveDevice, banks: Iterable[int]) -> list[int]:
    """The earliest clock of every command on every bank, refresh aside: the state as seen from outside."""
    found = []
    for name, command in m.dram.commands.items():
        for bank in banks if command.target == "bank" else [-1]:
            if isinstance(device, NaiveDevice):
                channel = device.channels[0]
                found.append(channel.earliest(name, bank, max(0, channel.last + 1)))
            else:
                found.append(_kernel_earliest(m, device, name, bank))
    return found


def _kernel_earliest(m: Memory, device: KernelDevice, name: str, bank: int) -> int:
    other = clone(device, 4)
    other.state.scalar[0, DUE] = FAR
    other.issue(0, single(m, name, bank), 0, 0, 0)
    return kernel_log(m, other)[-1].clock


def single(m: Memory, command: str, bank: int = -1, row: int | None = None) -> Program:
    """A program of one command."""
    b = m.builder()
    kind = m.dram.commands[command]
    row = (0 if kind.row else -1) if row is None else row
    b.add(command, bank=bank if kind.target == "bank" else -1, row=row, column=0 if kind.column else -1)
    return b.build()


# --- one command at a time ------------------------------------------------------------------------


@dataclass
class Device:
    """A channel and its history. `naive` says which twin."""

    memory: Memory
    naive: bool = False
    history: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        arch = cast(Arch, self.memory)
        self.device: KernelDevice | NaiveDevice = (
            NaiveDevice(arch, keep_log=True) if self.naive else KernelDevice(arch, 4096)
        )

    def _issue(
        self, device: KernelDevice | NaiveDevice, command: str, clock: int, bank: int, row: int | None
    ) -> None:
        device.issue(0, single(self.memory, command, bank, row), 0, 0, clock)

    def _log(self, device: KernelDevice | NaiveDevice) -> list[Event]:
        if isinstance(device, KernelDevice):
            return kernel_log(self.memory, device)
        return [Event(*e) for e in device.channels[0].log or []]

    def earliest(self, command: str, clock: int, bank: int = -1) -> int:
        """The clock at which the command would issue if it were asked for at `clock`; nothing changes."""
        other = clone(self.device, 64) if isinstance(self.device, KernelDevice) else clone(self.device)
        self._issue(other, command, clock, bank, None)
        return self._log(other)[-1].clock

    def probe(self, command: str, clock: int, bank: int = -1) -> bool:
        """Whether the command may issue at `clock`; nothing changes."""
        return self.earliest(command, clock, bank) == clock

    def issue(self, command: str, clock: int, bank: int = -1, row: int | None = None) -> int:
        """Issue a command, which must be possible at `clock`; return the clock."""
        self._issue(self.device, command, clock, bank, row)
        self.history = self._log(self.device)
        last = self.history[-1]
        assert (last.clock, last.command) == (clock, command), (
            f"{command} asked for at {clock}, issued: {last}"
        )
        return clock

    def issue_soon(self, command: str, clock: int, bank: int = -1, row: int | None = None) -> int:
        """Issue a command at its first legal clock from `clock` on; return it."""
        return self.issue(command, self.earliest(command, clock, bank), bank, row)

    def assert_earliest_ready_at(self, command: str, clock: int, bank: int = -1) -> None:
        """Refused in the clock before, allowed at `clock`."""
        assert not self.probe(command, clock - 1, bank), f"{command} issues before {clock}"
        assert self.probe(command, clock, bank), f"{command} refused at {clock}"


# --- what must come out ---------------------------------------------------------------------------


def shares(dram: Dram, level: str, a: int, b: int) -> bool:
    """Whether commands on banks a and b (-1 = all) meet on a node of the level."""
    if level == "channel" or a < 0 or b < 0:
        return True
    per = 1 if level == "bank" else dram.banks_per_bankgroup
    return a // per == b // per


def bounds(m: Memory, history: Sequence[Event], command: str, bank: int) -> list[tuple[int, str]]:
    """Every lower bound on the command's clock that earlier commands make, with the name of the rule."""
    found = []
    for name, rule in m.dram.constraints.items():
        minimum = evaluate(rule.minimum, m.symbols)
        if command not in rule.after or minimum <= 0:
            continue
        for before in rule.before:
            # Nodes below an all-bank command: it waits for the slowest, so each bank is asked by itself.
            banks = [bank] if bank >= 0 or rule.level == "channel" else range(m.dram.banks)
            for b in banks:
                met = [
                    e.clock for e in history if e.command == before and shares(m.dram, rule.level, e.bank, b)
                ]
                if len(met) >= rule.window:
                    found.append((met[-rule.window] + minimum, name))
    return found


def open_rows(m: Memory, device: KernelDevice | NaiveDevice) -> dict[int, int]:
    """Open row of every open bank."""
    if isinstance(device, NaiveDevice):
        return dict(device.channels[0].open)
    state = device.state
    if state.scalar[0, ALL_ROW] == CLOSED:
        return {}
    if state.scalar[0, ALL_ROW] == SPLIT:
        return {b: int(row) for b, row in enumerate(state.row[0]) if row >= 0}
    return dict.fromkeys(range(m.dram.banks), int(state.scalar[0, ALL_ROW]))
