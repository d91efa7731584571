"""What crosses the pins: bytes on the bus, values with a meaning, and what a plain processor would move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

import numpy as np

from pimloom.arch.machine import Arch
from pimloom.mapping.site import Site
from pimloom.reports.energy import Work
from pimloom.sim.channel import I8
from pimloom.sim.record import Record
from pimloom.traces.program import Program
from pimloom.traces.task import PimTask
from pimloom.workloads.graph import MATRIX_VECTOR, Op

DECODER = (MATRIX_VECTOR - {"lm_head"}) | {"kv_write"}
"""Operator classes of a layer that move values."""
PARAMETERS = "parameters"
"""Operator class of the norm weights and biases that the ASIC reads."""


def interface_bytes(arch: Arch, site: Site, record: Record, works: Mapping[str, Work]) -> dict[str, Any]:
    """Return the traffic of a run, all channels: on the bus, as payload, and against a plain processor.

    works: what every operator class had done, from `works_by_class`
    """
    commands = arch.dram.commands
    issued = record.outcome.totals[:, : len(commands)].sum(0)
    bus = {
        name: int(count) * arch.dram.access_B
        for (name, command), count in zip(commands.items(), issued, strict=True)
        if command.data != "none"
    }
    ways = {"to_memory": "write", "from_memory": "read"}
    for way, data in ways.items():
        bus[way] = sum(bus[name] for name, command in commands.items() if command.data == data)
    by_class = _bus_by_class(arch, works)
    kinds, element_B = ("sent", "sent_once", "received"), arch.pim.element_B
    payload = {
        group: dict(zip(kinds, (values * element_B).tolist(), strict=True))
        for group, values in record.notes.traffic.items()
    }
    return {
        "bus_B": bus | {"total": bus["to_memory"] + bus["from_memory"]},
        "bus_by_class_B": {g: dict(zip(ways, b.tolist(), strict=True)) for g, b in by_class.items()},
        "payload_by_class_B": payload,
        "reduction": _reduction(arch, site, record, by_class, payload),
    }


def works_by_class(arch: Arch, record: Record) -> dict[str, Work]:
    """Return operator class -> commands of its programs and its ASIC time; what refreshes add is in none."""
    none = np.zeros(len(arch.dram.commands), np.int64)
    commands: dict[str, I8] = {}
    asic_ps: dict[str, int] = {}
    # Tasks share their tuples of programs, and the record keeps those alive, so an id stays its own.
    known: dict[int, tuple[Program | None, ...]] = {}
    done: dict[tuple[str, int], int] = {}
    for item, times in record.notes.passes:
        for block, t in zip(item.blocks, times, strict=True):
            lasted_ps: list[int] = (t.end - t.begin).sum(0).tolist()
            for task, ps in zip(block.tasks, lasted_ps, strict=True):
                if isinstance(task, PimTask):
                    known[id(task.programs)] = task.programs
                    key = task.group, id(task.programs)
                    done[key] = done.get(key, 0) + block.repeat
                else:
                    asic_ps[task.group] = asic_ps.get(task.group, 0) + ps
    for (group, number), repeats in done.items():
        issued = sum((p.counts() for p in known[number] if p is not None), none)
        commands[group] = commands.get(group, none) + repeats * issued
    groups = dict.fromkeys((*commands, *asic_ps))
    return {group: Work(commands.get(group, none), asic_ps.get(group, 0)) for group in groups}


def _bus_by_class(arch: Arch, works: Mapping[str, Work]) -> dict[str, I8]:
    """Return operator class -> i8[2]: bytes to and from the memory, of the classes that use it."""
    data = [command.data for command in arch.dram.commands.values()]
    ways = arch.dram.access_B * np.array([[d == way for d in data] for way in ("write", "read")], np.int64)
    return {group: ways @ work.commands for group, work in works.items() if work.commands.any()}


def _matrix_values(ops: Iterable[Op]) -> int:
    return sum(prod(op.shape) for op in ops if op.kind == "linear")


def _vector_values(ops: Iterable[Op]) -> int:
    """Values of norm weights and biases."""
    return sum(
        len(op.parameters[1:] if op.kind == "linear" else op.parameters) * op.shape[0]
        for op in ops
        if op.kind != "embed"
    )


def _reduction(
    arch: Arch, site: Site, record: Record, bus: dict[str, I8], payload: dict[str, dict[str, int]]
) -> dict[str, dict[str, int | float | None]]:
    """Return, for several ways to count, bytes that a plain processor and that this machine move.

    The plain processor reads every matrix once a pass and the K and V caches of every sequence once a pass.
    """
    model, graph, notes = site.model, site.graph, record.notes
    passes, batch, value_B = len(notes.positions), site.workload.batch, arch.pim.element_B
    epilogues = sum(position >= site.workload.prompt - 1 for position in notes.positions)
    caches = 2 * model.kv_width * batch * sum(position + 1 for position in notes.positions)
    decoder = model.layers * (passes * _matrix_values(graph.layer) + caches)
    vectors = passes * model.layers * _vector_values(graph.layer) + epilogues * _vector_values(graph.epilogue)
    tables = passes * batch * sum(len(op.parameters) * op.shape[0] for op in graph.prologue)
    head = epilogues * _matrix_values(graph.epilogue)

    # Probabilities of a head go to every channel that holds a part of its V; published counts take one copy.
    ours = sum(
        moved["received"] + moved["sent_once" if group == "context" else "sent"]
        for group, moved in payload.items()
        if group in DECODER
    )
    vectors_B = payload.get(PARAMETERS, {}).get("received", 0)

    def on_bus(groups: tuple[str, ...]) -> int:
        return sum(int(moved.sum()) for group, moved in bus.items() if group in groups)

    return {
        name: {"ours_B": moved_B, "baseline_B": values * value_B, "factor": values * value_B / moved_B}
        for name, moved_B, values in (
            ("decoder_payload", ours, decoder),
            ("decoder_payload_with_parameters", ours + vectors_B, decoder + vectors),
            ("decoder_bus", on_bus((*DECODER, PARAMETERS)), decoder + vectors),
            ("whole_bus", on_bus(tuple(bus)), decoder + vectors + tables + head),
        )
    }
