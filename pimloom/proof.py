"""The functional proof: the programs that are timed are executed and held against NumPy and Hugging Face."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from pimloom.arch.document import InputError, Override, parse_overrides
from pimloom.arch.machine import load_arch
from pimloom.mapping.expect import Expectations, Expected
from pimloom.mapping.fill import F4, contents
from pimloom.mapping.plan import Planner
from pimloom.mapping.site import Site
from pimloom.sim.functional import Arithmetic, Executor, FunctionalError, Memory, Registers, rounded
from pimloom.traces.task import Pass, PimTask, Task
from pimloom.workloads import huggingface, tensors
from pimloom.workloads.model import Model, load_model
from pimloom.workloads.reference import ReferenceDecoder
from pimloom.workloads.request import Workload, by_target, load_workload

TOLERANCE = 1e-4
"""Largest difference of fp32 logits over the largest logit, as the reference data's README asks for."""
BF16_B = 2
TOKENS = 4
"""Prompt and new tokens of a run that says nothing about them."""

Progress = Callable[[int, int], None]
"""Told how many passes are done, and of how many."""


@dataclass(frozen=True)
class Validation:
    """Outcome of a functional run.

    max_relative_error: largest difference of all logits over the largest magnitude; None = not a number
    tokens_compared, tokens_equal: generated tokens, and those that come out the same
    positions_compared: tokens after which all logits were compared
    near_ties: generated tokens whose two best reference logits are closer than the largest error (device)
    first_mismatch: first wrong operator with channel, bank, row, column and both numbers; empty = none
    """

    max_relative_error: float | None
    tokens_compared: int
    tokens_equal: int
    arithmetic: Arithmetic
    passed: bool
    positions_compared: int
    near_ties: int
    first_mismatch: str


@dataclass(frozen=True)
class Reference:
    """What the logits must be.

    prompt, generated: token numbers; prefill: f4[prompt, vocab]; steps: f4[generated, vocab], the logits from
    which each generated token was taken
    """

    prompt: list[int]
    generated: list[int]
    prefill: F4
    steps: F4


class Proof:
    """A site's memory, filled; runs passes and holds every task against NumPy until one is wrong."""

    def __init__(self, site: Site, weights: dict[str, F4], arithmetic: Arithmetic) -> None:
        """weights: all tensors of the model; in place, they become what the banks can hold of them."""
        self.site = site
        for name, values in weights.items():
            weights[name] = rounded(values, arithmetic)
        held = {"head.weight": weights["wte"], **weights}
        self.memory = Memory(site.arch, site.used_rows, arithmetic)
        for place, values in contents(site, held):
            self.memory.store(place, values)
        self.executor = Executor(site.arch, self.memory, arithmetic)
        self.mismatch = ""
        self._expectations = Expectations(
            site, held, lambda values: rounded(values, arithmetic), arithmetic == "device"
        )

    def run(self, item: Pass, sequence: int = 0) -> F4 | None:
        """Execute a whole pass; return a sequence's logits, or None if a program cannot be carried out."""
        done = list[str]()
        for block in item.blocks:
            for turn in range(block.repeat):
                for task in block.tasks:
                    where = f"{block.label.format(turn)}{task.name} at position {item.position}"
                    try:
                        self._run(task, where, turn, block.row_stride, item.position)
                    except FunctionalError as error:
                        self.mismatch = self.mismatch or f"{where}: {error}"
                        return None
                    if finished := self._expectations.finished(task):
                        done.append(block.label.format(turn) + finished)
        # An operator left out leaves an old vector behind, with which every later one may be right.
        wanted = [op.name for op in self.site.graph.ops() for _ in range(self.site.workload.batch)]
        wrong = next((a or b for a, b in zip_longest(wanted, done) if a != b), None)
        if wrong and not self.mismatch:
            self.mismatch = f"{wrong} at position {item.position}: not carried out in its turn"
        return self.executor.registers[f"logits.{sequence}"]

    def _run(self, task: Task, where: str, turn: int, row_stride: int, position: int) -> None:
        before = Registers(self.executor.registers)
        self.executor.run(task, turn, row_stride)
        if self.mismatch:
            return
        expected = self._expectations.of(task, turn, position, before)
        if expected is not None:
            where += "" if isinstance(task, PimTask) else " on the ASIC"
            self.mismatch = self._difference(where, self.executor.registers[task.writes[0]], expected)

    def _difference(self, name: str, got: F4, expected: Expected) -> str:
        """Return what is wrong with the first wrong value, empty if none is."""
        if len(got) != len(expected.values):
            return f"{name}: {len(got)} values, should be {len(expected.values)}"
        wrong = np.flatnonzero(~(np.abs(got - expected.values) <= expected.bound))
        if len(wrong) == 0:
            return ""
        i = int(wrong[0])
        wanted = f"{expected.values[i]:.9g} within {expected.bound[i]:.2g}"
        text = f"{name}: element {i} is {got[i]:.9g}, should be {wanted}"
        if expected.cells is None:
            return text
        place, held = expected.cells(i)
        stored = self.memory.load(place)
        cells = np.flatnonzero(stored != held)
        k = int(cells[0]) if len(cells) else 0
        channel, bank, row, column, lane = (int(np.ravel(field)[k]) for field in place)
        text += f"; channel {channel}, bank {bank}, row {row}, column {column}"
        if len(cells):
            return f"{text}: value {lane} there is {stored[k]:.9g}, should be {held[k]:.9g}"
        return f"{text}, where it starts: all {len(held)} stored values of this result are right"


