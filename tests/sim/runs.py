"""Whole runs for tests: an engine on passes, with everything that it reports."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pimloom.arch.machine import Arch, load_arch
from pimloom.mapping.plan import Planner
from pimloom.mapping.site import Site
from pimloom.sim.channel import EXTRA_STEPPED, EXTRAS
from pimloom.sim.engine import Device, EngineName, run
from pimloom.traces.task import Pass
from pimloom.workloads.model import load_model
from pimloom.workloads.request import Workload
from tests.small import DATA

ENGINES: list[EngineName] = ["fast", "events", "naive"]


class Result(NamedTuple):
    """A run: its end, its books without the steps of the kernel, its tasks' times in issue order."""

    end_ps: int
    totals: list[list[int]]
    asic_busy_ps: int
    positions: list[int]
    begin: list[int]
    end: list[int]


class Full(NamedTuple):
    """A run and the steps that its kernels took."""

    result: Result
    stepped: int


def execute(
    arch: Arch, passes: Iterable[Pass], engine: EngineName = "fast", device: Device | None = None
) -> Full:
    positions: list[int] = []
    begin, end = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]

    def observe(item: Pass, times: list) -> None:
        positions.append(item.position)
        begin.extend(t.begin.ravel() for t in times)
        end.extend(t.end.ravel() for t in times)

    out = run(arch, passes, observe, engine, device)
    place = out.totals.shape[1] - EXTRAS + EXTRA_STEPPED
    totals = np.delete(out.totals, place, 1).tolist()
    b, e = np.concatenate(begin).tolist(), np.concatenate(end).tolist()
    return Full(
        Result(out.end_ps, totals, out.asic_busy_ps, positions, b, e), int(out.totals[:, place].sum())
    )


def planner(arch: Arch, model: str, model_keys: Iterable[str] = (), **workload: int) -> Planner:
    """The plan of a shipped model or of a folder in tests/data/functional."""
    name = str(DATA / model) if (DATA / model).exists() else model
    asked = {"prompt": 1, "generate": 1} | workload
    return Planner(Site(load_model(name, list(model_keys))[0], arch, Workload(**asked)))


def machine(*keys: str, name: str = "pim-gpt") -> Arch:
    return load_arch(name, list(keys))[0]
