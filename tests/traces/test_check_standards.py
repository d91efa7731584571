"""The checker on whole memories: excerpts of reference traces, every row of their tables, and what has no table."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from pimloom.arch.dram import Dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate
from pimloom.arch.memory import load_memory
from pimloom.traces.check import Violation, check
from pimloom.traces.io import FIELDS, CommandTrace, from_log, read

DATA = Path(__file__).parents[1] / "data" / "dram" / "check"
CASES = sorted(path.name for path in DATA.iterdir() if path.is_dir())
DDR4, DDR4_RANKS = "ramulator2_ddr4_2400_random_rw21_ref", "ramulator2_ddr4_3200_2rank_hot_rw_ref"
HBM2, HBM3 = "ramulator2_hbm2_2000_random_rw21_refpb", "ramulator2_hbm3_6400_hot_rw_ref"
HBM3_SETS, LPDDR5 = "ramulator2_hbm3_6400_stream_mixed_refpb", "ramulator2_lpddr5_6400_hot_rw_ref"
GDDR6 = "ramulator2_gddr6_14000_random_rw21_ref"


@cache
def memory(case: str) -> Dram:
    return load_memory(str(DATA / case / "config.yaml"))[0].dram


@cache
def excerpt(case: str) -> CommandTrace:
    """300 records in a row, most of them around a refresh, without what concerns banks opened before."""
    return read(DATA / case / "commands.csv.gz", memory(case))


class Record(NamedTuple):
    """A command with the coordinates of the node that it addresses, the channel's first."""

    cycle: int
    command: str
    path: tuple[int, ...] = (0,)
    row: int = -1
    column: int = -1