class Given(NamedTuple):
    """What a functional run starts from: all tensors of the model, the tokens asked for, what must come out."""

    weights: dict[str, F4]
    workload: Workload
    reference: Reference


def given_work(
    model: str,
    described: Model,
    of_workload: Sequence[Override],
    prompt: int | None,
    generate: int | None,
    seed: int,
    fits: Callable[[Workload], object],
) -> Given:
    """Return weights, workload and reference of a model; arguments as of `validate`.

    fits: called before weights are made, which for a large model takes long; raises InputError where it does not fit
    Raises InputError.
    """
    config = huggingface.config_path(model)
    if config is None:
        source, io = tensors.random(described, seed), None
    else:
        source, io = tensors.from_safetensors(config.parent, described), config.parent / "io.npz"
    stored = stored_reference(io, described) if io is not None and io.is_file() else None
    own = (len(stored.prompt), len(stored.generated)) if stored else (TOKENS, TOKENS)
    workload = load_workload(
        of_workload,
        prompt=own[0] if prompt is None else prompt,
        generate=own[1] if generate is None else generate,
    )
    workload.check_fits(described)
    if workload.batch != 1 or not (workload.embedding and workload.head):
        raise InputError("validate runs one sequence, from a token's number to its logits")
    if stored and own != (workload.prompt, workload.generate):
        found = f"prompt {own[0]} and generate {own[1]}"
        raise InputError(f"{io}: this run has {found}, not {workload.prompt} and {workload.generate}")
    fits(workload)
    weights = {name: source[name] for name in described.tensor_shapes()}
    return Given(weights, workload, stored or made_reference(described, weights, workload, seed))


def validate(
    model: str,
    arch: str,
    arithmetic: Arithmetic = "fp32",
    *,
    prompt: int | None = None,
    generate: int | None = None,
    seed: int = 0,
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
    tamper: Callable[[Memory, Site], None] | None = None,
) -> Validation:
    """Execute a model's programs and compare all logits, teacher-forced, with the reference's.

    model: a shipped name or a YAML (random weights), or a folder with Hugging Face's config.json and weights;
    an io.npz in it holds the prompt and the logits to compare with, else the NumPy decoder makes them
    prompt, generate: numbers of tokens, those of io.npz or else 4 and 4
    seed: of random weights and of a random prompt; overrides: as `run.prepare` takes them
    tamper: changes the filled memory, to show that errors are found
    Raises InputError for missing or unfit files, models and numbers.
    """
    of_arch, of_model, of_workload = by_target(parse_overrides(overrides))
    described, _ = load_model(model, of_model)
    machine, _ = load_arch(arch, of_arch)
    if arithmetic == "device" and machine.pim.element_B != BF16_B:
        raise InputError(
            f"{machine.name}: pim.element_B: device arithmetic is bf16, {BF16_B} B an element, "
            f"not {machine.pim.element_B}"
        )
    sites = list[Site]()
    given = given_work(
        model, described, of_workload, prompt, generate, seed,
        lambda workload: sites.append(Site(described, machine, workload)),
    )  # fmt: skip
    site, reference = sites[0], given.reference
    site.tokens = [reference.prompt + reference.generated[:-1]]
    proof = Proof(site, given.weights, arithmetic)
    if tamper is not None:
        tamper(proof.memory, proof.site)
    return _compare(proof, reference, arithmetic, progress)


