"""The FR-FCFS controller: kernel = plain-Python twin on random memories and requests, and its rules one by one."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from pydantic import ValidationError

from pimloom.arch.memory import Memory, load_memory
from pimloom.sim import ramulator2
from pimloom.sim.ramulator2 import ENDED, FULL, MORE, PILED, STUCK
from tests.sim.naive_ramulator2 import Access, Outcome, Twin

SHIPPED = [
    "ddr4_2400", "ddr4_3200", "ddr5_4800", "gddr6_12000", "gddr6_14000", "gddr6_16000", "hbm2_2000", "hbm3_5200",
    "hbm3_6400", "lpddr4_2400", "lpddr5_6400",
]  # fmt: skip
LEVELS = ("pseudochannels", "ranks", "stack_ids", "bankgroups", "banks_per_bankgroup")
QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
LONG = settings(QUICK, max_examples=1500)
WHY = {ENDED: "ended", PILED: "piled", STUCK: "stuck"}


# --- memories ------------------------------------------------------------------------------------------------


@cache
def tree(name: str) -> dict[str, Any]:
    """The description of a shipped standard behind the default controller."""
    return load_memory(name, ["dram.channels=1"])[0].model_dump()


def merged(base: Any, changes: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return base | {key: merged(base.get(key), value) for key, value in changes.items()}


def memory(name: str, **changes: Any) -> Memory:
    """A shipped standard with parts of its description replaced; the capacity follows from the levels."""
    described = merged(tree(name), changes)
    dram = described["dram"]
    levels = [dram[level] for level in (*LEVELS, "rows", "columns", "access_B")]
    return Memory.model_validate(described | {"dram": dram | {"channel_capacity_B": prod(levels)}})


def shortest_interval(name: str, **changes: Any) -> int:
    """The smallest nREFI that the description takes."""
    low, high = 0, 1 << 20
    while high - low > 1:
        middle = (low + high) // 2
        try:
            memory(name, **merged(changes, {"dram": {"timing": {"nREFI": middle}}}))
            high = middle
        except ValidationError:
            low = middle
    return high


@dataclass(frozen=True)
class Scenario:
    """Requests to a memory, and how they are handed over."""

    name: str
    changes: dict[str, Any]
    accesses: list[Access] = field(repr=False)
    cuts: list[int]
    log_rows: int
    bins: int
    seed: int


def some_changes(roll: random.Random, name: str) -> dict[str, Any]:
    """A small or odd variant of a standard."""
    base = tree(name)["dram"]
    levels = {
        level: roll.choice([n for n in (1, 2, base[level]) if n <= base[level]])
        for level in ("pseudochannels", "bankgroups", "banks_per_bankgroup")
    }
    levels["ranks"] = roll.choice((1, 1, 2))
    levels["stack_ids"] = roll.choice((1, 2, 3)) if name.startswith("hbm") else 1
    timing = {k: v for k, v in base["timing"].items() if not k.startswith("nREFI")}
    if roll.random() < 0.5:
        timing = {k: max(1, round(v * roll.uniform(0.2, 1.4))) for k, v in timing.items()}
        timing["nRC"] = max(timing["nRC"], timing["nRAS"] + timing["nRP"])
    high, low = sorted(roll.choices((0.05, 0.2, 0.5, 0.8, 1.0), k=2), reverse=True)
    shares = roll.choice(((0.8, 0.2), (high, low)))
    changes: dict[str, Any] = {
        "dram": {**levels, "timing": timing},
        "controller": {
            "scheduler": roll.choice(("fr_fcfs", "fr_fcfs_row_hit")),
            "page": roll.choice(("open", "open", "closed")),
            "read_queue": roll.choice((1, 2, 3, 5, 32)),
            "write_queue": roll.choice((1, 2, 3, 5, 32)),
            "write_high": shares[0],
            "write_low": shares[1],
        },
    }
    if name.startswith("lpddr5") and roll.random() < 0.5:
        for sync in ("sync_to_read", "sync_to_write"):
            changes["dram"].setdefault("constraints", {})[sync] = {"minimum": str(roll.randint(0, 4))}
    return merged(changes, {"dram": some_refresh(roll, name, changes)})


def some_refresh(roll: random.Random, name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """A refresh policy that the memory can follow, often with hardly any time between two refreshes."""
    base = tree(name)["dram"]
    policies = ["none", "all_bank", "all_bank"]
    if "REFpb" in base["commands"]:
        policies += ["per_bank", "per_bank"]
    if name.startswith("hbm"):
        policies += ["per_bank_set", "per_bank_set"]
    policy = roll.choice(policies)
    chosen: dict[str, Any] = {"refresh": {"policy": policy}}
    if policy == "all_bank":
        changes = merged(changes, {"dram": chosen})
        shortest = shortest_interval(name, **changes)
        chosen["timing"] = {"nREFI": roll.choice((shortest, shortest + roll.randint(0, 99), 2 * shortest))}
    elif policy != "none":
        cycle = changes["dram"]["timing"]["nRFCpb"]
        most = 4 if policy == "per_bank_set" else 1
        intervals = (
            1,
            2,
            most * cycle,
            (most + 1) * cycle,
            most * cycle + roll.randint(0, 99),
            3 * most * cycle,
        )
        chosen["timing"] = {"nREFIpb": roll.choice(intervals)}
    return chosen


# --- requests ------------------------------------------------------------------------------------------------


def some_accesses(roll: random.Random, m: Memory, n: int) -> list[Access]:
    """Requests of one of a few habits, at once, in bursts or with gaps."""
    banks, columns = m.dram.banks, m.dram.columns
    pattern = roll.choice(("random", "hot", "stream", "conflicts"))
    some_banks = roll.sample(range(banks), min(banks, roll.randint(1, 4)))
    rows, wide = roll.randint(1, 6), roll.choice((1, 3, 8))
    writes = roll.choice((0.0, 0.1, 0.4, 0.6, 1.0))
    gap = roll.choice((0, 0, 0, 2, 10, 60))
    burst = roll.choice((1, 1, 8, 40))
    base = roll.randrange(columns)
    cycle, found = 0, []
    for i in range(n):
        if i % burst == 0 and gap:
            cycle += int(roll.expovariate(1 / (gap * burst)))
        if pattern == "random":
            place = roll.randrange(banks), roll.randrange(rows), roll.randrange(wide)
        elif pattern == "hot":
            place = roll.choice(some_banks), roll.randrange(2), roll.randrange(wide)
        elif pattern == "stream":
            place = (i + base) % banks, (i + base) // (banks * columns), (i + base) // banks % columns
        else:
            place = some_banks[i % len(some_banks)], i // len(some_banks), 0
        found.append(Access(cycle, int(roll.random() < writes), *place))
    return found


def some_scenario(seed: int, length: int, name: str | None = None) -> Scenario:
    roll = random.Random(seed)
    name = name or roll.choice(SHIPPED)
    changes = some_changes(roll, name)
    accesses = some_accesses(roll, memory(name, **changes), length)
    cuts = sorted(roll.randint(0, length) for _ in range(roll.choice((0, 0, 1, 5))))
    return Scenario(
        name, changes, accesses, cuts, roll.choice((2, 3, 7, 4096)), roll.choice((1, 50, 1 << 16)), seed
    )


# --- kernel and twin ------------------------------------------------------------------------------------------


@dataclass
class Books:
    """A run of the kernel, as far as the twin has to come to the same, and its own sums."""

    outcome: Outcome
    counts: Counter[str]
    reads: int
    accepted: int
    last_command: int


def run_kernel(
    m: Memory, accesses: Sequence[Access], cuts: Sequence[int] = (), log_rows: int = 4096, bins: int = 1 << 16
) -> Books:
    """Run the kernel on the requests cut into chunks, with a log that may be small."""
    rules, setup, state = ramulator2.begin(m)
    state = state._replace(latencies=np.zeros(bins, np.int64), late=np.zeros(3, np.int64))
    s, log = state.scalars, np.zeros((log_rows, 5), np.int64)
    names, columns, rows = list(m.dram.commands), m.dram.columns, m.dram.rows
    out = Outcome()
    edges = [0, *cuts, len(accesses)]
    why = MORE
    for i, (begin, end) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        chunk = np.array(accesses[begin:end], np.int64).reshape(-1, 5)
        cycle, write, bank, row, column = (np.ascontiguousarray(chunk[:, k]) for k in range(5))
        key = (bank * rows + row) * columns + column
        s[ramulator2.NEXT] = 0
        is_last = i == len(edges) - 2
        why = FULL
        while why == FULL:
            why = ramulator2.run(rules, setup, state, cycle, write, key, bank, row, column, is_last, log)
            for clock, command, *rest in log[: s[ramulator2.LOGGED]].tolist():
                out.log.append((clock, names[command], *rest))
            out.latencies.update(state.late[: s[ramulator2.LATE]].tolist())
            s[ramulator2.LOGGED] = s[ramulator2.LATE] = 0
        if why != MORE:
            break
    out.latencies.update({i: int(n) for i, n in enumerate(state.latencies) if n})
    out.why, out.cycles = WHY[why], int(s[ramulator2.CLOCK])
    for name in ("hits", "misses", "conflicts", "forwarded", "merged"):
        setattr(out, name, int(s[getattr(ramulator2, name.upper())]))
    for rank, (n_open, since, so_far) in enumerate(state.open_banks.tolist()):
        clocks = so_far + (out.cycles + 1 - since if n_open else 0)
        if clocks:
            out.open_clocks[rank] = clocks
    return Books(
        out,
        Counter({names[i]: int(n) for i, n in enumerate(state.counts) if n}),
        *(int(s[getattr(ramulator2, name)]) for name in ("READ", "ACCEPTED", "LAST_COMMAND")),
    )


def assert_twins(scenario: Scenario) -> Outcome:
    """Kernel and twin: the same commands, counters, latencies and end."""
    m = memory(scenario.name, **scenario.changes)
    twin = Twin(m).run(scenario.accesses)
    if twin.why == "endless":
        return twin
    books = run_kernel(m, scenario.accesses, scenario.cuts, scenario.log_rows, scenario.bins)
    assert books.outcome.log == twin.log
    assert books.outcome == twin
    assert books.counts == Counter(event[1] for event in twin.log)
    if twin.why == "ended":
        assert books.accepted == len(scenario.accesses)
        assert books.reads == sum(1 for access in scenario.accesses if not access.write)
        assert books.last_command == max((event[0] for event in twin.log), default=0)
    return twin
