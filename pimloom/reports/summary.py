"""The summary of a run: one object of plain JSON types with units in its keys, always in the same order.

Everything that may differ between two runs of the same thing is in `simulator_block`.
"""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from pimloom import __version__
from pimloom.arch.machine import Arch
from pimloom.mapping.site import Site
from pimloom.reports.definitions import SCHEMA_VERSION
from pimloom.reports.energy import EnergyTable, channel_clocks, energy, energy_by_class
from pimloom.reports.interface import interface_bytes, works_by_class
from pimloom.sim.channel import EXTRA_STEPPED, EXTRA_TAIL
from pimloom.sim.record import Record
from pimloom.workloads.model import Model
from pimloom.workloads.request import Workload

TIME_OF = {
    "mac": "mac_stalls",
    "activate": "row_switching",
    "precharge": "row_switching",
    "write_buffer": "transfer_in",
    "read_result": "transfer_out",
    "read": "cache_and_table_access",
    "write": "cache_and_table_access",
    "refresh": "refresh",
}
"""Meaning of a command -> where the clocks waited for it are booked; of MACs, those beyond nMAC."""


def summary(arch: Arch, model: Model, workload: Workload, site: Site, record: Record) -> dict[str, Any]:
    """Return everything that a run says, without the simulator block; what is unknown is None."""
    notes, outcome = record.notes, record.outcome
    total_ns = _ns(outcome.end_ps)
    total_s = outcome.end_ps * 1e-12
    ends = np.array(notes.ends_ps, np.int64)
    first_ps = int(ends[workload.prompt - 1])
    later = workload.generate - 1
    priced = energy(arch, outcome.totals, outcome.end_ps, outcome.asic_busy_ps)
    latency_share = {group: ps / outcome.end_ps for group, ps in notes.group_ps.items()}
    works = works_by_class(arch, record)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": model.name,
        "arch": arch.name,
        "workload": workload.model_dump(),
        "total_time_ns": total_ns,
        "time_per_token_ns": [_ns(ps) for ps in np.diff(ends, prepend=0).tolist()],
        "ttft_ns": _ns(first_ps),
        "tpot_ns": _ns(int(ends[-1]) - first_ps) / later if later else None,
        "tokens_per_s": workload.generate * workload.batch / total_s,
        "average_power_W": priced.total_pJ / total_ns * 1e-3,
        **_pace(arch, site, record, total_s),
        "energy_per_token_pJ": priced.total_pJ / (workload.generate * workload.batch),
        "energy_pJ": priced.components_pJ | {"total": priced.total_pJ},
        "energy_by_operator_pJ": energy_by_class(arch, works, latency_share, priced.total_pJ),
        "energy_left_out": list(priced.left_out),
        "energy_rows": energy_rows(priced),
        **_commands(arch, record),
        "latency_share": latency_share,
        "command_time_share": _command_time_share(arch, record),
        "refresh_time_share": _refresh_time_share(arch, record),
        "interface_bytes": interface_bytes(arch, site, record, works),
        "memory": {
            "rows_used": site.used_rows,
            "rows_total": arch.dram.rows,
            "wasted_B": site.wasted_values * arch.pim.element_B,
        },
    }


def simulator_block(record: Record, engine: str, wall_s: float) -> dict[str, Any]:
    """Return what may differ between two runs of the same thing."""
    totals = record.outcome.totals
    commands = (totals.shape[1] - EXTRA_STEPPED - 1) // 2
    stepped = int(totals[:, 2 * commands + EXTRA_STEPPED].sum())
    return {
        "engine": engine,
        "wall_s": wall_s,
        "commands_simulated": stepped,
        "commands_skipped": int(totals[:, :commands].sum()) - stepped,
        **host_block(),
    }


def host_block() -> dict[str, Any]:
    """Return where a simulation has run, and with which versions."""
    from importlib.metadata import version

    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "numba": version("numba"),
        "version": __version__,
    }


def energy_rows(table: EnergyTable) -> list[dict[str, Any]]:
    """Return the products of an energy table as JSON objects."""
    return [row._asdict() for row in table.rows]


