"""What a run writes down while it goes: ends of passes, time and traffic by operator class, every task's times."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pimloom.sim.channel import I8
from pimloom.sim.engine import Outcome, Times
from pimloom.traces.task import AsicTask, Block, Pass, PimTask


class Step(NamedTuple):
    """One task as it ran; times in ps."""

    position: int
    name: str
    group: str
    unit: str
    begin_ps: int
    end_ps: int


@dataclass
class Recorder:
    """Observer of a run.

    ends_ps: end of every pass; positions: its token's position
    group_ps: operator class -> time by which its tasks moved the end of the run, summed over the run; the classes
    add up to the total. With barrier this is their latency, without it what is not hidden behind others.
    traffic: operator class -> i8[3] values sent (all copies), sent (each once), received
    """

    positions: list[int] = field(default_factory=list)
    ends_ps: list[int] = field(default_factory=list)
    pass_group_ps: list[dict[str, int]] = field(default_factory=list)
    traffic: dict[str, I8] = field(default_factory=dict)
    passes: list[tuple[Pass, list[Times]]] = field(default_factory=list)
    _groups: dict[str, int] = field(default_factory=dict)
    _last_ps: int = 0

    def __call__(self, item: Pass, times: list[Times]) -> None:
        """Take down a pass."""
        ids = [np.tile([self._group(t.group) for t in b.tasks], b.repeat) for b in item.blocks]
        ends = np.concatenate([np.array([self._last_ps]), *(t.end.reshape(-1) for t in times)])
        moved = np.diff(np.maximum.accumulate(ends))
        by_group = np.bincount(np.concatenate(ids), weights=moved, minlength=len(self._groups))
        self._last_ps = int(ends.max())
        self.positions.append(item.position)
        self.ends_ps.append(self._last_ps)
        self.pass_group_ps.append({name: int(by_group[i]) for name, i in self._groups.items()})
        for block in item.blocks:
            self._count(block)
        self.passes.append((item, times))

    def _group(self, name: str) -> int:
        return self._groups.setdefault(name, len(self._groups))

    def _count(self, block: Block) -> None:
        for task in block.tasks:
            if isinstance(task, PimTask):
                sums = self.traffic.setdefault(task.group, np.zeros(3, np.int64))
                sums += np.array(task.traffic, np.int64) * block.repeat

    @property
    def group_ps(self) -> dict[str, int]:
        """Time of each operator class over the whole run, in order of first use."""
        return {name: sum(p.get(name, 0) for p in self.pass_group_ps) for name in self._groups}

    def steps(self, first: int = 0, stop: int | None = None) -> Iterator[Step]:
        """Yield every task of passes first .. stop - 1 in issue order."""
        for item, times in self.passes[first:stop]:
            for block, t in zip(item.blocks, times, strict=True):
                for turn in range(block.repeat):
                    label = block.label.format(turn)
                    for k, task in enumerate(block.tasks):
                        unit = "asic" if isinstance(task, AsicTask) else "pim"
                        yield Step(
                            item.position,
                            label + task.name,
                            task.group,
                            unit,
                            int(t.begin[turn, k]),
                            int(t.end[turn, k]),
                        )


@dataclass(frozen=True)
class Record:
    """A finished run: the recorder's notes and the engine's books."""

    notes: Recorder
    outcome: Outcome