def _compare(
    proof: Proof, reference: Reference, arithmetic: Arithmetic, progress: Progress | None
) -> Validation:
    planner, prompt = Planner(proof.site), len(reference.prompt)
    largest = max(float(np.abs(reference.prefill).max()), float(np.abs(reference.steps).max()))
    error, chosen, positions = 0.0, list[int](), 0
    for position in range(proof.site.workload.passes):
        if progress is not None:
            progress(position, proof.site.workload.passes)
        logits = proof.run(planner.pass_at(position))
        if logits is None:
            break
        positions += 1
        wanted = [reference.prefill[position]] if position < prompt else []
        if position >= prompt - 1:
            wanted.append(reference.steps[position - prompt + 1])
            chosen.append(int(proof.executor.registers["token.0"][0]))
        # Not max(): it would lose a difference that is no number.
        error = float(np.max([error, *(np.abs(logits - row).max() for row in wanted)]))
        if not proof.mismatch and arithmetic == "fp32" and not error <= TOLERANCE * largest:
            proof.mismatch = _wrong_logit(position, logits, wanted)
    equal = [ours == theirs for ours, theirs in zip(chosen, reference.generated, strict=False)]
    best = np.sort(reference.steps, axis=1)[:, -2:]
    ties = best[:, -1] - best[:, 0] < error if arithmetic == "device" else np.zeros(len(best), bool)
    ties &= best.shape[1] > 1
    for k, same in enumerate(equal):
        if not (same or ties[k] or proof.mismatch):
            proof.mismatch = (
                f"logits at position {prompt - 1 + k}: token {chosen[k]} is the largest, should be "
                f"{reference.generated[k]}"
            )
    return Validation(
        max_relative_error=error / largest if positions and np.isfinite(error) else None,
        tokens_compared=len(reference.generated),
        tokens_equal=sum(equal),
        arithmetic=arithmetic,
        passed=not proof.mismatch and len(equal) == len(reference.generated),
        positions_compared=positions,
        near_ties=int(ties.sum()),
        first_mismatch=proof.mismatch,
    )


def _wrong_logit(position: int, logits: F4, wanted: list[F4]) -> str:
    """Return the message for logits that are wrong although no operator was."""
    row = max(wanted, key=lambda row: float(np.nan_to_num(np.abs(logits - row), nan=np.inf).max()))
    token = int(np.argmax(np.nan_to_num(np.abs(logits - row), nan=np.inf)))
    return (
        f"logits at position {position}: element {token} is {logits[token]:.9g}, should be {row[token]:.9g}, "
        "though every operator is right for its inputs: do weights, config and logits belong together?"
    )


def made_reference(model: Model, weights: Mapping[str, F4], workload: Workload, seed: int) -> Reference:
    """Return what the NumPy decoder makes of a random prompt."""
    given = np.random.default_rng(seed).integers(0, model.vocab, workload.prompt).tolist()
    decoder = ReferenceDecoder(model, {"head.weight": weights["wte"], **weights})
    prefill = decoder.prefill(given)
    steps = [prefill[-1]]
    generated = [int(np.argmax(prefill[-1]))]
    while len(generated) < workload.generate:
        steps.append(decoder.step(generated[-1]))
        generated.append(int(np.argmax(steps[-1])))
    return Reference(given, generated, prefill, np.stack(steps))


def stored_reference(path: Path, model: Model) -> Reference:
    """Read io.npz. Raises InputError unless it holds tokens and logits of the model."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    try:
        with np.load(path) as file:
            for key in ("prompt", "prefill_logits", "generated", "step_logits"):
                if key not in file:
                    raise InputError(f"{path}: {key} is missing")
                arrays[key] = file[key]
    except (OSError, ValueError, BadZipFile) as error:
        raise InputError(f"{path}: not a readable npz file: {error}") from error
    given, generated = arrays["prompt"], arrays["generated"]
    for key in ("prompt", "generated"):
        found = arrays[key]
        if found.ndim != 1 or len(found) == 0 or not np.issubdtype(found.dtype, np.integer):
            kind = f"{found.dtype}{found.shape}"
            raise InputError(f"{path}: {key} should be a list of token numbers, not {kind}")
        ids = found.astype(np.int64)
        if ids.min() < 0 or ids.max() >= model.vocab:
            wrong = f"token {ids[(ids < 0) | (ids >= model.vocab)][0]}"
            raise InputError(f"{path}: {key}: {wrong} is not in the vocabulary of {model.vocab} entries")
    for key, count in (("prefill_logits", len(given)), ("step_logits", len(generated))):
        found, shape = arrays[key], (count, model.vocab)
        if found.shape != shape or found.dtype.kind != "f" or not np.isfinite(found).all():
            kind = f"{found.dtype}{found.shape}"
            raise InputError(f"{path}: {key} should be finite numbers of shape {shape}, not {kind}")
    return Reference(
        given.astype(np.int64).tolist(),
        generated.astype(np.int64).tolist(),
        arrays["prefill_logits"].astype(np.float32),
        arrays["step_logits"].astype(np.float32),
    )
