"""The checker: every rule to the clock, and of many mutants of legal traces exactly the illegal ones."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

from pimloom.arch.dram import Dram, Rule, load_dram
from pimloom.arch.expression import evaluate
from pimloom.arch.machine import Arch, load_arch
from pimloom.mapping.plan import Planner
from pimloom.mapping.site import Site
from pimloom.sim.engine import KernelDevice, run
from pimloom.traces.check import Violation, check
from pimloom.traces.io import FIELDS, CommandTrace, from_log, merge
from pimloom.traces.program import Builder, Program
from pimloom.workloads.model import load_model
from pimloom.workloads.request import Workload

DRAM = load_dram("gddr6_pim_gpt", ["channels=1", "timing.nREFI=1000", "timing.nRFC=60"])[0]
SYMBOLS = DRAM.symbols({"nMAC": 1})


class Record(NamedTuple):
    """A command as a line of a trace; the bank is flat here."""

    cycle: int
    command: str
    bank: int = -1
    row: int = -1
    column: int = -1
    channel: int = 0


def make(dram: Dram, records: Iterable[Record]) -> CommandTrace:
    """The trace of records in the given order."""
    records = list(records)
    names = list(dram.commands)
    per = dram.banks_per_bankgroup
    zero = np.zeros(len(records), np.int32)
    columns = {
        "cycle": np.array([r.cycle for r in records], np.int64),
        "command": np.array([names.index(r.command) for r in records], np.int32),
        "channel": np.array([r.channel for r in records], np.int32),
        "pseudochannel": zero,
        "rank": zero,
        "bankgroup": np.array([r.bank // per if r.bank >= 0 else -1 for r in records], np.int32),
        "bank": np.array([r.bank % per if r.bank >= 0 else -1 for r in records], np.int32),
        "row": np.array([r.row for r in records], np.int32),
        "column": np.array([r.column for r in records], np.int32),
    }
    return CommandTrace(tuple(names), **columns)


def records_of(dram: Dram, trace: CommandTrace) -> list[Record]:
    """The records of a trace."""
    rows = zip(*(getattr(trace, field).tolist() for field in FIELDS), strict=True)
    return [
        Record(
            cycle, trace.commands[command], group * dram.banks_per_bankgroup + bank if bank >= 0 else -1,
            row, column, channel,
        )
        for cycle, command, channel, _, _, group, bank, row, column in rows
    ]  # fmt: skip


def broken(*records: tuple[object, ...], dram: Dram = DRAM, partial: bool = True) -> list[str]:
    """The rules that hand-written records break, in order."""
    trace = make(dram, [Record(*record) for record in records])  # type: ignore[arg-type]
    return [violation.rule for violation in check(dram, dram.symbols({"nMAC": 1}), trace, partial)]


# --- one rule at a time --------------------------------------------------------------------------------

GAP = 40
"""The minimum that a rule is given when it is the only one; long enough for what must happen in between."""


def only(rule: Rule, **changes: object) -> Dram:
    """A memory without refresh and with one rule."""
    return DRAM.model_copy(
        update={
            "constraints": {"rule": rule.model_copy(update={"minimum": str(GAP), **changes})},
            "refresh": DRAM.refresh.model_copy(update={"policy": "none"}),
        }
    )


class Script:
    """Records in order, with the rows that they open; brings banks into a state as commands need it."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.open = [False] * DRAM.banks

    def add(self, cycle: int, command: str, bank: int) -> None:
        kind = DRAM.commands[command]
        single = kind.target == "bank"
        row, column = (7 if kind.row else -1), (9 if kind.column else -1)
        self.records.append(Record(cycle, command, bank if single else -1, row, column))
        if kind.bank != "none":
            for b in [bank] if single else range(DRAM.banks):
                self.open[b] = kind.bank == "open"

    def want(self, cycle: int, command: str, bank: int) -> None:
        """Open or close by single-bank commands what the command needs, one clock each from `cycle` on."""
        kind = DRAM.commands[command]
        for b in [bank] if kind.target == "bank" else range(DRAM.banks):
            if kind.needs != "any" and self.open[b] != (kind.needs == "open"):
                self.add(cycle, "ACT" if kind.needs == "open" else "PRE", b)
                cycle += 1


