"""Whole models on a system of PIM devices and a host, token by token.

A pass goes through the decoder's operators one after the other: an operator begins when the one before it has ended.
Matrix-vector products and attention run as kernels on the devices' channels, whose state and refresh go on from kernel
to kernel; everything else, and whatever the devices do not do, is the host's by its roofline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from pimloom.arch.clock import PS_PER_S, first_edge_at_or_after
from pimloom.arch.device import Device
from pimloom.arch.document import Document, parse_overrides
from pimloom.arch.dram import load_dram
from pimloom.arch.dram_checks import LEVELS
from pimloom.arch.expression import evaluate
from pimloom.arch.memory import Memory, load_memory
from pimloom.arch.system import System, load_system
from pimloom.arch.tree import InputError
from pimloom.bench import price
from pimloom.mapping.devices import lower, lowerings
from pimloom.memory import run_requests
from pimloom.reports.definitions import CONFIG, MODEL, PROVENANCE, RESULT, SCHEMA_VERSION
from pimloom.reports.result import OPS, as_json, provenance
from pimloom.reports.summary import host_block
from pimloom.reports.system import CAUSES
from pimloom.sim.bench import channels
from pimloom.sim.clock import edge_ps, first_edge
from pimloom.traces.requests import Requests
from pimloom.traces.stream import Attention, Gemv, Kernel, Site
from pimloom.workloads.graph import Graph, Op, decoder_ops
from pimloom.workloads.model import Model, load_model
from pimloom.workloads.request import Workload, by_target, load_workload

if TYPE_CHECKING:
    import pandas as pd

I8 = npt.NDArray[np.int64]
COMPUTE, ROW_SWITCHING, TRANSFER, HOST, LINK = (
    CAUSES.index(name) for name in ("compute", "row_switching", "transfer", "host", "link")
)
Progress = Callable[[int, int], None]

CAUSE_OF = {
    "activate": "row_switching",
    "activate_first": "row_switching",
    "activate_second": "row_switching",
    "precharge": "row_switching",
    "mode": "mode_switching",
    "refresh": "refresh",
    "mac": "compute",
    "multiply": "compute",
    "activation": "compute",
    "softmax": "compute",
}
"""Meaning of a command -> what the clocks waited for it are; of all others transfer."""
OPERATIONS = {
    "layernorm": 8, "rmsnorm": 5, "softmax": 5, "activation": 8, "add": 1, "multiply": 1, "rotary": 3, "scale": 1,
    "embed": 1,
}  # fmt: skip
"""Operations of the host for one value of an operator's result (docs/assumptions.md)."""
PROBE = 1 << 17
"""Accesses of the stream that shows what the memory's pins achieve."""


class Step(NamedTuple):
    """One operator of one pass, in all layers that have it: its time, and where that went, as `CAUSES`."""

    position: int
    op: str
    group: str
    unit: str
    time_ps: int
    causes_ps: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that a run on a system needs, resolved and checked.

    pim: False for the twin whose host does everything and reads the same memory in the ordinary way
    """

    model: Model
    system: System
    workload: Workload
    pim: bool
    documents: dict[str, Document]

    @cached_property
    def graph(self) -> Graph:
        """The decoder's operators."""
        return decoder_ops(self.model, self.workload.embedding, self.workload.head)

    @cached_property
    def layout(self) -> Layout:
        """The model placed in the devices' banks; raises InputError if it does not fit."""
        return Layout(self)


@dataclass(eq=False)
class Tally:
    """What a run adds up.

    counts: i8[channels, commands], of the channels of one device that work on a token; active: their clocks with an
    open bank while kernels run; accesses: ordinary ones, over the pins, reading_ps: how long; ends_ps: of the passes
    """

    counts: I8
    active: int = 0
    reading_ps: int = 0
    host_ps: int = 0
    link_bits: int = 0
    accesses: int = 0
    steps: list[Step] = field(default_factory=list)
    ends_ps: list[int] = field(default_factory=list)


