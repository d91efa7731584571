"""Finished sweeps of which every number is known, without any simulation."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from pimloom.reports.sweep_choice import Spec, Wanted, figures
from pimloom.reports.sweep_data import Sweep, load_sweep

Row = dict[str, Any]
Axes = dict[str, Sequence[Any]]

EIGHT = tuple(f"gpt{n}-{size}" for n in (2, 3) for size in ("small", "medium", "large", "xl"))
CHANNELS = {"dram.channels": (4, 8, 16)}
CLOCKS = {"asic.clock_Hz": (1e8, 2e8, 5e8, 1e9, 2e9)}
RATES = {"dram.io.rate_bps,link.rate_bps": ((8e9, 8e9), (16e9, 16e9), (24e9, 24e9))}
ZIPPED = {"pim.lanes,asic.adders": ((4, 64), (4, 128), (8, 128))}
"""Neither key alone tells the points apart."""
BARRIERS = {"mapping.barrier": ("instruction", "data")}
TOKENS = {"workload.generate": (1, 128)}
FIXED = {"link.width_bit": 64}


def results(row: Row) -> Row:
    """Numbers that are easily computed by hand: 10 tokens/s a channel and 1 mJ a token and channel for "a"."""
    size = 1 + len(row["model"]) - len("a") if row["model"] not in EIGHT else 1 + EIGHT.index(row["model"])
    channels = row.get("dram.channels", 8)
    pace = 10 * channels * (2 if row["arch"] == "fast" else 1) * (row.get("asic.clock_Hz", 1e9) / 1e9) ** 0.5
    return {
        "tokens_per_s": pace / size,
        "energy_per_token_pJ": 1e9 * channels * size,
        "ttft_ns": 5e6 * size,
        "tpot_ns": None if row.get("workload.generate") == 1 else 2e6 * size,
        "pim_utilisation": 0.25,
        "speedup_over.NVIDIA_T4_roofline": 2.0 * size,
        "speedup_over.NVIDIA_H200_graph": 8.0 if row["model"] != "bb" else None,
        "energy_saving_over.NVIDIA_T4_roofline": 100.0 * size,
        "energy_saving_over.NVIDIA_H200_graph": None,
    }


def write(
    folder: Path, grids: dict[str, Axes], models: Sequence[str] = ("a",), archs: Sequence[str] = ("pim-gpt",),
    numbers: Callable[[Row], Row] = results, fails: Callable[[Row], bool] = lambda row: False,
) -> Path:  # fmt: skip
    """Write a sweep as `pimloom sweep` does; keys that are swept together are joined by a comma."""
    rows: list[Row] = []
    told = []
    for name, axes in grids.items():
        points = []
        keys = [key.split(",") for key in axes]
        values = [[v if "," in key else (v,) for v in values] for key, values in axes.items()]
        for model, arch, *steps in itertools.product(models, archs, *values):
            row = {"model": model, "arch": arch}
            for names, step in zip(keys, steps, strict=True):
                row |= dict(zip(names, step, strict=True))
            found, error = numbers(row), "does not fit" if fails(row) else None
            points.append(f"{name}{len(rows)}")
            found = dict.fromkeys(found) if error else {"workload.prompt": 1} | found
            rows.append(row | FIXED | found | {"error": error, "point": points[-1]})
        axes_told = [{"keys": k, "values": v} for k, v in zip(keys, values, strict=True)]
        told.append({"name": name, "axes": axes_told, "points": points})
    about = {
        "schema_version": 1,
        "name": "study",
        "models": models,
        "archs": archs,
        "set": FIXED,
        "grids": told,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(about))
    pd.DataFrame(rows).to_parquet(folder / "table.parquet")
    return folder


def make(axes: dict[str, Any], *args: Any, **more: Any) -> Sweep:
    """A sweep of one grid, or of several given as a mapping by name."""
    grids = axes if axes and all(isinstance(v, dict) for v in axes.values()) else {"grid": axes}
    with TemporaryDirectory() as folder:
        return load_sweep(write(Path(folder), grids, *args, **more))


def one(sweep: Sweep, **wanted: Any) -> Spec:
    """The only figure that shows what is wanted."""
    (spec,) = figures(sweep, Wanted(**wanted))
    return spec


def first(sweep: Sweep, **wanted: Any) -> Spec:
    """The first of the figures of this kind or metric."""
    return next(
        spec for spec in figures(sweep) if all(getattr(spec, key) == value for key, value in wanted.items())
    )
