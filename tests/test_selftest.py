"""The closed forms hold for every shipped standard, and for none that is bent."""

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimloom import cli
from pimloom import selftest as module
from pimloom.arch.document import shipped
from pimloom.arch.dram import load_dram
from pimloom.arch.memory import load_memory
from pimloom.selftest import Row, address, plain_standards, random, selftest, selftest_memory
from pimloom.sim.controller import decode
from pimloom.traces.requests import Requests

STANDARDS = plain_standards()
GROUPED = [name for name in STANDARDS if load_dram(name)[0].bankgroups > 1]
STACKED = [name for name in STANDARDS if load_dram(name)[0].pseudochannels > 1]
ROWS = selftest()


def failures(standard: str, *overrides: str) -> set[str]:
    rows = selftest_memory(load_memory(standard, overrides)[0])
    return {row.quantity for row in rows if not row.passed}


def bent(standard: str, name: str, **changes: str) -> str:
    """The override that changes parts of a rule."""
    rule = load_dram(standard)[0].constraints[name].model_copy(update=changes)
    return f"dram.constraints.{name}={json.dumps([rule.level, rule.before, rule.after, rule.minimum])}"


def test_every_plain_standard_is_tested() -> None:
    assert [name for name in shipped("dram") if not load_dram(name)[0].is_pim] == STANDARDS
    assert list(dict.fromkeys(row.dram for row in ROWS)) == STANDARDS
    # The other controller knows neither half clocks nor split activates.
    beyond = {"hbm3_5200", "hbm3_6400", "lpddr5_6400"}
    assert {row.dram for row in ROWS if row.controller == "round_robin"} == set(STANDARDS) - beyond
    assert len(ROWS) == 7 * (len(STANDARDS) + len(STANDARDS) - len(beyond))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.dram}, {row.controller}, {row.quantity}")
def test_every_figure_is_as_its_closed_form(row: Row) -> None:
    assert row.passed, row
    if row.unit == "clocks":
        assert row.achieved == row.closed_form


def test_figures_are_the_same_again() -> None:
    assert selftest(["hbm2_2000"]) == [row for row in ROWS if row.dram == "hbm2_2000"]


def test_closed_forms_by_hand() -> None:
    """DDR4-2400R: 16-16-16, bursts of 4 clocks of 1.2 GHz, nRC 55, nFAW 26, nRFC 420 in nREFI 9,360."""
    rows = [row for row in ROWS if (row.dram, row.controller) == ("ddr4_2400", "fr_fcfs")]
    forms = {row.quantity: row.closed_form for row in rows}
    assert forms["unloaded read, closed bank"] == 1 + 16 + 16 + 4
    assert forms["unloaded read, open row"] == 1 + 16 + 4
    assert forms["unloaded read, other row"] == 1 + 16 + 16 + 16 + 4
    GBps = 64 * 1.2
    for quantity, clocks in {
        "sequential reads": 4 / (1 - (9 + 16 + 420 + 16) / 9360),
        "random reads": 26 / 4 / (1 - (39 + 16 + 420) / 9360),
        "conflicting reads": 55 / (1 - 420 / 9360),
        "one bank reads": (127 * 6 + 9 + 16 + 16) / 128 / (1 - 420 / 9360 - 0.95 * 35 / 9360),
    }.items():
        # The number of refreshes is whole.
        assert forms[quantity] == pytest.approx(GBps / clocks, rel=3e-3), quantity


# --- bent standards ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standard", STANDARDS)
def test_refresh_that_never_comes(standard: str) -> None:
    found = failures(standard, "dram.refresh.policy=none")
    assert {"conflicting reads", "one bank reads", "unloaded read, closed bank"} <= found
    assert "sequential reads" in found


@pytest.mark.parametrize("standard", GROUPED)
def test_nCCD_L_across_bank_groups(standard: str) -> None:
    level = load_dram(standard)[0].constraints["read_to_read"].level
    assert "sequential reads" in failures(standard, bent(standard, "read_to_read_group", level=level))


@pytest.mark.parametrize("standard", GROUPED)
def test_nCCD_L_lost(standard: str) -> None:
    assert failures(standard, "dram.constraints.read_to_read_group=null") == {"one bank reads"}


@pytest.mark.parametrize("standard", STANDARDS)
def test_nRP_lost(standard: str) -> None:
    found = failures(standard, "dram.constraints.row_close=null")
    assert found >= {"one bank reads", "unloaded read, other row"}


