"""What crosses the pins: bytes on the bus, values with a meaning, and what a plain processor would move."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from pimloom.arch.machine import Arch
from pimloom.mapping.site import Site
from pimloom.sim.channel import I8
from pimloom.sim.record import Record
from pimloom.traces.program import Program
from pimloom.traces.task import PimTask
from pimloom.workloads.graph import Op

DECODER = ("qkv", "score", "kv_write", "context", "projection", "ffn1", "ffn2")
"""Operator classes of a layer that move values."""
OUTSIDE = ("embedding", "lm_head")
"""Operator classes outside the layers that move values."""
PARAMETERS = "parameters"
"""Operator class of the norm weights and biases that the ASIC reads."""


def interface_bytes(arch: Arch, site: Site, record: Record) -> dict[str, Any]:
    """Return the traffic of a run, all channels: on the bus, as payload, and against a plain processor."""
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
    by_class = _bus_by_class(arch, record)
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


def _bus_by_class(arch: Arch, record: Record) -> dict[str, I8]:
    """Return operator class -> i8[2]: bytes to and from the memory; a refresh adds none."""
    data = [command.data for command in arch.dram.commands.values()]
    ways = arch.dram.access_B * np.array([[d == way for d in data] for way in ("write", "read")], np.int64)
    known: dict[int, I8] = {}
    sums: dict[str, I8] = {}

    def moved(programs: tuple[Program | None, ...]) -> I8:
        # Tasks share their tuples of programs, and the record keeps those alive, so an id stays its own.
        if id(programs) not in known:
            counts = sum((p.counts() for p in programs if p is not None), np.zeros(len(data), np.int64))
            known[id(programs)] = ways @ counts
        return known[id(programs)]

    for item, _ in record.notes.passes:
        for block in item.blocks:
            for task in block.tasks:
                if isinstance(task, PimTask):
                    sums.setdefault(task.group, np.zeros(2, np.int64))
                    sums[task.group] += moved(task.programs) * block.repeat
    return sums


def _matrix_values(ops: Iterable[Op]) -> int:
    return sum(prod(op.shape) for op in ops if op.kind == "linear")


def _vector_values(ops: Iterable[Op]) -> int:
    """Values of norm weights and biases."""
    norms = sum(2 * op.shape[0] for op in ops if op.kind == "layernorm")
    return norms + sum(op.shape[0] for op in ops if op.kind == "linear" and len(op.parameters) > 1)


def _reduction(
    arch: Arch, site: Site, record: Record, bus: dict[str, I8], payload: dict[str, dict[str, int]]
) -> dict[str, dict[str, int | float | None]]:
    """Return, for several ways to count, bytes that a plain processor and that this machine move.

    The plain processor reads every matrix once a pass and the K and V caches of every sequence once a pass.
    """
    model, graph, notes = site.model, site.graph, record.notes
    passes, batch, value_B = len(notes.positions), site.workload.batch, arch.pim.element_B
    epilogues = sum(position >= site.workload.prompt - 1 for position in notes.positions)
    caches = 2 * model.d_model * batch * sum(position + 1 for position in notes.positions)
    decoder = model.layers * (passes * _matrix_values(graph.layer) + caches)
    vectors = passes * model.layers * _vector_values(graph.layer) + epilogues * _vector_values(graph.epilogue)
    tables = passes * batch * sum(2 * op.shape[0] for op in graph.prologue)
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
