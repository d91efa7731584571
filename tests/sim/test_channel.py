"""The channel, kernel and naive twin alike: tight gates of every rule, refresh, stopping and going on.

Expected clocks are closed forms or come from `harness.bounds`, which compares pairs of commands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pytest

from pimloom.arch.dram import load_dram
from pimloom.sim.channel import EXTRAS
from tests.sim.harness import (
    DEVICES,
    Device,
    Event,
    Memory,
    Step,
    bounds,
    memory,
    open_rows,
    room,
    run_kernel,
    run_naive,
    single,
    variant,
)

TWINS = pytest.mark.parametrize("naive", [False, True], ids=["kernel", "naive"])


def rules(name: str) -> list[tuple[str, str, str]]:
    """Every rule of a device with every pair of commands that it is about."""
    found = load_dram(name)[0].constraints.items()
    return [(key, b, a) for key, rule in found if rule.window == 1 for b in rule.before for a in rule.after]


# --- tight gates ----------------------------------------------------------------------------------


class Wish(NamedTuple):
    """Banks that a command addresses, and how they must be before it: open, closed or any."""

    banks: frozenset[int]
    needs: str


def wish(m: Memory, command: str, bank: int) -> Wish:
    kind = m.dram.commands[command]
    return Wish(frozenset({bank} if kind.target == "bank" else range(m.dram.banks)), kind.needs)


def after_effect(m: Memory, command: str, bank: int, opened: frozenset[int]) -> frozenset[int]:
    banks, effect = wish(m, command, bank).banks, m.dram.commands[command].bank
    return opened | banks if effect == "open" else opened - banks if effect == "close" else opened


def bring(d: Device, opened: frozenset[int], wanted: Wish, clock: int) -> None:
    """Open or close banks as soon as possible, all at once where all are to change."""
    everything = frozenset(range(d.memory.dram.banks))
    banks = wanted.banks - opened if wanted.needs == "open" else wanted.banks & opened
    one, whole = ("ACT", "ACT_AB") if wanted.needs == "open" else ("PRE", "PREA")
    if wanted.needs == "any" or not banks:
        return
    if banks == everything:
        d.issue_soon(whole, clock)
    else:
        for bank in sorted(banks):
            d.issue_soon(one, clock, bank)


def measure(m: Memory, naive: bool, rule: str, before: str, after: str) -> tuple[Device, int, int]:
    """Issue `before`, make `after` legal; return the device, the clock of `before`, and the bank for `after`.

    What `before` needs has been done long ago. Where the rule is about the channel the banks differ.
    """
    d = Device(m, naive)
    level = m.dram.constraints[rule].level
    first, second = 0, 0 if level == "bank" else m.dram.banks_per_bankgroup + 1
    if m.dram.commands[before].target == "channel":
        first = -1
    if m.dram.commands[after].target == "channel":
        second = -1
    wants, later = wish(m, before, first), wish(m, after, second)
    opened = frozenset(wants.banks if wants.needs == "open" else ())
    if wants.needs == "any" and m.dram.commands[before].bank == "close":
        opened = wants.banks
    opened |= frozenset(later.banks - wants.banks if later.needs == "open" else ())
    if wants.needs == "any" and m.dram.commands[before].bank == "none" and later.needs == "open":
        opened |= later.banks
    bring(d, frozenset(), Wish(opened, "open"), 0)
    clock = d.issue_soon(before, 2000, first)
    assert clock == 2000
    bring(d, after_effect(m, before, first, opened), later, clock)
    return d, clock, second


@TWINS
@pytest.mark.parametrize("name", DEVICES)
def test_every_pair_of_every_rule_as_shipped(name: str, naive: bool) -> None:
    m = memory(name, refresh=False)
    for rule, before, after in rules(name):
        d, _, bank = measure(m, naive, rule, before, after)
        expected = max([d.history[-1].clock + 1, *(clock for clock, _ in bounds(m, d.history, after, bank))])
        d.assert_earliest_ready_at(after, expected, bank)


# Pairs whose rule never is the gate, on both devices, and what is.
DOMINATED = {
    ("activate_spacing", "ACT", "ACT_AB"): "the bank of the ACT has to close first",
    ("activate_spacing", "ACT_AB", "ACT"): "a bank has to close first",
    ("activate_spacing", "ACT_AB", "ACT_AB"): "the banks have to close first",
    ("pins_result_read", "RD_MAC", "RD"): "nCL exceeds nCLREG, so the read's data come late enough anyway",
    ("pins_buffer_write", "WR_GB", "WR"): "nCWL exceeds nCWLGB likewise",
    ("pins_write_read", "WR", "RD"): "write_to_read",
    ("pins_buffer_read", "WR_GB", "RD"): "nCL exceeds nCWLGB likewise",
    ("refresh_cycle", "REFab", "RD"): "the row has to be opened first",
    ("refresh_cycle", "REFab", "WR"): "the row has to be opened first",
    ("refresh_cycle", "REFab", "MAC_AB"): "the row has to be opened first",
}


@pytest.mark.parametrize("name", DEVICES)
def test_pairs_whose_rule_is_not_the_gate_as_shipped(name: str) -> None:
    m = memory(name, refresh=False)
    found = set()
    for rule, before, after in rules(name):
        d, clock, bank = measure(m, False, rule, before, after)
        at = max((bound for bound, key in bounds(m, d.history, after, bank) if key == rule), default=clock)
        if at < d.earliest(after, 0, bank):
            found.add((rule, before, after))
    assert found == set(DOMINATED)


@TWINS
@pytest.mark.parametrize("name", DEVICES)
def test_every_pair_of_every_rule_made_long(name: str, naive: bool) -> None:
    """With 700 clocks no other rule reaches as far, so each row alone is the gate."""
    shipped = load_dram(name)[0].model_dump()["constraints"]
    for rule, before, after in rules(name):
        if rule == "refresh_cycle" and (rule, before, after) in DOMINATED:
            continue
        long = {rule: shipped[rule] | {"minimum": "700"}}
        m = variant({"constraints": long, "refresh": {"policy": "none"}}, name)
        d, clock, bank = measure(m, naive, rule, before, after)
        assert max(e.clock for e in d.history if e.command == before) == clock
        d.assert_earliest_ready_at(after, clock + 700, bank)


@TWINS
def test_four_activates(naive: bool) -> None:
    """The fifth ACT waits for the first; as shipped four spacings take longer than the window."""
    m = memory(refresh=False, nFAW=40)  # nRRD 6
    d = Device(m, naive)
    for k, clock in enumerate([100, 106, 112, 118]):
        d.assert_earliest_ready_at("ACT", clock, k) if k else None
        d.issue("ACT", clock, k)
    d.assert_earliest_ready_at("ACT", 140, 4)
    d.issue("ACT", 141, 4)
    d.assert_earliest_ready_at("ACT", 147, 5)
    d.issue("PREA", 200)
    d.assert_earliest_ready_at("ACT_AB", 212)  # an all-bank activate counts for nothing in the window
    for name in DEVICES:
        timing = memory(name).dram.timing
        assert timing["nFAW"] <= 4 * timing["nRRD"]


@TWINS
def test_bank_group_rules(naive: bool) -> None:
    """The level between channel and bank: other groups go on, all-bank commands meet every group."""
    more = {
        "group_read": ["bankgroup", ["RD"], ["RD"], 9],
        "group_pair": ["bankgroup", ["ACT"], ["ACT"], 50, 2],
        "group_to_all": ["bankgroup", ["RD"], ["MAC_AB"], 30],
        "all_to_group": ["bankgroup", ["MAC_AB"], ["RD"], 40],
    }
    m = variant({"constraints": more, "refresh": {"policy": "none"}})
    d = Device(m, naive)
    for bank, clock in [(0, 0), (4, 6), (1, 12)]:
        d.issue("ACT", clock, bank)
    d.assert_earliest_ready_at("ACT", 50, 2)  # third of group 0
    d.assert_earliest_ready_at("ACT", 18, 5)  # second of group 1
    d.issue("RD", 100, 0)
    d.assert_earliest_ready_at("RD", 109, 1)
    d.assert_earliest_ready_at("RD", 101, 4)
    for bank in range(16):
        d.issue_soon("ACT", 200, bank) if bank not in (0, 1, 4) else None
    d.issue("RD", 600, 5)
    d.assert_earliest_ready_at("MAC_AB", 630)
    d.issue("MAC_AB", 630)
    d.assert_earliest_ready_at("RD", 670, 15)


@pytest.mark.parametrize(
    ("name", "clocks"),
    [("gddr6_pim_gpt", [0, 12, 13, 14, 27, 39, 51, 57]), ("gddr6_aim", [0, 56, 58, 60, 70, 102, 158, 170])],
)
@TWINS
def test_a_row_of_macs_by_hand(name: str, clocks: list[int], naive: bool) -> None:
    """PREA at nRAS or nRTP after the last MAC, the next ACT_AB at nRP after that or nRC after the first."""
    d = Device(memory(name, nMAC=max(1, clocks[2] - clocks[1]), refresh=False), naive)
    commands = ["ACT_AB", "MAC_AB", "MAC_AB", "RD_MAC", "PREA", "ACT_AB", "MAC_AB"]
    assert [d.issue_soon(c, 0) for c in commands] == clocks[:-1]
    d.assert_earliest_ready_at("PREA", max(clocks[5] + d.memory.dram.timing["nRAS"], clocks[7]))


@TWINS
def test_reads_and_writes_by_hand(naive: bool) -> None:
    """GDDR6-AiM: nCL 50, nCWL 6, nBL 2, nBTA 4, nWTR 11, nWR 33."""
    d = Device(memory("gddr6_aim", refresh=False), naive)
    d.issue("ACT", 0, 3)
    d.assert_earliest_ready_at("WR", 28, 3)
    d.assert_earliest_ready_at("RD", 36, 3)
    d.issue("RD", 36, 3)
    d.assert_earliest_ready_at("RD", 38, 3)
    d.assert_earliest_ready_at("WR", 86, 3)  # 50 + 2 + 4 - 6
    d.issue("WR", 86, 3)
    d.assert_earliest_ready_at("RD", 105, 3)  # 6 + 2 + 11
    d.assert_earliest_ready_at("PRE", 127, 3)  # 6 + 2 + 33
    d.issue("PRE", 127, 3)
    d.assert_earliest_ready_at("ACT", 159, 3)


@TWINS
def test_one_command_a_clock(naive: bool) -> None:
    d = Device(memory(refresh=False), naive)
    d.issue("ACT", 10, 0)
    d.assert_earliest_ready_at("PRE", 11, 7)  # a closed bank may be closed again
    d.assert_earliest_ready_at("RD_MAC", 11)


# --- refresh --------------------------------------------------------------------------------------

# GDDR6-PIM-GPT with nREFI 1000: nRP 12, nRFC 455, nRCD 12, nRRD 6, nRAS 27, nRTP 6, nWR 12, nCWL 3, nBL 1.


def both(m: Memory, steps: list[Step]) -> list[Event]:
    """Run on both twins; return the log, which must be the same, as must be the books and the open rows."""
    kernel, naive = run_kernel(m, steps, room(m, steps)), run_naive(m, steps)
    assert kernel.log == naive.log
    assert kernel.ends == naive.ends
    assert kernel.totals == naive.totals == run_kernel(m, steps).totals
    assert open_rows(m, kernel.device) == open_rows(m, naive.device)
    assert kernel.log is not None
    return kernel.log


def told(log: list[Event]) -> list[tuple[int, str, int]]:
    return [(e.clock, e.command, e.bank) for e in log]


def steps_of(m: Memory, *asked: tuple[str, int, int, int]) -> list[Step]:
    """Programs of one command each: name, start, bank, row."""
    return [Step(single(m, name, bank, row), start) for name, start, bank, row in asked]


def test_idle_channels_are_refreshed() -> None:
    m = memory(nREFI=1000)
    log = both(m, [Step(None, 3500)])
    assert told(log) == [(1000, "REFab", -1), (2000, "REFab", -1), (3000, "REFab", -1)]
    assert told(both(m, [Step(None, 999)])) == []
    assert told(both(m, [Step(None, 1000)])) == [(1000, "REFab", -1)]


def test_refreshes_missed_while_idle_come_at_their_own_time() -> None:
    m = memory(nREFI=1000)
    log = both(m, steps_of(m, ("ACT_AB", 0, -1, 7), ("MAC_AB", 2700, -1, 7)))
    cycle = [(0, "PREA", -1), (12, "REFab", -1), (467, "ACT_AB", -1)]
    expected = [(0, "ACT_AB", -1), *((k + t, c, b) for k in (1000, 2000) for t, c, b in cycle)]
    assert told(log) == [*expected, (2700, "MAC_AB", -1)]
    assert {e.row for e in log if e.command == "ACT_AB"} == {7}


@pytest.mark.parametrize("asked", [999, 1000, 1001])
def test_a_command_at_the_deadline(asked: int) -> None:
    m = memory(nREFI=1000)
    log = told(both(m, steps_of(m, ("RD_MAC", asked, -1, -1))))
    if asked < 1000:
        assert log == [(asked, "RD_MAC", -1)]
    else:
        assert log == [(1000, "REFab", -1), (1455, "RD_MAC", -1)]


@pytest.mark.parametrize("asked", [987, 988, 989])
def test_a_deadline_between_request_and_issue(asked: int) -> None:
    """MAC 12 clocks after ACT_AB: what would issue at the deadline waits for the refresh."""
    m = memory(nREFI=1000)
    b = m.builder()
    b.add("ACT_AB", row=3)
    b.add("MAC_AB", row=3, column=0)
    log = told(both(m, [Step(b.build(), asked)]))
    if asked == 987:
        assert log == [(987, "ACT_AB", -1), (999, "MAC_AB", -1)]
    else:
        close = asked + 27
        again = close + 12 + 455
        assert log[1:] == [
            (close, "PREA", -1), (close + 12, "REFab", -1), (again, "ACT_AB", -1), (again + 12, "MAC_AB", -1),
        ]  # fmt: skip


def test_refresh_in_a_run() -> None:
    m = memory(nREFI=1000)
    b = m.builder()
    b.add("ACT_AB", row=3)
    b.add("MAC_AB", 1200, row=3, column=0, d_column=1)
    log = both(m, [Step(b.build(), 0)])
    first = [(12 + k, "MAC_AB", -1) for k in range(988)]  # up to 999
    refresh = [(1005, "PREA", -1), (1017, "REFab", -1), (1472, "ACT_AB", -1)]
    assert told(log) == [(0, "ACT_AB", -1), *first, *refresh, *((1484 + k, "MAC_AB", -1) for k in range(212))]
    assert [e.column for e in log if e.command == "MAC_AB"] == list(range(1200))


def test_deadlines_do_not_shift() -> None:
    """Write recovery delays the first refresh; the second comes at 2000 all the same."""
    m = memory(nREFI=1000)
    log = both(m, [*steps_of(m, ("ACT", 900, 0, 1), ("WR", 999, 0, 1)), Step(None, 2100)])
    assert told(log)[2:] == [
        (1015, "PREA", -1), (1027, "REFab", -1), (1482, "ACT", 0),
        (2000, "PREA", -1), (2012, "REFab", -1), (2467, "ACT", 0),
    ]  # fmt: skip


def test_single_banks_are_opened_again_one_by_one() -> None:
    m = memory(nREFI=1000)
    log = both(m, steps_of(m, ("ACT", 0, 5, 50), ("ACT", 6, 3, 30), ("RD", 1000, 3, 30)))
    assert told(log)[2:] == [
        (1000, "PREA", -1), (1012, "REFab", -1), (1467, "ACT", 3), (1473, "ACT", 5), (1479, "RD", 3),
    ]  # fmt: skip
    assert [e.row for e in log if e.command == "ACT"] == [50, 30, 30, 50]


@pytest.mark.parametrize("again", [None, 8, 9])
def test_a_single_bank_command_splits_the_banks(again: int | None) -> None:
    """ACT_AB, then PRE of bank 2, which stays closed or is opened again, on the same row or another."""
    m = memory(nREFI=1000)
    asked = [("ACT_AB", 0, -1, 8), ("PRE", 100, 2, -1)]
    asked += [("ACT", 200, 2, again)] if again is not None else []
    log = both(m, [*steps_of(m, *asked), Step(None, 1000)])
    reopened = [(e.clock, e.bank, e.row) for e in log if e.clock > 1012]
    banks = [b for b in range(16) if b != 2 or again is not None]
    assert [e.command for e in log if e.clock > 1012] == ["ACT"] * len(banks)
    assert reopened == [(1467 + 6 * k, b, 8 if b != 2 else again) for k, b in enumerate(banks)]


def test_banks_opened_one_by_one_on_one_row_are_not_opened_together() -> None:
    m = memory(nREFI=1000)
    b = m.builder()
    b.add("ACT", 16, bank=0, d_bank=1, row=4)
    log = both(m, [Step(b.build(), 0), Step(None, 1000)])
    assert [e.command for e in log] == ["ACT"] * 16 + ["PREA", "REFab"] + ["ACT"] * 16


def test_closed_banks_are_not_closed_again_for_a_refresh() -> None:
    """PRE of a closed bank does nothing, before all-bank rows and after."""
    m = memory(nREFI=1000)
    asked = [
        ("PRE", 0, 1, -1),
        ("ACT_AB", 100, -1, 2),
        ("PREA", 200, -1, -1),
        ("PRE", 300, 9, -1),
        ("PREA", 400, -1, -1),
    ]
    log = both(m, [*steps_of(m, *asked), Step(None, 1000)])
    assert told(log)[5:] == [(1000, "REFab", -1)]
    totals = run_kernel(m, [*steps_of(m, *asked), Step(None, 1000)]).totals
    assert totals[-3:-1] == [16 * 100, 100]  # bank-clocks open, clocks with a bank open


def test_a_refresh_keeps_all_banks_together() -> None:
    m = memory(nREFI=1000)
    log = both(m, [*steps_of(m, ("ACT_AB", 0, -1, 8)), Step(None, 4000)])
    assert [e.command for e in log if e.command.startswith("ACT")] == ["ACT_AB"] * 5


def test_no_refresh() -> None:
    m = memory(refresh=False)
    log = both(m, [*steps_of(m, ("RD_MAC", 1_000_000, -1, -1)), Step(None, 10_000_000)])
    assert told(log) == [(1_000_000, "RD_MAC", -1)]


# --- stopping and going on ------------------------------------------------------------------------


def test_the_end_is_the_last_data() -> None:
    m = memory(refresh=False)
    # Nobody waits for a row to open or close, so those programs end with the clock of their command.
    assert both_ends(m, ("ACT", 0, 0, 1), ("RD", 0, 0, 1), ("PRE", 0, 9, -1)) == [0, 12 + 25 + 1, 13]
    b = m.builder()
    b.add("ACT", bank=0, row=1)
    b.add("RD", bank=0, row=1, column=0)
    b.add("PRE", bank=9)
    # The program's last command is over before the data of the read.
    assert run_kernel(m, [Step(b.build(), 0)]).ends == run_naive(m, [Step(b.build(), 0)]).ends == [38]
    assert run_kernel(m, [Step(b.build(), 0)]).totals[-1] == 38 - 13


def both_ends(m: Memory, *asked: tuple[str, int, int, int]) -> list[int]:
    steps = steps_of(m, *asked)
    ends = run_kernel(m, steps).ends
    assert ends == run_naive(m, steps).ends
    return ends


def test_an_empty_program_ends_where_it_starts() -> None:
    m = memory(nREFI=1000)
    empty = m.builder().build()
    for run in (run_kernel, run_naive):
        assert run(m, [Step(empty, 5), *steps_of(m, ("RD_MAC", 70, -1, -1)), Step(empty, 5)]).ends == [
            5,
            72,
            5,
        ]


def test_a_program_may_start_in_the_past() -> None:
    """The channel goes on where it is: an earlier start changes nothing."""
    m = memory(refresh=False)
    log = both(m, steps_of(m, ("ACT_AB", 100, -1, 0), ("MAC_AB", 0, -1, 0), ("MAC_AB", 0, -1, 0)))
    assert told(log) == [(100, "ACT_AB", -1), (112, "MAC_AB", -1), (113, "MAC_AB", -1)]


def test_waits_and_tail_add_up_to_the_time_from_start_to_end() -> None:
    m = memory(nREFI=1000)
    b = m.builder()
    with b.loop(300, rows=1):
        b.add("ACT_AB", row=0)
        b.add("MAC_AB", 10, row=0, column=0)
        b.add("PREA")
    out = run_kernel(m, [Step(b.build(), 20)])
    commands = len(m.dram.commands)
    assert sum(out.totals[commands : 2 * commands]) + out.totals[-1] == out.ends[0] - 20


def test_base_addresses() -> None:
    m = memory(refresh=False)
    b = m.builder()
    b.add("ACT", 4, bank=1, d_bank=5, row=3)
    with b.loop(2, rows=2, columns=3, buffers=1):
        b.add("RD", 2, bank=1, row=3, column=1, d_column=1, buffer=0)
    log = both(m, [Step(b.build(), 0, base_bank=14, base_row=100)])
    assert [(e.bank, e.row, e.column, e.buffer) for e in log] == [
        (15, 103, -1, -1), (4, 103, -1, -1), (9, 103, -1, -1), (14, 103, -1, -1),
        (15, 103, 1, 0), (15, 103, 2, 0), (15, 105, 4, 1), (15, 105, 5, 1),
    ]  # fmt: skip


# --- fast-forward ---------------------------------------------------------------------------------


def skipped(m: Memory, steps: Iterable[Step]) -> float:
    """Commands issued a command stepped; first make sure that nothing else differs from stepping them all."""
    steps = list(steps)
    jump, walk = run_kernel(m, steps), run_kernel(m, steps, room(m, steps))
    assert (jump.ends, jump.totals) == (walk.ends, walk.totals)
    assert open_rows(m, jump.device) == open_rows(m, walk.device)
    return sum(jump.totals[: (len(jump.totals) - EXTRAS + 1) // 2]) / jump.stepped


def macs(m: Memory, times: int) -> Step:
    b = m.builder()
    with b.loop(times, rows=1):
        b.add("ACT_AB", row=0)
        b.add("MAC_AB", 64, row=0, column=0, d_column=1)
        b.add("PREA")
    return Step(b.build(), 0)


def test_loops_are_skipped() -> None:
    assert skipped(memory(refresh=False), [macs(memory(), 3000)]) > 5000
    assert skipped(memory(), [macs(memory(), 3000)]) > 100


def test_a_period_of_several_iterations_is_skipped() -> None:
    """Three activates in 100 clocks, one an iteration of 39: the state repeats every third iteration."""
    window = {"window": ["channel", ["ACT"], ["ACT"], 150, 3]}
    m = variant({"constraints": window, "refresh": {"policy": "none"}})
    b = m.builder()
    with b.loop(3000):
        b.add("ACT", bank=0, row=0)
        b.add("PRE", bank=0)
    log = run_kernel(m, [Step(b.build(), 0)], 6000).log
    assert log is not None
    gaps = [y.clock - x.clock for x, y in zip(log[10::2], log[12::2], strict=False)]
    assert gaps[:6] == gaps[3:9] and len(set(gaps[:3])) > 1
    assert skipped(m, [Step(b.build(), 0)]) > 100


@pytest.mark.parametrize("split", [False, True], ids=["together", "split"])
def test_rows_that_stay_open_over_the_iterations(split: bool) -> None:
    """Each iteration closes the last one's row and opens its own, so refreshes meet an ever different row."""
    m = variant({"timing": {"nREFI": 1500}})
    b = m.builder()
    b.add("ACT_AB", row=0)
    with b.loop(5000, rows=1):
        if split:
            b.add("PRE", bank=3)
            b.add("ACT", bank=3, row=1)
        else:
            b.add("PREA")
            b.add("ACT_AB", row=1)
        b.add("MAC_AB", 4, row=1, column=0)
    assert skipped(m, [Step(b.build(), 0)]) > 2
    jump = run_kernel(m, [Step(b.build(), 0)])
    rows = dict.fromkeys(range(16), 0 if split else 5000) | {3: 5000}
    assert open_rows(m, jump.device) == rows


