"""What `simulate` returns: a run's figures, tables and pictures, and the folder that keeps them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pimloom import __version__
from pimloom.arch.document import Document, InputError
from pimloom.arch.machine import Arch, load_arch
from pimloom.arch.tree import Findings, read_file
from pimloom.mapping.site import Site
from pimloom.reports import baselines
from pimloom.reports.definitions import CONFIG, COUNTS, MODEL, PROVENANCE, RESULT
from pimloom.reports.energy import EnergyTable, energy
from pimloom.reports.ops import ops_table
from pimloom.reports.plots import NAMES, SUFFIXES, Plots
from pimloom.reports.summary import simulator_block, summary
from pimloom.reports.tables import headline
from pimloom.reports.timeline import timeline
from pimloom.sim.channel import I8
from pimloom.sim.record import Record
from pimloom.workloads.model import Model, load_model
from pimloom.workloads.request import Workload

if TYPE_CHECKING:
    import pandas as pd

OPS, TIMELINE, FIGURES = "ops.parquet", "timeline.json", "figures"
FILES = (
    *(RESULT, OPS, CONFIG, MODEL, COUNTS, TIMELINE, PROVENANCE),
    *(f"{FIGURES}/{name}.{suffix}" for name in NAMES for suffix in SUFFIXES),
)
"""All that `Result.save` may write; of an older result nothing of it stays behind."""


@dataclass(frozen=True)
class Counts:
    """All that energy needs of a run: i8[channel, A] as in `sim.engine.Outcome`, and two times."""

    totals: I8
    time_ps: int
    asic_busy_ps: int


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run.

    summary: plain JSON types, as `--json` prints it; `reports.definitions` says what its keys mean
    documents: the resolved descriptions of "arch" and "model"
    record: every task's times; None for a result that was loaded from `folder`
    """

    summary: dict[str, Any] = field(repr=False)
    model: Model = field(repr=False)
    arch: Arch = field(repr=False)
    workload: Workload
    documents: Mapping[str, Document] = field(repr=False)
    counts: Counts = field(repr=False)
    record: Record | None = field(default=None, repr=False)
    folder: Path | None = None

    @classmethod
    def of_run(
        cls, *, model: Model, arch: Arch, workload: Workload, site: Site, record: Record,
        documents: Mapping[str, Document], engine: str, wall_s: float,
    ) -> Result:  # fmt: skip
        """Sum up a run that took `wall_s` on an engine."""
        told = summary(arch, model, workload, site, record)
        told["simulator"] = simulator_block(record, engine, wall_s)
        out = record.outcome
        counts = Counts(out.totals, out.end_ps, out.asic_busy_ps)
        return cls(told, model, arch, workload, documents, counts, record)

    @property
    def total_time_ns(self) -> float:
        """End of the last pass."""
        return float(self.summary["total_time_ns"])

    @property
    def time_per_token_ns(self) -> list[float]:
        """One entry a pass."""
        return cast("list[float]", self.summary["time_per_token_ns"])

    @property
    def ttft_ns(self) -> float:
        """Time to the first new token."""
        return float(self.summary["ttft_ns"])

    @property
    def tpot_ns(self) -> float | None:
        """Mean time of the new tokens after the first; None if there is one."""
        return cast("float | None", self.summary["tpot_ns"])

    @property
    def tokens_per_s(self) -> float:
        """New tokens of all sequences over the total time."""
        return float(self.summary["tokens_per_s"])

    @property
    def average_power_W(self) -> float:
        """Of the whole system, without what `energy().left_out` names."""
        return float(self.summary["average_power_W"])

    @property
    def energy_pJ(self) -> dict[str, float | None]:
        """Of the whole system by component, and "total"; None = unknown or not modelled."""
        return cast("dict[str, float | None]", self.summary["energy_pJ"])

    @property
    def plot(self) -> Plots:
        """Figures: `r.plot.latency()` and so on, each returns matplotlib Axes."""
        return Plots(self.summary, self.baselines())

    def baselines(self) -> list[baselines.Baseline]:
        """Return the same work on the processors that are known, measured or by their roofline."""
        return baselines.compare(self.model, self.workload)

    def energy(self, arch: Arch | None = None) -> EnergyTable:
        """Price the run's counts, with another machine's coefficients if given; nothing is simulated.

        Raises InputError if that machine has other commands.
        """
        arch = arch or self.arch
        if arch.dram.command_names != self.arch.dram.command_names:
            raise InputError(f"{arch.name} has other commands than {self.arch.name}, whose counts these are")
        return energy(arch, self.counts.totals, self.counts.time_ps, self.counts.asic_busy_ps)

    def to_pandas(self) -> pd.DataFrame:
        """Return every task in issue order: position, op, group, unit, begin_ns, end_ns.

        Raises InputError for a point of a sweep that was loaded: those keep no tasks.
        """
        if self.record is not None:
            return ops_table(self.record.notes)
        import pandas as pd

        assert self.folder is not None
        if not (self.folder / OPS).exists():
            raise InputError(f"{self.folder}: holds no {OPS}: simulate this run with --out to have its tasks")
        return pd.read_parquet(self.folder / OPS)

    def json(self) -> str:
        """Return the summary as JSON text, the same for the same run but for `simulator`."""
        return as_json(self.summary)

    def save(
        self, folder: str | os.PathLike[str], figures: bool = True, timeline: tuple[int, int] | None = None
    ) -> Path:
        """Write the result's files into a folder, which is made if need be, and return its path.

        timeline: the passes first .. stop - 1 that `timeline.json` shows; None = the last one
        Everything is written elsewhere first and then renamed; `result.json` comes last, so a folder that has
        one is complete. Nothing of an older result stays behind; other files do. Raises InputError if the path
        is a file or cannot be written, or if this result was itself loaded.
        """
        target = Path(folder)
        if self.record is None:
            raise InputError(f"{target}: this result was loaded from {self.folder}; copy that folder")
        if target.exists() and not target.is_dir():
            raise InputError(f"{target}: is a file, not a folder")
        is_new = not target.exists()
        try:
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".partial-", dir=target) as staged:
                self.write_brief(Path(staged))
                self._write_details(Path(staged), self.record, figures, timeline)
                _move(Path(staged), target)
        except OSError as error:
            raise InputError(f"{target}: cannot be written: {error.strerror or error}") from error
        finally:
            if is_new:
                with suppress(OSError):  # succeeds only where nothing was written: after an interrupt
                    target.rmdir()
        return target

    def write_brief(self, folder: Path) -> None:
        """Write into an existing folder what `load` reads, and provenance: no tasks, no timeline, no figures."""
        texts = {
            CONFIG: self.documents["arch"].text(),
            MODEL: self.documents["model"].text(),
            COUNTS: as_json(_counts_as_json(self.arch, self.counts)),
            PROVENANCE: as_json(provenance()),
            RESULT: self.json(),
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")

    def _write_details(
        self, folder: Path, record: Record, figures: bool, passes: tuple[int, int] | None
    ) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        steps = json.dumps(timeline(self.arch, record.notes, *(passes or ())), separators=(",", ":"))
        (folder / TIMELINE).write_text(steps, encoding="utf-8")
        table = pa.Table.from_pandas(self.to_pandas(), preserve_index=False)
        pq.write_table(table, folder / OPS, compression="zstd")
        if figures:
            self.plot.save(folder / FIGURES)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in headline(self.summary)
        )
        title = escape(f"{self.model.name} on {self.arch.name}")
        return f"<table><caption>{title}</caption><tbody>{rows}</tbody></table>"


