"""What a run of requests through a memory amounts to: time, bandwidth, latency, row hits, energy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pimloom.arch.dram import Dram
from pimloom.arch.memory import Memory
from pimloom.sim.controller import Outcome

PERCENTILES = (50, 90, 99, 99.9)


def memory_result(memory: Memory, outcome: Outcome, trace_crc32: int) -> dict[str, Any]:
    """Return the figures of a run; keys say their units, `pimloom explain` what they mean."""
    dram = memory.dram
    ns = 1e9 / dram.clock_Hz
    counts = {name: int(n) for name, n in zip(dram.commands, outcome.commands, strict=True) if n}
    requests = outcome.reads + outcome.writes
    busy_ns = outcome.busy_cycles * ns
    accesses = sum(n for name, n in counts.items() if dram.commands[name].meaning in ("read", "write"))
    achieved_GBps = requests * dram.access_B / busy_ns if busy_ns else None
    pins_GBps = accesses * dram.access_B / busy_ns if busy_ns else None
    peak_GBps = memory.peak_Bps / 1e9
    latencies = _latencies(outcome)
    served = outcome.row_hits + outcome.row_misses + outcome.row_conflicts
    return {
        "memory": memory.name,
        "dram": dram.name,
        "scheduler": memory.controller.scheduler,
        "page": memory.controller.page,
        "channels_simulated": 1,
        "clock_Hz": dram.clock_Hz,
        "requests": requests,
        "access_B": dram.access_B,
        "reads": outcome.reads,
        "writes": outcome.writes,
        "cycles": outcome.cycles,
        "busy_cycles": outcome.busy_cycles,
        "busy_time_ns": busy_ns,
        "commands": counts,
        "commands_total": sum(counts.values()),
        "trace_crc32": f"{trace_crc32:08x}",
        "bandwidth_GBps": achieved_GBps,
        "bandwidth_pins_GBps": pins_GBps,
        "bandwidth_peak_GBps": peak_GBps,
        "bandwidth_share": None if pins_GBps is None else pins_GBps / peak_GBps,
        **{f"read_latency_{name}_cycles": value for name, value in latencies.items()},
        **{
            f"read_latency_{name}_ns": None if value is None else value * ns
            for name, value in latencies.items()
            if name != "sum"
        },
        "row_hits": outcome.row_hits,
        "row_misses": outcome.row_misses,
        "row_conflicts": outcome.row_conflicts,
        "row_hit_share": outcome.row_hits / served if served else None,
        "reads_forwarded": outcome.forwarded,
        "reads_shared": outcome.shared,
        "writes_coalesced": outcome.coalesced,
        "rank_active_cycles": outcome.active_cycles.tolist(),
        "energy": memory_energy(dram, counts, outcome.active_cycles, outcome.cycles),
    }


def _latencies(outcome: Outcome) -> dict[str, float | int | None]:
    """Sum, mean, percentiles (the smallest latency that so many reads do not exceed) and maximum, in clocks."""
    values, counts = outcome.latency, outcome.latency_count
    names = [f"p{p:g}".replace(".", "_") for p in PERCENTILES]
    if not len(values):
        return dict.fromkeys(["sum", "mean", *names, "max"])
    total = int(values @ counts)
    below = np.cumsum(counts)
    ranks = np.ceil(np.array(PERCENTILES) / 100 * below[-1] - 1e-9)
    at = values[np.searchsorted(below, ranks)]
    return {
        "sum": total,
        "mean": total / int(below[-1]),
        **dict(zip(names, at.tolist(), strict=True)),
        "max": int(values[-1]),
    }


def memory_energy(
    dram: Dram, counts: dict[str, int], active_cycles: npt.NDArray[np.int64], cycles: int
) -> dict[str, Any] | None:
    """Return energies in pJ of all devices of all ranks, or None where the currents are not known.

    The current-based equations of Micron's power notes, as DRAMsim3 (revision 29817593) applies them: commands
    over the standby that they add to, and standby by whether a bank of the rank is open. Pins and termination
    are not modelled. A precharge is part of its activate.

    counts: commands issued by name; active_cycles: i8[ranks], clocks with an open bank; cycles: of the run
    """
    i, n = dram.currents, dram.symbols({})
    known = (i.VDD_V, i.IDD0_mA, i.IDD2N_mA, i.IDD3N_mA, i.IDD4R_mA, i.IDD4W_mA, i.IDD5B_mA)
    if any(current is None for current in known) or not {"nRAS", "nRP"} <= n.keys():
        return None
    VDD, IDD0, IDD2N, IDD3N, IDD4R, IDD4W, IDD5B = (float(current or 0) for current in known)
    # V * mA * clocks of one device -> pJ of a rank.
    factor = VDD * dram.devices * 1e9 / dram.clock_Hz
    meanings = {name: (command.meaning, command.target == "bank") for name, command in dram.commands.items()}

    def issued(meaning: str, is_single: bool = True) -> int:
        return sum(count for name, count in counts.items() if meanings[name] == (meaning, is_single))

    activates = issued("activate") + issued("activate_first")
    per_bank = issued("refresh")
    refresh_bank: float | None = 0.0
    if per_bank:
        current = i.IDD5PB_mA
        refresh_bank = None if current is None else factor * (current - IDD3N) * n.get("nRFCpb", 0) * per_bank
    active = int(active_cycles.sum())
    # Currents that make an activate give energy back are not those that the equation means.
    activate = IDD0 * (n["nRAS"] + n["nRP"]) - IDD3N * n["nRAS"] - IDD2N * n["nRP"]
    parts: dict[str, float | None] = {
        "act_pJ": factor * activate * activates if activate >= 0 else None,
        "read_pJ": factor * (IDD4R - IDD3N) * dram.nBL * issued("read"),
        "write_pJ": factor * (IDD4W - IDD3N) * dram.nBL * issued("write"),
        "refresh_pJ": factor * (IDD5B - IDD3N) * n.get("nRFC", 0) * issued("refresh", False),
        "refresh_bank_pJ": refresh_bank,
        "active_standby_pJ": factor * IDD3N * active,
        "precharge_standby_pJ": factor * IDD2N * (cycles * len(active_cycles) - active),
    }
    known_parts = [part for part in parts.values() if part is not None]
    total = sum(known_parts) if len(known_parts) == len(parts) else None
    time_ns = cycles * 1e9 / dram.clock_Hz
    return {
        **parts,
        "total_pJ": total,
        "average_power_mW": None if total is None or not time_ns else total / time_ns,
    }


def print_memory(result: dict[str, Any], console: Console) -> None:
    """Print the figures of a run as tables."""
    hits, misses, conflicts = (result[f"row_{name}"] for name in ("hits", "misses", "conflicts"))
    rows = [
        (
            "requests",
            f"{result['requests']:,} of {result['access_B']} B: {result['reads']:,} reads, "
            f"{result['writes']:,} writes",
        ),
        (
            "cycles",
            f"{result['cycles']:,} of {1e9 / result['clock_Hz']:.4g} ns = "
            f"{result['cycles'] / result['clock_Hz'] * 1e6:.4g} us",
        ),
        ("commands", ", ".join(f"{name} {count:,}" for name, count in result["commands"].items()) or "none"),
        ("trace CRC-32", result["trace_crc32"]),
        (
            "bandwidth",
            f"{_shown(result['bandwidth_pins_GBps'])} GB/s of {_shown(result['bandwidth_peak_GBps'])} GB/s "
            f"({_share(result['bandwidth_share'])})",
        ),
        (
            "read latency",
            f"mean {_shown(result['read_latency_mean_ns'])} ns, p50 {_shown(result['read_latency_p50_ns'])} ns, "
            f"p99 {_shown(result['read_latency_p99_ns'])} ns, max {_shown(result['read_latency_max_ns'])} ns",
        ),
        (
            "row hits",
            f"{hits:,} ({_share(result['row_hit_share'])}), {misses:,} misses, {conflicts:,} conflicts",
        ),
    ]
    unserved = {
        "forwarded": result["reads_forwarded"],
        "shared": result["reads_shared"],
        "coalesced": result["writes_coalesced"],
    }
    if any(unserved.values()):
        text = ", ".join(f"{count:,} {name}" for name, count in unserved.items() if count)
        rows.append(
            ("no access", f"{text}: answered by others; {_shown(result['bandwidth_GBps'])} GB/s with them")
        )
    energy = result["energy"]
    if energy is None:
        rows.append(("energy", "n/a: the currents are not known"))
    else:
        named = {
            key.removesuffix("_pJ").replace("_", " "): energy[key] for key in energy if key.endswith("_pJ")
        }
        total = named.pop("total")
        rows.append(("energy", f"{_uJ(total)} uJ, {_shown(energy['average_power_mW'])} mW on average"))
        rows.append(("", ", ".join(f"{name} {_uJ(pJ)}" for name, pJ in named.items() if pJ != 0) + " uJ"))
    table = Table(
        title=Text(
            f"{result['memory']}: one channel of {result['dram']}, {result['scheduler']}, {result['page']} page"
        ),
        title_justify="left",
        show_header=False,
        box=None,
    )
    for name, text in rows:
        table.add_row(name, Text(text))
    console.print(table)


def _shown(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1%}"


def _uJ(pJ: float | None) -> str:
    return "n/a" if pJ is None else f"{pJ / 1e6:.4g}"
