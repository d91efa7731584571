"""What a speedup is against: measured GPU steps, and rooflines of processors that were not measured.

A GPU or CPU takes the whole prompt in one pass, and so it is priced here, also where the machine that it is
compared with goes token by token.
"""

import csv
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from pimloom import configs
from pimloom.arch.base import Count, Description, Strict
from pimloom.arch.document import InputError, load
from pimloom.workloads.graph import Op, decoder_ops
from pimloom.workloads.model import Model
from pimloom.workloads.request import Workload

_FOLDER = Path(configs.__file__).parent / "baselines"
_NS_PER_MS = 1e6
_NS_PER_S = 1e9
_PJ_PER_NJ = 1e3

Positive = Annotated[float, Field(gt=0)]


class Shape(Strict):
    """What was measured under a name."""

    layers: Count
    d_model: Count
    heads: Count
    d_ff: Count
    vocab: Count


class Measured(Description):
    """The provenance of the tables of measured decode steps and prompts."""

    kind: Literal["measured"]
    processor: str
    table: str
    """Decode steps, LM head included."""
    prompt_table: str
    """Whole prompts in one pass, without LM head."""
    modes: dict[str, str]
    """How the kernels were started, and what that stands for."""
    shapes: dict[str, Shape]


class Processor(Strict):
    """Data-sheet peaks."""

    name: str
    fp16_FLOPps: Positive | None
    """None: no such arithmetic, so the processor computes in fp32 on fp32 weights."""
    fp32_FLOPps: Positive
    memory_Bps: Positive
    tdp_W: Positive

    @property
    def value_B(self) -> int:
        """Bytes of a weight, and of a value in the KV cache."""
        return 2 if self.fp16_FLOPps else 4

    @property
    def peak_FLOPps(self) -> float:
        """Peak in the arithmetic that the processor computes in."""
        return self.fp16_FLOPps or self.fp32_FLOPps


class Processors(Description):
    """The processors of the roofline model by their keys."""

    kind: Literal["processors"]
    processors: dict[str, Processor]


class Point(NamedTuple):
    """One measurement: tokens attended to, or tokens of the prompt; how long; the whole board's power."""

    tokens: int
    time_ns: float
    power_W: float


@dataclass(frozen=True)
class Step:
    """One pass of a batch, interpolated between measured contexts, or prompts."""

    time_ns: float
    power_W: float
    """The whole board's."""
    is_clamped: bool
    """The context, or the prompt, lies outside the measured ones, and the nearest of them stands for it."""


@dataclass(frozen=True)
class Baseline:
    """A whole run on another processor."""

    name: str
    kind: Literal["measured", "roofline"]
    time_ns: float
    energy_pJ: float | None
    note: str
    """What the figures are and are not; to be printed with them."""


@cache
def measured() -> Measured:
    """The provenance of the H200's table."""
    return load(Measured, "measured", str(_FOLDER / "h200.yaml"))[0]


@cache
def processors() -> dict[str, Processor]:
    """All processors of the roofline model."""
    return load(Processors, "processors", str(_FOLDER / "processors.yaml"))[0].processors


@cache
def _points() -> dict[tuple[str, str, int], list[Point]]:
    """(model, mode, batch) → decode steps by the context they attend to."""
    points = defaultdict(list)
    for row in _rows(measured().table):
        point = Point(int(row["context"]), float(row["ms_per_step"]) * _NS_PER_MS, float(row["watts"]))
        points[row["model"], row["mode"], int(row["batch"])].append(point)
    return {key: sorted(values) for key, values in points.items()}


@cache
def _prompts() -> dict[tuple[str, int], list[Point]]:
    """(model, batch) → prompts by their tokens."""
    points = defaultdict(list)
    for row in _rows(measured().prompt_table):
        point = Point(int(row["tokens"]), float(row["ms"]) * _NS_PER_MS, float(row["watts"]))
        points[row["model"], int(row["batch"])].append(point)
    return {key: sorted(values) for key, values in points.items()}


