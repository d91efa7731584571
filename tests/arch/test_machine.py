"""The shipped machines: derived symbols, peaks, and the checks that bind memory and PIM unit."""

import numpy as np
import pytest

from pimloom.arch.document import InputError
from pimloom.arch.machine import load_arch


def complaint(*overrides: str) -> str:
    with pytest.raises(InputError) as error:
        load_arch("pim-gpt", overrides)
    return str(error.value)


def test_peaks_of_pim_gpt() -> None:
    arch, _ = load_arch("pim-gpt")
    assert arch.peaks == (2.048e12, 4096e9, 256e9)  # 4.096 TFLOP/s, as PIM-GPT's constants give
    assert arch.pim.buffer_elements == 1024
    assert arch.elements_per_access == 16


def test_timing_variant_is_the_same_machine_on_another_memory() -> None:
    paper, _ = load_arch("pim-gpt")
    aim, _ = load_arch("pim-gpt-aim-timing")
    assert aim.peaks == paper.peaks
    assert (aim.dram.name, aim.dram.timing["nRCDMAC"]) == ("gddr6_aim", 56)
    assert (aim.pim, aim.asic, aim.link, aim.energy, aim.mapping) == (
        paper.pim,
        paper.asic,
        paper.link,
        paper.energy,
        paper.mapping,
    )


@pytest.mark.parametrize(
    ("name", "overrides", "nMAC"),
    [
        ("pim-gpt", [], 1),
        ("pim-gpt-aim-timing", [], 2),
        ("pim-gpt", ["pim.lanes=8"], 2),
        ("pim-gpt", ["pim.lanes=5"], 4),
        ("pim-gpt", ["pim.clock_Hz=500e6"], 2),
        ("pim-gpt", ["pim.clock_Hz=900e6"], 2),
        ("pim-gpt", ["pim.clock_Hz=2e9"], 1),
        ("pim-gpt", ["dram.timing.nCCD=3"], 3),
    ],
)
def test_mac_interval(name: str, overrides: list[str], nMAC: int) -> None:
    arch, _ = load_arch(name, overrides)
    ids = {command: i for i, command in enumerate(arch.dram.commands)}
    t = arch.tables()
    mac = ids["MAC_AB"]
    rows = range(t.row_start[mac], t.row_start[mac + 1])
    assert arch.nMAC == nMAC
    assert [t.row_min[r] for r in rows if t.row_before[r] == mac] == [nMAC]
    assert arch.peaks.mac_per_s == pytest.approx(2.048e12 / nMAC * arch.dram.clock_Hz / 1e9)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pim.lanes=32", "pim.lanes: 32 lanes, but an access of 32 B has only 16 elements of 2 B"),
        ("pim.buffer_B=4096", "pim.buffer_B: 4096 B are more than a DRAM row of 2048 B"),
        ("pim.buffer_B=1000", "pim.buffer_B: 1000 B are no whole number of accesses of 32 B"),
        ("pim.element_B=3", "pim.element_B: 3 B do not divide an access of 32 B"),
        ("mapping.masked_write_B=31", "mapping.masked_write_B: 31 B are no whole number of accesses of 32 B"),
        ("mapping.barrier=none", "mapping.barrier: should be 'instruction' or 'data', not 'none'"),
        ("asic.adders=0", "asic.adders: should be greater than or equal to 1, not 0"),
        ("asic.clock_Hz=1.5", "asic.clock_Hz: should be a valid integer, not 1.5"),
        ("asic.clock_Hz=true", "asic.clock_Hz: should be a valid integer, not true"),
        ("link.latency_ns=-1", "link.latency_ns: should be greater than or equal to 0, not -1"),
        (
            "energy.standby_shared_fraction=2",
            "energy.standby_shared_fraction: should be less than or equal to 1, not 2",
        ),
        ("dram.timing.nRP=-3", "dram.timing.nRP: should be greater than or equal to 0, not -3"),
        ("dram.timing.nRP=14", None),
    ],
)
def test_complaints(override: str, message: str | None) -> None:
    if message is None:
        # The finding stands where the other number does: in the file, not in the override.
        assert complaint(override).endswith("dram.timing.nRC: nRC = 39 is below nRAS + nRP = 27 + 14 = 41")
    else:
        column = override.index("=") + 2
        assert complaint(override) == f"-o {override}:1:{column}: {message}"


def test_the_memory_is_checked_with_the_machines_own_mac_interval() -> None:
    text = complaint("pim.clock_Hz=1", "pim.lanes=8")
    assert "dram.constraints.mac_to_mac.3: 'nMAC' is 2000000000 clocks; at most 1073741824 make sense" in text


def test_tables_do_not_change_and_cannot_be_written() -> None:
    arch, _ = load_arch("pim-gpt")
    for a, b in zip(arch.tables(), arch.tables(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not a.flags.writeable and a.dtype == np.int64
