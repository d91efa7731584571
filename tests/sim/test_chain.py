"""The chain kernel against SimPy processes, on random tasks: any programs, registers, links, clocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pimloom.arch.machine import Arch
from pimloom.sim.chain import alike, copy_channel, new_board, run_chain
from pimloom.sim.channel import ALL_ROW, CHANGED, DUE, LAST, OPEN_BANKS, SPLIT, new_state
from pimloom.traces.program import Builder, Program
from pimloom.traces.task import AsicTask, Block, Pass, PimTask, Ref, Task
from tests.sim import harness, runs
from tests.sim.programs import Author, Draw, Drawn, shrink, written
from tests.small import machine_keys

REGISTERS = ["a", "b", "c", "d"]


@st.composite
def cases(draw: Draw) -> tuple[Arch, list[Pass]]:
    """A small machine and some passes of random tasks; every program leaves the banks closed."""
    channels = draw(st.integers(1, 4))
    keys = [*machine_keys(channels, draw(st.integers(1, 2)), draw(st.integers(1, 2)), 4)]
    keys += [f"mapping.barrier={draw(st.sampled_from(['instruction', 'data']))}"]
    keys += [f"asic.clock_Hz={draw(st.sampled_from([177827941, 10**9, 3 * 10**9, 999999937]))}"]
    keys += [f"dram.clock_Hz={draw(st.sampled_from([10**9, 1750000000]))}"]
    keys += [f"link.latency_ns={draw(st.sampled_from([0, 0.001, 1.5, 2, 77.7, 700]))}"]
    keys += [f"dram.timing.nREFI={draw(st.sampled_from([850, 900, 1300, 6825]))}"]
    arch = runs.machine(*keys, *(["dram.refresh.policy=none"] if draw(st.integers(0, 4)) == 0 else []))
    m = harness.Memory(arch.dram, arch.nMAC)
    pool: list[Program | None] = [None]
    for _ in range(draw(st.integers(1, 3))):
        author = Author(Drawn(draw), m, [1, 2, 3, 40])
        items, opened = author.items(frozenset(), 2, least=1)
        shrink(items, 60)
        pool.append(written(m, items + author.back(opened, frozenset())))
    return arch, [
        Pass(k, tuple(block(draw, pool, channels, m.dram.banks) for _ in range(draw(st.integers(1, 2)))))
        for k in range(draw(st.integers(1, 3)))
    ]


def block(draw: Draw, pool: list[Program | None], channels: int, banks: int) -> Block:
    tasks = tuple(task(draw, pool, channels, banks) for _ in range(draw(st.integers(1, 6))))
    return Block("", tasks, draw(st.integers(1, 3)), draw(st.integers(0, 9)))


def task(draw: Draw, pool: list[Program | None], channels: int, banks: int) -> Task:
    one, some = st.sampled_from(["", *REGISTERS]), st.lists(st.sampled_from(REGISTERS), max_size=2)
    if draw(st.booleans()):
        inputs = tuple(Ref(name, 0, 1) for name in draw(some))
        return AsicTask(
            "t", "g", "add", draw(st.integers(1, 5000)), 1, inputs, draw(st.sampled_from(REGISTERS))
        )
    programs = [draw(st.sampled_from(pool)) for _ in range(channels)]
    if not any(programs):
        programs[draw(st.integers(0, channels - 1))] = pool[1]
    return PimTask(
        "t", "g", tuple(programs), draw(st.integers(0, 20)), draw(st.integers(0, banks - 1)),
        source=draw(one), sink=draw(one), order=tuple(draw(some)), stores=tuple(draw(some))[:1],
    )  # fmt: skip


EXAMPLES = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@settings(EXAMPLES, max_examples=120)
@given(cases())
def test_three_engines_on_random_tasks(case: tuple[Arch, list[Pass]]) -> None:
    arch, items = case
    fast, events, naive = (runs.execute(arch, items, engine) for engine in runs.ENGINES)
    assert fast.result == events.result
    assert fast.result == naive.result


@pytest.mark.slow
@settings(EXAMPLES, max_examples=250)
@given(cases())
def test_three_engines_on_many_random_tasks(case: tuple[Arch, list[Pass]]) -> None:
    arch, items = case
    fast, events, naive = (runs.execute(arch, items, engine) for engine in runs.ENGINES)
    assert fast.result == events.result
    assert fast.result == naive.result


@settings(EXAMPLES, max_examples=30)
@given(cases(), st.randoms(use_true_random=False))
def test_channels_are_interchangeable(case: tuple[Arch, list[Pass]], random: Any) -> None:
    """Programs handed to other channels: the channels' books change places, no time changes."""
    arch, items = case
    order = list(range(arch.dram.channels))
    random.shuffle(order)

    def moved(t: Task) -> Task:
        if isinstance(t, AsicTask):
            return t
        programs = tuple(t.programs[c] for c in order)
        return PimTask(
            t.name,
            t.group,
            programs,
            t.base_row,
            t.base_bank,
            t.source,
            t.sink,
            order=t.order,
            stores=t.stores,
        )

    others = [
        Pass(
            p.position, tuple(Block("", tuple(map(moved, b.tasks)), b.repeat, b.row_stride) for b in p.blocks)
        )
        for p in items
    ]
    here, there = runs.execute(arch, items).result, runs.execute(arch, others).result
    assert there.totals == [here.totals[c] for c in order]
    assert there._replace(totals=[]) == here._replace(totals=[])


