"""What the benchmark measures: the counts, exactly. Its seconds are for reading."""

import pytest

from benchmarks.kernel import cases, counts
from pimloom.arch.machine import load_arch

pytestmark = pytest.mark.bench


def test_counts_of_the_benchmark() -> None:
    arch = load_arch("pim-gpt")[0]
    found = {case.name: (case.commands, *counts(arch, case)) for case in cases(arch)}
    commands = {name: n for name, (n, _, _) in found.items()}
    assert commands == {
        "matrix, loops": 9_088,
        "matrix, written out": 9_088,
        "cache write, written out": 288,
        "rows of 4 MACs, written out": 140_000,
        "single banks, written out": 120_000,
    }
    for commands_, issued, stepped in found.values():
        assert commands_ <= issued < 1.2 * commands_
        assert stepped <= issued
    loops, written = found["matrix, loops"], found["matrix, written out"]
    assert loops[:2] == written[:2]
    assert loops[2] <= written[2]