def pair(before: str, after: str, bank: int, distance: int) -> list[Record]:
    """`before` on bank 0, `distance` clocks later `after` on a bank; what else it takes is long ago."""
    script = Script()
    if DRAM.commands[before].target == "bank":
        script.want(0, after, bank)
    if script.open[0] != (DRAM.commands[before].needs == "open") and DRAM.commands[before].needs != "any":
        script.add(20, "PRE" if script.open[0] else "ACT", 0)
    if DRAM.commands[before].target == "channel":
        script.want(40, before, 0)
    at = 1000
    script.add(at, before, 0)
    script.want(at + 1, after, bank)
    script.add(at + distance, after, bank)
    return script.records


PAIRS = [
    (name, before, after)
    for name, rule in DRAM.constraints.items()
    if rule.window == 1
    for before in rule.before
    for after in rule.after
]


@pytest.mark.parametrize(("name", "before", "after"), PAIRS)
def test_every_rule_to_the_clock(name: str, before: str, after: str) -> None:
    rule = DRAM.constraints[name].model_copy(update={"before": [before], "after": [after]})
    dram = only(rule)
    # A rule of the channel holds between different banks, too, and one of the banks does not.
    targets = {DRAM.commands[before].target, DRAM.commands[after].target}
    single = targets == {"bank"}
    for bank in (0, 3, 15) if rule.level == "channel" and single else (0,):
        records = pair(before, after, bank, GAP)
        assert check(dram, SYMBOLS, make(dram, records), partial=True) == []
        records = pair(before, after, bank, GAP - 1)
        found = check(dram, SYMBOLS, make(dram, records), partial=True)
        text = f"{GAP}: {after} at {999 + GAP} comes {GAP - 1} clocks after {before} at 1000, {GAP} needed"
        # Of all banks that a rule and a command concern, the one is named where something happened.
        text += " in bank 0" if rule.level == "bank" and "bank" in targets else ""
        assert found == [Violation(len(records), 999 + GAP, 0, after, "rule", text)]
    if rule.level == "bank" and single:
        records = pair(before, after, 3, 1)
        assert check(dram, SYMBOLS, make(dram, records), partial=True) == []


def test_a_rule_within_a_bank_group() -> None:
    rule = DRAM.constraints["read_to_read"].model_copy(update={"level": "bankgroup"})
    dram = only(rule)
    opened = [(b, "ACT", b, 7) for b in range(16)]
    for bank, distance, rules in ((6, GAP - 1, ["rule"]), (6, GAP, []), (3, 1, []), (8, 1, [])):
        assert broken(*opened, (100, "RD", 5, 7, 0), (100 + distance, "RD", bank, 7, 0), dram=dram) == rules
    # An all-bank command concerns every group.
    to_mac = only(rule.model_copy(update={"after": ["MAC_AB"]}))
    macs = [(100, "RD", 5, 7, 0), (100 + GAP - 1, "MAC_AB", -1, 7, 0)]
    assert broken(*opened, *macs, dram=to_mac) == ["rule"]


def test_a_window_counts_single_activates_only() -> None:
    nFAW = SYMBOLS["nFAW"]  # 21; nRRD is 6, so four of them take 18
    acts = [(0, "ACT", 0, 1), (6, "ACT", 1, 1), (12, "ACT", 2, 1), (18, "ACT", 3, 1)]
    assert broken(*acts, (24, "ACT", 4, 1)) == []
    dram = DRAM.model_copy(update={"timing": DRAM.timing | {"nFAW": 30}})
    assert broken(*acts, (30, "ACT", 4, 1), dram=dram) == []
    assert broken(*acts, (29, "ACT", 4, 1), dram=dram) == ["four_activates"]
    assert broken(*acts[1:], (29, "ACT", 4, 1), dram=dram) == []
    trace = make(dram, [Record(*act) for act in (*acts, (29, "ACT", 4, 1))])
    assert [v.message for v in check(dram, dram.symbols({}), trace, partial=True)] == [
        "nFAW: ACT at 29 comes 29 clocks after ACT at 0, the last but 3, 30 needed"
    ]
    assert nFAW == 21


