"""The plan of a run: for every token one pass, for every pass its tasks."""

from __future__ import annotations

from collections.abc import Iterator

from pimloom.mapping.lower import DEVICE, LOWERINGS, read_parameters
from pimloom.mapping.site import Site
from pimloom.traces.task import Block, Pass, Task
from pimloom.workloads.graph import Op

FIXED = frozenset({"linear", "layernorm", "scale", "add", "activation"})
"""Operator kinds whose tasks do not depend on the position."""


class Planner:
    """Turns positions into tasks; what does not depend on the position is lowered once."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._fixed: dict[tuple[str, int], list[Task]] = {}
        self._parameters = {name: read_parameters(site, name) for name in ("layer", "epilogue")}

    def passes(self) -> Iterator[Pass]:
        """Yield the passes of the workload in order.

        A prompt token before the last needs no logits, so its pass ends with the layers.
        """
        workload = self.site.workload
        for position in range(workload.passes):
            yield self.pass_at(position, epilogue=position >= workload.prompt - 1)

    def pass_at(self, position: int, epilogue: bool = True) -> Pass:
        """Return the pass of the token at `position`."""
        graph, site = self.site.graph, self.site
        blocks = []
        if graph.prologue:
            blocks.append(Block("", tuple(self._tasks(graph.prologue, position))))
        layer = [*self._parameters["layer"], *self._tasks(graph.layer, position)]
        blocks.append(Block("layer{}.", tuple(layer), site.model.layers, site.layer_rows))
        if epilogue:
            tasks = [*self._parameters["epilogue"], *self._tasks(graph.epilogue, position)]
            blocks.append(Block("", tuple(tasks)))
        return Pass(position, tuple(blocks))

    def _tasks(self, ops: tuple[Op, ...], position: int) -> Iterator[Task]:
        for op in ops:
            for sequence in range(self.site.workload.batch):
                if op.kind not in FIXED:
                    yield from LOWERINGS[op.kind, DEVICE](self.site, op, position, sequence)
                    continue
                key = (op.name, sequence)
                if key not in self._fixed:
                    self._fixed[key] = LOWERINGS[op.kind, DEVICE](self.site, op, position, sequence)
                yield from self._fixed[key]
