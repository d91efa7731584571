"""Every task of a run as a table, one row a task in issue order."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pimloom.sim.record import Recorder
from pimloom.traces.task import AsicTask, Block

if TYPE_CHECKING:
    import pandas as pd

NAMED = ("op", "group", "unit")


def ops_table(notes: Recorder) -> pd.DataFrame:
    """Return the columns position, op, group, unit (categories), begin_ns, end_ns (exact to 1 ps)."""
    import pandas as pd

    categories: dict[str, dict[str, int]] = {name: {} for name in NAMED}
    known: dict[Hashable, dict[str, npt.NDArray[np.int32]]] = {}
    codes: dict[str, list[npt.NDArray[np.int32]]] = {name: [] for name in NAMED}
    positions, begins, ends = [], [], []

    def number(column: str, names: list[str]) -> npt.NDArray[np.int32]:
        seen = categories[column]
        return np.array([seen.setdefault(name, len(seen)) for name in names], np.int32)

    def encode(block: Block) -> dict[str, npt.NDArray[np.int32]]:
        """Return the block's names as numbers, worked out once for blocks that read the same."""
        tasks = [(t.name, t.group, "asic" if isinstance(t, AsicTask) else "pim") for t in block.tasks]
        key = (block.label, block.repeat, *tasks)
        if key not in known:
            labels = [block.label.format(turn) for turn in range(block.repeat)]
            known[key] = {
                "op": number("op", [label + name for label in labels for name, _, _ in tasks]),
                "group": np.tile(number("group", [group for _, group, _ in tasks]), block.repeat),
                "unit": np.tile(number("unit", [unit for _, _, unit in tasks]), block.repeat),
            }
        return known[key]

    for item, times in notes.passes:
        for block, t in zip(item.blocks, times, strict=True):
            for name, numbers in encode(block).items():
                codes[name].append(numbers)
            positions.append(np.full(t.begin.size, item.position, np.int32))
            begins.append(t.begin.reshape(-1))
            ends.append(t.end.reshape(-1))
    columns = {
        name: pd.Categorical.from_codes(np.concatenate(codes[name]), pd.Index(list(categories[name])))
        for name in NAMED
    }
    return pd.DataFrame(
        {
            "position": np.concatenate(positions),
            **columns,
            "begin_ns": np.concatenate(begins) / 1000,
            "end_ns": np.concatenate(ends) / 1000,
        }
    )