def load(folder: str | os.PathLike[str]) -> Result:
    """Read a result back from its folder.

    Raises InputError if the folder holds none, or one that was written in another layout.
    """
    path = Path(folder)
    try:
        told = json.loads((path / RESULT).read_text(encoding="utf-8"))
        stored = json.loads((path / COUNTS).read_text(encoding="utf-8"))
        workload = Workload(**told["workload"])
        counts = Counts(np.array(stored["totals"], np.int64), stored["time_ps"], stored["asic_busy_ps"])
    except OSError as error:
        raise InputError(f"{path}: holds no result: {error.strerror}: {error.filename}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: holds no result that this version reads: {error}") from error
    for name in (CONFIG, MODEL):
        _refuse_extends(path / name)
    arch, arch_document = load_arch(str(path / CONFIG))
    model, model_document = load_model(str(path / MODEL))
    documents = {"arch": arch_document, "model": model_document}
    return Result(told, model, arch, workload, documents, counts, folder=path)


def _refuse_extends(path: Path) -> None:
    """Raise InputError if a resolved description extends another: a result's folder reads no file outside."""
    findings = Findings()
    root = read_file(path, findings)
    findings.raise_if_any()
    for keys, node in root.walk():
        if keys in ((), ("dram",)) and isinstance(node.value, dict) and "extends" in node.value:
            place = node.value["extends"].key_place
            findings.add(place, (*keys, "extends"), "a resolved description extends nothing")
    findings.raise_if_any()


def as_json(value: Any) -> str:
    """Return a value as the JSON text of a result's file."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _counts_as_json(arch: Arch, counts: Counts) -> dict[str, Any]:
    names = arch.dram.command_names
    extras = ("bank_open_clocks", "any_open_clocks", "data_tail_clocks", "stepped")
    columns = [*names, *(f"{name}_clocks" for name in names), *extras]
    return {
        "columns": columns,
        "totals": counts.totals.tolist(),
        "time_ps": counts.time_ps,
        "asic_busy_ps": counts.asic_busy_ps,
    }


def provenance() -> dict[str, Any]:
    """Return what made a result, where and when."""
    return {
        "pimloom": __version__,
        "git": _git_hash(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
    }


@cache
def _git_hash() -> str | None:
    """Return the commit of the package's source, with + if it was edited; None outside a repository."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", "pimloom") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _move(staged: Path, target: Path) -> None:
    """Move a result's files into a folder, in the place of an older result's."""
    for name in FILES:  # RESULT first: from here on the folder holds no result
        (target / name).unlink(missing_ok=True)
    files = sorted(path.relative_to(staged) for path in staged.rglob("*") if path.is_file())
    files.sort(key=lambda path: path.name == RESULT)
    for path in files:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staged / path, target / path)
    with suppress(OSError):  # figures that are no longer there may leave their folder empty
        (target / FIGURES).rmdir()
