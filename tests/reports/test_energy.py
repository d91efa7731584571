"""Energy by hand, and what must hold for any counts."""

from typing import Any

import numpy as np
import pytest

from pimloom.arch.machine import Arch, load_arch
from pimloom.reports.energy import EnergyTable, Work, core_energies, energy, energy_by_class
from pimloom.reports.result import Result
from pimloom.sim.channel import EXTRA_ANY_OPEN, EXTRA_BANK_OPEN, EXTRAS

RUNS = [(name, rho) for name in ("pim-gpt", "pim-gpt-aim-timing") for rho in (0, 0.3, 1)]


def price(
    arch: Arch, clocks: int, *, any_open: int = 0, bank_open: int = 0, asic_ps: int = 0, **counts: int
) -> EnergyTable:
    """The energy of one channel's counts; times in DRAM clocks."""
    names = arch.dram.command_names
    totals = np.zeros((arch.dram.channels, 2 * len(names) + EXTRAS), np.int64)
    for name, count in counts.items():
        totals[0, names.index(name)] = count
    totals[0, 2 * len(names) + EXTRA_ANY_OPEN] = any_open
    totals[0, 2 * len(names) + EXTRA_BANK_OPEN] = bank_open
    return energy(arch, totals, clocks * 10**12 // arch.dram.clock_Hz, asic_ps)


def one_channel(name: str, *overrides: str) -> Arch:
    return load_arch(name, ("dram.channels=1", *overrides))[0]


def known(value: float | None) -> float:
    assert value is not None
    return value


@pytest.mark.parametrize(("name", "rho"), RUNS)
def test_a_bank_that_opens_and_closes_every_nRC_draws_IDD0(name: str, rho: float) -> None:
    arch = one_channel(name, f"energy.standby_shared_fraction={rho}")
    n, current = arch.dram.timing, arch.dram.currents
    times = 1000
    open_clocks = times * n["nRAS"]
    table = price(
        arch, times * n["nRC"], any_open=open_clocks, bank_open=open_clocks, ACT=times, PRE=times
    ).components_pJ
    time_ns = times * n["nRC"] * 1e9 / arch.dram.clock_Hz
    drawn_mW = (known(table["dram_activate"]) + known(table["dram_standby"])) / time_ns
    assert drawn_mW == pytest.approx(known(current.VDD_V) * known(current.IDD0_mA))


@pytest.mark.parametrize(("name", "rho"), RUNS)
def test_standby_draws_IDD2N_closed_and_IDD3N_with_all_banks_open(name: str, rho: float) -> None:
    arch = one_channel(name, f"energy.standby_shared_fraction={rho}")
    current = arch.dram.currents
    time_ns = 1000 * 1e9 / arch.dram.clock_Hz
    closed = price(arch, 1000).components_pJ["dram_standby"]
    opened = price(arch, 1000, any_open=1000, bank_open=16 * 1000).components_pJ["dram_standby"]
    assert closed == pytest.approx(known(current.VDD_V) * known(current.IDD2N_mA) * time_ns)
    assert opened == pytest.approx(known(current.VDD_V) * known(current.IDD3N_mA) * time_ns)


@pytest.mark.parametrize("name", ["pim-gpt", "pim-gpt-aim-timing"])
def test_a_channel_in_refresh_draws_IDD5B(name: str) -> None:
    arch = one_channel(name)
    current, nRFC = arch.dram.currents, arch.dram.timing["nRFC"]
    table = price(arch, nRFC, REFab=1).components_pJ
    time_ns = nRFC * 1e9 / arch.dram.clock_Hz
    drawn_mW = (known(table["dram_refresh"]) + known(table["dram_standby"])) / time_ns
    assert drawn_mW == pytest.approx(known(current.VDD_V) * known(current.IDD5B_mA))


def test_a_short_list_of_commands_by_hand() -> None:
    """1.25 V; IDD0 122, 2N 92, 3N 142, 4R 530, 4W 470, 5B 277 mA; tCK 1 ns; nRAS 27, nRC 39, nRFC 455."""
    arch = load_arch("pim-gpt")[0]
    table = price(
        arch, 1000, any_open=500, bank_open=2000, asic_ps=100_000,
        ACT=3, PRE=2, ACT_AB=1, PREA=1, RD=5, WR=7, MAC_AB=11, WR_GB=13, RD_MAC=2, REFab=1,
    )  # fmt: skip
    one_open_mA = (142 + 15 * 92) / 16  # rho = 0
    expected = {
        "dram_activate": (3 + 16) * 1.25 * ((122 - one_open_mA) * 27 + (122 - 92) * 12),
        "dram_read": 5 * 1.25 * (530 - 142) * 1,
        "dram_write": 7 * 1.25 * (470 - 142) * 1,
        "dram_mac_read": 11 * 3 * 1.25 * (530 - 142) * 1,
        "dram_refresh": 1.25 * (277 - 92) * 455,
        "dram_standby": 1.25 * (92 * 8 * 1000 + (one_open_mA - 92) * 2000),
        "mac_units": 11 * 149.29,
        "buffer": 11 * 0.279 + 13 * 0.325,
        "io": (13 + 7 + 2 + 5) * 256 * 5.5,
        "asic": 304.59 * 1000,
    }
    assert table.components_pJ == pytest.approx(expected | {"link": None, "asic_sram": None})
    assert table.total_pJ == pytest.approx(sum(expected.values()))
    assert table.left_out == ("link", "asic_sram")


def test_both_factors_are_kept_and_parts_add_up(tiny: Result) -> None:
    table = tiny.energy()
    for row in table.rows:
        assert row.system_energy_pJ == row.system_count * known(row.coefficient)
    by_component: dict[str, float] = {}
    for row in table.rows:
        by_component[row.component] = by_component.get(row.component, 0) + known(row.system_energy_pJ)
    assert table.components_pJ == pytest.approx(by_component | {"link": None, "asic_sram": None})
    assert table.total_pJ == pytest.approx(sum(by_component.values()))
    assert tiny.average_power_W == pytest.approx(table.total_pJ * 1e-12 / (tiny.total_time_ns * 1e-9))


@pytest.mark.parametrize(
    ("override", "unknown", "left_out"),
    [
        ("dram.currents.IDD4R_mA=null", {"dram_read", "dram_mac_read"}, "dram_read: column read to the pins"),
        ("dram.currents.VDD_V=null", {"dram_activate", "dram_read", "dram_write", "dram_mac_read",
                                      "dram_refresh", "dram_standby"}, "dram_standby: each open bank"),
        ("energy.io_pJ_per_bit=null", {"io"}, "io: to the memory"),
        ("asic.idle_power_W=null", set(), "asic: idle"),
    ],
)  # fmt: skip
def test_what_is_unknown_is_never_zero(override: str, unknown: set[str], left_out: str) -> None:
    arch = load_arch("pim-gpt", (override,))[0]
    table = price(arch, 1000, RD=1, MAC_AB=1, asic_ps=500_000)
    components = table.components_pJ
    assert {name for name, pJ in components.items() if pJ is None} == unknown | {"link", "asic_sram"}
    assert left_out in table.left_out
    assert table.total_pJ == pytest.approx(sum(pJ for pJ in components.values() if pJ is not None))


def test_repricing_needs_no_simulation(tiny: Result) -> None:
    before = tiny.energy().components_pJ
    dearer = tiny.energy(load_arch("pim-gpt", ("energy.io_pJ_per_bit=11",))[0]).components_pJ
    assert dearer["io"] == pytest.approx(2 * known(before["io"]))
    assert {**dearer, "io": 0} == {**before, "io": 0}


def test_a_read_lasts_a_column_time() -> None:
    def read_pJ(*overrides: str) -> Any:
        return core_energies(load_arch("pim-gpt", overrides)[0]).read_pJ

    assert read_pJ("dram.timing.nCCD=4") == pytest.approx(4 * read_pJ())


def test_slower_pins_do_not_change_what_happens_inside() -> None:
    """Counts and times alone decide; a MAC never uses the pins, and a column access is the same access."""
    done = {"RD": 5, "WR": 7, "MAC_AB": 11, "WR_GB": 13, "RD_MAC": 2}
    fast = price(load_arch("pim-gpt")[0], 1000, **done).components_pJ
    for rate in ("8e9", "2e9"):
        assert (
            price(load_arch("pim-gpt", (f"dram.io.rate_bps={rate}",))[0], 1000, **done).components_pJ == fast
        )


@pytest.mark.parametrize("name", ["tiny", "overlapped"])
def test_operator_classes_add_up_to_the_whole(name: str, request: pytest.FixtureRequest) -> None:
    s = request.getfixturevalue(name).summary
    shares = s["energy_by_operator_pJ"]
    assert shares.keys() == s["latency_share"].keys()
    assert sum(shares.values()) == pytest.approx(s["energy_pJ"]["total"])
    assert all(pJ > 0 for pJ in shares.values())


def test_a_class_pays_for_its_commands_its_asic_time_and_its_share_of_the_rest() -> None:
    arch = load_arch("pim-gpt")[0]
    names = arch.dram.command_names

    def commands(**counts: int) -> np.ndarray:
        return np.array([counts.get(name, 0) for name in names], np.int64)

    counts = {"ACT_AB": 2, "MAC_AB": 64, "PREA": 2}
    whole = price(arch, 10_000, any_open=300, bank_open=4800, asic_ps=40_000, **counts, REFab=1)
    works = {"qkv": Work(commands(**counts), 0), "norm": Work(commands(), 40_000)}
    by_class = energy_by_class(arch, works, {"norm": 0.25, "qkv": 0.75}, whole.total_pJ)
    energies = whole.components_pJ
    rest = known(energies["dram_refresh"]) + known(energies["dram_standby"])
    rest += sum(known(row.system_energy_pJ) for row in whole.rows if row.item == "idle")
    on_asic = known(arch.asic.active_power_W) * 40_000
    assert by_class["norm"] == pytest.approx(on_asic + 0.25 * rest)
    qkv = sum(known(energies[name]) for name in ("dram_activate", "dram_mac_read", "mac_units", "buffer"))
    assert by_class["qkv"] == pytest.approx(qkv + 0.75 * rest)
    assert list(by_class) == ["norm", "qkv"]
