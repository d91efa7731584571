"""The round-robin controller: command for command DRAMsim3's, and its naive twin's on random memories and requests."""

from __future__ import annotations

import copy
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pimloom.arch.memory import Memory, load_memory
from pimloom.sim import dramsim3
from pimloom.sim.controller import ENDED, MORE, Batch, StuckError
from pimloom.sim.dramsim3 import Dramsim3
from tests.sim.naive_dramsim3 import Naive, Request

DATA = Path(__file__).parents[1] / "data" / "dram"
CASES = sorted(path.name for path in (DATA / "dramsim3").iterdir())
CONFIGS = {name: yaml.safe_load((DATA / "check" / name / "config.yaml").read_text()) for name in CASES}
Row = tuple[int, str, int, int, int]
QUICK = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def memory_of(config: dict[str, Any], folder: Path) -> Memory:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    return load_memory(str(path))[0]


def batch_of(memory: Memory, requests: list[Request]) -> Batch:
    cycle, write, bank, row, column = np.array(requests, np.int64).reshape(-1, 5).T.copy()
    key = (row * memory.dram.columns + column) * memory.dram.banks + bank
    return Batch(cycle, write, key, bank, row, column)


def run(
    controller: Dramsim3, memory: Memory, requests: list[Request], chunk: int = 1 << 18, room: int = 1 << 12
) -> list[Row]:
    """Run to the end with requests in chunks and a log of `room` rows at a time; return the commands."""
    batch, names, at = batch_of(memory, requests), memory.dram.command_names, 0
    log, rows = np.full((room, 5), -7, np.int64), []
    reason = MORE
    while reason != ENDED:
        part = Batch(*(values[at : at + chunk] for values in batch))
        reason, count = controller.feed(part, at + chunk >= len(requests), log)
        rows += [(clock, names[c], bank, row, column) for clock, c, bank, row, column in log[:count].tolist()]
        at += chunk if reason == MORE else 0
    return rows


def counted(controller: Dramsim3) -> dict[str, Any]:
    out, c = controller.outcome(), controller.state.counters
    return {
        "cycles": out.cycles,
        "latencies": dict(zip(out.latency.tolist(), out.latency_count.tolist(), strict=True)),
        "active": out.active_cycles.tolist(),
        "accepted": (out.reads, out.writes, out.forwarded, out.shared, out.coalesced),
        "hits": (c[dramsim3.READ_HITS], c[dramsim3.WRITE_HITS]),
        "other": (out.row_conflicts, c[dramsim3.DUAL], c[dramsim3.STALLS]),
    }


def counted_naive(naive: Naive) -> dict[str, Any]:
    c = naive.counts
    return {
        "cycles": naive.clock,
        "latencies": dict(naive.latencies),
        "active": naive.active,
        "accepted": tuple(c[name] for name in ("reads", "writes", "forwarded", "shared", "merged")),
        "hits": (c["hits RD"], c["hits WR"]),
        "other": (c["ondemand"], c["dual"], c["stalls"]),
    }


def lines_of(path: Path) -> list[str]:
    with gzip.open(path, "rt") as file:
        return file.read().split()[1:]


def requests_of(config: dict[str, Any], path: Path) -> list[Request]:
    """The requests of a file of the reference form, their addresses taken apart by hand."""
    org, requests = config["organisation"], []
    for line in lines_of(path):
        cycle, op, text = line.split(",")
        rest, at = int(text, 16), dict.fromkeys(("rank", "bankgroup", "bank", "row", "column"), 0)
        for name, bits in config["address_mapping"]["lsb_first"]:
            at[name] = rest & (1 << bits) - 1
            rest >>= bits
        group = at["rank"] * org["bankgroups"] + at["bankgroup"]
        bank = group * org["banks_per_bankgroup"] + at["bank"]
        requests.append((int(cycle), int(op == "W"), bank, at["row"], at["column"]))
    return requests


# ---- the reference