def before_a_loop(m: Memory, body: list[str]) -> Step:
    """All banks open, a result read, then a loop."""
    b = m.builder()
    b.add("ACT_AB", row=0)
    b.add("RD_MAC")
    with b.loop(60):
        for command in body:
            kind = m.dram.commands[command]
            b.add(command, row=0 if kind.row else -1, column=0 if kind.column else -1)
    return Step(b.build(), 0)


def test_an_old_command_is_felt_until_its_last_clock() -> None:
    """A rule from before the loop delays any of its iterations, by whatever is left."""
    for clocks in range(1, 250, 11):
        rule = {"late": ["channel", ["ACT_AB"], ["WR_GB"], clocks]}
        m = variant({"constraints": rule, "refresh": {"policy": "none"}})
        assert skipped(m, [before_a_loop(m, ["WR_GB", "MAC_AB"])]) > 0


def test_an_old_window_is_felt_until_its_last_clock() -> None:
    for clocks in range(1, 250, 11):
        rule = {"window": ["channel", ["RD_MAC"], ["WR_GB"], clocks, 2]}
        m = variant({"constraints": rule, "refresh": {"policy": "none"}})
        first = Step(single(m, "RD_MAC"), 0)
        assert skipped(m, [first, before_a_loop(m, ["WR_GB", "MAC_AB"])]) > 0