@pytest.mark.parametrize("standard", STANDARDS)
def test_nRFC_lost(standard: str) -> None:
    rules = load_dram(standard)[0].constraints
    rule = "refresh_to_activate" if "refresh_to_activate" in rules else "refresh_cycle"
    found = failures(standard, f"dram.constraints.{rule}=null")
    assert found >= {"sequential reads", "conflicting reads", "one bank reads"}


@pytest.mark.parametrize("standard", STACKED)
def test_pseudochannels_that_cannot_go_side_by_side(standard: str) -> None:
    assert "sequential reads" in failures(standard, bent(standard, "read_to_read", level="channel"))


@pytest.mark.parametrize("standard", ["ddr4_2400", "ddr4_3200", "hbm3_5200", "hbm3_6400"])
def test_four_activate_window_lost(standard: str) -> None:
    """In the other standards nRRD, or the bus, is as slow."""
    assert failures(standard, "dram.constraints.four_activates=null") == {"random reads"}


def test_one_clock_counts() -> None:
    """A rule that is a clock too long, which the timings do not know of."""
    found = failures("ddr4_2400", bent("ddr4_2400", "open_to_access", minimum="nRCD + 1"))
    assert found == {"unloaded read, closed bank", "unloaded read, other row"}


def test_more_than_the_pins_can_do_is_never_right() -> None:
    row = Row("x", "fr_fcfs", "sequential reads", "GB/s", 19.3, 19.3, 0.01, 0.01, peak=19.2)
    assert not row.passed
    assert replace(row, achieved=19.2).passed
    stream = selftest_memory(load_memory("ddr4_2400", ("dram.constraints.read_to_read=null",))[0])[0]
    assert stream.peak is not None and stream.achieved > stream.peak and not stream.passed


# --- traffic -------------------------------------------------------------------------------------------------------


@given(st.sampled_from(STANDARDS), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(0, 2**40))
def test_address_is_what_the_decoder_takes_apart(standard: str, bank: int, row: int, column: int) -> None:
    memory = load_memory(standard)[0]
    dram = memory.dram
    places = [
        np.array([n % size]) for n, size in ((bank, dram.banks), (row, dram.rows), (column, dram.columns))
    ]
    where = address(memory, *places)
    zero = np.zeros(1, np.int64)
    batch = decode(memory.decoder(), Requests(zero, zero, where))
    assert [batch.bank, batch.row, batch.column] == places


@pytest.mark.parametrize("standard", STANDARDS)
def test_random_addresses_are_everywhere(standard: str) -> None:
    memory = load_memory(standard)[0]
    where = random(memory)
    zero = np.zeros(len(where), np.int64)
    batch = decode(memory.decoder(), Requests(zero, zero, where))
    counts = np.bincount(batch.bank, minlength=memory.dram.banks)
    expected = len(where) / memory.dram.banks
    assert (abs(counts - expected) < 5 * expected**0.5).all()
    assert len(np.unique(where)) > 0.99 * len(where)


# --- the command ---------------------------------------------------------------------------------------------------


def run(*words: str) -> tuple[object, str, str]:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as exit:
        cli.main(["selftest", *words])
    return exit.value.code or 0, out.getvalue(), err.getvalue()


def test_command() -> None:
    code, out, _ = run("ddr4_2400", "lpddr5_6400")
    assert code == 0 and "21 figures as they should be" in out
    assert "FAILED" not in out and "unloaded read, other row" in out


def test_command_prints_json() -> None:
    code, out, _ = run("lpddr5_6400", "--json")
    rows = json.loads(out)
    assert code == 0 and len(rows) == 7
    assert all(row["passed"] and row["dram"] == "lpddr5_6400" for row in rows)
    assert rows[0].keys() == {
        "dram", "controller", "quantity", "unit", "achieved", "closed_form", "tolerance_below",
        "tolerance_above", "peak", "deviation", "passed",
    }  # fmt: skip


def test_command_tells_of_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = replace(ROWS[0], achieved=2 * ROWS[0].achieved)
    monkeypatch.setattr(module, "selftest", lambda standards: [wrong, ROWS[1]])
    code, out, err = run()
    assert code == 1 and "FAILED" in out and "as they should be" not in out
    assert err.endswith("1 of 2 figures are off: ddr4_2400\n")
    code, out, err = run("--json")
    assert code == 1 and [row["passed"] for row in json.loads(out)] == [False, True]


def test_unknown_standard() -> None:
    code, out, err = run("ddr4_320")
    assert code == 2 and not out
    assert "no DRAM standard 'ddr4_320' is shipped (did you mean 'ddr4_3200'?); there are: " in err
    assert run("gddr6_aim")[0] == 2
