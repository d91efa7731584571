"""Small finished runs, on the plain Python engine, which needs no compilation."""

from pathlib import Path

import pytest

from pimloom.arch.machine import load_arch
from pimloom.mapping.plan import Planner
from pimloom.mapping.site import Site
from pimloom.reports.result import Result
from pimloom.sim.engine import run
from pimloom.sim.record import Record, Recorder
from pimloom.workloads.model import load_model
from pimloom.workloads.request import Workload

TINY = str(Path(__file__).parent.parent / "data" / "functional" / "gpt2-tiny")


def simulate(overrides: tuple[str, ...] = (), **workload: int | bool) -> Result:
    arch, arch_document = load_arch("pim-gpt", overrides)
    model, model_document = load_model(TINY)
    asked = Workload(**workload)
    site, notes = Site(model, arch, asked), Recorder()
    outcome = run(arch, Planner(site).passes(), notes, "naive")
    return Result.of_run(
        model=model, arch=arch, workload=asked, site=site, record=Record(notes, outcome),
        documents={"arch": arch_document, "model": model_document}, engine="naive", wall_s=0.5,
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny() -> Result:
    """Two prompt tokens and three new ones."""
    return simulate(prompt=2, generate=3)


@pytest.fixture(scope="session")
def overlapped() -> Result:
    """The same where only data are waited for."""
    return simulate(("mapping.barrier=data",), prompt=2, generate=3)