def test_windows_of_several_sizes_and_of_all_bank_commands() -> None:
    windows = {
        "three": Rule(level="channel", before=["MAC_AB"], after=["MAC_AB"], minimum="20", window=3),
        "five": Rule(level="channel", before=["MAC_AB"], after=["MAC_AB", "RD_MAC"], minimum="60", window=5),
    }
    dram = only(DRAM.constraints["row_open"]).model_copy(update={"constraints": windows})
    opened = (0, "ACT_AB", -1, 7)
    macs = [(t, "MAC_AB", -1, 7, 0) for t in (100, 101, 102, 120, 125)]
    assert broken(opened, *macs[:3], (119, "MAC_AB", -1, 7, 0), dram=dram) == ["three"]
    spread = [(t, "MAC_AB", -1, 7, 0) for t in (100, 105, 110, 120)]
    assert broken(opened, *spread, (124, "MAC_AB", -1, 7, 0), dram=dram) == ["three"]
    assert broken(opened, *spread, (125, "MAC_AB", -1, 7, 0), dram=dram) == []
    assert broken(opened, *macs, (160, "RD_MAC"), dram=dram) == []
    assert broken(opened, *macs, (159, "RD_MAC"), dram=dram) == ["five"]
    assert broken(opened, *macs[1:], (159, "RD_MAC"), dram=dram) == []
    assert broken(opened, *macs, (140, "MAC_AB", -1, 7, 0), dram=dram) == ["five"]


def test_messages_hold_both_numbers() -> None:
    trace = make(DRAM, [Record(99, "ACT_AB", -1, 5), Record(110, "MAC_AB", -1, 5, 0)])
    (found,) = check(DRAM, SYMBOLS, trace, partial=True)
    assert (found.record, found.cycle, found.rule) == (2, 110, "open_to_mac")
    assert found.message == "nRCDMAC: MAC_AB at 110 comes 11 clocks after ACT_AB at 99, 12 needed"
    assert str(found) == f"record 2: channel 0: open_to_mac: {found.message}"


def test_the_latest_of_several_commands_is_named() -> None:
    rules = [(0, "ACT", 0, 1), (27, "PRE", 0), (30, "PREA"), (41, "ACT", 0, 1)]
    assert broken(*rules) == ["row_close"]
    trace = make(DRAM, [Record(*rule) for rule in rules])
    assert check(DRAM, SYMBOLS, trace, partial=True)[0].message == (
        "nRP: ACT at 41 comes 11 clocks after PREA at 30, 12 needed in bank 0"
    )


# --- bus, order, addresses, rows -----------------------------------------------------------------------


def test_one_command_a_clock_and_channel() -> None:
    assert broken((5, "PRE", 0), (5, "PRE", 1)) == ["command_bus"]
    assert broken((5, "PRE", 0), (6, "PRE", 1)) == []
    assert broken((5, "PRE", 0), (4, "PRE", 1)) == ["order"]
    two = DRAM.model_copy(update={"channels": 2})
    assert broken((5, "PRE", 0), (5, "PRE", 1, -1, -1, 1), (6, "PRE", 0), dram=two) == []


