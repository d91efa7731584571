"""The figures of a run of requests: percentiles, energy by hand, what is not known."""

from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from pimloom.arch.memory import load_memory
from pimloom.reports.definitions import request_keys
from pimloom.reports.memory import memory_energy, memory_result, print_memory
from pimloom.sim.controller import Outcome


def outcome(latencies: dict[int, int], commands: int, ranks: int = 2) -> Outcome:
    return Outcome(
        cycles=1000, busy_cycles=800, commands=np.arange(commands), reads=sum(latencies.values()), writes=3,
        forwarded=0, coalesced=0, shared=0, row_hits=2, row_misses=1, row_conflicts=1,
        latency=np.array(sorted(latencies)), latency_count=np.array([latencies[k] for k in sorted(latencies)]),
        active_cycles=np.arange(ranks),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("latencies", "wanted"),
    [
        ({30: 1}, (30, 30, 30, 30)),
        ({30: 1, 40: 1}, (30, 40, 40, 40)),
        ({1: 50, 2: 40, 3: 9, 4: 1}, (1, 2, 3, 4)),
        ({10: 9999, 70000: 1}, (10, 10, 10, 70000)),
    ],
)
def test_percentiles_are_latencies_that_occurred(latencies: dict[int, int], wanted: tuple[int, ...]) -> None:
    memory, _ = load_memory("ddr4_3200")
    result = memory_result(memory, outcome(latencies, len(memory.dram.commands)), 7)
    names = ("p50", "p90", "p99", "max")
    assert tuple(result[f"read_latency_{name}_cycles"] for name in names) == wanted
    values = np.repeat(list(latencies), list(latencies.values()))
    for p, name in ((50, "p50"), (90, "p90"), (99, "p99"), (99.9, "p99_9")):
        found = np.percentile(values, p, method="inverted_cdf")
        assert result[f"read_latency_{name}_cycles"] == found
    assert result["read_latency_mean_cycles"] == pytest.approx(values.mean())
    assert result["trace_crc32"] == "00000007"
    assert result["bandwidth_GBps"] == pytest.approx((values.size + 3) * 64 / (800 * 0.625))


def test_energy_by_hand() -> None:
    """One rank of eight devices for a thousand clocks of 1/1.2 ns."""
    memory, _ = load_memory("ddr4_2400")
    dram, i, n = memory.dram, memory.dram.currents, memory.dram.timing
    assert dram.devices == 8
    counts = {"ACT": 2, "RD": 5, "WR": 3, "REFab": 1, "PREpb": 2}
    energy = memory_energy(dram, counts, np.array([600]), 1000)
    assert energy is not None
    nC = i.VDD_V * 8 / 1.2
    wanted = {
        "act_pJ": 2
        * nC
        * (i.IDD0_mA * (n["nRAS"] + n["nRP"]) - i.IDD3N_mA * n["nRAS"] - i.IDD2N_mA * n["nRP"]),
        "read_pJ": 5 * nC * (i.IDD4R_mA - i.IDD3N_mA) * 4,
        "write_pJ": 3 * nC * (i.IDD4W_mA - i.IDD3N_mA) * 4,
        "refresh_pJ": nC * (i.IDD5B_mA - i.IDD3N_mA) * n["nRFC"],
        "refresh_bank_pJ": 0,
        "active_standby_pJ": nC * i.IDD3N_mA * 600,
        "precharge_standby_pJ": nC * i.IDD2N_mA * 400,
    }
    for name, value in wanted.items():
        assert energy[name] == pytest.approx(value), name
    assert energy["total_pJ"] == pytest.approx(sum(wanted.values()))
    assert energy["average_power_mW"] == pytest.approx(sum(wanted.values()) / (1000 / 1.2))


def test_a_bank_that_only_opens_and_closes_draws_IDD0() -> None:
    """Micron's identity: activates every nRC and their standby are IDD0 on average."""
    memory, _ = load_memory("ddr4_2400", ["dram.timing.nRC=56", "dram.timing.nRAS=39", "dram.timing.nRP=17"])
    dram, n = memory.dram, 50
    energy = memory_energy(dram, {"ACT": n, "PREpb": n}, np.array([39 * n]), 56 * n)
    assert energy is not None
    wanted = dram.currents.VDD_V * dram.currents.IDD0_mA * 8
    assert energy["average_power_mW"] == pytest.approx(wanted)


def test_what_is_not_known_is_not_zero() -> None:
    memory, _ = load_memory("hbm3_6400")
    result = memory_result(memory, outcome({}, len(memory.dram.commands)), 0)
    assert result["energy"] is None
    assert result["read_latency_mean_cycles"] is None
    text = StringIO()
    print_memory(result, Console(file=text, width=110))
    assert "energy        n/a" in text.getvalue()
    assert "None" not in text.getvalue()
    # A refresh of one bank without its current leaves the sum open.
    ddr4, _ = load_memory("hbm2_2000", ["dram.refresh.policy=per_bank", "dram.currents.IDD5PB_mA=null"])
    energy = memory_energy(ddr4.dram, {"REFpb": 3}, np.array([0, 0]), 10)
    assert energy is not None
    assert (energy["refresh_bank_pJ"], energy["total_pJ"]) == (None, None)


def test_every_key_is_explained() -> None:
    memory, _ = load_memory("ddr4_3200")
    result = memory_result(memory, outcome({30: 1}, len(memory.dram.commands)), 0)
    keys = set(result) - {"commands", "energy"} | {f"energy.{key}" for key in result["energy"]}
    assert {f"dram.{key}" for key in keys} | {"dram.commands.*"} == {
        key for key in request_keys() if not key.startswith("dram.simulator.")
    }
