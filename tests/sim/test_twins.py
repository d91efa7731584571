"""Random legal programs on random memories: fast-forward = command by command = plain Python.

Figure 7 of the first release. The slow variants draw more and larger scenarios.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pimloom.sim.channel import ALL_ROW, CHANGED, DUE, LAST, OPEN_BANKS, issue
from pimloom.sim.engine import FIELDS, KernelDevice
from pimloom.traces.program import Program
from tests.sim import harness
from tests.sim.harness import (
    Event,
    Memory,
    bounds,
    open_rows,
    room,
    run_kernel,
    run_naive,
    with_interval,
)
from tests.sim.programs import Rolled, Scenario, loops, scenarios, some_loop, some_scenario

QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
FEW = settings(QUICK, max_examples=60)
LONG = settings(QUICK, max_examples=300)


def assert_same_state(m: Memory, jump: KernelDevice, walk: KernelDevice) -> None:
    """Everything that the future depends on is what it would be without skipping."""
    for place in (ALL_ROW, OPEN_BANKS, LAST, DUE, CHANGED):
        assert jump.state.scalar[0, place] == walk.state.scalar[0, place]
    assert open_rows(m, jump) == open_rows(m, walk)


def assert_twins(scenario: Scenario) -> None:
    """Kernel skipping, kernel logging, naive: the same ends, books, commands, and what they would do next."""
    m, steps = scenario
    jump, walk, naive = run_kernel(m, steps), run_kernel(m, steps, room(m, steps)), run_naive(m, steps)
    assert jump.ends == walk.ends == naive.ends
    assert walk.log == naive.log
    assert jump.totals == walk.totals == naive.totals
    assert isinstance(jump.device, KernelDevice) and isinstance(walk.device, KernelDevice)
    assert_same_state(m, jump.device, walk.device)
    assert open_rows(m, walk.device) == open_rows(m, naive.device)
    banks = {0, m.dram.banks - 1}
    after = harness.horizon(m, naive.device, banks)
    assert harness.horizon(m, jump.device, banks) == harness.horizon(m, walk.device, banks) == after


def assert_skips_nothing(scenario: Scenario) -> None:
    """Kernel skipping and kernel logging agree; for programs too long for the naive twin."""
    m, steps = scenario
    jump, walk = run_kernel(m, steps), run_kernel(m, steps, room(m, steps))
    assert jump.ends == walk.ends
    assert jump.totals == walk.totals
    assert isinstance(jump.device, KernelDevice) and isinstance(walk.device, KernelDevice)
    assert_same_state(m, jump.device, walk.device)
    banks = range(m.dram.banks)
    assert harness.horizon(m, jump.device, banks) == harness.horizon(m, walk.device, banks)


def shown(scenario: Scenario) -> Scenario:
    """Print the scenario, which pytest shows if the test fails; hypothesis shows its own."""
    print(scenario)
    return scenario


@pytest.mark.parametrize("seed", range(8))
def test_three_ways_to_issue_by_seed(seed: int) -> None:
    for k in range(30):
        assert_twins(shown(some_scenario(Rolled(100 * seed + k), 1200, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_three_ways_to_issue_by_many_seeds(seed: int) -> None:
    for k in range(400):
        assert_twins(shown(some_scenario(Rolled(10_000 + 400 * seed + k), 4000, 5)))


@QUICK
@given(scenarios())
def test_three_ways_to_issue(scenario: Scenario) -> None:
    assert_twins(scenario)


@pytest.mark.slow
@LONG
@given(scenarios(budget=4000, most=5))
def test_three_ways_to_issue_at_length(scenario: Scenario) -> None:
    assert_twins(scenario)


def test_long_loops_by_seed() -> None:
    for seed in range(60):
        assert_skips_nothing(shown(some_loop(Rolled(seed), 30_000)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_long_loops_by_many_seeds(seed: int) -> None:
    for k in range(40):
        assert_skips_nothing(shown(some_loop(Rolled(10_000 + 100 * seed + k), 300_000)))


@settings(FEW, max_examples=20)
@given(loops(budget=30_000))
def test_long_loops(scenario: Scenario) -> None:
    assert_skips_nothing(scenario)


@pytest.mark.slow
@settings(LONG, max_examples=40)
@given(loops(budget=400_000))
def test_long_loops_at_length(scenario: Scenario) -> None:
    assert_skips_nothing(scenario)


@FEW
@given(scenarios(budget=150))
def test_every_command_keeps_every_rule_and_none_is_late(scenario: Scenario) -> None:
    """Against pairs of commands, not nodes: at its clock each is legal, and one clock earlier it was not."""
    m, steps = scenario
    outcome = run_kernel(m, steps, room(m, steps))
    log, starts = outcome.log, {s.start for s in steps}
    interval = int(m.tables().refresh[0])
    assert log is not None
    assert all(x.clock < y.clock for x, y in pairwise(log))
    for i, event in enumerate(log):
        history = log[:i]
        gates = {clock for clock, _ in bounds(m, history, event.command, event.bank)} | starts
        gates |= {history[-1].clock + 1} if history else set()
        if interval:
            gates |= {k * interval for k in range(event.clock // interval, event.clock // interval + 1)}
        assert max([0, *(clock for clock, _ in bounds(m, history, event.command, event.bank))]) <= event.clock
        assert event.clock in gates, event
    check_refresh(m, log, interval, max([0, *outcome.ends]))


def check_refresh(m: Memory, log: list[Event], interval: int, end: int) -> None:
    """The k-th refresh comes after its deadline; between the two only PREA; all banks are closed at it."""
    deadlines = 0
    opened: set[int] = set()
    for i, event in enumerate(log):
        kind = m.dram.commands[event.command]
        banks = {event.bank} if kind.target == "bank" else set(range(m.dram.banks))
        opened = opened | banks if kind.bank == "open" else opened - banks if kind.bank == "close" else opened
        assert kind.needs != "closed" or kind.bank == "open" or not opened
        if event.command == "REFab":
            deadlines += 1
            assert event.clock >= deadlines * interval
            late = [e.command for e in log[:i] if e.clock >= deadlines * interval]
            assert late in ([], ["PREA"])
    assert not interval or deadlines <= end // interval + 1


@FEW
@given(scenarios(), st.integers(0, 3))
def test_a_program_cut_in_two(scenario: Scenario, cut: int) -> None:
    """Stopping between two instructions and going on at once changes no clock."""
    m, steps = scenario
    parts = []
    for step in steps:
        if step.program is None:
            parts.append(step)
        else:
            parts += [step._replace(program=p) for p in halves(step.program, cut)]
    whole = run_kernel(m, steps, room(m, steps))
    assert run_kernel(m, parts, room(m, steps)).log == whole.log
    assert run_kernel(m, parts).ends[-1] == whole.ends[-1] or len(parts) > len(steps)


def halves(program: Program, cut: int) -> list[Program]:
    """The program cut at its `cut`-th place outside all loops."""
    depth = np.cumsum(np.where(program.code == -1, 1, np.where(program.code == -2, -1, 0)))
    places = [0, *(np.flatnonzero(depth == 0) + 1).tolist()]
    at = places[cut % len(places)]
    return [
        Program(program.commands, *(np.ascontiguousarray(getattr(program, f)[part]) for f in FIELDS))
        for part in (slice(0, at), slice(at, None))
    ]


@FEW
@given(scenarios(), st.integers(1, 10**9))
def test_a_shift_in_time_shifts_everything(scenario: Scenario, by: int) -> None:
    """Without refresh no clock is special."""
    m, steps = with_interval(scenario.memory, 0), scenario.steps
    here = run_kernel(m, steps, room(m, steps))
    later = [s._replace(start=s.start + by) for s in steps]
    there = run_kernel(m, later, room(m, steps))
    assert here.log is not None and there.log is not None
    assert [e._replace(clock=e.clock + by) for e in here.log] == there.log
    assert [end + by for end in here.ends] == there.ends


@FEW
@given(scenarios())
def test_a_program_written_out_is_the_same(scenario: Scenario) -> None:
    m, steps = scenario
    flat = [s if s.program is None else s._replace(program=s.program.expanded()) for s in steps]
    looped, written = run_kernel(m, steps, room(m, steps)), run_kernel(m, flat)
    assert (looped.ends, looped.totals) == (written.ends, written.totals)
    assert looped.log == run_kernel(m, flat, room(m, steps)).log


@FEW
@given(scenarios())
def test_commands_are_conserved(scenario: Scenario) -> None:
    """What was asked for is issued; what comes on top is for refresh."""
    m, steps = scenario
    asked = sum((s.program.counts() for s in steps if s.program is not None), np.zeros(10, np.int64))
    extra = dict(
        zip(m.dram.command_names, run_kernel(m, steps).totals - np.pad(asked, (0, 13)), strict=False)
    )
    assert all(extra[name] == 0 for name in ("PRE", "RD", "WR", "MAC_AB", "WR_GB", "RD_MAC"))
    assert extra["REFab"] >= extra["PREA"] >= extra["ACT_AB"] >= 0


@settings(FEW, max_examples=25)
@given(scenarios(budget=120))
def test_the_kernel_as_plain_python(scenario: Scenario) -> None:
    """`issue.py_func`: the compiled is what is written; overflow and division by zero would show."""
    m, steps = scenario

    class Slow(KernelDevice):
        def issue(
            self, channel: int, program: Program | None, base_bank: int, base_row: int, start: int
        ) -> int:
            number = self.library.number(program)
            return int(
                issue.py_func(  # type: ignore[attr-defined]
                    self.tables, self.library.code(), number, base_bank, base_row, start, self.state, channel,
                    self.scratch, self.acc[channel], self.log[channel],
                )
            )  # fmt: skip

    for log_room in (0, room(m, steps)):
        assert run_kernel(m, steps, log_room)[:4] == run_kernel(m, steps, log_room, Slow)[:4]
