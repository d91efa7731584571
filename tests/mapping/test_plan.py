"""Plans: which passes, which blocks, what is made once, and what changes with the position."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from pimloom.arch.document import InputError
from pimloom.mapping.lower import DEVICE, LOWERINGS
from pimloom.mapping.plan import FIXED, Planner
from pimloom.mapping.site import Site
from pimloom.run import prepare
from pimloom.traces.task import AsicTask, PimTask, Task
from pimloom.workloads.graph import decoder_ops
from pimloom.workloads.request import Workload
from tests import small


def planner(
    prompt: int = 1, generate: int = 1, batch: int = 1, embedding: bool = True, head: bool = True
) -> Planner:
    asked = Workload(prompt=prompt, generate=generate, batch=batch, embedding=embedding, head=head)
    return Planner(Site(small.model(layers=3), small.machine(), asked))


def tasks(plan: Planner, position: int, epilogue: bool = True) -> list[Task]:
    return [task for block in plan.pass_at(position, epilogue).blocks for task in block.tasks]


@pytest.mark.parametrize(("prompt", "generate", "passes"), [(1, 1, 1), (1, 5, 5), (4, 1, 4), (3, 4, 6)])
def test_p_and_n_make_p_plus_n_minus_1_passes(prompt: int, generate: int, passes: int) -> None:
    """Each of the N last passes gives a new token; the ones before need no logits."""
    found = list(planner(prompt, generate).passes())
    assert [p.position for p in found] == list(range(passes))
    with_head = [any(t.group == "lm_head" for b in p.blocks for t in b.tasks) for p in found]
    assert with_head == [False] * (prompt - 1) + [True] * generate


def test_blocks() -> None:
    """Prologue, the layers as one block that repeats, epilogue."""
    plan = planner()
    prologue, layers, epilogue = plan.pass_at(0).blocks
    assert (layers.repeat, layers.row_stride) == (3, plan.site.layer_rows)
    assert (prologue.repeat, epilogue.repeat) == (1, 1)
    assert layers.label.format(2) == "layer2."
    assert len(plan.pass_at(0, epilogue=False).blocks) == 2
    assert len(planner(embedding=False).pass_at(0).blocks) == 2


def test_without_embedding_and_head() -> None:
    groups = {t.group for t in tasks(planner(embedding=False, head=False), 0)}
    everything = {t.group for t in tasks(planner(), 0)}
    assert everything - groups == {"embedding", "lm_head"}
    assert groups < everything


def test_every_operator_has_a_lowering() -> None:
    graph = decoder_ops(small.model(), True, True)
    for op in (*graph.prologue, *graph.layer, *graph.epilogue):
        assert (op.kind, DEVICE) in LOWERINGS
    assert {(kind, DEVICE) for kind in FIXED} <= LOWERINGS.keys()


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("llama2-7b", "rmsnorm, rotary, multiply, silu, which"),
        (
            "llama3-8b",
            "rmsnorm, rotary, multiply, silu, grouped-query attention (8 KV heads for 32 heads), which",
        ),
    ],
)
def test_a_model_without_lowering_is_refused_before_anything_is_placed(name: str, missing: str) -> None:
    with pytest.raises(InputError) as error:
        prepare(name, "pim-gpt", generate=1)
    start = f"{name} does not run on pim-gpt: the machine has no lowering for "
    assert str(error.value) == f"{start}{missing} models of the llama family need"


def test_opt_runs_as_gpt2_does() -> None:
    """The same tasks as a GPT-2 of its sizes; only the activation has another name."""
    sizes = ["model.layers=1", "model.vocab=50", "model.positions=16"]
    found = []
    for name, more in (("opt-125m", []), ("gpt2-small", ["model.activation=relu"])):
        site = prepare(name, "pim-gpt", generate=3, overrides=[*sizes, *more]).site
        found.append([(t.name, t.group) for t in tasks(Planner(site), 2)])
    assert found[0] == found[1]


def test_what_does_not_depend_on_the_position_is_made_once() -> None:
    plan = planner(generate=9)
    first, later = tasks(plan, 2), tasks(plan, 7)
    assert [t.name for t in first] == [t.name for t in later]
    shared = {t.name for t, u in zip(first, later, strict=True) if t is u}
    other = {t.name for t, u in zip(first, later, strict=True) if t is not u}
    names = {op.name for op in plan.site.graph.layer if op.kind in FIXED}
    assert names <= {name.removesuffix(".sum") for name in shared} | {"parameters"}
    for name in other:
        kind = next(o.kind for o in all_ops(plan) if name == o.name or name.startswith(f"{o.name}."))
        assert kind not in FIXED


def all_ops(plan: Planner) -> list:
    graph = plan.site.graph
    return [*graph.prologue, *graph.layer, *graph.epilogue]


def test_fixed_kinds_do_not_depend_on_the_position() -> None:
    """Lowered at two positions the tasks are the same in everything that takes time or names data."""
    plan = planner(generate=9)
    for op in all_ops(plan):
        if op.kind in FIXED:
            here, there = (LOWERINGS[op.kind, DEVICE](plan.site, op, position, 0) for position in (1, 8))
            assert list(map(essence, here)) == list(map(essence, there))


def essence(task: Task) -> tuple:
    if isinstance(task, AsicTask):
        return (task.name, task.function, task.size, task.count, task.inputs, task.output, task.scalar)
    programs = [
        None if p is None else (p.code.tolist(), p.times.tolist(), p.row.tolist()) for p in task.programs
    ]
    return (task.name, programs, task.base_row, task.base_bank, task.reads, task.writes, task.traffic)


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_a_batch_does_everything_per_sequence_but_read_the_parameters(batch: int) -> None:
    one, several = (Counter(t.name for t in tasks(planner(batch=n, generate=3), 1)) for n in (1, batch))
    assert several == {name: n * (1 if name == "parameters" else batch) for name, n in one.items()}


def test_sequences_of_a_batch_have_registers_and_caches_of_their_own() -> None:
    names = [set(t.reads) | set(t.writes) for t in tasks(planner(batch=2), 1)]
    for used in names:
        of = {found[1] for name in used if (found := re.search(r"(?:^[KV]|\.)(\d+)", name))}
        assert len(of) == 1 or used == {"params"}, used


def test_everything_read_was_written_before_in_the_pass_or_is_kept() -> None:
    plan = planner(generate=2)
    kept = {"K0", "V0", "token.0"}
    written: set[str] = set()
    for task in tasks(plan, 1):
        assert set(task.reads) <= written | kept, task.name
        written |= set(task.writes)


def test_every_pim_task_has_work_for_a_channel() -> None:
    """A task without a program would never end."""
    for position in (0, 5):
        for task in tasks(planner(generate=8), position):
            if isinstance(task, PimTask):
                assert len(task.programs) == 3 and any(p is not None for p in task.programs)


def test_matrices_are_read_whole_in_every_pass() -> None:
    """MACs of the fixed products, in columns: rows padded to banks, columns to accesses, once a tile."""
    plan = planner()
    site = plan.site
    mac = site.arch.dram.command_names.index("MAC_AB")
    for task in tasks(plan, 0):
        if isinstance(task, PimTask) and task.region.endswith("weight") and task.region in site.regions:
            layout = site.regions[task.region].layout
            counts = [0 if p is None else int(p.counts()[mac]) for p in task.programs]
            tiles = np.bincount(np.arange(layout.tiles) % 3, minlength=3)
            assert counts == (tiles * layout.segment_columns).tolist()