# --- classes of channels --------------------------------------------------------------------------


def macs(arch: Arch, n: int) -> Program:
    b = Builder(arch.dram.command_names)
    b.add("ACT_AB", row=0)
    b.add("MAC_AB", n, row=0, column=0, d_column=1)
    b.add("PREA")
    return b.build()


def test_equal_channels_are_computed_once() -> None:
    arch = runs.machine()
    program = macs(arch, 5)
    items = [Pass(0, (Block("", (PimTask("t", "g", (program,) * 8, 0),), 50),))]
    fast, events = (runs.execute(arch, items, engine) for engine in ("fast", "events"))
    assert fast.result == events.result
    assert fast.stepped * 8 == events.stepped


def test_channels_that_differed_join_again() -> None:
    """One channel does more for a while; once that cannot be felt any more the eight are one class."""
    arch = runs.machine("dram.refresh.policy=none")
    more, same = macs(arch, 9), macs(arch, 5)
    wait = AsicTask("w", "g", "add", 256 * 200, 1, (Ref("a", 0, 1),), "a")
    first = PimTask("t", "g", (more, *(same,) * 7), 0, sink="a")
    then = PimTask("t", "g", (same,) * 8, 0, source="a", sink="a")
    long = [Pass(0, (Block("", (first, wait)), Block("", (then, wait), 100)))]
    fast, events = (runs.execute(arch, long, engine) for engine in ("fast", "events"))
    assert fast.result == events.result
    assert fast.stepped < events.stepped / 6


def test_idle_channels_stay_out_of_the_way() -> None:
    """A channel that did nothing for a while takes part in the next task at once."""
    for barrier in ("instruction", "data"):
        arch = runs.machine("dram.channels=3", f"mapping.barrier={barrier}")
        long, short = macs(arch, 60), macs(arch, 1)
        tasks = [
            PimTask("t", "g", (long, None, short), 0, sink="a"),
            PimTask("t", "g", (None, short, None), 0, sink="b"),
            PimTask("t", "g", (short,) * 3, 0, sink="c"),
            PimTask("t", "g", (None, None, long), 0, sink="d"),
        ]
        items = [Pass(0, (Block("", tuple(tasks), 40),))]
        fast, events, naive = (runs.execute(arch, items, engine) for engine in runs.ENGINES)
        assert fast.result == events.result == naive.result


def test_alike_looks_at_everything_that_can_still_be_felt() -> None:
    arch = runs.machine("dram.channels=2")
    tables = arch.tables()
    state = new_state(tables, 2)
    clock = 1000
    assert alike(tables, state, 0, 1, clock)
    for c in range(len(tables.target)):
        for node in (0, state.stamp.shape[1] - 1):
            reach = int(tables.reach[c])
            state.stamp[1, node, c] = clock - reach
            assert alike(tables, state, 0, 1, clock)
            state.stamp[1, node, c] = clock - reach + 1
            assert not alike(tables, state, 0, 1, clock) or reach == 0
            copy_channel(state, 0, 1)
    state.scalar[1, LAST] = clock - 1
    assert alike(tables, state, 0, 1, clock)
    state.scalar[1, LAST] = clock
    assert not alike(tables, state, 0, 1, clock)
    state.scalar[:, LAST], state.scalar[:, ALL_ROW], state.scalar[:, OPEN_BANKS] = 0, 3, arch.dram.banks
    for place in (ALL_ROW, DUE, CHANGED):
        state.scalar[1, place] += 1
        assert not alike(tables, state, 0, 1, clock)
        copy_channel(state, 0, 1)
    state.scalar[:, ALL_ROW], state.row[1, 5] = SPLIT, 3
    assert not alike(tables, state, 0, 1, clock)
    copy_channel(state, 0, 1)
    assert alike(tables, state, 0, 1, clock)


def test_the_board_is_empty_at_first() -> None:
    board = new_board(3, 2)
    assert [a.tolist() for a in board] == [[0, 0, 0], [0, 0, 0], [0, 0], [0, 0]]
    assert np.array(board.leader).dtype == np.int64


def test_the_chain_as_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run_chain.py_func` with the other kernels compiled."""
    arch = runs.machine("dram.channels=3", "dram.timing.nREFI=1500")
    plan = runs.planner(arch, "gpt2-tiny", ["layers=1"], prompt=1, generate=2)
    compiled = runs.execute(arch, plan.passes())
    monkeypatch.setattr("pimloom.sim.engine.run_chain", run_chain.py_func)  # type: ignore[attr-defined]
    assert runs.execute(arch, plan.passes()) == compiled
