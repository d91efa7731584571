"""A sweep from what is asked for to its table: plan, store, executor."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from pimloom.arch.document import InputError
from pimloom.reports import sweep_data
from pimloom.reports.sweep_data import POINTS, TABLE
from pimloom.sweeps import table
from pimloom.sweeps.description import Request, load_sweep, make_sweep
from pimloom.sweeps.execute import Job, Office, execute
from pimloom.sweeps.plan import Plan, Point, plan
from pimloom.sweeps.store import Outcome, Store

if TYPE_CHECKING:
    import pandas as pd

MAX_POINTS = 10_000


@dataclass(frozen=True)
class Tally:
    """How many points there are, and what became of those that are done."""

    points: int
    run: int = 0
    reused: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """All that need no more work."""
        return self.run + self.reused + self.failed


class Options(TypedDict, total=False):
    """The options of `run_sweep`, by name."""

    workers: int | None
    reuse: Sequence[str | os.PathLike[str]]
    retry_failed: bool
    max_points: int
    progress: Callable[[Tally], None] | None
    announce: Callable[[], None] | None


@dataclass(frozen=True, eq=False)
class Swept:
    """A finished sweep: its rows are in `table.parquet` and `table.csv` of the folder."""

    folder: Path
    plan: Plan = field(repr=False)
    rows: list[table.Row] = field(repr=False)
    tally: Tally

    def to_pandas(self) -> pd.DataFrame:
        """Return the table."""
        import pandas as pd

        return pd.read_parquet(self.folder / TABLE)

    @property
    def files(self) -> list[Path]:
        """The table as Parquet and as CSV."""
        return [self.folder / TABLE, self.folder / table.CSV]

    @property
    def failures(self) -> dict[str, list[table.Row]]:
        """Reason -> rows that failed for it, the most frequent first."""
        found: dict[str, list[table.Row]] = {}
        for row in self.rows:
            if row["error"]:
                found.setdefault(str(row["error"]), []).append(row)
        return dict(sorted(found.items(), key=lambda item: -len(item[1])))

    def plot(self, folder: str | os.PathLike[str] | None = None, **wanted: Any) -> list[Path]:
        """Draw the sweep as PNG, PDF and SVG, by default below its own folder, and return the paths.

        wanted: fields of `reports.sweep_choice.Wanted`; what is left out is chosen by what was swept
        Raises InputError for what cannot be drawn.
        """
        from pimloom.reports.sweep_choice import Wanted, figures
        from pimloom.reports.sweep_plots import save

        swept = sweep_data.load_sweep(self.folder)
        return save(swept, figures(swept, Wanted(**wanted)), folder or self.folder / "figures")


def sweep(
    models: str | Sequence[str],
    archs: str | Sequence[str] | None = None,
    axes: Mapping[str, Any] | None = None,
    *,
    out: str | os.PathLike[str],
    overrides: str | Sequence[str] | Mapping[str, Any] = (),
    **options: Unpack[Options],
) -> Swept:
    """Run a sweep by its name or file, or models on machines with the axes of one grid; what is done is kept in `out`.

    axes: key, or keys with commas between them -> list of values, or a range as text such as "1e8:1e9:log5"
    overrides: `key=value` of all points, or key -> value; options: as for `run_sweep`
    Raises InputError for anything wrong, before anything runs.
    """
    if isinstance(overrides, Mapping):
        overrides = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
    fixed = _names(overrides)
    if archs is None:
        if axes or not isinstance(models, str):
            raise InputError("a sweep needs machines, or the name of a sweep alone")
        return run_sweep(load_sweep(models, fixed), out, **options)
    texts = [f"{key}={_values(values)}" for key, values in (axes or {}).items()]
    return run_sweep(make_sweep(_names(models), _names(archs), texts, fixed), out, **options)


def _names(given: str | Sequence[str]) -> Sequence[str]:
    return [given] if isinstance(given, str) else given


def _values(given: Any) -> str:
    """Return values as the command line writes them."""
    if isinstance(given, str):
        return given
    values = list(given) if isinstance(given, Iterable) else [given]
    return json.dumps(values, default=lambda number: number.item())[1:-1]  # NumPy's have `item`


def run_sweep(
    request: Request,
    out: str | os.PathLike[str],
    *,
    workers: int | None = None,
    reuse: Sequence[str | os.PathLike[str]] = (),
    retry_failed: bool = False,
    max_points: int = MAX_POINTS,
    progress: Callable[[Tally], None] | None = None,
    announce: Callable[[], None] | None = None,
) -> Swept:
    """Run every point of a sweep that is not in its folder, and write its table.

    workers: processes, by default one a core; reuse: folders of other sweeps whose points are taken over
    retry_failed: points that failed before are run again; announce: called before anything is run
    Raises InputError for anything wrong with the request or the folders, before anything runs.
    """
    store = Store(Path(out))
    others = [_other(Path(folder)) for folder in reuse]
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers}: should be at least 1")
    planned = plan(request, max_points)
    _make(store)
    store.clean()
    wanted = {point.id: point for point in planned.points if point.id}
    # Only what the table needs of a point is kept: the times of its tokens would be very many numbers.
    outcomes = {name: table.brief(found) for name in wanted if (found := _known(name, store, others))}
    again = {name for name, found in outcomes.items() if retry_failed and found.summary is None}
    jobs = [
        Job(name, point.recipe, name in again)
        for name, point in sorted(wanted.items(), key=lambda item: -_cost(item[1]))
        if name not in outcomes or name in again
    ]
    counts = Counter(
        "failed" if found.summary is None else "reused" for n, found in outcomes.items() if n not in again
    )
    counts["failed"] += sum(point.id is None for point in planned.points)

    def tally() -> Tally:
        return Tally(len(planned.points), counts["run"], counts["reused"], counts["failed"])

    if progress:
        progress(tally())
    table.remove_other(store.folder, planned)
    if jobs:
        from pimloom.sim.jit import is_cold

        if announce:
            announce()
        office = Office(planned.resolver, store.folder, planned.source)
        try:
            with closing(execute(jobs, office, workers or _cores(), is_cold())) as finished:
                for _, status in finished:
                    counts[status] += 1
                    if progress:
                        progress(tally())
        finally:
            store.clean()
    outcomes |= {job.id: table.brief(_outcome(store, job.id)) for job in jobs}
    rows = table.rows(planned, outcomes)
    table.write(store.folder, planned, rows)
    return Swept(store.folder, planned, rows, tally())


def _other(folder: Path) -> Store:
    if not (folder / POINTS).is_dir():
        raise InputError(f"{folder}: holds no points of a sweep to reuse")
    return Store(folder)


def _make(store: Store) -> None:
    try:
        (store.folder / POINTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{store.folder / POINTS}: cannot be written: {error.strerror}") from error


def _known(name: str, store: Store, others: Sequence[Store]) -> Outcome | None:
    """Return what is known of a point; what only another store knows is copied from there."""
    found = store.read(name)
    for other in others:
        if found is None or found.summary is None:
            elsewhere = other.read(name)
            if elsewhere and elsewhere.summary is not None:
                store.adopt(name, other)
                found = elsewhere
    return found


def _outcome(store: Store, name: str) -> Outcome:
    found = store.read(name)
    assert found is not None, f"{store.path(name)} has gone while the sweep was running"
    return found


def _cost(point: Point) -> int:
    """About how long a point takes, in no unit: the longest are begun first, so that no process ends much later."""
    assert point.network and point.workload
    return point.network.parameters * point.workload.passes * point.workload.batch


def _cores() -> int:
    with suppress(AttributeError):  # not on every system
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