@pytest.mark.parametrize(
    "record",
    [
        (20, "RD", -1, 7, 0),
        (20, "RD", 0, -1, 0),
        (20, "RD", 0, 7, -1),
        (20, "RD", 0, 7, 64),
        (20, "RD", 16, 7, 0),
        (20, "RD", 0, 16384, 0),
        (20, "PRE", 0, 7),
        (20, "PRE", 0, -1, 3),
        (20, "PREA", 2),
        (20, "MAC_AB", 0, 7, 0),
        (20, "WR_GB", -1, -1, -1),
        (20, "WR_GB", -1, 7, 0),
        (20, "RD_MAC", -1, -1, 0),
        (20, "REFab", 0),
        (20, "PREA", -1, -1, -1, 1),
        (20, "PREA", -1, -1, -1, -1),
    ],
)
def test_addresses(record: tuple[object, ...]) -> None:
    opened = [(0, "ACT_AB", -1, 7)]
    assert set(broken(*opened, record)) == {"address"}
    assert broken(*opened, (20, "RD", 0, 7, 63)) == []


def test_rows_that_are_needed() -> None:
    opened = (0, "ACT", 0, 7)
    assert broken(opened, (40, "RD", 0, 7, 0)) == []
    assert broken(opened, (40, "RD", 0, 8, 0)) == ["bank_state"]
    assert broken(opened, (40, "RD", 1, 7, 0)) == ["bank_state"]
    assert broken(opened, (40, "WR", 1, 7, 0)) == ["bank_state"]
    assert broken(opened, (40, "ACT", 0, 7)) == ["bank_state"]
    assert broken(opened, (40, "ACT_AB", -1, 7)) == ["bank_state"]
    assert broken(opened, (40, "PRE", 1), (41, "PREA"), (53, "ACT_AB", -1, 7)) == []
    assert broken(opened, (27, "PRE", 0), (39, "ACT", 0, 8), (51, "RD", 0, 8, 0)) == []
    assert broken(opened, (27, "PRE", 0), (30, "RD", 0, 7, 0)) == ["bank_state"]
    assert broken(opened, (40, "WR_GB", -1, -1, 0), (50, "RD_MAC")) == []
    assert broken(opened, (1039, "REFab")) == ["bank_state"]


def test_a_mac_needs_its_row_in_every_bank() -> None:
    acts = [(6 * b, "ACT", b, 7) for b in range(16)]
    mac = (200, "MAC_AB", -1, 7, 0)
    assert broken(*acts, mac) == []
    assert broken(*acts[:15], mac) == ["bank_state"]
    assert broken(*acts[:15], (90, "ACT", 15, 8), mac) == ["bank_state"]
    text = "MAC_AB at 200 needs row 7 open in bank 15, where none is"
    trace = make(DRAM, [Record(*r) for r in (*acts[:15], mac)])
    assert check(DRAM, SYMBOLS, trace, partial=True)[0].message == text


# --- refresh, and the end ------------------------------------------------------------------------------

FIRST = (5, "PREA")


def test_a_refresh_is_due_at_its_clock() -> None:
    assert broken(FIRST, (1000, "REFab"), (2000, "REFab"), partial=False) == []
    assert broken(FIRST, (999, "REFab"), (2000, "REFab"), partial=False) == ["refresh"]
    assert broken(FIRST, (1100, "REFab"), (2000, "REFab"), (3000, "REFab"), partial=False) == []
    assert broken(FIRST, (1000, "REFab"), (1999, "REFab"), (3000, "REFab"), partial=False) == ["refresh"]
    # One far too early does not stand for the one that is due.
    assert broken(FIRST, (1000, "REFab"), (1100, "REFab"), (2000, "REFab"), partial=False) == ["refresh"]


def test_nothing_but_precharges_while_a_refresh_is_due() -> None:
    opened = (900, "ACT", 0, 1)
    assert broken(opened, (999, "RD", 0, 1, 0)) == []
    assert broken(opened, (1000, "RD", 0, 1, 0)) == ["refresh"]
    assert broken(opened, (1000, "PRE", 0), (1012, "REFab"), (1072, "ACT", 0, 1)) == []
    assert broken(opened, (1000, "PRE", 0), (1001, "PREA"), (1013, "REFab"), (1073, "ACT", 0, 1)) == []
    for work in ((1100, "RD", 0, 1, 0), (1100, "WR", 0, 1, 0), (1100, "ACT", 1, 1), (1100, "RD_MAC")):
        assert broken(opened, work) == ["refresh"]
    assert broken((1000, "WR_GB", -1, -1, 0)) == []  # in a trace that begins here
    assert broken((999, "WR_GB", -1, -1, 0), (1000, "WR_GB", -1, -1, 0)) == ["refresh"]
    assert broken(opened, (1000, "PRE", 0), (1012, "ACT", 0, 1), (1039, "PRE", 0)) == ["refresh"]


