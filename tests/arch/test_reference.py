"""Configurations of the reference form: the same memory in our own form, and what is wrong with them."""

from pathlib import Path

import pytest

from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.memory import load_memory
from pimloom.arch.reference import TREE_LEVELS
from pimloom.arch.tree import InputError
from tests.dram_cases import CASES, NAMES, case


def complaint(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load_memory(str(path))
    return str(error.value)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_same_memory_in_our_own_form(case: Path, tmp_path: Path) -> None:
    memory, document = load_memory(str(case / "config.yaml"))
    path = tmp_path / "own.yaml"
    path.write_text(document.text())
    assert load_memory(str(path))[0] == memory


def test_every_level_has_a_name_in_the_reference_form() -> None:
    assert tuple(TREE_LEVELS.values()) == LEVELS


def test_rules_of_a_table_and_of_formulas() -> None:
    table, _ = load_memory(str(case("ramulator2/ddr4_3200") / "config.yaml"))
    rule = table.dram.constraints["row_07"]
    assert (rule.level, rule.before, rule.minimum, rule.siblings) == ("rank", ["RD", "RDA"], "6", True)
    formulas, _ = load_memory(str(case("dramsim3/gddr6") / "config.yaml"))
    assert formulas.dram.constraints["activates_32"].window == 32
    assert formulas.dram.constraints["row_to_read"].minimum == "nRCDRD"
    assert formulas.dram.constraints["close_to_close"].minimum == "nPPD"
    assert (formulas.dram.timing["nRL"], formulas.dram.devices) == (24, 8)
    hbm3, _ = load_memory(str(case("hbm3_6400/stream") / "config.yaml"))
    assert (hbm3.dram.command_bus, hbm3.dram.refresh.policy) == ("half_clock", "per_bank_set")
    assert "RFMab" not in hbm3.dram.commands


@pytest.mark.parametrize(
    ("part", "old", "new"),
    [
        ("dramsim3/ddr4_3200", "IDD5PB: 5", "IDD5PB: 0"),
        ("dramsim3/ddr4_3200", "nFAW: 34", "nFAW: 34\n  nPPD: 2\n  n32AW: 400"),
        ("ramulator2/ddr4_3200", "  ACT:\n", "  MRS:\n    occupies_cycles: 1\n    bus: shared\n  ACT:\n"),
        ("ramulator2/hbm3_6400/random", "nRC: 144", "nRC: 140"),
    ],
)
def test_what_does_not_change_the_commands(tmp_path: Path, part: str, old: str, new: str) -> None:
    text = (case(part) / "config.yaml").read_text()
    assert old in text
    path = tmp_path / "config.yaml"
    path.write_text(text.replace(old, new))
    changed, known = load_memory(str(path))[0].dram, load_memory(str(case(part) / "config.yaml"))[0].dram
    assert (changed.constraints, changed.commands) == (known.constraints, known.commands)


@pytest.mark.parametrize(
    ("part", "old", "new", "message"),
    [
        ("ramulator2/ddr4_3200", "simulator: ramulator2", "simulator: ramulator", "simulator: should be 'ramulator2'"),
        ("ramulator2/ddr4_3200", "ranks: 2", "ranks: two", "organisation.ranks: should be a valid integer, not 'two'"),
        ("ramulator2/ddr4_3200", "  bankgroups: 4\n", "", "organisation.bankgroups: missing"),
        ("ramulator2/ddr4_3200", "scheduler: FRFCFS", "scheduler: FCFS", "should be 'FRFCFS' or 'FRFCFS_ROWHIT'"),
        ("ramulator2/ddr4_3200", "[Rank, [ACT], [ACT], 4,", "[Bink, [ACT], [ACT], 4,", "row_11.level: should be"),
        ("ramulator2/ddr4_3200", "[Rank, [ACT], [ACT], 4,", "[Rank, [ACT], [ACTT], 4,", "unknown command 'ACTT'"),
        ("ramulator2/ddr4_3200", "[Rank, [ACT], [ACT], 4,", "[Rank, [ACT], 4,", "dram.constraints.row_11"),
        ("ramulator2/ddr4_3200", "  ACT:\n", "  FOO:\n", "dram.commands.FOO.meaning: should be"),
        ("ramulator2/ddr4_3200", "[row, 16]", "[row, 15]", "'row' has 65536 values, but its parts make 32768"),
        ("ramulator2/ddr4_3200", "[row, 16]", "[row, -1]", "lsb_first.4.count: should be greater than or equal"),
        ("ramulator2/ddr4_3200", "[byte_offset, 6]", "[byte_offset, 5]", "lsb_first.0.coordinate: should be"),
        ("ramulator2/lpddr5_6400/random", "need_sync", "always_on", "wck_sync_mode: should be 'need_sync'"),
        ("dramsim3/ddr4_3200", "self_refresh: false", "self_refresh: true", "self_refresh: should be False"),
        ("dramsim3/ddr4_3200", "rank staggered", "rank simultaneous", "refresh.policy: should be 'rank staggered'"),
        ("ramulator2/ddr4_3200", "nREFI: 12480", "nREFI: 0", "the refresh policy 'all_bank' needs nREFI, not 0"),
        ("dramsim3/ddr4_3200", "PER_BANK", "PER_CORE", "queue_structure: should be 'PER_BANK' or 'PER_RANK'"),
        ("dramsim3/ddr4_3200", "  nCCD_L: 8\n", "", "unknown name 'nCCD_L' in 'max(nBL, nCCD_L)'"),
        ("dramsim3/ddr4_3200", "tCK_ps: 630", "tCK_ps: 0", "clock.tCK_ps: should be greater than or equal to 1"),
        ("dramsim3/ddr4_3200", "VDD: 1.2", "VDD: -1.2", "dram.currents.VDD_V: should be greater than 0, not -1.2"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, part: str, old: str, new: str, message: str) -> None:
    text = (case(part) / "config.yaml").read_text()
    assert old in text
    path = tmp_path / "config.yaml"
    path.write_text(text.replace(old, new))
    found = complaint(path)
    assert message in found
    # Every line has a position in that file.
    assert all(line.startswith(f"{path}:") for line in found.splitlines())