def prepare(
    model: str,
    system: str,
    *,
    prompt: int = 1,
    generate: int = 128,
    batch: int = 1,
    embedding: bool = True,
    head: bool = True,
    pim: bool = True,
    overrides: Sequence[str] = (),
) -> Plan:
    """Resolve names, paths and overrides. Raises InputError for whatever does not exist, is wrong or does not fit."""
    of_system, of_model, of_workload = by_target(parse_overrides(overrides))
    machine, system_document = load_system(system, of_system)
    network, model_document = load_model(model, of_model)
    work = load_workload(
        of_workload, prompt=prompt, generate=generate, batch=batch, embedding=embedding, head=head
    )
    work.check_fits(network)
    plan = Plan(network, machine, work, pim, {"arch": system_document, "model": model_document})
    if pim:
        _ = plan.layout
    return plan


class Layout:
    """Kernels of a plan, and the rows at which their operands lie in every stage."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        system, model = plan.system, plan.model
        self.device, self.shards = system.device, system.partition.tensor_parallel
        table = lowerings(self.device)
        self.linear = "linear" in system.on_device and "gemv" in table
        self.attention = "attention" in system.on_device and bool({"score", "attention"} & table.keys())
        self.whole_attention = "attention" in table
        if model.layers % system.partition.stages:
            raise InputError(
                f"{system.name}: partition.stages: {model.layers} layers of {model.name} are not divided by "
                f"{system.partition.stages}"
            )
        self._fixed: dict[tuple[int, int], Kernel] = {}
        self._cache_rows: dict[str, int] = {}
        self._writing: dict[str, float] = {}
        longest = plan.workload.passes
        self.rows: dict[str, int] = {}
        self._free = self.device.dram.rows
        at = 0
        for op in plan.graph.layer:
            at = self._reserve(op, at, longest)
        self.layer_rows = at
        at *= model.layers // system.partition.stages
        for op in (*plan.graph.prologue, *plan.graph.epilogue):
            at = self._reserve(op, at, longest)
        if at > self._free:
            raise InputError(
                f"{model.name} does not fit {system.name}: it takes {at} rows of every bank, and a bank has "
                f"{self._free}; partition.stages and partition.tensor_parallel spread it over more devices"
            )
        self.used_rows = at

    def _reserve(self, op: Op, at: int, longest: int) -> int:
        self.rows[op.name] = at
        if op.kind == "linear" and self.linear:
            return at + self._rows(self.gemv(op))
        if op.kind in ("score", "context") and self.attention:
            if self.whole_attention and op.kind == "context":
                self.rows[op.name] = self.rows["score"]
                return at
            self._cache_rows[op.name] = self._rows(self.attend(op, longest))
            return at + self.plan.workload.batch * self._cache_rows[op.name]
        return at

    def _rows(self, kernel: Kernel) -> int:
        self._free = min(self._free, kernel.reserved)
        return kernel.rows

    @property
    def channels(self) -> int:
        """Channels, of all devices, that work on one token at a time."""
        return self.plan.system.channels * self.shards

    def gemv(self, op: Op) -> Kernel:
        """Return the kernel of one device's share of a matrix."""
        outputs, inputs = op.shape
        key = (-(-outputs // self.shards), inputs)
        if key not in self._fixed:
            self._fixed[key] = lower(self.device, Gemv(*key), Site(self.plan.system.channels))
        return self._fixed[key]

    def attend(self, op: Op, tokens: int) -> Kernel:
        """Return the kernel of one device's share of the heads."""
        model = self.plan.model
        kind = "attention" if self.whole_attention else op.kind
        group = model.heads // model.kv_heads
        kv_heads = -(-model.kv_heads // self.shards)
        # More devices than key-value heads: some of them share the queries of one.
        sharing = max(1, self.shards // model.kv_heads)
        work = Attention(kind, kv_heads * -(-group // sharing), kv_heads, model.d_head, tokens)
        return lower(self.device, work, Site(self.plan.system.channels))

    def attend_rows(self, op: Op) -> int:
        """Rows that the caches of one sequence take for an operator."""
        return self._cache_rows.get(op.name, 0)

    def moved_by_host(self, op: Op, tokens: int) -> int:
        """Values that the host moves for an operator, of one sequence."""
        model = self.plan.model
        if op.kind == "linear":
            return prod(op.shape)
        if op.kind in ("score", "context"):
            return model.kv_width * tokens
        if op.kind in ("cache_k", "cache_v"):
            return model.kv_width
        return 2 * (model.heads * tokens if op.kind == "softmax" else prod(op.shape))

    def writing_ns(self, op: Op) -> float:
        """Time to write a token's keys or values where the devices' layout wants them: a row cycle for each row.

        Rows of different banks open side by side; the token is the first of a cache.
        """
        if op.name not in self._writing:
            kind, name = ("score", "keys") if op.kind == "cache_k" else ("context", "values")
            model = self.plan.model
            kind = "attention" if self.whole_attention else kind
            work = Attention(kind, model.heads, model.kv_heads, model.d_head, 1)
            place = lower(self.device, work, Site(self.plan.system.channels)).stored()[name]
            banks = place.channel * self.device.dram.banks + place.bank
            rows = np.unique(np.stack([np.ravel(banks), np.ravel(place.row)], 1), axis=0)
            t = self.device.dram.timing
            cycle = t.get("nRC") or t["nRAS"] + t["nRP"]
            busiest = int(np.bincount(rows[:, 0]).max())
            self._writing[op.name] = busiest * cycle / self.device.dram.clock_Hz * 1e9
        return self._writing[op.name]

    def is_on_device(self, op: Op) -> bool:
        """Whether the devices do an operator."""
        if op.kind == "linear":
            return self.linear
        return self.attention and (
            op.kind in ("score", "context") or (self.whole_attention and op.kind == "softmax")
        )


class _Runner:
    """One run: the time, the channels of every stage, and what has been added up."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.system, self.layout = plan, plan.system, plan.layout
        self.device, self.host = plan.system.device, plan.system.host
        self.dram = self.device.dram
        self.stages = [channels(self.device) for _ in range(self.system.partition.stages)]
        self.tally = Tally(np.zeros((self.system.channels, len(self.dram.commands)), np.int64))
        self.memory = Ordinary(self.device)
        self.causes = [CAUSES.index(CAUSE_OF.get(c.meaning, "transfer")) for c in self.dram.commands.values()]
        self.interval = mac_interval(self.device)
        self.now_ps = 0
        self._attention: dict[tuple[str, int], Kernel] = {}

    def run(self, progress: Progress | None) -> Tally:
        """Run all passes."""
        passes = self.plan.workload.passes
        for position in range(passes):
            self.token(position, position >= self.plan.workload.prompt - 1)
            if progress:
                progress(position + 1, passes)
        return self.tally

    def token(self, position: int, has_epilogue: bool) -> None:
        """Run the pass of one token."""
        plan, graph, stages = self.plan, self.plan.graph, len(self.stages)
        begin, per_stage = len(self.tally.steps), plan.model.layers // stages
        for op in graph.prologue:
            self._op(op, position, 0, 0)
        for layer in range(plan.model.layers):
            stage, row = divmod(layer, per_stage)
            if layer and not row:
                self._hand_over(position)
            for op in graph.layer:
                self._op(op, position, stage, row * self.layout.layer_rows)
        if has_epilogue:
            for op in graph.epilogue:
                self._op(op, position, stages - 1, 0)
        self._merge(begin)
        self._attention.clear()
        self.tally.ends_ps.append(self.now_ps)

    def _op(self, op: Op, position: int, stage: int, row: int) -> None:
        causes, begin = [0] * len(CAUSES), self.now_ps
        unit, batch, model = "host", self.plan.workload.batch, self.plan.model
        if self.plan.pim and self.layout.is_on_device(op):
            unit = "device"
            if not (self.layout.whole_attention and op.kind in ("softmax", "context")):
                per_head, cached = model.heads * model.d_head, model.heads * (position + 1)
                sizes = {"score": (per_head, cached), "context": (cached, per_head)}
                if self.layout.whole_attention:
                    sizes["score"] = per_head, per_head
                inputs, outputs = sizes.get(op.kind, (op.shape[1], op.shape[0]))
                # Each device of a matrix needs the whole vector, and has its share of the result.
                copies = self.layout.shards if op.kind == "linear" else 1
                self._transfer(batch * inputs, copies, causes)
                for sequence in range(batch):
                    self._kernel(op, position, sequence, stage, row, causes)
                self._transfer(batch * outputs, 1, causes)
        else:
            self._by_host(op, position, causes)
        self.tally.steps.append(Step(position, op.name, op.group, unit, self.now_ps - begin, tuple(causes)))

    def _kernel(self, op: Op, position: int, sequence: int, stage: int, row: int, causes: list[int]) -> None:
        """Run one kernel on the devices."""
        if op.kind == "linear":
            kernel = self.layout.gemv(op)
        else:
            key = (op.kind, position)
            if key not in self._attention:
                self._attention[key] = self.layout.attend(op, position + 1)
            kernel = self._attention[key]
            row += sequence * self.layout.attend_rows(op)
        row += self.layout.rows[op.name]
        f = self.dram.clock_Hz
        start = int(first_edge(self.now_ps, f))
        issued = self.stages[stage].run(kernel.stream.moved(row, kernel.rows), start, False)
        used = self.system.channels
        end = int(edge_ps(issued.end, f))
        # Channels wait for one another at the end of a kernel: their mean is what time went into.
        spent = issued.waited[:used].sum(0) / used
        macs = issued.counts[:used].sum(0) / used * self.interval
        left = end - self.now_ps
        for i, clocks in enumerate(spent.tolist()):
            # What a MAC waits for beyond its turn is a row that opens.
            beyond = max(0.0, clocks - float(macs[i])) if self.causes[i] == COMPUTE else 0.0
            for cause, part in ((self.causes[i], clocks - beyond), (ROW_SWITCHING, beyond)):
                ps = round(part * PS_PER_S / f)
                causes[cause] += ps
                left -= ps
        causes[TRANSFER] += left
        self.tally.counts += issued.counts[:used]
        self.tally.active += int(issued.active[:used].sum())
        self.now_ps = end

    def _transfer(self, values: int, copies: int, causes: list[int]) -> None:
        """Send a vector over the host's links, to or from so many devices at once."""
        link = self.system.link
        moved_B = values * self.device.unit.element_B
        ns = link.latency_ns + (moved_B / link.bandwidth_Bps * 1e9 if link.bandwidth_Bps else 0.0)
        self.tally.link_bits += 8 * moved_B * copies if link.bandwidth_Bps else 0
        causes[LINK] += round(ns * 1000)
        self.now_ps += round(ns * 1000)

    def _by_host(self, op: Op, position: int, causes: list[int]) -> None:
        """Do an operator on the host; what the devices' memory holds of it is read or written over the pins.

        A host takes the whole prompt at once: it starts operators, and reads matrices and caches, once for all tokens.
        """
        model, batch, prompt = self.plan.model, self.plan.workload.batch, self.plan.workload.prompt
        element_B, tokens = self.device.unit.element_B, position + 1
        moved = self.layout.moved_by_host(op, tokens)
        if op.kind == "linear":
            operations, held = 2.0 * prod(op.shape), "linear"
        elif op.kind in ("score", "context"):
            operations, held = 2.0 * model.heads * model.d_head * tokens, "attention"
        elif op.kind in ("cache_k", "cache_v"):
            operations, held = 0.0, "attention"
        else:
            values = model.heads * tokens if op.kind == "softmax" else prod(op.shape)
            operations, held = float(OPERATIONS[op.kind] * values), ""
        moved *= 1 if op.kind == "linear" else batch
        with_others = position < prompt - 1 and (not self.plan.pim or op.kind == "linear")
        if with_others and op.kind in ("linear", "score", "context"):
            moved = 0
        own_B = memory_B = 0.0
        if held and (held in self.system.on_device or self.host.memory_Bps is None):
            memory_B = moved * element_B
        elif self.host.memory_Bps:
            own_B = moved * element_B
        rate_Bps = (self.host.memory_Bps or 1) * self.host.memory_efficiency
        ns = self.host.time_ns(batch * operations, own_B, rate_Bps)
        if memory_B:
            devices, link = self.layout.shards, self.system.link
            over_pins_Bps = self.memory.read_Bps * self.system.channels / self.dram.channels
            if link.bandwidth_Bps:
                over_pins_Bps = min(over_pins_Bps, link.bandwidth_Bps)
                self.tally.link_bits += round(8 * memory_B)
            reading_ns = memory_B / (over_pins_Bps * devices) * 1e9
            if op.kind in ("cache_k", "cache_v") and self.plan.pim:
                reading_ns = max(reading_ns, batch * self.layout.writing_ns(op))
            self.tally.reading_ps += round(reading_ns * 1000)
            ns = max(ns, self.host.operator_ns + 2 * link.latency_ns + reading_ns)
            self.tally.accesses += round(memory_B / self.dram.access_B)
        if with_others:
            ns -= self.host.operator_ns
        spent = round(ns * 1000)
        causes[HOST] += spent
        self.tally.host_ps += spent
        self.now_ps += spent

    def _hand_over(self, position: int) -> None:
        """Bring the residual stream to the next stage, on another device, by way of the host."""
        causes, begin = [0] * len(CAUSES), self.now_ps
        values = self.plan.workload.batch * self.plan.model.d_model
        for _ in ("to the host", "from it"):
            self._transfer(values, 1, causes)
        self.tally.steps.append(
            Step(position, "hand_over", "link", "link", self.now_ps - begin, tuple(causes))
        )

    def _merge(self, begin: int) -> None:
        """Add up a pass's steps of the same operator."""
        steps = self.tally.steps
        merged: dict[str, Step] = {}
        for step in steps[begin:]:
            known = merged.get(step.op, step._replace(time_ps=0, causes_ps=(0,) * len(CAUSES)))
            causes = tuple(a + b for a, b in zip(known.causes_ps, step.causes_ps, strict=True))
            merged[step.op] = known._replace(time_ps=known.time_ps + step.time_ps, causes_ps=causes)
        steps[begin:] = merged.values()


def block(model: str, system: str, context: int, overrides: Sequence[str] = ()) -> SystemResult:
    """Run one decoder layer for the token that is the last of a context, on a system whose channels are idle.

    Raises InputError as `prepare` does.
    """
    plan = prepare(
        model, system, prompt=context, generate=1, embedding=False, head=False,
        overrides=[*overrides, "model.layers=1", "partition.stages=1"],
    )  # fmt: skip
    runner = _Runner(plan)
    runner.token(context - 1, has_epilogue=False)
    told = _summary(plan, runner.tally)
    dram = plan.system.device.dram
    names = dram.command_names
    per_channel = [
        {name: n for name, n in zip(names, row, strict=True) if n} for row in runner.tally.counts.tolist()
    ]
    told["kernel"] = "block"
    told["shape"] = {"model": model, "context": context}
    told["refresh"] = dram.refresh.policy
    told["cycles"] = first_edge_at_or_after(runner.now_ps, dram.clock_Hz)
    told["time_ns"] = told["total_time_ns"]
    told["commands"] = {"total": told["commands"], "per_channel": per_channel}
    return SystemResult(told, plan, runner.tally)


def simulate(plan: Plan, progress: Progress | None = None, started: float | None = None) -> SystemResult:
    """Run what `prepare` returned."""
    started = time.perf_counter() if started is None else started
    runner = _Runner(plan)
    tally = runner.run(progress)
    told = _summary(plan, tally)
    told["simulator"] = {"wall_s": time.perf_counter() - started, **host_block()}
    return SystemResult(told, plan, tally)


def _summary(plan: Plan, tally: Tally) -> dict[str, Any]:
    """Return everything that a run says, as plain JSON types with units in the keys; unknown is None."""
    system, work, layout = plan.system, plan.workload, plan.layout
    device, total_ps = system.device, tally.ends_ps[-1]
    tokens, later = work.batch * work.generate, work.generate - 1
    first_ps = tally.ends_ps[min(work.prompt, len(tally.ends_ps)) - 1]
    tpot_ns = (total_ps - first_ps) / later / 1000 if later else None
    shards = system.partition.tensor_parallel
    counts = dict(zip(device.dram.command_names, (tally.counts.sum(0) * shards).tolist(), strict=True))
    clocks = first_edge_at_or_after(total_ps, device.dram.clock_Hz) * layout.channels
    energies, left_out = _energies(plan, tally, counts, clocks)
    groups: dict[str, int] = {}
    causes = np.zeros(len(CAUSES))
    for step in tally.steps:
        groups[step.group] = groups.get(step.group, 0) + step.time_ps
        causes += step.causes_ps
    macs = sum(n for name, n in counts.items() if device.dram.commands[name].meaning == "mac")
    busy_s = total_ps / PS_PER_S
    return {
        "schema_version": SCHEMA_VERSION,
        "model": plan.model.name,
        "arch": system.name,
        "pim": plan.pim,
        "workload": work.model_dump(),
        "total_time_ns": total_ps / 1000,
        "ttft_ns": first_ps / 1000,
        "tpot_ns": tpot_ns,
        "tokens_per_s": tokens / busy_s,
        "throughput_tokens_per_s": _throughput(plan, tally, tokens),
        "energy_pJ": energies,
        "energy_left_out": left_out,
        "pim_utilisation": macs * mac_interval(device) / clocks if plan.pim else None,
        "time_share": {name: float(ps) / total_ps for name, ps in zip(CAUSES, causes, strict=True)},
        "latency_share": {group: ps / total_ps for group, ps in groups.items()},
        "commands": {name: n for name, n in counts.items() if n},
        "ordinary_accesses": tally.accesses,
        "memory": {"rows_used": layout.used_rows, "rows_total": device.dram.rows},
    }


def _throughput(plan: Plan, tally: Tally, tokens: int) -> float:
    """Return tokens per second with a token in every stage; there is one host, which all of them share."""
    stages = plan.system.partition.stages if plan.pim else 1
    alone = tokens / (tally.ends_ps[-1] / PS_PER_S)
    return min(stages * alone, tokens / (tally.host_ps / PS_PER_S)) if tally.host_ps else stages * alone


def mac_interval(device: Device) -> int:
    """Clocks from one MAC command of a channel to the next, by the device's rules.

    MACs that do not take all units in lock step alternate between units, so the rule of the widest level binds.
    """
    dram, symbols = device.dram, device.dram.symbols({})
    intervals = [1]
    for name, command in dram.commands.items():
        if command.meaning == "mac":
            rules = [
                r
                for r in dram.constraints.values()
                if name in r.before and name in r.after and not r.siblings
            ]
            widest = min((LEVELS.index(r.level) for r in rules), default=0)
            binding = [r for r in rules if command.lockstep or LEVELS.index(r.level) == widest]
            intervals += [evaluate(r.minimum, symbols) for r in binding]
    return max(intervals)


def _energies(
    plan: Plan, tally: Tally, counts: Mapping[str, int], clocks: int
) -> tuple[dict[str, float | None], list[str]]:
    """Return the energies by part, with a total of what is known, and what is not in it."""
    system = plan.system
    device, total_ps = system.device, tally.ends_ps[-1]
    shards = system.partition.tensor_parallel
    # While the host reads, banks are open.
    reading = round(tally.reading_ps * device.dram.clock_Hz / PS_PER_S) * system.channels
    active = min(clocks, (tally.active + reading) * shards)
    parts = price(device, counts, active, clocks - active)
    del parts["total_known"]
    read = device.dram.find("read", "bank")
    if tally.accesses:
        each = device.energy.command_pJ.get(read or "")
        parts["ordinary_accesses"] = None if each is None else tally.accesses * each
        parts["rows_of_ordinary_accesses"] = parts["refresh_beside_ordinary_accesses"] = None
    host, link = system.host, system.link
    parts["host_active"] = None if host.active_W is None else tally.host_ps * host.active_W
    parts["host_idle"] = None if host.idle_W is None else (total_ps - tally.host_ps) * host.idle_W
    if tally.link_bits:
        parts["link"] = None if link.pJ_per_bit is None else tally.link_bits * link.pJ_per_bit
    known = [pJ for pJ in parts.values() if pJ is not None]
    left_out = [name for name, pJ in parts.items() if pJ is None]
    return {**parts, "total": sum(known) if known else None}, left_out


@dataclass(frozen=True, eq=False)
class SystemResult:
    """A finished run on a system; `summary` is what --json prints."""

    summary: dict[str, Any]
    plan: Plan
    tally: Tally

    def to_pandas(self) -> pd.DataFrame:
        """Return every operator of every pass, all layers together, its time in ns and what that went into."""
        import pandas as pd

        rows = [
            {
                "position": step.position, "op": step.op, "group": step.group, "unit": step.unit,
                "time_ns": step.time_ps / 1000,
                **{f"{name}_ns": ps / 1000 for name, ps in zip(CAUSES, step.causes_ps, strict=True)},
            }
            for step in self.tally.steps
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def json(self) -> str:
        """Return the summary as JSON text, the same for the same run but for `simulator`."""
        return as_json(self.summary)

    def save(self, folder: Path) -> Path:
        """Write result.json, ops.parquet, the resolved descriptions and provenance into a folder, made if need be.

        Raises InputError where it cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.to_pandas().to_parquet(folder / OPS, index=False, compression="zstd")
            for name, text in (
                (CONFIG, self.plan.documents["arch"].text()),
                (MODEL, self.plan.documents["model"].text()),
                (PROVENANCE, as_json(provenance())),
                (RESULT, self.json()),
            ):
                (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
        return folder


class Ordinary:
    """A device's memory read in the ordinary way, as by a processor whose memory it is."""

    def __init__(self, device: Device) -> None:
        self.device = device

    @cached_property
    def read_Bps(self) -> float:
        """Bytes per second of all channels of one device for a long sequential read, refreshes included.

        Measured on one channel behind the shipped FR-FCFS controller. Raises InputError for a memory that has no
        ordinary reads.
        """
        device = self.device
        dram = load_dram(device.ordinary)[0] if device.ordinary else device.dram
        around = load_memory("ramulator2")[0]
        try:
            memory = Memory(**{**dict(around), "dram": dram, "name": device.name})
        except ValidationError as error:
            why = "; ".join(e["msg"] for e in error.errors())
            raise InputError(
                f"{device.name}: its memory cannot be read in the ordinary way: {why}"
            ) from error
        n = np.arange(PROBE, dtype=np.int64)
        requests = Requests(np.zeros_like(n), np.zeros_like(n), n * dram.access_B)
        told = run_requests(memory, [requests], wrap=True)
        return float(told["bandwidth_GBps"]) * 1e9 * device.dram.channels