def _rows(table: str) -> Iterator[dict[str, str]]:
    with (_FOLDER / table).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _between(points: list[Point], tokens: int) -> Step:
    """Time and power at `tokens`, each linear between ascending points, and the nearest point's outside."""
    right = bisect_left(points, tokens, key=lambda point: point.tokens)
    if right == len(points) or (right == 0 and points[0].tokens != tokens):
        _, time_ns, power_W = points[min(right, len(points) - 1)]
        return Step(time_ns, power_W, is_clamped=True)
    left = max(right - 1, 0)
    (start, *low), (end, *high) = points[left], points[right]
    share = (tokens - start) / (end - start) if right else 0.0
    time_ns, power_W = (a + share * (b - a) for a, b in zip(low, high, strict=True))
    return Step(time_ns, power_W, is_clamped=False)


def measured_step(model_name: str, mode: str, context: int, batch: int = 1) -> Step:
    """A decode step of the H200 that attends to `context` tokens; time and power each linear between points.

    Raises InputError, with what was measured, for a model, mode and batch that were not.
    """
    points = _points().get((model_name, mode, batch))
    if points is None:
        known = ", ".join(f"{name} {how} batch {size}" for name, how, size in _points())
        raise InputError(f"{model_name} {mode} batch {batch} was not measured; measured: {known}")
    return _between(points, context)


def roofline_time_per_token_ns(
    processor: Processor, model: Model, context: int, embedding: bool = True, head: bool = True
) -> float:
    """One decode step of one sequence that attends to `context` tokens, at the processor's peaks.

    Each operator takes the longer of bytes / memory bandwidth and operations / peak; operators add up.
    """
    workload = Workload(prompt=1, generate=1, embedding=embedding, head=head)
    return _pass_ns(processor, model, workload, 1, context)


def _pass_ns(processor: Processor, model: Model, workload: Workload, tokens: int, context: float) -> float:
    """A pass of `tokens` tokens of each sequence, the last of which attends to `context`.

    A lower bound on purpose: activations stay on the chip, and only matrices and attention count operations.
    """
    value_B, batch = processor.value_B, workload.batch
    # Token i of the pass attends to context - tokens + 1 + i tokens.
    attended = tokens * context - tokens * (tokens - 1) / 2

    def time_s(op: Op) -> float:
        values, operations = 0.0, 0.0
        match op.kind:
            case "linear":
                out, size = op.shape
                rows = 1 if op.group == "lm_head" else tokens
                values = prod(op.shape) + (out if len(op.parameters) > 1 else 0)
                operations = 2 * out * size * batch * rows
            case "score" | "context":
                values = model.kv_width * context * batch
                operations = 2 * model.q_width * attended * batch
            case "cache_k" | "cache_v":
                values = model.kv_width * tokens * batch
            case "embed":
                values = len(op.parameters) * model.d_model * tokens * batch
            case "layernorm" | "rmsnorm":
                values = len(op.parameters) * model.d_model
        return max(values * value_B / processor.memory_Bps, operations / processor.peak_FLOPps)

    graph = decoder_ops(model, workload.embedding, workload.head)
    once = sum(time_s(op) for op in graph.prologue + graph.epilogue)
    return (once + model.layers * sum(time_s(op) for op in graph.layer)) * _NS_PER_S


def compare(model: Model, workload: Workload) -> list[Baseline]:
    """The same work on every processor that is known: first what was measured, then the rooflines.

    All measurements hold the LM head, so a run without it has rooflines only.
    """
    found = list(_measured_runs(model, workload))
    note = "" if found else f"{model.name} with a batch of {workload.batch} was not measured on any GPU; "
    if found and not workload.head:
        found = []
        note = f"the {measured().processor} was measured with the LM head, which is left out here; "
    return found + [_roofline_run(p, model, workload, note) for p in processors().values()]


