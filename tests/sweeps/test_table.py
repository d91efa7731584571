"""The table: columns, types, what stands for no value, and the same bytes for the same points."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pimloom.reports.baselines import compare
from pimloom.sweeps import table
from pimloom.sweeps.description import load_sweep, make_sweep
from pimloom.sweeps.plan import Plan, plan
from pimloom.sweeps.store import Outcome

SUMMARY: dict[str, Any] = {
    "schema_version": 1, "model": "m", "arch": "a", "workload": {"prompt": 1}, "total_time_ns": 2e6,
    "tpot_ns": None, "time_per_token_ns": [1.0], "commands": {"ACT": 3}, "simulator": {"wall_s": 1.0},
    "energy_pJ": {"asic": 4.0, "link": None, "total": 8e6},
}  # fmt: skip


@pytest.fixture(scope="module")
def planned() -> Plan:
    axes = [
        "pim.lanes=8,32",
        "mapping.barrier=instruction",
        "mapping.max_tokens=null,512",
        "workload.head=true",
    ]
    return plan(make_sweep(["gpt2-small"], ["pim-gpt"], axes, ["workload.generate=8"]), 10)


def rows_of(planned: Plan, **changed: Any) -> list[table.Row]:
    brief = table.brief(Outcome(SUMMARY | changed))
    return table.rows(planned, {point.id: brief for point in planned.points if point.id})


def test_columns(planned: Plan, tmp_path: Path) -> None:
    table.write(tmp_path, planned, rows_of(planned))
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    baselines = compare(*((p.network, p.workload) for p in planned.points if p.id).__next__())  # type: ignore[arg-type]
    assert head[:7] == ["model", "arch", *planned.keys, "workload.generate"]
    results = [
        "workload.prompt",
        "total_time_ns",
        "tpot_ns",
        "commands.ACT",
        "energy_pJ.asic",
        "energy_pJ.link",
        "energy_pJ.total",
    ]
    assert head[7:14] == results
    assert head[-2:] == ["error", "point"]
    assert len(head) == 7 + len(results) + 2 * len(baselines) + 2
    assert lines[0][:7] == ["gpt2-small", "pim-gpt", "8", "instruction", "null", "true", "8"]
    assert lines[1][4] == "512"
    assert lines[0][7:14] == ["1", "2000000.0", "n/a", "3", "4.0", "n/a", "8000000.0"]
    assert lines[0][-2:] == ["", planned.points[0].id]
    assert lines[2][:7] == ["gpt2-small", "pim-gpt", "32", "instruction", "null", "true", "8"]
    assert set(lines[2][7:-2]) == {""}
    assert lines[2][-2].startswith("pim.lanes: 32 lanes")


def test_types(planned: Plan, tmp_path: Path) -> None:
    table.write(tmp_path, planned, rows_of(planned))
    frame = pd.read_parquet(tmp_path / "table.parquet")
    kinds = {name: frame[name].dropna().map(type).unique().tolist() for name in frame}
    assert kinds["model"] == kinds["mapping.barrier"] == kinds["error"] == [str]
    assert frame["workload.head"].tolist() == [True] * 4
    assert frame["workload.generate"].tolist() == [8] * 4
    assert frame["error"].isna().tolist() == [True, True, False, False]
    assert frame["pim.lanes"].tolist() == [8, 8, 32, 32]
    assert frame["total_time_ns"].tolist()[:2] == [2e6, 2e6]
    assert frame["tpot_ns"].isna().all() and frame["energy_pJ.link"].isna().all()
    assert frame["total_time_ns"].isna().tolist() == [False, False, True, True]
    csv_frame = pd.read_csv(tmp_path / "table.csv")
    pd.testing.assert_series_equal(csv_frame["energy_pJ.total"], frame["energy_pJ.total"])


def test_baselines(planned: Plan) -> None:
    point, row = planned.points[0], rows_of(planned)[0]
    assert point.network and point.workload
    for baseline in compare(point.network, point.workload):
        name = baseline.name.replace(", ", "_").replace(" ", "_").replace("-", "_")
        assert row[f"speedup_over.{name}"] == baseline.time_ns / 2e6
        expected = None if baseline.energy_pJ is None else baseline.energy_pJ / 8e6
        assert row[f"energy_saving_over.{name}"] == expected


def test_same_points_same_bytes(planned: Plan, tmp_path: Path) -> None:
    contents = []
    for name, wall_s in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        table.write(tmp_path / name, planned, rows_of(planned, simulator={"wall_s": wall_s}))
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]
    assert contents[0].keys() == {"table.parquet", "table.csv", "sweep.json"}


def test_what_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "kind: sweep\nversion: 1\nname: s\ndescription: d\nmodels: [gpt3-small, gpt2-small]\narchs: [pim-gpt]\n"
        "set: {workload.generate: 8}\n"
        "grids:\n  a: {'dram.io.rate_bps, link.rate_bps': [8e9, 16e9]}\n  b: {pim.lanes: [32, 8]}\n",
        encoding="utf-8",
    )
    planned = plan(load_sweep(str(tmp_path / "s.yaml")), 100)
    table.write(tmp_path, planned, rows_of(planned))
    asked = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    frame = pd.read_parquet(tmp_path / "table.parquet").set_index("point")
    assert asked["models"] == ["gpt3-small", "gpt2-small"]
    assert asked["set"] == {"workload.generate": 8}
    a, b = asked["grids"]
    assert a["axes"] == [
        {"keys": ["dram.io.rate_bps", "link.rate_bps"], "values": [[8 * 10**9] * 2, [16 * 10**9] * 2]}
    ]
    assert set(frame.loc[a["points"], "dram.io.rate_bps"]) == {8 * 10**9, 16 * 10**9}
    assert [axis["values"] for axis in b["axes"]] == [[[32], [8]]]
    assert set(frame.loc[b["points"], "pim.lanes"]) == {8}
    assert set(frame.loc[a["points"], "grids"]) == {"a"}
    assert frame["grids"].isin(["a", "b"]).all()


def test_the_table_of_another_sweep_goes(planned: Plan, tmp_path: Path) -> None:
    table.remove_other(tmp_path, planned)
    table.write(tmp_path, planned, rows_of(planned))
    table.remove_other(tmp_path, planned)
    assert {path.name for path in tmp_path.iterdir()} == {"table.parquet", "table.csv", "sweep.json"}
    table.remove_other(tmp_path, plan(make_sweep(["gpt2-small"], ["pim-gpt"], ["pim.lanes=8"]), 10))
    assert list(tmp_path.iterdir()) == []
