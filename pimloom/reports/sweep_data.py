"""A finished sweep, as `pimloom sweep` left it in a folder: what was swept, and the numbers of every point.

pandas is imported when needed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from pimloom.arch.tree import InputError, did_you_mean
from pimloom.reports.definitions import RESULT

if TYPE_CHECKING:
    import pandas as pd

SWEEP, TABLE, POINTS = "sweep.json", "table.parquet", "points"
"""What was asked for, its table, and the folder of all points, in a sweep's folder."""
LAST = ("error", "point")
"""The last columns of the table: why a point has no result, and the name of its folder."""
WORK = ("prompt", "generate", "batch")
Scalar = bool | int | float | str | None


class Ratio(NamedTuple):
    """How often better than another: how its columns begin, and the metric to divide between points of the sweep."""

    column: str
    metric: str


RATIOS = {
    "speedup": Ratio("speedup_over.", "tokens_per_s"),
    "energy_saving": Ratio("energy_saving_over.", "energy_per_token_pJ"),
}
"""What is compared with other processors in the table, and between points in figures."""


@dataclass(frozen=True)
class Axis:
    """Keys that were swept together, and their values in the order asked for, those of failed points left out."""

    keys: tuple[str, ...]
    values: tuple[tuple[Scalar, ...], ...]

    def of(self, key: str) -> dict[str, Scalar]:
        """Return the distinct values of one of the keys by their texts."""
        at = self.keys.index(key)
        return {word(value[at]): value[at] for value in self.values}

    @property
    def lead(self) -> str:
        """The first key that tells all values apart."""
        return next(key for key in self.keys if len(self.of(key)) == len(self.values))

    def is_numeric(self, key: str) -> bool:
        """Whether all values of the key are numbers."""
        return all(type(value) in (int, float) for value in self.of(key).values())


@dataclass(frozen=True)
class Grid:
    """Every combination of the axes' values, as far as it did not fail.

    axes: what was swept; `model` and `arch` come first, also where there is only one
    words: swept key -> its value in every row, as text
    results: column -> number in every row, NaN = none
    work: `prompt`, `generate`, `batch` -> tokens, tokens, sequences in every row
    """

    name: str
    axes: tuple[Axis, ...]
    words: Mapping[str, list[str]] = field(repr=False)
    results: Mapping[str, list[float]] = field(repr=False)
    work: Mapping[str, list[int]] = field(repr=False)

    def axis(self, key: str) -> Axis:
        """Return the axis of a key. Raises InputError if it was not swept, or has equal values at several points."""
        for axis in self.axes:
            if key in axis.keys:
                if len(axis.of(key)) < len(axis.values):
                    raise InputError(f"{key}: has equal values at several points; draw {axis.lead} instead")
                return axis
        known = [key for axis in self.axes for key in axis.keys]
        raise InputError(f"{key}: not swept{did_you_mean(key, known)}; swept are {', '.join(known)}")

    def free(self, where: Mapping[str, str]) -> list[Axis]:
        """Return the axes of several values that `where` does not fix."""
        return [axis for axis in self.axes if len(axis.values) > 1 and where.keys().isdisjoint(axis.keys)]

    def rows(self, where: Mapping[str, str]) -> list[int]:
        """Return the rows with these texts."""
        every = range(len(self.words["model"]) if where.keys() <= self.words.keys() else 0)
        return [i for i in every if all(self.words[key][i] == text for key, text in where.items())]

    def processors(self, ratio: str) -> list[str]:
        """Return what a ratio is known over."""
        prefix = RATIOS[ratio].column
        known = (name for name, values in self.results.items() if any(map(math.isfinite, values)))
        return [name.removeprefix(prefix) for name in known if name.startswith(prefix)]


@dataclass(frozen=True)
class Sweep:
    """A finished sweep; `failed` points are in none of its grids."""

    name: str
    failed: int
    grids: tuple[Grid, ...]

    def grid(self, name: str) -> Grid:
        """Return the grid of that name. Raises InputError if there is none."""
        names = [grid.name for grid in self.grids]
        if name not in names:
            hint = did_you_mean(name, names)
            raise InputError(f"no grid {name!r}{hint}; there are: {', '.join(names)}")
        return self.grids[names.index(name)]


def word(value: Any) -> str:
    """Return a value of the table, of `sweep.json` or of the command line as text: equal ones get equal texts."""
    if type(value).__name__ == "bool":  # Python's or NumPy's
        return str(value).lower()
    try:
        number = float(value)
    except (TypeError, ValueError):
        return "null" if value is None or str(value) == "<NA>" else str(value)
    if math.isnan(number) and not isinstance(value, str):
        return "null"
    return f"{number:.12g}" if math.isfinite(number) else str(value)


