"""The compiled rules: levels, nodes, kin, and what is left out."""

import numpy as np

from pimloom.arch.dram import Dram, Rule, load_dram
from pimloom.arch.rules import Rules, compile_rules


def rules_of(name: str, *overrides: str) -> tuple[Dram, Rules]:
    dram, _ = load_dram(name, overrides)
    return dram, compile_rules(dram)


def test_levels_that_do_not_branch_are_one() -> None:
    assert rules_of("ddr4_2400")[1].path.shape == (16, 3)  # channel, bank group, bank
    assert rules_of("ddr4_3200")[1].path.shape == (32, 4)  # and rank
    assert rules_of("hbm3_6400")[1].path.shape == (64, 5)  # pseudo-channel, stack ID
    assert rules_of("lpddr4_2400")[1].path.shape[1] in (2, 3)


def test_nodes_of_two_ranks() -> None:
    dram, rules = rules_of("ddr4_3200")
    assert rules.first.tolist() == [0, 1, 3, 11]
    bank = 16 + 2 * 4 + 3
    assert rules.path[bank].tolist() == [0, 2, 3 + 6, 11 + bank]
    assert rules.under[2].tolist() == [16, 32]
    assert rules.kin[1].tolist() == rules.kin[2].tolist() == [1, 3]
    assert rules.kin[3 + 6].tolist() == [3 + 4, 3 + 8]
    names = dram.command_names
    assert rules.place[names.index("REFab")] == 1
    assert rules.place[names.index("RD")] == 3


def table(dram: Dram, rules: Rules, command: str) -> set[tuple[int, str, int, int]]:
    c = dram.command_names.index(command)
    rows = rules.rows[rules.row_start[c] : rules.row_start[c + 1]].tolist()
    return {(level, dram.command_names[after], n, kin) for level, after, n, kin in rows}


def test_rules_between_siblings_need_some() -> None:
    dram, rules = rules_of("ddr4_3200")
    assert any(kin for *_, kin in table(dram, rules, "RD"))
    dram, rules = rules_of("ddr4_2400")
    assert not any(kin for *_, kin in table(dram, rules, "RD"))


def test_rules_with_the_same_nodes_are_one_and_the_strictest() -> None:
    dram, rules = rules_of("ddr4_2400")
    # With one rank, what binds the rank binds the channel.
    spacing = [n for level, after, n, _ in table(dram, rules, "RD") if (level, after) == (0, "RD")]
    assert spacing == [dram.timing["nCCD_S"]]


def test_only_rules_of_commands_that_are_issued() -> None:
    dram, rules = rules_of("ddr4_2400")
    some = compile_rules(dram, {"ACT", "RD"})
    after = {dram.command_names[c] for c in some.rows[:, 1]}
    assert after == {"ACT", "RD"}
    assert len(some.rows) < len(rules.rows)
    assert len(compile_rules(dram, ()).rows) == 0


def test_rules_that_cannot_bind_are_left_out() -> None:
    dram, rules = rules_of("ddr4_2400", "constraints.row_cycle.3=nRC - 1000")
    assert not any(after == "ACT" and level == 2 for level, after, *_ in table(dram, rules, "ACT"))
    assert (rules.rows[:, 2] > 0).all()


def test_arrays_cannot_be_changed() -> None:
    _, rules = rules_of("ddr4_2400")
    assert all(not array.flags.writeable for array in rules)
    ready, past = rules.state
    assert ready.shape == (1 + 4 + 16, len(rules.place))
    assert past.shape[0] == len(rules.windows)
    assert not np.any(ready)


def test_of_two_windows_the_longer_one_counts() -> None:
    for name, minimum in (("one", "9"), ("zero", "900")):
        dram, _ = load_dram("ddr4_2400")
        more = Rule(level="channel", before=["ACT"], after=["ACT"], minimum=minimum, window=4)
        both = dram.model_copy(update={"constraints": {**dram.constraints, name: more}})
        widest = max(int(minimum), dram.timing["nFAW"])
        assert widest in compile_rules(both).windows[:, 2]
        first = dram.model_copy(update={"constraints": {name: more, **dram.constraints}})
        assert widest in compile_rules(first).windows[:, 2]
