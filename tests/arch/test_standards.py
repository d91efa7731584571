"""The shipped DRAM standards: they load, say where every value comes from, and have the rules they should."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pimloom.arch.document import shipped
from pimloom.arch.dram import Dram, load_dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate

DATA = Path(__file__).parent.parent / "data/dram/ramulator2_rules.yaml"
REFERENCE = yaml.safe_load(DATA.read_text(encoding="utf-8"))

PEAK_GBps = {
    "ddr4_2400": 19.2,
    "ddr4_3200": 25.6,
    "ddr5_4800": 38.4,  # two subchannels
    "lpddr4_2400": 9.6,  # two channels
    "lpddr5_6400": 12.8,
    "gddr6_12000": 48.0,  # two channels
    "gddr6_14000": 56.0,
    "gddr6_16000": 64.0,
    "hbm2_2000": 256.0,
    "hbm3_5200": 665.6,
    "hbm3_6400": 819.2,
}
CAPACITY_GiB = {
    "ddr4_2400": 8, "ddr4_3200": 16, "ddr5_4800": 16, "lpddr4_2400": 2, "lpddr5_6400": 2, "gddr6_12000": 1,
    "gddr6_14000": 1, "gddr6_16000": 1, "hbm2_2000": 8, "hbm3_5200": 16, "hbm3_6400": 16,
}  # fmt: skip
COMMANDS = {"ACT", "PREpb", "PREab", "RD", "WR", "RDA", "WRA", "REFab"}

Rule = tuple[str, list[str], list[str], int, int, bool]
Difference = dict[tuple[str, str, str], tuple[int, int]]


@pytest.fixture(scope="module", params=sorted(PEAK_GBps))
def dram(request: pytest.FixtureRequest) -> Dram:
    return load_dram(request.param)[0]


def test_every_plain_standard_is_listed_here() -> None:
    assert set(PEAK_GBps) == {name for name in shipped("dram") if not load_dram(name)[0].is_pim}


def test_peak_bandwidth(dram: Dram) -> None:
    assert dram.channels * dram.pin_Bps / 1e9 == PEAK_GBps[dram.name]
    # The bursts fill the pins without a rest.
    assert dram.nBL * dram.io.width_bit * dram.io.rate_bps == dram.access_B * 8 * dram.clock_Hz


def test_capacity(dram: Dram) -> None:
    assert dram.channels * dram.channel_capacity_B == CAPACITY_GiB[dram.name] * 2**30


def test_commands(dram: Dram) -> None:
    names = set(dram.commands)
    activate = {"ACT1", "ACT2", "CAS_RD", "CAS_WR"} if dram.name.startswith("lpddr5") else {"ACT"}
    per_bank = set() if dram.name.startswith("ddr") else {"REFpb"}
    assert names == COMMANDS - {"ACT"} | activate | per_bank


def test_refresh_keeps_the_average_interval(dram: Dram) -> None:
    """Every row is refreshed within the time that the standard gives it, whoever asks for it."""
    interval_ns = {"ddr4": 7800, "ddr5": 3900, "lpddr4": 3904, "lpddr5": 3906, "gddr6": 1900}.get(
        dram.name.rpartition("_")[0], 3900
    )
    assert 0 <= interval_ns * dram.clock_Hz - dram.timing["nREFI"] * 10**9 < 10**9
    if "nREFIpb" in dram.timing:
        # HBM3 refreshes the same bank of both pseudo-channels, so these do not count.
        banks = dram.banks // (dram.pseudochannels if dram.command_bus == "half_clock" else 1)
        assert dram.timing["nREFIpb"] * banks <= dram.timing["nREFI"] + banks


def test_every_value_has_a_source(dram: Dram) -> None:
    sources = load_dram(dram.name)[1].sources()
    said = {
        *(f"timing.{name}" for name in dram.timing),
        *(f"constraints.{name}" for name in dram.constraints),
        *(f"currents.{name}" for name, value in dram.currents if value is not None),
        *("clock_Hz", "channels", "rows", "columns", "access_B", "channel_capacity_B"),
        *("bankgroups", "banks_per_bankgroup", "io.width_bit", "io.rate_bps", "refresh.postpone"),
    }
    assert said <= sources.keys()


def test_every_timing_is_used(dram: Dram) -> None:
    """A value that no rule, duration, refresh or controller reads would be decoration."""
    texts = [rule.minimum for rule in dram.constraints.values()]
    texts += [command.duration for command in dram.commands.values()]
    by_others = {"nREFI", "nREFIpb", "nAAD", "nWCKPST"}
    unused = {n for n in dram.timing if not any(evaluates_with(text, n) for text in texts)} - by_others
    assert not unused


def evaluates_with(text: str, name: str) -> bool:
    return name in text.replace("(", " ").replace(")", " ").replace(",", " ").split()


def delay(rules: list[Rule], before: str, after: str, apart: str | None) -> int:
    """Clocks from one command to another on nodes that part at a level (None = on the same bank)."""
    depth = LEVELS.index(apart) if apart else len(LEVELS)
    return max(
        (
            minimum
            for level, befores, afters, minimum, window, siblings in rules
            if window == 1 and before in befores and after in afters
            if (level == apart if siblings else LEVELS.index(level) < depth)
        ),
        default=0,
    )


def windows(rules: list[Rule]) -> dict[tuple[str, str, str, int], int]:
    return {
        (level, b, a, window): minimum
        for level, before, after, minimum, window, _ in rules
        for b, a in product(before, after)
        if window > 1
    }


def ours(dram: Dram, timing: dict[str, int]) -> list[Rule]:
    symbols = {**dram.symbols({}), **timing}
    return [
        (r.level, r.before, r.after, max(0, evaluate(r.minimum, symbols)), r.window, r.siblings)
        for r in dram.constraints.values()
    ]


def theirs(rows: list[list[Any]]) -> list[Rule]:
    return [
        (*row[:4], row[4] if row[4:] and row[4] != "siblings" else 1, row[4:] == ["siblings"]) for row in rows
    ]


READS, WRITES, CLOSES = ["RD", "RDA"], ["WR", "WRA"], ["PREpb", "PREab"]

# What our rules have and Ramulator 2.1's have not, or have otherwise: (before, after, where they part or "same",
# its clocks, ours), with its own timings in both. Every one is an edge of DRAMSys' command checkers unless it says
# something else.
INTENDED: dict[str, list[tuple[list[str], list[str], str, int, int]]] = {
    "ddr4_3200": [
        # Data on the pins: with nBL + nCS clocks the write would overlap the read of the other rank.
        (READS, WRITES, "rank", 6, 12),
        (WRITES, WRITES, "rank", 4, 6),
        # An automatic precharge is under way.
        (["RDA"], ["PREab"], "same", 0, 12),
        (["WRA"], ["PREab"], "same", 0, 44),
        # No command within nRFC.
        (["REFab"], ["PREpb", "REFab"], "same", 0, 576),
    ],
    "gddr6_14000": [
        # A bank closed by itself needs nRP before a refresh, as one closed with all others does.
        (["PREpb"], ["REFab"], "same", 0, 27),
        # The precharge inside RDA would cut off the write's recovery.
        (["WR"], ["RDA"], "same", 19, 31),
        (["RDA"], ["PREab"], "same", 0, 4),
        (["WRA"], ["PREab"], "same", 0, 35),
        # Fewer clocks than its: REFpb concerns its own bank, not those that an automatic precharge closes.
        (["RDA"], ["REFpb"], "bankgroup", 31, 0),
        (["RDA"], ["REFpb"], "bank", 31, 0),
        (["WRA"], ["REFpb"], "bankgroup", 62, 0),
        (["WRA"], ["REFpb"], "bank", 62, 0),
        (["REFpb"], ["PREab"], "same", 0, 106),
    ],
    "hbm2_2000": [
        # A bank closed with all others needs nRP before a refresh, as one closed by itself does.
        (["PREab"], ["REFpb"], "same", 0, 14),
        (["WR"], ["RDA"], "same", 15, 18),
        (["RDA"], ["PREab"], "same", 0, 5),
        (["RDA"], ["REFpb"], "same", 0, 19),
        (["WRA"], ["PREab"], "same", 0, 23),
        (["WRA"], ["REFpb"], "same", 0, 37),
        (["REFab"], ["PREpb", "REFab", "REFpb"], "same", 0, 350),
        (["REFpb"], ["PREab", "REFab", "REFpb"], "same", 0, 160),
        (["REFpb"], ["REFpb"], "bankgroup", 0, 8),
        (["REFpb"], ["REFpb"], "bank", 0, 8),
    ],
    # As in HBM2, of which DRAMSys has a checker; of HBM3 it has none.
    "hbm3_6400": [
        (["PREab"], ["REFpb"], "same", 0, 52),
        (["WR"], ["RDA"], "same", 44, 72),
        (["RDA"], ["PREab"], "same", 0, 19),
        (["RDA"], ["REFpb"], "same", 0, 71),
        (["WRA"], ["PREab"], "same", 0, 91),
        (["WRA"], ["REFpb"], "same", 0, 143),
        (["REFab"], ["PREpb", "REFab", "REFpb"], "same", 0, 1120),
        (["REFpb"], ["PREab", "REFab"], "same", 0, 640),
        (["REFpb"], ["REFpb"], "same", 16, 640),
    ],
    # As in LPDDR4, of which DRAMSys has a checker; of LPDDR5 it has none.
    "lpddr5_6400": [
        (["ACT1"], ["REFpb"], "bankgroup", 0, 4),
        (["ACT1"], ["REFpb"], "bank", 0, 4),
        # Our assumption: the row opens with ACT2.
        (["ACT2"], CLOSES, "same", 0, 34),
        (["ACT2"], [*READS, *WRITES], "same", 0, 15),
        # The clock of CAS itself.
        (["CAS_RD"], READS, "same", 0, 1),
        (["CAS_WR"], WRITES, "same", 0, 1),
        # All banks take nRPab.
        (["PREab"], ["REFab"], "same", 15, 17),
        (["PREab"], ["REFpb"], "same", 0, 17),
        # A burst occupies its bank group for nBL_max (JESD209-5, recalled).
        (READS, WRITES, "same", 12, 14),
        (READS, WRITES, "bank", 12, 14),
        # Data on the pins; in the last pair its read and write latencies are interchanged.
        (READS, WRITES, "rank", 4, 12),
        (WRITES, WRITES, "rank", 2, 4),
        (WRITES, READS, "rank", 12, 0),
        (["WR"], ["RDA"], "same", 23, 31),
        (["RDA"], ["PREab"], "same", 0, 8),
        (["RDA"], ["REFpb"], "same", 0, 23),
        (["WRA"], ["PREab"], "same", 0, 39),
        (["WRA"], ["REFpb"], "same", 0, 54),
        (["REFab"], ["PREpb"], "same", 0, 224),
        (["REFpb"], ["PREab"], "same", 0, 112),
        (["REFpb"], ["REFpb"], "same", 72, 112),
    ],
}

# A refreshed bank counts among four activates (DRAMSys for HBM2 and LPDDR4).
INTENDED_WINDOWS = {
    "hbm2_2000": {
        ("pseudochannel", "ACT", "REFpb", 4): 16,
        ("pseudochannel", "REFpb", "ACT", 4): 14,
        ("pseudochannel", "REFpb", "REFpb", 4): 15,
    },
    "hbm3_6400": {
        ("pseudochannel", "ACT", "REFpb", 4): 50,
        ("pseudochannel", "REFpb", "ACT", 4): 46,
        ("pseudochannel", "REFpb", "REFpb", 4): 48,
    },
    "lpddr5_6400": {("rank", "ACT1", "REFpb", 4): 16},
}


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_rules_are_those_of_ramulator_but_for_the_intended_differences(name: str) -> None:
    dram, reference = load_dram(name)[0], REFERENCE[name]
    mine, other = ours(dram, reference["timing"]), theirs(reference["rules"])
    depth = {c: LEVELS.index(command.target) for c, command in dram.commands.items()}
    found: Difference = {}
    for before, after, apart in product(dram.commands, dram.commands, [None, *reference["levels"][1:]]):
        # Nodes that a command addresses as one do not part below it.
        if apart and LEVELS.index(apart) > min(depth[before], depth[after]):
            continue
        pair = delay(other, before, after, apart), delay(mine, before, after, apart)
        if pair[0] != pair[1]:
            found[before, after, apart or "same"] = pair
    expected = {
        (before, after, apart): (n, m)
        for befores, afters, apart, n, m in INTENDED[name]
        for before, after in product(befores, afters)
    }
    assert found == expected
    assert windows(mine) == windows(other) | INTENDED_WINDOWS.get(name, {})


@pytest.mark.parametrize("name", sorted(REFERENCE))
def test_timings_are_those_of_ramulator_but_for_what_a_comment_says(name: str) -> None:
    dram = load_dram(name)[0]
    timing = {"nBL": dram.nBL, **dram.timing}
    differ = {k: (n, timing.get(k)) for k, n in REFERENCE[name]["timing"].items() if timing.get(k) != n}
    # tRFC of 8 Gb DDR4 is 350 ns; 570 ps is no clock of GDDR6; intervals are rounded down.
    intended: dict[str, dict[str, tuple[int, int | None]]] = {
        "ddr4_3200": {"nRFC": (576, 560)},
        "gddr6_14000": {"nRFC": (211, 210), "nRFCpb": (106, 105), "nREFI": (3333, 3325)},
        "hbm2_2000": {"nREFIpb": (122, 121)},
        "lpddr5_6400": {"nBL_min": (2, None), "nREFI": (3125, 3124), "nREFIpb": (391, 195)},
    }
    assert differ == intended.get(name, {})


@given(st.sampled_from(sorted(PEAK_GBps)), st.data())
def test_no_rule_shortens_when_a_time_grows(name: str, data: st.DataObject) -> None:
    dram = load_dram(name)[0]
    longer = data.draw(st.sampled_from(["nRAS", "nRC", "nWR", "nRFC", "nFAW", "nRP"]))
    grown = {**dram.timing, longer: dram.timing[longer] + data.draw(st.integers(1, 50))}
    assert all(after[3] >= before[3] for before, after in zip(ours(dram, {}), ours(dram, grown), strict=True))


@pytest.mark.parametrize("name", [n for n in sorted(PEAK_GBps) if not n.startswith("ddr")])
def test_refresh_bank_by_bank_is_a_matter_of_one_key(name: str) -> None:
    policy = "per_bank_set" if name.startswith("hbm3") else "per_bank"
    dram, _ = load_dram(name, [f"refresh.policy={policy}"])
    assert dram.refresh_level == "bank"
