"""The table of a sweep: a row a point, what was swept, then results; the same bytes however the points were run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimloom.reports.baselines import Baseline, compare
from pimloom.reports.sweep_data import LAST, SWEEP, TABLE
from pimloom.sweeps.plan import Plan, Point, Value, scalar
from pimloom.sweeps.store import Outcome, replace_file

if TYPE_CHECKING:
    import pyarrow as pa

CSV = "table.csv"
SWEEP_SCHEMA_VERSION = 1
LEFT_OUT = ("schema_version", "model", "arch", "simulator")
"""Of the summary: what a row says elsewhere, and what differs between two runs of the same thing."""

Row = dict[str, Value]


def brief(outcome: Outcome) -> Outcome:
    """Return an outcome with the summary as columns: its scalars by dotted keys, no lists."""
    if outcome.summary is None:
        return outcome
    return Outcome(_flat({key: value for key, value in outcome.summary.items() if key not in LEFT_OUT}))


def rows(plan: Plan, outcomes: Mapping[str, Outcome]) -> list[Row]:
    """Return the table's rows in the plan's order; outcomes: brief ones, by the points' ids."""
    known: dict[tuple[int, str], list[Baseline]] = {}
    fixed = {o.key: scalar(o.leaf.plain()) for o in plan.request.fixed if o.key not in plan.keys}
    grids = [(grid.name, set(rows)) for grid, rows in zip(plan.request.grids, plan.members, strict=True)]
    found = []
    for number, point in enumerate(plan.points):
        row: Row = {"model": point.model, "arch": point.arch, **point.values, **fixed}
        if len(grids) > 1:
            row["grids"] = ",".join(name for name, members in grids if number in members)
        outcome = outcomes[point.id] if point.id else Outcome(None, point.error)
        if outcome.summary is not None and point.network and point.workload:
            of = id(point.network), point.workload.model_dump_json()
            if of not in known:
                known[of] = compare(point.network, point.workload)
            row |= outcome.summary | dict(_against(outcome.summary, known[of]))
        found.append(row | {"error": outcome.error or None, "point": point.id})
    return found


def write(folder: Path, plan: Plan, table: Sequence[Row]) -> None:
    """Write the table as Parquet and CSV, and what the sweep was asked for as JSON.

    Raises OSError if the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    there = dict.fromkeys(name for row in table for name in row)
    names = [*(name for name in there if name not in LAST), *LAST]
    columns = {name: [row.get(name) for row in table] for name in names}
    arrow = pa.table({name: _array(values) for name, values in columns.items()})

    def write_parquet(path: Path) -> None:
        with path.open("wb") as file:  # pyarrow itself takes only paths that are Unicode
            pq.write_table(arrow, file, compression="zstd")

    replace_file(folder / TABLE, write_parquet)
    replace_file(folder / CSV, lambda path: _write_csv(path, plan.keys, columns))
    replace_file(folder / SWEEP, lambda path: path.write_text(_as_json(plan), encoding="utf-8"))


def remove_other(folder: Path, plan: Plan) -> None:
    """Remove the table of another sweep: it is not what will be in this folder, also if this sweep is interrupted."""
    with suppress(OSError):
        if (folder / SWEEP).read_text(encoding="utf-8") != _as_json(plan):
            for name in (SWEEP, CSV, TABLE):
                (folder / name).unlink(missing_ok=True)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Row:
    """Return the scalars of a summary by dotted keys; lists are left to the point's own files."""
    found: Row = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list):
            found[prefix + key] = value
    return found


def _against(summary: Mapping[str, Any], baselines: Sequence[Baseline]) -> Iterator[tuple[str, Value]]:
    total_pJ = summary["energy_pJ.total"]
    for b in baselines:
        name = re.sub(r"\W+", "_", b.name)
        yield f"speedup_over.{name}", b.time_ns / summary["total_time_ns"]
        yield f"energy_saving_over.{name}", b.energy_pJ / total_pJ if b.energy_pJ and total_pJ else None


def _array(values: Sequence[Value]) -> pa.Array:
    """Return a column of the narrowest type that holds all its values; of several types, as text."""
    import pyarrow as pa

    types = {type(value) for value in values if value is not None}
    if types <= {int, float}:
        return pa.array(values, pa.int64() if types == {int} else pa.float64())
    if types == {bool}:
        return pa.array(values, pa.bool_())
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _write_csv(path: Path, keys: Sequence[str], columns: Mapping[str, Sequence[Value]]) -> None:
    """Write the columns; what a key has not is null, what is not known of a run is n/a."""
    nothing = [("null" if name in keys else "" if name in LAST else "n/a") for name in columns]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for error, *values in zip(columns["error"], *columns.values(), strict=True):
            missing = [text.replace("n/a", "") for text in nothing] if error else nothing
            pairs = zip(values, missing, strict=True)
            writer.writerow([text if value is None else _cell(value) for value, text in pairs])


def _cell(value: Value) -> Value:
    return _text(value) if isinstance(value, bool) else value


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _as_json(plan: Plan) -> str:
    """Return what was asked for, resolved: figures are chosen by it."""
    request = plan.request

    def names(kind: str) -> list[str]:
        paths = getattr(request, f"{kind}s")
        of_path = {getattr(point.recipe, kind): getattr(point, kind) for point in plan.points}
        return [of_path[path] for path in paths]

    def points(grid: int) -> list[Point]:
        return [plan.points[number] for number in plan.members[grid]]

    asked = {
        "schema_version": SWEEP_SCHEMA_VERSION,
        "name": request.name,
        "description": request.description,
        "models": names("model"),
        "archs": names("arch"),
        "set": {override.key: override.leaf.plain() for override in request.fixed},
        "grids": [
            {
                "name": grid.name,
                "axes": [
                    {
                        "keys": list(axis.keys),
                        "values": [[leaf.plain() for leaf in step] for step in axis.steps],
                    }
                    for axis in grid.axes
                ],
                "points": [point.id for point in points(number) if point.id],
            }
            for number, grid in enumerate(request.grids)
        ],
    }
    return json.dumps(asked, indent=2, ensure_ascii=False) + "\n"