def test_data_that_outlast_a_loop() -> None:
    """The end is that of the command before the loop, or of the loop; its data may end within the loop."""
    for clocks in (1, 50, 100, 150, 180, 190, 191, 192, 193, 194, 200, 300):
        slow = memory().dram.commands["RD_MAC"].model_dump() | {"duration": str(clocks)}
        m = variant({"commands": {"RD_MAC": slow}, "refresh": {"policy": "none"}})
        step = before_a_loop(m, ["WR_GB", "MAC_AB"])
        assert skipped(m, [step]) > 0
        assert run_kernel(m, [step]).ends == run_naive(m, [step]).ends


def test_nested_loops_are_skipped() -> None:
    m = memory(refresh=False)
    b = m.builder()
    with b.loop(30, rows=100), b.loop(20, rows=5), b.loop(50):
        b.add("WR_GB", 8, buffer=0, d_buffer=1)
        with b.loop(40, rows=1):
            b.add("ACT_AB", row=0)
            b.add("MAC_AB", 3, row=0, column=0)
            b.add("PREA")
    assert int(b.build().counts().sum()) == 30 * 20 * 50 * (8 + 40 * 5)
    steps = [Step(b.build(), 0)]
    jump = run_kernel(m, steps)
    assert jump.stepped < 20_000
    commands = len(m.dram.commands)
    assert sum(jump.totals[:commands]) == 30 * 20 * 50 * (8 + 40 * 5)
