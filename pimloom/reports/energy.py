"""Energy from counts: events x energy per event plus state time x power, both factors kept.

DRAM core: the bank-resolved model of DRAMPower 5 on data-sheet currents. Everything here is for the whole
system, all channels and the ASIC. Nothing is simulated again: counts and times of a finished run are enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from pimloom.arch.clock import PS_PER_S, first_edge_at_or_after
from pimloom.arch.machine import Arch
from pimloom.sim.channel import EXTRA_ANY_OPEN, EXTRA_BANK_OPEN, EXTRAS, I8

Unit = Literal["pJ", "pJ/bit", "mW"]

NOT_MODELLED = ("link", "asic_sram")
"""Components without a model: unknown, which is not 0."""
WITHOUT_WORK = (("dram_refresh", None), ("dram_standby", None), ("asic", "idle"))
"""(component, item; None = all): what is drawn because time passes, whatever the operators do."""


class EnergyRow(NamedTuple):
    """One product: `system_count` (events, bits, or ns of a state) x `coefficient`; None = unknown.

    A state's power is in mW, and mW x ns = pJ, so count x coefficient is always pJ.
    """

    component: str
    item: str
    system_count: float
    count_unit: str
    coefficient: float | None
    coefficient_unit: Unit
    system_energy_pJ: float | None


@dataclass(frozen=True)
class EnergyTable:
    """All products of a run; the components add up to the total."""

    rows: tuple[EnergyRow, ...]

    @property
    def components_pJ(self) -> dict[str, float | None]:
        """Component -> sum of what is known of it, None where nothing is."""
        found: dict[str, float | None] = {}
        for row in self.rows:
            known, more = found.get(row.component), row.system_energy_pJ
            found[row.component] = known if more is None else (known or 0.0) + more
        return found | dict.fromkeys(NOT_MODELLED)

    @property
    def total_pJ(self) -> float:
        """Sum of the known components; `left_out` says what is missing from it."""
        return sum(energy for energy in self.components_pJ.values() if energy is not None)

    @property
    def left_out(self) -> tuple[str, ...]:
        """What the total does not hold: products with an unknown coefficient, components without a model."""
        unknown = [f"{row.component}: {row.item}" for row in self.rows if row.coefficient is None]
        return (*unknown, *NOT_MODELLED)


class CoreEnergies(NamedTuple):
    """Energies (pJ) and standby powers (mW) of one channel's DRAM core; None where a current is unknown.

    activate, precharge: of one bank; shared_mW: while any bank is open; open_mW: more for each open bank
    """

    activate_pJ: float | None
    precharge_pJ: float | None
    read_pJ: float | None
    write_pJ: float | None
    refresh_pJ: float | None
    closed_mW: float | None
    shared_mW: float | None
    open_mW: float | None


def core_energies(arch: Arch) -> CoreEnergies:
    """Return what one command or state of one channel costs, from the currents.

    DRAMPower 5 (commit d8b980ab, DDR4 core), with two choices of our own. A precharge lasts nRC - nRAS, so
    one bank opened and closed every nRC draws IDD0 on average also where nRC is above nRAS + nRP. A refresh
    counts against IDD2N, as its time is booked as standby with all banks closed: together they draw IDD5B.
    A read or write lasts the array's column time: IDD4R and IDD4W are the gapless currents at the rated speed,
    and slower pins do not make the array work longer. (A MAC's read never sees the pins at all.)
    """
    dram, n = arch.dram, arch.dram.timing
    i, V = dram.currents, dram.currents.VDD_V
    tCK_ns = 1e9 / dram.clock_Hz
    column_ns = n.get("nCCD", 1) * tCK_ns
    rho, banks = arch.energy.standby_shared_fraction, dram.banks

    def product(current_mA: float | None, floor_mA: float | None, time_ns: float | None) -> float | None:
        if V is None or current_mA is None or floor_mA is None or time_ns is None:
            return None
        return V * (current_mA - floor_mA) * time_ns

    def clocks_ns(later: str, earlier: str | None = None) -> float | None:
        if later not in n or (earlier is not None and earlier not in n):
            return None
        return (n[later] - (n[earlier] if earlier else 0)) * tCK_ns

    shared_mA = one_open_mA = None
    if i.IDD2N_mA is not None and i.IDD3N_mA is not None:
        shared_mA = i.IDD2N_mA + rho * (i.IDD3N_mA - i.IDD2N_mA)
        one_open_mA = (i.IDD3N_mA + (banks - 1) * shared_mA) / banks
    return CoreEnergies(
        activate_pJ=product(i.IDD0_mA, one_open_mA, clocks_ns("nRAS")),
        precharge_pJ=product(i.IDD0_mA, i.IDD2N_mA, clocks_ns("nRC", "nRAS")),
        read_pJ=product(i.IDD4R_mA, i.IDD3N_mA, column_ns),
        write_pJ=product(i.IDD4W_mA, i.IDD3N_mA, column_ns),
        refresh_pJ=product(i.IDD5B_mA, i.IDD2N_mA, clocks_ns("nRFC")),
        closed_mW=product(i.IDD2N_mA, 0.0, 1.0),
        shared_mW=product(shared_mA, 0.0, 1.0),
        open_mW=product(one_open_mA, shared_mA, 1.0),
    )


def channel_clocks(arch: Arch, time_ps: int) -> int:
    """Return the clocks of all channels until `time_ps`."""
    return arch.dram.channels * first_edge_at_or_after(time_ps, arch.dram.clock_Hz)


def energy(arch: Arch, totals: I8, time_ps: int, asic_busy_ps: int) -> EnergyTable:
    """Price a run.

    totals: i8[channel, A]  counts as in `sim.engine.Outcome`; a bank left open is charged its precharge too
    time_ps: length of the run; asic_busy_ps: for how much of it the ASIC works
    """
    dram, pim, asic = arch.dram, arch.pim, arch.asic
    sums = [int(n) for n in totals.sum(0)]
    extras = sums[2 * len(dram.commands) :]
    core = core_energies(arch)
    tCK_ns = 1e9 / dram.clock_Hz
    rows: list[EnergyRow] = []

    def add(
        component: str, item: str, count: float, count_unit: str, coefficient: float | None, unit: Unit = "pJ"
    ) -> None:
        product = None if coefficient is None else count * coefficient
        rows.append(EnergyRow(component, item, count, count_unit, coefficient, unit, product))

    def issues(*meanings: str, per_bank: bool = False) -> int:
        """Commands of these meanings; `per_bank`: one that addresses all banks counts once for each."""
        return sum(
            count * (dram.banks if per_bank and command.target == "channel" else 1)
            for command, count in zip(dram.commands.values(), sums, strict=False)
            if command.meaning in meanings
        )

    activations, macs = issues("activate", per_bank=True), issues("mac")
    mac_read_pJ = None if core.read_pJ is None else arch.energy.mac_read_factor * core.read_pJ
    add("dram_activate", "activate", activations, "bank activations", core.activate_pJ)
    add("dram_activate", "precharge", activations, "bank precharges", core.precharge_pJ)
    add("dram_read", "column read to the pins", issues("read"), "reads", core.read_pJ)
    add("dram_write", "column write", issues("write"), "writes", core.write_pJ)
    add("dram_mac_read", "column read by all MAC units of a channel", macs, "MAC commands", mac_read_pJ)
    add("dram_refresh", "refresh above standby", issues("refresh"), "refreshes", core.refresh_pJ)

    clocks = channel_clocks(arch, time_ps)
    any_open, bank_open = extras[EXTRA_ANY_OPEN], extras[EXTRA_BANK_OPEN]
    closed_ns = (clocks - any_open) * tCK_ns
    add("dram_standby", "all banks closed", closed_ns, "channel-ns", core.closed_mW, "mW")
    add("dram_standby", "any bank open, shared", any_open * tCK_ns, "channel-ns", core.shared_mW, "mW")
    add("dram_standby", "each open bank", bank_open * tCK_ns, "bank-ns", core.open_mW, "mW")

    mac_ns = macs * arch.nMAC * tCK_ns
    add("mac_units", "all MAC units of a channel at work", mac_ns, "channel-ns", pim.mac_power_W * 1e3, "mW")
    add("buffer", "input buffer read", macs, "MAC commands", pim.buffer_read_pJ)
    add("buffer", "input buffer write", issues("write_buffer"), "buffer writes", pim.buffer_write_pJ)
    access_bits, io_pJ = dram.access_B * 8, arch.energy.io_pJ_per_bit
    add("io", "to the memory", issues("write_buffer", "write") * access_bits, "bits", io_pJ, "pJ/bit")
    add("io", "from the memory", issues("read_result", "read") * access_bits, "bits", io_pJ, "pJ/bit")

    idle_mW = None if asic.idle_power_W is None else asic.idle_power_W * 1e3
    ns_per_ps = 1e9 / PS_PER_S
    add("asic", "at work", asic_busy_ps * ns_per_ps, "ns", asic.active_power_W * 1e3, "mW")
    add("asic", "idle", (time_ps - asic_busy_ps) * ns_per_ps, "ns", idle_mW, "mW")
    return EnergyTable(tuple(rows))


class Work(NamedTuple):
    """What an operator class had done: commands i8[command] of its programs, all channels; the ASIC's time."""

    commands: I8
    asic_busy_ps: int


def energy_by_class(
    arch: Arch, works: Mapping[str, Work], time_share: Mapping[str, float], total_pJ: float
) -> dict[str, float]:
    """Return the energy (pJ) of every operator class in `time_share`; they add up to `total_pJ`.

    A class pays for the commands of its programs and for the ASIC while it works for it. All the rest (standby,
    refreshes with their precharges and re-openings, the idle ASIC) goes by the classes' shares of the time,
    which add up to 1.
    """
    direct = dict.fromkeys(time_share, 0.0)
    for group, work in works.items():
        totals = np.concatenate([work.commands, np.zeros(len(work.commands) + EXTRAS, np.int64)])[None]
        direct[group] += sum(
            row.system_energy_pJ or 0.0
            for row in energy(arch, totals, 0, work.asic_busy_ps).rows
            if (row.component, None) not in WITHOUT_WORK and (row.component, row.item) not in WITHOUT_WORK
        )
    rest_pJ = total_pJ - sum(direct.values())
    return {group: pJ + time_share[group] * rest_pJ for group, pJ in direct.items()}
