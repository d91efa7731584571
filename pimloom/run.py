"""Runs from names to results: the functions behind the command line and `import pimloom`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pimloom.arch.document import Document, InputError, parse_overrides
from pimloom.arch.machine import Arch, load_arch
from pimloom.mapping.plan import Planner
from pimloom.mapping.site import Site
from pimloom.workloads.model import Model, load_model
from pimloom.workloads.request import Workload, by_target, load_workload

if TYPE_CHECKING:
    from pimloom.reports.result import Result
    from pimloom.sim.engine import EngineName
    from pimloom.traces.io import CommandTrace
    from pimloom.traces.task import Pass

Progress = Callable[[int, int], None]
"""Told how many passes are done, and of how many."""


@dataclass(frozen=True)
class Setup:
    """Everything that a run needs, resolved and checked; `documents` holds the arch's and the model's."""

    model: Model
    arch: Arch
    workload: Workload
    documents: dict[str, Document]

    @cached_property
    def site(self) -> Site:
        """The model placed in the machine's memory; raises InputError if it does not fit."""
        return Site(self.model, self.arch, self.workload)


def prepare(
    model: str,
    arch: str,
    *,
    prompt: int = 1,
    generate: int = 128,
    batch: int = 1,
    embedding: bool = True,
    head: bool = True,
    overrides: Sequence[str] = (),
) -> Setup:
    """Resolve names, paths and overrides, and place the model in the machine's memory.

    overrides: `key=value`; `workload.` and `model.` keys go there, all others are the arch's, as in its YAML.
    Raises InputError for whatever does not exist, is wrong or does not fit.
    """
    of_arch, of_model, of_workload = by_target(parse_overrides(overrides))
    machine, arch_document = load_arch(arch, of_arch)
    network, model_document = load_model(model, of_model)
    work = load_workload(
        of_workload, prompt=prompt, generate=generate, batch=batch, embedding=embedding, head=head
    )
    work.check_fits(network)
    setup = Setup(network, machine, work, {"arch": arch_document, "model": model_document})
    _ = setup.site
    return setup


def simulate(
    model: str,
    arch: str,
    *,
    prompt: int = 1,
    generate: int = 128,
    batch: int = 1,
    embedding: bool = True,
    head: bool = True,
    engine: EngineName = "fast",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Result:
    """Simulate a model on an architecture, token by token.

    model: shipped name, YAML, Hugging Face config.json or a folder with one; arch: shipped name or YAML
    engine: "fast", "events" (SimPy processes) or "naive" (plain Python); all give the same times and counts
    Raises InputError for bad input.
    """
    started = time.perf_counter()
    setup = prepare(
        model,
        arch,
        prompt=prompt,
        generate=generate,
        batch=batch,
        embedding=embedding,
        head=head,
        overrides=overrides,
    )
    return run(setup, engine, progress, started)


def run(
    setup: Setup, engine: EngineName = "fast", progress: Progress | None = None, started: float | None = None
) -> Result:
    """Simulate what `prepare` returned."""
    from pimloom.reports.result import Result
    from pimloom.sim import engine as engines
    from pimloom.sim.record import Record, Recorder

    started = time.perf_counter() if started is None else started
    notes = Recorder()

    def passes() -> Iterator[Pass]:
        for done, item in enumerate(Planner(setup.site).passes(), 1):
            yield item
            if progress:
                progress(done, setup.workload.passes)

    outcome = engines.run(setup.arch, passes(), notes, engine)
    return Result.of_run(
        model=setup.model,
        arch=setup.arch,
        workload=setup.workload,
        site=setup.site,
        record=Record(notes, outcome),
        documents=setup.documents,
        engine=engine,
        wall_s=time.perf_counter() - started,
    )


def trace(setup: Setup, first: int, stop: int) -> CommandTrace:
    """Return the commands issued for the passes first .. stop - 1, with their clocks; the run starts at pass 0.

    Without barrier passes overlap in time: a window that begins after pass 0 then lacks what the pass before it still
    issues. Raises InputError for an empty or impossible range.
    """
    from pimloom.sim.engine import run_logged
    from pimloom.traces.io import from_log, merge

    if not 0 <= first < stop <= setup.workload.passes:
        raise InputError(
            f"--tokens {first}:{stop}: should be a part, not empty, of the run's passes 0:{setup.workload.passes}"
        )
    logs = run_logged(setup.arch, lambda: Planner(setup.site).passes(), first, stop)
    return merge([from_log(setup.arch.dram, c, log) for c, log in enumerate(logs)])
