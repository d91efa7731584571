"""AttAcc's streams: what they compute, and that they are those of the reference."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from pimloom.arch.device import Device, load_device
from pimloom.arch.tree import InputError
from pimloom.mapping.devices import lower
from pimloom.sim.window import Window
from pimloom.traces.stream import Attention, Elementwise, Gemv, Site
from tests.mapping.devices.attacc_units import execute

DATA = Path(__file__).parents[2] / "data" / "pim" / "attacc"
RESULTS = list(csv.DictReader((DATA / "results.csv").open()))
LEVELS = ("bank", "bg", "buffer")


def device(level: str, *overrides: str) -> Device:
    return load_device(f"attacc-{level}", overrides)[0]


def case(row: dict[str, str], as_generated: bool) -> tuple[Device, Gemv | Attention]:
    """A row of results.csv."""
    overrides = []
    if row["power_limit"] == "0":
        overrides.append("dram.timing.nCCDAB=4")
    if row["kind"].startswith("gemv"):
        return device("bank", *overrides, "unit.buffer_accesses=256"), Gemv(
            int(row["out_dim"]), int(row["in_dim"])
        )
    if row["bytes_per_element"] == "1":
        overrides += ["unit.element_B=1", "unit.arithmetic=int8"]
    if as_generated:
        overrides += ["options.as_generated=1", "options.round_rows=8", "options.value_row=8192"]
    heads = int(row["heads_per_stack"])
    work = Attention("attention", heads, heads, int(row["head_dim"]), int(row["context"]))
    return device(row["level"], *overrides), work


# --- the reference ------------------------------------------------------------------------


@pytest.mark.parametrize("row", RESULTS, ids=lambda row: row["case"])
def test_every_case_of_the_reference(row: dict[str, str]) -> None:
    machine, work = case(row, as_generated=True)
    issued = Window(machine).run(lower(machine, work, Site(16)).stream, 0, False)
    assert issued.cycles == int(row["cycles"])
    counts = dict(zip(machine.dram.command_names, issued.counts[0].tolist(), strict=True))
    for key, expected in row.items():
        if key.startswith("ch0_"):
            assert counts.get(key[4:], 0) == int(expected), key
    assert issued.counts.sum() == int(row["cmds_all_channels"])
    same = (issued.counts == issued.counts[0]).all()
    assert same == bool(int(row["all_channels_identical"]))


def test_complete_streams_take_as_long_where_the_generator_makes_no_slip() -> None:
    differ = {}
    for row in RESULTS:
        machine, work = case(row, as_generated=False)
        cycles = Window(machine).run(lower(machine, work, Site(16)).stream, 0, False).cycles
        if cycles != int(row["cycles"]):
            differ[row["case"]] = cycles
    # There the second head's values are in a row of their own, which the generator never opens.
    assert differ == {"att_bank_L128_nh32_pc1": 545, "att_bank_L128_nh64_pc1": 1093}


@pytest.mark.parametrize(("heads", "cycles"), [(130, 36572), (188, 48485)])
def test_long_runs_with_refresh(heads: int, cycles: int) -> None:
    """What the README of the reference says that the simulator computes, other than the table shipped with it."""
    machine = device("bank")
    work = Attention("attention", heads, heads, 128, 2048)
    assert Window(machine).run(lower(machine, work, Site(16)).stream, 0, False).cycles == cycles


RECORDED = sorted(path.name for path in DATA.glob("commands_*"))


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_commands(name: str) -> None:
    row = next(row for row in RESULTS if f"commands_{row['case']}_channel0.csv.gz" == name)
    machine, work = case(row, as_generated=True)
    log = Window(machine).run(lower(machine, work, Site(16)).stream, 0, True).logs[0]
    ours, theirs = [], []
    for clock, command, node, at, column, _ in log.tolist():
        named = machine.dram.command_names[command]
        # Closing and refreshing have no bank, moves no row; the reference logs those of the request.
        where = () if named in ("PREA", "REFab") else (node,)
        ours.append((clock + 1, named, *where, *detail(named, at, column)))
    with gzip.open(DATA / name, "rt") as file:
        for line in csv.DictReader(file):
            named, at, column = line["cmd"], int(line["row"]), int(line["col"])
            pc, rank, group, bank = (
                int(line[key]) for key in ("pseudo_channel", "rank", "bankgroup", "bank")
            )
            where = () if named in ("PREA", "REFab") else (((pc * 2 + rank) * 4 + group) * 4 + bank,)
            theirs.append((int(line["cycle"]), named, *where, *detail(named, at, column)))
    if "buffer" not in name:
        assert ours == theirs
        return
    # A slip of the reference: a MACPB of rank r also holds back the PREPB of bank group r of rank 0 for 8 clocks.
    assert len(ours) == len(theirs)
    assert len(set(theirs) - set(ours)) == 71
    late = [command for command in theirs if command not in ours][0]
    assert late == (1013, "PREPB", 4)
    assert (1007, "PREPB", 4) in ours
    assert (1004, "MACPB", 28, 0, 15) in ours


def detail(command: str, row: int, column: int) -> tuple[int, ...]:
    if command.startswith("MAC"):
        return row, column
    return (row,) if command.startswith("ACT") else ()


# --- what is computed ------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "d_head", "tokens", "channels"),
    [
        (1, 1, 64, 1, 1),
        (3, 3, 16, 17, 2),
        (5, 5, 67, 255, 2),
        (4, 2, 80, 257, 2),
        (6, 2, 128, 300, 1),
        (3, 3, 65, 769, 1),
    ],
)
def test_attention_is_attention(
    level: str, heads: int, kv_heads: int, d_head: int, tokens: int, channels: int
) -> None:
    machine = device(level)
    rng = np.random.default_rng(heads * tokens)
    q, keys, values = (
        rng.normal(size=shape) for shape in ((heads, d_head), *[(kv_heads, tokens, d_head)] * 2)
    )
    of = np.arange(heads) // (heads // kv_heads)
    score = np.einsum("hd,htd->ht", q, keys[of])
    p = np.exp(score - score.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    context = np.einsum("ht,htd->hd", p, values[of])
    for kind, vector, expected in (
        ("score", q, score),
        ("context", p, context),
        ("attention", q, context),
    ):
        work = Attention(kind, heads, kv_heads, d_head, tokens)
        kernel = lower(machine, work, Site(channels, row=3))
        found = execute(machine, kernel, vector.ravel(), keys=keys, values=values)
        np.testing.assert_allclose(found, expected.ravel(), rtol=1e-9, atol=1e-9)
        rows = np.concatenate([place.row.ravel() for place in kernel.stored().values()])
        assert rows.min() == 3
        assert rows.max() < 3 + kernel.rows


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    ("outputs", "inputs", "batch", "channels"),
    [(1, 1, 1, 1), (33, 65, 2, 2), (257, 63, 1, 1), (7, 1031, 1, 3), (300, 2100, 1, 1)],
)
def test_product_is_product(level: str, outputs: int, inputs: int, batch: int, channels: int) -> None:
    machine = device(level)
    rng = np.random.default_rng(outputs)
    matrix, x = rng.normal(size=(outputs, inputs)), rng.normal(size=(batch, inputs))
    kernel = lower(machine, Gemv(outputs, inputs, batch), Site(channels))
    found = execute(machine, kernel, x.ravel(), matrix=matrix)
    np.testing.assert_allclose(found, (x @ matrix.T).ravel(), rtol=1e-9, atol=1e-9)


def test_int8_halves_the_accesses() -> None:
    machine = device("bank", "unit.element_B=1", "unit.arithmetic=int8")
    rng = np.random.default_rng(0)
    q, keys, values = (rng.normal(size=shape) for shape in ((2, 130), (2, 601, 130), (2, 601, 130)))
    score = np.einsum("hd,htd->ht", q, keys)
    p = np.exp(score - score.max(axis=1, keepdims=True))
    expected = np.einsum("ht,htd->hd", p / p.sum(axis=1, keepdims=True), values)
    kernel = lower(machine, Attention("attention", 2, 2, 130, 601), Site(1))
    found = execute(machine, kernel, q.ravel(), keys=keys, values=values)
    np.testing.assert_allclose(found, expected.ravel(), rtol=1e-9, atol=1e-9)


# --- what cannot be done ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "site", "message"),
    [
        (Attention("attention", 1, 1, 64, 4097), Site(16), "4097 tokens, but half of the input buffer"),
        (Attention("score", 1, 1, 1025, 16), Site(16), "a head of 1025 dimensions"),
        (Attention("score", 3, 2, 64, 16), Site(16), "3 query heads cannot share 2"),
        (Attention("score", 1, 1, 64, 16), Site(17), "has 16 channels, not 17"),
        (Attention("attention", 1, 1, 64, 16), Site(16, 16383), "rows 16383 to 16384 of 16384"),
        (Gemv(64, 64), Site(0), "has 16 channels, not 0"),
        (Gemv(64, 64), Site(1, 16384), "rows 16384 to 16384 of 16384"),
        (Elementwise("add", 16), Site(1), "has no add"),
    ],
)
def test_errors(work: Gemv | Attention | Elementwise, site: Site, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lower(device("bank"), work, site)


def test_unknown_commands_of_the_controller() -> None:
    with pytest.raises(
        InputError, match=r"controller.alone.0: unknown command 'PREPC' \(did you mean 'PREPB'"
    ):
        device("buffer", "controller.alone=[PREPC]")


def test_streams_as_generated_compute_nothing() -> None:
    machine = device("bank", "options.as_generated=1")
    kernel = lower(machine, Attention("attention", 2, 2, 64, 16), Site(1))
    with pytest.raises(InputError, match="as_generated"):
        kernel.feed()