def records_of(dram: Dram, trace: CommandTrace) -> list[Record]:
    rows = zip(*(getattr(trace, field).tolist() for field in FIELDS), strict=True)
    records = []
    for cycle, command, _, pc, rank, group, bank, row, column in rows:
        name = trace.commands[command]
        path = (0, pc, max(rank, 0) // dram.stack_ids, max(rank, 0) % dram.stack_ids, group, bank)
        end = LEVELS.index(dram.commands[name].target) + 1
        records.append(Record(cycle, name, path[:end], row, column))
    return records


def make(dram: Dram, records: Iterable[Record | tuple[object, ...]]) -> CommandTrace:
    """The trace of records in the given order; the path may be longer than the command's target needs."""
    ids = {name: i for i, name in enumerate(dram.commands)}
    log = []
    for record in records:
        r = Record(*record)  # type: ignore[arg-type]
        node = 0
        for i in range(LEVELS.index(dram.commands[r.command].target) + 1):
            node = node * dram.counts[i] + r.path[i]
        log.append((r.cycle, ids[r.command], node, r.row, r.column))
    return from_log(dram, 0, np.array(log, np.int64).reshape(-1, 5))


def found(dram: Dram, *records: Record | tuple[object, ...], partial: bool = True) -> list[Violation]:
    return check(dram, dram.symbols({}), make(dram, records), partial, rows_may_stay_open=True)


def broken(dram: Dram, *records: Record | tuple[object, ...], partial: bool = True) -> list[str]:
    """The rules that hand-written records break, in order."""
    return [violation.rule for violation in found(dram, *records, partial=partial)]


def bare(case: str, **timing: int) -> Dram:
    """A memory without rules of distance and without refresh."""
    dram = memory(case)
    refresh = dram.refresh.model_copy(update={"policy": "none"})
    update = {"constraints": {}, "refresh": refresh, "timing": dram.timing | timing}
    return dram.model_copy(update=update)


def refreshed(case: str, postpone: int, policy: str | None = None, **timing: int) -> Dram:
    """A memory without rules of distance that may postpone so many refreshes."""
    dram = memory(case)
    update = {"postpone": postpone, "policy": policy or dram.refresh.policy}
    refresh = dram.refresh.model_copy(update=update)
    return bare(case, **timing).model_copy(update={"refresh": refresh})


# --- every row of every table --------------------------------------------------------------------------


def test_there_is_an_excerpt_of_every_standard() -> None:
    kinds = {tuple(case.split("_")[:3]) for case in CASES}
    assert len(kinds) == 11
    assert all(len(excerpt(case)) == 300 for case in CASES)


@pytest.mark.parametrize("case", CASES)
def test_every_row_to_the_clock(case: str) -> None:
    """Two commands, or as many as a window counts, on one node of the level of the only rule, and on two."""
    dram = memory(case)
    symbols = dram.symbols({})
    last = tuple(count - 1 for count in dram.counts)
    tried: Counter[str] = Counter()
    for name, rule in dram.constraints.items():
        minimum, level = evaluate(rule.minimum, symbols), LEVELS.index(rule.level)
        alone = dram.model_copy(update={"constraints": {name: rule}})
        same, other = (0,) * (level + 1) + last[level + 1 :], (0,) * level + last[level:]
        apart = last[level] > 0
        for before in rule.before:
            for after in rule.after:
                deep = all(LEVELS.index(dram.commands[c].target) >= level for c in (before, after))
                on_other = (apart and deep) if rule.siblings else not (apart and deep)
                some = [Record(100 + i, before, (0,) * 6, 1, 1) for i in range(rule.window)]
                for path, bound in ((same, not rule.siblings), (other, on_other)):
                    for late, caught in ((minimum - 1, bound and minimum > 0), (minimum, False)):
                        if minimum > 0:
                            at = Record(100 + late, after, path, 1, 1)
                            names = [v.rule for v in found(alone, *some, at)]
                            assert (name in names) == caught, (name, before, after)
                            tried[name] += 1
    assert len(tried) > 20


# --- a clock earlier -----------------------------------------------------------------------------------


def concerns(before: tuple[int, ...], after: tuple[int, ...], depth: int, siblings: bool) -> bool:
    """Whether a command binds another by a rule of this depth, from the coordinates of both."""
    if siblings:
        deep = min(len(before), len(after)) > depth
        return deep and before[:depth] == after[:depth] and before[depth] != after[depth]
    shared = min(len(before), len(after), depth + 1)
    return before[:shared] == after[:shared]


def earliest(dram: Dram, minima: Mapping[str, int], records: list[Record], k: int) -> int:
    """The clock from which record k may issue by the rows of the table, from all that comes before it."""
    here, clock = records[k], 0
    of: dict[str, list[Record]] = defaultdict(list)
    for record in records[:k]:
        of[record.command].append(record)
    for name, rule in dram.constraints.items():
        if here.command in rule.after and minima[name] > 0:
            depth = LEVELS.index(rule.level)
            for some in (of[before] for before in rule.before if before in of):
                times = [r.cycle for r in some if concerns(r.path, here.path, depth, rule.siblings)]
                if len(times) >= rule.window:
                    clock = max(clock, times[-rule.window] + minima[name])
    return clock


def buses_are_legal(dram: Dram, records: list[Record]) -> bool:
    shared = dram.command_bus == "shared"
    column = [dram.commands[r.command].column and not shared for r in records]
    if len({(r.cycle, c) for r, c in zip(records, column, strict=True)}) < len(records):
        return False
    if dram.command_bus != "half_clock":
        return True
    rows = [r for r, c in zip(records, column, strict=True) if not c]
    if any(r.cycle % 2 == 0 and not r.command.startswith("PRE") for r in records):
        return False
    for i, r in enumerate(rows):
        rising = [x for x in rows[:i] if x.cycle % 2][-1:]
        for x in rising if r.command.startswith("PRE") else ():
            on_edge = r.cycle == x.cycle + (3 if x.command == "ACT" else 1) and x.path[1] == r.path[1]
            if on_edge and (x.path == r.path or "PREab" in (x.command, r.command) or x.command == "REFab"):
                return False
    return True


def rows_are_legal(dram: Dram, records: list[Record]) -> bool:
    """Replay which rows are open, and which by half since when."""
    rows: dict[tuple[int, ...], int] = {}
    halves: dict[tuple[int, ...], tuple[int, int]] = {}
    for r in records:
        here = {path for path in (*rows, *halves) if path[: len(r.path)] == r.path}
        kind = r.command[:3]
        legal = {
            "ACT": not here or r.command == "ACT2",
            "REF": not here,
            "PRE": not here & halves.keys(),
            "CAS": r.path in rows,
        }.get(kind, rows.get(r.path) == r.row)
        if any(r.cycle > begun + dram.timing["nAAD"] for _, begun in halves.values()):
            legal = False
        if r.command == "ACT2":
            legal = legal and halves.pop(r.path, (-1, 0))[0] == r.row
        if not legal:
            return False
        if r.command == "ACT1":
            halves[r.path] = (r.row, r.cycle)
        elif kind == "ACT":
            rows[r.path] = r.row
        elif kind in ("PRE", "RDA", "WRA"):
            for path in here:
                del rows[path]
    return True


def wck_is_legal(dram: Dram, records: list[Record]) -> bool:
    """Replay until when WCK runs."""
    if "CAS_RD" not in dram.commands:
        return True
    n, until, sync = dram.timing, -1, None
    for r in records:
        if sync and (r.command, r.path) != sync:
            return False
        if r.command in ("RD", "WR"):
            if r.cycle >= until and not sync:
                return False
            latency = n["nCL"] if r.command == "RD" else n["nCWL"]
            until = max(until, r.cycle + latency + n["nBL_min"] + n["nWCKPST"])
        sync = (r.command[-2:], r.path) if r.command.startswith("CAS") else None
    return True


@pytest.mark.parametrize("case", CASES)
def test_a_clock_earlier_is_found_where_something_forbids_it(case: str) -> None:
    """Refreshes apart, of which 8 may come early or late: an excerpt has fewer."""
    dram, trace = memory(case), excerpt(case)
    symbols = dram.symbols({})
    minima = {name: evaluate(rule.minimum, symbols) for name, rule in dram.constraints.items()}
    assert check(dram, symbols, trace, partial=True) == []
    verdicts: Counter[bool] = Counter()
    for i in range(CASES.index(case) % 2, len(trace), 2):
        cycle = trace.cycle.copy()
        cycle[i] -= 1
        order = np.argsort(cycle, kind="stable")
        moved = replace(trace, cycle=cycle).take(order)
        records = records_of(dram, moved)
        # Those that it now comes before are bound by it, and not it by them.
        first = order.tolist().index(i)
        legal = all(records[k].cycle >= earliest(dram, minima, records, k) for k in range(first, i + 1))
        for replay in (buses_are_legal, rows_are_legal, wck_is_legal):
            legal = legal and replay(dram, records)
        assert (check(dram, symbols, moved, partial=True) == []) == legal, records[first]
        verdicts[legal] += 1
    assert verdicts[False] > 30
    assert sum(verdicts.values()) == 150


@pytest.mark.parametrize("case", CASES)
def test_mutants(case: str) -> None:
    dram, trace = memory(case), excerpt(case)
    symbols = dram.symbols({})
    records = records_of(dram, trace)

    def rules(changed: list[Record]) -> set[str]:
        return {v.rule for v in check(dram, symbols, make(dram, changed), partial=True)}

    def accessed(i: int) -> bool:
        own = [r.command for r in records[i + 1 :] if r.path == records[i].path]
        return bool(own) and own[0][:2] in ("AC", "RD", "WR", "CA")

    assert rules(records) == set()
    for i in range(0, len(records), 7):
        assert "command_bus" in rules([*records[: i + 1], records[i], *records[i + 1 :]])
    tried: Counter[str] = Counter()
    for i, r in enumerate(records):
        kind = r.command
        if tried[kind] == 12:
            continue
        without = [*records[:i], *records[i + 1 :]]
        if kind in ("ACT", "ACT1", "ACT2") and accessed(i):
            tried[kind] += 1
            assert "bank_state" in rules(without)
            if kind == "ACT2":
                late = records[-1].cycle > r.cycle + dram.timing["nAAD"]
                assert ("split_activate" in rules(without)) == late
        elif kind[:2] in ("RD", "WR"):
            tried[kind] += 1
            changed = list(records)
            changed[i] = r._replace(row=r.row ^ 1)
            assert "bank_state" in rules(changed)
            # Its row is open in one bank only, or else in those that are swapped with it.
            bank = (r.path[-1] + 1) % dram.banks_per_bankgroup
            changed[i] = r._replace(path=(*r.path[:-1], bank))
            last = [x for x in records[:i] if x.path == changed[i].path and x.command[:2] in ("AC", "PR")]
            if not last or last[-1].row != r.row:
                assert "bank_state" in rules(changed)
        elif kind.startswith("CAS"):
            tried[kind] += 1
            assert "wck_sync" in rules(without)
    assert tried["RD"] + tried["RDA"] == tried["ACT"] + tried["ACT1"] == 12


# --- buses ---------------------------------------------------------------------------------------------

A, B, C = (0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, 0)


def test_one_row_and_one_column_command_a_clock() -> None:
    dram = bare(HBM2)
    opened = (0, "ACT", A, 1)
    assert broken(dram, opened, (9, "RD", A, 1, 0), (9, "ACT", B, 1)) == []
    assert broken(dram, opened, (9, "ACT", B, 1), (9, "RD", A, 1, 0)) == []
    assert broken(dram, opened, (9, "RD", A, 1, 0), (9, "WR", A, 1, 0)) == ["command_bus"]
    assert broken(dram, (9, "ACT", A, 1), (9, "PREpb", C)) == ["command_bus"]
    assert broken(dram, (9, "REFab", A), (9, "REFab", C)) == ["command_bus"]
    (violation,) = found(dram, (9, "ACT", A, 1), (9, "PREpb", C))
    assert violation.message == "PREpb at 9 comes 0 clocks after the row command before, 1 needed"
    assert broken(bare(DDR4), (0, "ACT", A, 1), (9, "RD", A, 1, 0), (9, "ACT", B, 1)) == ["command_bus"]


def test_half_clocks() -> None:
    dram = bare(HBM3)
    assert broken(dram, (1, "ACT", A, 1), (5, "RD", A, 1, 0), (5, "ACT", B, 1), (10, "PREpb", A)) == []
    assert broken(dram, (2, "ACT", A, 1)) == ["command_bus"]
    assert broken(dram, (1, "ACT", A, 1), (6, "RD", A, 1, 0)) == ["command_bus"]
    assert broken(dram, (2, "REFab", A)) == ["command_bus"]
    assert broken(dram, (2, "PREab", A)) == []


def test_what_the_edge_after_a_row_command_forbids() -> None:
    dram = bare(HBM3)
    act, close = (11, "ACT", A, 1), (11, "PREpb", A)
    assert broken(dram, act, (14, "PREpb", A)) == ["command_bus"]
    for legal in ((12, "PREpb", A), (16, "PREpb", A), (14, "PREpb", B), (14, "PREpb", C), (14, "PREab", C)):
        assert broken(dram, act, legal) == []
    assert broken(dram, act, (14, "PREab", A)) == ["command_bus"]
    # Only the latest counts, and of those on rising edges only.
    assert broken(dram, act, (13, "PREpb", B), (14, "PREpb", A)) == []
    assert broken(dram, act, (12, "PREpb", B), (14, "PREpb", A)) == ["command_bus"]
    assert broken(dram, (10, "PREpb", A), (11, "PREpb", A)) == []
    assert broken(dram, close, (12, "PREpb", A)) == ["command_bus"]
    assert broken(dram, close, (12, "PREpb", B)) == []
    assert broken(dram, (10, "PREpb", A), (12, "PREpb", A)) == []
    for whole in ("PREab", "REFab"):
        assert broken(dram, (11, whole, A), (12, "PREpb", B)) == ["command_bus"]
        assert broken(dram, (11, whole, A), (12, "PREpb", C)) == []


# --- states --------------------------------------------------------------------------------------------


def test_rows_per_bank_of_the_whole_tree() -> None:
    dram = bare(HBM3)
    sids = [(0, pc, 0, sid, 0, 0) for pc in (0, 1) for sid in (0, 1)]
    acts = [(1 + 2 * i, "ACT", path, 10 + i) for i, path in enumerate(sids)]
    for i, path in enumerate(sids):
        assert broken(dram, *acts, (101, "RD", path, 10 + i, 0)) == []
        assert broken(dram, *acts, (101, "RD", path, 11 + i, 0)) == ["bank_state"]
    # All stack IDs of one pseudo-channel.
    assert broken(dram, *acts, (101, "PREab", sids[0]), (201, "REFab", sids[0])) == []
    assert broken(dram, *acts, (101, "PREab", sids[0]), (201, "REFab", sids[2])) == ["bank_state"]
    (violation,) = found(dram, *acts, (101, "RD", sids[3], 9, 0))
    assert violation.message == (
        "RD at 101 needs row 9 open in pseudochannel 1, stack_id 1, bank 0, where row 13 is"
    )


def test_auto_precharge_closes_the_bank() -> None:
    dram = bare(DDR4)
    for name in ("RDA", "WRA"):
        access = (50, name, A, 1, 0)
        assert broken(dram, (0, "ACT", A, 1), access, (90, "ACT", A, 2)) == []
        assert broken(dram, (0, "ACT", A, 1), access, (90, "RD", A, 1, 0)) == ["bank_state"]
        assert broken(dram, (0, "ACT", A, 1), access, (90, "REFab", A)) == []
    assert broken(dram, (0, "ACT", A, 1), (50, "RD", A, 1, 0), (90, "REFab", A)) == ["bank_state"]
    assert broken(dram, (50, "RDA", A, 1, 0)) == ["bank_state"]


def test_a_refresh_of_one_bank() -> None:
    dram = bare(HBM2)
    assert broken(dram, (0, "ACT", A, 1), (90, "REFpb", A)) == ["bank_state"]
    assert broken(dram, (0, "ACT", A, 1), (90, "REFpb", B), (99, "REFpb", C)) == []


def test_rows_at_the_end() -> None:
    dram = bare(DDR4)
    trace = make(dram, [(0, "ACT", A, 1)])
    assert [v.rule for v in check(dram, dram.symbols({}), trace)] == ["left_open"]
    assert check(dram, dram.symbols({}), trace, rows_may_stay_open=True) == []


def test_halves_of_an_activate() -> None:
    dram = bare(LPDDR5, nAAD=8)
    first = (0, "ACT1", A, 1)
    assert broken(dram, first, (8, "ACT2", A, 1)) == []
    assert broken(dram, first, (9, "ACT2", A, 1)) == ["split_activate"]
    assert broken(dram, first, (4, "ACT2", A, 2)) == ["bank_state"]
    assert broken(dram, first, (4, "ACT2", B, 1)) == ["bank_state"]
    assert broken(dram, (4, "ACT2", A, 1)) == ["bank_state"]
    assert broken(dram, first, (1, "ACT1", A, 1)) == ["bank_state"]
    assert broken(dram, first, (4, "ACT2", A, 1), (5, "ACT2", A, 1)) == ["bank_state"]
    for early in ("PREpb", "PREab", "REFpb", "CAS_RD"):
        assert broken(dram, first, (4, early, A)) == ["bank_state"]
    assert broken(dram, first, (20, "PREpb", B)) == ["split_activate"]
    assert broken(dram, first, (8, "PREpb", B)) == []
    assert broken(dram, first, (8, "PREpb", B), partial=False) == ["split_activate"]
    (violation,) = found(dram, first, (20, "PREpb", B))
    assert violation.message == "ACT1 at 0 in bank 0 had no second half by 8, nAAD = 8 clocks later"
    (violation,) = found(dram, first, (4, "RD", A, 1, 0))[1:]
    assert violation.message == "RD at 4 needs row 1 open in bank 0, where row 1 is half open"


def test_wck_runs_for_an_access() -> None:
    dram = bare(LPDDR5, nCL=17, nCWL=9, nBL_min=2, nWCKPST=1)
    opened = [(0, "ACT1", A, 1), (1, "ACT2", A, 1), (2, "ACT1", B, 1), (3, "ACT2", B, 1)]
    read, write = (50, "RD", A, 1, 0), (50, "WR", A, 1, 0)
    assert broken(dram, *opened, read) == ["wck_sync"]
    assert broken(dram, *opened, (49, "CAS_RD", A), read) == []
    assert broken(dram, *opened, (49, "CAS_WR", A), write) == []
    assert broken(dram, *opened, (40, "CAS_RD", A), read) == []
    assert broken(dram, *opened, (49, "CAS_WR", A), read) == ["wck_sync", "wck_sync"]
    assert broken(dram, *opened, (49, "CAS_RD", B), read) == ["wck_sync", "wck_sync"]
    assert broken(dram, *opened, (48, "CAS_RD", A), (49, "PREpb", B), read) == ["wck_sync", "wck_sync"]
    for access, clocks in ((read, 17 + 2 + 1), (write, 9 + 2 + 1)):
        synced = [(49, f"CAS_{access[1]}", A), access]
        for later in ("RD", "WR"):
            assert broken(dram, *opened, *synced, (50 + clocks - 1, later, B, 1, 0)) == []
            assert broken(dram, *opened, *synced, (50 + clocks, later, B, 1, 0)) == ["wck_sync"]
    after_both = [(49, "CAS_RD", A), read, (55, "WR", A, 1, 0), (69, "RD", A, 1, 0)]
    assert broken(dram, *opened, *after_both) == []


# --- addresses -----------------------------------------------------------------------------------------


def test_addresses_as_far_as_the_target() -> None:
    dram = bare(HBM3)
    good = make(dram, [(1, "PREab", (0, 1)), (3, "ACT", (0, 1, 0, 1, 3, 2), 7)])
    assert [getattr(good, field).tolist() for field in FIELDS[3:8]] == [
        [1, 1], [-1, 1], [-1, 3], [-1, 2], [-1, 7],
    ]  # fmt: skip
    assert check(dram, dram.symbols({}), good, partial=True) == []
    for field, i, value in (
        ("pseudochannel", 0, 2), ("pseudochannel", 0, -1), ("rank", 0, 0), ("rank", 1, 2), ("rank", 1, -1),
        ("bankgroup", 0, 0), ("bankgroup", 1, 4), ("bank", 1, -1), ("row", 0, 0), ("column", 1, 0),
    ):  # fmt: skip
        values = getattr(good, field).copy()
        values[i] = value
        (violation,) = check(dram, dram.symbols({}), replace(good, **{field: values}), partial=True)
        assert (violation.rule, violation.record) == ("address", i + 1)
        assert f": {field} " in violation.message


def test_messages_name_the_node() -> None:
    dram = memory(DDR4_RANKS)
    row = next(name for name, r in dram.constraints.items() if r.siblings and evaluate(r.minimum, {}) == 6)
    paths = [(0, 0, rank, 0, 1, 1) for rank in (0, 1)]
    acts = [(0, "ACT", paths[0], 1), (1, "ACT", paths[1], 1)]
    reads = [(50, "RD", paths[0], 1, 0), (55, "RD", paths[1], 1, 0)]
    (violation,) = found(dram, *acts, *reads)
    assert (violation.rule, violation.record) == (row, 4)
    assert (
        violation.message
        == "6: RD at 55 comes 5 clocks after RD at 50, 6 needed in rank 1 after another rank"
    )
    (violation,) = found(dram, acts[0], (21, "RD", paths[0], 1, 0))
    assert violation.message == "22: RD at 21 comes 21 clocks after ACT at 0, 22 needed in rank 0, bank 5"


# --- refresh -------------------------------------------------------------------------------------------


def test_refreshes_may_be_late_or_early() -> None:
    dram = refreshed(DDR4, 2, nREFI=1000)
    act, refresh = (1, "ACT", A, 1), "REFab"
    assert broken(dram, act, (2999, "RD", A, 1, 0)) == []
    assert broken(dram, act, (3000, "RD", A, 1, 0)) == ["refresh"]
    assert broken(dram, (1, "PREab", A), (2999, refresh, A), (3999, "ACT", A, 1)) == []
    assert broken(dram, (1, "PREab", A), (2999, refresh, A), (4000, "ACT", A, 1)) == ["refresh"]
    # Nothing else need happen for one to be missing, nor need the trace be complete.
    assert broken(dram, act, (3000, "PREab", A)) == ["refresh"]
    assert broken(dram, act, (2999, "PREab", A)) == []
    assert broken(dram, (1, "PREab", A), (3000, refresh, A)) == ["refresh"]
    early = [(10 * i, refresh, A) for i in range(1, 4)]
    assert broken(dram, *early[:2]) == []
    assert broken(dram, *early) == ["refresh"]
    assert broken(dram, *early[:2], (1000, refresh, A)) == []
    assert broken(dram, *early[:2], (999, refresh, A)) == ["refresh"]
    assert broken(dram, *early[:2], (4999, "ACT", A, 1)) == []
    assert broken(dram, *early[:2], (5000, "ACT", A, 1)) == ["refresh"]
    (violation,) = found(dram, act, (3000, "RD", A, 1, 0))
    assert violation.message == (
        "RD at 3000, but refresh 1 is due since 1000 (2 intervals of 1000) and has not come"
    )


def test_without_postponement_as_ever() -> None:
    dram = refreshed(DDR4, 0, nREFI=1000)
    assert broken(dram, (1, "ACT", A, 1), (1000, "RD", A, 1, 0)) == ["refresh"]
    assert broken(dram, (1, "ACT", A, 1), (1000, "PREab", A), (5000, "PREab", A)) == []
    assert broken(dram, (1, "PREab", A), (999, "REFab", A)) == ["refresh"]
    assert broken(dram, (1, "PREab", A), (1000, "REFab", A), (1999, "ACT", A, 1)) == []


def test_every_rank_is_refreshed_at_its_own_times() -> None:
    ranks = [(0, 0, rank, 0, 0, 0) for rank in (0, 1)]
    for postpone in (0, 3):
        dram = refreshed(DDR4_RANKS, postpone, nREFI=1000)
        together = [(1000 * k + rank, "REFab", ranks[rank]) for k in range(1, 20) for rank in (0, 1)]
        staggered = [(500 * k, "REFab", ranks[k % 2]) for k in range(1, 40)]
        later = [(1000 * k + 600 * rank, "REFab", ranks[rank]) for k in range(1, 20) for rank in (0, 1)]
        for plan in (together, staggered, later):
            assert broken(dram, *plan, partial=False) == []
            missing = found(dram, *(r for r in plan if r[2] != ranks[1]), partial=False)
            assert [v.rule for v in missing] == ["refresh"]
            assert "of rank 1 is due since " in missing[0].message
    # Its phase shows when a rank is still at work, and stays.
    dram = refreshed(DDR4_RANKS, 0, nREFI=1000)
    work = [(498, "ACT", ranks[0], 1), (499, "PREpb", ranks[0]), (499 + 1, "REFab", ranks[0])]
    assert broken(dram, *work, (1500, "REFab", ranks[0])) == []
    assert broken(dram, *work, (1498, "REFab", ranks[0])) == ["refresh"]
    assert broken(dram, *work, (1501, "ACT", ranks[0], 1)) == ["refresh"]
    assert broken(dram, *work, (1501, "ACT", ranks[1], 1)) == []


def rounds(dram: Dram, interval: int, number: int, per_set: bool) -> list[tuple[object, ...]]:
    """So many refreshes of every bank, in flat order, or of the same bank of all pseudo-channels."""
    paths = [tuple(map(int, np.unravel_index(i, dram.counts))) for i in range(dram.banks)]
    each = [(i * interval, path) for i, path in enumerate(paths, 1)]
    if per_set:
        half = dram.banks // 2
        each = [(i % half * interval + interval + 2 * (i // half), path) for i, path in enumerate(paths)]
    span = interval * dram.banks // (2 if per_set else 1)
    return sorted((k * span + at + 1, "REFpb", path) for k in range(number) for at, path in each)


@pytest.mark.parametrize(("case", "per_set"), [(HBM2, False), (HBM3_SETS, True)])
def test_every_bank_is_refreshed_once_in_a_round(case: str, per_set: bool) -> None:
    dram = refreshed(case, 2, nREFIpb=20)
    plan = rounds(dram, 20, 6, per_set)
    assert broken(dram, *plan, partial=False) == []
    lost = (0, 1, *(0 if n == 1 else 1 for n in dram.counts[2:5]), 3)
    missing = found(dram, *(r for r in plan if r[2] != lost))
    sid = ", stack_id 1" if per_set else ""
    assert [v.rule for v in missing] == ["refresh"]
    assert f"of pseudochannel 1{sid}, bank 7 is due since " in missing[0].message
    for interval in (10, 60):
        wrong = found(dram, *rounds(dram, interval, 8, per_set))
        assert {v.rule for v in wrong} == {"refresh"}
        assert len(wrong) >= dram.banks
    # One of all banks stands for one of each.
    span = 20 * dram.banks // (2 if per_set else 1)
    both = [(k * span + 5 + 2 * pc, "REFab", (0, pc)) for k in range(8) for pc in (0, 1)]
    assert broken(dram, *both, partial=False) == []


@pytest.mark.parametrize("case", CASES)
def test_a_memory_that_is_never_refreshed(case: str) -> None:
    """Rows opened and closed now and then for so long that the refreshes cannot all be late."""
    dram = memory(case)
    level = dram.refresh_level or ""
    nodes = [tuple(map(int, np.unravel_index(i, dram.counts))) for i in range(dram.banks)]
    nodes = nodes[:: dram.banks // dram.nodes(level)]
    at_once = dram.pseudochannels if dram.refresh.policy == "per_bank_set" else 1
    interval = dram.timing["nREFI"] if level != "bank" else dram.timing["nREFIpb"] * dram.banks // at_once
    refresh, close = dram.find("refresh", level), dram.find("precharge", "bank")
    plan: list[tuple[object, ...]] = [(1, close, A)]
    clocks = interval // 2 // len(nodes) // 2 * 2
    for k in range(1, 13):
        begin = k * interval // 2 * 2 + 1
        plan += [(begin + i * clocks, refresh, path) for i, path in enumerate(nodes)]
        opened = [(0, "ACT1", A, k), (1, "ACT2", A, k)] if "ACT1" in dram.commands else [(0, "ACT", A, k)]
        late = begin + interval * 3 // 4 // 2 * 2
        plan += [(late + t, *rest) for t, *rest in [*opened, (400, close, A)]]
    assert broken(dram, *plan) == []
    work = [r for r in plan if r[1] != refresh]
    missing = found(dram, *work)
    assert {v.rule for v in missing} == {"refresh"}
    assert len(missing) == len(nodes) == prod(dram.counts[: LEVELS.index(level) + 1])
