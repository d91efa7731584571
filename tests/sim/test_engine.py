"""Whole models on whole machines: three engines, one result; the same result every time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pimloom.sim.engine import NaiveDevice, run, run_logged
from pimloom.traces.task import AsicTask, Pass
from tests.sim.runs import ENGINES, Full, Result, execute, machine, planner

PLAIN: list[str] = []
ODD = ["asic.clock_Hz=177827941", "link.latency_ns=1.5"]
STILL = ["dram.refresh.policy=none", "link.latency_ns=0"]
BUSY = ["dram.timing.nREFI=900", "link.latency_ns=300"]
SLOW_DRAM = ["dram.clock_Hz=1750000000", "dram.timing.nREFI=2000", "pim.clock_Hz=500000000"]


@pytest.mark.parametrize("barrier", ["instruction", "data"])
@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize(
    "keys", [PLAIN, ODD, STILL, BUSY, SLOW_DRAM], ids=["plain", "odd", "still", "busy", "slow"]
)
def test_three_engines(barrier: str, channels: int, keys: list[str]) -> None:
    """Two layers of odd sizes, two sequences, three prompt tokens and three new ones."""
    arch = machine(f"dram.channels={channels}", f"mapping.barrier={barrier}", *keys)
    sizes = ["layers=2", "d_model=48", "heads=3", "d_head=16", "d_ff=72", "vocab=90", "positions=40"]
    plan = planner(arch, "gpt2-tiny", sizes, prompt=3, generate=3, batch=2)
    fast, events, naive = (execute(arch, plan.passes(), engine) for engine in ENGINES)
    assert fast.result == events.result
    assert fast.result == naive.result
    assert fast.result.positions == [0, 1, 2, 3, 4]
    issued = np.array(naive.result.totals)[:, : len(arch.dram.commands)].sum()
    assert naive.stepped == issued >= events.stepped


@pytest.mark.parametrize("barrier", ["instruction", "data"])
@pytest.mark.parametrize("name", ["pim-gpt", "pim-gpt-aim-timing"])
def test_fast_and_events_on_a_model_that_spreads_unevenly(name: str, barrier: str) -> None:
    arch = machine(f"mapping.barrier={barrier}", name=name)
    plan = planner(arch, "gpt2-uneven", prompt=2, generate=60)
    fast, events = (execute(arch, plan.passes(), engine) for engine in ENGINES[:2])
    assert fast.result == events.result


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pim-gpt", "pim-gpt-aim-timing"])
@pytest.mark.parametrize("barrier", ["instruction", "data"])
def test_whole_passes_of_gpt2_small(name: str, barrier: str) -> None:
    """Figure 7: the first pass and one with 700 tokens in the cache."""
    arch = machine(f"mapping.barrier={barrier}", name=name)
    plan = planner(arch, "gpt2-small", generate=1000)
    passes = [plan.pass_at(0), plan.pass_at(700)]
    fast, naive = (execute(arch, passes, engine) for engine in ("fast", "naive"))
    assert fast.result == naive.result
    assert naive.stepped > 20 * fast.stepped


def test_gpt2_small_pass_on_both_kernels_engines() -> None:
    arch = machine()
    plan = planner(arch, "gpt2-small", generate=1000)
    fast, events = (execute(arch, [plan.pass_at(0), plan.pass_at(999)], engine) for engine in ENGINES[:2])
    assert fast.result == events.result


# --- logs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("barrier", ["instruction", "data"])
def test_logs_of_a_whole_run(barrier: str) -> None:
    """The fast engine's log = the naive one's, which goes on with the refreshes after the last task."""
    arch = machine("dram.channels=3", f"mapping.barrier={barrier}", "dram.timing.nREFI=1500")
    plan = planner(arch, "gpt2-tiny", prompt=2, generate=2)
    device = NaiveDevice(arch, keep_log=True)
    run(arch, plan.passes(), lambda item, times: None, "naive", device)
    for channel, logged in zip(device.channels, run_logged(arch, plan.passes, 0, 3), strict=True):
        naive = [(t, arch.dram.command_names.index(c), *address) for t, c, *address in channel.log or []]
        assert [tuple(row) for row in logged.tolist()] == naive[: len(logged)]
        assert len(logged) > 500
        refresh = {arch.dram.command_names.index(c) for c in ("PREA", "REFab", "ACT_AB", "ACT")}
        assert {entry[1] for entry in naive[len(logged) :]} <= refresh


def test_the_log_of_later_passes_is_the_end_of_the_whole() -> None:
    arch = machine("dram.channels=2")
    plan = planner(arch, "gpt2-tiny", generate=4)
    whole, last = run_logged(arch, plan.passes, 0, 4), run_logged(arch, plan.passes, 3, 4)
    for every, some in zip(whole, last, strict=True):
        assert 0 < len(some) < len(every)
        assert np.array_equal(every[-len(some) :], some)


# --- dependences ----------------------------------------------------------------------------------


def tasks_of(items: list[Pass]) -> list:
    return [t for item in items for block in item.blocks for _ in range(block.repeat) for t in block.tasks]


def assert_dependences(items: list[Pass], result: Result) -> None:
    """Read after write, write after read, write after write; one ASIC task at a time."""
    written: dict[str, int] = {}
    read: dict[str, int] = {}
    asic_free = 0
    for task, begin, end in zip(tasks_of(items), result.begin, result.end, strict=True):
        needs = [written.get(name, 0) for name in (*task.reads, *task.writes)]
        needs += [read.get(name, 0) for name in task.writes]
        assert begin >= max(needs, default=0)
        assert end >= begin
        if isinstance(task, AsicTask):
            assert begin >= asic_free
            asic_free = end
        for name in task.reads:
            read[name] = max(read.get(name, 0), end)
        for name in task.writes:
            written[name] = end


@pytest.mark.parametrize("batch", [1, 2])
def test_data_mode_respects_every_dependence_and_overlaps(batch: int) -> None:
    serial, free = (machine(f"mapping.barrier={b}") for b in ("instruction", "data"))
    plan = planner(free, "gpt2-tiny", prompt=2, generate=4, batch=batch)
    items = list(plan.passes())
    overlapped = execute(free, items).result
    assert_dependences(items, overlapped)
    one_by_one = execute(serial, items).result
    assert_dependences(items, one_by_one)
    in_turn = [t for pair in zip(one_by_one.begin, one_by_one.end, strict=True) for t in pair]
    assert in_turn == sorted(in_turn)
    assert overlapped.end_ps < one_by_one.end_ps
    assert any(b < e for b, e in zip(overlapped.begin[1:], overlapped.end, strict=False))


# --- determinism ----------------------------------------------------------------------------------


def digest(full: Full) -> str:
    return hashlib.sha256(repr(full).encode()).hexdigest()


def tiny_run() -> Full:
    arch = machine("mapping.barrier=data")
    return execute(arch, planner(arch, "gpt2-tiny", prompt=2, generate=3, batch=2).passes())


def test_the_same_again_here_and_in_other_processes() -> None:
    code = "from tests.sim.test_engine import digest, tiny_run; print(digest(tiny_run()))"
    here = digest(tiny_run())
    assert digest(tiny_run()) == here
    for seed in ("0", "1"):
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
        out = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert out.stdout.strip() == here


def test_engines_do_not_disturb_each_other() -> None:
    """A run within every pass of another run, and four runs in threads."""
    alone = tiny_run()
    arch = machine("mapping.barrier=data")
    inner: list[Full] = []

    def passes():
        for item in planner(arch, "gpt2-tiny", prompt=2, generate=3, batch=2).passes():
            inner.append(tiny_run())
            yield item

    assert execute(arch, passes()) == alone
    assert inner == [alone] * 4
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: tiny_run(), range(4))) == [alone] * 4


def test_one_plan_serves_several_runs() -> None:
    arch = machine()
    items = list(planner(arch, "gpt2-tiny", generate=3).passes())
    assert execute(arch, items) == execute(arch, items)


def test_without_the_compiler() -> None:
    """NUMBA_DISABLE_JIT=1: all kernels as plain Python give what they give compiled."""
    code = "from numba import config; from tests.sim.test_engine import digest, short_run; "
    code += "assert config.DISABLE_JIT; print(digest(short_run()))"
    path = os.pathsep.join([os.getcwd(), *sys.path])
    env = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": path}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == digest(short_run())


def short_run() -> Full:
    arch = machine("dram.channels=3", "mapping.barrier=data", "dram.timing.nREFI=1500")
    full = execute(arch, planner(arch, "gpt2-tiny", ["layers=1"], generate=2).passes())
    plain = [[int(x) for x in row] for row in full.result.totals]
    return Full(full.result._replace(totals=plain), full.stepped)