def test_a_missing_refresh_is_reported_once() -> None:
    reads = [(1000 + 10 * i, "RD", 0, 1, 0) for i in range(5)]
    assert broken((900, "ACT", 0, 1), *reads, (1100, "PRE", 0)) == ["refresh"]
    later = [(2200, "ACT", 0, 1), (2300, "PRE", 0), (2400, "REFab"), (3000, "REFab")]
    assert broken((900, "ACT", 0, 1), *reads, (1100, "PRE", 0), *later, partial=False) == ["refresh"]


def test_a_trace_may_begin_in_mid_run() -> None:
    """Refreshes due at or before the first command may come, once, and need not."""
    work = [(5400, "ACT", 0, 1), (5427, "PRE", 0)]
    assert broken(*work, (6000, "REFab"), partial=False) == []
    assert broken((5000, "REFab"), *work, (6000, "REFab"), partial=False) == []
    assert broken((5000, "REFab"), (5100, "REFab"), *work, (6000, "REFab")) == ["refresh"]
    assert broken(*work, (6001, "ACT", 0, 1)) == ["refresh"]


def test_what_is_left_at_the_end() -> None:
    opened = (0, "ACT", 3, 1)
    assert broken(opened, partial=False) == ["left_open"]
    assert broken(opened, partial=True) == []
    assert broken(opened, (27, "PRE", 3), partial=False) == []
    assert broken((990, "ACT", 3, 1), (1017, "PREA"), partial=False) == ["refresh"]
    assert broken((990, "ACT", 3, 1), (1017, "PREA"), partial=True) == []
    assert broken(opened, (1000, "PREA"), partial=False) == ["refresh"]
    assert broken(opened, (999, "PREA"), partial=False) == []


def test_an_idle_channel_is_refreshed_too() -> None:
    two = DRAM.model_copy(update={"channels": 2})
    records = [Record(*FIRST), Record(1000, "REFab"), Record(2000, "REFab")]
    others = [record._replace(channel=1) for record in records[1:]]
    symbols = two.symbols({})
    assert check(two, symbols, make(two, sorted([*records, *others]))) == []
    (found,) = check(two, symbols, make(two, sorted([*records, others[0]])))
    assert found.message == "refresh 2 is due since 2000 and has not come by the end, 2000"
    assert (found.channel, found.command, found.rule) == (1, "REFab", "refresh")
    assert len(check(two, symbols, make(two, records))) == 1
    assert check(two, symbols, make(two, records), channels=[0]) == []


def test_without_refresh_none_is_due() -> None:
    dram = DRAM.model_copy(update={"refresh": DRAM.refresh.model_copy(update={"policy": "none"})})
    assert broken((900, "ACT", 0, 1), (1200, "RD", 0, 1, 0), (1300, "PRE", 0), dram=dram, partial=False) == []
    assert check(DRAM, SYMBOLS, make(DRAM, [])) == []


# --- an oracle -----------------------------------------------------------------------------------------


def oracle(dram: Dram, symbols: dict[str, int], trace: CommandTrace) -> bool:
    """Whether a trace is legal: all pairs of commands by all rules, rows replayed, refreshes counted."""
    interval = dram.timing["nREFI"]
    skipped = int(trace.cycle.min()) // interval
    last = int(trace.cycle.max())
    return all(
        _channel_is_legal(dram, symbols, trace.take(trace.channel == c), interval, skipped, last)
        for c in range(dram.channels)
    )


