"""The functional proof on PIM devices: kernels and whole models through the very programs that are timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from pimloom.arch.document import parse_overrides
from pimloom.arch.system import Partition, load_system
from pimloom.bench import KernelRun
from pimloom.proof import TOLERANCE, Reference, Validation, given_work
from pimloom.sim.banks import Memory
from pimloom.sim.functional import Arithmetic, FunctionalError
from pimloom.sim.functional_device import execute
from pimloom.system import Plan
from pimloom.traces.stream import Attention, Elementwise, Gemv, Kernel, Work
from pimloom.workloads.graph import Op
from pimloom.workloads.model import load_model
from pimloom.workloads.reference import Array, ReferenceDecoder, softmax
from pimloom.workloads.request import Workload, by_target

Progress = Callable[[int, int], None]


def random_operands(work: Work, seed: int = 0) -> dict[str, Array]:
    """Return the operands of a piece of work, f32 and small enough for any arithmetic; `vector` is what moves."""
    rng = np.random.default_rng(seed)

    def uniform(*shape: int) -> Array:
        return rng.uniform(-1, 1, shape).astype(np.float32)

    match work:
        case Gemv():
            return {"matrix": uniform(work.outputs, work.inputs), "vector": uniform(work.batch, work.inputs)}
        case Elementwise(kind="relu"):
            return {"a": uniform(work.elements), "vector": uniform(0)}
        case Elementwise():
            return {"a": uniform(work.elements), "b": uniform(work.elements), "vector": uniform(0)}
        case Attention(kind="context"):
            held = uniform(work.kv_heads, work.tokens, work.d_head)
            return {"values": held, "vector": uniform(work.heads, work.tokens)}
        case Attention(kind="score"):
            held = uniform(work.kv_heads, work.tokens, work.d_head)
            return {"keys": held, "vector": uniform(work.heads, work.d_head)}
    shape = (work.kv_heads, work.tokens, work.d_head)
    return {"keys": uniform(*shape), "values": uniform(*shape), "vector": uniform(work.heads, work.d_head)}


def expected(work: Work, operands: Mapping[str, Array]) -> Array:
    """Return what NumPy makes of the operands, flat."""
    vector = operands["vector"]
    match work:
        case Gemv():
            product: Array = vector @ operands["matrix"].T
            return product.reshape(-1)
        case Elementwise(kind="relu"):
            positive: Array = np.maximum(operands["a"], 0)
            return positive
        case Elementwise():
            a, b = operands["a"], operands["b"]
            combined: Array = a + b if work.kind == "add" else a * b
            return combined
    grouped = vector.reshape(work.kv_heads, -1, vector.shape[1])
    if work.kind != "context":
        scores = np.einsum("kgd,ktd->kgt", grouped, operands["keys"])
        if work.kind == "score":
            return np.asarray(scores, np.float32).reshape(-1)
        grouped = softmax(scores)
    result: Array = np.einsum("kgt,ktd->kgd", grouped, operands["values"])
    return result.reshape(-1)


def check(run: KernelRun, seed: int = 0) -> float:
    """Execute a kernel on random numbers; return its largest difference from NumPy over the largest value.

    Raises FunctionalError for a program that no memory could carry out.
    """
    operands = random_operands(run.work, seed)
    memory = Memory(run.device, "fp32")
    for name, place in run.kernel.stored().items():
        memory.store(place, operands[name])
    got = execute(run.device, run.kernel, memory, operands["vector"].reshape(-1))
    wanted = expected(run.work, operands)
    return float(np.abs(got - wanted).max() / max(np.abs(wanted).max(), np.finfo(np.float32).tiny))


class DeviceDecoder(ReferenceDecoder):
    """A decoder whose matrices and attention are computed by a system's device, program by program.

    mismatch: the first operator whose numbers are not NumPy's, empty while there is none
    """

    def __init__(self, plan: Plan, tensors: Mapping[str, Array], arithmetic: Arithmetic) -> None:
        """Put the matrices into the banks. Raises InputError for a model that does not fit."""
        super().__init__(plan.model, tensors)
        self.layout = plan.layout
        self.device, self.arithmetic = plan.system.device, arithmetic
        self.memory = Memory(self.device, arithmetic)
        self.mismatch = ""
        self.queries = np.empty(0, np.float32)
        self.kernels: dict[str, Kernel] = {}
        for op in self.ops:
            if op.kind == "linear" and self.layout.linear:
                kernel = self.layout.gemv(op).moved(self.row(op))
                self.memory.store(kernel.stored()["matrix"], self.tensors[op.parameters[0]])
                self.kernels[op.name] = kernel

    def row(self, op: Op) -> int:
        """First row of an operator's operands."""
        if op.layer < 0:
            return self.layout.rows[op.name]
        return op.layer * self.layout.layer_rows + self.layout.rows[op.name.partition(".")[2]]

    def apply(self, op: Op, registers: Mapping[str, Array]) -> Array:
        """See ReferenceDecoder; on the device where that does the operator."""
        wanted = super().apply(op, registers)
        if op.kind == "linear" and op.name in self.kernels:
            got = execute(self.device, self.kernels[op.name], self.memory, registers[op.inputs[0]])
            if len(op.parameters) > 1:
                got = got + self.tensors[op.parameters[1]]
        elif op.kind in ("score", "context") and self.layout.attention:
            if op.kind == "score":
                self.queries = registers[op.inputs[0]]
            if self.layout.whole_attention and op.kind == "score":
                return wanted
            kernel = self.layout.attend(op, self.position + 1).moved(self.row(op))
            caches = {"keys": self.caches["K"], "values": self.caches["V"]}
            for name, place in kernel.stored().items():
                held = caches[name][op.layer, : self.position + 1]
                self.memory.store(place, np.moveaxis(held, 0, 1))
            vector = self.queries if self.layout.whole_attention else registers[op.inputs[0]]
            got = execute(self.device, kernel, self.memory, vector.reshape(-1))
        else:
            return wanted
        got = got.reshape(wanted.shape)
        # A product's error grows with the sum of its terms' magnitudes, not with the result.
        scale = float(np.abs(wanted).max())
        error = float(np.abs(got - wanted).max())
        if self.arithmetic == "fp32" and not self.mismatch and not error <= TOLERANCE * max(scale, 1e-30):
            self.mismatch = (
                f"{op.name} at position {self.position}: off by {error / scale:.2g} of its largest value"
            )
        return got


