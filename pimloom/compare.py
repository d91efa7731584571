"""One model and workload on many machines, each beside its twin without PIM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pimloom import run, system
from pimloom.arch.document import shipped
from pimloom.arch.tree import InputError, did_you_mean
from pimloom.reports.result import as_json, provenance
from pimloom.reports.system import comparison_row, plot_comparison

Progress = Callable[[int, int, str], None]
TABLE, FIGURE, PROVENANCE = "comparison.json", "comparison", "provenance.json"


@dataclass(frozen=True)
class Comparison:
    """Rows as `reports.system.comparison_row` makes them, the machines in the order asked for."""

    title: str
    rows: list[dict[str, Any]]


def compare(
    model: str,
    archs: Sequence[str],
    *,
    twins: bool = True,
    progress: Progress | None = None,
    **options: Any,
) -> Comparison:
    """Run a model on every machine, and with `twins` on every system's twin whose host reads the same memory.

    options: as `run.prepare` and `system.prepare` take them
    Raises InputError for a machine that does not exist or cannot run the model.
    """
    kinds = {name: "system" for name in shipped("system")} | {name: "arch" for name in shipped("arch")}
    asked = [(name, _kind(name, kinds)) for name in archs]
    rows = []
    for done, (name, kind) in enumerate(asked):
        if progress:
            progress(done, len(asked), f"{model} on {name}")
        if kind == "arch":
            rows.append(comparison_row(run.simulate(model, name, **options).summary))
            continue
        for pim in (True, False) if twins else (True,):
            plan = system.prepare(model, name, pim=pim, **options)
            rows.append(comparison_row(system.simulate(plan).summary))
    prompt, generate, batch = (
        options.get(name, given) for name, given in (("prompt", 1), ("generate", 128), ("batch", 1))
    )
    times = f"{batch} x " if batch > 1 else ""
    return Comparison(f"{model}, {times}{prompt} prompt + {generate} new tokens", rows)


def _kind(name: str, kinds: dict[str, str]) -> str:
    from pimloom.arch.document import kind_of

    if "/" in name or name.endswith((".yaml", ".yml", ".json")):
        return kind_of(name)
    if name not in kinds:
        raise InputError(
            f"no machine {name!r} is shipped{did_you_mean(name, list(kinds))}; there are: {', '.join(kinds)}"
        )
    return kinds[name]


def save(compared: Comparison, folder: Path) -> list[Path]:
    """Write the table as JSON and the figure as PNG and PDF into a folder, made if need be; return the paths.

    Raises InputError where it cannot be written.
    """
    paths = [folder / TABLE, folder / PROVENANCE, *(folder / f"{FIGURE}.{end}" for end in ("png", "pdf"))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(as_json(compared.rows), encoding="utf-8")
        paths[1].write_text(as_json(provenance()), encoding="utf-8")
        for path in paths[2:]:
            plot_comparison(compared.rows, compared.title, path)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return paths
