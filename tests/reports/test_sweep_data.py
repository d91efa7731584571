"""Reading a finished sweep: what was swept, and what is said of a folder that is none or is broken."""

import math
from pathlib import Path

import pandas as pd
import pytest

from pimloom.arch.tree import InputError
from pimloom.reports.sweep_data import load_sweep, word
from tests.reports.sweeps import CHANNELS, TOKENS, ZIPPED, make, write


def test_rows_and_axes_of_a_grid() -> None:
    sweep = make(CHANNELS | TOKENS, ["a", "bbb"])
    (grid,) = sweep.grids
    assert [(axis.lead, [*axis.of(axis.lead)]) for axis in grid.axes] == [
        ("model", ["a", "bbb"]),
        ("arch", ["pim-gpt"]),
        ("dram.channels", ["4", "8", "16"]),
        ("workload.generate", ["1", "128"]),
    ]
    assert [axis.lead for axis in grid.free({"dram.channels": "4"})] == ["model", "workload.generate"]
    (row,) = grid.rows({"model": "bbb", "dram.channels": "8", "workload.generate": "1"})
    assert grid.results["ttft_ns"][row] == 15e6
    assert math.isnan(grid.results["tpot_ns"][row])
    assert {"workload.prompt", "link.width_bit", "dram.channels"}.isdisjoint(grid.results)  # these were given
    assert grid.processors("speedup") == ["NVIDIA_T4_roofline", "NVIDIA_H200_graph"]
    assert grid.processors("energy_saving") == ["NVIDIA_T4_roofline"]


def test_failed_points_are_counted_and_left_out() -> None:
    sweep = make(CHANNELS, ["a", "bbb"], fails=lambda row: row["model"] == "bbb" or row["dram.channels"] == 4)
    (grid,) = sweep.grids
    assert (sweep.failed, len(grid.rows({}))) == (4, 2)
    assert [[*axis.of(axis.lead)] for axis in grid.axes] == [["a"], ["pim-gpt"], ["8", "16"]]


def test_a_zipped_axis_that_no_key_tells_apart() -> None:
    grid = make(ZIPPED).grid("grid")
    axis = grid.axis("pim.lanes & asic.adders")
    assert [*axis.of(axis.lead)] == ["4, 64", "4, 128", "8, 128"]
    with pytest.raises(InputError, match="equal values at several points; draw pim.lanes & asic.adders"):
        grid.axis("pim.lanes")


def test_equal_values_have_equal_words() -> None:
    assert word(8) == word(8.0) == word("8") == word("8e0") == "8"
    assert word(None) == word(math.nan) == word(pd.NA) == "null"
    assert word(True) == word(pd.Series([True])[0]) == "true"
    assert word("nan") == "nan"


def test_the_folder_is_told_apart(tmp_path: Path) -> None:
    folder = write(tmp_path / "channels", {"grid": CHANNELS})
    assert load_sweep(folder).name == "study"
    with pytest.raises(InputError, match="no such folder \\(did you mean 'channels'"):
        load_sweep(tmp_path / "chanels")
    with pytest.raises(InputError, match=r"no sweep: there is no sweep.json; there are channels"):
        load_sweep(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text("{}")
    with pytest.raises(InputError, match="a single run, no sweep; its figures are in"):
        load_sweep(tmp_path / "run")
    with pytest.raises(InputError, match="cannot be read"):
        load_sweep(folder / "sweep.json")


def test_broken_files(tmp_path: Path) -> None:
    folder = write(tmp_path, {"grid": CHANNELS, "other": CHANNELS})
    good = (folder / "sweep.json").read_text()
    for text, message in (
        ("{", "broken: Invalid JSON"),
        ("[]", "broken"),
        (good.replace('"schema_version": 1', '"schema_version": 2'), "schema_version: Input should be 1"),
        (good.replace('"models"', '"model"'), "models: Field required"),
        (good.replace('"keys"', '"key"'), "grids.0.axes.0.keys: Field required"),
        (good.replace("[16]", "[32]"), "disagree about dram.channels"),
        (good.replace("[[4], [8], [16]]", "[[4, 5], [8], [16]]"), "disagree about dram.channels"),
        (good.replace("dram.channels", "dram.rows"), "has no column 'dram.rows'"),
        (good.replace('"axes": [', '"axes": [], "old": ['), "several points with equal values"),
        (good.replace('["a"]', "[]"), "disagree about model"),
        (good.replace('"other"', '"grid"'), "two grids have the same name"),
    ):
        (folder / "sweep.json").write_text(text)
        with pytest.raises(InputError) as error:
            load_sweep(folder)
        assert message in str(error.value)
    (folder / "sweep.json").write_text(good)
    (folder / "table.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"table.parquet"):
        load_sweep(folder)
    (folder / "table.parquet").unlink()
    with pytest.raises(InputError, match=r"table.parquet: is missing"):
        load_sweep(folder)