def validate_system(
    model: str,
    system: str,
    arithmetic: Arithmetic = "fp32",
    *,
    prompt: int | None = None,
    generate: int | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Validation:
    """Execute a model's programs on a system's device and compare all logits, teacher-forced, with the reference's.

    Arguments as of `proof.validate`. Raises InputError for missing or unfit files, models and numbers.
    """
    of_system, of_model, of_workload = by_target(parse_overrides(overrides))
    described, model_document = load_model(model, of_model)
    machine, document = load_system(system, of_system)
    # Shards of a matrix and heads know nothing of one another: one device computes what several would.
    machine = machine.model_copy(update={"partition": Partition(channels=machine.partition.channels)})
    documents = {"arch": document, "model": model_document}
    plans = list[Plan]()

    def fits(workload: Workload) -> None:
        plans.append(Plan(described, machine, workload, True, documents))
        _ = plans[0].layout

    given = given_work(model, described, of_workload, prompt, generate, seed, fits)
    plan = plans[0]
    held = {"head.weight": given.weights["wte"], **given.weights}
    decoder = DeviceDecoder(plan, held, arithmetic)
    return _compare(decoder, given.reference, arithmetic, progress)


def _compare(
    decoder: DeviceDecoder, reference: Reference, arithmetic: Arithmetic, progress: Progress | None
) -> Validation:
    tokens = reference.prompt + reference.generated[:-1]
    largest = max(float(np.abs(reference.prefill).max()), float(np.abs(reference.steps).max()))
    error, compared, chosen = 0.0, 0, list[int]()
    for position, token in enumerate(tokens):
        if progress:
            progress(position, len(tokens))
        try:
            logits = decoder.step(token)
        except FunctionalError as wrong:
            decoder.mismatch = decoder.mismatch or f"position {position}: {wrong}"
            break
        wanted = [reference.prefill[position]] if position < len(reference.prompt) else []
        if position >= len(reference.prompt) - 1:
            wanted.append(reference.steps[position - len(reference.prompt) + 1])
            chosen.append(int(np.argmax(logits)))
        error = float(np.max([error, *(np.abs(logits - row).max() for row in wanted)]))
        compared += 1
    equal = sum(a == b for a, b in zip(chosen, reference.generated, strict=False))
    best = np.sort(reference.steps, axis=1)[:, -2:]
    ties = best[:, -1] - best[:, 0] < error if arithmetic == "device" else np.zeros(len(best), bool)
    if arithmetic == "fp32" and not decoder.mismatch and not error <= TOLERANCE * largest:
        decoder.mismatch = (
            f"logits: off by {error / largest:.2g} of the largest, though every operator is right"
        )
    unlike = [k for k, token in enumerate(chosen) if token != reference.generated[k] and not ties[k]]
    if unlike and not decoder.mismatch:
        decoder.mismatch = (
            f"new token {unlike[0]} is {chosen[unlike[0]]}, should be {reference.generated[unlike[0]]}"
        )
    return Validation(
        max_relative_error=error / largest if compared and np.isfinite(error) else None,
        tokens_compared=len(reference.generated),
        tokens_equal=equal,
        arithmetic=arithmetic,
        passed=not decoder.mismatch and len(chosen) == len(reference.generated),
        positions_compared=compared,
        near_ties=int(ties.sum()),
        first_mismatch=decoder.mismatch,
    )