class _GridFile(BaseModel):
    name: str
    axes: tuple[Axis, ...]
    points: tuple[str, ...]


class _SweepFile(BaseModel):
    schema_version: Literal[1]
    name: str
    models: tuple[str, ...]
    archs: tuple[str, ...]
    set: dict[str, Any]
    grids: tuple[_GridFile, ...]


def load_sweep(folder: str | os.PathLike[str]) -> Sweep:
    """Read what `pimloom sweep` left in a folder. Raises InputError if that is no sweep, or a broken one."""
    import pandas as pd
    from pyarrow import ArrowException

    root = Path(folder)
    try:
        file = _SweepFile.model_validate_json((root / SWEEP).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(_why_not(root, error)) from None
    try:
        table = pd.read_parquet(root / TABLE)
    except (OSError, ValueError, ArrowException) as error:
        reason = "is missing: the sweep did not finish" if isinstance(error, FileNotFoundError) else error
        raise InputError(f"{root / TABLE}: {reason}") from None
    swept = [key for grid in file.grids for axis in grid.axes for key in axis.keys]
    inputs = dict.fromkeys(("model", "arch", *swept))
    for key in (*inputs, *LAST):
        if key not in table:
            raise InputError(f"{root / TABLE}: has no column {key!r}, which {SWEEP} asks for")
    if len({grid.name for grid in file.grids}) < len(file.grids):
        raise InputError(f"{root / SWEEP}: two grids have the same name")
    rows = table[table["error"].isna() | (table["error"] == "")]
    grids = tuple(_grid(root, file, grid, rows, inputs) for grid in file.grids)
    return Sweep(file.name, len(table) - len(rows), grids)


def _why_not(root: Path, error: Exception) -> str:
    """Say why there is no readable `sweep.json`."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{root / SWEEP}: {'.'.join(map(str, first['loc'])) or 'broken'}: {first['msg']}"
    if (root / RESULT).exists():
        return f"{root}: a single run, no sweep; its figures are in {root / 'figures'}"
    if not isinstance(error, FileNotFoundError):
        return f"{root / SWEEP}: cannot be read: {getattr(error, 'strerror', None) or error}"
    if (root / POINTS).is_dir():
        return f"{root}: this sweep has not finished: run it again to go on"
    if root.is_dir():
        inside = ", ".join(sorted(path.parent.name for path in root.glob(f"*/{SWEEP}")))
        return f"{root}: no sweep: there is no {SWEEP}{inside and f'; there are {inside}'}"
    beside = [path.name for path in root.parent.glob("*") if path.is_dir()]
    return f"{root}: no such folder{did_you_mean(root.name, beside)}"


def _grid(root: Path, file: _SweepFile, grid: _GridFile, table: pd.DataFrame, inputs: Iterable[str]) -> Grid:
    """Return the rows of a grid, by column: what a point was given as words, numbers that it resulted in."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    rows = table[table["point"].isin(grid.points)]
    words = {key: [word(value) for value in rows[key]] for key in inputs}
    given = {*inputs, *file.set, *LAST}
    results = {
        str(name): column.to_numpy(float, na_value=math.nan).tolist()
        for name, column in rows.items()
        if name not in given and not str(name).startswith("workload.")
        if (is_numeric_dtype(column) and not is_bool_dtype(column)) or column.isna().all()
    }
    named = (("model", file.models), ("arch", file.archs))
    asked = (*(Axis((key,), tuple((name,) for name in names)) for key, names in named), *grid.axes)
    axes = []
    for axis in asked:
        places = list(zip(*(words[key] for key in axis.keys), strict=True))
        values = {tuple(map(word, value)): value for value in axis.values}
        there = set(places)
        if not values.keys() >= there:
            raise InputError(f"{root}: {TABLE} and {SWEEP} disagree about {', '.join(axis.keys)}")
        found = Axis(axis.keys, tuple(value for texts, value in values.items() if texts in there))
        if all(len(found.of(key)) < len(found.values) for key in found.keys):
            # No key tells all points apart, so the axis gets one that does.
            joined = " & ".join(found.keys)
            words[joined] = [", ".join(texts) for texts in places]
            found = Axis((*found.keys, joined), tuple((*v, ", ".join(map(word, v))) for v in found.values))
        axes.append(found)
    leads = [words[axis.lead] for axis in axes if axis.values]
    if len(set(zip(*leads, strict=True))) < len(rows):
        raise InputError(f"{root}: grid {grid.name!r} has several points with equal values of all swept keys")
    work = {name: rows[key].astype(int).tolist() for name in WORK if (key := f"workload.{name}") in rows}
    return Grid(grid.name, tuple(axes), words, results, work)