@pytest.mark.parametrize("case", CASES)
def test_first_commands_of_the_reference(case: str, tmp_path: Path) -> None:
    """The requests stored are more than the commands stored need."""
    config = CONFIGS[case]
    memory = memory_of(config, tmp_path)
    requests = requests_of(config, DATA / "dramsim3" / case / "requests.txt.gz")
    per_group = config["organisation"]["banks_per_bankgroup"]
    per_rank = per_group * config["organisation"]["bankgroups"]
    rows = run(Dramsim3(memory), memory, requests)
    stored = lines_of(DATA / "dramsim3" / case / "commands.csv.gz")
    text = [
        f"{clock},REFab,0,0,{bank},-1,-1,-1,-1"
        if name == "REFab"
        else f"{clock},{name},0,0,{bank // per_rank},{bank % per_rank // per_group},{bank % per_group},{row},{column}"
        for clock, name, bank, row, column in rows
    ]
    assert text[: len(stored)] == stored


# ---- the naive twin


@st.composite
def some_config(draw: st.DrawFn) -> dict[str, Any]:
    """A configuration with other timings, counts and policies; L rules are no weaker than S rules."""
    config: dict[str, Any] = copy.deepcopy(CONFIGS[draw(st.sampled_from(CASES))])
    t, org, controller = config["timing_cycles"], config["organisation"], config["controller"]
    for name, low, high in (
        ("nBL", 1, 8), ("nCL", 4, 24), ("nRP", 4, 24), ("nRAS", 12, 50), ("nWR", 8, 30), ("nRTP", 2, 12),
        ("nCCD_S", 1, 6), ("nRRD_S", 1, 9), ("nWTR_S", 1, 8), ("nFAW", 5, 60), ("nRFC", 20, 200), ("nRTRS", 1, 3),
    ):  # fmt: skip
        if draw(st.booleans()):
            t[name] = draw(st.integers(low, high))
    for name in ("nCCD", "nRRD", "nWTR"):
        t[f"{name}_L"] = t[f"{name}_S"] + draw(st.integers(0, 5))
    t["nCWL"] = draw(st.integers(2, t["nCL"]))
    for name in ("nRCD", "nRCDRD", "nRCDWR"):
        if name in t:
            t[name] = draw(st.integers(4, 24))
    t["nRC"] = t["nRAS"] + t["nRP"]
    t["nREFI"] = t["nRFC"] + draw(st.integers(1600, 3000))
    config["refresh"]["mode"] = draw(st.sampled_from(["all_bank", "all_bank", "none"]))
    bits = {name: draw(st.integers(0, 2)) for name in ("rank", "bankgroup", "bank")}
    org["ranks"], org["bankgroups"], org["banks_per_bankgroup"] = (2**n for n in bits.values())
    org["rows"], org["bursts_per_row"] = 16, 8
    config["address_mapping"]["lsb_first"] = [
        ["column", 3],
        *([name, n] for name, n in bits.items()),
        ["row", 4],
    ]
    controller["queue_structure"] = draw(st.sampled_from(["PER_BANK", "PER_RANK"]))
    controller["command_queue_entries"] = draw(st.sampled_from([1, 2, 8]))
    controller["transaction_queue_entries"] = draw(st.sampled_from([1, 9, 32]))
    controller["unified_transaction_queue"] = draw(st.booleans())
    controller["dual_command_issue"] = draw(st.booleans())
    controller["row_policy"] = draw(st.sampled_from(["open_page", "close_page"]))
    controller["row_hit_cap"] = draw(st.integers(1, 5))
    config["frontend"]["tail_cycles"] = draw(st.sampled_from([0, 700]))
    return config