def useful_macs(site: Site, positions: list[int]) -> int:
    """Return the multiplications that the passes at `positions` need, without padding of any kind."""
    graph, model, workload = site.graph, site.model, site.workload

    def matrices(ops: Any) -> int:
        return sum(op.shape[0] * op.shape[1] for op in ops if op.kind == "linear")

    attention = sum(2 * model.q_width * (position + 1) for position in positions)
    layers = model.layers * (len(positions) * matrices(graph.layer) + attention)
    epilogues = sum(position >= workload.prompt - 1 for position in positions)
    return workload.batch * (layers + epilogues * matrices(graph.epilogue))


def _ns(ps: int) -> float:
    return ps / 1000


def _issues(arch: Arch, record: Record) -> dict[str, int]:
    names = arch.dram.command_names
    counts = record.outcome.totals[:, : len(names)].sum(0)
    return dict(zip(names, counts.tolist(), strict=True))


def _pace(arch: Arch, site: Site, record: Record, total_s: float) -> dict[str, Any]:
    """Return how much of the machine's peaks is used."""
    dram, counts = arch.dram, _issues(arch, record)
    macs = sum(counts[name] for name, command in dram.commands.items() if command.meaning == "mac")
    bursts = sum(counts[name] for name, command in dram.commands.items() if command.data != "none")
    clocks = channel_clocks(arch, record.outcome.end_ps)
    useful = useful_macs(site, record.notes.positions)
    return {
        "pim_utilisation": macs * arch.nMAC / clocks,
        "pim_utilisation_useful": useful / (arch.peaks.mac_per_s * total_s),
        "bandwidth_inside_Bps": {
            "achieved": macs * dram.banks * dram.access_B / total_s,
            "peak": arch.peaks.internal_Bps,
        },
        "bandwidth_pins_Bps": {"achieved": bursts * dram.access_B / total_s, "peak": arch.peaks.pin_Bps},
    }


def _commands(arch: Arch, record: Record) -> dict[str, Any]:
    """Return the commands by type and the row-hit rate."""
    counts = _issues(arch, record)
    activations = accesses = 0
    for name, command in arch.dram.commands.items():
        in_banks = counts[name] * (arch.dram.banks if command.target == "channel" else 1)
        activations += in_banks if command.meaning == "activate" else 0
        accesses += in_banks if command.meaning in ("read", "write", "mac") else 0
    return {"commands": counts, "row_hit_rate": 1 - activations / accesses if accesses else None}


def _command_time_share(arch: Arch, record: Record) -> dict[str, float]:
    """Return the share of all channels' clocks by what a channel waits for."""
    names, totals = arch.dram.command_names, record.outcome.totals
    sums = totals.sum(0).tolist()
    every = channel_clocks(arch, record.outcome.end_ps)
    clocks = dict.fromkeys(("mac_streaming", *TIME_OF.values()), 0)
    for i, command in enumerate(arch.dram.commands.values()):
        issued, waited = sums[i], sums[len(names) + i]
        if command.meaning == "mac":
            streaming = min(issued * arch.nMAC, waited)
            clocks["mac_streaming"] += streaming
            waited -= streaming
        clocks[TIME_OF[command.meaning]] += waited
    # Without barrier the next program may start while the last data are under way: those clocks count once.
    left = every - sum(clocks.values())
    clocks["data_tail"] = min(sums[2 * len(names) + EXTRA_TAIL], left)
    clocks["waiting"] = left - clocks["data_tail"]
    return {name: n / every for name, n in clocks.items()}


def _refresh_time_share(arch: Arch, record: Record) -> float:
    """Return the share of all channels' time that they are in refresh."""
    dram, counts = arch.dram, _issues(arch, record)
    refreshes = sum(counts[name] for name, command in dram.commands.items() if command.meaning == "refresh")
    every = channel_clocks(arch, record.outcome.end_ps)
    return refreshes * dram.timing.get("nRFC", 0) / every
