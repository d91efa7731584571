"""The drawn timing diagrams: their commands are legal and as early as can be."""

from itertools import product
from pathlib import Path

import pytest

from pimloom.arch.document import shipped
from pimloom.arch.dram import Dram, load_dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate
from pimloom.reports.timing_diagram import Issue, save_diagram, schedule, story


@pytest.fixture(scope="module", params=shipped("dram"))
def dram(request: pytest.FixtureRequest) -> Dram:
    return load_dram(request.param)[0]


def nodes(dram: Dram, command: str, bank: int, level: str) -> set[int]:
    """Nodes of a level on the way to a command's target, and all below that."""
    target = dram.nodes(dram.commands[command].target)
    share = dram.banks // target
    under = range(bank // share * share, (bank // share + 1) * share)
    return {b // (dram.banks // dram.nodes(level)) for b in under}


def violations(dram: Dram, issues: list[Issue]) -> list[str]:
    """Rules that are broken, by looking at every pair of commands and every node on its own."""
    symbols, found = dram.symbols({}), []
    for (name, rule), (i, issue) in product(dram.constraints.items(), enumerate(issues)):
        if issue.command not in rule.after:
            continue
        mine = nodes(dram, issue.command, issue.bank, rule.level)
        brothers = dram.counts[LEVELS.index(rule.level)]
        if rule.siblings:
            mine = {
                n for m in mine for n in range(m // brothers * brothers, (m // brothers + 1) * brothers)
            } - mine
        for node, before in product(mine, rule.before):
            past = [
                x.clock
                for x in issues[:i]
                if x.command == before and node in nodes(dram, before, x.bank, rule.level)
            ]
            if len(past) >= rule.window and issue.clock < past[-rule.window] + evaluate(
                rule.minimum, symbols
            ):
                found.append(f"{name} at {issue}")
    return found


def test_no_rule_is_broken(dram: Dram) -> None:
    assert violations(dram, schedule(dram, story(dram))) == []


def test_every_command_is_as_early_as_it_says(dram: Dram) -> None:
    issues = schedule(dram, story(dram))
    for i, issue in enumerate(issues):
        if issue.rule:
            # A rising edge may be one half clock later.
            late = issue.clock - issues[issue.cause].clock - issue.minimum
            assert 0 <= late <= (dram.command_bus == "half_clock")
            earlier = [*issues[:i], issue._replace(clock=issue.clock - 1 - late)]
            assert any(line.startswith(f"{issue.rule} at") for line in violations(dram, earlier))


def test_one_command_a_clock(dram: Dram) -> None:
    issues = schedule(dram, story(dram))
    assert all(a.clock < b.clock for a, b in zip(issues, issues[1:], strict=False))
    if dram.command_bus == "half_clock":
        assert all(issue.clock % 2 for issue in issues if not issue.command.startswith("PRE"))


def test_row_and_column_commands_share_a_clock_where_each_has_a_bus() -> None:
    hbm2 = load_dram("hbm2_2000")[0]
    # Pseudo-channel 1 begins at bank 16: nothing but the bus ties its activate to the read.
    issues = schedule(hbm2, [("ACT", 0), ("RD", 0), ("ACT", 16)])
    assert [issue.clock for issue in issues] == [0, 15, 15]


@pytest.mark.parametrize(
    ("name", "command", "clocks"),
    [
        # README of the reference data: nRCD, nCCD_L, RL + nBL + 2 - WL, WL + nBL + nWR, nRP.
        ("ddr4_2400", "RD", [16, 20, 26]),
        ("ddr4_2400", "WR", [36]),
        ("ddr4_2400", "PREpb", [36 + 34]),
        ("ddr4_2400", "ACT", [0, 4, 36 + 34 + 16]),
        ("lpddr5_6400", "ACT2", [1, 5, 91]),
        # The data clock is started once; it runs on until the write.
        ("lpddr5_6400", "CAS_RD", [15]),
        ("lpddr5_6400", "CAS_WR", []),
    ],
)
def test_clocks_by_hand(name: str, command: str, clocks: list[int]) -> None:
    dram = load_dram(name)[0]
    assert [issue.clock for issue in schedule(dram, story(dram)) if issue.command == command] == clocks


def test_data_clock_that_has_stopped_is_started_again() -> None:
    dram = load_dram("lpddr5_6400")[0]
    row = [("ACT1", 0), ("ACT2", 0)]
    issues = schedule(dram, [*row, ("RD", 0), ("PREpb", 0), *row, ("WR", 0)])
    assert [issue.command for issue in issues].count("CAS_WR") == 1


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_same_bytes_for_the_same_memory(tmp_path: Path, suffix: str) -> None:
    dram = load_dram("hbm3_6400")[0]
    for name in ("a", "b"):
        save_diagram(dram, tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_the_picture_names_the_rules(tmp_path: Path) -> None:
    save_diagram(load_dram("ddr4_3200")[0], tmp_path / "ddr4.svg")
    text = (tmp_path / "ddr4.svg").read_text(encoding="utf-8")
    for said in (
        "read_to_write_ranks: nCL + nBL + nCS - nCWL = 12",
        "row_close: nRP = 22",
        "rank 1",
        "data pins",
    ):
        assert f">{said}<" in text or said in text.replace("</tspan>", "")