def _measured_runs(model: Model, workload: Workload) -> Iterator[Baseline]:
    name = _measured_as(model)
    processor = next(p for p in processors().values() if p.name == measured().processor)
    for mode, meaning in measured().modes.items():
        if name is None or (name, mode, workload.batch) not in _points():
            continue
        contexts = range(workload.prompt, workload.passes + 1)
        steps = [measured_step(name, mode, context, workload.batch) for context in contexts]
        notes = [f"{meaning}; board power; LM head included, embedding look-up left out"]
        if name != model.name:
            notes.append(f"measured as {name}, which has the same shape")
        if any(step.is_clamped for step in steps):
            known = [point.tokens for point in _points()[name, mode, workload.batch]]
            notes.append(f"contexts outside {known[0]} to {known[-1]} take the nearest measured one")
        if workload.prompt > 1:
            steps[0], note = _prompt(name, processor, model, workload, steps[0])
            notes.append(note)
        energy_nJ = sum(step.time_ns * step.power_W for step in steps)
        title, time_ns = f"{processor.name}, {mode}", sum(step.time_ns for step in steps)
        yield Baseline(title, "measured", time_ns, energy_nJ * _PJ_PER_NJ, "; ".join(notes))


def _prompt(
    name: str, processor: Processor, model: Model, workload: Workload, step: Step
) -> tuple[Step, str]:
    """A whole prompt in one pass with the LM head for its last token, and how that was come by.

    step: what one decode step at its end takes; a prompt never takes less
    """
    bound_ns = _pass_ns(processor, model, workload, workload.prompt, workload.prompt)
    found = _prompts().get((name, workload.batch))
    if found is None:
        return replace(step, time_ns=max(step.time_ns, bound_ns)), (
            "the prompt was not measured: it takes the longer of one measured step and its roofline, which "
            "flatters the GPU"
        )
    # Prompts were measured without the LM head, and as one CUDA graph; a prompt of one token is a decode step.
    head_ns = model.vocab * model.d_model * processor.value_B / processor.memory_Bps * _NS_PER_S
    one = measured_step(name, "graph", 1, workload.batch)
    points = [Point(1, one.time_ns, one.power_W)]
    points += [point._replace(time_ns=point.time_ns + head_ns) for point in found]
    prompt = _between(points, workload.prompt)
    note = (
        f"the prompt as measured in one pass with {', '.join(str(point.tokens) for point in found)} tokens "
        "(one CUDA graph, LM head added by its roofline), linear between them and a decode step, never less than a step"
    )
    if prompt.is_clamped:
        prompt = replace(prompt, time_ns=max(prompt.time_ns, bound_ns))
        note += "; a longer one takes the longer of the longest measured and its roofline"
    return max(prompt, step, key=lambda s: s.time_ns), note


def _measured_as(model: Model) -> str | None:
    """The measured model of the same shape, by preference the one of the same name; no gated model was measured."""
    if model.gated:
        return None
    shape = Shape(**{key: getattr(model, key) for key in Shape.model_fields})
    same = [name for name, other in measured().shapes.items() if other == shape]
    return model.name if model.name in same else next(iter(same), None)


def _roofline_run(processor: Processor, model: Model, workload: Workload, note: str) -> Baseline:
    time_ns = _pass_ns(processor, model, workload, workload.prompt, workload.prompt)
    steps = workload.passes - workload.prompt
    # With one token a pass every operator is linear in the context, so the mean context gives the exact sum.
    mean_context = workload.prompt + (steps + 1) / 2
    time_ns += steps * _pass_ns(processor, model, workload, 1, mean_context)
    note += (
        f"roofline from data-sheet peaks, fp{8 * processor.value_B}, nothing measured: no run is faster "
        f"unless its weights stay in caches; energy if it drew its TDP of {processor.tdp_W:g} W"
    )
    return Baseline(
        f"{processor.name}, roofline", "roofline", time_ns, time_ns * processor.tdp_W * _PJ_PER_NJ, note
    )
