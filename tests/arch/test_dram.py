"""DRAM descriptions: the integer tables, effective levels, and what cannot be true of a memory."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from pimloom.arch.document import InputError
from pimloom.arch.dram import Dram, Tables, load_dram

DEVICES = ["gddr6_pim_gpt", "gddr6_aim"]


def small(**changes: Any) -> dict[str, Any]:
    """A memory of two banks with a handful of commands and rules, for checking by hand."""

    def command(
        target: str, meaning: str, bank: str = "none", needs: str = "any", duration: str = "1"
    ) -> dict[str, Any]:
        return {
            "target": target,
            "meaning": meaning,
            "bank": bank,
            "needs": needs,
            "row": False,
            "column": False,
            "data": "none",
            "duration": duration,
        }

    return {
        "kind": "dram",
        "version": 1,
        "name": "small",
        "clock_Hz": 1e9,
        "channels": 1,
        "bankgroups": 1,
        "banks_per_bankgroup": 2,
        "rows": 4,
        "columns": 8,
        "access_B": 32,
        "channel_capacity_B": 2048,
        "io": {"width_bit": 16, "rate_bps": 8e9},
        "timing": {"nRC": 10, "nRAS": 6, "nRP": 4, "nRRD": 3, "nFAW": 9, "nRFC": 50, "nREFI": 500},
        "refresh": {"policy": "all_bank"},
        "commands": {
            "ACT": command("bank", "activate", "open", "closed", "nRAS"),
            "PRE": command("bank", "precharge", "close"),
            "PREA": command("channel", "precharge", "close", duration="nRP"),
            "REFab": command("channel", "refresh", needs="closed", duration="nRFC"),
        },
        "constraints": {
            "cycle": ["bank", ["ACT"], ["ACT"], "nRC"],
            "open": ["bank", ["ACT"], ["PRE", "PREA"], "nRAS"],
            "close": ["bank", ["PRE", "PREA"], ["ACT", "REFab"], "nRP"],
            "spacing": ["channel", ["ACT"], ["ACT"], "nRRD"],
            "window": ["channel", ["ACT"], ["ACT"], "nFAW", 4],
            "refresh": ["channel", ["REFab"], ["ACT", "REFab"], "nRFC"],
            "nothing": ["channel", ["PRE"], ["PRE"], "nRP - 4"],
        },
        "currents": dict.fromkeys(
            ["VDD_V", "IDD0_mA", "IDD2N_mA", "IDD3N_mA", "IDD4R_mA", "IDD4W_mA", "IDD5B_mA"]
        ),
    } | changes


def rules(dram: Dram, t: Tables) -> set[tuple[str, str, int, int]]:
    """The plain rules of the tables as (before, after, level, minimum)."""
    names = dram.command_names
    return {
        (names[t.row_before[r]], names[after], int(t.row_level[r]), int(t.row_min[r]))
        for after in range(len(names))
        for r in range(t.row_start[after], t.row_start[after + 1])
    }


def minimum(name: str, before: str, after: str, level: int = 0) -> int:
    dram, _ = load_dram(name)
    found = [m for b, a, at, m in rules(dram, dram.tables()) if (b, a, at) == (before, after, level)]
    return found[0] if found else 0


def test_tables_of_a_small_memory() -> None:
    dram = Dram.model_validate(small())
    t = dram.tables()
    assert rules(dram, t) == {
        ("ACT", "ACT", 2, 10),
        ("ACT", "ACT", 0, 3),
        ("ACT", "PRE", 2, 6),
        ("ACT", "PREA", 0, 6),  # PREA addresses the channel, so the rule is seen there
        ("PRE", "ACT", 2, 4),
        ("PREA", "ACT", 0, 4),
        ("PRE", "REFab", 0, 4),
        ("PREA", "REFab", 0, 4),
        ("REFab", "ACT", 0, 50),
        ("REFab", "REFab", 0, 50),
    }
    assert [
        column.tolist() for column in (t.win_after, t.win_before, t.win_level, t.win_min, t.win_size)
    ] == [
        [0],
        [0],
        [0],
        [9],
        [4],
    ]
    assert t.target.tolist() == [2, 2, 0, 0]
    assert t.effect.tolist() == [1, 2, 2, 0]
    assert t.duration.tolist() == [6, 1, 4, 50]
    assert t.reach.tolist() == [10, 4, 4, 50]
    assert t.shape.tolist() == [1, 2, 4, 8]
    assert t.refresh.tolist() == [500, 2, 3, -1, 0]
    assert (dram.banks, dram.row_B, dram.nBL) == (2, 256, 2)


def test_rules_of_one_pair_and_level_merge_to_the_largest() -> None:
    constraints = small()["constraints"] | {"more": ["bank", ["ACT"], ["PREA"], 7]}
    dram = Dram.model_validate(small(constraints=constraints))
    assert ("ACT", "PREA", 0, 7) in rules(dram, dram.tables())
    assert ("ACT", "PREA", 0, 6) not in rules(dram, dram.tables())


def test_without_refresh() -> None:
    timing = {"nRC": 10, "nRAS": 6, "nRP": 4, "nRRD": 3, "nFAW": 9, "nRFC": 50}
    t = Dram.model_validate(small(refresh={"policy": "none"}, timing=timing)).tables()
    assert t.refresh.tolist() == [0, 2, 3, -1, 0]


def test_without_rules() -> None:
    t = Dram.model_validate(small(constraints={})).tables()
    assert t.row_start.tolist() == [0] * 5
    assert t.row_min.shape == t.win_min.shape == (0,)
    assert t.row_min.dtype == np.int64


@pytest.mark.parametrize("name", DEVICES)
def test_shipped_devices(name: str) -> None:
    dram, _ = load_dram(name)
    t = dram.tables()
    names = dram.command_names
    assert names == ["ACT", "ACT_AB", "PRE", "PREA", "RD", "WR", "MAC_AB", "WR_GB", "RD_MAC", "REFab"]
    assert t.target.tolist() == [2, 0, 2, 0, 2, 2, 0, 0, 0, 0]
    assert t.effect.tolist() == [1, 1, 2, 2, 0, 0, 0, 0, 0, 0]
    assert t.shape.tolist() == [4, 4, 16384, 64]
    assert [names[i] for i in t.refresh[1:]] == ["PREA", "REFab", "ACT_AB", "ACT"]
    assert t.refresh[0] == dram.timing["nREFI"]
    assert [names[i] for i in t.win_after] == [names[i] for i in t.win_before] == ["ACT"]


def test_burst_length_follows_from_pins_and_clock() -> None:
    assert load_dram("gddr6_pim_gpt")[0].nBL == 1
    assert load_dram("gddr6_aim")[0].nBL == 2
    assert load_dram("gddr6_aim", ["io.rate_bps=15.9e9"])[0].nBL == 3


def test_distances_as_in_the_public_aim_simulator() -> None:
    """Distances that the traces of that simulator show (clocks of 0.5 ns)."""
    expected = {
        ("ACT_AB", "MAC_AB"): 56,
        ("ACT_AB", "PREA"): 54,
        ("MAC_AB", "PREA"): 12,
        ("PREA", "ACT_AB"): 32,
        ("MAC_AB", "MAC_AB"): 2,
        ("MAC_AB", "RD_MAC"): 2,
        ("WR_GB", "WR_GB"): 2,
        ("RD", "RD"): 2,
        ("WR", "WR"): 2,
        ("RD", "WR"): 50,
        ("WR", "RD"): 19,
    }
    assert {pair: minimum("gddr6_aim", *pair) for pair in expected} == expected
    assert minimum("gddr6_aim", "WR", "PRE", 2) == 41
    assert minimum("gddr6_aim", "ACT", "RD", 2) == 36
    # A full row: open, 64 columns, close, ready for the next one; 226 in that simulator.
    assert 56 + 63 * 2 + 12 + 32 == 226


@pytest.mark.parametrize("name", DEVICES)
def test_bursts_never_meet_on_the_pins(name: str) -> None:
    """Any two data commands at their smallest distance, in both orders, for many latencies."""
    overrides = (
        [],
        ["timing.nCL=1"],
        ["timing.nCWL=40"],
        ["timing.nCLREG=30", "timing.nCWLGB=9"],
        ["io.rate_bps=3e9"],
    )
    for changes in overrides:
        dram, _ = load_dram(name, changes)
        n, t = dram.timing, dram.tables()
        latency = {"RD": n["nCL"], "WR": n["nCWL"], "WR_GB": n["nCWLGB"], "RD_MAC": n["nCLREG"]}
        assert {c for c, d in dram.commands.items() if d.data != "none"} == latency.keys()
        distance = {(b, a): m for b, a, level, m in rules(dram, t) if level == 0}
        for first, second in product(latency, latency):
            idle = 0 if dram.commands[first].data == dram.commands[second].data else n["nBTA"]
            gap = max(1, distance.get((first, second), 1))
            assert gap + latency[second] >= latency[first] + dram.nBL + idle, (changes, first, second)


@pytest.mark.parametrize("name", DEVICES)
def test_after_a_refresh_everything_waits(name: str) -> None:
    dram, _ = load_dram(name)
    waiting = {
        after
        for before, after, _, m in rules(dram, dram.tables())
        if before == "REFab" and m == dram.timing["nRFC"]
    }
    assert waiting == set(dram.command_names)


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["timing.nRC=37"], ["timing.nRC: nRC = 37 is below nRAS + nRP = 27 + 12 = 39"]),
        (["timing.nFAW=5"], ["timing.nFAW: nFAW = 5 is below nRRD = 6"]),
        (
            ["channel_capacity_B=1e9"],
            ["channel_capacity_B: 1000000000 B, but the levels make 4 * 4 * 16384 * 64 * 32 = 536870912 B"],
        ),
        (["currents.IDD3N_mA=91"], ["currents.IDD3N_mA: IDD3N_mA = 91.0 is below IDD2N_mA = 92.0"]),
        (["currents.IDD0_mA=91.5"], ["currents.IDD0_mA: IDD0_mA = 91.5 is below IDD2N_mA = 92.0"]),
        (["currents.IDD4R_mA=100"], ["currents.IDD4R_mA: IDD4R_mA = 100.0 is below IDD3N_mA = 142.0"]),
        (["currents.IDD4W_mA=100"], ["currents.IDD4W_mA: IDD4W_mA = 100.0 is below IDD3N_mA = 142.0"]),
        (["currents.IDD5B_mA=100"], ["currents.IDD5B_mA: IDD5B_mA = 100.0 is below IDD3N_mA = 142.0"]),
        (["currents.VDD_V=0"], ["currents.VDD_V: should be greater than 0, not 0"]),
        (["timing.nRP=-1"], ["timing.nRP: should be greater than or equal to 0, not -1"]),
        (["rows=0"], ["rows: should be greater than or equal to 1, not 0"]),
        (
            ["timing.nREFI=600"],
            [
                "timing.nREFI: nREFI = 600 leaves no time for work: closing 27, then 12, refresh 455, "
                "opening 16 banks 96, first use 39 make 629 clocks"
            ],
        ),
        (
            ["commands.ACT.duration=nRCDD"],
            ["commands.ACT.duration: unknown name 'nRCDD' in 'nRCDD' (did you mean 'nRCDRD'?)"],
        ),
        (
            ["commands.ACT.duration=nRP - 20"],
            ["commands.ACT.duration: 'nRP - 20' is -8 clocks; a duration cannot be negative"],
        ),
        (
            ["constraints.row_open.3=nRAAS"],
            ["constraints.row_open.3: unknown name 'nRAAS' in 'nRAAS' (did you mean 'nRAS'?)"],
        ),
        (
            ["constraints.row_open.1=[ACT, ACTAB]"],
            ["constraints.row_open.1.1: unknown command 'ACTAB' (did you mean 'ACT_AB'?)"],
        ),
        (
            ["constraints.four_activates.0=bank", "constraints.four_activates.2=[PREA]"],
            [
                "constraints.four_activates.2.0: a window on the bank level cannot count 'PREA', "
                "which addresses the channel level"
            ],
        ),
        (
            ["constraints.row_open.0=node"],
            [
                "constraints.row_open.level: should be 'channel', 'pseudochannel', 'rank', 'stack_id', "
                "'bankgroup' or 'bank', not 'node'"
            ],
        ),
        (
            ["constraints.row_open=[bank]"],
            [
                "constraints.row_open: a rule is [level, [before], [after], minimum] or has a window or the word "
                "siblings as fifth item; this one has 1"
            ],
        ),
        (
            ["commands.REFab.meaning=read"],
            [
                "refresh.policy: 'all_bank' needs a command of the meaning 'refresh' that addresses a whole level"
            ],
        ),
        (
            ["commands.ACT.meaning=read"],
            ["refresh.policy: 'all_bank' needs a command of the meaning 'activate' that addresses a bank"],
        ),
        (
            ["timing.nRC=37", "timing.nFAW=5", "currents.IDD0_mA=1"],
            [
                "currents.IDD0_mA: IDD0_mA = 1.0 is below IDD2N_mA = 92.0",
                "timing.nFAW: nFAW = 5 is below nRRD = 6",
                "timing.nRC: nRC = 37 is below nRAS + nRP = 27 + 12 = 39",
            ],
        ),
    ],
)
def test_what_cannot_be_true(overrides: list[str], messages: list[str]) -> None:
    with pytest.raises(InputError) as error:
        load_dram("gddr6_pim_gpt", overrides)
    lines = str(error.value).splitlines()
    assert [line.split(": ", 1)[1] for line in lines] == messages


def test_a_burst_may_be_given_and_the_time_of_a_mac_not() -> None:
    timing = small()["timing"]
    assert Dram.model_validate(small(timing=timing | {"nBL": 7})).nBL == 7
    with pytest.raises(ValueError, match="nMAC is derived, not given"):
        Dram.model_validate(small(timing=timing | {"nMAC": 7}))


def test_a_refresh_needs_its_times() -> None:
    with pytest.raises(ValueError, match="the refresh policy 'all_bank' needs nREFI"):
        Dram.model_validate(small(timing={"nRC": 10, "nRAS": 6, "nRP": 4, "nRRD": 3, "nFAW": 9, "nRFC": 50}))


def test_an_unknown_current_is_not_compared() -> None:
    dram, _ = load_dram("gddr6_pim_gpt", ["currents.IDD3N_mA=null", "currents.IDD4R_mA=1"])
    assert dram.currents.IDD3N_mA is None
