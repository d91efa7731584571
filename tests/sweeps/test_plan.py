"""From a request to points: identities, values that do not go together, order."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from pimloom.arch.document import InputError
from pimloom.run import prepare
from pimloom.sim.source import source_hash
from pimloom.sweeps.description import load_sweep, make_sweep
from pimloom.sweeps.plan import Plan, Point, identity, plan
from tests.sweeps.files import from_file

MODELS = ["gpt2-small", "gpt2-medium"]
WITH_LANES = "pim.lanes=8,32"
"""Of which 32 are more than an access has elements."""


def planned(*axes: str, models: list[str] = MODELS[:1], overrides: tuple[str, ...] = ()) -> Plan:
    return plan(make_sweep(models, ["pim-gpt"], axes, overrides), 1000)


def only(found: Plan) -> Point:
    (point,) = found.points
    return point


def test_all_combinations_sorted() -> None:
    found = planned("dram.channels=16,4", "mapping.barrier=instruction,data", models=MODELS)
    assert found.keys == ("dram.channels", "mapping.barrier")
    rows = [(point.model, *point.values.values()) for point in found.points]
    assert rows == list(itertools.product(sorted(MODELS), (4, 16), ("data", "instruction")))
    assert len({point.id for point in found.points}) == len(found.points)
    assert found.members == (tuple(range(len(rows))),)


def test_one_order_of_values_of_any_type() -> None:
    found = planned("mapping.max_tokens=512,null,256", "workload.generate=8")
    assert [point.values["mapping.max_tokens"] for point in found.points] == [None, 256, 512]


def test_the_identity_is_that_of_the_resolved_run() -> None:
    point = only(planned("dram.channels=4", overrides=("workload.generate=16",)))
    setup = prepare("gpt2-small", "pim-gpt", generate=16, overrides=["dram.channels=4"])
    assert point.id == identity(setup, source_hash())
    assert re.fullmatch("[0-9a-f]{32}", point.id)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("asic.clock_Hz=1e8", "asic.clock_Hz=100000000"),
        ("asic.clock_Hz=1e8", "asic.clock_Hz=1e8:1e8:lin2"[:17]),
        ("dram.io.rate_bps,link.rate_bps=8e9", "link.rate_bps,dram.io.rate_bps=[8e9, 8000000000]"),
        ("workload.generate=128", "workload.batch=1"),
    ],
)
def test_ways_of_writing_the_same_are_the_same_point(one: str, other: str) -> None:
    assert only(planned(one)).id == only(planned(other)).id


def test_everything_that_decides_a_result_is_in_its_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    variants = [
        (), ("dram.channels=4",), ("pim.mac_power_W=0.2",), ("dram.timing.nRP=11",), ("model.layers=3",),
        ("workload.prompt=2",), ("workload.head=false",), ("mapping.barrier=data",), ("link.latency_ns=3",),
    ]  # fmt: skip
    found = [only(planned(overrides=variant)).id for variant in variants]
    monkeypatch.setattr("pimloom.sweeps.plan.source_hash", lambda: "another")
    found.append(only(planned()).id)
    monkeypatch.setattr("pimloom.sweeps.plan.SCHEMA_VERSION", 0)
    found.append(only(planned()).id)
    assert len(set(found)) == len(variants) + 2


def test_values_that_do_not_go_together_are_rows() -> None:
    found = planned(WITH_LANES, "workload.generate=8,2000")
    by_values = {tuple(point.values.values()): point for point in found.points}
    assert list(by_values) == [(8, 8), (8, 2000), (32, 8), (32, 2000)]
    assert by_values[8, 8].error == ""
    assert by_values[32, 8].id is None
    assert by_values[32, 8].error.startswith("pim.lanes: 32 lanes, but an access of 32 B")
    assert "but gpt2-small has 1024" in by_values[8, 2000].error


def test_a_refused_point_has_the_values_of_all_keys(tmp_path: Path) -> None:
    request = from_file(
        tmp_path,
        "grids: {a: {pim.lanes: [8, 32]}, b: {dram.channels: [4, 8], pim.clock_Hz: [1e9]}}\n",
    )
    found = plan(request, 100)
    assert [tuple(point.values.values()) for point in found.points] == [
        (8, 8, 1e9), (16, 4, 1e9), (16, 8, 1e9), (32, 8, 1e9),
    ]  # fmt: skip
    assert [bool(point.error) for point in found.points] == [False, False, False, True]


def test_an_unknown_key_in_one_of_several_grids(tmp_path: Path) -> None:
    request = from_file(
        tmp_path,
        "grids: {a: {dram.chanels: [4, 8]}, b: {workload.tokens: [1]}, c: {pim.lanes: [8, 16]}}\n",
    )
    with pytest.raises(InputError) as caught:
        plan(request, 100)
    first, second = str(caught.value).splitlines()
    assert "s.yaml:6:13: dram.chanels: there is no 'chanels' to override (did you mean 'channels'?)" in first
    assert "s.yaml:6:40: workload.tokens: there is no 'tokens' to override" in second


def test_values_of_any_shape() -> None:
    """Also of keys inside of lists, and of points that are refused."""
    rule = "[bank, [ACT, ACT_AB], [ACT, ACT_AB], 40]"
    found = planned(f"dram.constraints.row_cycle={rule},null", "pim.lanes=8,32")
    told = [point.values["dram.constraints.row_cycle"] for point in found.points]
    assert told == [None, None, *['["bank", ["ACT", "ACT_AB"], ["ACT", "ACT_AB"], 40]'] * 2]
    assert [point.values["pim.lanes"] for point in found.points] == [8, 32, 8, 32]
    found = planned("dram.constraints.row_cycle.3=40,nRC")
    assert [point.values["dram.constraints.row_cycle.3"] for point in found.points] == [40, "nRC"]


def test_one_refused_model_leaves_the_types_of_all_columns(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "kind: sweep\nversion: 1\nname: s\nmodels: [gpt2-small, gpt3-small]\narchs: [pim-gpt]\n"
        "set: {workload.generate: 2000}\n"
        "grids: {a: {pim.lanes: [8, 16]}, b: {dram.channels: [4]}}\n",
        encoding="utf-8",
    )
    found = plan(load_sweep(str(tmp_path / "s.yaml")), 100)
    assert [bool(point.error) for point in found.points] == [True] * 3 + [False] * 3
    assert [tuple(point.values.values()) for point in found.points] == [(8, 8), (16, 4), (16, 8)] * 2


def test_grids_share_points(tmp_path: Path) -> None:
    request = from_file(
        tmp_path,
        "set: {workload.generate: 8}\ngrids: {a: {dram.channels: [4, 8]}, b: {workload.generate: [8, 16]}}\n",
    )
    found = plan(request, 100)
    assert [tuple(point.values.values()) for point in found.points] == [(4, 8), (8, 8), (8, 16)]
    assert found.members == ((0, 1), (1, 2))


@pytest.mark.parametrize(
    ("axes", "messages"),
    [
        (["dram.chanels=4,8"], ["-s dram.chanels=4,8:1:1: ", "no 'chanels' to override (did you mean 'channels'?)"]),
        (["workload.tokens=4"], ["there is no 'tokens' to override"]),
        (["model.layer=4"], ["there is no 'layer' to override (did you mean 'layers'?)"]),
        (["batch=1,2"], ["-s batch=1,2:1:1: batch: a machine has no such key (did you mean 'workload.batch'?)"]),
        (["layers=2"], ["did you mean 'model.layers'?"]),
        (["channels=4"], ["there is no 'channels' to override (did you mean 'dram.channels'?)"]),
        (["asic.clock_Hz=1GHz"], ["should be a valid integer, not '1GHz'; a number alone, such as 1e9"]),
        (["dram.channels=4,x"], ["-s dram.channels=4,x:1:17: dram.channels: should be a valid integer, not 'x'"]),
        (["dram.channels=4,1.5"], ["should be a valid integer, not 1.5"]),
        (["dram.channels=0,4"], ["should be greater than or equal to 1, not 0"]),
        (["mapping.barrier=no,data"], ["should be 'instruction' or 'data', not 'no'"]),
        (["dram.chanels=4", "asic.clok_Hz=1"], ["'chanels'", "'clok_Hz'"]),
        (["pim.lanes=32,64"], ["32 lanes, but", "64 lanes, but"]),
    ],
)  # fmt: skip
def test_what_can_never_be_right_is_refused(axes: list[str], messages: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        planned(*axes, models=MODELS)
    for message in messages:
        assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == len(set(str(caught.value).splitlines()))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'gpt2-small'"):
        plan(make_sweep(["gpt2-smal"], ["pim-gpt"], []), 10)
    with pytest.raises(InputError, match="no arch description 'pim-gtp' is shipped"):
        plan(make_sweep(["gpt2-small"], ["pim-gtp"], []), 10)


def test_too_many_points_are_refused_without_making_them() -> None:
    axes = [f"dram.timing.{name}=1:50000:1" for name in ("nRP", "nRAS", "nCL")]
    with pytest.raises(InputError, match="125000000000000 points are more than --max-points 1000"):
        planned(*axes)


def test_many_complaints_are_cut() -> None:
    with pytest.raises(InputError, match="and 50 more$"):
        planned("dram.channels=-150:-1:1")


def test_two_models_of_one_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        text = f"extends: gpt2-small\nkind: model\nversion: 1\nname: same\nlayers: {3 + (name == 'a')}\n"
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    paths = [str(tmp_path / f"{name}.yaml") for name in ("a", "b")]
    with pytest.raises(InputError, match="a.yaml has the same name, 'same'; give one of them another"):
        plan(make_sweep(paths, ["pim-gpt"], []), 10)


def test_a_file_is_read_once(tmp_path: Path) -> None:
    """An edit after the plan changes neither what is run nor what it is called."""
    path = tmp_path / "m.yaml"
    text = "extends: gpt2-small\nkind: model\nversion: 1\nname: mine\nlayers: 2\n"
    path.write_text(text, encoding="utf-8")
    found = plan(make_sweep([str(path)], ["pim-gpt"], []), 10)
    path.write_text(text.replace("2", "3"), encoding="utf-8")
    point = only(found)
    assert found.resolver.setup(point.recipe).model.layers == 2
    assert identity(found.resolver.setup(point.recipe), found.source) == point.id