def _channel_is_legal(
    dram: Dram, symbols: dict[str, int], trace: CommandTrace, interval: int, skipped: int, last: int
) -> bool:
    records = records_of(dram, trace)
    t = trace.cycle
    if (np.diff(t) < 1).any():
        return False
    # Which node of a level a command concerns; those that address no bank concern all of them.
    bank = trace.bankgroup * dram.banks_per_bankgroup + trace.bank
    every = trace.bank < 0
    node = {"channel": np.zeros_like(bank), "bankgroup": trace.bankgroup, "bank": bank}
    together = {
        level: (at[:, None] == at[None, :]) | every[:, None] | every[None, :] for level, at in node.items()
    }
    distance = np.where(np.triu(np.ones((len(t), len(t)), bool), 1), t[None, :] - t[:, None], 1 << 40)
    names = np.array([r.command for r in records])
    for rule in dram.constraints.values():
        minimum = evaluate(rule.minimum, symbols)
        afters = np.flatnonzero(np.isin(names, rule.after))
        if rule.window == 1:
            pairs = np.ix_(np.isin(names, rule.before), afters)
            if (together[rule.level][pairs] & (distance[pairs] < minimum)).any():
                return False
            continue
        # Windows stand on the channel or count commands of one bank, so "on one node" is "together".
        for j in afters:
            for before in rule.before:
                times = t[:j][(names[:j] == before) & together[rule.level][:j, j]]
                if len(times) >= rule.window and t[j] - times[-rule.window] < minimum:
                    return False
    return _rows_are_legal(dram, records) and _refreshes_are_legal(records, interval, skipped, last)


def _rows_are_legal(dram: Dram, records: list[Record]) -> bool:
    rows: dict[int, int] = {}
    for r in records:
        banks = range(dram.banks) if r.bank < 0 else [r.bank]
        if r.command in ("ACT", "ACT_AB"):
            if any(b in rows for b in banks):
                return False
            rows |= dict.fromkeys(banks, r.row)
        elif r.command in ("PRE", "PREA"):
            rows = {b: row for b, row in rows.items() if b not in banks}
        elif r.command in ("RD", "WR", "MAC_AB"):
            if any(rows.get(b) != r.row for b in banks):
                return False
        elif r.command == "REFab" and rows:
            return False
    return not rows


def _refreshes_are_legal(records: list[Record], interval: int, skipped: int, last: int) -> bool:
    came = [r.cycle for r in records if r.command == "REFab"]
    if skipped and came and came[0] < (skipped + 1) * interval:
        del came[0]
    if any(cycle < (skipped + k) * interval for k, cycle in enumerate(came, 1)):
        return False
    for r in records:
        done = sum(cycle < r.cycle for cycle in came)
        if r.command not in ("PRE", "PREA", "REFab") and done < r.cycle // interval - skipped:
            return False
    return len(came) >= last // interval - skipped


# --- emitted traces and their mutants (issue 2, figure 8) ----------------------------------------------

SMALL = ["dram.channels=2", "dram.timing.nREFI=700", "dram.timing.nRFC=60", "dram.timing.nCCD=2"]
LOG_ROOM = 4000


def random_program(rng: random.Random, dram: Dram, blocks: int) -> Program:
    """A legal program of stretches of MACs, reads and writes in some banks, activates for nothing."""
    builder = Builder(dram.command_names)
    for _ in range(blocks):
        row = rng.randrange(1000)
        if rng.random() < 0.4:
            n, offset = rng.randint(1, 8), rng.randrange(8)
            builder.add("WR_GB", n, buffer=offset, d_buffer=1)
            builder.add("ACT_AB", row=row)
            with builder.loop(rng.randint(1, 3), columns=n):
                builder.add("MAC_AB", n, row=row, column=0, buffer=offset, d_column=1, d_buffer=1)
                builder.add("RD_MAC", rng.randint(1, 2))
            if rng.random() < 0.5:
                builder.add("WR", rng.randint(1, 5), bank=2, row=row, column=3, d_bank=3)
            if rng.random() < 0.3:
                builder.add("RD", 2, bank=rng.randrange(16), row=row, column=3, d_column=1)
            builder.add("PREA")
            continue
        with builder.loop(rng.randint(1, 3), rows=1):
            banks = rng.sample(range(dram.banks), rng.randint(1, 6))
            for bank in banks:
                builder.add("ACT", bank=bank, row=row + bank)
            for bank in rng.sample(banks, rng.randrange(len(banks) + 1)):
                count, column = rng.randint(1, 3), rng.randrange(32)
                command = rng.choice(["RD", "WR"])
                builder.add(command, count, bank=bank, row=row + bank, column=column, d_column=1)
            if rng.random() < 0.5:
                builder.add("PREA")
            else:
                for bank in banks:
                    builder.add("PRE", bank=bank)
    return builder.build()


