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
    seen: list[tuple[int, np.ndarray, np.ndarray]] = []

    def observe(item: Pass, times: list) -> None:
        begin, end = ([getattr(t, side).ravel() for t in times] for side in ("begin", "end"))
        seen.append((item.position, np.concatenate(begin), np.concatenate(end)))

    out = run(arch, passes, observe, engine, device)
    # Without barrier a pass that waits for nothing may be over before the one ahead of it.
    seen.sort(key=lambda entry: entry[0])
    begin, end = (np.concatenate([np.zeros(0, np.int64), *(e[k] for e in seen)]).tolist() for k in (1, 2))
    place = out.totals.shape[1] - EXTRAS + EXTRA_STEPPED
    totals = np.delete(out.totals, place, 1).tolist()
    result = Result(out.end_ps, totals, out.asic_busy_ps, [e[0] for e in seen], begin, end)
    return Full(result, int(out.totals[:, place].sum()))


def planner(arch: Arch, model: str, model_keys: Iterable[str] = (), **workload: int) -> Planner:
    """The plan of a shipped model or of a folder in tests/data/functional."""
    name = str(DATA / model) if (DATA / model).exists() else model
    asked = {"prompt": 1, "generate": 1} | workload
    return Planner(Site(load_model(name, list(model_keys))[0], arch, Workload(**asked)))


def machine(*keys: str, name: str = "pim-gpt") -> Arch:
    return load_arch(name, list(keys))[0]
