"""Generation steps with attention in memory, against the figures of AttAcc's simulator."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pimloom.arch.gpu import load_gpu
from pimloom.offload import generation_step
from pimloom.reports.cases import Row
from pimloom.reproduce_attacc import MODELS, columns, memory_of, reproduce_steps

DATA = Path(__file__).parent / "data" / "pim" / "attacc"
ROWS = [row for row in csv.DictReader((DATA / "end_to_end.csv").open()) if not row["case"].startswith("lut")]
HOST = load_gpu("a100a")[0]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["case"])
def test_generation_steps_of_the_reference(row: dict[str, str]) -> None:
    decoder = MODELS[row["model"]]
    memory = None if row["hw"] == "NONE" else memory_of(Row(DATA, 1, row), decoder.d_head)
    step = generation_step(HOST, int(row["cores"]), decoder, int(row["bs"]), int(row["Lin"]) + 1, memory)
    for key, value in columns(step).items():
        assert value == pytest.approx(float(row[key]), rel=1e-9, abs=1e-12), key


def test_shipped_rows_are_those_of_the_reference() -> None:
    told = reproduce_steps()
    assert [row["case"] for row in told] == [row["case"] for row in ROWS]
    for row in told:
        assert abs(row["difference"]) < 1e-9
        assert row["cycles"] == row["reference_cycles"]
        assert abs(row["energy_nJ"]["difference"]) < 1e-9