def emitted(arch: Arch, programs: dict[int, list[Program]], start: int = 0) -> CommandTrace:
    """The trace of programs on their channels, each as early as it can; refreshes up to a common end."""
    device = KernelDevice(arch, LOG_ROOM)
    end = max(
        device.issue(channel, program, 0, 0, start) for channel, some in programs.items() for program in some
    )
    device.totals(int(end))
    logs = [device.log[c, 1 : device.log[c, 0, 0] + 1] for c in range(arch.dram.channels)]
    return merge([from_log(arch.dram, c, log) for c, log in enumerate(logs)])


def tight(name: str, seed: int, blocks: int, overrides: Iterable[str] = SMALL) -> tuple[Arch, CommandTrace]:
    """A machine and an emitted trace: two programs on channel 0, one on channel 1."""
    arch = load_arch(name, tuple(overrides))[0]
    rng = random.Random(seed)
    first, second, third = (random_program(rng, arch.dram, blocks) for _ in range(3))
    return arch, emitted(arch, {0: [first, second], 1: [third]})


def symbols_of(arch: Arch) -> dict[str, int]:
    return arch.dram.symbols({"nMAC": arch.nMAC})


def moved(trace: CommandTrace, i: int, clocks: int) -> CommandTrace:
    """The trace with record i moved in time, but not in order."""
    cycle = trace.cycle.copy()
    cycle[i] += clocks
    return replace(trace, cycle=cycle)


def mutant(rng: random.Random, dram: Dram, trace: CommandTrace, kind: str) -> CommandTrace:
    """The trace with one random thing changed."""
    records = records_of(dram, trace)
    closing = {"PRE", "PREA", "ACT", "ACT_AB", "REFab"}
    fit = [
        i
        for i, r in enumerate(records)
        if (kind != "dropped" or r.command in closing)
        and (kind not in ("row", "rows") or r.row >= 0)
        and (kind != "bank" or r.bank >= 0)
        and (kind != "earlier" or r.cycle > 0)
    ]
    i = rng.choice(fit)
    r = records[i]
    if kind in ("earlier", "later"):
        return moved(trace, i, -1 if kind == "earlier" else 1)
    if kind == "dropped":
        return make(dram, records[:i] + records[i + 1 :])
    if kind == "duplicated":
        return make(
            dram, [*records[: i + 1], r._replace(cycle=r.cycle + rng.choice([0, 1, 20])), *records[i + 1 :]]
        )
    if kind == "row":
        records[i] = r._replace(row=r.row + rng.choice([-1, 1]) if r.row else 1)
    elif kind == "bank":
        records[i] = r._replace(bank=rng.choice([b for b in range(dram.banks) if b != r.bank]))
    else:
        others = [k for k in fit if records[k].channel == r.channel and records[k] != r]
        # Far ones are hardly ever legal.
        k = min(rng.sample(others, 4), key=lambda k: abs(k - i))
        if kind == "rows":
            records[i], records[k] = r._replace(row=records[k].row), records[k]._replace(row=r.row)
        else:
            records[i], records[k] = records[k]._replace(cycle=r.cycle), r._replace(cycle=records[k].cycle)
    return make(dram, records)


