"""The timing core against a twin that remembers every command and looks at every rule: tight to the clock."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimloom.arch.dram import Dram, load_dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate
from pimloom.arch.rules import compile_rules
from pimloom.sim.timing import ready_at, ready_at_node, stamp, stamp_node

DRAMS = {
    name: load_dram(name)[0] for name in ("ddr4_3200", "lpddr5_6400", "hbm2_2000", "hbm3_6400", "gddr6_14000")
}
Path = tuple[int, ...]


def paths(dram: Dram, level: str) -> list[Path]:
    """Every node of a level as its coordinates, the channel's first."""
    return list(product(*map(range, dram.counts[: LEVELS.index(level) + 1])))


def concerns(command: Path, node: Path) -> bool:
    """A command concerns the nodes on its way and all below it."""
    n = min(len(command), len(node))
    return command[:n] == node[:n]


def earliest(dram: Dram, past: list[tuple[int, str, Path]], command: str, target: Path) -> int:
    """The first clock at which a command may issue, straight from the rules as they are worded."""
    clock = 0
    for rule in dram.constraints.values():
        if command not in rule.after:
            continue
        minimum = evaluate(rule.minimum, dram.symbols({}))
        for node in paths(dram, rule.level):
            if not concerns(target, node):
                continue
            for before in rule.before:
                if rule.siblings:
                    seen = [
                        t for t, name, other in past
                        if name == before and len(other) >= len(node)
                        and other[: len(node) - 1] == node[:-1] and other[: len(node)] != node
                    ]  # fmt: skip
                else:
                    seen = [t for t, name, other in past if name == before and concerns(other, node)]
                if minimum > 0 and len(seen) >= rule.window:
                    clock = max(clock, seen[-rule.window] + minimum)
    return clock


@pytest.mark.parametrize("name", DRAMS)
@given(data=st.data())
def test_clocks_equal_those_of_the_rules(name: str, data: st.DataObject) -> None:
    dram = DRAMS[name]
    rules = compile_rules(dram)
    ready, past = rules.state
    commands = st.sampled_from(dram.command_names)
    history: list[tuple[int, str, Path]] = []
    clock = 0
    for _ in range(data.draw(st.integers(0, 12))):
        command = data.draw(commands)
        level = dram.commands[command].target
        nodes = paths(dram, level)
        at = data.draw(st.integers(0, len(nodes) - 1))
        clock += data.draw(st.integers(1, 60))
        history.append((clock, command, nodes[at]))
        c = dram.command_names.index(command)
        if level == "bank":
            stamp(rules, ready, past, c, at, clock)
        else:
            stamp_node(rules, ready, past, c, int(rules.first[rules.place[c]]) + at, clock)
    for command in dram.command_names:
        c, level = dram.command_names.index(command), dram.commands[command].target
        nodes = paths(dram, level)
        at = data.draw(st.integers(0, len(nodes) - 1))
        if level == "bank":
            found = ready_at(rules, ready, c, at)
        else:
            found = ready_at_node(rules, ready, c, int(rules.first[rules.place[c]]) + at)
        assert found == earliest(dram, history, command, nodes[at]), (command, nodes[at], history)


def test_a_window_counts_each_command_by_itself() -> None:
    dram = DRAMS["ddr4_3200"]
    rules = compile_rules(dram)
    ready, past = rules.state
    act = dram.command_names.index("ACT")
    clocks = [0, 8, 16, 24]
    for i, clock in enumerate(clocks):
        stamp(rules, ready, past, act, 4 * i, clock)
    assert ready_at(rules, ready, act, 1) == max(dram.timing["nFAW"], 24 + dram.timing["nRRD_S"])
    assert np.count_nonzero(past) > 0