@st.composite
def some_requests(draw: st.DrawFn, banks: int) -> list[Request]:
    """Hot or spread, dense or sparse; drawn from a seed, as thousands of draws would be slow."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, rows, columns = draw(st.sampled_from([1, 40, 250])), draw(st.integers(1, 16)), draw(st.integers(1, 8))
    gaps = rng.geometric(1 / draw(st.sampled_from([1, 4, 60])), n) - 1
    writes = rng.random(n) < draw(st.sampled_from([0, 0.4, 1]))
    parts = (np.cumsum(gaps), writes, *(rng.integers(0, size, n) for size in (banks, rows, columns)))
    return [tuple(int(x) for x in request) for request in zip(*parts, strict=True)]


@QUICK
@given(st.data())
def test_twins(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Kernel = naive, whatever the chunks, the room in the log and the room for latencies at first."""
    config = data.draw(some_config())
    memory = memory_of(config, tmp_path_factory.mktemp("config"))
    requests = data.draw(some_requests(memory.dram.banks))
    chunk, room = data.draw(st.sampled_from([(7, 5), (1000, 1000)]))
    controller, naive = Dramsim3(memory, longest=30, shares=2), Naive(config, requests)
    try:
        rows = run(controller, memory, requests, chunk, room)
    except StuckError:
        # README 5.7: the naive twin would never end, either.
        naive.run(cycles=int(controller.state.scalars[dramsim3.PROGRESS]) + 5000)
        assert naive.end is None and not controller.setup.unified
        assert naive.last_progress == controller.state.scalars[dramsim3.PROGRESS]
        return
    naive.run()
    assert rows == naive.log
    assert counted(controller) == counted_naive(naive)


# ---- single rules


@pytest.fixture
def config() -> dict[str, Any]:
    return copy.deepcopy(CONFIGS["dramsim3_hbm2_2000_random_rw21_ref"])


def test_write_that_may_not_pass_a_read_waits_for_ever(config: dict[str, Any], tmp_path: Path) -> None:
    memory = memory_of(config, tmp_path)
    # Reads of one bank fill its command queue and the queue of reads; then the last of them is written.
    reads = [(0, 0, 0, i // 32, i % 32) for i in range(45)]
    writes = [(0, 1, *reads[-1][2:]), *((0, 1, 0, 9, i) for i in range(31))]
    with pytest.raises(StuckError, match="nothing but refreshes since clock"):
        run(Dramsim3(memory), memory, reads + writes)


def test_no_requests_end_after_the_tail(config: dict[str, Any], tmp_path: Path) -> None:
    memory = memory_of(config, tmp_path)
    controller = Dramsim3(memory)
    assert run(controller, memory, []) == []
    assert counted(controller)["cycles"] == config["frontend"]["tail_cycles"]


def test_log_changes_nothing(config: dict[str, Any], tmp_path: Path) -> None:
    memory = memory_of(config, tmp_path)
    requests = requests_of(
        config, DATA / "dramsim3" / "dramsim3_hbm2_2000_random_rw21_ref" / "requests.txt.gz"
    )
    with_log, without = Dramsim3(memory), Dramsim3(memory)
    run(with_log, memory, requests)
    run(without, memory, requests, room=0)
    assert counted(with_log) == counted(without)


def test_single_reads_issue_at_the_first_legal_clock(config: dict[str, Any], tmp_path: Path) -> None:
    memory = memory_of(config, tmp_path)
    t = config["timing_cycles"]
    controller = Dramsim3(memory)
    rows = run(controller, memory, [(100, 0, 5, 7, 1), (1000, 0, 5, 8, 2), (1000, 0, 5, 8, 2)])
    read = 1001 + t["nRP"] + t["nRCDRD"]
    assert rows == [
        (101, "ACT", 5, 7, -1),
        (101 + t["nRCDRD"], "RD", 5, 7, 1),
        (1001, "PRE", 5, -1, -1),
        (1001 + t["nRP"], "ACT", 5, 8, -1),
        (read, "RD", 5, 8, 2),
    ]
    done = t["nCL"] + t["nBL"]
    first = 1 + t["nRCDRD"] + done
    assert counted(controller)["latencies"] == {first: 1, read + done - 1000: 1, read + done - 1001: 1}