MUTATIONS = ["earlier", "later", "dropped", "row", "rows", "bank", "duplicated", "exchanged"]


@pytest.mark.parametrize("name", ["pim-gpt", "pim-gpt-aim-timing"])
def test_emitted_traces_are_legal(name: str) -> None:
    overrides = SMALL if name == "pim-gpt" else ["dram.channels=2", "dram.timing.nREFI=1500"]
    seen: Counter[str] = Counter()
    for seed in range(12):
        arch, trace = tight(name, seed, 12, overrides)
        assert check(arch.dram, symbols_of(arch), trace) == []
        assert oracle(arch.dram, symbols_of(arch), trace)
        seen.update(r.command for r in records_of(arch.dram, trace))
    assert set(seen) == set(arch.dram.commands)


@pytest.mark.parametrize("seed", range(5))
def test_of_many_mutants_exactly_the_illegal_ones_are_found(seed: int) -> None:
    arch, trace = tight("pim-gpt", 100 + seed, 6)
    dram, symbols = arch.dram, symbols_of(arch)
    assert set(dram.commands) == {dram.command_names[i] for i in set(trace.command.tolist())}
    rng = random.Random(seed)
    verdicts: Counter[tuple[str, bool]] = Counter()
    for n in range(200):
        kind = MUTATIONS[n % len(MUTATIONS)]
        other = mutant(rng, dram, trace, kind)
        legal = oracle(dram, symbols, other)
        verdicts[kind, legal] += 1
        found = check(dram, symbols, other)
        assert (found == []) == legal, (kind, n, found)
    assert sum(count for (_, legal), count in verdicts.items() if not legal) > 100
    assert sum(count for (_, legal), count in verdicts.items() if legal) > 10


@pytest.mark.parametrize("name", ["pim-gpt", "pim-gpt-aim-timing"])
def test_in_a_tight_trace_nothing_can_come_earlier(name: str) -> None:
    overrides = SMALL if name == "pim-gpt" else ["dram.channels=2", "dram.timing.nREFI=1500"]
    arch, trace = tight(name, 7, 5, overrides)
    dram, symbols = arch.dram, symbols_of(arch)
    records = records_of(dram, trace)
    started: set[int] = set()
    for i, record in enumerate(records):
        found = check(dram, symbols, moved(trace, i, -1)) if record.cycle else []
        # A program may close its banks one clock before a refresh is due; the refresh does so when it is.
        waits = record.command == "PREA" and record.cycle % dram.timing["nREFI"] == 0
        if record.channel in started and not waits:
            assert found, record
        started.add(record.channel)


@pytest.fixture(scope="module")
def gpt2_pass() -> tuple[Arch, CommandTrace]:
    """The commands of one pass of GPT2-small on channel 0 of PIM-GPT."""
    arch = load_arch("pim-gpt")[0]
    site = Site(load_model("gpt2-small")[0], arch, Workload(prompt=1, generate=200))
    device = KernelDevice(arch, 200_000)
    run(arch, [Planner(site).pass_at(150)], lambda item, times: None, "events", device)
    log = device.log[0]
    return arch, from_log(arch.dram, 0, log[1 : log[0, 0] + 1])


def test_a_whole_pass_of_gpt2_small(gpt2_pass: tuple[Arch, CommandTrace]) -> None:
    arch, trace = gpt2_pass
    assert len(trace) > 50_000
    assert {"REFab", "MAC_AB", "WR", "RD"} <= {trace.commands[i] for i in set(trace.command.tolist())}
    assert check(arch.dram, symbols_of(arch), trace, channels=[0]) == []


@pytest.mark.bench
def test_speed() -> None:
    arch, trace = tight("pim-gpt", 3, 20)
    part = trace.take(np.arange(500))
    times = []
    for _ in range(5):
        begin = time.perf_counter()
        check(arch.dram, symbols_of(arch), part, partial=True)
        times.append(time.perf_counter() - begin)
    assert min(times) < 15e-3
