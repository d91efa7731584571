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
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pimloom.arch.memory import Memory, load_memory
from pimloom.sim import ramulator2
from pimloom.sim.controller import ENDED, FULL, MORE, Batch
from pimloom.sim.ramulator2 import PILED, STUCK
from tests.sim.naive_ramulator2 import Access, Event, Outcome, Twin

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
        timing["nFAW"] = max(timing["nFAW"], timing.get("nRRD", 0))
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
    changed: dict[str, Any] = merged(changes, {"dram": some_refresh(roll, name, changes)})
    return changed


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
        # Of a set, refreshes come so rarely that no round has to wait for the one before.
        most = 4 * cycle + 300 if policy == "per_bank_set" else cycle
        intervals = [most, most + cycle, most + roll.randint(0, 99), 3 * most]
        if policy == "per_bank":
            intervals += [1, 2]
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
        batch = Batch(cycle, write, (bank * rows + row) * columns + column, bank, row, column)
        s[ramulator2.NEXT] = 0
        is_last = i == len(edges) - 2
        why = FULL
        while why == FULL:
            why = ramulator2.run(rules, setup, state, batch, is_last, log)
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


@pytest.mark.parametrize("name", SHIPPED)
def test_kernel_is_twin_by_seed(name: str) -> None:
    for seed in range(12):
        print(scenario := some_scenario(seed, (3, 30, 100, 200)[seed % 4], name))
        assert_twins(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_kernel_is_twin_by_many_seeds(name: str) -> None:
    for seed in range(1000, 1080):
        print(scenario := some_scenario(seed, (5, 60, 150, 300)[seed % 4], name))
        assert_twins(scenario)


@QUICK
@given(st.integers(0, 2**32), st.integers(0, 150))
def test_kernel_is_twin(seed: int, length: int) -> None:
    assert_twins(some_scenario(seed, length))


@pytest.mark.slow
@LONG
@given(st.integers(0, 2**32), st.integers(0, 300))
def test_kernel_is_twin_at_length(seed: int, length: int) -> None:
    assert_twins(some_scenario(seed, length))


# --- the rules one by one ---------------------------------------------------------------------------------------


def read(cycle: int, bank: int, row: int = 0, column: int = 0) -> Access:
    return Access(cycle, 0, bank, row, column)


def write(cycle: int, bank: int, row: int = 0, column: int = 0) -> Access:
    return Access(cycle, 1, bank, row, column)


def outcome(accesses: Sequence[Access], name: str = "ddr4_2400", **changes: Any) -> Outcome:
    """A run of the kernel, without refreshes unless `changes` have some."""
    calm = {"dram": {"refresh": {"policy": "none"}, "ranks": 1}}
    m = memory(name, **merged(calm, changes))
    found = run_kernel(m, accesses).outcome
    assert found == Twin(m).run(accesses)
    return found


def clocks(log: list[Event], command: str, bank: int) -> list[int]:
    return [event[0] for event in log if event[1:3] == (command, bank)]


@pytest.mark.parametrize(("writes", "at_once"), [(25, False), (26, True)])
def test_writes_take_over_above_four_fifths_of_their_queue(writes: int, at_once: bool) -> None:
    reads = [read(0, 0, row) for row in range(30)]
    log = outcome([*reads, *(write(0, 1 + i % 13, 0, i // 13) for i in range(writes))]).log
    first = min(event[0] for event in log if event[2] > 0)
    if at_once:
        assert first == 30 + writes  # the clock in which the last one is accepted
    else:
        assert first > clocks(log, "ACT", 0)[-1]


def test_writes_give_way_below_a_fifth_of_their_queue() -> None:
    reads = [read(0, 0, row) for row in range(30)]
    log = outcome([*reads, *(write(0, 1 + i % 13, 0, i // 13) for i in range(26))]).log
    # A write leaves its queue with its ACT, or with its WR if it is not the first of its bank.
    left = [event[0] for event in log if event[2] > 0 and event[1] == "ACT"]
    left += [clock for bank in range(1, 14) for clock in clocks(log, "WR", bank)[1:]]
    left.sort()
    last_read = clocks(log, "ACT", 0)[-1]
    to_reads = [event[0] for event in log if event[2] == 0 and event[1] in ("ACT", "PREpb")]
    # With seven left the writes go on, with six the reads do, to their end.
    taken = 26 - 6
    assert next(clock for clock in to_reads if clock > left[0]) == left[taken - 1] + 1
    assert left[taken] > last_read


def test_a_read_of_a_queued_write_is_answered_at_once() -> None:
    # The second write keeps waiting for the bank, so its data are in the queue; those of the first are not.
    found = outcome([write(0, 0), write(0, 0, 1), read(5, 0, 1), read(6, 0)])
    assert found.forwarded == 1 and found.latencies[1] == 1
    assert sum(found.latencies.values()) == 2
    assert [event[1] for event in found.log].count("RD") == 1


@pytest.mark.parametrize("entries", [1, 32])
def test_a_write_to_a_queued_write_is_absorbed_even_if_the_queue_is_full(entries: int) -> None:
    accesses = [write(0, 0), write(0, 0, 1), write(5, 0, 1)]
    found = outcome(accesses, controller={"write_queue": entries})
    assert found.merged == 1
    assert [event[1] for event in found.log].count("WR") == 2
    # Once its row is being opened the write is in no queue any more.
    assert outcome([write(0, 0), write(1, 0)]).merged == 0


@pytest.mark.parametrize(("entries", "waits"), [(1, True), (5, False)])
def test_a_refused_request_blocks_those_behind_it(entries: int, waits: bool) -> None:
    shares = {"write_queue": entries, "write_high": 1.0, "write_low": 1.0}
    log = outcome([write(0, 0), write(0, 0, 1), write(0, 0, 2), read(0, 5)], controller=shares).log
    assert (clocks(log, "ACT", 5)[0] > clocks(log, "ACT", 0)[1]) == waits


@pytest.mark.parametrize(
    ("scheduler", "rows", "expected"),
    [
        ("fr_fcfs", (0, 0, 1), "ACT RD PREpb ACT RD PREpb ACT RD"),
        ("fr_fcfs_row_hit", (0, 0, 1), "ACT RD RD PREpb ACT RD"),
        ("fr_fcfs_row_hit", (0, 1, 0), "ACT RD PREpb ACT RD PREpb ACT RD"),
    ],
)
def test_a_row_is_kept_open_for_older_hits_alone(
    scheduler: str, rows: tuple[int, ...], expected: str
) -> None:
    # A precharge is ready long before the next read of the row is.
    timing = {"nRAS": 5, "nRTP": 1, "nCCD_L": 60}
    accesses = [read(0, 0, row, column) for column, row in enumerate(rows)]
    log = outcome(accesses, dram={"timing": timing}, controller={"scheduler": scheduler}).log
    assert [event[1] for event in log] == expected.split()


@pytest.mark.parametrize(("bank", "clock"), [(0, 105), (1, 104), (16, 104)])
def test_the_bank_of_an_activate_is_not_closed_at_its_last_half_clock(bank: int, clock: int) -> None:
    swift = {"nRAS": 1, "nRTP": 0, "nRCDRD": 1, "nPPD": 0}
    accesses = [read(0, 1), read(0, 16), read(100, 0), read(100, bank, 1)]
    log = outcome(accesses, "hbm3_6400", dram={"stack_ids": 1, "timing": swift}).log
    assert clocks(log, "ACT", 0)[0] == 101
    assert clocks(log, "PREpb", bank) == [clock]


@pytest.mark.parametrize(("bank", "clock"), [(0, 12481), (16, 12480)])
def test_all_banks_are_not_closed_in_the_half_clock_after_a_row_command(bank: int, clock: int) -> None:
    changes = {"refresh": {"policy": "all_bank"}, "stack_ids": 1, "timing": {"nPPD": 0, "nREFI": 12480}}
    accesses = [read(0, bank), read(0, 1), read(12478, bank, 1)]
    log = outcome(accesses, "hbm3_6400", dram=changes).log
    assert clocks(log, "PREpb", bank) == [12479]
    assert clocks(log, "PREab", 0) == [clock]


@pytest.mark.parametrize(("deadline", "is_first"), [(1, True), (2, True), (3, False), (8, False)])
def test_an_activate_is_completed_by_its_deadline(deadline: int, is_first: bool) -> None:
    accesses = [read(0, 0), read(100, 4), read(100, 0, 0, 1)]
    log = outcome(accesses, "lpddr5_6400", dram={"timing": {"nAAD": deadline}}).log
    names = [event[1] for event in log if 101 <= event[0] <= 104]
    # CAS_RD reserves the next clock for its RD.
    assert names == ["ACT1", *(["ACT2", "CAS_RD", "RD"] if is_first else ["CAS_RD", "RD", "ACT2"])]


@pytest.mark.parametrize("wait", [1, 4])
def test_nothing_comes_between_the_start_of_the_data_clock_and_its_access(wait: int) -> None:
    sync = {"constraints": {"sync_to_read": {"minimum": str(wait)}}}
    log = outcome([read(0, 0), read(100, 0, 0, 1), read(100, 4)], "lpddr5_6400", dram=sync).log
    late = [event[:2] for event in log if event[0] > 100]
    assert late[:3] == [(101, "CAS_RD"), (101 + wait, "RD"), (102 + wait, "ACT1")]


@pytest.mark.parametrize("cuts", [[1], [2], [2, 2], [3], [1, 2, 3]])
def test_a_run_goes_on_with_the_next_chunk_though_nothing_waits(cuts: list[int]) -> None:
    # Each of the later writes finds its row open, so it is done in the clock in which it comes.
    m = memory("ddr4_2400", dram={"refresh": {"policy": "none"}})
    accesses = [write(0, 0), write(100, 0, 0, 1), write(200, 0, 0, 2)]
    assert run_kernel(m, accesses, cuts) == run_kernel(m, accesses)


def test_refreshes_pile_up() -> None:
    changes = {"refresh": {"policy": "per_bank"}, "timing": {"nREFIpb": 1}}
    found = outcome([read(0, 0)], "lpddr5_6400", dram=changes)
    refreshes = [event[1] for event in found.log].count("REFpb")
    assert found.why == "piled"
    assert found.cycles == refreshes + ramulator2.MOST_DUE


def test_latencies_beyond_the_histogram_count() -> None:
    m = memory("ddr4_2400")
    accesses = [read(0, i % 7, i % 3, i) for i in range(100)]
    whole = run_kernel(m, accesses)
    assert sum(whole.outcome.latencies.values()) == whole.reads == 100
    assert run_kernel(m, accesses, bins=1) == run_kernel(m, accesses, bins=40) == whole


def test_a_new_round_of_a_set_waits_for_the_one_before() -> None:
    changes = {"refresh": {"policy": "per_bank_set"}, "stack_ids": 1, "timing": {"nREFIpb": 390}}
    outcome([read(40_000, 0)], "hbm3_6400", dram=changes)


@pytest.mark.parametrize(
    "rule",
    [
        ["bank", ["ACT2"], ["CAS_RD", "CAS_WR"], "25"],
        ["bank", ["ACT1"], ["ACT2"], "5"],
        ["rank", ["CAS_RD"], ["CAS_RD", "ACT2"], "9"],
    ],
)
def test_rules_bind_halves_of_activates_and_starts_of_the_data_clock(rule: list[Any]) -> None:
    accesses = [(write if i % 3 else read)(7 * i, 5 * i % 16, row=i % 4) for i in range(60)]
    bent = {"constraints": {"bent": dict(zip(("level", "before", "after", "minimum"), rule, strict=True))}}
    found = outcome(accesses, "lpddr5_6400", dram=bent)
    assert found != outcome(accesses, "lpddr5_6400")
