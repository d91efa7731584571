"""Programs with loops: unrolling, counting, writing out, and what the builder refuses."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimloom.traces.program import END, LOOP, MAX_DEPTH, Builder, Program, Run
from tests.sim.programs import Scenario, scenarios

COMMANDS = ("A", "B", "C")


def issued(program: Program) -> list[tuple[int, int, int, int, int]]:
    """Command, bank, row, column, buffer of every single issue."""
    return [
        (r.command, r.bank + k * r.d_bank, r.row, r.column + k * r.d_column, r.buffer + k * r.d_buffer)
        for r in program.runs()
        for k in range(r.times)
    ]


def test_an_empty_program() -> None:
    program = Builder(COMMANDS).build()
    assert list(program.runs()) == []
    assert program.counts().tolist() == [0, 0, 0]
    assert len(program.expanded().code) == 0


def test_a_run() -> None:
    b = Builder(COMMANDS)
    b.add("B", 3, bank=1, row=2, column=3, buffer=4, d_bank=5, d_column=6, d_buffer=7)
    program = b.build()
    assert list(program.runs()) == [Run(1, 3, 1, 2, 3, 4, 5, 6, 7)]
    assert issued(program) == [(1, 1, 2, 3, 4), (1, 6, 2, 9, 11), (1, 11, 2, 15, 18)]


def test_nested_loops_add_their_strides() -> None:
    """The closed form: row + i x rows of the outer + j x rows of the inner loop, and so for all addresses."""
    b = Builder(COMMANDS)
    with b.loop(3, rows=10, columns=1, buffers=2):
        b.add("A", row=5)
        with b.loop(2, rows=100, columns=20, buffers=30):
            b.add("B", row=1, column=0, buffer=7)
        b.add("C")
    b.add("A", row=0)
    expected = []
    for i in range(3):
        expected.append((0, -1, 5 + 10 * i, -1, -1))
        expected += [(1, -1, 1 + 10 * i + 100 * j, i + 20 * j, 7 + 2 * i + 30 * j) for j in range(2)]
        expected.append((2, -1, -1, -1, -1))
    assert issued(b.build()) == [*expected, (0, -1, 0, -1, -1)]


def test_loops_to_the_deepest() -> None:
    b = Builder(COMMANDS)
    with b.loop(2, rows=1000), b.loop(3, rows=100), b.loop(4, rows=10), b.loop(5, rows=1):
        b.add("A", row=0)
    rows = [1000 * i + 100 * j + 10 * k + m for i, j, k, m in product(range(2), range(3), range(4), range(5))]
    assert [row for _, _, row, _, _ in issued(b.build())] == rows
    assert b.build().counts().tolist() == [120, 0, 0]


def test_the_arrays() -> None:
    b = Builder(COMMANDS)
    with b.loop(2, rows=3):
        b.add("C", bank=1)
    program = b.build()
    assert program.code.tolist() == [LOOP, 2, END]
    assert (program.times.tolist(), program.row.tolist()) == ([2, 1, 0], [3, -1, 0])
    for name in ("code", "times", "bank", "row", "column", "buffer", "d_bank", "d_column", "d_buffer"):
        array = getattr(program, name)
        assert array.dtype == np.int32 and array.flags.c_contiguous


def test_what_the_builder_refuses() -> None:
    b = Builder(COMMANDS)
    with pytest.raises(KeyError, match="D"):
        b.add("D")
    with pytest.raises(ValueError, match="A: count 0 < 1"):
        b.add("A", 0)
    with pytest.raises(ValueError, match="loop of 0 iterations"), b.loop(0):
        pass
    with pytest.raises(ValueError, match="without commands"), b.loop(2):
        pass


def test_one_loop_more_than_the_deepest_is_refused() -> None:
    b = Builder(COMMANDS)
    loops = [b.loop(1) for _ in range(MAX_DEPTH + 1)]
    for loop in loops[:-1]:
        loop.__enter__()
    with pytest.raises(ValueError, match=f"at depth {MAX_DEPTH}"):
        loops[-1].__enter__()


@given(scenarios(budget=400))
def test_counting_unrolling_and_writing_out_agree(scenario: Scenario) -> None:
    for program in (s.program for s in scenario.steps if s.program is not None):
        commands = issued(program)
        counted = Counter(command for command, *_ in commands)
        assert program.counts().tolist() == [counted[i] for i in range(len(program.commands))]
        flat = program.expanded()
        assert flat.code.min(initial=0) >= 0 and flat.times.max(initial=1) == 1
        assert issued(flat) == commands
        assert flat.counts().tolist() == program.counts().tolist()
        assert flat.expanded().code.tolist() == flat.code.tolist()


@given(st.integers(1, 5), st.integers(0, 3), st.integers(0, 3))
def test_no_address_stays_no_address(times: int, columns: int, buffers: int) -> None:
    """Strides do not turn -1 (none) into an address."""
    b = Builder(COMMANDS)
    with b.loop(times, rows=1, columns=columns, buffers=buffers):
        b.add("A", 2)
    assert set(issued(b.build())) == {(0, -1, -1, -1, -1)}
    assert set(issued(b.build().expanded())) == {(0, -1, -1, -1, -1)}
